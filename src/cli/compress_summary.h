// SPDX-FileCopyrightText: The Winnow authors
// SPDX-License-Identifier: Apache-2.0
// What `winnow compress` tells people of its result.
#pragma once

#include "cli/output.h"
#include "compress/compressor.h"

namespace winnow::cli {

void print_compress_summary(Output& out, const compress::CompressResult& result);

}  // namespace winnow::cli
