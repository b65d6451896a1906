// SPDX-FileCopyrightText: The Winnow authors
// SPDX-License-Identifier: Apache-2.0
// Fewer experts per token: what becomes of a token's routes, and that a run computes only what is
// left of them, with the same bits however its tokens are divided.
#include "engine/routing_policy.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <bit>
#include <cmath>

#include "base/rng.h"
#include "engine/blocks/moe_ffn.h"
#include "engine/engine.h"
#include "engine/weights.h"
#include "formats/expect_error.h"
#include "formats/test_files.h"
#include "kernels/testing.h"
#include "model/test_models.h"

namespace winnow::engine::routing_policy_test {
namespace {

using formats::testing::error_of;
using ::testing::HasSubstr;

/// One token's routes: experts and weights, and how many of them are used.
struct Routes {
  std::vector<ExpertId> experts;
  std::vector<float> weights;
  std::size_t used = 0;
  bool operator==(const Routes&) const = default;
};

class TokenRoutes : public ::testing::TestWithParam<bool> {
 protected:
  static constexpr std::uint32_t kExperts = 16;
  static constexpr std::uint32_t kTopK = 6;

  TokenRoutes() {
    moe_.num_experts = kExperts;
    moe_.top_k = kTopK;
    moe_.renormalize_top_k = GetParam();
  }
  std::vector<float> random_logits() {
    std::vector<float> logits;
    for (std::uint32_t e = 0; e < kExperts; ++e) {
      logits.push_back(static_cast<float>(3 * rng_.uniform()));
    }
    return logits;
  }
  Routes plain(std::span<const float> logits, std::size_t top_k) const {
    Routes routes{std::vector<ExpertId>(top_k), std::vector<float>(top_k), top_k};
    std::vector<float> scratch(logits.size());
    route(kernels_, moe_, logits, routes.experts, routes.weights, scratch);
    return routes;
  }
  Routes limited(std::span<const float> logits, std::size_t top_k,
                 const RouteLimits& limits) const {
    Routes routes{std::vector<ExpertId>(top_k), std::vector<float>(top_k), 0};
    std::vector<float> scratch(logits.size());
    std::vector<ExpertId> order(logits.size());
    routes.used = route_limited(kernels_, moe_, limits, logits, routes.experts, routes.weights,
                                scratch, order);
    return routes;
  }
  /// `used`: how many are none of the router's choices.
  Routes preferring(std::span<const float> logits, const RoutingPolicy::PreferCached& prefer,
                    std::span<const std::uint8_t> present) const {
    Routes routes{std::vector<ExpertId>(kTopK), std::vector<float>(kTopK), 0};
    std::vector<float> scratch(logits.size());
    std::vector<ExpertId> order(logits.size());
    routes.used = route_preferring(kernels_, moe_, prefer, present, logits, routes.experts,
                                   routes.weights, scratch, order);
    return routes;
  }
  /// Softmax over all experts.
  std::vector<float> scores(std::span<const float> logits) const {
    std::vector<float> values(logits.begin(), logits.end());
    kernels_.softmax(values.data(), values.size());
    return values;
  }
  const kernels::Kernels& kernels_ = kernels::select_kernels("", os::CpuFeatures::detect());
  model::MoeSpec moe_;
  Rng rng_{7};
};
INSTANTIATE_TEST_SUITE_P(Renormalised, TokenRoutes, ::testing::Bool());

TEST_P(TokenRoutes, ARatioOf0AndTheModelsOwnNumbersChangeNoBit) {
  for (int i = 0; i < 50; ++i) {
    const auto logits = random_logits();
    EXPECT_EQ(limited(logits, kTopK, {kTopK, 0}), plain(logits, kTopK));
  }
}

TEST_P(TokenRoutes, ARatioOf1LeavesTheBestAloneWithTheWeightOfAModelOfOneExpert) {
  for (int i = 0; i < 50; ++i) {
    auto logits = random_logits();
    if (i % 2 == 1) logits.assign(kExperts, 0.5F);  // all weigh as much
    const Routes one = plain(logits, 1);
    const Routes routes = limited(logits, kTopK, {kTopK, 1});
    EXPECT_EQ(routes.used, 1U);
    EXPECT_EQ(routes.experts.front(), one.experts.front());
    EXPECT_EQ(routes.weights.front(), one.weights.front());
    EXPECT_EQ(std::count(routes.weights.begin(), routes.weights.end(), 0.0F), kTopK - 1);
  }
}

TEST_P(TokenRoutes, ThoseBelowTheRatioAreSkippedAndTheOthersAreThoseOfASmallerModel) {
  std::vector<std::size_t> counts(kTopK + 1);
  for (int i = 0; i < 200; ++i) {
    const auto logits = random_logits();
    const auto ratio = static_cast<float>(rng_.uniform());
    const Routes all = plain(logits, kTopK);
    std::size_t expected = 0;
    for (const float weight : all.weights) {
      if (!(double{weight} < double{ratio} * double{all.weights[0]})) ++expected;
    }
    const Routes routes = limited(logits, kTopK, {kTopK, ratio});
    ++counts[routes.used];
    EXPECT_EQ(routes.used, expected);
    EXPECT_EQ(routes.experts, all.experts);
    const Routes smaller = plain(logits, routes.used);
    for (std::size_t k = 0; k < kTopK; ++k) {
      EXPECT_EQ(routes.weights[k], k < routes.used ? smaller.weights[k] : 0.0F);
    }
  }
  for (std::size_t k = 1; k <= kTopK; ++k) EXPECT_GT(counts[k], 0U) << k;
}

TEST_P(TokenRoutes, EqualWeightsAreKeptBelowARatioOf1) {
  const std::vector<float> logits(kExperts, 0.25F);
  EXPECT_EQ(limited(logits, kTopK, {kTopK, 0.9999999F}).used, kTopK);
}

TEST_P(TokenRoutes, GatesAreDividedByTheSumOverSoManyAsIsSaid) {
  for (int i = 0; i < 50; ++i) {
    const auto logits = random_logits();
    const auto score = scores(logits);
    for (std::size_t k1 = 1; k1 <= kTopK; ++k1) {
      for (const std::size_t k2 : {k1, std::size_t{kTopK}, std::size_t{kExperts}}) {
        const Routes routes = limited(logits, k1, {k2, 0});
        EXPECT_EQ(routes.used, k1);
        EXPECT_EQ(routes.experts, plain(logits, k1).experts);
        double sum = 0;  // the stated normaliser
        for (const ExpertId expert : plain(logits, k2).experts) sum += score[index(expert)];
        for (std::size_t k = 0; k < k1; ++k) {
          const double own = score[index(routes.experts[k])];
          // One sum of at most 16 terms and one division in f32.
          EXPECT_NEAR(routes.weights[k], GetParam() ? own / sum : own, 18 * 0x1.0p-24);
        }
        if (k1 == k2) {
          EXPECT_EQ(routes, plain(logits, k1));
        }
      }
    }
  }
}

TEST_P(TokenRoutes, PrefersThoseInMemoryAmongTheBestAfterTheVeryBest) {
  constexpr std::uint32_t kAlways = 2;
  constexpr std::uint32_t kAmong = 9;
  for (int i = 0; i < 100; ++i) {
    const auto logits = random_logits();
    std::vector<std::uint8_t> present;
    for (std::uint32_t e = 0; e < kExperts; ++e) present.push_back(rng_.below(2) == 0 ? 1 : 0);
    const Routes ranked = plain(logits, kAmong);
    // The definition: the very best, then those in memory, then the others.
    std::vector<ExpertId> expected(ranked.experts.begin(), ranked.experts.begin() + kAlways);
    for (const int wanted : {1, 0}) {
      for (std::size_t rank = kAlways; rank < kAmong; ++rank) {
        const ExpertId expert = ranked.experts[rank];
        if (present[index(expert)] == wanted) expected.push_back(expert);
      }
    }
    expected.resize(kTopK);
    std::size_t others = 0;
    for (const ExpertId expert : expected) {
      const auto own = std::span(ranked.experts).first(kTopK);
      others += std::find(own.begin(), own.end(), expert) == own.end() ? 1 : 0;
    }
    const Routes routes = preferring(logits, {kAlways, kAmong}, present);
    EXPECT_EQ(routes.experts, expected);
    EXPECT_EQ(routes.used, others);
    double sum = 0;
    for (const ExpertId expert : expected) sum += double{scores(logits)[index(expert)]};
    for (std::size_t k = 0; k < kTopK; ++k) {
      const double score = double{scores(logits)[index(expected[k])]};
      EXPECT_NEAR(routes.weights[k], moe_.renormalize_top_k ? score / sum : score, 1e-6);
    }
  }
}

TEST_P(TokenRoutes, ThePreferenceChangesNothingWhereAllOrNoneAreInMemory) {
  for (const std::uint8_t all : {0, 1}) {
    const auto logits = random_logits();
    Routes expected = plain(logits, kTopK);
    expected.used = 0;  // others than the router's
    EXPECT_EQ(preferring(logits, {0, 12}, std::vector<std::uint8_t>(kExperts, all)), expected);
  }
}

TEST_P(TokenRoutes, ALogitThatIsNotFiniteIsRefused) {
  auto logits = random_logits();
  logits[3] = NAN;
  EXPECT_THAT(error_of(
                  [&] {
                    limited(logits, kTopK, {kTopK, 0.5F});
                  },
                  ErrorCode::kBadData),
              HasSubstr("router logit"));
}

TEST(GroupByExpert, SkippedChoicesHaveNoSlot) {
  const std::vector<ExpertId> chosen = {ExpertId{2}, ExpertId{0}, ExpertId{1}, ExpertId{2}};
  const std::vector<float> weights = {0.75F, 0.25F, 1, 0};
  const std::vector<std::uint32_t> used = {2, 1};
  const GroupedRouting grouped = group_by_expert(chosen, weights, 2, 4, used);
  EXPECT_EQ(grouped.experts, (std::vector<ExpertId>{ExpertId{0}, ExpertId{1}, ExpertId{2}}));
  EXPECT_EQ(grouped.first, (std::vector<std::uint32_t>{0, 1, 2, 3}));
  EXPECT_EQ(grouped.tokens, (std::vector<std::uint32_t>{0, 1, 0}));
  EXPECT_EQ(grouped.weights, (std::vector<float>{0.25F, 1, 0.75F}));
  EXPECT_EQ(grouped.slot_of, (std::vector<std::uint32_t>{2, 0, 1, kNoSlot}));
}

/// What every slot of one pass through the block gave.
struct Slots final : Observer {
  bool wants_expert_inputs() const override { return false; }
  void on_routing(LayerId, tensor::MatrixView<const float>, const RoutingView& view) override {
    weights.assign(view.weights.begin(), view.weights.end());
    top_k = view.top_k;
  }
  void on_experts(LayerId, const ExpertSlots& slots) override {
    slot_of.assign(slots.slot_of.begin(), slots.slot_of.end());
    outputs.reshape(slots.outputs.rows, slots.outputs.cols);
    for (std::size_t s = 0; s < slots.outputs.rows; ++s) {
      const auto row = slots.outputs.row(s);
      std::copy(row.begin(), row.end(), outputs.row(s).begin());
    }
  }
  std::size_t top_k = 0;
  std::vector<float> weights;
  std::vector<std::uint32_t> slot_of;
  tensor::Matrix<float> outputs;
};

/// One token's sum of the outputs that stay, with the weights edited as the paper says.
std::vector<double> reference_sum(const Slots& slots, std::size_t token, double ratio,
                                  bool renormalise) {
  const float* weights = slots.weights.data() + token * slots.top_k;
  double kept = 0;
  double all = 0;
  for (std::size_t k = 0; k < slots.top_k; ++k) {
    all += weights[k];
    if (weights[k] >= ratio * weights[0]) kept += weights[k];
  }
  std::vector<double> sum(slots.outputs.cols());
  for (std::size_t k = 0; k < slots.top_k; ++k) {
    if (weights[k] < ratio * weights[0]) continue;
    const double weight = renormalise ? weights[k] * all / kept : weights[k];
    const auto output = slots.outputs.row(slots.slot_of[token * slots.top_k + k]);
    for (std::size_t c = 0; c < sum.size(); ++c) sum[c] += weight * double{output[c]};
  }
  return sum;
}

class Block : public ::testing::TestWithParam<std::string> {
 protected:
  tensor::Matrix<float> forward(MoeFfn& block, const RoutingPolicy* policy, Observer* observer) {
    tensor::Matrix<float> out(x_.rows(), x_.cols());
    const Compute compute{kernels_, pool_, scratch_, overrides_, nullptr, nullptr, policy};
    block.forward(compute, weights_, *store_, LayerId{1}, std::as_const(x_).view(), out.view(),
                  observer);
    return out;
  }
  Log log_;
  model::Checkpoint checkpoint_ = model::Checkpoint::open(model::testing::tiny_folder(GetParam()));
  const kernels::Kernels& kernels_ = kernels::select_kernels("", os::CpuFeatures::detect());
  os::ThreadPool pool_{2};
  DenseWeights weights_{checkpoint_, nullptr, log_};
  std::unique_ptr<experts::ExpertStore> store_ =
      experts::make_resident_store(catalogue_experts(checkpoint_));
  std::vector<os::AlignedBuffer> scratch_;
  WeightOverrides overrides_;
  tensor::Matrix<float> x_;

