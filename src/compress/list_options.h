// SPDX-FileCopyrightText: The Winnow authors
// SPDX-License-Identifier: Apache-2.0
// In which ways each group of tensors can be stored, before anything is measured.
#pragma once

#include <vector>

#include "base/log.h"
#include "compress/compressor.h"

namespace winnow::compress {

/// Adds narrowed forms of groups, where they are asked for and possible (warns where not), and to
/// all groups their options with sizes.
void list_options(const model::Checkpoint& source, const CompressOptions& options,
                  std::vector<TensorGroup>& groups, Log& log);

}  // namespace winnow::compress
