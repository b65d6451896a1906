// SPDX-FileCopyrightText: The Winnow authors
// SPDX-License-Identifier: Apache-2.0
// One budget for types of single experts and for what stands in their place, end to end.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <set>

#include "compress/compressor.h"
#include "compress/testing.h"
#include "compress/wide_model.h"
#include "formats/expect_error.h"
#include "formats/test_files.h"
#include "metrics/evaluation.h"
#include "model/exporter.h"
#include "model/extended_layout.h"
#include "model/test_models.h"
#include "model/varied_models.h"

namespace winnow::compress::compressor_experts_test {
namespace {

using formats::testing::error_of;
using formats::testing::TemporaryFolder;
using ::testing::ElementsAre;
using testing::file_bytes;
using ::testing::HasSubstr;
using testing::names_in;
using testing::TestLog;

/// On a model whose experts are wide enough to lose channels.
class CompressExperts : public ::testing::Test {
 protected:
  std::filesystem::path out() const { return folder_.path() / "out.gguf"; }
  CompressOptions within(std::uint64_t bytes, const std::string& names, unsigned threads = 1) {
    CompressOptions options;
    options.file_budget = Bytes{bytes};
    options.engine.threads = threads;
    options.experts = expert_options_of_names(names);
    return options;
  }
  CompressResult run(const CompressOptions& options) {
    return compress_model(source_, out(), &text_, options, log_);
  }
  /// Too few bytes for the experts as they are.
  std::uint64_t tight(const std::string& names) { return (least("types") + least(names)) / 2; }
  std::uint64_t least(const std::string& names) {
    const std::string message = error_of([&] { run(within(1, names)); }, ErrorCode::kBudget);
    const std::string before = "possible file has ";
    return std::stoull(message.substr(message.find(before) + before.size()));
  }

