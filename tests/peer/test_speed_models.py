# SPDX-FileCopyrightText: The Winnow authors
# SPDX-License-Identifier: Apache-2.0
"""Files of make_speed_model in stock llama.cpp, and the driver that bench/compare.py times it with.

Environment as for test_stock_runtime.py; make_speed_model is beside WINNOW_BINARY.
"""

import json
import os
import pathlib
import subprocess
import sys
import tempfile
import unittest

import numpy as np

HERE = pathlib.Path(__file__).resolve().parent
ROOT = HERE.parent.parent
sys.path.insert(0, str(HERE))
from stock_llama import StockLibrary  # noqa: E402

BINARY = pathlib.Path(os.environ.get("WINNOW_BINARY", ROOT / "build" / "release" / "bin" / "winnow"))
NODE_PACKAGE = pathlib.Path(os.environ.get(
    "WINNOW_STOCK_NODE", HERE / "node_modules" / "@node-llama-cpp" / "linux-x64"))
TYPES = ("F16", "BF16", "Q8_0", "Q6_K", "Q5_K", "Q4_K", "Q4_0", "Q3_K", "Q2_K", "IQ4_NL", "IQ4_XS")


def make(target, *arguments):
    done = subprocess.run([BINARY.parent / "make_speed_model", *arguments, "-o", target],
                          capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise AssertionError(done.stderr)
    return target


class SpeedModels(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.folder = pathlib.Path(folder.name)

    def check_runs(self, stock, path):
        with stock.open(path, context=64) as model:
            ids = model.tokenize("hello world")
            for _ in range(8):
                logits = model.logits(ids)
                ids.append(int(logits[-1].argmax()))
        self.assertTrue(np.isfinite(logits).all())
        # Normalised states times rows of norm 1.
        self.assertAlmostEqual(float(logits.std()), 1, delta=0.2)

    def test_stock_runs_two_layers_of_every_type(self):
        stock = StockLibrary.from_xllamacpp()
        for kind in TYPES:
            with self.subTest(type=kind):
                self.check_runs(stock, make(self.folder / "m.gguf", "--shape", "tiny", "--type", kind))

    def test_stock_runs_a_dense_shape(self):
        path = make(self.folder / "m.gguf", "--shape", "tiny-dense", "--type", "Q4_0")
        self.check_runs(StockLibrary.from_xllamacpp(), path)

    def test_the_driver_of_compare_times_it(self):
        path = make(self.folder / "m.gguf", "--shape", "tiny", "--type", "Q4_0")
        done = subprocess.run([sys.executable, "-B", ROOT / "bench" / "llama_worker.py", "stock", NODE_PACKAGE,
                               path, "20", "4", "1"], capture_output=True, text=True, check=False)
        self.assertEqual(done.returncode, 0, done.stderr)
        sample = json.loads(done.stdout)
        self.assertGreater(sample["prefill"], 0)
        self.assertGreater(sample["decode"], 0)
        self.assertIn("AVX", sample["features"])


if __name__ == "__main__":
    unittest.main(verbosity=2)
