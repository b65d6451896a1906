// SPDX-FileCopyrightText: The Winnow authors
// SPDX-License-Identifier: Apache-2.0
// Where the bytes of an expert lie on disk and in a slot of memory, and how many slots a number of
// bytes is worth.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "base/units.h"
#include "experts/store.h"

namespace winnow::experts {

/// A stretch of a file, in whole blocks of os::kReadAlignment, and its place in the slot.
struct SlotRead {
  std::size_t file = 0;  ///< of SlotLayout::files
  std::uint64_t offset = 0;
  std::size_t size = 0;
  std::size_t least = 0;     ///< up to the last byte of a matrix
  std::size_t position = 0;  ///< in the slot
};

/// The matrices of an expert on disk. Those that follow each other are one read.
struct ExpertRecord {
  std::vector<SlotRead> reads;  ///< empty: the expert has no matrices of its own
  std::size_t bytes = 0;        ///< of the slot
};

/// Slots of one size, and the experts that go there: those with at most so many bytes that fit no
/// smaller class.
struct SlotClass {
  std::size_t bytes = 0;    ///< of one slot
  std::size_t experts = 0;  ///< of the model
  std::size_t needed = 0;   ///< slots that a token's experts of one layer may take
  std::size_t slots = 0;
};

class SlotLayout {
 public:
  /// Everything that the locations of `catalogue` need; experts with the matrices of another have
  /// an empty record.
  explicit SlotLayout(const ExpertCatalogue& catalogue);

  std::span<const os::RandomAccessFile* const> files() const { return files_; }
  std::size_t num_layers() const { return records_.size(); }
  std::size_t num_experts(LayerId layer) const { return records_[index(layer)].size(); }
  const ExpertRecord& record(LayerId layer, ExpertId expert) const {
    return records_[index(layer)][index(expert)];
  }
  /// Where the first byte of a matrix of this record lies in the slot.
  std::size_t position(const ExpertRecord& record, const MatrixLocation& matrix) const;

  /// Throws Error{kBadData} when the bytes in `slot` are not those that the location's checksum is
  /// of.
  void require_checksum(const ExpertRecord& record, const ExpertLocation& location,
                        const std::byte* slot) const;

  /// Slots for all experts that have a record.
  Bytes all() const { return {all_}; }
  /// The least that a token which uses `top_k` experts of a layer can do with: slots for those of
  /// one layer, each as large as the largest expert.
  Bytes minimum(std::size_t top_k) const;
  /// Divides `bytes` (at least the minimum) into classes, smallest slots first. Few, so that no
  /// class starves, and slots that are filled to 7/8 or more where there is room for that; each
  /// class gets what a token may need of it and a share by the bytes of its experts. No class has
  /// more slots than experts.
  std::vector<SlotClass> divide(Bytes bytes, std::size_t top_k) const;

 private:
  std::size_t file_number(const os::RandomAccessFile* file);
  ExpertRecord make_record(const ExpertLocation& location);
  std::vector<SlotClass> classes(std::size_t numerator, std::size_t top_k) const;

  std::vector<const os::RandomAccessFile*> files_;
  std::vector<std::vector<ExpertRecord>> records_;
  std::uint64_t all_ = 0;
};

/// Bytes of all slots.
Bytes total_bytes(std::span<const SlotClass> classes);

/// Calls visit(location, matrix) for each matrix of an expert and each factor of its corrections;
/// `to` is an ExpertMatrices, or an ExpertLocation again.
template <typename To, typename Visit>
void visit_matrices(const ExpertLocation& from, To& to, Visit visit) {
  const auto corrected = [&visit](const CorrectedLocation& location, auto& matrix) {
    visit(location, matrix);
    if (location.right.codec == nullptr) return;
    visit(location.left, matrix.left);
    visit(location.right, matrix.right);
  };
  corrected(from.gate_proj, to.gate_proj);
  corrected(from.up_proj, to.up_proj);
  corrected(from.down_proj, to.down_proj);
}

}  // namespace winnow::experts
