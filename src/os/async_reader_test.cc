// SPDX-FileCopyrightText: The Winnow authors
// SPDX-License-Identifier: Apache-2.0
#include "os/async_reader.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <atomic>
#include <cerrno>
#include <chrono>
#include <filesystem>
#include <fstream>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

#include "base/error.h"
#include "os/aligned_buffer.h"
#include "os/testing.h"

namespace winnow::os::async_reader_test {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

constexpr std::size_t kBlock = kReadAlignment;

/// A numbered file in memory; `answer`, where there is one, says what becomes of the nth attempt:
/// nothing for the file's own answer.
class FakeSource final : public ReadSource {
 public:
  using Answer = std::function<std::optional<std::int64_t>(int attempt, std::size_t wanted)>;
  explicit FakeSource(std::size_t size, Answer answer = nullptr)
      : size_(size), answer_(std::move(answer)) {}

  const std::string& name() const override { return name_; }
  std::int64_t read(std::uint64_t offset, std::span<std::byte> out) override {
    const int attempt = attempts_++;
    std::size_t count = offset >= size_ ? 0 : std::min<std::uint64_t>(out.size(), size_ - offset);
    if (answer_) {
      if (const auto answer = answer_(attempt, count)) {
        if (*answer < 0) return *answer;
        count = std::min<std::size_t>(count, static_cast<std::size_t>(*answer));
      }
    }
    for (std::size_t i = 0; i < count; ++i) out[i] = numbered_byte(offset + i);
    const std::lock_guard lock(mutex_);
    offsets_.push_back(offset);
    return static_cast<std::int64_t>(count);
  }
  void fall_back() override { fell_back_ = true; }

  int attempts() const { return attempts_; }
  bool fell_back() const { return fell_back_; }
  std::vector<std::uint64_t> offsets() const {
    const std::lock_guard lock(mutex_);
    return offsets_;
  }

 private:
  std::string name_ = "model.gguf";
  std::size_t size_;
  Answer answer_;
  std::atomic<int> attempts_{0};
  std::atomic<bool> fell_back_{false};
  mutable std::mutex mutex_;
  std::vector<std::uint64_t> offsets_;
};

void expect_numbered(std::span<const std::byte> bytes, std::uint64_t offset) {
  for (std::size_t i = 0; i < bytes.size(); ++i) {
    ASSERT_EQ(bytes[i], numbered_byte(offset + i)) << i;
  }
}

std::string error_of(const ReadResult& result, ErrorCode code) {
  try {
    if (result.error) std::rethrow_exception(result.error);
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), code) << error.message();
    return error.message();
  }
  ADD_FAILURE() << "no error";
  return "";
}

/// Runs once for each way to read.
class AsyncReaderTest : public NumberedFiles, public ::testing::WithParamInterface<ReadMethod> {
 protected:
  std::unique_ptr<AsyncReader> reader_of(std::unique_ptr<ReadSource> source,
                                         ReaderOptions options = {}) {
    options.method = GetParam();
    std::vector<std::unique_ptr<ReadSource>> sources;
    sources.push_back(std::move(source));
    return make_async_reader(std::move(sources), options);
  }
  /// With `source` still looked at.
  std::unique_ptr<AsyncReader> reader_of(FakeSource*& seen, std::size_t size,
                                         FakeSource::Answer answer = nullptr) {
    auto source = std::make_unique<FakeSource>(size, std::move(answer));
    seen = source.get();
    return reader_of(std::move(source), {.threads = 1});
  }
  ReadResult read_one(AsyncReader& reader, std::uint64_t offset, std::size_t least) {
    const AsyncRead read{0, offset, buffer_.bytes().first((least + kBlock - 1) / kBlock * kBlock),
                         least, 7};
    reader.submit(std::span(&read, 1), ReadPriority::kDemand);
    return reader.wait();
  }

  AlignedBuffer buffer_{64 * kBlock};
};

/// Those that this system allows.
std::vector<ReadMethod> methods() {
  std::vector<ReadMethod> allowed = {ReadMethod::kThreads};
  if (make_async_reader({}, {})->method() == "io_uring") allowed.push_back(ReadMethod::kUring);
  return allowed;
}

