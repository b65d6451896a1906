// SPDX-FileCopyrightText: The Winnow authors
// SPDX-License-Identifier: Apache-2.0
// What files say of experts that may be skipped: lines between stored shares, and what is refused.
#include "model/skip_ratios.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>

#include "formats/test_files.h"
#include "model/corrected_models.h"
#include "model/exporter.h"

namespace winnow::model::skip_ratios_test {
namespace {

using formats::testing::TemporaryFolder;
using ::testing::AllOf;
using ::testing::ElementsAre;
using testing::error_of;
using ::testing::HasSubstr;
using testing::tiny_model;

constexpr const char* kVersion = "winnow.policy.version";
constexpr const char* kShares = "winnow.policy.skip_shares";
constexpr const char* kRatios = "winnow.policy.skip_ratios";

TEST(SkipRatiosAt, AreOnLinesBetweenTheStoredSharesAndFromNothing) {
  const SkipRatios stored{{0.25F, 0.5F}, {0.5F, 0.75F, 0.125F, 1}};
  EXPECT_THAT(stored.at(0), ElementsAre(0, 0));
  EXPECT_THAT(stored.at(0.125), ElementsAre(0.25F, 0.0625F));
  EXPECT_THAT(stored.at(0.25), ElementsAre(0.5F, 0.125F));
  EXPECT_THAT(stored.at(0.375), ElementsAre(0.625F, 0.5625F));
  EXPECT_THAT(stored.at(0.5), ElementsAre(0.75F, 1));
}

/// A dense layer, then one with experts.
class StoredSkipRatios : public ::testing::Test {
 protected:
  using Metadata = std::vector<std::pair<std::string, formats::Value>>;

  std::optional<SkipRatios> read(const Metadata& metadata) {
    ExportOptions options;
    options.codec = [](Role, LayerId) -> const quant::Codec& { return *quant::find_codec("F32"); };
    options.metadata = metadata;
    os::ThreadPool pool(1);
    Log log;
    export_model(source_, folder_.path() / "m.gguf", options, pool, log);
    const Checkpoint written = Checkpoint::open(folder_.path() / "m.gguf");
    return read_skip_ratios(written.file(), written.spec());
  }
  std::string refusal(const std::string& key, const formats::Value& value) {
    Metadata metadata = skip_ratio_metadata(sound());
    for (auto& entry : metadata) {
      if (entry.first == key) entry.second = value;
    }
    const Error error = error_of([&] { read(metadata); });
    EXPECT_EQ(error.code(), ErrorCode::kBadData);
    EXPECT_THAT(error.message(), AllOf(HasSubstr("m.gguf"), HasSubstr(key)));
    return error.message();
  }
  SkipRatios sound() const {
    SkipRatios ratios{{0.25F, 0.5F}, std::vector<float>(2 * source_.spec().num_hidden_layers)};
    ratios.ratios[2] = 0.5F;
    ratios.ratios[3] = 1;
    return ratios;
  }
  static formats::Value floats(std::vector<float> values) { return formats::Array(values); }

  TemporaryFolder folder_;
  Checkpoint source_ = Checkpoint::open(tiny_model("dense-first"));
};

TEST_F(StoredSkipRatios, AreReadAsTheyWereWritten) {
  ASSERT_FALSE(source_.spec().is_moe_layer(LayerId{0}));
  ASSERT_TRUE(source_.spec().is_moe_layer(LayerId{1}));
  EXPECT_EQ(read({}), std::nullopt);
  const auto stored = read(skip_ratio_metadata(sound()));
  ASSERT_TRUE(stored);
  EXPECT_EQ(stored->shares, sound().shares);
  EXPECT_EQ(stored->ratios, sound().ratios);
  EXPECT_EQ(read_skip_ratios(source_.file(), source_.spec()), std::nullopt) << "a folder has none";
}

TEST_F(StoredSkipRatios, AreRefusedWithTheKeyWhenTheyCannotBe) {
  const auto with = [&](std::size_t place, float value) {
    std::vector<float> ratios = sound().ratios;
    ratios[place] = value;
    return floats(ratios);
  };
  EXPECT_THAT(refusal(kVersion, std::uint32_t{2}), HasSubstr("knows version 1"));
  EXPECT_THAT(refusal(kShares, floats({})), HasSubstr("0 elements"));
  EXPECT_THAT(refusal(kShares, floats({0.5F, 0.25F})), HasSubstr("rising"));
  EXPECT_THAT(refusal(kShares, floats({0, 0.25F})), HasSubstr("rising"));
  EXPECT_THAT(refusal(kShares, floats({0.5F, 1.25F})), HasSubstr("expected 0 to 1"));
  refusal(kShares, std::string("5%"));
  EXPECT_THAT(refusal(kRatios, floats({0, 0, 1})), HasSubstr("3 elements"));
  EXPECT_THAT(refusal(kRatios, with(3, NAN)), HasSubstr("nan"));
  EXPECT_THAT(refusal(kRatios, with(3, 1.5F)), HasSubstr("1.5"));
  EXPECT_THAT(refusal(kRatios, with(3, -0.5F)), HasSubstr("-0.5"));
  EXPECT_THAT(refusal(kRatios, with(3, 0.25F)), HasSubstr("falls within layer 1"));
  EXPECT_THAT(refusal(kRatios, with(1, 0.25F)), HasSubstr("no experts"));
}

}  // namespace
}  // namespace winnow::model::skip_ratios_test
