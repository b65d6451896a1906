// SPDX-FileCopyrightText: The Winnow authors
// SPDX-License-Identifier: Apache-2.0
#include "compress/hessian_collector.h"

#include <gtest/gtest.h>

#include <functional>
#include <limits>
#include <utility>

#include "compress/moments.h"
#include "compress/testing.h"
#include "formats/expect_error.h"

namespace winnow::compress::hessian_collector_test {
namespace {

/// Hessians and second moments of the same run of a tiny model.
class Collected : public ::testing::Test {
 protected:
  Collected() {
    struct Both final : engine::Observer {
      Both(engine::Observer& a, engine::Observer& b) : first(a), second(b) {}
      void on_input(engine::Site site, LayerId layer, tensor::MatrixView<const float> x) override {
        first.on_input(site, layer, x);
        second.on_input(site, layer, x);
      }
      void on_expert_input(engine::Site site, LayerId layer, ExpertId expert,
                           tensor::MatrixView<const float> x,
                           std::span<const float> weights) override {
        first.on_expert_input(site, layer, expert, x, weights);
        second.on_expert_input(site, layer, expert, x, weights);
      }
      engine::Observer& first;
      engine::Observer& second;
    };
    Both both(hessians, moments);
    const auto windows = testing::random_windows(3, 40);
    engine::KvCache cache = engine.make_cache(64);
    for (const auto& window : windows.windows) {
      cache.truncate(0);
      const engine::SequenceInput input{&cache, window.tokens};
      engine.forward(std::span(&input, 1), &both);
    }
  }

  static bool wanted(engine::Site, LayerId layer, ExpertId) { return index(layer) == 1; }

  Log log;
  model::Checkpoint checkpoint = testing::open_tiny(WINNOW_SOURCE_DIR, "plain");
  engine::Engine engine{checkpoint, engine::EngineOptions{.threads = 2}, log};
  HessianCollector hessians{engine.pool(), wanted};
  InputMoments moments{checkpoint.spec()};
};

TEST_F(Collected, HasTheSecondMomentsOnItsDiagonal) {
  int compared = 0;
  for (const model::Role role : {model::Role::kQueryProj, model::Role::kAttentionOutput,
                                 model::Role::kExpertGateProj, model::Role::kExpertDownProj}) {
    const std::uint32_t parts =
        model::traits(role).per_expert ? checkpoint.spec().moe.num_experts : 1;
    for (std::uint32_t e = 0; e < parts; ++e) {
      const Hessian* hessian = hessians.find(role, LayerId{1}, ExpertId{e});
      const auto sums = moments.sums(role, LayerId{1}, ExpertId{e});
      EXPECT_EQ(hessian != nullptr, moments.tokens(role, LayerId{1}, ExpertId{e}) > 0);
      if (hessian == nullptr) continue;
      ASSERT_EQ(hessian->size(), sums.size());
      EXPECT_EQ(hessian->tokens(),
                static_cast<double>(moments.tokens(role, LayerId{1}, ExpertId{e})));
      for (std::size_t j = 0; j < sums.size(); ++j) {
        // Sums of at most 64 products in f32 (see hessian.h).
        EXPECT_NEAR(hessian->at(j, j), sums[j], 66 * 0x1p-24 * sums[j]);
      }
      ++compared;
    }
  }
  EXPECT_GT(compared, 4);
}

TEST_F(Collected, NamesTheLayerOfInputsThatAreNotNumbers) {
  tensor::Matrix<float> x(3, 8);
  x.row(2)[5] = std::numeric_limits<float>::infinity();
  const tensor::MatrixView<const float> view = std::as_const(x).view();
  const std::vector<float> weights(3, 1.0F);
  HessianCollector empty(engine.pool(), wanted);
  for (const auto& add : std::vector<std::function<void()>>{
           [&] { empty.on_input(engine::Site::kFfnInput, LayerId{1}, view); },
           [&] {
             empty.on_expert_input(engine::Site::kExpertInner, LayerId{1}, ExpertId{7}, view,
                                   weights);
           }}) {
    const std::string message = formats::testing::error_of(add);
    EXPECT_NE(message.find("layer 1"), std::string::npos) << message;
    EXPECT_NE(message.find("row 2"), std::string::npos) << message;
  }
}

TEST_F(Collected, LeavesOutWhatIsNotWanted) {
  EXPECT_EQ(hessians.find(model::Role::kQueryProj, LayerId{0}), nullptr);
  EXPECT_EQ(hessians.find(model::Role::kTokenEmbedding, LayerId{0}), nullptr);
}

TEST_F(Collected, SumsTheExpertsOfALayer) {
  const model::Role role = model::Role::kExpertDownProj;
  const std::size_t size = checkpoint.at(role, LayerId{1}).cols;
  double tokens = 0;
  double trace = 0;
  for (std::uint32_t e = 0; e < checkpoint.spec().moe.num_experts; ++e) {
    const Hessian* hessian = hessians.find(role, LayerId{1}, ExpertId{e});
    if (hessian == nullptr) continue;
    tokens += hessian->tokens();
    trace += hessian->trace();
  }
  const Hessian sum = hessians.layer_sum(role, LayerId{1}, size);
  EXPECT_EQ(sum.tokens(), tokens);
  EXPECT_EQ(sum.tokens(), 3.0 * 41 * checkpoint.spec().moe.top_k);
  EXPECT_NEAR(sum.trace(), trace, 1e-12 * trace);
}

}  // namespace
}  // namespace winnow::compress::hessian_collector_test
