// SPDX-FileCopyrightText: The Winnow authors
// SPDX-License-Identifier: Apache-2.0
// The points of a codebook nearest to a group of weights, as quant/point_search.h finds them, but
// with one listed point in each lane: its levels come from a register, since what a field of its
// word selects is one of 3 or 8 products of the step. Every product and sum is rounded as there:
// bit-identical. Limited by multiplications and, with short lists of the best, by their upkeep.

// No function with vectors in its signature is ever a call; see rounding.inl.
#pragma GCC diagnostic ignored "-Wpsabi"

/// Groups of 8 weights at 3 levels, in fields of 2 bits of a point's word.
struct PointsOf8 {
  static constexpr std::size_t kGroup = 8;
  static constexpr std::size_t kLevels = 3;
  static constexpr int kBits = 2;
  using GroupFloats = float __attribute__((vector_size(32)));
  using GroupInts = std::int32_t __attribute__((vector_size(32)));
  WINNOW_INLINE static GroupInts powers() { return GroupInts{1, 3, 9, 27, 81, 243, 729, 2187}; }
};

/// Groups of 4 at 8 levels, in fields of 3 bits.
struct PointsOf4 {
  static constexpr std::size_t kGroup = 4;
  static constexpr std::size_t kLevels = 8;
  static constexpr int kBits = 3;
  using GroupFloats = float __attribute__((vector_size(16)));
  using GroupInts = std::int32_t __attribute__((vector_size(16)));
  WINNOW_INLINE static GroupInts powers() { return GroupInts{1, 8, 64, 512}; }
};

struct FoundPoint {
  float error = std::numeric_limits<float>::infinity();
  std::uint16_t word = 0;
  std::uint8_t negative = 0;  ///< bit i: weight i
};

/// The best few, kept sorted; of equal ones the first.
struct FoundPoints {
  FoundPoint entries[quant::Codebook::kMostChoices];
  std::size_t count;

  float worst() const { return entries[count - 1].error; }
  WINNOW_INLINE void add(const FoundPoint& point) {
    if (!(point.error < worst())) return;
    std::size_t at = count - 1;
    for (; at > 0 && point.error < entries[at - 1].error; --at) entries[at] = entries[at - 1];
    entries[at] = point;
  }
};

/// What a search needs of its book and step.
template <class Layout>
struct PointSearch {
  static constexpr std::size_t kGroup = Layout::kGroup;
  static constexpr std::size_t kLast = Layout::kLevels - 1;
  using GroupFloats = typename Layout::GroupFloats;
  using GroupInts = typename Layout::GroupInts;

  PointSearch(const quant::Codebook& codebook, float signed_step)
      : lists(codebook.lists()),
        step(signed_step),
        inverse(quant::BlockGrid::inverse_step(std::fabs(signed_step))),
        products(mul(broadcast(std::fabs(signed_step)), load(lists.magnitudes))) {}

  /// As quant::MagnitudeLevels::nearest_index of x / |step|, times what a level is worth in the
  /// number of a pattern.
  WINNOW_INLINE void parts_of_pattern(const float* x, std::int32_t* parts) const {
    GroupFloats v;
    std::memcpy(&v, x, sizeof v);
    v = v * inverse;
    const float* const magnitudes = lists.magnitudes;
    const float gap = magnitudes[1] - magnitudes[0];
    const GroupInts last = v > 0.5F * (magnitudes[kLast - 1] + magnitudes[kLast]);
    GroupInts levels;
    if constexpr (kLast == 2) {
      levels = -(v > magnitudes[0] + 0.5F * gap) - last;
    } else {
      const GroupFloats low{};
      const GroupFloats high = low + static_cast<float>(kLast - 1);
      const GroupFloats place = (v - magnitudes[0]) * (1.0F / gap);
      const GroupFloats raised = place < low ? low : place;
      const GroupFloats inside = raised > high ? high : raised;
      levels = __builtin_convertvector((inside + 0x1.8p23F) - 0x1.8p23F, GroupInts);
      levels = last ? GroupInts{} + static_cast<std::int32_t>(kLast) : levels;
    }
    levels *= Layout::powers();
    std::memcpy(parts, &levels, sizeof levels);
  }

  quant::PointLists lists;
  float step;
  float inverse;
  Floats products;  ///< |step| * magnitude of each level
};

