// SPDX-FileCopyrightText: The Winnow authors
// SPDX-License-Identifier: Apache-2.0
// profile_cost: what each family of calibration statistics costs, as processor time beside that of
// the same forward pass without any. Runs of all variants alternate, batch by batch.
#include <algorithm>
#include <cstdlib>
#include <ctime>
#include <utility>
#include <vector>

#include "base/error.h"
#include "compress/layer_collectors.h"
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

/// What is collected in one variant, and what its runs took: of each batch and layer the least.
struct Variant {
  std::string_view name;
  std::vector<const StatisticFamily*> families;
  double seconds = 0;
};

std::vector<Variant> variants() {
  std::vector<Variant> list;
  list.push_back({"forward pass", {}, 0});
  for (const StatisticFamily* family : compress::all_statistics()) {
    list.push_back({family->name, {family}, 0});
  }
  const auto all = compress::all_statistics();
  list.push_back({"all statistics", {all.begin(), all.end()}, 0});
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
      std::vector<double> least(list.size(), 1e300);
      for (int repetition = 0; repetition < repetitions; ++repetition) {
        for (std::size_t v = 0; v < list.size(); ++v) {
          least[v] = std::min(least[v], run_layer(LayerId{l}, list[v]));
        }
      }
      for (std::size_t v = 0; v < list.size(); ++v) list[v].seconds += least[v];
      std::swap(hidden_, output_);
    }
  }
  std::size_t tokens() const { return tokens_.size(); }

 private:
  double run_layer(LayerId layer, const Variant& variant) {
    compress::LayerCollectors collectors(spec_, layer, false, runner_.kernels(), runner_.pool(),
                                         variant.families);
    output_.reshape(hidden_.rows(), hidden_.cols());
    std::copy(hidden_.flat().begin(), hidden_.flat().end(), output_.flat().begin());
    const double begin = processor_seconds();
    collectors.begin_batch(numbers_);
    runner_.run(lengths_, output_.view(), variant.families.empty() ? nullptr : &collectors);
    collectors.on_layer(hidden_.view(), output_.view());
    collectors.sums().close_unit();
    return processor_seconds() - begin;
  }

  const model::ModelSpec spec_;
  engine::LayerRunner runner_;
  std::vector<TokenId> tokens_;
  std::vector<std::size_t> lengths_;
  std::vector<std::uint32_t> numbers_;
  tensor::Matrix<float> hidden_, output_;
};

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
      return !variant.families.empty() && variant.name != arguments[6];
    });
  }
  Bench bench(checkpoint, text, static_cast<unsigned>(number(5, 1)));
  bench.run(list, static_cast<int>(number(4, 5)));
  const double forward = list[0].seconds;
  fmt::print("{} tokens, {} layers\n", bench.tokens(), checkpoint.spec().num_hidden_layers);
  fmt::print("{:<18} {:>10} {:>10}\n", "", "ms", "x forward");
  for (const Variant& variant : list) {
    fmt::print("{:<18} {:>10.1f} {:>10.3f}\n", variant.name, 1e3 * variant.seconds,
               variant.seconds / forward);
  }
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
