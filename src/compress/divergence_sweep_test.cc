// SPDX-FileCopyrightText: The Winnow authors
// SPDX-License-Identifier: Apache-2.0
// Divergences of many changed models in one sweep, against whole models with the same changes.
#include "compress/divergence_sweep.h"

#include <gtest/gtest.h>

#include "compress/damage.h"
#include "compress/testing.h"
#include "formats/test_files.h"
#include "metrics/evaluation.h"

namespace winnow::compress::divergence_sweep_test {
namespace {

using formats::testing::TemporaryFolder;
using model::Role;
using testing::random_windows;

struct Rounding {
  std::vector<GroupKey> groups;
  const char* codec;
};

class Sweeps : public ::testing::TestWithParam<std::string> {
 protected:
  model::Checkpoint source_ = testing::open_tiny(WINNOW_SOURCE_DIR, GetParam());
  std::vector<TensorGroup> groups_ = list_groups(source_);
  metrics::WindowSet text_ = random_windows(5, 25);
  WindowBatches batches_{text_.windows, 60};
  testing::TestLog log_;
  os::ThreadPool pool_{2};

  PackedGroup packed(const GroupKey& key, const char* codec) {
    for (const TensorGroup& group : groups_) {
      if (key_of(group) != key) continue;
      const auto& used = quant::codec_for_row(*quant::find_codec(codec), group.cols);
      return pack_group(source_, group, used, nullptr, pool_, log_);
    }
    throw std::logic_error("no such group");
  }
  std::vector<WeightVariant> variants(const std::vector<Rounding>& roundings) {
    std::vector<WeightVariant> variants;
    for (const Rounding& rounding : roundings) {
      variants.emplace_back();
      for (const GroupKey& key : rounding.groups) {
        variants.back().changes[key] = [this, key, codec = rounding.codec] {
          return packed(key, codec);
        };
      }
    }
    return variants;
  }
  std::vector<double> sweep(const std::vector<Rounding>& roundings, unsigned threads = 2,
                            const SweepMemory& memory = {}) {
    engine::LayerRunner runner(source_, {threads, ""});
    return measure_divergences(runner, source_.spec(), batches_, variants(roundings), memory, log_);
  }
  double whole(const Rounding& rounding) {
    engine::Engine original(source_, {1, ""}, log_);
    engine::Engine changed(source_, {1, ""}, log_);
    std::vector<PackedGroup> held;
    for (const GroupKey& key : rounding.groups) {
      held.push_back(packed(key, rounding.codec));
      const auto& [role, layer, expert] = key;
      changed.override_weights(role, LayerId{layer}, held.back().parts);
    }
    return metrics::evaluate(changed, &original, text_, log_).all.kl_divergence;
  }
  std::vector<Rounding> roundings() const {
    const GroupKey embedding{Role::kTokenEmbedding, 0, 0};
    std::vector<Rounding> list = {{{}, "Q4_0"}, {{embedding}, "Q4_0"}};
    std::vector<GroupKey> all;
    for (const TensorGroup& group : groups_) {
      all.push_back(key_of(group));
      if (index(group.layer) == 1 || !model::traits(group.role).per_layer) {
        list.push_back({{key_of(group)}, "Q8_0"});
      }
    }
    list.push_back({all, "Q4_0"});
    return list;
  }
};

TEST_P(Sweeps, FindWhatWholeModelsFind) {
  const std::vector<Rounding> list = roundings();
  const std::vector<double> found = sweep(list);
  ASSERT_EQ(found.size(), list.size());
  EXPECT_EQ(found[0], 0.0) << "nothing changed";
  for (std::size_t v = 1; v < list.size(); ++v) {
    EXPECT_NEAR(found[v], whole(list[v]), 1e-12) << v;
  }
  EXPECT_GT(found.back(), 0.0);
}

TEST_P(Sweeps, GiveTheSameForAnyNumberOfThreadsAndWithStatesOnTheDisk) {
  const TemporaryFolder folder;
  const std::vector<Rounding> list = roundings();
  const std::vector<double> found = sweep(list, 1);
  EXPECT_EQ(sweep(list, 3), found);
  EXPECT_EQ(sweep(list, 2, {Bytes{1}, folder.path()}), found);
  EXPECT_TRUE(testing::names_in(folder.path()).empty());
}

INSTANTIATE_TEST_SUITE_P(TinyModels, Sweeps,
                         ::testing::Values("plain", "dense-first", "attention-bias", "odd-sizes"),
                         [](const auto& test) {
                           std::string name = test.param;
                           std::replace(name.begin(), name.end(), '-', '_');
                           return name;
                         });

TEST(ExpectedKl, IsALineThroughTheOriginOutsideTheNoiseAndMeetsItsPoints) {
  const std::vector<NoisePoint> noise = {{nullptr, 1.0, 0.1}, {nullptr, 4.0, 1.6}};
  EXPECT_DOUBLE_EQ(expected_kl(noise, 0.5), 0.05);
  EXPECT_DOUBLE_EQ(expected_kl(noise, 1.0), 0.1);
  EXPECT_NEAR(expected_kl(noise, 2.0), 0.4, 1e-12);  // a power law of exponent 2 between them
  EXPECT_DOUBLE_EQ(expected_kl(noise, 4.0), 1.6);
  EXPECT_DOUBLE_EQ(expected_kl(noise, 8.0), 3.2);
  EXPECT_EQ(expected_kl(noise, 0.0), 0.0);
  EXPECT_EQ(expected_kl({}, 3.0), 0.0);
}

TEST(ExpectedKl, DoesWithOneNoiseOrNoisesThatContradictEachOther) {
  const std::vector<NoisePoint> one = {{nullptr, 2.0, 0.5}};
  EXPECT_DOUBLE_EQ(expected_kl(one, 1.0), 0.25);
  const std::vector<NoisePoint> falling = {{nullptr, 1.0, 0.5}, {nullptr, 2.0, 0.4}};
  EXPECT_DOUBLE_EQ(expected_kl(falling, 1.5), 0.75);
  const std::vector<NoisePoint> none = {{nullptr, 1.0, 0.0}, {nullptr, 2.0, 0.0}};
  EXPECT_EQ(expected_kl(none, 1.5), 0.0);
}

}  // namespace
}  // namespace winnow::compress::divergence_sweep_test
