// SPDX-FileCopyrightText: The Winnow authors
// SPDX-License-Identifier: Apache-2.0
// Every statistic against a slow direct computation from what a whole-model pass shows.
#include "compress/statistic.h"

#include <gtest/gtest.h>

#include <cmath>
#include <map>

#include "compress/profiler.h"
#include "compress/testing.h"
#include "formats/test_files.h"
#include "metrics/distribution.h"

namespace winnow::compress::statistic_test {
namespace {

using engine::Site;
using formats::testing::TemporaryFolder;
using Row = std::vector<double>;

Row row_of(std::span<const float> values) { return {values.begin(), values.end()}; }
double product(const Row& a, const Row& b) {
  double sum = 0;
  for (std::size_t j = a.size(); j-- > 0;) sum += a[j] * b[j];  // not the order of the library
  return sum;
}

struct Choice {
  std::size_t expert;
  double weight;
  Row input, inner, output;
};
/// One token in one layer.
struct Token {
  std::size_t window = 0;
  Row logits;
  std::vector<Choice> choices;
};

/// Everything that a pass shows, as it is.
class Everything final : public engine::Observer {
 public:
  void on_input(Site site, LayerId layer, tensor::MatrixView<const float> x) override {
    for (std::size_t t = 0; t < x.rows; ++t) {
      inputs[{site, index(layer)}].push_back(row_of(x.row(t)));
    }
  }
  void on_routing(LayerId layer, tensor::MatrixView<const float> logits,
                  const engine::RoutingView& routing) override {
    first = tokens[index(layer)].size();
    for (std::size_t t = 0; t < logits.rows; ++t) {
      Token token{window, row_of(logits.row(t)), {}};
      for (std::size_t i = 0; i < routing.top_k; ++i) {
        token.choices.push_back({index(routing.experts[t * routing.top_k + i]),
                                 routing.weights[t * routing.top_k + i],
                                 {},
                                 {},
                                 {}});
      }
      tokens[index(layer)].push_back(token);
    }
  }
  void on_experts(LayerId layer, const engine::ExpertSlots& slots) override {
    for (std::size_t t = 0; t < slots.inputs.rows; ++t) {
      for (std::size_t i = 0; i < slots.top_k; ++i) {
        Choice& choice = tokens[index(layer)][first + t].choices[i];
        const std::size_t slot = slots.slot_of[t * slots.top_k + i];
        choice.input = row_of(slots.inputs.row(t));
        choice.inner = row_of(slots.inner.row(slot));
        choice.output = row_of(slots.outputs.row(slot));
      }
    }
  }
  std::size_t window = 0;
  std::map<std::pair<Site, std::uint32_t>, std::vector<Row>> inputs;
  std::map<std::uint32_t, std::vector<Token>> tokens;

 private:
  std::size_t first = 0;
};

/// A profile of a tiny model on ten sequences, the eighth held out, and what it was made of.
class Profiled : public ::testing::TestWithParam<std::string> {
 protected:
  Profiled()
      : checkpoint_(testing::open_tiny(WINNOW_SOURCE_DIR, GetParam())),
        text_(testing::random_windows(10, 21)) {
    Log log;
    profile_model(checkpoint_, text_, folder_.path() / "s", testing::profile_options(), log);
    file_.emplace(StatisticsFile::open(folder_.path() / "s"));
    engine::Engine engine(checkpoint_, {1, ""}, log);
    for (std::size_t w = 0; w < text_.windows.size(); ++w) {
      if (w == 7) continue;
      everything_.window = w;
      engine::KvCache cache = engine.make_cache(text_.windows[w].tokens.size());
      const engine::SequenceInput input{&cache, text_.windows[w].tokens};
      engine.forward(std::span(&input, 1), &everything_);
    }
  }

  const model::ModelSpec& spec() const { return checkpoint_.spec(); }
  std::size_t experts() const { return spec().moe.num_experts; }

  /// Calls for every (token, choice) of a layer.
  template <typename Visit>
  void for_choices(std::uint32_t layer, Visit visit) {
    for (const Token& token : everything_.tokens.at(layer)) {
      for (const Choice& choice : token.choices) visit(token, choice);
    }
  }

