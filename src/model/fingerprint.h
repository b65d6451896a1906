// SPDX-FileCopyrightText: The Winnow authors
// SPDX-License-Identifier: Apache-2.0
// A short name for a model's content, to record where an output came from and to notice that a
// model was changed between two steps. Not a checksum: it reads little of the payload.
#pragma once

#include <cstdint>
#include <string>

#include "formats/model_file.h"

namespace winnow::model {

/// FNV-1a (64 bits) over, in file order, each tensor's name, type, shape and the first 256 bytes of
/// its payload, then the texts of config.json and tokenizer.json where the format has them.
/// Independent of the path, the number of files and GGUF metadata. Throws as reading does.
std::uint64_t fingerprint(const formats::ModelFile& file);

/// "grain:0123456789abcdef": the last component of the path and the fingerprint.
std::string describe_source(const formats::ModelFile& file);

/// The last component of a path, resolved: "grain" for "models/grain/" and for "." inside it.
std::string path_label(const std::string& path);

}  // namespace winnow::model
