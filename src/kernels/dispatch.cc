// SPDX-FileCopyrightText: The Winnow authors
// SPDX-License-Identifier: Apache-2.0
// The kernel tables of all ISAs: each begins as a copy of its base's and replaces what it does
// better.
#include <algorithm>
#include <array>
#include <string>

#include "base/error.h"
#include "kernels/detail/scratch.h"
#include "kernels/kernels.h"

#if defined(__aarch64__)
#define WINNOW_ISAS "kernels/dispatch_aarch64.def"
#else
#define WINNOW_ISAS "kernels/dispatch_x86.def"
#endif

namespace winnow::kernels {

#define ISA(name, feature, base) \
  namespace name {               \
  void improve(Kernels& table);  \
  }
#include WINNOW_ISAS
#undef ISA

namespace {

struct Isa {
  std::string_view name;
  os::CpuFeature needs;
  std::string_view base;
  void (*improve)(Kernels& table);
};

constexpr std::array kIsas = {
#define ISA(name, feature, base) Isa{#name, os::CpuFeature::feature, #base, name::improve},
#include WINNOW_ISAS
#undef ISA
};

/// Index of the ISA of that name; kIsas.size() for the base of the last.
constexpr std::size_t index_of(std::string_view name) {
  std::size_t i = 0;
  while (i < kIsas.size() && kIsas[i].name != name) ++i;
  return i;
}

constexpr bool bases_come_later() {
  for (std::size_t i = 0; i + 1 < kIsas.size(); ++i) {
    const std::size_t base = index_of(kIsas[i].base);
    if (base <= i || base == kIsas.size()) return false;
  }
  return kIsas.back().base == "none";
}
static_assert(bases_come_later(), "the base of an ISA is one of the lines after its own");

using Tables = std::array<Kernels, kIsas.size()>;

/// In the order of kIsas.
const Tables& tables() {
  static const Tables kTables = [] {
    Tables result{};
    for (std::size_t i = kIsas.size(); i-- > 0;) {
      const std::size_t base = index_of(kIsas[i].base);
      if (base < result.size()) result[i] = result[base];
      kIsas[i].improve(result[i]);
      result[i].isa = kIsas[i].name;
    }
    return result;
  }();
  return kTables;
}

std::string names_of(const std::vector<const Kernels*>& isas) {
  std::string text;
  for (const Kernels* isa : isas) text += (text.empty() ? "" : ", ") + std::string(isa->isa);
  return text;
}

}  // namespace

std::size_t matmul_scratch_bytes(const quant::PackedMatrix& w) {
  return w.codec->is_float() ? detail::kMaxFloatRows * detail::float_bytes(w.cols)
                             : detail::code_scratch_bytes(w.cols);
}

std::vector<std::string_view> isa_names() {
  std::vector<std::string_view> names;
  names.reserve(kIsas.size());
  for (const Isa& isa : kIsas) names.push_back(isa.name);
  return names;
}

std::vector<const Kernels*> supported_isas(os::CpuFeatures features) {
  std::vector<const Kernels*> supported;
  for (std::size_t i = 0; i < kIsas.size(); ++i) {
    if (features.has(kIsas[i].needs)) supported.push_back(&tables()[i]);
  }
  return supported;
}

const Kernels& select_kernels(std::string_view name, os::CpuFeatures features) {
  const auto supported = supported_isas(features);
  if (name.empty() || name == "auto") return *supported.front();
  for (const Kernels* kernels : supported) {
    if (kernels->isa == name) return *kernels;
  }
  const auto names = isa_names();
  const bool known = std::find(names.begin(), names.end(), name) != names.end();
  const std::string problem =
      known ? fmt::format("instruction set '{}' is not supported by this processor", name)
            : fmt::format("unknown instruction set '{}'", name);
  fail(ErrorCode::kUsage, "{}; this processor runs: {}, auto", problem, names_of(supported));
}

}  // namespace winnow::kernels
