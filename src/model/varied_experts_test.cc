// SPDX-FileCopyrightText: The Winnow authors
// SPDX-License-Identifier: Apache-2.0
// Files whose experts vary: what is read of them, and which are refused.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "base/crc32c.h"
#include "formats/test_files.h"
#include "model/corrected_models.h"
#include "model/extended_layout.h"
#include "model/varied_models.h"

namespace winnow::model::varied_experts_test {
namespace {

using formats::testing::TemporaryFolder;
using ::testing::AllOf;
using testing::EditableGguf;
using ::testing::ElementsAre;
using testing::error_of;
using ::testing::HasSubstr;
using testing::tiny_model;

class VariedExperts : public ::testing::Test {
 protected:
  VariedExperts() {
    testing::write_varied(
        source_, path(), testing::every_kind(source_.spec()),
        [](Role, LayerId, ExpertId) -> const quant::Codec& { return *quant::find_codec("F16"); });
  }
  std::filesystem::path path() const { return folder_.path() / "varied.gguf"; }

  /// What opening says after `edit`.
  std::string refusal(const std::function<void(EditableGguf&)>& edit) {
    EditableGguf file(path());
    edit(file);
    const auto changed = folder_.path() / "changed.gguf";
    file.write(changed);
    const Error error = error_of([&] { Checkpoint::open(changed); });
    EXPECT_EQ(error.code(), ErrorCode::kBadData);
    EXPECT_THAT(error.what(), HasSubstr("changed.gguf"));
    return error.what();
  }
  std::string with(const char* key, std::vector<std::uint32_t> numbers) {
    return refusal([&](EditableGguf& f) { f.metadata.set(key, formats::Array(numbers)); });
  }

