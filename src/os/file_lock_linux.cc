// SPDX-FileCopyrightText: The Winnow authors
// SPDX-License-Identifier: Apache-2.0
#include <fcntl.h>
#include <fmt/format.h>
#include <sys/file.h>

#include <cerrno>

#include "base/error.h"
#include "os/file_lock.h"

namespace winnow::os {

FileLock::FileLock(const std::filesystem::path& path)
    : fd_(::open(path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0644)) {
  if (!fd_.valid()) fail_system(errno, fmt::format("{}: cannot create", path.string()));
  if (::flock(fd_.value(), LOCK_EX | LOCK_NB) == 0) return;
  if (errno == EWOULDBLOCK) {
    fail(ErrorCode::kSystem, "{}: is locked; another process is writing the same output",
         path.string());
  }
  fail_system(errno, fmt::format("{}: cannot lock", path.string()));
}

}  // namespace winnow::os
