// SPDX-FileCopyrightText: The Winnow authors
// SPDX-License-Identifier: Apache-2.0
// Inputs of the matrices that every token passes: sums of squares (importance matrices), of
// magnitudes (AWQ, arXiv:2306.00978) and largest magnitudes (SmoothQuant, arXiv:2211.10438).
#include <fmt/format.h>

#include <array>
#include <vector>

#include "compress/expert_columns.h"
#include "compress/statistic.h"

namespace winnow::compress {
namespace {

using engine::Site;

struct SiteSums {
  Site site;
  std::size_t width;
  std::span<std::uint64_t> tokens;
  std::span<double> squares, magnitudes;
  std::span<float> largest;
};

class DenseMoments final : public StatisticCollector {
 public:
  explicit DenseMoments(const LayerContext& context)
      : kernels_(context.kernels), pool_(context.pool) {
    const model::ModelSpec& spec = context.spec;
    if (context.is_output) {
      add(context, Site::kOutputInput, "output_input", spec.hidden_size);
      return;
    }
    add(context, Site::kAttentionInput, "attention_input", spec.hidden_size);
    add(context, Site::kAttentionInner, "attention_inner", spec.query_width());
    add(context, Site::kFfnInput, "ffn_input", spec.hidden_size);
    if (!context.is_moe()) {
      add(context, Site::kFfnInner, "ffn_inner", spec.intermediate_size);
    }
  }

  void on_input(Site site, tensor::MatrixView<const float> x) override {
    for (SiteSums& sums : sites_) {
      if (sums.site == site) add_rows(sums, x);
    }
  }

 private:
  void add(const LayerContext& context, Site site, std::string_view name, std::uint64_t width) {
    const auto named = [&](std::string_view what) { return fmt::format("{}_{}", name, what); };
    sites_.push_back({site, width, context.sums.add_count(named("tokens"), {1}),
                      context.sums.add_sum(named("squares"), {width}),
                      context.sums.add_sum(named("magnitudes"), {width}),
                      context.sums.add_maximum(named("max"), {width})});
  }

  void add_rows(SiteSums& sums, tensor::MatrixView<const float> x) {
    sums.tokens[0] += x.rows;
    const std::size_t parts =
        std::min<std::size_t>((x.cols + 63) / 64, std::size_t{pool_.size()} * 2);
    pool_.run(parts, [&](std::size_t part, unsigned) {
      const os::Range columns = os::split(x.cols, parts, part);
      for_row_stretches(
          {0, x.rows}, columns.size(),
          [&](std::size_t t) { return x.row(t).data() + columns.begin; },
          [&](const float* const* rows, std::size_t, std::size_t count) {
            kernels_.column_magnitudes(rows, count, columns.size(), &sums.squares[columns.begin],
                                       &sums.magnitudes[columns.begin],
                                       &sums.largest[columns.begin]);
          });
    });
  }

  const kernels::Kernels& kernels_;
  os::ThreadPool& pool_;
  std::vector<SiteSums> sites_;
};

std::unique_ptr<StatisticCollector> make(const LayerContext& context) {
  return std::make_unique<DenseMoments>(context);
}

}  // namespace

extern const StatisticFamily kDenseMoments{
    .name = "dense_moments",
    .summary = "squares, magnitudes and maxima of the inputs of the dense matrices",
    .make = make};

}  // namespace winnow::compress
