// SPDX-FileCopyrightText: The Winnow authors
// SPDX-License-Identifier: Apache-2.0
// Published ways to choose codes and scales, as settings of the one quantiser and of the changes
// made before it, so that they can be compared with the default on equal terms: same blocks, same
// calibration text, same bytes.
#pragma once

#include <span>
#include <string_view>

#include "compress/correction.h"
#include "compress/encoder_kind.h"
#include "compress/hessian_quantizer.h"
#include "compress/transform_choice.h"

namespace winnow::compress {

struct QuantizerMethod {
  std::string_view name;
  std::string_view summary;         ///< one line
  std::string_view source;          ///< "arXiv:2306.00978"; "" where there is no paper
  HessianQuantizerOptions options;  ///< not to be used where there is a refusal
  /// Changes of the layer to try before (transform_choice.h).
  TransformWishes transforms{};
  /// Corrections beside the matrices, for which a file needs the extended layout. The rank is the
  /// default one.
  CorrectionOptions corrections{};
  /// Why no GGUF file can hold what the method makes, a whole sentence; "" when one can.
  std::string_view refusal{};
  /// Not kOwn: encoders of this kind take the place of the quantiser, with text and without.
  EncoderKind encoders = EncoderKind::kOwn;
};

/// All of them, those that are refused too, the default last.
std::span<const QuantizerMethod> quantizer_methods();
/// Null when there is none of that name.
const QuantizerMethod* find_quantizer_method(std::string_view name);
/// The method of that name. Throws Error{kUsage} with all names when there is none, and with the
/// refusal when GGUF files cannot hold it.
const QuantizerMethod& usable_quantizer_method(std::string_view name);

}  // namespace winnow::compress
