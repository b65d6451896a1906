// SPDX-FileCopyrightText: The Winnow authors
// SPDX-License-Identifier: Apache-2.0
#include "cli/little_text.h"

#include <fmt/format.h>

namespace winnow::cli {

void warn_of_little_text(const metrics::WindowSet& text, Log& log) {
  constexpr std::uint64_t kFewTokens = 2048;
  if (text.scored_tokens() >= kFewTokens) return;
  log.warn(
      fmt::format("--data: {} tokens in all say little of what matters, and less of what the file "
                  "has lost: use "
                  "some {} or more",
                  text.scored_tokens(), kFewTokens));
}

}  // namespace winnow::cli
