// SPDX-FileCopyrightText: The Winnow authors
// SPDX-License-Identifier: Apache-2.0
// Writes a Hugging Face folder: shards, their index, and the files beside them, in one pass.
#include <fmt/format.h>

#include <optional>
#include <set>
#include <utility>

#include "base/checked.h"
#include "base/error.h"
#include "base/json.h"
#include "formats/names.h"
#include "formats/payload_progress.h"
#include "formats/safetensors.h"

namespace winnow::formats {
namespace {

constexpr std::uint64_t kHeaderAlignment = 8;

/// Some consecutive tensors [first, last) that share a file.
struct Shard {
  std::size_t first = 0;
  std::size_t last = 0;
  std::uint64_t bytes = 0;
  std::string header;  ///< with its length in front and padded
};

std::string tensor_entry(const PlannedTensor& tensor, std::uint64_t begin, std::uint64_t size) {
  std::string dims;
  for (const std::uint64_t dim : tensor.shape.dims()) {
    dims += fmt::format("{}{}", dims.empty() ? "" : ",", dim);
  }
  return fmt::format(",{}:{{\"dtype\":\"{}\",\"shape\":[{}],\"data_offsets\":[{},{}]}}",
                     dump_json(Json(tensor.name)), tensor.codec->name, dims, begin, begin + size);
}

std::string finish_header(std::string json) {
  json += '}';
  while (json.size() % kHeaderAlignment != 0) json += ' ';
  const std::uint64_t length = json.size();
  return std::string(reinterpret_cast<const char*>(&length), sizeof length) + json;
}

void check_safetensors_tensor(const std::filesystem::path& path, const PlannedTensor& tensor) {
  if (const std::string defect = name_defect(tensor.name); !defect.empty()) {
    fail_data("{}: the tensor name {} {}", path.string(), quote_name(tensor.name), defect);
  }
  WINNOW_CHECK(tensor.codec != nullptr);
  const auto type = find_safetensors_type(tensor.codec->name);
  if (!type || type->codec() != tensor.codec) {
    fail_data("{}: tensor {}: safetensors has no type {}; use F32, F16 or BF16", path.string(),
              quote_name(tensor.name), tensor.codec->name);
  }
}

/// Divides the tensors among files in their order. A file ends before it would exceed `limit`, and
/// before a tensor that would not be aligned to its element: payloads have no padding between them,
/// and some readers view them in place.
std::vector<Shard> divide(const std::filesystem::path& path, std::span<const PlannedTensor> tensors,
                          std::span<const PlannedPayload> payloads, Bytes limit) {
  constexpr std::string_view kBegin = "{\"__metadata__\":{\"format\":\"pt\"}";
  std::vector<Shard> shards(1, Shard{.header = std::string(kBegin)});
  for (std::size_t i = 0; i < tensors.size(); ++i) {
    const std::uint64_t size = payloads[i].size.value;
    std::string entry = tensor_entry(tensors[i], shards.back().bytes, size);
    // Length, closing brace and padding.
    const std::uint64_t around = sizeof(std::uint64_t) + 1 + kHeaderAlignment;
    const auto with_payload = checked_add(
        shards.back().bytes + shards.back().header.size() + entry.size() + around, size);
    const bool is_aligned = shards.back().bytes % tensors[i].codec->block_bytes == 0;
    const bool is_first = shards.back().first == shards.back().last;
    if (!is_first && (!with_payload || *with_payload > limit.value || !is_aligned)) {
      shards.push_back(Shard{.first = i, .last = i, .header = std::string(kBegin)});
      entry = tensor_entry(tensors[i], 0, size);
    } else if (!with_payload) {
      fail_data("{}: tensor {} is too large", path.string(), quote_name(tensors[i].name));
    }
    shards.back().header += entry;
    shards.back().bytes += size;
    shards.back().last = i + 1;
  }
  for (Shard& shard : shards) shard.header = finish_header(std::move(shard.header));
  return shards;
}

std::string shard_name(std::size_t number, std::size_t count) {
  if (count == 1) return std::string(kSafetensorsFile);
  return fmt::format("model-{:05}-of-{:05}.safetensors", number + 1, count);
}

/// The index is built as text: an object that keeps the order of a hundred thousand keys is slow.
std::string make_index(std::span<const PlannedPayload> payloads, std::span<const Shard> shards) {
  std::uint64_t total = 0;
  for (const Shard& shard : shards) total += shard.bytes;
  std::string index = fmt::format(
      "{{\n  \"metadata\": {{\n    \"total_size\": {}\n  }},\n  \"weight_map\": {{", total);
  for (std::size_t s = 0; s < shards.size(); ++s) {
    for (std::size_t i = shards[s].first; i < shards[s].last; ++i) {
      index += fmt::format("{}\n    {}: \"{}\"", i == 0 ? "" : ",",
                           dump_json(Json(payloads[i].name)), shard_name(s, shards.size()));
    }
  }
  return index + "\n  }\n}\n";
}

class SafetensorsWriter final : public ModelWriter {
 public:
  void replace_metadata(const Metadata& /*metadata*/) override {
    fail(ErrorCode::kInternal, "safetensors has no metadata of a model");
  }
  SafetensorsWriter(const std::filesystem::path& path, std::vector<Shard> shards,
                    std::vector<PlannedPayload> payloads, SafetensorsOptions options)
      : folder_(path),
        index_(make_index(payloads, shards)),
        shards_(std::move(shards)),
        sidecars_(std::move(options.sidecars)),
        progress_(std::move(payloads)) {
    open_shard();
    pass_full_shards();
  }

