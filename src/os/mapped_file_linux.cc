// SPDX-FileCopyrightText: The Winnow authors
// SPDX-License-Identifier: Apache-2.0
// Pieces change places with mremap, which replaces a mapping by another, page tables included,
// while the kernel holds the address space: no reader finds a gap, and 2 MiB pages stay whole
// because source and target are aligned alike.
#include "os/mapped_file.h"
#include "os/pages.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <utility>

#include "base/checked.h"
#include "base/error.h"

namespace winnow::os {
namespace {

// Read at a time while a piece is copied, between two looks at `stop`.
constexpr std::size_t kReadBytes = std::size_t{4} << 20;

std::size_t whole_pages(std::size_t bytes) { return (bytes + kPage - 1) / kPage * kPage; }

std::byte* align_to_huge_page(void* address) {
  const auto value = reinterpret_cast<std::uintptr_t>(address);
  return static_cast<std::byte*>(address) + (kHugePage - value % kHugePage) % kHugePage;
}

/// Anonymous memory that becomes a piece of the file; what has not been moved away is unmapped.
class PieceBuffer {
 public:
  explicit PieceBuffer(std::size_t bytes) : bytes_(bytes) {
    mapping_ = ::mmap(nullptr, bytes + kHugePage, PROT_READ | PROT_WRITE,
                      MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (!valid()) return;
    data_ = align_to_huge_page(mapping_);
    (void)::madvise(data_, bytes_, MADV_HUGEPAGE);
  }
  PieceBuffer(const PieceBuffer&) = delete;
  PieceBuffer& operator=(const PieceBuffer&) = delete;
  // After a move the middle is a hole where another thread may have mapped something since.
  ~PieceBuffer() {
    if (!valid()) return;
    auto* const begin = static_cast<std::byte*>(mapping_);
    if (!moved_) {
      (void)::munmap(begin, bytes_ + kHugePage);
      return;
    }
    const auto before = static_cast<std::size_t>(data_ - begin);
    if (before != 0) (void)::munmap(begin, before);
    if (before != kHugePage) (void)::munmap(data_ + bytes_, kHugePage - before);
  }

  bool valid() const { return mapping_ != MAP_FAILED; }
  std::byte* data() const { return data_; }

  /// Takes the place of the mapping at `target`, for reading only.
  bool move_to(std::byte* target) {
    if (::mprotect(data_, bytes_, PROT_READ) != 0) return false;
    moved_ = ::mremap(data_, bytes_, bytes_, MREMAP_MAYMOVE | MREMAP_FIXED, target) != MAP_FAILED;
    return moved_;
  }

 private:
  std::size_t bytes_;
  void* mapping_ = nullptr;
  std::byte* data_ = nullptr;
  bool moved_ = false;
};

}  // namespace

std::unique_ptr<MappedFile> MappedFile::map(const RandomAccessFile& file) {
  if (file.descriptor() < 0 || file.size().value == 0) return nullptr;
  return std::unique_ptr<MappedFile>(new MappedFile(file, file.size().value));
}

MappedFile::MappedFile(const RandomAccessFile& file, std::uint64_t size)
    : name_(file.name()), fd_(::fcntl(file.descriptor(), F_DUPFD_CLOEXEC, 0)), size_(size) {
  struct stat status = {};
  if (!fd_.valid() || ::fstat(fd_.value(), &status) != 0) {
    fail_system(errno, fmt::format("{}: mapping", name_));
  }
  if (static_cast<std::uint64_t>(status.st_size) != size) {
    fail_data("{}: {} bytes long now, {} when it was opened; is somebody writing it?", name_,
              status.st_size, size);
  }
  modified_seconds_ = status.st_mtim.tv_sec;
  modified_nanoseconds_ = status.st_mtim.tv_nsec;
  const auto reserved = checked_add(size_, kPage + kHugePage);  // room to move the beginning
  WINNOW_CHECK(reserved.has_value());                           // off_t is smaller
  reserved_bytes_ = *reserved;
  reserved_ = ::mmap(nullptr, reserved_bytes_, PROT_NONE,
                     MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (reserved_ == MAP_FAILED) fail_system(errno, fmt::format("{}: mapping", name_));
  data_ = align_to_huge_page(reserved_);
  if (::mmap(data_, size_, PROT_READ, MAP_PRIVATE | MAP_FIXED, fd_.value(), 0) == MAP_FAILED) {
    const int reason = errno;
    (void)::munmap(reserved_, reserved_bytes_);
    fail_system(reason, fmt::format("{}: mapping", name_));
  }
  guard_.emplace(data_, whole_pages(size_));
}

MappedFile::~MappedFile() {
  guard_.reset();
  (void)::munmap(reserved_, reserved_bytes_);
}

bool MappedFile::unchanged_on_disk() const {
  struct stat status = {};
  return ::fstat(fd_.value(), &status) == 0 &&
         static_cast<std::uint64_t>(status.st_size) == size_ &&
         status.st_mtim.tv_sec == modified_seconds_ &&
         status.st_mtim.tv_nsec == modified_nanoseconds_;
}

void MappedFile::require_unchanged() const {
  const bool changed = changed_.load(std::memory_order_acquire) || guard_->faulted();
  if (!changed && moved_.load(std::memory_order_acquire) == pieces()) return;
  if (!changed && unchanged_on_disk()) return;
  fail_data(
      "{}: was changed, truncated or could not be read while it was mapped, so the weights in "
      "memory are no longer the model's; restore the file and start again",
      name_);
}

bool MappedFile::read_piece(std::uint64_t offset, std::span<std::byte> out,
                            const std::function<bool()>& stop) const {
  while (!out.empty()) {
    if (stop()) return false;
    const ssize_t got = ::pread(fd_.value(), out.data(), std::min(out.size(), kReadBytes),
                                static_cast<off_t>(offset));
    if (got < 0 && errno == EINTR) continue;
    if (got <= 0) return false;  // truncated, or it cannot be read: `require_unchanged` finds out
    offset += static_cast<std::uint64_t>(got);
    out = out.subspan(static_cast<std::size_t>(got));
  }
  return true;
}

bool MappedFile::move_piece(std::size_t piece, const std::function<bool()>& stop) {
  WINNOW_CHECK(piece == moved_.load(std::memory_order_relaxed) && piece < pieces());
  const std::size_t offset = piece * kPieceBytes;
  const std::size_t bytes = std::min(kPieceBytes, size_ - offset);
  PieceBuffer buffer(whole_pages(bytes));
  if (!buffer.valid() || !read_piece(offset, {buffer.data(), bytes}, stop)) return false;
  // The copy counts only if the file was still what it had been after it was read.
  if (!unchanged_on_disk()) {
    changed_.store(true, std::memory_order_release);
    return false;
  }
  if (!buffer.move_to(data_ + offset)) return false;
  moved_.fetch_add(1, std::memory_order_release);
  return true;
}

}  // namespace winnow::os
