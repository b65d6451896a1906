// SPDX-FileCopyrightText: The Winnow authors
// SPDX-License-Identifier: Apache-2.0
// All experts in memory: where they lie in a mapped file, or copied to anonymous memory on huge
// pages.
#include <cstddef>
#include <deque>

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
  ResidentBatch(const std::vector<ExpertForm>& layer, std::span<const ExpertId> experts)
      : layer_(layer), experts_(experts.begin(), experts.end()) {}

  std::optional<PinnedExpert> next_ready() override {
    if (next_ == experts_.size()) return std::nullopt;
    const ExpertId expert = experts_[next_++];
    WINNOW_CHECK(index(expert) < layer_.size());
    return PinnedExpert(expert, layer_[index(expert)]);
  }
  bool ready() const override { return next_ < experts_.size(); }

 private:
  const std::vector<ExpertForm>& layer_;
  std::vector<ExpertId> experts_;
  std::size_t next_ = 0;
};

class ResidentStore final : public ExpertStore {
 public:
  ResidentStore(const ExpertCatalogue& catalogue, const os::MappedFiles* mapped) {
    make_forms(catalogue);
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
    share_forms(catalogue);
  }

  std::unique_ptr<Batch> request(LayerId layer, std::span<const ExpertId> experts,
                                 Priority /*priority*/) override {
    WINNOW_CHECK(index(layer) < layers_.size());
    return std::make_unique<ResidentBatch>(layers_[index(layer)], experts);
  }
  Bytes memory() const override {
    std::uint64_t constants = 0;
    for (const std::vector<float>& values : constants_) constants += values.size() * sizeof(float);
    return {buffer_.size() + mapped_ + constants};
  }

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

  void make_forms(const ExpertCatalogue& catalogue) {
    for (const std::vector<ExpertSource>& layer : catalogue) {
      std::vector<ExpertForm>& forms = layers_.emplace_back();
      for (const ExpertSource& expert : layer) {
        forms.push_back(
            std::visit([this](const auto& source) { return this->form_of(source); }, expert));
      }
    }
  }
  static ExpertForm form_of(const ExpertLocation& /*read later*/) { return ExpertMatrices{}; }
  static ExpertForm form_of(const ZeroExpert& zero) { return zero; }
  static ExpertForm form_of(const IdentityExpert& identity) { return identity; }
  static ExpertForm form_of(const SharedSource& /*taken later*/) { return ExpertMatrices{}; }
  ExpertForm form_of(const ConstantSource& constant) {
    return ConstantExpert{constants_.emplace_back(constant.values)};
  }

  /// Gives shared experts the forms of those that have their matrices.
  void share_forms(const ExpertCatalogue& catalogue) {
    for (std::size_t layer = 0; layer < catalogue.size(); ++layer) {
      for (std::size_t expert = 0; expert < catalogue[layer].size(); ++expert) {
        const auto* const shared = std::get_if<SharedSource>(&catalogue[layer][expert]);
        if (shared == nullptr) continue;
        const std::size_t owner = index(shared->owner);
        WINNOW_CHECK(owner < catalogue[layer].size() &&
                     std::holds_alternative<ExpertLocation>(catalogue[layer][owner]));
        layers_[layer][expert] = layers_[layer][owner];
      }
    }
  }

  /// Visits matrices in file-independent order: layer, expert, gate, up, down.
  template <typename Visit>
  void for_each_matrix(const ExpertCatalogue& catalogue, Visit visit) {
    for (std::size_t layer = 0; layer < catalogue.size(); ++layer) {
      for (std::size_t expert = 0; expert < catalogue[layer].size(); ++expert) {
        const auto* const from = std::get_if<ExpertLocation>(&catalogue[layer][expert]);
        if (from == nullptr) continue;
        auto& to = std::get<ExpertMatrices>(layers_[layer][expert]);
        visit_corrected(from->gate_proj, to.gate_proj, visit);
        visit_corrected(from->up_proj, to.up_proj, visit);
        visit_corrected(from->down_proj, to.down_proj, visit);
      }
    }
  }

  os::AlignedBuffer buffer_;
  std::uint64_t mapped_ = 0;
  std::vector<std::vector<ExpertForm>> layers_;
  std::deque<std::vector<float>> constants_;  // that forms point to
};

}  // namespace

std::unique_ptr<ExpertStore> make_resident_store(const ExpertCatalogue& catalogue,
                                                 const os::MappedFiles* mapped) {
  return std::make_unique<ResidentStore>(catalogue, mapped);
}

}  // namespace winnow::experts
