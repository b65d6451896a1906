// SPDX-FileCopyrightText: The Winnow authors
// SPDX-License-Identifier: Apache-2.0
#include "compress/expert_errors.h"

#include <algorithm>
#include <cmath>

#include "base/error.h"
#include "compress/output_changes.h"
#include "compress/window_stream.h"

namespace winnow::compress {
namespace {

class Measurement {
 public:
  Measurement(const PackerContext& context, GroupPacker& packer, const WindowBatches& text,
              const WindowStream& stream)
      : context_(context), packer_(packer), text_(text), stream_(stream) {}

  ExpertUse use_of_layer();
  std::vector<std::vector<double>> norms_of(const TensorGroup& group);

 private:
  void run(std::size_t batch, engine::Observer& observer);
  /// What the original's experts give for a batch; with a single one it is computed once a layer.
  void record(std::size_t batch);

  const PackerContext& context_;
  GroupPacker& packer_;
  const WindowBatches& text_;
  const WindowStream& stream_;
  OutputRecord original_;
  std::size_t recorded_ = SIZE_MAX;  // the batch in `original_`
  tensor::Matrix<float> hidden_;
};

void Measurement::run(std::size_t batch, engine::Observer& observer) {
  context_.log.check_interrupt();
  const WindowBatches::Batch& windows = text_.batches[batch];
  hidden_.reshape(windows.tokens, stream_.hidden_size());
  stream_.read_rows(batch, 0, hidden_.view());
  context_.runner.run(windows.lengths, hidden_.view(), &observer);
}

void Measurement::record(std::size_t batch) {
  if (recorded_ == batch) return;
  run(batch, original_);
  recorded_ = batch;
}

ExpertUse Measurement::use_of_layer() {
  const std::size_t experts = context_.source.spec().moe.num_experts;
  ExpertUse use{std::vector<double>(experts), std::vector<double>(experts)};
  for (std::size_t batch = 0; batch < text_.batches.size(); ++batch) {
    record(batch);
    for (std::size_t i = 0; i < original_.experts.size(); ++i) {
      const std::size_t expert = index(original_.experts[i]);
      for (std::size_t s = original_.first[i]; s < original_.first[i + 1]; ++s) {
        use.frequency[expert] += 1;
        use.weight[expert] += double{original_.weights[s]};
      }
    }
  }
  const double tokens = static_cast<double>(text_.tokens);
  for (double& value : use.frequency) value /= tokens;
  for (double& value : use.weight) value /= tokens;
  return use;
}

std::vector<std::vector<double>> Measurement::norms_of(const TensorGroup& group) {
  std::vector<std::vector<double>> norms;
  for (const GroupOption& option : group.options) {
    norms.emplace_back(group.parts);
    if (is_stored_as(context_.source, group, *option.codec)) continue;
    const PackedGroup packed = packer_.noise(group, {option.codec, 0, 0});
    for (std::size_t batch = 0; batch < text_.batches.size(); ++batch) {
      record(batch);
      ChangeSum sum(original_, norms.back());
      context_.runner.override_weights(group.role, packed.parts);
      run(batch, sum);
      context_.runner.restore_weights();
    }
    for (double& value : norms.back()) value = std::sqrt(value);
  }
  return norms;
}

/// "expert_up_proj-3"
std::string key_text(const TensorGroup& group) {
  return fmt::format("{}-{}", model::traits(group.role).name, index(group.layer));
}

}  // namespace

ExpertErrors measure_expert_errors(const PackerContext& context,
                                   const std::vector<TensorGroup>& groups, GroupPacker& packer,
                                   const WindowBatches& text, const std::filesystem::path& states) {
  const model::ModelSpec& spec = context.source.spec();
  ExpertErrors errors;
  WindowStream stream(text, spec.hidden_size, states);
  stream.embed(context.runner, nullptr, context.log);
  for (std::uint32_t layer = 0; layer < spec.num_hidden_layers; ++layer) {
    context.runner.load(LayerId{layer});
    if (spec.is_moe_layer(LayerId{layer})) {
      Measurement measurement(context, packer, text, stream);
      errors.use[layer] = measurement.use_of_layer();
      for (const TensorGroup& group : groups) {
        if (!model::traits(group.role).per_expert || index(group.layer) != layer) continue;
        errors.norms[key_of(group)] = measurement.norms_of(group);
      }
    }
    if (layer + 1 < spec.num_hidden_layers) {
      stream.run(context.runner, stream, nullptr, context.log);
    }
    context.log.progress("rounding experts", layer + 1, spec.num_hidden_layers, "layers");
  }
  return errors;
}

Json to_json(const ExpertErrors& errors, const std::vector<TensorGroup>& groups) {
  Json json = {{"use", Json::object()}, {"norms", Json::object()}};
  for (const auto& [layer, use] : errors.use) {
    json["use"][std::to_string(layer)] = {{"frequency", use.frequency}, {"weight", use.weight}};
  }
  for (const TensorGroup& group : groups) {
    const auto found = errors.norms.find(key_of(group));
    if (found == errors.norms.end()) continue;
    Json& options = json["norms"][key_text(group)];
    for (std::size_t o = 0; o < group.options.size(); ++o) {
      options[std::string(group.options[o].codec->name)] = found->second[o];
    }
  }
  return json;
}

ExpertErrors expert_errors_from_json(const Json& json, const std::vector<TensorGroup>& groups) {
  ExpertErrors errors;
  for (const TensorGroup& group : groups) {
    if (!model::traits(group.role).per_expert) continue;
    const Json& use = json.at("use").at(std::to_string(index(group.layer)));
    errors.use[index(group.layer)] = {use.at("frequency").get<std::vector<double>>(),
                                      use.at("weight").get<std::vector<double>>()};
    auto& norms = errors.norms[key_of(group)];
    for (const GroupOption& option : group.options) {
      norms.push_back(json.at("norms")
                          .at(key_text(group))
                          .at(std::string(option.codec->name))
                          .get<std::vector<double>>());
    }
  }
  return errors;
}

}  // namespace winnow::compress
