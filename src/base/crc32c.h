// SPDX-FileCopyrightText: The Winnow authors
// SPDX-License-Identifier: Apache-2.0
// CRC-32C (Castagnoli's polynomial, as in iSCSI, RFC 3720 section 12.1): what tells a damaged
// expert of a file.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

namespace winnow {

/// Of `bytes`, or of what `before` is the checksum of with `bytes` behind it.
std::uint32_t crc32c(std::span<const std::byte> bytes, std::uint32_t before = 0);

/// The same, slower, on any processor.
std::uint32_t crc32c_portable(std::span<const std::byte> bytes, std::uint32_t before = 0);

}  // namespace winnow
