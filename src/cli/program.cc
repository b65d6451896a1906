// SPDX-FileCopyrightText: The Winnow authors
// SPDX-License-Identifier: Apache-2.0
#include "cli/program.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include <csignal>
#include <cstdlib>
#include <new>
#include <string_view>

#include "cli/context.h"
#include "cli/exit_code.h"
#include "cli/parser.h"
#include "cli/signals.h"

namespace winnow::cli {
namespace {

ConsoleLog::Options log_options(const Surroundings& surroundings, Verbosity verbosity) {
  return {.fd = surroundings.error_fd,
          .terminal = surroundings.error_is_terminal,
          .colour = surroundings.colour,
          .columns = surroundings.columns,
          .verbosity = verbosity};
}

int interrupted_code() { return stop_signal() == SIGTERM ? kExitTerminated : kExitInterrupted; }

/// The one place where exceptions end. Called inside a handler.
int report_failure(ConsoleLog& log) {
  try {
    throw;
  } catch (const OutputClosed&) {
    return kExitOk;
  } catch (const Error& error) {
    if (error.code() == ErrorCode::kInterrupted) {
      log.error("interrupted");
      return interrupted_code();
    }
    log.error(error.message());
    return exit_code(error.code());
  } catch (const std::bad_alloc&) {
    log.error("out of memory; close other programs, or use a smaller model or --context");
    return kExitSystem;
  } catch (const std::exception& error) {
    log.error(fmt::format("internal error: {}; please report this", error.what()));
    return kExitInternal;
  } catch (...) {
    log.error("internal error: unknown exception; please report this");
    return kExitInternal;
  }
}

Action write_text(std::string text) {
  return [text = std::move(text)](Context& context) { context.out.write(text); };
}

int parse_and_run(const std::vector<std::string>& arguments, const Surroundings& surroundings) {
  Parser parser;
  Request request;
  try {
    request = parser.parse(arguments);
  } catch (...) {
    ConsoleLog log(log_options(surroundings, Verbosity::kNormal));
    return report_failure(log);
  }
  if (!request.action) request.action = write_text(std::move(request.text));
  return run_action(request.action, surroundings, request.verbosity, arguments);
}

unsigned terminal_columns(int fd) {
  winsize size{};
  if (::ioctl(fd, TIOCGWINSZ, &size) != 0 || size.ws_col == 0) return 80;
  return size.ws_col;
}

}  // namespace

Surroundings real_surroundings() {
  // A program started without standard descriptors would give their numbers to the next file that
  // it opens, and then print into a model.
  for (const int fd : {STDIN_FILENO, STDOUT_FILENO, STDERR_FILENO}) {
    if (::fcntl(fd, F_GETFD) == -1 && ::open("/dev/null", O_RDWR) != fd) break;
  }
  Surroundings out;
  out.output_is_terminal = ::isatty(out.output_fd) == 1;
  out.error_is_terminal = ::isatty(out.error_fd) == 1;
  const char* no_colour = std::getenv("NO_COLOR");
  const char* terminal = std::getenv("TERM");
  const bool dumb = terminal == nullptr || std::string_view(terminal) == "dumb";
  out.colour = out.error_is_terminal && !dumb && (no_colour == nullptr || *no_colour == '\0');
  out.error_is_terminal = out.error_is_terminal && !dumb;
  out.columns = terminal_columns(out.error_fd);
  return out;
}

int run_action(const Action& action, const Surroundings& surroundings, Verbosity verbosity,
               const std::vector<std::string>& arguments) {
  const SignalGuard signals;
  ConsoleLog log(log_options(surroundings, verbosity));
  try {
    Output out(surroundings.output_fd);
    Context context{.out = out,
                    .log = log,
                    .arguments = arguments,
                    .output_is_terminal = surroundings.output_is_terminal};
    action(context);
    // A command that notices the signal and returns early was still stopped.
    return stop_signal() == 0 ? kExitOk : interrupted_code();
  } catch (...) {
    return report_failure(log);
  }
}

int run_program(const std::vector<std::string>& arguments,
                const Surroundings& surroundings) noexcept {
  try {
    return parse_and_run(arguments, surroundings);
  } catch (...) {
    // Only a failure to build the parser or to report a failure ends here: memory is gone.
    constexpr std::string_view kMessage = "winnow: out of memory\n";
    if (::write(surroundings.error_fd, kMessage.data(), kMessage.size()) < 0) return kExitSystem;
    return kExitSystem;
  }
}

}  // namespace winnow::cli
