// SPDX-FileCopyrightText: The Winnow authors
// SPDX-License-Identifier: Apache-2.0
#include "formats/cursor.h"

#include <algorithm>
#include <bit>
#include <cstring>

namespace winnow::formats {
namespace {

static_assert(std::endian::native == std::endian::little, "model files are little-endian");
constexpr std::uint64_t kBuffer = 64 << 10;
constexpr std::uint64_t kLongestString = 64 << 20;

}  // namespace

void Cursor::require(std::uint64_t bytes) const {
  if (bytes <= remaining()) return;
  fail("{} more bytes were expected, the file ends after {}; is the download complete?", bytes,
       remaining());
}

void Cursor::skip(std::uint64_t bytes) {
  require(bytes);
  position_ += bytes;
}

void Cursor::read(std::span<std::byte> out) {
  require(out.size());
  if (out.size() >= kBuffer) {
    file_.read_at(position_, out);
    position_ += out.size();
    return;
  }
  if (position_ < buffer_begin_ || position_ + out.size() > buffer_begin_ + buffer_.size()) {
    buffer_.resize(std::min(kBuffer, remaining()));
    buffer_begin_ = position_;
    file_.read_at(position_, buffer_);
  }
  if (!out.empty())
    std::memcpy(out.data(), buffer_.data() + (position_ - buffer_begin_), out.size());
  position_ += out.size();
}

std::uint64_t Cursor::read_count(std::string_view of_what, std::uint64_t element_bytes) {
  const auto count = read<std::uint64_t>();
  if (count > remaining() / element_bytes) {
    fail("{} {} cannot fit the {} bytes left in the file", count, of_what, remaining());
  }
  return count;
}

std::string Cursor::read_string() {
  const auto length = read_count("bytes of text", 1);
  if (length > kLongestString) {
    fail("a string of {} bytes is longer than the limit of {}", length, kLongestString);
  }
  std::string text(length, '\0');
  read(std::as_writable_bytes(std::span(text)));
  return text;
}

void Cursor::fail_text(std::string_view message) const {
  fail_data("{}: {}: {} (at offset {})", file_.name(), subject_, message, position_);
}

}  // namespace winnow::formats
