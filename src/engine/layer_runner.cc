// SPDX-FileCopyrightText: The Winnow authors
// SPDX-License-Identifier: Apache-2.0
#include "engine/layer_runner.h"

#include <algorithm>
#include <cmath>
#include <optional>
#include <utility>
#include <vector>

#include "base/error.h"
#include "engine/blocks/attention.h"
#include "engine/blocks/dense_ffn.h"
#include "engine/blocks/moe_ffn.h"
#include "engine/linear.h"
#include "engine/weights.h"
#include "experts/store.h"

namespace winnow::engine {

using model::Role;

class LayerRunner::State {
 public:
  State(const model::Checkpoint& source, const EngineOptions& options)
      : checkpoint(source),
        spec(source.spec()),
        kernels(kernels::select_kernels(options.isa, os::CpuFeatures::detect())),
        kv_type(options.kv_type),
        pool(options.threads != 0 ? options.threads : os::usable_cpus()),
        attention(spec),
        moe(spec) {}

  Compute compute() { return {kernels, pool, scratch, overrides, nullptr, nullptr}; }
  void reserve_scratch(std::size_t bytes);
  void load(const DenseWeights::Wanted& wanted, const experts::ExpertCatalogue& catalogue);
  std::span<const SequenceRows> begin_windows(std::span<const std::size_t> lengths);
  void normalize(std::span<const float> weight, tensor::MatrixView<const float> x,
                 tensor::MatrixView<float> out);
  void add_block(tensor::MatrixView<float> hidden);
  void require_enough_experts() const;

