// SPDX-FileCopyrightText: The Winnow authors
// SPDX-License-Identifier: Apache-2.0
// What a narrowed expert is said to change against running the layer with it.
#include "compress/narrowed_groups.h"

#include <gtest/gtest.h>

#include <cmath>

#include "compress/expert_sums.h"
#include "compress/layer_hessians.h"
#include "compress/narrowing.h"
#include "compress/testing.h"
#include "compress/wide_model.h"
#include "formats/test_files.h"

namespace winnow::compress::narrowed_groups_test {
namespace {

using formats::testing::TemporaryFolder;
using model::Role;

constexpr LayerId kLayer{0};
constexpr double kDamping = 1e-6;  // a ridge that does not show

/// Gives matrices that were put into it.
class FixedPacker final : public GroupPacker {
 public:
  void measure(std::vector<TensorGroup>& /*groups*/) override {}
  PackedGroup noise(const TensorGroup& /*group*/, const NoisePoint& /*point*/) override {
    return {};
  }
  void prepare(std::span<const PackOrder> /*orders*/) override {}
  PackedGroup pack(const PackOrder& order) override {
    const tensor::Matrix<float>& matrix = matrices.at(order.group->role);
    const std::size_t blocks = matrix.cols() / order.codec->block_size;
    PackedGroup packed;
    packed.only = order.group->only;
    packed.bytes.resize(matrix.rows() * blocks * order.codec->block_bytes);
    for (std::size_t r = 0; r < matrix.rows(); ++r) {
      order.codec->encode(matrix.row(r).data(), blocks, nullptr,
                          packed.bytes.data() + r * blocks * order.codec->block_bytes);
    }
    packed.parts.emplace_back(order.codec, packed.bytes.data(), matrix.rows(), matrix.cols());
    return packed;
  }
  bool is_copy(const PackOrder& /*order*/) override { return false; }
  bool pack_rows(const PackOrder& /*order*/, ExpertId /*expert*/, std::size_t /*first*/,
                 std::span<std::byte> /*out*/) override {
    return false;
  }

  std::map<Role, tensor::Matrix<float>> matrices;
};

class NarrowedGroups : public ::testing::Test {
 protected:
  NarrowedGroups() {
    stream_.embed(runner_, nullptr, log_);
    runner_.load(kLayer);
    sums_ = collect_expert_sums(runner_, source_.spec(), kLayer, stream_, log_);
  }

  tensor::Matrix<float> matrix(Role role, ExpertId expert) {
    const model::TensorRef ref = source_.at(role, kLayer, expert);
    tensor::Matrix<float> weights(ref.rows, ref.cols);
    source_.read_floats(ref, 0, ref.rows, weights.flat());
    return weights;
  }

  /// The narrowed form of an expert's group.
  TensorGroup group_of(Role role, ExpertId expert, std::uint32_t width) {
    std::vector<TensorGroup> groups = list_groups(source_);
    add_narrowed_groups(source_, groups);
    for (TensorGroup& group : groups) {
      if (group.role != role || group.layer != kLayer || group.width != width) continue;
      group.only = expert;
      group.parts = 1;
      return group;
    }
    return {};
  }

  void put(const ChannelChoice& choice, const tensor::Matrix<float>& down, ExpertId expert) {
    for (const Role role : {Role::kExpertGateProj, Role::kExpertUpProj}) {
      const tensor::Matrix<float> whole = matrix(role, expert);
      tensor::Matrix<float> rows(choice.kept.size(), whole.cols());
      for (std::size_t i = 0; i < choice.kept.size(); ++i) {
        std::copy_n(whole.row(choice.kept[i]).data(), whole.cols(), rows.row(i).data());
      }
      packer_.matrices[role] = std::move(rows);
    }
    packer_.matrices[Role::kExpertDownProj] = down.clone();
  }

  /// Squared change of the layer's output over the text with the packer's matrices.
  double measured(ExpertId expert, std::uint32_t width, const quant::Codec& codec) {
    std::vector<PackedGroup> packed;
    return testing::squared_change(runner_, stream_, batches_, [&] {
      for (const Role role : {Role::kExpertGateProj, Role::kExpertUpProj, Role::kExpertDownProj}) {
        const TensorGroup group = group_of(role, expert, width);
        packed.push_back(pack_at_full_width(packer_, {&group, &codec}, source_));
        EXPECT_EQ(packed.back().parts.front().rows, source_.at(role, kLayer).rows);
        EXPECT_EQ(packed.back().parts.front().cols, source_.at(role, kLayer).cols);
        runner_.override_weights(role, packed.back().in_layer(source_.spec()));
      }
    });
  }

  void each_inner(const std::function<void(ExpertId, PreparedHessian&)>& visit) {
    LayerHessianOptions options;
    options.pseudo_tokens = 0;
    const engine::Site sites[] = {engine::Site::kExpertInner};
    visit_layer_hessians(
        runner_, source_.spec(), kLayer, sites, {stream_}, options, log_,
        [&](engine::Site, ExpertId expert, PreparedHessian& hessian) { visit(expert, hessian); });
  }

