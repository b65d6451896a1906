// SPDX-FileCopyrightText: The Winnow authors
// SPDX-License-Identifier: Apache-2.0
#include "engine/blocks/attention.h"

#include <algorithm>
#include <cmath>

#include "base/error.h"

namespace winnow::engine {

using model::Role;

Attention::Attention(const model::ModelSpec& spec) : spec_(spec) {
  // theta^(-2i / head_dim) in f32, as the reference implementation computes it.
  for (std::uint32_t i = 0; i < spec.head_dim / 2; ++i) {
    const double exponent = 2.0 * i / spec.head_dim;
    inverse_frequencies_.push_back(static_cast<float>(1.0 / std::pow(spec.rope_theta, exponent)));
  }
}

void Attention::prepare_rotation(std::span<const SequenceRows> sequences, std::size_t rows) {
  const std::size_t half = spec_.head_dim / 2;
  rotation_ = tensor::Matrix<float>(rows, spec_.head_dim);
  for (const SequenceRows& sequence : sequences) {
    for (std::size_t r = 0; r < sequence.rows; ++r) {
      const auto position = static_cast<float>(sequence.cache->length() + r);
      const std::span<float> row = rotation_.row(sequence.first_row + r);
      for (std::size_t i = 0; i < half; ++i) {
        const float angle = position * inverse_frequencies_[i];
        row[i] = std::cos(angle);
        row[half + i] = std::sin(angle);
      }
    }
  }
}

void Attention::normalize_and_rotate(const Compute& compute, std::span<const float> norm,
                                     float* row, std::size_t heads, std::size_t token) const {
  const std::size_t dim = spec_.head_dim;
  const std::size_t half = dim / 2;
  const float* cosines = rotation_.row(token).data();
  const float* sines = cosines + half;
  if (spec_.query_key_norm == model::QueryKeyNorm::kFullWidth) {
    compute.kernels.rms_norm(row, norm.data(), spec_.rms_norm_eps, row, heads * dim);
  }
  for (std::size_t h = 0; h < heads; ++h) {
    float* head = row + h * dim;
    if (spec_.query_key_norm == model::QueryKeyNorm::kPerHead) {
      compute.kernels.rms_norm(head, norm.data(), spec_.rms_norm_eps, head, dim);
    }
    // Pairs are (i, i + half): rotation of halves, "neox".
    for (std::size_t i = 0; i < half; ++i) {
      const float a = head[i];
      const float b = head[half + i];
      head[i] = a * cosines[i] - b * sines[i];
      head[half + i] = b * cosines[i] + a * sines[i];
    }
  }
}

void Attention::store_keys_and_values(const Compute& compute, const DenseWeights& weights,
                                      LayerId layer, std::span<const SequenceRows> sequences) {
  const std::size_t dim = spec_.head_dim;
  const auto query_norm = weights.vector(Role::kQueryNorm, layer);
  const auto key_norm = weights.vector(Role::kKeyNorm, layer);
  for (const SequenceRows& sequence : sequences) {
    const std::size_t parts =
        std::min<std::size_t>(sequence.rows, std::size_t{compute.pool.size()} * 4);
    compute.pool.run(parts, [&](std::size_t part, unsigned) {
      const os::Range range = os::split(sequence.rows, parts, part);
      for (std::size_t r = range.begin; r < range.end; ++r) {
        const std::size_t token = sequence.first_row + r;
        const std::size_t position = sequence.cache->length() + r;
        normalize_and_rotate(compute, query_norm, query_.row(token).data(),
                             spec_.num_attention_heads, token);
        normalize_and_rotate(compute, key_norm, key_.row(token).data(), spec_.num_key_value_heads,
                             token);
        for (std::size_t h = 0; h < spec_.num_key_value_heads; ++h) {
          std::copy_n(key_.row(token).data() + h * dim, dim,
                      sequence.cache->keys(layer, h) + position * dim);
          std::copy_n(value_.row(token).data() + h * dim, dim,
                      sequence.cache->values(layer, h) + position * dim);
        }
      }
    });
  }
}

void Attention::attend(const Compute& compute, LayerId layer,
                       std::span<const SequenceRows> sequences) {
  const std::size_t dim = spec_.head_dim;
  const std::size_t heads = spec_.num_attention_heads;
  const std::size_t group = heads / spec_.num_key_value_heads;
  const float scale = 1.0F / std::sqrt(static_cast<float>(dim));
  scores_.resize(compute.pool.size());
  for (const SequenceRows& sequence : sequences) {
    KvCache& cache = *sequence.cache;
    const std::size_t history = cache.length() + sequence.rows;
    for (auto& scores : scores_) scores.resize(std::max(scores.size(), history));
    compute.pool.run(sequence.rows * heads, [&](std::size_t item, unsigned worker) {
      const std::size_t r = item / heads;
      const std::size_t h = item % heads;
      const std::size_t token = sequence.first_row + r;
      const std::size_t visible = cache.length() + r + 1;
      const float* query = query_.row(token).data() + h * dim;
      const float* keys = cache.keys(layer, h / group);
      const float* values = cache.values(layer, h / group);
      float* scores = scores_[worker].data();
      for (std::size_t p = 0; p < visible; ++p) {
        scores[p] = scale * compute.kernels.dot(query, keys + p * dim, dim);
      }
      compute.kernels.softmax(scores, visible);
      float* out = inner_.row(token).data() + h * dim;
      std::fill_n(out, dim, 0.0F);
      for (std::size_t p = 0; p < visible; ++p) {
        compute.kernels.axpy(scores[p], values + p * dim, out, dim);
      }
    });
  }
}

void Attention::forward(const Compute& compute, const DenseWeights& weights, LayerId layer,
                        tensor::MatrixView<const float> x, std::span<const SequenceRows> sequences,
                        tensor::MatrixView<float> out, Observer* observer) {
  if (query_.rows() != x.rows) {
    query_ = tensor::Matrix<float>(x.rows, spec_.query_width());
    key_ = tensor::Matrix<float>(x.rows, spec_.key_value_width());
    value_ = tensor::Matrix<float>(x.rows, spec_.key_value_width());
    inner_ = tensor::Matrix<float>(x.rows, spec_.query_width());
  }
  // Angles depend on positions only, so the first layer prepares them for all.
  if (index(layer) == 0) prepare_rotation(sequences, x.rows);
  if (observer != nullptr) observer->on_input(Site::kAttentionInput, layer, x);

  const quant::PackedMatrix& q = weights.matrix(compute.overrides, Role::kQueryProj, layer);
  const quant::PackedMatrix& k = weights.matrix(compute.overrides, Role::kKeyProj, layer);
  const quant::PackedMatrix& v = weights.matrix(compute.overrides, Role::kValueProj, layer);
  input_.assign(compute, x, wants_codes(q) || wants_codes(k) || wants_codes(v));
  multiply(compute, q, input_, weights.vector(Role::kQueryBias, layer), query_.view());
  multiply(compute, k, input_, weights.vector(Role::kKeyBias, layer), key_.view());
  multiply(compute, v, input_, weights.vector(Role::kValueBias, layer), value_.view());
  store_keys_and_values(compute, weights, layer, sequences);
  attend(compute, layer, sequences);

  if (observer != nullptr) observer->on_input(Site::kAttentionInner, layer, inner_.view());
  const quant::PackedMatrix& o = weights.matrix(compute.overrides, Role::kAttentionOutput, layer);
  inner_input_.assign(compute, inner_.view(), wants_codes(o));
  multiply(compute, o, inner_input_, weights.vector(Role::kAttentionOutputBias, layer), out);
}

}  // namespace winnow::engine
