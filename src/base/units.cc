// SPDX-FileCopyrightText: The Winnow authors
// SPDX-License-Identifier: Apache-2.0
#include "base/units.h"

#include <algorithm>
#include <array>
#include <cctype>
#include <charconv>
#include <cmath>

#include "base/error.h"

namespace winnow {
namespace {

struct Suffix {
  std::string_view text;  // lower case
  double factor;
};
constexpr std::array kSuffixes = {
    Suffix{"", 1},
    Suffix{"b", 1},
    Suffix{"kb", 1e3},
    Suffix{"mb", 1e6},
    Suffix{"gb", 1e9},
    Suffix{"tb", 1e12},
    Suffix{"kib", 1024.0},
    Suffix{"mib", 1048576.0},
    Suffix{"gib", 1073741824.0},
    Suffix{"tib", 1099511627776.0},
};

}  // namespace

Bytes parse_bytes(std::string_view text, std::string_view what) {
  const auto refuse = [&] {
    fail(ErrorCode::kUsage, "{}: '{}' is not a size; write for example 8GiB, 500MB or 4096", what,
         text);
  };
  double number = 0;
  const char* begin = text.data();
  const char* end = begin + text.size();
  const auto [rest, status] = std::from_chars(begin, end, number, std::chars_format::fixed);
  if (status != std::errc() || !(number >= 0)) refuse();
  std::string suffix(rest, end);
  if (!suffix.empty() && suffix.front() == ' ') suffix.erase(0, 1);
  std::transform(suffix.begin(), suffix.end(), suffix.begin(),
                 [](unsigned char c) { return static_cast<char>(std::tolower(c)); });
  const auto found = std::find_if(kSuffixes.begin(), kSuffixes.end(),
                                  [&](const Suffix& s) { return s.text == suffix; });
  if (found == kSuffixes.end()) refuse();
  const double bytes = std::floor(number * found->factor);
  if (!(bytes < 9.2e18)) refuse();  // stays below 2^63, so that sums of a few cannot wrap
  return {static_cast<std::uint64_t>(bytes)};
}

std::string format_bytes(Bytes bytes) {
  constexpr std::array kNames = {"B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"};
  double value = static_cast<double>(bytes.value);
  std::size_t unit = 0;
  while (value >= 1024.0 && unit + 1 < kNames.size()) {
    value /= 1024.0;
    ++unit;
  }
  if (unit == 0) return fmt::format("{} B", bytes.value);
  return fmt::format("{:.{}f} {}", value, value < 10 ? 2 : value < 100 ? 1 : 0, kNames[unit]);
}

}  // namespace winnow
