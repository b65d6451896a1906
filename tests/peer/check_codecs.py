# SPDX-FileCopyrightText: The Winnow authors
# SPDX-License-Identifier: Apache-2.0
"""Checks the golden decodes in testdata/codecs against two living decoders: the PyPI package `gguf`
and llama.cpp's own C code (in the PyPI package `xllamacpp`). The unit tests compare our decoders
with the same files, so the three agree bit for bit (NaN as NaN). Exit code 1 on a difference.

    pip install gguf numpy xllamacpp && python tests/peer/check_codecs.py
"""

import argparse
import ctypes
import importlib.util
import pathlib
import sys

import numpy as np
from gguf import GGMLQuantizationType, GGML_QUANT_SIZES, quants


def load_library() -> ctypes.CDLL:
    package = pathlib.Path(importlib.util.find_spec("xllamacpp").origin).parent
    return ctypes.CDLL(str(next(package.glob("xllamacpp*.so"))))


def decode_with_llama_cpp(library: ctypes.CDLL, name: str, packed: np.ndarray, count: int) -> np.ndarray | None:
    function = name.lower().replace("_k", "_K")
    if not hasattr(library, f"dequantize_row_{function}"):
        return None  # the float types have no such function
    decode = getattr(library, f"dequantize_row_{function}")
    decode.restype = None
    decode.argtypes = [ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int64]
    out = np.empty(count, np.float32)
    decode(packed.ctypes.data, out.ctypes.data, count)
    return out


def same_bits(a: np.ndarray, b: np.ndarray) -> bool:
    both_nan = np.isnan(a) & np.isnan(b)
    return bool(np.all((a.view(np.uint32) == b.view(np.uint32)) | both_nan))


def main() -> int:
    root = pathlib.Path(__file__).resolve().parents[2]
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--golden", type=pathlib.Path, default=root / "testdata" / "codecs")
    folder = parser.parse_args().golden
    library = load_library()
    failures = 0
    for kind in GGMLQuantizationType:
        path = folder / f"{kind.name}.bin"
        if not path.exists():
            continue
        block_size, block_bytes = GGML_QUANT_SIZES[kind]
        data = np.fromfile(path, np.uint8)
        blocks = data.size // (block_bytes + 4 * block_size)
        packed = data[: blocks * block_bytes].copy()
        golden = data[blocks * block_bytes :].copy().view("<f4")
        with np.errstate(all="ignore"):
            live = np.ascontiguousarray(quants.dequantize(packed, kind), np.float32).reshape(-1)
        stock = decode_with_llama_cpp(library, kind.name, packed, golden.size)
        verdicts = {"gguf": same_bits(live, golden)}
        if stock is not None:
            verdicts["llama.cpp"] = same_bits(stock, golden)
        failures += sum(not agrees for agrees in verdicts.values())
        words = ", ".join(f"{who} {'agrees' if agrees else 'DIFFERS'}" for who, agrees in verdicts.items())
        print(f"{kind.name:8} {blocks:5} blocks: {words}")
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
