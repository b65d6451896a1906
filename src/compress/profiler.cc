// SPDX-FileCopyrightText: The Winnow authors
// SPDX-License-Identifier: Apache-2.0
#include "compress/profiler.h"

#include <algorithm>
#include <cmath>

#include "base/error.h"
#include "compress/hidden_states.h"
#include "compress/layer_collectors.h"
#include "compress/partial_output.h"
#include "compress/profile_plan.h"
#include "compress/teacher.h"
#include "engine/layer_runner.h"
#include "os/aligned_buffer.h"
#include "os/file.h"

namespace winnow::compress {
namespace {

// So many tokens share one pass over a layer's weights.
constexpr std::size_t kBatchTokens = 4096;
// Logit rows held at a time.
constexpr std::size_t kTeacherRows = 64;
// The teacher is written whenever it has grown to so many bytes.
constexpr std::uint64_t kTeacherBytes = std::uint64_t{4} << 20;
// What the process itself, allocator and thread stacks included, may grow by.
constexpr std::uint64_t kProfilerSlack = std::uint64_t{8} << 20;

std::string part_name(const std::string& what, std::size_t domain) {
  return fmt::format("{}.domain-{:05}", what, domain);
}
std::string layer_part(std::size_t layer, std::size_t domain) {
  return part_name(fmt::format("layer-{:05}", layer), domain);
}

/// The sums that one layer asks for at most.
Bytes largest_sums(const model::ModelSpec& spec, engine::LayerRunner& runner) {
  Bytes most;
  bool seen[2] = {};
  for (std::uint32_t layer = 0; layer < spec.num_hidden_layers; ++layer) {
    bool& done = seen[spec.is_moe_layer(LayerId{layer}) ? 1 : 0];
    if (done) continue;
    done = true;
    LayerCollectors collectors(spec, LayerId{layer}, false, runner.kernels(), runner.pool());
    most = std::max(most, collectors.sums().memory());
  }
  return most;
}

class Profiler {
 public:
  Profiler(const model::Checkpoint& checkpoint, const metrics::WindowSet& text,
           const std::filesystem::path& out, const ProfileOptions& options, Log& log)
      : checkpoint_(checkpoint),
        spec_(checkpoint.spec()),
        text_(text),
        out_(out),
        options_(options),
        log_(log),
        runner_(checkpoint, options.engine),
        header_(
            describe_model(checkpoint, options.version, options.context, runner_.kernels().isa)) {
    plan_memory();
    header_.domains = plan_.domains;
  }

  ProfileResult run();

 private:
  struct Needs {
    std::uint64_t fixed = 0;  // before the profile, of a layer, of its sums
    std::uint64_t batch = 0;
    std::uint64_t states = 0;
  };
  void plan_memory();
  Needs needs_of(const ProfilePlan& plan, std::uint64_t fixed) const;
  Json run_record() const;
  std::uint32_t finished_layers(const PartialOutput& partial) const;
  void restore_states(std::uint32_t layer);
  void embed();
  void run_layer(std::uint32_t layer, PartialOutput* partial);
  void run_batch(std::size_t batch, LayerCollectors* collectors);
  void run_output(PartialOutput& partial);
  void add_logits(std::size_t batch, Teacher& teacher);
  void write_teacher(const PartialOutput& partial, std::size_t domain, Teacher& teacher);
  void finish(PartialOutput& partial);
  void keep_states(const PartialOutput& partial) const;
  void advance(std::size_t tokens) {
    done_ += tokens;
    log_.progress("profiling", done_, plan_.tokens * (spec_.num_hidden_layers + 1), "token layers");
  }
  bool ends_domain(std::size_t batch) const {
    return batch + 1 == plan_.batches.size() ||
           plan_.batches[batch + 1].domain != plan_.batches[batch].domain;
  }

