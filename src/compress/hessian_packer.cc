// SPDX-FileCopyrightText: The Winnow authors
// SPDX-License-Identifier: Apache-2.0
// Packing under the Hessians of the inputs, which are collected layer by layer, used, and freed.
#include <fmt/format.h>

#include <algorithm>
#include <map>
#include <set>

#include "base/error.h"
#include "compress/damage.h"
#include "compress/group_matrices.h"
#include "compress/group_packer.h"
#include "compress/layer_transforms.h"
#include "compress/memory_plan.h"
#include "compress/narrowed_groups.h"
#include "compress/narrowing.h"
#include "compress/option_costs.h"
#include "compress/packed_groups.h"
#include "compress/row_sample.h"
#include "compress/slow_steps.h"
#include "compress/window_stream.h"
#include "model/exporter.h"

namespace winnow::compress {
namespace {

using engine::Site;
using model::Role;

// A matrix is quantised in stretches of about this many weights.
constexpr std::size_t kChunkWeights = std::size_t{4} << 20;
/// The matrix of a group of one expert, and the Hessian of its input.
using MatrixVisitor =
    std::function<void(const TensorGroup& group, ExpertId expert, PreparedHessian& hessian)>;

class HessianPacker final : public GroupPacker {
 public:
  HessianPacker(const PackerContext& context, const CalibrationText& text,
                const HessianPackerOptions& options)
      : context_(context),
        spec_(context.source.spec()),
        options_(options),
        slow_steps_(options.quantizer),
        cache_(context.folder),
        transforms_(
            context.source, context.folder,
            {options.transforms, options.quantizer, options.hessians, options.bits_per_weight}),
        matrices_(context.source, transforms_),
        calibration_(text.calibration.windows, MemoryPlan::kBatchTokens),
        held_out_(text.held_out.windows, MemoryPlan::kBatchTokens) {
    options_.hessians.run_ahead = !options.sequential;
  }

  void measure(std::vector<TensorGroup>& groups) override;
  PackedGroup noise(const TensorGroup& group, const NoisePoint& point) override {
    return pack_group(context_.source, group, *point.codec, nullptr, context_.runner.pool(),
                      context_.log);
  }
  void prepare(std::span<const PackOrder> orders) override;
  PackedGroup pack(const PackOrder& order) override;
  bool is_copy(const PackOrder& order) override {
    return is_stored_as(context_.source, *order.group, *order.codec) &&
           !transforms_.changes(*order.group);
  }
  void edit(Role role, LayerId layer, std::span<float> values) override {
    transforms_.edit(role, layer, values);
  }
  bool pack_rows(const PackOrder& order, ExpertId expert, std::size_t first,
                 std::span<std::byte> out) override;
  void factor(const PackOrder& order, ExpertId expert, model::LowRankSide side,
              std::span<std::byte> out) override {
    cache_.read_factor(*order.group, *order.codec, expert, side,
                       rank_of(*order.group, *order.codec), out);
  }

 private:
  using Groups = std::vector<const TensorGroup*>;
  Workers workers() const { return {context_.runner.pool(), context_.runner.kernels()}; }
  /// Runs the text through the layers; `visit` sees every matrix of `groups`, and `finish` is
  /// called when all of a layer's have been seen (nothing: those without a layer).
  void walk(const Groups& groups, const std::string& stage, const MatrixVisitor& visit,
            const std::function<void(std::optional<LayerId>)>& finish);
  void walk_layer(LayerId layer, const Groups& groups, const CalibrationStreams& text,
                  const MatrixVisitor& visit);
  void walk_output(const Groups& groups, const CalibrationStreams& text,
                   const MatrixVisitor& visit);
  bool is_lookup(Role role) const {
    return role == Role::kTokenEmbedding && !spec_.tie_word_embeddings;
  }

