// SPDX-FileCopyrightText: The Winnow authors
// SPDX-License-Identifier: Apache-2.0
#include "compress/imatrix_use.h"

#include <algorithm>
#include <array>
#include <set>

#include "base/error.h"
#include "formats/names.h"

namespace winnow::compress {
namespace {

using engine::Site;
using model::Role;

/// A tensor whose input has moments: a matrix, or the router.
struct Target {
  std::string name;  ///< in GGUF
  Role role;
  LayerId layer;
  std::uint64_t matrices;  ///< experts, or 1
  std::uint64_t columns;
};

std::vector<Target> targets_of_layers(const model::ModelSpec& spec) {
  std::vector<Target> targets;
  for (std::uint32_t l = 0; l < spec.num_hidden_layers; ++l) {
    for (const model::RoleTraits& traits : model::all_roles()) {
      const auto shape = model::expected_shape(spec, traits.role, LayerId{l});
      const bool multiplies = traits.is_matrix || traits.role == Role::kRouter;
      if (!traits.per_layer || !multiplies || !shape) continue;
      targets.push_back({model::expand_pattern(traits.gguf_pattern, LayerId{l}), traits.role,
                         LayerId{l}, traits.per_expert ? spec.moe.num_experts : 1,
                         shape->row_length()});
    }
  }
  return targets;
}

Target output_target(const model::ModelSpec& spec) {
  const Role role = spec.tie_word_embeddings ? Role::kTokenEmbedding : Role::kOutput;
  return {std::string(model::traits(role).gguf_pattern), role, {}, 1, spec.hidden_size};
}

class ImatrixLoader {
 public:
  ImatrixLoader(const formats::ImatrixFile& file, const model::ModelSpec& spec)
      : file_(file), spec_(spec), moments_(spec) {}

  /// Matrices that read the same input have the same moments: the first one's are taken.
  void add(const Target& target) {
    const formats::ImatrixEntry* entry = file_.find(target.name);
    const auto site = std::pair(site_of(target.role), index(target.layer));
    if (entry == nullptr || !done_.insert(site).second) return;
    const bool fits = entry->values == target.matrices * target.columns &&
                      (entry->counts == 1 || entry->counts == target.matrices);
    if (!fits) {
      fail_data(
          "{}: entry {} has {} values of {} matrices, this model's tensor {} columns of {} "
          "matrices; it is the importance matrix of another model",
          file_.name(), formats::quote_name(entry->name), entry->values, entry->counts,
          target.columns, target.matrices);
    }
    add(target, file_.values(*entry));
  }
  InputMoments take() {
    if (done_.empty()) {
      fail_data("{}: none of its {} entries, the first {}, has the name of a matrix of this model",
                file_.name(), file_.entries().size(),
                formats::quote_name(file_.entries().front().name));
    }
    return std::move(moments_);
  }

 private:
  void add(const Target& target, const formats::ImatrixValues& values) {
    std::vector<double> squares(target.columns);
    for (std::uint32_t m = 0; m < target.matrices; ++m) {
      const double tokens = values.counts.size() == target.matrices
                                ? values.counts[m]
                                : values.counts[0] * spec_.moe.top_k / spec_.moe.num_experts;
      if (!(tokens > 0)) continue;
      const auto means = std::span(values.mean_squares).subspan(m * target.columns, target.columns);
      std::transform(means.begin(), means.end(), squares.begin(),
                     [tokens](float mean) { return tokens * double{mean}; });
      moments_.add(site_of(target.role), target.layer, ExpertId{m}, squares, tokens,
                   static_cast<std::uint64_t>(std::max(tokens, 1.0)));
    }
  }

