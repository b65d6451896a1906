// SPDX-FileCopyrightText: The Winnow authors
// SPDX-License-Identifier: Apache-2.0
// PMQ's objective by hand, its choice against all mixes, and its facts against layers in which one
// expert alone is rounded.
#include "compress/pmq.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>

#include "base/rng.h"
#include "compress/damage.h"
#include "compress/testing.h"
#include "compress/window_stream.h"
#include "formats/test_files.h"
#include "os/thread_pool.h"

namespace winnow::compress::pmq_test {
namespace {

using model::Role;

TEST(PmqDamage, IsTheSumOverExpertsOfThePowersOfThePaper) {
  const ExpertUse use{{0.5, 0.25, 1.0}, {0.25, 0.09, 0.0}};
  const std::vector<double> norms = {2.0, 3.0, 100.0};
  // The third expert has no weight, so whatever it errs by costs nothing.
  EXPECT_DOUBLE_EQ(pmq_damage(use, norms, {}), 0.5 * 0.125 * 4.0 + 0.25 * 0.027 * 9.0);
  EXPECT_DOUBLE_EQ(pmq_damage(use, norms, {.alpha = 2, .beta = 1, .gamma = 1}),
                   0.25 * 0.25 * 2.0 + 0.0625 * 0.09 * 3.0);
  // Without significance it is the error alone.
  EXPECT_DOUBLE_EQ(pmq_damage(use, norms, {.alpha = 0, .beta = 0, .gamma = 1}), 105.0);
}

TensorGroup make_group(Role role, std::uint32_t layer, std::uint64_t weights,
                       const std::vector<const char*>& codecs) {
  TensorGroup group;
  group.role = role;
  group.layer = LayerId{layer};
  group.weights = weights;
  for (const char* name : codecs) {
    group.options.push_back({});
    group.options.back().codec = quant::find_codec(name);
  }
  return group;
}

const std::vector<const char*> kCodecs = {"IQ2_XXS", "Q3_K", "IQ4_XS", "Q5_K"};

/// Three layers of two groups of experts and one of attention; bytes are bits of the codecs times
/// weights, uneven a little, and damages are drawn.
struct Layers {
  explicit Layers(std::uint64_t seed, double fill) {
    Rng rng(seed);
    const std::uint64_t weights[] = {4096, 8192, 4096};
    for (std::uint32_t layer = 0; layer < 3; ++layer) {
      add(make_group(Role::kQueryProj, layer, 1024, kCodecs), rng);
      add(make_group(Role::kExpertUpProj, layer, weights[layer], kCodecs), rng);
      add(make_group(Role::kExpertDownProj, layer, weights[layer], kCodecs), rng);
    }
    std::uint64_t least = 0;
    std::uint64_t most = 0;
    for (const auto& bytes : problem.bytes) {
      least += bytes.front();
      most += bytes.back();
    }
    problem.room = least + static_cast<std::uint64_t>(fill * static_cast<double>(most - least));
  }
  void add(TensorGroup group, Rng& rng) {
    problem.bytes.emplace_back();
    damages.emplace_back();
    double damage = 100 * rng.uniform();
    for (const GroupOption& option : group.options) {
      const double bits = option.codec->bits_per_weight();
      problem.bytes.back().push_back(
          static_cast<std::uint64_t>(static_cast<double>(group.weights) * bits / 8) + rng.below(9));
      damages.back().push_back(damage);
      damage *= rng.uniform();
    }
    groups.push_back(std::move(group));
  }
  std::uint64_t experts_of(std::uint32_t layer, const Mix& mix) const {
    return problem.bytes[3 * layer + 1][mix[3 * layer + 1]] +
           problem.bytes[3 * layer + 2][mix[3 * layer + 2]];
  }

