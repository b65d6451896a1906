// SPDX-FileCopyrightText: The Winnow authors
// SPDX-License-Identifier: Apache-2.0
// Which expert leaves memory when another needs its slot. Policies see ids and events only, no
// bytes and no clock, so a recorded trace replays them exactly (experts/replay.h). A further one is
// a file in policies/ and a line in registry.def.
#pragma once

#include <compare>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/units.h"

namespace winnow::experts {

/// One routed expert of a model. Ordered as the token meets them: by layer, then by expert.
struct ExpertKey {
  LayerId layer{};
  ExpertId expert{};
  friend constexpr auto operator<=>(ExpertKey, ExpertKey) = default;
};

/// What a cache is for. Keys are numbered layer by layer, num_experts for each, whether or not a
/// layer has so many.
struct CacheShape {
  std::uint32_t num_layers = 0;   ///< all of the model's, those without experts too
  std::uint32_t num_experts = 0;  ///< the most that a layer has
  std::uint32_t top_k = 0;        ///< experts that a token uses in a layer
  std::size_t slots = 0;          ///< experts that fit in memory at a time, >= 1

  constexpr std::size_t num_keys() const { return std::size_t{num_layers} * num_experts; }
  constexpr std::size_t number(ExpertKey key) const {
    return std::size_t{index(key.layer)} * num_experts + index(key.expert);
  }
  constexpr ExpertKey key(std::size_t number) const {
    return {LayerId{static_cast<std::uint32_t>(number / num_experts)},
            ExpertId{static_cast<std::uint32_t>(number % num_experts)}};
  }
};

/// A set of keys; every operation is O(1).
class KeySet {
 public:
  explicit KeySet(const CacheShape& shape) : shape_(shape), members_(shape.num_keys()) {}

  bool contains(ExpertKey key) const { return members_[shape_.number(key)]; }
  std::size_t size() const { return size_; }
  /// False when it is a member already.
  bool insert(ExpertKey key) { return set(key, true); }
  /// False when it is none.
  bool erase(ExpertKey key) { return set(key, false); }

 private:
  bool set(ExpertKey key, bool member) {
    const std::size_t number = shape_.number(key);
    if (members_[number] == member) return false;
    members_[number] = member;
    size_ += member ? std::size_t{1} : ~std::size_t{0};
    return true;
  }

  CacheShape shape_;
  std::vector<bool> members_;
  std::size_t size_ = 0;
};

/// Why an expert is read.
enum class Origin : std::uint8_t {
  kDemand,       ///< a token waits for it
  kSpeculation,  ///< a predictor named it
  kPrefill,      ///< a prompt streams through, none of its last tokens chose it
};

/// Owns the order in which experts leave; the store owns slots and bytes. One thread uses it, and
/// it takes no locks. The same events give the same answers: ties go to the lower key.
///
/// A forward pass is begin_pass, then for each layer on_request, then for each miss victim (when no
/// slot is free), on_evict of the victim and on_admit of the miss. Experts that predictors ask for
/// come between requests, by victim, on_evict and on_admit in the same way.
class CachePolicy {
 public:
  virtual ~CachePolicy() = default;
  CachePolicy() = default;
  CachePolicy(const CachePolicy&) = delete;
  CachePolicy& operator=(const CachePolicy&) = delete;

  /// The next requests are of a text that has nothing to do with the former.
  virtual void begin_sequence() {}
  /// The next request is of the lowest layer with experts: a token in decode, a chunk in prefill.
  virtual void begin_pass() {}
  /// The layer's chosen experts, distinct. Those admitted and not evicted are hits.
  virtual void on_request(LayerId layer, std::span<const ExpertId> experts) = 0;
  /// A predictor expects these at the layer's next request. None need be read.
  virtual void on_prediction(LayerId /*layer*/, std::span<const ExpertId> /*experts*/) {}
  /// The expert has a slot from now on, its bytes may still be on the way. It had none before.
  virtual void on_admit(ExpertKey key, Origin origin) = 0;
  /// Its slot is free: it was the victim, or it could not be read, or the store got fewer slots.
  virtual void on_evict(ExpertKey key) = 0;
  /// The expert to evict for `incoming`: one that has a slot and is not `locked` (in use, on the
  /// way, or chosen by the present request). Nothing when there is no such expert; for a
  /// speculation also when all experts are worth more than the speculation: it is dropped then.
  virtual std::optional<ExpertKey> victim(ExpertKey incoming, Origin origin,
                                          const KeySet& locked) const = 0;
};

/// A policy of the list.
struct PolicyEntry {
  std::string_view name;    ///< on the command line
  std::string_view source;  ///< where the idea is from
  std::unique_ptr<CachePolicy> (*make)(const CacheShape& shape, std::uint64_t seed);
};

/// The first is the default.
std::span<const PolicyEntry* const> cache_policies();
/// Throws Error{kUsage} that lists the names when there is no such policy.
const PolicyEntry& find_cache_policy(std::string_view name);
/// All names, for messages.
std::string cache_policy_names();

}  // namespace winnow::experts
