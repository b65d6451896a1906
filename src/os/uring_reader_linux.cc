// SPDX-FileCopyrightText: The Winnow authors
// SPDX-License-Identifier: Apache-2.0
// Reads by io_uring: the caller's thread hands over all that may begin in one system call and
// sleeps in the ring until something ends. No thread stands between: where the threads that compute
// are as many as the processors and look for work, one more would wait for a time slice before each
// batch.
#include <liburing.h>
#include <sys/uio.h>

#include <algorithm>
#include <cerrno>
#include <list>
#include <utility>

#include "base/error.h"
#include "os/read_queue.h"

namespace winnow::os {
namespace {

// Reads of a layer's misses; more wait in the queue.
constexpr unsigned kRingEntries = 128;

class Ring {
 public:
  /// `usable` says whether the system has made one.
  Ring() : usable_(::io_uring_queue_init(kRingEntries, &ring_, 0) == 0) {}
  Ring(const Ring&) = delete;
  Ring& operator=(const Ring&) = delete;
  ~Ring() {
    if (usable_) ::io_uring_queue_exit(&ring_);
  }
  bool usable() const { return usable_; }
  io_uring* get() { return &ring_; }

  /// Pins `memory` in pieces. Nothing happens where the system does not allow it.
  void register_memory(std::span<std::byte> memory, std::size_t piece);
  std::span<const std::byte> registered() const { return registered_; }
  /// The registered piece that `out` lies in.
  std::optional<int> piece_of(std::span<const std::byte> out) const;

 private:
  io_uring ring_{};
  bool usable_;
  std::span<std::byte> registered_;
  std::size_t piece_ = 1;
};

void Ring::register_memory(std::span<std::byte> memory, std::size_t piece) {
  WINNOW_CHECK(piece > 0);
  std::vector<iovec> pieces;
  for (std::size_t at = 0; at < memory.size(); at += piece) {
    pieces.push_back({memory.data() + at, std::min(piece, memory.size() - at)});
  }
  const auto count = static_cast<unsigned>(pieces.size());
  if (count == 0 || ::io_uring_register_buffers(&ring_, pieces.data(), count) != 0) return;
  registered_ = memory;
  piece_ = piece;
}

std::optional<int> Ring::piece_of(std::span<const std::byte> out) const {
  const auto begin = reinterpret_cast<std::uintptr_t>(registered_.data());
  const auto at = reinterpret_cast<std::uintptr_t>(out.data());
  if (out.empty() || at < begin || at - begin >= registered_.size() ||
      out.size() > registered_.size() - (at - begin)) {
    return std::nullopt;
  }
  const std::size_t first = (at - begin) / piece_;
  if (first != (at - begin + out.size() - 1) / piece_) return std::nullopt;
  return static_cast<int>(first);
}

class UringReader final : public AsyncReader {
 public:
  UringReader(std::unique_ptr<Ring> ring, std::vector<std::unique_ptr<ReadSource>> sources,
              const ReaderOptions& options)
      : queue_(std::move(sources), options.in_flight),
        registered_{ring->registered().size()},
        ring_(std::move(ring)) {}
  ~UringReader() override;

  void submit(std::span<const AsyncRead> reads, ReadPriority priority) override {
    queue_.submit(reads, priority);
    begin_reads();
  }
  void promote(std::uint64_t tag) override { queue_.promote(tag); }
  bool cancel(std::uint64_t tag, std::size_t count) override { return queue_.cancel(tag, count); }
  std::optional<ReadResult> poll() override;
  ReadResult wait() override;
  std::string_view method() const override { return "io_uring"; }
  Bytes registered() const override { return registered_; }

 private:
  using Job = std::list<ReadJob>::iterator;

  void begin_reads();
  void ask(Job job);
  void read_directly();
  void take_results();
  void take_result(Job job, std::int64_t result);
  void finish(std::list<ReadJob>& jobs, Job job, std::exception_ptr error);
  void wait_for_system();
  io_uring_sqe* next_entry();

