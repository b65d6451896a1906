// SPDX-FileCopyrightText: The Winnow authors
// SPDX-License-Identifier: Apache-2.0
// transform_ablation: what each exact change of a layer is worth before quantisation on a real
// model. Prints, per type and kind of change, the held-out loss of whole matrices relative to the
// same quantiser without the change, how often a change was made, and the time of the search.
#include <chrono>
#include <cstdlib>
#include <map>

#include "base/error.h"
#include "compress/hessian_collector.h"
#include "compress/quantizer_methods.h"
#include "compress/transform_choice.h"
#include "engine/engine.h"
#include "kernels/kernels.h"
#include "metrics/text_data.h"
#include "model/checkpoint.h"

namespace winnow::tools {
namespace {

using compress::Hessian;
using compress::LayerTransform;
using compress::ScaleFamily;
using compress::TransformWishes;
using engine::Site;
using model::Role;

struct Wish {
  const char* name;
  TransformWishes wishes;
  std::vector<Role> judged;  ///< whose losses tell what it is worth
};

std::vector<Wish> all_wishes() {
  const std::vector<Role> down = {Role::kExpertDownProj, Role::kDownProj};
  std::vector<Wish> list;
  list.push_back({"order", {.inner_order = true}, down});
  for (const auto& [name, family] :
       std::vector<std::pair<const char*, ScaleFamily>>{{"awq", ScaleFamily::kAwq},
                                                        {"sq+", ScaleFamily::kSmoothQuantPlus},
                                                        {"shift", ScaleFamily::kExponentShift}}) {
    list.push_back({name, {.inner_scales = family}, down});
  }
  list.push_back({"order+awq", {.inner_order = true, .inner_scales = ScaleFamily::kAwq}, down});
  list.push_back({"v/o awq", {.value_scales = ScaleFamily::kAwq}, {Role::kAttentionOutput}});
  list.push_back({"qkv awq",
                  {.attention_input = ScaleFamily::kAwq},
                  {Role::kQueryProj, Role::kKeyProj, Role::kValueProj}});
  list.push_back({"ffn awq",
                  {.ffn_input = ScaleFamily::kAwq},
                  {Role::kExpertGateProj, Role::kExpertUpProj, Role::kGateProj, Role::kUpProj}});
  return list;
}

/// The Hessians of one model, as the quantiser sees them.
class Statistics {
 public:
  Statistics(engine::Engine& engine, const model::Checkpoint& checkpoint,
             const metrics::WindowSet& text, std::vector<LayerId> layers)
      : checkpoint_(checkpoint),
        calibration_(engine.pool(), wanted(layers)),
        held_out_(engine.pool(), wanted(layers)) {
    engine::KvCache cache = engine.make_cache(512);
    for (std::size_t i = 0; i < text.windows.size(); ++i) {
      cache.truncate(0);
      const engine::SequenceInput input{&cache, text.windows[i].tokens};
      engine.forward(std::span(&input, 1), i % 4 == 3 ? &held_out_ : &calibration_);
    }
  }

  const Hessian* hessian(Role role, LayerId layer, ExpertId expert) {
    const auto key = std::make_tuple(role, index(layer), index(expert));
    if (const auto found = shrunk_.find(key); found != shrunk_.end()) return &found->second;
    const std::size_t size = checkpoint_.at(role, layer, expert).cols;
    const Hessian* seen = calibration_.find(role, layer, expert);
    if (!model::traits(role).per_expert) return seen;
    const Hessian own = seen == nullptr ? Hessian(size) : *seen;
    const Hessian shrunk = compress::shrunk_towards(own, calibration_.layer_sum(role, layer, size),
                                                    0.5 * static_cast<double>(size));
    return &shrunk_.emplace(key, shrunk).first->second;
  }
  const Hessian* held_out(Role role, LayerId layer, ExpertId expert) const {
    return held_out_.find(role, layer, expert);
  }

 private:
  static compress::HessianCollector::Wanted wanted(const std::vector<LayerId>& layers) {
    return [layers](Site, LayerId layer, ExpertId) {
      return std::find(layers.begin(), layers.end(), layer) != layers.end();
    };
  }
  const model::Checkpoint& checkpoint_;
  compress::HessianCollector calibration_;
  compress::HessianCollector held_out_;
  std::map<std::tuple<Role, std::uint32_t, std::uint32_t>, Hessian> shrunk_;
};

Site site_of(Role role) {
  switch (role) {
    case Role::kAttentionOutput:
      return Site::kAttentionInner;
    case Role::kExpertDownProj:
      return Site::kExpertInner;
    case Role::kDownProj:
      return Site::kFfnInner;
    case Role::kExpertGateProj:
    case Role::kExpertUpProj:
      return Site::kExpertInput;
    case Role::kGateProj:
    case Role::kUpProj:
      return Site::kFfnInput;
    default:
      return Site::kAttentionInput;
  }
}

class Ablation {
 public:
  Ablation(const model::Checkpoint& checkpoint, Statistics& statistics,
           const compress::Workers& workers)
      : checkpoint_(checkpoint), statistics_(statistics), workers_(workers) {}

  void print_row(const Wish& wish, const quant::Codec& codec,
                 const compress::QuantizerMethod& method, const std::vector<LayerId>& layers) {
    double before = 0;
    double after = 0;
    double seconds = 0;
    std::size_t tried = 0;
    std::size_t made = 0;
    for (const LayerId layer : layers) {
      const auto begin = std::chrono::steady_clock::now();
      const auto choice =
          choose_layer_transform(source(layer, codec), wish.wishes, method.options, workers_);
      const std::chrono::duration<double> elapsed = std::chrono::steady_clock::now() - begin;
      seconds += elapsed.count();
      tried += choice.gains.size();
      for (const auto& gain : choice.gains) made += gain.loss_after < gain.loss_before;
      before += loss_unchanged(wish, codec, method, layer);
      after += loss(choice.transform, wish, codec, method, layer);
    }
    fmt::print("{:<10} {:<7} {:<10} {:>9.4f} {:>4}/{:<4} {:>8.2f}\n", method.name, codec.name,
               wish.name, after / before, made, tried,
               seconds / static_cast<double>(layers.size()));
    std::fflush(stdout);
  }

