// SPDX-FileCopyrightText: The Winnow authors
// SPDX-License-Identifier: Apache-2.0
// The codebooks of the IQ2 and IQ3 types: a group of 8 or 4 weights is one of 256 to 1024 points,
// vectors of positive magnitudes, with a sign per weight. Tables made at compile time from the
// published points, and lists of points near a pattern, which the search for the nearest point
// reads.
#pragma once

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>

#include "quant/block_grid.h"
#include "quant/lanes.h"

namespace winnow::quant {

/// kMagnitudes: std::array of the rising magnitudes; kWords: std::array, a word per point, the
/// index of its i-th magnitude in the i-th field of kFieldBits (codebook_points.inl).
template <std::size_t kGroupSize, const auto& kMagnitudes, const auto& kWords>
struct CodebookTables {
  static constexpr std::size_t kGroup = kGroupSize;
  static constexpr std::size_t kLevels = kMagnitudes.size();
  static constexpr std::size_t kPoints = kWords.size();
  static constexpr unsigned kFieldBits = kLevels > 4 ? 3 : 2;
  static constexpr auto& kValues = kMagnitudes;

  static constexpr std::size_t level(std::size_t point, std::size_t i) {
    return (static_cast<std::size_t>(kWords[point]) >> (kFieldBits * i)) & ((1U << kFieldBits) - 1);
  }

  static constexpr std::uint16_t word(std::size_t point) { return kWords[point]; }

  // A pattern is a vector of magnitudes, on the codebook or not: sum_i level_i * kLevels^i.
  static constexpr auto kPowers = [] {
    std::array<std::size_t, kGroup> powers{};
    std::size_t power = 1;
    for (std::size_t& p : powers) {
      p = power;
      power *= kLevels;
    }
    return powers;
  }();
  static constexpr std::size_t kPatterns = kPowers[kGroup - 1] * kLevels;
  static constexpr std::size_t pattern(std::size_t point) {
    std::size_t sum = 0;
    for (std::size_t i = 0; i < kGroup; ++i) sum += level(point, i) * kPowers[i];
    return sum;
  }

  /// Index of the point that is a pattern; kPoints when none is.
  static constexpr auto kPointOf = [] {
    std::array<std::uint16_t, kPatterns> point_of{};
    for (auto& point : point_of) point = static_cast<std::uint16_t>(kPoints);
    for (std::size_t p = 0; p < kPoints; ++p) point_of[pattern(p)] = static_cast<std::uint16_t>(p);
    return point_of;
  }();

  /// Magnitudes of a point.
  static constexpr auto kVectors = [] {
    std::array<std::array<std::int8_t, kGroup>, kPoints> vectors{};
    for (std::size_t p = 0; p < kPoints; ++p) {
      for (std::size_t i = 0; i < kGroup; ++i) vectors[p][i] = kMagnitudes[level(p, i)];
    }
    return vectors;
  }();
  struct alignas(16) FloatVector {
    float values[kGroup];
  };
  static constexpr auto kFloats = [] {
    std::array<FloatVector, kPoints> floats{};
    for (std::size_t p = 0; p < kPoints; ++p) {
      for (std::size_t i = 0; i < kGroup; ++i) floats[p].values[i] = kVectors[p][i];
    }
    return floats;
  }();

  // ---- signed levels, as BlockGrid numbers them: rising, negative ones first ----

  static constexpr auto kSigned = [] {
    std::array<std::int8_t, 2 * kLevels> levels{};
    for (std::size_t m = 0; m < kLevels; ++m) {
      levels[kLevels + m] = kMagnitudes[m];
      levels[kLevels - 1 - m] = static_cast<std::int8_t>(-kMagnitudes[m]);
    }
    return levels;
  }();
  static constexpr bool is_negative(std::uint8_t code) { return code < kLevels; }
  static constexpr std::size_t magnitude(std::uint8_t code) {
    return is_negative(code) ? kLevels - 1 - code : code - kLevels;
  }
  static constexpr std::uint8_t code(std::size_t magnitude, bool negative) {
    return static_cast<std::uint8_t>(negative ? kLevels - 1 - magnitude : kLevels + magnitude);
  }
  static void codes_of(std::size_t point, unsigned negative, std::uint8_t* codes) {
    for (std::size_t i = 0; i < kGroup; ++i) {
      codes[i] = code(level(point, i), ((negative >> i) & 1U) != 0);
    }
  }
  /// The point that codes[kGroup] are; they are one.
  static std::size_t point_of_codes(const std::uint8_t* codes) {
    std::size_t sum = 0;
    for (std::size_t i = 0; i < kGroup; ++i) sum += magnitude(codes[i]) * kPowers[i];
    return kPointOf[sum];
  }
};

/// All codes of a book, as BlockEncoder wants them.
template <class Book>
struct SignedLevels {
  static constexpr std::size_t kCodes = 2 * Book::kLevels;
  static constexpr std::int8_t code(std::uint8_t stored) { return Book::kSigned[stored]; }
};

/// The points nearest to every pattern, nearest first; made when the first block is encoded.
template <class Book>
class CodebookNeighbours {
 public:
  static constexpr std::size_t kCount = PointLists::kCount;
  using List = std::array<std::uint16_t, kCount>;

