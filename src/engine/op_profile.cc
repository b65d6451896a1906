// SPDX-FileCopyrightText: The Winnow authors
// SPDX-License-Identifier: Apache-2.0
#include "engine/op_profile.h"

namespace winnow::engine {
namespace {

struct OpTraits {
  std::string_view name;
  bool matrix_work;
};

constexpr std::array<OpTraits, kNumOps> kTraits = {{
    {"embedding", false},
    {"norm", false},
    {"quantize", false},
    {"attention_projections", true},
    {"rotary", false},
    {"attention", false},
    {"attention_output", true},
    {"router", true},
    {"expert_wait", false},
    {"gate_up", true},
    {"down", true},
    {"output", true},
}};

}  // namespace

std::string_view to_string(Op op) { return kTraits[static_cast<std::size_t>(op)].name; }
bool is_matrix_work(Op op) { return kTraits[static_cast<std::size_t>(op)].matrix_work; }

}  // namespace winnow::engine
