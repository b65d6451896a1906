// SPDX-FileCopyrightText: The Winnow authors
// SPDX-License-Identifier: Apache-2.0
// The handler may run at any instruction of any thread, so it only walks a list of atomics and
// makes one system call.
#include "os/fault_guard.h"
#include "os/pages.h"

#include <signal.h>
#include <sys/mman.h>

#include <cerrno>
#include <mutex>

#include "base/error.h"

namespace winnow::os {
namespace {

/// A signal's handler belongs to the process, so there is one of these.
struct Registry {
  std::atomic<FaultGuard::Range*> ranges{nullptr};
  std::mutex mutex;  // for everything below, and for taking and adding entries
  std::size_t guards = 0;
  bool installed = false;
  struct sigaction former = {};  // changes only while the handler is not installed
};
// NOLINTNEXTLINE(cppcoreguidelines-avoid-non-const-global-variables): see above
constinit Registry registry;

/// Puts zeros from the page of `address` to the end of its guarded range. False when no range has
/// it. What lies behind a page that cannot be read is not worth another signal per page.
bool fill_with_zeros(std::uintptr_t address) {
  auto* range = registry.ranges.load(std::memory_order_acquire);
  for (; range != nullptr; range = range->next) {
    const std::uintptr_t end = range->end.load(std::memory_order_acquire);
    const std::uintptr_t begin = range->begin.load(std::memory_order_acquire);
    // An entry that changes hands passes through end 0.
    if (range->end.load(std::memory_order_acquire) != end) continue;
    if (address < begin || address >= end) continue;
    range->faulted.store(true, std::memory_order_release);
    const std::uintptr_t page = address / kPage * kPage;
    // NOLINTNEXTLINE(performance-no-int-to-ptr): an address from the kernel
    void* const place = reinterpret_cast<void*>(page);
    return ::mmap(place, end - page, PROT_READ,
                  MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED, -1, 0) != MAP_FAILED;
  }
  return false;
}

/// As if this handler did not exist.
void pass_on(int signal, siginfo_t* info, void* context) {
  const struct sigaction& former = registry.former;
  if ((former.sa_flags & SA_SIGINFO) != 0) {
    former.sa_sigaction(signal, info, context);
  } else if (former.sa_handler != SIG_DFL && former.sa_handler != SIG_IGN) {
    former.sa_handler(signal);
  } else if (info->si_code > 0) {
    // A fault: the instruction is repeated on return, and its signal then meets the former action.
    (void)::sigaction(signal, &former, nullptr);
  } else if (former.sa_handler == SIG_DFL) {
    // Sent by a process: delivered again on return, when the signal is no longer blocked.
    (void)::sigaction(signal, &former, nullptr);
    (void)::raise(signal);
  }
}

void on_bus_error(int signal, siginfo_t* info, void* context) {
  const int saved_errno = errno;
  const bool handled = info->si_code == BUS_ADRERR &&
                       fill_with_zeros(reinterpret_cast<std::uintptr_t>(info->si_addr));
  if (!handled) pass_on(signal, info, context);
  errno = saved_errno;
}

void install_handler() {
  // Asked for first: the new handler may run before `sigaction` has returned the former one.
  struct sigaction action = {};
  action.sa_sigaction = on_bus_error;
  action.sa_flags = SA_SIGINFO | SA_ONSTACK;
  sigemptyset(&action.sa_mask);
  if (::sigaction(SIGBUS, nullptr, &registry.former) != 0 ||
      ::sigaction(SIGBUS, &action, nullptr) != 0) {
    fail_system(errno, "installing the handler of SIGBUS");
  }
  registry.installed = true;
}

void remove_handler() {
  struct sigaction current = {};
  if (::sigaction(SIGBUS, nullptr, &current) != 0) return;
  if ((current.sa_flags & SA_SIGINFO) == 0 || current.sa_sigaction != on_bus_error) return;
  if (::sigaction(SIGBUS, &registry.former, nullptr) == 0) registry.installed = false;
}

FaultGuard::Range* take_entry() {
  for (auto* range = registry.ranges.load(std::memory_order_acquire); range != nullptr;
       range = range->next) {
    if (!range->taken) return range;
  }
  auto* const added = new FaultGuard::Range;  // lives as long as the process; see Range
  added->next = registry.ranges.load(std::memory_order_relaxed);
  registry.ranges.store(added, std::memory_order_release);
  return added;
}

}  // namespace

FaultGuard::FaultGuard(const std::byte* begin, std::size_t bytes) {
  const std::lock_guard lock(registry.mutex);
  if (!registry.installed) install_handler();
  ++registry.guards;
  range_ = take_entry();
  range_->taken = true;
  range_->faulted.store(false, std::memory_order_relaxed);
  const auto address = reinterpret_cast<std::uintptr_t>(begin);
  range_->begin.store(address, std::memory_order_release);
  range_->end.store(address + bytes, std::memory_order_release);
}

FaultGuard::~FaultGuard() {
  const std::lock_guard lock(registry.mutex);
  range_->end.store(0, std::memory_order_release);
  range_->taken = false;
  if (--registry.guards == 0) remove_handler();
}

}  // namespace winnow::os
