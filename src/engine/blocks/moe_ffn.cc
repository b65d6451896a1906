// SPDX-FileCopyrightText: The Winnow authors
// SPDX-License-Identifier: Apache-2.0
#include "engine/blocks/moe_ffn.h"

#include <algorithm>

#include "base/error.h"

namespace winnow::engine {

using model::Role;

/// Rows of all jobs are cut into the same number of parts, so that item / parts is the job.
struct MoeFfn::Job {
  experts::ExpertMatrices matrices;
  ExpertId expert;
  std::size_t first_slot;
  std::size_t slots;
};

namespace {

experts::ExpertMatrices resolve(const WeightOverrides& overrides, LayerId layer, ExpertId expert,
                                const experts::ExpertMatrices& own) {
  const std::size_t part = index(expert);
  return {overrides.resolve(Role::kExpertGateProj, layer, part, own.gate_proj),
          overrides.resolve(Role::kExpertUpProj, layer, part, own.up_proj),
          overrides.resolve(Role::kExpertDownProj, layer, part, own.down_proj)};
}

tensor::MatrixView<float> stretch(tensor::Matrix<float>& matrix, std::size_t first,
                                  std::size_t count) {
  return matrix.view().rows_from(first, count);
}

}  // namespace

void MoeFfn::choose_experts(const Compute& compute, const DenseWeights& weights, LayerId layer,
                            tensor::MatrixView<const float> x, Observer* observer) {
  const std::size_t top_k = spec_.moe.top_k;
  const quant::PackedMatrix& router = weights.matrix(compute.overrides, Role::kRouter, layer);
  logits_ = tensor::Matrix<float>(x.rows, router.rows);
  multiply(compute, router, input_, {}, logits_.view());
  chosen_.resize(x.rows * top_k);
  weights_.resize(x.rows * top_k);
  std::vector<float> scratch(router.rows);
  for (std::size_t t = 0; t < x.rows; ++t) {
    with_context(fmt::format("layer {}", index(layer)), [&] {
      route(compute.kernels, spec_.moe, logits_.row(t),
            std::span(chosen_).subspan(t * top_k, top_k),
            std::span(weights_).subspan(t * top_k, top_k), scratch);
    });
  }
  if (observer != nullptr) {
    observer->on_routing(layer, logits_.view(), {top_k, chosen_, weights_});
  }
  grouped_ = group_by_expert(chosen_, weights_, top_k, spec_.moe.num_experts);
}

void MoeFfn::gate_and_up(const Compute& compute, std::span<const Job> jobs) {
  const std::size_t inner = spec_.moe.moe_intermediate_size;
  const std::size_t parts = row_parts(inner, compute.pool.size());
  compute.pool.run(jobs.size() * parts, [&](std::size_t item, unsigned worker) {
    const Job& job = jobs[item / parts];
    const os::Range range = os::split(inner, parts, item % parts);
    const auto gate = stretch(gate_, job.first_slot, job.slots);
    const auto up = stretch(up_, job.first_slot, job.slots);
    multiply_rows(compute, job.matrices.gate_proj, range.begin, range.end, slot_input_,
                  job.first_slot, gate, worker);
    multiply_rows(compute, job.matrices.up_proj, range.begin, range.end, slot_input_,
                  job.first_slot, up, worker);
    for (std::size_t s = 0; s < job.slots; ++s) {
      compute.kernels.silu_mul(gate.row(s).data() + range.begin, up.row(s).data() + range.begin,
                               range.size());
    }
  });
}

void MoeFfn::down(const Compute& compute, std::span<const Job> jobs) {
  const std::size_t hidden = spec_.hidden_size;
  const std::size_t parts = row_parts(hidden, compute.pool.size());
  compute.pool.run(jobs.size() * parts, [&](std::size_t item, unsigned worker) {
    const Job& job = jobs[item / parts];
    const os::Range range = os::split(hidden, parts, item % parts);
    multiply_rows(compute, job.matrices.down_proj, range.begin, range.end, inner_input_,
                  job.first_slot, stretch(slot_out_, job.first_slot, job.slots), worker);
  });
}

void MoeFfn::compute_experts(const Compute& compute, std::span<const experts::PinnedExpert> ready,
                             LayerId layer, Observer* observer) {
  std::vector<Job> jobs;
  bool codes = false;
  for (const experts::PinnedExpert& pinned : ready) {
    const experts::ExpertMatrices matrices =
        resolve(compute.overrides, layer, pinned.expert(),
                std::get<experts::ExpertMatrices>(pinned.form()));
    const auto at =
        std::lower_bound(grouped_.experts.begin(), grouped_.experts.end(), pinned.expert()) -
        grouped_.experts.begin();
    const auto i = static_cast<std::size_t>(at);
    jobs.push_back(
        {matrices, pinned.expert(), grouped_.first[i], grouped_.first[i + 1] - grouped_.first[i]});
    codes = codes || wants_codes(matrices.down_proj);
  }
  const auto observe = [&](Site site, tensor::MatrixView<const float> x) {
    if (observer == nullptr) return;
    for (const Job& job : jobs) {
      observer->on_expert_input(site, layer, job.expert, x.rows_from(job.first_slot, job.slots),
                                std::span(grouped_.weights).subspan(job.first_slot, job.slots));
    }
  };
  observe(Site::kExpertInput, slot_input_.values());
  gate_and_up(compute, jobs);
  observe(Site::kExpertInner, gate_.view());
  // Codes of slots that are not ready yet are made again when they are; delivery in several parts
  // is rare enough that this does not matter.
  inner_input_.assign(compute, gate_.view(), codes);
  down(compute, jobs);
}

void MoeFfn::combine(const Compute& compute, tensor::MatrixView<float> out) const {
  const std::size_t top_k = spec_.moe.top_k;
  const std::size_t parts = std::min<std::size_t>(out.rows, std::size_t{compute.pool.size()} * 4);
  compute.pool.run(parts, [&](std::size_t part, unsigned) {
    const os::Range range = os::split(out.rows, parts, part);
    for (std::size_t t = range.begin; t < range.end; ++t) {
      const std::span<float> row = out.row(t);
      std::fill(row.begin(), row.end(), 0.0F);
      for (std::size_t k = 0; k < top_k; ++k) {
        const std::uint32_t slot = grouped_.slot_of[t * top_k + k];
        compute.kernels.axpy(grouped_.weights[slot], slot_out_.row(slot).data(), row.data(),
                             row.size());
      }
    }
  });
}

void MoeFfn::forward(const Compute& compute, const DenseWeights& weights,
                     experts::ExpertStore& store, LayerId layer, tensor::MatrixView<const float> x,
                     tensor::MatrixView<float> out, Observer* observer) {
  if (observer != nullptr) observer->on_input(Site::kFfnInput, layer, x);
  // Which codecs the experts have is known when they arrive; codes cost little beside them.
  input_.assign(compute, x, x.cols % kernels::kActivationBlock == 0);
  choose_experts(compute, weights, layer, x, observer);
  const auto batch = store.request(layer, grouped_.experts, experts::Priority::kDemand);

  const std::size_t slots = grouped_.tokens.size();
  gate_ = tensor::Matrix<float>(slots, spec_.moe.moe_intermediate_size);
  up_ = tensor::Matrix<float>(slots, spec_.moe.moe_intermediate_size);
  slot_out_ = tensor::Matrix<float>(slots, spec_.hidden_size);
  slot_input_.gather(compute, input_, grouped_.tokens, /*with_values=*/true);
  std::vector<experts::PinnedExpert> ready;
  while (auto expert = batch->next_ready()) {
    ready.push_back(std::move(*expert));
    if (batch->ready()) continue;
    compute_experts(compute, ready, layer, observer);
    ready.clear();
  }
  combine(compute, out);
}

}  // namespace winnow::engine
