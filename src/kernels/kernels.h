// SPDX-FileCopyrightText: The Winnow authors
// SPDX-License-Identifier: Apache-2.0
// The kernels of one ISA, as a table of functions that the engine holds: chosen once, at start.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "kernels/activations.h"
#include "kernels/key_values.h"
#include "kernels/rounding.h"
#include "os/cpu_features.h"
#include "quant/block_grid.h"
#include "quant/codec.h"

namespace winnow::kernels {

/// Rows [first_row, end_row) of y = W x for every token of x.
/// w: [out_features, in_features] of one quantised codec; x: [tokens, in_features];
/// y: [tokens, out_features] with any row stride, columns [first_row, end_row) are overwritten.
/// scratch: at least `matmul_scratch_bytes(w)` bytes, aligned to 64, not shared between threads.
/// Block dot products are exact integers; the f32 sum over blocks is in a fixed order that depends
/// on neither the number of tokens nor the row range. Does not throw or allocate.
using MatMulCodes = void (*)(const quant::PackedMatrix& w, std::size_t first_row,
                             std::size_t end_row, const QuantizedActivations& x,
                             tensor::MatrixView<float> y, std::byte* scratch) noexcept;

/// The same for F32, F16 and BF16 weights: f32 activations [tokens, in_features], f32 sums.
using MatMulFloats = void (*)(const quant::PackedMatrix& w, std::size_t first_row,
                              std::size_t end_row, tensor::MatrixView<const float> x,
                              tensor::MatrixView<float> y, std::byte* scratch) noexcept;

/// Interleaved sums of wide_dots.
inline constexpr std::size_t kDotChains = 8;

/// Most rows of one call of add_gram.
inline constexpr std::size_t kGramTokens = 64;

/// All functions are reentrant, neither throw nor allocate; spans do not overlap unless said.
struct Kernels {
  std::string_view isa;  ///< one of isa_names()

  /// Writes codes [n], scales [n / kActivationBlock] and sums [n / kActivationSumGroup] of x [n].
  /// scale = max|x| / 127 of the block, code = x / scale rounded to nearest even; a block of zeros
  /// has scale 0. Bit-identical on all ISAs.
  void (*quantize_activations)(const float* x, std::size_t n, std::int8_t* codes, float* scales,
                               std::int32_t* sums) noexcept;

  /// For every codec that has an integer form.
  MatMulCodes matmul_codes;
  /// By number of the GGUF type: kernels that read the codec's own layout; null where there is
  /// none.
  std::array<MatMulCodes, 64> matmul_of_type;
  MatMulFloats matmul_floats;

  /// The fastest of the above for a quantised codec.
  MatMulCodes matmul_for(const quant::Codec& codec) const {
    const MatMulCodes own =
        codec.ggml_type < matmul_of_type.size() ? matmul_of_type[codec.ggml_type] : nullptr;
    return own != nullptr ? own : matmul_codes;
  }

  /// sum a[i] * b[i]
  float (*dot)(const float* a, const float* b, std::size_t n) noexcept;
  /// y += alpha * x
  void (*axpy)(float alpha, const float* x, float* y, std::size_t n) noexcept;
  /// out = x / sqrt(mean(x^2) + epsilon) * weight; out may be x. The sum of squares is in f32.
  void (*rms_norm)(const float* x, const float* weight, float epsilon, float* out,
                   std::size_t n) noexcept;
  /// gate = gate / (1 + exp(-gate)) * up, in place (SwiGLU).
  void (*silu_mul)(float* gate, const float* up, std::size_t n) noexcept;
  /// In place: x = exp(x - max) / sum. n >= 1.
  void (*softmax)(float* x, std::size_t n) noexcept;

  // Sums in f64 over rows of f32 for statistics. rows: `count` pointers to n values. Every product
  // and sum is rounded, rows are added in their order: bit-identical on all ISAs for finite values.

  /// squares[j] += row[j]^2, weighted[j] += weight * row[j]^2 for each row and its weight.
  void (*column_squares)(const float* const* rows, const double* weights, std::size_t count,
                         std::size_t n, double* squares, double* weighted) noexcept;
  /// sums[j] += row[j], weighted[j] += weight * row[j].
  void (*column_values)(const float* const* rows, const double* weights, std::size_t count,
                        std::size_t n, double* sums, double* weighted) noexcept;
  /// squares[j] += row[j]^2, magnitudes[j] += |row[j]|, largest[j] = max(largest[j], |row[j]|).
  void (*column_magnitudes)(const float* const* rows, std::size_t count, std::size_t n,
                            double* squares, double* magnitudes, float* largest) noexcept;
  /// sums[j] += weight * row[j].
  void (*column_products)(const float* const* rows, const double* weights, std::size_t count,
                          std::size_t n, double* sums) noexcept;
  /// out[r] = sum_j a[j] rows[r][j]: products of column j go to chain j mod kDotChains, the chains
  /// are added in order, and after them the products of the last n mod kDotChains columns.
  void (*wide_dots)(const float* a, const float* const* rows, std::size_t count, std::size_t n,
                    double* out) noexcept;
  /// max |x[j]|; 0 of nothing.
  float (*largest_magnitude)(const float* x, std::size_t n) noexcept;

