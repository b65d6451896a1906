// SPDX-FileCopyrightText: The Winnow authors
// SPDX-License-Identifier: Apache-2.0
// One architecture is one file: how its configuration becomes a ModelSpec, and which name each of
// its tensors has. GGUF names are the same for all (roles.cc).
#pragma once

#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/json.h"
#include "formats/metadata.h"
#include "formats/model_file.h"
#include "model/config.h"
#include "model/roles.h"
#include "model/spec.h"

namespace winnow::model {

/// Name of a tensor in Hugging Face checkpoints; "{layer}" and "{expert}" stand for numbers.
struct TensorPattern {
  Role role;
  std::string_view name;
};

struct Architecture {
  std::string_view hf_name;    ///< first entry of config.json's "architectures"
  std::string_view hf_type;    ///< config.json's "model_type"
  std::string_view gguf_name;  ///< `general.architecture`

  /// Throw Error{kBadData} that names the key for anything missing, odd or unsupported.
  ModelSpec (*read_hf)(const HfConfig& config);
  ModelSpec (*read_gguf)(const GgufConfig& config, const formats::ModelFile& file);
  void (*write_hf)(const ModelSpec& spec, Json& config);
  void (*write_gguf)(const ModelSpec& spec, formats::Metadata& metadata);

  std::span<const TensorPattern> tensors;

  /// In its GGUF files; Hugging Face checkpoints have RotaryPairs::kHalves.
  RotaryPairs gguf_rotary_pairs = RotaryPairs::kHalves;

  /// What a GGUF file of this spec would lose in llama.cpp, which has no key for everything: one
  /// sentence each, empty when the file means the same there. Null: nothing is known to be lost.
  std::vector<std::string> (*lost_in_llama_cpp)(const ModelSpec& spec) = nullptr;
};

/// All architectures, in the order of architectures/registry.def.
std::span<const Architecture* const> all_architectures();
/// Null when unknown.
const Architecture* find_by_hf_name(std::string_view hf_name);
const Architecture* find_by_gguf_name(std::string_view gguf_name);
/// "Qwen3MoeForCausalLM, ..." for messages.
std::string architecture_names();

/// The tensor names that Llama-like checkpoints share, embeddings, norms and attention; an
/// architecture's table repeats only what is its own.
std::span<const TensorPattern> common_hf_tensors();
/// Looks into the architecture's own table, then the common one; "" when the role has no name.
std::string_view hf_pattern(const Architecture& architecture, Role role);

}  // namespace winnow::model
