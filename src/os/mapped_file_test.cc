// SPDX-FileCopyrightText: The Winnow authors
// SPDX-License-Identifier: Apache-2.0
#include "os/mapped_file.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <sys/mman.h>
#include <unistd.h>

#include <atomic>
#include <cstdio>
#include <fstream>
#include <thread>

#include "base/error.h"
#include "os/aligned_buffer.h"
#include "os/mapped_files.h"
#include "os/testing.h"

namespace winnow::os::mapped_file_test {
namespace {

using ::testing::HasSubstr;

constexpr std::size_t kMiB = std::size_t{1} << 20;
const auto kNever = [] { return false; };

class Mappings : public NumberedFiles {};
using MappingsDeathTest = Mappings;  // these fork, so they run before others start threads

TEST_F(Mappings, HoldTheBytesOfTheFile) {
  for (const std::size_t size : {1UL, 4096UL, 12345UL}) {
    const auto mapped = MappedFile::map(*write_numbered("a", size));
    ASSERT_EQ(mapped->bytes().size(), size);
    EXPECT_EQ(first_wrong(mapped->bytes()), size);
    EXPECT_EQ(reinterpret_cast<std::uintptr_t>(mapped->bytes().data()) % (2 * kMiB), 0U);
    EXPECT_NO_THROW(mapped->require_unchanged());
  }
}

TEST_F(Mappings, AreNotMadeOfAnEmptyFile) {
  EXPECT_EQ(MappedFile::map(*write_numbered("a", 0)), nullptr);
}

TEST_F(Mappings, RefuseAFileThatHasGrownSinceItWasOpened) {
  const auto file = write_numbered("a", 100);
  std::ofstream(path("a"), std::ios::app) << "more";
  try {
    MappedFile::map(*file);
    FAIL();
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ErrorCode::kBadData);
    EXPECT_THAT(error.message(), HasSubstr("104 bytes long now, 100 when it was opened"));
  }
}

void expect_changed(const MappedFile& mapped, const std::string& name) {
  try {
    mapped.require_unchanged();
    FAIL() << "nothing was noticed";
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ErrorCode::kBadData);
    EXPECT_THAT(error.message(), HasSubstr(name + ": was changed, truncated"));
    EXPECT_THAT(error.message(), HasSubstr("restore the file and start again"));
  }
}

