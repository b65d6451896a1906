// SPDX-FileCopyrightText: The Winnow authors
// SPDX-License-Identifier: Apache-2.0
// The Hessian of one input with all that quantisers derive from it, made once for all the matrices
// that read the input and all the codecs that are tried on them.
#pragma once

#include <cstddef>
#include <map>
#include <optional>
#include <tuple>
#include <utility>

#include "compress/damped_hessian.h"
#include "compress/hessian.h"
#include "compress/linear_algebra.h"

namespace winnow::compress {

/// 4 n^2 bytes for each Hessian, as much again once it is asked for in full, 8 n^2 for each damped
/// form. One thread asks at a time.
class PreparedHessian {
 public:
  /// calibration: already drawn towards its layer where tokens were few; held_out: of other text.
  explicit PreparedHessian(Hessian calibration, std::optional<Hessian> held_out = std::nullopt)
      : calibration_(std::move(calibration)), held_out_(std::move(held_out)) {}

  const Hessian& calibration() const { return calibration_; }
  /// What losses are judged by: the held-out sums, or the calibration's where there are none.
  const Hessian& judge() const { return held_out_ ? *held_out_ : calibration_; }
  bool has_held_out() const { return held_out_.has_value(); }
  std::size_t size() const { return calibration_.size(); }

  /// Sums of the expert's own tokens alone, for inner channels, which mean something else in every
  /// expert. Null where there are none, and for other inputs. Borrowed for the visit.
  struct OwnSums {
    const Hessian* calibration = nullptr;
    const Hessian* held_out = nullptr;
  };
  void set_own(const OwnSums& own) { own_ = own; }
  const OwnSums& own() const { return own_; }

  /// [n, n] in f32.
  ConstMatrix dense_calibration() { return dense(calibration_, dense_calibration_); }
  ConstMatrix dense_judge() {
    return held_out_ ? dense(*held_out_, dense_held_out_) : dense_calibration();
  }
  /// See `damp`.
  const DampedHessian& damped(double damping, std::size_t block_size, ColumnOrder order,
                              std::size_t coded_together = 1);

 private:
  static ConstMatrix dense(const Hessian& hessian, std::optional<tensor::Matrix<float>>& made);

  Hessian calibration_;
  std::optional<Hessian> held_out_;
  OwnSums own_;
  std::optional<tensor::Matrix<float>> dense_calibration_, dense_held_out_;
  std::map<std::tuple<double, std::size_t, ColumnOrder, std::size_t>, DampedHessian> damped_;
};

}  // namespace winnow::compress
