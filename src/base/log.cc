// SPDX-FileCopyrightText: The Winnow authors
// SPDX-License-Identifier: Apache-2.0
#include "base/log.h"

#include "base/error.h"

namespace winnow {

void Log::check_interrupt() const {
  if (stop_requested()) fail(ErrorCode::kInterrupted, "interrupted");
}

}  // namespace winnow
