// SPDX-FileCopyrightText: The Winnow authors
// SPDX-License-Identifier: Apache-2.0
// How a measurement sees the two factors of an FFN's inner activations, and changes what goes into
// its down projection: for asking what a model would do with some of its neurons left out.
#pragma once

#include "base/units.h"
#include "os/thread_pool.h"
#include "tensor/matrix.h"

namespace winnow::engine {

/// Of one FFN for some tokens. All [tokens, inner channels], borrowed during the call.
struct InnerActivations {
  LayerId layer;
  ExpertId expert;                       ///< 0: the FFN of a dense layer
  tensor::MatrixView<const float> gate;  ///< silu(gate_proj(x))
  tensor::MatrixView<const float> up;    ///< up_proj(x)
  tensor::MatrixView<float> inner;       ///< gate * up; what is left here is what down_proj reads
};

/// Called once per FFN and batch, experts in the order of their computation, from the thread that
/// runs the engine; must not call back into it. What is left unchanged has the bits that it has
/// without an editor. The observer is told what the editor left.
class InnerEditor {
 public:
  virtual ~InnerEditor() = default;
  /// `pool`: the engine's, free during the call.
  virtual void edit(const InnerActivations& activations, os::ThreadPool& pool) = 0;
};

}  // namespace winnow::engine