  /// Runs the ISA's int8 dot product on registers, in proportion to `steps`, and returns how many
  /// operations that was (two per multiply-add); see measure_int8_rate.
  std::uint64_t (*int8_probe)(std::uint64_t steps) noexcept;

  /// Rotary embedding in place of one head x [2 * half]: pairs are (i, i + half), cosines and
  /// sines [half] those of their angles. Products and sums are rounded one by one: bit-identical
  /// on all ISAs.
  void (*rotate_halves)(float* x, const float* cosines, const float* sines,
                        std::size_t half) noexcept;
  /// Keeps key and value [head_dim] of `position` in the strips of one head, which begin at `keys`
  /// and `values`. Bit-identical on all ISAs. What f16 cannot hold becomes infinite.
  void (*store_key_value)(const KvLayout& layout, const float* key, const float* value,
                          std::size_t position, std::byte* keys, std::byte* values) noexcept;
  /// out = softmax(scale q K^T) V for every query. A query's result depends on neither the other
  /// queries nor on how many there are; the f32 operations follow a fixed order over positions.
  /// scratch: at least `attention_scratch_bytes(head_dim)` bytes, aligned to 64, not shared
  /// between threads.
  void (*attend)(const AttentionTask& task, std::byte* scratch) noexcept;

  /// The sum (mod 2^64) of the 64-bit words of `data`, read as fast as the ISA's loads can; `size`
  /// is a multiple of 1024. See measure_read_rate.
  std::uint64_t (*read_probe)(const std::byte* data, std::size_t size) noexcept;

  /// Adds sum_t w_t x_t x_t^T to a Gram matrix: sums holds its lower triangle row after row, entry
  /// (i, j <= i) at i (i + 1) / 2 + j; rows [begin, end) of it change. rows: `count` <= kGramTokens
  /// pointers to the x_t, of which the first `end` values are read; weights: [count], or null for
  /// all ones. Products (w x_i) x_j are summed over t in f32, one after the other, and the sum is
  /// added in f64: the result depends on neither begin nor end.
  void (*add_gram)(const float* const* rows, const float* weights, std::size_t count,
                   std::size_t begin, std::size_t end, double* sums) noexcept;

  /// A product of f32 matrices; see FloatProduct.
  void (*multiply)(const FloatProduct& task) noexcept;

  // For the Hessian quantiser (rounding.h); bit-identical on all ISAs.

  /// Writes all of `out` but for what is beyond the sub-block.
  void (*try_sub_block)(const SubBlockTrial& task, SubBlockChoice& out) noexcept;
  void (*feed_back)(const FeedbackBlock& task) noexcept;
  /// Writes the gradient and returns the weight of which one of the moves has the lowest cost
  /// m (2 G_j + m H_jj), the first such; `size` when no cost is below zero.
  std::size_t (*cheapest_move)(const MoveSearch& task) noexcept;

  /// Runs the ISA's f32 multiply-add on registers, in proportion to `steps`, and returns how many
  /// operations that was (two per multiply-add).
  std::uint64_t (*float_probe)(std::uint64_t steps) noexcept;

  // For the Hessian quantiser as well, where weights are points of a codebook; bit-identical on all
  // ISAs.

  /// As quant::Codebook::nearest and quant::Codebook::choose of `book`, whose lists of points they
  /// read.
  void (*nearest_points)(const quant::Codebook& book, const float* target, const float* weights,
                         float step, quant::SignParity parity, std::size_t count,
                         std::uint8_t* codes) noexcept;
  void (*choose_points)(const quant::Codebook& book, const float* target, const float* weights,
                        float step, std::uint8_t* codes) noexcept;
};

/// Bytes of scratch memory that one thread needs to multiply with `w`.
std::size_t matmul_scratch_bytes(const quant::PackedMatrix& w);

/// Names of all ISAs built in, best first: "avx512_vnni", "avx2_vnni", "avx2", "scalar" for x86,
/// for 64-bit Arm "neon_i8mm", "neon_dotprod", "scalar" (dispatch_<family>.def).
std::vector<std::string_view> isa_names();
/// The ISAs that this processor can run, best first; "scalar" is always among them.
std::vector<const Kernels*> supported_isas(os::CpuFeatures features);
/// `name` is one of isa_names(), or "" or "auto" for the best. Throws Error{kUsage} that lists the
/// names when it is unknown or not supported by the processor.
const Kernels& select_kernels(std::string_view name, os::CpuFeatures features);

}  // namespace winnow::kernels
