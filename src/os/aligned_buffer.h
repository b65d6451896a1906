// SPDX-FileCopyrightText: The Winnow authors
// SPDX-License-Identifier: Apache-2.0
// Memory for weights and caches: aligned, zeroed, on huge pages where the system grants them.
#pragma once

#include <cstddef>
#include <span>

namespace winnow::os {

enum class Pages {
  kHuge,   ///< 2 MiB where the system grants them
  kSmall,  ///< 4 KiB, to measure what the others are worth
};

/// Owns anonymous memory aligned to 4096 bytes (2 MiB for large ones, with transparent huge pages
/// advised: fewer TLB misses are worth 5-15 % of the read rate). Zeroed. Moves only.
class AlignedBuffer {
 public:
  AlignedBuffer() = default;
  /// Throws Error{kSystem} when the system has no memory.
  explicit AlignedBuffer(std::size_t bytes, Pages pages = Pages::kHuge);
  AlignedBuffer(AlignedBuffer&& other) noexcept { swap(other); }
  AlignedBuffer& operator=(AlignedBuffer&& other) noexcept {
    swap(other);
    return *this;
  }
  AlignedBuffer(const AlignedBuffer&) = delete;
  AlignedBuffer& operator=(const AlignedBuffer&) = delete;
  ~AlignedBuffer();

  std::byte* data() const { return data_; }
  std::size_t size() const { return size_; }
  std::span<std::byte> bytes() const { return {data_, size_}; }

 private:
  void swap(AlignedBuffer& other) noexcept;

  std::byte* data_ = nullptr;
  std::size_t size_ = 0;
  void* mapping_ = nullptr;
  std::size_t mapped_ = 0;
};

/// Peak resident memory of this process (VmHWM), in bytes; 0 when unknown.
std::size_t peak_resident_bytes();

}  // namespace winnow::os