INSTANTIATE_TEST_SUITE_P(Methods, AsyncReaderTest, ::testing::ValuesIn(methods()),
                         [](const auto& method) {
                           return method.param == ReadMethod::kUring ? "Uring" : "Threads";
                         });

TEST_P(AsyncReaderTest, ReadsIntoMemoryThatIsPinnedPartlyPinnedAndNot) {
  const auto file = write_numbered("model", 64 * kBlock);
  ReaderOptions options;
  options.registered = buffer_.bytes().first(32 * kBlock);
  options.registered_piece = {8 * kBlock};
  const auto reader = reader_of(make_read_source(*file, PageCache::kAvoided), options);
  EXPECT_EQ(reader->registered().value, GetParam() == ReadMethod::kUring ? 32 * kBlock : 0);
  // Within a piece, up to its end, across two, across the end of what is pinned, and beyond it.
  const std::vector<std::size_t> begins = {1, 5, 14, 30, 40};
  std::vector<AsyncRead> reads;
  reads.reserve(begins.size());
  for (const std::size_t begin : begins) {
    reads.push_back({0, (begin + 7) * kBlock, buffer_.bytes().subspan(begin * kBlock, 3 * kBlock),
                     3 * kBlock, begin});
  }
  reader->submit(reads, ReadPriority::kDemand);
  for (std::size_t i = 0; i < begins.size(); ++i) {
    const ReadResult result = reader->wait();
    EXPECT_EQ(result.error, nullptr);
    expect_numbered(buffer_.bytes().subspan(result.tag * kBlock, 3 * kBlock),
                    (result.tag + 7) * kBlock);
  }
}

TEST_P(AsyncReaderTest, ReadsManyStretchesOfAFileAtOnce) {
  const auto file = write_numbered("model", 64 * kBlock - 100);
  for (const PageCache cache : {PageCache::kAvoided, PageCache::kUsed}) {
    const auto reader = reader_of(make_read_source(*file, cache), {.in_flight = {6 * kBlock}});
    std::vector<AsyncRead> reads;
    for (std::size_t i = 0; i < 32; ++i) {  // the last one reaches beyond the end of the file
      reads.push_back({0, 2 * i * kBlock, buffer_.bytes().subspan(2 * i * kBlock, 2 * kBlock),
                       2 * kBlock - 100, i});
    }
    reader->submit(reads, ReadPriority::kDemand);
    std::vector<bool> seen(reads.size());
    for (std::size_t i = 0; i < reads.size(); ++i) {
      const ReadResult result = reader->wait();
      EXPECT_FALSE(result.error);
      EXPECT_FALSE(seen[result.tag]);
      seen[result.tag] = true;
      const AsyncRead& read = reads[result.tag];
      expect_numbered(read.out.first(read.least), read.offset);
    }
    EXPECT_FALSE(reader->poll().has_value());
    std::fill_n(buffer_.data(), buffer_.size(), std::byte{0});
  }
}

TEST_P(AsyncReaderTest, ReadsFilesThatHaveNoDescriptor) {
  class Memory final : public RandomAccessFile {
   public:
    const std::string& name() const override { return name_; }
    Bytes size() const override { return {3 * kBlock}; }
    void read_at(std::uint64_t offset, std::span<std::byte> out) const override {
      for (std::size_t i = 0; i < out.size(); ++i) out[i] = numbered_byte(offset + i);
    }

   private:
    std::string name_ = "memory";
  };
  const Memory file;
  const auto reader = reader_of(make_read_source(file, PageCache::kAvoided));
  EXPECT_FALSE(read_one(*reader, kBlock, 2 * kBlock).error);
  expect_numbered(buffer_.bytes().first(2 * kBlock), kBlock);
  EXPECT_THAT(error_of(read_one(*reader, 2 * kBlock, 2 * kBlock), ErrorCode::kBadData),
              HasSubstr("truncated"));
}

