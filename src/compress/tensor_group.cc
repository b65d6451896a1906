// SPDX-FileCopyrightText: The Winnow authors
// SPDX-License-Identifier: Apache-2.0
#include "compress/tensor_group.h"

#include <algorithm>
#include <cmath>

#include "base/error.h"
#include "compress/correction.h"
#include "compress/squared_sums.h"
#include "model/exporter.h"

namespace winnow::compress {
namespace {

using model::Role;

// A matrix is decoded whole here; the largest of a model (the embedding) is cut into stretches of
// about this many weights.
constexpr std::size_t kReadWeights = std::size_t{4} << 20;

/// Squared error of one stretch of rows, input moments (or 1) per column; f64, in row order within
/// fixed parts, so that the thread count does not change it.
double weighted_error(std::span<const float> original, const quant::PackedMatrix& packed,
                      std::span<const double> moments, os::ThreadPool& pool) {
  std::vector<double> row_errors(packed.rows);
  std::vector<std::vector<float>> decoded(pool.size(), std::vector<float>(packed.cols));
  pool.run(packed.rows, [&](std::size_t r, unsigned worker) {
    std::vector<float>& row = decoded[worker];
    packed.codec->decode(packed.row(r), packed.cols / packed.codec->block_size, row.data());
    double sum = 0;
    for (std::size_t j = 0; j < packed.cols; ++j) {
      const double difference = double{original[r * packed.cols + j]} - row[j];
      sum += (moments.empty() ? 1.0 : moments[j]) * difference * difference;
    }
    row_errors[r] = sum;
  });
  double total = 0;
  for (const double error : row_errors) total += error;
  return total;
}

}  // namespace

std::string TensorGroup::name() const {
  const model::RoleTraits& role_traits = model::traits(role);
  if (!role_traits.per_layer) return std::string(role_traits.name);
  const std::string left = width == 0 ? "" : fmt::format(", {} channels", width);
  const std::string all = fmt::format("{} of layer {}{}", role_traits.name, index(layer), left);
  return only ? fmt::format("{}, expert {}", all, index(*only)) : all;
}

std::string TensorGroup::file_stem() const {
  const std::string expert = only ? fmt::format("-{:05}", index(*only)) : "";
  const std::string left = width == 0 ? "" : fmt::format("-w{:05}", width);
  return fmt::format("{}-{:05}{}{}", model::traits(role).name, index(layer), expert, left);
}

std::vector<quant::CorrectedMatrix> PackedGroup::in_layer(const model::ModelSpec& spec) const {
  if (!only) return parts;
  std::vector<quant::CorrectedMatrix> all(spec.moe.num_experts);
  all[index(*only)] = parts.front();
  return all;
}

std::vector<TensorGroup> list_groups(const model::Checkpoint& checkpoint) {
  std::vector<TensorGroup> groups;
  checkpoint.for_each_role([&](Role role, LayerId layer) {
    if (!model::traits(role).is_matrix) return;
    const model::TensorRef ref = checkpoint.at(role, layer);
    TensorGroup group;
    group.role = role;
    group.layer = layer;
    group.parts = checkpoint.part_count(role, layer);
    group.rows = ref.rows;
    group.cols = ref.cols;
    group.weights = std::uint64_t{ref.rows} * ref.cols * group.parts;
    groups.push_back(std::move(group));
  });
  return groups;
}

std::vector<TensorGroup> divide_group(const TensorGroup& group) {
  std::vector<TensorGroup> divided;
  for (std::size_t part = 0; part < group.parts; ++part) {
    TensorGroup one = group;
    one.parts = 1;
    one.only = group.expert(part);
    one.weights = group.weights / group.parts;
    if (!group.channels.empty()) one.channels = {group.channels[part]};
    for (NoisePoint& point : one.noise) {
      for (const GroupOption& option : group.options) {
        if (option.codec != point.codec || !(option.error > 0)) continue;
        const double share = option.part_errors[part] / option.error;
        point.error *= share;
        point.kl *= share;
      }
    }
    for (GroupOption& option : one.options) {
      WINNOW_CHECK(option.part_errors.size() == group.parts && option.rank == 0);
      const double error = option.part_errors[part];
      option.predicted_kl = option.error > 0 ? option.predicted_kl * (error / option.error) : 0;
      option.error = error;
      option.part_errors.clear();
      count_bytes(one, option);
    }
    divided.push_back(std::move(one));
  }
  return divided;
}

PackedGroup pack_group(const model::Checkpoint& checkpoint, const TensorGroup& group,
                       const quant::Codec& codec, const InputMoments* moments, os::ThreadPool& pool,
                       Log& log, EncoderKind kind) {
  const quant::EncodeRow encode = find_encoder(codec, kind);
  WINNOW_CHECK(encode != nullptr);
  const model::TensorRef shape = checkpoint.at(group.role, group.layer);
  const std::size_t row_bytes = shape.cols / codec.block_size * codec.block_bytes;
  PackedGroup result;
  result.only = group.only;
  result.bytes.resize(group.parts * shape.rows * row_bytes);
  const std::size_t chunk = std::max<std::size_t>(1, kReadWeights / shape.cols);
  double tokens = 0;
  double norm = 0;
  std::vector<float> weights;
  for (std::size_t part = 0; part < group.parts; ++part) {
    const ExpertId expert = group.expert(part);
    const model::TensorRef ref = checkpoint.at(group.role, group.layer, expert);
    std::byte* const begin = result.bytes.data() + part * shape.rows * row_bytes;
    result.parts.emplace_back(&codec, begin, shape.rows, shape.cols);
    std::vector<double> sums;
    const std::vector<float> importance =
        importance_for(kind, moments, group.role, group.layer, expert);
    if (moments != nullptr) {
      sums = moments->sums(group.role, group.layer, expert);
      tokens += static_cast<double>(moments->tokens(group.role, group.layer, expert));
    }
    for (std::size_t row = 0; row < ref.rows; row += chunk) {
      log.check_interrupt();
      const std::size_t count = std::min(chunk, ref.rows - row);
      weights.resize(count * ref.cols);
      checkpoint.read_floats(ref, row, count, weights);
      const std::span<std::byte> out(begin + row * row_bytes, count * row_bytes);
      model::encode_rows(codec, weights, count, ref.cols, importance, out, pool, encode);
      result.error += weighted_error(weights, {&codec, out.data(), count, ref.cols}, sums, pool);
      if (moments == nullptr) norm += squared_norm(weights);
    }
  }
  const double divisor = moments == nullptr ? norm : tokens;
  if (divisor > 0) result.error /= divisor;
  if (!std::isfinite(result.error)) {
    fail_data("{}: the weights of {} are too large for the 16-bit scales of {}",
              checkpoint.file().name(), group.name(), codec.name);
  }
  return result;
}

bool is_stored_as(const model::Checkpoint& checkpoint, const TensorGroup& group,
                  const quant::Codec& codec) {
  if (group.width != 0) return false;
  for (std::size_t part = 0; part < group.parts; ++part) {
    if (&checkpoint.at(group.role, group.layer, group.expert(part)).codec() != &codec) return false;
  }
  return true;
}

Bytes packed_bytes(const TensorGroup& group, const quant::Codec& codec) {
  WINNOW_CHECK(group.weights % codec.block_size == 0);
  return {group.weights / codec.block_size * codec.block_bytes};
}

std::vector<const quant::Codec*> candidate_codecs(const model::Checkpoint& checkpoint,
                                                  const TensorGroup& group) {
  // Experts of one layer may be stored in several types: the widest holds most of all of them.
  const quant::Codec* stored = &checkpoint.at(group.role, group.layer, group.expert(0)).codec();
  for (std::size_t part = 1; part < group.parts; ++part) {
    const auto& codec = checkpoint.at(group.role, group.layer, group.expert(part)).codec();
    if (codec.bits_per_weight() > stored->bits_per_weight()) stored = &codec;
  }
  stored = &quant::codec_for_row(*stored, group.cols);
  std::vector<const quant::Codec*> candidates = {stored};
  for (const quant::Codec* wanted : quant::all_codecs()) {
    const quant::Codec& codec = quant::codec_for_row(*wanted, group.cols);
    if (codec.bits_per_weight() >= stored->bits_per_weight()) continue;
    if (std::find(candidates.begin(), candidates.end(), &codec) == candidates.end()) {
      candidates.push_back(&codec);
    }
  }
  std::stable_sort(candidates.begin(), candidates.end(), [](const auto* a, const auto* b) {
    return a->bits_per_weight() < b->bits_per_weight();
  });
  return candidates;
}

}  // namespace winnow::compress
