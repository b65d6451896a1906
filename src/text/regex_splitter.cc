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

// Letters and numbers that Unicode 15.0 to 16.0 added (UnicodeData.txt, general categories L* and
// N*). Debian 12 has PCRE2 with Unicode 14; with a later one these repeat what it knows.
constexpr std::string_view kNewLetters =
    R"(\x{1C89}-\x{1C8A}\x{A7CB}-\x{A7CD}\x{A7DA}-\x{A7DC}\x{105C0}-\x{105F3})"
    R"(\x{10D4A}-\x{10D65}\x{10D6F}-\x{10D85}\x{10EC2}-\x{10EC4}\x{1123F}-\x{11240})"
    R"(\x{11380}-\x{11389}\x{1138B}\x{1138E}\x{11390}-\x{113B5}\x{113B7}\x{113D1}\x{113D3})"
    R"(\x{11BC0}-\x{11BE0}\x{11F02}\x{11F04}-\x{11F10}\x{11F12}-\x{11F33}\x{1342F})"
    R"(\x{13441}-\x{13446}\x{13460}-\x{143FA}\x{16100}-\x{1611D}\x{16D40}-\x{16D6C}\x{18CFF})"
    R"(\x{1B132}\x{1B155}\x{1DF25}-\x{1DF2A}\x{1E030}-\x{1E06D}\x{1E4D0}-\x{1E4EB})"
    R"(\x{1E5D0}-\x{1E5ED}\x{1E5F0}\x{2B739}\x{2EBF0}-\x{2EE5D}\x{31350}-\x{323AF})";
constexpr std::string_view kNewNumbers =
    R"(\x{10D40}-\x{10D49}\x{116D0}-\x{116E3}\x{11BF0}-\x{11BF9}\x{11F50}-\x{11F59})"
    R"(\x{16130}-\x{16139}\x{16D70}-\x{16D79}\x{1CCF0}-\x{1CCF9}\x{1D2C0}-\x{1D2D3})"
    R"(\x{1E4F0}-\x{1E4F9}\x{1E5F1}-\x{1E5FA})";

/// An item of a pattern as PCRE2 wants it.
struct Spelling {
  std::string_view item;
  std::string_view members;  // what it stands for in a set
  std::string_view more;     // what it stands for besides
  bool negated;
};

constexpr std::array<Spelling, 4> kSpellings{{
    {R"(\s)", kWhiteSpace, "", false},
    {R"(\S)", kWhiteSpace, "", true},
    {R"(\p{L})", R"(\p{L})", kNewLetters, false},
    {R"(\p{N})", R"(\p{N})", kNewNumbers, false},
}};

std::string spell(const Spelling& spelling, bool in_class) {
  WINNOW_CHECK(!(in_class && spelling.negated));  // no pattern of ours has that
  if (in_class) return fmt::format("{}{}", spelling.members, spelling.more);
  return fmt::format("[{}{}{}]", spelling.negated ? "^" : "", spelling.members, spelling.more);
}

/// Length of the item at the start of `pattern`: an escape with its backslash, or one byte.
std::size_t item_length(std::string_view pattern) {
  if (pattern.front() != '\\' || pattern.size() == 1) return 1;
  if (pattern[1] != 'p' && pattern[1] != 'x') return 2;
  return std::min(pattern.find('}'), pattern.size() - 1) + 1;
}

/// The pattern with the character classes of the dialect spelt out.
std::string to_pcre2(std::string_view pattern) {
  std::string result;
  bool in_class = false;
  while (!pattern.empty()) {
    const std::string_view item = pattern.substr(0, item_length(pattern));
    if (item == "[") in_class = true;
    if (item == "]") in_class = false;
    const auto spelling = std::find_if(kSpellings.begin(), kSpellings.end(),
                                       [&](const Spelling& known) { return known.item == item; });
    result += spelling == kSpellings.end() ? std::string(item) : spell(*spelling, in_class);
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
