// SPDX-FileCopyrightText: The Winnow authors
// SPDX-License-Identifier: Apache-2.0
#include "compress/option_costs.h"

#include <algorithm>
#include <functional>
#include <string>

#include "base/error.h"
#include "base/json.h"
#include "os/file.h"

namespace winnow::compress {
namespace {

constexpr Bytes kLongestCosts{std::uint64_t{16} << 20};
constexpr Bytes kLongestNoise{std::uint64_t{64} << 20};

/// Whether these are channels of the whole matrix, as those of `ChannelChoice` rise.
bool rise_below(const std::vector<std::uint32_t>& kept, std::uint32_t inner_channels) {
  const bool rises =
      std::adjacent_find(kept.begin(), kept.end(), std::greater_equal<>()) == kept.end();
  return rises && (kept.empty() || kept.back() < inner_channels);
}

}  // namespace

void save_costs(const std::filesystem::path& path, const TensorGroup& group) {
  Json json;
  for (const GroupOption& option : group.options) {
    json["options"][std::string(option.codec->name)] = option.error;
    if (option.part_errors.empty()) continue;
    json["parts"][std::string(option.codec->name)] = option.part_errors;
  }
  for (const NoisePoint& point : group.noise) {
    json["noise"][std::string(point.codec->name)] = point.error;
  }
  for (const auto& channels : group.channels) {
    json["channels"].push_back({{"kept", channels->kept},
                                {"lost", channels->lost},
                                {"carried", channels->carried},
                                {"lost_elsewhere", channels->lost_elsewhere}});
  }
  os::write_text_file(path, dump_json(json) + "\n");
}

bool load_costs(const std::filesystem::path& path, TensorGroup& group,
                std::uint32_t inner_channels) {
  if (!std::filesystem::exists(path)) return false;
  const Json json = parse_json(os::read_text_file(path, kLongestCosts), path.string());
  bool usable = true;
  try {
    for (GroupOption& option : group.options) {
      const std::string codec(option.codec->name);
      option.error = json.at("options").at(codec).get<double>();
      if (option.part_errors.empty()) continue;
      const std::size_t parts = option.part_errors.size();
      option.part_errors = json.at("parts").at(codec).get<std::vector<double>>();
      usable = usable && option.part_errors.size() == parts;
    }
    for (NoisePoint& point : group.noise) {
      point.error = json.at("noise").at(std::string(point.codec->name)).get<double>();
    }
    for (std::size_t part = 0; part < group.channels.size(); ++part) {
      const Json& saved = json.at("channels").at(part);
      ChannelChoice channels{saved.at("kept").get<std::vector<std::uint32_t>>(),
                             saved.at("lost").get<double>(), saved.at("carried").get<double>(),
                             saved.at("lost_elsewhere").get<double>()};
      usable = usable && channels.kept.size() == group.width &&
               rise_below(channels.kept, inner_channels);
      group.channels[part] = std::make_shared<const ChannelChoice>(std::move(channels));
    }
  } catch (const Json::exception&) {
    usable = false;
  }
  if (!usable) fail_data("{}: is no record of costs; add --restart to begin anew", path.string());
  return true;
}

void save_noise(const std::filesystem::path& path, const std::vector<TensorGroup>& groups) {
  Json json = Json::object();
  for (const TensorGroup& group : groups) {
    for (const NoisePoint& point : group.noise) {
      json[group.name()][std::string(point.codec->name)] = point.kl;
    }
  }
  os::write_text_file(path, dump_json(json) + "\n");
}

bool load_noise(const std::filesystem::path& path, std::vector<TensorGroup>& groups) {
  if (!std::filesystem::exists(path)) return false;
  const Json json = parse_json(os::read_text_file(path, kLongestNoise), path.string());
  try {
    for (TensorGroup& group : groups) {
      for (NoisePoint& point : group.noise) {
        point.kl = json.at(group.name()).at(std::string(point.codec->name)).get<double>();
      }
    }
  } catch (const Json::exception&) {
    fail_data("{}: is no record of divergences; add --restart to begin anew", path.string());
  }
  return true;
}

}  // namespace winnow::compress
