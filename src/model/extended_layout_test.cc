// SPDX-FileCopyrightText: The Winnow authors
// SPDX-License-Identifier: Apache-2.0
// Files in the extended layout: what is read of them, and which are refused.
#include "model/extended_layout.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "formats/test_files.h"
#include "model/corrected_models.h"
#include "model/rotary_order.h"

namespace winnow::model::extended_layout_test {
namespace {

using formats::testing::TemporaryFolder;
using ::testing::AllOf;
using testing::EditableGguf;
using testing::error_of;
using ::testing::HasSubstr;
using testing::tiny_model;
using testing::write_corrected;

constexpr std::size_t kRank = 3;
const std::string kLeft = "blk.1.ffn_up_exps.low_rank_left.weight";
const std::string kRight = "blk.1.ffn_up_exps.low_rank_right.weight";

class ExtendedLayout : public ::testing::Test {
 protected:
  ExtendedLayout() { write_corrected(source_, path(), "BF16", kRank); }
  std::filesystem::path path() const { return folder_.path() / "corrected.gguf"; }

  /// What opening says after `edit`.
  Error refusal(const std::function<void(EditableGguf&)>& edit) {
    EditableGguf file(path());
    edit(file);
    file.write(changed());
    const Error error = error_of([&] { Checkpoint::open(changed()); });
    EXPECT_EQ(error.code(), ErrorCode::kBadData);
    EXPECT_THAT(error.what(), HasSubstr("changed.gguf"));
    return error;
  }
  std::filesystem::path changed() const { return folder_.path() / "changed.gguf"; }
  static std::vector<float> values_of(const Checkpoint& model, const TensorRef& ref) {
    std::vector<float> values(ref.rows * ref.cols);
    model.read_floats(ref, 0, ref.rows, values);
    return values;
  }

