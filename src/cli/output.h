// SPDX-FileCopyrightText: The Winnow authors
// SPDX-License-Identifier: Apache-2.0
// Writing to a file descriptor that a user or another program reads: standard output and error.
#pragma once

#include <string>
#include <string_view>

namespace winnow::cli {

/// The reader of standard output went away. Not an Error: `winnow run ... | head` is normal, and
/// the program ends quietly with 0.
struct OutputClosed {};

/// Writes text to a descriptor that it does not own. Unbuffered, so that generated text appears as
/// it is made; not thread-safe.
class Output {
 public:
  explicit Output(int fd) : fd_(fd) {}
  /// Writes all of `text`. Throws OutputClosed when the reader has gone, Error{kSystem} when the
  /// descriptor refuses it (disk full).
  void write(std::string_view text);
  /// `text` and a line end.
  void line(std::string_view text);

 private:
  int fd_;
};

/// All of standard input. Throws Error{kSystem} when it cannot be read.
std::string read_standard_input();

}  // namespace winnow::cli
