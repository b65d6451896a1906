// SPDX-FileCopyrightText: The Winnow authors
// SPDX-License-Identifier: Apache-2.0
#include "engine/blocks/attention.h"

#include <algorithm>
#include <array>
#include <cmath>

#include "base/error.h"

namespace winnow::engine {

using model::QueryKeyNorm;
using model::Role;
using model::RotaryPairs;

namespace {

// Tokens prepared by one thread at a time: a strip of keys, whose lines they share.
constexpr std::size_t kTokensTogether = kernels::KvLayout::kStrip;

struct Projection {
  quant::CorrectedMatrix matrix;
  std::span<const float> bias;
  tensor::MatrixView<float> out;
  std::size_t parts;
};

/// Part `part` of the rows of one projection, for all tokens.
void project_part(const Compute& compute, const Projection& projection, std::size_t part,
                  const LinearInput& x, unsigned worker) {
  const os::Range range = os::split(projection.matrix.rows, projection.parts, part);
  multiply_rows(compute, projection.matrix, range.begin, range.end, x, 0, projection.out, worker);
  if (projection.bias.empty()) return;
  for (std::size_t t = 0; t < projection.out.rows; ++t) {
    compute.kernels.axpy(1.0F, projection.bias.data() + range.begin,
                         projection.out.row(t).data() + range.begin, range.size());
  }
}

/// As Kernels::rotate_halves, for pairs (2 i, 2 i + 1).
void rotate_adjacent(float* head, const float* cosines, const float* sines, std::size_t half) {
  for (std::size_t i = 0; i < half; ++i) {
    const float a = head[2 * i];
    const float b = head[2 * i + 1];
    head[2 * i] = a * cosines[i] - b * sines[i];
    head[2 * i + 1] = b * cosines[i] + a * sines[i];
  }
}

}  // namespace

Attention::Attention(const model::ModelSpec& spec)
    : spec_(spec), group_(spec.num_attention_heads / spec.num_key_value_heads) {
  // theta^(-2i / head_dim) in f32, as the reference implementation computes it.
  for (std::uint32_t i = 0; i < spec.head_dim / 2; ++i) {
    const double exponent = 2.0 * i / spec.head_dim;
    inverse_frequencies_.push_back(static_cast<float>(1.0 / std::pow(spec.rope_theta, exponent)));
  }
}

void Attention::reserve(const Compute& compute, std::size_t rows) {
  if (query_.rows() < rows) {
    query_ = tensor::Matrix<float>(rows, spec_.query_width());
    key_ = tensor::Matrix<float>(rows, spec_.key_value_width());
    value_ = tensor::Matrix<float>(rows, spec_.key_value_width());
    inner_ = tensor::Matrix<float>(rows, spec_.query_width());
    rotation_ = tensor::Matrix<float>(rows, spec_.head_dim);
  }
  while (scratch_.size() < compute.pool.size()) {
    scratch_.emplace_back(kernels::attention_scratch_bytes(spec_.head_dim));
  }
}

void Attention::prepare_rotation(std::span<const SequenceRows> sequences) {
  const std::size_t half = spec_.head_dim / 2;
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

void Attention::project(const Compute& compute, const DenseWeights& weights, LayerId layer,
                        tensor::MatrixView<const float> x) {
  const auto projection = [&](Role role, Role bias, tensor::Matrix<float>& out) {
    const quant::CorrectedMatrix& matrix = weights.matrix(compute.overrides, role, layer);
    WINNOW_CHECK(matrix.cols == x.cols && matrix.rows == out.cols());
    return Projection{matrix, weights.vector(bias, layer), out.view().rows_from(0, x.rows),
                      row_parts(matrix.rows, compute.pool.size())};
  };
  const std::array<Projection, 3> projections = {
      projection(Role::kQueryProj, Role::kQueryBias, query_),
      projection(Role::kKeyProj, Role::kKeyBias, key_),
      projection(Role::kValueProj, Role::kValueBias, value_)};
  const auto& [q, k, v] = projections;
  {
    const OpTimer timer(compute.profile, Op::kQuantize);
    input_.assign(compute, x,
                  wants_codes(q.matrix) || wants_codes(k.matrix) || wants_codes(v.matrix));
  }
  const OpTimer timer(compute.profile, Op::kAttentionProjections);
  compute.pool.run(q.parts + k.parts + v.parts, [&](std::size_t part, unsigned worker) {
    const Projection* projection_of_part = projections.data();
    while (part >= projection_of_part->parts) part -= projection_of_part++->parts;
    project_part(compute, *projection_of_part, part, input_, worker);
  });
}

void Attention::normalize_full_width(const Compute& compute, const Norms& norms,
                                     std::size_t token) {
  if (spec_.query_key_norm != QueryKeyNorm::kFullWidth) return;
  float* query = query_.row(token).data();
  float* key = key_.row(token).data();
  compute.kernels.rms_norm(query, norms.query.data(), spec_.rms_norm_eps, query,
                           spec_.query_width());
  compute.kernels.rms_norm(key, norms.key.data(), spec_.rms_norm_eps, key, spec_.key_value_width());
}

void Attention::rotate_head(const Compute& compute, std::span<const float> norm, float* head,
                            std::size_t token) const {
  const std::size_t half = spec_.head_dim / 2;
  const float* cosines = rotation_.row(token).data();
  if (spec_.query_key_norm == QueryKeyNorm::kPerHead) {
    compute.kernels.rms_norm(head, norm.data(), spec_.rms_norm_eps, head, spec_.head_dim);
  }
  if (spec_.rotary_pairs == RotaryPairs::kAdjacent) {
    rotate_adjacent(head, cosines, cosines + half, half);
  } else {
    compute.kernels.rotate_halves(head, cosines, cosines + half, half);
  }
}

void Attention::prepare_group(const Compute& compute, const Norms& norms, LayerId layer,
                              const SequenceRows& sequence, std::size_t r, std::size_t kv_head) {
  const std::size_t dim = spec_.head_dim;
  const std::size_t token = sequence.first_row + r;
  for (std::size_t h = kv_head * group_; h < (kv_head + 1) * group_; ++h) {
    rotate_head(compute, norms.query, query_.row(token).data() + h * dim, token);
  }
  float* key = key_.row(token).data() + kv_head * dim;
  rotate_head(compute, norms.key, key, token);
  KvCache& cache = *sequence.cache;
  compute.kernels.store_key_value(cache.layout(), key, value_.row(token).data() + kv_head * dim,
                                  cache.length() + r, cache.keys(layer, kv_head),
                                  cache.values(layer, kv_head));
}

void Attention::prepare_rows(const Compute& compute, const Norms& norms, LayerId layer,
                             std::span<const SequenceRows> sequences) {
  stretches_.clear();
  for (const SequenceRows& sequence : sequences) {
    if (sequence.rows == 1) {
      normalize_full_width(compute, norms, sequence.first_row);
      continue;
    }
    for (std::size_t r = 0; r < sequence.rows; r += kTokensTogether) {
      stretches_.push_back({&sequence, r, std::min(kTokensTogether, sequence.rows - r)});
    }
  }
  compute.pool.run(stretches_.size(), [&](std::size_t item, unsigned) {
    const Stretch& stretch = stretches_[item];
    const std::size_t end = stretch.first + stretch.count;
    for (std::size_t r = stretch.first; r < end; ++r) {
      normalize_full_width(compute, norms, stretch.sequence->first_row + r);
    }
    for (std::size_t head = 0; head < spec_.num_key_value_heads; ++head) {
      for (std::size_t r = stretch.first; r < end; ++r) {
        prepare_group(compute, norms, layer, *stretch.sequence, r, head);
      }
    }
  });
}

kernels::AttentionTask Attention::task_of(LayerId layer, std::size_t item) {
  const std::size_t kv_head = item % spec_.num_key_value_heads;
  const Stretch& stretch = stretches_[item / spec_.num_key_value_heads];
  KvCache& cache = *stretch.sequence->cache;
  const std::size_t token = stretch.sequence->first_row + stretch.first;
  const std::size_t column = kv_head * group_ * spec_.head_dim;
  kernels::AttentionTask task;
  task.layout = cache.layout();
  task.keys = cache.keys(layer, kv_head);
  task.values = cache.values(layer, kv_head);
  task.queries = query_.row(token).data() + column;
  task.out = inner_.row(token).data() + column;
  task.token_stride = spec_.query_width();
  task.tokens = stretch.count;
  task.group = group_;
  task.visible = cache.length() + stretch.first + 1;
  task.scale = 1.0F / std::sqrt(static_cast<float>(spec_.head_dim));
  return task;
}

void Attention::attend(const Compute& compute, const Norms& norms, LayerId layer,
                       std::span<const SequenceRows> sequences) {
  const std::size_t tokens = std::max<std::size_t>(1, kernels::kAttentionRows / group_);
  stretches_.clear();
  for (const SequenceRows& sequence : sequences) {
    // The last tokens see most: begun first, they do not keep the others waiting at the end.
    for (std::size_t left = (sequence.rows + tokens - 1) / tokens; left-- > 0;) {
      const std::size_t first = left * tokens;
      stretches_.push_back({&sequence, first, std::min(tokens, sequence.rows - first)});
    }
  }
  const std::size_t items = stretches_.size() * spec_.num_key_value_heads;
  compute.pool.run(items, [&](std::size_t item, unsigned worker) {
    const SequenceRows& sequence = *stretches_[item / spec_.num_key_value_heads].sequence;
    if (sequence.rows == 1) {
      prepare_group(compute, norms, layer, sequence, 0, item % spec_.num_key_value_heads);
    }
    kernels::AttentionTask task = task_of(layer, item);
    // Items are handed out in order, so this worker's next one is about as many on as there are
    // workers.
    const std::size_t next = item + compute.pool.size();
    if (next < items) task.upcoming = task_of(layer, next).keys;
    compute.kernels.attend(task, scratch_[worker].data());
  });
}

void Attention::begin(const Compute& compute, std::span<const SequenceRows> sequences) {
  std::size_t rows = 0;
  for (const SequenceRows& sequence : sequences) rows += sequence.rows;
  reserve(compute, rows);
  const OpTimer timer(compute.profile, Op::kRotary);
  prepare_rotation(sequences);
}

void Attention::forward(const Compute& compute, const DenseWeights& weights, LayerId layer,
                        tensor::MatrixView<const float> x, std::span<const SequenceRows> sequences,
                        tensor::MatrixView<float> out, Observer* observer) {
  WINNOW_CHECK(rotation_.rows() >= x.rows);  // `begin` has been called
  if (observer != nullptr) observer->on_input(Site::kAttentionInput, layer, x);
  project(compute, weights, layer, x);
  const Norms norms{weights.vector(Role::kQueryNorm, layer), weights.vector(Role::kKeyNorm, layer)};
  {
    const OpTimer timer(compute.profile, Op::kRotary);
    prepare_rows(compute, norms, layer, sequences);
  }
  {
    const OpTimer timer(compute.profile, Op::kAttention);
    attend(compute, norms, layer, sequences);
  }
  const auto inner = inner_.view().rows_from(0, x.rows);
  if (observer != nullptr) observer->on_input(Site::kAttentionInner, layer, inner);
  const quant::CorrectedMatrix& o =
      weights.matrix(compute.overrides, Role::kAttentionOutput, layer);
  {
    const OpTimer timer(compute.profile, Op::kQuantize);
    inner_input_.assign(compute, inner, wants_codes(o));
  }
  const OpTimer timer(compute.profile, Op::kAttentionOutput);
  multiply(compute, o, inner_input_, weights.vector(Role::kAttentionOutputBias, layer), out);
}

}  // namespace winnow::engine
