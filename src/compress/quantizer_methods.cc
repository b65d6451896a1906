// SPDX-FileCopyrightText: The Winnow authors
// SPDX-License-Identifier: Apache-2.0
#include "compress/quantizer_methods.h"

#include <algorithm>
#include <vector>

namespace winnow::compress {
namespace {

/// One candidate, taken whatever its loss.
HessianQuantizerOptions unguarded(ScaleWeights scale_weights, bool feedback) {
  HessianQuantizerOptions options;
  options.dampings = {0.01};
  options.scale_weights = scale_weights;
  options.feedback = feedback;
  options.descent.reset();
  options.guard = false;
  return options;
}

}  // namespace

std::span<const QuantizerMethod> quantizer_methods() {
  static const std::vector<QuantizerMethod> methods = {
      {"rtn", "nearest codes, scales of least squared weight error; reads no text",
       unguarded(ScaleWeights::kEqual, /*feedback=*/false)},
      {"imatrix", "nearest codes, errors weighted with the mean square of their input column",
       unguarded(ScaleWeights::kDiagonal, /*feedback=*/false)},
      {"gptq", "error feedback, columns by importance, scales as in rtn (arXiv:2210.17323)",
       unguarded(ScaleWeights::kEqual, /*feedback=*/true)},
      {"hessian", "scales, feedback, descent and guard under the full Hessian: the default",
       HessianQuantizerOptions{}},
  };
  return methods;
}

const QuantizerMethod* find_quantizer_method(std::string_view name) {
  const auto methods = quantizer_methods();
  const auto found = std::find_if(methods.begin(), methods.end(),
                                  [&](const QuantizerMethod& m) { return m.name == name; });
  return found == methods.end() ? nullptr : &*found;
}

}  // namespace winnow::compress
