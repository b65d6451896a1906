// SPDX-FileCopyrightText: The Winnow authors
// SPDX-License-Identifier: Apache-2.0
// Typed, range-checked reading of the two kinds of model description: Hugging Face's config.json
// and GGUF metadata. Nothing is guessed: a missing or odd value is refused with its key's name.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/json.h"
#include "formats/metadata.h"
#include "model/spec.h"

namespace winnow::model {

/// config.json of a Hugging Face folder. All getters throw Error{kBadData} naming file and key.
class HfConfig {
 public:
  HfConfig(Json config, std::string source);

  const std::string& source() const { return source_; }
  bool has(std::string_view key) const;  ///< present and not null
  std::uint32_t integer(std::string_view key) const;
  std::uint32_t integer_or(std::string_view key, std::uint32_t otherwise) const;
  double number(std::string_view key) const;
  double number_or(std::string_view key, double otherwise) const;
  bool boolean_or(std::string_view key, bool otherwise) const;
  std::string string_or(std::string_view key, std::string_view otherwise) const;
  std::vector<std::uint32_t> integers_or_empty(std::string_view key) const;
  /// Refuses a value that this program does not implement: `key` must be absent, null, or equal.
  void require(std::string_view key, const Json& only_supported) const;
  const Json& json() const { return config_; }

 private:
  const Json* find(std::string_view key) const;
  std::string source_;
  Json config_;
};

/// Everything most decoder-only models share; the caller adds what is special.
/// moe_layers is filled with false.
ModelSpec read_common_hf(const HfConfig& config);

/// GGUF metadata under the prefix of one architecture: key("block_count") is
/// "<architecture>.block_count".
class GgufConfig {
 public:
  GgufConfig(const formats::Metadata& metadata, std::string architecture);

  const std::string& architecture() const { return architecture_; }
  const formats::Metadata& metadata() const { return metadata_; }
  std::string key(std::string_view suffix) const;
  bool has(std::string_view suffix) const;
  std::uint32_t integer(std::string_view suffix) const;
  std::uint32_t integer_or(std::string_view suffix, std::uint32_t otherwise) const;
  double number(std::string_view suffix) const;
  double number_or(std::string_view suffix, double otherwise) const;
  bool boolean_or(std::string_view suffix, bool otherwise) const;

 private:
  const formats::Metadata& metadata_;
  std::string architecture_;
};

/// The same from GGUF keys; vocab_size and tie_word_embeddings are set by the caller, who sees the
/// tensors.
ModelSpec read_common_gguf(const GgufConfig& config);
/// Writes what `read_common_gguf` reads.
void write_common_gguf(const ModelSpec& spec, formats::Metadata& metadata);
/// Writes what `read_common_hf` reads.
void write_common_hf(const ModelSpec& spec, Json& config);

}  // namespace winnow::model
