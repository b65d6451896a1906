// SPDX-FileCopyrightText: The Winnow authors
// SPDX-License-Identifier: Apache-2.0
// A model on disk as the rest of the program sees it: its spec, its tokenizer, and for each role
// where the bytes are, whatever the file format. Payloads stay on disk.
#pragma once

#include <cstddef>
#include <filesystem>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <unordered_map>
#include <vector>

#include "base/json.h"
#include "formats/model_file.h"
#include "model/architecture.h"
#include "model/roles.h"
#include "model/spec.h"
#include "tensor/matrix.h"
#include "text/tokenizer.h"

namespace winnow::model {

struct LowRankRef;

/// Where one matrix or vector lies: a whole tensor, one expert of a stack, or a part of a fused
/// one.
struct TensorRef {
  const formats::TensorInfo* info = nullptr;
  std::uint64_t offset = 0;  ///< of the first byte, from the beginning of the tensor's payload
  std::size_t rows = 0;      ///< out_features; 1 for vectors
  std::size_t cols = 0;      ///< in_features
  /// What is added to the matrix (extended_layout.h), or null; lives as long as the checkpoint.
  const LowRankRef* low_rank = nullptr;
  /// Where the rows lie, counted from `offset`, when they are not one after the other: [rows], or
  /// null; lives as long as the checkpoint.
  const std::vector<std::uint32_t>* row_places = nullptr;
  const quant::Codec& codec() const { return *info->codec; }
  std::size_t row_bytes() const { return cols / codec().block_size * codec().block_bytes; }
  Bytes bytes() const { return {rows * row_bytes()}; }
  Bytes stored_bytes() const;           ///< with those of the correction
  std::uint64_t multiply_adds() const;  ///< of a product with one vector, the correction's too
};

/// The matrix is W + left right.
struct LowRankRef {
  TensorRef left;   ///< [rows, rank]
  TensorRef right;  ///< [rank, cols]
};

inline Bytes TensorRef::stored_bytes() const {
  return low_rank == nullptr ? bytes() : bytes() + low_rank->left.bytes() + low_rank->right.bytes();
}
inline std::uint64_t TensorRef::multiply_adds() const {
  const std::uint64_t rank = low_rank == nullptr ? 0 : low_rank->right.rows;
  return std::uint64_t{rows} * cols + rank * (rows + cols);
}

/// Opened and checked: every tensor that the spec asks for is there, with the shape it must have,
/// in a type that can be decoded.
class Checkpoint {
 public:
  /// Reads headers only. Throws Error{kBadData}: unknown architecture or type, missing tensor,
  /// wrong shape; with file, tensor and what was expected.
  static Checkpoint open(const std::filesystem::path& path);
  /// For tests and fuzzing.
  static Checkpoint from_file(std::unique_ptr<formats::ModelFile> file);

  const formats::ModelFile& file() const { return *file_; }
  const Architecture& architecture() const { return *architecture_; }
  const ModelSpec& spec() const { return spec_; }
  /// Read and checked on the first call. Throws Error{kBadData}.
  text::TokenizerSpec tokenizer_spec() const;

  /// Layer and expert are ignored for roles without them. Nothing when the layer, or this expert of
  /// it, has no such tensor.
  std::optional<TensorRef> find(Role role, LayerId layer = {}, ExpertId expert = {}) const;
  /// As `find`, for tensors that the caller knows to exist. Throws Error{kInternal} otherwise.
  TensorRef at(Role role, LayerId layer = {}, ExpertId expert = {}) const;

  /// Reads rows [first, first + count) as packed bytes into `out` (count * row_bytes() long);
  /// without the correction.
  void read_rows(const TensorRef& ref, std::size_t first, std::size_t count,
                 std::span<std::byte> out) const;
  /// Reads and decodes rows [first, first + count) into `out` [count, cols], with the correction
  /// added. Throws Error{kBadData} with the tensor's name when a value is not finite.
  void read_floats(const TensorRef& ref, std::size_t first, std::size_t count,
                   std::span<float> out) const;

  /// The same model with these experts of each layer alone, in this order, numbered from 0: their
  /// matrices, and their rows of the router. experts: for each layer, empty where it is dense; as
  /// many in every MoE layer, at least top_k, none twice. A token goes to the best of them, as if
  /// the logits of the others were minus infinity. Throws Error{kUsage} for another list, and where
  /// the experts vary.
  Checkpoint with_experts(const std::vector<std::vector<ExpertId>>& experts) &&;

  /// Tensors of the file that no role uses, in file order.
  const std::vector<std::string>& unused_tensors() const { return unused_; }
  /// Parameters of the model (elements of all used tensors, corrections not counted) and the bytes
  /// of all used tensors, corrections included.
  std::uint64_t num_parameters() const { return num_parameters_; }
  Bytes tensor_bytes() const { return tensor_bytes_; }
  /// Calls `visit` for each (role, layer) the model has, in file-independent order: embedding,
  /// layers, output norm, output. Per-expert roles are visited once per layer.
  void for_each_role(const std::function<void(Role, LayerId)>& visit) const;
  /// Experts of the layer for per-expert roles, otherwise 1.
  std::size_t part_count(Role role, LayerId layer) const;
  /// Bytes of all corrections; 0: the file has none.
  Bytes correction_bytes() const { return correction_bytes_; }

 private:
  Checkpoint() = default;
  void locate_tensors();
  void count_tensors();
  const LowRankRef* locate_low_rank(Role role, LayerId layer, std::size_t part,
                                    const tensor::Shape& shape);
  TensorRef locate_factor(const formats::TensorInfo& info, Role role, std::size_t part,
                          const tensor::Shape& shape) const;
  void add_correction(const LowRankRef& correction, std::size_t first,
                      tensor::MatrixView<float> rows) const;
  TensorRef locate(Role role, LayerId layer, std::size_t part, const tensor::Shape& shape);
  const formats::TensorInfo* fused_tensor(Role role, LayerId layer) const;
  TensorRef part_of_stack(const formats::TensorInfo& info, std::size_t part,
                          const tensor::Shape& shape, std::size_t parts_in_row_group,
                          std::size_t index_in_row_group) const;
  static std::uint64_t key(Role role, LayerId layer);

  std::unique_ptr<formats::ModelFile> file_;
  const Architecture* architecture_ = nullptr;
  ModelSpec spec_;
  std::unordered_map<std::uint64_t, std::vector<TensorRef>> refs_;       // by key(); one per expert
  std::vector<std::unique_ptr<LowRankRef>> corrections_;                 // `refs_` point to them
  std::vector<std::unique_ptr<std::vector<std::uint32_t>>> row_places_;  // and to these
  std::vector<std::string> unused_;
  std::uint64_t num_parameters_ = 0;
  Bytes tensor_bytes_;
  Bytes correction_bytes_;
};

}  // namespace winnow::model
