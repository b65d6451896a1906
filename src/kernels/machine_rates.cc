// SPDX-FileCopyrightText: The Winnow authors
// SPDX-License-Identifier: Apache-2.0
#include "kernels/machine_rates.h"

#include <algorithm>
#include <chrono>
#include <cstring>

#include "base/error.h"

namespace winnow::kernels {
namespace {

constexpr int kRounds = 5;
/// Pieces of this size keep all threads busy to the end, and are long beside handing them out.
constexpr std::size_t kPiece = std::size_t{8} << 20;
constexpr std::uint64_t kFill = 0x0101010101010101ULL;

/// Seconds that `body` takes.
template <typename Body>
double seconds(Body body) {
  const auto start = std::chrono::steady_clock::now();
  body();
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
}

}  // namespace

double measure_read_rate(const Kernels& kernels, os::ThreadPool& pool, Bytes size,
                         os::Pages pages) {
  const std::size_t pieces = std::max<std::size_t>(1, size.value / kPiece);
  const os::AlignedBuffer buffer(pieces * kPiece, pages);
  // Memory that nobody has written is one shared page of zeros, and would be read from the cache.
  pool.run(pieces, [&](std::size_t piece, unsigned) {
    std::memset(buffer.data() + piece * kPiece, static_cast<int>(kFill & 0xff), kPiece);
  });
  double best = 0;
  std::vector<std::uint64_t> sums(pieces);
  for (int round = 0; round < kRounds; ++round) {
    const double took = seconds([&] {
      pool.run(pieces, [&](std::size_t piece, unsigned) {
        sums[piece] = kernels.read_probe(buffer.data() + piece * kPiece, kPiece);
      });
    });
    best = std::max(best, static_cast<double>(pieces * kPiece) / took);
    for (const std::uint64_t sum : sums) {
      WINNOW_CHECK(sum == kPiece / sizeof(std::uint64_t) * kFill);
    }
  }
  return best;
}

Bytes read_rate_size(Bytes available) {
  constexpr std::uint64_t kMost = std::uint64_t{1} << 30;
  constexpr std::uint64_t kLeast = std::uint64_t{64} << 20;
  return {std::clamp(available.value / 4, kLeast, kMost)};
}

double measure_int8_rate(const Kernels& kernels, os::ThreadPool& pool) {
  constexpr double kEnough = 0.05;
  std::uint64_t steps = 1 << 16;
  double took = 0;
  while ((took = seconds([&] { kernels.int8_probe(steps); })) < kEnough) steps *= 2;
  double best = 0;
  std::vector<std::uint64_t> operations(pool.size());
  for (int round = 0; round < kRounds; ++round) {
    took = seconds([&] {
      pool.run(pool.size(),
               [&](std::size_t i, unsigned) { operations[i] = kernels.int8_probe(steps); });
    });
    std::uint64_t total = 0;
    for (const std::uint64_t part : operations) total += part;
    best = std::max(best, static_cast<double>(total) / took);
  }
  return best;
}

}  // namespace winnow::kernels