  void SetUp() override {
    const std::size_t bytes =
        std::max(weights_.scratch_bytes(), scratch_bytes(catalogue_experts(checkpoint_)));
    for (int worker = 0; worker < 2; ++worker) {
      scratch_.emplace_back(std::max<std::size_t>(bytes, 64));
    }
    x_.reshape(40, checkpoint_.spec().hidden_size);
    Rng rng(3);
    for (float& value : x_.flat()) value = static_cast<float>(4 * rng.uniform() - 2);
  }
};
INSTANTIATE_TEST_SUITE_P(Models, Block,
                         ::testing::Values("qwen3_moe-plain", "qwen3_moe-odd-sizes",
                                           "qwen3_moe-not-renormalised", "olmoe-plain"),
                         model::testing::test_name);

TEST_P(Block, SkippingIsTheOriginalsOutputsSummedWithEditedWeights) {
  const model::ModelSpec& spec = checkpoint_.spec();
  MoeFfn block(spec);
  Slots all;
  forward(block, nullptr, &all);
  for (const float ratio : {0.3F, 0.7F, 0.9F}) {
    RoutingPolicy policy;
    policy.skip_ratios.assign(spec.num_hidden_layers, 0);
    policy.skip_ratios[1] = ratio;
    Slots left;
    const auto out = forward(block, &policy, &left);
    EXPECT_LT(left.outputs.rows(), all.outputs.rows()) << "nothing is computed for the others";
    for (std::size_t t = 0; t < out.rows(); ++t) {
      const auto expected = reference_sum(all, t, double{ratio}, spec.moe.renormalize_top_k);
      double scale = 0;
      for (const double value : expected) scale = std::max(scale, std::fabs(value));
      for (std::size_t c = 0; c < expected.size(); ++c) {
        // Weights within some ulp, and at most top_k multiply-adds; terms may cancel a little.
        EXPECT_NEAR(out.row(t)[c], expected[c], 1e-5 * scale) << t << " " << c;
      }
    }
  }
}

class RunWithPolicy : public ::testing::TestWithParam<std::string> {
 protected:
  using Bits = std::vector<std::uint32_t>;