template <class Layout, int kField>
WINNOW_INLINE Floats weighted_square(Floats table, Ints words, const float* x, const float* w) {
  const Floats error =
      sub(broadcast(x[kField]), look_up_fields<Layout::kBits * kField>(table, words));
  return mul(mul(broadcast(w[kField]), error), error);
}

/// Terms kField and, in groups of 8, kField + 4.
template <class Layout, int kField>
WINNOW_INLINE Floats weighted_squares(Floats table, Ints words, const float* x, const float* w) {
  const Floats sum = weighted_square<Layout, kField>(table, words, x, w);
  if constexpr (Layout::kGroup == 4) {
    return sum;
  } else {
    return add(sum, weighted_square<Layout, kField + 4>(table, words, x, w));
  }
}

/// Zeros with an infinity in lane `lane`, from the right place.
alignas(64) inline constexpr auto kOneInfinity = [] {
  std::array<float, 2 * kLanes> values{};
  values[kLanes - 1] = std::numeric_limits<float>::infinity();
  return values;
}();
WINNOW_INLINE Floats infinity_at(std::size_t lane) {
  return load(kOneInfinity.data() + kLanes - 1 - lane);
}

/// The errors of a list of points, from which the least are taken one after the other.
struct PointErrors {
  static constexpr std::size_t kVectors = quant::PointLists::kCount / kLanes;
  Floats vectors[kVectors];

  WINNOW_INLINE float least() const {
    Floats all = vectors[0];
    for (std::size_t v = 1; v < kVectors; ++v) all = min(all, vectors[v]);
    return reduce_min(all);
  }
  /// The place of the first error that is `value`, which becomes infinite.
  WINNOW_INLINE std::size_t take(float value) {
    for (std::size_t v = 0; v < kVectors; ++v) {
      const unsigned lanes = equal(vectors[v], broadcast(value));
      if (lanes == 0) continue;
      const auto lane = static_cast<std::size_t>(std::countr_zero(lanes));
      vectors[v] = max(infinity_at(lane), vectors[v]);
      return v * kLanes + lane;
    }
    return 0;
  }
};

/// Adds all listed neighbours of a pattern. x: some of it is negative where a sign was turned.
template <class Layout>
WINNOW_INLINE void collect_points(const PointSearch<Layout>& search, std::size_t pattern,
                                  const float* x, const float* w, unsigned negative,
                                  FoundPoints& best) {
  const std::uint16_t* const list = search.lists.words + pattern * quant::PointLists::kCount;
  PointErrors errors;
  for (std::size_t v = 0; v < PointErrors::kVectors; ++v) {
    const Ints words = load_words(list + v * kLanes);
    errors.vectors[v] = add(add(weighted_squares<Layout, 0>(search.products, words, x, w),
                                weighted_squares<Layout, 1>(search.products, words, x, w)),
                            add(weighted_squares<Layout, 2>(search.products, words, x, w),
                                weighted_squares<Layout, 3>(search.products, words, x, w)));
  }
  for (std::size_t i = 0; i < best.count; ++i) {
    const float error = errors.least();
    if (!(error < best.worst())) return;
    best.add({error, list[errors.take(error)], static_cast<std::uint8_t>(negative)});
  }
}

/// As quant::PointSearch::nearest_signed.
template <class Layout>
WINNOW_INLINE void find_points(const PointSearch<Layout>& search, const float* target,
                               const float* weights, quant::SignParity parity, FoundPoints& best) {
  constexpr std::size_t kGroup = Layout::kGroup;
  constexpr unsigned kAll = (1U << kGroup) - 1U;
  constexpr int kTurns = 3;
  const Floats signed_target = load_first(target, kGroup);
  const Floats magnitudes = max(signed_target, sub(broadcast(0.0F), signed_target));
  const unsigned negative = (signs(signed_target) ^ (std::signbit(search.step) ? kAll : 0U)) & kAll;
  float x[kLanes];
  store(x, magnitudes);
  std::int32_t parts[kGroup];
  search.parts_of_pattern(x, parts);
  std::int32_t pattern = 0;
  for (const std::int32_t part : parts) pattern += part;
  const bool odd = std::popcount(negative) % 2 == 1;
  if (parity == quant::SignParity::kAny || odd == (parity == quant::SignParity::kOdd)) {
    return collect_points(search, static_cast<std::size_t>(pattern), x, weights, negative, best);
  }
  // The three signs that are cheapest to turn. What is turned has the lowest level.
  PointErrors costs;
  for (Floats& vector : costs.vectors) {
    vector = broadcast(std::numeric_limits<float>::infinity());
  }
  float products[kLanes];
  store(products, mul(magnitudes, load_first(weights, kGroup)));
  costs.vectors[0] = load_first_or(products, kGroup, costs.vectors[0]);
  for (int turn = 0; turn < kTurns; ++turn) {
    const std::size_t cheapest = std::min(costs.take(costs.least()), kGroup - 1);
    x[cheapest] = -x[cheapest];
    collect_points(search, static_cast<std::size_t>(pattern - parts[cheapest]), x, weights,
                   negative ^ (1U << cheapest), best);
    x[cheapest] = -x[cheapest];
  }
}

