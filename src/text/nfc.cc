// SPDX-FileCopyrightText: The Winnow authors
// SPDX-License-Identifier: Apache-2.0
// Form C in three steps: decompose, sort each run of combining marks, compose. utf8proc does the
// first and the last; its own sort is quadratic in the length of a run, which a text may choose.
#include "text/nfc.h"

#include <utf8proc.h>

#include <algorithm>
#include <array>
#include <vector>

#include "base/error.h"
#include "text/utf8.h"

namespace winnow::text {

namespace {

constexpr auto kCompose = static_cast<utf8proc_option_t>(UTF8PROC_COMPOSE | UTF8PROC_STABLE);

void append_decomposed(char32_t code_point, std::vector<utf8proc_int32_t>& out) {
  std::array<utf8proc_int32_t, 32> buffer;  // the longest canonical decomposition has 4
  int boundary_class = UTF8PROC_BOUNDCLASS_START;
  const utf8proc_ssize_t count = utf8proc_decompose_char(
      static_cast<utf8proc_int32_t>(code_point), buffer.data(),
      static_cast<utf8proc_ssize_t>(buffer.size()), kCompose, &boundary_class);
  WINNOW_CHECK(count >= 0 && count <= static_cast<utf8proc_ssize_t>(buffer.size()));
  out.insert(out.end(), buffer.begin(), buffer.begin() + count);
}

utf8proc_propval_t combining_class(utf8proc_int32_t code_point) {
  return utf8proc_get_property(code_point)->combining_class;
}

/// The canonical ordering algorithm: runs of marks (class not 0) sorted by class, stably.
void sort_marks(std::vector<utf8proc_int32_t>& code_points) {
  const auto is_mark = [](utf8proc_int32_t c) { return combining_class(c) != 0; };
  auto begin = std::find_if(code_points.begin(), code_points.end(), is_mark);
  while (begin != code_points.end()) {
    const auto end = std::find_if_not(begin, code_points.end(), is_mark);
    std::stable_sort(begin, end, [](utf8proc_int32_t a, utf8proc_int32_t b) {
      return combining_class(a) < combining_class(b);
    });
    begin = std::find_if(end, code_points.end(), is_mark);
  }
}

void append_normalized(std::string_view valid, std::string& out) {
  // Below U+0300 (first bytes up to 0xCB) nothing decomposes and composes to something else.
  if (std::all_of(valid.begin(), valid.end(),
                  [](char c) { return static_cast<unsigned char>(c) <= 0xCB; })) {
    out += valid;
    return;
  }
  std::vector<utf8proc_int32_t> code_points;
  code_points.reserve(valid.size());
  while (!valid.empty()) {
    const std::size_t length = sequence_length(valid);
    append_decomposed(decode_code_point(valid, length), code_points);
    valid.remove_prefix(length);
  }
  sort_marks(code_points);
  const utf8proc_ssize_t count = utf8proc_normalize_utf32(
      code_points.data(), static_cast<utf8proc_ssize_t>(code_points.size()), kCompose);
  WINNOW_CHECK(count >= 0);
  for (utf8proc_ssize_t i = 0; i < count; ++i) {
    append_code_point(static_cast<char32_t>(code_points[static_cast<std::size_t>(i)]), out);
  }
}

}  // namespace

std::string normalize_nfc(std::string_view text) {
  std::string out;
  out.reserve(text.size());
  while (!text.empty()) {
    const std::size_t valid = valid_prefix(text);
    append_normalized(text.substr(0, valid), out);
    text.remove_prefix(valid);
    if (text.empty()) break;
    out += text.front();
    text.remove_prefix(1);
  }
  return out;
}

}  // namespace winnow::text
