// SPDX-FileCopyrightText: The Winnow authors
// SPDX-License-Identifier: Apache-2.0
#include "compress/collect_moments.h"

namespace winnow::compress {

InputMoments collect_moments(engine::LayerRunner& runner, const model::ModelSpec& spec,
                             const WindowBatches& text, const std::filesystem::path& states,
                             Log& log) {
  InputMoments moments(spec);
  WindowStream stream(text, spec.hidden_size, states);
  stream.embed(runner, nullptr, log);
  for (std::uint32_t layer = 0; layer < spec.num_hidden_layers; ++layer) {
    runner.load(LayerId{layer});
    stream.run(runner, stream, &moments, log);
    log.progress("calibrating", layer + 1, spec.num_hidden_layers, "layers");
  }
  runner.load_output();
  stream.observe_output(runner, moments, log);
  return moments;
}

}  // namespace winnow::compress
