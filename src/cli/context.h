// SPDX-FileCopyrightText: The Winnow authors
// SPDX-License-Identifier: Apache-2.0
// What a command is given to work with besides its own options.
#pragma once

#include <string>
#include <vector>

#include "cli/console_log.h"
#include "cli/output.h"

namespace winnow::cli {

/// Lives as long as the program runs. Commands print results to `out` and everything else to
/// `log`; neither is touched by library code except through the Log interface.
struct Context {
  Output& out;                         ///< standard output
  ConsoleLog& log;                     ///< standard error; also tells when to stop
  std::vector<std::string> arguments;  ///< the command line as typed, for provenance records
  bool output_is_terminal = false;     ///< whether people watch standard output
};

}  // namespace winnow::cli
