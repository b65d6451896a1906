// SPDX-FileCopyrightText: The Winnow authors
// SPDX-License-Identifier: Apache-2.0
// The true divergence of whole mixes: every group in the codec that the mix gives it.
#pragma once

#include <span>
#include <string>
#include <vector>

#include "base/json.h"
#include "compress/divergence_sweep.h"
#include "compress/group_packer.h"
#include "compress/mix_problem.h"

namespace winnow::compress {

class MixMeasurer {
 public:
  /// All borrowed. memory: for the states of all mixes that are measured together. What has been
  /// measured is kept in the folder of the unfinished output, and not measured again.
  MixMeasurer(const PackerContext& context, const std::vector<TensorGroup>& groups,
              GroupPacker& packer, const WindowBatches& probe, const SweepMemory& memory);

  /// KL(original || mix) of each, nats per scored token of the probe text. Quantises what the mixes
  /// need. Throws Error{kBadData} when what was kept is damaged, else as the packer and
  /// `measure_divergences` do.
  std::vector<double> measure(std::span<const Mix> mixes);

 private:
  /// The codecs of all groups, in order.
  std::string key_of_mix(const Mix& mix) const;
  std::vector<double> measure_new(std::span<const Mix> mixes);
  void load();
  void save() const;

  PackerContext context_;
  const std::vector<TensorGroup>& groups_;
  GroupPacker& packer_;
  const WindowBatches& probe_;
  SweepMemory memory_;
  Json known_ = Json::object();  // divergence of each mix
};

}  // namespace winnow::compress
