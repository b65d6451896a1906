// SPDX-FileCopyrightText: The Winnow authors
// SPDX-License-Identifier: Apache-2.0
// Models whose experts vary, against sums written out here.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <filesystem>
#include <functional>
#include <numeric>
#include <utility>

#include "base/rng.h"
#include "engine/engine.h"
#include "engine/layer_runner.h"
#include "formats/test_files.h"
#include "model/varied_models.h"

namespace winnow::engine::varied_experts_test {
namespace {

using formats::testing::TemporaryFolder;
using model::Checkpoint;
using model::ExpertKind;
using model::ExportExpert;
using model::Role;

const quant::Codec& f32(Role /*role*/, LayerId /*layer*/, ExpertId /*expert*/) {
  return *quant::find_codec("F32");
}

/// What goes into a layer's feed-forward block.
class InputRecorder final : public Observer {
 public:
  void on_input(Site site, LayerId /*layer*/, tensor::MatrixView<const float> x) override {
    if (site != Site::kFfnInput) return;
    rows.clear();
    for (std::size_t t = 0; t < x.rows; ++t) {
      rows.emplace_back(x.row(t).begin(), x.row(t).end());
    }
  }
  std::vector<std::vector<float>> rows;
};

std::vector<double> product(const std::vector<float>& matrix, std::size_t cols,
                            std::span<const double> x) {
  std::vector<double> out(matrix.size() / cols);
  for (std::size_t r = 0; r < out.size(); ++r) {
    for (std::size_t c = 0; c < cols; ++c) out[r] += double{matrix[r * cols + c]} * x[c];
  }
  return out;
}

/// An expert of `source` in another shape, f64.
std::vector<double> expert_output(const Checkpoint& source, LayerId layer,
                                  const ExportExpert& expert, const std::vector<double>& x) {
  switch (expert.shape.kind) {
    case ExpertKind::kZero:
      return std::vector<double>(x.size());
    case ExpertKind::kIdentity:
      return x;
    case ExpertKind::kConstant: {
      std::vector<double> constant(x.size());
      for (std::size_t i = 0; i < x.size(); ++i) {
        constant[i] = model::testing::constant_value(layer, expert.source, i);
      }
      return constant;
    }
    case ExpertKind::kFeedForward:
    case ExpertKind::kShared:  // shared_experts_test.cc
      break;
  }
  const auto matrix = [&](Role role) {
    return model::testing::narrowed(source, role, layer, expert.source, expert.shape.width);
  };
  std::vector<double> inner = product(matrix(Role::kExpertGateProj), x.size(), x);
  const std::vector<double> up = product(matrix(Role::kExpertUpProj), x.size(), x);
  for (std::size_t i = 0; i < inner.size(); ++i) inner[i] *= up[i] / (1 + std::exp(-inner[i]));
  return product(matrix(Role::kExpertDownProj), inner.size(), inner);
}

/// The feed-forward block for one token: the original with the logits of experts that are not in
/// the list at minus infinity, and those that are in their shapes.
std::vector<double> block_output(const Checkpoint& source, LayerId layer,
                                 const std::vector<ExportExpert>& experts,
                                 const std::vector<float>& input) {
  const model::ModelSpec& spec = source.spec();
  const std::vector<double> x(input.begin(), input.end());
  const model::TensorRef ref = source.at(Role::kRouter, layer);
  std::vector<float> router(ref.rows * ref.cols);
  source.read_floats(ref, 0, ref.rows, router);
  const std::vector<double> all = product(router, x.size(), x);
  std::vector<double> scores(experts.size());
  for (std::size_t e = 0; e < scores.size(); ++e)
    scores[e] = std::exp(all[index(experts[e].source)]);
  const double sum = std::accumulate(scores.begin(), scores.end(), 0.0);
  std::vector<std::size_t> order(scores.size());
  std::iota(order.begin(), order.end(), 0);
  std::sort(order.begin(), order.end(),
            [&](std::size_t a, std::size_t b) { return scores[a] > scores[b]; });
  order.resize(spec.moe.top_k);
  double chosen = 0;
  for (const std::size_t e : order) chosen += scores[e];
  std::vector<double> out(x.size());
  for (const std::size_t e : order) {
    const double weight = scores[e] / (spec.moe.renormalize_top_k ? chosen : sum);
    const std::vector<double> y = expert_output(source, layer, experts[e], x);
    for (std::size_t i = 0; i < out.size(); ++i) out[i] += weight * y[i];
  }
  return out;
}

tensor::Matrix<float> random_states(const model::ModelSpec& spec, std::size_t tokens) {
  Rng rng(3);
  tensor::Matrix<float> hidden(tokens, spec.hidden_size);
  for (float& value : hidden.flat()) value = static_cast<float>(rng.normal());
  return hidden;
}

tensor::Matrix<float> layer_output(const Checkpoint& checkpoint, LayerId layer, std::size_t tokens,
                                   Observer* observer) {
  LayerRunner runner(checkpoint, {});
  runner.load(layer);
  tensor::Matrix<float> hidden = random_states(checkpoint.spec(), tokens);
  runner.run(std::vector<std::size_t>{tokens}, hidden.view(), observer);
  return hidden;
}

class VariedExperts : public ::testing::TestWithParam<std::string> {
 protected:
  std::filesystem::path write(const std::vector<std::vector<ExportExpert>>& experts,
                              const char* name) const {
    auto path = folder_.path() / name;
    model::testing::write_varied(source_, path, experts, f32);
    return path;
  }
  TemporaryFolder folder_;
  Checkpoint source_ = Checkpoint::open(model::testing::tiny_model(GetParam()));
};

TEST_P(VariedExperts, AddWhatTheirKindsSay) {
  const auto experts = model::testing::every_kind(source_.spec());
  auto zeros = experts;
  for (auto& layer : zeros) {
    for (ExportExpert& expert : layer) expert.shape = {ExpertKind::kZero, 0};
  }
  const auto varied = Checkpoint::open(write(experts, "varied.gguf"));
  const auto nothing = Checkpoint::open(write(zeros, "nothing.gguf"));
  for (std::uint32_t l = 0; l < source_.spec().num_hidden_layers; ++l) {
    if (!source_.spec().is_moe_layer(LayerId{l})) continue;
    // Few tokens take another way through the block than many.
    for (const std::size_t tokens : {1, 7, 40}) {
      InputRecorder input;
      const auto with = layer_output(varied, LayerId{l}, tokens, &input);
      const auto without = layer_output(nothing, LayerId{l}, tokens, nullptr);
      for (std::size_t t = 0; t < tokens; ++t) {
        const auto expected = block_output(source_, LayerId{l}, experts[l], input.rows[t]);
        for (std::size_t i = 0; i < expected.size(); ++i) {
          ASSERT_NEAR(double{with.row(t)[i]} - without.row(t)[i], expected[i], 2e-5)
              << "layer " << l << ", token " << t << ", element " << i;
        }
      }
    }
  }
}

std::vector<float> logits_of(const Checkpoint& checkpoint) {
  Log log;
  Engine engine(checkpoint, {}, log);
  std::vector<TokenId> tokens(24);
  Rng rng(1);
  for (TokenId& token : tokens) token = TokenId{static_cast<std::int32_t>(rng.below(256))};
  KvCache cache = engine.make_cache(tokens.size());
  const SequenceInput input{&cache, tokens};
  const auto hidden = engine.forward(std::span(&input, 1));
  tensor::Matrix<float> logits(hidden.rows, engine.spec().vocab_size);
  engine.logits(hidden, logits.view());
  return {logits.flat().begin(), logits.flat().end()};
}

TEST_P(VariedExperts, AreCopiedAsTheyAre) {
  const auto path = write(model::testing::every_kind(source_.spec()), "varied.gguf");
  const auto varied = Checkpoint::open(path);
  model::ExportOptions options;
  options.codec = [](Role, LayerId) -> const quant::Codec& { return *quant::find_codec("F32"); };
  os::ThreadPool pool(1);
  Log log;
  const auto again = folder_.path() / "again.gguf";
  model::export_model(varied, again, options, pool, log);
  const auto copy = Checkpoint::open(again);
  EXPECT_EQ(copy.spec().varied_experts, varied.spec().varied_experts);
  EXPECT_EQ(copy.spec().source_experts, varied.spec().source_experts);
  EXPECT_EQ(logits_of(copy), logits_of(varied));
}

/// Every expert as it is in the source.
std::vector<std::vector<ExportExpert>> all_experts(const model::ModelSpec& spec) {
  std::vector<std::vector<ExportExpert>> lists(spec.num_hidden_layers);
  for (std::uint32_t l = 0; l < spec.num_hidden_layers; ++l) {
    for (std::uint32_t e = 0; e < spec.num_experts(LayerId{l}); ++e) {
      lists[l].push_back({ExpertId{e}, spec.expert(LayerId{l}, ExpertId{e})});
    }
  }
  return lists;
}

TEST_P(VariedExperts, HaveTheBitsOfAStackWhereTheyAreTheSame) {
  const auto stacked = folder_.path() / "stacked.gguf";
  model::ExportOptions options;
  options.codec = [](Role role, LayerId) -> const quant::Codec& {
    return *quant::find_codec(model::traits(role).per_expert ? "Q8_0" : "F32");
  };
  os::ThreadPool pool(1);
  Log log;
  model::export_model(source_, stacked, options, pool, log);
  const auto single = folder_.path() / "single.gguf";
  model::testing::write_varied(
      source_, single, all_experts(source_.spec()),
      [](Role, LayerId, ExpertId) -> const quant::Codec& { return *quant::find_codec("Q8_0"); });
  EXPECT_EQ(logits_of(Checkpoint::open(single)), logits_of(Checkpoint::open(stacked)));
}

/// The outputs of a layer's experts, slot after slot, each with its expert.
class OutputRecorder final : public Observer {
 public:
  void on_experts(LayerId /*layer*/, const ExpertSlots& slots) override {
    for (std::size_t i = 0; i < slots.experts.size(); ++i) {
      for (std::size_t slot = slots.first[i]; slot < slots.first[i + 1]; ++slot) {
        const auto row = slots.outputs.row(slot);
        outputs.emplace_back(index(slots.experts[i]), std::vector<float>(row.begin(), row.end()));
      }
    }
  }
  std::vector<std::pair<std::uint32_t, std::vector<float>>> outputs;
};

TEST_P(VariedExperts, GiveWhatTheyGiveAmongOthersOfTheirType) {
  constexpr std::size_t kTokens = 30;
  const char* const types[] = {"F32", "Q8_0", "F16", "Q4_0"};
  const auto run = [&](const std::function<const char*(ExpertId)>& type) {
    const auto path = folder_.path() / "some.gguf";
    model::testing::write_varied(source_, path, all_experts(source_.spec()),
                                 [&](Role, LayerId, ExpertId expert) -> const quant::Codec& {
                                   return *quant::find_codec(type(expert));
                                 });
    OutputRecorder recorder;
    layer_output(Checkpoint::open(path), LayerId{0}, kTokens, &recorder);
    return recorder.outputs;
  };
  const auto type_of = [&](ExpertId expert) { return types[index(expert) % std::size(types)]; };
  const auto mixed = run(type_of);
  ASSERT_EQ(mixed.size(), kTokens * source_.spec().moe.top_k);
  for (const char* const type : types) {
    const auto alike = run([&](ExpertId) { return type; });
    for (std::size_t slot = 0; slot < mixed.size(); ++slot) {
      if (type_of(ExpertId{mixed[slot].first}) != type) continue;
      EXPECT_EQ(mixed[slot], alike[slot]) << type << ", slot " << slot;
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Models, VariedExperts, ::testing::Values("plain", "not-renormalised"),
                         model::testing::test_name);

}  // namespace
}  // namespace winnow::engine::varied_experts_test
