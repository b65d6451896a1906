// SPDX-FileCopyrightText: The Winnow authors
// SPDX-License-Identifier: Apache-2.0
#include "engine/engine.h"

#include <algorithm>
#include <cmath>
#include <utility>

#include "base/error.h"
#include "engine/blocks/attention.h"
#include "engine/blocks/dense_ffn.h"
#include "engine/blocks/moe_ffn.h"
#include "engine/linear.h"
#include "engine/weights.h"
#include "experts/catalogue.h"
#include "experts/store.h"
#include "os/mapped_files.h"

namespace winnow::engine {

using model::Role;

namespace {

bool is_copied(WeightMemory weights) {
  return weights == WeightMemory::kCopied || weights == WeightMemory::kCopiedAlone;
}

std::unique_ptr<os::MappedFiles> map_weights(const model::Checkpoint& checkpoint,
                                             WeightMemory weights) {
  using Move = os::MappedFiles::Move;
  if (is_copied(weights)) return nullptr;
  return std::make_unique<os::MappedFiles>(
      checkpoint.file().files(),
      weights == WeightMemory::kMapped ? Move::kInBackground : Move::kStay);
}

std::unique_ptr<experts::ExpertStore> make_store(const model::ModelSpec& spec,
                                                 const experts::ExpertCatalogue& catalogue,
                                                 const EngineOptions& options,
                                                 const os::MappedFiles* mapped) {
  if (!options.expert_cache) return experts::make_resident_store(catalogue, mapped);
  WINNOW_CHECK(is_copied(options.weights));
  experts::CacheOptions cache = *options.expert_cache;
  cache.top_k = spec.moe.top_k;
  return experts::make_cached_store(catalogue, cache);
}

/// Null where nothing is read while running, or nothing may be guessed.
std::unique_ptr<experts::Prefetcher> make_prefetcher(const model::ModelSpec& spec,
                                                     const experts::ExpertCatalogue& catalogue,
                                                     const EngineOptions& options,
                                                     experts::ExpertStore& store) {
  if (!options.expert_cache || options.prefetch.mode == experts::PrefetchOptions::Mode::kOff) {
    return nullptr;
  }
  return std::make_unique<experts::Prefetcher>(store, experts::shape_of(catalogue, spec.moe.top_k),
                                               options.prefetch);
}

void require_finite(tensor::MatrixView<const float> hidden) {
  for (std::size_t t = 0; t < hidden.rows; ++t) {
    for (const float value : hidden.row(t)) {
      if (!std::isfinite(value)) {
        fail_data("the forward pass gave {} at token {}; the weights are damaged", value, t);
      }
    }
  }
}

}  // namespace

class Engine::State {
 public:
  State(const model::Checkpoint& checkpoint, const EngineOptions& options, Log& log)
      : spec(checkpoint.spec()),
        kernels(kernels::select_kernels(options.isa, os::CpuFeatures::detect())),
        kv_type(options.kv_type),
        pool(options.threads != 0 ? options.threads : os::usable_cpus()),
        mapped(map_weights(checkpoint, options.weights)),
        weights(checkpoint, mapped.get(), log,
                options.weights == WeightMemory::kCopiedAlone ? DenseWeights::Traces::kNone
                                                              : DenseWeights::Traces::kPageCache),
        attention(spec),
        moe(spec) {
    const experts::ExpertCatalogue catalogue = catalogue_experts(checkpoint);
    store = make_store(spec, catalogue, options, mapped.get());
    prefetcher = make_prefetcher(spec, catalogue, options, *store);
    const std::size_t bytes = std::max(weights.scratch_bytes(), engine::scratch_bytes(catalogue));
    for (unsigned worker = 0; worker < pool.size(); ++worker) {
      scratch.emplace_back(std::max<std::size_t>(bytes, 64));
    }
  }

  void embed(std::span<const SequenceInput> sequences);
  /// Tells those who look at routes what is run.
  void announce(std::span<const SequenceInput> sequences, std::size_t tokens);
  void run_layer(LayerId layer, std::span<const SequenceRows> rows, Observer* observer);
  /// Whether the output of the last block has yet to be added to the residual.
  enum class Residual { kAsIs, kAddBlock };
  void normalize(std::span<const float> weight, Residual residual_sum);
  /// Throws when mapped weights were not what they should be. Before any other complaint about the
  /// results: it names the cause.
  void require_unchanged() const {
    if (mapped != nullptr) mapped->require_unchanged();
  }

  Compute compute() {
    return {kernels,
            pool,
            scratch,
            overrides,
            profile,
            inner_editor,
            policy.active() ? &policy : nullptr,
            expert_use,
            predicts ? prefetcher.get() : nullptr};
  }

