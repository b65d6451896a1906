// SPDX-FileCopyrightText: The Winnow authors
// SPDX-License-Identifier: Apache-2.0
// One layer at a time gives what the whole model gives.
#include "engine/layer_runner.h"

#include <gtest/gtest.h>

#include <bit>

#include "base/rng.h"
#include "engine/engine.h"
#include "formats/test_files.h"
#include "model/test_models.h"

namespace winnow::engine::layer_runner_test {
namespace {

using formats::testing::TemporaryFolder;
using model::testing::EditableModel;
using model::testing::error_of;

using Window = std::vector<TokenId>;

std::vector<Window> random_windows(std::span<const std::size_t> lengths) {
  Rng rng(3);
  std::vector<Window> windows;
  for (const std::size_t length : lengths) {
    windows.emplace_back();
    while (windows.back().size() < length) {
      windows.back().push_back(TokenId{static_cast<std::int32_t>(rng.below(272))});
    }
  }
  return windows;
}

std::vector<std::uint32_t> bits_of(std::span<const float> values) {
  std::vector<std::uint32_t> bits;
  for (const float value : values) bits.push_back(std::bit_cast<std::uint32_t>(value));
  return bits;
}

/// Keeps bits of what a pass shows of its experts and routes.
class Trace final : public Observer {
 public:
  void on_input(Site, LayerId, tensor::MatrixView<const float> x) override { add(x); }
  void on_experts(LayerId, const ExpertSlots& slots) override {
    add(slots.inputs);
    add(slots.inner);
    add(slots.outputs);
    const auto weights = bits_of(slots.weights);
    bits.insert(bits.end(), weights.begin(), weights.end());
  }
  std::vector<std::uint32_t> bits;

 private:
  void add(tensor::MatrixView<const float> x) {
    for (std::size_t t = 0; t < x.rows; ++t) {
      const auto row = bits_of(x.row(t));
      bits.insert(bits.end(), row.begin(), row.end());
    }
  }
};

/// All windows as one batch.
std::vector<std::uint32_t> layered(const model::Checkpoint& checkpoint,
                                   const std::vector<Window>& windows, unsigned threads,
                                   Observer* observer = nullptr) {
  LayerRunner runner(checkpoint, {.threads = threads, .isa = ""});
  std::vector<TokenId> tokens;
  std::vector<std::size_t> lengths;
  for (const Window& window : windows) {
    tokens.insert(tokens.end(), window.begin(), window.end());
    lengths.push_back(window.size());
  }
  tensor::Matrix<float> hidden(tokens.size(), checkpoint.spec().hidden_size);
  runner.embed(tokens, hidden.view());
  for (std::uint32_t layer = 0; layer < checkpoint.spec().num_hidden_layers; ++layer) {
    runner.load(LayerId{layer});
    runner.run(lengths, hidden.view(), observer);
  }
  runner.load_output();
  runner.normalize_output(hidden.view(), observer);
  tensor::Matrix<float> logits(hidden.rows(), checkpoint.spec().vocab_size);
  runner.logits(hidden.view(), logits.view());
  return bits_of(logits.flat());
}

std::vector<std::uint32_t> whole(const model::Checkpoint& checkpoint,
                                 const std::vector<Window>& windows, Observer* observer = nullptr) {
  Log log;
  Engine engine(checkpoint, {.threads = 1, .isa = ""}, log);
  std::vector<KvCache> caches;
  for (const Window& window : windows) caches.push_back(engine.make_cache(window.size()));
  std::vector<SequenceInput> inputs;
  for (std::size_t w = 0; w < windows.size(); ++w) inputs.push_back({&caches[w], windows[w]});
  const auto hidden = engine.forward(inputs, observer);
  tensor::Matrix<float> logits(hidden.rows, engine.spec().vocab_size);
  engine.logits(hidden, logits.view());
  return bits_of(logits.flat());
}

class LayerRunnerOf : public testing::TestWithParam<std::string> {};

TEST_P(LayerRunnerOf, GivesTheBitsOfTheWholeModelWithAnyNumberOfThreads) {
  const auto checkpoint = model::Checkpoint::open(model::testing::tiny_folder(GetParam()));
  constexpr std::size_t kLengths[] = {17, 1, 40};
  const auto windows = random_windows(kLengths);
  const auto expected = whole(checkpoint, windows);
  EXPECT_EQ(layered(checkpoint, windows, 1), expected);
  EXPECT_EQ(layered(checkpoint, windows, 3), expected);
}

TEST_P(LayerRunnerOf, ShowsAnObserverWhatTheWholeModelShows) {
  const auto checkpoint = model::Checkpoint::open(model::testing::tiny_folder(GetParam()));
  constexpr std::size_t kLengths[] = {5, 30};
  const auto windows = random_windows(kLengths);
  Trace of_layers, of_model;
  layered(checkpoint, windows, 2, &of_layers);
  whole(checkpoint, windows, &of_model);
  EXPECT_FALSE(of_model.bits.empty());
  EXPECT_EQ(of_layers.bits, of_model.bits);
}

INSTANTIATE_TEST_SUITE_P(TinyModels, LayerRunnerOf,
                         testing::ValuesIn(model::testing::tiny_models()),
                         model::testing::test_name);

TEST(LayerRunner, NamesTheLayerWhoseWeightsAreDamaged) {
  const TemporaryFolder folder;
  EditableModel model("plain");
  auto& tensor = model.tensor("model.layers.1.self_attn.v_proj.weight");
  std::fill(tensor.bytes.begin(), tensor.bytes.end(), '\xff');  // NaN in every float type
  model.write(folder.path() / "broken");
  const auto checkpoint = model::Checkpoint::open(folder.path() / "broken");
  const Error error = error_of([&] {
    constexpr std::size_t kLengths[] = {4};
    layered(checkpoint, random_windows(kLengths), 1);
  });
  EXPECT_EQ(error.code(), ErrorCode::kBadData);
  EXPECT_NE(error.message().find("layer 1"), std::string::npos) << error.message();
}

TEST(LayerRunner, HoldsOneLayerAtATime) {
  const auto checkpoint = model::Checkpoint::open(model::testing::tiny_model("plain"));
  const Bytes largest = LayerRunner::largest_weights(checkpoint);
  EXPECT_LT(largest, checkpoint.tensor_bytes());
  EXPECT_GT(largest.value, checkpoint.tensor_bytes().value / 4);
}

}  // namespace
}  // namespace winnow::engine::layer_runner_test