  TemporaryFolder folder_;
  Checkpoint source_ = Checkpoint::open(tiny_model("plain"));
};

constexpr const char* kCounts = "winnow.experts.counts";
constexpr const char* kKinds = "winnow.experts.kinds";
constexpr const char* kWidths = "winnow.experts.widths";

TEST_F(VariedExperts, AreReadAsTheyWereWritten) {
  const Checkpoint model = Checkpoint::open(path());
  const ModelSpec& spec = model.spec();
  EXPECT_TRUE(is_extended(model.file()));
  EXPECT_TRUE(model.unused_tensors().empty());
  EXPECT_EQ(spec.num_experts(LayerId{0}), 5U);
  EXPECT_EQ(spec.num_experts(LayerId{1}), 7U);
  EXPECT_EQ(spec.moe.num_experts, 7U);
  EXPECT_EQ(spec.expert(LayerId{0}, ExpertId{0}), (ExpertShape{ExpertKind::kConstant, 0}));
  EXPECT_EQ(spec.expert(LayerId{0}, ExpertId{2}), (ExpertShape{ExpertKind::kFeedForward, 16}));
  EXPECT_THAT(spec.source_experts, ElementsAre(0, 2, 3, 5, 6, 7, 6, 5, 4, 3, 1, 0));
  EXPECT_FALSE(model.find(Role::kExpertUpProj, LayerId{0}, ExpertId{0}).has_value());
  EXPECT_FALSE(model.find(Role::kExpertConstant, LayerId{0}, ExpertId{1}).has_value());
  EXPECT_FALSE(model.find(Role::kExpertConstant, LayerId{1}, ExpertId{0}).has_value());
  const TensorRef down = model.at(Role::kExpertDownProj, LayerId{0}, ExpertId{2});
  EXPECT_EQ(down.rows, 32U);
  EXPECT_EQ(down.cols, 16U);
  EXPECT_EQ(down.info->name, "blk.0.ffn_down.2.weight");
}

TEST_F(VariedExperts, LieTogetherMatrixAfterMatrix) {
  const Checkpoint model = Checkpoint::open(path());
  std::vector<std::string> names;
  for (const formats::TensorInfo& tensor : model.file().tensors()) {
    if (tensor.name.starts_with("blk.0.ffn_") && tensor.name.find('.', 10) < tensor.name.size() - 7)
      names.push_back(tensor.name);
  }
  EXPECT_THAT(names, ElementsAre("blk.0.ffn_constant.0.weight", "blk.0.ffn_gate.1.weight",
                                 "blk.0.ffn_up.1.weight", "blk.0.ffn_down.1.weight",
                                 "blk.0.ffn_gate.2.weight", "blk.0.ffn_up.2.weight",
                                 "blk.0.ffn_down.2.weight"));
}

TEST_F(VariedExperts, KeepTheirRowsOfTheRouter) {
  const Checkpoint model = Checkpoint::open(path());
  const auto lists = testing::every_kind(source_.spec());
  for (std::uint32_t l = 0; l < 2; ++l) {
    const TensorRef from = source_.at(Role::kRouter, LayerId{l});
    const TensorRef to = model.at(Role::kRouter, LayerId{l});
    ASSERT_EQ(to.rows, lists[l].size());
    for (std::size_t e = 0; e < to.rows; ++e) {
      std::vector<float> expected(from.cols);
      std::vector<float> row(to.cols);
      source_.read_floats(from, index(lists[l][e].source), 1, expected);
      model.read_floats(to, e, 1, row);
      EXPECT_EQ(row, expected) << "layer " << l << ", expert " << e;
    }
  }
}

TEST_F(VariedExperts, SizesAreWhatWasPlanned) {
  const Checkpoint model = Checkpoint::open(path());
  Bytes bytes;
  std::uint64_t parameters = 0;
  for (const formats::TensorInfo& tensor : model.file().tensors()) {
    bytes += tensor.size;
    parameters += tensor.shape.elements();
  }
  EXPECT_EQ(model.tensor_bytes(), bytes);
  EXPECT_EQ(model.num_parameters(), parameters);
}

TEST_F(VariedExperts, HaveChecksumsOfTheirBytes) {
  const Checkpoint model = Checkpoint::open(path());
  const ModelSpec& spec = model.spec();
  std::vector<std::uint32_t> expected;
  for (const LayerId layer : {LayerId{0}, LayerId{1}}) {
    for (std::uint32_t e = 0; e < spec.num_experts(layer); ++e) {
      std::uint32_t sum = 0;
      for (const Role role : {Role::kExpertGateProj, Role::kExpertUpProj, Role::kExpertDownProj}) {
        const auto ref = model.find(role, layer, ExpertId{e});
        if (!ref) continue;
        std::vector<std::byte> bytes(ref->rows * ref->row_bytes());
        model.read_rows(*ref, 0, ref->rows, bytes);
        sum = crc32c(bytes, sum);
      }
      expected.push_back(sum);
    }
  }
  EXPECT_EQ(spec.expert_checksums, expected);
  EXPECT_EQ(spec.expert_checksums[0], 0U);  // a constant
  EXPECT_NE(spec.expert_checksums[1], 0U);
  EXPECT_THAT(with("winnow.experts.crc32c", {1, 2}), HasSubstr("winnow.experts.crc32c"));
  EditableGguf without(path());
  without.metadata.erase("winnow.experts.crc32c");
  without.write(folder_.path() / "without.gguf");
  EXPECT_TRUE(Checkpoint::open(folder_.path() / "without.gguf").spec().expert_checksums.empty());
}

TEST_F(VariedExperts, AreNothingForSafetensors) {
  const Checkpoint model = Checkpoint::open(path());
  ExportOptions options;
  options.format = OutputFormat::kSafetensors;
  options.codec = [](Role, LayerId) -> const quant::Codec& { return *quant::find_codec("F32"); };
  const Error error = error_of([&] { plan_export(model, options); });
  EXPECT_EQ(error.code(), ErrorCode::kUsage);
  EXPECT_THAT(error.what(), HasSubstr(".gguf"));
}

TEST_F(VariedExperts, AreNoMoreToChooseFrom) {
  Checkpoint model = Checkpoint::open(path());
  const std::vector<std::vector<ExpertId>> lists(2, {ExpertId{1}, ExpertId{2}});
  const Error error = error_of([&] { std::move(model).with_experts(lists); });
  EXPECT_EQ(error.code(), ErrorCode::kUsage);
  EXPECT_THAT(error.what(), HasSubstr("original"));
}

TEST_F(VariedExperts, AreRefusedWhereKeysContradictEachOther) {
  EXPECT_THAT(with(kCounts, {5}), AllOf(HasSubstr(kCounts), HasSubstr("1 elements")));
  EXPECT_THAT(with(kCounts, {1, 11}), HasSubstr(kCounts));  // fewer than a token goes to
  EXPECT_THAT(with(kCounts, {5, 8}), HasSubstr(kCounts));   // more than expert_count
  EXPECT_THAT(with(kCounts, {6, 7}), HasSubstr(kKinds));
  EXPECT_THAT(with(kKinds, {3, 0, 0, 2, 4, 0, 0, 0, 0, 0, 0, 0}), HasSubstr("0 to 3"));
  EXPECT_THAT(with(kKinds, {3, 0, 1, 2, 1, 0, 0, 0, 0, 0, 0, 0}),
              AllOf(HasSubstr(kWidths), HasSubstr("expert 2 of layer 0")));
  EXPECT_THAT(with(kWidths, {0, 32, 33, 0, 0, 32, 32, 32, 32, 32, 32, 32}), HasSubstr(kWidths));
  EXPECT_THAT(with(kWidths, {0, 32, 0, 0, 0, 32, 32, 32, 32, 32, 32, 32}),
              HasSubstr("expert 2 of layer 0"));
  EXPECT_THAT(refusal([](EditableGguf& f) { f.metadata.erase(kKinds); }), HasSubstr(kKinds));
  EXPECT_THAT(with("winnow.experts.kept", {0, 1}), HasSubstr("winnow.experts.kept"));
}

TEST_F(VariedExperts, AreRefusedWhereTensorsAreMissingOrOfAnotherShape) {
  EXPECT_THAT(with(kWidths, {0, 32, 15, 0, 0, 32, 32, 32, 32, 32, 32, 32}),
              HasSubstr("blk.0.ffn_gate.2.weight"));
  EXPECT_THAT(refusal([](EditableGguf& f) { f.remove("blk.1.ffn_up.6.weight"); }),
              HasSubstr("blk.1.ffn_up.6.weight"));
  EXPECT_THAT(refusal([](EditableGguf& f) { f.remove("blk.0.ffn_constant.0.weight"); }),
              HasSubstr("blk.0.ffn_constant.0.weight"));
}

TEST_F(VariedExperts, NeedTheLayoutAndItsVersion) {
  EXPECT_THAT(refusal([](EditableGguf& f) {
                f.metadata.erase("winnow.layout");
                f.metadata.erase("winnow.format_version");
              }),
              HasSubstr("winnow.layout"));
  const Checkpoint model = Checkpoint::open(path());
  EXPECT_EQ(model.file().metadata().integer("winnow.min_reader_version"), kVariedExpertsVersion);
}

}  // namespace
}  // namespace winnow::model::varied_experts_test
