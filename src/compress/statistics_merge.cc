// SPDX-FileCopyrightText: The Winnow authors
// SPDX-License-Identifier: Apache-2.0
#include "compress/statistics_merge.h"

#include <algorithm>

#include "base/error.h"
#include "compress/statistics_file.h"
#include "formats/names.h"

namespace winnow::compress {
namespace {

/// A domain of the result in one of the inputs.
struct Source {
  const StatisticsFile* file;
  std::size_t domain;
};

void require_same(const StatisticsFile& first, const StatisticsFile& other) {
  const StatisticsHeader& a = first.header();
  const StatisticsHeader& b = other.header();
  const auto refuse = [&](const char* what, const auto& in_a, const auto& in_b) {
    fail_data("{}: has {} {}, {} has {}; only statistics made in the same way can be merged",
              other.name(), what, in_b, first.name(), in_a);
  };
  if (a.context != b.context) refuse("context", a.context, b.context);
  if (a.isa != b.isa) refuse("instruction set", a.isa, b.isa);
  if (a.version != b.version) refuse("program version", a.version, b.version);
}

class Merger {
 public:
  Merger(std::vector<StatisticsFile> files, const std::string& version)
      : files_(std::move(files)), header_(files_.front().header()) {
    header_.version = version;
    header_.domains.clear();
    for (const StatisticsFile& file : files_) {
      for (std::size_t d = 0; d < file.header().domains.size(); ++d) add_domain(file, d);
    }
  }

  void run(const std::filesystem::path& out, PartialOutput::Start start, Log& log);

 private:
  void add_domain(const StatisticsFile& file, std::size_t number);
  void write_merged(const std::filesystem::path& path, std::size_t domain,
                    const std::string& infix) const;
  void add_array(UnitSums& sums, std::size_t domain, const std::string& name,
                 const formats::TensorInfo& info) const;
  static std::string prefix(std::size_t domain, const std::string& infix) {
    return fmt::format("domains.{}.{}", domain, infix);
  }