  TemporaryFolder folder_;
  Checkpoint source_ = Checkpoint::open(tiny_model("plain"));
};

TEST_F(ExtendedLayout, GivesEveryMatrixButTheEmbeddingItsFactors) {
  const Checkpoint model = Checkpoint::open(path());
  EXPECT_TRUE(is_extended(model.file()));
  std::uint64_t bytes = 0;
  model.for_each_role([&](Role role, LayerId layer) {
    for (std::uint32_t part = 0; part < model.part_count(role, layer); ++part) {
      const TensorRef ref = model.at(role, layer, ExpertId{part});
      ASSERT_EQ(ref.low_rank != nullptr, may_be_corrected(role)) << ref.info->name;
      if (ref.low_rank == nullptr) continue;
      EXPECT_EQ(ref.low_rank->left.rows, ref.rows);
      EXPECT_EQ(ref.low_rank->left.cols, kRank);
      EXPECT_EQ(ref.low_rank->right.rows, kRank);
      EXPECT_EQ(ref.low_rank->right.cols, ref.cols);
      bytes += 2 * kRank * (ref.rows + ref.cols);
    }
  });
  EXPECT_EQ(model.correction_bytes().value, bytes);
  EXPECT_EQ(model.num_parameters(), source_.num_parameters());
  EXPECT_TRUE(model.unused_tensors().empty());
}

TEST_F(ExtendedLayout, CountsFactorsAmongTheBytesOfAllTensors) {
  const Checkpoint model = Checkpoint::open(path());
  std::uint64_t bytes = 0;
  for (const formats::TensorInfo& tensor : model.file().tensors()) bytes += tensor.size.value;
  EXPECT_EQ(model.tensor_bytes().value, bytes);
}

// Each expert's own factors, in the order of the experts.
TEST_F(ExtendedLayout, ReadsWeightsWithTheProductOfTheirFactors) {
  const Checkpoint model = Checkpoint::open(path());
  for (const Role role : {Role::kQueryProj, Role::kExpertDownProj}) {
    const auto parts = static_cast<std::uint32_t>(model.part_count(role, LayerId{1}));
    for (std::uint32_t part = 0; part < parts; ++part) {
      const TensorRef ref = model.at(role, LayerId{1}, ExpertId{part});
      const auto own = values_of(source_, source_.at(role, LayerId{1}, ExpertId{part}));
      const auto left = values_of(model, ref.low_rank->left);
      const auto right = values_of(model, ref.low_rank->right);
      const auto corrected = values_of(model, ref);
      for (std::size_t r = 0; r < ref.rows; ++r) {
        for (std::size_t j = 0; j < ref.cols; ++j) {
          double sum = own[r * ref.cols + j];
          for (std::size_t k = 0; k < kRank; ++k) {
            sum += double{left[r * kRank + k]} * right[k * ref.cols + j];
          }
          ASSERT_NEAR(corrected[r * ref.cols + j], sum, 1e-6);  // a few roundings of values below 1
        }
      }
    }
  }
}

TEST_F(ExtendedLayout, IsFoldedIntoPlainMatricesOnExport) {
  const Checkpoint model = Checkpoint::open(path());
  ExportOptions options;
  options.codec = [](Role, LayerId) -> const quant::Codec& { return *quant::find_codec("F32"); };
  os::ThreadPool pool(2);
  Log log;
  export_model(model, changed(), options, pool, log);
  const Checkpoint folded = Checkpoint::open(changed());
  EXPECT_FALSE(is_extended(folded.file()));
  EXPECT_EQ(folded.correction_bytes().value, 0U);
  model.for_each_role([&](Role role, LayerId layer) {
    EXPECT_EQ(values_of(folded, folded.at(role, layer)), values_of(model, model.at(role, layer)));
  });
}

// The stored type is the one asked for, and still the bytes must not be copied.
TEST_F(ExtendedLayout, IsFoldedWhereTheTypeStaysTheSame) {
  const Checkpoint model = Checkpoint::open(path());
  ExportOptions options;
  options.codec = [](Role, LayerId) -> const quant::Codec& { return *quant::find_codec("BF16"); };
  os::ThreadPool pool(1);
  Log log;
  export_model(model, changed(), options, pool, log);
  const Checkpoint folded = Checkpoint::open(changed());
  const auto expected = values_of(model, model.at(Role::kKeyProj, LayerId{0}));
  const auto found = values_of(folded, folded.at(Role::kKeyProj, LayerId{0}));
  for (std::size_t i = 0; i < expected.size(); ++i) {
    ASSERT_NEAR(found[i], expected[i], std::abs(expected[i]) / 256);  // 8 bits of a BF16
  }
}

// Llama's queries stand in another order in GGUF files than in those of Hugging Face.
TEST_F(ExtendedLayout, KeepsRowsOfLeftFactorsWithTheRowsOfTheMatrix) {
  const Checkpoint llama = Checkpoint::open(testing::tiny_folder("llama-plain"));
  ASSERT_NE(llama.architecture().gguf_rotary_pairs, llama.spec().rotary_pairs);
  std::vector<std::byte> left;
  ExportOptions options;
  options.codec = [](Role, LayerId) -> const quant::Codec& { return *quant::find_codec("F32"); };
  options.correction_rank = [](Role role, LayerId) { return role == Role::kQueryProj ? kRank : 0; };
  options.factor = [&](Role, LayerId layer, ExpertId, LowRankSide side, std::span<std::byte> out) {
    for (std::size_t i = 0; i < out.size(); ++i) out[i] = static_cast<std::byte>(i / 2 % 0x3b);
    if (side == LowRankSide::kLeft && layer == LayerId{0}) left.assign(out.begin(), out.end());
  };
  os::ThreadPool pool(1);
  Log log;
  export_model(llama, changed(), options, pool, log);
  const Checkpoint written = Checkpoint::open(changed());
  const LowRankRef& found = *written.at(Role::kQueryProj, LayerId{0}).low_rank;
  std::vector<std::byte> stored(found.left.bytes().value);
  written.read_rows(found.left, 0, found.left.rows, stored);
  EXPECT_NE(stored, left);
  reorder_heads(left, 2 * kRank, llama.spec().head_dim, written.architecture().gguf_rotary_pairs);
  EXPECT_EQ(stored, left);
}

TEST_F(ExtendedLayout, RefusesAFactorWithoutItsPartner) {
  EXPECT_THAT(refusal([](EditableGguf& f) { f.remove(kLeft); }).what(),
              AllOf(HasSubstr(kLeft), HasSubstr(kRight), HasSubstr("without")));
  EXPECT_THAT(refusal([](EditableGguf& f) { f.remove(kRight); }).what(),
              AllOf(HasSubstr(kLeft), HasSubstr(kRight), HasSubstr("without")));
}

TEST_F(ExtendedLayout, RefusesFactorsOfOtherShapesThanTheMatrix) {
  for (const std::string& name : {kLeft, kRight}) {
    const tensor::Shape shape = EditableGguf(path()).tensor(name).planned.shape;
    const std::vector<tensor::Shape> wrong = {{shape[1], shape[2]},
                                              {shape[0] + 1, shape[1], shape[2]},
                                              {shape[0], shape[1] + 1, shape[2]},
                                              {shape[0], shape[1], shape[2] + 1},
                                              {shape[0], shape[2], shape[1]}};
    for (const tensor::Shape& other : wrong) {
      const Error error = refusal([&](EditableGguf& f) { f.replace(name, "F16", other); });
      EXPECT_THAT(error.what(), HasSubstr("low_rank")) << other.to_string();
      EXPECT_THAT(error.what(), HasSubstr("expected")) << other.to_string();
    }
  }
}

TEST_F(ExtendedLayout, RefusesARankAboveTheSmallerSide) {
  const Error error = refusal([](EditableGguf& f) {
    const tensor::Shape shape = f.tensor(kLeft).planned.shape;
    f.replace(kLeft, "F16", {shape[0], shape[1], 1000});
  });
  EXPECT_THAT(error.what(), AllOf(HasSubstr(kLeft), HasSubstr("rank 1000")));
}

TEST_F(ExtendedLayout, RefusesFactorsThatAreQuantised) {
  const Error error = refusal([](EditableGguf& f) {
    const tensor::Shape shape = f.tensor(kRight).planned.shape;
    f.replace(kRight, "Q8_0", shape);
  });
  EXPECT_THAT(error.what(), AllOf(HasSubstr(kRight), HasSubstr("Q8_0"), HasSubstr("F16")));
}

TEST_F(ExtendedLayout, RefusesFactorsOfWhatHasNone) {
  for (const char* name : {"token_embd.low_rank_left.weight", "blk.9.attn_q.low_rank_left.weight",
                           "blk.0.attn_norm.low_rank_right.weight"}) {
    const Error error = refusal([&](EditableGguf& f) {
      f.tensors.push_back({{name, quant::find_codec("F16"), {2, 2}}, std::vector<std::byte>(8)});
    });
    EXPECT_THAT(error.what(), AllOf(HasSubstr(name), HasSubstr("no matrix")));
  }
}

TEST_F(ExtendedLayout, RefusesFactorsInAFileThatCallsItselfPlain) {
  const Error error = refusal([](EditableGguf& f) { f.metadata.erase("winnow.layout"); });
  EXPECT_THAT(error.what(), AllOf(HasSubstr("low_rank_left"), HasSubstr("winnow.layout")));
}

TEST_F(ExtendedLayout, RefusesLayoutsAndVersionsThatItDoesNotKnow) {
  const auto with = [&](const char* key, formats::Value value) {
    return std::string(
        refusal([&](EditableGguf& f) { f.metadata.set(key, std::move(value)); }).what());
  };
  EXPECT_THAT(with("winnow.layout", std::string("folded")), HasSubstr("'folded'"));
  EXPECT_THAT(with("winnow.layout", std::uint32_t{1}), HasSubstr("winnow.layout"));
  EXPECT_THAT(with("winnow.format_version", std::uint32_t{0}), HasSubstr("winnow.format_version"));
  EXPECT_THAT(with("winnow.format_version", std::string("1")), HasSubstr("winnow.format_version"));
  EXPECT_THAT(with("winnow.min_reader_version", std::uint32_t{2}),
              HasSubstr("winnow.min_reader_version"));
  EXPECT_THAT(refusal([](EditableGguf& f) { f.metadata.erase("winnow.format_version"); }).what(),
              HasSubstr("winnow.format_version"));
  const Error newer = refusal([](EditableGguf& f) {
    f.metadata.set("winnow.format_version", std::uint32_t{5});
    f.metadata.set("winnow.min_reader_version", std::uint32_t{4});
  });
  EXPECT_THAT(newer.what(), AllOf(HasSubstr("version 4"), HasSubstr("newer")));
}

TEST_F(ExtendedLayout, ReadsANewerFileThatSaysItMay) {
  EditableGguf file(path());
  file.metadata.set("winnow.format_version", std::uint32_t{5});
  file.write(changed());
  EXPECT_GT(Checkpoint::open(changed()).correction_bytes().value, 0U);
}

TEST_F(ExtendedLayout, NamesTheFactorThatHoldsNoNumber) {
  EditableGguf file(path());
  const std::uint16_t nan = 0x7e00;
  std::memcpy(file.tensor(kLeft).bytes.data(), &nan, sizeof nan);
  file.write(changed());
  const Checkpoint model = Checkpoint::open(changed());
  std::vector<float> row(model.spec().hidden_size);
  const Error error =
      error_of([&] { model.read_floats(model.at(Role::kExpertUpProj, LayerId{1}), 0, 1, row); });
  EXPECT_EQ(error.code(), ErrorCode::kBadData);
  EXPECT_THAT(error.what(), AllOf(HasSubstr(kLeft), HasSubstr("nan")));
}

TEST_F(ExtendedLayout, RefusesAFileThatEndsEarlyWhereverItEnds) {
  const std::string whole = os::read_text_file(path(), {1 << 24});
  for (std::size_t size = whole.size() - 33; size > 0; size = size * 7 / 8) {
    os::write_text_file(changed(), whole.substr(0, size));
    EXPECT_EQ(error_of([&] { Checkpoint::open(changed()); }).code(), ErrorCode::kBadData) << size;
  }
}

}  // namespace
}  // namespace winnow::model::extended_layout_test
