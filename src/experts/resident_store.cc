// SPDX-FileCopyrightText: The Winnow authors
// SPDX-License-Identifier: Apache-2.0
// All experts in memory: where they lie in a mapped file, or copied to anonymous memory on huge
// pages.
#include <cstddef>

#include "base/checked.h"
#include "base/error.h"
#include "experts/store.h"
#include "os/aligned_buffer.h"

namespace winnow::experts {
namespace {

// Matrices begin on cache lines.
constexpr std::uint64_t kAlignment = 64;

class ResidentBatch final : public Batch {
 public:
  ResidentBatch(const std::vector<ExpertMatrices>& layer, std::span<const ExpertId> experts)
      : layer_(layer), experts_(experts.begin(), experts.end()) {}

  std::optional<PinnedExpert> next_ready() override {
    if (next_ == experts_.size()) return std::nullopt;
    const ExpertId expert = experts_[next_++];
    WINNOW_CHECK(index(expert) < layer_.size());
    return PinnedExpert(expert, layer_[index(expert)]);
  }
  bool ready() const override { return next_ < experts_.size(); }

 private:
  const std::vector<ExpertMatrices>& layer_;
  std::vector<ExpertId> experts_;
  std::size_t next_ = 0;
};

class ResidentStore final : public ExpertStore {
 public:
  ResidentStore(const ExpertCatalogue& catalogue, const os::MappedFiles* mapped) {
    std::uint64_t total = 0;
    for_each_matrix(catalogue, [&](const MatrixLocation& matrix, quant::PackedMatrix& out) {
      out = packed(matrix, nullptr);
      const std::uint64_t bytes = out.bytes().value;
      if (mapped != nullptr) out.data = mapped->find(*matrix.file, matrix.offset, bytes);
      if (out.data != nullptr) {
        mapped_ += bytes;
      } else {
        total = checked_align_up(total + bytes, kAlignment).value();
      }
    });
    buffer_ = os::AlignedBuffer(total);
    std::uint64_t position = 0;
    for_each_matrix(catalogue, [&](const MatrixLocation& matrix, quant::PackedMatrix& out) {
      if (out.data != nullptr) return;
      const std::uint64_t bytes = out.bytes().value;
      out.data = buffer_.data() + position;
      matrix.file->read_at(matrix.offset, buffer_.bytes().subspan(position, bytes));
      position = checked_align_up(position + bytes, kAlignment).value();
    });
  }

  std::unique_ptr<Batch> request(LayerId layer, std::span<const ExpertId> experts,
                                 Priority /*priority*/) override {
    WINNOW_CHECK(index(layer) < layers_.size());
    return std::make_unique<ResidentBatch>(layers_[index(layer)], experts);
  }
  Bytes memory() const override { return {buffer_.size() + mapped_}; }

 private:
  static quant::PackedMatrix packed(const MatrixLocation& matrix, const std::byte* data) {
    return {matrix.codec, data, matrix.rows, matrix.cols};
  }

  /// The matrix and, where it is corrected, its factors.
  template <typename Visit>
  static void visit_corrected(const CorrectedLocation& from, quant::CorrectedMatrix& to,
                              Visit visit) {
    visit(from, to);
    if (from.right.codec == nullptr) return;
    visit(from.left, to.left);
    visit(from.right, to.right);
  }

  /// Visits matrices in file-independent order: layer, expert, gate, up, down.
  template <typename Visit>
  void for_each_matrix(const ExpertCatalogue& catalogue, Visit visit) {
    layers_.resize(catalogue.size());
    for (std::size_t layer = 0; layer < catalogue.size(); ++layer) {
      layers_[layer].resize(catalogue[layer].size());
      for (std::size_t expert = 0; expert < catalogue[layer].size(); ++expert) {
        const ExpertLocation& from = catalogue[layer][expert];
        ExpertMatrices& to = layers_[layer][expert];
        visit_corrected(from.gate_proj, to.gate_proj, visit);
        visit_corrected(from.up_proj, to.up_proj, visit);
        visit_corrected(from.down_proj, to.down_proj, visit);
      }
    }
  }

  os::AlignedBuffer buffer_;
  std::uint64_t mapped_ = 0;
  std::vector<std::vector<ExpertMatrices>> layers_;
};

}  // namespace

std::unique_ptr<ExpertStore> make_resident_store(const ExpertCatalogue& catalogue,
                                                 const os::MappedFiles* mapped) {
  return std::make_unique<ResidentStore>(catalogue, mapped);
}

}  // namespace winnow::experts
