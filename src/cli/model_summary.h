// SPDX-FileCopyrightText: The Winnow authors
// SPDX-License-Identifier: Apache-2.0
// What `winnow inspect` tells of a model, as data, as JSON and as text.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "base/json.h"
#include "base/units.h"
#include "model/checkpoint.h"

namespace winnow::cli {

/// Sums over the tensors of one role or one type.
struct ByteShare {
  std::string name;
  std::uint64_t tensors = 0;
  std::uint64_t parameters = 0;
  Bytes bytes{};
};

struct TensorSummary {
  std::string name;
  std::string type;
  tensor::Shape shape;
  Bytes bytes{};
  std::vector<std::string> roles;  ///< two for a fused gate and up projection; empty: not used
};

struct TokenizerSummary {
  std::string model;
  std::string pre_tokenizer;
  std::uint64_t tokens = 0;
  std::uint64_t merges = 0;
  std::vector<std::pair<std::string, std::string>> special;  ///< "bos" and the token's text
  bool add_bos = false;
  bool has_chat_template = false;
};

struct ModelSummary {
  std::string name;  ///< last component of the path
  std::string format;
  std::uint64_t files = 0;
  Bytes file_bytes;
  std::string hf_architecture;
  model::ModelSpec spec;
  std::string router;
  std::uint64_t parameters = 0;
  Bytes tensor_bytes;
  std::string layout;                  ///< "plain" or "extended"
  Bytes correction_bytes;              ///< of low-rank corrections, part of `tensor_bytes`
  std::vector<float> skip_shares;      ///< that the file has ratios for, see model::SkipRatios
  std::vector<ByteShare> by_role;      ///< in the order of roles; after them all corrections
  std::vector<ByteShare> by_type;      ///< the largest first
  std::vector<TensorSummary> tensors;  ///< in file order
  std::optional<TokenizerSummary> tokenizer;
  std::string tokenizer_problem;                                ///< why there is none
  std::vector<std::pair<std::string, std::string>> provenance;  ///< general.* and winnow.* texts

  double bits_per_weight() const;
};

/// Reads headers and the tokenizer, no payloads.
ModelSummary summarize(const model::Checkpoint& checkpoint);
Json to_json(const ModelSummary& summary);
std::string to_text(const ModelSummary& summary);

}  // namespace winnow::cli
