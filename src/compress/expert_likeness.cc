// SPDX-FileCopyrightText: The Winnow authors
// SPDX-License-Identifier: Apache-2.0
#include "compress/expert_likeness.h"

#include <algorithm>
#include <array>
#include <cmath>

#include "base/error.h"
#include "compress/output_changes.h"
#include "compress/squared_sums.h"

namespace winnow::compress {
namespace {

using model::Role;

constexpr std::array kRoles = {Role::kExpertGateProj, Role::kExpertUpProj, Role::kExpertDownProj};
constexpr std::size_t kComparedRows = 16;  // of each matrix

/// The sampled rows of one role's matrices, one after the other: [experts][rows * cols].
std::vector<std::vector<float>> sampled_rows(const model::Checkpoint& source, Role role,
                                             LayerId layer) {
  std::vector<std::vector<float>> all;
  for (std::uint32_t e = 0; e < source.part_count(role, layer); ++e) {
    const model::TensorRef ref = source.at(role, layer, ExpertId{e});
    const std::size_t rows = std::min(kComparedRows, ref.rows);
    std::vector<float>& values = all.emplace_back(rows * ref.cols);
    for (std::size_t r = 0; r < rows; ++r) {
      source.read_floats(ref, r * ref.rows / rows, 1,
                         std::span(values).subspan(r * ref.cols, ref.cols));
    }
  }
  return all;
}

}  // namespace

std::vector<ExpertId> nearest_experts(const model::Checkpoint& source, LayerId layer) {
  const std::size_t experts = source.spec().num_experts(layer);
  WINNOW_CHECK(experts >= 2);
  std::vector<double> distances(experts * experts);
  for (const Role role : kRoles) {
    const auto rows = sampled_rows(source, role, layer);
    std::vector<double> norms;
    for (const auto& values : rows) norms.push_back(squared_norm(values));
    for (std::size_t a = 0; a < experts; ++a) {
      for (std::size_t b = 0; b < a; ++b) {
        const double both = norms[a] + norms[b];
        const double distance = both > 0 ? squared_distance(rows[a], rows[b]) / both : 0;
        distances[a * experts + b] += distance;
        distances[b * experts + a] += distance;
      }
    }
  }
  std::vector<ExpertId> nearest;
  for (std::size_t a = 0; a < experts; ++a) {
    std::size_t best = a == 0 ? 1 : 0;
    for (std::size_t b = 0; b < experts; ++b) {
      if (b != a && distances[a * experts + b] < distances[a * experts + best]) best = b;
    }
    nearest.push_back(ExpertId{static_cast<std::uint32_t>(best)});
  }
  return nearest;
}

PackedGroup matrix_in_place(const model::Checkpoint& source, Role role, LayerId layer,
                            ExpertId expert, ExpertId of) {
  const model::TensorRef ref = source.at(role, layer, of);
  PackedGroup packed;
  packed.only = expert;
  packed.bytes.resize(ref.bytes().value);
  source.read_rows(ref, 0, ref.rows, packed.bytes);
  packed.parts.emplace_back(&ref.codec(), packed.bytes.data(), ref.rows, ref.cols);
  return packed;
}

void add_likeness(engine::LayerRunner& runner, const model::Checkpoint& source, LayerId layer,
                  const WindowStream& text, LayerSums& sums, Log& log) {
  if (sums.experts.size() < 2) return;
  const std::vector<ExpertId> nearest = nearest_experts(source, layer);
  std::vector<PackedGroup> matrices;  // borrowed by the runner
  std::array<std::vector<quant::CorrectedMatrix>, kRoles.size()> parts;
  for (std::uint32_t e = 0; e < nearest.size(); ++e) {
    for (std::size_t r = 0; r < kRoles.size(); ++r) {
      matrices.push_back(matrix_in_place(source, kRoles[r], layer, ExpertId{e}, nearest[e]));
      parts[r].push_back(matrices.back().parts.front());
    }
  }
  std::vector<double> squares(nearest.size());
  tensor::Matrix<float> hidden;
  for (std::size_t b = 0; b < text.batches().batches.size(); ++b) {
    log.check_interrupt();
    const WindowBatches::Batch& batch = text.batches().batches[b];
    hidden.reshape(batch.tokens, text.hidden_size());
    OutputRecord original;
    text.read_rows(b, 0, hidden.view());
    runner.run(batch.lengths, hidden.view(), &original);
    for (std::size_t r = 0; r < kRoles.size(); ++r) {
      runner.override_weights(kRoles[r], parts[r]);
    }
    ChangeSum changes(original, squares);
    text.read_rows(b, 0, hidden.view());
    runner.run(batch.lengths, hidden.view(), &changes);
    runner.restore_weights();
  }
  for (std::size_t e = 0; e < nearest.size(); ++e) {
    sums.experts[e].nearest = nearest[e];
    sums.experts[e].squared_differences = squares[e];
  }
}

}  // namespace winnow::compress
