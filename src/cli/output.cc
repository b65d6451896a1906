// SPDX-FileCopyrightText: The Winnow authors
// SPDX-License-Identifier: Apache-2.0
#include "cli/output.h"

#include <unistd.h>

#include <array>
#include <cerrno>

#include "base/error.h"
#include "cli/signals.h"

namespace winnow::cli {

void Output::write(std::string_view text) {
  while (!text.empty()) {
    const ssize_t written = ::write(fd_, text.data(), text.size());
    if (written >= 0) {
      text.remove_prefix(static_cast<std::size_t>(written));
    } else if (errno == EPIPE) {
      throw OutputClosed{};
    } else if (errno == EINTR) {
      // Not retried: a reader that does not read would keep us here for ever after Ctrl-C.
      if (stop_signal() != 0) fail(ErrorCode::kInterrupted, "interrupted");
    } else {
      fail_system(errno, "standard output cannot be written");
    }
  }
}

void Output::line(std::string_view text) {
  std::string with_end(text);
  with_end += '\n';
  write(with_end);
}

std::string read_standard_input() {
  std::string text;
  std::array<char, 65536> buffer;
  while (true) {
    const ssize_t got = ::read(STDIN_FILENO, buffer.data(), buffer.size());
    if (got == 0) return text;
    if (got > 0) {
      text.append(buffer.data(), static_cast<std::size_t>(got));
    } else if (errno == EINTR) {
      fail(ErrorCode::kInterrupted, "interrupted while reading standard input");
    } else {
      fail_system(errno, "standard input cannot be read");
    }
  }
}

}  // namespace winnow::cli
