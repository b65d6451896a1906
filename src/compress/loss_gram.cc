// SPDX-FileCopyrightText: The Winnow authors
// SPDX-License-Identifier: Apache-2.0
#include "compress/loss_gram.h"

#include <algorithm>
#include <array>
#include <optional>

#include "base/error.h"
#include "compress/slot_experts.h"

namespace winnow::compress {
namespace {

using Kind = LossGram::Kind;
using Loss = LossGram::Loss;

constexpr std::array kKinds = {Kind::kZero, Kind::kIdentity, Kind::kConstant};

class GramCollector final : public engine::Observer {
 public:
  GramCollector(std::span<const std::vector<float>> constants, LossGram& gram)
      : constants_(constants), gram_(gram) {}
  bool wants_expert_inputs() const override { return false; }
  void on_experts(LayerId /*layer*/, const engine::ExpertSlots& slots) override {
    const std::vector<ExpertId> experts = experts_of_slots(slots);
    const std::size_t tokens = slots.slot_of.size() / slots.top_k;
    for (std::size_t t = 0; t < tokens; ++t) {
      add_token(slots, experts, slots.slot_of.subspan(t * slots.top_k, slots.top_k),
                slots.inputs.row(t));
    }
    tokens_ += tokens;
  }
  std::uint64_t tokens() const { return tokens_; }

 private:
  /// A loss is g (f - s): the vectors are the outputs f, the constants of the same experts, and x.
  void add_token(const engine::ExpertSlots& slots, std::span<const ExpertId> experts,
                 std::span<const std::uint32_t> chosen, std::span<const float> input) {
    const std::size_t k = chosen.size();
    vectors_.clear();
    terms_.clear();
    for (std::size_t c = 0; c < k; ++c) {
      const ExpertId expert = experts[chosen[c]];
      const double weight = slots.weights[chosen[c]];
      vectors_.push_back(slots.outputs.row(chosen[c]));
      terms_.push_back({{expert, Kind::kZero}, weight, c, std::nullopt});
      terms_.push_back({{expert, Kind::kIdentity}, weight, c, 2 * k});
      terms_.push_back({{expert, Kind::kConstant}, weight, c, k + c});
    }
    for (const std::uint32_t slot : chosen) vectors_.push_back(constants_[index(experts[slot])]);
    vectors_.push_back(input);
    multiply_vectors();
    for (const Term& a : terms_) {
      for (const Term& b : terms_) gram_.add(a.loss, b.loss, a.weight * b.weight * product(a, b));
    }
  }

  /// g (f - s), f and s being places among the vectors; without s nothing stands there.
  struct Term {
    Loss loss;
    double weight;
    std::size_t output;
    std::optional<std::size_t> instead;
  };
  double product(const Term& a, const Term& b) const {
    double sum = dot(a.output, b.output);
    if (a.instead) sum -= dot(*a.instead, b.output);
    if (b.instead) sum -= dot(a.output, *b.instead);
    if (a.instead && b.instead) sum += dot(*a.instead, *b.instead);
    return sum;
  }

  void multiply_vectors() {
    const std::size_t n = vectors_.size();
    dots_.assign(n * n, 0);
    for (std::size_t a = 0; a < n; ++a) {
      for (std::size_t b = 0; b <= a; ++b) {
        double sum = 0;
        for (std::size_t j = 0; j < vectors_[a].size(); ++j) {
          sum += double{vectors_[a][j]} * double{vectors_[b][j]};
        }
        dots_[a * n + b] = dots_[b * n + a] = sum;
      }
    }
  }
  double dot(std::size_t a, std::size_t b) const { return dots_[a * vectors_.size() + b]; }

  std::span<const std::vector<float>> constants_;
  LossGram& gram_;
  std::uint64_t tokens_ = 0;
  std::vector<std::span<const float>> vectors_;  // of one token
  std::vector<double> dots_;                     // among them
  std::vector<Term> terms_;
};

}  // namespace

bool LossGram::covers(Kind kind) {
  return std::find(kKinds.begin(), kKinds.end(), kind) != kKinds.end();
}

std::size_t LossGram::place(const Loss& loss) const {
  const auto kind = std::find(kKinds.begin(), kKinds.end(), loss.kind);
  WINNOW_CHECK(kind != kKinds.end() && index(loss.expert) < experts_);
  return static_cast<std::size_t>(kind - kKinds.begin()) * experts_ + index(loss.expert);
}

void LossGram::scale(double factor) {
  for (double& value : gram_.flat()) value *= factor;
}

double LossGram::squared_change(std::span<const Loss> set) const {
  double sum = 0;
  for (const Loss& a : set) {
    for (const Loss& b : set) sum += at(a, b);
  }
  return sum;
}

LossGram collect_losses(engine::LayerRunner& runner, const model::ModelSpec& spec, LayerId layer,
                        std::span<const std::vector<float>> constants, const WindowStream& text,
                        Log& log) {
  LossGram gram(spec.num_experts(layer));
  WINNOW_CHECK(constants.size() == gram.experts());
  GramCollector collector(constants, gram);
  text.observe(runner, collector, log);
  gram.scale(1.0 / static_cast<double>(std::max<std::uint64_t>(collector.tokens(), 1)));
  return gram;
}

}  // namespace winnow::compress
