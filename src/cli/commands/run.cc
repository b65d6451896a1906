// SPDX-FileCopyrightText: The Winnow authors
// SPDX-License-Identifier: Apache-2.0
// `winnow run MODEL`: text from a prompt. Standard output carries the generated text and nothing
// else; the last line of standard error is the statistics.
#include <algorithm>
#include <limits>
#include <memory>
#include <optional>

#include "base/error.h"
#include "cli/command.h"
#include "cli/context.h"
#include "cli/loading.h"
#include "cli/memory_flags.h"
#include "cli/options.h"
#include "cli/routing_flags.h"
#include "engine/generate.h"
#include "os/aligned_buffer.h"
#include "os/file.h"

namespace winnow::cli {
namespace {

constexpr Bytes kLargestPrompt{std::uint64_t{1} << 30};

struct Options {
  std::string model;
  std::optional<std::string> prompt;
  std::optional<std::string> file;
  std::string standard_input;  ///< "-" when given
  std::optional<std::uint32_t> context;
  engine::GenerateOptions generate;
  engine::EngineOptions engine{.weights = engine::WeightMemory::kMapped,
                               .kv_type = kernels::KvType::kF16};
  RoutingFlags routing;
  MemoryFlags memory;
  bool json_statistics = false;
};

/// What the run took, for people and as JSON.
struct Statistics {
  std::size_t prompt_tokens = 0;
  engine::GenerateResult result;
  double load_seconds = 0;
  std::string isa;
  kernels::KvType kv_type{};
  unsigned threads = 0;
  std::uint64_t seed = 0;
  std::optional<experts::CacheStatistics> expert_cache;
  std::optional<experts::PrefetchStatistics> prefetch;
  RoutingFlags routing;
  std::optional<engine::ExpertUse> use;  ///< nothing: the model's own routes

