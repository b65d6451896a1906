// SPDX-FileCopyrightText: The Winnow authors
// SPDX-License-Identifier: Apache-2.0
// Hessians of the inputs of weight matrices, collected while the model reads text.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <tuple>
#include <utility>

#include "compress/hessian.h"
#include "engine/observer.h"
#include "kernels/kernels.h"
#include "model/roles.h"
#include "os/thread_pool.h"

namespace winnow::compress {

/// Sums for the sites that were asked for; 4 n^2 bytes for each input (of each expert) seen.
/// Expert inputs are weighted with the square of the token's router weight, as in InputMoments: an
/// error of the expert's weights costs that at the layer's output.
class HessianCollector final : public engine::Observer {
 public:
  /// Whether each expert of a layer has sums of its own, or all together (as expert 0).
  enum class Experts { kEach, kTogether };
  /// Chooses what is collected, so that a caller can go through a model in parts.
  using Wanted = std::function<bool(engine::Site, LayerId, ExpertId)>;

  /// `pool` computes the sums; it must be idle while the engine calls the observer, as the
  /// engine's own is. kernels: borrowed; null: the reference.
  HessianCollector(os::ThreadPool& pool, Wanted wanted, Experts experts = Experts::kEach,
                   const kernels::Kernels* kernels = nullptr)
      : pool_(pool),
        wanted_(std::move(wanted)),
        experts_(experts),
        kernels_(kernels != nullptr ? *kernels
                                    : kernels::select_kernels("scalar", os::CpuFeatures{})) {}

  void on_input(engine::Site site, LayerId layer, tensor::MatrixView<const float> x) override;
  void on_expert_input(engine::Site site, LayerId layer, ExpertId expert,
                       tensor::MatrixView<const float> x, std::span<const float> weights) override;

  /// The input's sums; null when it was not collected or saw no token. `expert` is ignored for
  /// roles that are no expert's.
  const Hessian* find(model::Role role, LayerId layer, ExpertId expert = {}) const;
  const Hessian* find(engine::Site site, LayerId layer, ExpertId expert) const;
  /// Sum over the experts of the layer, in order of their index; size: in_features.
  Hessian layer_sum(model::Role role, LayerId layer, std::size_t size) const;
  Hessian layer_sum(engine::Site site, LayerId layer, std::size_t size) const;
  /// Adds those of one expert after the other to `total`.
  void add_experts(engine::Site site, LayerId layer, Hessian& total) const;

 private:
  using Key = std::tuple<engine::Site, std::uint32_t, std::uint32_t>;
  void add(const Key& key, tensor::MatrixView<const float> x, std::span<const float> weights);

  os::ThreadPool& pool_;
  Wanted wanted_;
  Experts experts_;
  const kernels::Kernels& kernels_;
  std::map<Key, Hessian> sums_;
};

}  // namespace winnow::compress