  /// Thread-safe; the table lives in static storage.
  static const CodebookNeighbours& get() {
    static const CodebookNeighbours neighbours;
    return neighbours;
  }
  const List& of(std::size_t pattern) const { return lists_[pattern]; }
  /// The same as words.
  PointLists words() const { return {words_[0].data(), kMagnitudes.data()}; }

 private:
  CodebookNeighbours() {
    for (std::size_t pattern = 0; pattern < Book::kPatterns; ++pattern) fill(pattern);
  }

  /// Insertion into a sorted list; ties go to the lower index.
  void fill(std::size_t pattern) {
    std::array<int, kCount> distances;
    distances.fill(1 << 30);
    List& list = lists_[pattern];
    std::array<int, Book::kGroup> values;
    for (std::size_t i = 0; i < Book::kGroup; ++i) {
      values[i] = Book::kValues[pattern / Book::kPowers[i] % Book::kLevels];
    }
    for (std::size_t p = 0; p < Book::kPoints; ++p) {
      int distance = 0;
      for (std::size_t i = 0; i < Book::kGroup; ++i) {
        const int difference = values[i] - Book::kVectors[p][i];
        distance += difference * difference;
      }
      if (distance >= distances[kCount - 1]) continue;
      std::size_t at = kCount - 1;
      for (; at > 0 && distances[at - 1] > distance; --at) {
        distances[at] = distances[at - 1];
        list[at] = list[at - 1];
      }
      distances[at] = distance;
      list[at] = static_cast<std::uint16_t>(p);
    }
    for (std::size_t i = 0; i < kCount; ++i) words_[pattern][i] = Book::word(list[i]);
  }

  static constexpr auto kMagnitudes = [] {
    std::array<float, kCount> magnitudes{};
    for (std::size_t i = 0; i < kCount; ++i) {
      const std::size_t level = std::min(i % (1U << Book::kFieldBits), Book::kLevels - 1);
      magnitudes[i] = Book::kValues[level];
    }
    return magnitudes;
  }();

  std::array<List, Book::kPatterns> lists_{};
  std::array<List, Book::kPatterns> words_{};
};

/// The magnitudes of a book, for the part of a search that takes each weight by itself. All but the
/// largest are evenly spaced, or there are three.
template <class Book>
struct MagnitudeLevels {
  static constexpr auto& kValues = Book::kValues;
  static constexpr std::size_t kLast = Book::kLevels - 1;
  static constexpr float kFirst = kValues[0];
  static constexpr float kGap = kValues[1] - kValues[0];
  static constexpr float kLastMiddle = 0.5F * (kValues[kLast - 1] + kValues[kLast]);
  static_assert(kValues[kLast - 1] == kValues[0] + (kLast - 1) * (kValues[1] - kValues[0]));

  /// Index of the nearest magnitude.
  static Lanes nearest_index(Lanes v) {
    return v > kLastMiddle ? splat(kLast) : index_before_last(v);
  }
  static Lanes nearest(Lanes v) {
    return v > kLastMiddle ? splat(kValues[kLast]) : kFirst + kGap * index_before_last(v);
  }

 private:
  static Lanes index_before_last(Lanes v) {
    if constexpr (kLast == 2) {
      return v > kFirst + 0.5F * kGap ? splat(1.0F) : splat(0.0F);
    } else {
      return round_to_even(
          clamp((v - kFirst) * (1.0F / kGap), 0.0F, static_cast<float>(kLast - 1)));
    }
  }
};

}  // namespace winnow::quant
