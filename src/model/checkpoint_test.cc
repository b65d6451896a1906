// SPDX-FileCopyrightText: The Winnow authors
// SPDX-License-Identifier: Apache-2.0
#include "model/checkpoint.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>

#include "formats/test_files.h"
#include "model/test_models.h"

namespace winnow::model::checkpoint_test {
namespace {

using formats::testing::TemporaryFolder;
using ::testing::AllOf;
using testing::EditableModel;
using ::testing::ElementsAre;
using testing::error_of;
using ::testing::HasSubstr;
using testing::tiny_model;

constexpr const char* kExpert = "model.layers.1.mlp.experts.3.up_proj.weight";

class CheckpointRefusal : public ::testing::Test {
 protected:
  /// Opens the changed model; expects bad data and a message with these words.
  template <typename... Words>
  void expect_refused(const Words&... words) {
    model_.write(folder_.path() / "m");
    const Error error = error_of([&] { Checkpoint::open(folder_.path() / "m"); });
    EXPECT_EQ(error.code(), ErrorCode::kBadData) << error.message();
    EXPECT_THAT(error.message(), AllOf(HasSubstr("m"), HasSubstr(words)...));
  }
  /// As expect_refused, for one changed key of config.json.
  template <typename... Words>
  void expect_config_refused(const std::string& key, const Json& value, const Words&... words) {
    const Json before = model_.config;
    model_.config[key] = value;
    expect_refused(words...);
    model_.config = before;
  }
  TemporaryFolder folder_;
  EditableModel model_{"plain"};
};

TEST_F(CheckpointRefusal, NamesAMissingTensorAndItsRole) {
  model_.remove(kExpert);
  expect_refused(kExpert, "expert_up_proj", "missing");
}

TEST_F(CheckpointRefusal, NamesTheShapeThatWasExpected) {
  model_.tensor(kExpert).shape = {16, 64};
  expect_refused(kExpert, "[16, 64]", "[32, 32]");
}

TEST_F(CheckpointRefusal, NamesATypeThatCannotBeDecoded) {
  auto& tensor = model_.tensor(kExpert);
  tensor.dtype = "I16";
  expect_refused(kExpert, "I16", "BF16");
}

TEST_F(CheckpointRefusal, NamesAnUnknownArchitecture) {
  expect_config_refused("architectures", {"MysteryForCausalLM"}, "config.json",
                        "MysteryForCausalLM", "Qwen3MoeForCausalLM");
  expect_config_refused("architectures", Json::array(), "config.json", "architectures");
}

TEST_F(CheckpointRefusal, NamesTheKeyOfAContradiction) {
  expect_config_refused("num_experts_per_tok", 9, "num_experts_per_tok", "9", "8");
  expect_config_refused("num_experts_per_tok", 0, "num_experts_per_tok");
  expect_config_refused("num_experts", 0, "num_experts");
  expect_config_refused("num_key_value_heads", 3, "num_attention_heads 4", "num_key_value_heads 3");
  expect_config_refused("head_dim", 15, "head_dim");
  expect_config_refused("num_hidden_layers", 0, "num_hidden_layers");
  expect_config_refused("rms_norm_eps", -1.0, "rms_norm_eps");
  expect_config_refused("rope_theta", 0.0, "rope_theta");
}

TEST_F(CheckpointRefusal, NamesAKeyOfTheWrongKind) {
  expect_config_refused("hidden_size", "32", "config.json", "hidden_size", "\"32\"");
  expect_config_refused("hidden_size", -32, "hidden_size", "-32");
  expect_config_refused("hidden_size", 1.5, "hidden_size");
  expect_config_refused("hidden_size", std::uint64_t{1} << 40, "hidden_size");
  expect_config_refused("norm_topk_prob", 1, "norm_topk_prob");
  expect_config_refused("mlp_only_layers", "0", "mlp_only_layers");
  expect_config_refused("hidden_size", nullptr, "hidden_size", "missing");
}

TEST_F(CheckpointRefusal, NamesWhatIsNotImplemented) {
  expect_config_refused("hidden_act", "gelu", "hidden_act", "gelu", "silu");
  expect_config_refused("rope_scaling", {{"type", "yarn"}}, "rope_scaling");
  expect_config_refused("use_sliding_window", true, "use_sliding_window");
}

TEST_F(CheckpointRefusal, DoesNotBelieveACountThatTheFileCannotHold) {
  // A layer that does not exist is found missing before anything is made for it.
  expect_config_refused("num_hidden_layers", 10000, "model.layers.2.", "missing");
  expect_config_refused("num_experts", 65536, "mlp.gate.weight", "65536");
}

TEST_F(CheckpointRefusal, NamesTheMissingConfiguration) {
  model_.write(folder_.path() / "m");
  std::filesystem::remove(folder_.path() / "m/config.json");
  const Error error = error_of([&] { Checkpoint::open(folder_.path() / "m"); });
  EXPECT_EQ(error.code(), ErrorCode::kBadData);
  EXPECT_THAT(error.message(), HasSubstr("config.json"));
}

TEST_F(CheckpointRefusal, NamesTheTensorRowAndColumnOfAValueThatIsNotFinite) {
  auto& tensor = model_.tensor(kExpert);
  const std::uint16_t nan = 0x7fc0;  // of BF16
  std::memcpy(tensor.bytes.data() + (2 * 32 + 5) * sizeof nan, &nan, sizeof nan);
  model_.write(folder_.path() / "m");
  const Checkpoint checkpoint = Checkpoint::open(folder_.path() / "m");
  const TensorRef ref = checkpoint.at(Role::kExpertUpProj, LayerId{1}, ExpertId{3});
  std::vector<float> row(ref.cols);
  checkpoint.read_floats(ref, 1, 1, row);  // the row before is sound
  const Error error = error_of([&] { checkpoint.read_floats(ref, 2, 1, row); });
  EXPECT_EQ(error.code(), ErrorCode::kBadData);
  EXPECT_THAT(error.message(),
              AllOf(HasSubstr(kExpert), HasSubstr("row 2"), HasSubstr("column 5")));
}

TEST_F(CheckpointRefusal, IsSilentAboutATokenizerUntilItIsAskedFor) {
  model_.write(folder_.path() / "m");
  std::filesystem::remove(folder_.path() / "m/tokenizer.json");
  const Checkpoint checkpoint = Checkpoint::open(folder_.path() / "m");
  const Error error = error_of([&] { checkpoint.tokenizer_spec(); });
  EXPECT_EQ(error.code(), ErrorCode::kBadData);
  EXPECT_THAT(error.message(), HasSubstr("tokenizer.json"));
}

TEST(Checkpoint, ListsTensorsThatNoRoleUses) {
  const TemporaryFolder folder;
  EditableModel model("plain");
  model.tensors.push_back({"model.extra.weight", "F32", {2}, std::string(8, '\0')});
  model.write(folder.path() / "m");
  EXPECT_THAT(Checkpoint::open(folder.path() / "m").unused_tensors(),
              ElementsAre("model.extra.weight"));
}

TEST(Checkpoint, CountsParametersAndBytesOfAllUsedTensors) {
  // testdata/models/qwen3_moe-plain, by hand: embedding, output norm, two layers.
  constexpr std::uint64_t kLayer = 2 * 32 + 2 * 16 +               // norms
                                   (64 + 2 * 32) * 32 + 32 * 64 +  // q, k, v, o
                                   8 * 32 + 8 * (3 * 32 * 32);     // router, experts
  constexpr std::uint64_t kAll = 272 * 32 + 32 + 2 * kLayer;
  const Checkpoint checkpoint = Checkpoint::open(tiny_model("plain"));
  EXPECT_EQ(checkpoint.num_parameters(), kAll);
  EXPECT_EQ(checkpoint.tensor_bytes().value, 2 * kAll);
}

TEST(Checkpoint, FindsGateAndUpRowsInAFusedTensor) {
  const Checkpoint fused = Checkpoint::open(tiny_model("fused-experts"));
  const auto gate = fused.at(Role::kExpertGateProj, LayerId{0}, ExpertId{2});
  const auto up = fused.at(Role::kExpertUpProj, LayerId{0}, ExpertId{2});
  const auto next = fused.at(Role::kExpertGateProj, LayerId{0}, ExpertId{3});
  EXPECT_EQ(gate.info, up.info);
  EXPECT_EQ(gate.offset + gate.bytes().value, up.offset);
  EXPECT_EQ(up.offset + up.bytes().value, next.offset);
}

TEST(Checkpoint, KnowsWhichLayersHaveExperts) {
  EXPECT_EQ(Checkpoint::open(tiny_model("sparse-step-2")).spec().moe_layers,
            (std::vector<bool>{false, true, false}));
  EXPECT_EQ(Checkpoint::open(tiny_model("dense-first")).spec().moe_layers,
            (std::vector<bool>{false, true, true}));
}

std::vector<std::vector<ExpertId>> in_all_layers(const ModelSpec& spec,
                                                 const std::vector<std::uint32_t>& experts) {
  std::vector<std::vector<ExpertId>> lists(spec.num_hidden_layers);
  for (std::uint32_t layer = 0; layer < spec.num_hidden_layers; ++layer) {
    if (!spec.is_moe_layer(LayerId{layer})) continue;
    for (const std::uint32_t e : experts) lists[layer].push_back(ExpertId{e});
  }
  return lists;
}

std::vector<float> values_of(const Checkpoint& checkpoint, const TensorRef& ref, std::size_t first,
                             std::size_t count) {
  std::vector<float> values(count * ref.cols);
  checkpoint.read_floats(ref, first, count, values);
  return values;
}

TEST(CheckpointWithExperts, HasTheirMatricesAndRowsOfTheRouterAlone) {
  const Checkpoint all = Checkpoint::open(tiny_model("plain"));
  const std::vector<std::uint32_t> chosen{6, 1, 3};
  const Checkpoint some =
      Checkpoint::open(tiny_model("plain")).with_experts(in_all_layers(all.spec(), chosen));
  EXPECT_EQ(some.spec().moe.num_experts, 3U);
  EXPECT_EQ(some.num_parameters(), testing::parameters_of(some.spec()));
  EXPECT_LT(some.tensor_bytes().value, all.tensor_bytes().value);
  const LayerId layer{1};
  const TensorRef before = all.at(Role::kRouter, layer);
  const TensorRef router = some.at(Role::kRouter, layer);
  ASSERT_EQ(router.rows, 3U);
  for (std::uint32_t e = 0; e < chosen.size(); ++e) {
    EXPECT_EQ(values_of(some, router, e, 1), values_of(all, before, chosen[e], 1));
    for (const Role role : {Role::kExpertGateProj, Role::kExpertUpProj, Role::kExpertDownProj}) {
      const TensorRef ref = some.at(role, layer, ExpertId{e});
      EXPECT_EQ(values_of(some, ref, 0, ref.rows),
                values_of(all, all.at(role, layer, ExpertId{chosen[e]}), 0, ref.rows));
    }
  }
  EXPECT_EQ(values_of(some, router, 0, 3), values_of(some, router, 0, 3));
}

TEST(CheckpointWithExperts, CanBeChosenFromAgain) {
  const Checkpoint all = Checkpoint::open(tiny_model("plain"));
  Checkpoint some =
      Checkpoint::open(tiny_model("plain")).with_experts(in_all_layers(all.spec(), {6, 1, 3}));
  const ModelSpec spec = some.spec();
  const Checkpoint fewer = std::move(some).with_experts(in_all_layers(spec, {2, 0}));
  const TensorRef router = fewer.at(Role::kRouter, LayerId{0});
  EXPECT_EQ(values_of(fewer, router, 0, 1),
            values_of(all, all.at(Role::kRouter, LayerId{0}), 3, 1));
  EXPECT_EQ(values_of(fewer, router, 1, 1),
            values_of(all, all.at(Role::kRouter, LayerId{0}), 6, 1));
}

TEST(CheckpointWithExperts, RefusesListsThatNoModelCanHave) {
  const auto refused = [](const std::vector<std::vector<ExpertId>>& lists) {
    const Error error =
        error_of([&] { Checkpoint::open(tiny_model("plain")).with_experts(lists); });
    EXPECT_EQ(error.code(), ErrorCode::kUsage);
    return error.message();
  };
  const ModelSpec spec = Checkpoint::open(tiny_model("plain")).spec();
  EXPECT_THAT(refused(in_all_layers(spec, {1})), HasSubstr("too few"));
  EXPECT_THAT(refused(in_all_layers(spec, {1, 2, 1})), HasSubstr("expert 1 is kept twice"));
  EXPECT_THAT(refused(in_all_layers(spec, {1, 2, 8})), HasSubstr("expert 8"));
  auto uneven = in_all_layers(spec, {1, 2, 3});
  uneven[1].pop_back();
  EXPECT_THAT(refused(uneven), HasSubstr("layer 1 keeps 2 experts, the layers before it 3"));
}

}  // namespace
}  // namespace winnow::model::checkpoint_test
