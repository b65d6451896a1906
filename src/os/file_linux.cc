// SPDX-FileCopyrightText: The Winnow authors
// SPDX-License-Identifier: Apache-2.0
// POSIX files. Reads and writes go on after EINTR and short transfers.
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <limits>
#include <string_view>
#include <utility>

#include "base/error.h"
#include "os/file.h"

namespace winnow::os {
namespace {

class PosixFile final : public RandomAccessFile {
 public:
  PosixFile(Fd fd, std::string name, std::uint64_t size)
      : fd_(std::move(fd)), name_(std::move(name)), size_(size) {}
  const std::string& name() const override { return name_; }
  Bytes size() const override { return {size_}; }
  int descriptor() const override { return fd_.value(); }

  void read_at(std::uint64_t offset, std::span<std::byte> out) const override {
    // The kernel takes signed offsets; what it would refuse is past the end anyway.
    constexpr std::uint64_t kLargest = std::numeric_limits<off_t>::max();
    if (offset > kLargest || out.size() > kLargest - offset) fail_at_end(offset, out.size());
    while (!out.empty()) {
      const ssize_t got = ::pread(fd_.value(), out.data(), out.size(), static_cast<off_t>(offset));
      if (got < 0 && errno == EINTR) continue;
      if (got < 0) {
        fail_system(errno,
                    fmt::format("{}: reading {} bytes at offset {}", name_, out.size(), offset));
      }
      if (got == 0) fail_at_end(offset, out.size());
      offset += static_cast<std::uint64_t>(got);
      out = out.subspan(static_cast<std::size_t>(got));
    }
  }

 private:
  [[noreturn]] void fail_at_end(std::uint64_t offset, std::size_t expected) const {
    fail_data(
        "{}: the file ends at or before offset {} where {} more bytes were expected; was it "
        "truncated?",
        name_, offset, expected);
  }

