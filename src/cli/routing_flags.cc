// SPDX-FileCopyrightText: The Winnow authors
// SPDX-License-Identifier: Apache-2.0
#include "cli/routing_flags.h"

#include "base/error.h"
#include "cli/options.h"
#include "model/skip_ratios.h"

namespace winnow::cli {
namespace {

constexpr const char* kSkipExperts = "--skip-experts";

/// "15%" or "0.15".
double parse_share(const std::string& text) {
  if (!text.ends_with('%')) return parse_real(text, kSkipExperts, 0, 1);
  return parse_real(text.substr(0, text.size() - 1), kSkipExperts, 0, 100) / 100;
}

std::vector<float> skip_ratios(double share, const model::Checkpoint& checkpoint) {
  const auto stored = model::read_skip_ratios(checkpoint.file(), checkpoint.spec());
  if (!stored) {
    fail(ErrorCode::kUsage,
         "{}: {} has no ratios of router weights to skip experts by; compress the model with "
         "--skip-ratios",
         kSkipExperts, checkpoint.file().name());
  }
  const float most = stored->shares.back();
  if (share > double{most}) {
    fail(ErrorCode::kUsage, "{}: {} is above {}, the largest share that {} has ratios for",
         kSkipExperts, share, most, checkpoint.file().name());
  }
  return stored->at(share);
}

/// "2,12".
engine::RoutingPolicy::PreferCached parse_preference(const std::string& text) {
  constexpr const char* kFlag = "--prefer-cached";
  constexpr std::int64_t kMost = 1 << 16;
  const std::size_t comma = text.find(',');
  if (comma == std::string::npos) {
    fail(ErrorCode::kUsage, "{}: '{}' is not J,M, as in 2,12", kFlag, text);
  }
  return {static_cast<std::uint32_t>(parse_whole(text.substr(0, comma), kFlag, 0, kMost)),
          static_cast<std::uint32_t>(parse_whole(text.substr(comma + 1), kFlag, 1, kMost))};
}

Json share_to_json(const std::optional<double>& share) {
  return share ? Json(*share) : Json(nullptr);
}

}  // namespace

void add_routing(CLI::App& app, RoutingFlags& flags) {
  constexpr std::int64_t kMost = 1 << 16;
  CLI::Option* experts = add_whole(
      app, {"--experts-per-token", "N", "send each token to the best N experts, not the model's k"},
      flags.experts_per_token, 1, kMost);
  CLI::Option* gates = add_whole(
      app,
      {"--gates-over", "N",
       "divide router weights by the sum over the best N experts, where the model divides "
       "them; without it the model's k, so that fewer experts are not weighed up"},
      flags.gates_over, 1, kMost);
  CLI::Option* skip = add_value(
      app,
      {"--skip-experts", "SHARE",
       "skip about this share of the experts, 15% or 0.15: those whose router weight is far below "
       "the best one's; for files of `winnow compress --skip-ratios`"},
      [&flags](const std::string& text) { flags.skip_share = parse_share(text); });
  CLI::Option* prefer = add_value(
      app,
      {"--prefer-cached", "J,M",
       "with experts that are read while running: a token's best J experts, and in the place of "
       "its "
       "others those in memory first, from the best M of the router. Quicker, and other text "
       "than the model's, which depends on what is in memory"},
      [&flags](const std::string& text) { flags.prefer_cached = parse_preference(text); });
  conflict(experts, skip);
  conflict(gates, skip);
  for (CLI::Option* other : {experts, gates, skip}) conflict(other, prefer);
}

engine::RoutingPolicy routing_policy(const RoutingFlags& flags, const model::Checkpoint& checkpoint,
                                     Log& log) {
  const model::ModelSpec& spec = checkpoint.spec();
  engine::RoutingPolicy policy;
  if (!flags.given()) return policy;
  if (spec.num_moe_layers() == 0) {
    fail(ErrorCode::kUsage,
         "{} has no experts: leave out --experts-per-token, --gates-over, --skip-experts and "
         "--prefer-cached",
         checkpoint.file().name());
  }
  policy.experts_per_token = flags.experts_per_token.value_or(0);
  policy.gates_over = flags.gates_over.value_or(0);
  if (flags.skip_share) policy.skip_ratios = skip_ratios(*flags.skip_share, checkpoint);
  if (flags.prefer_cached) policy.prefer_cached = *flags.prefer_cached;
  engine::check_routing_policy(policy, spec);
  if (flags.gates_over && !spec.moe.renormalize_top_k) {
    log.warn("--gates-over changes nothing: this model's router weights are not divided by a sum");
  }
  return policy;
}

Json to_json(const RoutingFlags& flags, const engine::ExpertUse& use) {
  Json json;
  if (flags.experts_per_token) json["experts_per_token"] = *flags.experts_per_token;
  if (flags.gates_over) json["gates_over"] = *flags.gates_over;
  if (flags.skip_share) json["asked_share"] = *flags.skip_share;
  if (flags.prefer_cached) json["redirected_share"] = share_to_json(use.redirected_share());
  json["skipped_share"] = share_to_json(use.skipped_share());
  Json& layers = json["layers"] = Json::array();
  for (const auto& share : use.layer_skipped_shares()) layers.push_back(share_to_json(share));
  return json;
}

std::string to_text(const engine::ExpertUse& use) {
  const auto percent = [](const std::optional<double>& share) {
    return share ? fmt::format("{:.2f}%", 100 * *share) : std::string("-");
  };
  std::string text = fmt::format("experts skipped: {}; by layer:", percent(use.skipped_share()));
  for (const auto& share : use.layer_skipped_shares()) text += fmt::format(" {}", percent(share));
  if (use.redirected_share().value_or(0) > 0) {
    text +=
        fmt::format("; gone to others that were in memory: {}", percent(use.redirected_share()));
  }
  return text;
}

}  // namespace winnow::cli
