// SPDX-FileCopyrightText: The Winnow authors
// SPDX-License-Identifier: Apache-2.0
// Rotation, storage of keys and values, and attention on every ISA: exact where the definition is,
// within derived bounds of f64 elsewhere, and bit for bit the same however queries are grouped.
#include <algorithm>
#include <bit>
#include <cmath>
#include <limits>

#include "base/rng.h"
#include "kernels/testing.h"
#include "tensor/half.h"

namespace winnow::kernels::attention_test {
namespace {

using testing::Guarded;
using testing::kUnit;
using testing::ScratchLine;

constexpr std::size_t kHeadDims[] = {8, 16, 20, 40, 64, 80, 96, 128, 256};
constexpr float kInfinity = std::numeric_limits<float>::infinity();
constexpr float kNan = std::numeric_limits<float>::quiet_NaN();

const Kernels& scalar() { return *testing::isas_here().back(); }

std::vector<float> normal_values(std::uint64_t seed, std::size_t count, double size = 1) {
  Rng rng(seed);
  std::vector<float> values(count);
  for (float& v : values) v = static_cast<float>(size * rng.normal());
  return values;
}

/// Keys and values of one head, in memory that holds NaNs where nothing was stored.
class Head {
 public:
  Head(KvType type, std::size_t head_dim, std::size_t capacity)
      : layout_{type, head_dim},
        keys_((capacity + 15) / 16 * layout_.strip_bytes() / 4),
        values_(keys_.size()) {}

  std::byte* keys() { return reinterpret_cast<std::byte*>(keys_.data()); }
  std::byte* values() { return reinterpret_cast<std::byte*>(values_.data()); }
  const KvLayout& layout() const { return layout_; }
  void store(const Kernels& kernels, std::size_t position, const float* key, const float* value) {
    kernels.store_key_value(layout_, key, value, position, keys(), values());
  }
  float key(std::size_t p, std::size_t d) {
    return read(keys() + p / 16 * layout_.strip_bytes(), KvLayout::key_index(p % 16, d),
                KvLayout::key_scale_index(p % 16, d));
  }
  float value(std::size_t p, std::size_t d) {
    return read(values() + p / 16 * layout_.strip_bytes(), layout_.value_index(p % 16, d),
                layout_.value_scale_index(p % 16, d));
  }

