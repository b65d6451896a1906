// SPDX-FileCopyrightText: The Winnow authors
// SPDX-License-Identifier: Apache-2.0
// The JSON header of a statistics file: what the sums are of.
#include <limits>

#include "base/error.h"
#include "compress/statistics_file.h"
#include "model/fingerprint.h"

namespace winnow::compress {

StatisticsHeader describe_model(const model::Checkpoint& checkpoint, const std::string& version,
                                std::size_t context, std::string_view isa) {
  const model::ModelSpec& spec = checkpoint.spec();
  return {.version = version,
          .architecture = spec.architecture,
          .model_fingerprint = model::fingerprint(checkpoint.file()),
          .context = context,
          .isa = std::string(isa),
          .num_hidden_layers = spec.num_hidden_layers,
          .hidden_size = spec.hidden_size,
          .num_experts = spec.moe.num_experts,
          .top_k = spec.moe.top_k,
          .domains = {}};
}

Json to_json(const StatisticsHeader& header) {
  Json json;
  json["format_version"] = kStatisticsVersion;
  json["version"] = header.version;
  json["architecture"] = header.architecture;
  json["model_fingerprint"] = fmt::format("{:016x}", header.model_fingerprint);
  json["context"] = header.context;
  json["isa"] = header.isa;
  json["unit_sequences"] = kUnitSequences;
  json["held_out_every"] = kHeldOutEvery;
  json["num_hidden_layers"] = header.num_hidden_layers;
  json["hidden_size"] = header.hidden_size;
  json["num_experts"] = header.num_experts;
  json["top_k"] = header.top_k;
  json["domains"] = Json::array();
  for (const StatisticsDomain& domain : header.domains) {
    json["domains"].push_back(
        {{"name", domain.name},
         {"sequences", domain.sequences},
         {"held_out_sequences", domain.held_out_sequences},
         {"tokens", domain.tokens},
         {"text_fingerprint", fmt::format("{:016x}", domain.text_fingerprint)}});
  }
  return json;
}

std::string layer_prefix(std::size_t domain, LayerId layer) {
  return fmt::format("domains.{}.layers.{}.", domain, index(layer));
}
std::string output_prefix(std::size_t domain) { return fmt::format("domains.{}.output.", domain); }
std::string teacher_prefix(std::size_t domain) {
  return fmt::format("domains.{}.teacher.", domain);
}

}  // namespace winnow::compress
