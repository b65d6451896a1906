// SPDX-FileCopyrightText: The Winnow authors
// SPDX-License-Identifier: Apache-2.0
#include "compress/profile_plan.h"

#include <algorithm>

namespace winnow::compress {
namespace {

constexpr std::uint64_t kFnvBasis = 0xcbf29ce484222325ULL;
constexpr std::uint64_t kFnvPrime = 0x100000001b3ULL;

std::uint64_t mix(std::uint64_t hash, std::uint64_t value) {
  for (int byte = 0; byte < 8; ++byte) {
    hash = (hash ^ ((value >> (8 * byte)) & 0xff)) * kFnvPrime;
  }
  return hash;
}

std::uint64_t hash_of(const metrics::Window& window) {
  std::uint64_t hash = mix(kFnvBasis, window.first_scored);
  for (const TokenId token : window.tokens) {
    hash = mix(hash, static_cast<std::uint64_t>(index(token)));
  }
  return hash;
}

/// Adds batches of one unit and kind.
void add_batches(ProfilePlan& plan, const metrics::WindowSet& text, std::size_t domain,
                 std::span<const std::size_t> windows, std::size_t first_number, bool held_out,
                 const SequenceRange& sequences, std::size_t batch_tokens) {
  bool is_open = false;
  for (std::size_t i = 0; i < windows.size(); ++i) {
    const std::size_t number = first_number + i;
    if (!sequences.contains(number)) continue;
    if ((number % kHeldOutEvery == kHeldOutEvery - 1) != held_out) continue;
    const std::size_t length = text.windows[windows[i]].tokens.size();
    if (is_open && plan.batches.back().tokens() + length > batch_tokens) is_open = false;
    if (!is_open) {
      plan.batches.push_back({domain, held_out, false, {}, {}, {}});
      is_open = true;
    }
    ProfileBatch& batch = plan.batches.back();
    batch.windows.push_back(windows[i]);
    batch.lengths.push_back(length);
    batch.numbers.insert(batch.numbers.end(), length, static_cast<std::uint32_t>(number));
    plan.longest = std::max(plan.longest, length);
    plan.largest = std::max(plan.largest, batch.tokens());
    plan.tokens += length;
    StatisticsDomain& totals = plan.domains[domain];
    ++totals.sequences;
    totals.text_fingerprint += hash_of(text.windows[windows[i]]);
    if (held_out) {
      ++totals.held_out_sequences;
      plan.held_out_tokens += text.windows[windows[i]].scored();
    } else {
      totals.tokens += length;
    }
  }
}

}  // namespace

ProfilePlan plan_profile(const metrics::WindowSet& text, std::size_t batch_tokens,
                         const SequenceRange& sequences) {
  ProfilePlan plan;
  std::vector<std::vector<std::size_t>> of_domain(text.domains.size());
  for (std::size_t w = 0; w < text.windows.size(); ++w) {
    of_domain[text.windows[w].domain].push_back(w);
  }
  for (std::size_t d = 0; d < text.domains.size(); ++d) {
    // None beyond --tokens, and none of a domain that ends before the range.
    if (of_domain[d].size() <= sequences.first) continue;
    const std::size_t domain = plan.domains.size();
    plan.domains.push_back({.name = text.domains[d]});
    for (std::size_t first = 0; first < of_domain[d].size(); first += kUnitSequences) {
      const auto unit = std::span<const std::size_t>(of_domain[d])
                            .subspan(first, std::min(kUnitSequences, of_domain[d].size() - first));
      const std::size_t before = plan.batches.size();
      add_batches(plan, text, domain, unit, first, false, sequences, batch_tokens);
      add_batches(plan, text, domain, unit, first, true, sequences, batch_tokens);
      if (plan.batches.size() > before) plan.batches.back().ends_unit = true;
    }
  }
  return plan;
}

std::uint64_t text_fingerprint(const metrics::WindowSet& text) {
  std::uint64_t hash = kFnvBasis;
  for (const metrics::Window& window : text.windows) {
    for (const char c : text.domains[window.domain]) hash = mix(hash, static_cast<std::uint8_t>(c));
    hash = mix(hash, hash_of(window));
  }
  return hash;
}

}  // namespace winnow::compress
