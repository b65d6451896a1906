// SPDX-FileCopyrightText: The Winnow authors
// SPDX-License-Identifier: Apache-2.0
// `winnow inspect MODEL`: what a model is made of, from its headers.
#include <algorithm>
#include <map>
#include <memory>

#include "cli/command.h"
#include "cli/context.h"
#include "cli/loading.h"
#include "cli/model_summary.h"
#include "cli/options.h"

namespace winnow::cli {
namespace {

struct Options {
  std::string model;
  std::optional<std::string> json;
};

void inspect(Context& context, const Options& options) {
  const ModelSummary summary = summarize(model::Checkpoint::open(options.model));
  if (options.json) write_json(context, *options.json, to_json(summary));
  if (options.json != "-") context.out.write(to_text(summary));
}

Action declare(CLI::App& app) {
  auto options = std::make_shared<Options>();
  add_model(app, options->model);
  add_json(app, options->json);
  return [options](Context& context) { inspect(context, *options); };
}

}  // namespace

extern const Command kInspect{
    .name = "inspect",
    .summary = "show what a model is made of",
    .description =
        "Shows a model's shape, its router in words, its tensors with their types, where its bytes "
        "are, its tokenizer and where it came from. Reads headers only, so it is quick on a model "
        "of any size.",
    .declare = declare};

}  // namespace winnow::cli
