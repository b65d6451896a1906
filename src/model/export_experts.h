// SPDX-FileCopyrightText: The Winnow authors
// SPDX-License-Identifier: Apache-2.0
// The experts of an output where they vary, and what the output's spec says of them.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <utility>
#include <vector>

#include "model/exporter.h"

namespace winnow::model {

/// [num_hidden_layers][experts of the output], of dense layers none; empty where experts do not
/// vary.
using ExportExperts = std::vector<std::vector<ExportExpert>>;

/// Those that the options ask for, or else all of the source as they are.
ExportExperts exported_experts(const Checkpoint& source, const ExportOptions& options);

/// The spec of an output of a model with `spec` that has these experts.
ModelSpec spec_with(ModelSpec spec, const ExportExperts& experts);

/// Checksums of experts that are stored apart, as their bytes are written.
class ExpertChecksums {
 public:
  /// spec: of the output.
  explicit ExpertChecksums(ModelSpec spec)
      : spec_(std::move(spec)), values_(spec_.experts_before(LayerId{spec_.num_hidden_layers})) {}

  /// The next bytes of a tensor.
  void add(const ExportTensor& tensor, std::span<const std::byte> bytes);
  /// [all experts], 0 for those without bytes.
  std::span<const std::uint32_t> values() const { return values_; }

 private:
  ModelSpec spec_;
  std::vector<std::uint32_t> values_;
};

}  // namespace winnow::model
