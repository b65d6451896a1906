// SPDX-FileCopyrightText: The Winnow authors
// SPDX-License-Identifier: Apache-2.0
// The expert that was used least often since the start leaves. Counts outlive eviction, since there
// are few ids; they never fade, so that a change of subject is noticed late.
#include "experts/cache_policy.h"
#include "experts/resident_keys.h"

namespace winnow::experts {
namespace {

class Lfu final : public CachePolicy {
 public:
  explicit Lfu(const CacheShape& shape)
      : shape_(shape), residents_(shape), uses_(shape.num_keys()) {}

  void on_request(LayerId layer, std::span<const ExpertId> experts) override {
    for (const ExpertId expert : experts) ++uses_[shape_.number({layer, expert})];
  }
  void on_admit(ExpertKey key, Origin /*origin*/) override { residents_.insert(key); }
  void on_evict(ExpertKey key) override { residents_.erase(key); }
  std::optional<ExpertKey> victim(ExpertKey /*incoming*/, Origin /*origin*/,
                                  const KeySet& locked) const override {
    return residents_.lowest(
        locked, [&](ExpertKey key) { return static_cast<double>(uses_[shape_.number(key)]); });
  }

 private:
  CacheShape shape_;
  ResidentKeys residents_;
  std::vector<std::uint64_t> uses_;
};

}  // namespace

extern const PolicyEntry kLfu{"lfu", "a baseline", [](const CacheShape& shape, std::uint64_t) {
                                return std::unique_ptr<CachePolicy>(new Lfu(shape));
                              }};

}  // namespace winnow::experts
