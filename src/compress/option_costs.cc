// SPDX-FileCopyrightText: The Winnow authors
// SPDX-License-Identifier: Apache-2.0
#include "compress/option_costs.h"

#include <string>

#include "base/error.h"
#include "base/json.h"
#include "os/file.h"

namespace winnow::compress {
namespace {

constexpr Bytes kLongestCosts{std::uint64_t{16} << 20};

}  // namespace

void save_costs(const std::filesystem::path& path, const TensorGroup& group) {
  Json json;
  for (const GroupOption& option : group.options) {
    json["options"][std::string(option.codec->name)] = option.error;
  }
  for (const NoisePoint& point : group.noise) {
    json["noise"][std::string(point.codec->name)] = point.error;
  }
  os::write_text_file(path, dump_json(json) + "\n");
}

bool load_costs(const std::filesystem::path& path, TensorGroup& group) {
  if (!std::filesystem::exists(path)) return false;
  const Json json = parse_json(os::read_text_file(path, kLongestCosts), path.string());
  try {
    for (GroupOption& option : group.options) {
      option.error = json.at("options").at(std::string(option.codec->name)).get<double>();
    }
    for (NoisePoint& point : group.noise) {
      point.error = json.at("noise").at(std::string(point.codec->name)).get<double>();
    }
  } catch (const Json::exception&) {
    fail_data("{}: is no record of costs; add --restart to begin anew", path.string());
  }
  return true;
}

}  // namespace winnow::compress
