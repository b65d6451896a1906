// SPDX-FileCopyrightText: The Winnow authors
// SPDX-License-Identifier: Apache-2.0
#include "formats/array_file.h"

#include <fmt/format.h>

#include "base/json.h"

namespace winnow::formats {

std::string array_file_header(std::span<const std::pair<std::string, std::string>> texts,
                              std::span<const PlannedArray> arrays) {
  Json metadata = Json::object();
  for (const auto& [key, text] : texts) metadata[key] = text;
  std::string json = "{\"__metadata__\":" + dump_json(metadata);
  std::uint64_t begin = 0;
  for (const PlannedArray& array : arrays) {
    json += fmt::format(",{}:{{\"dtype\":\"{}\",\"shape\":[{}],\"data_offsets\":[{},{}]}}",
                        dump_json(Json(array.name)), array.type, fmt::join(array.shape, ","), begin,
                        begin + array.size);
    begin += array.size;
  }
  json += '}';
  while (json.size() % 8 != 0) json += ' ';
  const std::uint64_t length = json.size();
  return std::string(reinterpret_cast<const char*>(&length), sizeof length) + json;
}

std::map<std::string, std::string> array_file_texts(const os::RandomAccessFile& file) {
  std::uint64_t length = 0;
  file.read_at(0, std::as_writable_bytes(std::span(&length, 1)));
  std::string header(length, '\0');
  file.read_at(sizeof length, std::as_writable_bytes(std::span(header)));
  const SortedJson json = parse_sorted_json(header, file.name());
  std::map<std::string, std::string> texts;
  const auto metadata = json.find("__metadata__");
  if (metadata == json.end()) return texts;
  for (const auto& [key, text] : metadata->items()) texts.emplace(key, text.get<std::string>());
  return texts;
}

}  // namespace winnow::formats
