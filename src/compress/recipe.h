// SPDX-FileCopyrightText: The Winnow authors
// SPDX-License-Identifier: Apache-2.0
// Recipes: what `winnow compress` shall do, as a TOML file. docs/formats/recipe.md describes them.
#pragma once

#include <cstddef>
#include <filesystem>
#include <optional>
#include <string>

#include "compress/expert_selection.h"

namespace winnow::compress {

/// What a recipe asks for; what is absent is the command line's.
struct Recipe {
  std::optional<std::string> budget;  ///< as --budget takes it
  std::optional<double> bits;
  std::optional<double> tolerance;  ///< as --tolerance takes it
  std::optional<SelectionRequest> experts;
  std::optional<std::string> expert_options;  ///< as --expert-options takes them
  std::optional<double> other_text;           ///< as --other-text takes it
  unsigned experts_line = 0;                  ///< of experts.keep, from 1
  unsigned options_line = 0;                  ///< of experts.options, from 1
};

/// Throws Error{kUsage} naming file, line and remedy: no TOML, unknown keys, values out of range,
/// keys that contradict each other.
Recipe read_recipe(const std::filesystem::path& path);

}  // namespace winnow::compress
