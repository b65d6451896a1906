// SPDX-FileCopyrightText: The Winnow authors
// SPDX-License-Identifier: Apache-2.0
#include "compress/mix_measurer.h"

#include "base/error.h"
#include "os/file.h"

namespace winnow::compress {
namespace {

constexpr const char* kMixesFile = "mixes.json";
constexpr Bytes kLongestMixes{std::uint64_t{64} << 20};

}  // namespace

MixMeasurer::MixMeasurer(const PackerContext& context, const std::vector<TensorGroup>& groups,
                         GroupPacker& packer, const WindowBatches& probe, const SweepMemory& memory)
    : context_(context), groups_(groups), packer_(packer), probe_(probe), memory_(memory) {
  load();
}

void MixMeasurer::load() {
  const auto path = context_.folder / kMixesFile;
  if (!std::filesystem::exists(path)) return;
  known_ = parse_json(os::read_text_file(path, kLongestMixes), path.string());
  bool usable = known_.is_object();
  for (const auto& value : known_) usable = usable && value.is_number();
  if (!usable) fail_data("{}: is no record of mixes; add --restart to begin anew", path.string());
}

void MixMeasurer::save() const {
  os::write_text_file(context_.folder / kMixesFile, dump_json(known_) + "\n");
  context_.saved();
}

std::string MixMeasurer::key_of_mix(const Mix& mix) const {
  std::string key;
  for (std::size_t g = 0; g < groups_.size(); ++g) {
    if (g > 0) key += ' ';
    key += groups_[g].options[mix[g]].codec->name;
  }
  return key;
}

std::vector<double> MixMeasurer::measure(std::span<const Mix> mixes) {
  std::vector<Mix> missing;
  for (const Mix& mix : mixes) {
    if (!known_.contains(key_of_mix(mix))) missing.push_back(mix);
  }
  if (!missing.empty()) {
    const std::vector<double> divergences = measure_new(missing);
    for (std::size_t m = 0; m < missing.size(); ++m) {
      known_[key_of_mix(missing[m])] = divergences[m];
    }
    save();
  }
  std::vector<double> divergences;
  for (const Mix& mix : mixes) divergences.push_back(known_.at(key_of_mix(mix)).get<double>());
  return divergences;
}

std::vector<double> MixMeasurer::measure_new(std::span<const Mix> mixes) {
  std::vector<PackOrder> orders;
  std::vector<WeightVariant> variants;
  for (const Mix& mix : mixes) {
    variants.emplace_back();
    for (std::size_t g = 0; g < groups_.size(); ++g) {
      const PackOrder order{&groups_[g], groups_[g].options[mix[g]].codec};
      if (packer_.is_copy(order)) continue;
      orders.push_back(order);
      variants.back().changes[key_of(groups_[g])] = [this, order] { return packer_.pack(order); };
    }
  }
  packer_.prepare(orders);
  return measure_divergences(context_.runner, context_.source.spec(), probe_, variants, memory_,
                             context_.log);
}

}  // namespace winnow::compress
