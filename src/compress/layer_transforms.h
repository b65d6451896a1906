// SPDX-FileCopyrightText: The Winnow authors
// SPDX-License-Identifier: Apache-2.0
// The exact changes of every layer (layer_transform.h): chosen when a layer is first worked on, and
// kept with the unfinished output, so that all its matrices are packed under the same ones.
#pragma once

#include <filesystem>
#include <map>
#include <span>

#include "base/log.h"
#include "compress/layer_hessians.h"
#include "compress/layer_transform.h"
#include "compress/tensor_group.h"
#include "compress/transform_choice.h"
#include "model/checkpoint.h"

namespace winnow::compress {

struct LayerTransformsOptions {
  TransformWishes wishes;
  HessianQuantizerOptions quantizer;
  LayerHessianOptions hessians;
  /// Each trial packs a matrix in the candidate of its group with about so many bits per weight.
  double bits_per_weight = 4.25;
};

class LayerTransforms {
 public:
  LayerTransforms(const model::Checkpoint& source, std::filesystem::path folder,
                  const LayerTransformsOptions& options)
      : source_(source), folder_(std::move(folder)), options_(options) {}

  /// Whether anything is to be changed at all.
  bool wanted() const { return options_.wishes.any(); }
  /// Chooses the changes of the loaded layer unless that has been done. groups: those of the layer;
  /// text: its inputs. Runs the layer over the text once or twice.
  void choose(engine::LayerRunner& runner, LayerId layer,
              std::span<const TensorGroup* const> groups, const CalibrationStreams& text, Log& log);
  /// Those that were chosen; none where nothing was. Throws Error{kBadData} for a damaged record.
  const LayerTransform& of(LayerId layer);
  /// Whether `apply` changes any matrix of the group, whose values are then not the stored ones.
  bool changes(const TensorGroup& group);
  /// The Hessian of an input as the layer's changes make it.
  PreparedHessian changed(LayerId layer, engine::Site site, ExpertId expert,
                          const PreparedHessian& hessian);
  /// Changes a vector or router [values] as the matrices around it are.
  void edit(model::Role role, LayerId layer, std::span<float> values);

 private:
  std::filesystem::path path_of(LayerId layer) const;

  const model::Checkpoint& source_;
  std::filesystem::path folder_;
  LayerTransformsOptions options_;
  std::map<std::uint32_t, LayerTransform> chosen_;
};

}  // namespace winnow::compress
