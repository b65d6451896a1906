// SPDX-FileCopyrightText: The Winnow authors
// SPDX-License-Identifier: Apache-2.0
// The steps of the Hessian quantiser by name, each of which can be left out.
#pragma once

#include <span>
#include <string>
#include <string_view>

#include "compress/hessian_quantizer.h"

namespace winnow::compress {

/// A step and what it does, one line.
struct QuantizerStep {
  std::string_view name;
  std::string_view summary;
};

/// In the order in which they work; all are part of the default.
std::span<const QuantizerStep> quantizer_steps();

/// Their names, separated by commas.
std::string quantizer_step_names();

/// The default with exactly the steps of `list`, names separated by commas; "none" leaves the
/// codec's encoder. Throws Error{kUsage} with all names for another one.
HessianQuantizerOptions options_of_steps(const std::string& list);

}  // namespace winnow::compress
