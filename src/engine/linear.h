// SPDX-FileCopyrightText: The Winnow authors
// SPDX-License-Identifier: Apache-2.0
// Multiplying activations with weight matrices of any codec.
#pragma once

#include <cstddef>
#include <span>
#include <vector>

#include "engine/inner_editor.h"
#include "engine/op_profile.h"
#include "engine/overrides.h"
#include "engine/routing_policy.h"
#include "experts/prefetcher.h"
#include "kernels/kernels.h"
#include "os/aligned_buffer.h"
#include "os/thread_pool.h"
#include "quant/corrected_matrix.h"
#include "tensor/matrix.h"

namespace winnow::engine {

/// What every block works with. Owned by the engine.
struct Compute {
  const kernels::Kernels& kernels;
  os::ThreadPool& pool;
  /// One scratch area per worker, at least as large as the largest matrix of the model asks for.
  std::vector<os::AlignedBuffer>& scratch;
  const WeightOverrides& overrides;
  OpProfile* profile = nullptr;           ///< null unless somebody asked; see Engine::set_profile
  InnerEditor* inner_editor = nullptr;    ///< likewise; see Engine::set_inner_editor
  const RoutingPolicy* policy = nullptr;  ///< null: the model's own routes; checked
  ExpertUse* expert_use = nullptr;        ///< likewise; see Engine::count_experts
  experts::Prefetcher* prefetcher = nullptr;  ///< only in passes of one token
};

/// Activations of some tokens as a matrix takes them: f32 for float codecs, codes for the others.
/// Borrowed; the half that no matrix asks for may be empty.
struct Operand {
  tensor::MatrixView<const float> values;  ///< [tokens, in_features]
  kernels::QuantizedActivations codes;     ///< of the same tokens

  Operand slice(std::size_t first, std::size_t count) const {
    return {values.data != nullptr ? values.rows_from(first, count) : values,
            codes.codes != nullptr ? codes.slice(first, count) : codes};
  }
};

/// Activations [tokens, in_features] with their int8 form, made only when a matrix asks for it.
class LinearInput {
 public:
  /// Takes x as the values; int8 codes are made (in parallel over tokens) if `with_codes`.
  void assign(const Compute& compute, tensor::MatrixView<const float> x, bool with_codes);

  tensor::MatrixView<const float> values() const { return values_; }
  kernels::QuantizedActivations codes() const { return codes_.view(); }
  bool has_codes() const { return has_codes_; }
  Operand operand() const {
    return {values_, has_codes_ ? codes_.view() : kernels::QuantizedActivations{}};
  }

 private:
  tensor::MatrixView<const float> values_;
  kernels::ActivationBuffer codes_;
  bool has_codes_ = false;
};

/// True when a matrix of this codec multiplies int8 codes.
inline bool wants_codes(const quant::PackedMatrix& w) { return !w.codec->is_float(); }
/// True when it multiplies f32 values, alone or beside codes.
inline bool wants_values(const quant::CorrectedMatrix& w) {
  return w.codec->is_float() || w.corrected();
}

/// Bytes of scratch that one worker needs to multiply with `w`.
std::size_t multiply_scratch_bytes(const quant::CorrectedMatrix& w);

/// Rows `rows` of y = x W^T, and of x (left right)^T where w is corrected, for which x needs its
/// f32 values. x: y.rows tokens; y: [tokens, out_features]. Runs on the calling thread with worker
/// `worker`'s scratch.
void multiply_rows(const Compute& compute, const quant::CorrectedMatrix& w, os::Range rows,
                   const Operand& x, tensor::MatrixView<float> y, unsigned worker);
/// The same for rows [first_row, end_row) and tokens [first_token, first_token + y.rows) of x.
inline void multiply_rows(const Compute& compute, const quant::CorrectedMatrix& w,
                          std::size_t first_row, std::size_t end_row, const LinearInput& x,
                          std::size_t first_token, tensor::MatrixView<float> y, unsigned worker) {
  multiply_rows(compute, w, {first_row, end_row}, x.operand().slice(first_token, y.rows), y,
                worker);
}

/// y = x W^T + bias in parallel over rows, corrected as above; bias may be empty.
/// y: [tokens, out_features].
void multiply(const Compute& compute, const quant::CorrectedMatrix& w, const LinearInput& x,
              std::span<const float> bias, tensor::MatrixView<float> y);

/// Number of parts to cut `rows` rows into: enough for the threads to balance, none too small to
/// be worth handing out.
std::size_t row_parts(std::size_t rows, unsigned threads);

/// `total` rows cut into parts of whole kernels::kActivationBlock rows (but for the last), so that
/// who computes a part of an activation can make its int8 form.
class AlignedParts {
 public:
  /// About `wanted` parts.
  AlignedParts(std::size_t total, std::size_t wanted);
  std::size_t count() const { return count_; }
  os::Range operator[](std::size_t part) const;

 private:
  std::size_t total_;
  std::size_t count_;
};

/// Int8 form of columns `cols` (whole blocks) of x, into the same place of row `row` of `out`.
void quantize_columns(const Compute& compute, std::span<const float> x, std::size_t row,
                      os::Range cols, const kernels::ActivationBuffer::Stretch& out);

}  // namespace winnow::engine
