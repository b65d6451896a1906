// SPDX-FileCopyrightText: The Winnow authors
// SPDX-License-Identifier: Apache-2.0
// The only file that knows PCRE2. Compiled with UTF, UCP and just-in-time code; every match has a
// limit that grows with the text, so that no text can hang it.
#include "text/regex_splitter.h"

#define PCRE2_CODE_UNIT_WIDTH 8
#include <pcre2.h>

#include <algorithm>
#include <array>
#include <cstdint>
#include <string>

#include "base/error.h"
#include "text/utf8.h"

namespace winnow::text {

namespace {

// The characters with the Unicode property White_Space, which is what \s means in Oniguruma. In
// PCRE2 it also means U+180E, so the shorthand is written out.
constexpr std::string_view kWhiteSpace =
    R"(\t-\r\x20\x{85}\x{A0}\x{1680}\x{2000}-\x{200A}\x{2028}\x{2029}\x{202F}\x{205F}\x{3000})";

std::string escape_in_pcre2(std::string_view escape, bool in_class) {
  if (escape == "\\s")
    return in_class ? std::string(kWhiteSpace) : fmt::format("[{}]", kWhiteSpace);
  if (escape == "\\S") {
    WINNOW_CHECK(!in_class);  // no negated set inside a set: no pattern of ours needs it
    return fmt::format("[^{}]", kWhiteSpace);
  }
  return std::string(escape);
}

/// The pattern with \s and \S spelt out.
std::string to_pcre2(std::string_view pattern) {
  std::string result;
  bool in_class = false;
  while (!pattern.empty()) {
    const bool is_escape = pattern.front() == '\\' && pattern.size() > 1;
    const std::string_view item = pattern.substr(0, is_escape ? 2 : 1);
    if (item == "[") in_class = true;
    if (item == "]") in_class = false;
    result += is_escape ? escape_in_pcre2(item, in_class) : std::string(item);
    pattern.remove_prefix(item.size());
  }
  return result;
}

std::string error_text(int code) {
  std::array<PCRE2_UCHAR, 256> buffer{};
  pcre2_get_error_message(code, buffer.data(), buffer.size());
  return reinterpret_cast<const char*>(buffer.data());
}

struct MatchDeleter {
  void operator()(pcre2_match_data* data) const { pcre2_match_data_free(data); }
  void operator()(pcre2_match_context* context) const { pcre2_match_context_free(context); }
};

/// What one `split` needs beside the pattern: where a match lies, and its limit.
struct Matcher {
  explicit Matcher(const pcre2_code* code, std::size_t text_size)
      : data(pcre2_match_data_create_from_pattern(code, nullptr)),
        context(pcre2_match_context_create(nullptr)) {
    WINNOW_CHECK(data != nullptr && context != nullptr);
    // A good pattern passes over the text a few times from one start; 64 leaves room.
    constexpr std::uint64_t kSteps = 64;
    const std::uint64_t limit = (text_size + 1024) * kSteps;
    pcre2_set_match_limit(context.get(),
                          static_cast<std::uint32_t>(std::min<std::uint64_t>(limit, UINT32_MAX)));
  }
  std::unique_ptr<pcre2_match_data, MatchDeleter> data;
  std::unique_ptr<pcre2_match_context, MatchDeleter> context;
};

}  // namespace

struct RegexSplitter::Compiled {
  explicit Compiled(pcre2_code* compiled) : code(compiled) {}
  Compiled(const Compiled&) = delete;
  Compiled& operator=(const Compiled&) = delete;
  ~Compiled() { pcre2_code_free(code); }
  pcre2_code* code;
};

RegexSplitter::RegexSplitter(std::string_view pattern) {
  const std::string translated = to_pcre2(pattern);
  int error = 0;
  PCRE2_SIZE offset = 0;
  pcre2_code* code =
      pcre2_compile(reinterpret_cast<PCRE2_SPTR>(translated.data()), translated.size(),
                    PCRE2_UTF | PCRE2_UCP | PCRE2_NEVER_BACKSLASH_C, &error, &offset, nullptr);
  if (code == nullptr) {
    fail(ErrorCode::kInternal, "split pattern '{}' does not compile: {} at offset {}", translated,
         error_text(error), offset);
  }
  compiled_ = std::make_unique<const Compiled>(code);
  // Without just-in-time support in the library the interpreter does the same, more slowly.
  pcre2_jit_compile(code, PCRE2_JIT_COMPLETE);
}

RegexSplitter::RegexSplitter(RegexSplitter&&) noexcept = default;
RegexSplitter& RegexSplitter::operator=(RegexSplitter&&) noexcept = default;
RegexSplitter::~RegexSplitter() = default;

void RegexSplitter::split(std::string_view text, std::vector<std::string_view>& pieces) const {
  const Matcher matcher(compiled_->code, text.size());
  const auto add = [&](std::size_t begin, std::size_t end) {
    if (begin < end) pieces.push_back(text.substr(begin, end - begin));
  };
  std::size_t done = 0;    // everything before is in `pieces`
  std::size_t cursor = 0;  // where the next match may begin
  while (cursor < text.size()) {
    // The caller has checked the UTF-8; PCRE2 would check all of it again at every match.
    const int result =
        pcre2_match(compiled_->code, reinterpret_cast<PCRE2_SPTR>(text.data()), text.size(), cursor,
                    PCRE2_NO_UTF_CHECK, matcher.data.get(), matcher.context.get());
    if (result == PCRE2_ERROR_NOMATCH) break;
    if (result < 0) {
      fail(ErrorCode::kUsage, "text of {} bytes cannot be split into words: {} at byte {}",
           text.size(), error_text(result), cursor);
    }
    const PCRE2_SIZE* bounds = pcre2_get_ovector_pointer(matcher.data.get());
    if (bounds[0] == bounds[1]) {  // an empty match cuts nothing
      cursor = bounds[1] + std::max<std::size_t>(1, sequence_length(text.substr(bounds[1])));
      continue;
    }
    add(done, bounds[0]);
    add(bounds[0], bounds[1]);
    done = cursor = bounds[1];
  }
  add(done, text.size());
}

}  // namespace winnow::text
