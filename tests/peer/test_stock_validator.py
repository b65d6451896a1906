# SPDX-FileCopyrightText: The Winnow authors
# SPDX-License-Identifier: Apache-2.0
"""Every block that Winnow writes passes stock llama.cpp's own check of rows (finite scales, codes in range), also those
of experts that no calibration token reached; and a file that is copied gives stock's logits bit for bit. How to run:
README.md here; environment as in test_stock_runtime.py.
"""

import ctypes
import os
import pathlib
import subprocess
import sys
import tempfile
import unittest

import numpy as np

import gguf

HERE = pathlib.Path(__file__).resolve().parent
ROOT = HERE.parent.parent
sys.path.insert(0, str(HERE))
from stock_llama import StockLibrary  # noqa: E402

BINARY = pathlib.Path(os.environ.get("WINNOW_BINARY", ROOT / "build" / "release" / "bin" / "winnow"))
MODEL = pathlib.Path(os.environ.get("WINNOW_MODEL", ROOT / "models" / "grain"))
TYPES = ("F32", "F16", "BF16", "Q8_0", "Q6_K", "Q5_K", "Q5_1", "Q5_0", "Q4_K", "Q4_1", "Q4_0", "IQ4_NL", "IQ4_XS", "MXFP4",
         "Q3_K", "Q2_K", "IQ3_S", "IQ3_XXS", "IQ2_S", "IQ2_XS", "IQ2_XXS")


def winnow(*arguments):
    done = subprocess.run([BINARY, *map(str, arguments), "--quiet"], capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise AssertionError(f"winnow {' '.join(map(str, arguments))}: exit code {done.returncode}\n{done.stderr}")


class StockValidator(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.stock = StockLibrary.from_xllamacpp()
        cls.validate = ctypes.CDLL(str(cls.stock.path)).ggml_validate_row_data
        cls.validate.restype = ctypes.c_bool
        cls.validate.argtypes = (ctypes.c_int32, ctypes.c_void_p, ctypes.c_size_t)
        folder = tempfile.TemporaryDirectory(prefix="winnow-test-")
        cls.addClassCleanup(folder.cleanup)
        cls.folder = pathlib.Path(folder.name)

    def is_valid(self, kind, data):
        data = np.ascontiguousarray(data)
        return self.validate(int(kind), data.ctypes.data, data.nbytes)

    def check(self, path):
        """The types that the file's tensors have."""
        tensors = gguf.GGUFReader(path).tensors
        for tensor in tensors:
            self.assertTrue(self.is_valid(tensor.tensor_type, tensor.data), f"{path.name}: {tensor.name}")
        return {tensor.tensor_type.name for tensor in tensors}

    def test_it_sees_a_scale_that_is_no_number(self):
        block = np.frombuffer(np.float16(0.5).tobytes() + bytes(32), dtype=np.uint8).copy()
        kind = gguf.GGMLQuantizationType.Q8_0
        self.assertTrue(self.is_valid(kind, block))
        block[:2] = np.frombuffer(np.float16("nan").tobytes(), dtype=np.uint8)
        self.assertFalse(self.is_valid(kind, block))

    def test_every_type_by_its_own_encoder(self):
        for kind in TYPES:
            with self.subTest(kind=kind):
                path = self.folder / f"{kind}.gguf"
                winnow("convert", MODEL, "-o", path, "--type", kind)
                self.assertIn(kind, self.check(path))
                path.unlink()

    def test_compressed_files_on_text_that_leaves_experts_without_a_token(self):
        text = self.folder / "brief.txt"
        text.write_text("int main() { return 0; }\n" * 12, encoding="utf-8")
        found = set()
        for bits in ("3.5", "3.9", "4.6"):
            path = self.folder / "compressed.gguf"
            winnow("compress", MODEL, "-o", path, "--bits", bits, "--data", text, "--context", "64", "--force",
                   "--allocation", "plain", "--steps", "scales,feedback,polish,refit,guard")
            found |= self.check(path)
        self.assertGreaterEqual(len(found - {"F32"}), 4, found)

    def test_a_copy_gives_the_logits_of_its_source(self):
        source, copy = self.folder / "source.gguf", self.folder / "copy.gguf"
        winnow("convert", MODEL, "-o", source, "--type", "Q4_K")
        winnow("convert", source, "-o", copy)
        logits = []
        for path in (source, copy):
            with self.stock.open(path) as model:
                logits.append(model.logits(model.tokenize("A copy says what its source says.")))
        np.testing.assert_array_equal(*logits)


if __name__ == "__main__":
    unittest.main()
