// SPDX-FileCopyrightText: The Winnow authors
// SPDX-License-Identifier: Apache-2.0
#include "model/exporter.h"

#include <algorithm>
#include <optional>

#include "base/error.h"
#include "model/export_experts.h"
#include "model/fingerprint.h"
#include "model/rotary_order.h"
#include "model/tokenizer_metadata.h"
#include "text/tokenizer.h"
#include "text/tokenizer_json.h"

namespace winnow::model {
namespace {

// Rows decoded at a time hold about this many weights: enough to keep all threads busy, little
// beside any model.
constexpr std::size_t kChunkWeights = std::size_t{4} << 20;

const quant::Codec& plain_codec(std::string_view name) {
  const quant::Codec* codec = quant::find_codec(name);
  WINNOW_CHECK(codec != nullptr);
  return *codec;
}

/// Whether decode(encode(w)) gives every value of the tensor back.
bool holds_exactly(const Checkpoint& source, const TensorRef& ref, const quant::Codec& codec) {
  std::vector<float> values(ref.cols);
  std::vector<float> again(ref.cols);
  std::vector<std::byte> packed(ref.cols * codec.block_bytes);
  for (std::size_t row = 0; row < ref.rows; ++row) {
    source.read_floats(ref, row, 1, values);
    codec.encode(values.data(), ref.cols, nullptr, packed.data());
    codec.decode(packed.data(), ref.cols, again.data());
    if (values != again) return false;
  }
  return true;
}

/// Vectors and routers; the rule is in ExportOptions::codec.
const quant::Codec& small_codec(const Checkpoint& source, const ExportOptions& options,
                                const TensorRef& ref) {
  const quant::Codec& wide = plain_codec("F32");
  if (options.format == OutputFormat::kGguf || !ref.codec().is_float()) return wide;
  if (source.file().format() != "GGUF" || &ref.codec() != &wide) return ref.codec();
  const quant::Codec& narrow = options.codec(Role::kTokenEmbedding, {});
  return narrow.block_bytes == 2 && holds_exactly(source, ref, narrow) ? narrow : wide;
}

const quant::Codec& codec_of(const Checkpoint& source, const ExportOptions& options, Role role,
                             LayerId layer) {
  if (!traits(role).is_matrix) return small_codec(source, options, source.at(role, layer));
  const std::size_t cols = expected_shape(source.spec(), role, layer)->row_length();
  const quant::Codec& codec = quant::codec_for_row(options.codec(role, layer), cols);
  if (options.format == OutputFormat::kSafetensors && !codec.is_float()) {
    fail(ErrorCode::kUsage,
         "safetensors holds F32, F16 and BF16 only; '{}' needs a GGUF output (a name ending in "
         ".gguf)",
         codec.name);
  }
  return codec;
}

void refuse_unused(const Checkpoint& source) {
  // Rotary frequencies are derived from the configuration; everything else would be lost.
  for (const std::string& name : source.unused_tensors()) {
    if (name.ends_with("rotary_emb.inv_freq") || name == "rope_freqs.weight") continue;
    fail_data("{}: tensor '{}' has no place in architecture '{}'; refusing to drop it",
              source.file().name(), name, source.architecture().hf_name);
  }
}

void copy_general_keys(const Checkpoint& source, formats::Metadata& metadata) {
  for (const auto& [key, value] : source.file().metadata().entries()) {
    const bool replaced = key == "general.file_type" || key == "general.quantization_version" ||
                          key == "general.alignment" || key == "general.architecture";
    if (key.starts_with("general.") && !replaced) metadata.set(key, value);
  }
}

/// Without the checksums of experts that vary: zeros stand for them.
formats::Metadata gguf_metadata(const Checkpoint& source, const ExportOptions& options,
                                std::span<const ExportTensor> plan) {
  const ExportExperts experts = exported_experts(source, options);
  const ModelSpec spec = spec_with(source.spec(), experts);
  formats::Metadata metadata("output");
  metadata.set("general.architecture", spec.architecture);
  metadata.set("general.type", std::string("model"));
  // A name that is a path would tell of the machine it was made on.
  metadata.set("general.name", path_label(spec.name.empty() ? source.file().name() : spec.name));
  copy_general_keys(source, metadata);
  if (options.nominal_codec != nullptr) {
    metadata.set("general.file_type", options.nominal_codec->file_type);
  }
  metadata.set("general.quantization_version", std::uint32_t{2});
  source.architecture().write_gguf(spec, metadata);
  if (!spec.source_experts.empty()) {
    metadata.set(kSourceExpertsKey, formats::Array(spec.source_experts));
  }
  write_tokenizer_metadata(source.tokenizer_spec(), metadata);
  for (const auto& [key, value] : options.metadata) metadata.set(key, value);
  const bool corrected = std::any_of(plan.begin(), plan.end(),
                                     [](const ExportTensor& t) { return t.factor.has_value(); });
  if (!experts.empty()) {
    write_varied_experts(spec, metadata);
    const std::size_t count = spec.experts_before(LayerId{spec.num_hidden_layers});
    write_expert_checksums(std::vector<std::uint32_t>(count), metadata);
  } else if (corrected) {
    write_extended_layout(metadata, 1);
  }
  return metadata;
}

/// The value of config.json's "torch_dtype" for a codec, "" for one that PyTorch does not have.
std::string_view torch_dtype(const quant::Codec* codec) {
  if (codec == nullptr) return "";
  if (codec->name == "F32") return "float32";
  if (codec->name == "F16") return "float16";
  return codec->name == "BF16" ? "bfloat16" : "";
}

/// config.json with the type the weights are now in; the same text when it says so already.
std::string config_for(const std::string& text, const std::string& name,
                       const quant::Codec* codec) {
  const std::string_view dtype = torch_dtype(codec);
  Json config = parse_json(text, name);
  bool changed = false;
  for (const char* key : {"torch_dtype", "dtype"}) {
    if (dtype.empty() || !config.contains(key) || config[key] == dtype) continue;
    config[key] = dtype;
    changed = true;
  }
  return changed ? dump_json(config, true) + "\n" : text;
}

std::vector<std::pair<std::string, std::string>> copied_sidecars(const Checkpoint& source,
                                                                 const ExportOptions& options) {
  std::vector<std::pair<std::string, std::string>> copies;
  for (const char* name : {"config.json", "generation_config.json", "tokenizer.json",
                           "tokenizer_config.json", "chat_template.jinja"}) {
    std::string text = source.file().sidecar(name);
    if (text.empty()) continue;
    if (copies.empty()) text = config_for(text, source.file().name(), options.nominal_codec);
    copies.emplace_back(name, std::move(text));
  }
  return copies;
}

std::vector<std::pair<std::string, std::string>> sidecars(const Checkpoint& source,
                                                          const ExportOptions& options) {
  if (source.file().format() != "GGUF") return copied_sidecars(source, options);
  const text::TokenizerSpec tokenizer = source.tokenizer_spec();
  Json config;
  config["architectures"] = {std::string(source.architecture().hf_name)};
  config["model_type"] = std::string(source.architecture().hf_type);
  source.architecture().write_hf(source.spec(), config);
  if (const auto dtype = torch_dtype(options.nominal_codec); !dtype.empty()) {
    config["torch_dtype"] = dtype;
  }
  if (tokenizer.bos) config["bos_token_id"] = index(*tokenizer.bos);
  if (tokenizer.eos) config["eos_token_id"] = index(*tokenizer.eos);
  if (tokenizer.pad) config["pad_token_id"] = index(*tokenizer.pad);
  return {{"config.json", dump_json(config, true) + "\n"},
          {"tokenizer.json", text::write_tokenizer_json(tokenizer)},
          {"tokenizer_config.json", text::write_tokenizer_config_json(tokenizer)}};
}

std::vector<formats::PlannedTensor> planned_tensors(std::span<const ExportTensor> plan) {
  std::vector<formats::PlannedTensor> planned;
  for (const ExportTensor& tensor : plan) planned.push_back(tensor.planned);
  return planned;
}

/// Packed rows of a part that come from elsewhere, or false.
using RowSource = std::function<bool(std::size_t first, std::span<std::byte> out)>;

/// Rows of a small tensor of which `make` gives all values [rows, cols].
RowSource made_rows(std::size_t cols, const quant::Codec& codec,
                    std::function<std::vector<float>()> make) {
  return [cols, &codec, make = std::move(make)](std::size_t first, std::span<std::byte> out) {
    const std::vector<float> values = make();
    const std::size_t blocks = cols / codec.block_size;
    const std::size_t row_bytes = blocks * codec.block_bytes;
    for (std::size_t r = 0; r < out.size() / row_bytes; ++r) {
      codec.encode(values.data() + (first + r) * cols, blocks, nullptr, out.data() + r * row_bytes);
    }
    return true;
  };
}

/// Values of a vector or router as they are to be written.
std::vector<float> small_values(const Checkpoint& source, const ExportOptions& options, Role role,
                                LayerId layer) {
  const TensorRef ref = source.at(role, layer);
  std::vector<float> values(ref.rows * ref.cols);
  source.read_floats(ref, 0, ref.rows, values);
  if (options.edit) options.edit(role, layer, values);
  if (role != Role::kRouter || options.experts.empty()) return values;
  std::vector<float> chosen;
  for (const ExportExpert& expert : options.experts[index(layer)]) {
    const auto row = values.begin() + static_cast<std::ptrdiff_t>(index(expert.source) * ref.cols);
    chosen.insert(chosen.end(), row, row + static_cast<std::ptrdiff_t>(ref.cols));
  }
  return chosen;
}

/// One tensor, or one expert of a stack, and what becomes of it.
struct Part {
  std::optional<TensorRef> ref;  // where it is stored, in this shape; nothing: `rows` has all
  std::size_t num_rows, cols;
  const quant::Codec& codec;
  std::span<const float> importance;
  RowSource rows;                         // may be empty
  std::optional<RotaryPairs> head_order;  // that the rows of its heads change to
};

using WriteBytes = std::function<void(std::span<const std::byte>)>;

/// Copies or re-encodes a part.
void write_part(const Checkpoint& source, const Part& part, const WriteBytes& write,
                os::ThreadPool& pool, Log& log) {
  const auto& [ref, num_rows, cols, codec, importance, rows, head_order] = part;
  // Encoding again what is packed so already could only lose.
  const bool copy = ref && &ref->codec() == &codec && ref->low_rank == nullptr;
  std::size_t chunk = std::max<std::size_t>(1, kChunkWeights / cols);
  const std::size_t head_dim = source.spec().head_dim;
  if (head_order) chunk = (chunk + head_dim - 1) / head_dim * head_dim;  // whole heads
  std::vector<float> weights;
  std::vector<std::byte> packed;
  for (std::size_t row = 0; row < num_rows; row += chunk) {
    log.check_interrupt();
    const std::size_t count = std::min(chunk, num_rows - row);
    packed.resize(count * (cols / codec.block_size * codec.block_bytes));
    if (rows && rows(row, packed)) {
      // Made elsewhere.
    } else if (copy) {
      source.read_rows(*ref, row, count, packed);
    } else {
      WINNOW_CHECK(ref.has_value());
      weights.resize(count * cols);
      source.read_floats(*ref, row, count, weights);
      encode_rows(codec, weights, count, cols, importance, packed, pool);
    }
    if (head_order) {
      // A bias is one row of numbers, each of which belongs to a row of the matrix.
      const std::size_t pieces = num_rows == 1 ? cols : count;
      reorder_heads(packed, packed.size() / pieces, head_dim, *head_order);
    }
    write(packed);
  }
}

}  // namespace

void encode_rows(const quant::Codec& codec, std::span<const float> weights, std::size_t rows,
                 std::size_t cols, std::span<const float> importance, std::span<std::byte> out,
                 os::ThreadPool& pool, quant::EncodeRow encode) {
  if (encode == nullptr) encode = codec.encode;
  const std::size_t blocks = cols / codec.block_size;
  const std::size_t row_bytes = blocks * codec.block_bytes;
  WINNOW_CHECK(cols % codec.block_size == 0 && weights.size() == rows * cols);
  WINNOW_CHECK(out.size() == rows * row_bytes && (importance.empty() || importance.size() == cols));
  const std::size_t parts = std::min<std::size_t>(rows, std::size_t{pool.size()} * 8);
  pool.run(parts, [&](std::size_t part, unsigned) {
    const os::Range range = os::split(rows, parts, part);
    for (std::size_t r = range.begin; r < range.end; ++r) {
      encode(weights.data() + r * cols, blocks, importance.empty() ? nullptr : importance.data(),
             out.data() + r * row_bytes);
    }
  });
}

namespace {

/// The order that the rows of the role's heads change to; nothing: they stay.
std::optional<RotaryPairs> changed_head_order(const Checkpoint& source,
                                              const ExportOptions& options, Role role) {
  const RotaryPairs pairs = options.format == OutputFormat::kGguf
                                ? source.architecture().gguf_rotary_pairs
                                : RotaryPairs::kHalves;
  if (pairs == source.spec().rotary_pairs || !is_rotated(role)) return std::nullopt;
  return pairs;
}

/// One factor of one matrix; returns its bytes. Rows of a left factor belong to those of the
/// matrix.
std::uint64_t write_factor(const Checkpoint& source, const ExportOptions& options,
                           const ExportTensor& tensor, ExpertId expert,
                           formats::ModelWriter& writer) {
  std::vector<std::byte> bytes(planned_bytes(std::span(&tensor, 1)).value / tensor.parts);
  options.factor(tensor.role, tensor.layer, expert, *tensor.factor, bytes);
  const auto head_order = changed_head_order(source, options, tensor.role);
  if (head_order && *tensor.factor == LowRankSide::kLeft) {
    const std::size_t rows = source.at(tensor.role, tensor.layer, expert).rows;
    reorder_heads(bytes, bytes.size() / rows, source.spec().head_dim, *head_order);
  }
  writer.append(bytes);
  return bytes.size();
}

/// The two tensors of a correction, all experts stacked as the matrix itself.
void plan_correction(const Checkpoint& source, const ExportOptions& options, Role role,
                     LayerId layer, std::vector<ExportTensor>& plan) {
  if (!options.correction_rank || !may_be_corrected(role)) return;
  const std::uint64_t rank = options.correction_rank(role, layer);
  if (rank == 0) return;
  const tensor::Shape shape = *expected_shape(source.spec(), role, layer);
  const auto parts = static_cast<std::uint32_t>(source.part_count(role, layer));
  for (const LowRankSide side : {LowRankSide::kLeft, LowRankSide::kRight}) {
    const bool left = side == LowRankSide::kLeft;
    const std::uint64_t rows = left ? shape[0] : rank;
    const std::uint64_t cols = left ? rank : shape[1];
    const auto stacked =
        traits(role).per_expert ? tensor::Shape{parts, rows, cols} : tensor::Shape{rows, cols};
    plan.push_back({{low_rank_name(role, layer, side), &plain_codec("F16"), stacked},
                    role,
                    layer,
                    0,
                    parts,
                    side});
  }
}

}  // namespace

namespace {

/// The tensors of a layer's experts one after the other, those of an expert together.
void plan_experts(const ModelSpec& spec, std::span<const ExportExpert> experts,
                  const ExportOptions& options, LayerId layer, std::vector<ExportTensor>& plan) {
  for (std::uint32_t e = 0; e < experts.size(); ++e) {
    const ExportExpert& expert = experts[e];
    for (const RoleTraits& role : all_roles()) {
      if (!role.per_expert) continue;
      const auto shape = part_shape(spec, role.role, layer, ExpertId{e});
      if (!shape) continue;
      const quant::Codec* codec = &plain_codec("F32");
      if (role.is_matrix) {
        const quant::Codec& wanted = options.expert_codec
                                         ? options.expert_codec(role.role, layer, expert.source)
                                         : options.codec(role.role, layer);
        codec = &quant::codec_for_row(wanted, shape->row_length());
      }
      const std::string name = expand_pattern(role.gguf_expert_pattern, layer, ExpertId{e});
      const auto apart = role.is_matrix ? std::optional(ExpertId{e}) : std::nullopt;
      plan.push_back({{name, codec, *shape}, role.role, layer, index(expert.source), 1, {}, apart});
    }
  }
}

}  // namespace

std::vector<ExportTensor> plan_export(const Checkpoint& source, const ExportOptions& options) {
  refuse_unused(source);
  const ExportExperts experts = exported_experts(source, options);
  if (!experts.empty() && options.format == OutputFormat::kSafetensors) {
    fail(ErrorCode::kUsage,
         "the experts vary, for which only the extended layout has a place: give a name ending in "
         ".gguf");
  }
  const ModelSpec spec = spec_with(source.spec(), experts);
  std::vector<ExportTensor> plan;
  std::optional<LayerId> planned_layer;  // whose experts are in the plan
  source.for_each_role([&](Role role, LayerId layer) {
    if (traits(role).per_expert && !experts.empty()) {
      if (planned_layer != layer) plan_experts(spec, experts[index(layer)], options, layer, plan);
      planned_layer = layer;
      return;
    }
    const quant::Codec& codec = codec_of(source, options, role, layer);
    const tensor::Shape shape = *expected_shape(spec, role, layer);
    const auto parts = static_cast<std::uint32_t>(source.part_count(role, layer));
    if (options.format == OutputFormat::kGguf) {
      const auto stacked =
          traits(role).per_expert ? tensor::Shape{parts, shape[0], shape[1]} : shape;
      const std::string name = expand_pattern(traits(role).gguf_pattern, layer);
      plan.push_back({{name, &codec, stacked}, role, layer, 0, parts});
      plan_correction(source, options, role, layer, plan);
      return;
    }
    const std::string_view pattern = hf_pattern(source.architecture(), role);
    for (std::uint32_t part = 0; part < parts; ++part) {
      const std::string name = expand_pattern(pattern, layer, ExpertId{part});
      plan.push_back({{name, &codec, shape}, role, layer, part, 1});
    }
  });
  return plan;
}

Bytes planned_bytes(std::span<const ExportTensor> plan) {
  Bytes total;
  for (const ExportTensor& tensor : plan) {
    total += quant::packed_size(*tensor.planned.codec, tensor.planned.shape).value();
  }
  return total;
}

Bytes planned_file_size(const Checkpoint& source, const ExportOptions& options) {
  const std::vector<ExportTensor> plan = plan_export(source, options);
  return formats::gguf_file_size(gguf_metadata(source, options, plan), planned_tensors(plan));
}

namespace {

/// How one matrix or vector of the source becomes (a part of) `tensor`.
Part part_of(const Checkpoint& source, const ExportOptions& options, const ExportTensor& tensor,
             ExpertId expert) {
  const Role role = tensor.role;
  const LayerId layer = tensor.layer;
  const quant::Codec& codec = *tensor.planned.codec;
  const tensor::Shape& shape = tensor.planned.shape;
  const std::size_t cols = shape.row_length();
  std::size_t rows = 1;
  if (shape.rank() > 1) rows = shape[shape.rank() - 2];
  Part part{source.find(role, layer, expert),         rows, cols, codec, {}, {},
            changed_head_order(source, options, role)};
  if (part.ref && (part.ref->rows != rows || part.ref->cols != cols)) part.ref.reset();
  if (traits(role).is_matrix) {
    if (options.importance && !codec.is_float()) {
      part.importance = options.importance(role, layer, expert);
    }
    if (options.rows) {
      part.rows = [&options, role, layer, expert](std::size_t first, std::span<std::byte> out) {
        return options.rows(role, layer, expert, first, out);
      };
    }
  } else if (role == Role::kExpertConstant) {
    if (!options.constant) return part;
    part.rows = made_rows(cols, codec, [&options, layer, expert, cols] {
      std::vector<float> values(cols);
      options.constant(layer, expert, values);
      return values;
    });
  } else if (options.edit || (role == Role::kRouter && !options.experts.empty())) {
    part.rows = made_rows(cols, codec,
                          [&, role, layer] { return small_values(source, options, role, layer); });
  }
  return part;
}

}  // namespace

void export_model(const Checkpoint& source, const std::filesystem::path& path,
                  const ExportOptions& options, os::ThreadPool& pool, Log& log) {
  const std::vector<ExportTensor> plan = plan_export(source, options);
  std::vector<formats::PlannedTensor> planned = planned_tensors(plan);
  const ExportExperts experts = exported_experts(source, options);
  ExpertChecksums checksums(spec_with(source.spec(), experts));
  const bool is_gguf = options.format == OutputFormat::kGguf;
  formats::Metadata metadata =
      is_gguf ? gguf_metadata(source, options, plan) : formats::Metadata("output");
  const auto writer = is_gguf ? formats::write_gguf(path, metadata, std::move(planned))
                              : formats::write_safetensors(path, std::move(planned),
                                                           {.sidecars = sidecars(source, options)});
  const std::uint64_t total = planned_bytes(plan).value;
  std::uint64_t done = 0;
  const auto write = [&](const ExportTensor& tensor, ExpertId part) {
    Part job = part_of(source, options, tensor, part);
    const auto write_bytes = [&](std::span<const std::byte> bytes) {
      checksums.add(tensor, bytes);
      writer->append(bytes);
    };
    write_part(source, job, write_bytes, pool, log);
    done += job.num_rows * (job.cols / job.codec.block_size * job.codec.block_bytes);
    log.progress("writing", done, total, "bytes");
  };
  for (const ExportTensor& tensor : plan) {
    for (std::uint32_t part = 0; part < tensor.parts; ++part) {
      if (tensor.factor) {
        done += write_factor(source, options, tensor, ExpertId{part}, *writer);
        continue;
      }
      write(tensor, ExpertId{tensor.first_part + part});
    }
  }
  if (!experts.empty()) {
    write_expert_checksums(checksums.values(), metadata);
    writer->replace_metadata(metadata);
  }
  writer->finish();
}

}  // namespace winnow::model
