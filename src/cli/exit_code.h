// SPDX-FileCopyrightText: The Winnow authors
// SPDX-License-Identifier: Apache-2.0
// The exit codes of the program, part of its contract with scripts.
#pragma once

#include "base/error.h"

namespace winnow::cli {

constexpr int kExitOk = 0;
constexpr int kExitUsage = 1;
constexpr int kExitBadData = 2;
constexpr int kExitBudget = 3;
constexpr int kExitSystem = 4;
constexpr int kExitInternal = 70;
constexpr int kExitInterrupted = 130;  ///< 128 + SIGINT
constexpr int kExitTerminated = 143;   ///< 128 + SIGTERM

/// The exit code for an error of this kind; an interrupt counts as SIGINT here, the caller knows
/// the signal.
int exit_code(ErrorCode code);

}  // namespace winnow::cli
