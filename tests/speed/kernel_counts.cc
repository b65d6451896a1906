// SPDX-FileCopyrightText: The Winnow authors
// SPDX-License-Identifier: Apache-2.0
// Runs one kernel a given number of times on fixed data, for tools that count its instructions:
//   winnow_kernel_counts ISA direct_q4_k|panel_q4_0|attend_decode REPETITIONS
//   winnow_kernel_counts --compiler
#include <fmt/format.h>

#include <cmath>
#include <cstdlib>
#include <cstring>
#include <string_view>
#include <vector>

#include "base/error.h"
#include "base/rng.h"
#include "kernels/kernels.h"

namespace winnow::kernels {
namespace {

/// Memory as kernels want their scratch: aligned to 64 bytes.
struct alignas(64) Line {
  std::byte bytes[64];
};
std::vector<Line> lines_for(std::size_t bytes) {
  return std::vector<Line>((bytes + sizeof(Line) - 1) / sizeof(Line));
}

std::vector<float> normal_values(std::uint64_t seed, std::size_t count) {
  Rng rng(seed);
  std::vector<float> values(count);
  for (float& v : values) v = static_cast<float>(rng.normal());
  return values;
}

/// Random rows [rows, cols] of a codec. Four are encoded and repeated: encoding costs far more than
/// the product that is to be counted.
std::vector<std::byte> packed_rows(const quant::Codec& codec, std::size_t rows, std::size_t cols) {
  constexpr std::size_t kDifferent = 4;
  const auto values = normal_values(1, kDifferent * cols);
  const std::size_t row_bytes = cols / codec.block_size * codec.block_bytes;
  std::vector<std::byte> packed(rows * row_bytes);
  codec.encode(values.data(), values.size() / codec.block_size, nullptr, packed.data());
  for (std::size_t row = kDifferent; row < rows; ++row) {
    std::memcpy(packed.data() + row * row_bytes, packed.data() + row % kDifferent * row_bytes,
                row_bytes);
  }
  return packed;
}

void multiply(const Kernels& kernels, std::string_view codec_name, std::size_t rows,
              std::size_t tokens, std::size_t repetitions) {
  constexpr std::size_t kCols = 2048;
  const quant::Codec& codec = *quant::find_codec(codec_name);
  const auto packed = packed_rows(codec, rows, kCols);
  const quant::PackedMatrix w{&codec, packed.data(), rows, kCols};
  const auto values = normal_values(2, tokens * kCols);
  ActivationBuffer x;
  x.resize(tokens, kCols);
  for (std::size_t t = 0; t < tokens; ++t) {
    kernels.quantize_activations(values.data() + t * kCols, kCols, x.codes(t), x.scales(t),
                                 x.sums(t));
  }
  std::vector<float> y(tokens * rows);
  auto scratch = lines_for(matmul_scratch_bytes(w));
  const MatMulCodes matmul = kernels.matmul_for(codec);
  for (std::size_t i = 0; i < repetitions; ++i) {
    matmul(w, 0, rows, x.view(), {y.data(), tokens, rows, rows}, scratch.front().bytes);
  }
}

/// One token of four query heads over 128 positions of keys and values in f16.
void attend_decode(const Kernels& kernels, std::size_t repetitions) {
  constexpr std::size_t kHeadDim = 128, kPositions = 128, kGroup = 4;
  const KvLayout layout{KvType::kF16, kHeadDim};
  const std::size_t strips = kPositions / KvLayout::kStrip;
  auto keys = lines_for(strips * layout.strip_bytes());
  auto values = lines_for(strips * layout.strip_bytes());
  const auto stored = normal_values(3, kPositions * kHeadDim);
  for (std::size_t p = 0; p < kPositions; ++p) {
    const float* vector = stored.data() + p * kHeadDim;
    kernels.store_key_value(layout, vector, vector, p, keys.front().bytes, values.front().bytes);
  }
  const auto queries = normal_values(4, kGroup * kHeadDim);
  std::vector<float> out(queries.size());
  auto scratch = lines_for(attention_scratch_bytes(kHeadDim));
  AttentionTask task;
  task.layout = layout;
  task.keys = keys.front().bytes;
  task.values = values.front().bytes;
  task.queries = queries.data();
  task.out = out.data();
  task.token_stride = queries.size();
  task.tokens = 1;
  task.group = kGroup;
  task.visible = kPositions;
  task.scale = 1 / std::sqrt(static_cast<float>(kHeadDim));
  for (std::size_t i = 0; i < repetitions; ++i) kernels.attend(task, scratch.front().bytes);
}

void run(const Kernels& kernels, std::string_view kernel, std::size_t repetitions) {
  if (kernel == "direct_q4_k") return multiply(kernels, "Q4_K", 256, 1, repetitions);
  if (kernel == "panel_q4_0") return multiply(kernels, "Q4_0", 128, 64, repetitions);
  if (kernel == "attend_decode") return attend_decode(kernels, repetitions);
  fail(ErrorCode::kUsage, "unknown kernel '{}'; known: direct_q4_k, panel_q4_0, attend_decode",
       kernel);
}

void print_compiler() {
#ifdef __clang__
  fmt::print("clang {}.{}.{}\n", __clang_major__, __clang_minor__, __clang_patchlevel__);
#else
  fmt::print("g++ {}.{}.{}\n", __GNUC__, __GNUC_MINOR__, __GNUC_PATCHLEVEL__);
#endif
}

}  // namespace
}  // namespace winnow::kernels

int main(int argc, char** argv) {
  using namespace winnow;
  const std::vector<std::string_view> arguments(argv + 1, argv + argc);
  try {
    if (arguments.size() == 1 && arguments[0] == "--compiler") {
      kernels::print_compiler();
      return 0;
    }
    if (arguments.size() != 3) {
      fail(ErrorCode::kUsage, "expected ISA KERNEL REPETITIONS or --compiler");
    }
    kernels::run(kernels::select_kernels(arguments[0], os::CpuFeatures::detect()), arguments[1],
                 std::strtoul(argv[3], nullptr, 10));
    return 0;
  } catch (const Error& error) {
    fmt::print(stderr, "winnow_kernel_counts: {}\n", error.message());
    return 2;
  }
}
