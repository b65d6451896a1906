// SPDX-FileCopyrightText: The Winnow authors
// SPDX-License-Identifier: Apache-2.0
#include "engine/inner_editor.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <bit>
#include <cmath>
#include <set>

#include "engine/engine.h"
#include "model/test_models.h"

namespace winnow::engine::inner_editor_test {
namespace {

/// Compares what it is shown, and zeroes all channels from `kept` on.
class Editor final : public InnerEditor {
 public:
  explicit Editor(std::size_t kept) : kept_(kept) {}
  void edit(const InnerActivations& activations, os::ThreadPool& /*pool*/) override {
    seen.insert({index(activations.layer), index(activations.expert)});
    const std::size_t width = activations.inner.cols;
    for (std::size_t t = 0; t < activations.inner.rows; ++t) {
      const auto inner = activations.inner.row(t);
      for (std::size_t i = 0; i < width; ++i) {
        // One product of the same factors, whatever the instruction set.
        EXPECT_EQ(inner[i], activations.gate.row(t)[i] * activations.up.row(t)[i]);
        if (i >= kept_) inner[i] = 0;
      }
      rows += 1;
    }
  }
  std::set<std::pair<std::uint32_t, std::uint32_t>> seen;
  std::size_t rows = 0;

 private:
  std::size_t kept_;
};

/// The largest inner activation of any channel from `first` on, as down_proj reads it.
class Inner final : public Observer {
 public:
  explicit Inner(std::size_t first) : first_(first) {}
  void on_input(Site site, LayerId /*layer*/, tensor::MatrixView<const float> x) override {
    if (site == Site::kFfnInner) look(x);
  }
  void on_expert_input(Site site, LayerId /*layer*/, ExpertId /*expert*/,
                       tensor::MatrixView<const float> x,
                       std::span<const float> /*weights*/) override {
    if (site == Site::kExpertInner) look(x);
  }
  float largest = 0;
  bool called = false;

 private:
  void look(tensor::MatrixView<const float> x) {
    called = true;
    for (std::size_t t = 0; t < x.rows; ++t) {
      for (std::size_t i = first_; i < x.cols; ++i) {
        largest = std::max(largest, std::fabs(x.row(t)[i]));
      }
    }
  }
  std::size_t first_;
};

class EveryTinyModel : public ::testing::TestWithParam<std::string> {
 protected:
  std::vector<std::uint32_t> run(Engine& engine, Observer* observer = nullptr) {
    std::vector<TokenId> tokens;
    for (int t = 0; t < 30; ++t) tokens.push_back(TokenId{(7 * t) % 256});
    KvCache cache = engine.make_cache(tokens.size());
    const SequenceInput input{&cache, tokens};
    const auto hidden = engine.forward(std::span(&input, 1), observer);
    std::vector<std::uint32_t> bits;
    for (std::size_t t = 0; t < hidden.rows; ++t) {
      for (const float value : hidden.row(t)) bits.push_back(std::bit_cast<std::uint32_t>(value));
    }
    return bits;
  }
  Log log_;
  model::Checkpoint checkpoint_ = model::Checkpoint::open(model::testing::tiny_folder(GetParam()));
};
INSTANTIATE_TEST_SUITE_P(TinyModels, EveryTinyModel,
                         ::testing::ValuesIn(model::testing::tiny_models()),
                         model::testing::test_name);

TEST_P(EveryTinyModel, IsShownItsFactorsAndKeepsItsBitsWhenNothingIsEdited) {
  for (const unsigned threads : {1U, 3U}) {
    Engine engine(checkpoint_, {.threads = threads}, log_);
    const auto before = run(engine);
    Editor editor(1 << 20);
    engine.set_inner_editor(&editor);
    EXPECT_EQ(run(engine), before);
    engine.set_inner_editor(nullptr);
    std::size_t rows = 0;
    for (std::uint32_t l = 0; l < engine.spec().num_hidden_layers; ++l) {
      rows +=
          30 * std::size_t{engine.spec().is_moe_layer(LayerId{l}) ? engine.spec().moe.top_k : 1};
    }
    EXPECT_EQ(editor.rows, rows);
  }
}

TEST_P(EveryTinyModel, ReadsWhatTheEditorLeft) {
  Engine engine(checkpoint_, {.threads = 2}, log_);
  const auto before = run(engine);
  Editor editor(3);
  engine.set_inner_editor(&editor);
  Inner inner(3);
  EXPECT_NE(run(engine, &inner), before);
  EXPECT_TRUE(inner.called);
  EXPECT_EQ(inner.largest, 0);
  engine.set_inner_editor(nullptr);
  EXPECT_EQ(run(engine), before);
}

}  // namespace
}  // namespace winnow::engine::inner_editor_test
