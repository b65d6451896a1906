// SPDX-FileCopyrightText: The Winnow authors
// SPDX-License-Identifier: Apache-2.0
// What the tests of kernels share: memory with guards around it, and the list of ISAs.
#pragma once

#include <gtest/gtest.h>

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <string>
#include <vector>

#include "kernels/kernels.h"
#include "os/cpu_features.h"

namespace winnow::kernels::testing {

/// u of the error bounds: half an ulp of 1.
inline constexpr double kUnit = 0x1.0p-24;

inline std::vector<const Kernels*> isas_here() { return supported_isas(os::CpuFeatures::detect()); }

/// For names of parameterised tests.
inline std::string isa_name(const ::testing::TestParamInfo<const Kernels*>& info) {
  return std::string(info.param->isa);
}

/// `count` elements between guards, beginning one element past an address aligned to 64 bytes, so
/// that no vector load is aligned. The destructor fails the test when a guard has changed.
template <typename T>
class Guarded {
 public:
  explicit Guarded(std::size_t count)
      : count_(count), storage_(count * sizeof(T) + 4 * kGuard + sizeof(T), kFill) {
    const auto address = reinterpret_cast<std::uintptr_t>(storage_.data() + kGuard);
    offset_ = kGuard + (kAlignment - address % kAlignment) % kAlignment + sizeof(T);
  }
  Guarded(const Guarded&) = delete;
  Guarded& operator=(const Guarded&) = delete;
  ~Guarded() {
    for (std::size_t i = 0; i < storage_.size(); ++i) {
      const bool inside = i >= offset_ && i < offset_ + count_ * sizeof(T);
      if (!inside && storage_[i] != kFill) {
        ADD_FAILURE() << "byte " << static_cast<std::ptrdiff_t>(i - offset_) << " of a buffer of "
                      << count_ * sizeof(T) << " was overwritten";
        return;
      }
    }
  }
  T* data() { return reinterpret_cast<T*>(storage_.data() + offset_); }
  T& operator[](std::size_t i) { return data()[i]; }
  std::size_t size() const { return count_; }
  bool same_bytes(Guarded& other) {
    return count_ == other.count_ && std::memcmp(data(), other.data(), count_ * sizeof(T)) == 0;
  }

 private:
  static constexpr std::size_t kAlignment = 64;
  static constexpr std::size_t kGuard = 64;
  static constexpr std::byte kFill{0xff};  // a NaN, should a kernel read what nobody wrote
  std::size_t count_;
  std::vector<std::byte> storage_;
  std::size_t offset_ = 0;
};

/// A unit of scratch memory: Guarded<ScratchLine> is aligned as kernels want it.
struct ScratchLine {
  std::byte bytes[64];
};

}  // namespace winnow::kernels::testing
