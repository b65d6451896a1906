// SPDX-FileCopyrightText: The Winnow authors
// SPDX-License-Identifier: Apache-2.0
// The type of `Codec::encode`, for what may stand in its place.
#pragma once

#include "quant/codec.h"

namespace winnow::quant {

using EncodeRow = decltype(Codec::encode);

}  // namespace winnow::quant
