// SPDX-FileCopyrightText: The Winnow authors
// SPDX-License-Identifier: Apache-2.0
// For tests only: the tiny models, text for them, logs that stop, and whole files as bytes.
#pragma once

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <string>
#include <vector>

#include "base/error.h"
#include "base/log.h"
#include "base/rng.h"
#include "compress/profiler.h"
#include "compress/window_stream.h"
#include "engine/engine.h"
#include "engine/layer_runner.h"
#include "metrics/text_data.h"
#include "model/checkpoint.h"

namespace winnow::compress::testing {

/// The tiny model of that name; `source` is the root of the repository.
inline model::Checkpoint open_tiny(const std::filesystem::path& source, const std::string& name) {
  return model::Checkpoint::open(source / "testdata/models" / ("qwen3_moe-" + name));
}

/// `count` windows of the start token and `length` random byte tokens each.
inline metrics::WindowSet random_windows(std::size_t count, std::size_t length,
                                         std::uint64_t seed = 1) {
  Rng rng(seed);
  metrics::WindowSet set;
  set.domains = {"random"};
  for (std::size_t w = 0; w < count; ++w) {
    metrics::Window window;
    window.tokens.push_back(TokenId{271});
    for (std::size_t t = 0; t < length; ++t) {
      window.tokens.push_back(TokenId{static_cast<std::int32_t>(rng.below(256))});
    }
    set.windows.push_back(window);
  }
  return set;
}

/// Options of a profile; "test" is the version.
inline ProfileOptions profile_options() {
  ProfileOptions options;
  options.version = "test";
  return options;
}

/// Squared change of the loaded layer's output over the text, summed over tokens and channels, when
/// `override_layer` has told the runner to replace something. Undoes it.
template <typename Override>
double squared_change(engine::LayerRunner& runner, WindowStream& stream,
                      const WindowBatches& batches, const Override& override_layer) {
  double total = 0;
  for (std::size_t b = 0; b < batches.batches.size(); ++b) {
    const auto& batch = batches.batches[b];
    tensor::Matrix<float> before(batch.tokens, stream.hidden_size());
    tensor::Matrix<float> after(batch.tokens, stream.hidden_size());
    stream.read_rows(b, 0, before.view());
    stream.read_rows(b, 0, after.view());
    runner.run(batch.lengths, before.view());
    override_layer();
    runner.run(batch.lengths, after.view());
    runner.restore_weights();
    for (std::size_t i = 0; i < before.flat().size(); ++i) {
      const double change = double{after.flat()[i]} - double{before.flat()[i]};
      total += change * change;
    }
  }
  return total;
}

/// Logits of every position of a window.
inline std::vector<float> logits_of(engine::Engine& engine, const metrics::Window& window) {
  engine::KvCache cache = engine.make_cache(window.tokens.size());
  const engine::SequenceInput input{&cache, window.tokens};
  const auto hidden = engine.forward(std::span(&input, 1));
  tensor::Matrix<float> logits(hidden.rows, engine.spec().vocab_size);
  engine.logits(hidden, logits.view());
  return {logits.flat().begin(), logits.flat().end()};
}

/// run(limit) with little more memory than the refusals of smaller limits ask for. What the process
/// has taken counts, and that grows while a sanitizer keeps freed memory: hence the repetition.
template <typename Run>
auto with_least_memory(const Run& run) {
  constexpr std::uint64_t kMargin = std::uint64_t{1} << 20;
  std::uint64_t limit = kMargin;
  for (int attempt = 0;; ++attempt) {
    try {
      return run(Bytes{limit});
    } catch (const Error& error) {
      const auto at = error.message().find("takes ");
      if (error.code() != ErrorCode::kBudget || at == std::string::npos || attempt == 20) throw;
      // Each attempt may leave the process a little larger, under a sanitizer by megabytes.
      limit = std::stoull(error.message().substr(at + 6)) + (kMargin << std::min(attempt, 6));
    }
  }
}

inline std::string file_bytes(const std::filesystem::path& path) {
  std::ifstream file(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(file), std::istreambuf_iterator<char>()};
}

inline std::vector<std::string> names_in(const std::filesystem::path& folder) {
  std::vector<std::string> names;
  for (const auto& entry : std::filesystem::directory_iterator(folder)) {
    names.push_back(entry.path().filename().string());
  }
  return names;
}

/// Remembers warnings; asks to stop once it has been asked `calls` times (negative: never).
class TestLog final : public Log {
 public:
  explicit TestLog(int calls = -1) : left_(calls) {}
  void info(std::string_view message) override { messages.emplace_back(message); }
  void warn(std::string_view message) override { warnings.emplace_back(message); }
  bool stop_requested() const override {
    ++asked;
    return left_ >= 0 && left_-- == 0;
  }
  std::vector<std::string> messages;
  std::vector<std::string> warnings;
  mutable int asked = 0;

 private:
  mutable int left_;
};

}  // namespace winnow::compress::testing
