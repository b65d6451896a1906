// SPDX-FileCopyrightText: The Winnow authors
// SPDX-License-Identifier: Apache-2.0
// Writes statistics files and parts of them.
#include <algorithm>
#include <array>
#include <deque>
#include <map>

#include "base/error.h"
#include "compress/statistics_file.h"
#include "formats/array_file.h"
#include "formats/names.h"
#include "formats/safetensors.h"

namespace winnow::compress {
namespace {

constexpr std::size_t kCopyBytes = std::size_t{1} << 20;

/// What the container begins with.
std::string container_header(const StatisticsHeader* header,
                             std::span<const StatisticsArray> arrays,
                             std::span<const std::uint64_t> sizes) {
  std::vector<std::pair<std::string, std::string>> texts = {{"format", "winnow-statistics"}};
  if (header != nullptr) texts.emplace_back("winnow.statistics", dump_json(to_json(*header)));
  std::vector<formats::PlannedArray> planned;
  for (std::size_t i = 0; i < arrays.size(); ++i) {
    planned.push_back({arrays[i].name, arrays[i].type, arrays[i].shape, sizes[i]});
  }
  return formats::array_file_header(texts, planned);
}

std::uint64_t element_bytes(std::string_view type) {
  const auto found = formats::find_safetensors_type(type);
  WINNOW_CHECK(found.has_value());
  return found->bits / 8;
}

StatisticsArray array_of(std::string name, const char* type, std::vector<std::uint64_t> shape,
                         std::span<const std::byte> bytes) {
  return {std::move(name), type, std::move(shape), bytes};
}

/// The residuals that are not zero; several of one element follow each other, greatest first.
StoredSum sparse_residuals(const Quantity& quantity) {
  StoredSum sum;
  const auto zeros = static_cast<std::size_t>(
      std::count(quantity.residuals.begin(), quantity.residuals.end(), 0.0));
  // Without growing, which would for a moment take three times the memory.
  sum.residual_index.reserve(quantity.residuals.size() - zeros);
  sum.residuals.reserve(quantity.residuals.size() - zeros);
  const auto add = [&sum](std::size_t i, double residual) {
    sum.residual_index.push_back(i);
    sum.residuals.push_back(residual);
  };
  for (std::size_t i = 0; i < quantity.residuals.size(); ++i) {
    if (quantity.residuals[i] == 0) continue;
    add(i, quantity.residuals[i]);
    const auto rest = quantity.rest.find(i);
    if (rest == quantity.rest.end()) continue;
    for (const double part : rest->second) add(i, part);
  }
  return sum;
}

}  // namespace

void write_statistics(const std::filesystem::path& path, const StatisticsHeader* header,
                      std::span<const StatisticsArray> arrays) {
  std::vector<std::uint64_t> sizes;
  for (const StatisticsArray& array : arrays) sizes.push_back(array.bytes.size());
  os::AtomicFile file(path);
  file.append(container_header(header, arrays, sizes));
  for (const StatisticsArray& array : arrays) file.append(array.bytes);
  file.commit();
}

void write_part(const std::filesystem::path& path, const std::string& prefix,
                const UnitSums& sums) {
  std::vector<StatisticsArray> arrays;
  std::deque<StoredSum> residuals;
  for (const Quantity& quantity : sums.quantities()) {
    const std::string name = prefix + quantity.name;
    switch (quantity.kind) {
      case QuantityKind::kSum: {
        arrays.push_back(
            array_of(name, "F64", quantity.shape, std::as_bytes(std::span(quantity.totals))));
        residuals.push_back(sparse_residuals(quantity));
        const StoredSum& sparse = residuals.back();
        if (sparse.residuals.empty()) break;
        const std::vector<std::uint64_t> shape = {sparse.residuals.size()};
        arrays.push_back(array_of(name + ".residual_index", "U64", shape,
                                  std::as_bytes(std::span(sparse.residual_index))));
        arrays.push_back(
            array_of(name + ".residual", "F64", shape, std::as_bytes(std::span(sparse.residuals))));
        break;
      }
      case QuantityKind::kCount:
        arrays.push_back(
            array_of(name, "U64", quantity.shape, std::as_bytes(std::span(quantity.counts))));
        break;
      case QuantityKind::kMaximum:
        arrays.push_back(
            array_of(name, "F32", quantity.shape, std::as_bytes(std::span(quantity.maxima))));
        break;
    }
  }
  write_statistics(path, nullptr, arrays);
}

namespace {

/// An array of the whole file and the parts that hold it, in order.
struct JoinedArray {
  StatisticsArray array;
  std::uint64_t size = 0;
  std::vector<std::size_t> parts;
};

/// Further elements along the first dimension.
void extend(JoinedArray& joined, const StatisticsFile& part, const formats::TensorInfo& info) {
  const auto dims = info.shape.dims();
  auto& shape = joined.array.shape;
  const bool fits = info.type_name == joined.array.type && dims.size() == shape.size() &&
                    !dims.empty() && std::equal(dims.begin() + 1, dims.end(), shape.begin() + 1);
  if (!fits) {
    fail_data("{}: array {} has another form than in the first file", part.name(),
              formats::quote_name(info.name));
  }
  shape[0] += dims[0];
}

/// All arrays of all parts. Payloads have no padding between them: in the order of their elements'
/// sizes every element is aligned.
std::vector<JoinedArray> list_arrays(std::span<const std::filesystem::path> parts) {
  std::vector<JoinedArray> arrays;
  std::map<std::string, std::size_t> places;
  for (std::size_t p = 0; p < parts.size(); ++p) {
    const StatisticsFile part = StatisticsFile::open_part(parts[p]);
    for (const formats::TensorInfo& info : part.arrays()) {
      const auto [place, is_new] = places.emplace(info.name, arrays.size());
      if (is_new) {
        const auto dims = info.shape.dims();
        arrays.push_back({{info.name, info.type_name, {dims.begin(), dims.end()}, {}}, 0, {}});
      } else {
        extend(arrays[place->second], part, info);
      }
      arrays[place->second].size += info.size.value;
      arrays[place->second].parts.push_back(p);
    }
  }
  std::stable_partition(arrays.begin(), arrays.end(), [](const JoinedArray& joined) {
    return element_bytes(joined.array.type) == 8;
  });
  return arrays;
}

void copy_array(const StatisticsFile& part, const std::string& name, std::span<std::byte> buffer,
                os::AtomicFile& out) {
  const formats::TensorInfo& info = *part.find(name);
  for (std::uint64_t at = 0; at < info.size.value; at += buffer.size()) {
    const auto piece = buffer.first(
        static_cast<std::size_t>(std::min<std::uint64_t>(buffer.size(), info.size.value - at)));
    part.read(info, at, piece);
    out.append(piece);
  }
}

}  // namespace

void join_parts(const std::filesystem::path& out, const StatisticsHeader& header,
                std::span<const std::filesystem::path> parts) {
  const std::vector<JoinedArray> joined = list_arrays(parts);
  std::vector<StatisticsArray> arrays;
  std::vector<std::uint64_t> sizes;
  for (const JoinedArray& array : joined) {
    arrays.push_back(array.array);
    sizes.push_back(array.size);
  }
  os::AtomicFile file(out);
  file.append(container_header(&header, arrays, sizes));
  std::vector<std::byte> buffer(kCopyBytes);
  std::optional<StatisticsFile> part;
  std::size_t opened = parts.size();
  for (const JoinedArray& array : joined) {
    for (const std::size_t p : array.parts) {
      if (p != opened) part.emplace(StatisticsFile::open_part(parts[p]));
      opened = p;
      copy_array(*part, array.array.name, buffer, file);
    }
  }
  file.commit();
}

}  // namespace winnow::compress
