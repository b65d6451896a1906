// SPDX-FileCopyrightText: The Winnow authors
// SPDX-License-Identifier: Apache-2.0
// Importance matrices from statistics, and back to moments.
#include "compress/imatrix_use.h"

#include <gtest/gtest.h>

#include <cmath>

#include "compress/profiler.h"
#include "compress/testing.h"
#include "formats/test_files.h"
#include "model/test_models.h"

namespace winnow::compress::imatrix_use_test {
namespace {

using formats::testing::TemporaryFolder;
using model::Role;
using model::testing::error_of;

/// Statistics of a tiny model, and the importance matrices of both forms from them.
class UseOfImatrices : public ::testing::TestWithParam<std::string> {
 protected:
  UseOfImatrices() : checkpoint_(testing::open_tiny(WINNOW_SOURCE_DIR, GetParam())) {
    auto text = testing::random_windows(18, 21);
    text.domains = {"prose", "code"};
    for (std::size_t w = 9; w < 18; ++w) text.windows[w].domain = 1;
    Log log;
    ProfileOptions options = testing::profile_options();
    options.context = 22;
    profile_model(checkpoint_, text, path("s"), options, log);
    statistics_.emplace(StatisticsFile::open(path("s")));
    write_imatrix(*statistics_, spec(), path("m.gguf"));
    write_imatrix(*statistics_, spec(), path("m.dat"));
  }
  std::filesystem::path path(const std::string& name) const { return folder_.path() / name; }
  const model::ModelSpec& spec() const { return checkpoint_.spec(); }

  /// Mean squares of an input over both domains, [columns]; nothing where no token came.
  std::vector<double> mean_squares(LayerId layer, const std::string& squares,
                                   const std::string& counts, std::size_t part,
                                   std::size_t columns) const {
    std::vector<double> sums(columns);
    std::uint64_t tokens = 0;
    for (const std::size_t d : {0, 1}) {
      const std::string prefix = layer_prefix(d, layer);
      const auto all = statistics_->doubles(prefix + squares);
      for (std::size_t j = 0; j < columns; ++j) sums[j] += all[part * columns + j];
      tokens += statistics_->counts(prefix + counts)[part];
    }
    if (tokens == 0) return {};
    for (double& sum : sums) sum /= static_cast<double>(tokens);
    return sums;
  }
  void expect_means(const InputMoments& moments, Role role, std::uint32_t layer, std::size_t part,
                    const std::vector<double>& expected, bool counts_are_exact) const {
    const auto sums = moments.sums(role, LayerId{layer}, ExpertId{static_cast<unsigned>(part)});
    const auto tokens = moments.tokens(role, LayerId{layer}, ExpertId{static_cast<unsigned>(part)});
    if (expected.empty()) {
      // The binary form has ones for experts that no token chose.
      if (counts_are_exact) {
        EXPECT_EQ(tokens, 0U);
      }
      return;
    }
    ASSERT_EQ(sums.size(), expected.size());
    ASSERT_GT(tokens, 0U);
    double all = 0;
    double all_expected = 0;
    for (std::size_t j = 0; j < sums.size(); ++j) all += sums[j];
    for (const double value : expected) all_expected += value;
    for (std::size_t j = 0; j < sums.size(); ++j) {
      // Proportions: three roundings to f32.
      EXPECT_NEAR(sums[j] / all, expected[j] / all_expected,
                  3 * 0x1p-23 * expected[j] / all_expected);
    }
  }
  void expect_moments(const InputMoments& moments, bool counts_are_exact) const {
    std::size_t experts = 0;
    for (std::uint32_t l = 0; l < spec().num_hidden_layers; ++l) {
      const LayerId layer{l};
      expect_means(moments, Role::kQueryProj, l, 0,
                   mean_squares(layer, "attention_input_squares", "attention_input_tokens", 0,
                                spec().hidden_size),
                   counts_are_exact);
      expect_means(moments, Role::kAttentionOutput, l, 0,
                   mean_squares(layer, "attention_inner_squares", "attention_inner_tokens", 0,
                                spec().query_width()),
                   counts_are_exact);
      if (!spec().is_moe_layer(layer)) continue;
      for (std::size_t e = 0; e < spec().moe.num_experts; ++e) {
        expect_means(moments, Role::kExpertUpProj, l, e,
                     mean_squares(layer, "expert_input_squares", "hits", e, spec().hidden_size),
                     counts_are_exact);
        expect_means(moments, Role::kExpertDownProj, l, e,
                     mean_squares(layer, "expert_inner_squares", "hits", e,
                                  spec().moe.moe_intermediate_size),
                     counts_are_exact);
        ++experts;
      }
    }
    EXPECT_GE(experts, spec().moe.num_experts);
  }

