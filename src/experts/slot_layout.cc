// SPDX-FileCopyrightText: The Winnow authors
// SPDX-License-Identifier: Apache-2.0
#include "experts/slot_layout.h"

#include <algorithm>
#include <numeric>

#include "base/checked.h"
#include "base/crc32c.h"
#include "base/error.h"
#include "os/read_source.h"

namespace winnow::experts {
namespace {

constexpr std::uint64_t kBlock = os::kReadAlignment;
// Classes of slots that are filled to so many eighths at least, best first; the last has one class.
constexpr std::size_t kFills[] = {7, 6, 4, 0};

std::uint64_t matrix_bytes(const MatrixLocation& matrix) {
  return quant::PackedMatrix{matrix.codec, nullptr, matrix.rows, matrix.cols}.bytes().value;
}

std::size_t slots_of_a_token(std::size_t experts_of_layer, std::size_t top_k) {
  return std::min(experts_of_layer, top_k);
}

}  // namespace

SlotLayout::SlotLayout(const ExpertCatalogue& catalogue) {
  for (const std::vector<ExpertSource>& layer : catalogue) {
    std::vector<ExpertRecord>& records = records_.emplace_back();
    for (const ExpertSource& source : layer) {
      const auto* const location = std::get_if<ExpertLocation>(&source);
      records.push_back(location == nullptr ? ExpertRecord{} : make_record(*location));
      all_ = checked_add(all_, records.back().bytes).value();
    }
  }
}

std::size_t SlotLayout::file_number(const os::RandomAccessFile* file) {
  const auto found = std::find(files_.begin(), files_.end(), file);
  if (found == files_.end()) {
    files_.push_back(file);
    return files_.size() - 1;
  }
  return static_cast<std::size_t>(found - files_.begin());
}

ExpertRecord SlotLayout::make_record(const ExpertLocation& location) {
  ExpertRecord record;
  ExpertLocation ignored;
  visit_matrices(location, ignored, [&](const MatrixLocation& matrix, MatrixLocation&) {
    const std::uint64_t begin = matrix.offset / kBlock * kBlock;
    const std::uint64_t end = checked_add(matrix.offset, matrix_bytes(matrix)).value();
    const std::size_t size = checked_align_up(end, kBlock).value() - begin;
    record.reads.push_back({file_number(matrix.file), begin, size, end - begin, 0});
  });
  std::sort(record.reads.begin(), record.reads.end(), [](const SlotRead& a, const SlotRead& b) {
    return std::pair(a.file, a.offset) < std::pair(b.file, b.offset);
  });
  std::vector<SlotRead> merged;
  for (const SlotRead& read : record.reads) {
    SlotRead* const last = merged.empty() ? nullptr : &merged.back();
    if (last == nullptr || last->file != read.file || last->offset + last->size < read.offset) {
      merged.push_back(read);
      continue;
    }
    const std::uint64_t ahead = read.offset - last->offset;
    last->size = std::max(last->size, ahead + read.size);
    last->least = std::max(last->least, ahead + read.least);
  }
  for (SlotRead& read : merged) {
    read.position = record.bytes;
    record.bytes = checked_add(record.bytes, read.size).value();
  }
  record.reads = std::move(merged);
  return record;
}

std::size_t SlotLayout::position(const ExpertRecord& record, const MatrixLocation& matrix) const {
  for (const SlotRead& read : record.reads) {
    if (files_[read.file] == matrix.file && matrix.offset >= read.offset &&
        matrix.offset - read.offset < read.size) {
      return read.position + (matrix.offset - read.offset);
    }
  }
  WINNOW_CHECK(!"the matrix is not of this record");
  return 0;
}

std::vector<SlotClass> SlotLayout::classes(std::size_t eighths, std::size_t top_k) const {
  std::vector<std::size_t> sizes;
  for (const auto& layer : records_) {
    for (const ExpertRecord& record : layer) {
      if (record.bytes != 0) sizes.push_back(record.bytes);
    }
  }
  std::sort(sizes.begin(), sizes.end(), std::greater<>());
  std::vector<SlotClass> result;
  for (const std::size_t size : sizes) {
    if (result.empty() || size * 8 < result.back().bytes * eighths) {
      result.push_back({.bytes = size});
    }
    ++result.back().experts;
  }
  std::reverse(result.begin(), result.end());
  for (const auto& layer : records_) {
    std::vector<std::size_t> here(result.size());
    for (const ExpertRecord& record : layer) {
      if (record.bytes == 0) continue;
      std::size_t c = 0;
      while (result[c].bytes < record.bytes) ++c;
      ++here[c];
    }
    for (std::size_t c = 0; c < here.size(); ++c) {
      result[c].needed = std::max(result[c].needed, slots_of_a_token(here[c], top_k));
    }
  }
  return result;
}

void SlotLayout::require_checksum(const ExpertRecord& record, const ExpertLocation& location,
                                  const std::byte* slot) const {
  if (!location.crc32c) return;
  std::uint32_t sum = 0;
  ExpertMatrices matrices;
  visit_matrices(location, matrices, [&](const MatrixLocation& from, quant::PackedMatrix& to) {
    to = {from.codec, slot + position(record, from), from.rows, from.cols};
    sum = crc32c({to.data, to.bytes().value}, sum);
  });
  if (sum == *location.crc32c) return;
  fail_data(
      "{}: its bytes from offset {} on are damaged: CRC-32C {:08x}, and key "
      "'winnow.experts.crc32c' says {:08x}; copy the file again",
      location.gate_proj.file->name(), location.gate_proj.offset, sum, *location.crc32c);
}

Bytes SlotLayout::minimum(std::size_t top_k) const {
  const std::vector<SlotClass> one = classes(0, top_k);
  return {one.empty() ? 0 : one.front().bytes * one.front().needed};
}

Bytes total_bytes(std::span<const SlotClass> classes) {
  return {std::accumulate(classes.begin(), classes.end(), std::uint64_t{0},
                          [](std::uint64_t sum, const SlotClass& c) {
                            return sum + std::uint64_t{c.bytes} * c.slots;
                          })};
}

std::vector<SlotClass> SlotLayout::divide(Bytes bytes, std::size_t top_k) const {
  std::vector<SlotClass> result;
  for (const std::size_t fill : kFills) {
    result = classes(fill, top_k);
    for (SlotClass& c : result) c.slots = c.needed;
    if (result.size() <= 1 || total_bytes(result).value <= bytes.value / 2) break;
  }
  WINNOW_CHECK(total_bytes(result) <= bytes);
  std::uint64_t left = bytes.value - total_bytes(result).value;
  double weight = 0;  // of all classes: the bytes of their experts
  for (const SlotClass& c : result) weight += static_cast<double>(c.bytes * c.experts);
  const std::uint64_t shared = left;
  for (SlotClass& c : result) {
    const double share = static_cast<double>(c.bytes * c.experts) / weight;
    const auto slots = static_cast<std::size_t>(share * static_cast<double>(shared) /
                                                static_cast<double>(c.bytes));
    const std::size_t added = std::min({slots, c.experts - c.slots, left / c.bytes});
    c.slots += added;
    left -= added * c.bytes;
  }
  // What rounding and full classes have left: to the class that holds the least of its experts.
  const auto coverage = [](const SlotClass& c) {
    return static_cast<double>(c.slots) / static_cast<double>(c.experts);
  };
  while (true) {
    SlotClass* poorest = nullptr;
    for (SlotClass& c : result) {
      if (c.slots == c.experts || c.bytes > left) continue;
      if (poorest == nullptr || coverage(c) < coverage(*poorest)) poorest = &c;
    }
    if (poorest == nullptr) return result;
    ++poorest->slots;
    left -= poorest->bytes;
  }
}

}  // namespace winnow::experts
