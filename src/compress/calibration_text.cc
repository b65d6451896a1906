// SPDX-FileCopyrightText: The Winnow authors
// SPDX-License-Identifier: Apache-2.0
#include "compress/calibration_text.h"

#include <algorithm>
#include <utility>

namespace winnow::compress {
namespace {

// Of so many consecutive windows that are not the probe's, the last is held out.
constexpr std::size_t kHeldOutWindows = 8;

/// Whole windows, spread evenly, into `picked` until they have `wanted` tokens; the others into
/// `rest`.
void pick(const metrics::WindowSet& all, std::uint64_t wanted, metrics::WindowSet& picked,
          metrics::WindowSet& rest) {
  const std::uint64_t total = all.scored_tokens();
  const std::size_t stride = static_cast<std::size_t>(
      std::clamp<std::uint64_t>(total / wanted, 1, std::max<std::size_t>(1, all.windows.size())));
  std::uint64_t tokens = 0;
  for (std::size_t i = 0; i < all.windows.size(); ++i) {
    const bool take = i % stride == stride - 1 && tokens < wanted;
    if (take) tokens += all.windows[i].scored();
    (take ? picked : rest).windows.push_back(all.windows[i]);
  }
  if (picked.windows.empty()) picked.windows.push_back(all.windows.back());
}

void hold_out(metrics::WindowSet rest, CalibrationText& text) {
  for (std::size_t i = 0; i < rest.windows.size(); ++i) {
    const bool is_held_out = i % kHeldOutWindows == kHeldOutWindows - 1;
    (is_held_out ? text.held_out : text.calibration).windows.push_back(std::move(rest.windows[i]));
  }
}

CalibrationText named(const metrics::WindowSet& all, const metrics::WindowSet& probe) {
  return {{all.domains, {}}, {all.domains, {}}, {probe.domains, {}}};
}

}  // namespace

CalibrationText divide_text(const metrics::WindowSet& all, std::uint64_t probe_tokens) {
  CalibrationText text = named(all, all);
  if (all.windows.size() == 1) {
    text.calibration.windows = all.windows;
    text.probe.windows = all.windows;
    return text;
  }
  metrics::WindowSet rest{all.domains, {}};
  // At least every second window is left to learn from.
  const std::uint64_t wanted =
      std::max<std::uint64_t>(std::min(probe_tokens, all.scored_tokens() / 4), 1);
  pick(all, wanted, text.probe, rest);
  hold_out(std::move(rest), text);
  return text;
}

CalibrationText divide_text(const metrics::WindowSet& all, const metrics::WindowSet& probe,
                            std::uint64_t probe_tokens) {
  CalibrationText text = named(all, probe);
  metrics::WindowSet unused{probe.domains, {}};
  pick(probe, std::max<std::uint64_t>(probe_tokens, 1), text.probe, unused);
  hold_out(all, text);
  return text;
}

}  // namespace winnow::compress
