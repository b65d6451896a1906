// SPDX-FileCopyrightText: The Winnow authors
// SPDX-License-Identifier: Apache-2.0
#include "compress/layer_transforms.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <optional>
#include <vector>

#include "base/error.h"
#include "compress/moments.h"
#include "os/file.h"

namespace winnow::compress {
namespace {

using engine::Site;
using model::Role;

constexpr Bytes kLongestRecord{std::uint64_t{1} << 28};

bool holds(std::span<const Site> sites, Site site) {
  return std::find(sites.begin(), sites.end(), site) != sites.end();
}

class TransformSearch {
 public:
  TransformSearch(const model::Checkpoint& source, engine::LayerRunner& runner, LayerId layer,
                  std::span<const TensorGroup* const> groups, const LayerTransformsOptions& options,
                  LayerTransform& transform)
      : source_(source),
        runner_(runner),
        layer_(layer),
        groups_(groups),
        options_(options),
        transform_(transform) {}

  void run(const CalibrationStreams& text, Log& log) {
    const TransformWishes& wishes = options_.wishes;
    if (wishes.inner_order || wishes.inner_scales || wishes.value_scales || wishes.value_rotation) {
      choose_inside(text, log);
    }
    if (wishes.attention_input || wishes.ffn_input) choose_inputs(text, log);
  }

 private:
  std::vector<Site> sites(std::span<const Site> wanted) const {
    std::vector<Site> found;
    for (const TensorGroup* group : groups_) {
      const Site site = site_of(group->role);
      if (holds(wanted, site) && !holds(found, site)) found.push_back(site);
    }
    return found;
  }

  /// Inner channels and values: what each needs is the Hessian of one input.
  void choose_inside(const CalibrationStreams& text, Log& log) {
    constexpr Site kWanted[] = {Site::kAttentionInner, Site::kFfnInner, Site::kExpertInner};
    visit_layer_hessians(runner_, source_.spec(), layer_, sites(kWanted), text, options_.hessians,
                         log, [&](Site site, ExpertId expert, PreparedHessian& hessian) {
                           const LayerSource source = source_with([&](Role role, ExpertId of) {
                             return site_of(role) == site && of == expert ? &hessian : nullptr;
                           });
                           if (site == Site::kAttentionInner) {
                             choose_values(source, options_.wishes, options_.quantizer,
                                           Workers(runner_.pool(), runner_.kernels()), transform_);
                           } else {
                             choose_inner(source, expert, options_.wishes, options_.quantizer,
                                          Workers(runner_.pool(), runner_.kernels()), transform_);
                           }
                         });
  }

  /// Norms: all experts read the same input, whose Hessian is that of the layer.
  void choose_inputs(const CalibrationStreams& text, Log& log) {
    constexpr Site kWanted[] = {Site::kAttentionInput, Site::kFfnInput, Site::kExpertInput};
    LayerHessianOptions together = options_.hessians;
    together.scope = HessianScope::kLayer;
    std::map<Site, PreparedHessian> kept;
    visit_layer_hessians(runner_, source_.spec(), layer_, sites(kWanted), text, together, log,
                         [&](Site site, ExpertId, PreparedHessian& hessian) {
                           kept.try_emplace(site, hessian.calibration(), held_out_of(hessian));
                         });
    const LayerSource source = source_with([&](Role role, ExpertId) -> PreparedHessian* {
      const auto found = kept.find(site_of(role));
      return found == kept.end() ? nullptr : &found->second;
    });
    choose_input_folds(source, options_.wishes, options_.quantizer,
                       Workers(runner_.pool(), runner_.kernels()), transform_);
  }

  static std::optional<Hessian> held_out_of(const PreparedHessian& hessian) {
    return hessian.has_held_out() ? std::optional<Hessian>(hessian.judge()) : std::nullopt;
  }