TEST_P(AsyncReaderTest, GoesOnAfterShortReadsFromTheLastWholeBlock) {
  FakeSource* source = nullptr;
  const auto reader = reader_of(source, 8 * kBlock, [](int attempt, std::size_t wanted) {
    return attempt < 2 ? std::optional<std::int64_t>(wanted / 2 + 10) : std::nullopt;
  });
  EXPECT_FALSE(read_one(*reader, 0, 8 * kBlock).error);
  expect_numbered(buffer_.bytes().first(8 * kBlock), 0);
  EXPECT_THAT(source->offsets(), ElementsAre(0, 4 * kBlock, 6 * kBlock));
}

TEST_P(AsyncReaderTest, GoesOnAfterInterruptionsAndTwoErrorsOfTheDisk) {
  FakeSource* source = nullptr;
  const std::map<int, int> errors = {{0, EINTR}, {1, EIO}, {2, EAGAIN}, {3, EIO}};
  const auto reader = reader_of(source, 8 * kBlock, [&](int attempt, std::size_t) {
    const auto found = errors.find(attempt);
    return found == errors.end() ? std::nullopt : std::optional<std::int64_t>(-found->second);
  });
  EXPECT_FALSE(read_one(*reader, kBlock, kBlock).error);
  expect_numbered(buffer_.bytes().first(kBlock), kBlock);
  EXPECT_EQ(source->attempts(), 5);
}

TEST_P(AsyncReaderTest, FailsOnlyTheReadThatTheDiskCannotGive) {
  FakeSource* source = nullptr;
  const auto reader = reader_of(source, 8 * kBlock, [](int attempt, std::size_t) {
    return attempt < 3 ? std::optional<std::int64_t>(-EIO) : std::nullopt;
  });
  const std::string message = error_of(read_one(*reader, 2 * kBlock, kBlock), ErrorCode::kSystem);
  EXPECT_THAT(message, HasSubstr("model.gguf: reading 4096 bytes at offset 8192"));
  EXPECT_FALSE(read_one(*reader, 2 * kBlock, kBlock).error);
}

TEST_P(AsyncReaderTest, DoesNotWaitForEverForAnswersThatNeverCome) {
  for (const int reason : {EINTR, EAGAIN}) {
    FakeSource* source = nullptr;
    const auto reader = reader_of(source, 8 * kBlock, [reason](int, std::size_t) {
      return std::optional<std::int64_t>(-reason);
    });
    error_of(read_one(*reader, 0, kBlock), ErrorCode::kSystem);
  }
}

TEST_P(AsyncReaderTest, UsesThePageCacheWhereTheFileSystemRefusesToAvoidIt) {
  FakeSource* source = nullptr;
  const auto reader = reader_of(source, 8 * kBlock, [](int attempt, std::size_t) {
    return attempt == 0 ? std::optional<std::int64_t>(-EINVAL) : std::nullopt;
  });
  EXPECT_FALSE(read_one(*reader, 0, kBlock).error);
  EXPECT_TRUE(source->fell_back());
}

TEST_P(AsyncReaderTest, FallsBackForAllReadsThatWereOnTheirWay) {
  const bool at_once = GetParam() == ReadMethod::kThreads;
  std::atomic<int> refused{0};
  // The first attempt of each is refused; of threads, none hears that before all have asked.
  auto source = std::make_unique<FakeSource>(8 * kBlock, [&](int attempt, std::size_t) {
    if (at_once ? attempt >= 4 : attempt % 2 == 1) return std::optional<std::int64_t>();
    ++refused;
    while (at_once && refused < 4) std::this_thread::yield();
    return std::optional<std::int64_t>(-EINVAL);
  });
  const FakeSource& seen = *source;
  const auto reader = reader_of(std::move(source), {.threads = 4});
  std::vector<AsyncRead> reads;
  for (std::size_t i = 0; i < 4; ++i) {
    reads.push_back({0, i * kBlock, buffer_.bytes().subspan(i * kBlock, kBlock), kBlock, i});
  }
  reader->submit(reads, ReadPriority::kDemand);
  for (std::size_t i = 0; i < reads.size(); ++i) EXPECT_FALSE(reader->wait().error);
  EXPECT_TRUE(seen.fell_back());
  EXPECT_EQ(seen.attempts(), 8);
}

