// SPDX-FileCopyrightText: The Winnow authors
// SPDX-License-Identifier: Apache-2.0
// A library for LD_PRELOAD in which memory runs out.
//
//   WINNOW_FAIL_AT=N     the Nth allocation fails, counted from 1
//   WINNOW_FAIL_FROM=N   that one and all after it fail
//   WINNOW_FAIL_BYTES=B  of allocations with at least so many bytes; 0 when it is not set
//   WINNOW_COUNT_TO=FILE the number of allocations is written there at the end
#include <fcntl.h>
#include <malloc.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <cstdio>
#include <cstdlib>

// What glibc's own names lead to.
extern "C" {
void* __libc_malloc(std::size_t);
void* __libc_calloc(std::size_t, std::size_t);
void* __libc_realloc(void*, std::size_t);
void* __libc_memalign(std::size_t, std::size_t);
}

namespace {

std::atomic<unsigned long> allocations{0};

unsigned long number_of(const char* name) {
  const char* const text = std::getenv(name);  // does not allocate
  return text == nullptr ? 0 : std::strtoul(text, nullptr, 10);
}

bool fails(std::size_t size) {
  static const unsigned long least = number_of("WINNOW_FAIL_BYTES");
  static const unsigned long at = number_of("WINNOW_FAIL_AT");
  static const unsigned long from = number_of("WINNOW_FAIL_FROM");
  if (size < least) return false;
  const unsigned long number = ++allocations;
  const bool failed = number == at || (from != 0 && number >= from);
  if (failed) errno = ENOMEM;
  return failed;
}

__attribute__((destructor)) void write_count() {
  const char* const path = std::getenv("WINNOW_COUNT_TO");
  if (path == nullptr) return;
  const int fd = ::open(path, O_WRONLY | O_CREAT | O_TRUNC, 0666);
  char text[32];
  const int size = std::snprintf(text, sizeof text, "%lu\n", allocations.load());
  if (::write(fd, text, static_cast<std::size_t>(size)) != size) std::abort();
  ::close(fd);
}

}  // namespace

extern "C" {

#define WINNOW_EXPORT __attribute__((visibility("default")))

WINNOW_EXPORT void* malloc(std::size_t size) { return fails(size) ? nullptr : __libc_malloc(size); }
WINNOW_EXPORT void* calloc(std::size_t count, std::size_t size) {
  return fails(count * size) ? nullptr : __libc_calloc(count, size);
}
WINNOW_EXPORT void* realloc(void* old, std::size_t size) {
  return fails(size) ? nullptr : __libc_realloc(old, size);
}
WINNOW_EXPORT void* memalign(std::size_t alignment, std::size_t size) {
  return fails(size) ? nullptr : __libc_memalign(alignment, size);
}
WINNOW_EXPORT void* aligned_alloc(std::size_t alignment, std::size_t size) {
  return fails(size) ? nullptr : __libc_memalign(alignment, size);
}
WINNOW_EXPORT int posix_memalign(void** out, std::size_t alignment, std::size_t size) {
  void* const memory = fails(size) ? nullptr : __libc_memalign(alignment, size);
  if (memory == nullptr) return ENOMEM;
  *out = memory;
  return 0;
}
WINNOW_EXPORT void* mmap(void* address, std::size_t size, int protection, int flags, int fd,
                         off_t offset) {
  // Large buffers come from here.
  if ((flags & MAP_ANONYMOUS) != 0 && fails(size)) return MAP_FAILED;
  return reinterpret_cast<void*>(::syscall(SYS_mmap, address, size, protection, flags, fd, offset));
}

}  // extern "C"
