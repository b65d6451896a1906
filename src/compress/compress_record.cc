// SPDX-FileCopyrightText: The Winnow authors
// SPDX-License-Identifier: Apache-2.0
// The run record (docs/formats/compress-record.md).
#include "compress/compressor.h"

namespace winnow::compress {
namespace {

Json to_json(const TensorGroup& group, const CompressResult& result) {
  Json json;
  json["role"] = std::string(model::traits(group.role).name);
  if (model::traits(group.role).per_layer) json["layer"] = index(group.layer);
  if (group.only) json["expert"] = index(*group.only);
  if (group.width != 0) json["width"] = group.width;
  json["weights"] = group.weights;
  if (result.predicts_kl) json["kl_per_error"] = group.kl_per_error;
  if (!group.left_out) json["chosen"] = std::string(group.options[group.chosen].codec->name);
  Json options = Json::array();
  for (const GroupOption& option : group.options) {
    options.push_back({{"type", std::string(option.codec->name)},
                       {"bytes", option.bytes.value},
                       {"tensor_bytes", option.payload.value}});
    if (result.measures_options) options.back()["error"] = option.error;
    if (option.rank > 0) options.back()["correction_rank"] = option.rank;
    if (result.predicts_kl) options.back()["predicted_kl"] = option.predicted_kl;
  }
  json["options"] = options;
  return json;
}

}  // namespace

Json to_json(const CompressResult& result) {
  Json json;
  json["file_bytes"] = result.file_bytes.value;
  json["tensor_bytes"] = result.tensor_bytes.value;
  json["parameters"] = result.num_parameters;
  json["bits_per_weight"] = 8.0 * static_cast<double>(result.tensor_bytes.value) /
                            static_cast<double>(result.num_parameters);
  json["calibration_tokens"] = result.calibration_tokens;
  json["probe_tokens"] = result.probe_tokens;
  if (result.predicts_kl) {
    json["predicted_kl"] = result.predicted_kl;
    json["together"] = result.together;
    if (!result.fit_record.is_null()) json["fitted"] = result.fit_record;
  }
  json["allocation"] = result.allocation;
  if (!result.tolerance_record.is_null()) json["attempts"] = result.tolerance_record;
  json.update(result.allocation_record);
  if (result.measured_kl) json["measured"] = {{"kl_divergence", *result.measured_kl}};
  if (result.measured) {
    json["measured"] = metrics::to_json(*result.measured);
  }
  Json groups = Json::array();
  for (const TensorGroup& group : result.groups) groups.push_back(to_json(group, result));
  json["groups"] = groups;
  if (!result.expert_record.is_null()) json["replacements"] = result.expert_record;
  if (!result.counts_record.is_null()) json["expert_counts"] = result.counts_record;
  return json;
}

}  // namespace winnow::compress
