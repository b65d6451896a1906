// SPDX-FileCopyrightText: The Winnow authors
// SPDX-License-Identifier: Apache-2.0
// Any bytes as config.json, read by every architecture: either refused with a message, or a spec
// within its limits that survives being written and read.
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <string_view>

#include "base/error.h"
#include "model/architecture.h"
#include "model/roles.h"

namespace {

using namespace winnow::model;

void require(bool condition) {
  if (!condition) std::abort();  // libFuzzer keeps the input
}

/// Shapes of a checked spec can be multiplied without overflow.
void check_shapes(const ModelSpec& spec) {
  for (const RoleTraits& traits : all_roles()) {
    const std::uint32_t layers = traits.per_layer ? spec.num_hidden_layers : 1;
    for (std::uint32_t layer = 0; layer < layers; ++layer) {
      const auto shape = expected_shape(spec, traits.role, winnow::LayerId{layer});
      if (shape) require(shape->checked_elements().value_or(0) > 0);
    }
  }
}

void check_architecture(const Architecture& architecture, const winnow::Json& config) {
  ModelSpec spec;
  try {
    spec = architecture.read_hf(HfConfig(config, "fuzz"));
    spec.architecture = architecture.gguf_name;
    check_spec(spec, "fuzz");
  } catch (const winnow::Error& error) {
    require(error.code() == winnow::ErrorCode::kBadData);
    return;
  }
  check_shapes(spec);
  require(!describe_router(spec).empty());
  if (architecture.lost_in_llama_cpp != nullptr) architecture.lost_in_llama_cpp(spec);
  winnow::Json written;
  architecture.write_hf(spec, written);
  const ModelSpec again = architecture.read_hf(HfConfig(written, "written"));
  require(again.moe_layers == spec.moe_layers && again.hidden_size == spec.hidden_size);
  require(again.head_dim == spec.head_dim && again.moe.top_k == spec.moe.top_k);
  require(again.rms_norm_eps == spec.rms_norm_eps && again.rope_theta == spec.rope_theta);
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const std::string_view text(reinterpret_cast<const char*>(data), size);
  winnow::Json config;
  try {
    config = winnow::parse_json(text, "fuzz");
  } catch (const winnow::Error& error) {
    require(error.code() == winnow::ErrorCode::kBadData);
    return 0;
  }
  for (const Architecture* architecture : all_architectures()) {
    check_architecture(*architecture, config);
  }
  return 0;
}
