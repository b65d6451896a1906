// SPDX-FileCopyrightText: The Winnow authors
// SPDX-License-Identifier: Apache-2.0
// How fast a file's disk gives random stretches, many at once: the limit of experts that are read.
#pragma once

#include <cstddef>
#include <cstdint>

#include "base/units.h"
#include "os/async_reader.h"
#include "os/file.h"

namespace winnow::os {

/// Bytes per second of reads of `size` bytes each (rounded up to whole blocks) at random places,
/// until `seconds` are over. Takes memory for `options.in_flight` bytes and two reads. 0 for a file
/// that is no longer than one read. Throws as reading does.
double measure_disk_rate(const RandomAccessFile& file, std::size_t size, PageCache page_cache,
                         const ReaderOptions& options, double seconds);

}  // namespace winnow::os
