// SPDX-FileCopyrightText: The Winnow authors
// SPDX-License-Identifier: Apache-2.0
// The point of a codebook nearest to a group of weights, under a weight per coordinate. Rounding
// each coordinate by itself gives a pattern; the points near that pattern are compared. Signs are
// free, or one has to be turned so that their number is even: the three cheapest are tried.
#pragma once

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <limits>

#include "quant/codebook.h"

namespace winnow::quant {

/// What one scale leaves of a run of weights, for e = x - scale * level.
struct PointSums {
  float error = 0;        ///< sum w e^2
  float correlation = 0;  ///< sum w x level
  float energy = 0;       ///< sum w level^2
};

/// Sums of the four lanes of each of four vectors.
inline Lanes sums_of_lanes(Lanes a, Lanes b, Lanes c, Lanes d) {
  const Lanes ab =
      __builtin_shufflevector(a, b, 0, 4, 2, 6) + __builtin_shufflevector(a, b, 1, 5, 3, 7);
  const Lanes cd =
      __builtin_shufflevector(c, d, 0, 4, 2, 6) + __builtin_shufflevector(c, d, 1, 5, 3, 7);
  return __builtin_shufflevector(ab, cd, 0, 1, 4, 5) + __builtin_shufflevector(ab, cd, 2, 3, 6, 7);
}

/// Finds the point p with small sum w (x - scale * p)^2 for one group at a time.
template <class Book>
class PointSearch {
 public:
  static constexpr std::size_t kGroup = Book::kGroup;

  struct Choice {
    std::size_t point = 0;
    float error = std::numeric_limits<float>::infinity();
  };

  /// The best of the first `reach` neighbours of the pattern that each x by itself would take.
  /// x, w: [kGroup], x may be negative. inverse: that of scale, or 0.
  Choice nearest(const float* x, const float* w, float scale, float inverse,
                 std::size_t reach) const {
    const std::size_t pattern = pattern_of(x, inverse);
    Choice choice;
    if (const std::size_t point = Book::kPointOf[pattern]; point != Book::kPoints) {
      choice.point = point;
      const Lanes error = part_error(x, w, scale, point);
      choice.error = error[0] + error[1] + error[2] + error[3];
      return choice;
    }
    const auto& list = neighbours_.of(pattern);
    for (std::size_t i = 0; i < reach; i += kLanes) {
      const Lanes errors = errors_of(x, w, scale, &list[i]);
      const std::size_t lane = smallest_lane(errors);
      if (errors[lane] < choice.error) choice = {list[i + lane], errors[lane]};
    }
    return choice;
  }

  static void add(const float* x, const float* w, const Choice& choice, PointSums& sums) {
    Lanes correlation = splat(0.0F);
    Lanes energy = splat(0.0F);
    for (std::size_t i = 0; i < kGroup; i += kLanes) {
      const Lanes level = load(Book::kFloats[choice.point].values + i);
      const Lanes weighted = load(w + i) * level;
      correlation += weighted * load(x + i);
      energy += weighted * level;
    }
    sums.error += choice.error;
    sums.correlation += correlation[0] + correlation[1] + correlation[2] + correlation[3];
    sums.energy += energy[0] + energy[1] + energy[2] + energy[3];
  }

  /// The best few, kept sorted.
  struct Best {
    struct Entry {
      float error = std::numeric_limits<float>::infinity();
      std::uint16_t point = 0;
      std::uint8_t negative = 0;  ///< bit i: weight i
    };
    Entry entries[Codebook::kMostChoices];
    std::size_t count;

    void add(const Entry& entry) {
      if (!(entry.error < entries[count - 1].error)) return;
      std::size_t at = count - 1;
      for (; at > 0 && entry.error < entries[at - 1].error; --at) entries[at] = entries[at - 1];
      entries[at] = entry;
    }
  };

  /// Adds all listed neighbours. x as for `nearest`, `negative` the signs that were taken off.
  void collect(const float* x, const float* w, float scale, unsigned negative, Best& best) const {
    const auto& list = neighbours_.of(pattern_of(x, inverse_or_zero(splat(scale))[0]));
    for (std::size_t i = 0; i < CodebookNeighbours<Book>::kCount; i += kLanes) {
      const Lanes errors = errors_of(x, w, scale, &list[i]);
      for (std::size_t lane = 0; lane < kLanes; ++lane) {
        best.add({errors[lane], list[i + lane], static_cast<std::uint8_t>(negative)});
      }
    }
  }

  /// As `Codebook::nearest`, into `best`.
  void nearest_signed(const float* target, const float* weights, float step, SignParity parity,
                      Best& best) const {
    alignas(16) float x[kGroup];
    alignas(16) float w[kGroup];
    unsigned negative = 0;
    for (std::size_t i = 0; i < kGroup; ++i) {
      negative |= static_cast<unsigned>(std::signbit(target[i]) != std::signbit(step)) << i;
      x[i] = std::fabs(target[i]);
      w[i] = weights[i];
    }
    const float scale = std::fabs(step);
    const bool odd = std::popcount(negative) % 2 == 1;
    if (parity == SignParity::kAny || odd == (parity == SignParity::kOdd)) {
      collect(x, w, scale, negative, best);
      return;
    }
    bool tried[kGroup] = {};
    for (int turn = 0; turn < kTurns; ++turn) {
      std::size_t cheapest = kGroup;
      for (std::size_t i = 0; i < kGroup; ++i) {
        if (tried[i]) continue;
        if (cheapest == kGroup || w[i] * x[i] < w[cheapest] * x[cheapest]) cheapest = i;
      }
      tried[cheapest] = true;
      x[cheapest] = -x[cheapest];
      collect(x, w, scale, negative ^ (1U << cheapest), best);
      x[cheapest] = -x[cheapest];
    }
  }