  std::vector<TensorGroup> groups;
  DamageTable damages;
  MixProblem problem;
};

/// All pairs of options of a layer's experts with at most `allowed` bytes: the least damage.
double best_of_layer(const Layers& layers, std::uint32_t layer, std::uint64_t allowed) {
  const std::size_t up = 3 * layer + 1;
  const std::size_t down = up + 1;
  double best = INFINITY;
  for (std::size_t a = 0; a < kCodecs.size(); ++a) {
    for (std::size_t b = 0; b < kCodecs.size(); ++b) {
      if (layers.problem.bytes[up][a] + layers.problem.bytes[down][b] > allowed) continue;
      best = std::min(best, layers.damages[up][a] + layers.damages[down][b]);
    }
  }
  return best;
}

TEST(PmqChoice, IsTheBestOfAllMixesThatGiveEveryLayerItsShare) {
  const double shares[] = {0.25, 0.75, 1.0};  // of the weights, the layers so far
  for (std::uint64_t seed = 1; seed <= 40; ++seed) {
    const Layers layers(seed, 0.3 + 0.015 * static_cast<double>(seed));
    const Mix held = hold_others(layers.groups, layers.problem);
    const Mix mix = solve_pmq(layers.groups, layers.damages, held, layers.problem);
    EXPECT_LE(layers.problem.size_of(mix), layers.problem.room);
    double room = static_cast<double>(layers.problem.room);
    for (std::uint32_t layer = 0; layer < 3; ++layer) {
      EXPECT_EQ(mix[3 * layer], held[3 * layer]);
      room -= static_cast<double>(layers.problem.bytes[3 * layer][held[3 * layer]]);
    }
    std::uint64_t used = 0;
    for (std::uint32_t layer = 0; layer < 3; ++layer) {
      const auto until_here = static_cast<std::uint64_t>(shares[layer] * room);
      ASSERT_GE(until_here, used);
      const double damage = layers.damages[3 * layer + 1][mix[3 * layer + 1]] +
                            layers.damages[3 * layer + 2][mix[3 * layer + 2]];
      EXPECT_DOUBLE_EQ(damage, best_of_layer(layers, layer, until_here - used))
          << "seed " << seed << " layer " << layer;
      used += layers.experts_of(layer, mix);
      EXPECT_LE(used, until_here);
    }
  }
}

TEST(PmqChoice, DoesNotMoveBytesToALayerWhereTheyWouldSaveMore) {
  Layers layers(7, 0.55);
  for (std::size_t g = 1; g < 3; ++g) {
    for (double& damage : layers.damages[g]) damage *= 1e9;
  }
  const Mix held = hold_others(layers.groups, layers.problem);
  const Mix mix = solve_pmq(layers.groups, layers.damages, held, layers.problem);
  Layers even(7, 0.55);
  const Mix before = solve_pmq(even.groups, even.damages, held, even.problem);
  EXPECT_EQ(mix, before);
  const Mix global = layers.problem.solve(layers.damages);
  EXPECT_GT(layers.experts_of(0, global), layers.experts_of(0, mix));
}

TEST(PmqChoice, GivesALayerThatNeedsMoreThanItsShareItsSmallestOptions) {
  Layers layers(9, 0.2);
  // The first layer can only be stored wide.
  for (std::size_t g = 1; g < 3; ++g) {
    layers.groups[g].options.erase(layers.groups[g].options.begin(),
                                   layers.groups[g].options.begin() + 3);
    layers.problem.bytes[g].erase(layers.problem.bytes[g].begin(),
                                  layers.problem.bytes[g].begin() + 3);
    layers.damages[g].erase(layers.damages[g].begin(), layers.damages[g].begin() + 3);
  }
  std::uint64_t least = 0;
  for (const auto& bytes : layers.problem.bytes) least += bytes.front();
  layers.problem.room = least;
  const Mix held = hold_others(layers.groups, layers.problem);
  EXPECT_EQ(solve_pmq(layers.groups, layers.damages, held, layers.problem), Mix(9, 0));
}

TEST(PmqChoice, HoldsWhatIsNoExpertsAtFourBitsOrBelowWhereTheyDoNotFit) {
  Layers layers(3, 0.6);
  for (std::uint32_t layer = 0; layer < 3; ++layer) {
    EXPECT_EQ(hold_others(layers.groups, layers.problem)[3 * layer], 2U) << "IQ4_XS";
  }
  std::uint64_t least = 0;
  for (const auto& bytes : layers.problem.bytes) least += bytes.front();
  const auto extra = [&](std::size_t option) {
    std::uint64_t bytes = 0;
    for (std::size_t g = 0; g < 9; g += 3) {
      bytes += layers.problem.bytes[g][option] - layers.problem.bytes[g].front();
    }
    return bytes;
  };
  for (const std::size_t option : {2U, 1U, 0U}) {
    layers.problem.room = least + extra(option);
    EXPECT_EQ(hold_others(layers.groups, layers.problem)[0], option);
    if (option == 0) break;
    --layers.problem.room;
    EXPECT_EQ(hold_others(layers.groups, layers.problem)[0], option - 1);
  }
  // Of two as near to four bits the one that errs less.
  layers.groups[3] = make_group(Role::kQueryProj, 1, 1024, {"IQ4_XS", "MXFP4"});
  layers.problem.bytes[3] = {544, 544};
  layers.problem.room = 1 << 20;
  layers.groups[3].options[0].error = 2;
  layers.groups[3].options[1].error = 1;
  EXPECT_EQ(hold_others(layers.groups, layers.problem)[3], 1U);
  layers.groups[3].options[1].error = 3;
  EXPECT_EQ(hold_others(layers.groups, layers.problem)[3], 0U);
  // What is stored in one way only stays.
  layers.groups[0] = make_group(Role::kQueryProj, 0, 1024, {"BF16"});
  layers.problem.bytes[0] = {2048};
  EXPECT_EQ(hold_others(layers.groups, layers.problem)[0], 0U);
}

class ExpertFacts : public ::testing::TestWithParam<std::string> {
 protected:
  static constexpr const char* kCodec = "Q4_0";
  model::Checkpoint source_ = testing::open_tiny(WINNOW_SOURCE_DIR, GetParam());
  formats::testing::TemporaryFolder folder_;
  testing::TestLog log_;
  metrics::WindowSet text_ = testing::random_windows(5, 25);
  os::ThreadPool pool_{2};