TEST_F(Mappings, ReadZerosWhereTheFileWasTruncatedAndSaySo) {
  const auto mapped = MappedFile::map(*write_numbered("a", kMiB));
  std::filesystem::resize_file(path("a"), 100'000);
  const auto bytes = mapped->bytes();
  EXPECT_EQ(bytes[200'000], std::byte{0});  // SIGBUS without the guard
  EXPECT_EQ(bytes[kMiB - 1], std::byte{0});
  EXPECT_EQ(first_wrong(bytes.first(100'000)), 100'000U);
  expect_changed(*mapped, path("a"));
}

TEST_F(Mappings, RememberThatPagesWereMissingAfterTheFileIsBack) {
  const auto mapped = MappedFile::map(*write_numbered("a", kMiB));
  const auto modified = std::filesystem::last_write_time(path("a"));
  std::filesystem::resize_file(path("a"), 0);
  EXPECT_EQ(mapped->bytes()[5000], std::byte{0});
  (void)write_numbered("a", kMiB);
  std::filesystem::last_write_time(path("a"), modified);
  expect_changed(*mapped, path("a"));
}

TEST_F(Mappings, NoticeThatTheFileWasRewrittenAtTheSameLength) {
  const auto file = write_numbered("a", kMiB);
  const auto mapped = MappedFile::map(*file);
  std::filesystem::last_write_time(
      path("a"), std::filesystem::file_time_type::clock::now() + std::chrono::seconds(5));
  expect_changed(*mapped, path("a"));
}

TEST_F(Mappings, KeepEachOtherApartWhenOneIsTruncated) {
  const auto one = MappedFile::map(*write_numbered("a", kMiB));
  const auto other = MappedFile::map(*write_numbered("b", kMiB));
  std::filesystem::resize_file(path("a"), 0);
  EXPECT_EQ(one->bytes()[0], std::byte{0});
  expect_changed(*one, path("a"));
  EXPECT_NO_THROW(other->require_unchanged());
  EXPECT_EQ(first_wrong(other->bytes()), kMiB);
}

TEST_F(Mappings, StayCorrectForReadersWhilePiecesAreMoved) {
  constexpr std::size_t kSize = 2 * MappedFile::kPieceBytes + 1234567;
  const auto mapped = MappedFile::map(*write_numbered("a", kSize));
  std::atomic<bool> done{false};
  std::atomic<std::size_t> wrong{0};
  std::vector<std::thread> readers;
  for (std::size_t reader = 0; reader < 3; ++reader) {
    readers.emplace_back([&, reader] {
      const auto bytes = mapped->bytes();
      for (std::size_t i = reader; !done.load(std::memory_order_relaxed);
           i = (i + 1'000'003) % kSize) {
        if (bytes[i] != numbered_byte(i)) ++wrong;
      }
    });
  }
  for (std::size_t piece = 0; piece < mapped->pieces(); ++piece) {
    EXPECT_TRUE(mapped->move_piece(piece, kNever));
  }
  done = true;
  for (auto& reader : readers) reader.join();
  EXPECT_EQ(wrong, 0U);
  EXPECT_EQ(first_wrong(mapped->bytes()), kSize);
}

TEST_F(Mappings, NeedTheFileNoLongerOnceAllPiecesAreMoved) {
  const auto mapped = MappedFile::map(*write_numbered("a", kMiB + 1));
  ASSERT_EQ(mapped->pieces(), 1U);
  ASSERT_TRUE(mapped->move_piece(0, kNever));
  std::filesystem::resize_file(path("a"), 0);
  EXPECT_EQ(first_wrong(mapped->bytes()), kMiB + 1);
  EXPECT_NO_THROW(mapped->require_unchanged());
}

TEST_F(Mappings, StandOnHugePagesWhereABufferDoes) {
  const auto mapped = MappedFile::map(*write_numbered("a", 8 * kMiB));
  ASSERT_TRUE(mapped->move_piece(0, kNever));
  const AlignedBuffer buffer(8 * kMiB);
  std::fill(buffer.bytes().begin(), buffer.bytes().end(), std::byte{1});
  EXPECT_EQ(huge_page_bytes(mapped->bytes()) > 0, huge_page_bytes(buffer.bytes()) > 0);
}

TEST_F(Mappings, DoNotMoveAPieceOfAFileThatHasChanged) {
  const auto mapped = MappedFile::map(*write_numbered("a", kMiB));
  std::filesystem::resize_file(path("a"), 0);
  (void)write_numbered("a", kMiB);
  std::filesystem::last_write_time(
      path("a"), std::filesystem::file_time_type::clock::now() + std::chrono::seconds(5));
  EXPECT_FALSE(mapped->move_piece(0, kNever));
  expect_changed(*mapped, path("a"));
}

TEST_F(Mappings, StopBetweenTheReadsOfAPiece) {
  const auto mapped = MappedFile::map(*write_numbered("a", 16 * kMiB));
  int asked = 0;
  EXPECT_FALSE(mapped->move_piece(0, [&] { return ++asked == 3; }));
  EXPECT_EQ(asked, 3);
  EXPECT_EQ(first_wrong(mapped->bytes()), 16 * kMiB);
  EXPECT_NO_THROW(mapped->require_unchanged());
}

/// Touches a page behind the end of a file that no guard knows, in a process of its own.
void touch_foreign_mapping(const std::string& file) {
  const int fd = ::open(file.c_str(), O_RDONLY);
  const auto* foreign =
      static_cast<const volatile char*>(::mmap(nullptr, 8192, PROT_READ, MAP_PRIVATE, fd, 0));
  if (foreign == MAP_FAILED) std::_Exit(3);
  std::_Exit(foreign[4096] == 0 ? 1 : 2);
}

TEST_F(MappingsDeathTest, LeaveSignalsOfOtherMappingsToThoseWhoHandledThemBefore) {
  const auto ours = write_numbered("ours", kMiB);
  (void)write_numbered("foreign", 100);
  const auto with_handler = [&] {
    ::signal(SIGBUS, [](int) { std::_Exit(42); });
    const auto mapped = MappedFile::map(*ours);
    touch_foreign_mapping(path("foreign"));
  };
  EXPECT_EXIT(with_handler(), ::testing::ExitedWithCode(42), "");
}

TEST_F(MappingsDeathTest, LetABadAddressElsewhereEndTheProcessAsBefore) {
  const auto ours = write_numbered("ours", kMiB);
  (void)write_numbered("foreign", 100);
  const auto without_handler = [&] {
    ::signal(SIGBUS, SIG_DFL);
    const auto mapped = MappedFile::map(*ours);
    touch_foreign_mapping(path("foreign"));
  };
  EXPECT_EXIT(without_handler(), ::testing::KilledBySignal(SIGBUS), "");
}

TEST_F(MappingsDeathTest, LetASignalThatWasSentEndTheProcessAsBefore) {
  const auto ours = write_numbered("ours", kMiB);
  const auto sent = [&] {
    ::signal(SIGBUS, SIG_DFL);
    const auto mapped = MappedFile::map(*ours);
    ::raise(SIGBUS);
    std::_Exit(1);
  };
  EXPECT_EXIT(sent(), ::testing::KilledBySignal(SIGBUS), "");
}

TEST_F(Mappings, PutTheFormerHandlerBackWithTheLastOfThem) {
  const auto file = write_numbered("a", 100);
  struct sigaction before = {};
  struct sigaction during = {};
  struct sigaction after = {};
  ::sigaction(SIGBUS, nullptr, &before);
  {
    const auto one = MappedFile::map(*file);
    { const auto two = MappedFile::map(*file); }
    ::sigaction(SIGBUS, nullptr, &during);
  }
  ::sigaction(SIGBUS, nullptr, &after);
  EXPECT_NE(during.sa_sigaction, before.sa_sigaction);
  EXPECT_EQ(after.sa_sigaction, before.sa_sigaction);
}

class FilesInMemory : public NumberedFiles {
 protected:
  std::vector<std::unique_ptr<RandomAccessFile>> files_;
};

TEST_F(FilesInMemory, StayUntilTheMoveIsStartedOrForGood) {
  files_.push_back(write_numbered("a", 5000));
  const MappedFiles later(files_, MappedFiles::Move::kInBackground);
  MappedFiles never(files_, MappedFiles::Move::kStay);
  never.start_moving();
  never.wait_until_settled();
  EXPECT_EQ(never.moved().value + later.moved().value, 0U);
}

TEST_F(FilesInMemory, AreFoundByFileAndOffset) {
  files_.push_back(write_numbered("a", 5000));
  files_.push_back(write_numbered("empty", 0));
  files_.push_back(write_numbered("b", 7000));
  const MappedFiles mapped(files_, MappedFiles::Move::kStay);
  EXPECT_EQ(mapped.size().value, 12000U);
  EXPECT_EQ(*mapped.find(*files_[2], 6999, 1), numbered_byte(6999));
  EXPECT_EQ(mapped.find(*files_[1], 0, 0), nullptr);
  EXPECT_THROW(mapped.find(*files_[0], 5000, 1), Error);
  mapped.wait_until_settled();  // at once: nothing moves
  EXPECT_EQ(mapped.moved().value, 0U);
}

TEST_F(FilesInMemory, MoveInTheBackgroundAndKeepTheirAddresses) {
  files_.push_back(write_numbered("a", MappedFile::kPieceBytes + 5));
  files_.push_back(write_numbered("b", 3 * kMiB));
  MappedFiles mapped(files_, MappedFiles::Move::kInBackground);
  mapped.start_moving();
  const std::byte* const a = mapped.find(*files_[0], 0, 1);
  EXPECT_EQ(a[MappedFile::kPieceBytes], numbered_byte(MappedFile::kPieceBytes));
  mapped.wait_until_settled();
  EXPECT_EQ(mapped.moved(), mapped.size());
  EXPECT_EQ(mapped.find(*files_[0], 0, 1), a);
  EXPECT_EQ(first_wrong({a, MappedFile::kPieceBytes + 5}), MappedFile::kPieceBytes + 5);
  for (const char* name : {"a", "b"}) std::filesystem::resize_file(path(name), 0);
  EXPECT_NO_THROW(mapped.require_unchanged());
}

TEST_F(FilesInMemory, EndWithoutWaitingForTheMove) {
  files_.push_back(write_numbered("a", 3 * MappedFile::kPieceBytes));
  for (int round = 0; round < 10; ++round) {
    MappedFiles mapped(files_, MappedFiles::Move::kInBackground);
    mapped.start_moving();
    EXPECT_EQ(*mapped.find(*files_[0], 77, 1), numbered_byte(77));
  }
}

TEST_F(FilesInMemory, NameTheOneThatWasTruncated) {
  files_.push_back(write_numbered("a", 5000));
  files_.push_back(write_numbered("b", 7000));
  const MappedFiles mapped(files_, MappedFiles::Move::kStay);
  std::filesystem::resize_file(path("b"), 10);
  try {
    mapped.require_unchanged();
    FAIL();
  } catch (const Error& error) {
    EXPECT_THAT(error.message(), HasSubstr(path("b") + ": was changed"));
  }
}

// ThreadSanitizer keeps several bytes of its own for each byte that is touched.
#if defined(__has_feature)
#if __has_feature(thread_sanitizer)
#define WINNOW_TEST_MEMORY_IS_DOUBLED
#endif
#elif defined(__SANITIZE_THREAD__)
#define WINNOW_TEST_MEMORY_IS_DOUBLED
#endif
#ifndef WINNOW_TEST_MEMORY_IS_DOUBLED
TEST_F(FilesInMemory, NeverHoldMuchMoreThanTheFileInMemory) {
  constexpr std::size_t kSize = 300 * kMiB;
  files_.push_back(write_numbered("a", kSize));
  const std::size_t before = resident_bytes();
  std::atomic<bool> done{false};
  std::size_t most = 0;
  {
    MappedFiles mapped(files_, MappedFiles::Move::kInBackground);
    mapped.start_moving();
    std::thread sampler([&] {
      while (!done) most = std::max(most, resident_bytes());
    });
    const std::byte* const a = mapped.find(*files_[0], 0, kSize);
    EXPECT_EQ(first_wrong({a, kSize}), kSize);  // all of it resident while it moves
    mapped.wait_until_settled();
    done = true;
    sampler.join();
    EXPECT_EQ(mapped.moved(), mapped.size());
  }
  EXPECT_GE(most, before + kSize);
  EXPECT_LE(most, before + kSize + 200 * kMiB);
}
#endif

}  // namespace
}  // namespace winnow::os::mapped_file_test
