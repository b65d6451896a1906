// SPDX-FileCopyrightText: The Winnow authors
// SPDX-License-Identifier: Apache-2.0
// Choices of experts against those of a NumPy forward pass with every criterion written from its
// paper (tests/oracles/expert_selection.py), and the rules that hold for all of them.
#include "compress/expert_selection.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <map>
#include <numeric>

#include "base/json.h"
#include "compress/testing.h"
#include "formats/test_files.h"
#include "metrics/text_data.h"
#include "model/test_models.h"
#include "os/file.h"

namespace winnow::compress::expert_selection_test {
namespace {

using formats::testing::TemporaryFolder;
using model::testing::error_of;
using ::testing::HasSubstr;
using testing::TestLog;

const std::filesystem::path kRoot = WINNOW_SOURCE_DIR;
const DomainWeight kAlike = [](const std::string&) { return 1.0; };

Json golden(const std::string& name) {
  const auto path = kRoot / "testdata/expert_selection" / (name + ".json");
  return parse_json(os::read_text_file(path, {1 << 20}), path.string());
}

std::vector<std::uint32_t> indices(const std::vector<ExpertId>& experts) {
  std::vector<std::uint32_t> result;
  for (const ExpertId expert : experts) result.push_back(index(expert));
  return result;
}

/// A tiny model and statistics of the text that its golden file names.
class Selections : public ::testing::TestWithParam<std::string> {
 protected:
  Selections() : golden_(golden(GetParam())) {
    std::vector<std::string> paths;
    for (const Json& text : golden_["texts"]) {
      paths.push_back((kRoot / text.get<std::string>()).string());
    }
    const text::Tokenizer tokenizer(source_.tokenizer_spec());
    const auto windows = metrics::make_windows(tokenizer, metrics::read_documents(paths),
                                               {.context = golden_["context"], .max_tokens = 0});
    profile_model(source_, windows, folder_.path() / "stats", testing::profile_options(), log_);
    statistics_.emplace(StatisticsFile::open(folder_.path() / "stats"));
  }

  std::vector<std::vector<ExpertId>> select(const std::string& name, std::size_t keep,
                                            bool protects) const {
    return select_experts(source_, &*statistics_, kAlike,
                          {find_expert_selection(name), keep, protects});
  }

