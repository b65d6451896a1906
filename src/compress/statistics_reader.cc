// SPDX-FileCopyrightText: The Winnow authors
// SPDX-License-Identifier: Apache-2.0
// Opens statistics files, which may come from anywhere.
#include <charconv>
#include <cmath>
#include <numeric>

#include "base/checked.h"
#include "base/error.h"
#include "compress/statistics_file.h"
#include "formats/array_file.h"
#include "formats/names.h"
#include "formats/safetensors.h"
#include "model/fingerprint.h"

namespace winnow::compress {
namespace {

constexpr std::size_t kMostDomains = 100'000;

/// Reads members of the header's objects; every failure names file and key.
class Reader {
 public:
  Reader(const std::string& file, const SortedJson& object) : file_(file), object_(object) {
    if (!object.is_object()) fail_data("{}: the statistics header is not an object", file);
  }
  const SortedJson& at(const char* key) const {
    const auto found = object_.find(key);
    if (found == object_.end()) fail_data("{}: the header has no '{}'", file_, key);
    return *found;
  }
  std::uint64_t number(const char* key) const {
    if (!at(key).is_number_unsigned()) fail_data("{}: '{}' is not a whole number", file_, key);
    return at(key).get<std::uint64_t>();
  }
  std::string text(const char* key) const {
    if (!at(key).is_string()) fail_data("{}: '{}' is not a text", file_, key);
    return at(key).get<std::string>();
  }
  std::uint64_t hex(const char* key) const {
    const std::string digits = text(key);
    std::uint64_t value = 0;
    const auto [end, error] =
        std::from_chars(digits.data(), digits.data() + digits.size(), value, 16);
    if (error != std::errc() || end != digits.data() + digits.size()) {
      fail_data("{}: '{}' is no hexadecimal number", file_, key);
    }
    return value;
  }

