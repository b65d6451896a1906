// SPDX-FileCopyrightText: The Winnow authors
// SPDX-License-Identifier: Apache-2.0
// Reads importance matrices, which may come from anywhere.
#include <algorithm>
#include <cmath>
#include <cstring>

#include "base/error.h"
#include "formats/cursor.h"
#include "formats/gguf.h"
#include "formats/imatrix.h"
#include "formats/names.h"

namespace winnow::formats {
namespace {

constexpr std::string_view kSums = ".in_sum2";
constexpr std::string_view kCounts = ".counts";
// An entry of the binary form has three numbers, a name and a value at least.
constexpr std::uint64_t kLeastEntry = 4 * sizeof(std::int32_t) + 1;

bool begins_as_gguf(const os::RandomAccessFile& file) {
  char magic[4] = {};
  if (file.size().value < sizeof magic) return false;
  file.read_at(0, std::as_writable_bytes(std::span(magic)));
  return std::memcmp(magic, kGgufMagic.data(), sizeof magic) == 0;
}

/// A number of things that take at least `bytes` each, 1 or more.
std::uint64_t read_number(Cursor& cursor, std::string_view of_what, std::uint64_t bytes) {
  const auto number = cursor.read<std::int32_t>();
  if (number < 1 || static_cast<std::uint64_t>(number) > cursor.remaining() / bytes) {
    cursor.fail("{} {} cannot be in the {} bytes left; is it an importance matrix of llama.cpp?",
                number, of_what, cursor.remaining());
  }
  return static_cast<std::uint64_t>(number);
}

std::string read_name(Cursor& cursor) {
  std::string name(read_number(cursor, "bytes of a name", 1), '\0');
  cursor.read(std::as_writable_bytes(std::span(name)));
  return name;
}

std::uint32_t integer_or_zero(const Metadata& metadata, std::string_view key) {
  if (!metadata.contains(key)) return 0;
  return static_cast<std::uint32_t>(std::min<std::uint64_t>(metadata.integer(key), UINT32_MAX));
}

}  // namespace

ImatrixFile ImatrixFile::open(const std::filesystem::path& path) {
  return read(os::open_file(path));
}

ImatrixFile ImatrixFile::read(std::unique_ptr<os::RandomAccessFile> file) {
  ImatrixFile result;
  result.file_ = std::move(file);
  result.form_ = begins_as_gguf(*result.file_) ? ImatrixForm::kGguf : ImatrixForm::kBinary;
  if (result.form_ == ImatrixForm::kGguf) {
    result.read_gguf();
  } else {
    result.read_binary();
  }
  return result;
}

const ImatrixEntry* ImatrixFile::find(std::string_view tensor) const {
  const auto found = places_.find(tensor);
  return found == places_.end() ? nullptr : &entries_[found->second];
}

void ImatrixFile::add(ImatrixEntry entry) {
  if (const std::string defect = name_defect(entry.name); !defect.empty()) {
    fail_data("{}: the name of an entry, {}, {}", name(), quote_name(entry.name), defect);
  }
  if (!places_.emplace(entry.name, entries_.size()).second) {
    fail_data("{}: has two entries {}", name(), quote_name(entry.name));
  }
  entries_.push_back(std::move(entry));
}

void ImatrixFile::read_gguf() {
  const GgufHeader header = parse_gguf_header(*file_);
  const Metadata& metadata = header.metadata;
  std::map<std::string_view, const TensorInfo*> tensors;
  for (const TensorInfo& tensor : header.tensors) tensors.emplace(tensor.name, &tensor);
  for (const TensorInfo& sums : header.tensors) {
    if (!sums.name.ends_with(kSums)) continue;
    const std::string tensor = sums.name.substr(0, sums.name.size() - kSums.size());
    const auto counts = tensors.find(tensor + std::string(kCounts));
    if (counts == tensors.end()) {
      fail_data("{}: has {} but no counts of it", name(), quote_name(sums.name));
    }
    for (const TensorInfo* info : {&sums, counts->second}) {
      if (info->type_name == "F32") continue;
      fail_data("{}: {} is of type {}, expected F32", name(), quote_name(info->name),
                info->type_name);
    }
    const std::uint64_t matrices = counts->second->shape.elements();
    if (sums.shape.elements() % matrices != 0) {
      fail_data("{}: the {} sums of {} are not of {} matrices", name(), sums.shape.elements(),
                quote_name(tensor), matrices);
    }
    add({tensor, sums.shape.elements(), matrices, sums.offset, counts->second->offset, 0});
  }
  if (entries_.empty()) {
    fail_data("{}: is a GGUF file without an importance matrix: no tensor's name ends in '{}'",
              name(), kSums);
  }
  if (metadata.contains("imatrix.datasets")) info_.datasets = metadata.strings("imatrix.datasets");
  info_.chunk_count = integer_or_zero(metadata, "imatrix.chunk_count");
  info_.chunk_size = integer_or_zero(metadata, "imatrix.chunk_size");
}

void ImatrixFile::read_binary() {
  Cursor cursor(*file_);
  const std::uint64_t count = read_number(cursor, "entries", kLeastEntry);
  for (std::uint64_t i = 0; i < count; ++i) {
    cursor.set_subject(fmt::format("entry {} of {}", i + 1, count));
    ImatrixEntry entry;
    entry.name = read_name(cursor);
    cursor.set_subject(fmt::format("entry {}", quote_name(entry.name)));
    const auto chunks = cursor.read<std::int32_t>();
    if (chunks < 0) cursor.fail("{} chunks cannot be", chunks);
    // Old files have none: their values are means already.
    entry.chunks = static_cast<std::uint32_t>(std::max(chunks, 1));
    entry.values = read_number(cursor, "values", sizeof(float));
    entry.counts = 1;
    entry.offset = cursor.position();
    cursor.skip(entry.values * sizeof(float));
    info_.chunk_count = std::max(info_.chunk_count, entry.chunks);
    add(std::move(entry));
  }
  // The oldest files end here.
  cursor.set_subject("what follows the entries");
  if (cursor.remaining() == 0) return;
  const auto chunks = cursor.read<std::int32_t>();
  if (chunks > 0) info_.chunk_count = static_cast<std::uint32_t>(chunks);
  if (cursor.remaining() == 0) return;
  const auto length = cursor.read<std::int32_t>();
  if (length < 0 || static_cast<std::uint64_t>(length) != cursor.remaining()) {
    cursor.fail("the name of a text has {} bytes, but {} are left", length, cursor.remaining());
  }
  std::string dataset(static_cast<std::size_t>(length), '\0');
  cursor.read(std::as_writable_bytes(std::span(dataset)));
  if (!dataset.empty()) info_.datasets.push_back(std::move(dataset));
}

std::vector<float> ImatrixFile::floats(const ImatrixEntry& entry, std::uint64_t offset,
                                       std::uint64_t count) const {
  std::vector<float> values(count);
  file_->read_at(offset, std::as_writable_bytes(std::span(values)));
  for (const float value : values) {
    if (std::isfinite(value) && value >= 0) continue;
    fail_data("{}: entry {} has the value {}; squares and counts are finite and not negative",
              name(), quote_name(entry.name), value);
  }
  return values;
}

ImatrixValues ImatrixFile::values(const ImatrixEntry& entry) const {
  ImatrixValues result{floats(entry, entry.offset, entry.values), {}};
  std::vector<double> divisors;
  if (form_ == ImatrixForm::kBinary) {
    divisors = {double{static_cast<float>(entry.chunks)}};
    result.counts = {double{static_cast<float>(entry.chunks)} * kUsualChunk};
  } else {
    const auto counts = floats(entry, entry.counts_at, entry.counts);
    divisors.assign(counts.begin(), counts.end());
    result.counts = divisors;
  }
  const std::size_t columns = entry.values / divisors.size();
  for (std::size_t i = 0; i < result.mean_squares.size(); ++i) {
    const double divisor = divisors[i / columns];
    const double sum = double{result.mean_squares[i]};
    result.mean_squares[i] = divisor > 0 ? static_cast<float>(sum / divisor) : 0.0F;
  }
  return result;
}

}  // namespace winnow::formats
