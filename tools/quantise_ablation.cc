// SPDX-FileCopyrightText: The Winnow authors
// SPDX-License-Identifier: Apache-2.0
// quantise_ablation: what each step of the Hessian quantiser is worth on real matrices. Prints, per
// type and kind of matrix, the loss on held-out text relative to the codec's own encoder with the
// same calibration text, and the time per matrix.
#include <array>
#include <chrono>
#include <cstdlib>
#include <memory>

#include "base/error.h"
#include "compress/hessian_collector.h"
#include "compress/hessian_quantizer.h"
#include "engine/engine.h"
#include "kernels/kernels.h"
#include "metrics/text_data.h"
#include "model/checkpoint.h"

namespace winnow::tools {
namespace {

using compress::Hessian;
using compress::HessianQuantizerOptions;
using model::Role;

/// A matrix with the Hessians of its input.
struct Problem {
  tensor::Matrix<float> weights;
  Hessian hessian;
  Hessian held_out;
};

struct Variant {
  const char* name;
  HessianQuantizerOptions options;
};

/// Each adds one step to the one before; the first is the search for scales alone.
std::vector<Variant> variants() {
  HessianQuantizerOptions options;
  options.dampings = {0.01};
  options.guard = false;
  options.feedback = options.neighbour_scales = false;
  options.descent.reset();
  std::vector<Variant> list;
  list.push_back({"H scales", options});
  options.feedback = true;
  options.scale_weights = compress::ScaleWeights::kDiagonal;
  list.push_back({"feedback", options});
  options.scale_weights = compress::ScaleWeights::kConditional;
  list.push_back({"+H scales", options});
  options.descent = compress::DescentOptions{
      .block_sweeps = 0, .integers = false, .block_scales = false, .chain_sweeps = 0};
  list.push_back({"+polish", options});
  options.descent->block_scales = true;
  list.push_back({"+refit", options});
  options.descent->integers = true;
  list.push_back({"+integers", options});
  options.descent->block_sweeps = 1;
  list.push_back({"+blocks", options});
  options.descent->chain_sweeps = 1;
  list.push_back({"+chains", options});
  options.neighbour_scales = true;
  list.push_back({"+around", options});
  list.push_back({"default", HessianQuantizerOptions{}});
  return list;
}

/// Reads `windows`, every fourth of them into `held_out`.
void collect(engine::Engine& engine, const metrics::WindowSet& text,
             compress::HessianCollector& calibration, compress::HessianCollector& held_out) {
  engine::KvCache cache = engine.make_cache(512);
  for (std::size_t i = 0; i < text.windows.size(); ++i) {
    cache.truncate(0);
    const engine::SequenceInput input{&cache, text.windows[i].tokens};
    engine.forward(std::span(&input, 1), i % 4 == 3 ? &held_out : &calibration);
  }
}

std::vector<Problem> problems_of(const model::Checkpoint& checkpoint, Role role, LayerId layer,
                                 const compress::HessianCollector& calibration,
                                 const compress::HessianCollector& held_out) {
  std::vector<Problem> problems;
  for (std::uint32_t e = 0; e < checkpoint.part_count(role, layer); ++e) {
    const model::TensorRef ref = checkpoint.at(role, layer, ExpertId{e});
    const Hessian* test = held_out.find(role, layer, ExpertId{e});
    if (test == nullptr) continue;
    const Hessian* seen = calibration.find(role, layer, ExpertId{e});
    Hessian hessian = seen == nullptr ? Hessian(ref.cols) : *seen;
    if (model::traits(role).per_expert) {
      hessian = compress::shrunk_towards(hessian, calibration.layer_sum(role, layer, ref.cols),
                                         0.5 * static_cast<double>(ref.cols));
    }
    Problem problem{tensor::Matrix<float>(ref.rows, ref.cols), std::move(hessian), *test};
    checkpoint.read_floats(ref, 0, ref.rows, problem.weights.flat());
    problems.push_back(std::move(problem));
  }
  return problems;
}

struct Outcome {
  double loss = 0;  ///< held out, over all tokens of all problems
  double seconds = 0;
};

Outcome try_variant(const std::vector<Problem>& problems, const quant::Codec& codec,
                    const HessianQuantizerOptions& options, const compress::Workers& workers) {
  Outcome outcome;
  std::vector<std::byte> out;
  for (const Problem& problem : problems) {
    const auto weights = problem.weights.view();
    out.resize(weights.rows * (weights.cols / codec.block_size) * codec.block_bytes);
    const auto begin = std::chrono::steady_clock::now();
    const auto report =
        quantize_matrix(weights, codec, problem.hessian, &problem.held_out, options, workers, out);
    const std::chrono::duration<double> elapsed = std::chrono::steady_clock::now() - begin;
    outcome.seconds += elapsed.count();
    outcome.loss += report.chosen().held_out_loss * problem.held_out.tokens();
  }
  return outcome;
}

void print_row(const char* role, const quant::Codec& codec, const std::vector<Problem>& problems,
               const compress::Workers& workers) {
  HessianQuantizerOptions encoder;
  encoder.dampings.clear();
  const Outcome base = try_variant(problems, codec, encoder, workers);
  fmt::print("{:<10} {:<7} {:>9.3g}", role, codec.name, base.loss);
  Outcome last;
  for (const Variant& variant : variants()) {
    last = try_variant(problems, codec, variant.options, workers);
    const double ms = 1000 * last.seconds / static_cast<double>(problems.size());
    fmt::print(" {:>5.3f} {:>4.0f}", last.loss / base.loss, ms);
  }
  fmt::print(" {:>8.1f}\n", 1000 * base.seconds / static_cast<double>(problems.size()));
  std::fflush(stdout);
}

void run(const std::string& path, const std::string& data, std::uint64_t tokens) {
  Log log;
  const auto checkpoint = model::Checkpoint::open(path);
  engine::Engine engine(checkpoint, {}, log);
  const std::vector<std::string> paths = {data};
  const auto tokenizer = text::Tokenizer(checkpoint.tokenizer_spec());
  const auto text = metrics::make_windows(tokenizer, metrics::read_documents(paths),
                                          {.context = 512, .max_tokens = tokens});
  const std::uint32_t last = checkpoint.spec().num_hidden_layers - 1;
  const std::array layers = {LayerId{0}, LayerId{last / 2}, LayerId{last}};
  const auto wanted = [&](engine::Site, LayerId layer, ExpertId) {
    return std::find(layers.begin(), layers.end(), layer) != layers.end();
  };
  compress::HessianCollector calibration(engine.pool(), wanted);
  compress::HessianCollector held_out(engine.pool(), wanted);
  collect(engine, text, calibration, held_out);
  fmt::print("{} tokens, a quarter held out; losses relative to the encoder's\n{:<10} {:<7} {:>9}",
             text.scored_tokens(), "matrix", "type", "encoder");
  for (const Variant& variant : variants()) fmt::print(" {:>10}", variant.name);
  fmt::print(" {:>8}\n", "enc ms");
  for (const Role role :
       {Role::kQueryProj, Role::kAttentionOutput, Role::kExpertGateProj, Role::kExpertDownProj}) {
    std::vector<Problem> problems;
    for (const LayerId layer : layers) {
      for (Problem& p : problems_of(checkpoint, role, layer, calibration, held_out)) {
        problems.push_back(std::move(p));
      }
    }
    for (const char* name : {"IQ2_XXS", "IQ2_XS", "IQ2_S", "Q2_K", "IQ3_XXS", "IQ3_S", "Q3_K",
                             "Q4_K", "IQ4_XS", "Q4_0", "Q6_K", "MXFP4"}) {
      const auto& codec =
          quant::codec_for_row(*quant::find_codec(name), problems.front().weights.cols());
      const auto short_name = model::traits(role).name.substr(0, 10);
      print_row(std::string(short_name).c_str(), codec, problems,
                {engine.pool(), kernels::select_kernels("", os::CpuFeatures::detect())});
    }
  }
}

}  // namespace
}  // namespace winnow::tools

int main(int argc, char** argv) {
  if (argc < 3) {
    fmt::print(stderr, "usage: quantise_ablation MODEL DATA [TOKENS]\n");
    return 1;
  }
  try {
    winnow::tools::run(argv[1], argv[2], argc > 3 ? std::strtoull(argv[3], nullptr, 10) : 0);
  } catch (const winnow::Error& error) {
    fmt::print(stderr, "{}\n", error.what());
    return 2;
  }
  return 0;
}
