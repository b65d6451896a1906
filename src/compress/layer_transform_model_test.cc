// SPDX-FileCopyrightText: The Winnow authors
// SPDX-License-Identifier: Apache-2.0
// Whole models with changed layers give the logits of the unchanged ones.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <filesystem>

#include "compress/layer_transform.h"
#include "compress/testing.h"
#include "compress/transform_test_support.h"
#include "formats/test_files.h"

namespace winnow::compress::layer_transform_model_test {
namespace {

using namespace testing;  // NOLINT(google-build-using-namespace): the helpers beside this file
using enum TransformKind;

// Every changed parameter and product is rounded anew, by half a unit in the last place (6e-8), and
// errors grow over 2 to 6 layers: differences of up to 2.3e-6 of the largest logit were seen.
constexpr double kTolerance = 1e-5;
// Nothing but the order of the sums over inner channels differs: 7e-7 were seen.
constexpr double kOrderTolerance = 3e-6;

double largest(const std::vector<float>& values) {
  double most = 0;
  for (const float v : values) most = std::max(most, std::fabs(double{v}));
  return most;
}

/// The largest difference of any logit, relative to the largest logit.
double difference(const std::vector<float>& a, const std::vector<float>& b) {
  std::vector<float> differences(a.size());
  for (std::size_t i = 0; i < a.size(); ++i) differences[i] = a[i] - b[i];
  return largest(differences) / largest(a);
}

std::vector<LayerTransform> random_transforms(const model::ModelSpec& spec,
                                              const std::vector<TransformKind>& kinds) {
  std::vector<LayerTransform> transforms;
  Rng rng(11);
  for (std::uint32_t layer = 0; layer < spec.num_hidden_layers; ++layer) {
    transforms.emplace_back(spec, LayerId{layer});
    for (const TransformKind kind : kinds) {
      set_random(transforms.back(), spec, LayerId{layer}, kind, ScaleStyle::kAny, rng);
    }
  }
  return transforms;
}

std::vector<float> run(const std::filesystem::path& path, const metrics::Window& window) {
  Log log;
  const auto checkpoint = model::Checkpoint::open(path);
  engine::Engine engine(checkpoint, {.threads = 1}, log);
  return logits_of(engine, window);
}

double change_of_logits(const std::filesystem::path& path, const std::vector<TransformKind>& kinds,
                        std::size_t tokens) {
  const formats::testing::TemporaryFolder folder;
  const auto source = model::Checkpoint::open(path);
  const auto window = random_windows(1, tokens).windows.front();
  write_transformed(source, random_transforms(source.spec(), kinds), folder.path() / "changed");
  return difference(run(path, window), run(folder.path() / "changed", window));
}

class EveryTinyModel : public ::testing::TestWithParam<std::string> {
 protected:
  double change(const std::vector<TransformKind>& kinds) const {
    return change_of_logits(model::testing::tiny_folder(GetParam()), kinds, 24);
  }
};
INSTANTIATE_TEST_SUITE_P(TinyModels, EveryTinyModel,
                         ::testing::ValuesIn(model::testing::tiny_models()),
                         model::testing::test_name);

TEST_P(EveryTinyModel, KeepsItsLogitsWithInnerChannelsInAnotherOrder) {
  EXPECT_LE(change({kInnerOrder}), kOrderTolerance);
}
TEST_P(EveryTinyModel, KeepsItsLogitsWithScaledInnerChannels) {
  EXPECT_LE(change({kInnerScales}), kTolerance);
}
TEST_P(EveryTinyModel, KeepsItsLogitsWithScaledValues) {
  EXPECT_LE(change({kValueScales}), kTolerance);
}
TEST_P(EveryTinyModel, KeepsItsLogitsWithRotatedValues) {
  EXPECT_LE(change({kValueRotation}), kTolerance);
}
TEST_P(EveryTinyModel, KeepsItsLogitsWithValuesThatAreScaledAndRotated) {
  EXPECT_LE(change({kValueScales, kValueRotation}), kTolerance);
}
TEST_P(EveryTinyModel, KeepsItsLogitsWithTheAttentionNormFolded) {
  EXPECT_LE(change({kAttentionInput}), kTolerance);
}
TEST_P(EveryTinyModel, KeepsItsLogitsWithTheFfnNormFolded) {
  EXPECT_LE(change({kFfnInput}), kTolerance);
}

TEST(Grain, KeepsItsLogitsUnderAllTransformsAtOnce) {
  const auto grain = std::filesystem::path(WINNOW_SOURCE_DIR) / "models/grain";
  const double change = change_of_logits(
      grain, {kInnerOrder, kInnerScales, kValueScales, kValueRotation, kAttentionInput, kFfnInput},
      64);
  EXPECT_LE(change, kTolerance);
}

}  // namespace
}  // namespace winnow::compress::layer_transform_model_test
