// SPDX-FileCopyrightText: The Winnow authors
// SPDX-License-Identifier: Apache-2.0
// Evaluation of tiny models against testdata/metrics/evaluation.json, which make_golden.py there
// computed in float64 without the product's code, and of the bundled model against its golden
// files.
#include "metrics/evaluation.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>

#include "formats/expect_error.h"
#include "os/file.h"
#include "quant/codec.h"

namespace winnow::metrics::evaluation_test {
namespace {

using formats::testing::error_of;
using testing::HasSubstr;

const std::filesystem::path kSource = WINNOW_SOURCE_DIR;

model::Checkpoint tiny(const std::string& name) {
  return model::Checkpoint::open(kSource / "testdata/models" / ("qwen3_moe-" + name));
}

Json read_json(const std::filesystem::path& path) {
  return parse_json(os::read_text_file(path, {1 << 24}), path.string());
}

std::vector<TokenId> token_ids(const Json& list) {
  std::vector<TokenId> ids;
  for (const Json& id : list) ids.push_back(TokenId{id.get<std::int32_t>()});
  return ids;
}

/// The windows of the golden file.
WindowSet golden_windows(const Json& golden) {
  WindowSet set;
  for (const Json& window : golden["windows"]) {
    const auto domain = window["domain"].get<std::string>();
    if (set.domains.empty() || set.domains.back() != domain) set.domains.push_back(domain);
    set.windows.push_back({set.domains.size() - 1, token_ids(window["ids"]), 1});
  }
  return set;
}

/// One window of `length` tokens.
WindowSet some_window(int length) {
  WindowSet set{{"d"}, {{0, {TokenId{271}}, 1}}};
  for (int t = 0; t < length; ++t) set.windows[0].tokens.push_back(TokenId{(7 * t) % 256});
  return set;
}

void expect_close(const Json& ours, const Json& golden, const std::string& where) {
  // Logits differ by less than 2e-5 between F32 and float64 here (testdata/models/README.md), so
  // means and single divergences do; shares are counts and equal.
  for (const auto& [key, value] : golden.items()) {
    ASSERT_TRUE(ours.contains(key)) << where << " " << key;
    const double expected = value.get<double>();
    const bool count = key == "tokens" || key == "top1_agreement" || key == "routing_agreement";
    EXPECT_NEAR(ours[key].get<double>(), expected, (count ? 1e-12 : 4e-5) * std::max(1.0, expected))
        << where << " " << key;
  }
}

class Evaluate : public testing::Test {
 protected:
  Evaluation run(const std::string& model, const std::string& reference, const WindowSet& windows,
                 unsigned threads = 1) {
    engine::Engine first(tiny(model), {threads, ""}, log_);
    if (reference.empty()) return evaluate(first, nullptr, windows, log_);
    engine::Engine second(tiny(reference), {threads, ""}, log_);
    return evaluate(first, &second, windows, log_);
  }
  Log log_;
};

TEST_F(Evaluate, EqualsTheIndependentComputationOfTwoTinyModels) {
  const Json golden = read_json(kSource / "testdata/metrics/evaluation.json");
  const Json ours = to_json(run("sharded", "plain", golden_windows(golden)));
  expect_close(ours, golden["all"], "all");
  for (const auto& [name, scores] : golden["domains"].items()) {
    expect_close(ours["domains"][name], scores, name);
  }
  EXPECT_EQ(ours["domains"].size(), golden["domains"].size());
  const double routing = ours["routing_agreement"];
  EXPECT_GT(routing, 0);
  EXPECT_LT(routing, 1);
}

TEST_F(Evaluate, WithoutAReferenceOnlyTheModelsOwnKeysAreThere) {
  const Json golden = read_json(kSource / "testdata/metrics/evaluation.json");
  const Json json = to_json(run("sharded", "", golden_windows(golden)));
  EXPECT_NEAR(json["nll"].get<double>(), golden["all"]["nll"].get<double>(), 2e-5);
  EXPECT_DOUBLE_EQ(json["perplexity"].get<double>(), std::exp(json["nll"].get<double>()));
  for (const char* key : {"kl_divergence", "kl_p99", "esap", "routing_agreement"}) {
    EXPECT_FALSE(json.contains(key)) << key;
  }
}

TEST_F(Evaluate, AModelIsAtNoDistanceFromItself) {
  const Evaluation evaluation = run("plain", "plain", some_window(60));
  EXPECT_EQ(evaluation.all.kl_divergence, 0.0);
  EXPECT_EQ(evaluation.all.kl_p99, 0.0);
  EXPECT_EQ(evaluation.all.kl_standard_error, 0.0);
  EXPECT_EQ(evaluation.all.top1_agreement, 1.0);
  EXPECT_EQ(evaluation.all.routing_agreement, 1.0);
  EXPECT_EQ(evaluation.all.esap, 1.0);
}

TEST_F(Evaluate, IsTheSameBitForBitWithAnyNumberOfThreads) {
  const WindowSet windows = some_window(100);
  const Json one = to_json(run("sharded", "plain", windows, 1));
  EXPECT_EQ(to_json(run("sharded", "plain", windows, 3)), one);
}

TEST_F(Evaluate, PoolsTheTokensOfAllDomains) {
  const Json golden = read_json(kSource / "testdata/metrics/evaluation.json");
  const Evaluation evaluation = run("sharded", "plain", golden_windows(golden));
  double nll = 0;
  std::uint64_t tokens = 0;
  for (const auto& [name, scores] : evaluation.domains) {
    nll += scores.nll * static_cast<double>(scores.tokens);
    tokens += scores.tokens;
  }
  EXPECT_EQ(evaluation.all.tokens, tokens);
  EXPECT_NEAR(evaluation.all.nll, nll / static_cast<double>(tokens), 1e-12);
}

TEST_F(Evaluate, ModelsWithExpertsInOtherLayersAreComparedWithoutRouting) {
  // plain has experts in layers 0 and 1, sparse-step-2 in layer 1 of three.
  for (const auto& [model, reference] :
       {std::pair("sparse-step-2", "plain"), std::pair("plain", "sparse-step-2")}) {
    const Evaluation evaluation = run(model, reference, some_window(20));
    EXPECT_FALSE(evaluation.has_routing);
    EXPECT_FALSE(to_json(evaluation).contains("routing_agreement"));
    EXPECT_GT(evaluation.all.kl_divergence, 0);
  }
}

TEST_F(Evaluate, DomainsWithoutAScoredTokenAreLeftOut) {
  WindowSet windows = some_window(10);
  windows.domains.emplace_back("unread");
  const Evaluation evaluation = run("plain", "", windows);
  ASSERT_EQ(evaluation.domains.size(), 1U);
  EXPECT_EQ(evaluation.domains[0].first, "d");
}

TEST_F(Evaluate, RefusesAnotherVocabulary) {
  engine::Engine small(tiny("plain"), {1, ""}, log_);
  engine::Engine grain(model::Checkpoint::open(kSource / "models/grain"), {2, ""}, log_);
  const std::string message = error_of([&] { evaluate(small, &grain, some_window(3), log_); });
  EXPECT_THAT(message, HasSubstr("4096"));
  EXPECT_THAT(message, HasSubstr("272"));
}

TEST_F(Evaluate, RefusesLogitsThatAreNotFinite) {
  engine::Engine engine(tiny("not-renormalised"), {1, ""}, log_);
  const std::vector<float> damaged(
      std::size_t{engine.spec().vocab_size} * engine.spec().hidden_size, INFINITY);
  engine.override_weights(
      model::Role::kOutput, {},
      {{quant::find_codec("F32"), reinterpret_cast<const std::byte*>(damaged.data()),
        engine.spec().vocab_size, engine.spec().hidden_size}});
  EXPECT_THAT(error_of([&] { evaluate(engine, nullptr, some_window(3), log_); }),
              HasSubstr("not finite"));
}

/// Asks to stop after some calls.
class StoppingLog final : public Log {
 public:
  explicit StoppingLog(int calls) : left_(calls) {}
  bool stop_requested() const override { return left_-- <= 0; }

