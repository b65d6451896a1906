// SPDX-FileCopyrightText: The Winnow authors
// SPDX-License-Identifier: Apache-2.0
// A library for LD_PRELOAD in which reads past the page cache go wrong as WINNOW_FAULT says, and as
// disks, kernels and containers let them go wrong. Other reads, of headers and dense weights, are
// left alone.
//
//   short         half of what was asked for, in whole blocks
//   eintr, eagain every other read is interrupted, or told to try again
//   eio-once      each third read fails with EIO the first time
//   eio           each read from the 40th on fails with EIO
//   slow          a read takes 2 ms more
//   einval        O_DIRECT was allowed to be opened, and no such read works
//   no-direct     O_DIRECT cannot be opened
//   no-uring      io_uring is forbidden
#include <dlfcn.h>
#include <fcntl.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <cstdarg>
#include <cstdlib>
#include <cstring>

namespace {

bool fault_is(const char* name) {
  const char* const fault = std::getenv("WINNOW_FAULT");
  return fault != nullptr && std::strcmp(fault, name) == 0;
}

template <typename Function>
Function next(const char* name) {
  return reinterpret_cast<Function>(::dlsym(RTLD_NEXT, name));
}

int fail_with(int reason) {
  errno = reason;
  return -1;
}

ssize_t read_with_faults(int fd, void* out, std::size_t size, off_t offset) {
  static const auto real = next<ssize_t (*)(int, void*, std::size_t, off_t)>("pread64");
  static std::atomic<unsigned> count{0};
  if ((::fcntl(fd, F_GETFL) & O_DIRECT) == 0) return real(fd, out, size, offset);
  const unsigned number = count++;
  if (fault_is("eintr") && number % 2 == 0) return fail_with(EINTR);
  if (fault_is("eagain") && number % 2 == 0) return fail_with(EAGAIN);
  if (fault_is("eio-once") && number % 3 == 0) return fail_with(EIO);
  if (fault_is("eio") && number >= 40) return fail_with(EIO);
  if (fault_is("einval")) return fail_with(EINVAL);
  if (fault_is("slow")) ::usleep(2000);
  constexpr std::size_t kBlock = 4096;
  if (fault_is("short") && size > kBlock) size = size / 2 / kBlock * kBlock;
  return real(fd, out, size, offset);
}

int open_with_faults(const char* name, const char* path, int flags, mode_t mode) {
  if ((flags & O_DIRECT) == O_DIRECT && fault_is("no-direct")) return fail_with(EINVAL);
  return next<int (*)(const char*, int, ...)>(name)(path, flags, mode);
}

/// What stands behind the flags of open; only some of them have it.
mode_t mode_of(int flags, std::va_list arguments) {
  return (flags & (O_CREAT | O_TMPFILE)) != 0 ? va_arg(arguments, mode_t) : 0;
}

}  // namespace

extern "C" {

__attribute__((visibility("default"))) ssize_t pread(int fd, void* out, std::size_t size,
                                                     off_t offset) {
  return read_with_faults(fd, out, size, offset);
}

__attribute__((visibility("default"))) ssize_t pread64(int fd, void* out, std::size_t size,
                                                       off64_t offset) {
  return read_with_faults(fd, out, size, offset);
}

__attribute__((visibility("default"))) int open(const char* path, int flags, ...) {
  std::va_list arguments;
  va_start(arguments, flags);
  const mode_t mode = mode_of(flags, arguments);
  va_end(arguments);
  return open_with_faults("open", path, flags, mode);
}

__attribute__((visibility("default"))) int open64(const char* path, int flags, ...) {
  std::va_list arguments;
  va_start(arguments, flags);
  const mode_t mode = mode_of(flags, arguments);
  va_end(arguments);
  return open_with_faults("open64", path, flags, mode);
}

__attribute__((visibility("default"))) int io_uring_queue_init(unsigned entries, void* ring,
                                                               unsigned flags) {
  if (fault_is("no-uring")) return -EPERM;
  return next<int (*)(unsigned, void*, unsigned)>("io_uring_queue_init")(entries, ring, flags);
}

}  // extern "C"
