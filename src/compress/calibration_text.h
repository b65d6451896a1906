// SPDX-FileCopyrightText: The Winnow authors
// SPDX-License-Identifier: Apache-2.0
// How a text is divided between what the compressor learns from and what it is judged by.
#pragma once

#include <cstdint>

#include "metrics/text_data.h"

namespace winnow::compress {

struct CalibrationText {
  metrics::WindowSet calibration;  ///< for moments and Hessians
  metrics::WindowSet held_out;     ///< for the guard of each matrix; empty where there is little
  metrics::WindowSet probe;        ///< for the divergence of whole models
};

/// Every n-th window is put aside as probe, spread over the whole text, until `probe_tokens` are
/// reached (at most a quarter of the text), and of the others every eighth as held out. A single
/// window serves for all.
CalibrationText divide_text(const metrics::WindowSet& all, std::uint64_t probe_tokens);

/// The same with a probe of its own: about `probe_tokens` of `probe`, spread over it.
CalibrationText divide_text(const metrics::WindowSet& all, const metrics::WindowSet& probe,
                            std::uint64_t probe_tokens);

}  // namespace winnow::compress
