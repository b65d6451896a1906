// SPDX-FileCopyrightText: The Winnow authors
// SPDX-License-Identifier: Apache-2.0
#include "os/page_cache.h"

#include <fcntl.h>

namespace winnow::os {

// Advice: what the system does not take does no harm. A descriptor of -1 is refused as well.
void stop_read_ahead(const RandomAccessFile& file) {
  (void)::posix_fadvise(file.descriptor(), 0, 0, POSIX_FADV_RANDOM);
}

void drop_from_page_cache(const RandomAccessFile& file) {
  (void)::posix_fadvise(file.descriptor(), 0, 0, POSIX_FADV_DONTNEED);
}

}  // namespace winnow::os
