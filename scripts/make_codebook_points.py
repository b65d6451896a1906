# SPDX-FileCopyrightText: The Winnow authors
# SPDX-License-Identifier: Apache-2.0
"""Writes src/quant/codebook_points.inl: the points of the IQ2 and IQ3 codebooks, which are part of
the GGUF format, as the PyPI package `gguf` (0.19.0 was used) has them. Run from the root of the
repository:

    pip install gguf==0.19.0 numpy && python scripts/make_codebook_points.py
"""

import pathlib

import numpy as np
from gguf import quants

TYPES = ("IQ2_XXS", "IQ2_XS", "IQ2_S", "IQ3_XXS", "IQ3_S")
WORDS_PER_LINE = 12
HEAD = """\
// SPDX-FileCopyrightText: The Winnow authors
// SPDX-License-Identifier: Apache-2.0
// Written by scripts/make_codebook_points.py; do not edit. One word per point of a codebook: the
// index of its i-th magnitude in bits [2 i, 2 i + 2) (IQ2, groups of 8 weights) or
// [3 i, 3 i + 3) (IQ3, groups of 4).
#pragma once

#include <array>
#include <cstdint>

// clang-format off
namespace winnow::quant {
"""


def words_of(kind) -> list[int]:
    kind.init_grid()
    magnitudes = list(kind.grid_map)
    bits = 2 if len(magnitudes) == 3 else 3
    points = kind.grid.reshape(kind.grid_shape).astype(np.int64)
    return [sum(magnitudes.index(value) << (bits * i) for i, value in enumerate(point)) for point in points]


def main() -> None:
    text = HEAD
    for name in TYPES:
        kind = getattr(quants, name)
        words = [f"0x{word:04x}" for word in words_of(kind)]
        camel = "".join(part.capitalize() for part in name.split("_"))
        text += f"\ninline constexpr std::array<std::int8_t, {len(kind.grid_map)}> k{camel}Magnitudes = {{\n"
        text += "    " + ", ".join(str(value) for value in kind.grid_map) + "};\n"
        text += f"inline constexpr std::array<std::uint16_t, {len(words)}> k{camel}Points = {{\n"
        for start in range(0, len(words), WORDS_PER_LINE):
            text += "    " + ", ".join(words[start : start + WORDS_PER_LINE]) + ",\n"
        text += "};\n"
    text += "\n}  // namespace winnow::quant\n// clang-format on\n"
    path = pathlib.Path(__file__).resolve().parent.parent / "src" / "quant" / "codebook_points.inl"
    path.write_text(text)


if __name__ == "__main__":
    main()
