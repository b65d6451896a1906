// SPDX-FileCopyrightText: The Winnow authors
// SPDX-License-Identifier: Apache-2.0
#include "experts/route_predictor.h"

#include <array>

#include "base/error.h"

namespace winnow::experts {

#define PREDICTOR(predictor) extern const PredictorEntry predictor;
#include "experts/predictors/registry.def"
#undef PREDICTOR

std::span<const PredictorEntry* const> route_predictors() {
  static constexpr std::array kAll = {
#define PREDICTOR(predictor) &predictor,
#include "experts/predictors/registry.def"
#undef PREDICTOR
  };
  return kAll;
}

const PredictorEntry& find_route_predictor(std::string_view name) {
  std::string names;
  for (const PredictorEntry* predictor : route_predictors()) {
    if (predictor->name == name) return *predictor;
    names.append(names.empty() ? "" : ", ").append(predictor->name);
  }
  fail(ErrorCode::kUsage, "there is no predictor '{}'; there are {}", name, names);
}

}  // namespace winnow::experts
