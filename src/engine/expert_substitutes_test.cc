// SPDX-FileCopyrightText: The Winnow authors
// SPDX-License-Identifier: Apache-2.0
// A layer whose experts are replaced for a measurement gives what a model made so gives.
#include <gtest/gtest.h>

#include <algorithm>
#include <filesystem>
#include <functional>
#include <map>
#include <utility>

#include "base/rng.h"
#include "engine/layer_runner.h"
#include "formats/test_files.h"
#include "model/varied_models.h"

namespace winnow::engine::expert_substitutes_test {
namespace {

using formats::testing::TemporaryFolder;
using model::Checkpoint;
using model::ExpertKind;
using model::ExportExpert;
using model::Role;
using model::testing::EditableModel;
using model::testing::error_of;

using Kind = ExpertSubstitute::Kind;
using Change = std::function<void(LayerRunner&)>;

constexpr LayerId kLayer{1};
// Few tokens take another way through the block than many.
constexpr std::size_t kTokenCounts[] = {1, 7, 40};

/// What a layer gives, and what an observer sees of its routing.
struct LayerTrace : Observer {
  void on_routing(LayerId /*layer*/, tensor::MatrixView<const float> router,
                  const RoutingView& routing) override {
    logits = router.cols;
    top_k = routing.top_k;
    experts.assign(routing.experts.begin(), routing.experts.end());
    weights.assign(routing.weights.begin(), routing.weights.end());
  }
  std::vector<float> output;
  std::size_t logits = 0;  // of a token
  std::size_t top_k = 0;
  std::vector<ExpertId> experts;
  std::vector<float> weights;
};

LayerTrace run(const Checkpoint& checkpoint, std::size_t tokens, const Change& change,
               unsigned threads = 1) {
  LayerRunner runner(checkpoint, {.threads = threads});
  runner.load(kLayer);
  if (change) change(runner);
  Rng rng(3);
  tensor::Matrix<float> hidden(tokens, checkpoint.spec().hidden_size);
  for (float& value : hidden.flat()) value = static_cast<float>(rng.normal());
  LayerTrace trace;
  runner.run(std::vector<std::size_t>{tokens}, hidden.view(), &trace);
  trace.output.assign(hidden.flat().begin(), hidden.flat().end());
  return trace;
}

/// The output of `changed` with `change` is that of `model`, and not that of `changed` alone.
void expect_output_of(const Checkpoint& model, const Checkpoint& changed, const Change& change) {
  for (const std::size_t tokens : kTokenCounts) {
    const auto expected = run(model, tokens, {}).output;
    EXPECT_EQ(run(changed, tokens, change).output, expected) << tokens << " tokens";
    EXPECT_EQ(run(changed, tokens, change, 3).output, expected) << tokens << " tokens";
  }
  EXPECT_NE(run(changed, 40, {}).output, run(model, 40, {}).output);
}

std::string expert_tensor(std::uint32_t expert, const char* matrix) {
  return fmt::format("model.layers.{}.mlp.experts.{}.{}.weight", index(kLayer), expert, matrix);
}

class ExpertSubstitutes : public ::testing::TestWithParam<std::string> {
 protected:
  Checkpoint edited(const std::function<void(EditableModel&)>& edit) {
    EditableModel model(GetParam());
    edit(model);
    const auto path = folder_.path() / fmt::format("m{}", models_++);
    model.write(path);
    return Checkpoint::open(path);
  }
  /// All experts of the source, those in `kinds` of another kind.
  Checkpoint varied(const std::map<std::uint32_t, ExpertKind>& kinds) {
    const model::ModelSpec& spec = source_.spec();
    std::vector<std::vector<ExportExpert>> lists(spec.num_hidden_layers);
    for (std::uint32_t l = 0; l < lists.size(); ++l) {
      for (std::uint32_t e = 0; e < spec.num_experts(LayerId{l}); ++e) {
        lists[l].push_back({ExpertId{e}, spec.expert(LayerId{l}, ExpertId{e})});
        const auto kind = kinds.find(e);
        if (kind != kinds.end()) lists[l].back().shape = {kind->second, 0};
      }
    }
    const auto path = folder_.path() / fmt::format("m{}.gguf", models_++);
    model::testing::write_varied(
        source_, path, lists,
        [](Role, LayerId, ExpertId) -> const quant::Codec& { return *quant::find_codec("Q8_0"); });
    return Checkpoint::open(path);
  }
  /// `kinds`, and the others themselves.
  std::vector<ExpertSubstitute> substitutes(const std::map<std::uint32_t, Kind>& kinds,
                                            std::span<const float> values = {}) const {
    std::vector<ExpertSubstitute> experts(experts_);
    for (const auto& [expert, kind] : kinds) experts[expert] = {kind, values};
    return experts;
  }
  TemporaryFolder folder_;
  int models_ = 0;
  Checkpoint source_ = Checkpoint::open(model::testing::tiny_model(GetParam()));
  const std::uint32_t experts_ = source_.spec().moe.num_experts;  // 6 or 8
};

TEST_P(ExpertSubstitutes, OfZeroGiveWhatAModelWithAZeroDownMatrixGives) {
  const Checkpoint zeros = edited([](EditableModel& model) {
    for (const std::uint32_t e : {2, 5}) {
      auto& bytes = model.tensor(expert_tensor(e, "down_proj")).bytes;
      std::fill(bytes.begin(), bytes.end(), '\0');
    }
  });
  expect_output_of(zeros, source_, [&](LayerRunner& runner) {
    runner.override_experts(substitutes({{2, Kind::kZero}, {5, Kind::kZero}}));
  });
}

TEST_P(ExpertSubstitutes, GiveWhatExpertsOfTheirKindsGive) {
  const Checkpoint own = varied({});
  const Checkpoint kinds =
      varied({{1, ExpertKind::kIdentity}, {3, ExpertKind::kConstant}, {4, ExpertKind::kZero}});
  std::vector<float> constant(own.spec().hidden_size);
  for (std::size_t i = 0; i < constant.size(); ++i) {
    constant[i] = model::testing::constant_value(kLayer, ExpertId{3}, i);
  }
  expect_output_of(kinds, own, [&](LayerRunner& runner) {
    runner.override_experts(
        substitutes({{1, Kind::kIdentity}, {3, Kind::kConstant}, {4, Kind::kZero}}, constant));
  });
}

TEST_P(ExpertSubstitutes, ThatAreAllZeroNeedNoMatrix) {
  std::map<std::uint32_t, ExpertKind> kinds;
  for (std::uint32_t e = 0; e < experts_; ++e) kinds[e] = ExpertKind::kZero;
  expect_output_of(varied(kinds), varied({}), [&](LayerRunner& runner) {
    runner.override_experts(std::vector<ExpertSubstitute>(experts_, {Kind::kZero}));
  });
}

TEST_P(ExpertSubstitutes, ThatAreDroppedLeaveTheModelOfTheOthers) {
  const std::vector<ExpertId> kept{ExpertId{0}, ExpertId{2}, ExpertId{3}, ExpertId{5}};
  const Checkpoint others =
      Checkpoint::open(model::testing::tiny_model(GetParam()))
          .with_experts(std::vector<std::vector<ExpertId>>(source_.spec().num_hidden_layers, kept));
  const Change drop = [&](LayerRunner& runner) {
    std::vector<ExpertSubstitute> experts(experts_, {Kind::kDropped});
    for (const ExpertId expert : kept) experts[index(expert)] = {};
    runner.override_experts(experts);
  };
  expect_output_of(others, source_, drop);
  const LayerTrace expected = run(others, 40, {});
  const LayerTrace seen = run(source_, 40, drop);
  EXPECT_EQ(seen.logits, experts_);
  EXPECT_EQ(seen.weights, expected.weights);
  ASSERT_EQ(seen.experts.size(), expected.experts.size());
  for (std::size_t i = 0; i < seen.experts.size(); ++i) {
    EXPECT_EQ(seen.experts[i], kept[index(expected.experts[i])]);
  }
}

TEST_P(ExpertSubstitutes, OfOtherWeightsAreMergedExpertByExpert) {
  const char* const matrices[] = {"gate_proj", "up_proj", "down_proj"};
  const Role roles[] = {Role::kExpertGateProj, Role::kExpertUpProj, Role::kExpertDownProj};
  // Expert `to` takes the matrices of expert `from`.
  const std::pair<std::uint32_t, std::uint32_t> copies[] = {{1, 0}, {5, 3}};
  const Checkpoint copied = edited([&](EditableModel& model) {
    for (const auto& [to, from] : copies) {
      for (const char* const matrix : matrices) {
        model.tensor(expert_tensor(to, matrix)).bytes =
            model.tensor(expert_tensor(from, matrix)).bytes;
      }
    }
    auto& unused = model.tensor(expert_tensor(4, "down_proj")).bytes;
    std::fill(unused.begin(), unused.end(), '\0');
  });
  std::vector<std::vector<std::byte>> held;
  const auto part = [&](Role role, std::uint32_t expert) {
    const model::TensorRef ref = source_.at(role, kLayer, ExpertId{expert});
    held.emplace_back(ref.bytes().value);
    source_.read_rows(ref, 0, ref.rows, held.back());
    return quant::CorrectedMatrix(&ref.codec(), held.back().data(), ref.rows, ref.cols);
  };
  expect_output_of(copied, source_, [&](LayerRunner& runner) {
    for (const Role role : roles) {
      std::vector<quant::CorrectedMatrix> first(experts_), second(experts_);
      first[1] = part(role, 2);  // replaced by the second
      first[5] = part(role, 3);
      second[1] = part(role, 0);
      runner.override_weights(role, first);
      runner.override_weights(role, second);
    }
    runner.override_experts(substitutes({{4, Kind::kZero}}));
  });
}

TEST_P(ExpertSubstitutes, AreChosenAsOftenAsAModelWithThatTopK) {
  for (const std::uint32_t top_k : std::vector<std::uint32_t>{1, 3, experts_}) {
    const Checkpoint other =
        edited([&](EditableModel& model) { model.config["num_experts_per_tok"] = top_k; });
    const Change change = [&](LayerRunner& runner) { runner.override_top_k(top_k); };
    expect_output_of(other, source_, change);
    const LayerTrace seen = run(source_, 7, change);
    EXPECT_EQ(seen.top_k, top_k);
    EXPECT_EQ(seen.experts, run(other, 7, {}).experts);
  }
}

TEST_P(ExpertSubstitutes, AreForgottenOnRestoringAndLoading) {
  const auto substitute = [&](LayerRunner& runner) {
    runner.override_top_k(3);
    runner.override_experts(substitutes({{0, Kind::kDropped}, {1, Kind::kZero}}));
  };
  const auto own = run(source_, 7, {}).output;
  EXPECT_NE(run(source_, 7, substitute).output, own);
  EXPECT_EQ(run(source_, 7,
                [&](LayerRunner& runner) {
                  substitute(runner);
                  runner.restore_weights();
                })
                .output,
            own);
  EXPECT_EQ(run(source_, 7,
                [&](LayerRunner& runner) {
                  substitute(runner);
                  runner.load(kLayer);
                })
                .output,
            own);
}

TEST_P(ExpertSubstitutes, LeaveAsManyAsATokenGoesTo) {
  const auto code = [&](const Change& change) {
    return error_of([&] {
             run(source_, 1, change);
             fail(ErrorCode::kUsage, "no error");
           })
        .code();
  };
  const std::uint32_t top_k = source_.spec().moe.top_k;
  const auto keep = [&](LayerRunner& runner, std::uint32_t kept) {
    std::vector<ExpertSubstitute> experts(experts_, {Kind::kDropped});
    std::fill_n(experts.begin(), kept, ExpertSubstitute{});
    runner.override_experts(experts);
  };
  EXPECT_EQ(code([&](LayerRunner& r) { keep(r, top_k); }), ErrorCode::kUsage);
  EXPECT_EQ(code([&](LayerRunner& r) { keep(r, top_k - 1); }), ErrorCode::kInternal);
  EXPECT_EQ(code([&](LayerRunner& r) { r.override_top_k(experts_); }), ErrorCode::kUsage);
  EXPECT_EQ(code([&](LayerRunner& r) { r.override_top_k(experts_ + 1); }), ErrorCode::kInternal);
  EXPECT_EQ(code([&](LayerRunner& r) { r.override_top_k(0); }), ErrorCode::kInternal);
  EXPECT_EQ(code([&](LayerRunner& r) {
              keep(r, top_k);
              r.override_top_k(top_k + 1);
            }),
            ErrorCode::kInternal);
  EXPECT_EQ(code([&](LayerRunner& r) {
              r.override_experts(std::vector<ExpertSubstitute>(experts_ - 1));
            }),
            ErrorCode::kInternal);
  EXPECT_EQ(code([&](LayerRunner& r) {
              r.override_experts(std::vector<ExpertSubstitute>(experts_, {Kind::kConstant}));
            }),
            ErrorCode::kInternal);
}

INSTANTIATE_TEST_SUITE_P(Models, ExpertSubstitutes, ::testing::Values("plain", "not-renormalised"),
                         model::testing::test_name);

}  // namespace
}  // namespace winnow::engine::expert_substitutes_test
