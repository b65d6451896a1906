// SPDX-FileCopyrightText: The Winnow authors
// SPDX-License-Identifier: Apache-2.0
// Every tiny model of testdata/models against the logits and choices that transformers and a
// float64 pass gave for it (testdata/models/README.md).
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>

#include "base/json.h"
#include "engine/engine.h"
#include "model/test_models.h"
#include "os/file.h"

namespace winnow::engine::tiny_golden_test {
namespace {

// Golden float32 logits differ from float64 by up to 7.6e-6. Ours are float32 too, on sums of the
// same length (at most 64 terms, 2 or 3 layers) in another order, with the kernels' own exp: the
// same size of error on either side, and a factor of 4 for the worst of 8 models on 3 ISAs.
constexpr double kLogitTolerance = 6e-5;

class ChoiceRecorder final : public Observer {
 public:
  void on_routing(LayerId, tensor::MatrixView<const float>, const RoutingView& routing) override {
    for (const ExpertId expert : routing.experts) {
      experts.push_back(static_cast<std::int32_t>(index(expert)));
    }
    weights.insert(weights.end(), routing.weights.begin(), routing.weights.end());
  }
  std::vector<std::int32_t> experts;
  std::vector<float> weights;
};

class TinyGolden : public testing::TestWithParam<std::tuple<std::string, std::string>> {
 protected:
  TinyGolden() : folder_(model::testing::tiny_folder(std::get<0>(GetParam()))) {
    golden_ = parse_json(os::read_text_file(folder_ / "golden/prompts.json", {1 << 20}), "golden");
    prompt_ = golden_["prompts"][0];
    for (const Json& id : prompt_["ids"]) ids_.push_back(TokenId{id.get<std::int32_t>()});
  }

  template <typename T>
  std::vector<T> array(const char* key) const {
    const auto file = os::open_file(folder_ / "golden" / prompt_[key]["file"].get<std::string>());
    std::vector<T> values(file->size().value / sizeof(T));
    file->read_at(0, std::as_writable_bytes(std::span(values)));
    return values;
  }

  std::filesystem::path folder_;
  Json golden_;
  Json prompt_;
  std::vector<TokenId> ids_;
};

TEST(NextLogits, RefuseAnOutputMatrixWithANan) {
  model::testing::EditableModel edited("plain");
  // The last row of the shared matrix: the prompt does not read it, the logits do.
  edited.tensor("model.embed_tokens.weight").bytes.back() = '\x7f';
  edited.tensor("model.embed_tokens.weight").bytes.end()[-2] = '\xc0';
  const auto folder = std::filesystem::path(testing::TempDir()) / "winnow-nan-in-output";
  edited.write(folder);
  Log log;
  Engine engine(model::Checkpoint::open(folder), {1, "scalar"}, log);
  KvCache cache = engine.make_cache(4);
  const TokenId prompt{1};
  const Error error =
      model::testing::error_of([&] { engine.next_logits(cache, std::span(&prompt, 1)); });
  EXPECT_EQ(error.code(), ErrorCode::kBadData);
  EXPECT_NE(error.message().find("output matrix is damaged"), std::string::npos) << error.message();
  std::filesystem::remove_all(folder);
}

TEST_P(TinyGolden, LogitsRoutingAndGreedyTextAgree) {
  const auto checkpoint = model::Checkpoint::open(folder_);
  Log log;
  Engine engine(checkpoint, {1, std::get<1>(GetParam())}, log);
  KvCache cache = engine.make_cache(64);
  ChoiceRecorder recorder;
  const SequenceInput input{&cache, ids_};
  const auto hidden = engine.forward(std::span(&input, 1), &recorder);
  tensor::Matrix<float> logits(hidden.rows, engine.spec().vocab_size);
  engine.logits(hidden, logits.view());

  const auto expected = array<float>("logits");
  ASSERT_EQ(expected.size(), logits.flat().size());
  double worst = 0;
  for (std::size_t i = 0; i < expected.size(); ++i) {
    worst = std::max(worst, std::fabs(double{expected[i]} - logits.flat()[i]));
  }
  EXPECT_LE(worst, kLogitTolerance);
  EXPECT_EQ(recorder.experts, array<std::int32_t>("experts"));
  const auto weights = array<float>("expert_weights");
  ASSERT_EQ(recorder.weights.size(), weights.size());
  for (std::size_t i = 0; i < weights.size(); ++i) {
    EXPECT_NEAR(recorder.weights[i], weights[i], kLogitTolerance) << i;
  }

  std::span<const float> next = logits.row(logits.rows() - 1);
  std::vector<std::int32_t> greedy;
  const auto wanted = prompt_["greedy_ids"].get<std::vector<std::int32_t>>();
  while (greedy.size() < wanted.size()) {
    const TokenId best{
        static_cast<std::int32_t>(std::max_element(next.begin(), next.end()) - next.begin())};
    greedy.push_back(index(best));
    next = engine.next_logits(cache, std::span(&best, 1));
  }
  EXPECT_EQ(greedy, wanted);
}

std::vector<std::string> isas_here() {
  std::vector<std::string> names;
  for (const auto* isa : kernels::supported_isas(os::CpuFeatures::detect())) {
    names.emplace_back(isa->isa);
  }
  return names;
}

INSTANTIATE_TEST_SUITE_P(Models, TinyGolden,
                         testing::Combine(testing::ValuesIn(model::testing::tiny_models()),
                                          testing::ValuesIn(isas_here())),
                         [](const auto& setting) {
                           std::string name =
                               std::get<0>(setting.param) + "_" + std::get<1>(setting.param);
                           std::replace(name.begin(), name.end(), '-', '_');
                           return name;
                         });

}  // namespace
}  // namespace winnow::engine::tiny_golden_test
