// SPDX-FileCopyrightText: The Winnow authors
// SPDX-License-Identifier: Apache-2.0
#include "metrics/evaluation.h"

#include <algorithm>
#include <cmath>

#include "base/error.h"
#include "metrics/distribution.h"

namespace winnow::metrics {
namespace {

/// Collects the chosen experts of one window: [layer][tokens * top_k], those that are used first
/// and sorted per token, by the numbers that they have in the model they were taken from.
class RoutingRecorder final : public engine::Observer {
 public:
  explicit RoutingRecorder(const model::ModelSpec& spec) : spec_(spec) {}

  void on_routing(LayerId layer, tensor::MatrixView<const float> /*logits*/,
                  const engine::RoutingView& routing) override {
    if (index(layer) >= layers_.size()) layers_.resize(index(layer) + std::size_t{1});
    auto& [chosen, used] = layers_[index(layer)];
    chosen.assign(routing.experts.begin(), routing.experts.end());
    if (!spec_.source_experts.empty()) {
      const std::size_t first = spec_.experts_before(layer);
      for (ExpertId& expert : chosen) {
        expert = ExpertId{spec_.source_experts[first + index(expert)]};
      }
    }
    top_k_ = routing.top_k;
    used.clear();
    for (std::size_t t = 0; t < chosen.size() / top_k_; ++t) {
      used.push_back(routing.used_of(t));
      const auto first = chosen.begin() + static_cast<std::ptrdiff_t>(t * top_k_);
      std::sort(first, first + static_cast<std::ptrdiff_t>(used.back()));
    }
  }
  void clear() { layers_.clear(); }
  std::size_t top_k() const { return top_k_; }
  std::size_t layers() const { return layers_.size(); }
  /// Those that a token really went to; empty for dense layers.
  std::span<const ExpertId> used(std::size_t layer, std::size_t token) const {
    const Layer& of = layers_[layer];
    if (of.chosen.empty()) return {};
    return std::span(of.chosen).subspan(token * top_k_, of.used[token]);
  }

 private:
  struct Layer {
    std::vector<ExpertId> chosen;
    std::vector<std::size_t> used;  // [tokens]
  };
  const model::ModelSpec& spec_;
  std::size_t top_k_ = 0;
  std::vector<Layer> layers_;
};

/// Mean over MoE layers of the share of experts that both models chose for `token`.
double routing_overlap(const RoutingRecorder& a, const RoutingRecorder& b, std::size_t token) {
  double sum = 0;
  std::size_t layers = 0;
  for (std::size_t l = 0; l < a.layers(); ++l) {
    const auto of_a = a.used(l, token);
    const auto of_b = b.used(l, token);
    if (of_a.empty()) continue;
    std::vector<ExpertId> shared;
    std::set_intersection(of_a.begin(), of_a.end(), of_b.begin(), of_b.end(),
                          std::back_inserter(shared));
    sum += static_cast<double>(shared.size()) / static_cast<double>(a.top_k());
    ++layers;
  }
  return layers == 0 ? 0 : sum / static_cast<double>(layers);
}

/// What one scored token adds.
struct TokenScore {
  double nll = 0;
  Divergence divergence;
  double routing = 0;
};

/// Sums of one domain; windows are the clusters of the standard errors.
class Accumulator {
 public:
  void add_window(std::span<const TokenScore> scores) {
    double nll = 0;
    double kl = 0;
    for (const TokenScore& score : scores) {
      nll += score.nll;
      kl += score.divergence.kl;
      same_top_ += score.divergence.same_top ? 1 : 0;
      routing_ += score.routing;
      overlap_ += 1 - score.divergence.total_variation;
      kls_.push_back(static_cast<float>(score.divergence.kl));
    }
    windows_.push_back({static_cast<double>(scores.size()), nll, kl});
  }

  Scores result() {
    Scores scores;
    double nll = 0;
    double kl = 0;
    double tokens = 0;
    for (const Cluster& window : windows_) {
      tokens += window.tokens;
      nll += window.nll;
      kl += window.kl;
    }
    if (tokens == 0) return scores;
    scores.tokens = static_cast<std::uint64_t>(tokens);
    scores.nll = nll / tokens;
    scores.kl_divergence = kl / tokens;
    scores.nll_standard_error = standard_error(&Cluster::nll, scores.nll, tokens);
    scores.kl_standard_error = standard_error(&Cluster::kl, scores.kl_divergence, tokens);
    scores.top1_agreement = same_top_ / tokens;
    scores.routing_agreement = routing_ / tokens;
    scores.esap = overlap_ / tokens;
    // Nearest rank: the smallest value that at least 99 % of all do not exceed.
    const std::size_t rank = (kls_.size() * 99 + 99) / 100 - 1;
    std::nth_element(kls_.begin(), kls_.begin() + static_cast<std::ptrdiff_t>(rank), kls_.end());
    scores.kl_p99 = kls_[rank];
    return scores;
  }