  TemporaryFolder model_folder_;
  model::Checkpoint source_ = testing::write_wide("plain", model_folder_.path() / "wide");
  metrics::WindowSet text_ = testing::random_windows(6, 30);
  TemporaryFolder folder_;
  TestLog log_;
};

TEST_F(CompressExperts, EveryBudgetIsMetAndMoreBytesNeverPromiseMoreDivergence) {
  for (const char* names : {"types", "types,narrow", "all"}) {
    const std::uint64_t smallest = least("types");
    double last = INFINITY;
    for (std::uint64_t budget = smallest; budget < smallest + 100000; budget += 19997) {
      const CompressResult result = run(within(budget, names));
      EXPECT_LE(std::filesystem::file_size(out()), budget) << names;
      EXPECT_EQ(std::filesystem::file_size(out()), result.file_bytes.value) << names;
      const double sum = result.fit_record["predicted_kl"];  // what was minimised
      EXPECT_LE(sum, last * (1 + 1e-12)) << names << " " << budget;
      EXPECT_TRUE(std::isfinite(result.measured->all.kl_divergence));
      last = sum;
    }
  }
}

TEST_F(CompressExperts, BelowTheSmallestTypesExpertsAreReplacedAndTheFileRuns) {
  const std::uint64_t smallest = least("types");
  // Half of the channels of every expert is the least that "narrow" leaves.
  const std::uint64_t budget = smallest - (smallest - least("all")) / 4;
  error_of([&] { run(within(budget, "types")); }, ErrorCode::kBudget);
  for (const char* names : {"zero", "identity", "constant", "dropped", "narrow", "all"}) {
    const CompressResult result = run(within(budget, names));
    EXPECT_LE(std::filesystem::file_size(out()), budget) << names;
    const auto written = model::Checkpoint::open(out());
    EXPECT_TRUE(written.spec().has_varied_experts());
    std::size_t left_out = 0;
    for (const TensorGroup& group : result.groups) {
      left_out += group.left_out && group.width == 0 ? 1 : 0;
    }
    EXPECT_GT(left_out, 0U) << names;
    EXPECT_EQ(left_out % 3, 0U) << names;
    EXPECT_TRUE(std::isfinite(result.measured->all.kl_divergence)) << names;
    EXPECT_GT(result.measured->all.kl_divergence, 0) << names;
    std::set<std::string> forms;
    const Json record = to_json(result);
    for (const Json& expert : record["replacements"]["experts"]) {
      if (expert.contains("chosen")) forms.insert(expert["chosen"]);
    }
    if (std::string(names) != "all") {
      EXPECT_EQ(forms, std::set<std::string>{names});
    }
  }
}

/// The file's own numbers, in F32 since activations are rounded for other types: as they are, and
/// in a model of the full width, rows and columns of removed channels zero.
TEST_F(CompressExperts, NarrowedExpertsComputeWhatWideOnesWithZerosDo) {
  run(within(tight("narrow"), "narrow"));
  const auto written = model::Checkpoint::open(out());
  const model::ModelSpec& spec = written.spec();
  const auto read_rows = [&](model::Role role, LayerId layer, ExpertId expert, std::size_t first,
                             std::size_t cols, std::span<std::byte> bytes) {
    const model::TensorRef ref = written.at(role, layer, expert);
    std::vector<float> values(bytes.size() / sizeof(float));
    for (std::size_t r = 0; r < values.size() / cols && first + r < ref.rows; ++r) {
      written.read_floats(ref, first + r, 1, std::span(values).subspan(r * cols, ref.cols));
    }
    std::memcpy(bytes.data(), values.data(), bytes.size());
    return true;
  };
  model::ExportOptions options;
  options.nominal_codec = quant::find_codec("F32");
  options.codec = [](model::Role, LayerId) -> const quant::Codec& {
    return *quant::find_codec("F32");
  };
  options.rows = [&](model::Role role, LayerId layer, ExpertId expert, std::size_t first,
                     std::span<std::byte> bytes) {
    return read_rows(role, layer, expert, first, source_.at(role, layer, expert).cols, bytes);
  };
  os::ThreadPool pool(1);
  model::export_model(source_, folder_.path() / "padded.gguf", options, pool, log_);
  std::size_t narrowed = 0;
  for (std::uint32_t l = 0; l < spec.num_hidden_layers; ++l) {
    options.experts.emplace_back();
    for (std::uint32_t e = 0; e < spec.num_experts(LayerId{l}); ++e) {
      const model::ExpertShape shape = spec.expert(LayerId{l}, ExpertId{e});
      EXPECT_TRUE(shape.width == 128 || shape.width == 96 || shape.width == 64) << shape.width;
      narrowed += shape.width < testing::kWideChannels ? 1 : 0;
      options.experts.back().push_back({ExpertId{e}, shape});
    }
  }
  EXPECT_GT(narrowed, 0U);
  options.rows = [&](model::Role role, LayerId layer, ExpertId expert, std::size_t first,
                     std::span<std::byte> bytes) {
    return read_rows(role, layer, expert, first, written.at(role, layer, expert).cols, bytes);
  };
  model::export_model(source_, folder_.path() / "narrow.gguf", options, pool, log_);
  engine::Engine narrow(model::Checkpoint::open(folder_.path() / "narrow.gguf"), {1, ""}, log_);
  engine::Engine padded(model::Checkpoint::open(folder_.path() / "padded.gguf"), {1, ""}, log_);
  for (const metrics::Window& window : text_.windows) {
    const std::vector<float> found = testing::logits_of(narrow, window);
    const std::vector<float> expected = testing::logits_of(padded, window);
    // Sums of 64 to 128 numbers in f32, in another order.
    for (std::size_t i = 0; i < found.size(); ++i) ASSERT_NEAR(found[i], expected[i], 2e-4);
  }
}

TEST_F(CompressExperts, RecordsTellOfNarrowedExperts) {
  const Json record = to_json(run(within(tight("narrow"), "narrow")));
  std::size_t narrowed = 0;
  for (const Json& expert : record["replacements"]["experts"]) {
    ASSERT_EQ(expert["options"].size(), 2U);
    EXPECT_EQ(expert["options"][0]["width"], 96);
    EXPECT_EQ(expert["options"][1]["width"], 64);
    EXPECT_LE(expert["options"][0]["change"], expert["options"][1]["change"]);
    if (!expert.contains("chosen")) continue;
    EXPECT_EQ(expert["chosen"], "narrow");
    ++narrowed;
  }
  EXPECT_GT(narrowed, 0U);
  std::size_t chosen = 0, considered = 0;
  for (const Json& group : record["groups"]) {
    if (!group.contains("width")) continue;
    ++considered;
    chosen += group.contains("chosen") ? 1 : 0;
    EXPECT_FALSE(group["options"].empty());
    for (const Json& option : group["options"]) EXPECT_TRUE(option.contains("predicted_kl"));
  }
  EXPECT_EQ(chosen, 3 * narrowed);
  const model::ModelSpec& spec = source_.spec();
  EXPECT_EQ(considered, 3 * 2 * spec.num_hidden_layers * spec.moe.num_experts) << "of both widths";
  EXPECT_FALSE(record["replacements"]["rounds"].empty());
}

TEST_F(CompressExperts, TheFormThatIsTakenIsTheBestThatWasMeasured) {
  const CompressResult result = run(within(tight("zero,constant"), "zero,constant"));
  const Json refinement = to_json(result)["replacements"]["refinement"];
  const double taken = refinement["kl"][refinement["taken"].get<std::string>()];
  EXPECT_GT(taken, 0);
  for (const auto& [form, kl] : refinement["kl"].items())
    EXPECT_LE(taken, kl.get<double>()) << form;
  EXPECT_LE(std::filesystem::file_size(out()), tight("zero,constant"));
}

/// The last round's choice is no better for being the last.
TEST_F(CompressExperts, TheBestRoundIsTaken) {
  for (const char* names : {"all", "narrow", "zero,constant"}) {
    const Json record = to_json(run(within(tight(names), names)))["replacements"];
    const Json& rounds = record["rounds"];
    const auto total = [](const Json& round) {
      return round["measured_kl"].get<double>() + round["types_kl"].get<double>();
    };
    const double taken = total(rounds.at(record["round_taken"].get<std::size_t>()));
    for (const Json& round : rounds) EXPECT_LE(taken, total(round)) << names;
  }
}

TEST_F(CompressExperts, AToleranceIsMetWithThemToo) {
  CompressOptions options = within(1, "all");
  options.file_budget.reset();
  options.tolerance = 0.05;
  const CompressResult result = run(options);
  EXPECT_LE(result.measured->all.kl_divergence, 0.05 * 1.02);
  // The file is one of the attempts, not another mix for the same size.
  const double measured = result.measured->all.kl_divergence;
  const auto is_attempt = [measured](const Json& attempt) {
    return std::fabs(attempt["measured_kl"].get<double>() - measured) <= 0.02 * measured;
  };
  EXPECT_TRUE(
      std::any_of(result.tolerance_record.begin(), result.tolerance_record.end(), is_attempt));
}

TEST_F(CompressExperts, AllOptionsAreNeverPredictedWorseThanSome) {
  const std::uint64_t budget = least("types") + 5000;
  const auto sum = [&](const char* names) {  // before what comes together is measured
    const CompressResult result = run(within(budget, names));
    return result.fit_record["predicted_kl"].get<double>();
  };
  EXPECT_LE(sum("all"), sum("types") * (1 + 1e-12));
}

TEST_F(CompressExperts, ASearchOnMeasuredDivergenceIsNeverWorseThanItsStart) {
  CompressOptions options = within((least("types") + least("all")) / 2, "all");
  options.allocation.kind = Allocation::kSearch;
  options.allocation.search.rounds = 2;
  options.allocation.search.offspring = 3;
  const Json search = run(options).expert_record["search"];
  EXPECT_LE(search["best_kl"], search["first_kl"]);
  EXPECT_GE(search["mixes"], 1);
  EXPECT_LE(search["mixes"], 7);
  EXPECT_LE(std::filesystem::file_size(out()), options.file_budget->value);
}

/// The loudest expert of the model keeps its matrices at any budget.
TEST_F(CompressExperts, SuperExpertsAreNeverReplaced) {
  model::testing::EditableModel model("plain");
  // Expert 2 of layer 1 alone is 50 times as loud: BF16 numbers times 64.
  std::string& bytes = model.tensor("model.layers.1.mlp.experts.2.down_proj.weight").bytes;
  for (std::size_t at = 1; at < bytes.size(); at += 2) {
    const bool is_zero = (bytes[at] & 0x7f) == 0 && (bytes[at - 1] & 0x80) == 0;
    if (!is_zero) bytes[at] = static_cast<char>(bytes[at] + 3);  // exponent + 6
  }
  model.write(folder_.path() / "loud");
  const auto loud = model::Checkpoint::open(folder_.path() / "loud");
  const std::uint64_t budget = least("all") + 20000;
  const CompressResult result = compress_model(loud, out(), &text_, within(budget, "all"), log_);
  std::size_t left_out = 0;
  for (const TensorGroup& group : result.groups) {
    if (!group.left_out) continue;
    ++left_out;
    EXPECT_FALSE(group.layer == LayerId{1} && group.only == ExpertId{2}) << group.name();
  }
  EXPECT_GT(left_out, 0U);
  for (const Json& expert : result.expert_record["experts"]) {
    EXPECT_FALSE(expert["layer"] == 1 && expert["expert"] == 2) << "is not even considered";
  }
}

TEST_F(CompressExperts, ThreadsAndALimitOfMemoryChangeNoByte) {
  for (const char* names : {"all", "narrow"}) {
    const std::uint64_t budget = tight(names);
    const CompressResult usual = run(within(budget, names));
    const std::string bytes = file_bytes(out());
    run(within(budget, names, 3));
    EXPECT_EQ(file_bytes(out()), bytes) << names;
    const CompressResult limited = testing::with_least_memory([&](Bytes limit) {
      CompressOptions options = within(budget, names);
      options.max_memory = limit;
      return run(options);
    });
    EXPECT_EQ(file_bytes(out()), bytes) << names;
    ASSERT_TRUE(limited.measured_kl.has_value());
    EXPECT_NEAR(*limited.measured_kl, usual.measured->all.kl_divergence, 1e-4) << names;
  }
}

TEST_F(CompressExperts, WhereverItIsStoppedItGoesOnAndWritesTheSameBytes) {
  for (const std::string names : {"all", "narrow"}) {
    const std::uint64_t budget = tight(names);
    TestLog counting;
    compress_model(source_, out(), &text_, within(budget, names), counting);
    const std::string bytes = file_bytes(out());
    for (int calls = 3; calls < counting.asked; calls += counting.asked / 6) {
      std::filesystem::remove(out());
      TestLog stop(calls);
      error_of([&] { compress_model(source_, out(), &text_, within(budget, names), stop); },
               ErrorCode::kInterrupted);
      TestLog resumed;
      compress_model(source_, out(), &text_, within(budget, names), resumed);
      EXPECT_EQ(file_bytes(out()), bytes) << names << " stopped after " << calls;
      EXPECT_THAT(names_in(folder_.path()), ElementsAre("out.gguf"));
    }
  }
}

TEST_F(CompressExperts, MeasurementsThatAreKeptServeAnotherBudget) {
  const std::uint64_t smallest = least("all"), largest = least("types");
  const CompressOptions wanted = within(largest + 5000, "all");
  run(wanted);
  const std::string bytes = file_bytes(out());
  CompressOptions first = within((smallest + largest) / 2, "all");
  first.keep_measurements = true;
  run(first);
  EXPECT_NE(file_bytes(out()), bytes);
  run(wanted);
  EXPECT_EQ(file_bytes(out()), bytes);
  EXPECT_THAT(names_in(folder_.path()), ElementsAre("out.gguf"));
}

TEST_F(CompressExperts, WhatItDoesNotGoWithIsRefusedBeforeAnyWork) {
  const auto refused = [&](const CompressOptions& options, const metrics::WindowSet* text) {
    return error_of([&] { compress_model(source_, out(), text, options, log_); },
                    ErrorCode::kUsage);
  };
  CompressOptions options = within(1 << 20, "all");
  EXPECT_THAT(refused(options, nullptr), HasSubstr("--data"));
  options.hessians = HessianScope::kDiagonal;
  EXPECT_THAT(refused(options, &text_), HasSubstr("--hessians"));
  options = within(1 << 20, "all");
  options.allocation.kind = Allocation::kUniform;
  EXPECT_THAT(refused(options, &text_), HasSubstr("--allocation slopes"));
  options = within(1 << 20, "all");
  options.transforms.inner_order = true;
  EXPECT_THAT(refused(options, &text_), HasSubstr("--transforms"));
  EXPECT_THAT(error_of([] { expert_options_of_names("zero,merged"); }, ErrorCode::kUsage),
              HasSubstr("'merged' is not among"));
  EXPECT_EQ(log_.asked, 0);
}

/// An expert of 32 channels in a model of 48 takes blocks that the widest one cannot.
TEST_F(CompressExperts, ExpertsOfWholeBlocksRunInAModelWhoseWidthIsNone) {
  const auto odd = testing::write_wide("plain", model_folder_.path() / "odd", 48);
  std::vector<std::vector<model::ExportExpert>> experts(odd.spec().num_hidden_layers);
  for (std::uint32_t l = 0; l < experts.size(); ++l) {
    for (std::uint32_t e = 0; e < odd.spec().num_experts(LayerId{l}); ++e) {
      experts[l].push_back({ExpertId{e}, {model::ExpertKind::kFeedForward, 32}});
    }
  }
  const auto written = [&](const char* codec) {
    const auto path = folder_.path() / codec;
    model::testing::write_varied(odd, path, experts,
                                 [codec](model::Role, LayerId, ExpertId) -> const quant::Codec& {
                                   return *quant::find_codec(codec);
                                 });
    return model::Checkpoint::open(path);
  };
  engine::Engine wide(written("F32"), {.threads = 1}, log_);
  engine::Engine coded(written("Q8_0"), {.threads = 1}, log_);
  const auto result = metrics::evaluate(coded, &wide, text_, log_);
  EXPECT_LT(result.all.kl_divergence, 1e-2);  // eight bits of weights and of inputs
  EXPECT_GT(result.all.kl_divergence, 0);
}

/// Then the types of whole matrices say nothing of theirs.
TEST_F(CompressExperts, WidthsWithoutBlocksAreNotNarrowed) {
  const auto odd = testing::write_wide("plain", model_folder_.path() / "odd", 48);
  const CompressResult result = compress_model(odd, out(), &text_, within(1 << 20, "narrow"), log_);
  ASSERT_FALSE(log_.warnings.empty());
  EXPECT_THAT(log_.warnings.front(), HasSubstr("48 inner channels"));
  for (const TensorGroup& group : result.groups) EXPECT_EQ(group.width, 0U);
}

TEST_F(CompressExperts, NarrowingIsRefusedOnTheSumsOfWholeLayers) {
  CompressOptions options = within(1 << 20, "narrow");
  options.hessians = HessianScope::kLayer;
  EXPECT_THAT(error_of([&] { run(options); }, ErrorCode::kUsage), HasSubstr("--hessians expert"));
}

}  // namespace
}  // namespace winnow::compress::compressor_experts_test
