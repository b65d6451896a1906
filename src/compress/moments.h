// SPDX-FileCopyrightText: The Winnow authors
// SPDX-License-Identifier: Apache-2.0
// Second moments of the inputs of every weight matrix, collected while the model reads text.
#pragma once

#include <cstdint>
#include <map>
#include <span>
#include <tuple>
#include <vector>

#include "base/units.h"
#include "engine/observer.h"
#include "model/roles.h"
#include "model/spec.h"

namespace winnow::compress {

/// The input that the matrices of a role read; that of the output matrix for the embedding.
engine::Site site_of(model::Role role);

/// What a token counts among the inputs of an expert.
enum class RouterWeights : std::uint8_t {
  kSquared,  ///< what a squared error of the expert costs at the layer's output
  kIgnored,  ///< one, as in llama.cpp's importance matrices
};

/// For each input site: sums over tokens of x_j^2, in f64. Expert inputs are weighted with the
/// square of the token's router weight: an expert's output enters the layer multiplied by it, so
/// this is what a squared error of its weights costs at the layer's output.
class InputMoments final : public engine::Observer {
 public:
  explicit InputMoments(const model::ModelSpec& spec,
                        RouterWeights router_weights = RouterWeights::kSquared)
      : spec_(spec), router_weights_(router_weights) {}

  void on_input(engine::Site site, LayerId layer, tensor::MatrixView<const float> x) override;
  void on_expert_input(engine::Site site, LayerId layer, ExpertId expert,
                       tensor::MatrixView<const float> x, std::span<const float> weights) override;

  /// Adds sums that were collected elsewhere. squares: [in_features], weighted already; weight: sum
  /// of squared router weights, or the number of tokens where there is no router.
  void add(engine::Site site, LayerId layer, ExpertId expert, std::span<const double> squares,
           double weight, std::uint64_t tokens);

  /// Sums of squares of the inputs of a matrix, [in_features]. They add up over tokens, so that a
  /// squared weight error times them is a squared output error in all. Zeros for an expert without
  /// tokens beside others that have some; where nothing is known, ones as of one token with inputs
  /// of the size of a norm's output: what nobody measured is not free.
  std::vector<double> sums(model::Role role, LayerId layer, ExpertId expert) const;

  /// Importance per column for the encoder: as `sums`, but the sums of an expert that saw few
  /// tokens are drawn towards the layer's, so that no expert is encoded by a handful of tokens.
  std::vector<float> importance(model::Role role, LayerId layer, ExpertId expert) const;

  /// Sums divided by their weight, drawn towards nothing, as llama.cpp's quantiser takes them: ones
  /// for an expert without tokens beside others that have some. Empty when nothing is known of the
  /// layer's inputs, and for an embedding that is looked up.
  std::vector<float> mean_squares(model::Role role, LayerId layer, ExpertId expert) const;

  /// Tokens routed to the expert, or read by a matrix that is no expert's.
  std::uint64_t tokens(model::Role role, LayerId layer, ExpertId expert) const;
  /// Whether there is anything about the inputs of these matrices: importance matrices leave the
  /// output matrix out, and may leave out more.
  bool knows(model::Role role, LayerId layer) const;

 private:
  struct Sum {
    std::vector<double> squares;
    double weight = 0;  // sum of squared router weights, or the number of tokens
    std::uint64_t tokens = 0;
  };
  using Key = std::tuple<engine::Site, std::uint32_t, std::uint32_t>;
  static void add(Sum& sum, std::span<const float> x, double weight);
  /// Rows of an untied embedding are looked up, not multiplied: every column counts the same.
  bool is_lookup(model::Role role) const;
  const Sum* find(model::Role role, LayerId layer, ExpertId expert) const;
  Sum layer_sum(model::Role role, LayerId layer) const;

  model::ModelSpec spec_;
  RouterWeights router_weights_;
  std::map<Key, Sum> sums_;
};

}  // namespace winnow::compress