 private:
  struct Cluster {
    double tokens, nll, kl;
  };
  /// Of a ratio of cluster sums: sqrt(sum of squared residuals * C / (C - 1)) / tokens.
  double standard_error(double Cluster::*member, double mean, double tokens) const {
    if (windows_.size() < 2) return 0;
    double sum = 0;
    for (const Cluster& window : windows_) {
      const double residual = window.*member - mean * window.tokens;
      sum += residual * residual;
    }
    const auto clusters = static_cast<double>(windows_.size());
    return std::sqrt(sum * clusters / (clusters - 1)) / tokens;
  }

  std::vector<Cluster> windows_;
  std::vector<float> kls_;
  double same_top_ = 0;
  double routing_ = 0;
  double overlap_ = 0;
};

/// Whether routing can be compared layer by layer.
bool same_moe_layers(const model::ModelSpec& a, const model::ModelSpec& b) {
  return a.num_moe_layers() > 0 && a.moe_layers == b.moe_layers;
}

/// A mean over NaN or infinity would say nothing about the other tokens.
void require_finite(std::span<const TokenScore> scores) {
  for (std::size_t t = 0; t < scores.size(); ++t) {
    if (!std::isfinite(scores[t].nll) || !std::isfinite(scores[t].divergence.kl)) {
      fail_data(
          "the logits of token {} of a window are not finite; the output matrix of the model or "
          "of the reference is damaged",
          t);
    }
  }
}

class Evaluator {
 public:
  Evaluator(engine::Engine& model, engine::Engine* reference, std::size_t context)
      : model_(model),
        reference_(reference),
        same_moe_layers_(reference != nullptr && same_moe_layers(model.spec(), reference->spec())),
        cache_(model.make_cache(context)),
        routing_(model.spec()),
        reference_routing_((reference == nullptr ? model : *reference).spec()) {
    if (reference != nullptr) reference_cache_.emplace(reference->make_cache(context));
  }

  std::vector<TokenScore> score(const Window& window);
  bool compares_routing() const { return same_moe_layers_; }

 private:
  tensor::MatrixView<const float> run(engine::Engine& engine, engine::KvCache& cache,
                                      const Window& window, RoutingRecorder& routing);