  void add_errors(TensorGroup& group, ExpertId expert, PreparedHessian& hessian);
  void add_errors_of(TensorGroup& group, ExpertId expert, ConstMatrix rows,
                     PreparedHessian& hessian);
  PreparedHessian own_sums(const PreparedHessian& hessian) const {
    return of_own_tokens(hessian,
                         options_.hessians.pseudo_tokens * static_cast<double>(hessian.size()));
  }
  NarrowedChannels choose_channels(const TensorGroup& group, ExpertId expert,
                                   const PreparedHessian& hessian);
  std::filesystem::path costs_path(const TensorGroup& group) const;
  void quantize(const PackOrder& order, ExpertId expert, PreparedHessian& hessian,
                std::span<std::byte> out);
  void quantize_narrowed(const PackOrder& order, ExpertId expert, PreparedHessian& hessian,
                         std::span<std::byte> out);
  void quantize_rows(ConstMatrix weights, const quant::Codec& codec, PreparedHessian& hessian,
                     std::span<std::byte> out);
  std::size_t rank_of(const TensorGroup& group, const quant::Codec& codec) const {
    return correction_rank(options_.corrections, context_.source, group, codec);
  }
  void measure_shares(const TensorGroup& group, ExpertId expert, PreparedHessian& hessian,
                      const HessianQuantizerOptions& quick);
  void apply_shares(TensorGroup& group) const;
  /// A group in the making: its matrices and the factors beside them.
  struct Packed {
    std::vector<std::byte> matrices, factors;
  };
  void quantize_part(const PackOrder& order, ExpertId expert, PreparedHessian& hessian,
                     Packed& packed);

  void advance(LayerId layer, WindowStream& calibration, WindowStream& held_out);

