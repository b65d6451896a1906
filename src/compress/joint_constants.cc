// SPDX-FileCopyrightText: The Winnow authors
// SPDX-License-Identifier: Apache-2.0
#include "compress/joint_constants.h"

#include <algorithm>
#include <utility>

#include "base/error.h"
#include "compress/linear_algebra.h"
#include "compress/slot_experts.h"
#include "engine/observer.h"

namespace winnow::compress {
namespace {

class ConstantsCollector final : public engine::Observer {
 public:
  ConstantsCollector(std::size_t num_experts, std::size_t hidden_size,
                     std::vector<ExpertId> constants, std::span<const ExpertId> zeros)
      : place_(num_experts, kKept), loss_(hidden_size) {
    for (const ExpertId expert : zeros) place_[index(expert)] = kZero;
    for (std::size_t p = 0; p < constants.size(); ++p) {
      place_[index(constants[p])] = static_cast<int>(p);
    }
    sums_.weights = tensor::Matrix<double>(constants.size(), constants.size());
    sums_.outputs = tensor::Matrix<double>(constants.size(), hidden_size);
    sums_.experts = std::move(constants);
  }
  bool wants_expert_inputs() const override { return false; }
  void on_experts(LayerId /*layer*/, const engine::ExpertSlots& slots) override {
    const std::vector<ExpertId> experts = experts_of_slots(slots);
    for (std::size_t at = 0; at < slots.slot_of.size(); at += slots.top_k) {
      add_token(slots, experts, slots.slot_of.subspan(at, slots.top_k));
    }
  }
  JointSums take() { return std::move(sums_); }

 private:
  static constexpr int kKept = -1, kZero = -2;

  void add_token(const engine::ExpertSlots& slots, std::span<const ExpertId> experts,
                 std::span<const std::uint32_t> chosen) {
    std::fill(loss_.begin(), loss_.end(), 0.0);
    constants_.clear();
    for (const std::uint32_t slot : chosen) {
      const int place = place_[index(experts[slot])];
      if (place == kKept) continue;
      const double weight = slots.weights[slot];
      const auto output = slots.outputs.row(slot);
      for (std::size_t j = 0; j < loss_.size(); ++j) loss_[j] += weight * double{output[j]};
      if (place >= 0) constants_.emplace_back(static_cast<std::size_t>(place), weight);
    }
    for (const double value : loss_) sums_.squared_losses += value * value;
    for (const auto& [p, of_p] : constants_) {
      for (const auto& [q, of_q] : constants_) sums_.weights.row(p)[q] += of_p * of_q;
      const auto row = sums_.outputs.row(p);
      for (std::size_t j = 0; j < row.size(); ++j) row[j] += of_p * loss_[j];
    }
  }

  std::vector<int> place_;  // [experts]: in P, or what else becomes of it
  JointSums sums_;
  std::vector<double> loss_;                               // of one token, [hidden_size]
  std::vector<std::pair<std::size_t, double>> constants_;  // of one token: places in P, weights
};

}  // namespace

JointSums collect_joint_sums(engine::LayerRunner& runner, const model::ModelSpec& spec,
                             std::vector<ExpertId> constants, std::span<const ExpertId> zeros,
                             const WindowStream& text, Log& log) {
  ConstantsCollector collector(spec.moe.num_experts, spec.hidden_size, std::move(constants), zeros);
  text.observe(runner, collector, log);
  return collector.take();
}

std::vector<std::vector<float>> joint_constants(const JointSums& sums,
                                                std::span<const std::vector<float>> single,
                                                double damping) {
  WINNOW_CHECK(single.size() == sums.experts.size());
  std::vector<std::vector<float>> constants(single.begin(), single.end());
  std::vector<std::size_t> used;
  for (std::size_t p = 0; p < single.size(); ++p) {
    if (sums.weights.row(p)[p] > 0) used.push_back(p);
  }
  if (used.empty()) return constants;
  tensor::Matrix<double> system(used.size(), used.size());
  tensor::Matrix<double> right(used.size(), sums.outputs.cols());
  for (std::size_t i = 0; i < used.size(); ++i) {
    const auto weights = sums.weights.row(used[i]);
    for (std::size_t j = 0; j < used.size(); ++j) system.row(i)[j] = weights[used[j]];
    const double ridge = damping * weights[used[i]];
    system.row(i)[i] += ridge;
    for (std::size_t c = 0; c < right.cols(); ++c) {
      right.row(i)[c] = sums.outputs.row(used[i])[c] + ridge * double{single[used[i]][c]};
    }
  }
  const auto solution = solve_symmetric(std::as_const(system).view(), std::as_const(right).view());
  if (!solution) return constants;  // without a ridge, experts that always go together
  for (std::size_t i = 0; i < used.size(); ++i) {
    const auto row = solution->row(i);
    std::transform(row.begin(), row.end(), constants[used[i]].begin(),
                   [](double value) { return static_cast<float>(value); });
  }
  return constants;
}

double squared_change(const JointSums& sums, std::span<const std::vector<float>> constants) {
  WINNOW_CHECK(constants.size() == sums.experts.size());
  double change = sums.squared_losses;
  for (std::size_t p = 0; p < constants.size(); ++p) {
    const auto outputs = sums.outputs.row(p);
    for (std::size_t c = 0; c < outputs.size(); ++c) {
      change -= 2 * double{constants[p][c]} * outputs[c];
    }
    for (std::size_t q = 0; q < constants.size(); ++q) {
      double product = 0;
      for (std::size_t c = 0; c < outputs.size(); ++c) {
        product += double{constants[p][c]} * double{constants[q][c]};
      }
      change += sums.weights.row(p)[q] * product;
    }
  }
  return change;
}

}  // namespace winnow::compress