  const model::ModelSpec spec;
  const kernels::Kernels& kernels;
  const kernels::KvType kv_type;
  os::ThreadPool pool;
  const std::unique_ptr<os::MappedFiles> mapped;  // null when the weights are copied
  DenseWeights weights;
  std::unique_ptr<experts::ExpertStore> store;
  std::unique_ptr<experts::Prefetcher> prefetcher;  // null: nothing is guessed; uses the store
  std::vector<os::AlignedBuffer> scratch;
  WeightOverrides overrides;
  OpProfile* profile = nullptr;
  InnerEditor* inner_editor = nullptr;
  bool predicts = false;  // in this pass
  RoutingPolicy policy;
  ExpertUse* expert_use = nullptr;
  Attention attention;
  MoeFfn moe;
  DenseFfn ffn;
  LinearInput output_input;
  tensor::Matrix<float> residual, normalized, block_out;  // [tokens, hidden_size]
  std::vector<float> last_logits;
};

void Engine::State::embed(std::span<const SequenceInput> sequences) {
  const OpTimer timer(profile, Op::kEmbedding);
  const quant::PackedMatrix& embedding = weights.matrix(overrides, Role::kTokenEmbedding);
  std::size_t row = 0;
  for (const SequenceInput& sequence : sequences) {
    for (const TokenId token : sequence.tokens) {
      if (index(token) < 0 || static_cast<std::uint32_t>(index(token)) >= spec.vocab_size) {
        fail(ErrorCode::kUsage, "token {} is outside the vocabulary of {}", index(token),
             spec.vocab_size);
      }
      const auto id = static_cast<std::size_t>(index(token));
      embedding.codec->decode(embedding.row(id), embedding.cols / embedding.codec->block_size,
                              residual.row(row++).data());
    }
  }
}

void Engine::State::announce(std::span<const SequenceInput> sequences, std::size_t tokens) {
  const bool begins =
      std::any_of(sequences.begin(), sequences.end(),
                  [](const SequenceInput& sequence) { return sequence.cache->length() == 0; });
  if (begins) store->begin_sequence();
  predicts = prefetcher != nullptr && tokens == 1;
  if (prefetcher == nullptr) return;
  if (begins) prefetcher->begin_sequence();
  if (!predicts) return;
  prefetcher->begin_pass(sequences.front().tokens.front());
  const auto first = moe_layer_from(spec, 0);
  if (first) prefetcher->look_ahead(*first, spec.num_experts(*first), nullptr);
}

void Engine::State::normalize(std::span<const float> weight, Residual residual_sum) {
  const OpTimer timer(profile, Op::kNorm);
  const std::size_t parts = std::min<std::size_t>(residual.rows(), std::size_t{pool.size()} * 4);
  pool.run(parts, [&](std::size_t part, unsigned) {
    const os::Range range = os::split(residual.rows(), parts, part);
    for (std::size_t t = range.begin; t < range.end; ++t) {
      float* row = residual.row(t).data();
      if (residual_sum == Residual::kAddBlock) {
        kernels.axpy(1.0F, block_out.row(t).data(), row, weight.size());
      }
      kernels.rms_norm(row, weight.data(), spec.rms_norm_eps, normalized.row(t).data(),
                       weight.size());
    }
  });
}

void Engine::State::run_layer(LayerId layer, std::span<const SequenceRows> rows,
                              Observer* observer) {
  normalize(weights.vector(Role::kAttentionNorm, layer),
            index(layer) == 0 ? Residual::kAsIs : Residual::kAddBlock);
  attention.forward(compute(), weights, layer, normalized.view(), rows, block_out.view(), observer);
  normalize(weights.vector(Role::kFfnNorm, layer), Residual::kAddBlock);
  if (spec.is_moe_layer(layer)) {
    moe.forward(compute(), weights, *store, layer, normalized.view(), block_out.view(), observer);
  } else {
    ffn.forward(compute(), weights, layer, normalized.view(), block_out.view(), observer);
  }
}

Engine::Engine(const model::Checkpoint& checkpoint, const EngineOptions& options, Log& log)
    : state_(std::make_unique<State>(checkpoint, options, log)) {}
Engine::~Engine() = default;

const model::ModelSpec& Engine::spec() const { return state_->spec; }
std::string_view Engine::isa() const { return state_->kernels.isa; }
unsigned Engine::threads() const { return state_->pool.size(); }
os::ThreadPool& Engine::pool() { return state_->pool; }
Bytes Engine::weight_memory() const { return state_->weights.memory() + state_->store->memory(); }

const experts::CacheStatistics* Engine::expert_cache() const { return state_->store->statistics(); }

std::vector<experts::ExpertUses> Engine::hottest_experts() const {
  return state_->store->hottest();
}

void Engine::warm_up(std::span<const experts::ExpertUses> hottest) {
  state_->store->warm_up(hottest);
}

const experts::PrefetchStatistics* Engine::prefetch() const {
  return state_->prefetcher == nullptr ? nullptr : &state_->prefetcher->statistics();
}

void Engine::settle() const {
  if (state_->mapped == nullptr) return;
  state_->mapped->start_moving();
  state_->mapped->wait_until_settled();
}

void Engine::override_weights(Role role, LayerId layer, std::vector<quant::CorrectedMatrix> parts) {
  for (const quant::CorrectedMatrix& part : parts) {
    if (part.codec == nullptr) continue;
    const std::size_t bytes = multiply_scratch_bytes(part);
    for (os::AlignedBuffer& area : state_->scratch) {
      if (area.size() < bytes) area = os::AlignedBuffer(bytes);
    }
  }
  state_->overrides.set(role, layer, std::move(parts));
}

void Engine::restore_weights() { state_->overrides.clear(); }

void Engine::set_profile(OpProfile* profile) { state_->profile = profile; }

void Engine::set_inner_editor(InnerEditor* editor) { state_->inner_editor = editor; }

void Engine::set_routing_policy(RoutingPolicy policy) {
  check_routing_policy(policy, state_->spec);
  state_->policy = std::move(policy);
}

void Engine::count_experts(ExpertUse* use) { state_->expert_use = use; }

KvCache Engine::make_cache(std::size_t capacity) const {
  return {state_->spec, capacity, state_->kv_type};
}

tensor::MatrixView<const float> Engine::forward(std::span<const SequenceInput> sequences,
                                                Observer* observer) {
  State& state = *state_;
  const os::ThreadPool::ActiveScope active(state.pool);
  std::vector<SequenceRows> rows;
  std::size_t tokens = 0;
  for (const SequenceInput& sequence : sequences) {
    WINNOW_CHECK(sequence.cache != nullptr && !sequence.tokens.empty());
    WINNOW_CHECK(sequence.tokens.size() <= sequence.cache->capacity() - sequence.cache->length());
    rows.push_back({sequence.cache, tokens, sequence.tokens.size()});
    tokens += sequence.tokens.size();
  }
  for (auto* matrix : {&state.residual, &state.normalized, &state.block_out}) {
    matrix->reshape(tokens, state.spec.hidden_size);
  }
  state.embed(sequences);
  state.announce(sequences, tokens);
  state.attention.begin(state.compute(), rows);
  for (std::uint32_t layer = 0; layer < state.spec.num_hidden_layers; ++layer) {
    state.run_layer(LayerId{layer}, rows, observer);
  }
  state.normalize(state.weights.vector(Role::kOutputNorm), State::Residual::kAddBlock);
  state.require_unchanged();
  require_finite(state.normalized.view());
  if (observer != nullptr) observer->on_input(Site::kOutputInput, {}, state.normalized.view());
  for (const SequenceInput& sequence : sequences) sequence.cache->advance(sequence.tokens.size());
  return state.normalized.view();
}

void Engine::logits(tensor::MatrixView<const float> hidden, tensor::MatrixView<float> out) {
  const quant::CorrectedMatrix& output = state_->weights.matrix(state_->overrides, Role::kOutput);
  state_->output_input.assign(state_->compute(), hidden, wants_codes(output));
  const OpTimer timer(state_->profile, Op::kOutput);
  multiply(state_->compute(), output, state_->output_input, {}, out);
  state_->require_unchanged();
  if (state_->mapped != nullptr) state_->mapped->start_moving();  // the first token is done
}

std::span<const float> Engine::next_logits(KvCache& cache, std::span<const TokenId> tokens) {
  const os::ThreadPool::ActiveScope active(state_->pool);
  const SequenceInput input{&cache, tokens};
  const auto hidden = forward(std::span(&input, 1));
  state_->last_logits.resize(state_->spec.vocab_size);
  logits(hidden.rows_from(hidden.rows - 1, 1),
         {state_->last_logits.data(), 1, state_->last_logits.size(), state_->last_logits.size()});
  for (std::size_t token = 0; token < state_->last_logits.size(); ++token) {
    if (!std::isfinite(state_->last_logits[token])) {
      fail_data("the logit of token {} is {}; the output matrix is damaged", token,
                state_->last_logits[token]);
    }
  }
  return state_->last_logits;
}

std::vector<TokenId> encode_prompt(const text::Tokenizer& tokenizer, std::string_view text,
                                   text::SpecialTokens special) {
  std::vector<TokenId> tokens;
  if (tokenizer.spec().add_bos && tokenizer.spec().bos) tokens.push_back(*tokenizer.spec().bos);
  const std::vector<TokenId> ids = tokenizer.encode(text, special);
  tokens.insert(tokens.end(), ids.begin(), ids.end());
  return tokens;
}

}  // namespace winnow::engine
