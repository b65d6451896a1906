// SPDX-FileCopyrightText: The Winnow authors
// SPDX-License-Identifier: Apache-2.0
#include "os/disk_rate.h"

#include <algorithm>
#include <chrono>
#include <exception>
#include <utility>
#include <vector>

#include "base/rng.h"
#include "os/aligned_buffer.h"

namespace winnow::os {

double measure_disk_rate(const RandomAccessFile& file, std::size_t size, PageCache page_cache,
                         const ReaderOptions& options, double seconds) {
  size = (size + kReadAlignment - 1) / kReadAlignment * kReadAlignment;
  if (size == 0 || file.size().value <= size) return 0;
  const std::size_t places = options.in_flight.value / size + 2;
  const std::uint64_t blocks = (file.size().value - size) / kReadAlignment;
  const AlignedBuffer buffer(places * size);
  std::vector<std::unique_ptr<ReadSource>> sources;
  sources.push_back(make_read_source(file, page_cache));
  const auto reader = make_async_reader(std::move(sources), options);
  Rng rng(0);
  const auto begin = [&](std::uint64_t place) {
    const AsyncRead read{0, rng.below(blocks + 1) * kReadAlignment,
                         buffer.bytes().subspan(place * size, size), size, place};
    reader->submit(std::span(&read, 1), ReadPriority::kDemand);
  };
  const auto take = [&] {
    const ReadResult result = reader->wait();
    if (result.error) std::rethrow_exception(result.error);
    return result.tag;
  };
  using Clock = std::chrono::steady_clock;
  const auto start = Clock::now();
  const auto passed = [&] { return std::chrono::duration<double>(Clock::now() - start).count(); };
  for (std::size_t place = 0; place < places; ++place) begin(place);
  std::size_t reads = 0;
  for (; passed() < seconds; ++reads) begin(take());
  for (std::size_t left = places; left > 0; --left, ++reads) (void)take();
  return static_cast<double>(reads) * static_cast<double>(size) / passed();
}

}  // namespace winnow::os
