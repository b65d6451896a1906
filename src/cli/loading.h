// SPDX-FileCopyrightText: The Winnow authors
// SPDX-License-Identifier: Apache-2.0
// What the commands that run a model share: the engine's options, opening, timing, JSON results.
#pragma once

#include <chrono>
#include <memory>
#include <optional>
#include <string>

#include "base/json.h"
#include "base/log.h"
#include "engine/engine.h"
#include "model/checkpoint.h"

namespace winnow::cli {

struct Context;

/// Seconds since it was made.
class Stopwatch {
 public:
  double seconds() const {
    return std::chrono::duration<double>(std::chrono::steady_clock::now() - start_).count();
  }

 private:
  std::chrono::steady_clock::time_point start_ = std::chrono::steady_clock::now();
};

/// Reads the weights with progress; says which instruction set and how many threads it uses.
std::unique_ptr<engine::Engine> load_engine(const model::Checkpoint& checkpoint,
                                            const engine::EngineOptions& options, Log& log);

/// Writes `value`, indented, to standard output for "-", otherwise to the file `target`.
void write_json(Context& context, const std::string& target, const Json& value);

/// The last component of the path a model was given by: "grain" for "models/grain/" and for "."
/// inside that folder.
std::string model_label(const model::Checkpoint& checkpoint);

}  // namespace winnow::cli
