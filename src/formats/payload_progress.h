// SPDX-FileCopyrightText: The Winnow authors
// SPDX-License-Identifier: Apache-2.0
// Keeps a writer to its plan: which tensor the next payload bytes belong to, and that all arrive.
#pragma once

#include <cstdint>
#include <filesystem>
#include <span>
#include <string>
#include <vector>

#include "base/units.h"
#include "formats/model_file.h"

namespace winnow::formats {

struct PlannedPayload {
  std::string name;
  Bytes size;
};

/// Sizes of the planned tensors. Throws Error{kBadData} naming `path` and tensor when two have one
/// name, rows do not divide into blocks, or a size overflows.
std::vector<PlannedPayload> plan_payloads(const std::filesystem::path& path,
                                          std::span<const PlannedTensor> tensors);

class PayloadProgress {
 public:
  explicit PayloadProgress(std::vector<PlannedPayload> payloads);

  /// Index of the tensor that the next bytes belong to; the number of tensors when all are whole.
  std::size_t current() const { return current_; }
  /// Counts `bytes` as written. True when they complete a tensor. Throws Error{kInternal} when they
  /// are more than the tensor has left.
  bool advance(std::uint64_t bytes);
  /// Throws Error{kInternal} unless all tensors are whole.
  void check_finished() const;

 private:
  void skip_empty();

  std::vector<PlannedPayload> payloads_;
  std::size_t current_ = 0;
  std::uint64_t written_ = 0;  // of the current tensor
};

}  // namespace winnow::formats
