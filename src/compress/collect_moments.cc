// SPDX-FileCopyrightText: The Winnow authors
// SPDX-License-Identifier: Apache-2.0
#include "compress/collect_moments.h"

#include "compress/memory_plan.h"
#include "compress/window_stream.h"

namespace winnow::compress {

InputMoments collect_moments(engine::LayerRunner& runner, const model::ModelSpec& spec,
                             const metrics::WindowSet& text, const std::filesystem::path& folder,
                             EncoderKind encoders, Log& log) {
  const bool stock = encoders == EncoderKind::kStock;
  InputMoments moments(spec, stock ? RouterWeights::kIgnored : RouterWeights::kSquared);
  const WindowBatches batches(text.windows, MemoryPlan::kBatchTokens);
  WindowStream stream(batches, spec.hidden_size, folder);
  stream.embed(runner, nullptr, log);
  for (std::uint32_t layer = 0; layer < spec.num_hidden_layers; ++layer) {
    runner.load(LayerId{layer});
    stream.run(runner, stream, &moments, log);
    log.progress("calibrating", layer + 1, spec.num_hidden_layers, "layers");
  }
  if (stock) return moments;  // importance matrices are of layers
  runner.load_output();
  stream.observe_output(runner, moments, log);
  return moments;
}

}  // namespace winnow::compress
