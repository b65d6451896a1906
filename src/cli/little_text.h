// SPDX-FileCopyrightText: The Winnow authors
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "base/log.h"
#include "metrics/text_data.h"

namespace winnow::cli {

/// Warns of calibration text from which next to nothing can be told.
void warn_of_little_text(const metrics::WindowSet& text, Log& log);

}  // namespace winnow::cli
