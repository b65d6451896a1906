// SPDX-FileCopyrightText: The Winnow authors
// SPDX-License-Identifier: Apache-2.0
#include "os/mapped_files.h"

#include <signal.h>
#include <sys/resource.h>
#include <unistd.h>

#include <algorithm>
#include <system_error>

#include "base/error.h"
#include "os/memory.h"

namespace winnow::os {
namespace {

// Left to others while files are copied to memory. The page cache, where the files may be, counts
// as available, so this is what must be left when all of it is given up.
constexpr Bytes kMargin{std::uint64_t{512} << 20};

// The thread competes with the pool's workers, which leave no processor idle while tokens are made.
// The copy costs the same whenever it is done and the gain begins with its end, so it should not
// take for ever: at nice 5 it gets a quarter of a core there, some GB in 10 s; at nice 10 a tenth;
// at nice 19 (1.5 %) it would outlast most runs. On an idle machine it gets what it can use.
constexpr int kNice = 5;

/// Lowers the calling thread's priority, as far as allowed.
void step_back() { (void)::setpriority(PRIO_PROCESS, static_cast<id_t>(::gettid()), kNice); }

/// While it lives, threads started by this one receive no signals: they are the program's to
/// handle.
class SignalsBlocked {
 public:
  SignalsBlocked() {
    sigset_t all;
    sigfillset(&all);
    (void)::pthread_sigmask(SIG_SETMASK, &all, &former_);
  }
  SignalsBlocked(const SignalsBlocked&) = delete;
  SignalsBlocked& operator=(const SignalsBlocked&) = delete;
  ~SignalsBlocked() { (void)::pthread_sigmask(SIG_SETMASK, &former_, nullptr); }

 private:
  sigset_t former_ = {};
};

}  // namespace

MappedFiles::MappedFiles(std::span<const std::unique_ptr<RandomAccessFile>> files, Move move)
    : to_move_(move == Move::kInBackground) {
  for (const auto& file : files) {
    auto mapped = MappedFile::map(*file);
    if (mapped == nullptr) continue;
    size_ += Bytes{mapped->bytes().size()};
    files_.emplace_back(file.get(), std::move(mapped));
  }
}

void MappedFiles::start_moving() {
  if (!std::exchange(to_move_, false)) return;
  if (files_.empty() || available_memory() < size_ + kMargin) return;
  settled_.store(false, std::memory_order_relaxed);
  try {
    const SignalsBlocked blocked;
    mover_ = std::thread([this] { move_all(); });
  } catch (const std::system_error&) {  // no thread to be had: the files stay where they are
    settled_.store(true, std::memory_order_relaxed);
  }
}

MappedFiles::~MappedFiles() {
  stopping_.store(true, std::memory_order_relaxed);
  if (mover_.joinable()) mover_.join();
}

const std::byte* MappedFiles::find(const RandomAccessFile& file, std::uint64_t offset,
                                   std::uint64_t size) const {
  for (const auto& [source, mapped] : files_) {
    if (source != &file) continue;
    WINNOW_CHECK(offset <= mapped->bytes().size() && size <= mapped->bytes().size() - offset);
    return mapped->bytes().data() + offset;
  }
  return nullptr;
}

void MappedFiles::require_unchanged() const {
  for (const auto& [source, mapped] : files_) mapped->require_unchanged();
}

void MappedFiles::wait_until_settled() const { settled_.wait(false, std::memory_order_acquire); }

void MappedFiles::move_all() {
  step_back();
  const auto stop = [this] { return stopping_.load(std::memory_order_relaxed); };
  const auto move_file = [&](MappedFile& file) {
    for (std::size_t piece = 0; piece < file.pieces(); ++piece) {
      if (available_memory() < kMargin || !file.move_piece(piece, stop)) return false;
      const std::size_t end = std::min((piece + 1) * MappedFile::kPieceBytes, file.bytes().size());
      moved_.fetch_add(end - piece * MappedFile::kPieceBytes, std::memory_order_relaxed);
    }
    return true;
  };
  for (const auto& [source, mapped] : files_) {
    if (!move_file(*mapped)) break;
  }
  settled_.store(true, std::memory_order_release);
  settled_.notify_all();
}

}  // namespace winnow::os