  TemporaryFolder folder_;
  model::Checkpoint source_ = testing::write_wide("plain", folder_.path() / "wide");
  metrics::WindowSet text_ = testing::random_windows(8, 60);
  testing::TestLog log_;
  engine::LayerRunner runner_{source_, {1, ""}};
  WindowBatches batches_{text_.windows, 128};
  WindowStream stream_{batches_, source_.spec().hidden_size, ""};
  FixedPacker packer_;
  LayerSums sums_;
};

TEST_F(NarrowedGroups, ChangeTheOutputByWhatIsSaidToBeLost) {
  std::vector<PreparedHessian> hessians;
  each_inner(
      [&](ExpertId, PreparedHessian& hessian) { hessians.emplace_back(hessian.calibration()); });
  const quant::Codec& wide = *quant::find_codec("F32");
  const Workers workers(runner_.pool(), runner_.kernels());
  int seen = 0;
  for (std::uint32_t e = 0; e < hessians.size(); ++e) {
    if (sums_.experts[e].tokens == 0) continue;
    const tensor::Matrix<float> down = matrix(Role::kExpertDownProj, ExpertId{e});
    const ChannelChooser chooser(down.view(), hessians[e], 64, kDamping, workers);
    for (const std::uint32_t width : {96U, 64U}) {
      const NarrowedChannels narrowed = chooser.choose(width, hessians[e]);
      const auto weights =
          compensated(down.view(), narrowed.choice.kept, narrowed.shares, runner_.pool());
      put(narrowed.choice, weights, ExpertId{e});
      const double predicted = narrowed.choice.lost * sums_.experts[e].squared_outputs;
      const double change = measured(ExpertId{e}, width, wide);
      // Sums of Hessian and engine in f32, which the difference of nearly equal outputs shows.
      EXPECT_NEAR(predicted, change, 1e-3 * change + 1e-6 * sums_.experts[e].squared_outputs)
          << "expert " << e << ", width " << width;
      EXPECT_LT(narrowed.choice.lost, 0.5);
      seen += predicted > 0 ? 1 : 0;
    }
  }
  EXPECT_GT(seen, 4);
}

TEST_F(NarrowedGroups, WithoutCompensationTheyChangeItMore) {
  std::vector<PreparedHessian> hessians;
  each_inner(
      [&](ExpertId, PreparedHessian& hessian) { hessians.emplace_back(hessian.calibration()); });
  const tensor::Matrix<float> down = matrix(Role::kExpertDownProj, ExpertId{0});
  const Workers workers(runner_.pool(), runner_.kernels());
  const auto narrowed =
      ChannelChooser(down.view(), hessians[0], 64, kDamping, workers).choose(64, hessians[0]);
  tensor::Matrix<double> none(64, 64);
  const auto plain = compensated(down.view(), narrowed.choice.kept, none, runner_.pool());
  put(narrowed.choice, plain, ExpertId{0});
  const double change = measured(ExpertId{0}, 64, *quant::find_codec("F32"));
  EXPECT_GT(change, 1.5 * narrowed.choice.lost * sums_.experts[0].squared_outputs);
}

TEST_F(NarrowedGroups, InEveryTypeFullWidthAddsNothing) {
  const ExpertId expert{1};
  const ChannelChoice first{other_channels({}, 64), 0};
  const tensor::Matrix<float> down = matrix(Role::kExpertDownProj, expert);
  const auto narrow =
      compensated(down.view(), first.kept, tensor::Matrix<double>(64, 64), runner_.pool());
  put(first, narrow, expert);
  for (const quant::Codec* codec : quant::all_codecs()) {
    if (32 % codec->block_size != 0) continue;
    const TensorGroup group = group_of(Role::kExpertDownProj, expert, 64);
    const PackedGroup short_rows = packer_.pack({&group, codec});
    const PackedGroup long_rows = pack_at_full_width(packer_, {&group, codec}, source_);
    const auto& from = short_rows.parts.front();
    const auto& to = long_rows.parts.front();
    std::vector<float> expected(testing::kWideChannels);
    std::vector<float> row(testing::kWideChannels);
    for (std::size_t r = 0; r < to.rows; ++r) {
      from.codec->decode(from.row(r), 64 / from.codec->block_size, expected.data());
      to.codec->decode(to.row(r), to.cols / to.codec->block_size, row.data());
      EXPECT_EQ(row, expected) << codec->name;
    }
  }
}

TEST_F(NarrowedGroups, HaveTheirShareOfGateAndUpAndTheNoiseOfTheWhole) {
  std::vector<TensorGroup> groups = list_groups(source_);
  const std::size_t whole_groups = groups.size();
  add_narrowed_groups(source_, groups);
  const quant::Codec* codec = quant::find_codec("Q8_0");
  for (TensorGroup& group : groups) {
    GroupOption option;
    option.codec = codec;
    option.error = 8;
    option.part_errors.assign(group.parts, 8.0 / static_cast<double>(group.parts));
    group.options.push_back(option);
    if (group.width == 0) group.noise = {{codec, 1, 2}};
    if (group.width == 0 || group.role != Role::kExpertDownProj) continue;
    for (std::size_t part = 0; part < group.parts; ++part) {
      const double carried = static_cast<double>(part + 1) / static_cast<double>(group.parts);
      group.channels.push_back(
          std::make_shared<const ChannelChoice>(ChannelChoice{{}, 0, carried}));
    }
  }
  complete_narrowed_groups(groups);
  ASSERT_GT(groups.size(), whole_groups);
  for (std::size_t g = whole_groups; g < groups.size(); ++g) {
    const TensorGroup& group = groups[g];
    EXPECT_TRUE(group.left_out);
    EXPECT_EQ(group.channels.size(), group.parts);
    ASSERT_EQ(group.noise.size(), 1U);
    EXPECT_EQ(group.noise[0].kl, 2);
    const bool measured = group.role == Role::kExpertDownProj;
    const double parts = static_cast<double>(group.parts);
    EXPECT_DOUBLE_EQ(group.options[0].error, measured ? 8 : 8 * (parts + 1) / (2 * parts));
    const std::vector<TensorGroup> divided = divide_group(group);
    EXPECT_DOUBLE_EQ(divided[3].options[0].error, measured ? 8 / parts : 8 / parts * (4 / parts));
    EXPECT_EQ(divided[3].channels.front(), group.channels[3]);
  }
}

}  // namespace
}  // namespace winnow::compress::narrowed_groups_test
