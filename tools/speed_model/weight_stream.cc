// SPDX-FileCopyrightText: The Winnow authors
// SPDX-License-Identifier: Apache-2.0
#include "speed_model/weight_stream.h"

#include "base/error.h"
#include "model/architecture.h"
#include "model/tokenizer_metadata.h"

namespace winnow::tools {
namespace {

constexpr std::size_t kBuffer = std::size_t{4} << 20;

}  // namespace

std::vector<SpecTensor> spec_tensors(const model::ModelSpec& spec) {
  std::vector<SpecTensor> tensors;
  const auto add = [&](model::Role role, LayerId layer) {
    const auto shape = model::expected_shape(spec, role, layer);
    if (!shape) return;
    const std::uint32_t parts = model::traits(role).per_expert ? spec.moe.num_experts : 1;
    tensors.push_back({role, layer, parts, *shape});
  };
  add(model::Role::kTokenEmbedding, {});
  for (std::uint32_t layer = 0; layer < spec.num_hidden_layers; ++layer) {
    for (const model::RoleTraits& role : model::all_roles()) {
      if (role.per_layer) add(role.role, LayerId{layer});
    }
  }
  add(model::Role::kOutputNorm, {});
  add(model::Role::kOutput, {});
  return tensors;
}

formats::PlannedTensor planned(const SpecTensor& tensor, const quant::Codec& codec) {
  const model::RoleTraits& traits = model::traits(tensor.role);
  const tensor::Shape shape = traits.per_expert
                                  ? tensor::Shape{tensor.parts, tensor.shape[0], tensor.shape[1]}
                                  : tensor.shape;
  return {model::expand_pattern(traits.gguf_pattern, tensor.layer), &codec, shape};
}

formats::Metadata speed_metadata(const model::ModelSpec& spec, const text::TokenizerSpec& tokenizer,
                                 const quant::Codec& nominal) {
  const model::Architecture* architecture = model::find_by_gguf_name(spec.architecture);
  WINNOW_CHECK(architecture != nullptr);
  formats::Metadata metadata("output");
  metadata.set("general.architecture", spec.architecture);
  metadata.set("general.type", std::string("model"));
  metadata.set("general.name", spec.name);
  metadata.set("general.file_type", nominal.file_type);
  metadata.set("general.quantization_version", std::uint32_t{2});
  architecture->write_gguf(spec, metadata);
  model::write_tokenizer_metadata(tokenizer, metadata);
  return metadata;
}

WeightStream::WeightStream(formats::ModelWriter& writer, Bytes total, Log& log)
    : writer_(writer), log_(log), total_(total.value) {
  buffer_.reserve(kBuffer);
}

void WeightStream::append(std::span<const std::byte> bytes) {
  if (buffer_.size() + bytes.size() > kBuffer) flush();
  if (bytes.size() > kBuffer) {
    writer_.append(bytes);
  } else {
    buffer_.insert(buffer_.end(), bytes.begin(), bytes.end());
  }
  done_ += bytes.size();
}

void WeightStream::end_tensor() { flush(); }

void WeightStream::flush() {
  log_.check_interrupt();
  if (!buffer_.empty()) writer_.append(buffer_);
  buffer_.clear();
  log_.progress("writing", done_, total_, "bytes");
}

}  // namespace winnow::tools
