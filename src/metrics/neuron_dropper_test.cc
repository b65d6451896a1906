// SPDX-FileCopyrightText: The Winnow authors
// SPDX-License-Identifier: Apache-2.0
// Whole models that do without some of their neurons.
#include "metrics/neuron_dropper.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <bit>
#include <cmath>

#include "formats/test_files.h"
#include "metrics/cett_curve.h"
#include "metrics/evaluation.h"
#include "model/exporter.h"
#include "model/test_models.h"

namespace winnow::metrics::neuron_dropper_test {
namespace {

using formats::testing::TemporaryFolder;

const std::filesystem::path kGrain = std::filesystem::path(WINNOW_SOURCE_DIR) / "models/grain";

WindowSet text_of(const model::Checkpoint& checkpoint, const char* part, std::uint64_t tokens) {
  const std::vector<std::string> paths = {kGrain / "data" / part};
  return make_windows(text::Tokenizer(checkpoint.tokenizer_spec()), read_documents(paths),
                      {.context = 256, .max_tokens = tokens});
}

/// One window of `length` tokens of a tiny model's vocabulary.
WindowSet tiny_window(int length) {
  WindowSet set{{"d"}, {{0, {TokenId{271}}, 1}}};
  for (int t = 0; t < length; ++t) set.windows[0].tokens.push_back(TokenId{(7 * t) % 256});
  return set;
}

std::vector<std::uint32_t> logit_bits(engine::Engine& engine, const Window& window) {
  engine::KvCache cache = engine.make_cache(window.tokens.size());
  const engine::SequenceInput input{&cache, window.tokens};
  const auto hidden = engine.forward(std::span(&input, 1));
  tensor::Matrix<float> logits(hidden.rows, engine.spec().vocab_size);
  engine.logits(hidden, logits.view());
  std::vector<std::uint32_t> bits;
  for (const float value : logits.flat()) bits.push_back(std::bit_cast<std::uint32_t>(value));
  return bits;
}

std::unique_ptr<NeuronDropper> make_dropper(const SparsityRequest& request,
                                            const model::Checkpoint& checkpoint,
                                            engine::Engine& engine, const WindowSet& text,
                                            Log& log) {
  const auto samples = sample_neurons(engine, text, log);
  return std::make_unique<NeuronDropper>(make_filters(request, checkpoint, samples, engine.pool()));
}

/// The folder of a tiny model and the type of its matrices.
using Setting = std::tuple<std::string, std::string>;

class EveryTinyModel : public ::testing::TestWithParam<Setting> {
 protected:
  EveryTinyModel() {
    const auto source =
        model::Checkpoint::open(model::testing::tiny_folder(std::get<0>(GetParam())));
    model::ExportOptions options;
    options.codec = [](model::Role, LayerId) -> const quant::Codec& {
      return *quant::find_codec(std::get<1>(GetParam()));
    };
    os::ThreadPool pool(1);
    model::export_model(source, folder_.path() / "m.gguf", options, pool, log_);
    checkpoint_.emplace(model::Checkpoint::open(folder_.path() / "m.gguf"));
  }