  double prompt_rate() const {
    return result.prefill_seconds > 0 ? static_cast<double>(prompt_tokens) / result.prefill_seconds
                                      : 0;
  }
  /// Of the tokens after the first, which belongs to the prompt's time.
  double decode_rate() const {
    return result.tokens.size() > 1 && result.decode_seconds > 0
               ? static_cast<double>(result.tokens.size() - 1) / result.decode_seconds
               : 0;
  }
};

std::string to_line(const Statistics& s) {
  return fmt::format(
      "load {:.2f} s; prompt {} tokens, {:.1f} tok/s; generated {} tokens, {:.1f} tok/s; first "
      "token {:.3f} s; stopped by {}; peak memory {}; {}{}{}, {}",
      s.load_seconds, s.prompt_tokens, s.prompt_rate(), s.result.tokens.size(), s.decode_rate(),
      s.result.first_token_seconds, engine::to_string(s.result.reason),
      format_bytes(Bytes{os::peak_resident_bytes()}),
      s.expert_cache ? cli::to_text(*s.expert_cache) + "; " : std::string(),
      s.use ? cli::to_text(*s.use) + "; " : std::string(), s.isa,
      s.threads == 1 ? std::string("1 thread") : fmt::format("{} threads", s.threads));
}

Json to_json(const Statistics& s) {
  Json out;
  out["schema_version"] = 1;
  out["load_seconds"] = s.load_seconds;
  out["prompt_tokens"] = s.prompt_tokens;
  out["prompt_tokens_per_second"] = s.prompt_rate();
  out["generated_tokens"] = s.result.tokens.size();
  out["generated_tokens_per_second"] = s.decode_rate();
  out["time_to_first_token_seconds"] = s.result.first_token_seconds;
  out["stop_reason"] = std::string(engine::to_string(s.result.reason));
  out["seed"] = s.seed;
  out["peak_rss"] = os::peak_resident_bytes();
  out["isa"] = s.isa;
  out["threads"] = s.threads;
  out["kv_type"] = std::string(kernels::to_string(s.kv_type));
  if (s.expert_cache) out["expert_cache"] = cli::to_json(*s.expert_cache);
  if (s.prefetch) out["prefetch"] = cli::to_json(*s.prefetch);
  if (s.use) out["routing_policy"] = cli::to_json(s.routing, *s.use);
  return out;
}

std::string read_prompt(const Options& options) {
  const int given =
      (options.prompt ? 1 : 0) + (options.file ? 1 : 0) + (options.standard_input.empty() ? 0 : 1);
  if (given != 1) {
    fail(ErrorCode::kUsage,
         "run: give the prompt in exactly one way: -p TEXT, -f FILE, or - for standard input");
  }
  if (options.prompt) return *options.prompt;
  if (!options.standard_input.empty() || options.file == "-") return read_standard_input();
  return os::read_text_file(*options.file, kLargestPrompt);
}

std::size_t checked_context(const Options& options, const model::ModelSpec& spec) {
  if (!options.context) return spec.max_position_embeddings;
  if (*options.context > spec.max_position_embeddings) {
    fail(ErrorCode::kUsage, "--context: {} is beyond the {} positions of the model",
         *options.context, spec.max_position_embeddings);
  }
  return *options.context;
}

void check_prompt(std::span<const TokenId> prompt, std::size_t context) {
  if (prompt.empty()) {
    fail(ErrorCode::kUsage,
         "the prompt is empty, and this model has no token to begin a text with; give some text");
  }
  if (prompt.size() > context) {
    fail(ErrorCode::kUsage,
         "the prompt has {} tokens, the context {}; shorten the prompt or, where the model allows "
         "it, raise --context",
         prompt.size(), context);
  }
}

void print_statistics(Context& context, const Statistics& statistics, bool as_json) {
  context.log.clear_progress();
  context.log.plain(as_json ? dump_json(to_json(statistics)) : to_line(statistics));
}

void run(Context& context, Options options) {
  const std::string text = read_prompt(options);
  const Stopwatch watch;
  const model::Checkpoint checkpoint = model::Checkpoint::open(options.model);
  const text::Tokenizer tokenizer(checkpoint.tokenizer_spec());
  const std::size_t positions = checked_context(options, checkpoint.spec());
  const auto prompt = engine::encode_prompt(tokenizer, text, text::SpecialTokens::kAsText);
  check_prompt(prompt, positions);
  const engine::RoutingPolicy policy = routing_policy(options.routing, checkpoint, context.log);
  const std::size_t capacity = std::min(positions, prompt.size() + options.generate.max_tokens);
  const auto plan = plan_within(
      options.memory, checkpoint,
      {.positions = capacity, .tokens = options.generate.prefill_chunk, .other = {}, .process = {}},
      options.engine, context.log);
  if (plan) options.generate.prefill_chunk = plan->tokens;
  const auto engine = load_engine(checkpoint, options.engine, context.log);
  engine->set_routing_policy(policy);
  begin_with_hot_set(options.memory, checkpoint, *engine);

  Statistics statistics{.prompt_tokens = prompt.size(),
                        .result = {},
                        .load_seconds = watch.seconds(),
                        .isa = std::string(engine->isa()),
                        .kv_type = options.engine.kv_type,
                        .threads = engine->threads(),
                        .seed = options.generate.sampler.seed,
                        .expert_cache = {},
                        .prefetch = {},
                        .routing = options.routing,
                        .use = {}};
  if (options.routing.given()) {
    engine->count_experts(&statistics.use.emplace(checkpoint.spec()));
  }
  engine::KvCache cache = engine->make_cache(capacity);
  bool at_line_start = true;
  const auto sink = [&](std::string_view piece) {
    context.log.clear_progress();
    context.out.write(piece);
    at_line_start = piece.back() == '\n';
  };
  statistics.result =
      engine::generate(*engine, cache, tokenizer, prompt, options.generate, sink, context.log);
  keep_hot_set(options.memory, checkpoint, *engine);
  if (engine->expert_cache() != nullptr) statistics.expert_cache = *engine->expert_cache();
  if (engine->prefetch() != nullptr) statistics.prefetch = *engine->prefetch();
  // People would find the shell's prompt, or the statistics, in the middle of a line.
  if (context.output_is_terminal && !at_line_start) context.out.write("\n");
  print_statistics(context, statistics, options.json_statistics);
}

void declare_prompt(CLI::App& app, Options& options) {
  add_model(app, options.model);
  add_choice(app, {"STDIN", "", "read the prompt from standard input"}, {"-"},
             options.standard_input);
  add_text(app, {"-p,--prompt", "TEXT", "the prompt"}, options.prompt);
  add_text(app, {"-f,--file", "FILE", "read the prompt from a file"}, options.file);
  add_whole(app, {"-n,--tokens", "N", "tokens to generate at most"}, options.generate.max_tokens, 0,
            1 << 30);
  add_whole(app, {"--context", "N", "positions to use at most; the model's own without it"},
            options.context, 1, 1 << 30);
  add_repeated(app, {"--stop", "TEXT", "end before this text; may be repeated"},
               options.generate.stop);
  add_flag(app, "--ignore-eos", options.generate.ignore_end,
           "go on after the token with which the model ends its text");
}

void declare_sampler(CLI::App& app, engine::SamplerOptions& sampler) {
  constexpr std::int64_t kMost = std::numeric_limits<std::int32_t>::max();
  add_real(app, {"--temp", "T", "temperature; 0 always takes the likeliest token"},
           sampler.temperature, 0, 100);
  add_whole(app, {"--top-k", "K", "choose among the K likeliest tokens; 0: all"}, sampler.top_k, 0,
            kMost);
  add_real(app, {"--top-p", "P", "choose among the fewest tokens of this probability together"},
           sampler.top_p, 0, 1);
  add_real(app, {"--min-p", "P", "drop tokens below this share of the likeliest one's probability"},
           sampler.min_p, 0, 1);
  add_real(app, {"--repeat-penalty", "F", "divide the logits of recent tokens by this"},
           sampler.repeat_penalty, 0, 100);
  add_real(app, {"--presence-penalty", "X", "take this from the logits of recent tokens"},
           sampler.presence_penalty, -100, 100);
  add_real(app, {"--frequency-penalty", "X", "the same for each time they occurred"},
           sampler.frequency_penalty, -100, 100);
  add_seed(app, sampler.seed);
}

Action declare(CLI::App& app) {
  auto options = std::make_shared<Options>();
  declare_prompt(app, *options);
  declare_sampler(app, options->generate.sampler);
  add_threads(app, options->engine.threads);
  add_isa(app, options->engine.isa);
  add_kv_type(app, options->engine.kv_type);
  conflict(add_memory(app, options->memory), add_weights(app, options->engine.weights));
  add_routing(app, options->routing);
  add_flag(app, "--stats-json", options->json_statistics,
           "print the statistics, the last line of standard error, as JSON");
  return [options](Context& context) {
    for (const std::string& stop : options->generate.stop) {
      if (stop.empty()) fail(ErrorCode::kUsage, "--stop: the text is empty");
    }
    const engine::Sampler checked(options->generate.sampler);  // before the weights are read
    run(context, *options);
  };
}

}  // namespace

extern const Command kRun{
    .name = "run",
    .summary = "generate text from a prompt",
    .description =
        "Continues a prompt. The generated text, and only that, goes to standard output as it is "
        "made; the statistics are the last line of standard error. Without --temp the likeliest "
        "token is always taken. The same options give the same text on any number of threads.\n\n"
        "  winnow run models/grain -p 'The history of' -n 64",
    .declare = declare};

}  // namespace winnow::cli
