// SPDX-FileCopyrightText: The Winnow authors
// SPDX-License-Identifier: Apache-2.0
#include "model/spec.h"

#include <algorithm>
#include <array>
#include <string_view>

#include "base/error.h"

namespace winnow::model {
namespace {

// Far above any known model, and small enough that products of three sizes fit 64 bits.
constexpr std::uint32_t kMaxSize = 1U << 21;

struct SizeRule {
  std::string_view key;
  std::uint32_t value;
  std::uint32_t least;
  std::uint32_t most;
};

void check_moe(const ModelSpec& spec, const std::string& source) {
  const MoeSpec& moe = spec.moe;
  if (moe.num_experts == 0 || moe.num_experts > 65536) {
    fail_data("{}: num_experts is {}; expected 1 to 65536", source, moe.num_experts);
  }
  if (moe.top_k == 0 || moe.top_k > moe.num_experts) {
    fail_data("{}: num_experts_per_tok is {}; expected 1 to num_experts = {}", source, moe.top_k,
              moe.num_experts);
  }
  if (moe.moe_intermediate_size == 0 || moe.moe_intermediate_size > kMaxSize) {
    fail_data("{}: moe_intermediate_size is {}; expected 1 to {}", source,
              moe.moe_intermediate_size, kMaxSize);
  }
}

}  // namespace

std::uint32_t ModelSpec::num_moe_layers() const {
  return static_cast<std::uint32_t>(std::count(moe_layers.begin(), moe_layers.end(), true));
}

std::uint32_t ModelSpec::num_experts(LayerId layer) const {
  if (!is_moe_layer(layer)) return 0;
  if (!has_varied_experts()) return moe.num_experts;
  return static_cast<std::uint32_t>(varied_experts[index(layer)].size());
}

ExpertShape ModelSpec::expert(LayerId layer, ExpertId expert) const {
  if (!has_varied_experts()) return {ExpertKind::kFeedForward, moe.moe_intermediate_size};
  return varied_experts[index(layer)].at(index(expert));
}

ExpertId ModelSpec::owner_of(LayerId layer, ExpertId expert) const {
  const ExpertShape shape = this->expert(layer, expert);
  return shape.kind == ExpertKind::kShared ? ExpertId{shape.shared_with} : expert;
}

bool ModelSpec::has_shared_experts() const {
  return std::any_of(varied_experts.begin(), varied_experts.end(), [](const auto& layer) {
    return std::any_of(layer.begin(), layer.end(), [](const ExpertShape& expert) {
      return expert.kind == ExpertKind::kShared;
    });
  });
}

std::size_t ModelSpec::experts_before(LayerId layer) const {
  std::size_t count = 0;
  for (std::uint32_t l = 0; l < index(layer); ++l) count += num_experts(LayerId{l});
  return count;
}

void check_spec(const ModelSpec& spec, const std::string& source) {
  const std::array rules = {
      SizeRule{"num_hidden_layers", spec.num_hidden_layers, 1, 10000},
      SizeRule{"hidden_size", spec.hidden_size, 1, kMaxSize},
      SizeRule{"vocab_size", spec.vocab_size, 1, 1U << 24},
      SizeRule{"num_attention_heads", spec.num_attention_heads, 1, 65536},
      SizeRule{"num_key_value_heads", spec.num_key_value_heads, 1, spec.num_attention_heads},
      SizeRule{"head_dim", spec.head_dim, 1, 65536},
      SizeRule{"max_position_embeddings", spec.max_position_embeddings, 1, 1U << 30},
  };
  for (const SizeRule& rule : rules) {
    if (rule.value < rule.least || rule.value > rule.most) {
      fail_data("{}: {} is {}; expected {} to {}", source, rule.key, rule.value, rule.least,
                rule.most);
    }
  }
  if (spec.num_attention_heads % spec.num_key_value_heads != 0) {
    fail_data("{}: num_attention_heads {} is not a multiple of num_key_value_heads {}", source,
              spec.num_attention_heads, spec.num_key_value_heads);
  }
  if (spec.head_dim % 2 != 0) {
    fail_data("{}: head_dim is {}; rotary embedding needs an even one", source, spec.head_dim);
  }
  if (std::uint64_t{spec.num_attention_heads} * spec.head_dim > kMaxSize) {
    fail_data("{}: num_attention_heads * head_dim = {} x {} is beyond {}", source,
              spec.num_attention_heads, spec.head_dim, kMaxSize);
  }
  if (!(spec.rms_norm_eps >= 0 && spec.rms_norm_eps < 1)) {
    fail_data("{}: rms_norm_eps is {}; expected a small non-negative number", source,
              spec.rms_norm_eps);
  }
  if (!(spec.rope_theta >= 1 && spec.rope_theta < 1e12)) {
    fail_data("{}: rope_theta is {}; expected 1 to 1e12", source, spec.rope_theta);
  }
  WINNOW_CHECK(spec.moe_layers.size() == spec.num_hidden_layers);
  if (spec.num_moe_layers() > 0) check_moe(spec, source);
  if (spec.num_moe_layers() < spec.num_hidden_layers &&
      (spec.intermediate_size == 0 || spec.intermediate_size > kMaxSize)) {
    fail_data("{}: intermediate_size is {}; expected 1 to {}", source, spec.intermediate_size,
              kMaxSize);
  }
}

std::string describe_router(const ModelSpec& spec) {
  if (spec.num_moe_layers() == 0) return "none (dense model)";
  return fmt::format("softmax over {} experts, top {}, weights {}", spec.moe.num_experts,
                     spec.moe.top_k,
                     spec.moe.renormalize_top_k ? "renormalised to sum 1" : "not renormalised");
}

}  // namespace winnow::model