  Fd fd_;
  std::string name_;
  std::uint64_t size_;
};

void write_all(int fd, std::string_view bytes, const std::string& name) {
  while (!bytes.empty()) {
    const ssize_t put = ::write(fd, bytes.data(), bytes.size());
    if (put < 0 && errno == EINTR) continue;
    if (put < 0) fail_system(errno, fmt::format("{}: writing", name));
    bytes.remove_prefix(static_cast<std::size_t>(put));
  }
}

/// Makes a rename durable. Some file systems cannot sync a directory; that is no error.
void sync_directory(const std::filesystem::path& directory) {
  const Fd fd(
      ::open(directory.empty() ? "." : directory.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  if (fd.valid()) (void)::fsync(fd.value());
}

constexpr std::size_t kWriteBuffer = 1 << 20;

/// What `path` leads to, links followed; `none` or `not_found` when nothing can be said.
std::filesystem::file_type kind_of(const std::filesystem::path& path) {
  std::error_code ignored;
  return std::filesystem::status(path, ignored).type();
}

/// A rename over a device, a pipe or a socket would put a file in its place, /dev/null included;
/// one over a link would leave what the link leads to as it was.
std::filesystem::path replaceable(const std::filesystem::path& path) {
  const auto kind = kind_of(path);
  using std::filesystem::file_type;
  if (kind == file_type::character || kind == file_type::block || kind == file_type::fifo ||
      kind == file_type::socket) {
    fail(ErrorCode::kUsage, "{}: is a device or a pipe; name a regular file", path.string());
  }
  if (kind == file_type::directory) {
    fail(ErrorCode::kUsage, "{}: is a folder; name a file", path.string());
  }
  if (kind != file_type::regular) return path;
  std::error_code error;
  if (!std::filesystem::is_symlink(path, error) || error) return path;
  const std::filesystem::path target = std::filesystem::canonical(path, error);
  return error ? path : target;
}

}  // namespace

Fd& Fd::operator=(Fd&& other) noexcept {
  std::swap(fd_, other.fd_);
  return *this;
}

Fd::~Fd() {
  if (fd_ >= 0) ::close(fd_);
}

std::unique_ptr<RandomAccessFile> open_file(const std::filesystem::path& path) {
  // O_NONBLOCK: opening a named pipe must not wait for a writer; it has no effect on regular files.
  Fd fd(::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK));
  if (!fd.valid()) {
    if (errno == ENOENT || errno == ENOTDIR) fail_data("{}: no such file", path.string());
    fail_system(errno, fmt::format("{}: cannot open", path.string()));
  }
  struct stat status = {};
  if (::fstat(fd.value(), &status) != 0) {
    fail_system(errno, fmt::format("{}: cannot read its size", path.string()));
  }
  if (!S_ISREG(status.st_mode)) fail_data("{}: not a regular file", path.string());
  return std::make_unique<PosixFile>(std::move(fd), path.string(),
                                     static_cast<std::uint64_t>(status.st_size));
}

std::string read_text_file(const std::filesystem::path& path, Bytes limit) {
  const auto file = open_file(path);
  if (file->size() > limit) {
    fail_data("{}: {} long, more than the {} expected of such a file", path.string(),
              format_bytes(file->size()), format_bytes(limit));
  }
  std::string text(file->size().value, '\0');
  file->read_at(0, std::as_writable_bytes(std::span(text)));
  return text;
}

AtomicFile::AtomicFile(const std::filesystem::path& path)
    : path_(replaceable(path)), partial_(path_.string() + fmt::format(".partial-{}", ::getpid())) {
  fd_ = Fd(::open(partial_.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644));
  if (!fd_.valid()) fail_system(errno, fmt::format("{}: cannot create", partial_.string()));
}

AtomicFile::~AtomicFile() {
  if (!fd_.valid()) return;  // committed, or moved from
  std::error_code ignored;
  std::filesystem::remove(partial_, ignored);
}

void AtomicFile::append(std::string_view text) {
  position_ += text.size();
  if (buffer_.size() + text.size() > kWriteBuffer) flush();
  if (text.size() >= kWriteBuffer) {
    write_all(fd_.value(), text, partial_.string());
  } else {
    buffer_.append(text);
  }
}

void AtomicFile::append(std::span<const std::byte> bytes) {
  append(std::string_view(reinterpret_cast<const char*>(bytes.data()), bytes.size()));
}

void AtomicFile::overwrite(std::uint64_t offset, std::string_view text) {
  WINNOW_CHECK(offset <= position_ && text.size() <= position_ - offset);
  flush();
  while (!text.empty()) {
    const ssize_t count =
        ::pwrite(fd_.value(), text.data(), text.size(), static_cast<off_t>(offset));
    if (count < 0 && errno == EINTR) continue;
    if (count < 0) fail_system(errno, fmt::format("{}: writing", partial_.string()));
    text.remove_prefix(static_cast<std::size_t>(count));
    offset += static_cast<std::uint64_t>(count);
  }
}

void AtomicFile::flush() {
  write_all(fd_.value(), buffer_, partial_.string());
  buffer_.clear();
}

void AtomicFile::commit(Durability durability) {
  flush();
  const bool synced = durability == Durability::kSynced;
  if (synced && ::fsync(fd_.value()) != 0) {
    fail_system(errno, fmt::format("{}: syncing", partial_.string()));
  }
  if (::rename(partial_.c_str(), path_.c_str()) != 0) {
    fail_system(errno, fmt::format("{}: renaming to {}", partial_.string(), path_.string()));
  }
  ::close(fd_.release());
  if (synced) sync_directory(path_.parent_path());
}

AtomicFolder::AtomicFolder(const std::filesystem::path& path)
    : path_(path.has_filename() ? path : path.parent_path()) {  // "out/" means "out"
  std::error_code error;
  const auto status = std::filesystem::symlink_status(path_, error);
  if (std::filesystem::exists(status) && (!std::filesystem::is_directory(status) ||
                                          !std::filesystem::is_empty(path_, error) || error)) {
    fail(ErrorCode::kUsage, "{}: exists already; name a new folder, or remove it first",
         path_.string());
  }
  partial_ = path_.string() + fmt::format(".partial-{}", ::getpid());
  std::filesystem::remove_all(partial_, error);  // left by a killed process of the same number
  if (::mkdir(partial_.c_str(), 0755) != 0) {
    fail_system(errno, fmt::format("{}: cannot create the folder", partial_.string()));
  }
}

AtomicFolder::~AtomicFolder() {
  if (partial_.empty()) return;  // committed
  std::error_code ignored;
  std::filesystem::remove_all(partial_, ignored);
}

void AtomicFolder::commit() {
  sync_directory(partial_);
  if (::rename(partial_.c_str(), path_.c_str()) != 0) {
    fail_system(errno, fmt::format("{}: renaming to {}", partial_.string(), path_.string()));
  }
  partial_.clear();
  sync_directory(path_.parent_path());
}

void write_text_file(const std::filesystem::path& path, std::string_view text) {
  const auto kind = kind_of(path);
  if (kind == std::filesystem::file_type::character || kind == std::filesystem::file_type::fifo) {
    const Fd fd(::open(path.c_str(), O_WRONLY | O_CLOEXEC));
    if (!fd.valid()) fail_system(errno, fmt::format("{}: cannot open", path.string()));
    write_all(fd.value(), text, path.string());
    return;
  }
  AtomicFile file(path);
  file.append(text);
  file.commit();
}

}  // namespace winnow::os
