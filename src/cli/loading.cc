// SPDX-FileCopyrightText: The Winnow authors
// SPDX-License-Identifier: Apache-2.0
#include "cli/loading.h"

#include "cli/context.h"
#include "cli/options.h"
#include "kernels/kernels.h"
#include "model/fingerprint.h"
#include "os/file.h"

namespace winnow::cli {

void add_engine_options(CLI::App& app, engine::EngineOptions& target) {
  add_threads(app, target.threads);
  std::vector<std::string> choices = {"auto"};
  for (const std::string_view name : kernels::isa_names()) choices.emplace_back(name);
  target.isa = "auto";
  add_choice(app, {"--isa", "", "instruction set; auto takes the best this processor has"}, choices,
             target.isa);
}

std::unique_ptr<engine::Engine> load_engine(const model::Checkpoint& checkpoint,
                                            const engine::EngineOptions& options, Log& log) {
  auto engine = std::make_unique<engine::Engine>(checkpoint, options, log);
  log.info(fmt::format("{}: {} of weights, {} with {}", model_label(checkpoint),
                       format_bytes(engine->weight_memory()), engine->isa(),
                       engine->threads() == 1 ? std::string("1 thread")
                                              : fmt::format("{} threads", engine->threads())));
  return engine;
}

void write_json(Context& context, const std::string& target, const Json& value) {
  const std::string text = dump_json(value, true) + "\n";
  if (target == "-") {
    context.log.clear_progress();
    context.out.write(text);
  } else {
    os::write_text_file(target, text);
  }
}

std::string model_label(const model::Checkpoint& checkpoint) {
  return model::path_label(checkpoint.file().name());
}

}  // namespace winnow::cli
