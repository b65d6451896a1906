// SPDX-FileCopyrightText: The Winnow authors
// SPDX-License-Identifier: Apache-2.0
// The directory of tensors that all formats share, and the choice of the format.
#include "formats/model_file.h"

#include <algorithm>
#include <array>
#include <numeric>
#include <system_error>
#include <utility>

#include "base/error.h"
#include "formats/format.h"
#include "formats/names.h"

namespace winnow::formats {

#define FORMAT(name) extern const Format name;
#include "formats/registry.def"
#undef FORMAT

namespace {

constexpr std::array kFormats = {
#define FORMAT(name) &name,
#include "formats/registry.def"
#undef FORMAT
};

constexpr Bytes kLargestSidecar{64 << 20};

/// Indices of `tensors` ordered by name; refuses equal names.
std::vector<std::size_t> order_by_name(const ModelContents& contents) {
  const auto& tensors = contents.tensors;
  std::vector<std::size_t> order(tensors.size());
  std::iota(order.begin(), order.end(), std::size_t{0});
  std::sort(order.begin(), order.end(),
            [&](std::size_t a, std::size_t b) { return tensors[a].name < tensors[b].name; });
  const auto twin = std::adjacent_find(
      order.begin(), order.end(),
      [&](std::size_t a, std::size_t b) { return tensors[a].name == tensors[b].name; });
  if (twin != order.end()) {
    const TensorInfo& one = tensors[twin[0]];
    const TensorInfo& other = tensors[twin[1]];
    fail_data("{}: tensor {} occurs twice, at offset {} of {} and at offset {} of {}",
              contents.name, quote_name(one.name), one.offset, contents.files[one.file]->name(),
              other.offset, contents.files[other.file]->name());
  }
  return order;
}

class OpenedModel final : public ModelFile {
 public:
  explicit OpenedModel(ModelContents contents)
      : contents_(std::move(contents)), by_name_(order_by_name(contents_)) {}

  std::string_view format() const override { return contents_.format; }
  const Metadata& metadata() const override { return contents_.metadata; }
  std::span<const TensorInfo> tensors() const override { return contents_.tensors; }
  std::span<const std::unique_ptr<os::RandomAccessFile>> files() const override {
    return contents_.files;
  }
  const std::string& name() const override { return contents_.name; }

  const TensorInfo* find(std::string_view name) const override {
    const auto& all = contents_.tensors;
    const auto place = std::lower_bound(
        by_name_.begin(), by_name_.end(), name,
        [&](std::size_t i, std::string_view wanted) { return all[i].name < wanted; });
    return place == by_name_.end() || all[*place].name != name ? nullptr : &all[*place];
  }

  std::string sidecar(std::string_view file_name) const override {
    WINNOW_CHECK(is_plain_file_name(file_name));
    if (contents_.sidecar_folder.empty()) return "";
    const auto path = contents_.sidecar_folder / file_name;
    std::error_code error;
    if (!std::filesystem::exists(path, error)) return "";
    return os::read_text_file(path, kLargestSidecar);
  }

 private:
  ModelContents contents_;
  std::vector<std::size_t> by_name_;
};

/// The first bytes of a file, to recognise it by.
std::vector<std::byte> read_head(const std::filesystem::path& path) {
  const auto file = os::open_file(path);
  std::vector<std::byte> head(std::min<std::uint64_t>(Format::kHeadBytes, file->size().value));
  file->read_at(0, head);
  return head;
}

}  // namespace

std::span<const Format* const> all_formats() { return kFormats; }

std::unique_ptr<ModelFile> make_model_file(ModelContents contents) {
  return std::make_unique<OpenedModel>(std::move(contents));
}

std::vector<std::size_t> check_no_overlap(const std::string& file_name,
                                          std::span<const TensorInfo> tensors) {
  std::vector<std::size_t> order(tensors.size());
  std::iota(order.begin(), order.end(), std::size_t{0});
  // Of tensors that begin together the empty ones stand first: they overlap nothing.
  std::stable_sort(order.begin(), order.end(), [&](std::size_t a, std::size_t b) {
    return std::pair(tensors[a].offset, tensors[a].size.value) <
           std::pair(tensors[b].offset, tensors[b].size.value);
  });
  for (std::size_t i = 1; i < order.size(); ++i) {
    const TensorInfo& before = tensors[order[i - 1]];
    const TensorInfo& after = tensors[order[i]];
    // The sum does not wrap: the payload of `before` lies inside its file.
    if (before.offset + before.size.value > after.offset) {
      fail_data("{}: tensor {} at offset {} overlaps tensor {} ({} bytes at offset {})", file_name,
                quote_name(after.name), after.offset, quote_name(before.name), before.size.value,
                before.offset);
    }
  }
  return order;
}

void ModelFile::read(const TensorInfo& tensor, std::uint64_t offset,
                     std::span<std::byte> out) const {
  WINNOW_CHECK(tensor.file < files().size());
  WINNOW_CHECK(out.size() <= tensor.size.value && offset <= tensor.size.value - out.size());
  with_context(fmt::format("tensor {}", quote_name(tensor.name)),
               [&] { files()[tensor.file]->read_at(tensor.offset + offset, out); });
}

std::unique_ptr<ModelFile> open_model(const std::filesystem::path& path) {
  std::error_code error;
  const bool is_folder = std::filesystem::is_directory(path, error);
  const std::vector<std::byte> head = is_folder ? std::vector<std::byte>() : read_head(path);
  std::string signs;
  for (const Format* format : all_formats()) {
    if (format->recognises(is_folder, head)) return format->open(path);
    signs += fmt::format("{}{} ({})", signs.empty() ? "" : " or ", format->name, format->sign);
  }
  fail_data("{}: not a model file; expected {}", path.string(), signs);
}

}  // namespace winnow::formats
