// SPDX-FileCopyrightText: The Winnow authors
// SPDX-License-Identifier: Apache-2.0
#include "cli/model_summary.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "formats/test_files.h"
#include "model/varied_models.h"

namespace winnow::cli::model_summary_test {
namespace {

using formats::testing::TemporaryFolder;
using ::testing::HasSubstr;

const quant::Codec& f16(model::Role /*role*/, LayerId /*layer*/, ExpertId /*expert*/) {
  return *quant::find_codec("F16");
}

ModelSummary summary_of(const std::vector<std::vector<model::ExportExpert>>& experts) {
  const TemporaryFolder folder;
  const auto path = folder.path() / "varied.gguf";
  model::testing::write_varied(model::Checkpoint::open(model::testing::tiny_model("plain")), path,
                               experts, f16);
  return summarize(model::Checkpoint::open(path));
}

model::ModelSpec source_spec() {
  return model::Checkpoint::open(model::testing::tiny_model("plain")).spec();
}

TEST(ModelSummary, SaysWhatExpertsAreWhereTheyVary) {
  const ModelSummary summary = summary_of(model::testing::every_kind(source_spec()));
  const Json first = to_json(summary).at("spec").at("experts").at(0);
  EXPECT_EQ(first, parse_json(R"({"widths": [32, 16], "feed_forward": 2, "zero": 1,
                                  "identity": 1, "constant": 1, "shared": 0})",
                              "expected"));
  EXPECT_THAT(to_text(summary),
              HasSubstr("5 to 7 a layer, 3 of 12 without matrices, inner width 16 to 32"));
}

TEST(ModelSummary, CountsSharedExpertsApart) {
  const ModelSummary summary = summary_of(model::testing::shared_experts(source_spec()));
  const Json last = to_json(summary).at("spec").at("experts").at(1);
  EXPECT_EQ(last.at("shared"), 2);
  EXPECT_EQ(last.at("feed_forward"), 6);
  EXPECT_EQ(last.at("widths").size(), 6U);
  EXPECT_THAT(to_text(summary), HasSubstr("0 of 16 without matrices, 4 with those of others"));
  EXPECT_EQ(to_json(summary).at("bytes_by_role").at("expert_up_proj").at("tensors"), 12);
}

}  // namespace
}  // namespace winnow::cli::model_summary_test