 private:
  static constexpr int kTurns = 3;
  static Lanes load(const float* p) {
    Lanes lanes;
    std::memcpy(&lanes, p, sizeof lanes);
    return lanes;
  }

  static std::size_t pattern_of(const float* x, float inverse) {
    Lanes sum = splat(0.0F);
    for (std::size_t i = 0; i < kGroup; i += kLanes) {
      const auto& powers = Book::kPowers;
      const Lanes power = {static_cast<float>(powers[i]), static_cast<float>(powers[i + 1]),
                           static_cast<float>(powers[i + 2]), static_cast<float>(powers[i + 3])};
      sum += power * MagnitudeLevels<Book>::nearest_index(load(x + i) * inverse);
    }
    return static_cast<std::size_t>(static_cast<int>(sum[0] + sum[1] + sum[2] + sum[3]));
  }

  static Lanes part_error(const float* x, const float* w, float scale, std::size_t point) {
    Lanes error = splat(0.0F);
    for (std::size_t i = 0; i < kGroup; i += kLanes) {
      const Lanes e = load(x + i) - scale * load(Book::kFloats[point].values + i);
      error += load(w + i) * e * e;
    }
    return error;
  }

  static Lanes errors_of(const float* x, const float* w, float scale, const std::uint16_t* points) {
    return sums_of_lanes(part_error(x, w, scale, points[0]), part_error(x, w, scale, points[1]),
                         part_error(x, w, scale, points[2]), part_error(x, w, scale, points[3]));
  }

  const CodebookNeighbours<Book>& neighbours_ = CodebookNeighbours<Book>::get();
};

/// `Codebook::nearest`
template <class Book>
void nearest_codes(const float* target, const float* weights, float step, SignParity parity,
                   std::size_t count, std::uint8_t* codes) noexcept {
  typename PointSearch<Book>::Best best;
  best.count = count;
  PointSearch<Book>().nearest_signed(target, weights, step, parity, best);
  for (std::size_t c = 0; c < count; ++c)
    Book::codes_of(best.entries[c].point, best.entries[c].negative, codes + c * Book::kGroup);
}

/// `Codebook::choose`
template <class Book, bool kEvenSigns>
void choose_signed_group(const float* target, const float* weights, float step,
                         std::uint8_t* codes) noexcept {
  constexpr std::size_t kGroups = kSignGroup / Book::kGroup;
  typename PointSearch<Book>::Best best[kGroups][2];
  const PointSearch<Book> search;
  const auto look = [&](std::size_t g, SignParity parity, std::size_t slot) {
    const std::size_t first = g * Book::kGroup;
    best[g][slot].count = 1;
    search.nearest_signed(target + first, weights + first, step, parity, best[g][slot]);
  };
  std::size_t slot = 0;
  if constexpr (!kEvenSigns) {
    for (std::size_t g = 0; g < kGroups; ++g) look(g, SignParity::kAny, 0);
  } else if constexpr (kGroups == 1) {
    look(0, SignParity::kEven, 0);
  } else {
    // Both even or both odd; what needs no sign turned is best.
    bool odd[kGroups] = {};
    for (std::size_t i = 0; i < kSignGroup; ++i) {
      odd[i / Book::kGroup] ^= std::signbit(target[i]) != std::signbit(step);
    }
    float errors[2] = {};
    for (std::size_t s = 0; s < 2; ++s) {
      if (odd[0] == odd[1] && odd[0] != (s == 1)) {
        errors[s] = std::numeric_limits<float>::infinity();
        continue;
      }
      for (std::size_t g = 0; g < kGroups; ++g) {
        look(g, s == 0 ? SignParity::kEven : SignParity::kOdd, s);
        errors[s] += best[g][s].entries[0].error;
      }
    }
    slot = errors[1] < errors[0] ? 1 : 0;
  }
  for (std::size_t g = 0; g < kGroups; ++g) {
    const auto& entry = best[g][slot].entries[0];
    Book::codes_of(entry.point, entry.negative, codes + g * Book::kGroup);
  }
}

template <class Book>
constexpr int least_gap() {
  int gap = 2 * Book::kValues[0];
  for (std::size_t m = 1; m < Book::kLevels; ++m) {
    gap = std::min(gap, Book::kValues[m] - Book::kValues[m - 1]);
  }
  return gap;
}

/// The description of a book for quantisers that choose codes themselves.
template <class Book, bool kEvenSigns>
constexpr Codebook describe_codebook() {
  return {.group = Book::kGroup,
          .magnitudes = Book::kValues,
          .num_points = Book::kPoints,
          .magnitudes_of =
              [](std::size_t point, std::int8_t* out) noexcept {
                std::copy_n(Book::kVectors[point].data(), Book::kGroup, out);
              },
          .even_signs = kEvenSigns,
          .nearest = nearest_codes<Book>,
          .choose = choose_signed_group<Book, kEvenSigns>,
          .least_half_gap = 0.5F * static_cast<float>(least_gap<Book>()),
          .lists = []() noexcept { return CodebookNeighbours<Book>::get().words(); }};
}

}  // namespace winnow::quant
