// SPDX-FileCopyrightText: The Winnow authors
// SPDX-License-Identifier: Apache-2.0
#include "compress/quantizer_methods.h"

#include <algorithm>
#include <string>
#include <vector>

#include "base/error.h"

namespace winnow::compress {
namespace {

/// One candidate, taken whatever its loss.
HessianQuantizerOptions unguarded(ScaleWeights scale_weights, bool feedback,
                                  ScaleSearch scale_search = ScaleSearch::kCodec) {
  HessianQuantizerOptions options;
  options.dampings = {0.01};
  options.scale_weights = scale_weights;
  options.feedback = feedback;
  options.neighbour_scales = false;
  options.descent.reset();
  options.guard = false;
  options.scale_search = scale_search;
  return options;
}

/// Channel scales wherever a layer has a place for them.
TransformWishes scales_everywhere(ScaleFamily family) {
  TransformWishes wishes;
  wishes.inner_scales = wishes.value_scales = family;
  wishes.attention_input = wishes.ffn_input = family;
  return wishes;
}

std::vector<QuantizerMethod> all_methods() {
  return {
      {"rtn", "nearest codes, scales of least squared weight error; reads no text", "",
       unguarded(ScaleWeights::kEqual, /*feedback=*/false)},
      {"imatrix", "nearest codes, errors weighted with the mean square of their input column", "",
       unguarded(ScaleWeights::kDiagonal, /*feedback=*/false)},
      {"stock",
       "the bytes of llama.cpp's quantiser, with its importances where there is text",
       "",
       unguarded(ScaleWeights::kDiagonal, /*feedback=*/false),
       {},
       {},
       {},
       EncoderKind::kStock},
      {"gptq", "error feedback, columns by importance, scales as in rtn", "arXiv:2210.17323",
       unguarded(ScaleWeights::kEqual, /*feedback=*/true)},
      {"awq", "rtn after channel scales from mean magnitudes of the inputs", "arXiv:2306.00978",
       unguarded(ScaleWeights::kEqual, /*feedback=*/false), scales_everywhere(ScaleFamily::kAwq)},
      {"smoothquant+", "rtn after channel scales from the largest inputs and weights",
       "arXiv:2312.03788", unguarded(ScaleWeights::kEqual, /*feedback=*/false),
       scales_everywhere(ScaleFamily::kSmoothQuantPlus)},
      {"omniquant", "nearest codes in clipped ranges, the factors on a grid instead of learnt",
       "arXiv:2308.13137",
       unguarded(ScaleWeights::kDiagonal, /*feedback=*/false, ScaleSearch::kClippedRanges)},
      {"llm-fp4",
       "MXFP4, IQ4_NL and other single scales by output error, exponent shifts of inputs",
       "arXiv:2310.16836",
       unguarded(ScaleWeights::kDiagonal, /*feedback=*/false, ScaleSearch::kOutput),
       scales_everywhere(ScaleFamily::kExponentShift)},
      {"lorc",
       "rtn with a correction of low rank beside each matrix, fitted to its error",
       "arXiv:2303.08302",
       unguarded(ScaleWeights::kEqual, /*feedback=*/false),
       {},
       CorrectionOptions{kDefaultRank, /*weighted=*/false}},
      {"lorc-hessian",
       "the default with such a correction, fitted to the error of the output",
       "arXiv:2303.08302",
       HessianQuantizerOptions{},
       {},
       CorrectionOptions{kDefaultRank, /*weighted=*/true}},
      {"adadim",
       "blocks along the outputs of a matrix where that loses less",
       "arXiv:2309.15531",
       {},
       {},
       {},
       "The method 'adadim' needs blocks that run along the outputs of a matrix, and the blocks of "
       "all GGUF types run along its inputs."},
      {"outliertune",
       "scales and shifts of activation channels, moved into weights and biases",
       "arXiv:2406.18832",
       {},
       {},
       {},
       "The method 'outliertune' needs a shift in every norm and a bias behind every matrix, and "
       "these architectures have neither in a GGUF file, plain or extended."},
      {"hessian", "scales, feedback, descent and guard under the full Hessian: the default", "",
       HessianQuantizerOptions{}},
  };
}

}  // namespace

std::span<const QuantizerMethod> quantizer_methods() {
  static const std::vector<QuantizerMethod> methods = all_methods();
  return methods;
}

const QuantizerMethod* find_quantizer_method(std::string_view name) {
  const auto methods = quantizer_methods();
  const auto found = std::find_if(methods.begin(), methods.end(),
                                  [&](const QuantizerMethod& m) { return m.name == name; });
  return found == methods.end() ? nullptr : &*found;
}

const QuantizerMethod& usable_quantizer_method(std::string_view name) {
  const QuantizerMethod* method = find_quantizer_method(name);
  if (method == nullptr) {
    std::string names;
    for (const QuantizerMethod& m : quantizer_methods()) {
      if (m.refusal.empty()) names += (names.empty() ? "" : ", ") + std::string(m.name);
    }
    fail(ErrorCode::kUsage, "there is no method '{}'; those for GGUF files are {}", name, names);
  }
  if (!method->refusal.empty()) fail(ErrorCode::kUsage, "{}", method->refusal);
  return *method;
}

}  // namespace winnow::compress