  Log log_;
  TemporaryFolder folder_;
  std::optional<model::Checkpoint> checkpoint_;
};
INSTANTIATE_TEST_SUITE_P(TinyModels, EveryTinyModel,
                         ::testing::Combine(::testing::Values("qwen3_moe-plain", "olmoe-plain",
                                                              "qwen3_moe-dense-first",
                                                              "llama-plain"),
                                            ::testing::Values("F32", "Q8_0")),
                         [](const auto& test) {
                           std::string name =
                               std::get<0>(test.param) + "_" + std::get<1>(test.param);
                           std::replace(name.begin(), name.end(), '-', '_');
                           return name;
                         });

TEST_P(EveryTinyModel, IsTheDenseModelBitForBitAtTheDenseLevelOfEverySystem) {
  const WindowSet text = tiny_window(40);
  for (const unsigned threads : {1U, 3U}) {
    engine::Engine engine(*checkpoint_, {.threads = threads}, log_);
    const auto dense = logit_bits(engine, text.windows[0]);
    for (const SparsitySystem* system : sparsity_systems()) {
      const auto dropper =
          make_dropper({system, system->dense_level}, *checkpoint_, engine, text, log_);
      engine.set_inner_editor(dropper.get());
      EXPECT_EQ(logit_bits(engine, text.windows[0]), dense) << system->name;
      engine.set_inner_editor(nullptr);
      EXPECT_LT(*dropper->sparsity(), 1e-3) << system->name;  // exact zeros are left out
    }
    EXPECT_EQ(logit_bits(engine, text.windows[0]), dense);
  }
}

TEST_P(EveryTinyModel, LeavesOutTheSameWithAnyNumberOfThreads) {
  const WindowSet text = tiny_window(40);
  std::vector<std::vector<std::uint32_t>> logits;
  std::vector<Json> counts;
  for (const unsigned threads : {1U, 3U}) {
    engine::Engine engine(*checkpoint_, {.threads = threads}, log_);
    for (const SparsitySystem* system : sparsity_systems()) {
      const SparsityRequest request{system, 0.6};
      const auto dropper = make_dropper(request, *checkpoint_, engine, text, log_);
      engine.set_inner_editor(dropper.get());
      logits.push_back(logit_bits(engine, text.windows[0]));
      counts.push_back(to_json(request, *dropper));
      engine.set_inner_editor(nullptr);
    }
  }
  for (std::size_t i = 0; i < logits.size() / 2; ++i) {
    EXPECT_EQ(logits[i], logits[i + logits.size() / 2]);
    EXPECT_EQ(counts[i], counts[i + logits.size() / 2]);
    EXPECT_GT(counts[i]["realised"].get<double>(), 0);
  }
}

TEST_P(EveryTinyModel, HasNoFfnWithoutAnyNeuron) {
  // Everything left out: no FFN adds anything, as if all down projections were zero.
  const WindowSet text = tiny_window(20);
  engine::Engine engine(*checkpoint_, {.threads = 1}, log_);
  const auto dropper =
      make_dropper({find_sparsity_system("top"), 1}, *checkpoint_, engine, text, log_);
  class Outputs final : public engine::Observer {
   public:
    void on_experts(LayerId, const engine::ExpertSlots& slots) override {
      for (std::size_t s = 0; s < slots.outputs.rows; ++s) {
        for (const float y : slots.outputs.row(s)) largest = std::max(largest, std::fabs(y));
        for (const float h : slots.inner.row(s)) largest = std::max(largest, std::fabs(h));
      }
    }
    void on_input(engine::Site site, LayerId, tensor::MatrixView<const float> x) override {
      if (site != engine::Site::kFfnInner) return;
      for (std::size_t t = 0; t < x.rows; ++t) {
        for (const float h : x.row(t)) largest = std::max(largest, std::fabs(h));
      }
    }
    float largest = 0;
  } outputs;
  engine.set_inner_editor(dropper.get());
  engine::KvCache cache = engine.make_cache(text.windows[0].tokens.size());
  const engine::SequenceInput input{&cache, text.windows[0].tokens};
  engine.forward(std::span(&input, 1), &outputs);
  EXPECT_EQ(outputs.largest, 0);
  EXPECT_EQ(dropper->sparsity(), 1);
}

TEST(SampleNeurons, KeepsFewerRowsOfLongerTextsAndTheMeanOfAll) {
  Log log;
  const auto checkpoint = model::Checkpoint::open(kGrain);
  engine::Engine engine(checkpoint, {}, log);
  const auto samples = sample_neurons(engine, text_of(checkpoint, "calib", 3000), log);
  ASSERT_EQ(samples.size(), checkpoint.spec().num_hidden_layers);
  for (const LayerSample& sample : samples) {
    EXPECT_GT(sample.rows.size(), 1024);  // of some 12,000
    EXPECT_LE(sample.rows.size(), 2048);
    ASSERT_EQ(sample.mean_square_up.size(), 32);
    for (const auto& expert : sample.mean_square_up) {
      ASSERT_EQ(expert.size(), 128);
      for (const double square : expert) EXPECT_GT(square, 0);
    }
  }
}

class Grain : public ::testing::Test {
 protected:
  struct Result {
    double sparsity;
    double kl;
  };
  /// Calibrated on one text, measured on another.
  Result measure(std::string_view text, std::span<const LayerSample> samples) {
    NeuronDropper dropper(make_filters(parse_sparsity(text), checkpoint_, samples, model_.pool()));
    model_.set_inner_editor(&dropper);
    const Evaluation evaluation =
        evaluate(model_, &reference_, text_of(checkpoint_, "valid", 1024), log_);
    model_.set_inner_editor(nullptr);
    return {*dropper.sparsity(), evaluation.all.kl_divergence};
  }
  std::vector<LayerSample> samples(std::uint64_t tokens) {
    return sample_neurons(model_, text_of(checkpoint_, "calib", tokens), log_);
  }

  Log log_;
  model::Checkpoint checkpoint_ = model::Checkpoint::open(kGrain);
  engine::Engine model_{checkpoint_, {}, log_};
  engine::Engine reference_{checkpoint_, {}, log_};
};

TEST_F(Grain, HasCettsThatRiseWithTheirThresholds) {
  const auto calibration = samples(2048);
  for (std::uint32_t l = 0; l < calibration.size(); l += 5) {
    const CettCurve curve({32,
                           [&](ExpertId expert) {
                             const auto ref =
                                 checkpoint_.at(model::Role::kExpertDownProj, LayerId{l}, expert);
                             tensor::Matrix<float> down(ref.rows, ref.cols);
                             checkpoint_.read_floats(ref, 0, ref.rows, down.flat());
                             return down;
                           },
                           &calibration[l], model_.pool()});
    const double all = 1.01 * curve.threshold_of(0.999);
    double before = 0;
    for (int step = 1; step <= 40; ++step) {
      const double cett = curve.at(all * step / 40);
      EXPECT_GE(cett, before) << step;
      before = cett;
    }
    EXPECT_GT(before, 0.99);
    for (const double level : {0.05, 0.2, 0.5}) {
      EXPECT_NEAR(curve.at(curve.threshold_of(level)), level, 1e-3);
    }
  }
}

TEST_F(Grain, LeavesOutWithinOnePointOfTheTargetOnOtherText) {
  const auto calibration = samples(8192);
  for (const char* name : {"chess", "teal", "wina", "top"}) {
    const Result result = measure(fmt::format("{}:0.5", name), calibration);
    EXPECT_NEAR(result.sparsity, 0.5, 0.01) << name;
  }
}

TEST_F(Grain, LosesMoreTheMoreIsLeftOut) {
  const auto calibration = samples(8192);
  double before = 0;
  for (const double level : {0.0, 0.3, 0.5, 0.7}) {
    const Result result = measure(fmt::format("chess:{}", level), calibration);
    EXPECT_NEAR(result.sparsity, level, 0.01);
    if (level > 0) {
      EXPECT_GT(result.kl, before) << level;
    } else {
      EXPECT_EQ(result.kl, 0);
    }
    before = result.kl;
  }
}

}  // namespace
}  // namespace winnow::metrics::neuron_dropper_test
