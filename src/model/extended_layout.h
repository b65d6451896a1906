// SPDX-FileCopyrightText: The Winnow authors
// SPDX-License-Identifier: Apache-2.0
// The extended layout of GGUF files (docs/formats/extended.md): what marks a file that plain
// readers must not run, and the names of the tensors that only such files have.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/units.h"
#include "formats/metadata.h"
#include "formats/model_file.h"
#include "model/roles.h"
#include "model/spec.h"

namespace winnow::model {

/// The newest version that this program reads. A file has the least one that knows what is in it.
inline constexpr std::uint32_t kExtendedVersion = 3;
/// The least version that knows experts that vary.
inline constexpr std::uint32_t kVariedExpertsVersion = 2;
/// The least version that knows experts that use the matrices of others.
inline constexpr std::uint32_t kSharedExpertsVersion = 3;

/// Throws Error{kBadData} when the file says that it needs another reader, or contradicts itself.
/// Plain files pass, and those of other formats than GGUF.
void require_readable_layout(const formats::ModelFile& file);

/// Whether a readable file says that it has the extended layout.
bool is_extended(const formats::ModelFile& file);

/// Marks a file as extended, in this version.
void write_extended_layout(formats::Metadata& metadata, std::uint32_t version);

/// `ModelSpec::varied_experts` of a readable file whose spec is otherwise complete; empty where it
/// does not have them. Throws Error{kBadData} naming the key: keys that contradict each other or
/// the model, fewer experts than a token goes to, kinds and widths that there are not, kinds that
/// the file's version does not have.
std::vector<std::vector<ExpertShape>> read_varied_experts(const formats::ModelFile& file,
                                                          const ModelSpec& spec);
/// Marks a file as extended too, in the least version that knows these experts.
void write_varied_experts(const ModelSpec& spec, formats::Metadata& metadata);

/// The checksums of the file's experts, layer after layer: CRC-32C of the packed bytes of a
/// feed-forward expert's gate, up and down projection, one after the other; 0 for other kinds.
/// Empty where it has none. Throws Error{kBadData} for another number of them.
std::vector<std::uint32_t> read_expert_checksums(const formats::ModelFile& file,
                                                 const ModelSpec& spec);
void write_expert_checksums(std::span<const std::uint32_t> checksums, formats::Metadata& metadata);

/// The factors of a matrix's correction: W + left right.
enum class LowRankSide : std::uint8_t { kLeft, kRight };

/// Matrices that may have a correction: all but the embedding, whose rows are looked up.
bool may_be_corrected(Role role);
/// "blk.3.attn_q.low_rank_left.weight" for the matrix "blk.3.attn_q.weight".
std::string low_rank_name(Role role, LayerId layer, LowRankSide side);
/// Whether a tensor of this name is a factor of some correction.
bool is_low_rank_name(std::string_view name);

}  // namespace winnow::model
