// SPDX-FileCopyrightText: The Winnow authors
// SPDX-License-Identifier: Apache-2.0
// A model with some of its experts left out computes what the whole model would with the logits of
// the others at minus infinity.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <filesystem>

#include "base/rng.h"
#include "engine/blocks/routing.h"
#include "engine/engine.h"
#include "formats/test_files.h"
#include "kernels/testing.h"
#include "model/exporter.h"
#include "model/test_models.h"

namespace winnow::engine::with_experts_test {
namespace {

using formats::testing::TemporaryFolder;

constexpr std::uint32_t kKept[] = {0, 2, 3, 6, 7};

std::vector<std::vector<ExpertId>> kept_experts(const model::ModelSpec& spec) {
  std::vector<std::vector<ExpertId>> lists(spec.num_hidden_layers);
  for (std::uint32_t layer = 0; layer < spec.num_hidden_layers; ++layer) {
    for (const std::uint32_t e : kKept) lists[layer].push_back(ExpertId{e});
  }
  return lists;
}

model::Checkpoint reduced(const std::filesystem::path& path) {
  model::Checkpoint all = model::Checkpoint::open(path);
  const auto lists = kept_experts(all.spec());
  return std::move(all).with_experts(lists);
}

std::vector<float> logits_of(const model::Checkpoint& checkpoint) {
  Log log;
  Engine engine(checkpoint, {}, log);
  std::vector<TokenId> tokens;
  Rng rng(1);
  for (int i = 0; i < 24; ++i) tokens.push_back(TokenId{static_cast<std::int32_t>(rng.below(256))});
  KvCache cache = engine.make_cache(tokens.size());
  const SequenceInput input{&cache, tokens};
  const auto hidden = engine.forward(std::span(&input, 1));
  tensor::Matrix<float> logits(hidden.rows, engine.spec().vocab_size);
  engine.logits(hidden, logits.view());
  return {logits.flat().begin(), logits.flat().end()};
}

/// The tiny model without the other experts, in the file itself.
void write_without_others(model::testing::EditableModel& edited,
                          const std::filesystem::path& folder) {
  const auto kept = [](std::uint32_t e) {
    return std::find(std::begin(kKept), std::end(kKept), e) - std::begin(kKept);
  };
  std::vector<model::testing::EditableModel::Tensor> tensors;
  for (auto& tensor : edited.tensors) {
    const auto at = tensor.name.find(".experts.");
    if (at != std::string::npos) {
      const std::size_t number = at + std::string(".experts.").size();
      const auto end = tensor.name.find('.', number);
      const auto place =
          kept(static_cast<std::uint32_t>(std::stoul(tensor.name.substr(number, end - number))));
      if (place == std::ssize(kKept)) continue;
      tensor.name.replace(number, end - number, std::to_string(place));
    } else if (tensor.name.ends_with("mlp.gate.weight")) {
      const std::size_t row = tensor.bytes.size() / tensor.shape[0];
      std::string rows;
      for (const std::uint32_t e : kKept) rows += tensor.bytes.substr(e * row, row);
      tensor.bytes = rows;
      tensor.shape[0] = std::size(kKept);
    }
    tensors.push_back(tensor);
  }
  edited.tensors = tensors;
  edited.config["num_experts"] = std::size(kKept);
  edited.write(folder);
}

class WithExperts : public ::testing::TestWithParam<std::string> {};

TEST_P(WithExperts, ComputesTheBitsOfAFileThatNeverHadTheOthers) {
  const TemporaryFolder folder;
  model::testing::EditableModel edited(GetParam());
  write_without_others(edited, folder.path() / "m");
  EXPECT_EQ(logits_of(reduced(model::testing::tiny_model(GetParam()))),
            logits_of(model::Checkpoint::open(folder.path() / "m")));
}

TEST_P(WithExperts, IsWrittenAsAFileThatComputesTheSame) {
  const TemporaryFolder folder;
  const model::Checkpoint some = reduced(model::testing::tiny_model(GetParam()));
  const auto path = folder.path() / "some.gguf";
  Log log;
  os::ThreadPool pool(1);
  model::ExportOptions options;
  options.codec = [](model::Role, LayerId) -> const quant::Codec& {
    return *quant::find_codec("F32");
  };
  model::export_model(some, path, options, pool, log);
  const auto written = model::Checkpoint::open(path);
  EXPECT_EQ(written.spec().moe.num_experts, std::size(kKept));
  EXPECT_EQ(logits_of(written), logits_of(some));
}

INSTANTIATE_TEST_SUITE_P(Models, WithExperts, ::testing::Values("plain"),
                         model::testing::test_name);

// exp of a logit far below the others is zero, so softmax and choice are those of the others.
TEST(Routing, IsThatOfTheKeptRowsWhereOtherLogitsAreOut) {
  for (const kernels::Kernels* kernels : kernels::testing::isas_here()) {
    for (const bool renormalise : {true, false}) {
      const model::MoeSpec moe{.num_experts = 8, .top_k = 3, .renormalize_top_k = renormalise};
      Rng rng(2);
      for (int turn = 0; turn < 50; ++turn) {
        std::vector<float> masked(8, -1e30F);
        std::vector<float> kept;
        for (const std::uint32_t e : kKept) {
          masked[e] = static_cast<float>(rng.normal());
          kept.push_back(masked[e]);
        }
        std::vector<ExpertId> experts[2] = {std::vector<ExpertId>(3), std::vector<ExpertId>(3)};
        std::vector<float> weights[2] = {std::vector<float>(3), std::vector<float>(3)};
        std::vector<float> scratch(8);
        route(*kernels, moe, masked, experts[0], weights[0], scratch);
        route(*kernels, moe, kept, experts[1], weights[1], std::span(scratch).first(kept.size()));
        for (std::size_t k = 0; k < 3; ++k) {
          EXPECT_EQ(index(experts[0][k]), kKept[index(experts[1][k])]);
          EXPECT_NEAR(weights[0][k], weights[1][k], 1e-6F * weights[1][k]);
        }
      }
    }
  }
}

}  // namespace
}  // namespace winnow::engine::with_experts_test
