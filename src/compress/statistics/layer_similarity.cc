// SPDX-FileCopyrightText: The Winnow authors
// SPDX-License-Identifier: Apache-2.0
// How much a layer changes the residual stream: cosine of its input and output, and norms.
#include <cmath>
#include <vector>

#include "compress/statistic.h"

namespace winnow::compress {
namespace {

class LayerSimilarity final : public StatisticCollector {
 public:
  explicit LayerSimilarity(const LayerContext& context)
      : kernels_(context.kernels),
        pool_(context.pool),
        cosines_(context.sums.add_sum("layer_cosines", {1})),
        input_squares_(context.sums.add_sum("layer_input_squares", {1})),
        output_squares_(context.sums.add_sum("layer_output_squares", {1})) {}

  void on_layer(tensor::MatrixView<const float> input,
                tensor::MatrixView<const float> output) override {
    tokens_.resize(input.rows);
    const std::size_t parts = std::min<std::size_t>(input.rows, std::size_t{pool_.size()} * 4);
    pool_.run(parts, [&](std::size_t part, unsigned) {
      const os::Range range = os::split(input.rows, parts, part);
      for (std::size_t t = range.begin; t < range.end; ++t) {
        const float* const rows[] = {input.row(t).data(), output.row(t).data()};
        double with_input[2];
        kernels_.wide_dots(rows[0], rows, 2, input.cols, with_input);
        kernels_.wide_dots(rows[1], rows + 1, 1, input.cols, &tokens_[t].output);
        tokens_[t].input = with_input[0];
        tokens_[t].both = with_input[1];
      }
    });
    for (const Products& token : tokens_) {
      const double norms = std::sqrt(token.input * token.output);
      cosines_[0] += norms > 0 ? token.both / norms : 0;
      input_squares_[0] += token.input;
      output_squares_[0] += token.output;
    }
  }

 private:
  struct Products {
    double input, output, both;
  };
  const kernels::Kernels& kernels_;
  os::ThreadPool& pool_;
  std::span<double> cosines_, input_squares_, output_squares_;
  std::vector<Products> tokens_;
};

std::unique_ptr<StatisticCollector> make(const LayerContext& context) {
  if (context.is_output) return nullptr;
  return std::make_unique<LayerSimilarity>(context);
}

}  // namespace

extern const StatisticFamily kLayerSimilarity{
    .name = "layer_similarity",
    .summary = "cosine of a layer's input and output, and their squared norms",
    .make = make};

}  // namespace winnow::compress