  engine::Engine& model_;
  engine::Engine* reference_;
  bool same_moe_layers_;
  engine::KvCache cache_;
  std::optional<engine::KvCache> reference_cache_;
  RoutingRecorder routing_, reference_routing_;
  tensor::Matrix<float> logits_, reference_logits_;
};

tensor::MatrixView<const float> Evaluator::run(engine::Engine& engine, engine::KvCache& cache,
                                               const Window& window, RoutingRecorder& routing) {
  cache.truncate(0);
  routing.clear();
  const engine::SequenceInput input{&cache, window.tokens};
  return engine.forward(std::span(&input, 1), reference_ == nullptr ? nullptr : &routing);
}

std::vector<TokenScore> Evaluator::score(const Window& window) {
  const auto hidden = run(model_, cache_, window, routing_);
  tensor::MatrixView<const float> reference_hidden;
  if (reference_ != nullptr) {
    reference_hidden = run(*reference_, *reference_cache_, window, reference_routing_);
  }
  std::vector<TokenScore> scores(window.scored());
  const std::size_t vocab = model_.spec().vocab_size;
  for (std::size_t first = 0; first < scores.size(); first += kLogitRows) {
    const std::size_t rows = std::min(kLogitRows, scores.size() - first);
    // Row p predicts token p + 1.
    const std::size_t position = window.first_scored - 1 + first;
    if (logits_.rows() != rows) logits_ = tensor::Matrix<float>(rows, vocab);
    model_.logits(hidden.rows_from(position, rows), logits_.view());
    if (reference_ != nullptr) {
      if (reference_logits_.rows() != rows) reference_logits_ = tensor::Matrix<float>(rows, vocab);
      reference_->logits(reference_hidden.rows_from(position, rows), reference_logits_.view());
    }
    model_.pool().run(rows, [&](std::size_t r, unsigned) {
      const auto logits = std::as_const(logits_).row(r);
      const auto target = static_cast<std::size_t>(index(window.tokens[position + r + 1]));
      TokenScore& score = scores[first + r];
      score.nll = log_sum_exp(logits) - double{logits[target]};
      if (reference_ == nullptr) return;
      score.divergence = compare(std::as_const(reference_logits_).row(r), logits);
      if (same_moe_layers_) {
        score.routing = routing_overlap(reference_routing_, routing_, position + r);
      }
    });
  }
  require_finite(scores);
  return scores;
}

void append(std::vector<ScoredToken>& tokens, std::span<const TokenScore> scores,
            std::size_t domain, std::size_t window) {
  for (const TokenScore& score : scores) {
    tokens.push_back({domain, window, score.nll, score.divergence.kl, score.divergence.same_top});
  }
}

Json to_json(const Scores& scores, const Evaluation& evaluation) {
  Json json;
  json["tokens"] = scores.tokens;
  json["nll"] = scores.nll;
  json["nll_standard_error"] = scores.nll_standard_error;
  json["perplexity"] = std::exp(scores.nll);
  if (!evaluation.has_reference) return json;
  json["kl_divergence"] = scores.kl_divergence;
  json["kl_standard_error"] = scores.kl_standard_error;
  json["kl_p99"] = scores.kl_p99;
  json["top1_agreement"] = scores.top1_agreement;
  if (evaluation.has_routing) json["routing_agreement"] = scores.routing_agreement;
  json["esap"] = scores.esap;
  return json;
}

}  // namespace

Evaluation evaluate(engine::Engine& model, engine::Engine* reference, const WindowSet& windows,
                    Log& log, std::vector<ScoredToken>* tokens) {
  if (reference != nullptr && reference->spec().vocab_size != model.spec().vocab_size) {
    fail_data("the reference has a vocabulary of {}, the model one of {}; they cannot be compared",
              reference->spec().vocab_size, model.spec().vocab_size);
  }
  std::size_t context = 1;
  for (const Window& window : windows.windows) context = std::max(context, window.tokens.size());
  Evaluator evaluator(model, reference, context);
  Accumulator all;
  std::vector<Accumulator> domains(windows.domains.size());
  const std::uint64_t total = windows.scored_tokens();
  std::uint64_t done = 0;
  if (tokens != nullptr) tokens->clear();
  for (const Window& window : windows.windows) {
    log.check_interrupt();
    const std::vector<TokenScore> scores = evaluator.score(window);
    if (tokens != nullptr) {
      const auto number = static_cast<std::size_t>(&window - windows.windows.data());
      append(*tokens, scores, window.domain, number);
    }
    all.add_window(scores);
    domains[window.domain].add_window(scores);
    done += scores.size();
    log.progress("evaluating", done, total, "tokens");
  }
  Evaluation evaluation;
  evaluation.has_reference = reference != nullptr;
  evaluation.has_routing = evaluator.compares_routing();
  evaluation.all = all.result();
  for (std::size_t d = 0; d < domains.size(); ++d) {
    const Scores scores = domains[d].result();
    if (scores.tokens > 0) evaluation.domains.emplace_back(windows.domains[d], scores);
  }
  return evaluation;
}

Json to_json(const Evaluation& evaluation) {
  Json json = to_json(evaluation.all, evaluation);
  Json domains = Json::object();
  for (const auto& [name, scores] : evaluation.domains) domains[name] = to_json(scores, evaluation);
  json["domains"] = domains;
  return json;
}

Json to_json(std::span<const ScoredToken> tokens, std::span<const std::string> domains,
             bool has_reference) {
  Json json;
  json["domains"] = std::vector<std::string>(domains.begin(), domains.end());
  json["has_reference"] = has_reference;
  const auto column = [&](const char* name, auto value) {
    Json& list = json[name] = Json::array();
    for (const ScoredToken& token : tokens) list.push_back(value(token));
  };
  column("domain", [](const ScoredToken& token) { return token.domain; });
  column("window", [](const ScoredToken& token) { return token.window; });
  column("nll", [](const ScoredToken& token) { return token.nll; });
  if (!has_reference) return json;
  column("kl_divergence", [](const ScoredToken& token) { return token.kl; });
  column("same_top", [](const ScoredToken& token) { return token.same_top; });
  return json;
}

}  // namespace winnow::metrics
