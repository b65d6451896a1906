// SPDX-FileCopyrightText: The Winnow authors
// SPDX-License-Identifier: Apache-2.0
#include "compress/tensor_group.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstring>

#include "compress/testing.h"
#include "formats/expect_error.h"
#include "formats/test_files.h"
#include "model/exporter.h"
#include "model/test_models.h"
#include "quant/stock_encoders.h"

namespace winnow::compress::tensor_group_test {
namespace {

using formats::testing::TemporaryFolder;
using model::Role;
using testing::logits_of;
using testing::random_windows;

model::Checkpoint tiny(const std::string& name) {
  return testing::open_tiny(WINNOW_SOURCE_DIR, name);
}

const TensorGroup& group_of(const std::vector<TensorGroup>& groups, Role role, LayerId layer = {}) {
  for (const TensorGroup& group : groups) {
    if (group.role == role && group.layer == layer) return group;
  }
  throw std::runtime_error("no such group");
}

std::vector<std::string> names(const std::vector<const quant::Codec*>& codecs) {
  std::vector<std::string> result;
  for (const auto* codec : codecs) result.emplace_back(codec->name);
  return result;
}

InputMoments moments_of(engine::Engine& engine, const metrics::WindowSet& set) {
  InputMoments moments(engine.spec());
  for (const metrics::Window& window : set.windows) {
    engine::KvCache cache = engine.make_cache(window.tokens.size());
    const engine::SequenceInput input{&cache, window.tokens};
    engine.forward(std::span(&input, 1), &moments);
  }
  return moments;
}

/// Decodes a packed group and adds up the squared error, column by column.
double naive_error(const model::Checkpoint& checkpoint, const TensorGroup& group,
                   const PackedGroup& packed, const InputMoments* moments) {
  double error = 0;
  double norm = 0;
  double tokens = 0;
  for (std::uint32_t part = 0; part < packed.parts.size(); ++part) {
    const quant::PackedMatrix& matrix = packed.parts[part];
    const auto ref = checkpoint.at(group.role, group.layer, ExpertId{part});
    std::vector<float> original(ref.rows * ref.cols);
    std::vector<float> decoded(original.size());
    checkpoint.read_floats(ref, 0, ref.rows, original);
    matrix.codec->decode(matrix.data, decoded.size() / matrix.codec->block_size, decoded.data());
    std::vector<double> sums(ref.cols, 1.0);
    if (moments != nullptr) sums = moments->sums(group.role, group.layer, ExpertId{part});
    for (std::size_t j = 0; j < ref.cols; ++j) {
      for (std::size_t r = 0; r < ref.rows; ++r) {
        const double w = original[r * ref.cols + j];
        const double difference = w - decoded[r * ref.cols + j];
        error += sums[j] * difference * difference;
        norm += w * w;
      }
    }
    if (moments != nullptr) {
      tokens += static_cast<double>(moments->tokens(group.role, group.layer, ExpertId{part}));
    }
  }
  return error / (moments == nullptr ? norm : tokens);
}

TEST(TensorGroups, AreAllMatricesOfAMixedModelOnce) {
  const auto checkpoint = tiny("dense-first");
  const auto groups = list_groups(checkpoint);
  // Embedding and output; 4 of attention and 3 of the feed-forward part in each of 3 layers.
  EXPECT_EQ(groups.size(), 2U + 3 * 7);
  EXPECT_EQ(group_of(groups, Role::kDownProj).weights, 32U * 48);
  EXPECT_EQ(group_of(groups, Role::kExpertDownProj, LayerId{1}).weights, 4U * 32 * 32);
  EXPECT_EQ(group_of(groups, Role::kExpertDownProj, LayerId{1}).name(),
            "expert_down_proj of layer 1");
  EXPECT_EQ(group_of(groups, Role::kOutput).name(), "output");
}

TEST(CandidateCodecs, AreWhatIsStoredAndAllThatIsSmallerByRisingSize) {
  const auto checkpoint = tiny("plain");
  const auto groups = list_groups(checkpoint);
  const auto candidates = candidate_codecs(checkpoint, group_of(groups, Role::kQueryProj));
  // Rows of 32: the 256-wide types fall back to 32-wide ones. BF16 is what is stored.
  std::vector<std::string_view> expected = {"BF16"};
  for (const quant::Codec* codec : quant::all_codecs()) {
    if (codec->block_size == 32) expected.push_back(codec->name);
  }
  EXPECT_THAT(names(candidates), ::testing::UnorderedElementsAreArray(expected));
  EXPECT_THAT(names(candidates), ::testing::IsSupersetOf({"Q4_0", "IQ4_NL", "Q5_0", "Q8_0"}));
  for (std::size_t i = 1; i < candidates.size(); ++i) {
    EXPECT_GE(candidates[i]->bits_per_weight(), candidates[i - 1]->bits_per_weight());
  }
  EXPECT_EQ(candidates.back()->name, "BF16");
}

TEST(CandidateCodecs, KeepTheFullPrecisionOfAnF32OrF16Model) {
  for (const auto& [model, stored] :
       {std::pair("attention-bias", "F32"), std::pair("not-renormalised", "F16")}) {
    const auto checkpoint = tiny(model);
    const auto groups = list_groups(checkpoint);
    const auto candidates = candidate_codecs(checkpoint, group_of(groups, Role::kQueryProj));
    EXPECT_EQ(candidates.back()->name, stored);
  }
}

TEST(CandidateCodecs, OfRowsThatNoBlockDividesAreFloats) {
  const auto checkpoint = tiny("odd-sizes");
  const auto groups = list_groups(checkpoint);
  EXPECT_THAT(names(candidate_codecs(checkpoint, group_of(groups, Role::kExpertDownProj))),
              ::testing::UnorderedElementsAre("F16", "BF16", "F32"));
}

class PackGroup : public ::testing::Test {
 protected:
  Log log_;
  os::ThreadPool pool_{2};
};

TEST_F(PackGroup, ErrorIsTheWeightedSquaredErrorOfTheDecodedMatrices) {
  const auto checkpoint = tiny("dense-first");
  engine::Engine engine(checkpoint, {1, ""}, log_);
  const InputMoments moments = moments_of(engine, random_windows(2, 40));
  for (const TensorGroup& group : list_groups(checkpoint)) {
    for (const quant::Codec* codec : candidate_codecs(checkpoint, group)) {
      for (const InputMoments* used : {&moments, static_cast<const InputMoments*>(nullptr)}) {
        const PackedGroup packed = pack_group(checkpoint, group, *codec, used, pool_, log_);
        const double expected = naive_error(checkpoint, group, packed, used);
        // Sums of non-negative f64 terms in another order.
        EXPECT_NEAR(packed.error, expected, 1e-12 * expected) << group.name() << codec->name;
        EXPECT_EQ(packed.bytes.size(), packed_bytes(group, *codec).value);
        EXPECT_EQ(packed.error == 0, codec->name == "BF16") << group.name() << codec->name;
      }
    }
  }
}

/// An importance matrix has nothing of the output matrix: it is not free for that.
TEST(UnknownInputs, CountAsOnes) {
  const auto checkpoint = tiny("plain");
  const auto groups = list_groups(checkpoint);
  os::ThreadPool pool(1);
  Log log;
  const InputMoments nothing(checkpoint.spec());
  const TensorGroup& group = group_of(groups, Role::kTokenEmbedding);
  double before = INFINITY;
  for (const char* name : {"Q4_0", "Q5_0", "Q8_0"}) {
    const quant::Codec& codec = *quant::find_codec(name);
    const PackedGroup packed = pack_group(checkpoint, group, codec, &nothing, pool, log);
    const PackedGroup plain = pack_group(checkpoint, group, codec, nullptr, pool, log);
    EXPECT_GT(packed.error, 0) << name;
    EXPECT_LT(packed.error, before) << name;
    before = packed.error;
    EXPECT_EQ(packed.bytes, plain.bytes) << name;
  }
}

TEST_F(PackGroup, BytesAndErrorDoNotDependOnTheThreads) {
  const auto checkpoint = tiny("plain");
  const auto groups = list_groups(checkpoint);
  const TensorGroup& group = group_of(groups, Role::kExpertDownProj, LayerId{1});
  os::ThreadPool three(3);
  const auto& codec = *quant::find_codec("Q4_0");
  const PackedGroup one = pack_group(checkpoint, group, codec, nullptr, pool_, log_);
  const PackedGroup other = pack_group(checkpoint, group, codec, nullptr, three, log_);
  EXPECT_EQ(one.bytes, other.bytes);
  EXPECT_EQ(one.error, other.error);
}

TEST_F(PackGroup, WithStocksEncodersGivesThemMeanSquaresAsTheyAre) {
  const auto checkpoint = tiny("plain");
  engine::Engine engine(checkpoint, {1, ""}, log_);
  const InputMoments moments = moments_of(engine, random_windows(2, 40));
  const auto groups = list_groups(checkpoint);
  const TensorGroup& group = group_of(groups, Role::kExpertUpProj, LayerId{1});
  const auto& codec = *quant::find_codec("Q4_1");
  std::vector<float> row(group.cols);
  std::vector<std::byte> expected(group.cols / codec.block_size * codec.block_bytes);
  for (const InputMoments* used : {&moments, static_cast<const InputMoments*>(nullptr)}) {
    const PackedGroup packed =
        pack_group(checkpoint, group, codec, used, pool_, log_, EncoderKind::kStock);
    for (std::uint32_t e = 0; e < group.parts; ++e) {
      const auto ref = checkpoint.at(group.role, group.layer, ExpertId{e});
      std::vector<float> means;
      if (used != nullptr) means = used->mean_squares(group.role, group.layer, ExpertId{e});
      for (std::size_t r = 0; r < group.rows; ++r) {
        checkpoint.read_floats(ref, r, 1, row);
        quant::find_stock_encoder(codec)(row.data(), group.cols / codec.block_size,
                                         means.empty() ? nullptr : means.data(), expected.data());
        ASSERT_TRUE(std::equal(expected.begin(), expected.end(), packed.parts[e].row(r)));
      }
    }
    EXPECT_GT(packed.error, 0);
  }
}

TEST_F(PackGroup, RefusesWeightsWhoseScalesNoHalfHolds) {
  const TemporaryFolder folder;
  model::testing::EditableModel large("attention-bias");  // F32
  auto& tensor = large.tensor("model.layers.0.self_attn.q_proj.weight");
  const float weight = 1e9F;
  std::memcpy(tensor.bytes.data(), &weight, sizeof weight);
  large.write(folder.path() / "large");
  const auto checkpoint = model::Checkpoint::open(folder.path() / "large");
  const auto groups = list_groups(checkpoint);
  const auto& codec = *quant::find_codec("Q4_0");
  const std::string error = formats::testing::error_of(
      [&] {
        pack_group(checkpoint, group_of(groups, Role::kQueryProj), codec, nullptr, pool_, log_,
                   EncoderKind::kStock);
      },
      ErrorCode::kBadData);
  EXPECT_NE(error.find("q_proj of layer 0"), std::string::npos) << error;
  EXPECT_NE(error.find("Q4_0"), std::string::npos) << error;
}

TEST_F(PackGroup, StopsWhenAsked) {
  const auto checkpoint = tiny("plain");
  const auto groups = list_groups(checkpoint);
  testing::TestLog stop(3);
  formats::testing::error_of(
      [&] {
        pack_group(checkpoint, group_of(groups, Role::kExpertUpProj), *quant::find_codec("Q4_0"),
                   nullptr, pool_, stop);
      },
      ErrorCode::kInterrupted);
}

/// The model with one group in a codec, as a file.
void write_with(const model::Checkpoint& source, const TensorGroup& group,
                const quant::Codec& codec, const InputMoments& moments,
                const std::filesystem::path& path, os::ThreadPool& pool, Log& log) {
  std::vector<float> importance;
  model::ExportOptions options;
  options.codec = [&](Role role, LayerId layer) -> const quant::Codec& {
    const bool changed = role == group.role && layer == group.layer;
    return changed ? codec : source.at(role, layer).codec();
  };
  options.importance = [&](Role role, LayerId layer, ExpertId expert) {
    importance = moments.importance(role, layer, expert);
    return std::span<const float>(importance);
  };
  model::export_model(source, path, options, pool, log);
}

TEST_F(PackGroup, RunningWithAPackedGroupIsRunningTheFileThatHoldsIt) {
  const TemporaryFolder folder;
  const auto checkpoint = tiny("dense-first");
  engine::Engine engine(checkpoint, {1, ""}, log_);
  const auto windows = random_windows(2, 40);
  const InputMoments moments = moments_of(engine, windows);
  const auto before = logits_of(engine, windows.windows[0]);
  const quant::Codec& codec = *quant::find_codec("Q4_0");
  for (const TensorGroup& group : list_groups(checkpoint)) {
    const std::size_t cols = checkpoint.at(group.role, group.layer).cols;
    const quant::Codec& used = quant::codec_for_row(codec, cols);
    const PackedGroup packed = pack_group(checkpoint, group, used, &moments, pool_, log_);
    engine.override_weights(group.role, group.layer, packed.parts);
    const auto overridden = logits_of(engine, windows.windows[0]);
    engine.restore_weights();
    EXPECT_EQ(logits_of(engine, windows.windows[0]), before) << group.name();
    // Rows of 48 fall back to F16, which holds these BF16 values exactly.
    EXPECT_EQ(overridden == before, packed.error == 0) << group.name();

    const auto path = folder.path() / "one.gguf";
    write_with(checkpoint, group, used, moments, path, pool_, log_);
    engine::Engine written(model::Checkpoint::open(path), {1, ""}, log_);
    EXPECT_EQ(logits_of(written, windows.windows[0]), overridden) << group.name();
  }
}

}  // namespace
}  // namespace winnow::compress::tensor_group_test