TEST_P(AsyncReaderTest, SaysWhereATruncatedFileEnds) {
  const auto file = write_numbered("model", 16 * kBlock);
  for (const PageCache cache : {PageCache::kAvoided, PageCache::kUsed}) {
    std::filesystem::resize_file(path("model"), 16 * kBlock);
    const auto reader = reader_of(make_read_source(*file, cache));
    std::filesystem::resize_file(path("model"), 5 * kBlock + 17);
    const std::string message =
        error_of(read_one(*reader, 4 * kBlock, 4 * kBlock), ErrorCode::kBadData);
    EXPECT_THAT(message, HasSubstr("ends at or before offset 20497"));
    error_of(read_one(*reader, 12 * kBlock, 4 * kBlock), ErrorCode::kBadData);
  }
}

TEST_P(AsyncReaderTest, RefusesBytesOfAFileThatWasWrittenTo) {
  const auto file = write_numbered("model", 16 * kBlock);
  const auto reader = reader_of(make_read_source(*file, PageCache::kAvoided));
  EXPECT_FALSE(read_one(*reader, 0, kBlock).error);
  std::filesystem::last_write_time(
      path("model"), std::filesystem::file_time_type::clock::now() + std::chrono::seconds(5));
  EXPECT_THAT(error_of(read_one(*reader, 0, kBlock), ErrorCode::kBadData),
              HasSubstr("written to since it was opened"));
}

TEST_P(AsyncReaderTest, GoesOnReadingAFileWhosePathLeadsToAnother) {
  const auto file = write_numbered("model", 16 * kBlock);
  std::filesystem::remove(path("model"));
  std::ofstream(path("model")) << "another file";
  const auto reader = reader_of(make_read_source(*file, PageCache::kAvoided));
  EXPECT_FALSE(read_one(*reader, 3 * kBlock, kBlock).error);
  expect_numbered(buffer_.bytes().first(kBlock), 3 * kBlock);
}

/// Returns once a first read has begun. Those that io_uring cannot do, of sources without a
/// descriptor, have begun when they were handed over, and go on when they are waited for.
void wait_until_begun(const FakeSource& source, ReadMethod method) {
  while (method == ReadMethod::kThreads && source.attempts() == 0) std::this_thread::yield();
}

/// Lets reads of a source wait at a gate.
class Gate {
 public:
  FakeSource::Answer answer() {
    return [this](int, std::size_t) -> std::optional<std::int64_t> {
      while (!open_) std::this_thread::sleep_for(std::chrono::milliseconds(1));
      return std::nullopt;
    };
  }
  void open() { open_ = true; }

 private:
  std::atomic<bool> open_{false};
};

TEST_P(AsyncReaderTest, ReadsWhatIsNeededBeforeGuessesAndPromotedGuessesBeforeOthers) {
  Gate gate;
  FakeSource* source = nullptr;
  const auto reader = reader_of(source, 64 * kBlock, gate.answer());
  const auto submit = [&](std::uint64_t block, ReadPriority priority) {
    const AsyncRead read{0, block * kBlock, buffer_.bytes().subspan(block * kBlock, kBlock), kBlock,
                         block};
    reader->submit(std::span(&read, 1), priority);
  };
  submit(0, ReadPriority::kDemand);  // waits at the gate
  wait_until_begun(*source, GetParam());
  for (const std::uint64_t block : {1, 2, 3}) submit(block, ReadPriority::kSpeculation);
  submit(4, ReadPriority::kDemand);
  reader->promote(3);
  reader->promote(0);  // has begun: nothing to do
  gate.open();
  std::vector<std::uint64_t> order(5);
  for (std::uint64_t& tag : order) tag = reader->wait().tag;
  EXPECT_THAT(order, ElementsAre(0, 4, 3, 1, 2));
}

