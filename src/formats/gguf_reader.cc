// SPDX-FileCopyrightText: The Winnow authors
// SPDX-License-Identifier: Apache-2.0
// GGUF models: one file, or splits named PREFIX-00001-of-0000N.gguf that are opened together.
#include <fmt/format.h>

#include <algorithm>
#include <cstring>
#include <utility>

#include "base/error.h"
#include "formats/format.h"
#include "formats/gguf.h"
#include "formats/names.h"

namespace winnow::formats {
namespace {

constexpr std::string_view kSplitNumber = "split.no";
constexpr std::string_view kSplitCount = "split.count";
constexpr std::string_view kSplitTensors = "split.tensors.count";
constexpr std::uint64_t kMostSplits = 99999;  // five digits in the names

/// A value of an optional integer key.
std::uint64_t integer_or(const Metadata& metadata, std::string_view key, std::uint64_t otherwise) {
  return metadata.contains(key) ? metadata.integer(key) : otherwise;
}

std::string split_suffix(std::uint64_t number, std::uint64_t count) {
  return fmt::format("-{:05}-of-{:05}.gguf", number + 1, count);
}

/// Opens the splits of one model after the first has been read.
class SplitReader {
 public:
  /// `first_name` is the path of the first split, `count` (2 or more) how many it says there are.
  SplitReader(const std::string& first_name, std::uint64_t count, const OpenFile& open)
      : count_(count), open_(open) {
    const std::string suffix = split_suffix(0, count);
    if (!first_name.ends_with(suffix)) {
      fail_data(
          "{}: the file is the first of {} splits, so its name must end in '{}' for the "
          "others to be found",
          first_name, count, suffix);
    }
    prefix_ = first_name.substr(0, first_name.size() - suffix.size());
  }

  /// Appends split `number` (from 1 on) to the contents.
  void add(std::uint64_t number, ModelContents& contents) const {
    auto file = with_context(fmt::format("opening split {} of {}", number + 1, count_),
                             [&] { return open_(prefix_ + split_suffix(number, count_)); });
    GgufHeader header = parse_gguf_header(*file);
    const auto says_number = header.metadata.integer(kSplitNumber);
    const auto says_count = header.metadata.integer(kSplitCount);
    if (says_number != number || says_count != count_) {
      fail_data("{}: holds split {} of {}, its name says {} of {}; was it renamed?", file->name(),
                says_number + 1, says_count, number + 1, count_);
    }
    for (TensorInfo& tensor : header.tensors) {
      tensor.file = number;
      contents.tensors.push_back(std::move(tensor));
    }
    contents.files.push_back(std::move(file));
  }

 private:
  std::uint64_t count_;
  const OpenFile& open_;
  std::string prefix_;
};

void read_other_splits(ModelContents& contents, const OpenFile& open) {
  Metadata& metadata = contents.metadata;
  const std::uint64_t count = integer_or(metadata, kSplitCount, 1);
  const std::uint64_t number = integer_or(metadata, kSplitNumber, 0);
  if (number != 0) {
    fail_data("{}: this is split {} of {}; open the first one, whose name ends in '{}'",
              contents.name, number + 1, count, split_suffix(0, count));
  }
  if (count <= 1) return;
  if (count > kMostSplits) {
    fail_data("{}: key '{}' is {}, more than the limit of {}", contents.name, kSplitCount, count,
              kMostSplits);
  }
  const SplitReader splits(contents.name, count, open);
  for (std::uint64_t i = 1; i < count; ++i) splits.add(i, contents);
  const std::uint64_t promised = integer_or(metadata, kSplitTensors, contents.tensors.size());
  if (promised != contents.tensors.size()) {
    fail_data("{}: key '{}' promises {} tensors, the {} splits hold {}", contents.name,
              kSplitTensors, promised, count, contents.tensors.size());
  }
  // The model is whole now; a copy of its key-values must not call itself a split.
  for (const auto key : {kSplitNumber, kSplitCount, kSplitTensors}) metadata.erase(key);
}

bool recognises(bool is_folder, std::span<const std::byte> head) {
  return !is_folder && head.size() >= kGgufMagic.size() &&
         std::memcmp(head.data(), kGgufMagic.data(), kGgufMagic.size()) == 0;
}

std::unique_ptr<ModelFile> open(const std::filesystem::path& path) {
  return read_gguf(os::open_file(path));
}

}  // namespace

std::unique_ptr<ModelFile> read_gguf(std::unique_ptr<os::RandomAccessFile> first,
                                     const OpenFile& open_split) {
  GgufHeader header = parse_gguf_header(*first);
  ModelContents contents{.format = "GGUF",
                         .name = first->name(),
                         .metadata = std::move(header.metadata),
                         .tensors = std::move(header.tensors),
                         .files = {},
                         .sidecar_folder = {}};
  contents.files.push_back(std::move(first));
  read_other_splits(contents, open_split);
  return make_model_file(std::move(contents));
}

extern const Format kGgufFormat{
    .name = "GGUF", .sign = "begins with 'GGUF'", .recognises = recognises, .open = open};

}  // namespace winnow::formats
