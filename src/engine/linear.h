// SPDX-FileCopyrightText: The Winnow authors
// SPDX-License-Identifier: Apache-2.0
// Multiplying activations with weight matrices of any codec.
#pragma once

#include <cstddef>
#include <span>
#include <vector>

#include "engine/op_profile.h"
#include "engine/overrides.h"
#include "kernels/kernels.h"
#include "os/aligned_buffer.h"
#include "os/thread_pool.h"
#include "quant/codec.h"
#include "tensor/matrix.h"

namespace winnow::engine {

/// What every block works with. Owned by the engine.
struct Compute {
  const kernels::Kernels& kernels;
  os::ThreadPool& pool;
  /// One scratch area per worker, at least as large as the largest matrix of the model asks for.
  std::vector<os::AlignedBuffer>& scratch;
  const WeightOverrides& overrides;
  OpProfile* profile = nullptr;  ///< null unless somebody asked; see Engine::set_profile
};

/// Activations [tokens, in_features] with their int8 form, made only when a matrix asks for it.
class LinearInput {
 public:
  /// Takes x as the values; int8 codes are made (in parallel over tokens) if `with_codes`.
  void assign(const Compute& compute, tensor::MatrixView<const float> x, bool with_codes);
  /// Rows `tokens` of another input, in that order: its codes if it has them, and its f32 values
  /// where `with_values` (without, `values()` has the shape but no contents).
  void gather(const Compute& compute, const LinearInput& from,
              std::span<const std::uint32_t> tokens, bool with_values);

  tensor::MatrixView<const float> values() const { return values_; }
  kernels::QuantizedActivations codes() const { return codes_.view(); }
  bool has_codes() const { return has_codes_; }

 private:
  tensor::MatrixView<const float> values_;
  tensor::Matrix<float> gathered_;  // backs values_ after `gather`
  kernels::ActivationBuffer codes_;
  bool has_codes_ = false;
};

/// True when a matrix of this codec multiplies int8 codes.
inline bool wants_codes(const quant::PackedMatrix& w) { return !w.codec->is_float(); }

/// Rows [first_row, end_row) of y = x W^T for tokens [first_token, first_token + y.rows) of x.
/// y: [tokens, out_features]. Runs on the calling thread with worker `worker`'s scratch.
void multiply_rows(const Compute& compute, const quant::PackedMatrix& w, std::size_t first_row,
                   std::size_t end_row, const LinearInput& x, std::size_t first_token,
                   tensor::MatrixView<float> y, unsigned worker);

/// y = x W^T + bias in parallel over rows; bias may be empty. y: [tokens, out_features].
void multiply(const Compute& compute, const quant::PackedMatrix& w, const LinearInput& x,
              std::span<const float> bias, tensor::MatrixView<float> y);

/// Number of parts to cut `rows` rows into: enough for the threads to balance, none too small to
/// be worth handing out.
std::size_t row_parts(std::size_t rows, unsigned threads);

}  // namespace winnow::engine
