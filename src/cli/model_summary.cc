// SPDX-FileCopyrightText: The Winnow authors
// SPDX-License-Identifier: Apache-2.0
#include "cli/model_summary.h"

#include <algorithm>
#include <array>
#include <unordered_map>

#include "base/error.h"
#include "formats/names.h"
#include "model/extended_layout.h"
#include "model/fingerprint.h"
#include "model/skip_ratios.h"

namespace winnow::cli {
namespace {

using model::Checkpoint;
using model::Role;

constexpr std::string_view kCorrections = "low_rank_factors";

void add_share(std::vector<ByteShare>& shares, std::string_view name, std::uint64_t parameters,
               Bytes bytes) {
  auto found = std::find_if(shares.begin(), shares.end(),
                            [&](const ByteShare& share) { return share.name == name; });
  if (found == shares.end()) {
    shares.push_back({.name = std::string(name)});
    found = shares.end() - 1;
  }
  ++found->tensors;
  found->parameters += parameters;
  found->bytes += bytes;
}

/// What belongs to a part of a model: the matrix, and the factors of its correction.
std::vector<model::TensorRef> stored_tensors(const model::TensorRef& ref) {
  if (ref.low_rank == nullptr) return {ref};
  return {ref, ref.low_rank->left, ref.low_rank->right};
}

/// Sums by role and type, and which roles each tensor of the file has. An expert in a stack counts
/// as a tensor of its role, so that the counts of stacked and separate experts agree.
void share_bytes(const Checkpoint& checkpoint, ModelSummary& summary) {
  std::unordered_map<std::string_view, std::vector<std::string>> roles;
  std::vector<ByteShare> factors;
  for (const model::RoleTraits& traits : model::all_roles()) {
    checkpoint.for_each_role([&](Role role, LayerId layer) {
      if (role != traits.role) return;
      for (std::uint32_t part = 0; part < checkpoint.part_count(role, layer); ++part) {
        const auto stored = checkpoint.find(role, layer, ExpertId{part});
        if (!stored) continue;  // an expert without matrices
        for (const model::TensorRef& ref : stored_tensors(*stored)) {
          const bool factor = ref.info != stored->info;
          add_share(factor ? factors : summary.by_role, factor ? kCorrections : traits.name,
                    ref.rows * ref.cols, ref.bytes());
          add_share(summary.by_type, ref.info->type_name, ref.rows * ref.cols, ref.bytes());
          std::vector<std::string>& of_tensor = roles[ref.info->name];
          if (of_tensor.empty() || of_tensor.back() != traits.name) {
            of_tensor.emplace_back(traits.name);
          }
        }
      }
    });
  }
  summary.by_role.insert(summary.by_role.end(), factors.begin(), factors.end());
  std::stable_sort(summary.by_type.begin(), summary.by_type.end(),
                   [](const ByteShare& a, const ByteShare& b) { return a.bytes > b.bytes; });
  for (const formats::TensorInfo& tensor : checkpoint.file().tensors()) {
    const auto found = roles.find(tensor.name);
    summary.tensors.push_back({tensor.name, tensor.type_name, tensor.shape, tensor.size,
                               found == roles.end() ? std::vector<std::string>{} : found->second});
  }
}

TokenizerSummary summarize(const text::TokenizerSpec& spec) {
  TokenizerSummary summary;
  summary.model = spec.model;
  summary.pre_tokenizer = spec.pre_tokenizer;
  summary.tokens = spec.tokens.size();
  summary.merges = spec.merges.size();
  const auto special = [&](const char* name, std::optional<TokenId> id) {
    if (!id) return;
    summary.special.emplace_back(name, spec.tokens.at(static_cast<std::size_t>(index(*id))));
  };
  special("bos", spec.bos);
  special("eos", spec.eos);
  special("eot", spec.eot);
  special("pad", spec.pad);
  special("unknown", spec.unknown);
  summary.add_bos = spec.add_bos;
  summary.has_chat_template = !spec.chat_template.empty();
  return summary;
}

Json shares_to_json(const std::vector<ByteShare>& shares) {
  Json out = Json::object();
  for (const ByteShare& share : shares) {
    out[share.name] = {
        {"tensors", share.tensors}, {"parameters", share.parameters}, {"bytes", share.bytes.value}};
  }
  return out;
}

constexpr std::array<std::string_view, 5> kExpertKinds = {"feed_forward", "zero", "identity",
                                                          "constant", "shared"};

/// Of each layer, how many experts there are of each kind, and the widths of those with matrices.
Json experts_to_json(const model::ModelSpec& spec) {
  Json layers = Json::array();
  for (const std::vector<model::ExpertShape>& experts : spec.varied_experts) {
    Json layer = {{"widths", Json::array()}};
    for (const std::string_view kind : kExpertKinds) layer[std::string(kind)] = 0;
    for (const model::ExpertShape& expert : experts) {
      Json& count = layer[std::string(kExpertKinds[static_cast<std::size_t>(expert.kind)])];
      count = count.get<std::size_t>() + 1;
      if (expert.width != 0) layer["widths"].push_back(expert.width);
    }
    layers.push_back(std::move(layer));
  }
  return layers;
}

/// "7 to 32 a layer, 12 of 150 without matrices, 8 with those of others, inner width 64 to 128"
std::string experts_text(const model::ModelSpec& spec) {
  std::size_t least = spec.moe.num_experts;
  std::size_t all = 0;
  std::size_t plain = 0;
  std::size_t shared = 0;
  std::uint32_t narrowest = spec.moe.moe_intermediate_size;
  std::uint32_t widest = 0;
  for (const std::vector<model::ExpertShape>& experts : spec.varied_experts) {
    if (!experts.empty()) least = std::min(least, experts.size());
    all += experts.size();
    for (const model::ExpertShape& expert : experts) {
      shared += expert.kind == model::ExpertKind::kShared ? 1 : 0;
      if (expert.kind != model::ExpertKind::kFeedForward) continue;
      ++plain;
      narrowest = std::min(narrowest, expert.width);
      widest = std::max(widest, expert.width);
    }
  }
  const std::string sharing = shared == 0 ? "" : fmt::format(", {} with those of others", shared);
  return fmt::format("{} to {} a layer, {} of {} without matrices{}, inner width {} to {}", least,
                     spec.moe.num_experts, all - plain - shared, all, sharing, narrowest, widest);
}

Json spec_to_json(const model::ModelSpec& spec) {
  Json out;
  out["architecture"] = spec.architecture;
  out["name"] = spec.name;
  out["vocab_size"] = spec.vocab_size;
  out["hidden_size"] = spec.hidden_size;
  out["intermediate_size"] = spec.intermediate_size;
  out["num_hidden_layers"] = spec.num_hidden_layers;
  out["num_moe_layers"] = spec.num_moe_layers();
  out["num_attention_heads"] = spec.num_attention_heads;
  out["num_key_value_heads"] = spec.num_key_value_heads;
  out["head_dim"] = spec.head_dim;
  out["max_position_embeddings"] = spec.max_position_embeddings;
  out["rope_theta"] = spec.rope_theta;
  out["tie_word_embeddings"] = spec.tie_word_embeddings;
  out["num_experts"] = spec.moe.num_experts;
  out["top_k"] = spec.moe.top_k;
  out["moe_intermediate_size"] = spec.moe.moe_intermediate_size;
  if (spec.has_varied_experts()) out["experts"] = experts_to_json(spec);
  return out;
}

Json tokenizer_to_json(const ModelSummary& summary) {
  if (!summary.tokenizer) return {{"problem", summary.tokenizer_problem}};
  const TokenizerSummary& tokenizer = *summary.tokenizer;
  Json special = Json::object();
  for (const auto& [name, text] : tokenizer.special) special[name] = text;
  return {{"model", tokenizer.model},
          {"pre_tokenizer", tokenizer.pre_tokenizer},
          {"tokens", tokenizer.tokens},
          {"merges", tokenizer.merges},
          {"special_tokens", special},
          {"add_bos", tokenizer.add_bos},
          {"chat_template", tokenizer.has_chat_template}};
}

Json tensors_to_json(const std::vector<TensorSummary>& tensors) {
  Json out = Json::array();
  for (const TensorSummary& tensor : tensors) {
    Json shape = Json::array();
    for (const std::uint64_t dim : tensor.shape.dims()) shape.push_back(dim);
    out.push_back({{"name", tensor.name},
                   {"type", tensor.type},
                   {"shape", shape},
                   {"bytes", tensor.bytes.value},
                   {"roles", tensor.roles},
                   {"used", !tensor.roles.empty()}});
  }
  return out;
}

std::string share_table(std::string_view heading, const std::vector<ByteShare>& shares,
                        Bytes total) {
  std::string out = fmt::format("\n{:<18} {:>8} {:>14} {:>12} {:>7} {:>7}\n", heading, "tensors",
                                "parameters", "bytes", "share", "bits");
  for (const ByteShare& share : shares) {
    out += fmt::format(
        "{:<18} {:>8} {:>14} {:>12} {:>6.1f}% {:>7.3f}\n", share.name, share.tensors,
        share.parameters, format_bytes(share.bytes),
        100.0 * static_cast<double>(share.bytes.value) / static_cast<double>(total.value),
        8.0 * static_cast<double>(share.bytes.value) / static_cast<double>(share.parameters));
  }
  return out;
}

std::string spec_text(const ModelSummary& summary) {
  const model::ModelSpec& spec = summary.spec;
  std::string out;
  out += fmt::format("layers        {} ({} with experts), hidden size {}, context {}\n",
                     spec.num_hidden_layers, spec.num_moe_layers(), spec.hidden_size,
                     spec.max_position_embeddings);
  out += fmt::format("attention     {} heads of {}, {} for keys and values, rope theta {:g}\n",
                     spec.num_attention_heads, spec.head_dim, spec.num_key_value_heads,
                     spec.rope_theta);
  out += fmt::format("router        {}\n", summary.router);
  if (spec.has_varied_experts()) {
    out += fmt::format("experts       {}\n", experts_text(spec));
  } else if (spec.num_moe_layers() > 0) {
    out += fmt::format("experts       inner width {}\n", spec.moe.moe_intermediate_size);
  }
  if (!summary.skip_shares.empty()) {
    out +=
        fmt::format("policy        a run can skip up to {:.0f}% of the experts: --skip-experts\n",
                    100 * summary.skip_shares.back());
  }
  if (spec.num_moe_layers() < spec.num_hidden_layers) {
    out += fmt::format("dense layers  inner width {}\n", spec.intermediate_size);
  }
  out += fmt::format("vocabulary    {}, output matrix {}\n", spec.vocab_size,
                     spec.tie_word_embeddings ? "shared with the embedding" : "of its own");
  return out;
}

std::string tokenizer_text(const ModelSummary& summary) {
  if (!summary.tokenizer) return fmt::format("tokenizer     none: {}\n", summary.tokenizer_problem);
  const TokenizerSummary& tokenizer = *summary.tokenizer;
  std::string out = fmt::format("tokenizer     {} ({}), {} tokens, {} merges", tokenizer.model,
                                tokenizer.pre_tokenizer, tokenizer.tokens, tokenizer.merges);
  for (const auto& [name, text] : tokenizer.special) {
    out += fmt::format(", {} {}", name, formats::quote_name(text));
  }
  if (tokenizer.add_bos) out += ", texts begin with bos";
  return out + (tokenizer.has_chat_template ? ", with chat template\n" : "\n");
}

std::string tensor_table(const std::vector<TensorSummary>& tensors) {
  std::size_t width = 6;
  for (const TensorSummary& tensor : tensors) width = std::max(width, tensor.name.size());
  std::string out =
      fmt::format("\n{:<{}}  {:<7} {:>12}  {}\n", "tensor", width, "type", "bytes", "shape");
  for (const TensorSummary& tensor : tensors) {
    out += fmt::format("{:<{}}  {:<7} {:>12}  {}{}\n", tensor.name, width, tensor.type,
                       format_bytes(tensor.bytes), tensor.shape.to_string(),
                       tensor.roles.empty() ? "  not used" : "");
  }
  return out;
}

}  // namespace

double ModelSummary::bits_per_weight() const {
  return 8.0 * static_cast<double>(tensor_bytes.value) / static_cast<double>(parameters);
}

ModelSummary summarize(const Checkpoint& checkpoint) {
  const formats::ModelFile& file = checkpoint.file();
  ModelSummary summary;
  summary.name = model::path_label(file.name());
  summary.format = file.format();
  summary.files = file.files().size();
  for (const auto& part : file.files()) summary.file_bytes += part->size();
  summary.hf_architecture = checkpoint.architecture().hf_name;
  summary.spec = checkpoint.spec();
  summary.router = model::describe_router(checkpoint.spec());
  summary.parameters = checkpoint.num_parameters();
  summary.tensor_bytes = checkpoint.tensor_bytes();
  summary.layout = model::is_extended(file) ? "extended" : "plain";
  summary.correction_bytes = checkpoint.correction_bytes();
  if (auto ratios = model::read_skip_ratios(file, summary.spec)) {
    summary.skip_shares = std::move(ratios->shares);
  }
  share_bytes(checkpoint, summary);
  try {
    summary.tokenizer = summarize(checkpoint.tokenizer_spec());
  } catch (const Error& error) {
    // A model without a usable tokenizer is still worth looking at.
    summary.tokenizer_problem = error.message();
  }
  for (const auto& [key, value] : file.metadata().entries()) {
    const auto* text = std::get_if<std::string>(&value);
    if (text != nullptr && (key.starts_with("general.") || key.starts_with("winnow."))) {
      summary.provenance.emplace_back(key, *text);
    }
  }
  return summary;
}

Json to_json(const ModelSummary& summary) {
  Json out;
  out["schema_version"] = 1;
  out["model"] = summary.name;
  out["format"] = summary.format;
  out["files"] = summary.files;
  out["file_bytes"] = summary.file_bytes.value;
  out["architecture"] = summary.hf_architecture;
  out["spec"] = spec_to_json(summary.spec);
  out["router"] = summary.router;
  out["parameters"] = summary.parameters;
  out["tensor_bytes"] = summary.tensor_bytes.value;
  out["bits_per_weight"] = summary.bits_per_weight();
  out["layout"] = summary.layout;
  out["correction_bytes"] = summary.correction_bytes.value;
  if (!summary.skip_shares.empty()) out["skip_shares"] = summary.skip_shares;
  out["bytes_by_role"] = shares_to_json(summary.by_role);
  out["bytes_by_type"] = shares_to_json(summary.by_type);
  out["tokenizer"] = tokenizer_to_json(summary);
  out["provenance"] = Json::object();
  for (const auto& [key, text] : summary.provenance) out["provenance"][key] = text;
  out["tensors"] = tensors_to_json(summary.tensors);
  return out;
}

std::string to_text(const ModelSummary& summary) {
  std::string out = fmt::format(
      "{}: {}, {}, {} in {}\n", summary.name, summary.hf_architecture, summary.format,
      format_bytes(summary.file_bytes),
      summary.files == 1 ? std::string("1 file") : fmt::format("{} files", summary.files));
  out +=
      fmt::format("parameters    {}, {} of tensors, {:.3f} bits per weight\n", summary.parameters,
                  format_bytes(summary.tensor_bytes), summary.bits_per_weight());
  if (summary.layout != "plain") {
    out += fmt::format("layout        {}, {} of low-rank corrections\n", summary.layout,
                       format_bytes(summary.correction_bytes));
  }
  out += spec_text(summary) + tokenizer_text(summary);
  for (const auto& [key, text] : summary.provenance) {
    out += fmt::format("{:<28} {}\n", key, formats::quote_name(text));
  }
  out += share_table("role", summary.by_role, summary.tensor_bytes);
  out += share_table("type", summary.by_type, summary.tensor_bytes);
  return out + tensor_table(summary.tensors);
}

}  // namespace winnow::cli