template <class Layout>
WINNOW_INLINE void codes_of_point(const FoundPoint& point, std::uint8_t* codes) {
  constexpr unsigned kLevels = Layout::kLevels;
  for (std::size_t i = 0; i < Layout::kGroup; ++i) {
    const unsigned level = (point.word >> (Layout::kBits * i)) & ((1U << Layout::kBits) - 1);
    const bool negative = ((point.negative >> i) & 1U) != 0;
    codes[i] = static_cast<std::uint8_t>(negative ? kLevels - 1 - level : kLevels + level);
  }
}

template <class Layout>
void nearest_in(const quant::Codebook& book, const float* target, const float* weights, float step,
                quant::SignParity parity, std::size_t count, std::uint8_t* codes) {
  FoundPoints best;
  best.count = count;
  find_points(PointSearch<Layout>(book, step), target, weights, parity, best);
  for (std::size_t c = 0; c < count; ++c) {
    codes_of_point<Layout>(best.entries[c], codes + c * Layout::kGroup);
  }
}

/// As quant::choose_signed_group: all groups of a sign field, whose parities have to agree.
template <class Layout>
void choose_in(const quant::Codebook& book, const float* target, const float* weights, float step,
               std::uint8_t* codes) {
  constexpr std::size_t kGroup = Layout::kGroup;
  constexpr std::size_t kGroups = quant::kSignGroup / kGroup;
  const PointSearch<Layout> search(book, step);
  FoundPoints best[2][kGroups];
  const auto look = [&](std::size_t slot, quant::SignParity parity) {
    float error = 0;
    for (std::size_t g = 0; g < kGroups; ++g) {
      best[slot][g].count = 1;
      find_points(search, target + g * kGroup, weights + g * kGroup, parity, best[slot][g]);
      error += best[slot][g].worst();
    }
    return error;
  };
  std::size_t slot = 0;
  if (!book.even_signs || kGroups == 1) {
    look(0, book.even_signs ? quant::SignParity::kEven : quant::SignParity::kAny);
  } else {
    unsigned negative = 0;
    for (std::size_t i = 0; i < quant::kSignGroup; ++i) {
      negative |= static_cast<unsigned>(std::signbit(target[i]) != std::signbit(step)) << i;
    }
    const bool first_odd = std::popcount(negative & 15U) % 2 == 1;
    const bool odd = std::popcount(negative) % 2 == 1;  // of one group and not of the other
    // Both even or both odd; what needs no sign turned is best.
    float even_error = std::numeric_limits<float>::infinity();
    if (odd || !first_odd) even_error = look(0, quant::SignParity::kEven);
    if ((odd || first_odd) && look(1, quant::SignParity::kOdd) < even_error) slot = 1;
  }
  for (std::size_t g = 0; g < kGroups; ++g) {
    codes_of_point<Layout>(best[slot][g].entries[0], codes + g * kGroup);
  }
}

void nearest_points(const quant::Codebook& book, const float* target, const float* weights,
                    float step, quant::SignParity parity, std::size_t count,
                    std::uint8_t* codes) noexcept {
  const auto nearest = book.group == 8 ? nearest_in<PointsOf8> : nearest_in<PointsOf4>;
  nearest(book, target, weights, step, parity, count, codes);
}

void choose_points(const quant::Codebook& book, const float* target, const float* weights,
                   float step, std::uint8_t* codes) noexcept {
  const auto choose = book.group == 8 ? choose_in<PointsOf8> : choose_in<PointsOf4>;
  choose(book, target, weights, step, codes);
}
