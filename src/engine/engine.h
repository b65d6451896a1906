// SPDX-FileCopyrightText: The Winnow authors
// SPDX-License-Identifier: Apache-2.0
// A loaded model that turns tokens into logits.
#pragma once

#include <cstddef>
#include <filesystem>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "base/log.h"
#include "base/units.h"
#include "engine/inner_editor.h"
#include "engine/kv_cache.h"
#include "engine/observer.h"
#include "engine/op_profile.h"
#include "engine/routing_policy.h"
#include "experts/cached_store.h"
#include "experts/prefetcher.h"
#include "kernels/kernels.h"
#include "model/checkpoint.h"
#include "os/thread_pool.h"
#include "quant/corrected_matrix.h"
#include "tensor/matrix.h"
#include "text/tokenizer.h"

namespace winnow::engine {

/// Where the weights are. The numbers are the same.
enum class WeightMemory : std::uint8_t {
  kCopied,       ///< read into anonymous memory at the start: the files may change afterwards
  kCopiedAlone,  ///< the same, and the system's page cache keeps nothing of what was read
  /// Mapped: ready at once. Moved to memory on large pages in the background, from the first logits
  /// on, where there is room; until then a change of the files is an error. See os::MappedFiles,
  /// and os::FaultGuard for what a mapping does to the process's SIGBUS.
  kMapped,
  kMappedOnly,  ///< mapped for good: the page cache holds the weights, and may drop them
};

struct EngineOptions {
  unsigned threads = 0;  ///< 0: os::usable_cpus()
  std::string isa{};     ///< "" or "auto": the best the processor has; see kernels::isa_names
  WeightMemory weights = WeightMemory::kCopied;
  kernels::KvType kv_type = kernels::KvType::kF32;  ///< of the caches that the engine makes
  /// Experts are read into so much memory when they are asked for (`top_k` is the model's); the
  /// numbers are the same. Nothing: all are held. Only for weights that are copied.
  std::optional<experts::CacheOptions> expert_cache{};
  experts::PrefetchOptions prefetch{};  ///< of an expert cache
};

/// A stretch of tokens of one sequence, which continues where its cache ends.
struct SequenceInput {
  KvCache* cache = nullptr;
  std::span<const TokenId> tokens;  ///< at least one; cache length + tokens <= cache capacity
};

/// A model ready to run. One thread calls it at a time.
/// The outputs of a sequence depend on neither the thread count nor what else is in the batch.
class Engine {
 public:
  /// Loads the weights. With an expert cache, the checkpoint must outlive the engine: its files are
  /// read while it runs. Throws Error{kBadData, kSystem} as reading does, Error{kUsage} for an
  /// unknown ISA, and as experts::make_cached_store.
  Engine(const model::Checkpoint& checkpoint, const EngineOptions& options, Log& log);
  ~Engine();
  Engine(const Engine&) = delete;
  Engine& operator=(const Engine&) = delete;

  const model::ModelSpec& spec() const;
  std::string_view isa() const;
  unsigned threads() const;
  os::ThreadPool& pool();
  Bytes weight_memory() const;
  /// What reading experts has come to; null: all are held.
  const experts::CacheStatistics* expert_cache() const;
  /// How often each expert was asked for since the start, hottest first; empty: all are held.
  std::vector<experts::ExpertUses> hottest_experts() const;
  /// Experts to read early, in time and memory that nobody needs, hottest first.
  void warm_up(std::span<const experts::ExpertUses> hottest);
  /// What predicting experts has come to; null: nothing is predicted.
  const experts::PrefetchStatistics* prefetch() const;
  /// Does what is left of background work on the weights, so that speed is steady from here on.
  void settle() const;

  /// Runs all layers over the tokens of all sequences and advances their caches.
  /// Returns the final normalised hidden states [tokens, hidden_size], rows in the order of the
  /// inputs; valid until the next call. Throws Error{kUsage} for a token outside the vocabulary,
  /// Error{kBadData} when damaged weights give values that are not finite, or when mapped weights
  /// have changed since they were mapped.
  tensor::MatrixView<const float> forward(std::span<const SequenceInput> sequences,
                                          Observer* observer = nullptr);

  /// Logits of hidden states [rows, hidden_size] into out [rows, vocab_size]. Throws
  /// Error{kBadData} as `forward` does for mapped weights.
  void logits(tensor::MatrixView<const float> hidden, tensor::MatrixView<float> out);

  /// Logits [vocab_size] of the last token of one sequence.
  std::span<const float> next_logits(KvCache& cache, std::span<const TokenId> tokens);

  /// Times of the following calls are added to `profile` (borrowed) until it is set to null.
  void set_profile(OpProfile* profile);

  /// Every FFN's inner activations pass through `editor` (borrowed) until it is set to null, which
  /// costs nothing.
  void set_inner_editor(InnerEditor* editor);

  /// The following calls choose experts by `policy`; `{}` gives the model's own routes again.
  /// Throws Error{kUsage} for a policy that the model cannot follow.
  void set_routing_policy(RoutingPolicy policy);
  /// Slots of the following calls are added to `use` (borrowed; of this model) until it is set to
  /// null.
  void count_experts(ExpertUse* use);

  KvCache make_cache(std::size_t capacity) const;

  /// Computes with `parts` (borrowed; one per expert, or one) in the place of the model's own
  /// matrices of this role and layer, until `restore_weights`. Shapes must be the same. A part
  /// without a codec leaves what was there.
  void override_weights(model::Role role, LayerId layer, std::vector<quant::CorrectedMatrix> parts);
  void restore_weights();

 private:
  class State;
  std::unique_ptr<State> state_;
};

/// The tokens a text begins with: BOS first when the model wants it (`add_bos_token`).
std::vector<TokenId> encode_prompt(const text::Tokenizer& tokenizer, std::string_view text,
                                   text::SpecialTokens special);

}  // namespace winnow::engine
