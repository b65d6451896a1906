// SPDX-FileCopyrightText: The Winnow authors
// SPDX-License-Identifier: Apache-2.0
// Constants for several experts of a layer at once. The best single constant of an expert is the
// g^2-weighted mean of its outputs; where tokens go to two experts that are both constants, the two
// constants together can do better. With P the experts that are constants, L those and the ones
// that nothing stands for, g a token's router weights and f the outputs, the change of the layer's
// output is sum over t of |sum over P of g_e m_e - sum over L of g_j f_j|^2, which is least where
//   sum over j in P of B_ej m_j = R_e,  B_ej = sum of g_e g_j,  R_e = sum of g_e (sum over L g_j
//   f_j).
// The router's choices are taken to stay as they are.
#pragma once

#include <span>
#include <vector>

#include "compress/window_stream.h"
#include "engine/layer_runner.h"
#include "model/spec.h"
#include "tensor/matrix.h"

namespace winnow::compress {

/// Sums over the tokens of a text; f64, added in the order of the tokens.
struct JointSums {
  std::vector<ExpertId> experts;   ///< P, rising
  tensor::Matrix<double> weights;  ///< B: [P, P]
  tensor::Matrix<double> outputs;  ///< R: [P, hidden_size]
  double squared_losses = 0;       ///< of |sum over L of g_j f_j|^2
};

/// Of the loaded layer, on the states of `text`, which stay. constants: P; zeros: the others of L;
/// both rising, and apart. The numbers depend on neither batches nor threads.
JointSums collect_joint_sums(engine::LayerRunner& runner, const model::ModelSpec& spec,
                             std::vector<ExpertId> constants, std::span<const ExpertId> zeros,
                             const WindowStream& text, Log& log);

/// [P][hidden_size]: the solution, drawn towards the `single` constants [P][hidden_size] as far as
/// `damping` says: (B + d diag B) m = R + d diag(B) single. Experts that no token goes to keep
/// theirs.
std::vector<std::vector<float>> joint_constants(const JointSums& sums,
                                                std::span<const std::vector<float>> single,
                                                double damping = 0.01);

/// The squared change of the layer's output over the text with these constants.
double squared_change(const JointSums& sums, std::span<const std::vector<float>> constants);

}  // namespace winnow::compress