  const formats::ImatrixFile& file_;
  const model::ModelSpec& spec_;
  InputMoments moments_;
  std::set<std::pair<Site, std::uint32_t>> done_;
};

/// Names of a site's sums and counts in a statistics file.
struct ArrayNames {
  const char* squares;
  const char* counts;
};

ArrayNames arrays_of(Site site) {
  switch (site) {
    case Site::kAttentionInput:
      return {"attention_input_squares", "attention_input_tokens"};
    case Site::kAttentionInner:
      return {"attention_inner_squares", "attention_inner_tokens"};
    case Site::kFfnInput:
      return {"ffn_input_squares", "ffn_input_tokens"};
    case Site::kFfnInner:
      return {"ffn_inner_squares", "ffn_inner_tokens"};
    case Site::kExpertInput:
      return {"expert_input_squares", "hits"};
    case Site::kExpertInner:
      return {"expert_inner_squares", "hits"};
    case Site::kOutputInput:
      break;
  }
  return {"output_input_squares", "output_input_tokens"};
}

template <typename T>
void add_checked(const StatisticsFile& statistics, const std::string& array,
                 const std::vector<T>& values, std::vector<T>& sums) {
  if (values.size() != sums.size()) {
    fail_data("{}: array '{}' has {} elements, expected {}", statistics.name(), array,
              values.size(), sums.size());
  }
  for (std::size_t i = 0; i < values.size(); ++i) sums[i] += values[i];
}

void append(const StatisticsFile& statistics, const Target& target, formats::ImatrixWriter& out) {
  const ArrayNames names = arrays_of(site_of(target.role));
  std::vector<double> sums(target.matrices * target.columns);
  std::vector<std::uint64_t> counts(target.matrices);
  for (std::size_t d = 0; d < statistics.header().domains.size(); ++d) {
    const std::string prefix = layer_prefix(d, target.layer);
    add_checked(statistics, prefix + names.squares, statistics.doubles(prefix + names.squares),
                sums);
    add_checked(statistics, prefix + names.counts, statistics.counts(prefix + names.counts),
                counts);
  }
  out.append(sums, counts);
}

}  // namespace

bool is_imatrix(const std::filesystem::path& path) {
  // A statistics file is safetensors: a length of 8 bytes and a JSON object. The binary form of
  // importance matrices has the first byte of a name there.
  constexpr std::size_t kBrace = 8;
  const auto file = os::open_file(path);
  std::array<char, kBrace + 1> head{};
  if (file->size().value < head.size()) return false;
  file->read_at(0, std::as_writable_bytes(std::span(head)));
  return head[kBrace] != '{';
}

InputMoments load_imatrix(const std::filesystem::path& path, const model::ModelSpec& spec) {
  const auto file = formats::ImatrixFile::open(path);
  ImatrixLoader loader(file, spec);
  for (const Target& target : targets_of_layers(spec)) loader.add(target);
  loader.add(output_target(spec));
  return loader.take();
}

formats::ImatrixForm imatrix_form_of(const std::filesystem::path& path) {
  return path.extension() == ".gguf" ? formats::ImatrixForm::kGguf : formats::ImatrixForm::kBinary;
}

void write_imatrix(const StatisticsFile& statistics, const model::ModelSpec& spec,
                   const std::filesystem::path& out) {
  std::vector<Target> targets = targets_of_layers(spec);
  std::sort(targets.begin(), targets.end(),
            [](const Target& a, const Target& b) { return a.name < b.name; });
  formats::ImatrixInfo info;
  info.chunk_size =
      static_cast<std::uint32_t>(std::min<std::uint64_t>(statistics.header().context, UINT32_MAX));
  std::uint64_t sequences = 0;
  for (const StatisticsDomain& domain : statistics.header().domains) {
    info.datasets.push_back(domain.name);
    sequences += domain.sequences - domain.held_out_sequences;
  }
  info.chunk_count = static_cast<std::uint32_t>(std::min<std::uint64_t>(sequences, UINT32_MAX));
  std::vector<formats::PlannedImportance> planned;
  for (const Target& target : targets) {
    planned.push_back({target.name, target.matrices, target.columns});
  }
  const auto writer = formats::write_imatrix(out, imatrix_form_of(out), info, std::move(planned));
  for (const Target& target : targets) append(statistics, target, *writer);
  writer->finish();
}

}  // namespace winnow::compress
