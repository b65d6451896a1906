// SPDX-FileCopyrightText: The Winnow authors
// SPDX-License-Identifier: Apache-2.0
#include "compress/key_entropy.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <functional>
#include <utility>

#include "base/error.h"
#include "compress/linear_algebra.h"
#include "engine/kv_cache.h"
#include "engine/observer.h"

namespace winnow::compress {
namespace {

/// Keys of positions [0, positions) of one head: [positions, head_dim].
tensor::Matrix<float> keys_of(engine::KvCache& cache, LayerId layer, std::size_t head,
                              std::size_t positions) {
  const kernels::KvLayout& layout = cache.layout();
  WINNOW_CHECK(layout.type == kernels::KvType::kF32);
  tensor::Matrix<float> keys(positions, layout.head_dim);
  for (std::size_t p = 0; p < positions; ++p) {
    const std::byte* const strip =
        cache.keys(layer, head) + p / kernels::KvLayout::kStrip * layout.strip_bytes();
    for (std::size_t d = 0; d < layout.head_dim; ++d) {
      const std::size_t at = kernels::KvLayout::key_index(p % kernels::KvLayout::kStrip, d);
      std::memcpy(&keys.row(p)[d], strip + at * sizeof(float), sizeof(float));
    }
  }
  return keys;
}

/// Adds each layer's estimate of one window.
class StatesObserver final : public engine::Observer {
 public:
  explicit StatesObserver(std::vector<double>& sums) : sums_(sums) {}
  bool wants_expert_inputs() const override { return false; }
  void on_input(engine::Site site, LayerId layer, tensor::MatrixView<const float> x) override {
    if (site != engine::Site::kAttentionInput) return;
    tensor::Matrix<float> rows(x.rows, x.cols);
    for (std::size_t t = 0; t < x.rows; ++t) {
      double squares = 0;
      for (const float value : x.row(t)) squares += double{value} * value;
      if (squares == 0) continue;
      const double scale = 1 / std::sqrt(squares);
      for (std::size_t i = 0; i < x.cols; ++i) {
        rows.row(t)[i] = static_cast<float>(x.row(t)[i] * scale);
      }
    }
    sums_[index(layer)] += nuclear_norm_estimate(rows.view());
  }

 private:
  std::vector<double>& sums_;
};

}  // namespace

void DirectionMoments::add(tensor::MatrixView<const float> x) {
  WINNOW_CHECK(x.cols == sums_.cols());
  if (x.rows == 0) return;
  std::vector<double> mean(x.cols);
  for (std::size_t t = 0; t < x.rows; ++t) {
    for (std::size_t i = 0; i < x.cols; ++i) mean[i] += x.row(t)[i];
  }
  for (double& value : mean) value /= static_cast<double>(x.rows);
  std::vector<double> z(x.cols);
  for (std::size_t t = 0; t < x.rows; ++t) {
    double squares = 0;
    for (std::size_t i = 0; i < x.cols; ++i) {
      z[i] = x.row(t)[i] - mean[i];
      squares += z[i] * z[i];
    }
    if (squares == 0) continue;
    for (std::size_t i = 0; i < x.cols; ++i) {
      const double factor = z[i] / squares;
      const auto row = sums_.row(i);
      for (std::size_t j = 0; j <= i; ++j) row[j] += factor * z[j];
    }
  }
}

double DirectionMoments::entropy() const {
  const std::size_t size = sums_.rows();
  double trace = 0;
  for (std::size_t i = 0; i < size; ++i) trace += sums_.row(i)[i];
  if (size < 2 || trace == 0) return 0;
  tensor::Matrix<double> sigma(size, size);
  for (std::size_t i = 0; i < size; ++i) {
    for (std::size_t j = 0; j <= i; ++j) {
      sigma.row(i)[j] = sigma.row(j)[i] = sums_.row(i)[j] / trace;
    }
  }
  // Positive semidefinite: its singular values are its eigenvalues.
  const std::vector<double> values = singular_values(std::as_const(sigma).view()).values;
  double sum = 0;
  for (std::size_t i = 0; i < std::min(kEntropyValues, size); ++i) {
    if (values[i] > 0) sum -= values[i] * std::log(values[i]);
  }
  return sum / std::log(static_cast<double>(size));
}

double nuclear_norm_estimate(tensor::MatrixView<const float> x) {
  std::vector<double> norms(x.cols);
  for (std::size_t r = 0; r < x.rows; ++r) {
    for (std::size_t c = 0; c < x.cols; ++c) norms[c] += double{x.row(r)[c]} * x.row(r)[c];
  }
  std::sort(norms.begin(), norms.end(), std::greater<>());
  double sum = 0;
  for (std::size_t c = 0; c < std::min(x.rows, x.cols); ++c) sum += std::sqrt(norms[c]);
  return sum;
}

KeyEntropy measure_key_entropy(engine::Engine& engine, const metrics::WindowSet& windows,
                               Log& log) {
  const model::ModelSpec& spec = engine.spec();
  std::size_t context = 1;
  std::uint64_t total = 0;
  for (const metrics::Window& window : windows.windows) {
    context = std::max(context, window.tokens.size());
    total += window.tokens.size();
  }
  KeyEntropy result;
  result.nuclear_norms.resize(spec.num_hidden_layers);
  const std::size_t heads = spec.num_key_value_heads;
  std::vector<DirectionMoments> moments;
  while (moments.size() < spec.num_hidden_layers * heads) moments.emplace_back(spec.head_dim);
  engine::KvCache cache(spec, context);
  StatesObserver hidden(result.nuclear_norms);
  for (const metrics::Window& window : windows.windows) {
    log.check_interrupt();
    cache.truncate(0);
    const engine::SequenceInput input{&cache, window.tokens};
    engine.forward(std::span(&input, 1), &hidden);
    engine.pool().run(moments.size(), [&](std::size_t i, unsigned) {
      const LayerId layer{static_cast<std::uint32_t>(i / heads)};
      const auto keys = keys_of(cache, layer, i % heads, window.tokens.size());
      moments[i].add(keys.view());
    });
    result.tokens += window.tokens.size();
    log.progress("measuring keys", result.tokens, total, "tokens");
  }
  std::vector<double> entropies(moments.size());
  engine.pool().run(moments.size(),
                    [&](std::size_t i, unsigned) { entropies[i] = moments[i].entropy(); });
  for (std::size_t l = 0; l < spec.num_hidden_layers; ++l) {
    const auto first = entropies.begin() + static_cast<std::ptrdiff_t>(l * heads);
    result.heads.emplace_back(first, first + static_cast<std::ptrdiff_t>(heads));
    result.nuclear_norms[l] /= static_cast<double>(result.tokens);
  }
  return result;
}

Json to_json(const KeyEntropy& entropy) {
  Json json;
  json["tokens"] = entropy.tokens;
  Json& layers = json["layers"] = Json::array();
  for (std::size_t l = 0; l < entropy.heads.size(); ++l) {
    layers.push_back({{"heads", entropy.heads[l]}, {"nuclear_norm", entropy.nuclear_norms[l]}});
  }
  return json;
}

}  // namespace winnow::compress
