// SPDX-FileCopyrightText: The Winnow authors
// SPDX-License-Identifier: Apache-2.0
// What each expert's outputs change by when a batch goes through a layer a second time.
#pragma once

#include <span>
#include <vector>

#include "engine/observer.h"
#include "tensor/matrix.h"

namespace winnow::compress {

/// Keeps what the chosen experts of a batch gave.
class OutputRecord final : public engine::Observer {
 public:
  bool wants_expert_inputs() const override { return false; }
  void on_experts(LayerId layer, const engine::ExpertSlots& slots) override;

  std::vector<ExpertId> experts;     ///< those chosen, ascending
  std::vector<std::uint32_t> first;  ///< [experts + 1]: their slots
  std::vector<float> weights;        ///< [slots]
  tensor::Matrix<float> outputs;     ///< [slots, hidden_size]
};

/// Adds the squares of what the experts' outputs differ by, router weights applied. Slot by slot
/// into one sum for each expert, so that batches do not change the rounding.
class ChangeSum final : public engine::Observer {
 public:
  /// original: of the same batch; squares: [experts of the layer]; both borrowed.
  ChangeSum(const OutputRecord& original, std::vector<double>& squares)
      : original_(original), squares_(squares) {}
  bool wants_expert_inputs() const override { return false; }
  void on_experts(LayerId layer, const engine::ExpertSlots& slots) override;

 private:
  double change(const engine::ExpertSlots& slots, std::size_t slot) const;

  const OutputRecord& original_;
  std::vector<double>& squares_;
};

}  // namespace winnow::compress
