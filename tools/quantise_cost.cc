// SPDX-FileCopyrightText: The Winnow authors
// SPDX-License-Identifier: Apache-2.0
// quantise_cost: processor time of the default quantiser on one matrix of random weights, beside
// what its arithmetic takes at the measured f32 peak of one thread. Counted, for R rows of n
// columns (two operations per multiply-add):
//   inverse  2 n^3 / 3 in f64, as twice as many of f32, for each damping
//   products 2 R n^2 each: two losses of the guard; for each damping three losses, two gradients,
//            and three of the refit in every round and after the chains
//   feedback R n^2 for each damping
//   chains   10 R n^2 for each damping (a row of H for each of about five moves tried per weight)
//   blocks   128 R n s a round for each damping, s the weights of a sub-block
// Rounds count as often as they are allowed. The search of scales is a chain of roundings and
// compares, not of multiply-adds: its time is measured with the codec's own encoder, one for the
// guard and one for each damping, and stands in a column of its own.
#include <algorithm>
#include <cstdlib>
#include <ctime>
#include <vector>

#include "base/error.h"
#include "base/rng.h"
#include "compress/hessian_quantizer.h"
#include "kernels/kernels.h"
#include "quant/codec.h"

namespace winnow::tools {
namespace {

using compress::Hessian;

double processor_seconds() {
  timespec time{};
  clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &time);
  return static_cast<double>(time.tv_sec) + 1e-9 * static_cast<double>(time.tv_nsec);
}

/// Least processor time of some runs.
template <typename Body>
double least_seconds(int repetitions, const Body& body) {
  double best = 1e300;
  for (int i = 0; i < repetitions; ++i) {
    const double begin = processor_seconds();
    body();
    best = std::min(best, processor_seconds() - begin);
  }
  return best;
}

tensor::Matrix<float> random_matrix(std::uint64_t seed, std::size_t rows, std::size_t cols,
                                    float correlation) {
  Rng rng(seed);
  tensor::Matrix<float> x(rows, cols);
  for (float& v : x.flat()) v = static_cast<float>(rng.normal());
  for (std::size_t r = 0; r < rows; ++r) {
    for (std::size_t j = 1; j < cols; ++j) x.row(r)[j] += correlation * x.row(r)[j - 1];
  }
  return x;
}

Hessian random_hessian(std::uint64_t seed, std::size_t size, os::ThreadPool& pool,
                       const kernels::Kernels& kernels) {
  Hessian hessian(size);
  hessian.add(random_matrix(seed, 4 * size, size, 0.7F).view(), {}, pool, kernels);
  return hessian;
}

/// f32 operations of quantising with `options`; see the top of the file.
double arithmetic(double rows, double n, const quant::Codec& codec,
                  const compress::HessianQuantizerOptions& options) {
  const double product = 2 * rows * n * n;
  const double inverse = 2 * (2 * n * n * n / 3);
  double each = inverse + 3 * product + product / 2;
  if (options.descent) {
    const double rounds = options.descent->rounds;
    const double refits = rounds + options.descent->chain_sweeps;
    each += 2 * product + 3 * refits * product + 5 * product * options.descent->chain_sweeps;
    each += rounds * options.descent->block_sweeps * 128 * rows * n *
            static_cast<double>(codec.grid->sub_size);
  }
  return 2 * product + static_cast<double>(options.dampings.size()) * each;
}

void measure(std::size_t rows, std::size_t cols, int repetitions) {
  const kernels::Kernels& kernels = kernels::select_kernels("", os::CpuFeatures::detect());
  os::ThreadPool pool(1);
  const compress::Workers workers(pool, kernels);
  constexpr std::uint64_t kSteps = std::uint64_t{1} << 23;
  const double took = least_seconds(9, [&] { kernels.float_probe(kSteps); });
  const double peak = static_cast<double>(kernels.float_probe(kSteps)) / took;
  const auto weights = random_matrix(1, rows, cols, 0);
  const Hessian calibration = random_hessian(2, cols, pool, kernels);
  const Hessian held_out = random_hessian(3, cols, pool, kernels);
  const compress::HessianQuantizerOptions options;
  fmt::print("{} x {}, one thread, {}: {:.1f} f32 Gop/s at best\n{:<9}{:>9}{:>11}{:>11}{:>9}\n",
             rows, cols, kernels.isa, 1e-9 * peak, "type", "Gop", "at peak ms", "search ms", "ms");
  for (const quant::Codec* codec : quant::all_codecs()) {
    if (codec->grid == nullptr || cols % codec->block_size != 0) continue;
    const std::size_t blocks = cols / codec->block_size;
    std::vector<std::byte> out(rows * blocks * codec->block_bytes);
    const std::vector<float> importance = compress::importance_of(calibration);
    const double encoder = least_seconds(repetitions, [&] {
      for (std::size_t r = 0; r < rows; ++r) {
        codec->encode(weights.row(r).data(), blocks, importance.data(),
                      out.data() + r * blocks * codec->block_bytes);
      }
    });
    const double whole = least_seconds(repetitions, [&] {
      compress::quantize_matrix(weights.view(), *codec, calibration, &held_out, options, workers,
                                out);
    });
    const double count =
        arithmetic(static_cast<double>(rows), static_cast<double>(cols), *codec, options);
    const double searches = encoder * static_cast<double>(1 + options.dampings.size());
    fmt::print("{:<9}{:>9.2f}{:>11.1f}{:>11.1f}{:>9.1f}  {:.2f} x both\n", codec->name,
               1e-9 * count, 1e3 * count / peak, 1e3 * searches, 1e3 * whole,
               whole / (count / peak + searches));
  }
}

}  // namespace
}  // namespace winnow::tools

int main(int count, char** arguments) {
  if (count > 4) {
    fmt::print(stderr, "usage: quantise_cost [ROWS] [COLUMNS] [REPETITIONS]\n");
    return 1;
  }
  const auto number = [&](int at, std::uint64_t otherwise) {
    return count > at ? std::strtoull(arguments[at], nullptr, 10) : otherwise;
  };
  try {
    winnow::tools::measure(number(1, 128), number(2, 256), static_cast<int>(number(3, 5)));
  } catch (const std::exception& error) {
    fmt::print(stderr, "quantise_cost: {}\n", error.what());
    return 2;
  }
  return 0;
}