  Json golden_;
  model::Checkpoint source_ = model::Checkpoint::open(kRoot / "testdata/models" / GetParam());
  TemporaryFolder folder_;
  TestLog log_;
  std::optional<StatisticsFile> statistics_;
};

TEST_P(Selections, AreThoseOfTheOracle) {
  std::size_t compared = 0;
  for (const Json& entry : golden_["cases"]) {
    const std::size_t keep = entry["keep"];
    if (keep < source_.spec().moe.top_k) continue;
    for (const auto& [name, method] : entry["methods"].items()) {
      ASSERT_NE(find_expert_selection(name), nullptr) << name;
      const auto kept = select(name, keep, entry["protection"]);
      for (const auto& [layer, wanted] : method["layers"].items()) {
        EXPECT_EQ(indices(kept[std::stoul(layer)]),
                  wanted["kept"].get<std::vector<std::uint32_t>>())
            << name << ", layer " << layer << ", " << keep << " experts";
        ++compared;
      }
    }
  }
  EXPECT_GE(compared, 16U);
}

TEST_P(Selections, RestOnTheScoresOfTheOracle) {
  const Json& entry = golden_["cases"][0];
  for (const auto& item : entry["methods"]["frequency"]["layers"].items()) {
    const std::string& layer = item.key();
    const auto number = static_cast<std::uint32_t>(std::stoul(layer));
    const std::vector<bool> none(source_.spec().moe.num_experts);
    const SelectionContext context{source_, LayerId{number}, &*statistics_, kAlike, none};
    const auto expect_scores = [&](const char* method, const std::vector<double>& scores) {
      const auto wanted =
          entry["methods"][method]["layers"][layer]["scores"].get<std::vector<double>>();
      ASSERT_EQ(scores.size(), wanted.size());
      for (std::size_t e = 0; e < scores.size(); ++e) {
        EXPECT_NEAR(scores[e], wanted[e], 1e-5 * wanted[e]) << method << ", expert " << e;
      }
    };
    expect_scores("frequency", context.sums("hits", none.size()));
    expect_scores("mean-norm", mean_over_hits(context, "output_norms"));
    expect_scores("mean-square-norm", mean_over_hits(context, "output_squares"));
    expect_scores("reap", mean_over_hits(context, "gated_output_norms"));
    expect_scores("gated-norm-sum", context.sums("gated_output_norms", none.size()));
  }
}

TEST_P(Selections, ProtectTheSuperExpertsOfTheOracle) {
  const Json& super = golden_["cases"][0]["super_experts"];
  const auto found = super_experts(source_, *statistics_);
  for (const auto& [layer, wanted] : super.items()) {
    std::vector<std::uint32_t> experts;
    for (std::uint32_t e = 0; e < found[std::stoul(layer)].size(); ++e) {
      if (found[std::stoul(layer)][e]) experts.push_back(e);
    }
    EXPECT_EQ(experts, wanted.get<std::vector<std::uint32_t>>());
  }
}

TEST_P(Selections, KeepAllExpertsWhenAllAreKept) {
  const std::size_t all = source_.spec().moe.num_experts;
  std::vector<std::uint32_t> wanted(all);
  std::iota(wanted.begin(), wanted.end(), 0U);
  for (const ExpertSelection* selection : expert_selections()) {
    for (const auto& layer : select(std::string(selection->name), all, true)) {
      if (layer.empty()) continue;  // dense
      EXPECT_EQ(indices(layer), wanted) << selection->name;
    }
  }
}

TEST_P(Selections, RefuseWhatTheModelCannotRun) {
  const auto refused = [&](std::size_t keep, const StatisticsFile* statistics) {
    const Error error = error_of([&] {
      select_experts(source_, statistics, kAlike, {find_expert_selection("reap"), keep, true});
    });
    EXPECT_EQ(error.code(), ErrorCode::kUsage);
    return error.message();
  };
  EXPECT_THAT(refused(source_.spec().moe.top_k - 1, &*statistics_), HasSubstr("cannot be kept"));
  EXPECT_THAT(refused(source_.spec().moe.num_experts + 1, &*statistics_),
              HasSubstr("cannot be kept"));
  EXPECT_THAT(refused(source_.spec().moe.top_k, nullptr), HasSubstr("--statistics"));
}

INSTANTIATE_TEST_SUITE_P(Models, Selections,
                         ::testing::Values("qwen3_moe-plain", "qwen3_moe-not-renormalised",
                                           "qwen3_moe-dense-first"),
                         model::testing::test_name);

/// A statistics file of the tiny model that holds a Gram matrix and nothing else.
class GramSelection : public ::testing::Test {
 protected:
  std::vector<std::uint32_t> removed(const std::vector<double>& gram, std::size_t keep,
                                     const std::vector<bool>& is_protected) {
    StatisticsHeader header = describe_model(source_, "test", 64, "scalar");
    header.domains.push_back({.name = "text", .sequences = 0, .tokens = 0});
    const auto path = folder_.path() / "gram";
    std::vector<StatisticsArray> arrays;
    for (std::uint32_t layer = 0; layer < source_.spec().num_hidden_layers; ++layer) {
      arrays.push_back({layer_prefix(0, LayerId{layer}) + "output_gram",
                        "F64",
                        {kExperts, kExperts},
                        std::as_bytes(std::span(gram))});
    }
    write_statistics(path, &header, arrays);
    const auto statistics = StatisticsFile::open(path);
    const auto kept = indices(find_expert_selection("gram")->select(
        {source_, LayerId{0}, &statistics, kAlike, is_protected}, keep));
    std::vector<std::uint32_t> gone;
    for (std::uint32_t e = 0; e < kExperts; ++e) {
      if (std::find(kept.begin(), kept.end(), e) == kept.end()) gone.push_back(e);
    }
    return gone;
  }

  static constexpr std::size_t kExperts = 8;
  model::Checkpoint source_ = testing::open_tiny(kRoot, "plain");
  TemporaryFolder folder_;
};

// Whole numbers with ties and exchanges that pay; the sets of the oracle.
TEST_F(GramSelection, MakesTheOraclesChoicesWhereSetsTie) {
  const Json sets = golden("small_sets");
  ASSERT_GE(sets["gram"].size(), 10U);
  for (const Json& entry : sets["gram"]) {
    std::vector<bool> is_protected(kExperts);
    for (const Json& e : entry["protected"]) is_protected[e.get<std::size_t>()] = true;
    EXPECT_EQ(removed(entry["gram"].get<std::vector<double>>(), entry["keep"], is_protected),
              entry["removed"].get<std::vector<std::uint32_t>>());
  }
}

TEST_F(GramSelection, OfOneExpertIsTheBestOne) {
  std::vector<double> gram(kExperts * kExperts, -1.0);
  for (std::size_t e = 0; e < kExperts; ++e) gram[e * (kExperts + 1)] = e == 5 ? 1.0 : 2.0;
  EXPECT_EQ(removed(gram, kExperts - 1, std::vector<bool>(kExperts)),
            std::vector<std::uint32_t>{5});
}

}  // namespace
}  // namespace winnow::compress::expert_selection_test
