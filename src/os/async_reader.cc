// SPDX-FileCopyrightText: The Winnow authors
// SPDX-License-Identifier: Apache-2.0
// The reader with threads of its own, and the choice between it and io_uring.
#include "os/async_reader.h"

#include <exception>
#include <thread>
#include <utility>

#include "base/error.h"
#include "os/read_queue.h"

namespace winnow::os {
namespace {

class ThreadReader final : public AsyncReader {
 public:
  ThreadReader(std::vector<std::unique_ptr<ReadSource>> sources, const ReaderOptions& options)
      : queue_(std::move(sources), options.in_flight) {
    WINNOW_CHECK(options.threads >= 1);
    try {
      for (unsigned i = 0; i < options.threads; ++i) threads_.emplace_back([this] { work(); });
    } catch (const std::system_error& error) {
      queue_.close();
      threads_.clear();
      fail_system(error.code().value(), "starting threads that read experts");
    }
  }
  ~ThreadReader() override {
    queue_.close();
    threads_.clear();  // joins
  }

  void submit(std::span<const AsyncRead> reads, ReadPriority priority) override {
    queue_.submit(reads, priority);
  }
  void promote(std::uint64_t tag) override { queue_.promote(tag); }
  bool cancel(std::uint64_t tag, std::size_t count) override { return queue_.cancel(tag, count); }
  std::optional<ReadResult> poll() override { return queue_.poll(); }
  ReadResult wait() override { return queue_.wait(); }
  std::string_view method() const override { return "threads"; }

 private:
  void work() {
    while (std::optional<ReadJob> job = queue_.take()) {
      std::exception_ptr error;
      try {
        while (!job->attempt()) {
        }
      } catch (...) {
        error = std::current_exception();
      }
      queue_.finish(*job, std::move(error));
    }
  }

  ReadQueue queue_;
  std::vector<std::jthread> threads_;
};

}  // namespace

std::unique_ptr<AsyncReader> make_async_reader(std::vector<std::unique_ptr<ReadSource>> sources,
                                               const ReaderOptions& options) {
  if (options.method != ReadMethod::kThreads) {
    if (auto reader = make_uring_reader(sources, options)) return reader;
    if (options.method == ReadMethod::kUring) {
      fail(ErrorCode::kSystem,
           "the system does not allow io_uring (containers and kernel.io_uring_disabled often "
           "forbid it); read with threads instead");
    }
  }
  return std::make_unique<ThreadReader>(std::move(sources), options);
}

}  // namespace winnow::os
