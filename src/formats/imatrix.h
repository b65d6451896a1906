// SPDX-FileCopyrightText: The Winnow authors
// SPDX-License-Identifier: Apache-2.0
// llama.cpp's importance matrices: mean squares of the inputs of weight matrices, by GGUF names.
// Both forms, a GGUF file and the older binary one, are in docs/formats/imatrix.md.
#pragma once

#include <cstdint>
#include <filesystem>
#include <map>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "formats/model_file.h"
#include "os/file.h"

namespace winnow::formats {

enum class ImatrixForm : std::uint8_t {
  kGguf,    ///< sums of squares and counts
  kBinary,  ///< mean squares times a number of chunks; no counts
};

/// What an importance matrix was made of.
struct ImatrixInfo {
  std::vector<std::string> datasets;  ///< names of texts; the binary form keeps the last
  std::uint32_t chunk_count = 0;
  std::uint32_t chunk_size = 0;  ///< tokens; 0 where it is not known
};

/// Of one tensor of the model.
struct ImatrixEntry {
  std::string name;             ///< "blk.0.attn_q.weight"
  std::uint64_t values = 0;     ///< columns of all its matrices: [matrices, columns]
  std::uint64_t counts = 0;     ///< one per matrix (expert), or 1 for all
  std::uint64_t offset = 0;     ///< of the values in the file
  std::uint64_t counts_at = 0;  ///< of the counts; kGguf
  std::uint32_t chunks = 0;     ///< kBinary
};

struct ImatrixValues {
  std::vector<float> mean_squares;  ///< [values]; 0 where the count is 0
  /// [counts] tokens. The binary form says chunks: taken for kUsualChunk tokens each.
  std::vector<double> counts;
};

/// llama.cpp's default context, when a chunk's length is unknown.
inline constexpr std::uint32_t kUsualChunk = 512;

/// An opened importance matrix: names are in memory, values are read when asked for.
class ImatrixFile {
 public:
  /// Throws Error{kBadData} with file, entry and offset for anything that is malformed.
  static ImatrixFile open(const std::filesystem::path& path);
  static ImatrixFile read(std::unique_ptr<os::RandomAccessFile> file);

  const std::string& name() const { return file_->name(); }
  ImatrixForm form() const { return form_; }
  const ImatrixInfo& info() const { return info_; }
  /// In file order; names are different.
  const std::vector<ImatrixEntry>& entries() const { return entries_; }
  /// Null when there is none.
  const ImatrixEntry* find(std::string_view tensor) const;
  /// Throws Error{kBadData} that names the entry when a value is negative or not finite.
  ImatrixValues values(const ImatrixEntry& entry) const;

 private:
  ImatrixFile() = default;
  void read_gguf();
  void read_binary();
  void add(ImatrixEntry entry);
  std::vector<float> floats(const ImatrixEntry& entry, std::uint64_t offset,
                            std::uint64_t count) const;

  std::unique_ptr<os::RandomAccessFile> file_;
  ImatrixForm form_ = ImatrixForm::kGguf;
  ImatrixInfo info_;
  std::vector<ImatrixEntry> entries_;
  std::map<std::string, std::size_t, std::less<>> places_;
};

/// A tensor whose importance will be written.
struct PlannedImportance {
  std::string name;
  std::uint64_t matrices = 1;
  std::uint64_t columns = 0;
};

/// Writes an importance matrix in one pass. Nothing appears under the final name before `finish`.
class ImatrixWriter {
 public:
  virtual ~ImatrixWriter() = default;
  /// The next planned tensor. sums: sums of squares [matrices, columns]; counts: tokens
  /// [matrices]. Where a count is 0 the binary form stores 1, as llama.cpp does.
  virtual void append(std::span<const double> sums, std::span<const std::uint64_t> counts) = 0;
  virtual void finish() = 0;
};

/// Throws Error{kUsage} for more values than the form has numbers for, Error{kSystem} as
/// AtomicFile.
std::unique_ptr<ImatrixWriter> write_imatrix(const std::filesystem::path& path, ImatrixForm form,
                                             const ImatrixInfo& info,
                                             std::vector<PlannedImportance> planned);

}  // namespace winnow::formats
