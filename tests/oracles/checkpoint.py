# SPDX-FileCopyrightText: The Winnow authors
# SPDX-License-Identifier: Apache-2.0
"""Reads a Hugging Face folder (safetensors, single or sharded) with NumPy alone.

Written from the safetensors format description, so that the oracles share no reader with the product:
8 bytes little-endian header length, a JSON header, then the tensors' bytes at header-relative offsets.
"""

import json
import pathlib

import numpy as np

_DTYPES = {"BF16": np.dtype("<u2"), "F16": np.dtype("<f2"), "F32": np.dtype("<f4"),
           "F64": np.dtype("<f8"), "I64": np.dtype("<i8")}


def bf16_to_f32(bits):
    """BF16 bit patterns (uint16) -> the same values in float32; exact."""
    return (bits.astype(np.uint32) << 16).view(np.float32)


class Checkpoint:
    """The tensors of a folder by name. Files are memory-mapped, nothing is read until asked for."""

    def __init__(self, folder):
        self.folder = pathlib.Path(folder)
        self.config = json.loads((self.folder / "config.json").read_text(encoding="utf-8"))
        self._where = {}
        for path in self._shards():
            self._index(path)

    def _shards(self):
        index = self.folder / "model.safetensors.index.json"
        if not index.exists():
            return [self.folder / "model.safetensors"]
        names = json.loads(index.read_text(encoding="utf-8"))["weight_map"].values()
        return [self.folder / name for name in sorted(set(names))]

    def _index(self, path):
        data = np.memmap(path, dtype=np.uint8, mode="r")
        length = int(data[:8].view("<u8")[0])
        header = json.loads(bytes(data[8:8 + length]))
        header.pop("__metadata__", None)
        for name, entry in header.items():
            begin, end = entry["data_offsets"]
            self._where[name] = (data[8 + length + begin:8 + length + end], entry["dtype"], entry["shape"])

    def names(self):
        return sorted(self._where)

    def __contains__(self, name):
        return name in self._where

    def raw(self, name):
        """(values as stored, whether they are BF16 bits in uint16)."""
        data, dtype, shape = self._where[name]
        return np.frombuffer(data.tobytes(), _DTYPES[dtype]).reshape(shape), dtype == "BF16"

    def array(self, name, dtype=np.float64):
        """The tensor's values, exactly, in `dtype`."""
        values, is_bf16 = self.raw(name)
        return (bf16_to_f32(values) if is_bf16 else values).astype(dtype)
