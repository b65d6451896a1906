// SPDX-FileCopyrightText: The Winnow authors
// SPDX-License-Identifier: Apache-2.0
// profile_cost: what each family of calibration statistics, and the Hessians of all quantised
// matrices, cost: processor time beside that of the same forward pass without any. Runs of all
// variants alternate, batch by batch.
#include <algorithm>
#include <cstdlib>
#include <ctime>
#include <memory>
#include <utility>
#include <vector>

#include "base/error.h"
#include "compress/hessian_collector.h"
#include "compress/layer_collectors.h"
#include "compress/layer_hessians.h"
#include "engine/layer_runner.h"
#include "metrics/text_data.h"
#include "model/checkpoint.h"

namespace winnow::tools {
namespace {

using compress::StatisticFamily;

constexpr std::size_t kContext = 512;

double processor_seconds() {
  timespec time{};
  clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &time);
  return static_cast<double>(time.tv_sec) + 1e-9 * static_cast<double>(time.tv_nsec);
}

/// What is collected in one variant, and what its runs took: of each layer all repetitions.
struct Variant {
  std::string_view name;
  std::vector<const StatisticFamily*> families;
  bool hessians = false;
  std::vector<std::vector<double>> seconds;  ///< [layer][repetition]

  bool is_forward() const { return families.empty() && !hessians; }
  /// Sum over layers of the repetition of that rank, 0 being the fastest.
  double of_rank(std::size_t rank) const {
    double sum = 0;
    for (std::vector<double> layer : seconds) {
      std::sort(layer.begin(), layer.end());
      sum += layer[std::min(rank, layer.size() - 1)];
    }
    return sum;
  }
};

std::vector<Variant> variants() {
  std::vector<Variant> list;
  list.push_back({"forward pass", {}, false, {}});
  for (const StatisticFamily* family : compress::all_statistics()) {
    list.push_back({family->name, {family}, false, {}});
  }
  const auto all = compress::all_statistics();
  list.push_back({"all statistics", {all.begin(), all.end()}, false, {}});
  list.push_back({"Hessians", {}, true, {}});
  list.push_back({"both", {all.begin(), all.end()}, true, {}});
  return list;
}

/// All windows as one batch, and what the variants do with it.
class Bench {
 public:
  Bench(const model::Checkpoint& checkpoint, const metrics::WindowSet& text, unsigned threads)
      : spec_(checkpoint.spec()), runner_(checkpoint, {.threads = threads, .isa = ""}) {
    for (const metrics::Window& window : text.windows) {
      tokens_.insert(tokens_.end(), window.tokens.begin(), window.tokens.end());
      lengths_.push_back(window.tokens.size());
      numbers_.insert(numbers_.end(), window.tokens.size(), 0);
    }
    hidden_.reshape(tokens_.size(), spec_.hidden_size);
    runner_.embed(tokens_, hidden_.view());
  }

  void run(std::vector<Variant>& list, int repetitions) {
    for (std::uint32_t l = 0; l < spec_.num_hidden_layers; ++l) {
      runner_.load(LayerId{l});
      std::vector<std::unique_ptr<Collected>> collected;
      for (Variant& variant : list) {
        collected.push_back(std::make_unique<Collected>(*this, LayerId{l}, variant));
        variant.seconds.emplace_back();
      }
      for (int repetition = 0; repetition < repetitions; ++repetition) {
        for (std::size_t v = 0; v < list.size(); ++v) {
          list[v].seconds.back().push_back(run_layer(list[v], *collected[v]));
        }
      }
      std::swap(hidden_, output_);
    }
  }
  std::size_t tokens() const { return tokens_.size(); }
  const kernels::Kernels& kernels() const { return runner_.kernels(); }
  /// Multiply-adds of all Hessians of a layer for one token.
  double hessian_work() const {
    const auto of = [&](Site site) {
      const auto n = static_cast<double>(compress::input_size(spec_, site));
      return n * (n + 1) / 2;
    };
    const double dense = of(Site::kAttentionInput) + of(Site::kAttentionInner);
    if (spec_.num_moe_layers() == 0) return dense + of(Site::kFfnInput) + of(Site::kFfnInner);
    return dense +
           static_cast<double>(spec_.moe.top_k) * (of(Site::kExpertInput) + of(Site::kExpertInner));
  }

 private:
  using Site = engine::Site;

  /// The sums of one layer, which go on over the repetitions as they would over batches.
  class Collected final : public engine::Observer {
   public:
    Collected(Bench& bench, LayerId layer, const Variant& variant)
        : statistics(bench.spec_, layer, false, bench.runner_.kernels(), bench.runner_.pool(),
                     variant.families),
          hessians_(
              bench.runner_.pool(),
              [&spec = bench.spec_](Site site, LayerId at, ExpertId) {
                return site != Site::kFfnInput || !spec.is_moe_layer(at);
              },
              compress::HessianCollector::Experts::kEach, &bench.runner_.kernels()),
          wants_hessians_(variant.hessians) {}

