// SPDX-FileCopyrightText: The Winnow authors
// SPDX-License-Identifier: Apache-2.0
// The folder <OUT>.partial of work that can be killed at any moment and goes on where it was.
#pragma once

#include <filesystem>
#include <optional>
#include <string>

#include "base/json.h"
#include "os/file_lock.h"

namespace winnow::compress {

/// Exists once for each output at a time: it holds a lock. Finished pieces are files in the folder
/// that were renamed into place whole.
class PartialOutput {
 public:
  enum class Start {
    kResume,   ///< go on with what is there
    kRestart,  ///< forget what is there
  };
  /// `run`: whatever decides the bytes of the result, an object of texts and numbers. Throws
  /// Error{kUsage} when the folder holds another run's work and naming what differs, Error{kSystem}
  /// when it cannot be made or another process is at work.
  PartialOutput(const std::filesystem::path& out, const Json& run, Start start);
  PartialOutput(const PartialOutput&) = delete;
  PartialOutput& operator=(const PartialOutput&) = delete;
  /// Removes the folder when nothing in it is worth going on with.
  ~PartialOutput();

  const std::filesystem::path& folder() const { return folder_; }
  bool has(const std::string& piece) const;
  /// From now on the folder stays when the work is broken off.
  void keep() { worth_keeping_ = true; }
  /// The result is written: removes the folder.
  void remove();

 private:
  std::filesystem::path folder_;
  std::optional<os::FileLock> lock_;
  bool worth_keeping_ = false;
};

}  // namespace winnow::compress