  PackerContext context_;
  const model::ModelSpec& spec_;
  HessianPackerOptions options_;
  // Of each option's loss, what its correction takes away, measured on one matrix of the group.
  std::map<const TensorGroup*, std::vector<double>> shares_;
  SlowStepShares slow_steps_;
  std::span<const PackOrder> sequence_;  // whose matrices the text runs through, when sequential
  PackedGroups cache_;
  LayerTransforms transforms_;
  GroupMatrices matrices_;
  struct ExpertChannels {
    GroupKey key;
    PreparedHessian own;
    ChannelChooser chooser;
  };
  // Of the narrowed group that was seen last: its expert's other widths come next.
  std::optional<ExpertChannels> chooser_;
  WindowBatches calibration_, held_out_;
};

void HessianPacker::walk_layer(LayerId layer, const Groups& groups, const CalibrationStreams& text,
                               const MatrixVisitor& visit) {
  std::vector<Site> sites;
  for (const TensorGroup* group : groups) {
    const Site site = site_of(group->role);
    if (std::find(sites.begin(), sites.end(), site) == sites.end()) sites.push_back(site);
  }
  transforms_.choose(context_.runner, layer, groups, text, context_.log);
  visit_layer_hessians(
      context_.runner, spec_, layer, sites, text, options_.hessians, context_.log,
      [&](Site site, ExpertId expert, PreparedHessian& hessian) {
        std::optional<PreparedHessian> changed;
        if (transforms_.wanted()) changed = transforms_.changed(layer, site, expert, hessian);
        for (const TensorGroup* group : groups) {
          if (site_of(group->role) != site || !group->has(expert)) continue;
          with_context(group->name(), [&] { visit(*group, expert, changed ? *changed : hessian); });
        }
      });
}

void HessianPacker::walk_output(const Groups& groups, const CalibrationStreams& text,
                                const MatrixVisitor& visit) {
  context_.runner.load_output();
  visit_output_hessian(context_.runner, spec_, text, context_.log,
                       [&](Site, ExpertId expert, PreparedHessian& hessian) {
                         for (const TensorGroup* group : groups) {
                           if (is_lookup(group->role)) continue;
                           with_context(group->name(), [&] { visit(*group, expert, hessian); });
                         }
                       });
}

void HessianPacker::walk(const Groups& groups, const std::string& stage, const MatrixVisitor& visit,
                         const std::function<void(std::optional<LayerId>)>& finish) {
  if (groups.empty()) return;
  std::map<std::uint32_t, Groups> by_layer;
  Groups others;
  for (const TensorGroup* group : groups) {
    const bool per_layer = model::traits(group->role).per_layer;
    (per_layer ? by_layer[index(group->layer)] : others).push_back(group);
  }
  const auto stream = [&](const WindowBatches& batches, const char* name) {
    return WindowStream(batches, spec_.hidden_size,
                        options_.states_on_disk ? context_.folder / name : std::filesystem::path());
  };
  WindowStream calibration = stream(calibration_, "states-calibration");
  WindowStream held_out = stream(held_out_, "states-held-out");
  const CalibrationStreams text{calibration, held_out_.batches.empty() ? nullptr : &held_out};
  calibration.embed(context_.runner, nullptr, context_.log);
  held_out.embed(context_.runner, nullptr, context_.log);
  for (const TensorGroup* group : others) {
    if (!is_lookup(group->role)) continue;
    PreparedHessian identity(Hessian::identity(spec_.hidden_size));
    with_context(group->name(), [&] { visit(*group, ExpertId{}, identity); });
  }
  const std::uint32_t last = by_layer.empty() ? 0 : by_layer.rbegin()->first + 1;
  const bool needs_all = std::any_of(others.begin(), others.end(),
                                     [&](const TensorGroup* g) { return !is_lookup(g->role); });
  const std::uint32_t layers = needs_all ? spec_.num_hidden_layers : last;
  for (std::uint32_t layer = 0; layer < layers; ++layer) {
    context_.runner.load(LayerId{layer});
    if (const auto found = by_layer.find(layer); found != by_layer.end()) {
      walk_layer(LayerId{layer}, found->second, text, visit);
      finish(LayerId{layer});
    }
    if (layer + 1 < layers || needs_all) {
      advance(LayerId{layer}, calibration, held_out);
    }
    context_.log.progress(stage, layer + 1, layers, "layers");
  }
  if (needs_all) walk_output(others, text, visit);
  if (!others.empty()) finish(std::nullopt);
}

/// Through the layer as it is, or as it will be.
void HessianPacker::advance(LayerId layer, WindowStream& calibration, WindowStream& held_out) {
  std::vector<PackedGroup> packed;  // borrowed by the runner
  for (const PackOrder& order : sequence_) {
    if (!model::traits(order.group->role).per_layer || order.group->layer != layer) continue;
    packed.push_back(pack_at_full_width(*this, order, context_.source));
    context_.runner.override_weights(order.group->role, packed.back().in_layer(spec_));
  }
  if (packed.empty()) {
    calibration.advance(context_.runner, context_.log);
    held_out.advance(context_.runner, context_.log);
    return;
  }
  calibration.run(context_.runner, calibration, nullptr, context_.log);
  held_out.run(context_.runner, held_out, nullptr, context_.log);
  context_.runner.restore_weights();
}

/// On the first matrix that errs on the text: rounding errors are much alike in all of them.
void HessianPacker::measure_shares(const TensorGroup& group, ExpertId expert,
                                   PreparedHessian& hessian, const HessianQuantizerOptions& quick) {
  if (options_.corrections.rank == 0 || shares_.count(&group) != 0) return;
  if (!(hessian.judge().trace() > 0)) return;
  const auto is_corrected = [](const GroupOption& option) { return option.rank > 0; };
  if (std::none_of(group.options.begin(), group.options.end(), is_corrected)) return;
  const tensor::Matrix<float> weights = matrices_.whole(group, expert);
  shares_[&group] = correction_shares(group, weights.view(), hessian, quick,
                                      options_.corrections.weighted, workers(), context_.log);
}

void HessianPacker::apply_shares(TensorGroup& group) const {
  const double left = slow_steps_.of(group);
  for (GroupOption& option : group.options) {
    option.error *= left;
    for (double& error : option.part_errors) error *= left;
  }
  const auto found = shares_.find(&group);
  if (found == shares_.end()) return;
  for (std::size_t i = 0; i < group.options.size(); ++i)
    group.options[i].error *= 1 - found->second[i];
}

void HessianPacker::add_errors(TensorGroup& group, ExpertId expert, PreparedHessian& hessian) {
  const RowSample sample(group);
  if (!sample.has_part(group, expert)) return;
  const tensor::Matrix<float> rows = matrices_.sampled(group, expert, sample);
  if (group.width == 0) {
    add_errors_of(group, expert, rows.view(), hessian);
    return;
  }
  NarrowedChannels narrowed = choose_channels(group, expert, hessian);
  const auto kept =
      compensated(rows.view(), narrowed.choice.kept, narrowed.shares, context_.runner.pool());
  PreparedHessian of_kept = of_channels(hessian, narrowed.choice.kept);
  add_errors_of(group, expert, kept.view(), of_kept);
  group.channels[group.part_of(expert)] =
      std::make_shared<const ChannelChoice>(std::move(narrowed.choice));
}

NarrowedChannels HessianPacker::choose_channels(const TensorGroup& group, ExpertId expert,
                                                const PreparedHessian& hessian) {
  const GroupKey key{group.role, index(group.layer), 1 + index(expert)};
  if (!chooser_ || chooser_->key != key) {
    const std::uint32_t least = narrower_widths(spec_.moe.moe_intermediate_size).back();
    const tensor::Matrix<float> down = matrices_.whole(group, expert);
    PreparedHessian own = own_sums(hessian);
    ChannelChooser chooser(down.view(), own, least, kChannelDamping, workers());
    chooser_.emplace(ExpertChannels{key, std::move(own), std::move(chooser)});
  }
  return chooser_->chooser.choose(group.width, chooser_->own);
}

/// rows: the sampled ones of a matrix that the group has.
void HessianPacker::add_errors_of(TensorGroup& group, ExpertId expert, ConstMatrix rows,
                                  PreparedHessian& hessian) {
  // Sums over tokens: experts that see more of the text count more.
  const double tokens = static_cast<double>(
      std::max<std::uint64_t>(held_out_.tokens != 0 ? held_out_.tokens : calibration_.tokens, 1));
  const double scale = RowSample(group).scale(group) / tokens;
  const HessianQuantizerOptions quick = without_slow_steps(options_.quantizer);
  measure_shares(group, expert, hessian, quick);
  slow_steps_.add(group, rows, hessian, workers());
  std::vector<std::byte> bytes;
  for (GroupOption& option : group.options) {
    context_.log.check_interrupt();
    if (is_stored_as(context_.source, group, *option.codec)) continue;  // next to no error
    bytes.resize(rows.rows * (rows.cols / option.codec->block_size) * option.codec->block_bytes);
    const QuantizerReport report =
        quantize_matrix(rows, *option.codec, hessian, quick, workers(), bytes);
    const double judged = std::max(hessian.judge().tokens(), 1.0);
    const double error = std::max(report.chosen().held_out_loss, 0.0) * judged * scale;
    option.error += error;
    if (!option.part_errors.empty()) option.part_errors[group.part_of(expert)] += error;
  }
  for (NoisePoint& point : group.noise) {
    point.error += std::max(plain_loss(rows, *point.codec, hessian, workers()), 0.0) * scale;
  }
}

std::filesystem::path HessianPacker::costs_path(const TensorGroup& group) const {
  return context_.folder / fmt::format("costs-{}.json", group.file_stem());
}

void HessianPacker::measure(std::vector<TensorGroup>& groups) {
  Groups missing;
  for (TensorGroup& group : groups) {
    if (group.width == 0) {
      group.noise = noise_points(group, context_.source);
    } else if (group.role == Role::kExpertDownProj) {
      group.channels.resize(group.parts);
    } else {
      continue;  // its rows that stay err as they do in the whole matrix
    }
    if (!load_costs(costs_path(group), group, spec_.moe.moe_intermediate_size)) {
      missing.push_back(&group);
    }
  }
  const auto mutable_group = [&](const TensorGroup& group) -> TensorGroup& {
    return groups[static_cast<std::size_t>(&group - groups.data())];
  };
  walk(
      missing, "measuring",
      [&](const TensorGroup& group, ExpertId expert, PreparedHessian& hessian) {
        add_errors(mutable_group(group), expert, hessian);
      },
      [&](std::optional<LayerId> layer) {
        for (const TensorGroup* group : missing) {
          const bool per_layer = model::traits(group->role).per_layer;
          if (per_layer != layer.has_value() || (layer && group->layer != *layer)) continue;
          apply_shares(mutable_group(*group));
          save_costs(costs_path(*group), *group);
          context_.saved();
        }
      });
  chooser_.reset();
}

void HessianPacker::quantize(const PackOrder& order, ExpertId expert, PreparedHessian& hessian,
                             std::span<std::byte> out) {
  const model::TensorRef ref = context_.source.at(order.group->role, order.group->layer, expert);
  const bool changed = transforms_.changes(*order.group);
  if (&ref.codec() == order.codec && !changed) {  // encoding it again could only lose
    context_.source.read_rows(ref, 0, ref.rows, out);
    return;
  }
  if (changed) {
    const tensor::Matrix<float> whole = matrices_.whole(*order.group, expert);
    quantize_rows(whole.view(), *order.codec, hessian, out);
    return;
  }
  const std::size_t row_bytes = ref.cols / order.codec->block_size * order.codec->block_bytes;
  const std::size_t chunk = std::max<std::size_t>(1, kChunkWeights / ref.cols);
  tensor::Matrix<float> weights;
  for (std::size_t row = 0; row < ref.rows; row += chunk) {
    const std::size_t count = std::min(chunk, ref.rows - row);
    weights.reshape(count, ref.cols);
    context_.source.read_floats(ref, row, count, weights.flat());
    quantize_rows(std::as_const(weights).view(), *order.codec, hessian,
                  out.subspan(row * row_bytes, count * row_bytes));
  }
}

/// Gate and up lose rows; down loses columns, for which the others make up.
void HessianPacker::quantize_narrowed(const PackOrder& order, ExpertId expert,
                                      PreparedHessian& hessian, std::span<std::byte> out) {
  const TensorGroup& group = *order.group;
  if (group.role != Role::kExpertDownProj) {
    const tensor::Matrix<float> rows = matrices_.kept_rows(group, expert);
    quantize_rows(rows.view(), *order.codec, hessian, out);
    return;
  }
  const std::vector<std::uint32_t>& kept = group.channels[group.part_of(expert)]->kept;
  const auto shares = compensation(own_sums(hessian).calibration(), kept, kChannelDamping);
  const tensor::Matrix<float> whole = matrices_.whole(group, expert);
  const auto weights = compensated(whole.view(), kept, shares, context_.runner.pool());
  PreparedHessian of_kept = of_channels(hessian, kept);
  quantize_rows(weights.view(), *order.codec, of_kept, out);
}

void HessianPacker::quantize_rows(ConstMatrix weights, const quant::Codec& codec,
                                  PreparedHessian& hessian, std::span<std::byte> out) {
  const std::size_t row_bytes = weights.cols / codec.block_size * codec.block_bytes;
  const std::size_t chunk = std::max<std::size_t>(1, kChunkWeights / weights.cols);
  for (std::size_t row = 0; row < weights.rows; row += chunk) {
    context_.log.check_interrupt();
    const std::size_t count = std::min(chunk, weights.rows - row);
    quantize_matrix(weights.rows_from(row, count), codec, hessian, options_.quantizer, workers(),
                    out.subspan(row * row_bytes, count * row_bytes));
  }
}

void HessianPacker::quantize_part(const PackOrder& order, ExpertId expert, PreparedHessian& hessian,
                                  Packed& packed) {
  const TensorGroup& group = *order.group;
  packed.matrices.resize(packed_bytes(group, *order.codec).value);
  const std::size_t part_bytes = packed.matrices.size() / group.parts;
  const std::span<std::byte> out =
      std::span(packed.matrices).subspan(group.part_of(expert) * part_bytes, part_bytes);
  if (group.width != 0) {
    quantize_narrowed(order, expert, hessian, out);
  } else {
    quantize(order, expert, hessian, out);
  }
  const std::size_t rank = rank_of(group, *order.codec);
  if (rank == 0) return;
  const tensor::Matrix<float> weights = matrices_.whole(group, expert);
  const Correction correction =
      fit_correction(weights.view(), {order.codec, out.data(), group.rows, group.cols}, hessian,
                     rank, options_.corrections.weighted, workers());
  const std::size_t of_part = correction.factors.size();
  packed.factors.resize(of_part * group.parts);
  std::copy(correction.factors.begin(), correction.factors.end(),
            packed.factors.begin() + static_cast<std::ptrdiff_t>(group.part_of(expert) * of_part));
}

void HessianPacker::prepare(std::span<const PackOrder> orders) {
  std::map<const TensorGroup*, std::vector<const quant::Codec*>> wanted;
  Groups groups;
  for (const PackOrder& order : orders) {
    if (cache_.has(*order.group, *order.codec) || is_copy(order)) continue;
    if (matrices_.copies_rows(*order.group, *order.codec)) continue;
    const bool changed = order.group->width != 0 || transforms_.changes(*order.group);
    if (order.codec->is_float() && !changed) continue;
    std::vector<const quant::Codec*>& codecs = wanted[order.group];
    if (codecs.empty()) groups.push_back(order.group);
    if (std::find(codecs.begin(), codecs.end(), order.codec) == codecs.end()) {
      codecs.push_back(order.codec);
    }
  }
  if (options_.sequential) sequence_ = orders;
  std::map<std::pair<const TensorGroup*, const quant::Codec*>, Packed> packed;
  walk(
      groups, "quantising",
      [&](const TensorGroup& group, ExpertId expert, PreparedHessian& hessian) {
        for (const quant::Codec* codec : wanted.at(&group)) {
          quantize_part({&group, codec}, expert, hessian, packed[{&group, codec}]);
        }
      },
      [&](std::optional<LayerId> /*layer*/) {
        for (const auto& [key, group] : packed) {
          if (!group.factors.empty()) cache_.write_factors(*key.first, *key.second, group.factors);
          cache_.write(*key.first, *key.second, group.matrices);
        }
        packed.clear();
        context_.saved();
      });
  sequence_ = {};  // borrowed for the walk alone
}

PackedGroup HessianPacker::pack(const PackOrder& order) {
  if (cache_.has(*order.group, *order.codec)) {
    return cache_.read(*order.group, *order.codec, rank_of(*order.group, *order.codec));
  }
  if (matrices_.copies_rows(*order.group, *order.codec)) return matrices_.copied(*order.group);
  if (is_copy(order)) return matrices_.stored(*order.group);
  return noise(*order.group, {order.codec, 0, 0});  // a float codec, or as it is stored
}

bool HessianPacker::pack_rows(const PackOrder& order, ExpertId expert, std::size_t first,
                              std::span<std::byte> out) {
  const TensorGroup& group = *order.group;
  const std::size_t row_bytes = group.cols / order.codec->block_size * order.codec->block_bytes;
  if (matrices_.copies_rows(group, *order.codec)) {
    matrices_.copy_rows(group, first, out);
    return true;
  }
  if (!cache_.has(group, *order.codec)) return false;
  const std::uint64_t row = std::uint64_t{group.part_of(expert)} * group.rows + first;
  cache_.read_at(group, *order.codec, row * row_bytes, out);
  return true;
}

}  // namespace

std::unique_ptr<GroupPacker> make_hessian_packer(const PackerContext& context,
                                                 const CalibrationText& text,
                                                 const HessianPackerOptions& options) {
  return std::make_unique<HessianPacker>(context, text, options);
}

}  // namespace winnow::compress
