// SPDX-FileCopyrightText: The Winnow authors
// SPDX-License-Identifier: Apache-2.0
// Files with experts that use the matrices of others: what is read of them, and which are refused.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "formats/test_files.h"
#include "model/corrected_models.h"
#include "model/extended_layout.h"
#include "model/varied_models.h"

namespace winnow::model::shared_experts_test {
namespace {

using formats::testing::TemporaryFolder;
using ::testing::AllOf;
using testing::EditableGguf;
using testing::error_of;
using ::testing::HasSubstr;

constexpr const char* kKinds = "winnow.experts.kinds";
constexpr const char* kShared = "winnow.experts.shared";

const quant::Codec& f16(Role /*role*/, LayerId /*layer*/, ExpertId /*expert*/) {
  return *quant::find_codec("F16");
}

class SharedExperts : public ::testing::Test {
 protected:
  SharedExperts() {
    testing::write_varied(source_, path(), testing::shared_experts(source_.spec()), f16);
  }
  std::filesystem::path path() const { return folder_.path() / "shared.gguf"; }

  /// What opening says after `edit`.
  std::string refusal(const std::function<void(EditableGguf&)>& edit) {
    EditableGguf file(path());
    edit(file);
    const auto changed = folder_.path() / "changed.gguf";
    file.write(changed);
    const Error error = error_of([&] { Checkpoint::open(changed); });
    EXPECT_EQ(error.code(), ErrorCode::kBadData);
    EXPECT_THAT(error.what(), HasSubstr("changed.gguf"));
    return error.what();
  }
  std::string with_owners(std::vector<std::uint32_t> owners) {
    return refusal([&](EditableGguf& f) { f.metadata.set(kShared, formats::Array(owners)); });
  }

