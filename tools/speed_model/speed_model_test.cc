// SPDX-FileCopyrightText: The Winnow authors
// SPDX-License-Identifier: Apache-2.0
// Files of make_speed_model: every type runs, experts are used evenly, inflating changes no token.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <numeric>

#include "base/error.h"
#include "base/rng.h"
#include "engine/engine.h"
#include "speed_model/inflate.h"
#include "speed_model/random_model.h"
#include "speed_model/shapes.h"
#include "speed_model/synthetic_tokenizer.h"
#include "text/tokenizer.h"

namespace winnow::tools {
namespace {

using ::testing::HasSubstr;

class SpeedModel : public ::testing::Test {
 protected:
  SpeedModel() { std::filesystem::create_directories(folder_); }
  ~SpeedModel() override { std::filesystem::remove_all(folder_); }

  std::filesystem::path file(std::string_view name) const { return folder_ / name; }

  /// A file of the shape, written by `threads` threads.
  std::filesystem::path write(std::string_view shape, std::string_view type, std::uint64_t seed = 0,
                              unsigned threads = 2) {
    const auto path = file(fmt::format("{}-{}-{}-{}.gguf", shape, type, seed, threads));
    os::ThreadPool pool(threads);
    write_random_model(path, published_shape(shape, std::nullopt),
                       {quant::find_codec(type), nullptr, seed, 64}, pool, log_);
    return path;
  }

  static std::string bytes(const std::filesystem::path& path) {
    std::ifstream in(path, std::ios::binary);
    return {std::istreambuf_iterator<char>(in), {}};
  }

  Log log_;

