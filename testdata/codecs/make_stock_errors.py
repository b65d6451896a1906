# SPDX-FileCopyrightText: The Winnow authors
# SPDX-License-Identifier: Apache-2.0
"""Writes three seeded tensors (tensor_<name>.bin: `columns` importances, then rows of weights, all
little-endian f32) and stock_errors.json: the squared errors that llama.cpp's own quantisers leave
on them, plain and with the importance (then weighted with it). The quantisers are called in the
library inside the PyPI package `xllamacpp` (2026.10.11549 was used). Run from the root of the
repository:

    pip install gguf==0.19.0 numpy xllamacpp==2026.10.11549
    python testdata/codecs/make_stock_errors.py models/grain
"""

import argparse
import ctypes
import importlib.metadata
import importlib.util
import json
import pathlib
import struct

import numpy as np
from gguf import GGMLQuantizationType, GGML_QUANT_SIZES, quants

from make_golden import HALF_FIELDS

TYPES = [name for name in HALF_FIELDS if name not in ("F32", "F16", "BF16")]
# These refuse to run without an importance matrix; equal importances are their "plain".
NEED_IMPORTANCE = ("IQ2_XXS", "IQ2_XS")


def load_quantizer():
    """ggml_quantize_chunk(type, src, dst, start, rows, columns, importance) -> bytes written."""
    package = pathlib.Path(importlib.util.find_spec("xllamacpp").origin).parent
    library = ctypes.CDLL(str(next(package.glob("xllamacpp*.so"))))
    function = library.ggml_quantize_chunk
    function.restype = ctypes.c_size_t
    function.argtypes = [ctypes.c_int, ctypes.c_void_p, ctypes.c_void_p] + [ctypes.c_int64] * 3 + [ctypes.c_void_p]
    return function


def read_bf16(model: pathlib.Path, name: str) -> np.ndarray:
    with open(model / "model.safetensors", "rb") as file:
        header = json.loads(file.read(struct.unpack("<Q", file.read(8))[0]))
        begin, end = header[name]["data_offsets"]
        file.seek(begin, 1)
        raw = np.frombuffer(file.read(end - begin), "<u2").astype(np.uint32) << 16
    return raw.view(np.float32).reshape(header[name]["shape"])


def make_tensors(model: pathlib.Path):
    random = np.random.default_rng(20261122)
    gaussian = 0.02 * random.standard_normal((32, 768))
    heavy = 0.02 * random.standard_t(4, (32, 768))
    embedding = read_bf16(model, "model.embed_tokens.weight")
    experts = [read_bf16(model, f"model.layers.3.mlp.experts.{e}.gate_proj.weight")[:16] for e in (0, 7, 19)]
    real = np.concatenate(experts + [embedding[1000:1048]])
    # Mean square of the normalised embedding: what the first layer's inputs look like.
    unit = embedding / np.sqrt(np.mean(embedding**2, axis=1, keepdims=True) + 1e-6)
    return {
        "gaussian": (gaussian, random.lognormal(0, 1, 768)),
        "heavy_tailed": (heavy, random.chisquare(1, 768)),
        "grain": (real, np.mean(unit**2, axis=0)),
    }


def squared_error(quantize, name: str, x: np.ndarray, importance: np.ndarray | None) -> float:
    kind = GGMLQuantizationType[name]
    block_size, block_bytes = GGML_QUANT_SIZES[kind]
    packed = np.zeros(x.size // block_size * block_bytes, np.uint8)
    if importance is None and name in NEED_IMPORTANCE:
        importance = np.ones(x.shape[1], np.float32)
    pointer = None if importance is None else importance.ctypes.data
    written = quantize(int(kind), x.ctypes.data, packed.ctypes.data, 0, x.shape[0], x.shape[1], pointer)
    assert written == packed.size
    decoded = quants.dequantize(packed, kind).reshape(x.shape)
    weight = 1.0 if importance is None else importance.astype(np.float64)
    return float(np.sum(weight * (x.astype(np.float64) - decoded) ** 2))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=pathlib.Path, help="folder of the bundled model")
    folder = pathlib.Path(__file__).parent
    quantize = load_quantizer()
    report = {"library": f"xllamacpp {importlib.metadata.version('xllamacpp')}", "tensors": {}}
    for name, (weights, importance) in make_tensors(parser.parse_args().model).items():
        x = np.ascontiguousarray(weights, "<f4")
        w = np.ascontiguousarray(importance, "<f4")
        (folder / f"tensor_{name}.bin").write_bytes(w.tobytes() + x.tobytes())
        report["tensors"][name] = {
            "rows": x.shape[0],
            "columns": x.shape[1],
            "plain": {t: squared_error(quantize, t, x, None) for t in TYPES},
            "weighted": {t: squared_error(quantize, t, x, w) for t in TYPES},
        }
    (folder / "stock_errors.json").write_text(json.dumps(report, indent=1) + "\n")


if __name__ == "__main__":
    main()