  ReadQueue queue_;
  const Bytes registered_;
  std::unique_ptr<Ring> ring_;  // null after it broke
  std::list<ReadJob> jobs_;     // the ring's; their places are its user data
  std::list<ReadJob> direct_;   // that no ring can do: when it is waited for, one after another
};

UringReader::~UringReader() {
  queue_.close();
  // The system writes to the caller's memory until they have ended.
  while (!jobs_.empty()) {
    wait_for_system();
    take_results();
  }
}

io_uring_sqe* UringReader::next_entry() {
  io_uring_sqe* entry = ::io_uring_get_sqe(ring_->get());
  if (entry == nullptr) {  // full: the system takes what is there
    (void)::io_uring_submit(ring_->get());
    entry = ::io_uring_get_sqe(ring_->get());
  }
  return entry;
}

void UringReader::finish(std::list<ReadJob>& jobs, Job job, std::exception_ptr error) {
  const ReadJob done = *job;
  jobs.erase(job);
  queue_.finish(done, std::move(error));
}

void UringReader::read_directly() {
  const Job job = direct_.begin();
  std::exception_ptr error;
  try {
    while (!job->attempt()) {
    }
  } catch (...) {
    error = std::current_exception();
  }
  finish(direct_, job, std::move(error));
}

void UringReader::ask(Job job) {
  const int fd = job->source().descriptor();
  io_uring_sqe* const entry = ring_ == nullptr || fd < 0 ? nullptr : next_entry();
  if (entry == nullptr) {
    direct_.splice(direct_.end(), jobs_, job);
    return;
  }
  const std::span<std::byte> rest = job->rest();
  const auto size = static_cast<unsigned>(rest.size());
  if (const auto piece = ring_->piece_of(rest)) {
    ::io_uring_prep_read_fixed(entry, fd, rest.data(), size, job->offset(), *piece);
  } else {
    ::io_uring_prep_read(entry, fd, rest.data(), size, job->offset());
  }
  ::io_uring_sqe_set_data(entry, &*job);
}

void UringReader::take_result(Job job, std::int64_t result) {
  // Told outside of the handler: at its end this thread has nothing of the error left.
  std::exception_ptr error;
  bool done = true;
  try {
    done = job->advance(result);
  } catch (...) {
    error = std::current_exception();
  }
  if (done) {
    finish(jobs_, job, std::move(error));
  } else {
    ask(job);
  }
}

void UringReader::begin_reads() {
  while (jobs_.size() < kRingEntries && direct_.empty()) {
    const std::optional<ReadJob> job = queue_.try_take();
    if (!job) break;
    jobs_.push_back(*job);
    ask(std::prev(jobs_.end()));
  }
  // What the system does not take now it takes with the next call.
  if (ring_ != nullptr && ::io_uring_sq_ready(ring_->get()) != 0) {
    (void)::io_uring_submit(ring_->get());
  }
}

void UringReader::take_results() {
  io_uring_cqe* done = nullptr;
  while (ring_ != nullptr && ::io_uring_peek_cqe(ring_->get(), &done) == 0) {
    const void* const place = ::io_uring_cqe_get_data(done);
    const std::int64_t result = done->res;
    ::io_uring_cqe_seen(ring_->get(), done);
    Job job = jobs_.begin();
    while (&*job != place) ++job;
    take_result(job, result);
  }
}

/// Until something has ended.
void UringReader::wait_for_system() {
  if (ring_ != nullptr) {
    const int taken = ::io_uring_submit_and_wait(ring_->get(), 1);
    if (taken >= 0 || taken == -EINTR || taken == -EAGAIN || taken == -EBUSY) return;
    ring_.reset();
  }
  direct_.splice(direct_.end(), jobs_);  // nobody shall wait for ever
}

std::optional<ReadResult> UringReader::poll() {
  take_results();
  begin_reads();
  return queue_.poll();
}

ReadResult UringReader::wait() {
  for (;;) {
    if (std::optional<ReadResult> result = poll()) return *result;
    WINNOW_CHECK(!jobs_.empty() || !direct_.empty());
    if (direct_.empty()) {
      wait_for_system();
    } else {
      read_directly();
    }
  }
}

}  // namespace

std::unique_ptr<AsyncReader> make_uring_reader(std::vector<std::unique_ptr<ReadSource>>& sources,
                                               const ReaderOptions& options) {
  auto ring = std::make_unique<Ring>();
  if (!ring->usable()) return nullptr;
  ring->register_memory(options.registered, options.registered_piece.value);
  return std::make_unique<UringReader>(std::move(ring), std::move(sources), options);
}

}  // namespace winnow::os
