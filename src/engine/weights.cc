// SPDX-FileCopyrightText: The Winnow authors
// SPDX-License-Identifier: Apache-2.0
#include "engine/weights.h"

#include <algorithm>
#include <utility>

#include "base/checked.h"
#include "base/error.h"
#include "engine/linear.h"
#include "os/page_cache.h"

namespace winnow::engine {

using model::Role;

namespace {

constexpr std::uint64_t kAlignment = 64;  // matrices begin on cache lines

experts::MatrixLocation location(const model::Checkpoint& checkpoint, const model::TensorRef& ref) {
  return {checkpoint.file().files()[ref.info->file].get(), ref.info->offset + ref.offset,
          &ref.codec(), ref.rows, ref.cols};
}

const std::byte* find(const os::MappedFiles& mapped, const model::Checkpoint& checkpoint,
                      const model::TensorRef& ref) {
  if (ref.row_places != nullptr) return nullptr;  // rows are gathered into memory
  const experts::MatrixLocation at = location(checkpoint, ref);
  return mapped.find(*at.file, at.offset, ref.bytes().value);
}

/// Kept as the file has it; other roles become F32 vectors.
bool is_packed(Role role) { return model::traits(role).is_matrix || role == Role::kRouter; }

/// Factors are few and plain, so that damage is found here and not in the results.
void require_finite_factors(const model::Checkpoint& checkpoint, const model::TensorRef& ref) {
  if (ref.low_rank == nullptr) return;
  for (const model::TensorRef* factor : {&ref.low_rank->left, &ref.low_rank->right}) {
    std::vector<float> values(factor->rows * factor->cols);
    checkpoint.read_floats(*factor, 0, factor->rows, values);
  }
}

/// In pieces, which the page cache drops one after the other.
void read_without_traces(const model::Checkpoint& checkpoint, const model::TensorRef& ref,
                         std::span<std::byte> out) {
  constexpr std::size_t kPiece = std::size_t{4} << 20;
  const os::RandomAccessFile& file = *location(checkpoint, ref).file;
  const std::size_t most = std::max<std::size_t>(1, kPiece / ref.row_bytes());
  os::stop_read_ahead(file);
  for (std::size_t row = 0; row < ref.rows; row += most) {
    const std::size_t rows = std::min(most, ref.rows - row);
    checkpoint.read_rows(ref, row, rows,
                         out.subspan(row * ref.row_bytes(), rows * ref.row_bytes()));
    os::drop_from_page_cache(file);
  }
}

/// Calls visit(ref, packed) for the matrix and its factors.
template <typename Visit>
void visit_packed(const model::TensorRef& ref, quant::CorrectedMatrix& matrix, Visit visit) {
  visit(ref, matrix);
  if (ref.low_rank == nullptr) return;
  visit(ref.low_rank->left, matrix.left);
  visit(ref.low_rank->right, matrix.right);
}

}  // namespace

DenseWeights::DenseWeights(const model::Checkpoint& checkpoint, const os::MappedFiles* mapped,
                           Log& log, Traces traces)
    : DenseWeights(
          checkpoint, mapped, log, [](Role, LayerId) { return true; }, traces) {}

DenseWeights::DenseWeights(const model::Checkpoint& checkpoint, const os::MappedFiles* mapped,
                           Log& log, const Wanted& wanted, Traces traces)
    : tied_(checkpoint.spec().tie_word_embeddings),
      slots_(checkpoint.spec().num_hidden_layers * model::kNumRoles) {
  const auto for_each_dense = [&](auto visit) {
    checkpoint.for_each_role([&](Role role, LayerId layer) {
      if (model::traits(role).per_expert || !wanted(role, layer)) return;
      visit(role, checkpoint.at(role, layer), slots_[slot(role, layer)]);
    });
  };
  std::uint64_t total = 0;
  const auto place = [&](const model::TensorRef& ref, quant::PackedMatrix& matrix) {
    matrix = {&ref.codec(), nullptr, ref.rows, ref.cols};
    if (mapped != nullptr) matrix.data = find(*mapped, checkpoint, ref);
    if (matrix.data != nullptr) {
      mapped_ += ref.bytes().value;
    } else {
      total = checked_align_up(total + ref.bytes().value, kAlignment).value();
    }
  };
  for_each_dense([&](Role role, const model::TensorRef& ref, Slot& target) {
    if (!is_packed(role)) return;
    require_finite_factors(checkpoint, ref);
    visit_packed(ref, target.matrix, place);
  });
  buffer_ = os::AlignedBuffer(total);
  std::uint64_t position = 0;
  const auto read = [&](const model::TensorRef& ref, quant::PackedMatrix& matrix) {
    if (matrix.data != nullptr) return;
    matrix.data = buffer_.data() + position;
    const std::span<std::byte> out = buffer_.bytes().subspan(position, ref.bytes().value);
    if (traces == Traces::kNone) {
      read_without_traces(checkpoint, ref, out);
    } else {
      checkpoint.read_rows(ref, 0, ref.rows, out);
    }
    position = checked_align_up(position + ref.bytes().value, kAlignment).value();
    log.progress("loading", position, total, "bytes");
  };
  for_each_dense([&](Role role, const model::TensorRef& ref, Slot& target) {
    if (is_packed(role)) {
      visit_packed(ref, target.matrix, read);
    } else {
      target.values.resize(ref.cols);
      checkpoint.read_floats(ref, 0, 1, target.values);
    }
  });
}

DenseWeights::Sizes DenseWeights::sizes(const model::Checkpoint& checkpoint) {
  Sizes sizes;
  checkpoint.for_each_role([&](Role role, LayerId layer) {
    if (model::traits(role).per_expert) return;
    const model::TensorRef ref = checkpoint.at(role, layer);
    if (!is_packed(role)) {
      sizes.memory += {ref.cols * sizeof(float)};
      return;
    }
    quant::CorrectedMatrix shape;
    visit_packed(ref, shape, [&](const model::TensorRef& part, quant::PackedMatrix& matrix) {
      matrix = {&part.codec(), nullptr, part.rows, part.cols};
      sizes.memory += {checked_align_up(part.bytes().value, kAlignment).value()};
    });
    sizes.scratch = std::max(sizes.scratch, multiply_scratch_bytes(shape));
  });
  return sizes;
}

std::size_t DenseWeights::slot(Role role, LayerId layer) const {
  const std::size_t row = model::traits(role).per_layer ? index(layer) : 0;
  return row * model::kNumRoles + static_cast<std::size_t>(role);
}

const quant::CorrectedMatrix& DenseWeights::matrix(const WeightOverrides& overrides, Role role,
                                                   LayerId layer) const {
  if (role == Role::kOutput && tied_) role = Role::kTokenEmbedding;
  const quant::CorrectedMatrix& found = slots_[slot(role, layer)].matrix;
  WINNOW_CHECK(found.codec != nullptr);
  return overrides.resolve(role, layer, 0, found);
}

std::span<const float> DenseWeights::vector(Role role, LayerId layer) const {
  return slots_[slot(role, layer)].values;
}

std::size_t DenseWeights::scratch_bytes() const {
  std::size_t most = 0;
  for (const Slot& slot : slots_) {
    if (slot.matrix.codec != nullptr) {
      most = std::max(most, multiply_scratch_bytes(slot.matrix));
    }
  }
  return most;
}

namespace {

experts::ExpertSource source_of(const model::Checkpoint& checkpoint, LayerId layer,
                                ExpertId expert) {
  const auto matrix = [&](Role role) {
    const model::TensorRef ref = checkpoint.at(role, layer, expert);
    require_finite_factors(checkpoint, ref);
    experts::CorrectedLocation found(location(checkpoint, ref));
    if (ref.low_rank != nullptr) {
      found.left = location(checkpoint, ref.low_rank->left);
      found.right = location(checkpoint, ref.low_rank->right);
    }
    return found;
  };
  switch (checkpoint.spec().expert(layer, expert).kind) {
    case model::ExpertKind::kFeedForward:
      break;
    case model::ExpertKind::kZero:
      return experts::ZeroExpert{};
    case model::ExpertKind::kIdentity:
      return experts::IdentityExpert{};
    case model::ExpertKind::kConstant: {
      std::vector<float> values(checkpoint.spec().hidden_size);
      checkpoint.read_floats(checkpoint.at(Role::kExpertConstant, layer, expert), 0, 1, values);
      return experts::ConstantSource{std::move(values)};
    }
    case model::ExpertKind::kShared:
      return experts::SharedSource{checkpoint.spec().owner_of(layer, expert)};
  }
  experts::ExpertLocation found{matrix(Role::kExpertGateProj), matrix(Role::kExpertUpProj),
                                matrix(Role::kExpertDownProj)};
  const model::ModelSpec& spec = checkpoint.spec();
  if (!spec.expert_checksums.empty()) {
    found.crc32c = spec.expert_checksums[spec.experts_before(layer) + index(expert)];
  }
  return found;
}

}  // namespace

experts::ExpertCatalogue catalogue_experts(const model::Checkpoint& checkpoint, LayerId layer) {
  const model::ModelSpec& spec = checkpoint.spec();
  experts::ExpertCatalogue catalogue(spec.num_hidden_layers);
  if (!spec.is_moe_layer(layer)) return catalogue;
  for (std::uint32_t e = 0; e < spec.num_experts(layer); ++e) {
    catalogue[index(layer)].push_back(source_of(checkpoint, layer, ExpertId{e}));
  }
  return catalogue;
}

experts::ExpertCatalogue catalogue_experts(const model::Checkpoint& checkpoint) {
  experts::ExpertCatalogue catalogue(checkpoint.spec().num_hidden_layers);
  for (std::uint32_t l = 0; l < catalogue.size(); ++l) {
    catalogue[l] = std::move(catalogue_experts(checkpoint, LayerId{l})[l]);
  }
  return catalogue;
}

std::size_t scratch_bytes(const experts::ExpertCatalogue& catalogue) {
  std::size_t most = 0;
  for (const auto& layer : catalogue) {
    for (const experts::ExpertSource& source : layer) {
      const auto* const expert = std::get_if<experts::ExpertLocation>(&source);
      if (expert == nullptr) continue;
      for (const auto* m : {&expert->gate_proj, &expert->up_proj, &expert->down_proj}) {
        quant::CorrectedMatrix matrix(m->codec, nullptr, m->rows, m->cols);
        matrix.left = {m->left.codec, nullptr, m->left.rows, m->left.cols};
        matrix.right = {m->right.codec, nullptr, m->right.rows, m->right.cols};
        most = std::max(most, multiply_scratch_bytes(matrix));
      }
    }
  }
  return most;
}

}  // namespace winnow::engine
