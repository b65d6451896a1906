// SPDX-FileCopyrightText: The Winnow authors
// SPDX-License-Identifier: Apache-2.0
// Questions about where experts come from.
#pragma once

#include <cstddef>
#include <optional>

#include "experts/cache_policy.h"
#include "experts/store.h"

namespace winnow::experts {

/// The expert whose bytes are used; nothing when there are none.
std::optional<ExpertKey> owner_of(const ExpertCatalogue& catalogue, ExpertKey key);

/// The form of an expert without bytes. A constant's values stay the catalogue's.
ExpertForm form_without_bytes(const ExpertCatalogue& catalogue, ExpertKey key);

/// Of the vectors that stand for experts.
Bytes constant_bytes(const ExpertCatalogue& catalogue);

/// For caches and predictors of these experts, the number of slots left open.
CacheShape shape_of(const ExpertCatalogue& catalogue, std::size_t top_k);

}  // namespace winnow::experts
