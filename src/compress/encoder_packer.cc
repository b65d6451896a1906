// SPDX-FileCopyrightText: The Winnow authors
// SPDX-License-Identifier: Apache-2.0
// Packing by the codecs' own encoders.
#include <cmath>

#include "base/error.h"
#include "compress/group_packer.h"
#include "model/exporter.h"

namespace winnow::compress {
namespace {

class EncoderPacker final : public GroupPacker {
 public:
  EncoderPacker(const PackerContext& context, const InputMoments* moments)
      : context_(context), moments_(moments) {}

  void measure(std::vector<TensorGroup>& groups) override {
    for (std::size_t g = 0; g < groups.size(); ++g) {
      with_context(groups[g].name(), [&] { measure(groups[g]); });
      context_.log.progress("measuring", g + 1, groups.size(), "tensor groups");
    }
  }

  PackedGroup noise(const TensorGroup& group, const NoisePoint& point) override {
    return pack({&group, point.codec});
  }

  void prepare(std::span<const PackOrder> /*orders*/) override {}  // encoding is quick enough

  PackedGroup pack(const PackOrder& order) override {
    return pack_group(context_.source, *order.group, *order.codec, moments_, context_.runner.pool(),
                      context_.log);
  }

  void pack_rows(const PackOrder& order, ExpertId expert, std::size_t first,
                 std::span<std::byte> out) override {
    const TensorGroup& group = *order.group;
    const model::TensorRef ref = context_.source.at(group.role, group.layer, expert);
    const std::size_t row_bytes = ref.cols / order.codec->block_size * order.codec->block_bytes;
    const std::size_t rows = out.size() / row_bytes;
    std::vector<float> weights(rows * ref.cols);
    context_.source.read_floats(ref, first, rows, weights);
    if (moments_ != nullptr && (importance_of_ != &group || importance_expert_ != expert)) {
      importance_ = moments_->importance(group.role, group.layer, expert);
      importance_of_ = &group;
      importance_expert_ = expert;
    }
    model::encode_rows(*order.codec, weights, rows, ref.cols, importance_, out,
                       context_.runner.pool());
  }

 private:
  void measure(TensorGroup& group) {
    for (GroupOption& option : group.options) {
      context_.log.check_interrupt();
      if (is_stored_as(context_.source, group, *option.codec)) continue;  // copied: no error
      option.error = pack({&group, option.codec}).error;
    }
    group.noise = noise_points(group, context_.source);
    for (NoisePoint& point : group.noise) {
      for (const GroupOption& option : group.options) {
        if (option.codec == point.codec) point.error = option.error;
      }
    }
  }

  PackerContext context_;
  const InputMoments* moments_;
  const TensorGroup* importance_of_ = nullptr;  // whose `importance_` is
  ExpertId importance_expert_{};
  std::vector<float> importance_;
};

}  // namespace

std::vector<NoisePoint> noise_points(const TensorGroup& group, const model::Checkpoint& source) {
  // Compensated rounding errs about a quarter as much as plain rounding, which one bit more brings
  // as well: these stand for about 4.5 and 2.5 bits.
  constexpr double kBits[] = {5.5, 3.4};
  std::vector<NoisePoint> points;
  for (const double bits : kBits) {
    const quant::Codec* nearest = nullptr;
    for (const GroupOption& option : group.options) {
      if (is_stored_as(source, group, *option.codec) || option.codec->is_float()) continue;
      const auto distance = [bits](const quant::Codec& codec) {
        return std::fabs(codec.bits_per_weight() - bits);
      };
      if (nearest == nullptr || distance(*option.codec) < distance(*nearest)) {
        nearest = option.codec;
      }
    }
    if (nearest == nullptr || (!points.empty() && points.back().codec == nearest)) continue;
    points.push_back({nearest, 0, 0});
  }
  return points;
}

std::unique_ptr<GroupPacker> make_encoder_packer(const PackerContext& context,
                                                 const InputMoments* moments) {
  return std::make_unique<EncoderPacker>(context, moments);
}

}  // namespace winnow::compress
