// SPDX-FileCopyrightText: The Winnow authors
// SPDX-License-Identifier: Apache-2.0
// The hidden states of all tokens between two layers: in memory, or in one file per layer.
#pragma once

#include <cstddef>
#include <filesystem>
#include <optional>
#include <vector>

#include "os/file.h"
#include "tensor/matrix.h"

namespace winnow::compress {

/// Batches of rows of f32. Layer l reads the states with number l and writes those with l + 1,
/// batch after batch; 0 are the embeddings.
class HiddenStates {
 public:
  using Durability = os::AtomicFile::Durability;
  /// rows: of each batch. In memory when `folder` is empty.
  HiddenStates(std::vector<std::size_t> rows, std::size_t cols, std::filesystem::path folder,
               Durability durability = Durability::kSynced);

  bool on_disk() const { return !folder_.empty(); }
  /// Whether whole states with this number lie on the disk.
  bool has(std::size_t number) const;

  /// Begins to read these states; they must have been written.
  void open(std::size_t number);
  void read(std::size_t batch, tensor::MatrixView<float> out) const;
  /// Rows of a batch from `first` on, as many as `out` has.
  void read_rows(std::size_t batch, std::size_t first, tensor::MatrixView<float> out) const;
  /// Begins to write these states.
  void create(std::size_t number);
  /// Batches come in order. In memory they replace what was read.
  void write(std::size_t batch, tensor::MatrixView<const float> values);
  /// On disk: there under its name, and synced unless they are scratch.
  void commit();
  /// Removes states that nobody needs any more.
  void drop(std::size_t number);

  static std::filesystem::path file_name(std::size_t number);

 private:
  std::vector<std::size_t> rows_;
  std::vector<std::uint64_t> offsets_;  // of the first row of each batch, and the end
  std::size_t cols_;
  std::filesystem::path folder_;
  Durability durability_;
  std::vector<std::vector<float>> memory_;
  std::unique_ptr<os::RandomAccessFile> input_;
  std::optional<os::AtomicFile> output_;
};

}  // namespace winnow::compress
