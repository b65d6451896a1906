// SPDX-FileCopyrightText: The Winnow authors
// SPDX-License-Identifier: Apache-2.0
// `winnow eval`: perplexity on text, and the distance from a reference model.
#include <cmath>
#include <memory>
#include <optional>
#include <span>

#include "base/error.h"
#include "base/json.h"
#include "cli/command.h"
#include "cli/context.h"
#include "cli/loading.h"
#include "cli/memory_flags.h"
#include "cli/options.h"
#include "cli/routing_flags.h"
#include "compress/key_entropy.h"
#include "engine/engine.h"
#include "metrics/evaluation.h"
#include "metrics/neuron_dropper.h"
#include "metrics/sparsity.h"
#include "metrics/text_data.h"
#include "model/checkpoint.h"

namespace winnow::cli {
namespace {

// Of the memory, where two models have to share it.
constexpr double kReferenceShare = 0.5;

struct Options {
  std::string model;
  std::vector<std::string> data;
  std::optional<std::string> reference;
  std::size_t context = 512;
  std::uint64_t tokens = 0;
  unsigned threads = 0;
  std::string isa;
  kernels::KvType kv_type = kernels::KvType::kF32;
  std::optional<std::string> json;
  std::optional<std::string> tokens_out;
  std::optional<std::string> sparsity;
  std::vector<std::string> sparsity_data;
  std::uint64_t sparsity_tokens = 16384;
  bool key_entropy = false;
  RoutingFlags routing;
  MemoryFlags memory;
};

void print_scores(Output& out, std::string_view name, const metrics::Scores& scores,
                  const metrics::Evaluation& evaluation) {
  out.write(fmt::format("{:<16} {:>8} {:>9.4f} {:>11.3f}", name, scores.tokens, scores.nll,
                        std::exp(scores.nll)));
  if (evaluation.has_reference) {
    const std::string routing =
        evaluation.has_routing ? fmt::format("{:.2f}%", 100 * scores.routing_agreement) : "-";
    out.write(fmt::format(" {:>9.5f} {:>8.5f} {:>8.4f} {:>7.2f}% {:>8} {:>7.4f}",
                          scores.kl_divergence, scores.kl_standard_error, scores.kl_p99,
                          100 * scores.top1_agreement, routing, scores.esap));
  }
  out.write("\n");
}

void print_table(Output& out, const metrics::Evaluation& evaluation) {
  out.write(fmt::format("{:<16} {:>8} {:>9} {:>11}", "domain", "tokens", "nll", "perplexity"));
  if (evaluation.has_reference) {
    out.write(fmt::format(" {:>9} {:>8} {:>8} {:>8} {:>8} {:>7}", "mean KL", "+-", "KL p99",
                          "same top", "routing", "ESAP"));
  }
  out.write("\n");
  for (const auto& [name, scores] : evaluation.domains) {
    print_scores(out, name, scores, evaluation);
  }
  print_scores(out, "all", evaluation.all, evaluation);
}

void print_sparsity(Output& out, const metrics::NeuronDropper& dropper) {
  const auto percent = [](const std::optional<double>& share) {
    return share ? fmt::format("{:.1f}%", 100 * *share) : std::string("-");
  };
  out.write(fmt::format("neurons left out: {}; by layer:", percent(dropper.sparsity())));
  for (const auto& share : dropper.layer_sparsity()) out.write(fmt::format(" {}", percent(share)));
  out.write("\n");
}

void print_key_entropy(Output& out, const compress::KeyEntropy& entropy) {
  out.write(fmt::format("{:<6} {:>13}  {}\n", "layer", "nuclear norm", "key entropy by head"));
  for (std::size_t l = 0; l < entropy.heads.size(); ++l) {
    out.write(fmt::format("{:<6} {:>13.4f} ", l, entropy.nuclear_norms[l]));
    for (const double head : entropy.heads[l]) out.write(fmt::format(" {:.3f}", head));
    out.write("\n");
  }
}

void require_same_tokens(const text::Tokenizer& a, const text::Tokenizer& b) {
  if (a.spec().tokens != b.spec().tokens) {
    fail_data("model and reference have different vocabularies; they cannot be compared");
  }
}

void require_positions(const model::Checkpoint& checkpoint, std::size_t context) {
  if (context <= checkpoint.spec().max_position_embeddings) return;
  fail(ErrorCode::kUsage, "--context: {} is beyond the {} positions of {}", context,
       checkpoint.spec().max_position_embeddings, checkpoint.file().name());
}

/// One list per measure over all scored tokens: what a paired comparison of models needs.
void write_tokens(const Options& options, Context& context, const metrics::WindowSet& windows,
                  std::span<const metrics::ScoredToken> tokens) {
  Json json;
  json["schema_version"] = 1;
  json["model"] = options.model;
  if (options.reference) json["reference"] = *options.reference;
  json["context"] = options.context;
  json.update(metrics::to_json(tokens, windows.domains, options.reference.has_value()));
  write_json(context, *options.tokens_out, json);
}

/// Nothing when --sparsity is not given.
std::optional<metrics::SparsityRequest> sparsity_request(const Options& options) {
  if (!options.sparsity) {
    if (options.sparsity_data.empty()) return std::nullopt;
    fail(ErrorCode::kUsage, "--sparsity-data is read for --sparsity only: give both or neither");
  }
  const metrics::SparsityRequest request = metrics::parse_sparsity(*options.sparsity);
  if (request.system->needs_calibration && options.sparsity_data.empty()) {
    fail(ErrorCode::kUsage,
         "--sparsity {} is calibrated on text of its own: give --sparsity-data PATH, other text "
         "than that of --data",
         request.system->name);
  }
  if (!request.system->needs_calibration && !options.sparsity_data.empty()) {
    fail(ErrorCode::kUsage, "--sparsity {} needs no calibration: leave out --sparsity-data",
         request.system->name);
  }
  return request;
}

std::unique_ptr<metrics::NeuronDropper> make_dropper(const Options& options,
                                                     const metrics::SparsityRequest& request,
                                                     const model::Checkpoint& checkpoint,
                                                     const text::Tokenizer& tokenizer,
                                                     engine::Engine& model, Log& log) {
  if (!metrics::has_neurons(checkpoint.spec())) {
    fail(ErrorCode::kUsage,
         "--sparsity: {} has no feed-forward network that a neuron could be left out of; evaluate "
         "it without",
         options.model);
  }
  std::vector<metrics::LayerSample> samples;
  if (request.system->needs_calibration) {
    const auto windows =
        metrics::make_windows(tokenizer, metrics::read_calibration(options.sparsity_data),
                              {.context = options.context, .max_tokens = options.sparsity_tokens});
    samples = metrics::sample_neurons(model, windows, log);
  }
  return std::make_unique<metrics::NeuronDropper>(
      metrics::make_filters(request, checkpoint, samples, model.pool()));
}

/// What a window takes, and the scores of all of them.
engine::MemoryNeeds memory_needs(const Options& options, const metrics::WindowSet& windows) {
  constexpr std::uint64_t kBytesPerToken = 160;
  return {.positions = options.context,
          .tokens = options.context,
          .least_tokens = options.context,
          .logit_rows = metrics::kLogitRows,
          .other = {windows.scored_tokens() * kBytesPerToken},
          .process = {}};
}

void require_plain_evaluation(const Options& options) {
  if (!options.memory.limit || (!options.sparsity && !options.key_entropy)) return;
  fail(ErrorCode::kUsage, "--memory: what {} holds is not counted; leave out one of them",
       options.sparsity ? "--sparsity" : "--key-entropy");
}

void run(const Options& options, Context& context) {
  require_plain_evaluation(options);
  const auto sparsity = sparsity_request(options);
  const auto checkpoint = model::Checkpoint::open(options.model);
  require_positions(checkpoint, options.context);
  const engine::RoutingPolicy policy = routing_policy(options.routing, checkpoint, context.log);
  const text::Tokenizer tokenizer(checkpoint.tokenizer_spec());
  const auto windows =
      metrics::make_windows(tokenizer, metrics::read_documents(options.data),
                            {.context = options.context, .max_tokens = options.tokens});
  engine::EngineOptions engine_options{options.threads, options.isa};
  engine::MemoryNeeds needs = memory_needs(options, windows);
  std::optional<model::Checkpoint> other;
  std::optional<engine::Engine> reference;
  if (options.reference) {
    other.emplace(model::Checkpoint::open(*options.reference));
    require_positions(*other, options.context);
    require_same_tokens(tokenizer, text::Tokenizer(other->tokenizer_spec()));
    engine::EngineOptions of_reference = engine_options;
    const auto plan =
        plan_within(options.memory, *other, needs, of_reference, context.log, kReferenceShare);
    if (plan) needs.process = plan->total();
    reference.emplace(*other, of_reference, context.log);
  }
  // The reference keeps F32, so that the type's own share in the distance can be measured.
  engine_options.kv_type = options.kv_type;
  (void)plan_within(options.memory, checkpoint, needs, engine_options, context.log);
  engine::Engine model(checkpoint, engine_options, context.log);
  model.set_routing_policy(policy);
  begin_with_hot_set(options.memory, checkpoint, model);
  std::optional<compress::KeyEntropy> keys;
  if (options.key_entropy) keys = compress::measure_key_entropy(model, windows, context.log);
  std::unique_ptr<metrics::NeuronDropper> dropper;
  if (sparsity) {
    dropper = make_dropper(options, *sparsity, checkpoint, tokenizer, model, context.log);
    model.set_inner_editor(dropper.get());
  }
  engine::ExpertUse use(model.spec());
  model.count_experts(&use);
  std::vector<metrics::ScoredToken> tokens;
  const metrics::Evaluation evaluation =
      metrics::evaluate(model, reference ? &*reference : nullptr, windows, context.log,
                        options.tokens_out ? &tokens : nullptr);
  if (options.tokens_out) write_tokens(options, context, windows, tokens);
  keep_hot_set(options.memory, checkpoint, model);

  Json json;
  json["schema_version"] = 1;
  json["model"] = options.model;
  if (options.reference) json["reference"] = *options.reference;
  json["context"] = options.context;
  json["isa"] = std::string(model.isa());
  json["threads"] = model.threads();
  json["kv_type"] = std::string(kernels::to_string(options.kv_type));
  json.update(metrics::to_json(evaluation));
  if (model.expert_cache() != nullptr) json["expert_cache"] = to_json(*model.expert_cache());
  if (options.routing.given()) json["routing_policy"] = to_json(options.routing, use);
  if (dropper) json["sparsity"] = metrics::to_json(*sparsity, *dropper);
  if (keys) json["key_entropy"] = compress::to_json(*keys);
  if (options.json) write_json(context, *options.json, json);
  if (options.json != "-") {
    context.log.clear_progress();
    print_table(context.out, evaluation);
    if (options.routing.given()) context.out.write(to_text(use) + "\n");
    if (dropper) print_sparsity(context.out, *dropper);
    if (keys) print_key_entropy(context.out, *keys);
  }
}

Action declare(CLI::App& app) {
  auto options = std::make_shared<Options>();
  add_model(app, options->model);
  require(add_data(app, options->data));
  add_text(app, {"--reference", "MODEL", "also measure the distance from this model"},
           options->reference);
  add_whole(app, {"--context", "N", "positions of a window, start token included"},
            options->context, 2, 1 << 20);
  add_whole(app,
            {"--tokens", "N", "score at most this many tokens, shared by the domains; 0 means all"},
            options->tokens, 0, std::int64_t{1} << 40);
  add_threads(app, options->threads);
  add_isa(app, options->isa);
  add_kv_type(app, options->kv_type);
  add_memory(app, options->memory);
  add_routing(app, options->routing);
  add_json(app, options->json);
  add_text(app, {"--tokens-out", "FILE", "also write what each token scored, as JSON"},
           options->tokens_out);
  add_text(app,
           {"--sparsity", "NAME:LEVEL",
            "leave out neurons of FFNs: " + metrics::sparsity_system_names() +
                "; the level is the share to leave out, for cett the error allowed, for mass the "
                "share to keep"},
           options->sparsity);
  add_texts(app,
            {"--sparsity-data", "PATH",
             "text that --sparsity is calibrated on (chess, teal, cett, mass): files or folders"},
            options->sparsity_data);
  add_whole(app,
            {"--sparsity-tokens", "N",
             "use at most this many tokens of it, shared by the domains; 0 means all"},
            options->sparsity_tokens, 0, std::int64_t{1} << 40);
  add_flag(app, "--key-entropy", options->key_entropy,
           "also measure the matrix entropy of each head's keys, and the nuclear norm of each "
           "layer's hidden states, without --sparsity");
  return [options](Context& context) { run(*options, context); };
}

}  // namespace

extern const Command kEval{
    .name = "eval",
    .summary = "perplexity of a model on text, and its distance from another",
    .description =
        "Encodes each file whole and cuts it into windows of --context positions, each beginning "
        "with the model's start token; every text token is scored once. With --reference also "
        "reports the mean KL divergence in nats (reference to model), its 99th percentile, how "
        "often both prefer the same token, how often they choose the same experts, and the "
        "expected acceptance rate (ESAP). --sparsity asks what the model would lose if its FFNs "
        "did without some of their neurons; nothing gets faster.",
    .declare = declare};

}  // namespace winnow::cli
