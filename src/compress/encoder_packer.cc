// SPDX-FileCopyrightText: The Winnow authors
// SPDX-License-Identifier: Apache-2.0
// Packing by the codecs' own encoders.
#include "base/error.h"
#include "compress/damage.h"
#include "compress/group_packer.h"
#include "model/exporter.h"

namespace winnow::compress {
namespace {

class EncoderPacker final : public GroupPacker {
 public:
  EncoderPacker(const PackerContext& context, const InputMoments* moments, EncoderKind kind)
      : context_(context), moments_(moments), kind_(kind) {}

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
                      context_.log, kind_);
  }

  bool is_copy(const PackOrder& order) override {
    return is_stored_as(context_.source, *order.group, *order.codec);
  }

  bool pack_rows(const PackOrder& order, ExpertId expert, std::size_t first,
                 std::span<std::byte> out) override {
    const TensorGroup& group = *order.group;
    const model::TensorRef ref = context_.source.at(group.role, group.layer, expert);
    if (&ref.codec() == order.codec) return false;
    const std::size_t row_bytes = ref.cols / order.codec->block_size * order.codec->block_bytes;
    const std::size_t rows = out.size() / row_bytes;
    std::vector<float> weights(rows * ref.cols);
    context_.source.read_floats(ref, first, rows, weights);
    if (importance_of_ != &group || importance_expert_ != expert) {
      importance_ = importance_for(kind_, moments_, group.role, group.layer, expert);
      importance_of_ = &group;
      importance_expert_ = expert;
    }
    model::encode_rows(*order.codec, weights, rows, ref.cols, importance_, out,
                       context_.runner.pool(), find_encoder(*order.codec, kind_));
    return true;
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
  EncoderKind kind_;
  const TensorGroup* importance_of_ = nullptr;  // whose `importance_` is
  ExpertId importance_expert_{};
  std::vector<float> importance_;
};

}  // namespace

std::unique_ptr<GroupPacker> make_encoder_packer(const PackerContext& context,
                                                 const InputMoments* moments, EncoderKind kind) {
  return std::make_unique<EncoderPacker>(context, moments, kind);
}

}  // namespace winnow::compress
