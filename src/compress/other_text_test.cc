// SPDX-FileCopyrightText: The Winnow authors
// SPDX-License-Identifier: Apache-2.0
// A share of other text moves what experts cost towards their layer's mean, and nothing else.
#include "compress/other_text.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace winnow::compress::other_text_test {
namespace {

using model::Role;
using ::testing::DoubleEq;
using ::testing::ElementsAre;

TensorGroup group_of(Role role, std::uint32_t layer, std::optional<std::uint32_t> expert,
                     std::uint32_t width = 0) {
  TensorGroup group;
  group.role = role;
  group.layer = LayerId{layer};
  if (expert) group.only = ExpertId{*expert};
  group.width = width;
  return group;
}

TEST(OtherText, AveragesTypesOverTheExpertsOfALayer) {
  const std::vector<TensorGroup> groups = {
      group_of(Role::kQueryProj, 0, std::nullopt), group_of(Role::kExpertUpProj, 0, 0),
      group_of(Role::kExpertUpProj, 0, 1),         group_of(Role::kExpertUpProj, 1, 0),
      group_of(Role::kExpertDownProj, 0, 0),       group_of(Role::kExpertUpProj, 0, 0, 64),
      group_of(Role::kExpertUpProj, 0, 1, 64),
  };
  const DamageTable damages = {{7}, {4, 0}, {8, 2}, {1, 1}, {100, 3}, {10, 6}, {30, 2}};
  EXPECT_EQ(with_other_text(damages, groups, 0), damages);
  const DamageTable half = with_other_text(damages, groups, 0.5);
  EXPECT_THAT(half[0], ElementsAre(DoubleEq(7)));
  EXPECT_THAT(half[1], ElementsAre(DoubleEq(5), DoubleEq(0)));  // 6 is the mean; a copy is free
  EXPECT_THAT(half[2], ElementsAre(DoubleEq(7), DoubleEq(2)));
  EXPECT_THAT(half[3], ElementsAre(DoubleEq(1), DoubleEq(1)));
  EXPECT_THAT(half[4], ElementsAre(DoubleEq(100), DoubleEq(3)));
  EXPECT_THAT(half[5], ElementsAre(DoubleEq(15), DoubleEq(5)));
  EXPECT_THAT(half[6], ElementsAre(DoubleEq(25), DoubleEq(3)));
  const DamageTable whole = with_other_text(damages, groups, 1);
  EXPECT_THAT(whole[1], ElementsAre(DoubleEq(6), DoubleEq(0)));
  EXPECT_THAT(whole[2], ElementsAre(DoubleEq(6), DoubleEq(2)));
}

TEST(OtherText, AveragesEachReplacementOverThoseThatMayHaveIt) {
  const ExpertReplacement zero{"zero", "", engine::ExpertSubstitute::Kind::kZero,
                               model::ExpertKind::kZero, nullptr};
  const ExpertReplacement narrow{"narrow", "", engine::ExpertSubstitute::Kind::kOwn,
                                 model::ExpertKind::kFeedForward, nullptr};
  std::vector<ExpertItem> items(4);
  for (std::uint32_t i = 0; i < items.size(); ++i) {
    items[i].layer = LayerId{i / 3};
    items[i].expert = ExpertId{i % 3};
  }
  items[0].replacements = {{&zero, 0, 1, 2.0}, {&narrow, 0, 1, 1.0, {}, 64, {}, 1, 1.0}};
  items[1].replacements = {{&zero, 0, 1, 6.0}, {&narrow, 0, 1, 3.0, {}, 32, {}, 1, 3.0}};
  items[3].replacements = {{&zero, 0, 1, 50.0}};  // of another layer
  const auto mixed = with_other_text(items, 0.25);
  ASSERT_EQ(mixed.size(), items.size());
  EXPECT_DOUBLE_EQ(mixed[0].replacements[0].predicted_kl, 2.5);
  EXPECT_DOUBLE_EQ(mixed[1].replacements[0].predicted_kl, 5.5);
  EXPECT_DOUBLE_EQ(mixed[0].replacements[1].predicted_kl, 1.0);  // of another width
  EXPECT_DOUBLE_EQ(mixed[1].replacements[1].predicted_kl, 3.0);
  EXPECT_DOUBLE_EQ(mixed[3].replacements[0].predicted_kl, 50.0);
  EXPECT_EQ(mixed[0].replacements[0].change, 1);
}

TEST(OtherText, NarrowedExpertsLoseMoreOnItThanOnTheCalibrations) {
  const ExpertReplacement narrow{"narrow", "", engine::ExpertSubstitute::Kind::kOwn,
                                 model::ExpertKind::kFeedForward, nullptr};
  std::vector<ExpertItem> items(2);
  for (std::uint32_t i = 0; i < items.size(); ++i) {
    items[i].expert = ExpertId{i};
    items[i].replacements = {{&narrow, 0, 1, 1.0 + i, {}, 64, {}, 3, 11.0 + i}};
  }
  const auto mixed = with_other_text(items, 0.5);
  const double other = 1.5 + kUnlikeChannels * (11.5 - 1.5);  // the mean of both
  EXPECT_DOUBLE_EQ(mixed[0].replacements[0].predicted_kl, 0.5 * 1 + 0.5 * other);
  EXPECT_DOUBLE_EQ(mixed[1].replacements[0].predicted_kl, 0.5 * 2 + 0.5 * other);
}

}  // namespace
}  // namespace winnow::compress::other_text_test
