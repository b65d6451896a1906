// SPDX-FileCopyrightText: The Winnow authors
// SPDX-License-Identifier: Apache-2.0
// Published ways to choose codes and scales, as settings of the one quantiser, so that they can be
// compared with the default on equal terms: same blocks, same calibration text, same bytes.
#pragma once

#include <span>
#include <string_view>

#include "compress/hessian_quantizer.h"

namespace winnow::compress {

struct QuantizerMethod {
  std::string_view name;
  std::string_view summary;  ///< one line, with the source
  HessianQuantizerOptions options;
};

/// All of them, the default last.
std::span<const QuantizerMethod> quantizer_methods();
/// Null when there is none of that name.
const QuantizerMethod* find_quantizer_method(std::string_view name);

}  // namespace winnow::compress
