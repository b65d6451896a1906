// SPDX-FileCopyrightText: The Winnow authors
// SPDX-License-Identifier: Apache-2.0
// How library code tells its user something without printing: through an interface it is given.
#pragma once

#include <cstdint>
#include <string_view>

namespace winnow {

/// Receives messages and progress of long work. Implementations are thread-safe; the default
/// ignores everything.
class Log {
 public:
  virtual ~Log() = default;
  virtual void info(std::string_view /*message*/) {}
  virtual void warn(std::string_view /*message*/) {}
  /// `done` of `total` units ("tokens", "bytes") of `stage` are finished; total 0 means unknown.
  virtual void progress(std::string_view /*stage*/, std::uint64_t /*done*/, std::uint64_t /*total*/,
                        std::string_view /*unit*/) {}
  /// True once the user asked to stop; long loops call `check_interrupt`.
  virtual bool stop_requested() const { return false; }
  /// Throws Error{kInterrupted} when a stop was requested.
  void check_interrupt() const;
};

}  // namespace winnow