 private:
  const std::string& file_;
  const SortedJson& object_;
};

void check_version(const std::string& file, const Reader& reader) {
  const std::uint64_t version = reader.number("format_version");
  if (version != kStatisticsVersion) {
    fail_data(
        "{}: is a statistics file of version {}, this program reads version {}; use another "
        "version of it, or profile again",
        file, version, kStatisticsVersion);
  }
  if (reader.number("unit_sequences") != kUnitSequences ||
      reader.number("held_out_every") != kHeldOutEvery) {
    fail_data("{}: has other units than the {} sequences of this version", file, kUnitSequences);
  }
}

StatisticsHeader read_header(const std::string& file, const SortedJson& json) {
  const Reader reader(file, json);
  check_version(file, reader);
  StatisticsHeader header{.version = reader.text("version"),
                          .architecture = reader.text("architecture"),
                          .model_fingerprint = reader.hex("model_fingerprint"),
                          .context = reader.number("context"),
                          .isa = reader.text("isa"),
                          .num_hidden_layers = reader.number("num_hidden_layers"),
                          .hidden_size = reader.number("hidden_size"),
                          .num_experts = reader.number("num_experts"),
                          .top_k = reader.number("top_k"),
                          .domains = {}};
  const SortedJson& domains = reader.at("domains");
  if (!domains.is_array() || domains.empty() || domains.size() > kMostDomains) {
    fail_data("{}: 'domains' is not a list of 1 to {} domains", file, kMostDomains);
  }
  for (const SortedJson& entry : domains) {
    const Reader domain(file, entry);
    header.domains.push_back({domain.text("name"), domain.number("sequences"),
                              domain.number("held_out_sequences"), domain.number("tokens"),
                              domain.hex("text_fingerprint")});
    const StatisticsDomain& added = header.domains.back();
    if (added.held_out_sequences > added.sequences) {
      fail_data("{}: domain {} holds {} of {} sequences out", file, formats::quote_name(added.name),
                added.held_out_sequences, added.sequences);
    }
  }
  return header;
}

}  // namespace

StatisticsFile StatisticsFile::open_part(const std::filesystem::path& path) {
  StatisticsFile result;
  result.file_ = os::open_file(path);
  result.arrays_ = formats::parse_safetensors_header(*result.file_);
  for (std::size_t i = 0; i < result.arrays_.size(); ++i) {
    result.index_.emplace(result.arrays_[i].name, i);
  }
  return result;
}

StatisticsFile StatisticsFile::open(const std::filesystem::path& path) {
  StatisticsFile result =
      with_context("not a statistics file of winnow profile", [&] { return open_part(path); });
  const auto texts = formats::array_file_texts(*result.file_);
  const auto text = texts.find("winnow.statistics");
  if (text == texts.end()) {
    fail_data("{}: is no statistics file of winnow profile: it has no 'winnow.statistics'",
              path.string());
  }
  result.header_ =
      read_header(path.string(), parse_sorted_json(text->second, path.string() + ": header"));
  result.check_invariants();
  return result;
}

const formats::TensorInfo* StatisticsFile::find(const std::string& array) const {
  const auto found = index_.find(array);
  return found == index_.end() ? nullptr : &arrays_[found->second];
}

void StatisticsFile::read(const formats::TensorInfo& array, std::uint64_t offset,
                          std::span<std::byte> out) const {
  file_->read_at(array.offset + offset, out);
}

template <typename T>
std::vector<T> StatisticsFile::values(const std::string& array, std::string_view type) const {
  const formats::TensorInfo* info = find(array);
  if (info == nullptr) fail_data("{}: has no array {}", name(), formats::quote_name(array));
  if (info->type_name != type) {
    fail_data("{}: array {} is of type {}, expected {}", name(), formats::quote_name(array),
              info->type_name, type);
  }
  std::vector<T> values(info->size.value / sizeof(T));
  read(*info, 0, std::as_writable_bytes(std::span(values)));
  return values;
}

std::vector<double> StatisticsFile::doubles(const std::string& array) const {
  return values<double>(array, "F64");
}
std::vector<std::uint64_t> StatisticsFile::counts(const std::string& array) const {
  return values<std::uint64_t>(array, "U64");
}
std::vector<float> StatisticsFile::floats(const std::string& array) const {
  return values<float>(array, "F32");
}
std::vector<std::int32_t> StatisticsFile::integers(const std::string& array) const {
  return values<std::int32_t>(array, "I32");
}

StoredSum StatisticsFile::sum(const std::string& array) const {
  StoredSum sum{doubles(array), {}, {}};
  const auto require_finite = [&](std::span<const double> values) {
    for (const double value : values) {
      if (std::isfinite(value)) continue;
      fail_data("{}: array {} has the element {}", name(), formats::quote_name(array), value);
    }
  };
  require_finite(sum.totals);
  if (find(array + ".residual") == nullptr) return sum;
  sum.residuals = doubles(array + ".residual");
  require_finite(sum.residuals);
  sum.residual_index = counts(array + ".residual_index");
  if (sum.residuals.size() != sum.residual_index.size()) {
    fail_data("{}: array {} has {} residuals with {} indices", name(), formats::quote_name(array),
              sum.residuals.size(), sum.residual_index.size());
  }
  for (const std::uint64_t i : sum.residual_index) {
    if (i >= sum.totals.size()) {
      fail_data("{}: a residual of array {} is at element {} of {}", name(),
                formats::quote_name(array), i, sum.totals.size());
    }
  }
  return sum;
}

void StatisticsFile::require_model(const model::Checkpoint& checkpoint) const {
  const std::uint64_t fingerprint = model::fingerprint(checkpoint.file());
  if (fingerprint == header_->model_fingerprint) return;
  fail_data("{}: holds statistics of another model (fingerprint {:016x}, {} has {:016x})", name(),
            header_->model_fingerprint, checkpoint.file().name(), fingerprint);
}

/// Every counted token chose top_k experts in every MoE layer. Each layer of each domain has
/// arrays, so a file of few arrays cannot make this long.
void StatisticsFile::check_invariants() const {
  const auto layers = checked_mul(header_->domains.size(), header_->num_hidden_layers);
  if (!layers || *layers > arrays_.size()) {
    fail_data("{}: has {} arrays, too few for {} domains and {} layers", name(), arrays_.size(),
              header_->domains.size(), header_->num_hidden_layers);
  }
  for (std::size_t d = 0; d < header_->domains.size(); ++d) {
    for (std::uint64_t layer = 0; layer < header_->num_hidden_layers; ++layer) {
      const std::string hits = layer_prefix(d, LayerId{static_cast<std::uint32_t>(layer)}) + "hits";
      if (find(hits) == nullptr) continue;
      const auto counts_of_experts = counts(hits);
      const std::uint64_t total =
          std::accumulate(counts_of_experts.begin(), counts_of_experts.end(), std::uint64_t{0});
      const auto expected = checked_mul(header_->domains[d].tokens, header_->top_k);
      if (counts_of_experts.size() != header_->num_experts || total != expected) {
        fail_data(
            "{}: the hits of layer {} in domain {} are {} of {} experts, expected {} tokens x {} "
            "of {} experts",
            name(), layer, formats::quote_name(header_->domains[d].name), total,
            counts_of_experts.size(), header_->domains[d].tokens, header_->top_k,
            header_->num_experts);
      }
    }
  }
}

}  // namespace winnow::compress
