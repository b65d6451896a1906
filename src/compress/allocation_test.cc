// SPDX-FileCopyrightText: The Winnow authors
// SPDX-License-Identifier: Apache-2.0
// Every way to choose codecs in whole runs on tiny models: budgets, records, kills, refusals.
#include "compress/allocation.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <set>

#include "compress/compressor.h"
#include "compress/testing.h"
#include "formats/expect_error.h"
#include "formats/test_files.h"

namespace winnow::compress::allocation_test {
namespace {

using formats::testing::error_of;
using formats::testing::TemporaryFolder;
using testing::file_bytes;
using ::testing::HasSubstr;
using testing::random_windows;
using testing::TestLog;

model::Checkpoint tiny(const std::string& name) {
  return testing::open_tiny(WINNOW_SOURCE_DIR, name);
}

class Allocations : public ::testing::TestWithParam<Allocation> {
 protected:
  static CompressOptions options(double bits, unsigned threads = 1) {
    CompressOptions options;
    options.bits_per_weight = bits;
    options.engine.threads = threads;
    options.allocation.kind = GetParam();
    options.allocation.search.rounds = 1;
    options.allocation.ranking.mixes = 8;
    options.allocation.ranking.least_tau = -1;  // whatever the proxies are worth on a tiny model
    options.allocation.pmq.tokens = 40;
    // The quick codes will do: what is tested is the choice.
    options.quantizer.descent.reset();
    return options;
  }
  std::filesystem::path out() const { return folder_.path() / "out.gguf"; }
  CompressResult run(const model::Checkpoint& source, const CompressOptions& options, Log& log) {
    return compress_model(source, out(), &text_, options, log);
  }

