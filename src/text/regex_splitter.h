// SPDX-FileCopyrightText: The Winnow authors
// SPDX-License-Identifier: Apache-2.0
// Cuts text at the matches of a regular expression, in the dialect of Hugging Face tokenizers
// (Oniguruma, Unicode mode), by PCRE2.
#pragma once

#include <memory>
#include <string_view>
#include <vector>

namespace winnow::text {

/// A compiled pattern. Immutable after construction: threads may share it.
class RegexSplitter {
 public:
  /// Throws Error{kInternal} when the pattern does not compile: patterns come from our own table.
  explicit RegexSplitter(std::string_view pattern);
  RegexSplitter(RegexSplitter&&) noexcept;
  RegexSplitter& operator=(RegexSplitter&&) noexcept;
  ~RegexSplitter();

  /// Appends the matches in `text` (valid UTF-8) and the stretches between them to `pieces`, in
  /// order; together they are `text`. The views point into `text`. Throws Error{kUsage} when the
  /// text needs more backtracking than a multiple of its length.
  void split(std::string_view text, std::vector<std::string_view>& pieces) const;

 private:
  struct Compiled;
  std::unique_ptr<const Compiled> compiled_;
};

}  // namespace winnow::text
