// SPDX-FileCopyrightText: The Winnow authors
// SPDX-License-Identifier: Apache-2.0
// `winnow trace`: records which experts a text uses, and replays that with cache policies.
#include <algorithm>
#include <memory>
#include <optional>
#include <sstream>

#include "base/error.h"
#include "base/json.h"
#include "cli/build_info.h"
#include "cli/command.h"
#include "cli/context.h"
#include "cli/loading.h"
#include "cli/options.h"
#include "cli/provenance.h"
#include "cli/replay_report.h"
#include "engine/engine.h"
#include "engine/route_recorder.h"
#include "engine/route_trace_file.h"
#include "metrics/text_data.h"
#include "model/checkpoint.h"
#include "model/fingerprint.h"

namespace winnow::cli {
namespace {

constexpr const char* kUsualShares = "25,50,75";

struct Options {
  std::string model;
  std::string output;
  std::vector<std::string> data;
  std::uint64_t tokens = 0;
  std::size_t context = 512;
  bool force = false;
  unsigned threads = 0;
  std::string isa;
  std::string replay;
  std::string slots;
  std::string share;
  std::vector<std::string> policies;
  std::uint64_t seed = 0;
  std::optional<std::string> json;
};

/// Calls add(word) for each of "a,b,c".
template <typename Add>
void for_each_word(const std::string& list, Add add) {
  std::istringstream words(list);
  for (std::string word; std::getline(words, word, ',');) add(word);
}

/// Rising, each once.
std::vector<std::size_t> read_slots(const Options& options, const experts::RouteTrace& routes) {
  std::vector<std::size_t> slots;
  const std::uint64_t all = routes.stored_experts;
  for_each_word(options.slots, [&](const std::string& word) {
    constexpr std::int64_t kMost = std::int64_t{1} << 32;
    slots.push_back(static_cast<std::size_t>(parse_whole(word, "--slots", 1, kMost)));
  });
  const bool takes_usual = options.slots.empty() && options.share.empty();
  for_each_word(takes_usual ? kUsualShares : options.share, [&](const std::string& word) {
    const double share = parse_real(word, "--share", 0, 100) / 100;
    slots.push_back(static_cast<std::size_t>(share * static_cast<double>(all)));
  });
  std::sort(slots.begin(), slots.end());
  slots.erase(std::unique(slots.begin(), slots.end()), slots.end());
  return slots;
}

std::vector<const experts::PolicyEntry*> read_policies(const Options& options) {
  std::vector<const experts::PolicyEntry*> policies;
  for (const std::string& name : options.policies) {
    const experts::PolicyEntry* policy = &experts::find_cache_policy(name);
    if (std::count(policies.begin(), policies.end(), policy) == 0) policies.push_back(policy);
  }
  if (!policies.empty()) return policies;
  const auto all = experts::cache_policies();
  return {all.begin(), all.end()};
}

void replay(const Options& options, Context& context) {
  const auto policies = read_policies(options);
  const engine::RecordedTrace trace = engine::read_route_trace(options.replay);
  const ReplayReport report = replay_all(trace.routes, read_slots(options, trace.routes), policies,
                                         options.seed, context.log);
  context.log.clear_progress();
  if (options.json) {
    Json json;
    json["schema_version"] = 1;
    json["trace"] = options.replay;
    json["seed"] = options.seed;
    json.update(to_json(report, trace));
    write_json(context, *options.json, json);
  }
  if (options.json != "-") context.out.write(to_text(report, trace));
}

metrics::WindowSet read_text(const Options& options, const model::Checkpoint& checkpoint) {
  if (options.context > checkpoint.spec().max_position_embeddings) {
    fail(ErrorCode::kUsage, "--context: {} is beyond the {} positions of {}", options.context,
         checkpoint.spec().max_position_embeddings, checkpoint.file().name());
  }
  const text::Tokenizer tokenizer(checkpoint.tokenizer_spec());
  return metrics::make_windows(tokenizer, metrics::read_documents(options.data),
                               {.context = options.context, .max_tokens = options.tokens});
}

void run_text(engine::Engine& engine, const metrics::WindowSet& text, std::size_t context,
              engine::RouteRecorder& recorder, Log& log) {
  engine::KvCache cache = engine.make_cache(context);
  for (std::size_t w = 0; w < text.windows.size(); ++w) {
    log.progress("recording routes", w, text.windows.size(), "windows");
    log.check_interrupt();
    cache.truncate(0);
    recorder.begin_sequence();
    const engine::SequenceInput input{&cache, text.windows[w].tokens};
    engine.forward(std::span(&input, 1), &recorder);
  }
}

void record(const Options& options, Context& context) {
  const auto checkpoint = model::Checkpoint::open(options.model);
  check_output_path(checkpoint, options.output, options.force);
  engine::RouteRecorder recorder(checkpoint.spec());
  const metrics::WindowSet text = read_text(options, checkpoint);
  const auto engine = load_engine(checkpoint, {options.threads, options.isa}, context.log);
  run_text(*engine, text, options.context, recorder, context.log);
  const engine::RecordedTrace trace{std::string(version()), checkpoint.spec().architecture,
                                    model::describe_source(checkpoint.file()), recorder.trace()};
  engine::write_route_trace(options.output, trace);
  context.log.clear_progress();
  context.log.info(
      fmt::format("{}: the routes of {} tokens in {} texts; compare cache policies "
                  "with winnow trace --replay",
                  options.output, trace.routes.tokens(), trace.routes.sequences.size()));
}

void run(const Options& options, Context& context) {
  if (!options.replay.empty()) {
    if (!options.model.empty() || !options.output.empty() || !options.data.empty()) {
      fail(ErrorCode::kUsage, "--replay: reads a trace and needs no MODEL, --data or --output");
    }
    return replay(options, context);
  }
  if (options.model.empty() || options.output.empty() || options.data.empty()) {
    fail(ErrorCode::kUsage,
         "give MODEL, --data and --output to record a trace, or --replay TRACE to compare cache "
         "policies on one");
  }
  if (!options.slots.empty() || !options.share.empty() || !options.policies.empty() ||
      options.json) {
    fail(ErrorCode::kUsage, "--slots, --share, --policy and --json are for --replay");
  }
  record(options, context);
}

void declare_recording(CLI::App& app, Options& options) {
  add_text(app, {"MODEL", "MODEL", "a safetensors folder, a GGUF file or its first split"},
           options.model);
  add_data(app, options.data);
  add_text(app, {"-o,--output", "TRACE", "the trace to write"}, options.output);
  add_whole(app,
            {"--tokens", "N", "run at most this many tokens, shared by the domains; 0 means all"},
            options.tokens, 0, std::int64_t{1} << 40);
  add_whole(app, {"--context", "N", "positions of a text, start token included"}, options.context,
            2, 1 << 20);
  add_flag(app, "--force", options.force, "replace TRACE if it exists");
  add_threads(app, options.threads);
  add_isa(app, options.isa);
}

Action declare(CLI::App& app) {
  auto options = std::make_shared<Options>();
  declare_recording(app, *options);
  add_text(app, {"--replay", "TRACE", "compare cache policies on this trace"}, options->replay);
  add_text(app, {"--slots", "N,...", "experts that fit in memory, of all layers together"},
           options->slots);
  add_text(app,
           {"--share", "P,...",
            std::string("the same in percent of the experts that the model stores; ") +
                kUsualShares + " when neither is given"},
           options->share);
  add_texts(app,
            {"--policy", "NAME", "these instead of all policies: " + experts::cache_policy_names()},
            options->policies);
  add_seed(app, options->seed);
  add_json(app, options->json);
  return [options](Context& context) { run(*options, context); };
}

}  // namespace

extern const Command kTrace{
    .name = "trace",
    .summary = "record which experts a text uses, and compare cache policies on it",
    .description =
        "With MODEL, --data and --output runs the text and writes down the experts that each token "
        "chooses in each layer. With --replay says how many of the experts that a trace asks for "
        "would be in memory, by cache policy and number of experts that fit, from an empty cache, "
        "token by token as in decoding. Beside them stand what hindsight could do: Belady's "
        "bound, which no policy that reads on demand beats, and the fixed set of experts with most "
        "uses, in memory from the beginning.",
    .declare = declare};

}  // namespace winnow::cli
