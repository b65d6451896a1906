// SPDX-FileCopyrightText: The Winnow authors
// SPDX-License-Identifier: Apache-2.0
// Parses the header of a safetensors file of unknown origin: a length, JSON, then the payloads.
#include <algorithm>
#include <array>
#include <utility>

#include "base/checked.h"
#include "base/error.h"
#include "formats/cursor.h"
#include "formats/json_events.h"
#include "formats/names.h"
#include "formats/safetensors.h"

namespace winnow::formats {
namespace {

constexpr std::uint64_t kLongestHeader = 100'000'000;  // the same limit as the reference reader
constexpr std::size_t kDepth = 3;                      // header, tensor, shape
constexpr std::string_view kMetadataKey = "__metadata__";

constexpr std::array kTypes = {
    SafetensorsType{"BOOL", 8},    SafetensorsType{"U8", 8},      SafetensorsType{"I8", 8},
    SafetensorsType{"F4", 4},      SafetensorsType{"F6_E2M3", 6}, SafetensorsType{"F6_E3M2", 6},
    SafetensorsType{"F8_E4M3", 8}, SafetensorsType{"F8_E5M2", 8}, SafetensorsType{"F8_E8M0", 8},
    SafetensorsType{"I16", 16},    SafetensorsType{"U16", 16},    SafetensorsType{"F16", 16},
    SafetensorsType{"BF16", 16},   SafetensorsType{"I32", 32},    SafetensorsType{"U32", 32},
    SafetensorsType{"F32", 32},    SafetensorsType{"I64", 64},    SafetensorsType{"U64", 64},
    SafetensorsType{"F64", 64},    SafetensorsType{"C64", 64},
};

/// Gathers the tensors of a header. Offsets stay relative to the data section.
class HeaderEvents final : public JsonEvents {
 public:
  /// `data_begin`: where the payloads begin in the file; `data_size`: bytes from there to its end.
  HeaderEvents(const std::string& file_name, std::uint64_t data_begin, std::uint64_t data_size)
      : file_name_(file_name), data_begin_(data_begin), data_size_(data_size) {}

  std::vector<TensorInfo> take() { return std::move(tensors_); }

  void open(std::span<const std::string> path, bool is_array) override {
    if (path.empty()) {
      if (is_array) fail_data("{}: the header is an array, expected an object", file_name_);
    } else if (path.size() == 1) {
      if (is_array) fail(path, "is an array, expected an object");
      if (path[0] != kMetadataKey) begin_tensor(path);
    } else {
      const bool expected = path[0] != kMetadataKey && is_array && !in_array_ &&
                            (path[1] == "shape" || path[1] == "data_offsets");
      if (!expected) fail(path, "is an unexpected {}", is_array ? "array" : "object");
      in_array_ = true;
      has_[path[1] == "shape" ? 1 : 2] = true;
    }
  }

  void close(std::span<const std::string> path) override {
    if (path.size() == 2) in_array_ = false;
    if (path.size() == 1 && path[0] != kMetadataKey) end_tensor(path);
  }

  void scalar(std::span<const std::string> path, JsonScalar value) override {
    if (path.size() < 2) fail(path, "is {}, expected an object", describe(value));
    if (path[0] == kMetadataKey) {
      if (!std::holds_alternative<std::string>(value)) {
        fail(path, "is {}, expected a string", describe(value));
      }
    } else if (path[1] == "dtype") {
      set_type(path, value);
    } else if (in_array_) {
      add_number(path, value);
    } else {
      fail(path, "is {}, expected 'dtype' and arrays 'shape' and 'data_offsets' only",
           describe(value));
    }
  }

 private:
  /// "FILE: tensor 'x': key 'shape' MESSAGE"
  template <typename... Args>
  [[noreturn]] void fail(std::span<const std::string> path, fmt::format_string<Args...> format,
                         Args&&... args) const {
    std::string where = file_name_ + ": ";
    if (path.empty()) where += "the header";
    if (!path.empty())
      where += (path[0] == kMetadataKey ? "key " : "tensor ") + quote_name(path[0]);
    if (path.size() > 1) where += ": key " + quote_name(path[1]);
    fail_data("{} {}", where, fmt::format(format, std::forward<Args>(args)...));
  }

  void begin_tensor(std::span<const std::string> path) {
    if (const std::string defect = name_defect(path[0]); !defect.empty()) {
      fail_data("{}: the tensor name {} {}", file_name_, quote_name(path[0]), defect);
    }
    has_ = {};
    shape_.clear();
    offsets_.clear();
  }

  void set_type(std::span<const std::string> path, const JsonScalar& value) {
    const auto* name = std::get_if<std::string>(&value);
    if (name == nullptr) fail(path, "is {}, expected a string", describe(value));
    const auto type = find_safetensors_type(*name);
    if (!type) fail(path, "is {}, which is no type of the format", quote_name(*name));
    type_ = *type;
    has_[0] = true;
  }

