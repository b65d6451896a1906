// SPDX-FileCopyrightText: The Winnow authors
// SPDX-License-Identifier: Apache-2.0
#include "compress/divergence_sweep.h"

#include <fmt/format.h>

#include <memory>

#include "base/error.h"
#include "metrics/distribution.h"

namespace winnow::compress {
namespace {

using model::Role;

class Sweep {
 public:
  Sweep(engine::LayerRunner& runner, const model::ModelSpec& spec, const WindowBatches& batches,
        std::span<const WeightVariant> variants, const SweepMemory& memory, Log& log)
      : runner_(runner),
        spec_(spec),
        batches_(batches),
        variants_(variants),
        memory_(memory),
        log_(log),
        original_(make_stream(0)),
        streams_(variants.size()) {}

  std::vector<double> run() {
    embed();
    for (std::uint32_t layer = 0; layer < spec_.num_hidden_layers; ++layer) {
      runner_.load(LayerId{layer});
      for (std::size_t v = 0; v < variants_.size(); ++v) run_layer(layer, v);
      original_->run(runner_, *original_, nullptr, log_);
      log_.progress("measuring divergence", layer + 1, spec_.num_hidden_layers, "layers");
    }
    return compare();
  }

 private:
  std::unique_ptr<WindowStream> make_stream(std::size_t number);
  void embed();
  void run_layer(std::uint32_t layer, std::size_t variant);
  /// Consecutive positions of one batch whose successors are scored.
  struct ScoredRows {
    std::size_t batch, first, count;
  };
  Role output_role() const {
    return spec_.tie_word_embeddings ? Role::kTokenEmbedding : Role::kOutput;
  }
  void load_outputs();
  std::vector<double> compare();
  void compare_rows(const ScoredRows& rows, std::vector<double>& totals);
  void logits_of(const WindowStream& stream, const ScoredRows& rows, tensor::Matrix<float>& logits);
  /// Sum over the rows of `reference_` and `logits_`.
  double divergence();

  engine::LayerRunner& runner_;
  const model::ModelSpec& spec_;
  const WindowBatches& batches_;
  std::span<const WeightVariant> variants_;
  const SweepMemory& memory_;
  Log& log_;
  std::unique_ptr<WindowStream> original_;
  std::vector<std::unique_ptr<WindowStream>> streams_;  // null until a variant differs
  std::vector<PackedGroup> outputs_;                    // of each variant; empty: unchanged
  tensor::Matrix<float> hidden_, reference_, logits_;
};

std::unique_ptr<WindowStream> Sweep::make_stream(std::size_t number) {
  const std::uint64_t bytes = batches_.tokens * spec_.hidden_size * sizeof(float);
  const bool on_disk = memory_.states && (number + 1) * bytes > memory_.states->value;
  const auto folder =
      on_disk ? memory_.folder / fmt::format("sweep-{:05}", number) : std::filesystem::path();
  return std::make_unique<WindowStream>(batches_, spec_.hidden_size, folder);
}

void Sweep::embed() {
  original_->embed(runner_, nullptr, log_);
  for (std::size_t v = 0; v < variants_.size(); ++v) {
    const auto found = variants_[v].changes.find({Role::kTokenEmbedding, 0, 0});
    if (found == variants_[v].changes.end()) continue;
    const PackedGroup group = found->second();
    streams_[v] = make_stream(v + 1);
    streams_[v]->embed(runner_, group.parts.data(), log_);
  }
}

void Sweep::run_layer(std::uint32_t layer, std::size_t variant) {
  std::vector<PackedGroup> packed;  // borrowed by the runner
  for (const auto& [key, make] : variants_[variant].changes) {
    const auto& [role, of_layer, expert] = key;
    if (!model::traits(role).per_layer || of_layer != layer) continue;
    packed.push_back(make());
    runner_.override_weights(role, packed.back().in_layer(spec_));
  }
  const auto substitutes = variants_[variant].experts.find(layer);
  const bool replaces = substitutes != variants_[variant].experts.end();
  if (replaces) runner_.override_experts(substitutes->second);
  const bool changes = replaces || !packed.empty();
  const WindowStream& from = streams_[variant] != nullptr ? *streams_[variant] : *original_;
  if (changes && streams_[variant] == nullptr) streams_[variant] = make_stream(variant + 1);
  if (streams_[variant] != nullptr) streams_[variant]->run(runner_, from, nullptr, log_);
  runner_.restore_weights();
}

void Sweep::logits_of(const WindowStream& stream, const ScoredRows& rows,
                      tensor::Matrix<float>& logits) {
  hidden_.reshape(rows.count, spec_.hidden_size);
  stream.read_rows(rows.batch, rows.first, hidden_.view());
  runner_.normalize_output(hidden_.view());
  logits.reshape(rows.count, spec_.vocab_size);
  runner_.logits(hidden_.view(), logits.view());
}

double Sweep::divergence() {
  std::vector<double> kl(logits_.rows());
  runner_.pool().run(kl.size(), [&](std::size_t r, unsigned) {
    kl[r] = metrics::compare(std::as_const(reference_).row(r), std::as_const(logits_).row(r)).kl;
  });
  double total = 0;
  for (const double value : kl) total += value;  // in the order of the tokens
  return total;
}

void Sweep::compare_rows(const ScoredRows& rows, std::vector<double>& totals) {
  log_.check_interrupt();
  logits_of(*original_, rows, reference_);
  for (std::size_t v = 0; v < variants_.size(); ++v) {
    if (streams_[v] == nullptr && outputs_[v].parts.empty()) continue;
    if (!outputs_[v].parts.empty()) runner_.override_weights(output_role(), outputs_[v].parts);
    logits_of(streams_[v] != nullptr ? *streams_[v] : *original_, rows, logits_);
    runner_.restore_weights();
    totals[v] += divergence();
  }
}

/// The changed output matrices, which every stretch of rows needs anew.
void Sweep::load_outputs() {
  runner_.load_output();
  outputs_.resize(variants_.size());
  for (std::size_t v = 0; v < variants_.size(); ++v) {
    const auto found = variants_[v].changes.find({output_role(), 0, 0});
    if (found != variants_[v].changes.end()) outputs_[v] = found->second();
  }
}

std::vector<double> Sweep::compare() {
  load_outputs();
  std::vector<double> totals(variants_.size());
  std::uint64_t tokens = 0;
  for (std::size_t b = 0; b < batches_.batches.size(); ++b) {
    std::size_t window_begin = 0;
    for (const metrics::Window* window : batches_.batches[b].windows) {
      for (std::size_t done = 0; done < window->scored(); done += kSweepLogitRows) {
        // Row p predicts token p + 1.
        const std::size_t first = window_begin + window->first_scored - 1 + done;
        compare_rows({b, first, std::min(kSweepLogitRows, window->scored() - done)}, totals);
      }
      window_begin += window->tokens.size();
      tokens += window->scored();
    }
  }
  for (double& total : totals) total /= static_cast<double>(std::max<std::uint64_t>(tokens, 1));
  return totals;
}

}  // namespace

std::vector<double> measure_divergences(engine::LayerRunner& runner, const model::ModelSpec& spec,
                                        const WindowBatches& batches,
                                        std::span<const WeightVariant> variants,
                                        const SweepMemory& memory, Log& log) {
  return Sweep(runner, spec, batches, variants, memory, log).run();
}

}  // namespace winnow::compress
