// SPDX-FileCopyrightText: The Winnow authors
// SPDX-License-Identifier: Apache-2.0
// What changes no byte of a statistics file, and what adds up to the same bytes.
#include "compress/profiler.h"

#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <limits>

#include "base/error.h"
#include "compress/coverage.h"
#include "compress/profile_plan.h"
#include "compress/statistics_merge.h"
#include "compress/testing.h"
#include "formats/test_files.h"
#include "model/test_models.h"

namespace winnow::compress::profiler_test {
namespace {

using formats::testing::TemporaryFolder;
using model::testing::EditableModel;
using model::testing::error_of;
using testing::file_bytes;
using testing::names_in;
using testing::TestLog;

/// Windows of two domains, mixed: 3/4 of them of the first.
metrics::WindowSet two_domains(std::size_t count, std::size_t length) {
  metrics::WindowSet text = testing::random_windows(count, length);
  text.domains = {"prose", "code"};
  for (std::size_t w = 0; w < count; ++w) text.windows[w].domain = w % 4 == 3 ? 1 : 0;
  return text;
}

metrics::WindowSet part_of(const metrics::WindowSet& all, std::size_t first, std::size_t last) {
  return {all.domains,
          {all.windows.begin() + static_cast<std::ptrdiff_t>(first),
           all.windows.begin() + static_cast<std::ptrdiff_t>(last)}};
}

ProfileOptions with_threads(unsigned threads) {
  ProfileOptions options = testing::profile_options();
  options.engine.threads = threads;
  return options;
}
ProfileOptions with_memory(std::uint64_t bytes) {
  ProfileOptions options = testing::profile_options();
  options.max_memory = Bytes{bytes};
  return options;
}
ProfileOptions with_context_of(std::size_t positions) {
  ProfileOptions options = testing::profile_options();
  options.context = positions;
  return options;
}
ProfileOptions keeping_states() {
  ProfileOptions options = testing::profile_options();
  options.keep_states = true;
  return options;
}
ProfileOptions restarting() {
  ProfileOptions options = testing::profile_options();
  options.restart = true;
  return options;
}

class Profiling : public ::testing::Test {
 protected:
  std::filesystem::path path(const std::string& name) const { return folder_.path() / name; }

  std::string profile(const metrics::WindowSet& text, const std::string& name,
                      const ProfileOptions& options = testing::profile_options()) {
    result_ = profile_model(model_, text, path(name), options, log_);
    return file_bytes(path(name));
  }
  std::string merge(const std::vector<std::filesystem::path>& inputs, const std::string& name) {
    merge_statistics(model_, inputs, path(name), "test", PartialOutput::Start::kResume, log_);
    return file_bytes(path(name));
  }

