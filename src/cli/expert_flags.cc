// SPDX-FileCopyrightText: The Winnow authors
// SPDX-License-Identifier: Apache-2.0
#include "cli/expert_flags.h"

#include "base/error.h"
#include "cli/options.h"
#include "compress/expert_replacement.h"

namespace winnow::cli {

void add_expert_flags(CLI::App& app, ExpertFlags& flags) {
  add_text(app,
           {"--expert-options", "LIST",
            "what may become of each expert by itself, in the same budget: 'types' (types of its "
            "own, which the others include), 'narrow' (fewer inner channels), " +
                compress::expert_replacement_names() +
                ", or 'all'; the file has the extended layout, which llama.cpp does not read"},
           flags.names);
  add_real(app,
           {"--other-text", "SHARE",
            "with --expert-options: what share of the text to come is of other kinds than --data "
            "and uses all experts alike (default 0.8)"},
           flags.other_text, 0, 1);
}

void take_from(const compress::Recipe& recipe, const std::string& file, ExpertFlags& flags) {
  if (!recipe.expert_options) return;
  if (flags.given()) {
    fail(ErrorCode::kUsage,
         "{}:{}: has options of experts, and so has the command line: leave out one", file,
         recipe.options_line);
  }
  flags = {recipe.expert_options, recipe.other_text,
           fmt::format("{}:{}: experts.options", file, recipe.options_line)};
}

compress::ExpertOptions expert_options(const ExpertFlags& flags, bool portable) {
  if (!flags.given()) return {};
  if (!flags.names) {
    fail(ErrorCode::kUsage, "--other-text weighs what --expert-options offers: give both");
  }
  if (portable && !chooses_counts(flags, portable)) {
    fail(ErrorCode::kUsage,
         "{} gives experts of one layer different forms, which llama.cpp does not read: with "
         "--portable, 'dropped' alone is possible, as many in every layer",
         flags.asked_by);
  }
  compress::ExpertOptions options = compress::expert_options_of_names(*flags.names);
  if (flags.other_text) options.other_text = *flags.other_text;
  options.asked_by = flags.asked_by;
  return options;
}

bool chooses_counts(const ExpertFlags& flags, bool portable) {
  return portable && flags.names == "dropped";
}

std::string to_text(const ExpertFlags& flags) {
  std::string text;
  if (flags.names) text += " --expert-options " + *flags.names;
  if (flags.other_text) text += fmt::format(" --other-text {}", *flags.other_text);
  return text;
}

}  // namespace winnow::cli