    void on_input(Site site, LayerId layer, tensor::MatrixView<const float> x) override {
      statistics.on_input(site, layer, x);
      if (wants_hessians_) hessians_.on_input(site, layer, x);
    }
    bool wants_expert_inputs() const override { return wants_hessians_; }
    void on_expert_input(Site site, LayerId layer, ExpertId expert,
                         tensor::MatrixView<const float> x,
                         std::span<const float> weights) override {
      hessians_.on_expert_input(site, layer, expert, x, weights);
    }
    void on_routing(LayerId layer, tensor::MatrixView<const float> logits,
                    const engine::RoutingView& routing) override {
      statistics.on_routing(layer, logits, routing);
    }
    void on_experts(LayerId layer, const engine::ExpertSlots& slots) override {
      statistics.on_experts(layer, slots);
    }

    compress::LayerCollectors statistics;

   private:
    compress::HessianCollector hessians_;
    bool wants_hessians_;
  };

  double run_layer(const Variant& variant, Collected& collected) {
    output_.reshape(hidden_.rows(), hidden_.cols());
    std::copy(hidden_.flat().begin(), hidden_.flat().end(), output_.flat().begin());
    const double begin = processor_seconds();
    collected.statistics.begin_batch(numbers_);
    runner_.run(lengths_, output_.view(), variant.is_forward() ? nullptr : &collected);
    if (!variant.is_forward()) collected.statistics.on_layer(hidden_.view(), output_.view());
    collected.statistics.sums().close_unit();
    return processor_seconds() - begin;
  }

  const model::ModelSpec spec_;
  engine::LayerRunner runner_;
  std::vector<TokenId> tokens_;
  std::vector<std::size_t> lengths_;
  std::vector<std::uint32_t> numbers_;
  tensor::Matrix<float> hidden_, output_;
};

/// f32 operations per second of processor time of one thread, at best.
double float_rate(const kernels::Kernels& kernels) {
  constexpr std::uint64_t kSteps = std::uint64_t{1} << 23;
  double best = 0;
  for (int round = 0; round < 9; ++round) {
    const double begin = processor_seconds();
    const auto operations = static_cast<double>(kernels.float_probe(kSteps));
    best = std::max(best, operations / (processor_seconds() - begin));
  }
  return best;
}

void print(const Bench& bench, const std::vector<Variant>& list, std::size_t layers,
           std::size_t repetitions) {
  fmt::print("{} tokens, {} layers, {} repetitions\n", bench.tokens(), layers, repetitions);
  fmt::print("{:<18} {:>10} {:>10} {:>10} {:>10}\n", "", "least ms", "x forward", "median ms",
             "x forward");
  for (const Variant& variant : list) {
    const double least = variant.of_rank(0);
    const double median = variant.of_rank(repetitions / 2);
    fmt::print("{:<18} {:>10.1f} {:>10.3f} {:>10.1f} {:>10.3f}\n", variant.name, 1e3 * least,
               least / list[0].of_rank(0), 1e3 * median, median / list[0].of_rank(repetitions / 2));
  }
  const double rate = float_rate(bench.kernels());
  const double work = 2 * bench.hessian_work() * static_cast<double>(bench.tokens() * layers);
  fmt::print("f32 peak of one thread: {:.1f} Gop/s; the Hessians are {:.2f} Gop: {:.1f} ms\n",
             1e-9 * rate, 1e-9 * work, 1e3 * work / rate);
}

void measure(char** arguments, int count) {
  const auto number = [&](int at, std::uint64_t otherwise) {
    return count > at ? std::strtoull(arguments[at], nullptr, 10) : otherwise;
  };
  const auto checkpoint = model::Checkpoint::open(arguments[1]);
  const text::Tokenizer tokenizer(checkpoint.tokenizer_spec());
  const std::string data[] = {arguments[2]};
  const auto text =
      metrics::make_windows(tokenizer, metrics::read_documents(data),
                            {.context = kContext, .max_tokens = number(3, 8 * (kContext - 1))});
  std::vector<Variant> list = variants();
  if (count > 6) {
    std::erase_if(list, [&](const Variant& variant) {
      return !variant.is_forward() && variant.name != arguments[6];
    });
  }
  Bench bench(checkpoint, text, static_cast<unsigned>(number(5, 1)));
  const auto repetitions = static_cast<std::size_t>(number(4, 5));
  bench.run(list, static_cast<int>(repetitions));
  print(bench, list, checkpoint.spec().num_hidden_layers, repetitions);
}

}  // namespace
}  // namespace winnow::tools

int main(int count, char** arguments) {
  if (count < 3) {
    fmt::print(stderr,
               "usage: profile_cost MODEL DATA [TOKENS] [REPETITIONS] [THREADS] [FAMILY]\n");
    return 1;
  }
  try {
    winnow::tools::measure(arguments, count);
  } catch (const std::exception& error) {
    fmt::print(stderr, "profile_cost: {}\n", error.what());
    return 2;
  }
  return 0;
}