  /// Sums agree to what different orders of a few hundred f64 terms, rounded to 42 bits, can make
  /// of them; `scale`: a bound of the sum of magnitudes.
  void expect_sum(std::uint32_t layer, const std::string& name, const Row& expected,
                  double scale = 0) {
    expect_array(layer_prefix(0, LayerId{layer}) + name, expected, scale);
  }
  void expect_array(const std::string& name, const Row& expected, double scale = 0) {
    const auto sum = file_->doubles(name);
    ASSERT_EQ(sum.size(), expected.size()) << name;
    for (std::size_t i = 0; i < sum.size(); ++i) {
      ASSERT_NEAR(sum[i], expected[i], 5e-13 * std::max(scale, std::fabs(expected[i])))
          << name << " at " << i;
    }
  }
  void expect_counts(std::uint32_t layer, const std::string& name,
                     const std::vector<std::uint64_t>& expected) {
    EXPECT_EQ(file_->counts(layer_prefix(0, LayerId{layer}) + name), expected) << name;
  }
  template <typename Check>
  void for_moe_layers(Check check) {
    for (const auto& [layer, tokens] : everything_.tokens) check(layer);
  }

  TemporaryFolder folder_;
  model::Checkpoint checkpoint_;
  metrics::WindowSet text_;
  std::optional<StatisticsFile> file_;
  Everything everything_;
};

TEST_P(Profiled, CountsHitsPairsAndWeights) {
  for_moe_layers([&](std::uint32_t layer) {
    const std::size_t n = experts();
    std::vector<std::uint64_t> hits(n), halves(2 * n), pairs(n * n);
    Row weights(n), gram(n * n);
    for_choices(layer, [&](const Token& token, const Choice& a) {
      ++hits[a.expert];
      ++halves[token.window % 2 * n + a.expert];
      weights[a.expert] += a.weight;
      for (const Choice& b : token.choices) {
        ++pairs[a.expert * n + b.expert];
        gram[a.expert * n + b.expert] += a.weight * b.weight;
      }
    });
    expect_counts(layer, "tokens", {9 * 22});
    expect_counts(layer, "hits", hits);
    expect_counts(layer, "half_hits", halves);
    expect_counts(layer, "coactivation", pairs);
    expect_sum(layer, "weight_sums", weights);
    expect_sum(layer, "gate_gram", gram);
  });
}

TEST_P(Profiled, KeepsHistogramsOfChosenMassAndOfWeightRatios) {
  for_moe_layers([&](std::uint32_t layer) {
    std::vector<std::uint64_t> bins(spec().moe.top_k * 256);
    for (const Token& token : everything_.tokens.at(layer)) {
      const double highest = *std::max_element(token.logits.begin(), token.logits.end());
      double all = 0;
      double chosen = 0;
      for (const double logit : token.logits) all += std::exp(logit - highest);
      for (const Choice& choice : token.choices) {
        chosen += std::exp(token.logits[choice.expert] - highest);
      }
      ++bins[static_cast<std::size_t>(std::min(chosen / all * 256, 255.0))];
      for (std::size_t j = 1; j < token.choices.size(); ++j) {
        const double ratio = token.choices[j].weight / token.choices[0].weight;
        ++bins[j * 256 + static_cast<std::size_t>(std::min(ratio * 256, 255.0))];
      }
    }
    expect_counts(layer, "weight_ratios", bins);
  });
}

TEST_P(Profiled, SumsRouterLogitsAndTheirProducts) {
  for_moe_layers([&](std::uint32_t layer) {
    const std::size_t n = experts();
    Row sums(n), gram(n * n);
    double scale = 0;
    for (const Token& token : everything_.tokens.at(layer)) {
      for (std::size_t i = 0; i < n; ++i) {
        sums[i] += token.logits[i];
        scale += std::fabs(token.logits[i]) + token.logits[i] * token.logits[i];
        for (std::size_t j = 0; j < n; ++j) gram[i * n + j] += token.logits[i] * token.logits[j];
      }
    }
    expect_sum(layer, "router_logit_sums", sums, scale);
    expect_sum(layer, "router_logit_gram", gram, scale);
  });
}

TEST_P(Profiled, SumsNormsOfOutputsAndTheirGatedProducts) {
  for_moe_layers([&](std::uint32_t layer) {
    const std::size_t n = experts();
    Row norms(n), squares(n), gated(n), gated_squares(n), halves(2 * n), gram(n * n);
    std::vector<float> largest(n), largest_norm(n);
    double scale = 0;
    for_choices(layer, [&](const Token& token, const Choice& a) {
      const double square = product(a.output, a.output);
      norms[a.expert] += std::sqrt(square);
      squares[a.expert] += square;
      gated[a.expert] += a.weight * std::sqrt(square);
      gated_squares[a.expert] += a.weight * a.weight * square;
      halves[token.window % 2 * n + a.expert] += a.weight * std::sqrt(square);
      scale += square;
      for (const double value : a.output) {
        largest[a.expert] = std::max(largest[a.expert], static_cast<float>(std::fabs(value)));
      }
      largest_norm[a.expert] =
          std::max(largest_norm[a.expert], static_cast<float>(std::sqrt(square)));
      for (const Choice& b : token.choices) {
        gram[a.expert * n + b.expert] += a.weight * b.weight * product(a.output, b.output);
      }
    });
    expect_sum(layer, "output_norms", norms);
    expect_sum(layer, "output_squares", squares);
    expect_sum(layer, "gated_output_norms", gated);
    expect_sum(layer, "gated_output_squares", gated_squares);
    expect_sum(layer, "half_gated_output_norms", halves);
    expect_sum(layer, "output_gram", gram, scale);
    const std::string prefix = layer_prefix(0, LayerId{layer});
    EXPECT_EQ(file_->floats(prefix + "output_max"), largest);
    const auto norms_max = file_->floats(prefix + "output_norm_max");
    for (std::size_t e = 0; e < n; ++e) EXPECT_FLOAT_EQ(norms_max[e], largest_norm[e]);
  });
}

TEST_P(Profiled, SumsExpertsOutputsInputsAndInnerActivations) {
  for_moe_layers([&](std::uint32_t layer) {
    const std::size_t d = spec().hidden_size;
    const std::size_t f = spec().moe.moe_intermediate_size;
    Row outputs(experts() * d), gated_outputs(experts() * d), x(experts() * d), gx(experts() * d);
    Row a(experts() * f), ga(experts() * f);
    double scale = 0;
    for_choices(layer, [&](const Token&, const Choice& choice) {
      const double square = choice.weight * choice.weight;
      for (std::size_t j = 0; j < d; ++j) {
        const std::size_t at = choice.expert * d + j;
        outputs[at] += choice.output[j];
        gated_outputs[at] += square * choice.output[j];
        x[at] += choice.input[j] * choice.input[j];
        gx[at] += square * choice.input[j] * choice.input[j];
        scale += std::fabs(choice.output[j]);
      }
      for (std::size_t j = 0; j < f; ++j) {
        a[choice.expert * f + j] += choice.inner[j] * choice.inner[j];
        ga[choice.expert * f + j] += square * choice.inner[j] * choice.inner[j];
      }
    });
    expect_sum(layer, "output_sums", outputs, scale);
    expect_sum(layer, "gated_output_sums", gated_outputs, scale);
    expect_sum(layer, "expert_input_squares", x);
    expect_sum(layer, "gated_expert_input_squares", gx);
    expect_sum(layer, "expert_inner_squares", a);
    expect_sum(layer, "gated_expert_inner_squares", ga);
  });
}

struct SiteName {
  Site site;
  const char* name;
};
constexpr SiteName kSites[] = {{Site::kAttentionInput, "attention_input"},
                               {Site::kAttentionInner, "attention_inner"},
                               {Site::kFfnInput, "ffn_input"},
                               {Site::kFfnInner, "ffn_inner"}};

TEST_P(Profiled, SumsTheInputsOfDenseMatrices) {
  const auto check = [&](const std::string& prefix, const std::vector<Row>& rows) {
    Row squares(rows[0].size()), magnitudes(rows[0].size());
    std::vector<float> largest(rows[0].size());
    for (const Row& row : rows) {
      for (std::size_t j = 0; j < row.size(); ++j) {
        squares[j] += row[j] * row[j];
        magnitudes[j] += std::fabs(row[j]);
        largest[j] = std::max(largest[j], static_cast<float>(std::fabs(row[j])));
      }
    }
    expect_array(prefix + "_squares", squares);
    expect_array(prefix + "_magnitudes", magnitudes);
    EXPECT_EQ(file_->floats(prefix + "_max"), largest);
    EXPECT_EQ(file_->counts(prefix + "_tokens"), std::vector<std::uint64_t>{rows.size()});
  };
  std::size_t checked = 0;
  for (std::uint32_t layer = 0; layer < spec().num_hidden_layers; ++layer) {
    for (const SiteName& site : kSites) {
      const auto found = everything_.inputs.find({site.site, layer});
      const std::string prefix = layer_prefix(0, LayerId{layer}) + site.name;
      EXPECT_EQ(found == everything_.inputs.end(), file_->find(prefix + "_squares") == nullptr);
      if (found == everything_.inputs.end()) continue;
      check(prefix, found->second);
      ++checked;
    }
  }
  EXPECT_GE(checked, 3U * spec().num_hidden_layers);
  check(output_prefix(0) + "output_input", everything_.inputs.at({Site::kOutputInput, 0}));
}

TEST_P(Profiled, HasNoArrayThatIsNotFinite) {
  std::size_t sums = 0;
  for (const formats::TensorInfo& info : file_->arrays()) {
    if (info.type_name != "F64") continue;
    for (const double value : file_->doubles(info.name)) ASSERT_TRUE(std::isfinite(value));
    ++sums;
  }
  EXPECT_GT(sums, 20U);
}

TEST_P(Profiled, KeepsTheTeacherOfTheHeldOutSequence) {
  Log log;
  engine::Engine engine(checkpoint_, {1, ""}, log);
  const auto logits = testing::logits_of(engine, text_.windows[7]);
  const std::string prefix = teacher_prefix(0);
  EXPECT_EQ(file_->integers(prefix + "window_lengths"), std::vector<std::int32_t>{22});
  EXPECT_EQ(file_->integers(prefix + "first_scored"), std::vector<std::int32_t>{1});
  std::vector<std::int32_t> tokens;
  for (const TokenId token : text_.windows[7].tokens) tokens.push_back(index(token));
  EXPECT_EQ(file_->integers(prefix + "tokens"), tokens);
  const auto top = file_->integers(prefix + "top_tokens");
  const auto log_probs = file_->floats(prefix + "top_log_probs");
  const auto rest = file_->floats(prefix + "rest_mass");
  const std::size_t vocab = spec().vocab_size;
  ASSERT_EQ(rest.size(), 21U);
  ASSERT_EQ(top.size(), 21U * 64);
  for (std::size_t t = 0; t < rest.size(); ++t) {
    const auto row = std::span<const float>(logits).subspan(t * vocab, vocab);
    EXPECT_EQ(static_cast<std::size_t>(top[t * 64]), metrics::argmax(row));
    double mass = rest[t];
    for (std::size_t i = 0; i < 64; ++i) {
      const double logit = row[static_cast<std::size_t>(top[t * 64 + i])];
      EXPECT_FLOAT_EQ(log_probs[t * 64 + i], static_cast<float>(logit - metrics::log_sum_exp(row)));
      if (i > 0) {
        EXPECT_LE(log_probs[t * 64 + i], log_probs[t * 64 + i - 1]);
      }
      mass += std::exp(double{log_probs[t * 64 + i]});
    }
    // 64 f32 logarithms, each off by 2^-24 of at most 20.
    EXPECT_NEAR(mass, 1.0, 64 * 20 * 0x1p-24);
  }
}

INSTANTIATE_TEST_SUITE_P(TinyModels, Profiled,
                         ::testing::Values("plain", "dense-first", "not-renormalised"),
                         [](const auto& model) {
                           std::string name = model.param;
                           std::replace(name.begin(), name.end(), '-', '_');
                           return name;
                         });

}  // namespace
}  // namespace winnow::compress::statistic_test
