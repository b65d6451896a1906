// SPDX-FileCopyrightText: The Winnow authors
// SPDX-License-Identifier: Apache-2.0
// Writes statistics files and parts of them.
#include <algorithm>
#include <array>
#include <deque>

#include "base/error.h"
#include "compress/statistics_file.h"
#include "formats/safetensors.h"

namespace winnow::compress {
namespace {

constexpr std::size_t kCopyBytes = std::size_t{1} << 20;

/// Length, JSON and padding of the container.
std::string container_header(const StatisticsHeader* header,
                             std::span<const StatisticsArray> arrays,
                             std::span<const std::uint64_t> sizes) {
  std::string json = "{\"__metadata__\":{\"format\":\"winnow-statistics\"";
  if (header != nullptr) {
    json += ",\"winnow.statistics\":" + dump_json(Json(dump_json(to_json(*header))));
  }
  json += '}';
  std::uint64_t begin = 0;
  for (std::size_t i = 0; i < arrays.size(); ++i) {
    std::string dims;
    for (const std::uint64_t dim : arrays[i].shape) {
      dims += fmt::format("{}{}", dims.empty() ? "" : ",", dim);
    }
    json +=
        fmt::format(",{}:{{\"dtype\":\"{}\",\"shape\":[{}],\"data_offsets\":[{},{}]}}",
                    dump_json(Json(arrays[i].name)), arrays[i].type, dims, begin, begin + sizes[i]);
    begin += sizes[i];
  }
  json += '}';
  while (json.size() % 8 != 0) json += ' ';
  const std::uint64_t length = json.size();
  return std::string(reinterpret_cast<const char*>(&length), sizeof length) + json;
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

/// The residuals that are not zero.
StoredSum sparse_residuals(const Quantity& quantity) {
  StoredSum sum;
  for (std::size_t i = 0; i < quantity.residuals.size(); ++i) {
    if (quantity.residuals[i] == 0) continue;
    sum.residual_index.push_back(i);
    sum.residuals.push_back(quantity.residuals[i]);
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

void join_parts(const std::filesystem::path& out, const StatisticsHeader& header,
                std::span<const std::filesystem::path> parts) {
  std::vector<StatisticsArray> arrays;
  std::vector<std::uint64_t> sizes;
  struct Source {
    std::size_t part;
    std::size_t array;
  };
  std::vector<Source> sources;
  // Payloads have no padding between them; in this order every element is aligned to its size.
  for (const std::uint64_t width : {8, 4}) {
    for (std::size_t p = 0; p < parts.size(); ++p) {
      const StatisticsFile part = StatisticsFile::open_part(parts[p]);
      for (std::size_t a = 0; a < part.arrays().size(); ++a) {
        const formats::TensorInfo& info = part.arrays()[a];
        if (element_bytes(info.type_name) != width) continue;
        const auto dims = info.shape.dims();
        arrays.push_back({info.name, info.type_name, {dims.begin(), dims.end()}, {}});
        sizes.push_back(info.size.value);
        sources.push_back({p, a});
      }
    }
  }
  os::AtomicFile file(out);
  file.append(container_header(&header, arrays, sizes));
  std::vector<std::byte> buffer(kCopyBytes);
  std::optional<StatisticsFile> part;
  std::size_t opened = parts.size();
  for (const Source& source : sources) {
    if (source.part != opened) part.emplace(StatisticsFile::open_part(parts[source.part]));
    opened = source.part;
    const formats::TensorInfo& info = part->arrays()[source.array];
    for (std::uint64_t at = 0; at < info.size.value; at += kCopyBytes) {
      const auto piece = std::span(buffer).first(
          static_cast<std::size_t>(std::min<std::uint64_t>(kCopyBytes, info.size.value - at)));
      part->read(info, at, piece);
      file.append(piece);
    }
  }
  file.commit();
}

}  // namespace winnow::compress