  std::vector<TensorGroup> groups() const {
    std::vector<TensorGroup> groups = list_groups(source_);
    for (TensorGroup& group : groups) {
      group.options.resize(2);
      group.options[0].codec = &quant::codec_for_row(*quant::find_codec(kCodec), group.cols);
      group.options[1].codec = &source_.at(group.role, group.layer).codec();
    }
    return groups;
  }
  ExpertErrors measure(std::size_t batch_tokens, unsigned threads) {
    engine::LayerRunner runner(source_, {threads, ""});
    const std::filesystem::path folder = folder_.path();
    const PackerContext context{source_, runner, folder, [] {}, log_};
    const auto packer = make_encoder_packer(context, nullptr, EncoderKind::kOwn);
    return measure_expert_errors(context, groups(), *packer,
                                 WindowBatches(text_.windows, batch_tokens), {});
  }
  /// Frobenius norm of what the layer's output changes by when `expert` alone is rounded.
  double change_alone(const TensorGroup& group, std::uint32_t expert) {
    engine::LayerRunner runner(source_, {2, ""});
    const WindowBatches batches(text_.windows, 4096);
    WindowStream before(batches, source_.spec().hidden_size, {});
    before.embed(runner, nullptr, log_);
    for (std::uint32_t layer = 0; layer < index(group.layer); ++layer) {
      runner.load(LayerId{layer});
      before.run(runner, before, nullptr, log_);
    }
    runner.load(group.layer);
    WindowStream original(batches, source_.spec().hidden_size, {});
    WindowStream changed(batches, source_.spec().hidden_size, {});
    original.run(runner, before, nullptr, log_);
    const auto rounded = pack_group(source_, group, *group.options[0].codec, nullptr, pool_, log_);
    const auto same = pack_group(source_, group, *group.options[1].codec, nullptr, pool_, log_);
    auto parts = same.parts;
    parts[expert] = rounded.parts[expert];
    runner.override_weights(group.role, parts);
    changed.run(runner, before, nullptr, log_);
    tensor::Matrix<float> a(batches.tokens, source_.spec().hidden_size), b(a.rows(), a.cols());
    original.read_rows(0, 0, a.view());
    changed.read_rows(0, 0, b.view());
    double squares = 0;
    for (std::size_t i = 0; i < a.flat().size(); ++i) {
      squares += std::pow(double{a.flat()[i]} - double{b.flat()[i]}, 2);
    }
    return std::sqrt(squares);
  }
};

TEST_P(ExpertFacts, NormsAreThoseOfTheLayersOutputWithOneExpertRounded) {
  const ExpertErrors errors = measure(4096, 2);
  int changed = 0;
  for (const TensorGroup& group : groups()) {
    if (!model::traits(group.role).per_expert) continue;
    const auto& norms = errors.norms.at(key_of(group));
    ASSERT_EQ(norms.size(), 2U);
    for (std::uint32_t e = 0; e < group.parts; ++e) {
      EXPECT_EQ(norms[1][e], 0.0) << "as it is stored";
      const double alone = change_alone(group, e);
      // The residual stream and the sum over experts are rounded to f32 around the change: some
      // thousand values of order 1, each by 2^-24.
      EXPECT_NEAR(norms[0][e], alone, 1e-4 * alone + 2e-5) << group.name() << " expert " << e;
      changed += alone > 1e-3;
    }
  }
  EXPECT_GT(changed, 6);
}

TEST_P(ExpertFacts, UseAddsUpToTheChoicesOfEveryToken) {
  const ExpertErrors errors = measure(4096, 1);
  const model::ModelSpec& spec = source_.spec();
  EXPECT_EQ(errors.use.size(), spec.num_moe_layers());
  for (const auto& [layer, use] : errors.use) {
    EXPECT_TRUE(spec.is_moe_layer(LayerId{layer}));
    double frequency = 0;
    double weight = 0;
    for (std::size_t e = 0; e < spec.moe.num_experts; ++e) {
      frequency += use.frequency[e];
      weight += use.weight[e];
      EXPECT_LE(use.weight[e], use.frequency[e]) << "no router weight is above one";
    }
    EXPECT_NEAR(frequency, spec.moe.top_k, 1e-9);
    if (spec.moe.renormalize_top_k) {
      EXPECT_NEAR(weight, 1.0, 1e-5);
    } else {
      EXPECT_LT(weight, 1.0);
    }
  }
}

TEST_P(ExpertFacts, AreTheSameForEveryBatchAndThreadAndSurviveAFile) {
  const ExpertErrors one = measure(4096, 1);
  const std::string text = dump_json(to_json(one, groups()));
  EXPECT_EQ(dump_json(to_json(measure(30, 3), groups())), text);
  const ExpertErrors read = expert_errors_from_json(parse_json(text, "test"), groups());
  EXPECT_EQ(dump_json(to_json(read, groups())), text);
  EXPECT_EQ(pmq_damages(groups(), read, {}), pmq_damages(groups(), one, {}));
}

INSTANTIATE_TEST_SUITE_P(TinyModels, ExpertFacts,
                         ::testing::Values("plain", "not-renormalised", "dense-first"),
                         [](const auto& tested) {
                           std::string name = tested.param;
                           std::replace(name.begin(), name.end(), '-', '_');
                           return name;
                         });

}  // namespace
}  // namespace winnow::compress::pmq_test
