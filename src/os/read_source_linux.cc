// SPDX-FileCopyrightText: The Winnow authors
// SPDX-License-Identifier: Apache-2.0
#include "os/read_source.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <utility>

#include "base/error.h"

namespace winnow::os {
namespace {

/// What tells whether a file was written to.
struct FileState {
  std::uint64_t size = 0;
  std::int64_t seconds = 0;
  std::int64_t nanoseconds = 0;
  friend bool operator==(const FileState&, const FileState&) = default;
};

FileState state_of(int fd, const std::string& name) {
  struct stat status = {};
  if (::fstat(fd, &status) != 0) fail_system(errno, fmt::format("{}: reading its state", name));
  return {static_cast<std::uint64_t>(status.st_size), status.st_mtim.tv_sec,
          status.st_mtim.tv_nsec};
}

class DescriptorSource final : public ReadSource {
 public:
  DescriptorSource(const RandomAccessFile& file, PageCache page_cache)
      : name_(file.name()), cached_(::fcntl(file.descriptor(), F_DUPFD_CLOEXEC, 0)) {
    if (!cached_.valid()) fail_system(errno, fmt::format("{}: opening again", name_));
    opened_ = state_of(cached_.value(), name_);
    if (opened_.size != file.size().value) fail_changed();
    if (page_cache == PageCache::kAvoided) {
      // By the descriptor: the path may lead to another file by now.
      const std::string self = fmt::format("/proc/self/fd/{}", cached_.value());
      direct_ = Fd(::open(self.c_str(), O_RDONLY | O_DIRECT | O_CLOEXEC));
    }
    avoids_cache_.store(direct_.valid());
    if (!direct_.valid()) stop_read_ahead();
  }

  const std::string& name() const override { return name_; }
  int descriptor() const override {
    return avoids_cache_.load() ? direct_.value() : cached_.value();
  }
  std::int64_t read(std::uint64_t offset, std::span<std::byte> out) override {
    const ssize_t got = ::pread(descriptor(), out.data(), out.size(), static_cast<off_t>(offset));
    return got < 0 ? -errno : got;
  }
  void fall_back() override {
    if (avoids_cache_.exchange(false)) stop_read_ahead();
  }
  void forget(std::uint64_t offset, std::size_t size) override {
    if (avoids_cache_.load()) return;
    (void)::posix_fadvise(cached_.value(), static_cast<off_t>(offset), static_cast<off_t>(size),
                          POSIX_FADV_DONTNEED);
  }
  void require_unchanged() const override {
    if (state_of(cached_.value(), name_) != opened_) fail_changed();
  }

 private:
  // What nobody asked for would take memory and the disk's time.
  void stop_read_ahead() const { (void)::posix_fadvise(cached_.value(), 0, 0, POSIX_FADV_RANDOM); }
  [[noreturn]] void fail_changed() const {
    fail_data(
        "{}: was truncated or written to since it was opened, so that its bytes are no longer the "
        "model's; restore the file and start again",
        name_);
  }

  std::string name_;
  Fd cached_;  // the descriptor of the file, whose position nobody uses
  Fd direct_;  // of the same file, with O_DIRECT; may be invalid
  std::atomic<bool> avoids_cache_{false};
  FileState opened_;
};

class FileSource final : public ReadSource {
 public:
  explicit FileSource(const RandomAccessFile& file) : file_(file) {}
  const std::string& name() const override { return file_.name(); }
  std::int64_t read(std::uint64_t offset, std::span<std::byte> out) override {
    const std::uint64_t size = file_.size().value;
    if (offset >= size) return 0;
    const std::size_t count = std::min<std::uint64_t>(out.size(), size - offset);
    file_.read_at(offset, out.first(count));
    return static_cast<std::int64_t>(count);
  }

 private:
  const RandomAccessFile& file_;
};

}  // namespace

std::unique_ptr<ReadSource> make_read_source(const RandomAccessFile& file, PageCache page_cache) {
  if (file.descriptor() < 0) return std::make_unique<FileSource>(file);
  return std::make_unique<DescriptorSource>(file, page_cache);
}

}  // namespace winnow::os
