// SPDX-FileCopyrightText: The Winnow authors
// SPDX-License-Identifier: Apache-2.0
// What this binary is: version, commit, compiler, instruction set, file formats.
#pragma once

#include <string>
#include <string_view>

namespace winnow::cli {

/// "0.1.0".
std::string_view version();
/// Short commit id with "-dirty" for local changes, or "unknown" outside a git checkout.
std::string_view commit();
/// "g++ 12.2.0".
std::string compiler();
/// "Release".
std::string_view build_type();
/// Name of the best instruction set this CPU offers, as `--isa` takes it.
std::string detected_isa();
/// All of it, one `key: value` per line after "winnow VERSION".
std::string version_text();

}  // namespace winnow::cli
