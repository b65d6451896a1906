// SPDX-FileCopyrightText: The Winnow authors
// SPDX-License-Identifier: Apache-2.0
#include "base/error.h"

#include <cstring>

namespace winnow {

void fail_system(int errno_value, std::string_view what) {
  fail(ErrorCode::kSystem, "{}: {}", what, std::strerror(errno_value));
}

void check_failed(const char* condition, const char* file, int line) {
  fail(ErrorCode::kInternal, "internal error: '{}' does not hold at {}:{}; please report this",
       condition, file, line);
}

}  // namespace winnow
