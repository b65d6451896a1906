// SPDX-FileCopyrightText: The Winnow authors
// SPDX-License-Identifier: Apache-2.0
#include "speed_model/inflate.h"

#include <algorithm>

#include "base/error.h"
#include "model/exporter.h"
#include "speed_model/weight_stream.h"

namespace winnow::tools {
namespace {

using model::Role;

bool is_expert(Role role) { return model::traits(role).per_expert; }

const quant::Codec& codec_of(const SpecTensor& tensor, const model::Checkpoint& source,
                             const InflateOptions& options) {
  if (!model::traits(tensor.role).is_matrix) return *quant::find_codec("F32");
  const quant::Codec& own = source.at(tensor.role, tensor.layer).codec();
  return quant::codec_for_row(options.codec != nullptr ? *options.codec : own,
                              tensor.shape.row_length());
}

/// The row [cols] that `codec` makes of zeros. They must come back as zeros, or outputs would
/// change.
std::vector<std::byte> zero_row(const quant::Codec& codec, std::size_t cols) {
  const std::size_t blocks = cols / codec.block_size;
  std::vector<float> values(cols);
  std::vector<std::byte> packed(blocks * codec.block_bytes);
  codec.encode(values.data(), blocks, nullptr, packed.data());
  codec.decode(packed.data(), blocks, values.data());
  WINNOW_CHECK(std::all_of(values.begin(), values.end(), [](float v) { return v == 0; }));
  return packed;
}

/// Encodes the rows of `weights` [rows, cols], each continued with zeros to `wide` columns.
std::vector<std::byte> encode_wide(const quant::Codec& codec, std::span<const float> weights,
                                   std::size_t cols, std::size_t wide, os::ThreadPool& pool) {
  const std::size_t rows = weights.size() / cols;
  // Only the blocks with real weights are encoded.
  const std::size_t filled = (cols + codec.block_size - 1) / codec.block_size * codec.block_size;
  std::vector<float> padded(rows * filled);
  for (std::size_t row = 0; row < rows; ++row) {
    std::copy_n(weights.begin() + static_cast<std::ptrdiff_t>(row * cols), cols,
                padded.begin() + static_cast<std::ptrdiff_t>(row * filled));
  }
  const std::size_t filled_bytes = filled / codec.block_size * codec.block_bytes;
  std::vector<std::byte> packed(rows * filled_bytes);
  model::encode_rows(codec, padded, rows, filled, {}, packed, pool);
  if (filled == wide) return packed;
  std::vector<std::byte> out;
  const std::vector<std::byte> zeros = zero_row(codec, wide - filled);
  for (std::size_t row = 0; row < rows; ++row) {
    const auto begin = packed.begin() + static_cast<std::ptrdiff_t>(row * filled_bytes);
    out.insert(out.end(), begin, begin + static_cast<std::ptrdiff_t>(filled_bytes));
    out.insert(out.end(), zeros.begin(), zeros.end());
  }
  return out;
}

void write_part(const SpecTensor& tensor, const model::Checkpoint& source, ExpertId expert,
                const quant::Codec& codec, WeightStream& stream, os::ThreadPool& pool) {
  const model::TensorRef ref = source.at(tensor.role, tensor.layer, expert);
  std::vector<float> weights(ref.rows * ref.cols);
  source.read_floats(ref, 0, ref.rows, weights);
  const std::size_t wide = tensor.shape.row_length();
  stream.append(encode_wide(codec, weights, ref.cols, wide, pool));
  const std::uint64_t rows = tensor.shape.rank() == 1 ? 1 : tensor.shape[0];
  if (rows == ref.rows) return;
  const std::vector<std::byte> zeros = zero_row(codec, wide);
  for (std::uint64_t row = ref.rows; row < rows; ++row) stream.append(zeros);
}

model::ModelSpec inflated_spec(const model::Checkpoint& source, const InflateOptions& options) {
  model::ModelSpec spec = source.spec();
  if (spec.num_moe_layers() == 0 || spec.moe.moe_intermediate_size >= options.width) {
    fail(ErrorCode::kUsage, "{}: experts are {} wide; cannot inflate them to {}",
         source.file().name(), spec.moe.moe_intermediate_size, options.width);
  }
  spec.name =
      fmt::format("{}, experts inflated from {} to {}", spec.name.empty() ? "model" : spec.name,
                  spec.moe.moe_intermediate_size, options.width);
  spec.moe.moe_intermediate_size = options.width;
  model::check_spec(spec, source.file().name());
  return spec;
}

}  // namespace

void write_inflated_model(const std::filesystem::path& path, const model::Checkpoint& source,
                          const InflateOptions& options, os::ThreadPool& pool, Log& log) {
  const model::ModelSpec spec = inflated_spec(source, options);
  const std::vector<SpecTensor> tensors = spec_tensors(spec);
  std::vector<formats::PlannedTensor> plan;
  Bytes total;
  const quant::Codec* nominal = nullptr;
  for (const SpecTensor& tensor : tensors) {
    plan.push_back(planned(tensor, codec_of(tensor, source, options)));
    total += quant::packed_size(*plan.back().codec, plan.back().shape).value();
    if (is_expert(tensor.role)) nominal = plan.back().codec;
  }
  const auto metadata = speed_metadata(spec, source.tokenizer_spec(), *nominal);
  const auto writer = formats::write_gguf(path, metadata, std::move(plan));
  WeightStream stream(*writer, total, log);
  for (const SpecTensor& tensor : tensors) {
    const quant::Codec& codec = codec_of(tensor, source, options);
    for (std::uint32_t part = 0; part < tensor.parts; ++part) {
      write_part(tensor, source, ExpertId{part}, codec, stream, pool);
    }
    stream.end_tensor();
  }
  writer->finish();
}

}  // namespace winnow::tools
