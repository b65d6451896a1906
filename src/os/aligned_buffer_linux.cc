// SPDX-FileCopyrightText: The Winnow authors
// SPDX-License-Identifier: Apache-2.0
// Anonymous mappings: returned to the system as soon as they are freed, unlike the heap's.
#include <sys/mman.h>

#include <cstdint>
#include <fstream>
#include <string>
#include <utility>

#include "base/checked.h"
#include "base/error.h"
#include "base/units.h"
#include "os/aligned_buffer.h"
#include "os/pages.h"

namespace winnow::os {
namespace {

[[noreturn]] void fail_without_memory(std::size_t bytes) {
  fail(ErrorCode::kSystem, "the system has no {} of memory left", format_bytes({bytes}));
}

}  // namespace

AlignedBuffer::AlignedBuffer(std::size_t bytes, Pages pages) : size_(bytes) {
  if (bytes == 0) return;
  const std::size_t alignment = bytes >= kHugePage ? kHugePage : kPage;
  const auto with_alignment = checked_add(bytes, alignment);  // room to move the beginning
  if (!with_alignment) fail_without_memory(bytes);
  mapped_ = *with_alignment;
  mapping_ = ::mmap(nullptr, mapped_, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (mapping_ == MAP_FAILED) {
    mapping_ = nullptr;
    fail_without_memory(bytes);
  }
  const auto address = reinterpret_cast<std::uintptr_t>(mapping_);
  const std::uintptr_t aligned = (address + alignment - 1) / alignment * alignment;
  data_ = static_cast<std::byte*>(mapping_) + (aligned - address);
  if (alignment == kHugePage) {
    (void)::madvise(data_, bytes, pages == Pages::kHuge ? MADV_HUGEPAGE : MADV_NOHUGEPAGE);
  }
}

AlignedBuffer::~AlignedBuffer() {
  if (mapping_ != nullptr) ::munmap(mapping_, mapped_);
}

void AlignedBuffer::swap(AlignedBuffer& other) noexcept {
  std::swap(data_, other.data_);
  std::swap(size_, other.size_);
  std::swap(mapping_, other.mapping_);
  std::swap(mapped_, other.mapped_);
}

std::size_t peak_resident_bytes() {
  std::ifstream status("/proc/self/status");
  std::string word;
  while (status >> word) {
    std::size_t kib = 0;
    if (word == "VmHWM:" && status >> kib) return kib * 1024;
  }
  return 0;
}

}  // namespace winnow::os
