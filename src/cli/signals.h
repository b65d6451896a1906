// SPDX-FileCopyrightText: The Winnow authors
// SPDX-License-Identifier: Apache-2.0
// SIGINT and SIGTERM: the first asks for a clean stop, the second ends the program at once.
#pragma once

namespace winnow::cli {

/// While it lives, signals set a flag instead of ending the program, and SIGPIPE is ignored (a
/// write then fails with EPIPE). Restores the former handlers. At most one at a time.
class SignalGuard {
 public:
  SignalGuard();
  ~SignalGuard();
  SignalGuard(const SignalGuard&) = delete;
  SignalGuard& operator=(const SignalGuard&) = delete;
};

/// The signal that asked for a stop, or 0. Safe from any thread.
int stop_signal();

}  // namespace winnow::cli
