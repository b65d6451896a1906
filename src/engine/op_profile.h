// SPDX-FileCopyrightText: The Winnow authors
// SPDX-License-Identifier: Apache-2.0
// Where the time of a forward pass goes, by kind of work. Off unless somebody asks: without a
// profile a timer costs one comparison.
#pragma once

#include <array>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <string_view>

namespace winnow::engine {

/// Kinds of work, in the order of a layer. Time between them (grouping of tokens, hand-over of
/// loops to threads outside them) is what remains of the whole.
enum class Op : std::uint8_t {
  kEmbedding,             ///< rows of the token embedding
  kNorm,                  ///< RMS norms and residual sums
  kQuantize,              ///< int8 forms of activations
  kAttentionProjections,  ///< query, key and value matrices
  kRotary,                ///< head norms, rotation, storing keys and values
  kAttention,             ///< scores, softmax, weighted values
  kAttentionOutput,       ///< attention output matrix
  kRouter,                ///< router matrix and choice of experts
  kExpertWait,            ///< waiting for experts to arrive in memory
  kGateUp,                ///< gate and up matrices with the activation, dense or of experts
  kDown,                  ///< down matrices with the weighted sum
  kOutput,                ///< output matrix
};
inline constexpr std::size_t kNumOps = static_cast<std::size_t>(Op::kOutput) + 1;

/// Names for people and JSON: "attention_projections".
std::string_view to_string(Op op);
/// Whether the op streams weight matrices; the rest is overhead beside them.
bool is_matrix_work(Op op);

/// Seconds and calls per op, on the thread that runs the engine.
class OpProfile {
 public:
  struct Entry {
    double seconds = 0;
    std::uint64_t calls = 0;
  };
  void add(Op op, double seconds) {
    Entry& entry = entries_[static_cast<std::size_t>(op)];
    entry.seconds += seconds;
    ++entry.calls;
  }
  const Entry& entry(Op op) const { return entries_[static_cast<std::size_t>(op)]; }
  void reset() { entries_ = {}; }

 private:
  std::array<Entry, kNumOps> entries_{};
};

/// Adds its lifetime to a profile; does nothing when `profile` is null.
class OpTimer {
 public:
  OpTimer(OpProfile* profile, Op op) : profile_(profile), op_(op) {
    if (profile_ != nullptr) start_ = std::chrono::steady_clock::now();
  }
  OpTimer(const OpTimer&) = delete;
  OpTimer& operator=(const OpTimer&) = delete;
  ~OpTimer() {
    if (profile_ == nullptr) return;
    const auto end = std::chrono::steady_clock::now();
    profile_->add(op_, std::chrono::duration<double>(end - start_).count());
  }

 private:
  OpProfile* profile_;
  Op op_;
  std::chrono::steady_clock::time_point start_;
};

}  // namespace winnow::engine
