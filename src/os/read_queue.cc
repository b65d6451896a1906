// SPDX-FileCopyrightText: The Winnow authors
// SPDX-License-Identifier: Apache-2.0
#include "os/read_queue.h"

#include <algorithm>
#include <cerrno>
#include <thread>
#include <utility>

#include "base/error.h"

namespace winnow::os {
namespace {

// The system reads less than 2 GiB at once.
constexpr std::size_t kLargestAttempt = std::size_t{1} << 30;
// A disk's error may be that of a moment.
constexpr int kIoRetries = 2;
// Attempts that bring nothing, before the read counts as failed.
constexpr int kFruitlessAttempts = 100;

}  // namespace

std::span<std::byte> ReadJob::rest() const {
  return read_.out.subspan(done_, std::min(read_.out.size() - done_, kLargestAttempt));
}

bool ReadJob::advance_after_error(int reason) {
  if (reason == EINVAL && !std::exchange(fell_back_, true)) {
    source_->fall_back();  // which another read may have done while this one was on its way
    return false;
  }
  if (reason == EIO && ++io_errors_ <= kIoRetries) return false;
  if ((reason == EINTR || reason == EAGAIN) && ++fruitless_ < kFruitlessAttempts) {
    if (reason == EAGAIN) std::this_thread::yield();
    return false;
  }
  fail_system(reason, fmt::format("{}: reading {} bytes at offset {}", source_->name(),
                                  read_.least - std::min(done_, read_.least), offset()));
}

bool ReadJob::advance_by(std::size_t bytes) {
  const std::size_t filled = done_ + bytes;
  if (filled >= read_.least) {
    source_->require_unchanged();
    source_->forget(read_.offset, read_.out.size());
    return true;
  }
  // Past the page cache a read begins at a block: what is there of a further one is read again.
  const std::size_t whole = filled / kReadAlignment * kReadAlignment;
  if (whole == done_ && ++fruitless_ >= kFruitlessAttempts) bytes = 0;
  if (bytes == 0) {
    fail_data(
        "{}: the file ends at or before offset {} where {} more bytes were expected; was it "
        "truncated?",
        source_->name(), read_.offset + filled, read_.least - filled);
  }
  done_ = whole;
  return false;
}

bool ReadJob::advance(std::int64_t result) {
  if (result < 0) return advance_after_error(static_cast<int>(-result));
  return advance_by(static_cast<std::size_t>(result));
}

void ReadQueue::submit(std::span<const AsyncRead> reads, ReadPriority priority) {
  {
    const std::lock_guard lock(mutex_);
    std::deque<AsyncRead>& queue = priority == ReadPriority::kDemand ? demand_ : speculation_;
    for (const AsyncRead& read : reads) {
      WINNOW_CHECK(read.source < sources_.size() && read.offset % kReadAlignment == 0);
      WINNOW_CHECK(read.out.size() % kReadAlignment == 0 &&
                   reinterpret_cast<std::uintptr_t>(read.out.data()) % kReadAlignment == 0);
      WINNOW_CHECK(read.least >= 1 && read.least <= read.out.size());
      queue.push_back(read);
    }
    unfinished_ += reads.size();
  }
  work_.notify_all();
}

void ReadQueue::promote(std::uint64_t tag) {
  const std::lock_guard lock(mutex_);
  const auto others =
      std::stable_partition(speculation_.begin(), speculation_.end(),
                            [tag](const AsyncRead& read) { return read.tag == tag; });
  demand_.insert(demand_.end(), speculation_.begin(), others);
  speculation_.erase(speculation_.begin(), others);
}

bool ReadQueue::cancel(std::uint64_t tag, std::size_t count) {
  const auto has_tag = [tag](const AsyncRead& read) { return read.tag == tag; };
  const std::lock_guard lock(mutex_);
  const auto waiting = std::count_if(speculation_.begin(), speculation_.end(), has_tag);
  if (static_cast<std::size_t>(waiting) != count) return false;
  std::erase_if(speculation_, has_tag);
  unfinished_ -= count;
  return true;
}

std::optional<ReadResult> ReadQueue::poll_locked() {
  if (done_.empty()) return std::nullopt;
  ReadResult result = std::move(done_.front());
  done_.pop_front();
  return result;
}

std::optional<ReadResult> ReadQueue::poll() {
  const std::lock_guard lock(mutex_);
  return poll_locked();
}

ReadResult ReadQueue::wait() {
  std::unique_lock lock(mutex_);
  WINNOW_CHECK(unfinished_ != 0 || !done_.empty());
  results_.wait(lock, [&] { return !done_.empty(); });
  return *poll_locked();
}

std::optional<ReadJob> ReadQueue::take_locked() {
  if (closed_) return std::nullopt;
  std::deque<AsyncRead>& queue = demand_.empty() ? speculation_ : demand_;
  if (queue.empty()) return std::nullopt;
  const std::size_t size = queue.front().out.size();
  if (in_flight_ != 0 && in_flight_ + size > limit_) return std::nullopt;
  in_flight_ += size;
  ReadJob job(queue.front(), *sources_[queue.front().source]);
  queue.pop_front();
  return job;
}

std::optional<ReadJob> ReadQueue::try_take() {
  const std::lock_guard lock(mutex_);
  return take_locked();
}

std::optional<ReadJob> ReadQueue::take() {
  std::unique_lock lock(mutex_);
  std::optional<ReadJob> job;
  work_.wait(lock, [&] {
    job = take_locked();
    return job || closed_;
  });
  return job;
}

void ReadQueue::finish(const ReadJob& job, std::exception_ptr error) {
  {
    const std::lock_guard lock(mutex_);
    in_flight_ -= job.read().out.size();
    --unfinished_;
    done_.push_back({job.read().tag, std::move(error)});
  }
  results_.notify_one();
  work_.notify_all();  // there is room for further bytes
}

void ReadQueue::close() {
  {
    const std::lock_guard lock(mutex_);
    closed_ = true;
  }
  work_.notify_all();
}

bool ReadQueue::closed() const {
  const std::lock_guard lock(mutex_);
  return closed_;
}

}  // namespace winnow::os
