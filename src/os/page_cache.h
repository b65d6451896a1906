// SPDX-FileCopyrightText: The Winnow authors
// SPDX-License-Identifier: Apache-2.0
// The system's cache of files: it counts against a limit of memory, and those who keep what they
// read need no second copy.
#pragma once

#include "os/file.h"

namespace winnow::os {

/// From now on reads of this file bring nothing into the page cache that was not asked for.
void stop_read_ahead(const RandomAccessFile& file);

/// Drops what the page cache holds of the file and nobody has mapped. Cheap when that is little.
void drop_from_page_cache(const RandomAccessFile& file);

}  // namespace winnow::os
