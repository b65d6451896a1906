// SPDX-FileCopyrightText: The Winnow authors
// SPDX-License-Identifier: Apache-2.0
#include "compress/other_text.h"

#include <map>
#include <tuple>
#include <utility>

#include "base/error.h"

namespace winnow::compress {
namespace {

/// Of values that belong together, each moved towards their mean. What costs nothing, a copy, costs
/// no text anything.
class Mean {
 public:
  void add(double value) {
    sum_ += value;
    if (value > 0) ++count_;
  }
  double mixed_with(double value, double share) const {
    if (!(value > 0)) return value;
    return (1 - share) * value + share * sum_ / static_cast<double>(count_);
  }

 private:
  double sum_ = 0;
  std::size_t count_ = 0;
};

}  // namespace

DamageTable with_other_text(const DamageTable& damages, std::span<const TensorGroup> groups,
                            double share) {
  WINNOW_CHECK(damages.size() == groups.size());
  const auto key = [](const TensorGroup& group) {
    return std::tuple(group.layer, group.role, group.width);
  };
  std::map<std::tuple<LayerId, model::Role, std::uint32_t>, std::vector<Mean>> means;
  for (std::size_t g = 0; g < groups.size(); ++g) {
    if (!groups[g].only) continue;
    std::vector<Mean>& of_options = means[key(groups[g])];
    if (of_options.empty()) of_options.resize(damages[g].size());
    WINNOW_CHECK(of_options.size() == damages[g].size());
    for (std::size_t o = 0; o < damages[g].size(); ++o) of_options[o].add(damages[g][o]);
  }
  DamageTable mixed = damages;
  for (std::size_t g = 0; g < groups.size(); ++g) {
    if (!groups[g].only) continue;
    const std::vector<Mean>& of_options = means.at(key(groups[g]));
    for (std::size_t o = 0; o < damages[g].size(); ++o) {
      mixed[g][o] = of_options[o].mixed_with(damages[g][o], share);
    }
  }
  return mixed;
}

std::vector<ExpertItem> with_other_text(std::span<const ExpertItem> items, double share) {
  using Key = std::tuple<LayerId, const ExpertReplacement*, std::uint32_t>;
  const auto of_other_text = [](const ReplacementOption& option) {
    if (option.width == 0) return option.predicted_kl;
    return (1 - kUnlikeChannels) * option.predicted_kl +
           kUnlikeChannels * option.predicted_elsewhere;
  };
  std::map<Key, Mean> means;
  for (const ExpertItem& item : items) {
    for (const ReplacementOption& option : item.replacements) {
      means[{item.layer, option.how, option.width}].add(of_other_text(option));
    }
  }
  std::vector<ExpertItem> mixed(items.begin(), items.end());
  for (ExpertItem& item : mixed) {
    for (ReplacementOption& option : item.replacements) {
      const Mean& mean = means.at({item.layer, option.how, option.width});
      option.predicted_kl = mean.mixed_with(option.predicted_kl, share);
    }
  }
  return mixed;
}

}  // namespace winnow::compress
