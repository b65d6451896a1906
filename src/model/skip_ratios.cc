// SPDX-FileCopyrightText: The Winnow authors
// SPDX-License-Identifier: Apache-2.0
#include "model/skip_ratios.h"

#include <algorithm>

#include <cstdint>
#include <span>

#include "base/error.h"

namespace winnow::model {
namespace {

constexpr std::string_view kVersionKey = "winnow.policy.version";
constexpr std::string_view kSharesKey = "winnow.policy.skip_shares";
constexpr std::string_view kRatiosKey = "winnow.policy.skip_ratios";
constexpr std::uint32_t kVersion = 1;
constexpr std::size_t kMostShares = 1000;

/// Numbers in [0, 1]. Written so that NaN is refused.
std::vector<float> fractions_of(const formats::Metadata& metadata, std::string_view key) {
  std::vector<float> values;
  for (const double value : metadata.numbers(key)) {
    if (!(value >= 0 && value <= 1)) {
      fail_data("{}: key '{}' holds {}; expected 0 to 1", metadata.source(), key, value);
    }
    values.push_back(static_cast<float>(value));
  }
  return values;
}

std::vector<float> read_shares(const formats::Metadata& metadata) {
  std::vector<float> shares = fractions_of(metadata, kSharesKey);
  if (shares.empty() || shares.size() > kMostShares) {
    fail_data("{}: key '{}' has {} elements; expected 1 to {}", metadata.source(), kSharesKey,
              shares.size(), kMostShares);
  }
  float last = 0;
  for (const float share : shares) {
    if (share <= last) {
      fail_data("{}: key '{}' holds {} after {}; expected rising shares above 0", metadata.source(),
                kSharesKey, share, last);
    }
    last = share;
  }
  return shares;
}

void require_plausible_layer(const formats::Metadata& metadata, std::span<const float> ratios,
                             std::uint32_t layer, bool has_experts) {
  if (!std::is_sorted(ratios.begin(), ratios.end())) {
    fail_data("{}: key '{}' falls within layer {}; expected ratios that rise with the share",
              metadata.source(), kRatiosKey, layer);
  }
  if (!has_experts && ratios.back() != 0) {
    fail_data("{}: key '{}' holds {} for layer {}, which has no experts; expected 0",
              metadata.source(), kRatiosKey, ratios.back(), layer);
  }
}

}  // namespace

std::vector<float> SkipRatios::at(double share) const {
  WINNOW_CHECK(share >= 0 && share <= double{shares.back()});
  // The stored share at or above, and the one before it.
  const auto above = std::lower_bound(shares.begin(), shares.end(), share) - shares.begin();
  const auto next = static_cast<std::size_t>(above);
  const double low = next == 0 ? 0.0 : double{shares[next - 1]};
  const double weight = (share - low) / (double{shares[next]} - low);
  std::vector<float> result;
  for (std::size_t layer = 0; layer < ratios.size() / shares.size(); ++layer) {
    const float* row = ratios.data() + layer * shares.size();
    const double from = next == 0 ? 0.0 : double{row[next - 1]};
    result.push_back(static_cast<float>(from + weight * (double{row[next]} - from)));
  }
  return result;
}

std::optional<SkipRatios> read_skip_ratios(const formats::ModelFile& file, const ModelSpec& spec) {
  const formats::Metadata& metadata = file.metadata();
  if (file.format() != "GGUF" || !metadata.contains(kVersionKey)) return std::nullopt;
  const std::uint64_t version = metadata.integer(kVersionKey);
  if (version != kVersion) {
    fail_data("{}: key '{}' is {}; this program knows version {}", metadata.source(), kVersionKey,
              version, kVersion);
  }
  SkipRatios result{read_shares(metadata), fractions_of(metadata, kRatiosKey)};
  const std::size_t shares = result.shares.size();
  if (result.ratios.size() != shares * spec.num_hidden_layers) {
    fail_data("{}: key '{}' has {} elements; expected {}: {} for each of {} layers",
              metadata.source(), kRatiosKey, result.ratios.size(), shares * spec.num_hidden_layers,
              shares, spec.num_hidden_layers);
  }
  for (std::uint32_t layer = 0; layer < spec.num_hidden_layers; ++layer) {
    require_plausible_layer(metadata, std::span(result.ratios).subspan(layer * shares, shares),
                            layer, spec.is_moe_layer(LayerId{layer}));
  }
  return result;
}

std::vector<std::pair<std::string, formats::Value>> skip_ratio_metadata(const SkipRatios& ratios) {
  return {{std::string(kVersionKey), kVersion},
          {std::string(kSharesKey), formats::Array(ratios.shares)},
          {std::string(kRatiosKey), formats::Array(ratios.ratios)}};
}

}  // namespace winnow::model
