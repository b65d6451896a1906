# SPDX-FileCopyrightText: The Winnow authors
# SPDX-License-Identifier: Apache-2.0
"""bench/split_experts.py: the model it makes is the original's function, with every expert twice.

Environment: WINNOW_BINARY, the program (default: build/release/bin/winnow).
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
sys.path[:0] = [str(ROOT / "bench"), str(ROOT / "tests" / "oracles")]
import split_experts  # noqa: E402
from checkpoint import Checkpoint, bf16_to_f32  # noqa: E402

BINARY = os.environ.get("WINNOW_BINARY", str(ROOT / "build" / "release" / "bin" / "winnow"))
MODELS = ROOT / "testdata" / "models"
EXPERT = "model.layers.{}.mlp.experts.{}.{}.weight"


class SplitExperts(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.folder = pathlib.Path(folder.name)
        self.data = self.folder / "text.txt"
        self.data.write_text("The model of a model reads a model.\n" * 12, encoding="utf-8")

    def split(self, source, *options, name="split"):
        out = self.folder / name
        self.assertEqual(split_experts.main([str(MODELS / source), str(out), *map(str, options)]), 0)
        return out

    def divergence(self, model, source):
        done = subprocess.run([BINARY, "eval", model, "--data", self.data, "--reference", MODELS / source, "--context",
                               "64", "--json", "-", "--quiet"], capture_output=True, text=True, check=True)
        return json.loads(done.stdout)["kl_divergence"]

    def test_without_noise_nothing_changes_but_the_last_digits_of_sums(self):
        for source in ("qwen3_moe-plain", "qwen3_moe-not-renormalised", "qwen3_moe-sparse-step-2", "olmoe-plain"):
            with self.subTest(source):
                out = self.split(source, "--noise", 0, "--router-noise", 0, name=source)
                # Sums of float32 in another order: relative 1e-6 of logits near 3, and KL is their square.
                self.assertLess(self.divergence(out, source), 1e-9)

    def test_little_noise_is_a_small_divergence_that_grows_with_it(self):
        few, many = (self.divergence(self.split("qwen3_moe-plain", "--noise", noise, name=str(noise)),
                                     "qwen3_moe-plain") for noise in (0.01, 0.1))
        self.assertGreater(few, 0)
        self.assertGreater(many, 5 * few)
        self.assertLess(many, 0.05)

    def test_both_copies_have_noise_of_their_own_and_of_the_size_that_was_asked_for(self):
        old, out = Checkpoint(MODELS / "qwen3_moe-plain"), self.split("qwen3_moe-plain", "--noise", 0.25)
        new = Checkpoint(out)
        origins = json.loads((out / "split_experts.json").read_text(encoding="utf-8"))["origins"]
        for layer, experts in origins.items():
            self.assertEqual(sorted(experts), sorted(2 * list(range(8))))
            self.assertNotEqual(experts, sorted(experts))
            errors = {}
            for place, original in enumerate(experts):
                for matrix in split_experts.MATRICES:
                    before = old.array(EXPERT.format(layer, original, matrix))
                    error = (new.array(EXPERT.format(layer, place, matrix)) - before) / before.std()
                    self.assertAlmostEqual(error.std(), 0.25, delta=0.04)  # 1024 values: 8 standard errors
                    errors.setdefault((original, matrix), []).append(error.ravel())
            for first, second in errors.values():
                self.assertLess(abs(np.corrcoef(first, second)[0, 1]), 0.2)  # 6 standard errors
        self.assertNotEqual(origins["0"], origins["1"])
        self.assertEqual(new.config["num_experts"], 16)
        self.assertEqual(new.config["num_experts_per_tok"], 4)

    def test_everything_else_is_copied_bit_for_bit(self):
        old, new = Checkpoint(MODELS / "qwen3_moe-plain"), Checkpoint(self.split("qwen3_moe-plain"))
        for name in old.names():
            if ".mlp." not in name:
                self.assertEqual(old.raw(name)[0].tobytes(), new.raw(name)[0].tobytes(), name)

    def test_the_seed_decides_and_equal_seeds_give_equal_bytes(self):
        files = [self.split("qwen3_moe-plain", "--seed", seed, name=name) / "model.safetensors"
                 for seed, name in ((1, "a"), (1, "b"), (2, "c"))]
        first, again, other = (path.read_bytes() for path in files)
        self.assertEqual(first, again)
        self.assertNotEqual(first, other)

    def test_rounding_is_to_the_nearest_with_ties_to_even(self):
        values = np.array([1.0, 1 + 2**-8, 1 + 3 * 2**-8, 1 + 2**-8 + 2**-20, -3.1415927], np.float32)
        self.assertEqual(list(bf16_to_f32(split_experts.f32_to_bf16(values))),
                         [1.0, 1.0, 1 + 2**-6, 1 + 2**-7, -3.140625])

    def test_models_that_cannot_be_split_are_refused_and_leave_nothing(self):
        for source in ("qwen3-plain", "qwen3_moe-fused-experts"):
            self.assertEqual(split_experts.main([str(MODELS / source), str(self.folder / "out")]), 2)
        self.assertFalse((self.folder / "out").exists())


if __name__ == "__main__":
    unittest.main()