  void append(std::span<const std::byte> bytes) override {
    progress_.advance(bytes.size());
    file_->append(bytes);
    left_ -= bytes.size();
    pass_full_shards();
  }

  void finish() override {
    progress_.check_finished();
    WINNOW_CHECK(!file_.has_value());
    if (shards_.size() > 1) os::write_text_file(folder_.partial() / kSafetensorsIndex, index_);
    for (const auto& [name, text] : sidecars_) os::write_text_file(folder_.partial() / name, text);
    folder_.commit();
  }

 private:
  void open_shard() {
    const Shard& shard = shards_[current_];
    file_.emplace(folder_.partial() / shard_name(current_, shards_.size()));
    file_->append(shard.header);
    left_ = shard.bytes;
  }

  /// Closes the open shard when it is full, and opens the next.
  void pass_full_shards() {
    while (left_ == 0 && file_.has_value()) {
      file_->commit();
      file_.reset();
      if (++current_ < shards_.size()) open_shard();
    }
  }

  os::AtomicFolder folder_;
  std::string index_;
  std::vector<Shard> shards_;
  std::vector<std::pair<std::string, std::string>> sidecars_;
  PayloadProgress progress_;
  std::size_t current_ = 0;
  std::uint64_t left_ = 0;  // payload bytes that the open shard still takes
  std::optional<os::AtomicFile> file_;
};

}  // namespace

std::unique_ptr<ModelWriter> write_safetensors(const std::filesystem::path& path,
                                               std::vector<PlannedTensor> tensors,
                                               const SafetensorsOptions& options) {
  for (const PlannedTensor& tensor : tensors) check_safetensors_tensor(path, tensor);
  std::vector<PlannedPayload> payloads = plan_payloads(path, tensors);
  std::set<std::string_view> names;
  for (const auto& [name, text] : options.sidecars) {
    WINNOW_CHECK(is_plain_file_name(name) && names.insert(name).second);
  }
  std::vector<Shard> shards = divide(path, tensors, payloads, options.max_file_size);
  return std::make_unique<SafetensorsWriter>(path, std::move(shards), std::move(payloads), options);
}

}  // namespace winnow::formats
