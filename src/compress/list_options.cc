// SPDX-FileCopyrightText: The Winnow authors
// SPDX-License-Identifier: Apache-2.0
#include "compress/list_options.h"

#include "base/error.h"
#include "compress/correction.h"
#include "compress/narrowed_groups.h"

namespace winnow::compress {

void list_options(const model::Checkpoint& source, const CompressOptions& options,
                  std::vector<TensorGroup>& groups, Log& log) {
  if (options.experts.narrow && !add_narrowed_groups(source, groups)) {
    log.warn(fmt::format(
        "{}: experts keep their {} inner channels: narrower ones have a multiple of 32, as has the "
        "whole",
        source.file().name(), source.spec().moe.moe_intermediate_size));
  }
  for (TensorGroup& group : groups) {
    for (const quant::Codec* codec : candidate_codecs(source, group)) {
      const bool has_encoder = find_encoder(*codec, options.encoders) != nullptr;
      if (!has_encoder && !is_stored_as(source, group, *codec)) continue;
      GroupOption option;
      option.codec = codec;
      option.rank = correction_rank(options.corrections, source, group, *codec);
      count_bytes(group, option);
      const bool tells_apart = options.experts.any() && model::traits(group.role).per_expert;
      if (tells_apart) option.part_errors.assign(group.parts, 0);
      group.options.push_back(option);
    }
    WINNOW_CHECK(!group.options.empty());
  }
}

}  // namespace winnow::compress
