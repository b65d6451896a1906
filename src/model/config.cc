// SPDX-FileCopyrightText: The Winnow authors
// SPDX-License-Identifier: Apache-2.0
#include "model/config.h"

#include <cmath>
#include <limits>

#include "base/error.h"

namespace winnow::model {

HfConfig::HfConfig(Json config, std::string source)
    : source_(std::move(source)), config_(std::move(config)) {
  if (!config_.is_object()) fail_data("{}: expected a JSON object", source_);
}

const Json* HfConfig::find(std::string_view key) const {
  const auto found = config_.find(std::string(key));
  return found == config_.end() || found->is_null() ? nullptr : &*found;
}

bool HfConfig::has(std::string_view key) const { return find(key) != nullptr; }

std::uint32_t HfConfig::integer(std::string_view key) const {
  const Json* value = find(key);
  if (value == nullptr) fail_data("{}: key '{}' is missing", source_, key);
  if (!value->is_number_integer() ||
      (value->is_number_unsigned() ? false : value->get<std::int64_t>() < 0) ||
      value->get<std::uint64_t>() > std::numeric_limits<std::uint32_t>::max()) {
    fail_data("{}: key '{}' is {}; expected a non-negative integer below 2^32", source_, key,
              dump_json(*value));
  }
  return value->get<std::uint32_t>();
}

std::uint32_t HfConfig::integer_or(std::string_view key, std::uint32_t otherwise) const {
  return has(key) ? integer(key) : otherwise;
}

double HfConfig::number(std::string_view key) const {
  const Json* value = find(key);
  if (value == nullptr) fail_data("{}: key '{}' is missing", source_, key);
  if (!value->is_number() || !std::isfinite(value->get<double>())) {
    fail_data("{}: key '{}' is {}; expected a finite number", source_, key, dump_json(*value));
  }
  return value->get<double>();
}

double HfConfig::number_or(std::string_view key, double otherwise) const {
  return has(key) ? number(key) : otherwise;
}

bool HfConfig::boolean_or(std::string_view key, bool otherwise) const {
  const Json* value = find(key);
  if (value == nullptr) return otherwise;
  if (!value->is_boolean()) {
    fail_data("{}: key '{}' is {}; expected true or false", source_, key, dump_json(*value));
  }
  return value->get<bool>();
}

std::string HfConfig::string_or(std::string_view key, std::string_view otherwise) const {
  const Json* value = find(key);
  if (value == nullptr) return std::string(otherwise);
  if (!value->is_string()) {
    fail_data("{}: key '{}' is {}; expected a string", source_, key, dump_json(*value));
  }
  return value->get<std::string>();
}

std::vector<std::uint32_t> HfConfig::integers_or_empty(std::string_view key) const {
  std::vector<std::uint32_t> numbers;
  const Json* value = find(key);
  if (value == nullptr) return numbers;
  if (!value->is_array()) {
    fail_data("{}: key '{}' is {}; expected a list", source_, key, dump_json(*value));
  }
  for (const Json& item : *value) {
    if (!item.is_number_unsigned() || item.get<std::uint64_t>() > 0xffffffffU) {
      fail_data("{}: key '{}' holds {}; expected non-negative integers", source_, key,
                dump_json(item));
    }
    numbers.push_back(item.get<std::uint32_t>());
  }
  return numbers;
}

void HfConfig::require(std::string_view key, const Json& only_supported) const {
  const Json* value = find(key);
  if (value != nullptr && *value != only_supported) {
    fail_data("{}: key '{}' is {}; only {} is supported for this architecture", source_, key,
              dump_json(*value), dump_json(only_supported));
  }
}

namespace {

/// Configurations of transformers 5 keep the rotary settings in an object of their own.
double read_rope_theta(const HfConfig& config) {
  if (!config.has("rope_parameters")) return config.number("rope_theta");
  const HfConfig rope(config.json().at("rope_parameters"),
                      config.source() + ": key 'rope_parameters'");
  rope.require("rope_type", "default");
  const double theta = rope.number("rope_theta");
  if (config.number_or("rope_theta", theta) != theta) {
    fail_data("{}: key 'rope_theta' contradicts the one in 'rope_parameters'", config.source());
  }
  return theta;
}

}  // namespace

ModelSpec read_common_hf(const HfConfig& config) {
  ModelSpec spec;
  spec.name = config.string_or("_name_or_path", "");
  spec.vocab_size = config.integer("vocab_size");
  spec.hidden_size = config.integer("hidden_size");
  spec.intermediate_size = config.integer_or("intermediate_size", 0);
  spec.num_hidden_layers = config.integer("num_hidden_layers");
  spec.num_attention_heads = config.integer("num_attention_heads");
  spec.num_key_value_heads = config.integer_or("num_key_value_heads", spec.num_attention_heads);
  const std::uint32_t heads = spec.num_attention_heads;
  spec.head_dim = config.integer_or("head_dim", heads == 0 ? 0 : spec.hidden_size / heads);
  spec.max_position_embeddings = config.integer("max_position_embeddings");
  spec.rms_norm_eps = static_cast<float>(config.number("rms_norm_eps"));
  spec.rope_theta = read_rope_theta(config);
  spec.tie_word_embeddings = config.boolean_or("tie_word_embeddings", false);
  config.require("hidden_act", "silu");
  config.require("rope_scaling", nullptr);
  config.require("use_sliding_window", false);
  if (spec.num_hidden_layers > 10000) {
    fail_data("{}: num_hidden_layers is {}; expected 1 to 10000", config.source(),
              spec.num_hidden_layers);
  }
  spec.moe_layers.assign(spec.num_hidden_layers, false);
  return spec;
}

void write_common_hf(const ModelSpec& spec, Json& config) {
  config["vocab_size"] = spec.vocab_size;
  config["hidden_size"] = spec.hidden_size;
  config["intermediate_size"] = spec.intermediate_size;
  config["num_hidden_layers"] = spec.num_hidden_layers;
  config["num_attention_heads"] = spec.num_attention_heads;
  config["num_key_value_heads"] = spec.num_key_value_heads;
  config["head_dim"] = spec.head_dim;
  config["hidden_act"] = "silu";
  config["max_position_embeddings"] = spec.max_position_embeddings;
  config["rms_norm_eps"] = static_cast<double>(spec.rms_norm_eps);
  config["rope_theta"] = spec.rope_theta;
  config["rope_scaling"] = nullptr;
  config["attention_bias"] = spec.attention_bias;
  config["tie_word_embeddings"] = spec.tie_word_embeddings;
}

GgufConfig::GgufConfig(const formats::Metadata& metadata, std::string architecture)
    : metadata_(metadata), architecture_(std::move(architecture)) {}

std::string GgufConfig::key(std::string_view suffix) const {
  return fmt::format("{}.{}", architecture_, suffix);
}

bool GgufConfig::has(std::string_view suffix) const { return metadata_.contains(key(suffix)); }

std::uint32_t GgufConfig::integer(std::string_view suffix) const {
  const std::uint64_t value = metadata_.integer(key(suffix));
  if (value > std::numeric_limits<std::uint32_t>::max()) {
    fail_data("{}: key '{}' is {}; expected an integer below 2^32", metadata_.source(), key(suffix),
              value);
  }
  return static_cast<std::uint32_t>(value);
}

std::uint32_t GgufConfig::integer_or(std::string_view suffix, std::uint32_t otherwise) const {
  return has(suffix) ? integer(suffix) : otherwise;
}

double GgufConfig::number(std::string_view suffix) const { return metadata_.number(key(suffix)); }

double GgufConfig::number_or(std::string_view suffix, double otherwise) const {
  return has(suffix) ? number(suffix) : otherwise;
}

bool GgufConfig::boolean_or(std::string_view suffix, bool otherwise) const {
  return has(suffix) ? metadata_.boolean(key(suffix)) : otherwise;
}

ModelSpec read_common_gguf(const GgufConfig& config) {
  const formats::Metadata& metadata = config.metadata();
  ModelSpec spec;
  if (metadata.contains("general.name")) spec.name = metadata.string("general.name");
  spec.num_hidden_layers = config.integer("block_count");
  spec.hidden_size = config.integer("embedding_length");
  spec.intermediate_size = config.integer_or("feed_forward_length", 0);
  spec.num_attention_heads = config.integer("attention.head_count");
  spec.num_key_value_heads = config.integer_or("attention.head_count_kv", spec.num_attention_heads);
  const std::uint32_t heads = spec.num_attention_heads;
  spec.head_dim =
      config.integer_or("attention.key_length", heads == 0 ? 0 : spec.hidden_size / heads);
  if (config.integer_or("attention.value_length", spec.head_dim) != spec.head_dim) {
    fail_data("{}: '{}' differs from '{}'; values of another width than keys are not supported",
              metadata.source(), config.key("attention.value_length"),
              config.key("attention.key_length"));
  }
  spec.max_position_embeddings = config.integer("context_length");
  spec.rms_norm_eps = static_cast<float>(config.number("attention.layer_norm_rms_epsilon"));
  spec.rope_theta = config.number_or("rope.freq_base", 10000.0);
  if (config.has("rope.scaling.type") &&
      metadata.string(config.key("rope.scaling.type")) != "none") {
    fail_data("{}: '{}' is '{}'; scaled rotary embeddings are not supported for this architecture",
              metadata.source(), config.key("rope.scaling.type"),
              metadata.string(config.key("rope.scaling.type")));
  }
  if (config.integer_or("rope.dimension_count", spec.head_dim) != spec.head_dim) {
    fail_data("{}: '{}' differs from the head's width {}; partial rotation is not supported",
              metadata.source(), config.key("rope.dimension_count"), spec.head_dim);
  }
  if (spec.num_hidden_layers > 10000) {
    fail_data("{}: '{}' is {}; expected 1 to 10000", metadata.source(), config.key("block_count"),
              spec.num_hidden_layers);
  }
  spec.moe_layers.assign(spec.num_hidden_layers, false);
  return spec;
}

void write_common_gguf(const ModelSpec& spec, formats::Metadata& metadata) {
  const auto key = [&](std::string_view suffix) {
    return fmt::format("{}.{}", spec.architecture, suffix);
  };
  metadata.set(key("block_count"), spec.num_hidden_layers);
  metadata.set(key("context_length"), spec.max_position_embeddings);
  metadata.set(key("embedding_length"), spec.hidden_size);
  metadata.set(key("feed_forward_length"), spec.intermediate_size);
  metadata.set(key("attention.head_count"), spec.num_attention_heads);
  metadata.set(key("attention.head_count_kv"), spec.num_key_value_heads);
  metadata.set(key("attention.key_length"), spec.head_dim);
  metadata.set(key("attention.value_length"), spec.head_dim);
  metadata.set(key("attention.layer_norm_rms_epsilon"), spec.rms_norm_eps);
  metadata.set(key("rope.freq_base"), static_cast<float>(spec.rope_theta));
  metadata.set(key("rope.dimension_count"), spec.head_dim);
  metadata.set(key("vocab_size"), spec.vocab_size);
}

}  // namespace winnow::model
