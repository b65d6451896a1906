// SPDX-FileCopyrightText: The Winnow authors
// SPDX-License-Identifier: Apache-2.0
// How the windows of a text go through a model layer by layer: domain by domain, unit by unit, in
// batches, some windows held out.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "compress/statistics_file.h"
#include "metrics/text_data.h"

namespace winnow::compress {

/// Windows that run together.
struct ProfileBatch {
  std::size_t domain = 0;
  bool held_out = false;               ///< runs, but no sum counts it
  bool ends_unit = false;              ///< the last of its unit
  std::vector<std::size_t> windows;    ///< indices into WindowSet::windows
  std::vector<std::size_t> lengths;    ///< tokens of each
  std::vector<std::uint32_t> numbers;  ///< for each token, its window's number in the domain
  std::size_t tokens() const { return numbers.size(); }
};

struct ProfilePlan {
  std::vector<StatisticsDomain> domains;
  std::vector<ProfileBatch> batches;  ///< domain by domain
  std::size_t longest = 0;            ///< tokens of the longest window
  std::size_t largest = 0;            ///< tokens of the largest batch
  std::uint64_t tokens = 0;
  std::uint64_t held_out_tokens = 0;  ///< those that are predicted
};

/// Some sequences of each domain, from `first` to before `end`. They keep their numbers, which say
/// what is held out, what a unit is and which half of the text a sequence belongs to: ranges that
/// together are the whole text give statistics that together are those of the whole text.
struct SequenceRange {
  std::size_t first = 0;
  std::size_t end = SIZE_MAX;

  bool is_all() const { return first == 0 && end == SIZE_MAX; }
  bool contains(std::size_t number) const { return number >= first && number < end; }
};

/// Batches hold at most `batch_tokens`, or one window. Nothing but the speed depends on that.
/// Domains without a sequence in the range are left out.
ProfilePlan plan_profile(const metrics::WindowSet& text, std::size_t batch_tokens,
                         const SequenceRange& sequences = {});

/// Of the tokens and domains in their order; depends on nothing else.
std::uint64_t text_fingerprint(const metrics::WindowSet& text);

}  // namespace winnow::compress
