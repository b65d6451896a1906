// SPDX-FileCopyrightText: The Winnow authors
// SPDX-License-Identifier: Apache-2.0
#include "os/file.h"

#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include <array>
#include <csignal>
#include <fstream>

#include "base/error.h"

namespace winnow::os::file_test {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;

template <typename Body>
std::string error_of(ErrorCode code, Body&& body) {
  try {
    body();
  } catch (const Error& error) {
    EXPECT_EQ(static_cast<int>(error.code()), static_cast<int>(code)) << error.message();
    return error.message();
  }
  ADD_FAILURE() << "no error was thrown";
  return "";
}

class FileTest : public ::testing::Test {
 protected:
  FileTest() {
    std::string name = (std::filesystem::temp_directory_path() / "winnow-os-XXXXXX").string();
    EXPECT_NE(::mkdtemp(name.data()), nullptr);
    folder_ = name;
  }
  ~FileTest() override {
    std::error_code ignored;
    std::filesystem::remove_all(folder_, ignored);
  }
  std::filesystem::path path(std::string_view name) const { return folder_ / name; }
  std::size_t entries() const {
    return static_cast<std::size_t>(std::distance(std::filesystem::directory_iterator(folder_),
                                                  std::filesystem::directory_iterator()));
  }
  static void write(const std::filesystem::path& file, std::string_view text) {
    std::ofstream(file, std::ios::binary) << text;
  }
  static bool is_open(int fd) { return ::fcntl(fd, F_GETFD) != -1; }