  Engine make(unsigned threads = 1, WeightMemory memory = WeightMemory::kCopied) {
    return {checkpoint_, {.threads = threads, .weights = memory}, log_};
  }
  static std::vector<TokenId> tokens() {
    std::vector<TokenId> tokens(40);
    for (int t = 0; t < 40; ++t) tokens[static_cast<std::size_t>(t)] = TokenId{(11 * t) % 256};
    return tokens;
  }
  /// Bits of all hidden states, `chunk` tokens at a time.
  static Bits run(Engine& engine, std::size_t chunk = 40) {
    const auto all = tokens();
    KvCache cache = engine.make_cache(all.size());
    Bits bits;
    for (std::size_t first = 0; first < all.size(); first += chunk) {
      const SequenceInput input{&cache, std::span(all).subspan(first, chunk)};
      const auto hidden = engine.forward(std::span(&input, 1));
      for (std::size_t t = 0; t < hidden.rows; ++t) {
        for (const float value : hidden.row(t)) bits.push_back(std::bit_cast<std::uint32_t>(value));
      }
    }
    return bits;
  }
  RoutingPolicy skipping(float ratio) const {
    RoutingPolicy policy;
    policy.skip_ratios.assign(checkpoint_.spec().num_hidden_layers, ratio);
    return policy;
  }
  static RoutingPolicy reduced(std::uint32_t experts, std::uint32_t gates) {
    RoutingPolicy policy;
    policy.experts_per_token = experts;
    policy.gates_over = gates;
    return policy;
  }
  static RoutingPolicy preferring(std::uint32_t always, std::uint32_t among) {
    RoutingPolicy policy;
    policy.prefer_cached = {always, among};
    return policy;
  }
  Log log_;
  model::Checkpoint checkpoint_ = model::Checkpoint::open(model::testing::tiny_folder(GetParam()));
};
INSTANTIATE_TEST_SUITE_P(Models, RunWithPolicy,
                         ::testing::Values("qwen3_moe-plain", "qwen3_moe-not-renormalised",
                                           "qwen3_moe-dense-first", "qwen3_moe-odd-sizes",
                                           "olmoe-plain"),
                         model::testing::test_name);

TEST_P(RunWithPolicy, PoliciesThatChangeNothingKeepEveryBit) {
  Engine engine = make();
  const Bits own = run(engine);
  const std::uint32_t k = engine.spec().moe.top_k;
  engine.set_routing_policy(skipping(0));
  EXPECT_EQ(run(engine), own);
  engine.set_routing_policy(reduced(k, k));
  EXPECT_EQ(run(engine), own);
  engine.set_routing_policy(reduced(1, 1));
  EXPECT_NE(run(engine), own);
  engine.set_routing_policy(preferring(0, k + 1));  // all experts are in memory
  EXPECT_EQ(run(engine), own);
  EXPECT_EQ(run(engine, 1), own);
  engine.set_routing_policy({});
  EXPECT_EQ(run(engine), own);
}

TEST_P(RunWithPolicy, ARatioOf1IsTheModelWithItsBestExpert) {
  Engine engine = make();
  engine.set_routing_policy(skipping(1));
  const Bits best = run(engine);
  engine.set_routing_policy(reduced(1, 1));
  EXPECT_EQ(run(engine), best);
}

TEST_P(RunWithPolicy, NeitherThreadsNorBatchesNorWhereTheWeightsLieChangeABit) {
  for (const RoutingPolicy& policy : {skipping(0.8F), reduced(2, 3)}) {
    Engine one = make();
    one.set_routing_policy(policy);
    const Bits expected = run(one);
    EXPECT_EQ(run(one, 1), expected) << "token by token";
    EXPECT_EQ(run(one, 5), expected);
    for (const unsigned threads : {2U, 3U}) {
      Engine engine = make(threads, WeightMemory::kMapped);
      engine.set_routing_policy(policy);
      EXPECT_EQ(run(engine), expected) << threads;
      EXPECT_EQ(run(engine, 1), expected) << threads;
    }
  }
}

TEST_P(RunWithPolicy, WhatIsSkippedIsCountedAndNotComputed) {
  struct Rows final : InnerEditor {
    void edit(const InnerActivations& activations, os::ThreadPool& /*pool*/) override {
      if (is_moe[index(activations.layer)]) rows += activations.inner.rows;
    }
    std::vector<bool> is_moe;
    std::size_t rows = 0;
  };
  Engine engine = make();
  const model::ModelSpec& spec = engine.spec();
  const double all = 40.0 * spec.moe.top_k * spec.num_moe_layers();
  for (const RoutingPolicy& policy : {skipping(1), skipping(0.8F), reduced(1, 0)}) {
    Rows rows;
    rows.is_moe = spec.moe_layers;
    ExpertUse use(spec);
    engine.set_routing_policy(policy);
    engine.set_inner_editor(&rows);
    engine.count_experts(&use);
    run(engine);
    engine.count_experts(nullptr);
    EXPECT_LT(static_cast<double>(rows.rows), all);
    EXPECT_NEAR(*use.skipped_share(), 1 - static_cast<double>(rows.rows) / all, 1e-12);
    for (std::uint32_t l = 0; l < spec.num_hidden_layers; ++l) {
      EXPECT_EQ(use.layer_skipped_shares()[l].has_value(), spec.is_moe_layer(LayerId{l}));
    }
  }
  engine.set_inner_editor(nullptr);
}

TEST_P(RunWithPolicy, WhatTheModelCannotDoIsRefused) {
  Engine engine = make();
  const std::uint32_t k = engine.spec().moe.top_k;
  const auto refusal = [&](const RoutingPolicy& policy) {
    return error_of([&] { engine.set_routing_policy(policy); }, ErrorCode::kUsage);
  };
  EXPECT_THAT(refusal(reduced(k + 1, 0)), HasSubstr("--experts-per-token"));
  EXPECT_THAT(refusal(reduced(2, 1)), HasSubstr("--gates-over"));
  EXPECT_THAT(refusal(reduced(0, engine.spec().moe.num_experts + 1)), HasSubstr("--gates-over"));
  RoutingPolicy both = skipping(0.5F);
  both.experts_per_token = 1;
  EXPECT_THAT(refusal(both), HasSubstr("choose one"));
  both = preferring(0, k + 1);
  both.experts_per_token = 1;
  EXPECT_THAT(refusal(both), HasSubstr("choose one"));
  EXPECT_THAT(refusal(preferring(k + 1, k + 2)), HasSubstr("--prefer-cached"));
  EXPECT_THAT(refusal(preferring(0, k)), HasSubstr("--prefer-cached"));
  EXPECT_THAT(refusal(preferring(0, engine.spec().moe.num_experts + 1)),
              HasSubstr("--prefer-cached"));
}

TEST(RoutingPolicyOfADenseModel, IsRefused) {
  Log log;
  Engine engine(model::Checkpoint::open(model::testing::tiny_folder("llama-plain")), {}, log);
  RoutingPolicy policy;
  policy.experts_per_token = 1;
  EXPECT_THAT(error_of([&] { engine.set_routing_policy(policy); }, ErrorCode::kUsage),
              HasSubstr("no experts"));
  engine.set_routing_policy({});
}

}  // namespace
}  // namespace winnow::engine::routing_policy_test