  TemporaryFolder folder_;
  model::Checkpoint checkpoint_;
  std::optional<StatisticsFile> statistics_;
};

TEST_P(UseOfImatrices, HoldTheUnweightedMomentsOfTheStatistics) {
  expect_moments(load_imatrix(path("m.gguf"), spec()), true);
  expect_moments(load_imatrix(path("m.dat"), spec()), false);
}

TEST_P(UseOfImatrices, HaveAnEntryForEachMatrixInLayersSortedByName) {
  for (const char* name : {"m.gguf", "m.dat"}) {
    const auto file = formats::ImatrixFile::open(path(name));
    std::size_t matrices = 0;
    checkpoint_.for_each_role([&](Role role, LayerId layer) {
      const auto& traits = model::traits(role);
      if (!traits.per_layer || !(traits.is_matrix || role == Role::kRouter)) return;
      EXPECT_NE(file.find(model::expand_pattern(traits.gguf_pattern, layer)), nullptr);
      ++matrices;
    });
    EXPECT_EQ(file.entries().size(), matrices);
    EXPECT_TRUE(std::is_sorted(file.entries().begin(), file.entries().end(),
                               [](const auto& a, const auto& b) { return a.name < b.name; }));
    EXPECT_EQ(file.info().chunk_count, 16U);  // of 18 sequences two are held out
  }
}

TEST_P(UseOfImatrices, AreToldFromStatistics) {
  EXPECT_FALSE(is_imatrix(path("s")));
  EXPECT_TRUE(is_imatrix(path("m.gguf")));
  EXPECT_TRUE(is_imatrix(path("m.dat")));
}

TEST_P(UseOfImatrices, CountTheTokensOfExperts) {
  const auto moments = load_imatrix(path("m.gguf"), spec());
  for (std::uint32_t l = 0; l < spec().num_hidden_layers; ++l) {
    if (!spec().is_moe_layer(LayerId{l})) continue;
    const auto a = statistics_->counts(layer_prefix(0, LayerId{l}) + "hits");
    const auto b = statistics_->counts(layer_prefix(1, LayerId{l}) + "hits");
    for (std::uint32_t e = 0; e < a.size(); ++e) {
      EXPECT_EQ(moments.tokens(Role::kExpertGateProj, LayerId{l}, ExpertId{e}), a[e] + b[e]);
      // Few tokens are drawn towards the layer; never is there something that is no number.
      for (const float value : moments.importance(Role::kExpertGateProj, LayerId{l}, ExpertId{e})) {
        ASSERT_TRUE(std::isfinite(value) && value > 0);
      }
    }
  }
}

INSTANTIATE_TEST_SUITE_P(TinyModels, UseOfImatrices, ::testing::Values("plain", "dense-first"),
                         [](const auto& model) {
                           return model.param == "plain" ? "plain" : "dense_first";
                         });

TEST(UseOfAnImatrix, OfAnotherModelIsRefused) {
  const TemporaryFolder folder;
  const auto spec = testing::open_tiny(WINNOW_SOURCE_DIR, "plain").spec();
  const auto write = [&](const std::string& name, std::uint64_t matrices, std::uint64_t columns) {
    const auto path = folder.path() / "m.gguf";
    const auto writer =
        formats::write_imatrix(path, formats::ImatrixForm::kGguf, {}, {{name, matrices, columns}});
    writer->append(std::vector<double>(matrices * columns, 1.0),
                   std::vector<std::uint64_t>(matrices, 5));
    writer->finish();
    return error_of([&] { load_imatrix(path, spec); });
  };
  const Error width = write("blk.0.attn_q.weight", 1, spec.hidden_size + 1);
  EXPECT_EQ(width.code(), ErrorCode::kBadData);
  EXPECT_NE(width.message().find("another model"), std::string::npos) << width.message();
  const Error experts =
      write("blk.0.ffn_gate_exps.weight", spec.moe.num_experts + 1, spec.hidden_size);
  EXPECT_NE(experts.message().find("another model"), std::string::npos) << experts.message();
  const Error name = write("layers.0.q", 1, spec.hidden_size);
  EXPECT_NE(name.message().find("'layers.0.q'"), std::string::npos) << name.message();
}

}  // namespace
}  // namespace winnow::compress::imatrix_use_test
