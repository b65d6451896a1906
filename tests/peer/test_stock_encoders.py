# SPDX-FileCopyrightText: The Winnow authors
# SPDX-License-Identifier: Apache-2.0
"""The encoders of `winnow compress --method stock` give the bytes of stock llama.cpp's quantiser: on random tensors,
on every tensor of files that it wrote itself, and through the command with an importance matrix. All comparisons are
of bytes, none may differ. How to run: README.md here; environment as in test_stock_runtime.py.
"""

import os
import pathlib
import struct
import subprocess
import sys
import tempfile
import unittest

import numpy as np

import gguf
from gguf import GGML_QUANT_SIZES, GGMLQuantizationType as Kind

HERE = pathlib.Path(__file__).resolve().parent
ROOT = HERE.parent.parent
sys.path.insert(0, str(HERE))
from stock_llama import StockLibrary  # noqa: E402

BINARY = pathlib.Path(os.environ.get("WINNOW_BINARY", ROOT / "build" / "release" / "bin" / "winnow"))
MODEL = pathlib.Path(os.environ.get("WINNOW_MODEL", ROOT / "models" / "grain"))
NODE_PACKAGE = pathlib.Path(os.environ.get(
    "WINNOW_STOCK_NODE", HERE / "node_modules" / "@node-llama-cpp" / "linux-x64"))
KINDS = (Kind.Q4_K, Kind.Q3_K, Kind.IQ4_XS, Kind.Q5_K, Kind.Q6_K, Kind.Q2_K, Kind.Q4_0, Kind.Q4_1, Kind.Q5_0,
         Kind.Q5_1, Kind.Q8_0, Kind.IQ4_NL)
FLOATS = (Kind.F32, Kind.F16, Kind.BF16)
COLUMNS = 1024


def random_tensors(seed):
    """(name, weights [rows, COLUMNS], importance [COLUMNS]) of different distributions."""
    random = np.random.default_rng(seed)
    shape = (64, COLUMNS)
    yield "normal", 0.02 * random.standard_normal(shape), random.lognormal(0, 1, COLUMNS)
    heavy = 0.02 * random.standard_t(2, shape)
    heavy[random.random(shape) < 0.001] *= 100
    yield "heavy-tailed with outliers", heavy, random.chisquare(1, COLUMNS)
    yield "integers", random.integers(-8, 8, shape), random.integers(0, 3, COLUMNS)
    yield "of one sign", 1 + 0.1 * random.random(shape), random.random(COLUMNS)
    yield "sizes from 1e-20 to 1e4", random.standard_normal(shape) * 10.0 ** random.integers(-20, 4, shape), \
        10.0 ** random.integers(-20, 10, COLUMNS)
    odd = 0.1 * random.standard_normal(shape)
    odd[0], odd[1], odd[2] = 0, 0.37, -0.37
    odd[3], odd[4] = 0, 0
    odd[3, 17], odd[4, -1] = 1.5, -2
    odd[5] = np.arange(COLUMNS) / COLUMNS
    odd[6:20, :] *= (random.random((14, COLUMNS)) < 0.05)
    odd[20:40] *= 10.0 ** random.integers(-44, 4, (20, 1))
    odd[40] = np.sign(odd[40])
    odd[41:] = 1 + 1e-6 * random.standard_normal(odd[41:].shape)
    yield "zeros, constants, single values", odd, np.where(random.random(COLUMNS) < 0.2, 0, random.lognormal(
        0, 3, COLUMNS))
    yield "the same, no input ever", odd, np.zeros(COLUMNS)


def winnow(*arguments):
    subprocess.run([str(BINARY), *map(str, arguments), "--quiet"], check=True, capture_output=True)


def read_importance(path):
    """{tensor name: float32 values} of an importance matrix in the binary form, as stock's quantiser takes them."""
    data = pathlib.Path(path).read_bytes()
    entries, at, values = struct.unpack_from("<i", data)[0], 4, {}
    for _ in range(entries):
        length, = struct.unpack_from("<i", data, at)
        name = data[at + 4:at + 4 + length].decode()
        chunks, count = struct.unpack_from("<2i", data, at + 4 + length)
        at += 12 + length
        values[name] = np.frombuffer(data, "<f4", count, at) / np.float32(max(chunks, 1))
        at += 4 * count
    return values


def per_matrix(tensor, importance):
    """[(rows [rows, columns], importance [columns] or None)] of the matrices in a tensor of floats."""
    matrices = tensor.reshape(-1, *tensor.shape[-2:])
    rows = [None] * len(matrices) if importance is None else importance.reshape(len(matrices), -1)
    return list(zip(matrices, rows, strict=True))