  std::vector<StatisticsFile> files_;
  StatisticsHeader header_;
  std::vector<std::vector<Source>> sources_;  // of each domain of the result
};

void Merger::add_domain(const StatisticsFile& file, std::size_t number) {
  const StatisticsDomain& added = file.header().domains[number];
  const auto found = std::find_if(header_.domains.begin(), header_.domains.end(),
                                  [&](const auto& domain) { return domain.name == added.name; });
  if (found == header_.domains.end()) {
    header_.domains.push_back(added);
    sources_.push_back({{&file, number}});
    return;
  }
  auto& sources = sources_[static_cast<std::size_t>(found - header_.domains.begin())];
  for (const Source& source : sources) {
    const StatisticsDomain& other = source.file->header().domains[source.domain];
    if (other.text_fingerprint != added.text_fingerprint) continue;
    fail_data("{}: holds the same text of domain {} as {}; it would count twice", file.name(),
              formats::quote_name(added.name), source.file->name());
  }
  sources.push_back({&file, number});
  found->sequences += added.sequences;
  found->held_out_sequences += added.held_out_sequences;
  found->tokens += added.tokens;
  found->text_fingerprint += added.text_fingerprint;
}

void require_elements(const StatisticsFile& file, const std::string& array, std::size_t found,
                      std::size_t expected) {
  if (found == expected) return;
  fail_data("{}: array {} has {} elements, expected {}", file.name(), formats::quote_name(array),
            found, expected);
}

/// One array over all sources of a domain. `name`: without the domain's prefix.
void Merger::add_array(UnitSums& sums, std::size_t domain, const std::string& name,
                       const formats::TensorInfo& info) const {
  const std::vector<std::uint64_t> shape(info.shape.dims().begin(), info.shape.dims().end());
  const auto for_each_source = [&](auto read, auto combine) {
    for (const Source& source : sources_[domain]) {
      const std::string array = prefix(source.domain, name);
      const auto values = read(*source.file, array);
      combine(*source.file, array, values);
    }
  };
  if (info.type_name == "F64") {
    sums.add_sum(name, shape);
    Quantity& total = sums.last();
    for_each_source([](const auto& file, const auto& array) { return file.sum(array); },
                    [&](const auto& file, const auto& array, const StoredSum& sum) {
                      require_elements(file, array, sum.totals.size(), total.totals.size());
                      for (std::size_t i = 0; i < sum.totals.size(); ++i) {
                        total.add_to_total(i, sum.totals[i]);
                      }
                      for (std::size_t r = 0; r < sum.residuals.size(); ++r) {
                        total.add_to_total(sum.residual_index[r], sum.residuals[r]);
                      }
                    });
  } else if (info.type_name == "U64") {
    const auto counts = sums.add_count(name, shape);
    for_each_source([](const auto& file, const auto& array) { return file.counts(array); },
                    [&](const auto& file, const auto& array, const auto& values) {
                      require_elements(file, array, values.size(), counts.size());
                      for (std::size_t i = 0; i < values.size(); ++i) counts[i] += values[i];
                    });
  } else {
    const auto maxima = sums.add_maximum(name, shape);
    for_each_source([](const auto& file, const auto& array) { return file.floats(array); },
                    [&](const auto& file, const auto& array, const auto& values) {
                      require_elements(file, array, values.size(), maxima.size());
                      for (std::size_t i = 0; i < values.size(); ++i) {
                        maxima[i] = std::max(maxima[i], values[i]);
                      }
                    });
  }
}

/// All arrays of a layer or of the output in one domain; `infix`: "layers.3.".
void Merger::write_merged(const std::filesystem::path& path, std::size_t domain,
                          const std::string& infix) const {
  UnitSums sums;
  const Source& first = sources_[domain].front();
  const std::string all = prefix(first.domain, infix);
  // The quantities in the order of the format, whatever the order of the first file's payloads.
  for (const formats::TensorInfo& info : first.file->arrays()) {
    const bool is_residual =
        info.name.ends_with(".residual") || info.name.ends_with(".residual_index");
    if (!info.name.starts_with(all) || is_residual) continue;
    add_array(sums, domain, info.name.substr(prefix(first.domain, "").size()), info);
  }
  write_part(path, prefix(domain, ""), sums);
}

/// The held-out sequences of one source; those of a domain follow each other.
void write_teacher(const std::filesystem::path& path, const Source& source, std::size_t domain) {
  std::vector<std::vector<std::byte>> payloads;
  std::vector<StatisticsArray> arrays;
  const std::string all = teacher_prefix(source.domain);
  for (const formats::TensorInfo& info : source.file->arrays()) {
    if (!info.name.starts_with(all)) continue;
    const auto dims = info.shape.dims();
    payloads.emplace_back(info.size.value);
    source.file->read(info, 0, payloads.back());
    arrays.push_back({teacher_prefix(domain) + info.name.substr(all.size()),
                      info.type_name,
                      {dims.begin(), dims.end()},
                      {}});
  }
  for (std::size_t i = 0; i < arrays.size(); ++i) arrays[i].bytes = payloads[i];
  write_statistics(path, nullptr, arrays);
}

void Merger::run(const std::filesystem::path& out, PartialOutput::Start start, Log& log) {
  { const os::AtomicFile trial(out); }
  PartialOutput partial(out, Json{{"merge", to_json(header_)}}, start);
  std::vector<std::filesystem::path> parts;
  const auto next_part = [&] {
    log.check_interrupt();
    parts.push_back(partial.folder() / fmt::format("part-{:05}", parts.size()));
    return parts.back();
  };
  const std::size_t domains = header_.domains.size();
  for (std::uint64_t layer = 0; layer < header_.num_hidden_layers; ++layer) {
    for (std::size_t d = 0; d < domains; ++d) {
      write_merged(next_part(), d, fmt::format("layers.{}.", layer));
    }
    log.progress("merging", layer + 1, header_.num_hidden_layers, "layers");
  }
  for (std::size_t d = 0; d < domains; ++d) write_merged(next_part(), d, "output.");
  for (std::size_t d = 0; d < domains; ++d) {
    for (const Source& source : sources_[d]) write_teacher(next_part(), source, d);
  }
  join_parts(out, header_, parts);
  partial.remove();
}

}  // namespace

void merge_statistics(const model::Checkpoint& checkpoint,
                      std::span<const std::filesystem::path> inputs,
                      const std::filesystem::path& out, const std::string& version,
                      PartialOutput::Start start, Log& log) {
  if (inputs.empty()) fail(ErrorCode::kUsage, "--merge: name the statistics files to add up");
  std::vector<StatisticsFile> files;
  for (const auto& input : inputs) {
    files.push_back(StatisticsFile::open(input));
    files.back().require_model(checkpoint);
    require_same(files.front(), files.back());
  }
  Merger(std::move(files), version).run(out, start, log);
}

}  // namespace winnow::compress