  TemporaryFolder folder_;
  model::Checkpoint model_ = testing::open_tiny(WINNOW_SOURCE_DIR, "plain");
  Log log_;
  ProfileResult result_;
};

TEST_F(Profiling, GivesTheSameBytesForAnyThreadsAndAnyPlaceOfTheStates) {
  const auto text = two_domains(90, 17);
  const std::string expected = profile(text, "one", with_threads(1));
  EXPECT_FALSE(result_.states_on_disk);
  EXPECT_EQ(profile(text, "three", with_threads(3)), expected);
  EXPECT_EQ(profile(text, "kept", keeping_states()), expected);
  EXPECT_TRUE(result_.states_on_disk);
  EXPECT_EQ(names_in(path("kept.states")).size(), model_.spec().num_hidden_layers + 1U);
  EXPECT_EQ(names_in(folder_.path()).size(), 4U);  // three files and the kept states
}

TEST_F(Profiling, GivesTheSameBytesInBatchesOfAnySize) {
  const auto text = two_domains(90, 17);
  const auto expected = plan_profile(text, 1 << 20);
  for (const std::size_t tokens : {1, 30, 100}) {
    const auto plan = plan_profile(text, tokens);
    EXPECT_GT(plan.batches.size(), expected.batches.size());
    EXPECT_EQ(plan.tokens, expected.tokens);
    EXPECT_LE(plan.largest, std::max<std::size_t>(tokens, 18));
  }
  const std::string bytes = profile(text, "large");
  // So little memory that batches are halved.
  EXPECT_EQ(error_of([&] { profile(text, "tight", with_memory(1 << 20)); }).code(),
            ErrorCode::kBudget);
  EXPECT_EQ(testing::with_least_memory(
                [&](Bytes limit) { return profile(text, "tight", with_memory(limit.value)); }),
            bytes);
}

TEST_F(Profiling, AddsFilesCutBetweenUnitsUpToTheBytesOfOneRun) {
  const auto text = testing::random_windows(200, 9);
  const std::string expected = profile(text, "all");
  profile(part_of(text, 0, 64), "a");
  profile(part_of(text, 64, 192), "b");
  profile(part_of(text, 192, 200), "c");
  EXPECT_EQ(merge({path("a"), path("b"), path("c")}, "abc"), expected);
  merge({path("a"), path("b")}, "ab");
  EXPECT_EQ(merge({path("ab"), path("c")}, "ab_c"), expected);
}

TEST_F(Profiling, AddsFilesOfDifferentDomainsUpToTheBytesOfOneRun) {
  auto text = testing::random_windows(30, 9);
  text.domains = {"prose", "code"};
  for (std::size_t w = 10; w < 30; ++w) text.windows[w].domain = 1;
  const std::string expected = profile(text, "all");
  profile(part_of(text, 0, 10), "prose");
  profile(part_of(text, 10, 30), "code");
  EXPECT_EQ(merge({path("prose"), path("code")}, "both"), expected);
}

/// All arrays of b are those of a, sums to 1e-12 of their terms' magnitudes.
void expect_same_but_for_rounding(const StatisticsFile& a, const StatisticsFile& b) {
  std::size_t compared = 0;
  for (const formats::TensorInfo& info : a.arrays()) {
    if (info.name.find(".residual") != std::string::npos) continue;
    if (info.type_name == "U64") {
      EXPECT_EQ(a.counts(info.name), b.counts(info.name)) << info.name;
    } else if (info.type_name == "F32") {
      EXPECT_EQ(a.floats(info.name), b.floats(info.name)) << info.name;
    } else if (info.type_name == "F64") {
      const auto expected = a.doubles(info.name);
      const auto got = b.doubles(info.name);
      double scale = 0;  // sums of mixed signs: to the largest of the array
      for (const double value : expected) scale = std::max(scale, std::fabs(value));
      const bool mixed = info.name.find("logit") != std::string::npos ||
                         info.name.find("output_sums") != std::string::npos ||
                         info.name.find("output_gram") != std::string::npos;
      for (std::size_t i = 0; i < got.size(); ++i) {
        EXPECT_NEAR(got[i], expected[i], 1e-12 * (mixed ? scale : std::fabs(expected[i])))
            << info.name;
        ++compared;
      }
    }
  }
  EXPECT_GT(compared, 1000U);
}

TEST_F(Profiling, AddsFilesOfAnyOtherCutUpToTheRoundingOfTheirSums) {
  const auto text = testing::random_windows(96, 9);
  profile(text, "all");
  profile(part_of(text, 0, 40), "a");  // whole groups of eight: the same are held out
  profile(part_of(text, 40, 96), "b");
  merge({path("a"), path("b")}, "ab");
  expect_same_but_for_rounding(StatisticsFile::open(path("all")), StatisticsFile::open(path("ab")));
}

TEST_F(Profiling, AddsAnyRangesOfSequencesUpToOneRun) {
  auto text = testing::random_windows(120, 9);
  text.domains = {"prose", "code"};
  for (std::size_t w = 20; w < 120; ++w) text.windows[w].domain = 1;
  const std::string bytes = profile(text, "all");
  const auto all = StatisticsFile::open(path("all"));
  for (const std::vector<std::size_t>& cuts :
       {std::vector<std::size_t>{1}, {7, 8}, {19, 21, 37}, {63, 65, 99}, {64}}) {
    std::vector<std::filesystem::path> parts;
    std::size_t first = 0;
    for (std::size_t c = 0; c <= cuts.size(); ++c) {
      ProfileOptions options = testing::profile_options();
      options.sequences = {first, c < cuts.size() ? cuts[c] : SIZE_MAX};
      parts.push_back(path(fmt::format("part-{}", c)));
      profile(text, parts.back().filename(), options);
      first = options.sequences.end;
    }
    const std::string merged = merge(parts, "merged");
    SCOPED_TRACE(cuts.front());
    expect_same_but_for_rounding(all, StatisticsFile::open(path("merged")));
    if (cuts == std::vector<std::size_t>{64}) {
      EXPECT_EQ(merged, bytes);
    }
    for (const auto& part : parts) std::filesystem::remove(part);
    std::filesystem::remove(path("merged"));
  }
}

TEST_F(Profiling, GoesOnWithTheSameRangeOnly) {
  const auto text = two_domains(90, 17);
  ProfileOptions options = testing::profile_options();
  options.sequences = {3, 41};
  const std::string expected = profile(text, "whole", options);
  TestLog stopping(8);
  EXPECT_EQ(error_of([&] { profile_model(model_, text, path("s"), options, stopping); }).code(),
            ErrorCode::kInterrupted);
  ASSERT_TRUE(std::filesystem::exists(path("s.partial")));
  options.sequences = {3, 42};
  const Error error = error_of([&] { profile(text, "s", options); });
  EXPECT_EQ(error.code(), ErrorCode::kUsage);
  EXPECT_NE(error.message().find("sequences"), std::string::npos) << error.message();
  options.sequences = {3, 41};
  EXPECT_EQ(profile(text, "s", options), expected);
}

TEST_F(Profiling, EvaluatesOnlyTheExpertsThatTheRouterChose) {
  const auto text = testing::random_windows(1, 2);
  profile(text, "plain");
  const auto plain = StatisticsFile::open(path("plain"));
  EditableModel poisoned("plain");
  std::size_t unused = 0;
  for (std::uint32_t l = 0; l < model_.spec().num_hidden_layers; ++l) {
    const auto hits = plain.counts(fmt::format("domains.0.layers.{}.hits", l));
    for (std::size_t e = 0; e < hits.size(); ++e) {
      if (hits[e] != 0) continue;
      ++unused;
      for (const char* matrix : {"gate_proj", "up_proj", "down_proj"}) {
        std::string& bytes =
            poisoned.tensor(fmt::format("model.layers.{}.mlp.experts.{}.{}.weight", l, e, matrix))
                .bytes;
        for (std::size_t at = 0; at < bytes.size(); at += 2) {
          bytes[at] = '\xc0';  // a NaN of BF16
          bytes[at + 1] = '\x7f';
        }
      }
    }
  }
  ASSERT_GT(unused, 0U);
  poisoned.write(path("poisoned"));
  profile_model(model::Checkpoint::open(path("poisoned")), text, path("s"),
                testing::profile_options(), log_);
  expect_same_but_for_rounding(plain, StatisticsFile::open(path("s")));
}

TEST_F(Profiling, GoesOnWhereItWasStoppedAndGivesTheSameBytes) {
  const auto text = two_domains(90, 17);
  const std::string expected = profile(text, "whole");
  std::uint32_t resumed = 0;
  for (const bool keep : {false, true}) {
    for (int calls = 0;; calls += 3) {
      const std::string name = fmt::format("stopped-{}-{}", keep, calls);
      testing::TestLog stops(calls);
      ProfileOptions options = testing::profile_options();
      options.keep_states = keep;
      bool stopped = false;
      try {
        profile_model(model_, text, path(name), options, stops);
      } catch (const Error& error) {
        ASSERT_EQ(error.code(), ErrorCode::kInterrupted);
        stopped = true;
      }
      EXPECT_EQ(std::filesystem::exists(path(name)), !stopped);
      if (!stopped) break;
      EXPECT_EQ(profile(text, name, options), expected) << calls;
      resumed += result_.resumed_layers;
    }
  }
  EXPECT_GT(resumed, 4U);
}

TEST_F(Profiling, RefusesToGoOnWithAnotherRunsWork) {
  const auto text = two_domains(90, 17);
  const std::string expected = profile(text, "whole");
  const auto stop_within_last_layer = [&] {
    testing::TestLog stops(12);
    EXPECT_EQ(error_of([&] {
                profile_model(model_, text, path("s"), testing::profile_options(), stops);
              }).code(),
              ErrorCode::kInterrupted);
    ASSERT_TRUE(std::filesystem::exists(path("s.partial")));
  };
  stop_within_last_layer();
  const auto other = part_of(text, 0, 80);
  const Error error = error_of([&] { profile(other, "s"); });
  EXPECT_EQ(error.code(), ErrorCode::kUsage);
  EXPECT_NE(error.message().find("text_fingerprint"), std::string::npos) << error.message();
  EXPECT_NE(error.message().find("--restart"), std::string::npos);
  EXPECT_EQ(profile(text, "s", restarting()), expected);
  EXPECT_EQ(result_.resumed_layers, 0U);
  EXPECT_FALSE(std::filesystem::exists(path("s.partial")));
}

TEST_F(Profiling, LeavesNothingWhenItFailsBeforeTheFirstLayerIsDone) {
  EditableModel model("plain");
  auto& tensor = model.tensor("model.layers.0.self_attn.q_proj.weight");
  std::fill(tensor.bytes.begin(), tensor.bytes.end(), '\xff');
  model.write(path("broken"));
  const auto broken = model::Checkpoint::open(path("broken"));
  const Error error = error_of([&] {
    profile_model(broken, two_domains(4, 5), path("s"), testing::profile_options(), log_);
  });
  EXPECT_EQ(error.code(), ErrorCode::kBadData);
  EXPECT_NE(error.message().find("layer 0"), std::string::npos) << error.message();
  EXPECT_EQ(names_in(folder_.path()), std::vector<std::string>{"broken"});
}

TEST_F(Profiling, NamesTheLayerOrTensorOfWeightsThatAreNotNumbers) {
  struct Damage {
    const char* tensor;
    const char* place;
  };
  constexpr Damage kDamages[] = {
      {"model.layers.1.self_attn.o_proj.weight", "layer 1"},
      {"model.layers.1.self_attn.k_norm.weight", "layers.1.self_attn.k_norm"},
      {"model.layers.1.input_layernorm.weight", "layers.1.input_layernorm"},
      {"model.layers.1.post_attention_layernorm.weight", "layers.1.post_attention_layernorm"},
      {"model.layers.1.mlp.gate.weight", "layer 1"},
      {"model.layers.1.mlp.experts.0.gate_proj.weight", "layer 1"},
      {"model.layers.1.mlp.experts.0.down_proj.weight", "layer 1"},
      {"model.embed_tokens.weight", "embed_tokens"},
      {"model.norm.weight", "model.norm"},
  };
  for (const Damage& damage : kDamages) {
    EditableModel model("plain");
    auto& tensor = model.tensor(damage.tensor);
    std::fill(tensor.bytes.begin(), tensor.bytes.end(), '\xff');
    const auto folder = path(damage.tensor);
    model.write(folder);
    const auto broken = model::Checkpoint::open(folder);
    const Error error = error_of([&] {
      profile_model(broken, two_domains(16, 20), path("s"), testing::profile_options(), log_);
    });
    EXPECT_EQ(error.code(), ErrorCode::kBadData) << damage.tensor;
    EXPECT_NE(error.message().find(damage.place), std::string::npos)
        << damage.tensor << ": " << error.message();
    EXPECT_FALSE(std::filesystem::exists(path("s")));
    std::filesystem::remove_all(path("s.partial"));
  }
}

TEST_F(Profiling, KeepsAllStatesEvenWhenAnEarlierRunDidNot) {
  const auto text = two_domains(90, 17);
  const std::string expected = profile(text, "whole", keeping_states());
  // So little memory that the states were on the disk, and those of layer 0 were removed.
  testing::TestLog stops(12);
  ProfileOptions options = testing::profile_options();
  const auto interrupted = [&](Bytes limit) {
    options.max_memory = limit;
    return profile_model(model_, text, path("s"), options, stops);
  };
  EXPECT_EQ(error_of([&] { testing::with_least_memory(interrupted); }).code(),
            ErrorCode::kInterrupted);
  EXPECT_EQ(profile(text, "s", keeping_states()), expected);
  const auto names = [&](const char* folder) {
    auto list = names_in(path(folder));
    std::sort(list.begin(), list.end());
    return list;
  };
  EXPECT_EQ(names("s.states"), names("whole.states"));
  for (const std::string& name : names("s.states")) {
    EXPECT_EQ(file_bytes(path("s.states") / name).size(),
              file_bytes(path("whole.states") / name).size());
  }
}

TEST_F(Profiling, WritesTheSameTeacherInPieces) {
  // 7 MB of it, so that some pieces are written before the domain ends.
  const auto text = testing::random_windows(1088, 100);
  profile(text, "all");
  profile(part_of(text, 0, 576), "a");
  profile(part_of(text, 576, 1088), "b");
  EXPECT_EQ(merge({path("a"), path("b")}, "ab"), file_bytes(path("all")));
  const auto file = StatisticsFile::open(path("all"));
  EXPECT_EQ(file.floats(teacher_prefix(0) + "rest_mass").size(), 1088U / 8 * 100);
}

TEST_F(Profiling, FlagsExpertsThatSawLittleText) {
  profile(testing::random_windows(8, 9), "s");
  const auto coverage = measure_coverage(StatisticsFile::open(path("s")));
  ASSERT_EQ(coverage.size(), model_.spec().num_moe_layers());
  for (const LayerCoverage& layer : coverage) {
    EXPECT_EQ(layer.under_sampled.size(), model_.spec().moe.num_experts);
    ASSERT_TRUE(layer.rank_agreement.has_value());
    EXPECT_LE(std::fabs(*layer.rank_agreement), 1.0);
    EXPECT_LE(layer.least_hits, layer.median_hits);
  }
  profile(testing::random_windows(1, 3), "one");
  for (const LayerCoverage& layer : measure_coverage(StatisticsFile::open(path("one")))) {
    EXPECT_FALSE(layer.rank_agreement.has_value());  // one sequence has no second half
  }
}

TEST_F(Profiling, RefusesToMergeWhatDoesNotBelongTogether) {
  const auto text = testing::random_windows(8, 9);
  profile(text, "s");
  const auto merge_error = [&](const std::vector<std::filesystem::path>& inputs) {
    const Error error = error_of([&] { merge(inputs, "out"); });
    EXPECT_EQ(error.code(), ErrorCode::kBadData);
    EXPECT_FALSE(std::filesystem::exists(path("out")));
    EXPECT_FALSE(std::filesystem::exists(path("out.partial")));
    return error.message();
  };
  EXPECT_NE(merge_error({path("s"), path("s")}).find("count twice"), std::string::npos);
  profile(testing::random_windows(4, 5, 2), "short", with_context_of(99));
  EXPECT_NE(merge_error({path("s"), path("short")}).find("context"), std::string::npos);
  const auto other = testing::open_tiny(WINNOW_SOURCE_DIR, "not-renormalised");
  profile_model(other, text, path("other"), testing::profile_options(), log_);
  EXPECT_NE(merge_error({path("s"), path("other")}).find("another model"), std::string::npos);
}

TEST_F(Profiling, BeginsAnUnfinishedMergeAnewWhenAsked) {
  profile(testing::random_windows(8, 9), "s");
  PartialOutput(path("out"), Json{{"merge", "another"}}, PartialOutput::Start::kResume).keep();
  EXPECT_EQ(error_of([&] { merge({path("s")}, "out"); }).code(), ErrorCode::kUsage);
  const std::vector<std::filesystem::path> inputs = {path("s")};
  merge_statistics(model_, inputs, path("out"), "test", PartialOutput::Start::kRestart, log_);
  EXPECT_EQ(file_bytes(path("out")), file_bytes(path("s")));
}

}  // namespace
}  // namespace winnow::compress::profiler_test
