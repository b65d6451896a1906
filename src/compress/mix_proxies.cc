// SPDX-FileCopyrightText: The Winnow authors
// SPDX-License-Identifier: Apache-2.0
#include "compress/mix_proxies.h"

#include <algorithm>
#include <cmath>
#include <functional>
#include <utility>

#include "base/error.h"
#include "compress/allocation.h"
#include "compress/collect_moments.h"

namespace winnow::compress {
namespace {

// The sample of a group: so many rows, of at most so many matrices.
constexpr std::size_t kProxyRows = 256;
constexpr std::size_t kParts = 32;

/// The i-th of `count` places spread evenly over `total`.
std::size_t place(std::size_t i, std::size_t count, std::size_t total) { return i * total / count; }

/// Sums over some rows of one matrix.
class RowSums {
 public:
  RowSums(GroupFacts& facts, const TensorGroup& group, std::span<const double> squares)
      : facts_(facts), group_(group), squares_(squares), decoded_(group.cols) {}

  void add(std::span<const float> row, double scale) {
    facts_.output_power += scale * weighted(row, row);
    for (std::size_t o = 0; o < group_.options.size(); ++o) {
      const quant::Codec& codec = *group_.options[o].codec;
      const std::size_t blocks = row.size() / codec.block_size;
      bytes_.resize(blocks * codec.block_bytes);
      codec.encode(row.data(), blocks, nullptr, bytes_.data());
      codec.decode(bytes_.data(), blocks, decoded_.data());
      for (std::size_t j = 0; j < row.size(); ++j) decoded_[j] -= row[j];
      for (const float difference : decoded_) {
        facts_.weight_errors[o] += scale * double{difference} * double{difference};
      }
      facts_.output_errors[o] += scale * weighted(decoded_, decoded_);
    }
  }

 private:
  double weighted(std::span<const float> a, std::span<const float> b) const {
    double sum = 0;
    for (std::size_t j = 0; j < a.size(); ++j) sum += squares_[j] * double{a[j]} * double{b[j]};
    return sum;
  }

