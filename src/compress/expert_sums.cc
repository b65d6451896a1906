// SPDX-FileCopyrightText: The Winnow authors
// SPDX-License-Identifier: Apache-2.0
#include "compress/expert_sums.h"

#include <algorithm>
#include <cmath>

#include "compress/slot_experts.h"
#include "compress/squared_sums.h"

namespace winnow::compress {
namespace {

double dot(std::span<const float> a, std::span<const float> b) {
  double sum = 0;
  for (std::size_t j = 0; j < a.size(); ++j) sum += double{a[j]} * double{b[j]};
  return sum;
}

/// log of the sum of exp(scores), but for one of them; `without` may be none.
double log_sum_without(std::span<const double> scores, std::size_t without) {
  double most = -INFINITY;
  for (std::size_t i = 0; i < scores.size(); ++i) {
    if (i != without) most = std::max(most, scores[i]);
  }
  double sum = 0;
  for (std::size_t i = 0; i < scores.size(); ++i) {
    if (i != without) sum += std::exp(scores[i] - most);
  }
  return most + std::log(sum);
}

}  // namespace

struct ExpertSumCollector::Token {
  std::span<const ExpertId> experts;            // [chosen], best first
  std::vector<std::span<const float>> outputs;  // [chosen]
  std::span<const float> input;
  std::size_t top_k;  // how many of them the model chooses
};

ExpertSumCollector::ExpertSumCollector(const model::MoeSpec& moe, std::size_t num_experts,
                                       std::size_t hidden_size)
    : moe_(moe) {
  sums_.experts.resize(num_experts);
  for (ExpertSums& expert : sums_.experts) expert.outputs.resize(hidden_size);
}

void ExpertSumCollector::add_outputs(const Token& token, std::size_t choice) {
  ExpertSums& sums = sums_.experts[index(token.experts[choice])];
  const double square = weights_[choice] * weights_[choice];
  const std::span<const float> output = token.outputs[choice];
  ++sums.tokens;
  sums.squared_weights += square;
  sums.squared_outputs += square * gram_[choice * token.outputs.size() + choice];
  sums.squared_residuals += square * squared_distance(output, token.input);
  float largest = 0;
  for (std::size_t j = 0; j < output.size(); ++j) {
    sums.outputs[j] += square * double{output[j]};
    largest = std::max(largest, std::fabs(output[j]));
  }
  sums.largest_output = std::max(sums.largest_output, double{largest});
}

/// Without choice j the weights of the others become those of the softmax without its score. From
/// the logits: where one expert has all of the weight in f32, nothing is left of the others'.
void ExpertSumCollector::add_reroutes(const Token& token, std::span<const double> scores) {
  const std::size_t chosen = token.outputs.size();
  std::vector<double> change(chosen);
  std::vector<double> among(chosen);
  for (std::size_t i = 0; i < chosen; ++i) among[i] = scores[index(token.experts[i])];
  for (std::size_t j = 0; j < token.top_k; ++j) {
    double& sum = sums_.experts[index(token.experts[j])].squared_reroutes;
    if (chosen == token.top_k) {
      sum = INFINITY;
      continue;
    }
    const double normaliser = moe_.renormalize_top_k
                                  ? log_sum_without(among, j)
                                  : log_sum_without(scores, index(token.experts[j]));
    for (std::size_t i = 0; i < chosen; ++i) {
      const double before = i < token.top_k ? weights_[i] : 0;
      change[i] = (i == j ? 0 : std::exp(among[i] - normaliser)) - before;
    }
    double square = 0;
    for (std::size_t a = 0; a < chosen; ++a) {
      for (std::size_t b = 0; b < chosen; ++b) {
        square += change[a] * change[b] * gram_[a * chosen + b];
      }
    }
    sum += std::max(square, 0.0);
  }
}

/// Of a softmax that is not renormalised every expert has a share, which the others get when it
/// goes: a token's output grows with them, whether it is sent there or not.
void ExpertSumCollector::add_lost_shares(const Token& token, std::span<const double> scores) {
  const std::size_t chosen = token.outputs.size();
  double output = 0;  // squared
  for (std::size_t a = 0; a < token.top_k; ++a) {
    for (std::size_t b = 0; b < token.top_k; ++b) {
      output += weights_[a] * weights_[b] * gram_[a * chosen + b];
    }
  }
  const auto sent = token.experts.first(token.top_k);
  const double normaliser = log_sum_without(scores, scores.size());
  for (std::size_t e = 0; e < scores.size(); ++e) {
    if (std::find(sent.begin(), sent.end(), ExpertId{static_cast<std::uint32_t>(e)}) !=
        sent.end()) {
      continue;
    }
    const double share = std::exp(scores[e] - normaliser);  // at most 1/2: others are chosen
    const double growth = share / (1.0 - share);
    sums_.experts[e].squared_reroutes += growth * growth * std::max(output, 0.0);
  }
}

void ExpertSumCollector::on_routing(LayerId /*layer*/, tensor::MatrixView<const float> logits,
                                    const engine::RoutingView& /*routing*/) {
  scores_.reshape(logits.rows, logits.cols);
  for (std::size_t t = 0; t < logits.rows; ++t) {
    const auto row = logits.row(t);
    std::copy(row.begin(), row.end(), scores_.row(t).begin());
  }
}

void ExpertSumCollector::on_experts(LayerId /*layer*/, const engine::ExpertSlots& slots) {
  const std::size_t chosen = slots.top_k;
  const std::size_t tokens = slots.slot_of.size() / chosen;
  const std::vector<ExpertId> of_slot = experts_of_slots(slots);
  std::vector<ExpertId> experts(chosen);
  Token token{experts, {}, {}, std::min<std::size_t>(moe_.top_k, chosen)};
  for (std::size_t t = 0; t < tokens; ++t) {
    weights_.clear();
    token.outputs.clear();
    token.input = slots.inputs.row(t);
    for (std::size_t c = 0; c < chosen; ++c) {
      const std::uint32_t slot = slots.slot_of[t * chosen + c];
      experts[c] = of_slot[slot];
      weights_.push_back(double{slots.weights[slot]});
      token.outputs.push_back(slots.outputs.row(slot));
    }
    if (moe_.renormalize_top_k) {
      double sum = 0;
      for (std::size_t c = 0; c < token.top_k; ++c) sum += weights_[c];
      for (double& weight : weights_) weight /= sum;
    }
    gram_.assign(chosen * chosen, 0);
    for (std::size_t a = 0; a < chosen; ++a) {
      for (std::size_t b = 0; b <= a; ++b) {
        gram_[a * chosen + b] = gram_[b * chosen + a] = dot(token.outputs[a], token.outputs[b]);
      }
    }
    for (std::size_t c = 0; c < token.top_k; ++c) add_outputs(token, c);
    add_reroutes(token, scores_.row(t));
    if (!moe_.renormalize_top_k) add_lost_shares(token, scores_.row(t));
  }
  sums_.tokens += tokens;
}

LayerSums collect_expert_sums(engine::LayerRunner& runner, const model::ModelSpec& spec,
                              LayerId layer, const WindowStream& text, Log& log) {
  const std::uint32_t experts = spec.num_experts(layer);
  ExpertSumCollector collector(spec.moe, experts, spec.hidden_size);
  runner.override_top_k(std::min(spec.moe.top_k + 1, experts));
  text.observe(runner, collector, log);
  runner.restore_weights();
  return collector.sums();
}

}  // namespace winnow::compress