  TemporaryFolder folder_;
  Checkpoint source_ = Checkpoint::open(testing::tiny_model("plain"));
};

TEST_F(SharedExperts, AreReadAsTheyWereWritten) {
  const Checkpoint model = Checkpoint::open(path());
  const ModelSpec& spec = model.spec();
  EXPECT_TRUE(model.unused_tensors().empty());
  EXPECT_TRUE(spec.has_shared_experts());
  for (const LayerId layer : {LayerId{0}, LayerId{1}}) {
    EXPECT_EQ(spec.expert(layer, ExpertId{0}), (ExpertShape{ExpertKind::kShared, 0, 3}));
    EXPECT_EQ(spec.expert(layer, ExpertId{5}), (ExpertShape{ExpertKind::kShared, 0, 1}));
    EXPECT_EQ(spec.owner_of(layer, ExpertId{0}), ExpertId{3});
    EXPECT_EQ(spec.owner_of(layer, ExpertId{4}), ExpertId{4});
    EXPECT_FALSE(model.find(Role::kExpertUpProj, layer, ExpertId{0}).has_value());
    EXPECT_TRUE(model.find(Role::kExpertUpProj, layer, ExpertId{3}).has_value());
    EXPECT_EQ(model.at(Role::kRouter, layer).rows, 8U);
  }
  EXPECT_EQ(model.file().find("blk.0.ffn_up.5.weight"), nullptr);
}

TEST_F(SharedExperts, CountTheBytesOfTheirMatricesOnce) {
  const auto whole_path = folder_.path() / "whole.gguf";
  auto experts = testing::shared_experts(source_.spec());
  for (auto& layer : experts) {
    for (ExportExpert& expert : layer) expert.shape = {ExpertKind::kFeedForward, 32};
  }
  testing::write_varied(source_, whole_path, experts, f16);
  const Checkpoint whole = Checkpoint::open(whole_path);
  const Checkpoint shared = Checkpoint::open(path());
  constexpr std::uint64_t kWeights = std::uint64_t{2 * 2 * 3} * 32 * 32;  // of four experts
  EXPECT_EQ(whole.num_parameters() - shared.num_parameters(), kWeights);
  EXPECT_EQ(whole.tensor_bytes().value - shared.tensor_bytes().value, 2 * kWeights);
}

TEST_F(SharedExperts, NeedAReaderThatKnowsThem) {
  const auto version = [](const std::filesystem::path& file, const char* key) {
    return Checkpoint::open(file).file().metadata().integer(key);
  };
  EXPECT_EQ(version(path(), "winnow.format_version"), kSharedExpertsVersion);
  EXPECT_EQ(version(path(), "winnow.min_reader_version"), kSharedExpertsVersion);
  const auto varied = folder_.path() / "varied.gguf";
  testing::write_varied(source_, varied, testing::every_kind(source_.spec()), f16);
  EXPECT_EQ(version(varied, "winnow.format_version"), kVariedExpertsVersion);
  EXPECT_FALSE(Checkpoint::open(varied).file().metadata().contains(kShared));
  EXPECT_THAT(refusal([](EditableGguf& f) {
                f.metadata.set("winnow.format_version", kVariedExpertsVersion);
                f.metadata.set("winnow.min_reader_version", kVariedExpertsVersion);
              }),
              AllOf(HasSubstr(kKinds), HasSubstr("0 to 3")));
}

TEST_F(SharedExperts, AreRefusedWhereTheirOwnersHaveNoMatrices) {
  EXPECT_THAT(with_owners({3, 0, 0, 0, 0, 1}), AllOf(HasSubstr(kShared), HasSubstr("6 elements")));
  const auto owners = [&](std::uint32_t first, std::uint32_t fifth, std::uint32_t other) {
    return with_owners({first, 0, other, 0, 0, fifth, 0, 0, 3, 0, 0, 0, 0, 1, 0, 0});
  };
  EXPECT_THAT(owners(8, 1, 0), AllOf(HasSubstr(kShared), HasSubstr("0 to 7")));
  EXPECT_THAT(owners(0, 1, 0), HasSubstr("expert 0 of layer 0"));  // itself
  EXPECT_THAT(owners(5, 1, 0), HasSubstr("expert 0 of layer 0"));  // another that is shared
  EXPECT_THAT(owners(3, 0, 0), AllOf(HasSubstr(kShared), HasSubstr("expert 5 of layer 0")));
  EXPECT_THAT(owners(3, 1, 4), AllOf(HasSubstr(kShared), HasSubstr("expert 2 of layer 0")));
  EXPECT_THAT(refusal([](EditableGguf& f) { f.metadata.erase(kShared); }), HasSubstr(kShared));
  EXPECT_THAT(refusal([](EditableGguf& f) {
                f.metadata.set("winnow.experts.widths",
                               formats::Array(std::vector<std::uint32_t>(16, 32)));
              }),
              HasSubstr("winnow.experts.widths"));
}

TEST_F(SharedExperts, AreRefusedOutsideTheirLayer) {
  // Layer 0 has 7 experts, so that 7 is an expert of layer 1 alone.
  auto experts = testing::shared_experts(source_.spec());
  experts[0].pop_back();
  testing::write_varied(source_, path(), experts, f16);
  EXPECT_THAT(with_owners({7, 0, 0, 0, 0, 1, 0, 3, 0, 0, 0, 0, 1, 0, 0}),
              AllOf(HasSubstr(kShared), HasSubstr("expert 0 of layer 0")));
}

TEST_F(SharedExperts, AreWrittenWithOwnersOnly) {
  auto experts = testing::shared_experts(source_.spec());
  experts[1][0].shape.shared_with = 5;
  const Error error = error_of(
      [&] { testing::write_varied(source_, folder_.path() / "wrong.gguf", experts, f16); });
  EXPECT_EQ(error.code(), ErrorCode::kInternal);
}

TEST_F(SharedExperts, AreNothingForSafetensors) {
  const Checkpoint model = Checkpoint::open(path());
  ExportOptions options;
  options.format = OutputFormat::kSafetensors;
  options.codec = [](Role, LayerId) -> const quant::Codec& { return *quant::find_codec("F32"); };
  const Error error = error_of([&] { plan_export(model, options); });
  EXPECT_EQ(error.code(), ErrorCode::kUsage);
  EXPECT_THAT(error.what(), HasSubstr(".gguf"));
}

}  // namespace
}  // namespace winnow::model::shared_experts_test
