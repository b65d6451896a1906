// SPDX-FileCopyrightText: The Winnow authors
// SPDX-License-Identifier: Apache-2.0
// Kernels of every ISA: products with one token (packed bytes of weights per second: compare with
// the memory's read rate) and with 64 (operations per second, 2 per multiply-add), for every codec,
// the vector operations (f32 bytes read per second), and attention with heads of 128: one query
// over many positions (bytes of keys and values per second), a prompt of 512 (operations per
// second, 2 per multiply-add of what each query sees).
#include <benchmark/benchmark.h>

#include <algorithm>
#include <string>
#include <vector>

#include "base/rng.h"
#include "kernels/kernels.h"
#include "os/aligned_buffer.h"
#include "os/cpu_features.h"

namespace winnow {
namespace {

constexpr std::size_t kCols = 2048;

std::vector<float> random_values(std::size_t n) {
  Rng rng(n);
  std::vector<float> values(n);
  for (float& v : values) v = static_cast<float>(rng.normal());
  return values;
}

/// Packed random weights [rows, kCols] and activations [tokens, kCols] in both forms.
struct Problem {
  Problem(const kernels::Kernels& kernels, const quant::Codec& codec, std::size_t rows,
          std::size_t tokens)
      : packed(rows * (kCols / codec.block_size) * codec.block_bytes),
        w{&codec, packed.data(), rows, kCols},
        values(random_values(tokens * kCols)),
        y(tokens, rows),
        scratch(kernels::matmul_scratch_bytes(w)) {
    const auto row = random_values(kCols);
    for (std::size_t r = 0; r < rows; ++r) {
      std::byte* out = packed.data() + r * w.row_bytes();
      if (r % 16 == 0) {
        codec.encode(row.data(), kCols / codec.block_size, nullptr, out);
      } else {
        std::copy(out - w.row_bytes(), out, out);  // encoders are slow, and values do not matter
      }
    }
    codes.resize(tokens, kCols);
    for (std::size_t t = 0; t < tokens; ++t) {
      kernels.quantize_activations(values.data() + t * kCols, kCols, codes.codes(t),
                                   codes.scales(t), codes.sums(t));
    }
  }
  tensor::MatrixView<const float> floats() const { return {values.data(), y.rows(), kCols, kCols}; }
  os::AlignedBuffer packed;
  quant::PackedMatrix w;
  std::vector<float> values;
  tensor::Matrix<float> y;
  os::AlignedBuffer scratch;
  kernels::ActivationBuffer codes;
};

void multiply(benchmark::State& state, const kernels::Kernels* kernels, const quant::Codec* codec,
              std::size_t rows, std::size_t tokens) {
  Problem p(*kernels, *codec, rows, tokens);
  for (auto _ : state) {
    if (codec->is_float()) {
      kernels->matmul_floats(p.w, 0, rows, p.floats(), p.y.view(), p.scratch.data());
    } else {
      kernels->matmul_for (*codec)(p.w, 0, rows, p.codes.view(), p.y.view(), p.scratch.data());
    }
    benchmark::DoNotOptimize(p.y.flat().data());
    benchmark::ClobberMemory();
  }
  const auto iterations = static_cast<double>(state.iterations());
  state.SetBytesProcessed(
      static_cast<std::int64_t>(iterations * static_cast<double>(p.w.bytes().value)));
  state.counters["ops"] = benchmark::Counter(
      iterations * 2 * static_cast<double>(rows * kCols * tokens), benchmark::Counter::kIsRate);
}

constexpr std::size_t kLength = 4096;

void quantize(benchmark::State& state, const kernels::Kernels* kernels) {
  const auto x = random_values(kLength);
  kernels::ActivationBuffer out;
  out.resize(1, kLength);
  for (auto _ : state) {
    kernels->quantize_activations(x.data(), kLength, out.codes(0), out.scales(0), out.sums(0));
    benchmark::ClobberMemory();
  }
  state.SetBytesProcessed(state.iterations() * static_cast<std::int64_t>(kLength * sizeof(float)));
}

void silu_mul(benchmark::State& state, const kernels::Kernels* kernels) {
  const auto up = random_values(kLength);
  auto gate = random_values(kLength);
  for (auto _ : state) {
    kernels->silu_mul(gate.data(), up.data(), kLength);
    benchmark::ClobberMemory();
  }
  state.SetBytesProcessed(state.iterations() *
                          static_cast<std::int64_t>(2 * kLength * sizeof(float)));
}

void softmax(benchmark::State& state, const kernels::Kernels* kernels) {
  auto x = random_values(kLength);
  for (auto _ : state) {
    kernels->softmax(x.data(), kLength);
    benchmark::ClobberMemory();
  }
  state.SetBytesProcessed(state.iterations() * static_cast<std::int64_t>(kLength * sizeof(float)));
}

/// A prompt of `tokens` over `positions`, in tasks as the engine makes them; the heads differ in
/// memory, so that a cache holds no more of them than in a model.
void attend(benchmark::State& state, const kernels::Kernels* kernels, kernels::KvType type,
            std::size_t positions, std::size_t tokens) {
  constexpr std::size_t kDim = 128;
  const std::size_t heads = (std::size_t{1} << 28) / (positions * kDim * 8);
  const kernels::KvLayout layout{type, kDim};
  const std::size_t strips = positions / kernels::KvLayout::kStrip;
  os::AlignedBuffer keys(heads * strips * layout.strip_bytes());
  os::AlignedBuffer values(keys.size());
  os::AlignedBuffer scratch(kernels::attention_scratch_bytes(kDim));
  const auto row = random_values(2 * kDim);
  for (std::size_t p = 0; p < heads * positions; ++p) {
    kernels->store_key_value(layout, row.data(), row.data() + kDim, p, keys.data(), values.data());
  }
  const auto queries = random_values(tokens * kDim);
  std::vector<float> out(tokens * kDim);
  std::size_t head = 0;
  for (auto _ : state) {
    const std::size_t bytes = strips * layout.strip_bytes();
    const std::size_t next = (head + 1) % heads;
    for (std::size_t t = 0; t < tokens; t += kernels::kAttentionRows) {
      kernels::AttentionTask task;
      task.layout = layout;
      task.keys = keys.data() + head * bytes;
      task.values = values.data() + head * bytes;
      task.upcoming = keys.data() + next * bytes;
      task.queries = queries.data() + t * kDim;
      task.out = out.data() + t * kDim;
      task.token_stride = kDim;
      task.tokens = std::min(kernels::kAttentionRows, tokens - t);
      task.group = 1;
      task.visible = positions - tokens + t + 1;
      task.scale = 0.09F;
      kernels->attend(task, scratch.data());
    }
    head = next;
    benchmark::ClobberMemory();
  }
  const auto iterations = static_cast<double>(state.iterations());
  const double seen =
      static_cast<double>(tokens) * static_cast<double>(2 * positions - tokens + 1) / 2;
  state.SetBytesProcessed(static_cast<std::int64_t>(
      iterations * 2 * static_cast<double>(strips * layout.strip_bytes())));
  state.counters["ops"] =
      benchmark::Counter(iterations * 4 * kDim * seen, benchmark::Counter::kIsRate);
}

void register_attention(const kernels::Kernels* kernels) {
  for (const kernels::KvType type : kernels::all_kv_types()) {
    const std::string name = std::string(kernels->isa) + "/" + std::string(to_string(type));
    for (const std::size_t positions : {128, 4096}) {
      benchmark::RegisterBenchmark(
          ("attention_decode/" + name + "/" + std::to_string(positions)).c_str(), attend, kernels,
          type, positions, 1);
    }
    benchmark::RegisterBenchmark(("attention_prefill/" + name + "/512").c_str(), attend, kernels,
                                 type, 512, 512);
  }
}

void register_isa(const kernels::Kernels* kernels) {
  const std::string isa(kernels->isa);
  for (const quant::Codec* codec : quant::all_codecs()) {
    const std::string name = isa + "/" + std::string(codec->name);
    // 16384 rows are larger than the last-level cache's share in every codec above 2 bits.
    benchmark::RegisterBenchmark(("decode/" + name).c_str(), multiply, kernels, codec, 16384, 1);
    benchmark::RegisterBenchmark(("prefill64/" + name).c_str(), multiply, kernels, codec, 512, 64);
  }
  benchmark::RegisterBenchmark(("quantize/" + isa).c_str(), quantize, kernels);
  benchmark::RegisterBenchmark(("silu_mul/" + isa).c_str(), silu_mul, kernels);
  benchmark::RegisterBenchmark(("softmax/" + isa).c_str(), softmax, kernels);
  register_attention(kernels);
}

}  // namespace
}  // namespace winnow

int main(int argc, char** argv) {
  for (const auto* kernels : winnow::kernels::supported_isas(winnow::os::CpuFeatures::detect())) {
    winnow::register_isa(kernels);
  }
  benchmark::Initialize(&argc, argv);
  if (benchmark::ReportUnrecognizedArguments(argc, argv)) return 1;
  benchmark::RunSpecifiedBenchmarks();
  return 0;
}
