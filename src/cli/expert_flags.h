// SPDX-FileCopyrightText: The Winnow authors
// SPDX-License-Identifier: Apache-2.0
// What may become of single experts, by flags or by a recipe.
#pragma once

#include <optional>
#include <string>

#include "compress/expert_options.h"
#include "compress/recipe.h"

namespace CLI {
class App;
}

namespace winnow::cli {

struct ExpertFlags {
  std::optional<std::string> names;
  std::optional<double> other_text;  ///< 0 to 1
  std::string asked_by = "--expert-options";

  bool given() const { return names || other_text; }
};

/// --expert-options, --other-text.
void add_expert_flags(CLI::App& app, ExpertFlags& flags);

/// Takes what the recipe asks for. Throws Error{kUsage}, naming `file`, when flags ask too.
void take_from(const compress::Recipe& recipe, const std::string& file, ExpertFlags& flags);

/// Whether the one number of experts of all layers is to be chosen, and nothing else of them.
bool chooses_counts(const ExpertFlags& flags, bool portable);

/// Checked. Throws Error{kUsage} for unknown names, with `portable` for
/// all but `chooses_counts`, and for a share of other text
/// without anything that it would weigh.
compress::ExpertOptions expert_options(const ExpertFlags& flags, bool portable);

/// As the provenance of a file has them, each with a space before it.
std::string to_text(const ExpertFlags& flags);

}  // namespace winnow::cli
