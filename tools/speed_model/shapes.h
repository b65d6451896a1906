// SPDX-FileCopyrightText: The Winnow authors
// SPDX-License-Identifier: Apache-2.0
// Shapes of published models, for files with random weights that only speed is measured on.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

#include "model/spec.h"

namespace winnow::tools {

/// Names of all shapes, separated by blanks.
std::string shape_names();

/// The shape of that name, with `layers` layers when given. The mixture-of-experts shapes are all
/// written as Qwen3-MoE, with a norm on each head of queries and keys, because every engine that
/// Winnow is compared with has that architecture. Throws Error{kUsage} for an unknown name.
model::ModelSpec published_shape(std::string_view name, std::optional<std::uint32_t> layers);

}  // namespace winnow::tools
