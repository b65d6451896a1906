// SPDX-FileCopyrightText: The Winnow authors
// SPDX-License-Identifier: Apache-2.0
#include "cli/exit_code.h"

namespace winnow::cli {

int exit_code(ErrorCode code) {
  switch (code) {
    case ErrorCode::kUsage:
      return kExitUsage;
    case ErrorCode::kBadData:
      return kExitBadData;
    case ErrorCode::kBudget:
      return kExitBudget;
    case ErrorCode::kSystem:
      return kExitSystem;
    case ErrorCode::kInterrupted:
      return kExitInterrupted;
    case ErrorCode::kInternal:
      return kExitInternal;
  }
  return kExitInternal;
}

}  // namespace winnow::cli
