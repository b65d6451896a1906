# SPDX-FileCopyrightText: The Winnow authors
# SPDX-License-Identifier: Apache-2.0
"""What `winnow compress --allocation pmq` weighs experts by, against pmq_numpy.py. Needs WINNOW_BINARY."""

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
from pmq_numpy import Pmq  # noqa: E402

START = 271
# The program runs rounded weights with int8 activations: steps of 1/127 of the largest of 32 values, so errors of about
# 0.6 % of an output beside some 6 % by weights of 4 to 5 bits. A hundredth of the square, and as much for their product,
# which does not cancel wholly over a few hundred values an expert. Measured: at most 1.0 %.
TOLERANCE = 0.03


class Damages(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory(prefix="winnow-test-")
        self.addCleanup(folder.cleanup)
        self.folder = pathlib.Path(folder.name)
        # Characters that the tiny tokenizer never merges: the id of each is its byte. One window is the whole text.
        alphabet = [c for c in range(33, 127) if chr(c) not in "oe"]
        self.text = bytes(np.random.default_rng(5).choice(alphabet, 90).tolist())
        (self.folder / "text.txt").write_bytes(self.text)

    def winnow(self, *arguments):
        subprocess.run([os.environ["WINNOW_BINARY"], *map(str, arguments)], check=True, capture_output=True)

    def record_of(self, model):
        self.winnow("compress", model, "-o", self.folder / "out.gguf", "--data", self.folder / "text.txt", "--bits",
                    4.9, "--allocation", "pmq", "--force", "--report", self.folder)
        return json.loads((self.folder / "compress.json").read_text())

    def rounded(self, model, codec):
        """The model with all matrices rounded plainly, as a folder of float32 weights."""
        out = self.folder / codec
        if not out.exists():
            self.winnow("convert", model, "-o", self.folder / f"{codec}.gguf", "--type", codec)
            self.winnow("convert", self.folder / f"{codec}.gguf", "-o", out, "--type", "F32")
        return out

    def check(self, name):
        model = ROOT / "testdata" / "models" / name
        record = self.record_of(model)
        oracle = Pmq(model, [START, *self.text])
        pmq = record["pmq"]
        self.assertEqual([layer["layer"] for layer in pmq["layers"]], oracle.moe_layers())
        chosen = {(group.get("layer"), group["role"]): group["chosen"] for group in record["groups"]}
        for layer in pmq["layers"]:
            number = layer["layer"]
            np.testing.assert_allclose(layer["frequency"], oracle.frequency(number), atol=1e-12)
            np.testing.assert_allclose(layer["weight"], oracle.weight(number), atol=1e-5)
            damage = 0
            for matrix in ("gate_proj", "up_proj", "down_proj"):
                codec = chosen[number, "expert_" + matrix]
                if codec == "BF16":  # as it is stored
                    continue
                damage += oracle.damage(number, matrix, self.rounded(model, codec), pmq["alpha"], pmq["beta"],
                                        pmq["gamma"])
            self.assertGreater(damage, 0)
            self.assertLess(abs(layer["damage"] - damage), TOLERANCE * damage, (name, number))

    def test_plain(self):
        self.check("qwen3_moe-plain")

    def test_router_weights_that_are_not_renormalised(self):
        self.check("qwen3_moe-not-renormalised")


if __name__ == "__main__":
    unittest.main()
