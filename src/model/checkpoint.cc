// SPDX-FileCopyrightText: The Winnow authors
// SPDX-License-Identifier: Apache-2.0
#include "model/checkpoint.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <optional>
#include <unordered_set>
#include <utility>

#include "base/error.h"
#include "model/extended_layout.h"
#include "model/tokenizer_metadata.h"
#include "text/tokenizer_json.h"

namespace winnow::model {
namespace {

/// Opens config.json of a safetensors folder, or takes GGUF's keys, and fills in the spec.
ModelSpec read_spec(const formats::ModelFile& file, const Architecture*& architecture) {
  if (file.format() == "GGUF") {
    const std::string& name = file.metadata().string("general.architecture");
    architecture = find_by_gguf_name(name);
    if (architecture == nullptr) {
      fail_data("{}: general.architecture is '{}'; supported are: {}", file.name(), name,
                architecture_names());
    }
    ModelSpec spec = architecture->read_gguf(GgufConfig(file.metadata(), name), file);
    const auto* embedding = file.find(traits(Role::kTokenEmbedding).gguf_pattern);
    if (embedding == nullptr || embedding->shape.rank() != 2) {
      fail_data("{}: tensor 'token_embd.weight' is missing or no matrix", file.name());
    }
    spec.vocab_size = static_cast<std::uint32_t>(embedding->shape[0]);
    spec.tie_word_embeddings = file.find(traits(Role::kOutput).gguf_pattern) == nullptr;
    return spec;
  }
  const std::string text = file.sidecar("config.json");
  const std::string source = file.name() + "/config.json";
  if (text.empty()) fail_data("{}: missing or empty; it describes the model", source);
  const HfConfig config(parse_json(text, source), source);
  const Json& names = config.json().value("architectures", Json::array());
  if (!names.is_array() || names.size() != 1 || !names[0].is_string()) {
    fail_data("{}: key 'architectures' must be a list of one name", source);
  }
  architecture = find_by_hf_name(names[0].get<std::string>());
  if (architecture == nullptr) {
    fail_data("{}: architecture '{}' is unknown; supported are: {}", source,
              names[0].get<std::string>(), architecture_names());
  }
  return architecture->read_hf(config);
}

/// `source_experts` of a file, empty where it has none.
std::vector<std::uint32_t> read_source_experts(const formats::Metadata& metadata,
                                               const ModelSpec& spec) {
  if (!metadata.contains(kSourceExpertsKey)) return {};
  const std::vector<std::int64_t> numbers = metadata.integers(kSourceExpertsKey);
  const std::size_t expected = spec.experts_before(LayerId{spec.num_hidden_layers});
  if (numbers.size() != expected) {
    fail_data("{}: key '{}' has {} elements; expected {}, one for each expert of {} layers",
              metadata.source(), kSourceExpertsKey, numbers.size(), expected,
              spec.num_moe_layers());
  }
  std::vector<std::uint32_t> sources;
  for (const std::int64_t number : numbers) {
    if (number < 0 || number > std::numeric_limits<std::uint32_t>::max()) {
      fail_data("{}: key '{}' holds {}, which is no expert's number", metadata.source(),
                kSourceExpertsKey, number);
    }
    sources.push_back(static_cast<std::uint32_t>(number));
  }
  return sources;
}

/// The same of a choice among the experts of `spec`.
std::vector<std::uint32_t> chosen_sources(const ModelSpec& spec,
                                          const std::vector<std::vector<ExpertId>>& experts) {
  std::vector<std::uint32_t> sources;
  std::size_t first = 0;  // of the layer in the present ones
  for (std::uint32_t layer = 0; layer < spec.num_hidden_layers; ++layer) {
    if (!spec.is_moe_layer(LayerId{layer})) continue;
    for (const ExpertId expert : experts[layer]) {
      const std::size_t at = first + index(expert);
      sources.push_back(spec.source_experts.empty() ? index(expert) : spec.source_experts[at]);
    }
    first += spec.moe.num_experts;
  }
  return sources;
}

/// How many experts each MoE layer keeps.
std::size_t check_expert_lists(const ModelSpec& spec,
                               const std::vector<std::vector<ExpertId>>& experts,
                               const std::string& name) {
  WINNOW_CHECK(experts.size() == spec.num_hidden_layers);
  if (spec.num_moe_layers() == 0) {
    fail(ErrorCode::kUsage, "{}: is a dense model: it has no experts to choose from", name);
  }
  std::optional<std::size_t> count;
  for (std::uint32_t layer = 0; layer < spec.num_hidden_layers; ++layer) {
    const std::vector<ExpertId>& kept = experts[layer];
    if (!spec.is_moe_layer(LayerId{layer})) {
      WINNOW_CHECK(kept.empty());
      continue;
    }
    if (count && kept.size() != *count) {
      fail(ErrorCode::kUsage, "{}: layer {} keeps {} experts, the layers before it {}", name, layer,
           kept.size(), *count);
    }
    count = kept.size();
    std::unordered_set<std::uint32_t> seen;
    for (const ExpertId expert : kept) {
      if (index(expert) < spec.moe.num_experts && seen.insert(index(expert)).second) continue;
      fail(ErrorCode::kUsage, "{}: layer {}: expert {} is kept twice, or is none of the {}", name,
           layer, index(expert), spec.moe.num_experts);
    }
  }
  if (*count < spec.moe.top_k) {
    fail(ErrorCode::kUsage,
         "{}: {} experts a layer are too few: the model sends every token to {} of them", name,
         *count, spec.moe.top_k);
  }
  return *count;
}

}  // namespace

Checkpoint Checkpoint::open(const std::filesystem::path& path) {
  return from_file(formats::open_model(path));
}

Checkpoint Checkpoint::from_file(std::unique_ptr<formats::ModelFile> file) {
  Checkpoint checkpoint;
  checkpoint.file_ = std::move(file);
  require_readable_layout(*checkpoint.file_);
  checkpoint.spec_ = read_spec(*checkpoint.file_, checkpoint.architecture_);
  checkpoint.spec_.architecture = std::string(checkpoint.architecture_->gguf_name);
  check_spec(checkpoint.spec_, checkpoint.file_->name());
  checkpoint.spec_.varied_experts = read_varied_experts(*checkpoint.file_, checkpoint.spec_);
  checkpoint.spec_.source_experts =
      read_source_experts(checkpoint.file_->metadata(), checkpoint.spec_);
  checkpoint.spec_.expert_checksums = read_expert_checksums(*checkpoint.file_, checkpoint.spec_);
  checkpoint.locate_tensors();
  return checkpoint;
}

std::uint64_t Checkpoint::key(Role role, LayerId layer) {
  return static_cast<std::uint64_t>(index(layer)) * kNumRoles + static_cast<std::uint64_t>(role);
}

std::size_t Checkpoint::part_count(Role role, LayerId layer) const {
  return traits(role).per_expert && spec_.is_moe_layer(layer) ? spec_.num_experts(layer) : 1;
}

void Checkpoint::for_each_role(const std::function<void(Role, LayerId)>& visit) const {
  visit(Role::kTokenEmbedding, {});
  for (std::uint32_t layer = 0; layer < spec_.num_hidden_layers; ++layer) {
    for (const RoleTraits& role : all_roles()) {
      if (role.per_layer && expected_shape(spec_, role.role, LayerId{layer})) {
        visit(role.role, LayerId{layer});
      }
    }
  }
  visit(Role::kOutputNorm, {});
  if (!spec_.tie_word_embeddings) visit(Role::kOutput, {});
}

void Checkpoint::locate_tensors() {
  std::unordered_set<std::string> used;
  for_each_role([&](Role role, LayerId layer) {
    const std::size_t parts = part_count(role, layer);
    // A model file has at least one byte per expert; a false count must not reserve memory.
    if (parts > 1 && parts > tensor_bytes_.value + 65536) {
      fail_data("{}: {} experts are more than the file can hold", file_->name(), parts);
    }
    std::vector<TensorRef>& refs = refs_[key(role, layer)];
    for (std::uint32_t part = 0; part < parts; ++part) {
      TensorRef& ref = refs.emplace_back();
      const auto shape = part_shape(spec_, role, layer, ExpertId{part});
      if (!shape) continue;
      ref = locate(role, layer, part, *shape);
      used.insert(ref.info->name);
      ref.low_rank = locate_low_rank(role, layer, part, *shape);
      if (ref.low_rank != nullptr) {
        used.insert(ref.low_rank->left.info->name);
        used.insert(ref.low_rank->right.info->name);
      }
    }
  });
  count_tensors();
  for (const auto& tensor : file_->tensors()) {
    if (used.contains(tensor.name)) continue;
    if (is_low_rank_name(tensor.name)) {
      fail_data("{}: tensor '{}' corrects no matrix of this model", file_->name(), tensor.name);
    }
    unused_.push_back(tensor.name);
  }
}

void Checkpoint::count_tensors() {
  num_parameters_ = 0;
  tensor_bytes_ = correction_bytes_ = {};
  for_each_role([&](Role role, LayerId layer) {
    for (const TensorRef& ref : refs_.at(key(role, layer))) {
      if (ref.info == nullptr) continue;
      num_parameters_ += ref.rows * ref.cols;
      tensor_bytes_ += ref.stored_bytes();
      correction_bytes_ += {ref.stored_bytes().value - ref.bytes().value};
    }
  });
}

Checkpoint Checkpoint::with_experts(const std::vector<std::vector<ExpertId>>& experts) && {
  if (spec_.has_varied_experts()) {
    fail(ErrorCode::kUsage, "{}: its experts vary already; choose among those of the original",
         file_->name());
  }
  const std::size_t count = check_expert_lists(spec_, experts, file_->name());
  for_each_role([&](Role role, LayerId layer) {
    const bool of_experts = traits(role).per_expert;
    if (!spec_.is_moe_layer(layer) || (!of_experts && role != Role::kRouter)) return;
    const std::vector<ExpertId>& kept = experts[index(layer)];
    std::vector<TensorRef>& refs = refs_.at(key(role, layer));
    if (of_experts) {
      std::vector<TensorRef> chosen;
      chosen.reserve(count);
      for (const ExpertId expert : kept) chosen.push_back(refs[index(expert)]);
      refs = std::move(chosen);
      return;
    }
    auto places = std::make_unique<std::vector<std::uint32_t>>();
    places->reserve(count);
    const auto* before = refs[0].row_places;
    for (const ExpertId expert : kept) {
      places->push_back(before == nullptr ? index(expert) : (*before)[index(expert)]);
    }
    refs[0].rows = count;
    refs[0].row_places = places.get();
    row_places_.push_back(std::move(places));
  });
  spec_.source_experts = chosen_sources(spec_, experts);
  spec_.expert_checksums.clear();
  spec_.moe.num_experts = static_cast<std::uint32_t>(count);
  count_tensors();
  return std::move(*this);
}

TensorRef Checkpoint::locate_factor(const formats::TensorInfo& info, Role role, std::size_t part,
                                    const tensor::Shape& shape) const {
  const tensor::Shape stacked{spec_.moe.num_experts, shape[0], shape[1]};
  const tensor::Shape& expected = traits(role).per_expert ? stacked : shape;
  if (info.shape != expected) {
    fail_data("{}: tensor '{}' has shape {}; expected {}", file_->name(), info.name,
              info.shape.to_string(), expected.to_string());
  }
  if (info.codec == nullptr || !info.codec->is_float()) {
    fail_data("{}: tensor '{}' has type {}; a correction is F16, BF16 or F32", file_->name(),
              info.name, info.type_name);
  }
  TensorRef ref{&info, 0, shape[0], shape[1]};
  ref.offset = part * ref.bytes().value;
  return ref;
}

const LowRankRef* Checkpoint::locate_low_rank(Role role, LayerId layer, std::size_t part,
                                              const tensor::Shape& shape) {
  if (file_->format() != "GGUF" || !may_be_corrected(role)) return nullptr;
  if (traits(role).per_expert && spec_.has_varied_experts()) return nullptr;
  const std::string left_name = low_rank_name(role, layer, LowRankSide::kLeft);
  const std::string right_name = low_rank_name(role, layer, LowRankSide::kRight);
  const formats::TensorInfo* left = file_->find(left_name);
  const formats::TensorInfo* right = file_->find(right_name);
  if (left == nullptr && right == nullptr) return nullptr;
  if (left == nullptr || right == nullptr) {
    fail_data("{}: tensor '{}' is there without '{}'; a correction is both; is the file damaged?",
              file_->name(), left == nullptr ? right_name : left_name,
              left == nullptr ? left_name : right_name);
  }
  const std::uint64_t rank = left->shape.row_length();
  if (rank > std::min(shape[0], shape[1])) {
    fail_data("{}: tensor '{}' has rank {}; at most {} can be of use", file_->name(), left_name,
              rank, std::min(shape[0], shape[1]));
  }
  corrections_.push_back(std::make_unique<LowRankRef>());
  *corrections_.back() = {locate_factor(*left, role, part, {shape[0], rank}),
                          locate_factor(*right, role, part, {rank, shape[1]})};
  return corrections_.back().get();
}

const formats::TensorInfo* Checkpoint::fused_tensor(Role role, LayerId layer) const {
  const bool gate_or_up = role == Role::kExpertGateProj || role == Role::kExpertUpProj;
  if (!gate_or_up && role != Role::kExpertDownProj) return nullptr;
  return file_->find(expand_pattern(gate_or_up ? "model.layers.{layer}.mlp.experts.gate_up_proj"
                                               : "model.layers.{layer}.mlp.experts.down_proj",
                                    layer));
}

TensorRef Checkpoint::part_of_stack(const formats::TensorInfo& info, std::size_t part,
                                    const tensor::Shape& shape, std::size_t fused,
                                    std::size_t index_in_fused) const {
  const tensor::Shape expected{spec_.moe.num_experts, shape[0] * fused, shape[1]};
  if (info.shape != expected) {
    fail_data("{}: tensor '{}' has shape {}; expected {} (experts, out_features, in_features)",
              file_->name(), info.name, info.shape.to_string(), expected.to_string());
  }
  TensorRef ref{&info, 0, shape[0], shape[1]};
  if (info.codec != nullptr) {
    ref.offset = (part * fused + index_in_fused) * ref.bytes().value;
  }
  return ref;
}

TensorRef Checkpoint::locate(Role role, LayerId layer, std::size_t part,
                             const tensor::Shape& shape) {
  const RoleTraits& role_traits = traits(role);
  const bool gguf = file_->format() == "GGUF";
  const bool varied = role_traits.per_expert && spec_.has_varied_experts();
  const std::string_view pattern = varied ? role_traits.gguf_expert_pattern
                                   : gguf ? role_traits.gguf_pattern
                                          : hf_pattern(*architecture_, role);
  const std::string name =
      expand_pattern(pattern, layer, ExpertId{static_cast<std::uint32_t>(part)});
  const formats::TensorInfo* info = file_->find(name);
  TensorRef ref;
  if (info == nullptr && !gguf && fused_tensor(role, layer) != nullptr) {
    // Hugging Face's fused form: gate rows, then up rows, of each expert in one tensor.
    info = fused_tensor(role, layer);
    const bool down = role == Role::kExpertDownProj;
    ref = part_of_stack(*info, part, shape, down ? 1 : 2, role == Role::kExpertUpProj ? 1 : 0);
  } else if (info == nullptr) {
    fail_data("{}: tensor '{}' ({}) is missing; is the download complete?", file_->name(), name,
              role_traits.name);
  } else if (gguf && role_traits.per_expert && !varied) {
    ref = part_of_stack(*info, part, shape, 1, 0);
  } else {
    if (info->shape != shape) {
      fail_data("{}: tensor '{}' has shape {}; expected {}", file_->name(), name,
                info->shape.to_string(), shape.to_string());
    }
    ref = {info, 0, shape.rank() == 1 ? 1 : shape[0], shape.row_length()};
  }
  if (info->codec == nullptr) {
    fail_data("{}: tensor '{}' has type {}, which this version cannot decode; supported: {}",
              file_->name(), info->name, info->type_name, quant::codec_names());
  }
  return ref;
}

std::optional<TensorRef> Checkpoint::find(Role role, LayerId layer, ExpertId expert) const {
  const RoleTraits& role_traits = traits(role);
  const auto found = refs_.find(key(role, role_traits.per_layer ? layer : LayerId{}));
  if (found == refs_.end()) return std::nullopt;
  const std::size_t part = role_traits.per_expert ? index(expert) : 0;
  WINNOW_CHECK(part < found->second.size());
  if (found->second[part].info == nullptr) return std::nullopt;
  return found->second[part];
}

TensorRef Checkpoint::at(Role role, LayerId layer, ExpertId expert) const {
  const auto ref = find(role, layer, expert);
  WINNOW_CHECK(ref.has_value());
  return *ref;
}

void Checkpoint::read_rows(const TensorRef& ref, std::size_t first, std::size_t count,
                           std::span<std::byte> out) const {
  const std::size_t row_bytes = ref.row_bytes();
  WINNOW_CHECK(first + count <= ref.rows && out.size() == count * row_bytes);
  if (ref.row_places == nullptr) {
    file_->read(*ref.info, ref.offset + first * row_bytes, out);
    return;
  }
  for (std::size_t row = 0; row < count; ++row) {
    const std::uint64_t place = (*ref.row_places)[first + row];
    file_->read(*ref.info, ref.offset + place * row_bytes, out.subspan(row * row_bytes, row_bytes));
  }
}

void Checkpoint::read_floats(const TensorRef& ref, std::size_t first, std::size_t count,
                             std::span<float> out) const {
  WINNOW_CHECK(out.size() == count * ref.cols);
  std::vector<std::byte> packed(count * ref.row_bytes());
  read_rows(ref, first, count, packed);
  ref.codec().decode(packed.data(), out.size() / ref.codec().block_size, out.data());
  if (ref.low_rank != nullptr)
    add_correction(*ref.low_rank, first, {out.data(), count, ref.cols, ref.cols});
  for (std::size_t i = 0; i < out.size(); ++i) {
    if (!std::isfinite(out[i])) {
      fail_data("{}: tensor '{}' holds {} in row {}, column {}; the weights are damaged",
                file_->name(), ref.info->name, out[i], first + i / ref.cols, i % ref.cols);
    }
  }
}

void Checkpoint::add_correction(const LowRankRef& correction, std::size_t first,
                                tensor::MatrixView<float> rows) const {
  const std::size_t rank = correction.right.rows;
  tensor::Matrix<float> left(rows.rows, rank);
  tensor::Matrix<float> right(rank, rows.cols);
  read_floats(correction.left, first, rows.rows, left.flat());
  read_floats(correction.right, 0, rank, right.flat());
  for (std::size_t r = 0; r < rows.rows; ++r) {
    for (std::size_t k = 0; k < rank; ++k) {
      const float factor = left.row(r)[k];
      for (std::size_t j = 0; j < rows.cols; ++j) rows.row(r)[j] += factor * right.row(k)[j];
    }
  }
}

text::TokenizerSpec Checkpoint::tokenizer_spec() const {
  if (file_->format() == "GGUF") return read_tokenizer_metadata(file_->metadata());
  const std::string text = file_->sidecar("tokenizer.json");
  if (text.empty()) {
    fail_data("{}: tokenizer.json is missing; it is needed to read text", file_->name());
  }
  return text::read_tokenizer_json(text, file_->sidecar("tokenizer_config.json"), spec_.vocab_size,
                                   file_->name() + "/tokenizer.json");
}

}  // namespace winnow::model
