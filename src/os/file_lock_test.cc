// SPDX-FileCopyrightText: The Winnow authors
// SPDX-License-Identifier: Apache-2.0
#include "os/file_lock.h"

#include <gtest/gtest.h>

#include <optional>

#include "base/error.h"

namespace winnow::os::file_lock_test {
namespace {

std::filesystem::path fresh_path() {
  const auto path = std::filesystem::path(testing::TempDir()) / "winnow-file-lock-test";
  std::filesystem::remove(path);
  return path;
}

TEST(FileLock, IsRefusedWhileAnotherIsHeldAndGivenAfterwards) {
  const auto path = fresh_path();
  std::optional<FileLock> first(path);
  try {
    const FileLock second(path);
    FAIL() << "both were given";
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ErrorCode::kSystem);
    EXPECT_NE(error.message().find("another process"), std::string::npos);
  }
  first.reset();
  EXPECT_NO_THROW(FileLock{path});
}

TEST(FileLock, NamesAFileThatCannotBeMade) {
  try {
    const FileLock lock("/nowhere/at/all");
    FAIL() << "it was made";
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ErrorCode::kSystem);
    EXPECT_NE(error.message().find("/nowhere/at/all"), std::string::npos);
  }
}

}  // namespace
}  // namespace winnow::os::file_lock_test