  LayerSource source_with(const std::function<PreparedHessian*(Role, ExpertId)>& find) const {
    return {source_.spec(),
            layer_,
            [this](Role role, ExpertId expert) {
              const model::TensorRef ref = source_.at(role, layer_, expert);
              tensor::Matrix<float> weights(ref.rows, ref.cols);
              source_.read_floats(ref, 0, ref.rows, weights.flat());
              return weights;
            },
            [find](Role role, ExpertId expert) -> const Hessian* {
              const PreparedHessian* const found = find(role, expert);
              return found == nullptr ? nullptr : &found->calibration();
            },
            [find](Role role, ExpertId expert) -> const Hessian* {
              const PreparedHessian* const found = find(role, expert);
              return found == nullptr || !found->has_held_out() ? nullptr : &found->judge();
            },
            [this](Role role) -> const quant::Codec& { return codec_of(role); }};
  }

  const quant::Codec& codec_of(Role role) const {
    for (const TensorGroup* group : groups_) {
      if (group->role != role) continue;
      const auto distance = [&](const GroupOption& option) {
        return std::fabs(option.codec->bits_per_weight() - options_.bits_per_weight);
      };
      return *std::min_element(group->options.begin(), group->options.end(),
                               [&](const GroupOption& a, const GroupOption& b) {
                                 return distance(a) < distance(b);
                               })
                  ->codec;
    }
    return *quant::find_codec("F32");  // the router, which is not quantised
  }

  const model::Checkpoint& source_;
  engine::LayerRunner& runner_;
  LayerId layer_;
  std::span<const TensorGroup* const> groups_;
  const LayerTransformsOptions& options_;
  LayerTransform& transform_;
};

}  // namespace

std::filesystem::path LayerTransforms::path_of(LayerId layer) const {
  return folder_ / fmt::format("transform-{:05}.json", index(layer));
}

const LayerTransform& LayerTransforms::of(LayerId layer) {
  const auto found = chosen_.find(index(layer));
  if (found != chosen_.end()) return found->second;
  LayerTransform transform(source_.spec(), layer);
  const auto path = path_of(layer);
  if (wanted() && std::filesystem::exists(path)) {
    const Json json = parse_json(os::read_text_file(path, kLongestRecord), path.string());
    with_context(path.string(), [&] { transform.read(json); });
  }
  return chosen_.emplace(index(layer), std::move(transform)).first->second;
}

void LayerTransforms::choose(engine::LayerRunner& runner, LayerId layer,
                             std::span<const TensorGroup* const> groups,
                             const CalibrationStreams& text, Log& log) {
  if (!wanted() || std::filesystem::exists(path_of(layer))) return;
  LayerTransform transform(source_.spec(), layer);
  TransformSearch(source_, runner, layer, groups, options_, transform).run(text, log);
  os::write_text_file(path_of(layer), dump_json(transform.to_json()) + "\n");
  chosen_.erase(index(layer));
  chosen_.emplace(index(layer), std::move(transform));
}

bool LayerTransforms::changes(const TensorGroup& group) {
  if (!wanted() || !model::traits(group.role).per_layer) return false;
  const LayerTransform& transform = of(group.layer);
  for (std::size_t part = 0; part < group.parts; ++part) {
    if (!transform.is_identity(group.role, group.expert(part))) return true;
  }
  return false;
}

PreparedHessian LayerTransforms::changed(LayerId layer, engine::Site site, ExpertId expert,
                                         const PreparedHessian& hessian) {
  const LayerTransform& transform = of(layer);
  std::optional<Hessian> judge;
  if (hessian.has_held_out()) judge = transform.apply_to_hessian(site, expert, hessian.judge());
  return PreparedHessian(transform.apply_to_hessian(site, expert, hessian.calibration()),
                         std::move(judge));
}

void LayerTransforms::edit(model::Role role, LayerId layer, std::span<float> values) {
  if (!model::traits(role).per_layer || !wanted()) return;
  const LayerTransform& transform = of(layer);
  if (role == model::Role::kRouter) {
    const model::ModelSpec& spec = source_.spec();
    transform.apply(role, {},
                    {values.data(), spec.moe.num_experts, spec.hidden_size, spec.hidden_size});
  } else {
    transform.apply_to_vector(role, values);
  }
}

}  // namespace winnow::compress
