// SPDX-FileCopyrightText: The Winnow authors
// SPDX-License-Identifier: Apache-2.0
// Reads by io_uring: one thread owns the ring, hands over what may begin in one system call, and
// sleeps until something ends. A read of an eventfd in the same ring wakes it for new work.
#include <liburing.h>
#include <sys/eventfd.h>
#include <sys/uio.h>

#include <algorithm>
#include <cerrno>
#include <list>
#include <thread>
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
  UringReader(std::unique_ptr<Ring> ring, Fd wake, std::vector<std::unique_ptr<ReadSource>> sources,
              const ReaderOptions& options)
      : queue_(std::move(sources), options.in_flight),
        registered_{ring->registered().size()},
        ring_(std::move(ring)),
        wake_(std::move(wake)),
        thread_([this] { work(); }) {}
  ~UringReader() override {
    queue_.close();
    wake();
    thread_.join();
  }

  void submit(std::span<const AsyncRead> reads, ReadPriority priority) override {
    queue_.submit(reads, priority);
    wake();
  }
  void promote(std::uint64_t tag) override { queue_.promote(tag); }
  bool cancel(std::uint64_t tag, std::size_t count) override { return queue_.cancel(tag, count); }
  std::optional<ReadResult> poll() override { return queue_.poll(); }
  ReadResult wait() override { return queue_.wait(); }
  std::string_view method() const override { return "io_uring"; }
  Bytes registered() const override { return registered_; }

 private:
  using Job = std::list<ReadJob>::iterator;

  void wake() const { (void)::eventfd_write(wake_.value(), 1); }
  void work();
  void begin_reads();
  void ask(Job job);
  void read_at_once(Job job);
  void listen();
  void take_results();
  void take_result(Job job, std::int64_t result);
  void finish(Job job, std::exception_ptr error);
  io_uring_sqe* next_entry();

  ReadQueue queue_;
  const Bytes registered_;
  std::unique_ptr<Ring> ring_;
  Fd wake_;
  eventfd_t woken_ = 0;      // what the read of `wake_` writes
  bool listening_ = false;   // whether that read is on its way
  std::list<ReadJob> jobs_;  // on their way; their places are the ring's user data
  std::thread thread_;       // last: it uses the others
};

io_uring_sqe* UringReader::next_entry() {
  io_uring_sqe* entry = ::io_uring_get_sqe(ring_->get());
  if (entry == nullptr) {  // full: the system takes what is there
    (void)::io_uring_submit(ring_->get());
    entry = ::io_uring_get_sqe(ring_->get());
  }
  return entry;
}

void UringReader::listen() {
  io_uring_sqe* const entry = next_entry();
  ::io_uring_prep_read(entry, wake_.value(), &woken_, sizeof woken_, 0);
  ::io_uring_sqe_set_data(entry, nullptr);
  listening_ = true;
}

void UringReader::finish(Job job, std::exception_ptr error) {
  const ReadJob done = *job;
  jobs_.erase(job);
  queue_.finish(done, std::move(error));
}

void UringReader::read_at_once(Job job) {
  std::exception_ptr error;
  try {
    while (!job->attempt()) {
    }
  } catch (...) {
    error = std::current_exception();
  }
  finish(job, std::move(error));
}

void UringReader::ask(Job job) {
  const int fd = job->source().descriptor();
  if (fd < 0) {
    read_at_once(job);
    return;
  }
  io_uring_sqe* const entry = next_entry();
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
    finish(job, std::move(error));
  } else {
    ask(job);
  }
}

void UringReader::begin_reads() {
  while (jobs_.size() + 1 < kRingEntries) {
    const std::optional<ReadJob> job = queue_.try_take();
    if (!job) return;
    jobs_.push_back(*job);
    ask(std::prev(jobs_.end()));
  }
}

void UringReader::take_results() {
  io_uring_cqe* done = nullptr;
  while (::io_uring_peek_cqe(ring_->get(), &done) == 0) {
    const void* const place = ::io_uring_cqe_get_data(done);
    const std::int64_t result = done->res;
    ::io_uring_cqe_seen(ring_->get(), done);
    if (place == nullptr) {
      listening_ = false;
      continue;
    }
    Job job = jobs_.begin();
    while (&*job != place) ++job;
    take_result(job, result);
  }
}

void UringReader::work() {
  while (!queue_.closed() || !jobs_.empty()) {
    if (!listening_) listen();
    begin_reads();
    const int taken = ::io_uring_submit_and_wait(ring_->get(), 1);
    if (taken < 0 && taken != -EINTR && taken != -EAGAIN && taken != -EBUSY) break;
    take_results();
  }
  // A ring that broke must let nobody wait for ever.
  if (!jobs_.empty()) ring_.reset();
  while (!jobs_.empty()) read_at_once(jobs_.begin());
  while (std::optional<ReadJob> job = queue_.take()) {
    jobs_.push_back(*job);
    read_at_once(jobs_.begin());
  }
}

}  // namespace

std::unique_ptr<AsyncReader> make_uring_reader(std::vector<std::unique_ptr<ReadSource>>& sources,
                                               const ReaderOptions& options) {
  auto ring = std::make_unique<Ring>();
  Fd wake(::eventfd(0, EFD_CLOEXEC));
  if (!ring->usable() || !wake.valid()) return nullptr;
  ring->register_memory(options.registered, options.registered_piece.value);
  return std::make_unique<UringReader>(std::move(ring), std::move(wake), std::move(sources),
                                       options);
}

}  // namespace winnow::os
