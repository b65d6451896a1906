# SPDX-FileCopyrightText: The Winnow authors
# SPDX-License-Identifier: Apache-2.0
"""Writes tensor_awkward.bin (rows that are all zero, constant, of one sign, tiny, huge, nearly tied; form as of
make_stock_errors.py) and stock_digests.json: of every tensor_<name>.bin and type, the FNV-1a (64 bits) of the bytes
that llama.cpp's own quantiser makes, plain and with the importance. The quantiser is called in the library of the
npm package `@node-llama-cpp/linux-x64` (3.22.1 was used). Run from the root of the repository:

    npm ci --prefix tests/peer && pip install numpy
    python testdata/codecs/make_stock_digests.py tests/peer/node_modules/@node-llama-cpp/linux-x64
"""

import argparse
import ctypes
import json
import pathlib

import numpy as np

# Number of the type, weights and bytes of a block.
TYPES = {"Q8_0": (8, 32, 34), "Q6_K": (14, 256, 210), "Q5_1": (7, 32, 24), "Q5_0": (6, 32, 22),
         "Q5_K": (13, 256, 176), "Q4_1": (3, 32, 20), "Q4_0": (2, 32, 18), "Q4_K": (12, 256, 144),
         "IQ4_NL": (20, 32, 18), "IQ4_XS": (23, 256, 136), "Q3_K": (11, 256, 110), "Q2_K": (10, 256, 84)}
COLUMNS = 768


def awkward_tensor() -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng(20261123)
    rows = 0.1 * random.standard_normal((22, COLUMNS))
    rows[0] = 0
    rows[1], rows[2] = 0.37, -0.37
    rows[3], rows[4] = 0, 0
    rows[3, 17], rows[4, 700] = 1.5, -2
    rows[5] = np.arange(COLUMNS) / COLUMNS
    rows[6] = -rows[5]
    rows[7] = random.integers(-4, 4, COLUMNS)
    rows[8, random.random(COLUMNS) < 0.95] = 0
    rows[9], rows[10] = np.abs(rows[9]), -np.abs(rows[10])
    for row, scale in ((11, 1e-18), (12, 1e3), (13, 1e-6), (14, 1e-10), (15, 1e-30), (16, 1e-41)):
        rows[row] *= scale
    rows[17], rows[18] = 5 + rows[17], 1 + 1e-6 * rows[18]
    rows[19] = np.sign(rows[19])
    rows[20] *= 10.0 ** random.integers(-20, 4, COLUMNS)
    rows[21, ::256] = 1e4
    rows[8, :64] = np.where(random.random(64) < 0.5, 0.0, -0.0)  # the sign of a zero is in the bytes
    importance = np.where(random.random(COLUMNS) < 0.2, 0, random.lognormal(0, 3, COLUMNS))
    return rows, importance


def fnv1a(data: bytes) -> str:
    digest = 0xCBF29CE484222325
    for byte in data:
        digest = ((digest ^ byte) * 0x100000001B3) & 0xFFFFFFFFFFFFFFFF
    return f"{digest:016x}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("package", type=pathlib.Path, help="folder of the npm package")
    library = ctypes.CDLL(str(parser.parse_args().package / "bins" / "linux-x64" / "libggml-base.so"))
    quantize = library.ggml_quantize_chunk
    quantize.restype = ctypes.c_size_t
    quantize.argtypes = [ctypes.c_int, ctypes.c_void_p, ctypes.c_void_p] + [ctypes.c_int64] * 3 + [ctypes.c_void_p]
    folder = pathlib.Path(__file__).parent
    rows, importance = awkward_tensor()
    (folder / "tensor_awkward.bin").write_bytes(importance.astype("<f4").tobytes() + rows.astype("<f4").tobytes())
    report = {}
    for name, columns in (("gaussian", COLUMNS), ("heavy_tailed", COLUMNS), ("grain", 256), ("awkward", COLUMNS)):
        values = np.fromfile(folder / f"tensor_{name}.bin", "<f4").reshape(-1, columns)
        weights = np.ascontiguousarray(values[1:])
        report[name] = {"columns": columns}
        for kind, (number, size, block_bytes) in TYPES.items():
            report[name][kind] = {}
            for way, pointer in (("plain", None), ("weighted", values.ctypes.data)):
                packed = np.zeros(weights.size // size * block_bytes, np.uint8)
                written = quantize(number, weights.ctypes.data, packed.ctypes.data, 0, *weights.shape, pointer)
                assert written == packed.size
                report[name][kind][way] = fnv1a(packed.tobytes())
    text = json.dumps({"library": "@node-llama-cpp/linux-x64 3.22.1", "tensors": report}, indent=1)
    (folder / "stock_digests.json").write_text(text + "\n")


if __name__ == "__main__":
    main()