  void add_number(std::span<const std::string> path, const JsonScalar& value) {
    const auto* number = std::get_if<std::uint64_t>(&value);
    if (number == nullptr) fail(path, "holds {}, expected integers", describe(value));
    const bool is_shape = path[1] == "shape";
    auto& numbers = is_shape ? shape_ : offsets_;
    const std::size_t most = is_shape ? tensor::Shape::kMaxRank : 2;
    if (numbers.size() == most) fail(path, "holds more than {} numbers", most);
    numbers.push_back(*number);
  }

  void end_tensor(std::span<const std::string> path) {
    constexpr std::array<std::string_view, 3> kKeys = {"dtype", "shape", "data_offsets"};
    for (std::size_t i = 0; i < kKeys.size(); ++i) {
      if (!has_[i]) fail(path, "has no '{}'", kKeys[i]);
    }
    if (offsets_.size() != 2) fail(path, "has {} 'data_offsets', expected 2", offsets_.size());
    const auto [begin, end] = std::pair(offsets_[0], offsets_[1]);
    if (begin > end || end > data_size_) {
      fail(path,
           "has the data offsets {}..{}, expected to lie in order within the {} bytes of data that "
           "begin at offset {}; is the download complete?",
           begin, end, data_size_, data_begin_);
    }
    const tensor::Shape shape{std::span<const std::uint64_t>(shape_)};
    const auto elements = shape.checked_elements();
    const auto bits = elements ? checked_mul(*elements, type_.bits) : std::nullopt;
    if (!bits) fail(path, "has the shape {}, whose bytes overflow", shape.to_string());
    if (*bits % 8 != 0 || *bits / 8 != end - begin) {
      fail(path, "has {} bytes at offset {}, but its shape {} in {} takes {} bits", end - begin,
           data_begin_ + begin, shape.to_string(), type_.name, *bits);
    }
    tensors_.push_back({.name = path[0],
                        .codec = type_.codec(),
                        .type_name = std::string(type_.name),
                        .shape = shape,
                        .file = 0,
                        .offset = data_begin_ + begin,
                        .size = {end - begin}});
  }

  const std::string& file_name_;
  std::uint64_t data_begin_;
  std::uint64_t data_size_;
  std::vector<TensorInfo> tensors_;
  // The tensor that is being read.
  bool in_array_ = false;
  std::array<bool, 3> has_{};  // dtype, shape, data_offsets
  SafetensorsType type_{};
  std::vector<std::uint64_t> shape_;
  std::vector<std::uint64_t> offsets_;
};

/// The JSON text at the cursor.
std::string read_header_text(Cursor& cursor) {
  const auto length = cursor.read_count("bytes of header", 1);
  if (length > kLongestHeader) {
    cursor.fail("the header is {} bytes long, the limit is {}", length, kLongestHeader);
  }
  std::string text(length, '\0');
  cursor.read(std::as_writable_bytes(std::span(text)));
  if (!text.starts_with('{')) cursor.fail("the header does not begin with '{{'");
  return text;
}

/// Refuses holes between payloads and bytes after the last: whatever hides there was not described.
void check_contiguous(const os::RandomAccessFile& file, std::uint64_t data_begin,
                      std::span<const TensorInfo> tensors) {
  std::uint64_t position = data_begin;
  for (const TensorInfo& tensor : tensors) {
    if (tensor.offset != position) {
      fail_data("{}: tensor {} begins at offset {}, leaving a hole after offset {}", file.name(),
                quote_name(tensor.name), tensor.offset, position);
    }
    position += tensor.size.value;
  }
  if (position != file.size().value) {
    fail_data("{}: {} bytes at offset {} belong to no tensor", file.name(),
              file.size().value - position, position);
  }
}

}  // namespace

const quant::Codec* SafetensorsType::codec() const {
  const bool has_codec = name == "F32" || name == "F16" || name == "BF16";
  return has_codec ? quant::find_codec(name) : nullptr;
}

std::optional<SafetensorsType> find_safetensors_type(std::string_view name) {
  const auto found = std::find_if(kTypes.begin(), kTypes.end(),
                                  [&](const SafetensorsType& type) { return type.name == name; });
  return found == kTypes.end() ? std::nullopt : std::optional(*found);
}

std::vector<TensorInfo> parse_safetensors_header(const os::RandomAccessFile& file) {
  Cursor cursor(file);
  const std::string text = read_header_text(cursor);
  const std::uint64_t data_begin = cursor.position();
  HeaderEvents events(file.name(), data_begin, cursor.remaining());
  parse_json_events(text, file.name() + ": header", kDepth, events);
  std::vector<TensorInfo> tensors = events.take();
  std::vector<TensorInfo> ordered;
  ordered.reserve(tensors.size());
  for (const std::size_t i : check_no_overlap(file.name(), tensors)) {
    ordered.push_back(std::move(tensors[i]));
  }
  check_contiguous(file, data_begin, ordered);
  return ordered;
}

}  // namespace winnow::formats