 private:
  float read(const std::byte* strip, std::size_t index, std::size_t scale_index) const {
    const auto half = [](const std::byte* at) {
      return tensor::half_to_float(*reinterpret_cast<const std::uint16_t*>(at));
    };
    if (layout_.type == KvType::kF32) return reinterpret_cast<const float*>(strip)[index];
    if (layout_.type == KvType::kF16) return half(strip + 2 * index);
    return static_cast<float>(static_cast<std::int8_t>(strip[index])) *
           half(strip + layout_.scales_offset() + 2 * scale_index);
  }
  KvLayout layout_;
  Guarded<std::uint32_t> keys_;
  Guarded<std::uint32_t> values_;
};

void fill(Head& head, const Kernels& kernels, std::size_t positions, std::uint64_t seed) {
  const std::size_t dim = head.layout().head_dim;
  const auto keys = normal_values(seed, positions * dim);
  const auto values = normal_values(seed + 1, positions * dim);
  for (std::size_t p = 0; p < positions; ++p) {
    head.store(kernels, p, keys.data() + p * dim, values.data() + p * dim);
  }
}

/// Results [tokens, group, head_dim] of the last `tokens` of `positions`, `chunk` tokens a call.
std::vector<float> attend(const Kernels& kernels, Head& head, const std::vector<float>& queries,
                          std::size_t group, std::size_t positions, std::size_t chunk) {
  const KvLayout& layout = head.layout();
  const std::size_t width = group * layout.head_dim;
  const std::size_t tokens = queries.size() / width;
  Guarded<float> out(queries.size());
  Guarded<ScratchLine> memory(attention_scratch_bytes(layout.head_dim) / sizeof(ScratchLine));
  for (std::size_t t = 0; t < tokens; t += chunk) {
    AttentionTask task;
    task.layout = layout;
    task.keys = head.keys();
    task.values = head.values();
    if (t % 2 == 0) task.upcoming = head.keys();
    task.queries = queries.data() + t * width;
    task.out = out.data() + t * width;
    task.token_stride = width;
    task.tokens = std::min(chunk, tokens - t);
    task.group = group;
    task.visible = positions - tokens + t + 1;
    task.scale = 1 / std::sqrt(static_cast<float>(layout.head_dim));
    kernels.attend(task, memory.data()->bytes);
  }
  return {out.data(), out.data() + out.size()};
}

std::vector<std::uint32_t> bits_of(const std::vector<float>& values) {
  std::vector<std::uint32_t> bits;
  bits.reserve(values.size());
  for (const float v : values) bits.push_back(std::bit_cast<std::uint32_t>(v));
  return bits;
}

class AttentionKernels : public ::testing::TestWithParam<const Kernels*> {
 protected:
  const Kernels& kernels() const { return *GetParam(); }
};

TEST_P(AttentionKernels, RotationHasTheBitsOfTheReference) {
  for (const std::size_t half : {1, 4, 7, 8, 16, 20, 40, 64}) {
    Guarded<float> x(2 * half);
    const auto given = normal_values(half, 2 * half);
    const auto cosines = normal_values(half + 1, half);
    const auto sines = normal_values(half + 2, half);
    std::copy(given.begin(), given.end(), x.data());
    kernels().rotate_halves(x.data(), cosines.data(), sines.data(), half);
    std::vector<float> expected = given;
    scalar().rotate_halves(expected.data(), cosines.data(), sines.data(), half);
    EXPECT_EQ(bits_of({x.data(), x.data() + 2 * half}), bits_of(expected)) << half;
  }
}

TEST_P(AttentionKernels, RotationTurnsPairsByTheirAngle) {
  std::vector<float> x = {3, 5, 4, 12};
  const std::vector<float> cosines = {0, 1};
  const std::vector<float> sines = {1, 0};
  kernels().rotate_halves(x.data(), cosines.data(), sines.data(), 2);
  EXPECT_EQ(x, (std::vector<float>{-4, 5, 3, 12}));
}

TEST_P(AttentionKernels, StoredFormsHaveTheBitsOfTheReference) {
  for (const KvType type : all_kv_types()) {
    for (const std::size_t dim : kHeadDims) {
      Head head(type, dim, 33);
      Head expected(type, dim, 33);
      for (const std::size_t p : {0, 1, 15, 16, 32}) {
        auto key = normal_values(p + 1, dim, std::pow(10.0, static_cast<double>(p) - 12));
        auto value = normal_values(p + 2, dim);
        if (p == 15) value[dim - 1] = kNan;
        if (p == 16) value[0] = kInfinity;
        if (p == 1) std::fill(value.begin(), value.end(), 0.0F);
        head.store(kernels(), p, key.data(), value.data());
        expected.store(scalar(), p, key.data(), value.data());
        for (std::size_t d = 0; d < dim; ++d) {
          ASSERT_EQ(std::bit_cast<std::uint32_t>(head.key(p, d)),
                    std::bit_cast<std::uint32_t>(expected.key(p, d)))
              << to_string(type) << " " << dim << " " << p << " " << d;
          ASSERT_EQ(std::bit_cast<std::uint32_t>(head.value(p, d)),
                    std::bit_cast<std::uint32_t>(expected.value(p, d)))
              << to_string(type) << " " << dim << " " << p << " " << d;
        }
      }
    }
  }
}

TEST_P(AttentionKernels, StoringAPositionLeavesItsNeighboursAlone) {
  constexpr std::size_t kDim = 40;
  for (const KvType type : all_kv_types()) {
    Head head(type, kDim, 18);
    fill(head, kernels(), 18, 5);
    std::vector<float> before;
    const auto others = [&] {
      std::vector<float> all;
      for (std::size_t p = 0; p < 18; ++p) {
        if (p == 7) continue;
        for (std::size_t d = 0; d < kDim; ++d) {
          all.push_back(head.key(p, d));
          all.push_back(head.value(p, d));
        }
      }
      return all;
    };
    before = others();
    const auto changed = normal_values(9, kDim);
    head.store(kernels(), 7, changed.data(), changed.data());
    EXPECT_EQ(others(), before) << to_string(type);
  }
}

TEST_P(AttentionKernels, StoredFormsAreAsCloseAsTheirTypeAllows) {
  constexpr std::size_t kDim = 96;
  const auto x = normal_values(3, kDim);
  Head floats(KvType::kF32, kDim, 1);
  Head halves(KvType::kF16, kDim, 1);
  Head codes(KvType::kQ8_0, kDim, 1);
  for (Head* head : {&floats, &halves, &codes}) head->store(kernels(), 0, x.data(), x.data());
  for (std::size_t d = 0; d < kDim; ++d) {
    float largest = 0;
    for (std::size_t j = d / 32 * 32; j < d / 32 * 32 + 32; ++j) {
      largest = std::max(largest, std::fabs(x[j]));
    }
    EXPECT_EQ(floats.key(0, d), x[d]);
    EXPECT_LE(std::fabs(halves.key(0, d) - x[d]), std::fabs(x[d]) * 0x1p-11F);
    // Half a step, the step rounded to f16, and what it lost times the largest code.
    EXPECT_LE(std::fabs(codes.value(0, d) - x[d]), largest / 127 * (0.5F + 127 * 0x1p-11F));
    EXPECT_EQ(codes.value(0, d), codes.key(0, d));
    EXPECT_EQ(halves.value(0, d), halves.key(0, d));
  }
}

// Scores of 0 give every position the weight 1: sums of integers, divided once.
TEST_P(AttentionKernels, EqualScoresGiveTheMeanExactly) {
  for (const KvType type : all_kv_types()) {
    for (const std::size_t dim : kHeadDims) {
      Head head(type, dim, 130);
      const std::vector<float> key(dim, 1.0F);
      std::vector<double> sums(dim);
      const std::vector<float> query(dim, 0.0F);
      for (std::size_t p = 0; p < 130; ++p) {
        std::vector<float> value(dim);
        for (std::size_t d = 0; d < dim; ++d) {
          value[d] = d % 32 == 0 ? 127.0F : static_cast<float>((p * 7 + d * 3) % 11) - 5.0F;
          sums[d] += value[d];
        }
        head.store(kernels(), p, key.data(), value.data());
        const auto out = attend(kernels(), head, query, 1, p + 1, 1);
        for (std::size_t d = 0; d < dim; ++d) {
          ASSERT_EQ(out[d], static_cast<float>(sums[d]) / static_cast<float>(p + 1))
              << to_string(type) << " dim " << dim << " p " << p << " d " << d;
        }
      }
    }
  }
}

// A score 200 above the others leaves them e^-200, which is 0 in f32.
TEST_P(AttentionKernels, AKeyFarAboveTheOthersGivesItsValueExactly) {
  constexpr std::size_t kDim = 64;
  constexpr std::size_t kPositions = 130;
  for (const KvType type : all_kv_types()) {
    for (const std::size_t wanted : {0, 1, 15, 16, 63, 64, 100, 129}) {
      Head head(type, kDim, kPositions);
      fill(head, kernels(), kPositions, 11);
      std::vector<float> key(kDim, 0.0F);
      key[5] = 127;
      const auto value = normal_values(17, kDim);
      head.store(kernels(), wanted, key.data(), value.data());
      std::vector<float> query(kDim, 0.0F);
      query[5] = 100;
      const auto out = attend(kernels(), head, query, 1, kPositions, 1);
      for (std::size_t d = 0; d < kDim; ++d) ASSERT_EQ(out[d], head.value(wanted, d)) << wanted;
    }
  }
}

/// f64 result of one query, and the bound of the f32 one's error, for each element.
struct Reference {
  std::vector<double> out;
  std::vector<double> bound;
};

Reference reference(Head& head, const float* query, std::size_t visible) {
  const std::size_t dim = head.layout().head_dim;
  const double scale = 1 / std::sqrt(static_cast<float>(dim));
  std::vector<double> scores(visible);
  double magnitude = 0;
  for (std::size_t p = 0; p < visible; ++p) {
    double sum = 0;
    for (std::size_t d = 0; d < dim; ++d) {
      const double term = scale * query[d] * head.key(p, d);
      scores[p] += term;
      sum += std::fabs(term);
    }
    magnitude = std::max(magnitude, sum);
  }
  const double largest = *std::max_element(scores.begin(), scores.end());
  const double reach = largest - *std::min_element(scores.begin(), scores.end());
  double total = 0;
  for (const double s : scores) total += std::exp(s - largest);
  const auto n = static_cast<double>(visible);
  // A score: the scaled query, dim products and sums. The differences of scores to a running
  // maximum: their sizes sum to at most twice the reach. Then per position, at most: exp 4 u,
  // a correction of 6 u, one product, one sum; the quotient. All of it twice: above and below.
  const double relative =
      2 * ((static_cast<double>(dim) + 2) * 2 * magnitude + 2 * reach + 12 * n + 8) * kUnit;
  Reference result{std::vector<double>(dim), std::vector<double>(dim)};
  for (std::size_t d = 0; d < dim; ++d) {
    for (std::size_t p = 0; p < visible; ++p) {
      const double term = std::exp(scores[p] - largest) / total * head.value(p, d);
      result.out[d] += term;
      result.bound[d] += relative * std::fabs(term);
    }
  }
  return result;
}

TEST_P(AttentionKernels, StayWithinTheBoundOfF32Sums) {
  for (const KvType type : all_kv_types()) {
    for (const std::size_t dim : kHeadDims) {
      Head head(type, dim, 130);
      fill(head, kernels(), 130, dim);
      for (const std::size_t visible : {1, 2, 15, 16, 17, 63, 64, 65, 130}) {
        const auto query = normal_values(visible, dim, 2);
        const auto out = attend(kernels(), head, query, 1, visible, 1);
        const Reference wanted = reference(head, query.data(), visible);
        for (std::size_t d = 0; d < dim; ++d) {
          ASSERT_LE(std::fabs(out[d] - wanted.out[d]), wanted.bound[d])
              << to_string(type) << " dim " << dim << " visible " << visible << " d " << d;
        }
      }
    }
  }
}

TEST_P(AttentionKernels, AQueryDoesNotNoticeItsCompany) {
  for (const KvType type : all_kv_types()) {
    for (const std::size_t dim : {8, 40, 128}) {
      for (const std::size_t group : {1, 2, 3, 4, 7, 17}) {
        constexpr std::size_t kPositions = 130;
        const std::size_t tokens = group <= 4 ? kPositions : 20;
        Head head(type, dim, kPositions);
        fill(head, kernels(), kPositions, dim + group);
        const auto queries = normal_values(group, tokens * group * dim, 3);
        const auto alone = attend(kernels(), head, queries, group, kPositions, 1);
        for (const std::size_t chunk : {2, 5, 32, 64, 130}) {
          ASSERT_EQ(bits_of(attend(kernels(), head, queries, group, kPositions, chunk)),
                    bits_of(alone))
              << to_string(type) << " dim " << dim << " group " << group << " chunk " << chunk;
        }
        // The heads of a group, each as the only one.
        const std::size_t width = group * dim;
        for (std::size_t h = 0; h < group; ++h) {
          const std::vector<float> one(
              queries.end() - static_cast<std::ptrdiff_t>(width - h * dim),
              queries.end() - static_cast<std::ptrdiff_t>(width - (h + 1) * dim));
          const std::vector<float> last(
              alone.end() - static_cast<std::ptrdiff_t>(width - h * dim),
              alone.end() - static_cast<std::ptrdiff_t>(width - (h + 1) * dim));
          ASSERT_EQ(bits_of(attend(kernels(), head, one, 1, kPositions, 1)), bits_of(last));
        }
      }
    }
  }
}

TEST_P(AttentionKernels, TheTypeChangesNothingButTheStoredValues) {
  constexpr std::size_t kPositions = 100;
  for (const KvType type : {KvType::kF16, KvType::kQ8_0}) {
    for (const std::size_t dim : kHeadDims) {
      Head head(type, dim, kPositions);
      Head floats(KvType::kF32, dim, kPositions);
      fill(head, kernels(), kPositions, dim);
      for (std::size_t p = 0; p < kPositions; ++p) {
        std::vector<float> key(dim);
        std::vector<float> value(dim);
        for (std::size_t d = 0; d < dim; ++d) {
          key[d] = head.key(p, d);
          value[d] = head.value(p, d);
        }
        floats.store(kernels(), p, key.data(), value.data());
      }
      for (const std::size_t group : {1, 2, 4, 5}) {
        const auto queries = normal_values(3, group * dim);
        ASSERT_EQ(bits_of(attend(kernels(), head, queries, group, kPositions, 1)),
                  bits_of(attend(kernels(), floats, queries, group, kPositions, 1)))
            << to_string(type) << " dim " << dim << " group " << group;
      }
    }
  }
}

TEST_P(AttentionKernels, QueriesFarApartInMemoryAreFound) {
  constexpr std::size_t kDim = 16;
  Head head(KvType::kF32, kDim, 3);
  fill(head, kernels(), 3, 1);
  const auto queries = normal_values(2, 3 * 100);
  Guarded<float> out(3 * 100);
  Guarded<ScratchLine> memory(attention_scratch_bytes(kDim) / sizeof(ScratchLine));
  AttentionTask task{
      head.layout(), head.keys(), head.values(), nullptr, queries.data(), out.data(), 100, 3, 2, 1,
      0.25F};
  kernels().attend(task, memory.data()->bytes);
  for (std::size_t t = 0; t < 3; ++t) {
    for (std::size_t j = 0; j < 100; ++j) {
      EXPECT_EQ(std::bit_cast<std::uint32_t>(out[t * 100 + j]) == 0xffffffffU, j >= 2 * kDim);
    }
  }
}

TEST_P(AttentionKernels, NanInAVisibleKeyOrValueIsShown) {
  constexpr std::size_t kDim = 40;
  for (const KvType type : all_kv_types()) {
    for (const bool in_key : {true, false}) {
      Head head(type, kDim, 70);
      fill(head, kernels(), 70, 1);
      auto key = normal_values(2, kDim);
      auto value = key;
      (in_key ? key : value)[39] = kNan;
      head.store(kernels(), 66, key.data(), value.data());
      const auto queries = normal_values(3, 70 * kDim);
      const auto out = attend(kernels(), head, queries, 1, 70, 70);
      for (std::size_t t = 0; t < 70; ++t) {
        EXPECT_EQ(std::isnan(out[t * kDim + 39]), t >= 66) << to_string(type) << " " << t;
      }
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Isas, AttentionKernels, ::testing::ValuesIn(testing::isas_here()),
                         testing::isa_name);

TEST(KvTypes, AreFoundByTheirNames) {
  for (const KvType type : all_kv_types()) EXPECT_EQ(parse_kv_type(to_string(type)), type);
  EXPECT_EQ(parse_kv_type("q4_0"), std::nullopt);
}

TEST(KvTypes, TakeTheBytesOfTheirElementsAndScales) {
  EXPECT_EQ((KvLayout{KvType::kF32, 128}.strip_bytes()), 16U * 128 * 4);
  EXPECT_EQ((KvLayout{KvType::kF16, 128}.strip_bytes()), 16U * 128 * 2);
  EXPECT_EQ((KvLayout{KvType::kQ8_0, 128}.strip_bytes()), 16U * (128 + 4 * 2));
  EXPECT_EQ((KvLayout{KvType::kQ8_0, 40}.strip_bytes()), 16U * (48 + 2 * 2));
}

}  // namespace
}  // namespace winnow::kernels::attention_test
