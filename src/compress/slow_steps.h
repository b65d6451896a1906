// SPDX-FileCopyrightText: The Winnow authors
// SPDX-License-Identifier: Apache-2.0
// What an option costs is measured without the quantiser's slow steps, which lower the errors of
// all types of a group by much the same share. The share is measured on a few rows, so that
// predictions are of the file that is written.
#pragma once

#include <map>
#include <optional>
#include <vector>

#include "compress/hessian_quantizer.h"
#include "compress/tensor_group.h"

namespace winnow::compress {

/// The same without further dampings, neighbouring scales, and sweeps over blocks and chains.
HessianQuantizerOptions without_slow_steps(HessianQuantizerOptions options);

/// Of the errors without the slow steps, what is left with them.
class SlowStepShares {
 public:
  explicit SlowStepShares(const HessianQuantizerOptions& whole) : whole_(whole) {}

  /// Quantises up to 32 rows of a group in both ways, in three of its types; does nothing once it
  /// has. rows: of one matrix; hessian: of its input.
  void add(const TensorGroup& group, ConstMatrix rows, PreparedHessian& hessian,
           const Workers& workers);
  /// In (0, 1]; 1 where nothing was measured.
  double of(const TensorGroup& group) const;

 private:
  struct Sums {
    std::size_t rows = 0;
    double tokens = 0;                 // that judged
    std::vector<std::size_t> options;  // which of the group's
    std::vector<double> quick, whole;  // losses, of each of these
  };

  HessianQuantizerOptions whole_;
  std::map<const TensorGroup*, Sums> sums_;
};

}  // namespace winnow::compress