  const model::Checkpoint& checkpoint_;
  const model::ModelSpec& spec_;
  const metrics::WindowSet& text_;
  const std::filesystem::path out_;
  const ProfileOptions& options_;
  Log& log_;
  engine::LayerRunner runner_;
  StatisticsHeader header_;
  ProfilePlan plan_;
  bool states_on_disk_ = false;
  std::optional<HiddenStates> states_;
  tensor::Matrix<float> input_, hidden_;
  std::vector<std::filesystem::path> teacher_parts_;
  std::uint64_t done_ = 0;
};

Profiler::Needs Profiler::needs_of(const ProfilePlan& plan, std::uint64_t fixed) const {
  Needs needs;
  needs.fixed = fixed;
  needs.batch =
      engine::LayerRunner::activations(spec_, plan.largest, plan.longest).value +
      3 * std::uint64_t{plan.largest} * spec_.hidden_size * sizeof(float) +
      std::uint64_t{plan.largest} * spec_.moe.top_k * (spec_.moe.top_k + 2) * sizeof(double) +
      std::uint64_t{plan.largest} * spec_.moe.num_experts * sizeof(double);
  needs.states = plan.tokens * spec_.hidden_size * sizeof(float);
  return needs;
}

/// Smaller batches where memory is short; states on the disk where they do not fit.
void Profiler::plan_memory() {
  plan_ = plan_profile(text_, kBatchTokens, options_.sequences);
  states_on_disk_ = options_.keep_states;
  if (!options_.max_memory) return;
  const std::uint64_t before = os::peak_resident_bytes();
  // Sums and, when they are written, at most all their residuals with the indices.
  const std::uint64_t sums = largest_sums(spec_, runner_).value * 5 / 3;
  const std::uint64_t output =
      kTeacherRows * std::uint64_t{spec_.vocab_size} * (sizeof(float) + sizeof(double)) +
      2 * kTeacherBytes;
  const std::uint64_t fixed = before + kProfilerSlack + std::max(sums, output) +
                              engine::LayerRunner::largest_weights(checkpoint_).value;
  const std::uint64_t limit = options_.max_memory->value;
  Needs needs = needs_of(plan_, fixed);
  for (std::size_t tokens = kBatchTokens / 2;
       needs.fixed + needs.batch > limit && plan_.largest > plan_.longest; tokens /= 2) {
    plan_ = plan_profile(text_, tokens, options_.sequences);
    needs = needs_of(plan_, fixed);
  }
  if (needs.fixed + needs.batch > limit) {
    fail(ErrorCode::kBudget,
         "--max-memory: {} bytes are too few; one layer of {} with windows of {} tokens takes {} "
         "bytes ({}); shorter windows (--context) take less",
         limit, checkpoint_.file().name(), plan_.longest, needs.fixed + needs.batch,
         format_bytes({needs.fixed + needs.batch}));
  }
  states_on_disk_ = states_on_disk_ || needs.fixed + needs.batch + needs.states > limit;
}

Json Profiler::run_record() const {
  Json run = to_json(header_);
  run.erase("domains");
  run["text_fingerprint"] = fmt::format("{:016x}", text_fingerprint(text_));
  if (!options_.sequences.is_all()) {
    run["sequences"] = {options_.sequences.first, options_.sequences.end};
  }
  run["kv_type"] = std::string(kernels::to_string(options_.engine.kv_type));
  return run;
}

std::uint32_t Profiler::finished_layers(const PartialOutput& partial) const {
  std::uint32_t layer = 0;
  const auto is_finished = [&](std::uint32_t number) {
    for (std::size_t d = 0; d < plan_.domains.size(); ++d) {
      if (!partial.has(layer_part(number, d))) return false;
    }
    return true;
  };
  while (layer < spec_.num_hidden_layers && is_finished(layer)) ++layer;
  return layer;
}

void Profiler::embed() {
  states_->create(0);
  for (std::size_t b = 0; b < plan_.batches.size(); ++b) {
    log_.check_interrupt();
    const ProfileBatch& batch = plan_.batches[b];
    hidden_.reshape(batch.tokens(), spec_.hidden_size);
    std::size_t first = 0;
    for (const std::size_t window : batch.windows) {
      const auto& tokens = text_.windows[window].tokens;
      runner_.embed(tokens, hidden_.view().rows_from(first, tokens.size()));
      first += tokens.size();
    }
    states_->write(b, hidden_.view());
  }
  states_->commit();
}

/// Makes the input of `layer` ready: from the disk, or by running the layers before once more.
/// States that are to be kept must be there from the first on; an earlier run may not have kept
/// them.
void Profiler::restore_states(std::uint32_t layer) {
  bool there = true;
  for (std::uint32_t l = options_.keep_states ? 0 : layer; l <= layer; ++l) {
    there = there && states_->has(l);
  }
  if (there) {
    done_ = plan_.tokens * layer;
    return;
  }
  embed();
  for (std::uint32_t l = 0; l < layer; ++l) run_layer(l, nullptr);
}

void Profiler::run_batch(std::size_t batch, LayerCollectors* collectors) {
  const ProfileBatch& windows = plan_.batches[batch];
  input_.reshape(windows.tokens(), spec_.hidden_size);
  hidden_.reshape(windows.tokens(), spec_.hidden_size);
  states_->read(batch, input_.view());
  std::copy(input_.flat().begin(), input_.flat().end(), hidden_.flat().begin());
  if (collectors != nullptr) collectors->begin_batch(windows.numbers);
  runner_.run(windows.lengths, hidden_.view(), collectors);
  if (collectors != nullptr) collectors->on_layer(input_.view(), hidden_.view());
}

/// Without `partial` nothing is summed. The last part is written after the states: when all parts
/// of a layer are there, so are the states.
void Profiler::run_layer(std::uint32_t layer, PartialOutput* partial) {
  runner_.load(LayerId{layer});
  std::optional<LayerCollectors> collectors;
  if (partial != nullptr) {
    collectors.emplace(spec_, LayerId{layer}, false, runner_.kernels(), runner_.pool());
  }
  states_->open(layer);
  states_->create(layer + 1);
  for (std::size_t b = 0; b < plan_.batches.size(); ++b) {
    log_.check_interrupt();
    const ProfileBatch& batch = plan_.batches[b];
    run_batch(b, collectors && !batch.held_out ? &*collectors : nullptr);
    states_->write(b, hidden_.view());
    advance(batch.tokens());
    if (!collectors) continue;
    const std::string where = fmt::format("layer {}", layer);
    if (batch.ends_unit) with_context(where, [&] { collectors->sums().close_unit(); });
    if (!ends_domain(b)) continue;
    if (b + 1 == plan_.batches.size()) states_->commit();
    write_part(partial->folder() / layer_part(layer, batch.domain),
               layer_prefix(batch.domain, LayerId{layer}), collectors->sums());
    collectors->sums().clear();
  }
  states_->commit();
  if (!options_.keep_states) states_->drop(layer);
  if (partial != nullptr) partial->keep();
}

/// Logits of the positions that predict a scored token.
void Profiler::add_logits(std::size_t batch, Teacher& teacher) {
  const ProfileBatch& windows = plan_.batches[batch];
  tensor::Matrix<float> logits;
  std::size_t first = 0;
  for (const std::size_t w : windows.windows) {
    const metrics::Window& window = text_.windows[w];
    teacher.add_window(window);
    for (std::size_t done = 0; done < window.scored(); done += kTeacherRows) {
      const std::size_t rows = std::min(kTeacherRows, window.scored() - done);
      logits.reshape(rows, spec_.vocab_size);
      runner_.logits(hidden_.view().rows_from(first + window.first_scored - 1 + done, rows),
                     logits.view());
      for (const float value : logits.flat()) {
        if (!std::isfinite(value)) fail_data("a logit is {}; the output matrix is damaged", value);
      }
      teacher.add_logits(logits.view());
    }
    first += window.tokens.size();
  }
}

void Profiler::run_output(PartialOutput& partial) {
  runner_.load_output();
  LayerCollectors collectors(spec_, {}, true, runner_.kernels(), runner_.pool());
  Teacher teacher;
  states_->open(spec_.num_hidden_layers);
  for (std::size_t b = 0; b < plan_.batches.size(); ++b) {
    log_.check_interrupt();
    const ProfileBatch& batch = plan_.batches[b];
    hidden_.reshape(batch.tokens(), spec_.hidden_size);
    states_->read(b, hidden_.view());
    runner_.normalize_output(hidden_.view(), batch.held_out ? nullptr : &collectors);
    if (batch.held_out) add_logits(b, teacher);
    if (teacher.memory().value >= kTeacherBytes) write_teacher(partial, batch.domain, teacher);
    advance(batch.tokens());
    if (batch.ends_unit) collectors.sums().close_unit();
    if (!ends_domain(b)) continue;
    write_part(partial.folder() / part_name("output", batch.domain), output_prefix(batch.domain),
               collectors.sums());
    collectors.sums().clear();
    write_teacher(partial, batch.domain, teacher);
  }
}

/// Writes a piece of a domain's teacher and forgets it.
void Profiler::write_teacher(const PartialOutput& partial, std::size_t domain, Teacher& teacher) {
  teacher_parts_.push_back(partial.folder() / fmt::format("{}.piece-{:05}",
                                                          part_name("teacher", domain),
                                                          teacher_parts_.size()));
  teacher.write(teacher_parts_.back(), teacher_prefix(domain));
  teacher = {};
}

void Profiler::keep_states(const PartialOutput& partial) const {
  const std::filesystem::path folder = out_.string() + ".states";
  std::error_code error;
  std::filesystem::create_directories(folder, error);
  for (std::size_t number = 0; number <= spec_.num_hidden_layers && !error; ++number) {
    const auto name = HiddenStates::file_name(number);
    std::filesystem::rename(partial.folder() / name, folder / name, error);
  }
  if (error) {
    fail(ErrorCode::kSystem, "{}: cannot keep the states there: {}", folder.string(),
         error.message());
  }
}

void Profiler::finish(PartialOutput& partial) {
  std::vector<std::filesystem::path> parts;
  const std::size_t domains = plan_.domains.size();
  for (std::size_t layer = 0; layer < spec_.num_hidden_layers; ++layer) {
    for (std::size_t d = 0; d < domains; ++d) {
      parts.push_back(partial.folder() / layer_part(layer, d));
    }
  }
  for (std::size_t d = 0; d < domains; ++d) {
    parts.push_back(partial.folder() / part_name("output", d));
  }
  parts.insert(parts.end(), teacher_parts_.begin(), teacher_parts_.end());
  if (options_.keep_states) keep_states(partial);
  join_parts(out_, header_, parts);
  partial.remove();
}

ProfileResult Profiler::run() {
  // An output that cannot be written is better known now than after hours.
  { const os::AtomicFile trial(out_); }
  using Start = PartialOutput::Start;
  PartialOutput partial(out_, run_record(), options_.restart ? Start::kRestart : Start::kResume);
  std::vector<std::size_t> rows;
  for (const ProfileBatch& batch : plan_.batches) rows.push_back(batch.tokens());
  states_.emplace(rows, spec_.hidden_size,
                  states_on_disk_ ? partial.folder() : std::filesystem::path());
  ProfileResult result;
  result.tokens = plan_.tokens;
  result.held_out_tokens = plan_.held_out_tokens;
  result.resumed_layers = finished_layers(partial);
  result.states_on_disk = states_on_disk_;
  restore_states(result.resumed_layers);
  for (std::uint32_t layer = result.resumed_layers; layer < spec_.num_hidden_layers; ++layer) {
    run_layer(layer, &partial);
  }
  run_output(partial);
  finish(partial);
  return result;
}

}  // namespace

ProfileResult profile_model(const model::Checkpoint& checkpoint, const metrics::WindowSet& text,
                            const std::filesystem::path& out, const ProfileOptions& options,
                            Log& log) {
  if (checkpoint.spec().has_varied_experts()) {
    fail_data("{}: its experts vary: it is the result of compressing; profile the original",
              checkpoint.file().name());
  }
  return Profiler(checkpoint, text, out, options, log).run();
}

}  // namespace winnow::compress
