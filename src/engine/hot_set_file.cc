// SPDX-FileCopyrightText: The Winnow authors
// SPDX-License-Identifier: Apache-2.0
#include "engine/hot_set_file.h"

#include <cstdint>

#include "base/error.h"
#include "base/json.h"
#include "os/file.h"

namespace winnow::engine {
namespace {

constexpr const char* kHotSetFormat = "winnow-hot-set";
/// 48 layers of 128 experts take 100 kB.
constexpr Bytes kMostHotSetBytes{std::uint64_t{64} << 20};
constexpr std::uint64_t kMostUses = std::uint64_t{1} << 53;  // exact in JSON's numbers

std::uint64_t whole(const SortedJson& value, std::uint64_t most, const std::string& name,
                    std::size_t entry) {
  if (value.is_number_unsigned() && value.get<std::uint64_t>() <= most) {
    return value.get<std::uint64_t>();
  }
  fail_data("{}: entry {} of 'experts' is not [layer, expert, uses] of whole numbers", name, entry);
}

experts::ExpertUses read_entry(const SortedJson& entry, const std::string& name, std::size_t i) {
  if (!entry.is_array() || entry.size() != 3) whole({}, 0, name, i);
  constexpr std::uint64_t kMostIndex = UINT32_MAX;
  return {LayerId{static_cast<std::uint32_t>(whole(entry[0], kMostIndex, name, i))},
          ExpertId{static_cast<std::uint32_t>(whole(entry[1], kMostIndex, name, i))},
          whole(entry[2], kMostUses, name, i)};
}

}  // namespace

void write_hot_set(const std::filesystem::path& path, std::string_view source,
                   std::span<const experts::ExpertUses> hottest) {
  Json json;
  json["format"] = kHotSetFormat;
  json["format_version"] = kHotSetVersion;
  json["source"] = source;
  Json& list = json["experts"] = Json::array();
  for (const experts::ExpertUses& hot : hottest) {
    list.push_back({index(hot.layer), index(hot.expert), hot.uses});
  }
  os::AtomicFile file(path);
  file.append(dump_json(json) + "\n");
  file.commit();
}

std::vector<experts::ExpertUses> read_hot_set(const std::filesystem::path& path,
                                              std::string_view source) {
  const std::string name = path.string();
  const SortedJson json = parse_sorted_json(os::read_text_file(path, kMostHotSetBytes), name);
  if (!json.is_object() || !json.contains("format") || json["format"] != kHotSetFormat) {
    fail_data("{}: is no hot set of winnow: its 'format' is not '{}'", name, kHotSetFormat);
  }
  for (const char* key : {"format_version", "source", "experts"}) {
    if (!json.contains(key)) fail_data("{}: has no '{}'", name, key);
  }
  if (json["format_version"] != kHotSetVersion) {
    fail_data("{}: is a hot set of version {}, this program reads version {}; delete it", name,
              json["format_version"].dump(), kHotSetVersion);
  }
  if (json["source"] != source) {
    fail(ErrorCode::kUsage, "{}: is the hot set of model {}, not of '{}'; name another file", name,
         json["source"].dump(), source);
  }
  if (!json["experts"].is_array()) fail_data("{}: 'experts' is not a list", name);
  std::vector<experts::ExpertUses> hottest;
  hottest.reserve(json["experts"].size());
  for (std::size_t i = 0; i < json["experts"].size(); ++i) {
    hottest.push_back(read_entry(json["experts"][i], name, i));
  }
  return hottest;
}

}  // namespace winnow::engine