  TemporaryFolder folder_;
  TestLog log_;
  metrics::WindowSet text_ = random_windows(6, 30);
};

TEST_P(Allocations, FitsTheBudgetWithTheSameBytesForAnyNumberOfThreads) {
  const auto source = tiny("plain");
  const CompressResult result = run(source, options(6.5), log_);
  const std::string bytes = file_bytes(out());
  EXPECT_LE(8.0 * static_cast<double>(result.tensor_bytes.value),
            6.5 * static_cast<double>(source.num_parameters()));
  const Json record = to_json(result);
  EXPECT_EQ(record["allocation"], std::string(traits(GetParam()).name));
  EXPECT_LT(result.measured->all.kl_divergence, 0.5);
  const CompressResult again = run(source, options(6.5, 3), log_);
  EXPECT_EQ(file_bytes(out()), bytes);
  EXPECT_EQ(to_json(again), record);
}

TEST_P(Allocations, GoesOnWhereItWasStoppedAndWritesTheSameBytes) {
  const auto source = tiny("plain");
  TestLog counting;
  run(source, options(6.5), counting);
  const std::string bytes = file_bytes(out());
  std::filesystem::remove(out());
  for (int calls = 10; calls < counting.asked; calls += counting.asked / 6) {
    TestLog stop(calls);
    error_of([&] { run(source, options(6.5), stop); }, ErrorCode::kInterrupted);
    if (std::filesystem::exists(out())) continue;  // in measuring the finished file
    TestLog resumed;
    run(source, options(6.5, 2), resumed);
    EXPECT_EQ(file_bytes(out()), bytes) << "stopped after " << calls;
    std::filesystem::remove(out());
  }
}

TEST_P(Allocations, ALimitOfMemoryChangesNothing) {
  const auto source = tiny("plain");
  run(source, options(6.5), log_);
  const std::string bytes = file_bytes(out());
  CompressOptions limited = options(6.5);
  testing::with_least_memory([&](Bytes limit) {
    limited.max_memory = limit;
    return run(source, limited, log_);
  });
  EXPECT_EQ(file_bytes(out()), bytes);
}

TEST_P(Allocations, TheSmallestBudgetIsMet) {
  const auto source = tiny("dense-first");
  const std::string message = error_of([&] { run(source, options(1), log_); }, ErrorCode::kBudget);
  const std::size_t end = message.find(" bits per weight");
  const double bits = std::stod(message.substr(message.rfind(' ', end - 1)));
  const CompressResult result = run(source, options(bits), log_);
  EXPECT_LE(8.0 * static_cast<double>(result.tensor_bytes.value),
            bits * static_cast<double>(source.num_parameters()));
}

TEST_P(Allocations, WithoutTextItMakesDoOrSaysWhatItNeeds) {
  const auto source = tiny("plain");
  if (!traits(GetParam()).needs_text) {
    const CompressResult result = compress_model(source, out(), nullptr, options(6.5), log_);
    EXPECT_LE(result.tensor_bytes.value * 8, 6.5 * static_cast<double>(source.num_parameters()));
    return;
  }
  const std::string message = error_of(
      [&] { compress_model(source, out(), nullptr, options(6.5), log_); }, ErrorCode::kUsage);
  EXPECT_THAT(message, HasSubstr(std::string(traits(GetParam()).name)));
  EXPECT_THAT(message, HasSubstr("--data"));
  EXPECT_FALSE(std::filesystem::exists(out()));
}

INSTANTIATE_TEST_SUITE_P(All, Allocations,
                         ::testing::Values(Allocation::kUniform, Allocation::kPlain,
                                           Allocation::kSlopes, Allocation::kSearch,
                                           Allocation::kPmq, Allocation::kRanked),
                         [](const auto& tested) { return std::string(traits(tested.param).name); });

class Plain : public Allocations {};

TEST_P(Plain, MakesTheFileOfUniformAndTellsNothingOfOtherOptions) {
  const auto source = tiny("plain");
  CompressOptions wanted = options(6.5);
  const Json plain = to_json(run(source, wanted, log_));
  const std::string bytes = file_bytes(out());
  wanted.allocation.kind = Allocation::kUniform;
  const Json uniform = to_json(run(source, wanted, log_));
  EXPECT_EQ(file_bytes(out()), bytes);
  EXPECT_TRUE(uniform.contains("predicted_kl"));
  EXPECT_FALSE(plain.contains("predicted_kl"));
  EXPECT_EQ(plain["measured"], uniform["measured"]);
  for (const Json& option : plain["groups"][1]["options"]) {
    EXPECT_TRUE(option.contains("bytes"));
    EXPECT_FALSE(option.contains("error"));
    EXPECT_FALSE(option.contains("predicted_kl"));
  }
}

INSTANTIATE_TEST_SUITE_P(All, Plain, ::testing::Values(Allocation::kPlain),
                         [](const auto& tested) { return std::string(traits(tested.param).name); });

class Pmq : public Allocations {};
class Ranked : public Allocations {};

TEST_P(Pmq, HoldsEverythingElseAndGivesEveryLayerTheSameBits) {
  const auto source = tiny("plain");
  const Json record = to_json(run(source, options(6.5), log_));
  const Json& pmq = record["pmq"];
  EXPECT_EQ(pmq["alpha"], 1.0);
  EXPECT_EQ(pmq["beta"], 1.5);
  EXPECT_EQ(pmq["gamma"], 2.0);
  std::set<std::string> held;
  for (const Json& group : record["groups"]) {
    const std::string role = group["role"];
    if (role.rfind("expert_", 0) != 0) held.insert(group["chosen"].get<std::string>());
  }
  for (const std::string& codec : held) {
    EXPECT_LE(quant::find_codec(codec)->bits_per_weight(), 4.5) << "the nearest to 4 bits";
  }
  ASSERT_EQ(pmq["layers"].size(), source.spec().num_moe_layers());
  double least = INFINITY;
  double most = 0;
  for (const Json& layer : pmq["layers"]) {
    least = std::min(least, layer["bits_per_weight"].get<double>());
    most = std::max(most, layer["bits_per_weight"].get<double>());
    EXPECT_EQ(layer["frequency"].size(), source.spec().moe.num_experts);
  }
  EXPECT_LT(most - least, 1.5) << "a step between codecs of one group";
}

TEST_P(Pmq, IsRefusedForAModelWithoutExperts) {
  const auto source = model::Checkpoint::open(std::filesystem::path(WINNOW_SOURCE_DIR) /
                                              "testdata/models/qwen3-plain");
  const std::string message = error_of([&] { run(source, options(8), log_); }, ErrorCode::kUsage);
  EXPECT_THAT(message, HasSubstr("experts"));
  EXPECT_EQ(log_.asked, 0);
}

INSTANTIATE_TEST_SUITE_P(All, Pmq, ::testing::Values(Allocation::kPmq));

TEST_P(Ranked, RecordsProxiesAndMixesAndIsNeverWorseThanSlopesOnTheProbe) {
  const auto source = tiny("plain");
  const CompressResult result = run(source, options(6.5), log_);
  const Json record = to_json(result);
  const Json& ranking = record["ranking"];
  EXPECT_EQ(ranking["mixes"], 8);
  EXPECT_EQ(ranking["mixes_kl"].size(), 8U);
  EXPECT_EQ(ranking["proxies"].size(), 7U + 21U);
  for (const Json& proxy : ranking["proxies"]) {
    for (const char* key : {"tau_choosing", "tau_judging"}) {
      EXPECT_LE(std::abs(proxy[key].get<double>()), 1.0);
    }
  }
  EXPECT_EQ(ranking["accepted"], true);
  EXPECT_LE(ranking["best_kl"], ranking["slopes_kl"]);
  EXPECT_TRUE(ranking.contains("proxy_kl"));
  EXPECT_NEAR(ranking["best_kl"].get<double>(), result.measured->all.kl_divergence, 1e-9);
}

TEST_P(Ranked, ARefusedProxyLeavesTheMixOfTheSlopes) {
  const auto source = tiny("plain");
  CompressOptions strict = options(6.5);
  strict.allocation.ranking.least_tau = 1.1;
  const Json record = to_json(run(source, strict, log_));
  EXPECT_EQ(record["ranking"]["accepted"], false);
  EXPECT_EQ(record["ranking"]["taken"], "slopes");
  EXPECT_EQ(log_.warnings.size(), 1U);
  CompressOptions slopes = options(6.5);
  slopes.allocation.kind = Allocation::kSlopes;
  EXPECT_EQ(to_json(run(source, slopes, log_))["groups"], record["groups"]);
}

TEST_P(Ranked, AModelWithoutExpertsHasProxiesToo) {
  const auto source = model::Checkpoint::open(std::filesystem::path(WINNOW_SOURCE_DIR) /
                                              "testdata/models/qwen3-plain");
  const CompressResult result = run(source, options(8), log_);
  EXPECT_LE(result.tensor_bytes.value * 8, 8.0 * static_cast<double>(source.num_parameters()));
}

INSTANTIATE_TEST_SUITE_P(All, Ranked, ::testing::Values(Allocation::kRanked));

TEST(AllocationNames, AreFoundAndOthersAreNot) {
  for (const AllocationTraits& allocation : allocations()) {
    EXPECT_EQ(find_allocation(allocation.name)->kind, allocation.kind);
    EXPECT_EQ(traits(allocation.kind).name, allocation.name);
  }
  EXPECT_EQ(find_allocation("emq"), nullptr);
}

}  // namespace
}  // namespace winnow::compress::allocation_test