 private:
  mutable int left_;
};

TEST_F(Evaluate, StopsBetweenWindowsWhenAsked) {
  engine::Engine engine(tiny("plain"), {1, ""}, log_);
  WindowSet windows = some_window(3);
  windows.windows.resize(5, windows.windows[0]);
  StoppingLog log(2);
  error_of([&] { evaluate(engine, nullptr, windows, log); }, ErrorCode::kInterrupted);
}

TEST_F(Evaluate, StandardErrorIsThatOfARatioOfWindowSums) {
  // Against the formula on windows evaluated one at a time.
  const Json golden = read_json(kSource / "testdata/metrics/evaluation.json");
  const WindowSet all = golden_windows(golden);
  std::vector<double> sums;
  std::vector<double> tokens;
  for (const Window& window : all.windows) {
    const Scores scores = run("plain", "", {all.domains, {window}}).all;
    EXPECT_EQ(scores.nll_standard_error, 0.0);  // one window says nothing of the spread
    tokens.push_back(static_cast<double>(scores.tokens));
    sums.push_back(scores.nll * tokens.back());
  }
  const double n = tokens[0] + tokens[1] + tokens[2];
  const double mean = (sums[0] + sums[1] + sums[2]) / n;
  double squares = 0;
  for (std::size_t w = 0; w < 3; ++w) squares += std::pow(sums[w] - mean * tokens[w], 2);
  EXPECT_NEAR(run("plain", "", all).all.nll_standard_error, std::sqrt(squares * 3 / 2) / n, 1e-12);
}

/// What one model gives for one window: logits [tokens, vocab] and the chosen experts.
struct Outputs final : engine::Observer {
  void on_routing(LayerId, tensor::MatrixView<const float>,
                  const engine::RoutingView& routing) override {
    chosen.emplace_back(routing.experts.begin(), routing.experts.end());
  }
  tensor::Matrix<float> logits;
  std::vector<std::vector<ExpertId>> chosen;  // [layer][token * top_k]
};

Outputs outputs_of(engine::Engine& engine, const Window& window) {
  Outputs outputs;
  engine::KvCache cache = engine.make_cache(window.tokens.size());
  const engine::SequenceInput input{&cache, window.tokens};
  const auto hidden = engine.forward(std::span(&input, 1), &outputs);
  outputs.logits = tensor::Matrix<float>(hidden.rows, engine.spec().vocab_size);
  engine.logits(hidden, outputs.logits.view());
  return outputs;
}

double naive_kl(std::span<const float> reference, std::span<const float> model) {
  double z_p = 0;
  double z_q = 0;
  for (const float logit : reference) z_p += std::exp(double{logit});
  for (const float logit : model) z_q += std::exp(double{logit});
  double kl = 0;
  for (std::size_t v = 0; v < model.size(); ++v) {
    const double p = std::exp(double{reference[v]}) / z_p;
    kl += p * std::log(p / (std::exp(double{model[v]}) / z_q));
  }
  return kl;
}

TEST_F(Evaluate, APerturbedGrainIsMeasuredAsItsLogitsAndRoutesSay) {
  const auto checkpoint = model::Checkpoint::open(kSource / "models/grain");
  engine::Engine reference(checkpoint, {2, ""}, log_);
  engine::Engine model(checkpoint, {2, ""}, log_);
  // The attention output of layer 0 in about two bits a weight.
  const auto role = model::Role::kAttentionOutput;
  const model::TensorRef ref = checkpoint.at(role);
  const quant::Codec& codec = *quant::find_codec("Q2_K");
  std::vector<float> weights(ref.rows * ref.cols);
  checkpoint.read_floats(ref, 0, ref.rows, weights);
  std::vector<std::byte> packed(weights.size() / codec.block_size * codec.block_bytes);
  codec.encode(weights.data(), weights.size() / codec.block_size, nullptr, packed.data());
  model.override_weights(role, {}, {{&codec, packed.data(), ref.rows, ref.cols}});

  const Json golden = read_json(kSource / "models/grain/golden/windows.json")["windows"];
  WindowSet set{{"both"}, {}};
  for (const auto& [domain, length] : {std::pair("cpp", 70), std::pair("german", 41)}) {
    auto ids = token_ids(golden[domain]["ids"]);
    ids.resize(static_cast<std::size_t>(length));
    set.windows.push_back({0, ids, 1});
  }
  std::vector<double> kls;
  double same_top = 0;
  double routing = 0;
  for (const Window& window : set.windows) {
    const Outputs ours = outputs_of(model, window);
    const Outputs theirs = outputs_of(reference, window);
    for (std::size_t t = 0; t + 1 < window.tokens.size(); ++t) {
      const auto q = ours.logits.row(t);
      const auto p = theirs.logits.row(t);
      kls.push_back(naive_kl(p, q));
      same_top += std::max_element(p.begin(), p.end()) - p.begin() ==
                  std::max_element(q.begin(), q.end()) - q.begin();
      for (std::size_t layer = 0; layer < 6; ++layer) {
        for (std::size_t a = 4 * t; a < 4 * t + 4; ++a) {
          for (std::size_t b = 4 * t; b < 4 * t + 4; ++b) {
            routing += ours.chosen[layer][a] == theirs.chosen[layer][b] ? 1.0 / 24 : 0;
          }
        }
      }
    }
  }
  const auto tokens = static_cast<double>(kls.size());
  ASSERT_EQ(kls.size(), 109U);
  double sum = 0;
  for (const double kl : kls) sum += kl;
  std::sort(kls.begin(), kls.end());

  const Scores scores = evaluate(model, &reference, set, log_).all;
  EXPECT_NEAR(scores.kl_divergence, sum / tokens, 1e-10);
  // ceil(0.99 * 109) = 108th smallest; it is kept in F32.
  EXPECT_NEAR(scores.kl_p99, kls[107], 1e-7 * kls[107]);
  EXPECT_NEAR(scores.top1_agreement, same_top / tokens, 1e-12);
  EXPECT_NEAR(scores.routing_agreement, routing / tokens, 1e-12);
  EXPECT_GT(scores.routing_agreement, 0.5);
  EXPECT_LT(scores.routing_agreement, 1);
  EXPECT_LT(scores.top1_agreement, 1);
  EXPECT_GT(scores.kl_divergence, 0);
}

TEST_F(Evaluate, RoutesThatAPolicySkipsAreNotShared) {
  engine::Engine reference(tiny("plain"), {1, ""}, log_);
  engine::Engine model(tiny("plain"), {1, ""}, log_);
  engine::RoutingPolicy policy;
  policy.skip_ratios = {0, 1};  // the second layer alone, whose input stays what it was
  model.set_routing_policy(policy);
  // Both experts of the first layer, and one of two of the second.
  EXPECT_EQ(evaluate(model, &reference, some_window(40), log_).all.routing_agreement, 0.75);
}

}  // namespace
}  // namespace winnow::metrics::evaluation_test
