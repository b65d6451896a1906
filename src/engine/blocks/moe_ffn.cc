// SPDX-FileCopyrightText: The Winnow authors
// SPDX-License-Identifier: Apache-2.0
#include "engine/blocks/moe_ffn.h"

#include <algorithm>
#include <numeric>
#include <optional>
#include <utility>

#include "base/error.h"

namespace winnow::engine {

using model::Role;

struct MoeFfn::Job {
  experts::ExpertMatrices matrices;
  ExpertId expert;
  std::size_t first_slot;
  std::size_t slots;

  std::size_t width() const { return matrices.gate_proj.rows; }  ///< inner channels
  bool needs_values() const {
    return wants_values(matrices.gate_proj) || wants_values(matrices.up_proj);
  }
};

namespace {

// Up to so many tokens, a range of output rows stays in the cache over all experts, and their
// weighted sum is taken at once instead of in a loop of its own.
constexpr std::size_t kFewTokens = 16;

// How many of a prompt's last tokens stand for those to come.
constexpr std::size_t kLastTokens = 4;

experts::ExpertMatrices resolve(const WeightOverrides& overrides, LayerId layer, ExpertId expert,
                                const experts::ExpertMatrices& own) {
  const std::size_t part = index(expert);
  return {overrides.resolve(Role::kExpertGateProj, layer, part, own.gate_proj),
          overrides.resolve(Role::kExpertUpProj, layer, part, own.up_proj),
          overrides.resolve(Role::kExpertDownProj, layer, part, own.down_proj)};
}

/// Those that tokens choose from; empty: all of them.
std::vector<ExpertId> kept_experts(std::span<const ExpertSubstitute> substitutes) {
  std::vector<ExpertId> kept;
  for (std::uint32_t e = 0; e < substitutes.size(); ++e) {
    if (substitutes[e].kind != ExpertSubstitute::Kind::kDropped) kept.push_back(ExpertId{e});
  }
  return kept;
}

/// What stands for the expert, or nothing: then it is itself.
std::optional<experts::ExpertForm> substitute_of(const WeightOverrides& overrides, LayerId layer,
                                                 ExpertId expert) {
  const std::span<const ExpertSubstitute> substitutes = overrides.experts(layer);
  if (substitutes.empty()) return std::nullopt;
  const ExpertSubstitute& substitute = substitutes[index(expert)];
  switch (substitute.kind) {
    case ExpertSubstitute::Kind::kOwn:
    case ExpertSubstitute::Kind::kDropped:  // nobody asks for it
      break;
    case ExpertSubstitute::Kind::kZero:
      return experts::ZeroExpert{};
    case ExpertSubstitute::Kind::kIdentity:
      return experts::IdentityExpert{};
    case ExpertSubstitute::Kind::kConstant:
      return experts::ConstantExpert{substitute.values};
  }
  return std::nullopt;
}

tensor::MatrixView<float> stretch(tensor::Matrix<float>& matrix, std::size_t first,
                                  std::size_t count) {
  return matrix.view().rows_from(first, count);
}

/// Parts of each job's `rows`, so that all jobs together give every thread some.
AlignedParts job_parts(const Compute& compute, std::size_t rows, std::size_t jobs) {
  constexpr std::size_t kItemsPerThread = 16;
  const std::size_t threads = compute.pool.size();
  if (threads == 1) return {rows, 1};
  return {rows, std::clamp<std::size_t>(threads * kItemsPerThread / jobs, 2, threads * 4)};
}

std::size_t token_parts(const Compute& compute, std::size_t tokens) {
  return std::min<std::size_t>(tokens, std::size_t{compute.pool.size()} * 4);
}

}  // namespace

std::optional<LayerId> moe_layer_from(const model::ModelSpec& spec, std::uint32_t first) {
  for (std::uint32_t layer = first; layer < spec.num_hidden_layers; ++layer) {
    if (spec.is_moe_layer(LayerId{layer})) return LayerId{layer};
  }
  return std::nullopt;
}

std::size_t MoeFfn::experts_per_token(const Compute& compute, LayerId layer) const {
  if (compute.policy != nullptr && compute.policy->experts_per_token != 0) {
    return compute.policy->experts_per_token;
  }
  return compute.overrides.resolve_top_k(layer, spec_.moe.top_k);
}

void MoeFfn::route_token(const Compute& compute, LayerId layer, std::size_t token,
                         unsigned worker) {
  const std::size_t num_experts = logits_.cols();
  const std::size_t top_k = chosen_.size() / logits_.rows();
  const auto logits = std::as_const(logits_).row(token);
  const auto chosen = std::span(chosen_).subspan(token * top_k, top_k);
  const auto weights = std::span(weights_).subspan(token * top_k, top_k);
  const auto scratch = std::span(scores_).subspan(worker * 2 * num_experts, 2 * num_experts);
  if (compute.policy != nullptr) {
    const RoutingPolicy& policy = *compute.policy;
    const auto order = std::span(order_).subspan(worker * num_experts, num_experts);
    if (!present_.empty()) {
      redirected_[token] = static_cast<std::uint32_t>(
          route_preferring(compute.kernels, spec_.moe, policy.prefer_cached, present_, logits,
                           chosen, weights, scratch.first(num_experts), order));
      used_[token] = static_cast<std::uint32_t>(top_k);
      return;
    }
    const RouteLimits limits{
        std::max<std::size_t>(top_k, policy.gates_over != 0 ? policy.gates_over : spec_.moe.top_k),
        policy.skips() ? policy.skip_ratios[index(layer)] : 0.0F};
    used_[token] =
        static_cast<std::uint32_t>(route_limited(compute.kernels, spec_.moe, limits, logits, chosen,
                                                 weights, scratch.first(num_experts), order));
  } else if (kept_.empty()) {
    route(compute.kernels, spec_.moe, logits, chosen, weights, scratch.first(num_experts));
  } else {
    route_among(compute.kernels, spec_.moe, kept_, logits, chosen, weights, scratch);
  }
}

void MoeFfn::route_tokens(const Compute& compute, LayerId layer, std::size_t top_k) {
  const std::size_t tokens = logits_.rows();
  const std::size_t num_experts = logits_.cols();
  chosen_.resize(tokens * top_k);
  weights_.resize(tokens * top_k);
  scores_.resize(compute.pool.size() * 2 * num_experts);
  used_.clear();
  if (compute.policy != nullptr) {
    WINNOW_CHECK(kept_.empty());  // a policy is for whole models
    used_.resize(tokens);
    order_.resize(compute.pool.size() * num_experts);
  }
  const std::size_t parts = tokens <= kFewTokens ? 1 : token_parts(compute, tokens);
  compute.pool.run(parts, [&](std::size_t part, unsigned worker) {
    const os::Range range = os::split(tokens, parts, part);
    for (std::size_t t = range.begin; t < range.end; ++t) {
      with_context(fmt::format("layer {}", index(layer)),
                   [&] { route_token(compute, layer, t, worker); });
    }
  });
}

void MoeFfn::look_what_is_there(const Compute& compute, const experts::ExpertStore& store,
                                LayerId layer) {
  present_.clear();
  // A prompt's layers need most of their experts anyway.
  if (compute.policy == nullptr || !compute.policy->prefers() || logits_.rows() > kFewTokens) {
    return;
  }
  redirected_.assign(logits_.rows(), 0);
  for (std::uint32_t e = 0; e < logits_.cols(); ++e) {
    present_.push_back(store.absent_bytes(layer, ExpertId{e}).value == 0 ? 1 : 0);
  }
}

void MoeFfn::choose_experts(const Compute& compute, const DenseWeights& weights,
                            const experts::ExpertStore& store, LayerId layer,
                            tensor::MatrixView<const float> x, Observer* observer) {
  const OpTimer timer(compute.profile, Op::kRouter);
  const std::size_t top_k = experts_per_token(compute, layer);
  kept_ = kept_experts(compute.overrides.experts(layer));
  const quant::CorrectedMatrix& router = weights.matrix(compute.overrides, Role::kRouter, layer);
  logits_.reshape(x.rows, router.rows);
  multiply(compute, router, input_, {}, logits_.view());
  look_what_is_there(compute, store, layer);
  route_tokens(compute, layer, top_k);
  if (observer != nullptr) {
    observer->on_routing(layer, logits_.view(), {top_k, chosen_, weights_, used_});
  }
  grouped_ = group_by_expert(chosen_, weights_, top_k, router.rows, used_);
  if (compute.expert_use != nullptr) {
    compute.expert_use->add(layer, x.rows, grouped_.tokens.size());
    if (!present_.empty()) {
      compute.expert_use->add_redirected(
          std::accumulate(redirected_.begin(), redirected_.end(), std::uint64_t{0}));
    }
  }
}

void MoeFfn::tell_what_lasts(experts::ExpertStore& store, std::size_t tokens) const {
  if (tokens <= kFewTokens) return;
  std::vector<ExpertId> last(
      chosen_.end() - static_cast<std::ptrdiff_t>(kLastTokens * grouped_.top_k), chosen_.end());
  std::sort(last.begin(), last.end());
  last.erase(std::unique(last.begin(), last.end()), last.end());
  store.expect_again(last);
}

void MoeFfn::look_ahead(const Compute& compute, const DenseWeights& weights, LayerId layer) {
  class Preview final : public experts::RouterPreview {
   public:
    Preview(const Compute& compute, const DenseWeights& weights, const LinearInput& input,
            tensor::Matrix<float>& logits)
        : compute_(compute), weights_(weights), input_(input), logits_(logits) {}
    std::span<const float> logits(LayerId next) override {
      const OpTimer timer(compute_.profile, Op::kRouter);
      const quant::CorrectedMatrix& router =
          weights_.matrix(compute_.overrides, Role::kRouter, next);
      logits_.reshape(1, router.rows);
      multiply(compute_, router, input_, {}, logits_.view());
      return std::as_const(logits_).row(0);
    }

   private:
    const Compute& compute_;
    const DenseWeights& weights_;
    const LinearInput& input_;
    tensor::Matrix<float>& logits_;
  };
  const auto next = moe_layer_from(spec_, index(layer) + 1);
  if (!next) return;
  Preview preview(compute, weights, input_, next_logits_);
  compute.prefetcher->look_ahead(*next, spec_.num_experts(*next), &preview);
}

os::Range MoeFfn::slots_of(ExpertId expert) const {
  const auto at = std::lower_bound(grouped_.experts.begin(), grouped_.experts.end(), expert);
  const auto i = static_cast<std::size_t>(at - grouped_.experts.begin());
  return {grouped_.first[i], grouped_.first[i + 1]};
}

MoeFfn::Job MoeFfn::make_job(const Compute& compute, LayerId layer, ExpertId expert,
                             const experts::ExpertMatrices& own) const {
  const os::Range slots = slots_of(expert);
  return {resolve(compute.overrides, layer, expert, own), expert, slots.begin, slots.size()};
}

void MoeFfn::fill_outputs(ExpertId expert, const experts::ExpertForm& form) {
  const os::Range slots = slots_of(expert);
  for (std::size_t slot = slots.begin; slot < slots.end; ++slot) {
    const std::span<float> out = slot_out_.row(slot);
    if (std::holds_alternative<experts::ZeroExpert>(form)) {
      std::fill(out.begin(), out.end(), 0.0F);
    } else if (const auto* constant = std::get_if<experts::ConstantExpert>(&form)) {
      std::copy(constant->values.begin(), constant->values.end(), out.begin());
    } else {
      const auto x = input_.values().row(grouped_.tokens[slot]);
      std::copy(x.begin(), x.end(), out.begin());
    }
  }
}

void MoeFfn::gather_values(const Compute& compute, tensor::MatrixView<const float> x) {
  const std::size_t slots = grouped_.tokens.size();
  slot_values_.reshape(slots, x.cols);
  const std::size_t parts = token_parts(compute, slots);
  compute.pool.run(parts, [&](std::size_t part, unsigned) {
    const os::Range range = os::split(slots, parts, part);
    for (std::size_t slot = range.begin; slot < range.end; ++slot) {
      std::copy_n(x.row(grouped_.tokens[slot]).data(), x.cols, slot_values_.row(slot).data());
    }
  });
}

void MoeFfn::gate_and_up_rows(const Compute& compute, const Job& job, os::Range rows,
                              unsigned worker) {
  rows.end = std::min(rows.end, job.width());
  if (rows.begin >= rows.end) return;  // a narrow expert beside wider ones
  const auto tokens = std::span<const std::uint32_t>(grouped_.tokens);
  const Operand x{job.needs_values()
                      ? std::as_const(slot_values_).view().rows_from(job.first_slot, job.slots)
                      : tensor::MatrixView<const float>{},
                  input_.codes().choose(tokens.subspan(job.first_slot, job.slots))};
  const auto gate = stretch(gate_, job.first_slot, job.slots);
  const auto up = stretch(up_, job.first_slot, job.slots);
  const auto codes = inner_codes_.stretch(job.first_slot, job.slots, job.width());
  multiply_rows(compute, job.matrices.gate_proj, rows, x, gate, worker);
  multiply_rows(compute, job.matrices.up_proj, rows, x, up, worker);
  const bool edited = compute.inner_editor != nullptr;
  for (std::size_t s = 0; s < job.slots; ++s) {
    if (edited) activated_.keep(compute, job.first_slot + s, gate.row(s), rows);
    compute.kernels.silu_mul(gate.row(s).data() + rows.begin, up.row(s).data() + rows.begin,
                             rows.size());
    if (wants_codes(job.matrices.down_proj) && !edited) {
      quantize_columns(compute, gate.row(s), s, rows, codes);
    }
  }
}

void MoeFfn::gate_and_up(const Compute& compute, std::span<const Job> jobs) {
  const OpTimer timer(compute.profile, Op::kGateUp);
  const AlignedParts parts = job_parts(compute, spec_.moe.moe_intermediate_size, jobs.size());
  compute.pool.run(jobs.size() * parts.count(), [&](std::size_t item, unsigned worker) {
    gate_and_up_rows(compute, jobs[item / parts.count()], parts[item % parts.count()], worker);
  });
}

void MoeFfn::edit(const Compute& compute, LayerId layer, std::span<const Job> jobs) {
  for (const Job& job : jobs) {
    const auto of_job = [&](auto view) {
      view = view.rows_from(job.first_slot, job.slots);
      view.cols = job.width();
      return view;
    };
    const auto inner = of_job(gate_.view());
    compute.inner_editor->edit(
        {layer, job.expert, of_job(activated_.view()), of_job(std::as_const(up_).view()), inner},
        compute.pool);
    if (!wants_codes(job.matrices.down_proj)) continue;
    const auto codes = inner_codes_.stretch(job.first_slot, job.slots, job.width());
    compute.pool.run(job.slots, [&](std::size_t s, unsigned) {
      quantize_columns(compute, inner.row(s), s, {0, job.width()}, codes);
    });
  }
}

void MoeFfn::down_rows(const Compute& compute, const Job& job, os::Range rows, unsigned worker) {
  tensor::MatrixView<const float> values = stretch(gate_, job.first_slot, job.slots);
  values.cols = job.width();
  const auto codes = inner_codes_.stretch(job.first_slot, job.slots, job.width());
  multiply_rows(compute, job.matrices.down_proj, rows, {values, codes.view()},
                stretch(slot_out_, job.first_slot, job.slots), worker);
}

void MoeFfn::down(const Compute& compute, std::span<const Job> jobs) {
  const OpTimer timer(compute.profile, Op::kDown);
  const AlignedParts parts = job_parts(compute, spec_.hidden_size, jobs.size());
  compute.pool.run(jobs.size() * parts.count(), [&](std::size_t item, unsigned worker) {
    down_rows(compute, jobs[item / parts.count()], parts[item % parts.count()], worker);
  });
}

void MoeFfn::down_and_combine(const Compute& compute, std::span<const Job> jobs,
                              tensor::MatrixView<float> out) {
  const OpTimer timer(compute.profile, Op::kDown);
  const AlignedParts parts(spec_.hidden_size, row_parts(spec_.hidden_size, compute.pool.size()));
  compute.pool.run(parts.count(), [&](std::size_t part, unsigned worker) {
    const os::Range rows = parts[part];
    for (const Job& job : jobs) down_rows(compute, job, rows, worker);
    for (std::size_t t = 0; t < out.rows; ++t) combine_columns(compute, t, rows, out.row(t));
  });
}

void MoeFfn::observe(Site site, LayerId layer, std::span<const Job> jobs,
                     tensor::MatrixView<const float> x, Observer& observer) const {
  for (const Job& job : jobs) {
    observer.on_expert_input(site, layer, job.expert, x.rows_from(job.first_slot, job.slots),
                             std::span(grouped_.weights).subspan(job.first_slot, job.slots));
  }
}

bool MoeFfn::compute_experts(const Compute& compute, std::span<const experts::PinnedExpert> ready,
                             LayerId layer, tensor::MatrixView<float> out, Observer* observer) {
  std::vector<Job> jobs;
  const bool observed = observer != nullptr && observer->wants_expert_inputs();
  bool values = observed;
  for (const experts::PinnedExpert& pinned : ready) {
    const auto substitute = substitute_of(compute.overrides, layer, pinned.expert());
    const experts::ExpertForm& form = substitute ? *substitute : pinned.form();
    const auto* const own = std::get_if<experts::ExpertMatrices>(&form);
    if (own == nullptr) {
      fill_outputs(pinned.expert(), form);
      continue;
    }
    jobs.push_back(make_job(compute, layer, pinned.expert(), *own));
    values = values || jobs.back().needs_values();
  }
  if (values) gather_values(compute, input_.values());
  if (observed) {
    observe(Site::kExpertInput, layer, jobs, std::as_const(slot_values_).view(), *observer);
  }
  if (!jobs.empty()) gate_and_up(compute, jobs);
  if (compute.inner_editor != nullptr) edit(compute, layer, jobs);
  if (observed) observe(Site::kExpertInner, layer, jobs, std::as_const(gate_).view(), *observer);
  if (ready.size() == grouped_.experts.size() && out.rows <= kFewTokens) {
    down_and_combine(compute, jobs, out);
    return true;
  }
  if (!jobs.empty()) down(compute, jobs);
  return false;
}

void MoeFfn::combine_columns(const Compute& compute, std::size_t token, os::Range cols,
                             std::span<float> out) const {
  const std::size_t top_k = grouped_.top_k;
  float* sum = out.data() + cols.begin;
  std::fill_n(sum, cols.size(), 0.0F);
  for (std::size_t k = 0; k < top_k; ++k) {
    const std::uint32_t slot = grouped_.slot_of[token * top_k + k];
    if (slot == kNoSlot) break;
    compute.kernels.axpy(grouped_.weights[slot], slot_out_.row(slot).data() + cols.begin, sum,
                         cols.size());
  }
}

void MoeFfn::combine(const Compute& compute, tensor::MatrixView<float> out) const {
  const OpTimer timer(compute.profile, Op::kDown);
  const std::size_t parts = token_parts(compute, out.rows);
  compute.pool.run(parts, [&](std::size_t part, unsigned) {
    const os::Range range = os::split(out.rows, parts, part);
    for (std::size_t t = range.begin; t < range.end; ++t) {
      combine_columns(compute, t, {0, out.cols}, out.row(t));
    }
  });
}

void MoeFfn::forward(const Compute& compute, const DenseWeights& weights,
                     experts::ExpertStore& store, LayerId layer, tensor::MatrixView<const float> x,
                     tensor::MatrixView<float> out, Observer* observer) {
  if (observer != nullptr) observer->on_input(Site::kFfnInput, layer, x);
  // Which codecs the experts have is known when they arrive; codes cost little beside them.
  input_.assign(compute, x, x.cols % kernels::kActivationBlock == 0);
  choose_experts(compute, weights, store, layer, x, observer);
  tell_what_lasts(store, x.rows);
  if (compute.prefetcher != nullptr) compute.prefetcher->routed(layer, grouped_.experts);
  const auto batch = store.request(layer, grouped_.experts, experts::Priority::kDemand);
  if (compute.prefetcher != nullptr) look_ahead(compute, weights, layer);

  const std::size_t slots = grouped_.tokens.size();
  const std::size_t inner = spec_.moe.moe_intermediate_size;
  gate_.reshape(slots, inner);
  up_.reshape(slots, inner);
  if (compute.inner_editor != nullptr) activated_.reshape(slots, inner);
  slot_out_.reshape(slots, spec_.hidden_size);
  // In whole blocks: an expert that wants codes has such a width, whatever the widest has.
  inner_codes_.resize(slots, inner / kernels::kActivationBlock * kernels::kActivationBlock);
  std::vector<experts::PinnedExpert> ready;
  bool combined = false;
  const auto next = [&] {
    const OpTimer timer(compute.profile, Op::kExpertWait);
    return batch->next_ready();
  };
  while (auto expert = next()) {
    ready.push_back(std::move(*expert));
    if (batch->ready()) continue;
    combined = compute_experts(compute, ready, layer, out, observer);
    ready.clear();
  }
  if (!combined) combine(compute, out);
  if (observer == nullptr) return;
  const auto computed = [slots](const tensor::Matrix<float>& matrix) {
    return matrix.view().rows_from(0, slots);
  };
  observer->on_experts(
      layer, {grouped_.top_k, grouped_.experts, grouped_.first, grouped_.tokens, grouped_.weights,
              grouped_.slot_of, x, computed(gate_), computed(slot_out_)});
}

}  // namespace winnow::engine