  const model::Checkpoint& checkpoint;
  const model::ModelSpec spec;
  const kernels::Kernels& kernels;
  const kernels::KvType kv_type;
  os::ThreadPool pool;
  std::optional<LayerId> layer;  // the loaded one
  std::optional<DenseWeights> weights;
  std::unique_ptr<experts::ExpertStore> store;
  std::vector<os::AlignedBuffer> scratch;
  WeightOverrides overrides;
  Attention attention;
  MoeFfn moe;
  DenseFfn ffn;
  LinearInput output_input;
  std::vector<KvCache> caches;  // one per window of a batch
  std::vector<SequenceRows> rows;
  tensor::Matrix<float> normalized, block_out;  // [tokens, hidden_size]
};

void LayerRunner::State::reserve_scratch(std::size_t bytes) {
  scratch.clear();
  for (unsigned worker = 0; worker < pool.size(); ++worker) {
    scratch.emplace_back(std::max<std::size_t>(bytes, 64));
  }
}

void LayerRunner::State::load(const DenseWeights::Wanted& wanted,
                              const experts::ExpertCatalogue& catalogue) {
  layer.reset();
  caches.clear();
  overrides.clear();
  weights.reset();
  store.reset();
  Log silent;
  weights.emplace(checkpoint, nullptr, silent, wanted);
  store = experts::make_resident_store(catalogue);
  reserve_scratch(std::max(weights->scratch_bytes(), scratch_bytes(catalogue)));
}

std::span<const SequenceRows> LayerRunner::State::begin_windows(
    std::span<const std::size_t> lengths) {
  rows.clear();
  const std::size_t longest = *std::max_element(lengths.begin(), lengths.end());
  if (!caches.empty() && caches.front().capacity() < longest) caches.clear();
  const std::size_t capacity = caches.empty() ? longest : caches.front().capacity();
  while (caches.size() < lengths.size()) caches.emplace_back(spec, *layer, capacity, kv_type);
  std::size_t first = 0;
  for (std::size_t w = 0; w < lengths.size(); ++w) {
    rows.push_back({&caches[w], first, lengths[w]});
    first += lengths[w];
  }
  attention.begin(compute(), rows);
  return rows;
}

void LayerRunner::State::normalize(std::span<const float> weight, tensor::MatrixView<const float> x,
                                   tensor::MatrixView<float> out) {
  const std::size_t parts = std::min<std::size_t>(x.rows, std::size_t{pool.size()} * 4);
  pool.run(parts, [&](std::size_t part, unsigned) {
    const os::Range range = os::split(x.rows, parts, part);
    for (std::size_t t = range.begin; t < range.end; ++t) {
      kernels.rms_norm(x.row(t).data(), weight.data(), spec.rms_norm_eps, out.row(t).data(),
                       weight.size());
    }
  });
}

void LayerRunner::State::add_block(tensor::MatrixView<float> hidden) {
  const std::size_t parts = std::min<std::size_t>(hidden.rows, std::size_t{pool.size()} * 4);
  pool.run(parts, [&](std::size_t part, unsigned) {
    const os::Range range = os::split(hidden.rows, parts, part);
    for (std::size_t t = range.begin; t < range.end; ++t) {
      kernels.axpy(1.0F, std::as_const(block_out).row(t).data(), hidden.row(t).data(), hidden.cols);
      for (const float value : hidden.row(t)) {
        if (std::isfinite(value)) continue;
        fail_data("layer {}: the forward pass gave {}; the weights are damaged", index(*layer),
                  value);
      }
    }
  });
}

void LayerRunner::State::require_enough_experts() const {
  const std::span<const ExpertSubstitute> experts = overrides.experts(*layer);
  const auto dropped = std::count_if(experts.begin(), experts.end(), [](const auto& expert) {
    return expert.kind == ExpertSubstitute::Kind::kDropped;
  });
  WINNOW_CHECK(overrides.resolve_top_k(*layer, spec.moe.top_k) +
                   static_cast<std::size_t>(dropped) <=
               spec.num_experts(*layer));
}

LayerRunner::LayerRunner(const model::Checkpoint& checkpoint, const EngineOptions& options)
    : state_(std::make_unique<State>(checkpoint, options)) {}
LayerRunner::~LayerRunner() = default;

const kernels::Kernels& LayerRunner::kernels() const { return state_->kernels; }
os::ThreadPool& LayerRunner::pool() { return state_->pool; }

void LayerRunner::embed(std::span<const TokenId> tokens, tensor::MatrixView<float> hidden,
                        const quant::PackedMatrix* embedding) const {
  WINNOW_CHECK(tokens.size() == hidden.rows && hidden.cols == state_->spec.hidden_size);
  const model::TensorRef stored = state_->checkpoint.at(Role::kTokenEmbedding);
  for (std::size_t t = 0; t < tokens.size(); ++t) {
    const std::int32_t id = index(tokens[t]);
    if (id < 0 || static_cast<std::uint32_t>(id) >= state_->spec.vocab_size) {
      fail(ErrorCode::kUsage, "token {} is outside the vocabulary of {}", id,
           state_->spec.vocab_size);
    }
    const auto row = static_cast<std::size_t>(id);
    if (embedding == nullptr) {
      state_->checkpoint.read_floats(stored, row, 1, hidden.row(t));
    } else {
      embedding->codec->decode(embedding->row(row), embedding->cols / embedding->codec->block_size,
                               hidden.row(t).data());
    }
  }
}

void LayerRunner::load(LayerId layer) {
  state_->load(
      [layer](Role role, LayerId at) { return model::traits(role).per_layer && at == layer; },
      catalogue_experts(state_->checkpoint, layer));
  state_->layer = layer;
}

void LayerRunner::run(std::span<const std::size_t> lengths, tensor::MatrixView<float> hidden,
                      Observer* observer) {
  State& state = *state_;
  WINNOW_CHECK(state.layer.has_value() && !lengths.empty());
  const LayerId layer = *state.layer;
  const os::ThreadPool::ActiveScope active(state.pool);
  const auto rows = state.begin_windows(lengths);
  WINNOW_CHECK(rows.back().first_row + rows.back().rows == hidden.rows);
  state.normalized.reshape(hidden.rows, hidden.cols);
  state.block_out.reshape(hidden.rows, hidden.cols);
  const auto x = state.normalized.view();
  const auto out = state.block_out.view();
  state.normalize(state.weights->vector(Role::kAttentionNorm, layer), hidden, x);
  state.attention.forward(state.compute(), *state.weights, layer, x, rows, out, observer);
  state.add_block(hidden);
  state.normalize(state.weights->vector(Role::kFfnNorm, layer), hidden, x);
  if (state.spec.is_moe_layer(layer)) {
    state.moe.forward(state.compute(), *state.weights, *state.store, layer, x, out, observer);
  } else {
    state.ffn.forward(state.compute(), *state.weights, layer, x, out, observer);
  }
  state.add_block(hidden);
}

void LayerRunner::override_weights(Role role, std::vector<quant::CorrectedMatrix> parts) {
  for (const quant::CorrectedMatrix& part : parts) {
    if (part.codec == nullptr) continue;
    const std::size_t bytes = multiply_scratch_bytes(part);
    for (os::AlignedBuffer& area : state_->scratch) {
      if (area.size() < bytes) area = os::AlignedBuffer(bytes);
    }
  }
  const LayerId layer = state_->layer.value_or(LayerId{});
  state_->overrides.set(role, layer, std::move(parts));
}

void LayerRunner::override_experts(std::vector<ExpertSubstitute> experts) {
  WINNOW_CHECK(state_->layer.has_value());
  WINNOW_CHECK(experts.size() == state_->spec.num_experts(*state_->layer));
  for (const ExpertSubstitute& expert : experts) {
    WINNOW_CHECK(expert.kind != ExpertSubstitute::Kind::kConstant ||
                 expert.values.size() == state_->spec.hidden_size);
  }
  state_->overrides.set_experts(*state_->layer, std::move(experts));
  state_->require_enough_experts();
}

void LayerRunner::override_top_k(std::uint32_t top_k) {
  WINNOW_CHECK(state_->layer.has_value() && top_k > 0);
  state_->overrides.set_top_k(*state_->layer, top_k);
  state_->require_enough_experts();
}

void LayerRunner::restore_weights() { state_->overrides.clear(); }

void LayerRunner::load_output() {
  const bool tied = state_->spec.tie_word_embeddings;
  state_->load(
      [tied](Role role, LayerId) {
        return role == Role::kOutputNorm || role == (tied ? Role::kTokenEmbedding : Role::kOutput);
      },
      experts::ExpertCatalogue(state_->spec.num_hidden_layers));
}

void LayerRunner::normalize_output(tensor::MatrixView<float> hidden, Observer* observer) {
  state_->normalize(state_->weights->vector(Role::kOutputNorm), hidden, hidden);
  for (std::size_t t = 0; t < hidden.rows; ++t) {
    for (const float value : hidden.row(t)) {
      if (std::isfinite(value)) continue;
      fail_data("the output norm gave {}; the weights are damaged", value);
    }
  }
  if (observer != nullptr) observer->on_input(Site::kOutputInput, {}, hidden);
}

void LayerRunner::logits(tensor::MatrixView<const float> hidden, tensor::MatrixView<float> out) {
  const quant::CorrectedMatrix& output = state_->weights->matrix(state_->overrides, Role::kOutput);
  state_->output_input.assign(state_->compute(), hidden, wants_codes(output));
  multiply(state_->compute(), output, state_->output_input, {}, out);
}

Bytes LayerRunner::largest_weights(const model::Checkpoint& checkpoint) {
  std::vector<std::uint64_t> layers(checkpoint.spec().num_hidden_layers);
  std::uint64_t output = 0;
  checkpoint.for_each_role([&](Role role, LayerId layer) {
    const std::uint64_t bytes =
        checkpoint.at(role, layer).stored_bytes().value * checkpoint.part_count(role, layer);
    if (model::traits(role).per_layer) {
      layers[index(layer)] += bytes;
    } else {
      output = std::max(output, bytes);
    }
  });
  return {std::max(output, *std::max_element(layers.begin(), layers.end()))};
}

Bytes LayerRunner::activations(const model::ModelSpec& spec, std::size_t tokens,
                               std::size_t context) {
  const std::uint64_t attention =
      3 * std::uint64_t{spec.query_width()} + 4 * std::uint64_t{spec.key_value_width()};
  const std::uint64_t slot =
      std::uint64_t{2} * spec.moe.moe_intermediate_size + std::uint64_t{2} * spec.hidden_size;
  const std::uint64_t token = 4 * std::uint64_t{spec.hidden_size} + attention +
                              spec.moe.top_k * slot + 2 * std::uint64_t{spec.intermediate_size};
  // A quarter more for the int8 forms and growth; caches are as long as the longest window.
  const std::uint64_t caches =
      (tokens + context) * 2 * std::uint64_t{spec.key_value_width()} * sizeof(float);
  return {tokens * token * sizeof(float) * 5 / 4 + caches};
}

}  // namespace winnow::engine
