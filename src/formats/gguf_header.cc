// SPDX-FileCopyrightText: The Winnow authors
// SPDX-License-Identifier: Apache-2.0
// Parses the header of a GGUF file of unknown origin: magic, version, key-values, tensor directory.
#include <algorithm>
#include <array>
#include <bit>
#include <utility>

#include "base/checked.h"
#include "base/error.h"
#include "formats/cursor.h"
#include "formats/gguf.h"
#include "formats/names.h"

namespace winnow::formats {
namespace {

constexpr std::uint64_t kMostKeys = 65536;
constexpr std::uint64_t kMostTensors = 1'000'000;
constexpr std::uint32_t kLargestAlignment = 1 << 20;
// The shortest key-value: a one-letter key (8 + 1), the type (4), a byte.
constexpr std::uint64_t kShortestEntry = 14;
// The shortest tensor: a one-letter name (8 + 1), the rank (4), the type (4), the offset (8).
constexpr std::uint64_t kShortestTensor = 25;

template <typename T>
T read_one(Cursor& cursor) {
  return cursor.read<T>();
}

template <>
bool read_one<bool>(Cursor& cursor) {
  const auto byte = cursor.read<std::uint8_t>();
  if (byte > 1) cursor.fail("a bool is stored as {}, expected 0 or 1", byte);
  return byte == 1;
}

template <>
std::string read_one<std::string>(Cursor& cursor) {
  return cursor.read_string();
}

template <typename T>
std::vector<T> read_elements(Cursor& cursor) {
  constexpr bool kIsString = std::is_same_v<T, std::string>;
  const auto count = cursor.read_count("array elements", kIsString ? 8 : sizeof(T));
  std::vector<T> elements;
  if constexpr (kIsString || std::is_same_v<T, bool>) {
    elements.reserve(count);
    for (std::uint64_t i = 0; i < count; ++i) elements.push_back(read_one<T>(cursor));
  } else {
    elements.resize(count);
    cursor.read(std::as_writable_bytes(std::span(elements)));
  }
  return elements;
}

// GGUF numbers its types in the order of the alternatives of Value; those of Array are the same
// without the array itself.
constexpr std::uint32_t kArrayType = 9;
static_assert(std::is_same_v<std::variant_alternative_t<kArrayType, Value>, Array>);

using ReadArray = Array (*)(Cursor&);
constexpr auto kReadArray = []<std::size_t... I>(std::index_sequence<I...>) {
  return std::array<ReadArray, sizeof...(I)>{[](Cursor& cursor) -> Array {
    using Elements = std::variant_alternative_t<I, Array>;
    return Array(std::in_place_index<I>, read_elements<typename Elements::value_type>(cursor));
  }...};
}
(std::make_index_sequence<std::variant_size_v<Array>>());

template <>
Array read_one<Array>(Cursor& cursor) {
  const auto type = cursor.read<std::uint32_t>();
  if (type == kArrayType) cursor.fail("arrays of arrays are not supported");
  const std::uint32_t alternative = type < kArrayType ? type : type - 1;
  if (alternative >= kReadArray.size()) {
    cursor.fail("unknown element type {}, expected 0 to {}", type, kReadArray.size());
  }
  return kReadArray[alternative](cursor);
}

using ReadValue = Value (*)(Cursor&);
constexpr auto kReadValue = []<std::size_t... I>(std::index_sequence<I...>) {
  return std::array<ReadValue, sizeof...(I)>{[](Cursor& cursor) -> Value {
    return Value(std::in_place_index<I>, read_one<std::variant_alternative_t<I, Value>>(cursor));
  }...};
}
(std::make_index_sequence<std::variant_size_v<Value>>());

std::string read_gguf_name(Cursor& cursor) {
  std::string name = cursor.read_string();
  if (const std::string defect = name_defect(name); !defect.empty()) {
    cursor.fail("the name {} {}", quote_name(name), defect);
  }
  return name;
}

void read_entry(Cursor& cursor, std::uint64_t number, Metadata& metadata) {
  cursor.set_subject(fmt::format("key number {}", number));
  std::string key = read_gguf_name(cursor);
  cursor.set_subject(fmt::format("key {}", quote_name(key)));
  if (metadata.contains(key)) cursor.fail("the key occurs twice");
  const auto type = cursor.read<std::uint32_t>();
  if (type >= kReadValue.size()) {
    cursor.fail("unknown value type {}, expected 0 to {}", type, kReadValue.size() - 1);
  }
  metadata.set(std::move(key), kReadValue[type](cursor));
}

/// Innermost dimension first in the file, outermost first in a Shape.
tensor::Shape read_shape(Cursor& cursor) {
  const auto rank = cursor.read<std::uint32_t>();
  if (rank > tensor::Shape::kMaxRank) {
    cursor.fail("{} dimensions, expected at most {}", rank, tensor::Shape::kMaxRank);
  }
  std::array<std::uint64_t, tensor::Shape::kMaxRank> dims{};
  for (std::uint32_t i = 0; i < rank; ++i) {
    dims[rank - 1 - i] = cursor.read<std::uint64_t>();
    if (dims[rank - 1 - i] == 0) cursor.fail("dimension {} is 0", i);
  }
  return tensor::Shape(std::span<const std::uint64_t>(dims.data(), rank));
}

/// Bytes of a tensor; 0 for types whose layout is unknown.
Bytes payload_size(const Cursor& cursor, const tensor::Shape& shape,
                   const std::optional<GgufLayout>& layout) {
  const auto elements = shape.checked_elements();
  if (!elements) cursor.fail("the product of the dimensions {} overflows", shape.to_string());
  if (!layout) return {};
  if (shape.row_length() % layout->block_size != 0) {
    cursor.fail("rows of {} elements do not divide into {} blocks of {}", shape.row_length(),
                layout->name, layout->block_size);
  }
  const auto bytes = checked_mul(*elements / layout->block_size, layout->block_bytes);
  if (!bytes) cursor.fail("the bytes of {} in {} overflow", shape.to_string(), layout->name);
  return {*bytes};
}

/// One line of the tensor directory; the offset is still relative to the data section.
TensorInfo read_tensor(Cursor& cursor, std::uint64_t number, std::uint32_t alignment) {
  cursor.set_subject(fmt::format("tensor number {}", number));
  TensorInfo tensor;
  tensor.name = read_gguf_name(cursor);
  cursor.set_subject(fmt::format("tensor {}", quote_name(tensor.name)));
  tensor.shape = read_shape(cursor);
  const auto type = cursor.read<std::uint32_t>();
  tensor.codec = quant::find_codec_by_ggml_type(type);
  const auto layout = find_gguf_layout(type);
  tensor.type_name = layout ? std::string(layout->name) : fmt::format("type {}", type);
  tensor.size = payload_size(cursor, tensor.shape, layout);
  tensor.offset = cursor.read<std::uint64_t>();
  if (tensor.offset % alignment != 0) {
    cursor.fail("its data offset {} is no multiple of the alignment {}", tensor.offset, alignment);
  }
  return tensor;
}

void read_magic_and_version(Cursor& cursor) {
  std::array<char, 4> magic{};
  cursor.read(std::as_writable_bytes(std::span(magic)));
  if (std::string_view(magic.data(), magic.size()) != kGgufMagic) {
    cursor.fail("not a GGUF file: it does not begin with 'GGUF'");
  }
  const auto version = cursor.read<std::uint32_t>();
  if (version != 0 && (version & 0xFFFF) == 0) {
    cursor.fail(
        "a big-endian GGUF file; only little-endian files are supported, convert it with "
        "the tools of its publisher");
  }
  if (version != 2 && version != 3) {
    cursor.fail("GGUF version {}; versions 2 and 3 are supported, convert the model again",
                version);
  }
}

std::uint32_t read_alignment(const Metadata& metadata) {
  constexpr std::string_view kKey = "general.alignment";
  const Value* value = metadata.find(kKey);
  if (value == nullptr) return kGgufDefaultAlignment;
  const auto* alignment = std::get_if<std::uint32_t>(value);
  if (alignment == nullptr) fail_data("{}: key '{}' must be of type u32", metadata.source(), kKey);
  if (*alignment < 8 || *alignment > kLargestAlignment || !std::has_single_bit(*alignment)) {
    fail_data("{}: key '{}' is {}, expected a power of two from 8 to {}", metadata.source(), kKey,
              *alignment, kLargestAlignment);
  }
  return *alignment;
}

/// Turns the offset of a tensor into one from the beginning of the file and checks that its bytes
/// lie inside.
void place_tensor(const os::RandomAccessFile& file, std::uint64_t data_begin, TensorInfo& tensor) {
  const std::uint64_t file_size = file.size().value;
  const auto begin = checked_add(data_begin, tensor.offset);
  // A payload whose size is unknown has at least one byte.
  const std::uint64_t least = std::max<std::uint64_t>(tensor.size.value, 1);
  const auto end = begin ? checked_add(*begin, least) : std::nullopt;
  if (!end || *end > file_size) {
    fail_data(
        "{}: tensor {}: {} bytes at data offset {} (data begin at {}) end past the file ({} "
        "bytes); is the download complete?",
        file.name(), quote_name(tensor.name), tensor.size.value, tensor.offset, data_begin,
        file_size);
  }
  tensor.offset = *begin;
}

}  // namespace

GgufHeader parse_gguf_header(const os::RandomAccessFile& file) {
  Cursor cursor(file);
  GgufHeader header{Metadata(file.name()), {}};
  read_magic_and_version(cursor);
  // Both counts are checked as soon as they are read, the first with all that must follow it.
  const auto num_tensors = cursor.read_count("tensors", kShortestTensor);
  if (num_tensors > kMostTensors) {
    cursor.fail("{} tensors, more than the limit of {}", num_tensors, kMostTensors);
  }
  const auto num_keys = cursor.read_count("keys", kShortestEntry);
  if (num_keys > kMostKeys) cursor.fail("{} keys, more than the limit of {}", num_keys, kMostKeys);

  for (std::uint64_t i = 0; i < num_keys; ++i) read_entry(cursor, i, header.metadata);
  const std::uint32_t alignment = read_alignment(header.metadata);
  header.tensors.reserve(std::min(num_tensors, cursor.remaining() / kShortestTensor));
  for (std::uint64_t i = 0; i < num_tensors; ++i) {
    header.tensors.push_back(read_tensor(cursor, i, alignment));
  }
  const auto data_begin = checked_align_up(cursor.position(), alignment);
  WINNOW_CHECK(data_begin.has_value());  // a position inside a file is far from 2^64
  for (TensorInfo& tensor : header.tensors) place_tensor(file, *data_begin, tensor);
  check_no_overlap(file.name(), header.tensors);
  return header;
}

}  // namespace winnow::formats
