# SPDX-FileCopyrightText: The Winnow authors
# SPDX-License-Identifier: Apache-2.0
"""Writes <name>.bin for every codec: packed blocks of random bytes, then the f32 values that the
PyPI package `gguf` (0.19.0 was used) decodes them to. Little-endian, no header: the number of blocks
follows from the file's size. Run from the root of the repository:

    pip install gguf==0.19.0 numpy && python testdata/codecs/make_golden.py
"""

import pathlib
import random
import struct

import numpy as np
from gguf import GGMLQuantizationType, GGML_QUANT_SIZES, quants

# Byte offsets of the f16 fields of a block.
HALF_FIELDS = {
    "F32": [], "F16": [0], "BF16": [], "Q8_0": [0], "Q4_0": [0], "Q4_1": [0, 2], "Q5_0": [0],
    "Q5_1": [0, 2], "Q2_K": [80, 82], "Q3_K": [108], "Q4_K": [0, 2], "Q5_K": [0, 2], "Q6_K": [208],
    "IQ4_NL": [0], "IQ4_XS": [0], "MXFP4": [], "IQ3_S": [0], "IQ3_XXS": [0], "IQ2_S": [0],
    "IQ2_XS": [0], "IQ2_XXS": [0],
}
# Those of a power-of-two exponent that is a byte; both ends give subnormals and infinities.
EXPONENT_FIELDS = {"MXFP4": [0]}
EXPONENTS = [0, 1, 2, 126, 127, 128, 251, 252, 253, 254, 255]
# Zeros, subnormals, one, the largest, infinity, NaN, and negative ones.
HALF_BITS = [0x0000, 0x8000, 0x0001, 0x83FF, 0x3C00, 0x7BFF, 0x7C00, 0xFC00, 0x7E00, 0xB555]
# Where the point of a group is in a block: (byte of its lower 8 bits, by group), (byte, shift) of the
# bits above, their width. Blocks in which all points occur are added to the random ones.
POINT_FIELDS = {
    "IQ3_S": (64, lambda g: 2 + g, lambda g: (66 + g // 8, g % 8), 1),
    "IQ3_XXS": (64, lambda g: 2 + g, None, 0),
    "IQ2_S": (32, lambda g: 2 + g, lambda g: (66 + g // 4, 2 * (g % 4)), 2),
    "IQ2_XS": (32, lambda g: 2 + 2 * g, lambda g: (3 + 2 * g, 0), 1),
    "IQ2_XXS": (32, lambda g: 2 + 8 * (g // 4) + g % 4, None, 0),
}


def set_points(name: str, blocks: list[bytearray]) -> None:
    """Block after block, group after group: points 0, 1, 2, ..."""
    groups, low, high, width = POINT_FIELDS[name]
    for i in range(len(blocks) * groups):
        block, group = blocks[i // groups], i % groups
        point = i % 2 ** (8 + width)
        block[low(group)] = point & 255
        if width:
            byte, shift = high(group)
            mask = (2**width - 1) << shift
            block[byte] = (block[byte] & ~mask) | ((point >> 8) << shift)


def make_blocks(name: str) -> bytes:
    block_size, block_bytes = GGML_QUANT_SIZES[GGMLQuantizationType[name]]
    source = random.Random(f"winnow golden {name}")
    count = max(len(HALF_BITS) + 2, 2048 // block_size) + 4
    blocks = [bytearray(source.randbytes(block_bytes)) for _ in range(count)]
    if name in POINT_FIELDS:
        groups, _, _, width = POINT_FIELDS[name]
        ordered = [bytearray(source.randbytes(block_bytes)) for _ in range(2 ** (8 + width) // groups)]
        set_points(name, ordered)
        blocks[-2:-2] = ordered
    for block, bits in zip(blocks, HALF_BITS):
        for field in HALF_FIELDS[name]:
            block[field : field + 2] = struct.pack("<H", bits)
    for block, exponent in zip(blocks, EXPONENTS):
        for field in EXPONENT_FIELDS.get(name, []):
            block[field] = exponent
    # Ordinary scales for the rest, so that most values are finite and of ordinary size.
    for block in blocks[len(HALF_BITS) : -2]:
        for field in HALF_FIELDS[name]:
            half = np.float16(source.uniform(-0.1, 0.1))
            block[field : field + 2] = half.tobytes()
    return b"".join(blocks)


def main() -> None:
    folder = pathlib.Path(__file__).parent
    for name in HALF_FIELDS:
        packed = make_blocks(name)
        with np.errstate(all="ignore"):
            values = quants.dequantize(np.frombuffer(packed, np.uint8), GGMLQuantizationType[name])
        values = np.ascontiguousarray(values, dtype="<f4").reshape(-1)
        (folder / f"{name}.bin").write_bytes(packed + values.tobytes())


if __name__ == "__main__":
    main()