 private:
  compress::LayerSource source(LayerId layer, const quant::Codec& codec) {
    return {checkpoint_.spec(),
            layer,
            [this, layer](Role role, ExpertId expert) { return weights(role, layer, expert); },
            [this, layer](Role role, ExpertId expert) {
              return statistics_.hessian(role, layer, expert);
            },
            [this, layer](Role role, ExpertId expert) {
              return statistics_.held_out(role, layer, expert);
            },
            [this, layer, &codec](Role role) -> const quant::Codec& {
              return quant::codec_for_row(codec, checkpoint_.at(role, layer).cols);
            }};
  }
  tensor::Matrix<float> weights(Role role, LayerId layer, ExpertId expert) const {
    const model::TensorRef ref = checkpoint_.at(role, layer, expert);
    tensor::Matrix<float> result(ref.rows, ref.cols);
    checkpoint_.read_floats(ref, 0, ref.rows, result.flat());
    return result;
  }
  double loss_unchanged(const Wish& wish, const quant::Codec& codec,
                        const compress::QuantizerMethod& method, LayerId layer) {
    const auto key = std::make_tuple(wish.judged.front(), codec.name, index(layer));
    const auto found = unchanged_.find(key);
    if (found != unchanged_.end()) return found->second;
    return unchanged_[key] =
               loss(LayerTransform(checkpoint_.spec(), layer), wish, codec, method, layer);
  }
  /// Of all judged matrices in whole, over the held-out tokens.
  double loss(const LayerTransform& transform, const Wish& wish, const quant::Codec& codec,
              const compress::QuantizerMethod& method, LayerId layer) {
    double sum = 0;
    for (const Role role : wish.judged) {
      if (!checkpoint_.find(role, layer)) continue;
      for (std::uint32_t e = 0; e < checkpoint_.part_count(role, layer); ++e) {
        const ExpertId expert{e};
        const Hessian* test = statistics_.held_out(role, layer, expert);
        if (test == nullptr) continue;
        auto matrix = weights(role, layer, expert);
        transform.apply(role, expert, matrix.view());
        const Hessian seen = transform.apply_to_hessian(site_of(role), expert,
                                                        *statistics_.hessian(role, layer, expert));
        const Hessian judge = transform.apply_to_hessian(site_of(role), expert, *test);
        const quant::Codec& fitting = quant::codec_for_row(codec, matrix.cols());
        sum += test->tokens() * compress::held_out_loss({matrix.view(), &fitting, &seen, &judge},
                                                        method.options, workers_);
      }
    }
    return sum;
  }

  const model::Checkpoint& checkpoint_;
  Statistics& statistics_;
  compress::Workers workers_;
  std::map<std::tuple<Role, std::string_view, std::uint32_t>, double> unchanged_;
};

void run(const std::string& path, const std::string& data, std::uint64_t tokens,
         const std::string& method_name, const std::vector<std::string>& types) {
  Log log;
  const auto checkpoint = model::Checkpoint::open(path);
  engine::Engine engine(checkpoint, {}, log);
  const std::vector<std::string> paths = {data};
  const auto tokenizer = text::Tokenizer(checkpoint.tokenizer_spec());
  const auto text = metrics::make_windows(tokenizer, metrics::read_documents(paths),
                                          {.context = 512, .max_tokens = tokens});
  const std::uint32_t last = checkpoint.spec().num_hidden_layers - 1;
  const std::vector<LayerId> layers = {LayerId{0}, LayerId{last / 2}, LayerId{last}};
  Statistics statistics(engine, checkpoint, text, layers);
  Ablation ablation(checkpoint, statistics,
                    {engine.pool(), kernels::select_kernels("", os::CpuFeatures::detect())});
  const auto& method = compress::usable_quantizer_method(method_name);
  fmt::print("{} tokens, a quarter held out; layers 0, {} and {}\n", text.scored_tokens(), last / 2,
             last);
  fmt::print("{:<10} {:<7} {:<10} {:>9} {:>9} {:>8}\n", "method", "type", "change", "loss", "made",
             "s/layer");
  for (const std::string& type : types) {
    const quant::Codec* codec = quant::find_codec(type);
    if (codec == nullptr) fail(ErrorCode::kUsage, "there is no type '{}'", type);
    for (const Wish& wish : all_wishes()) ablation.print_row(wish, *codec, method, layers);
  }
}

}  // namespace
}  // namespace winnow::tools

int main(int argc, char** argv) {
  if (argc < 4) {
    fmt::print(stderr, "usage: transform_ablation MODEL DATA TOKENS [METHOD [TYPE...]]\n");
    return 1;
  }
  try {
    const std::vector<std::string> types =
        argc > 5 ? std::vector<std::string>(argv + 5, argv + argc)
                 : std::vector<std::string>{"Q2_K", "Q3_K", "Q4_K", "Q4_0", "MXFP4"};
    winnow::tools::run(argv[1], argv[2], std::strtoull(argv[3], nullptr, 10),
                       argc > 4 ? argv[4] : "hessian", types);
  } catch (const winnow::Error& error) {
    fmt::print(stderr, "{}\n", error.what());
    return 2;
  }
  return 0;
}