TEST_P(AsyncReaderTest, CancelsGuessesOfWhichNothingHasBegun) {
  Gate gate;
  FakeSource* source = nullptr;
  const auto reader = reader_of(source, 64 * kBlock, gate.answer());
  const auto submit = [&](std::uint64_t block, std::uint64_t tag, ReadPriority priority) {
    const AsyncRead read{0, block * kBlock, buffer_.bytes().subspan(block * kBlock, kBlock), kBlock,
                         tag};
    reader->submit(std::span(&read, 1), priority);
  };
  submit(0, 0, ReadPriority::kDemand);  // waits at the gate
  wait_until_begun(*source, GetParam());
  submit(1, 1, ReadPriority::kSpeculation);
  submit(2, 1, ReadPriority::kSpeculation);
  submit(3, 2, ReadPriority::kSpeculation);
  submit(4, 3, ReadPriority::kSpeculation);
  reader->promote(3);
  EXPECT_FALSE(reader->cancel(0, 1)) << "it has begun";
  EXPECT_FALSE(reader->cancel(3, 1)) << "it is needed";
  EXPECT_FALSE(reader->cancel(1, 3)) << "one of three has begun";
  EXPECT_TRUE(reader->cancel(1, 2));
  gate.open();
  std::vector<std::uint64_t> order(3);
  for (std::uint64_t& tag : order) tag = reader->wait().tag;
  EXPECT_THAT(order, ElementsAre(0, 3, 2));
  EXPECT_FALSE(reader->poll().has_value());
}

TEST_P(AsyncReaderTest, DropsReadsThatHaveNotBegunWhenItIsDestroyed) {
  Gate gate;
  auto source = std::make_unique<FakeSource>(64 * kBlock, gate.answer());
  FakeSource* const seen = source.get();
  auto reader = reader_of(std::move(source), {.threads = 1});
  std::vector<AsyncRead> reads;
  for (std::size_t i = 0; i < 32; ++i) {
    reads.push_back({0, i * kBlock, buffer_.bytes().subspan(i * kBlock, kBlock), kBlock, i});
  }
  reader->submit(reads, ReadPriority::kDemand);
  wait_until_begun(*seen, GetParam());
  std::jthread opener([&] {
    std::this_thread::sleep_for(std::chrono::milliseconds(20));
    gate.open();
  });
  reader.reset();
  SUCCEED();
}

TEST(AsyncReader, TakesThreadsWhereAskedAndSaysWhenUringIsNotAllowed) {
  EXPECT_EQ(make_async_reader({}, {.method = ReadMethod::kThreads})->method(), "threads");
  if (methods().size() == 2) {
    EXPECT_EQ(make_async_reader({}, {.method = ReadMethod::kUring})->method(), "io_uring");
  } else {
    EXPECT_THROW(make_async_reader({}, {.method = ReadMethod::kUring}), Error);
  }
}

TEST_P(AsyncReaderTest, KeepsTheBytesOnTheirWayBelowTheBound) {
  if (GetParam() == ReadMethod::kUring) return;  // sources without a descriptor come one by one
  std::atomic<int> now{0};
  std::atomic<int> most{0};
  auto source = std::make_unique<FakeSource>(64 * kBlock, [&](int, std::size_t) {
    const int here = ++now;
    int before = most;
    while (before < here && !most.compare_exchange_weak(before, here)) {
    }
    std::this_thread::sleep_for(std::chrono::milliseconds(2));
    --now;
    return std::optional<std::int64_t>();
  });
  const auto reader = reader_of(std::move(source), {.threads = 8, .in_flight = {3 * kBlock}});
  std::vector<AsyncRead> reads;
  for (std::size_t i = 0; i < 40; ++i) {
    reads.push_back({0, i * kBlock, buffer_.bytes().subspan(i * kBlock, kBlock), kBlock, i});
  }
  reader->submit(reads, ReadPriority::kDemand);
  for (std::size_t i = 0; i < reads.size(); ++i) EXPECT_FALSE(reader->wait().error);
  EXPECT_LE(most, 3);
}

}  // namespace
}  // namespace winnow::os::async_reader_test
