// SPDX-FileCopyrightText: The Winnow authors
// SPDX-License-Identifier: Apache-2.0
#include "cli/loading.h"

#include "cli/context.h"
#include "formats/names.h"
#include "model/fingerprint.h"
#include "os/file.h"

namespace winnow::cli {

std::unique_ptr<engine::Engine> load_engine(const model::Checkpoint& checkpoint,
                                            const engine::EngineOptions& options, Log& log) {
  auto engine = std::make_unique<engine::Engine>(checkpoint, options, log);
  if (const auto& unused = checkpoint.unused_tensors(); !unused.empty()) {
    log.warn(fmt::format("{}: tensor {}{} not used by this architecture", model_label(checkpoint),
                         formats::quote_name(unused.front()),
                         unused.size() == 1 ? std::string(" is")
                                            : fmt::format(" and {} more are", unused.size() - 1)));
  }
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
