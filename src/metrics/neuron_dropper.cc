// SPDX-FileCopyrightText: The Winnow authors
// SPDX-License-Identifier: Apache-2.0
#include "metrics/neuron_dropper.h"

#include <algorithm>
#include <utility>

#include "base/error.h"

namespace winnow::metrics {
namespace {

constexpr std::size_t kMostDroppedRows = 2048;
constexpr std::size_t kMostBytes = std::size_t{16} << 20;  // of one layer

/// Sums up^2 of every row and keeps every so-many-th row.
class NeuronSampler final : public engine::InnerEditor {
 public:
  NeuronSampler(const model::ModelSpec& spec, std::uint64_t tokens) {
    for (std::uint32_t l = 0; l < spec.num_hidden_layers; ++l) {
      const bool moe = spec.is_moe_layer(LayerId{l});
      const std::uint64_t rows = tokens * (moe ? spec.moe.top_k : 1);
      const std::size_t width = moe ? spec.moe.moe_intermediate_size : spec.intermediate_size;
      const std::size_t fit = kMostBytes / (2 * sizeof(float) * std::max<std::size_t>(width, 1));
      const std::size_t most = std::clamp<std::size_t>(fit, 1, kMostDroppedRows);
      layers_.push_back({.stride = std::max<std::uint64_t>(1, (rows + most - 1) / most)});
      layers_.back().experts.resize(moe ? spec.num_experts(LayerId{l}) : 1);
      for (std::uint32_t e = 0; moe && e < layers_.back().experts.size(); ++e) {
        layers_.back().experts[e].squares.resize(spec.expert(LayerId{l}, ExpertId{e}).width);
      }
      if (!moe) layers_.back().experts[0].squares.resize(width);
    }
  }

  void edit(const engine::InnerActivations& activations, os::ThreadPool& /*pool*/) override {
    Layer& layer = layers_[index(activations.layer)];
    Expert& expert = layer.experts[index(activations.expert)];
    for (std::size_t r = 0; r < activations.up.rows; ++r) {
      const auto up = activations.up.row(r);
      for (std::size_t j = 0; j < up.size(); ++j) expert.squares[j] += double{up[j]} * up[j];
      ++expert.tokens;
      if (layer.seen++ % layer.stride != 0) continue;
      const auto gate = activations.gate.row(r);
      const auto inner = activations.inner.row(r);
      layer.rows.push_back(
          {activations.expert, {gate.begin(), gate.end()}, {inner.begin(), inner.end()}});
    }
  }

  std::vector<LayerSample> result() {
    std::vector<LayerSample> samples;
    for (Layer& layer : layers_) {
      const double mean = layer.mean_square();
      samples.push_back({std::move(layer.rows), {}});
      for (Expert& expert : layer.experts) {
        for (double& square : expert.squares) {
          square = (square + mean) / static_cast<double>(expert.tokens + 1);
        }
        samples.back().mean_square_up.push_back(std::move(expert.squares));
      }
    }
    return samples;
  }

 private:
  struct Expert {
    std::uint64_t tokens = 0;
    std::vector<double> squares;  // [width]: sums of up^2
  };
  struct Layer {
    std::uint64_t stride = 1;
    std::uint64_t seen = 0;
    std::vector<Expert> experts{};
    std::vector<LayerSample::Row> rows{};

    /// Over all neurons and tokens.
    double mean_square() const {
      double sum = 0;
      double count = 0;
      for (const Expert& expert : experts) {
        for (const double square : expert.squares) sum += square;
        count += static_cast<double>(expert.tokens) * static_cast<double>(expert.squares.size());
      }
      return count > 0 ? sum / count : 0;
    }
  };
  std::vector<Layer> layers_;
};

/// Of an engine: set for as long as this lives.
class EditorScope {
 public:
  EditorScope(engine::Engine& engine, engine::InnerEditor& editor) : engine_(engine) {
    engine.set_inner_editor(&editor);
  }
  EditorScope(const EditorScope&) = delete;
  EditorScope& operator=(const EditorScope&) = delete;
  ~EditorScope() { engine_.set_inner_editor(nullptr); }

 private:
  engine::Engine& engine_;
};

}  // namespace

std::vector<LayerSample> sample_neurons(engine::Engine& engine, const WindowSet& windows,
                                        Log& log) {
  std::uint64_t tokens = 0;
  std::size_t context = 1;
  for (const Window& window : windows.windows) {
    tokens += window.tokens.size();
    context = std::max(context, window.tokens.size());
  }
  NeuronSampler sampler(engine.spec(), tokens);
  const EditorScope scope(engine, sampler);
  engine::KvCache cache = engine.make_cache(context);
  std::uint64_t done = 0;
  for (const Window& window : windows.windows) {
    log.check_interrupt();
    cache.truncate(0);
    const engine::SequenceInput input{&cache, window.tokens};
    engine.forward(std::span(&input, 1));
    done += window.tokens.size();
    log.progress("sampling neurons", done, tokens, "tokens");
  }
  return sampler.result();
}

NeuronDropper::NeuronDropper(std::vector<std::unique_ptr<NeuronFilter>> filters)
    : filters_(std::move(filters)), counts_(filters_.size()) {}

void NeuronDropper::edit(const engine::InnerActivations& activations, os::ThreadPool& pool) {
  const NeuronFilter& filter = *filters_[index(activations.layer)];
  const std::size_t width = activations.inner.cols;
  std::vector<std::uint64_t> dropped(activations.inner.rows);
  pool.run(dropped.size(), [&](std::size_t r, unsigned) {
    std::vector<std::uint8_t> drop(width);
    const auto inner = activations.inner.row(r);
    filter.choose({activations.expert, activations.gate.row(r), inner}, drop);
    for (std::size_t i = 0; i < width; ++i) {
      if (drop[i] == 0) continue;
      ++dropped[r];
      if (inner[i] != 0) inner[i] = 0;  // a negative zero stays one
    }
  });
  Count& count = counts_[index(activations.layer)];
  for (const std::uint64_t one : dropped) count.dropped += one;
  count.neurons += dropped.size() * width;
}

std::optional<double> NeuronDropper::Count::share() const {
  if (neurons == 0) return std::nullopt;
  return static_cast<double>(dropped) / static_cast<double>(neurons);
}

std::optional<double> NeuronDropper::sparsity() const {
  Count all;
  for (const Count& count : counts_) {
    all.dropped += count.dropped;
    all.neurons += count.neurons;
  }
  return all.share();
}

std::vector<std::optional<double>> NeuronDropper::layer_sparsity() const {
  std::vector<std::optional<double>> shares;
  for (const Count& count : counts_) shares.push_back(count.share());
  return shares;
}

Json to_json(const SparsityRequest& request, const NeuronDropper& dropper) {
  const auto value = [](const std::optional<double>& share) {
    return share ? Json(*share) : Json(nullptr);
  };
  Json json;
  json["system"] = std::string(request.system->name);
  json["source"] = std::string(request.system->source);
  json["level"] = request.level;
  json["realised"] = value(dropper.sparsity());
  Json& layers = json["layers"] = Json::array();
  for (const auto& share : dropper.layer_sparsity()) layers.push_back(value(share));
  return json;
}

}  // namespace winnow::metrics
