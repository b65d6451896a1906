// SPDX-FileCopyrightText: The Winnow authors
// SPDX-License-Identifier: Apache-2.0
// safetensors models: one file, or a folder with model.safetensors or with an index of several.
#include <algorithm>
#include <map>
#include <set>
#include <system_error>
#include <utility>

#include "base/error.h"
#include "formats/format.h"
#include "formats/json_events.h"
#include "formats/names.h"
#include "formats/safetensors.h"

namespace winnow::formats {
namespace {

constexpr Bytes kLargestIndex{100'000'000};
constexpr std::size_t kIndexDepth = 16;  // "metadata" may hold anything

/// What an index says: the file of every tensor.
class IndexEvents final : public JsonEvents {
 public:
  explicit IndexEvents(const std::string& name) : name_(name) {}

  void open(std::span<const std::string> path, bool is_array) override {
    const bool is_map = path.size() == 1 && path[0] == "weight_map";
    if ((path.empty() || is_map) && is_array) {
      fail_data("{}: {} is an array, expected an object", name_, is_map ? "'weight_map'" : "it");
    }
    if (path.size() > 1 && path[0] == "weight_map") {
      fail_data("{}: tensor {} is no file name", name_, quote_name(path[1]));
    }
    has_map_ |= is_map;
  }

  void close(std::span<const std::string>) override {}

  void scalar(std::span<const std::string> path, JsonScalar value) override {
    if (path.empty() || path[0] != "weight_map") return;
    if (path.size() == 1) {
      fail_data("{}: 'weight_map' is {}, expected an object", name_, describe(value));
    }
    const auto* file = std::get_if<std::string>(&value);
    if (file == nullptr || !is_plain_file_name(*file)) {
      fail_data("{}: tensor {} is in {}, expected the name of a file in the same folder", name_,
                quote_name(path[1]), file == nullptr ? describe(value) : quote_name(*file));
    }
    file_of_.emplace(path[1], *file);
  }

  /// Tensor name to file name.
  std::map<std::string, std::string, std::less<>> take() {
    if (!has_map_) fail_data("{}: there is no 'weight_map'", name_);
    return std::move(file_of_);
  }

 private:
  const std::string& name_;
  bool has_map_ = false;
  std::map<std::string, std::string, std::less<>> file_of_;
};

using FileOf = std::map<std::string, std::string, std::less<>>;

/// Refuses a tensor of `shard` that the index does not place there; otherwise crosses it off.
void cross_off(const std::string& shard_path, const std::string& shard, const TensorInfo& tensor,
               const std::string& index_name, const FileOf& file_of, FileOf& missing) {
  const auto entry = file_of.find(tensor.name);
  if (entry == file_of.end()) {
    fail_data("{}: tensor {} at offset {} is not in the index {}", shard_path,
              quote_name(tensor.name), tensor.offset, index_name);
  }
  if (entry->second != shard) {
    fail_data("{}: tensor {} at offset {} belongs into {} by the index {}", shard_path,
              quote_name(tensor.name), tensor.offset, quote_name(entry->second), index_name);
  }
  missing.erase(tensor.name);
}

bool is_there(const std::filesystem::path& path) {
  std::error_code error;
  return std::filesystem::exists(path, error);
}

bool recognises_safetensors(bool is_folder, std::span<const std::byte> head) {
  return is_folder || (head.size() > 8 && head[8] == std::byte{'{'});
}

std::unique_ptr<ModelFile> open_safetensors(const std::filesystem::path& path) {
  std::error_code error;
  if (!std::filesystem::is_directory(path, error)) {
    return read_safetensors(os::open_file(path), path.has_parent_path() ? path.parent_path() : ".");
  }
  if (is_there(path / kSafetensorsFile)) {
    return read_safetensors(os::open_file(path / kSafetensorsFile), path);
  }
  if (is_there(path / kSafetensorsIndex)) {
    const auto index = path / kSafetensorsIndex;
    return read_safetensors_index(index, os::read_text_file(index, kLargestIndex));
  }
  fail_data(
      "{}: the folder holds neither {} nor {}; name the folder of a safetensors model, or a "
      "model file itself",
      path.string(), kSafetensorsFile, kSafetensorsIndex);
}

}  // namespace

std::unique_ptr<ModelFile> read_safetensors(std::unique_ptr<os::RandomAccessFile> file,
                                            std::filesystem::path sidecar_folder) {
  ModelContents contents{.format = "safetensors",
                         .name = sidecar_folder.empty() ? file->name() : sidecar_folder.string(),
                         .metadata = Metadata(file->name()),
                         .tensors = parse_safetensors_header(*file),
                         .files = {},
                         .sidecar_folder = std::move(sidecar_folder)};
  contents.files.push_back(std::move(file));
  return make_model_file(std::move(contents));
}

std::unique_ptr<ModelFile> read_safetensors_index(const std::filesystem::path& index_path,
                                                  std::string_view index_text,
                                                  const OpenFile& open_shard) {
  const std::string index_name = index_path.string();
  IndexEvents events(index_name);
  parse_json_events(index_text, index_name, kIndexDepth, events);
  const FileOf file_of = events.take();
  FileOf missing = file_of;
  std::set<std::string> shards;
  for (const auto& [tensor, shard] : file_of) shards.insert(shard);

  const auto folder = index_path.has_parent_path() ? index_path.parent_path() : ".";
  ModelContents contents{.format = "safetensors",
                         .name = folder.string(),
                         .metadata = Metadata(folder.string()),
                         .tensors = {},
                         .files = {},
                         .sidecar_folder = folder};
  for (const std::string& shard : shards) {
    auto file = with_context(index_name, [&] { return open_shard(folder / shard); });
    for (TensorInfo& tensor : parse_safetensors_header(*file)) {
      cross_off(file->name(), shard, tensor, index_name, file_of, missing);
      tensor.file = contents.files.size();
      contents.tensors.push_back(std::move(tensor));
    }
    contents.files.push_back(std::move(file));
  }
  if (!missing.empty()) {
    const auto& [tensor, shard] = *missing.begin();
    fail_data("{}: tensor {} is not in {}, where the index says it is", index_name,
              quote_name(tensor), quote_name(shard));
  }
  return make_model_file(std::move(contents));
}

extern const Format kSafetensorsFormat{
    .name = "safetensors",
    .sign = "a folder with model.safetensors or its index, or a file with a JSON header",
    .recognises = recognises_safetensors,
    .open = open_safetensors};

}  // namespace winnow::formats
