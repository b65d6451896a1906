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
constexpr int kFewRounds = 3;
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

ReadRateMeter::ReadRateMeter(const Kernels& kernels, os::ThreadPool& pool, Bytes size,
                             os::Pages pages)
    : kernels_(kernels),
      pool_(pool),
      buffer_(std::max<std::size_t>(1, size.value / kPiece) * kPiece, pages),
      sums_(buffer_.size() / kPiece) {
  // Memory that nobody has written is one shared page of zeros, and would be read from the cache.
  pool.run(sums_.size(), [&](std::size_t piece, unsigned) {
    std::memset(buffer_.data() + piece * kPiece, static_cast<int>(kFill & 0xff), kPiece);
  });
}

double ReadRateMeter::read_once() {
  const double took = seconds([&] {
    pool_.run(sums_.size(), [&](std::size_t piece, unsigned) {
      sums_[piece] = kernels_.read_probe(buffer_.data() + piece * kPiece, kPiece);
    });
  });
  for (const std::uint64_t sum : sums_) WINNOW_CHECK(sum == kPiece / sizeof(sum) * kFill);
  return took;
}

double ReadRateMeter::rate() {
  double took = 0;
  for (int round = 0; round < kFewRounds; ++round) took += read_once();
  return kFewRounds * size() / took;
}

double measure_read_rate(const Kernels& kernels, os::ThreadPool& pool, Bytes size,
                         os::Pages pages) {
  ReadRateMeter meter(kernels, pool, size, pages);
  double best = 0;
  for (int round = 0; round < kRounds; ++round) {
    best = std::max(best, meter.size() / meter.read_once());
  }
  return best;
}

Bytes read_rate_size(Bytes available) {
  constexpr std::uint64_t kMost = std::uint64_t{1} << 30;
  constexpr std::uint64_t kLeast = std::uint64_t{64} << 20;
  return {std::clamp(available.value / 4, kLeast, kMost)};
}

Int8RateMeter::Int8RateMeter(const Kernels& kernels, os::ThreadPool& pool, double enough)
    : kernels_(kernels), pool_(pool), operations_(pool.size()) {
  while (seconds([&] { kernels.int8_probe(steps_); }) < enough) steps_ *= 2;
}

double Int8RateMeter::rate() {
  const double took = seconds([&] {
    pool_.run(operations_.size(),
              [&](std::size_t i, unsigned) { operations_[i] = kernels_.int8_probe(steps_); });
  });
  std::uint64_t total = 0;
  for (const std::uint64_t part : operations_) total += part;
  return static_cast<double>(total) / took;
}

double measure_int8_rate(const Kernels& kernels, os::ThreadPool& pool) {
  Int8RateMeter meter(kernels, pool, 0.05);
  double best = 0;
  for (int round = 0; round < kRounds; ++round) best = std::max(best, meter.rate());
  return best;
}

}  // namespace winnow::kernels
