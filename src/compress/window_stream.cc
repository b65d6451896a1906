// SPDX-FileCopyrightText: The Winnow authors
// SPDX-License-Identifier: Apache-2.0
#include "compress/window_stream.h"

#include <algorithm>
#include <system_error>
#include <utility>

#include "base/error.h"

namespace winnow::compress {

WindowBatches::WindowBatches(std::span<const metrics::Window> windows, std::size_t batch_tokens) {
  for (const metrics::Window& window : windows) {
    const std::size_t length = window.tokens.size();
    if (batches.empty() || batches.back().tokens + length > batch_tokens) batches.emplace_back();
    Batch& batch = batches.back();
    batch.windows.push_back(&window);
    batch.lengths.push_back(length);
    batch.tokens += length;
    longest = std::max(longest, length);
    largest = std::max(largest, batch.tokens);
    tokens += length;
  }
}

std::unique_ptr<HiddenStates> WindowStream::make_states() const {
  std::vector<std::size_t> rows;
  for (const auto& batch : batches_.batches) rows.push_back(batch.tokens);
  return std::make_unique<HiddenStates>(std::move(rows), hidden_size_, folder_,
                                        HiddenStates::Durability::kScratch);
}

WindowStream::WindowStream(const WindowBatches& batches, std::size_t hidden_size,
                           const std::filesystem::path& folder)
    : batches_(batches), hidden_size_(hidden_size), folder_(folder), states_(make_states()) {
  if (folder.empty()) return;
  std::error_code error;
  std::filesystem::create_directories(folder, error);
  if (error) fail_system(error.value(), folder.string() + ": cannot create the folder");
}

WindowStream::~WindowStream() {
  std::error_code ignored;  // what stays is swept with the unfinished output
  if (!folder_.empty()) std::filesystem::remove_all(folder_, ignored);
}

void WindowStream::embed(const engine::LayerRunner& runner, const quant::PackedMatrix* embedding,
                         Log& log) {
  tensor::Matrix<float> hidden;
  ahead_.reset();
  in_place_ = false;
  number_ = 0;
  states_->create(0);
  for (std::size_t b = 0; b < batches_.batches.size(); ++b) {
    log.check_interrupt();
    hidden.reshape(batches_.batches[b].tokens, hidden_size_);
    std::size_t first = 0;
    for (const metrics::Window* window : batches_.batches[b].windows) {
      const std::size_t count = window->tokens.size();
      runner.embed(window->tokens, hidden.view().rows_from(first, count), embedding);
      first += count;
    }
    states_->write(b, hidden.view());
  }
  states_->commit();
  states_->open(0);
}

template <typename Use>
void WindowStream::each_batch(const HiddenStates& from, Log& log, const Use& use) const {
  tensor::Matrix<float> hidden;
  for (std::size_t b = 0; b < batches_.batches.size(); ++b) {
    log.check_interrupt();
    hidden.reshape(batches_.batches[b].tokens, hidden_size_);
    from.read(b, hidden.view());
    use(b, hidden.view());
  }
}

void WindowStream::run(engine::LayerRunner& runner, const HiddenStates& from, HiddenStates& to,
                       std::size_t number, engine::Observer* observer, Log& log) const {
  to.create(number);
  each_batch(from, log, [&](std::size_t b, tensor::MatrixView<float> hidden) {
    runner.run(batches_.batches[b].lengths, hidden, observer);
    to.write(b, hidden);
  });
  to.commit();
}

void WindowStream::run(engine::LayerRunner& runner, const WindowStream& from,
                       engine::Observer* observer, Log& log) {
  ahead_.reset();
  const std::size_t next = from.number_ + 1;
  run(runner, *from.states_, *states_, next, observer, log);
  if (&from == this) states_->drop(number_);
  number_ = next;
  states_->open(next);
}

void WindowStream::observe_ahead(engine::LayerRunner& runner, engine::Observer& observer,
                                 Log& log) {
  ahead_ = make_states();
  run(runner, *states_, *ahead_, number_ + 1, &observer, log);
}

void WindowStream::observe_in_place(engine::LayerRunner& runner, engine::Observer& observer,
                                    Log& log) {
  run(runner, *this, &observer, log);
  in_place_ = true;
}

void WindowStream::advance(engine::LayerRunner& runner, Log& log) {
  if (std::exchange(in_place_, false)) return;
  if (ahead_ == nullptr) return run(runner, *this, nullptr, log);
  states_->drop(number_);
  states_ = std::move(ahead_);
  states_->open(++number_);
}

void WindowStream::observe(engine::LayerRunner& runner, engine::Observer& observer,
                           Log& log) const {
  each_batch(*states_, log, [&](std::size_t b, tensor::MatrixView<float> hidden) {
    runner.run(batches_.batches[b].lengths, hidden, &observer);
  });
}

void WindowStream::observe_output(engine::LayerRunner& runner, engine::Observer& observer,
                                  Log& log) const {
  each_batch(*states_, log, [&](std::size_t /*batch*/, tensor::MatrixView<float> hidden) {
    runner.normalize_output(hidden, &observer);
  });
}

}  // namespace winnow::compress
