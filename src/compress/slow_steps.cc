// SPDX-FileCopyrightText: The Winnow authors
// SPDX-License-Identifier: Apache-2.0
#include "compress/slow_steps.h"

#include <algorithm>

namespace winnow::compress {
namespace {

constexpr std::size_t kSampledRows = 32;  // of a group
constexpr std::size_t kTypes = 3;
/// As if so many more tokens had judged, with which the steps gain nothing: a few tokens say
/// little.
constexpr double kPseudoTokens = 32;

bool has_slow_steps(const HessianQuantizerOptions& options) {
  return options.dampings.size() > 1 || (options.feedback && options.neighbour_scales) ||
         (options.descent &&
          (options.descent->block_sweeps > 0 || options.descent->chain_sweeps > 0));
}

/// At most `count` rows, spread over all.
tensor::Matrix<float> some_rows(ConstMatrix rows, std::size_t count) {
  count = std::min(count, rows.rows);
  tensor::Matrix<float> some(count, rows.cols);
  for (std::size_t r = 0; r < count; ++r) {
    const auto from = rows.row(r * rows.rows / count);
    std::copy(from.begin(), from.end(), some.row(r).begin());
  }
  return some;
}

/// From the largest to the smallest, evenly.
std::vector<std::size_t> some_options(const TensorGroup& group) {
  std::vector<std::size_t> types;
  for (std::size_t o = 0; o < group.options.size(); ++o) {
    if (!group.options[o].codec->is_float()) types.push_back(o);
  }
  std::vector<std::size_t> some;
  const std::size_t count = std::min(types.size(), kTypes);
  for (std::size_t i = 0; i < count; ++i) {
    some.push_back(types[(2 * i + 1) * types.size() / (2 * count)]);
  }
  return some;
}

}  // namespace

HessianQuantizerOptions without_slow_steps(HessianQuantizerOptions options) {
  if (!options.dampings.empty()) options.dampings = {options.dampings.front()};
  options.neighbour_scales = false;
  if (options.descent) options.descent->block_sweeps = options.descent->chain_sweeps = 0;
  return options;
}

void SlowStepShares::add(const TensorGroup& group, ConstMatrix rows, PreparedHessian& hessian,
                         const Workers& workers) {
  if (!has_slow_steps(whole_) || !(hessian.judge().trace() > 0)) return;
  Sums& sums = sums_[&group];
  if (sums.rows >= kSampledRows) return;
  if (sums.rows == 0) {
    sums.options = some_options(group);
    sums.quick.resize(sums.options.size());
    sums.whole.resize(sums.options.size());
  }
  const tensor::Matrix<float> some = some_rows(rows, kSampledRows - sums.rows);
  sums.rows += some.rows();
  sums.tokens = hessian.judge().tokens();
  const HessianQuantizerOptions quick = without_slow_steps(whole_);
  std::vector<std::byte> bytes;
  for (std::size_t i = 0; i < sums.options.size(); ++i) {
    const quant::Codec& codec = *group.options[sums.options[i]].codec;
    bytes.resize(some.rows() * (some.cols() / codec.block_size) * codec.block_bytes);
    const auto loss = [&](const HessianQuantizerOptions& options) {
      return quantize_matrix(some.view(), codec, hessian, options, workers, bytes)
          .chosen()
          .held_out_loss;
    };
    sums.quick[i] += loss(quick);
    sums.whole[i] += loss(whole_);
  }
}

double SlowStepShares::of(const TensorGroup& group) const {
  const auto found = sums_.find(&group);
  if (found == sums_.end()) return 1;
  double total = 0;
  std::size_t count = 0;
  for (std::size_t i = 0; i < found->second.options.size(); ++i) {
    const double quick = found->second.quick[i];
    const double whole = found->second.whole[i];
    if (!(quick > 0) || !(whole > 0)) continue;
    total += std::min(whole / quick, 1.0);
    ++count;
  }
  if (count == 0) return 1;
  const double gain = 1 - total / static_cast<double>(count);
  return 1 - gain * found->second.tokens / (found->second.tokens + kPseudoTokens);
}

}  // namespace winnow::compress
