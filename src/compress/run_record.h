// SPDX-FileCopyrightText: The Winnow authors
// SPDX-License-Identifier: Apache-2.0
// What a compression's measurements depend on, so that an unfinished run is recognised.
#pragma once

#include <cstdint>
#include <string_view>

#include "base/json.h"
#include "compress/calibration_text.h"
#include "compress/compressor.h"

namespace winnow::compress {

/// What the pieces in <OUT>.partial/ depend on. The budget is not among it where another one may
/// use them. text: null without.
Json run_record(const model::Checkpoint& source, const CompressOptions& options,
                const CalibrationText* text, std::string_view isa, std::uint64_t budget);

}  // namespace winnow::compress
