// SPDX-FileCopyrightText: The Winnow authors
// SPDX-License-Identifier: Apache-2.0
#include "compress/statistics_use.h"

#include <numeric>

#include "base/error.h"

namespace winnow::compress {
namespace {

using engine::Site;

struct DenseSite {
  Site site;
  const char* name;
};
constexpr DenseSite kDenseSites[] = {{Site::kAttentionInput, "attention_input"},
                                     {Site::kAttentionInner, "attention_inner"},
                                     {Site::kFfnInput, "ffn_input"},
                                     {Site::kFfnInner, "ffn_inner"}};

class StatisticsLoader {
 public:
  StatisticsLoader(const StatisticsFile& statistics, const model::ModelSpec& spec,
                   RouterWeights router_weights)
      : statistics_(statistics),
        spec_(spec),
        gated_(router_weights == RouterWeights::kSquared),
        moments_(spec, router_weights) {}

  void add_domain(std::size_t domain, double weight) {
    weight_ = weight;
    for (std::uint32_t l = 0; l < spec_.num_hidden_layers; ++l) {
      const std::string prefix = layer_prefix(domain, LayerId{l});
      for (const DenseSite& site : kDenseSites) {
        if (statistics_.find(prefix + site.name + "_squares") == nullptr) continue;
        add_dense(site.site, LayerId{l}, prefix + site.name);
      }
      if (spec_.is_moe_layer(LayerId{l})) add_experts(LayerId{l}, prefix);
    }
    if (gated_) add_dense(Site::kOutputInput, {}, output_prefix(domain) + "output_input");
  }
  InputMoments take() { return std::move(moments_); }

 private:
  std::size_t width(Site site) const {
    switch (site) {
      case Site::kAttentionInner:
        return spec_.query_width();
      case Site::kFfnInner:
        return spec_.intermediate_size;
      case Site::kExpertInner:
        return spec_.moe.moe_intermediate_size;
      default:
        return spec_.hidden_size;
    }
  }

  std::vector<double> read(const std::string& array, std::size_t expected) const {
    std::vector<double> values = statistics_.doubles(array);
    if (values.size() != expected) {
      fail_data("{}: array '{}' has {} elements, expected {}", statistics_.name(), array,
                values.size(), expected);
    }
    for (double& value : values) value *= weight_;
    return values;
  }

  void add_dense(Site site, LayerId layer, const std::string& name) {
    const auto squares = read(name + "_squares", width(site));
    const auto tokens = statistics_.counts(name + "_tokens");
    if (tokens.size() != 1) fail_data("{}: '{}_tokens' is no number", statistics_.name(), name);
    moments_.add(site, layer, {}, squares, weight_ * static_cast<double>(tokens[0]), tokens[0]);
  }

  void add_experts(LayerId layer, const std::string& prefix) {
    const std::size_t experts = spec_.moe.num_experts;
    const auto hits = statistics_.counts(prefix + "hits");  // their number has been checked
    const auto gates = read(prefix + "gate_gram", experts * experts);
    for (const auto& [site, name] : {std::pair(Site::kExpertInput, "expert_input_squares"),
                                     std::pair(Site::kExpertInner, "expert_inner_squares")}) {
      const auto squares = read(prefix + (gated_ ? "gated_" : "") + name, experts * width(site));
      for (std::uint32_t e = 0; e < experts; ++e) {
        if (hits[e] == 0) continue;
        moments_.add(site, layer, ExpertId{e},
                     std::span<const double>(squares).subspan(e * width(site), width(site)),
                     gated_ ? gates[e * experts + e] : weight_ * static_cast<double>(hits[e]),
                     hits[e]);
      }
    }
  }

  const StatisticsFile& statistics_;
  const model::ModelSpec& spec_;
  bool gated_;
  InputMoments moments_;
  double weight_ = 1;
};

void require(bool condition, const StatisticsFile& statistics) {
  if (condition) return;
  fail_data("{}: the held-out sequences are damaged: lengths and tokens do not agree",
            statistics.name());
}

}  // namespace

InputMoments load_moments(const StatisticsFile& statistics, const model::ModelSpec& spec,
                          const DomainWeight& weight, RouterWeights router_weights) {
  StatisticsLoader loader(statistics, spec, router_weights);
  for (std::size_t d = 0; d < statistics.header().domains.size(); ++d) {
    const double share = weight(statistics.header().domains[d].name);
    if (share > 0) loader.add_domain(d, share);
  }
  return loader.take();
}

metrics::WindowSet held_out_text(const StatisticsFile& statistics, std::uint32_t vocab_size) {
  metrics::WindowSet text;
  for (std::size_t d = 0; d < statistics.header().domains.size(); ++d) {
    text.domains.push_back(statistics.header().domains[d].name);
    const std::string prefix = teacher_prefix(d);
    if (statistics.find(prefix + "tokens") == nullptr) continue;
    const auto lengths = statistics.integers(prefix + "window_lengths");
    const auto first_scored = statistics.integers(prefix + "first_scored");
    const auto tokens = statistics.integers(prefix + "tokens");
    require(lengths.size() == first_scored.size(), statistics);
    std::size_t at = 0;
    for (std::size_t w = 0; w < lengths.size(); ++w) {
      require(first_scored[w] >= 1 && lengths[w] > first_scored[w], statistics);
      const auto length = static_cast<std::size_t>(lengths[w]);
      require(length <= tokens.size() - at, statistics);
      metrics::Window window{d, {}, static_cast<std::size_t>(first_scored[w])};
      for (std::size_t t = 0; t < length; ++t) {
        const std::int32_t token = tokens[at + t];
        require(token >= 0 && static_cast<std::uint32_t>(token) < vocab_size, statistics);
        window.tokens.push_back(TokenId{token});
      }
      at += length;
      text.windows.push_back(std::move(window));
    }
    require(at == tokens.size(), statistics);
  }
  return text;
}

}  // namespace winnow::compress
