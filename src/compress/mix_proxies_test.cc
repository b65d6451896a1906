// SPDX-FileCopyrightText: The Winnow authors
// SPDX-License-Identifier: Apache-2.0
// The proxies' terms by hand, and what they are made of against whole matrices.
#include "compress/mix_proxies.h"

#include <gtest/gtest.h>

#include <cmath>
#include <map>

#include "compress/collect_moments.h"
#include "compress/testing.h"
#include "formats/test_files.h"
#include "os/thread_pool.h"

namespace winnow::compress::mix_proxies_test {
namespace {

using model::Role;

TensorGroup make_group(Role role, std::size_t parts, std::uint64_t weights,
                       const std::vector<double>& errors) {
  TensorGroup group;
  group.role = role;
  group.parts = parts;
  group.weights = weights;
  const char* codecs[] = {"Q4_0", "BF16"};
  for (std::size_t o = 0; o < errors.size(); ++o) {
    GroupOption option;
    option.codec = quant::find_codec(codecs[o]);
    option.error = errors[o];
    option.predicted_kl = 0.1 * errors[o];
    group.options.push_back(option);
  }
  return group;
}

TEST(MixProxies, AreTheTermsOfTheirSources) {
  const std::vector<TensorGroup> groups = {make_group(Role::kQueryProj, 1, 300, {2.0, 0.5}),
                                           make_group(Role::kExpertUpProj, 4, 100, {8.0, 0.0})};
  ProxyInputs inputs;
  inputs.facts = {{3.0, 10.0, {0.5, 0.25}, {9.0, 4.0}}, {8.0, 16.0, {2.0, 0.0}, {1.0, 0.0}}};
  inputs.pmq = {{}, {7.0, 0.0}};
  inputs.gamma = 1;
  std::map<std::string, DamageTable> of;
  for (const Proxy& proxy : make_proxies(groups, inputs)) of[proxy.name] = proxy.damages;
  EXPECT_EQ(of.size(), 7U);
  EXPECT_EQ(of["slopes"], (DamageTable{{0.2, 0.05}, {0.8, 0.0}}));
  EXPECT_EQ(of["squared_error"], (DamageTable{{2.0, 0.5}, {8.0, 0.0}}));
  EXPECT_EQ(of["relative_error"], (DamageTable{{0.2, 0.05}, {0.5, 0.0}}));
  EXPECT_EQ(of["pmq"], (DamageTable{{3.0, 2.0}, {7.0, 0.0}}));
  EXPECT_EQ(of["hessian_trace"], (DamageTable{{1.5, 0.75}, {4.0, 0.0}}));
  EXPECT_EQ(of["log_error"][0],
            (std::vector<double>{0.75 * std::log1p(4.0), 0.75 * std::log1p(1.0)}));
  EXPECT_EQ(of["log_error"][1], (std::vector<double>{0.25 * std::log1p(1.0), 0.0}));
  EXPECT_EQ(of["bits"][0][0], 0.75 * std::pow(4.0, -4.5));
  EXPECT_EQ(of["bits"][1][1], 0.25 * std::pow(4.0, -16.0));
}

TEST(MixProxies, GroupsWithoutAnyErrorCostNothing) {
  const std::vector<TensorGroup> groups = {make_group(Role::kQueryProj, 1, 10, {0.0, 0.0})};
  ProxyInputs inputs;
  inputs.facts = {{0, 0, {0, 0}, {0, 0}}};
  inputs.pmq = {{}};
  for (const Proxy& proxy : make_proxies(groups, inputs)) {
    if (proxy.name == "bits") continue;
    EXPECT_EQ(proxy.damages[0], (std::vector<double>{0, 0})) << proxy.name;
  }
}

class Facts : public ::testing::Test {
 protected:
  GroupFacts facts_of(const TensorGroup& group) {
    const std::filesystem::path folder;
    return measure_facts({source_, runner_, folder, [] {}, log_}, group, moments_);
  }
  std::vector<float> weights_of(const TensorGroup& group, std::uint32_t part) {
    std::vector<float> weights(group.rows * group.cols);
    source_.read_floats(source_.at(group.role, group.layer, ExpertId{part}), 0, group.rows,
                        weights);
    return weights;
  }

  model::Checkpoint source_ = testing::open_tiny(WINNOW_SOURCE_DIR, "plain");
  testing::TestLog log_;
  metrics::WindowSet text_ = testing::random_windows(4, 25);
  engine::LayerRunner runner_{source_, {2, ""}};
  InputMoments moments_ = collect_moments(
      runner_, source_.spec(), WindowBatches(text_.windows, 4096), {}, EncoderKind::kOwn, log_);
  os::ThreadPool pool_{2};
};

TEST_F(Facts, OfSmallGroupsAreThoseOfAllTheirRows) {
  int checked = 0;
  for (TensorGroup& group : list_groups(source_)) {
    if (group.parts * group.rows > 256) continue;  // a sample
    const quant::Codec& codec = quant::codec_for_row(*quant::find_codec("Q4_0"), group.cols);
    for (const auto* option : {&codec, &source_.at(group.role, group.layer).codec()}) {
      group.options.push_back({});
      group.options.back().codec = option;
    }
    const GroupFacts facts = facts_of(group);
    // Without moments the error is relative to the squares of the weights.
    const double relative = pack_group(source_, group, codec, nullptr, pool_, log_).error;
    double squares = 0;
    double output = 0;
    double input = 0;
    for (std::uint32_t part = 0; part < group.parts; ++part) {
      const auto sums = moments_.sums(group.role, group.layer, ExpertId{part});
      for (const double sum : sums) input += sum / static_cast<double>(group.cols);
      const std::vector<float> weights = weights_of(group, part);
      for (std::size_t i = 0; i < weights.size(); ++i) {
        squares += double{weights[i]} * weights[i];
        output += sums[i % group.cols] * double{weights[i]} * weights[i];
      }
    }
    EXPECT_NEAR(facts.weight_errors[0], relative * squares, 1e-9 * squares) << group.name();
    EXPECT_NEAR(facts.output_power, output, 1e-9 * output) << group.name();
    EXPECT_NEAR(facts.input_power, input, 1e-9 * input) << group.name();
    EXPECT_GT(facts.output_errors[0], 0) << group.name();
    EXPECT_EQ(facts.weight_errors[1], 0) << "as it is stored";
    EXPECT_EQ(facts.output_errors[1], 0);
    ++checked;
  }
  EXPECT_GT(checked, 5);
}

TEST_F(Facts, OfASampleAreScaledToTheWholeGroup) {
  for (TensorGroup& group : list_groups(source_)) {
    if (group.parts * group.rows <= 256) continue;
    group.options.push_back({});
    group.options[0].codec = &quant::codec_for_row(*quant::find_codec("Q4_0"), group.cols);
    double squares = 0;
    for (std::uint32_t part = 0; part < group.parts; ++part) {
      for (const float weight : weights_of(group, part)) squares += double{weight} * weight;
    }
    const double whole =
        squares * pack_group(source_, group, *group.options[0].codec, nullptr, pool_, log_).error;
    // Rows of random weights: a sample of 256 of at most 512 is within some percent.
    EXPECT_NEAR(facts_of(group).weight_errors[0], whole, 0.15 * whole) << group.name();
  }
}

}  // namespace
}  // namespace winnow::compress::mix_proxies_test
