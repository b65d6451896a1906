// SPDX-FileCopyrightText: The Winnow authors
// SPDX-License-Identifier: Apache-2.0
// The statistics file: small named arrays in a safetensors container whose metadata holds a JSON
// header. docs/formats/statistics.md describes it.
#pragma once

#include <cstdint>
#include <filesystem>
#include <map>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "base/json.h"
#include "base/units.h"
#include "compress/unit_sums.h"
#include "formats/model_file.h"
#include "model/checkpoint.h"
#include "os/file.h"

namespace winnow::compress {

inline constexpr std::uint32_t kStatisticsVersion = 1;
/// Consecutive sequences of a domain whose f64 sums are rounded together.
inline constexpr std::size_t kUnitSequences = 64;
/// Of so many consecutive sequences of a domain the last is held out.
inline constexpr std::size_t kHeldOutEvery = 8;

/// One domain of the text.
struct StatisticsDomain {
  std::string name;
  std::uint64_t sequences = 0;  ///< held-out ones included
  std::uint64_t held_out_sequences = 0;
  std::uint64_t tokens = 0;            ///< that the sums count; start tokens included
  std::uint64_t text_fingerprint = 0;  ///< sum over sequences of hashes of their tokens
};

/// What the sums are of. Merging refuses files that differ in anything but the domains.
struct StatisticsHeader {
  std::string version;  ///< of the program
  std::string architecture;
  std::uint64_t model_fingerprint = 0;
  std::uint64_t context = 0;
  std::string isa;
  std::uint64_t num_hidden_layers = 0;
  std::uint64_t hidden_size = 0;
  std::uint64_t num_experts = 0;
  std::uint64_t top_k = 0;
  std::vector<StatisticsDomain> domains;
};

/// Of this model, with no domains yet.
StatisticsHeader describe_model(const model::Checkpoint& checkpoint, const std::string& version,
                                std::size_t context, std::string_view isa);
Json to_json(const StatisticsHeader& header);

/// Prefixes of tensor names.
std::string layer_prefix(std::size_t domain, LayerId layer);
std::string output_prefix(std::size_t domain);
std::string teacher_prefix(std::size_t domain);

/// An array to be written: bytes are borrowed.
struct StatisticsArray {
  std::string name;
  std::string type;  ///< "F64", "U64", "F32", "I32"
  std::vector<std::uint64_t> shape;
  std::span<const std::byte> bytes;
};

/// A sum in its stored form: totals and the few residuals that are not zero (an element may have
/// several).
struct StoredSum {
  std::vector<double> totals;
  std::vector<std::uint64_t> residual_index;
  std::vector<double> residuals;
};

/// Writes a container with these arrays, in order; header may be null (a part of a file).
void write_statistics(const std::filesystem::path& path, const StatisticsHeader* header,
                      std::span<const StatisticsArray> arrays);
/// Writes what `sums` holds as a part; names begin with `prefix`.
void write_part(const std::filesystem::path& path, const std::string& prefix, const UnitSums& sums);
/// Joins parts into a whole file: the arrays of 8-byte elements of all parts, then the others.
/// Arrays of one name in several parts follow each other along their first dimension. Holds one
/// part's directory and a buffer in memory. Throws Error{kBadData} where such arrays differ in
/// form.
void join_parts(const std::filesystem::path& out, const StatisticsHeader& header,
                std::span<const std::filesystem::path> parts);

/// An opened file: the directory is in memory, arrays are read when asked for.
class StatisticsFile {
 public:
  /// A part has no header. Throws Error{kBadData}: not a statistics file, unknown version, damaged.
  static StatisticsFile open_part(const std::filesystem::path& path);
  static StatisticsFile open(const std::filesystem::path& path);

  const std::string& name() const { return file_->name(); }
  /// Not of a part.
  const StatisticsHeader& header() const { return *header_; }
  const std::vector<formats::TensorInfo>& arrays() const { return arrays_; }
  /// Null when there is none.
  const formats::TensorInfo* find(const std::string& array) const;

  /// Arrays of a type. Throw Error{kBadData} naming file and array when there is none, or one of
  /// another type.
  std::vector<double> doubles(const std::string& array) const;
  std::vector<std::uint64_t> counts(const std::string& array) const;
  std::vector<float> floats(const std::string& array) const;
  std::vector<std::int32_t> integers(const std::string& array) const;
  /// Refuses elements that are not finite, too.
  StoredSum sum(const std::string& array) const;
  void read(const formats::TensorInfo& array, std::uint64_t offset, std::span<std::byte> out) const;

  /// Refuses with Error{kBadData} statistics that are not of this model.
  void require_model(const model::Checkpoint& checkpoint) const;

 private:
  StatisticsFile() = default;
  template <typename T>
  std::vector<T> values(const std::string& array, std::string_view type) const;
  void check_invariants() const;

  std::unique_ptr<os::RandomAccessFile> file_;
  std::optional<StatisticsHeader> header_;
  std::vector<formats::TensorInfo> arrays_;
  std::map<std::string, std::size_t> index_;
};

}  // namespace winnow::compress
