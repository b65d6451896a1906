// SPDX-FileCopyrightText: The Winnow authors
// SPDX-License-Identifier: Apache-2.0
#include "compress/chosen_groups.h"

#include <algorithm>
#include <functional>
#include <map>
#include <memory>

namespace winnow::compress {
namespace {

/// Groups by what the exporter knows of a matrix.
class GroupIndex {
 public:
  explicit GroupIndex(const std::vector<TensorGroup>& groups) : groups_(groups) {
    for (std::size_t g = 0; g < groups.size(); ++g) {
      // Of the forms of one matrix the one that is in the output, or the whole one.
      if (groups[g].width == 0 || !groups[g].left_out) places_[key_of(groups[g])] = g;
      divided_ = divided_ || groups[g].only;
    }
  }

  bool divided() const { return divided_; }
  const TensorGroup& of(model::Role role, LayerId layer, ExpertId expert = {}) const {
    const bool alone = divided_ && model::traits(role).per_expert;
    return groups_[places_.at({role, index(layer), alone ? 1 + index(expert) : 0})];
  }
  const quant::Codec& codec(model::Role role, LayerId layer, ExpertId expert = {}) const {
    const TensorGroup& group = of(role, layer, expert);
    return *group.options[group.chosen].codec;
  }

 private:
  const std::vector<TensorGroup>& groups_;
  std::map<GroupKey, std::size_t> places_;
  bool divided_ = false;
};

using Index = std::shared_ptr<const GroupIndex>;

/// Owners of shared experts by their places in the output, in the place of their numbers in the
/// source.
void number_owners(std::vector<model::ExportExpert>& layer) {
  for (model::ExportExpert& expert : layer) {
    if (expert.shape.kind != model::ExpertKind::kShared) continue;
    const auto owner = std::find_if(layer.begin(), layer.end(), [&](const auto& other) {
      return index(other.source) == expert.shape.shared_with;
    });
    expert.shape.shared_with = static_cast<std::uint32_t>(owner - layer.begin());
  }
}

/// Each in types of its own, or what stands for it.
void add_experts(const ChosenGroups& chosen, const Index& index_of, model::ExportOptions& options) {
  const model::ModelSpec& spec = chosen.source.spec();
  options.expert_codec = [index_of](model::Role role, LayerId layer,
                                    ExpertId expert) -> const quant::Codec& {
    return index_of->codec(role, layer, expert);
  };
  options.experts.resize(spec.num_hidden_layers);
  for (std::uint32_t l = 0; l < spec.num_hidden_layers; ++l) {
    for (std::uint32_t e = 0; e < spec.num_experts(LayerId{l}); ++e) {
      options.experts[l].push_back({ExpertId{e}, spec.expert(LayerId{l}, ExpertId{e})});
    }
  }
  if (chosen.experts == nullptr) return;
  options.constant = [experts = chosen.experts](LayerId layer, ExpertId expert,
                                                std::span<float> values) {
    const std::vector<float>& constant = experts->constant(layer, expert);
    std::copy(constant.begin(), constant.end(), values.begin());
  };
  const std::vector<ExpertItem>& items = chosen.experts->items();
  for (std::size_t i = items.size(); i-- > 0;) {  // so that places before it stay
    if (!chosen.expert_mix->replaced[i]) continue;
    const ReplacementOption& option = items[i].replacements[*chosen.expert_mix->replaced[i]];
    auto& layer = options.experts[index(items[i].layer)];
    const auto place = layer.begin() + index(items[i].expert);
    if (option.how->kind) {
      place->shape = {*option.how->kind, option.width, index(option.shared_with)};
    } else {
      layer.erase(place);
    }
  }
  for (auto& layer : options.experts) number_owners(layer);
}

/// The one that most of the weights have.
const quant::Codec* nominal_codec(const std::vector<TensorGroup>& groups) {
  std::map<const quant::Codec*, std::uint64_t> weights;
  for (const TensorGroup& group : groups) {
    if (!group.left_out) weights[group.options[group.chosen].codec] += group.weights;
  }
  const quant::Codec* nominal = nullptr;
  std::uint64_t most = 0;
  for (const quant::Codec* codec : quant::all_codecs()) {  // registry order breaks ties
    const auto found = weights.find(codec);
    if (found == weights.end() || found->second <= most) continue;
    most = found->second;
    nominal = codec;
  }
  return nominal;
}

}  // namespace

PackOrder order_of(const TensorGroup& group) { return {&group, group.options[group.chosen].codec}; }

model::ExportOptions export_options(const ChosenGroups& chosen) {
  const auto index_of = std::make_shared<const GroupIndex>(chosen.groups);
  model::ExportOptions result;
  result.codec = [index_of](model::Role role, LayerId layer) -> const quant::Codec& {
    return index_of->codec(role, layer);
  };
  if (index_of->divided()) {
    add_experts(chosen, index_of, result);
  } else {
    result.correction_rank = [index_of](model::Role role, LayerId layer) {
      const TensorGroup& group = index_of->of(role, layer);
      return group.options[group.chosen].rank;
    };
  }
  if (chosen.packer != nullptr) {
    result.rows = [index_of, packer = chosen.packer](model::Role role, LayerId layer,
                                                     ExpertId expert, std::size_t first,
                                                     std::span<std::byte> out) {
      return packer->pack_rows(order_of(index_of->of(role, layer, expert)), expert, first, out);
    };
    result.factor = [index_of, packer = chosen.packer](model::Role role, LayerId layer,
                                                       ExpertId expert, model::LowRankSide side,
                                                       std::span<std::byte> out) {
      packer->factor(order_of(index_of->of(role, layer)), expert, side, out);
    };
    result.edit = [packer = chosen.packer](model::Role role, LayerId layer,
                                           std::span<float> values) {
      packer->edit(role, layer, values);
    };
  }
  result.nominal_codec = nominal_codec(chosen.groups);
  return result;
}

std::vector<TensorGroup> divide_experts(const std::vector<TensorGroup>& groups) {
  std::vector<TensorGroup> divided;
  for (const TensorGroup& group : groups) {
    if (!model::traits(group.role).per_expert) {
      divided.push_back(group);
      continue;
    }
    for (TensorGroup& one : divide_group(group)) divided.push_back(std::move(one));
  }
  return divided;
}

void apply_mix(const ExpertMix& mix, std::span<const ExpertItem> items,
               std::vector<TensorGroup>& groups) {
  const std::vector<bool> is_there = groups_there(groups.size(), items, mix);
  for (std::size_t g = 0; g < groups.size(); ++g) {
    groups[g].chosen = mix.mix[g];
    groups[g].left_out = !is_there[g];
  }
}

std::vector<std::vector<std::uint64_t>> option_sizes(const std::vector<TensorGroup>& groups,
                                                     bool pads) {
  std::vector<std::vector<std::uint64_t>> sizes;
  for (const TensorGroup& group : groups) {
    sizes.emplace_back();
    for (const GroupOption& option : group.options) {
      sizes.back().push_back(option_size(option, pads));
    }
  }
  return sizes;
}

std::uint64_t least_bytes(const std::vector<TensorGroup>& groups, bool pads,
                          const std::function<bool(const TensorGroup&)>& stays) {
  std::uint64_t total = 0;
  // By layer and expert, then by width.
  std::map<std::pair<LayerId, ExpertId>, std::map<std::uint32_t, std::uint64_t>> experts;
  for (const TensorGroup& group : groups) {
    std::uint64_t smallest = UINT64_MAX;
    for (const GroupOption& option : group.options) {
      smallest = std::min(smallest, option_size(option, pads));
    }
    if (group.only) {
      if (!stays(group)) continue;
      experts[{group.layer, *group.only}][group.width] += smallest;
    } else {
      total += smallest;
    }
  }
  for (const auto& [expert, forms] : experts) {
    std::uint64_t least = UINT64_MAX;
    for (const auto& [width, bytes] : forms) least = std::min(least, bytes);
    total += least;
  }
  return total;
}

}  // namespace winnow::compress
