// SPDX-FileCopyrightText: The Winnow authors
// SPDX-License-Identifier: Apache-2.0
// The one exception type of the project, and helpers to raise it with a message that a stranger
// can act on: where it went wrong, what was expected, what was found, and the remedy.
#pragma once

#include <fmt/format.h>

#include <exception>
#include <string>
#include <string_view>
#include <utility>

namespace winnow {

/// Why something failed. The command line maps each to an exit code (`exit_code`), the server to
/// an HTTP status.
enum class ErrorCode {
  kUsage,        ///< the caller asked for something that cannot be asked: unknown flag, bad value
  kBadData,      ///< a model, recipe, data or statistics file is wrong
  kBudget,       ///< a byte or memory budget cannot be met
  kSystem,       ///< the operating system refused: disk full, permission, I/O error
  kInterrupted,  ///< stopped on request (SIGINT, SIGTERM)
  kInternal,     ///< a broken contract: a bug in this program
};

/// The exception of the public interface. `what()` is a full sentence for the user.
class Error : public std::exception {
 public:
  Error(ErrorCode code, std::string message) : code_(code), message_(std::move(message)) {}
  ErrorCode code() const noexcept { return code_; }
  const std::string& message() const noexcept { return message_; }
  const char* what() const noexcept override { return message_.c_str(); }

 private:
  ErrorCode code_;
  std::string message_;
};

/// Throws Error{code} with a formatted message.
template <typename... Args>
[[noreturn]] void fail(ErrorCode code, fmt::format_string<Args...> format, Args&&... args) {
  throw Error(code, fmt::format(format, std::forward<Args>(args)...));
}

/// Throws Error{kBadData}.
template <typename... Args>
[[noreturn]] void fail_data(fmt::format_string<Args...> format, Args&&... args) {
  throw Error(ErrorCode::kBadData, fmt::format(format, std::forward<Args>(args)...));
}

/// Throws Error{kSystem} that ends with the text of `errno_value`.
[[noreturn]] void fail_system(int errno_value, std::string_view what);

/// Runs `body`; an Error that leaves it gets "context: " in front of its message.
template <typename Body>
decltype(auto) with_context(std::string_view context, Body&& body) {
  try {
    return std::forward<Body>(body)();
  } catch (const Error& error) {
    throw Error(error.code(), fmt::format("{}: {}", context, error.message()));
  }
}

/// Throws Error{kInternal} naming the broken contract. Called by WINNOW_CHECK only.
[[noreturn]] void check_failed(const char* condition, const char* file, int line);

}  // namespace winnow

/// A contract at a module's edge; always on.
#define WINNOW_CHECK(condition)                               \
  do {                                                        \
    if (!(condition)) [[unlikely]]                            \
      ::winnow::check_failed(#condition, __FILE__, __LINE__); \
  } while (false)

/// A contract inside kernels; on in debug builds only.
#ifdef NDEBUG
#define WINNOW_DCHECK(condition) \
  do {                           \
    if (false) {                 \
      (void)(condition);         \
    }                            \
  } while (false)
#else
#define WINNOW_DCHECK(condition) WINNOW_CHECK(condition)
#endif