class StockEncoders(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        folder = tempfile.TemporaryDirectory(prefix="winnow-peer-")
        cls.addClassCleanup(folder.cleanup)
        cls.folder = pathlib.Path(folder.name)
        cls.library = StockLibrary.from_node_package(NODE_PACKAGE)
        cls.source = cls.folder / "source.gguf"
        winnow("convert", MODEL, "-o", cls.source, "--type", "F32")
        cls.floats = {tensor.name: tensor.data for tensor in gguf.GGUFReader(cls.source).tensors}
        cls.imatrix = cls.folder / "importance.dat"
        text = cls.folder / "text.txt"
        text.write_bytes((MODEL / "data" / "calib" / "cpp.txt").read_bytes()[:24000])
        winnow("profile", MODEL, "--data", text, "-o", cls.folder / "stats", "--imatrix", cls.imatrix)
        cls.importance = read_importance(cls.imatrix)

    def ours(self, kind, matrices):
        """The blocks of matrices of equal shape."""
        arguments = [BINARY.parent / "stock_encode", kind.name, str(matrices[0][0].shape[1])]
        if matrices[0][1] is not None:
            path = self.folder / "importance.bin"
            path.write_bytes(np.stack([importance for _, importance in matrices]).astype("<f4").tobytes())
            arguments.append(path)
        rows = np.stack([rows for rows, _ in matrices]).astype("<f4")
        done = subprocess.run(list(map(str, arguments)), input=rows.tobytes(), check=True, capture_output=True)
        return np.frombuffer(done.stdout, np.uint8)

    def stocks(self, kind, matrices):
        return np.concatenate([self.library.quantize_rows(int(kind), rows, GGML_QUANT_SIZES[kind], importance)
                               for rows, importance in matrices])

    def compare(self, kind, ours, stocks):
        """Blocks that were compared; a failure when one differs."""
        size = GGML_QUANT_SIZES[kind][1]
        self.assertEqual(ours.size, stocks.size)
        different = (ours != stocks).reshape(-1, size).any(axis=1)
        self.assertEqual(int(different.sum()), 0, f"of {different.size} blocks; the first is "
                                                  f"{int(different.argmax())}")
        return different.size

    def test_random_tensors(self):
        for kind in KINDS:
            blocks = 0
            for name, weights, importance in random_tensors(int(kind)):
                for given in (None, importance):
                    with self.subTest(type=kind.name, weights=name, importance=given is not None):
                        matrices = [(np.float32(weights), None if given is None else np.float32(given))]
                        blocks += self.compare(kind, self.ours(kind, matrices), self.stocks(kind, matrices))
            print(f"{kind.name}: {blocks} blocks of random tensors are equal")

    def test_every_quantised_tensor_of_files_that_stock_wrote(self):
        seen = {}
        for file_type in ("Q4_K_M", "Q3_K_M", "IQ4_XS", "Q2_K"):
            for values in (None, self.importance):
                path = self.folder / "stock.gguf"
                self.library.quantize(self.source, path, file_type, threads=2, importance=values)
                for tensor in gguf.GGUFReader(path).tensors:
                    if tensor.tensor_type in FLOATS:
                        continue
                    importance = None if values is None else values.get(tensor.name)
                    with self.subTest(file=file_type, tensor=tensor.name, importance=importance is not None):
                        ours = self.ours(tensor.tensor_type, per_matrix(self.floats[tensor.name], importance))
                        blocks = self.compare(tensor.tensor_type, ours, tensor.data.ravel())
                    key = (tensor.tensor_type.name, importance is not None)
                    seen[key] = seen.get(key, 0) + blocks
        print(f"blocks of stock's files that are equal, with importance and without: {seen}")
        self.assertLessEqual({(kind, given) for kind in ("Q4_K", "Q3_K", "IQ4_XS", "Q2_K", "IQ4_NL")
                              for given in (False, True)}, set(seen))

    def test_the_command_with_stocks_importance_matrix(self):
        seen = {}
        for number, bits in enumerate((4.0, 5.4)):
            out = self.folder / f"out-{number}.gguf"
            winnow("compress", self.source, "-o", out, "--method", "stock", "--bits", bits, "--statistics",
                   self.imatrix)
            for tensor in gguf.GGUFReader(out).tensors:
                kind = tensor.tensor_type
                if kind in FLOATS:
                    continue
                self.assertIn(kind, KINDS)
                with self.subTest(bits=bits, tensor=tensor.name, type=kind.name):
                    matrices = per_matrix(self.floats[tensor.name], self.importance.get(tensor.name))
                    blocks = self.compare(kind, tensor.data.ravel(), self.stocks(kind, matrices))
                seen[kind.name] = seen.get(kind.name, 0) + blocks
        print(f"blocks of compressed files that are equal: {seen}")
        self.assertGreaterEqual(len(seen), 4)


if __name__ == "__main__":
    unittest.main(verbosity=2)
