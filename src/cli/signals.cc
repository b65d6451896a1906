// SPDX-FileCopyrightText: The Winnow authors
// SPDX-License-Identifier: Apache-2.0
#include "cli/signals.h"

#include <unistd.h>

#include <array>
#include <atomic>
#include <csignal>

namespace winnow::cli {
namespace {

// A signal handler has no argument to carry state, so this one flag is global.
// NOLINTNEXTLINE(cppcoreguidelines-avoid-non-const-global-variables): see above
std::atomic<int> received_signal{0};
static_assert(std::atomic<int>::is_always_lock_free, "handlers may touch lock-free atomics only");

// NOLINTNEXTLINE(cppcoreguidelines-avoid-non-const-global-variables): what to restore
std::array<struct sigaction, 3> former_actions{};
constexpr std::array kSignals = {SIGINT, SIGTERM, SIGPIPE};

extern "C" void on_stop_signal(int signal) {
  int expected = 0;
  if (!received_signal.compare_exchange_strong(expected, signal)) ::_exit(128 + signal);
}

}  // namespace

SignalGuard::SignalGuard() {
  received_signal = 0;
  struct sigaction action {};
  sigemptyset(&action.sa_mask);
  for (std::size_t i = 0; i < kSignals.size(); ++i) {
    // No SA_RESTART: a read that waits for the terminal has to return when Ctrl-C comes.
    action.sa_handler = kSignals[i] == SIGPIPE ? SIG_IGN : on_stop_signal;
    sigaction(kSignals[i], &action, &former_actions[i]);
  }
}

SignalGuard::~SignalGuard() {
  for (std::size_t i = 0; i < kSignals.size(); ++i) {
    sigaction(kSignals[i], &former_actions[i], nullptr);
  }
}

int stop_signal() { return received_signal.load(); }

}  // namespace winnow::cli
