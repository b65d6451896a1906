// SPDX-FileCopyrightText: The Winnow authors
// SPDX-License-Identifier: Apache-2.0
// A lock that keeps two processes from writing the same output.
#pragma once

#include <filesystem>

#include "os/file.h"

namespace winnow::os {

/// Holds an exclusive advisory lock on `path`, which is made when missing and stays. The system
/// drops the lock when the process ends, however it ends.
class FileLock {
 public:
  /// Throws Error{kSystem} when another process holds it, or when the file cannot be made.
  explicit FileLock(const std::filesystem::path& path);

 private:
  Fd fd_;
};

}  // namespace winnow::os