  GroupFacts& facts_;
  const TensorGroup& group_;
  std::span<const double> squares_;  // of each input, summed over the text
  std::vector<std::byte> bytes_;
  std::vector<float> decoded_;
};

/// A table from damage(group, option).
DamageTable table_of(std::span<const TensorGroup> groups,
                     const std::function<double(std::size_t, std::size_t)>& damage) {
  DamageTable table;
  for (std::size_t g = 0; g < groups.size(); ++g) {
    table.emplace_back();
    for (std::size_t o = 0; o < groups[g].options.size(); ++o) {
      table.back().push_back(damage(g, o));
    }
  }
  return table;
}

double ratio(double value, double whole) { return whole > 0 ? value / whole : 0; }

/// Least error of an option above nothing; 0 where no option errs.
double finest_error(const TensorGroup& group) {
  double least = 0;
  for (const GroupOption& option : group.options) {
    if (option.error > 0 && (least == 0 || option.error < least)) least = option.error;
  }
  return least;
}

/// On the text that PMQ's facts are measured on.
InputMoments measure_moments(const AllocationContext& context) {
  const metrics::WindowSet text = pmq_text(context);
  const WindowBatches batches(text.windows, MemoryPlan::kBatchTokens);
  const auto states = context.memory.sweep_states ? context.tools.folder / "states-experts"
                                                  : std::filesystem::path();
  return collect_moments(context.tools.runner, context.tools.source.spec(), batches, states,
                         EncoderKind::kOwn, context.tools.log);
}

}  // namespace

GroupFacts measure_facts(const PackerContext& context, const TensorGroup& group,
                         const InputMoments& moments) {
  GroupFacts facts;
  facts.weight_errors.resize(group.options.size());
  facts.output_errors.resize(group.options.size());
  const std::size_t parts = std::min(group.parts, kParts);
  const std::size_t rows = std::min(group.rows, std::max<std::size_t>(kProxyRows / parts, 1));
  const double scale =
      static_cast<double>(group.parts * group.rows) / static_cast<double>(parts * rows);
  std::vector<float> row(group.cols);
  for (std::uint32_t part = 0; part < group.parts; ++part) {
    const std::vector<double> squares = moments.sums(group.role, group.layer, ExpertId{part});
    for (const double square : squares) {
      facts.input_power += square / static_cast<double>(group.cols);
    }
  }
  for (std::size_t p = 0; p < parts; ++p) {
    context.log.check_interrupt();
    const ExpertId expert{static_cast<std::uint32_t>(place(p, parts, group.parts))};
    const std::vector<double> squares = moments.sums(group.role, group.layer, expert);
    const model::TensorRef ref = context.source.at(group.role, group.layer, expert);
    RowSums sums(facts, group, squares);
    for (std::size_t r = 0; r < rows; ++r) {
      context.source.read_floats(ref, place(r, rows, group.rows), 1, row);
      sums.add(row, scale);
    }
  }
  for (std::size_t o = 0; o < group.options.size(); ++o) {
    if (!is_stored_as(context.source, group, *group.options[o].codec)) continue;
    facts.weight_errors[o] = facts.output_errors[o] = 0;
  }
  return facts;
}

std::vector<Proxy> make_proxies(std::span<const TensorGroup> groups, const ProxyInputs& inputs) {
  std::uint64_t weights = 0;
  for (const TensorGroup& group : groups) weights += group.weights;
  const auto share = [&](std::size_t g) {
    return static_cast<double>(groups[g].weights) / static_cast<double>(weights);
  };
  std::vector<Proxy> proxies;
  const auto add = [&](const char* name, const auto& damage) {
    proxies.push_back({name, table_of(groups, damage)});
  };
  add("slopes", [&](auto g, auto o) { return groups[g].options[o].predicted_kl; });
  add("squared_error", [&](auto g, auto o) { return groups[g].options[o].error; });
  add("relative_error", [&](auto g, auto o) {
    return ratio(groups[g].options[o].error, inputs.facts[g].output_power);
  });
  add("pmq", [&](auto g, auto o) {
    if (!inputs.pmq[g].empty()) return inputs.pmq[g][o];
    return std::pow(inputs.facts[g].output_errors[o], inputs.gamma / 2);
  });
  add("hessian_trace", [&](auto g, auto o) {
    return inputs.facts[g].input_power / static_cast<double>(groups[g].parts) *
           inputs.facts[g].weight_errors[o];
  });
  add("log_error", [&](auto g, auto o) {
    return share(g) * std::log1p(ratio(groups[g].options[o].error, finest_error(groups[g])));
  });
  add("bits", [&](auto g, auto o) {
    return share(g) * std::pow(4.0, -groups[g].options[o].codec->bits_per_weight());
  });
  return proxies;
}

AllocationResult choose_ranked(const AllocationContext& context) {
  ProxyInputs inputs;
  inputs.gamma = context.options.pmq.gamma;
  const InputMoments moments = measure_moments(context);
  for (std::size_t g = 0; g < context.groups.size(); ++g) {
    inputs.facts.push_back(measure_facts(context.tools, context.groups[g], moments));
    context.tools.log.progress("measuring proxies", g + 1, context.groups.size(), "tensor groups");
  }
  // A model without experts has rows of its other groups alone.
  inputs.pmq = pmq_damages(context.groups, pmq_errors(context), context.options.pmq);
  const RankedChoice choice = choose_by_proxy(
      context.problem, make_proxies(context.groups, inputs),
      [&](std::span<const Mix> mixes) { return context.measurer->measure(mixes); },
      context.options.ranking, context.tools.log);
  AllocationResult result;
  result.mix = choice.mix;
  result.record["ranking"] = to_json(choice, context.options.ranking);
  return result;
}

}  // namespace winnow::compress
