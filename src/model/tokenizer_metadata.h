// SPDX-FileCopyrightText: The Winnow authors
// SPDX-License-Identifier: Apache-2.0
// The tokenizer as GGUF metadata keys ("tokenizer.ggml.*"), in both directions.
#pragma once

#include "formats/metadata.h"
#include "text/tokenizer.h"

namespace winnow::model {

/// Throws Error{kBadData} that names the key: missing, of the wrong type, or arrays whose lengths
/// differ.
text::TokenizerSpec read_tokenizer_metadata(const formats::Metadata& metadata);
void write_tokenizer_metadata(const text::TokenizerSpec& spec, formats::Metadata& metadata);

}  // namespace winnow::model