  std::filesystem::path folder_;
};

using FdTest = FileTest;
using OpenFileTest = FileTest;
using AtomicFileTest = FileTest;
using AtomicFolderTest = FileTest;

TEST_F(FdTest, ClosesWhatItOwnsAndMovesIt) {
  write(path("a"), "x");
  const int raw = ::open(path("a").c_str(), O_RDONLY);
  {
    Fd first(raw);
    Fd second(std::move(first));
    EXPECT_TRUE(second.valid());
    Fd third;
    third = std::move(second);
    EXPECT_EQ(third.value(), raw);
    EXPECT_TRUE(is_open(raw));
  }
  EXPECT_FALSE(is_open(raw));
}

TEST_F(FdTest, LetsGoOnRelease) {
  write(path("a"), "x");
  int raw = -1;
  {
    Fd fd(::open(path("a").c_str(), O_RDONLY));
    raw = fd.release();
    EXPECT_FALSE(fd.valid());
  }
  EXPECT_TRUE(is_open(raw));
  ::close(raw);
}

TEST_F(OpenFileTest, ReadsAnywhereInsideAFile) {
  write(path("a"), "0123456789");
  const auto file = open_file(path("a"));
  EXPECT_EQ(file->size(), Bytes{10});
  EXPECT_EQ(file->name(), path("a").string());
  std::array<char, 4> text{};
  file->read_at(6, std::as_writable_bytes(std::span(text)));
  EXPECT_EQ(std::string_view(text.data(), 4), "6789");
  EXPECT_NO_THROW(file->read_at(10, {}));
}

TEST_F(OpenFileTest, SaysWhereAFileEnds) {
  write(path("a"), "0123456789");
  const auto file = open_file(path("a"));
  std::array<std::byte, 4> bytes{};
  EXPECT_THAT(error_of(ErrorCode::kBadData, [&] { file->read_at(7, bytes); }),
              AllOf(HasSubstr(path("a").string()), HasSubstr("offset 10"), HasSubstr("truncated")));
  EXPECT_THAT(error_of(ErrorCode::kBadData, [&] { file->read_at(1ULL << 40, bytes); }),
              HasSubstr("offset 1099511627776"));
  EXPECT_THAT(error_of(ErrorCode::kBadData, [&] { file->read_at(~0ULL - 8, bytes); }),
              HasSubstr("offset 18446744073709551607"));
  EXPECT_THAT(error_of(ErrorCode::kBadData, [&] { file->read_at((1ULL << 63) - 1, bytes); }),
              HasSubstr("offset 9223372036854775807"));
}

TEST_F(OpenFileTest, GivesAnErrorWhenAFileShrinks) {
  write(path("a"), std::string(100, 'x'));
  const auto file = open_file(path("a"));
  std::filesystem::resize_file(path("a"), 50);
  std::array<std::byte, 60> bytes{};
  EXPECT_THAT(error_of(ErrorCode::kBadData, [&] { file->read_at(0, bytes); }),
              HasSubstr("offset 50"));
}

TEST_F(OpenFileTest, ReadsBeyondFourGibibytes) {
  write(path("sparse"), "");
  const std::uint64_t offset = 5ULL << 30;
  std::filesystem::resize_file(path("sparse"), offset + 3);
  std::array<std::byte, 3> bytes{std::byte{1}, std::byte{1}, std::byte{1}};
  open_file(path("sparse"))->read_at(offset, bytes);
  EXPECT_EQ(bytes[2], std::byte{0});
}

TEST_F(OpenFileTest, RefusesWhatIsNoRegularFile) {
  EXPECT_THAT(error_of(ErrorCode::kBadData, [&] { open_file(path("none")); }),
              HasSubstr("no such file"));
  EXPECT_THAT(error_of(ErrorCode::kBadData, [&] { open_file(folder_); }),
              HasSubstr("not a regular file"));
  write(path("a"), "x");
  EXPECT_THAT(error_of(ErrorCode::kBadData, [&] { open_file(path("a") / "b"); }),
              HasSubstr("no such file"));
  // A pipe that nobody writes to must not hold the program.
  ASSERT_EQ(::mkfifo(path("pipe").c_str(), 0600), 0);
  EXPECT_THAT(error_of(ErrorCode::kBadData, [&] { open_file(path("pipe")); }),
              HasSubstr("not a regular file"));
}

TEST_F(OpenFileTest, ReportsALoopOfLinks) {
  std::filesystem::create_symlink(path("b"), path("a"));
  std::filesystem::create_symlink(path("a"), path("b"));
  EXPECT_THAT(error_of(ErrorCode::kSystem, [&] { open_file(path("a")); }),
              AllOf(HasSubstr(path("a").string()), HasSubstr("symbolic links")));
}

TEST_F(OpenFileTest, ReadsTextUpToALimit) {
  write(path("a"), "hello");
  EXPECT_EQ(read_text_file(path("a"), {5}), "hello");
  EXPECT_THAT(error_of(ErrorCode::kBadData, [&] { read_text_file(path("a"), {4}); }),
              AllOf(HasSubstr("5 B"), HasSubstr("4 B")));
  write(path("empty"), "");
  EXPECT_EQ(read_text_file(path("empty"), {0}), "");
}

TEST_F(AtomicFileTest, AppearsOnlyWithCommit) {
  AtomicFile file(path("out"));
  file.append("hello ");
  file.append(std::as_bytes(std::span("world", 5)));
  EXPECT_EQ(file.position(), Bytes{11});
  EXPECT_FALSE(std::filesystem::exists(path("out")));
  file.commit();
  EXPECT_EQ(read_text_file(path("out"), {100}), "hello world");
  EXPECT_EQ(entries(), 1U);
}

TEST_F(AtomicFileTest, LeavesTheOldFileWhenAbandoned) {
  write(path("out"), "old");
  { AtomicFile(path("out")).append("new"); }
  EXPECT_EQ(read_text_file(path("out"), {100}), "old");
  EXPECT_EQ(entries(), 1U);
}

TEST_F(AtomicFileTest, ReplacesTheOldFileWithCommit) {
  write(path("out"), "old");
  write_text_file(path("out"), "new");
  EXPECT_EQ(read_text_file(path("out"), {100}), "new");
}

TEST_F(AtomicFileTest, KeepsBytesInOrderAcrossItsBuffer) {
  std::string expected;
  AtomicFile file(path("out"));
  for (const std::size_t size :
       {std::size_t{1}, std::size_t{1} << 20, std::size_t{3}, (std::size_t{1} << 20) - 1,
        std::size_t{3} << 20, std::size_t{7}}) {
    const std::string piece(size, static_cast<char>('a' + size % 23));
    file.append(piece);
    expected += piece;
  }
  EXPECT_EQ(file.position().value, expected.size());
  file.commit();
  EXPECT_TRUE(read_text_file(path("out"), {64 << 20}) == expected);
}

TEST_F(AtomicFileTest, MovesWithoutLosingBytes) {
  AtomicFile first(path("out"));
  first.append("a");
  AtomicFile second(std::move(first));
  second.append("b");
  second.commit();
  EXPECT_EQ(read_text_file(path("out"), {100}), "ab");
}

TEST_F(AtomicFileTest, NamesTheFileThatCannotBeMade) {
  EXPECT_THAT(error_of(ErrorCode::kSystem, [&] { AtomicFile(path("none") / "out"); }),
              AllOf(HasSubstr("none/out"), HasSubstr("No such file or directory")));
}

TEST_F(AtomicFileTest, ReportsAFullDiskAndLeavesNothing) {
  // A limit on the size of files stands for the full disk.
  struct rlimit old = {};
  ASSERT_EQ(::getrlimit(RLIMIT_FSIZE, &old), 0);
  const auto old_handler = std::signal(SIGXFSZ, SIG_IGN);
  const struct rlimit small = {4096, old.rlim_max};
  ASSERT_EQ(::setrlimit(RLIMIT_FSIZE, &small), 0);
  std::string message = error_of(ErrorCode::kSystem, [&] {
    AtomicFile file(path("out"));
    file.append(std::string(2 << 20, 'x'));
    file.commit();
  });
  ASSERT_EQ(::setrlimit(RLIMIT_FSIZE, &old), 0);
  std::signal(SIGXFSZ, old_handler);
  EXPECT_THAT(message, AllOf(HasSubstr("out.partial-"), HasSubstr("File too large")));
  EXPECT_EQ(entries(), 0U);
}

TEST_F(AtomicFileTest, RefusesAFolderBeforeAnythingIsWritten) {
  std::filesystem::create_directory(path("out"));
  EXPECT_THAT(error_of(ErrorCode::kUsage, [&] { AtomicFile(path("out")); }),
              HasSubstr("out: is a folder; name a file"));
  EXPECT_EQ(entries(), 1U);
}

TEST_F(AtomicFileTest, NeverTakesThePlaceOfAPipe) {
  ASSERT_EQ(::mkfifo(path("pipe").c_str(), 0600), 0);
  EXPECT_THAT(error_of(ErrorCode::kUsage, [&] { AtomicFile(path("pipe")); }),
              AllOf(HasSubstr("pipe"), HasSubstr("name a regular file")));
  EXPECT_TRUE(std::filesystem::is_fifo(path("pipe")));
  EXPECT_EQ(entries(), 1U);
}

TEST_F(AtomicFileTest, KeepsALinkAndReplacesWhatItLeadsTo) {
  write(path("target"), "old");
  std::filesystem::create_symlink("target", path("link"));
  write_text_file(path("link"), "new");
  EXPECT_TRUE(std::filesystem::is_symlink(path("link")));
  EXPECT_EQ(read_text_file(path("target"), {100}), "new");
}

TEST_F(AtomicFileTest, WritesShortTextsStraightIntoAPipe) {
  ASSERT_EQ(::mkfifo(path("pipe").c_str(), 0600), 0);
  const Fd reader(::open(path("pipe").c_str(), O_RDONLY | O_NONBLOCK));
  ASSERT_TRUE(reader.valid());
  write_text_file(path("pipe"), "text");
  std::array<char, 8> got{};
  EXPECT_EQ(::read(reader.value(), got.data(), got.size()), 4);
  EXPECT_EQ(std::string(got.data()), "text");
  EXPECT_TRUE(std::filesystem::is_fifo(path("pipe")));
}

TEST_F(AtomicFolderTest, AppearsOnlyWithCommit) {
  AtomicFolder folder(path("out"));
  write_text_file(folder.partial() / "a", "x");
  EXPECT_FALSE(std::filesystem::exists(path("out")));
  folder.commit();
  EXPECT_EQ(read_text_file(path("out") / "a", {10}), "x");
  EXPECT_EQ(entries(), 1U);
}

TEST_F(AtomicFolderTest, IsRemovedWhenAbandoned) {
  {
    const AtomicFolder folder(path("out"));
    write(folder.partial() / "a", "x");
  }
  EXPECT_EQ(entries(), 0U);
}

TEST_F(AtomicFolderTest, TakesThePlaceOfAnEmptyFolderOnly) {
  std::filesystem::create_directory(path("out"));
  AtomicFolder(path("out/")).commit();
  write(path("out") / "a", "x");
  EXPECT_THAT(error_of(ErrorCode::kUsage, [&] { AtomicFolder again(path("out")); }),
              AllOf(HasSubstr("out"), HasSubstr("exists already")));
  write(path("file"), "x");
  error_of(ErrorCode::kUsage, [&] { AtomicFolder again(path("file")); });
  EXPECT_EQ(read_text_file(path("out") / "a", {10}), "x");
}

TEST_F(AtomicFolderTest, ReplacesWhatAKilledRunLeft) {
  const auto left = path("out.partial-" + std::to_string(::getpid()));
  std::filesystem::create_directory(left);
  write(left / "old", "x");
  AtomicFolder(path("out")).commit();
  EXPECT_TRUE(std::filesystem::is_empty(path("out")));
}

TEST_F(AtomicFolderTest, LeavesAFolderThatCameInBetween) {
  AtomicFolder folder(path("out"));
  std::filesystem::create_directory(path("out"));
  write(path("out") / "other", "x");
  error_of(ErrorCode::kSystem, [&] { folder.commit(); });
  EXPECT_EQ(read_text_file(path("out") / "other", {10}), "x");
}

}  // namespace
}  // namespace winnow::os::file_test