 private:
  std::filesystem::path folder_ =
      std::filesystem::path(testing::TempDir()) /
      fmt::format("winnow-speed-model-{}",
                  testing::UnitTest::GetInstance()->current_test_info()->name());
};

/// How often each expert of each layer was chosen.
class Counts final : public engine::Observer {
 public:
  Counts(std::size_t layers, std::size_t experts) : chosen(layers) {
    for (auto& layer : chosen) layer.resize(experts);
  }
  void on_routing(LayerId layer, tensor::MatrixView<const float>,
                  const engine::RoutingView& routing) override {
    for (const ExpertId expert : routing.experts) ++chosen[index(layer)][index(expert)];
  }
  std::vector<std::vector<int>> chosen;  ///< [layers][experts]
};

std::vector<TokenId> random_tokens(std::size_t count, std::uint32_t vocab_size) {
  Rng rng(1);
  std::vector<TokenId> tokens;
  for (std::size_t i = 0; i < count; ++i) {
    tokens.push_back(TokenId{static_cast<std::int32_t>(rng.below(vocab_size))});
  }
  return tokens;
}

/// Greedy continuation of a prompt.
std::vector<std::int32_t> greedy(engine::Engine& engine, std::vector<TokenId> next,
                                 std::size_t count) {
  engine::KvCache cache = engine.make_cache(next.size() + count);
  std::vector<std::int32_t> out;
  while (out.size() < count) {
    const auto logits = engine.next_logits(cache, next);
    const auto best = std::max_element(logits.begin(), logits.end()) - logits.begin();
    out.push_back(static_cast<std::int32_t>(best));
    next = {TokenId{out.back()}};
  }
  return out;
}

TEST_F(SpeedModel, EveryEncodableTypeGivesFiniteLogitsOfOrderOne) {
  for (const quant::Codec* codec : quant::all_codecs()) {
    const auto checkpoint = model::Checkpoint::open(write("tiny", codec->name));
    const model::Role role = model::Role::kExpertDownProj;
    EXPECT_EQ(&checkpoint.at(role, LayerId{0}).codec(), codec);
    engine::Engine engine(checkpoint, {1, ""}, log_);
    engine::KvCache cache = engine.make_cache(8);
    const auto logits = engine.next_logits(cache, random_tokens(8, engine.spec().vocab_size));
    double squares = 0;
    for (const float logit : logits) squares += double{logit} * logit;
    // Sums of products of normalised states and unit rows: of variance 1.
    EXPECT_NEAR(std::sqrt(squares / static_cast<double>(logits.size())), 1, 0.2) << codec->name;
  }
}

TEST_F(SpeedModel, TheRouterUsesEveryExpertAndNoneFourTimesAsOftenAsTheMean) {
  const auto checkpoint = model::Checkpoint::open(write("tiny", "Q4_0"));
  engine::Engine engine(checkpoint, {1, ""}, log_);
  const model::ModelSpec& spec = engine.spec();
  constexpr std::size_t kTokens = 256;
  const auto tokens = random_tokens(kTokens, spec.vocab_size);
  engine::KvCache cache = engine.make_cache(kTokens);
  const engine::SequenceInput input{&cache, tokens};
  Counts counts(spec.num_hidden_layers, spec.moe.num_experts);
  engine.forward(std::span(&input, 1), &counts);
  const double mean = static_cast<double>(kTokens) * spec.moe.top_k / spec.moe.num_experts;
  for (const auto& layer : counts.chosen) {
    EXPECT_GT(*std::min_element(layer.begin(), layer.end()), 0);
    EXPECT_LT(*std::max_element(layer.begin(), layer.end()), 4 * mean);
  }
}

TEST_F(SpeedModel, TheFileDependsOnTheSeedAndNotOnTheThreads) {
  const std::string one = bytes(write("tiny", "Q4_K", 3, 1));
  EXPECT_EQ(one, bytes(write("tiny", "Q4_K", 3, 2)));
  EXPECT_NE(one, bytes(write("tiny", "Q4_K", 4, 1)));
}

TEST_F(SpeedModel, TheOutputMatrixIsQ6KBelowSixBits) {
  const auto output = [&](std::string_view type) {
    return model::Checkpoint::open(write("tiny", type)).at(model::Role::kOutput).codec().name;
  };
  EXPECT_EQ(output("Q4_0"), "Q6_K");
  EXPECT_EQ(output("Q3_K"), "Q6_K");
  EXPECT_EQ(output("Q8_0"), "Q8_0");
  EXPECT_EQ(output("F16"), "F16");
}

TEST_F(SpeedModel, ADenseShapeRunsToo) {
  const auto checkpoint = model::Checkpoint::open(write("tiny-dense", "Q4_0"));
  EXPECT_EQ(checkpoint.spec().num_moe_layers(), 0U);
  engine::Engine engine(checkpoint, {1, ""}, log_);
  EXPECT_EQ(greedy(engine, random_tokens(4, engine.spec().vocab_size), 4).size(), 4U);
}

TEST_F(SpeedModel, InflatedExpertsGiveTheTokensOfTheModel) {
  const std::filesystem::path grain = std::filesystem::path(WINNOW_SOURCE_DIR) / "models/grain";
  const auto source = model::Checkpoint::open(grain);
  os::ThreadPool pool(2);
  for (const char* type : {"F32", "BF16"}) {
    const auto path = file(fmt::format("grain-{}.gguf", type));
    write_inflated_model(path, source, {384, quant::find_codec(type)}, pool, log_);
    const auto inflated = model::Checkpoint::open(path);
    EXPECT_EQ(inflated.spec().moe.moe_intermediate_size, 384U);
    engine::Engine before(source, {1, ""}, log_);
    engine::Engine after(inflated, {1, ""}, log_);
    const auto prompt = random_tokens(12, before.spec().vocab_size);
    EXPECT_EQ(greedy(after, prompt, 32), greedy(before, prompt, 32)) << type;
  }
}

TEST_F(SpeedModel, InflatingWritesZerosInBlocksToo) {
  const auto source =
      model::Checkpoint::open(std::filesystem::path(WINNOW_SOURCE_DIR) / "models/grain");
  os::ThreadPool pool(2);
  for (const char* type : {"Q4_0", "Q4_K"}) {  // blocks of 32, and of 256: wider than the experts
    const auto path = file(fmt::format("grain-{}.gguf", type));
    write_inflated_model(path, source, {512, quant::find_codec(type)}, pool, log_);
    const auto inflated = model::Checkpoint::open(path);
    const model::TensorRef down =
        inflated.at(model::Role::kExpertDownProj, LayerId{2}, ExpertId{5});
    std::vector<float> row(down.cols);
    inflated.read_floats(down, 7, 1, row);
    EXPECT_EQ(row.size(), 512U);
    EXPECT_THAT(std::span(row).subspan(256), ::testing::Each(0.0F)) << type;
    EXPECT_TRUE(std::any_of(row.begin(), row.begin() + 128, [](float v) { return v != 0; }));
  }
}

TEST_F(SpeedModel, InflatingToLessThanTheModelHasIsRefused) {
  const auto source =
      model::Checkpoint::open(std::filesystem::path(WINNOW_SOURCE_DIR) / "models/grain");
  os::ThreadPool pool(1);
  try {
    write_inflated_model(file("narrow.gguf"), source, {128, nullptr}, pool, log_);
    FAIL() << "nothing was thrown";
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ErrorCode::kUsage);
    EXPECT_THAT(error.message(), HasSubstr("128 wide"));
  }
}

TEST(Shapes, HaveThePublishedNumbersOfParameters) {
  const auto billions = [](std::string_view name) {
    const model::ModelSpec spec = published_shape(name, std::nullopt);
    std::uint64_t count = 0;
    for (const model::RoleTraits& role : model::all_roles()) {
      const std::uint32_t layers = role.per_layer ? spec.num_hidden_layers : 1;
      const auto shape = model::expected_shape(spec, role.role, LayerId{0});
      const std::uint32_t parts = role.per_expert ? spec.moe.num_experts : 1;
      if (shape) count += std::uint64_t{layers} * parts * shape->elements();
    }
    return static_cast<double>(count) / 1e9;
  };
  EXPECT_NEAR(billions("olmoe-1b-7b"), 6.92, 0.01);
  EXPECT_NEAR(billions("qwen3-30b-a3b"), 30.53, 0.01);
  EXPECT_NEAR(billions("dense-1b"), 1.01, 0.01);
}

TEST(Shapes, AnUnknownNameIsAnsweredWithTheList) {
  try {
    published_shape("gpt", std::nullopt);
    FAIL() << "nothing was thrown";
  } catch (const Error& error) {
    EXPECT_THAT(error.message(), HasSubstr("olmoe-1b-7b"));
  }
}

TEST(SyntheticTokenizer, EncodesAnyTextAndDecodesItAgain) {
  const text::TokenizerSpec spec = synthetic_tokenizer(20000);
  EXPECT_EQ(spec.tokens.size(), 20000U);
  const text::Tokenizer tokenizer(spec);
  const std::string text = "abcd zebra, 42 \xc3\xa9t\xc3\xa9!";
  const auto ids = tokenizer.encode(text, text::SpecialTokens::kAsText);
  EXPECT_LT(ids.size(), text.size());
  EXPECT_EQ(tokenizer.decode(ids), text);
}

}  // namespace
}  // namespace winnow::tools
