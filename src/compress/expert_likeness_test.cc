// SPDX-FileCopyrightText: The Winnow authors
// SPDX-License-Identifier: Apache-2.0
// Experts that use the matrices of another: who is nearest, what that changes, and that a budget
// finds the copies of a model that has some.
#include "compress/expert_likeness.h"

#include <gtest/gtest.h>

#include <array>
#include <cmath>
#include <cstring>

#include "compress/compressor.h"
#include "compress/testing.h"
#include "formats/test_files.h"
#include "model/test_models.h"

namespace winnow::compress::expert_likeness_test {
namespace {

using formats::testing::TemporaryFolder;
using model::Role;

constexpr LayerId kLayer{0};
constexpr std::uint32_t kCopies = 4;  // experts 4 to 7 are those of 0 to 3, with noise

/// The tiny model whose second half of experts is like the first.
class Likeness : public ::testing::Test {
 protected:
  Likeness() {
    model::testing::EditableModel model("plain");
    Rng rng(5);
    for (const int layer : {0, 1}) {
      for (std::uint32_t e = 0; e < kCopies; ++e) {
        for (const char* matrix : {"gate_proj", "up_proj", "down_proj"}) {
          const auto name = [&](std::uint32_t expert) {
            return fmt::format("model.layers.{}.mlp.experts.{}.{}.weight", layer, expert, matrix);
          };
          std::string bytes = model.tensor(name(e)).bytes;
          for (std::size_t at = 0; at < bytes.size(); at += 2) {
            // A BF16 number is the upper half of an F32 one.
            std::array<char, 4> halves = {0, 0, bytes[at], bytes[at + 1]};
            float value = 0;
            std::memcpy(&value, halves.data(), sizeof value);
            value *= 1 + 0.02F * static_cast<float>(rng.normal());
            std::memcpy(halves.data(), &value, sizeof value);
            bytes[at] = halves[2];
            bytes[at + 1] = halves[3];
          }
          model.tensor(name(e + kCopies)).bytes = bytes;
        }
      }
    }
    model.write(folder_.path() / "copies");
    source_.emplace(model::Checkpoint::open(folder_.path() / "copies"));
  }

  TemporaryFolder folder_;
  std::optional<model::Checkpoint> source_;
  metrics::WindowSet text_ = testing::random_windows(6, 30);
  testing::TestLog log_;
};

TEST_F(Likeness, TheNearestExpertIsTheCopy) {
  ASSERT_EQ(source_->at(Role::kExpertGateProj).codec().name, "BF16");
  for (const std::uint32_t layer : {0U, 1U}) {
    const auto nearest = nearest_experts(*source_, LayerId{layer});
    for (std::uint32_t e = 0; e < nearest.size(); ++e) {
      EXPECT_EQ(index(nearest[e]), e < kCopies ? e + kCopies : e - kCopies);
    }
  }
}

TEST_F(Likeness, WhatSharingChangesIsWhatRunningTheLayerShows) {
  engine::LayerRunner runner(*source_, {1, ""});
  const WindowBatches batches(text_.windows, 64);
  WindowStream stream(batches, source_->spec().hidden_size, "");
  stream.embed(runner, nullptr, log_);
  runner.load(kLayer);
  LayerSums sums = collect_expert_sums(runner, source_->spec(), kLayer, stream, log_);
  add_likeness(runner, *source_, kLayer, stream, sums, log_);
  for (std::uint32_t e = 0; e < sums.experts.size(); ++e) {
    const ExpertId nearest = sums.experts[e].nearest;
    double measured = 0;
    for (std::size_t b = 0; b < batches.batches.size(); ++b) {
      const auto& batch = batches.batches[b];
      tensor::Matrix<float> before(batch.tokens, source_->spec().hidden_size);
      tensor::Matrix<float> after(batch.tokens, source_->spec().hidden_size);
      stream.read_rows(b, 0, before.view());
      stream.read_rows(b, 0, after.view());
      runner.run(batch.lengths, before.view());
      std::vector<PackedGroup> held;
      for (const Role role : {Role::kExpertGateProj, Role::kExpertUpProj, Role::kExpertDownProj}) {
        held.push_back(matrix_in_place(*source_, role, kLayer, ExpertId{e}, nearest));
        runner.override_weights(role, held.back().in_layer(source_->spec()));
      }
      runner.run(batch.lengths, after.view());
      runner.restore_weights();
      for (std::size_t i = 0; i < before.flat().size(); ++i) {
        const double change = double{after.flat()[i]} - double{before.flat()[i]};
        measured += change * change;
      }
    }
    // The differences are small beside the f32 sums that they are taken from.
    EXPECT_NEAR(sums.experts[e].squared_differences, measured, 0.02 * measured) << e;
    EXPECT_LT(sums.experts[e].squared_differences, 0.01 * sums.experts[e].squared_outputs);
  }
}

TEST_F(Likeness, ABudgetLetsCopiesShareAndLosesLittle) {
  CompressOptions options;
  options.engine.threads = 1;
  options.bits_per_weight = 6.0;
  const auto kl = [&](const std::string& names) {
    options.experts = expert_options_of_names(names);
    const auto path = folder_.path() / "out.gguf";
    const CompressResult result = compress_model(*source_, path, &text_, options, log_);
    std::size_t shared = 0;
    for (const Json& expert : result.expert_record["experts"]) {
      shared += expert.value("chosen", "") == "shared" ? 1 : 0;
    }
    EXPECT_EQ(shared > 0, names != "types") << names;
    EXPECT_EQ(model::Checkpoint::open(path).spec().has_shared_experts(), shared > 0);
    EXPECT_LT(result.measured->all.kl_divergence, 3 * result.predicted_kl + 1e-4) << names;
    return result.measured->all.kl_divergence;
  };
  const double types = kl("types");
  EXPECT_LT(kl("shared"), 0.7 * types);
  EXPECT_LT(kl("all"), 0.7 * types);
}

}  // namespace
}  // namespace winnow::compress::expert_likeness_test
