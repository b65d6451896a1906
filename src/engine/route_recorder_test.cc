// SPDX-FileCopyrightText: The Winnow authors
// SPDX-License-Identifier: Apache-2.0
#include "engine/route_recorder.h"

#include <gtest/gtest.h>

#include <array>

#include "base/log.h"
#include "engine/engine.h"
#include "formats/test_files.h"
#include "model/varied_models.h"

namespace winnow::engine::route_recorder_test {
namespace {

using experts::RouteTrace;
using model::testing::tiny_model;

constexpr std::uint16_t kNone = RouteTrace::kNone;

model::ModelSpec tiny_spec() { return model::Checkpoint::open(tiny_model("plain")).spec(); }

/// Two experts a token.
void choose(RouteRecorder& recorder, std::uint32_t layer, std::vector<ExpertId> experts,
            std::span<const std::uint32_t> used = {}) {
  const std::vector<float> weights(experts.size(), 0.5F);
  recorder.on_routing(LayerId{layer}, {}, {2, experts, weights, used});
}

TEST(RouteRecorder, KeepsTheChoicesOfEachTokenLayerByLayer) {
  RouteRecorder recorder(tiny_spec());
  recorder.begin_sequence();
  choose(recorder, 0, {ExpertId{1}, ExpertId{7}, ExpertId{7}, ExpertId{0}});
  choose(recorder, 1, {ExpertId{4}, ExpertId{3}, ExpertId{2}, ExpertId{5}});
  recorder.begin_sequence();
  choose(recorder, 0, {ExpertId{6}, ExpertId{2}});
  choose(recorder, 1, {ExpertId{0}, ExpertId{1}});
  const RouteTrace& trace = recorder.trace();
  EXPECT_EQ(trace.experts, (std::vector<std::uint16_t>{1, 7, 4, 3, 7, 0, 2, 5, 6, 2, 0, 1}));
  EXPECT_EQ(trace.sequences, (std::vector<std::uint64_t>{0, 2}));
  EXPECT_EQ(trace.layers, (std::vector{LayerId{0}, LayerId{1}}));
  EXPECT_EQ(trace.stored_experts, 16U);
}

TEST(RouteRecorder, LeavesOutWhatAPolicySkips) {
  RouteRecorder recorder(tiny_spec());
  recorder.begin_sequence();
  const std::array<std::uint32_t, 2> used = {1, 0};
  choose(recorder, 0, {ExpertId{1}, ExpertId{7}, ExpertId{2}, ExpertId{0}}, used);
  EXPECT_EQ(recorder.trace().experts,
            (std::vector<std::uint16_t>{1, kNone, kNone, kNone, kNone, kNone, kNone, kNone}));
}

TEST(RouteRecorder, AnExpertCountsAsTheOneWhoseMatricesItUsesAndOthersNotAtAll) {
  model::ModelSpec spec = tiny_spec();
  using model::ExpertKind;
  spec.varied_experts.assign(2, std::vector<model::ExpertShape>(8, {ExpertKind::kFeedForward, 32}));
  spec.varied_experts[0][0] = {ExpertKind::kShared, 0, 3};
  spec.varied_experts[0][5] = {ExpertKind::kZero};
  RouteRecorder recorder(spec);
  recorder.begin_sequence();
  choose(recorder, 0, {ExpertId{0}, ExpertId{3}, ExpertId{5}, ExpertId{6}});
  choose(recorder, 1, {ExpertId{0}, ExpertId{5}, ExpertId{5}, ExpertId{6}});
  EXPECT_EQ(recorder.trace().experts, (std::vector<std::uint16_t>{3, kNone, 0, 5, 6, kNone, 5, 6}));
  EXPECT_EQ(recorder.trace().stored_experts, 14U);
}

TEST(RouteRecorder, ATextInOnePassHasTheRoutesOfATextTokenByToken) {
  Log log;
  const auto checkpoint = model::Checkpoint::open(tiny_model("plain"));
  Engine engine(checkpoint, {.threads = 1}, log);
  const std::vector<TokenId> tokens = {TokenId{5}, TokenId{80}, TokenId{7}, TokenId{200}};
  RouteRecorder whole(engine.spec());
  RouteRecorder single(engine.spec());
  KvCache cache = engine.make_cache(tokens.size());
  const SequenceInput all{&cache, tokens};
  whole.begin_sequence();
  engine.forward(std::span(&all, 1), &whole);
  cache.truncate(0);
  single.begin_sequence();
  for (const TokenId& token : tokens) {
    const SequenceInput input{&cache, {&token, 1}};
    engine.forward(std::span(&input, 1), &single);
  }
  EXPECT_EQ(whole.trace().experts.size(), tokens.size() * 2 * 2);
  EXPECT_EQ(whole.trace().experts, single.trace().experts);
}

TEST(RouteRecorder, RefusesAModelWithoutExperts) {
  const auto checkpoint = model::Checkpoint::open(model::testing::tiny_folder("qwen3-plain"));
  try {
    const RouteRecorder recorder(checkpoint.spec());
    FAIL();
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ErrorCode::kUsage);
    EXPECT_NE(error.message().find("no experts"), std::string::npos);
  }
}

}  // namespace
}  // namespace winnow::engine::route_recorder_test
