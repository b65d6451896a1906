# SPDX-FileCopyrightText: The Winnow authors
# SPDX-License-Identifier: Apache-2.0
"""The master test of leaving experts out: a model without them is the original with their router logits at minus
infinity. What `winnow compress --recipe` writes, with its weights as they are, against the NumPy forward passes.

Needs WINNOW_BINARY, the program.
"""

import json
import os
import pathlib
import subprocess
import sys
import tempfile
import unittest

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # the matrices are too small to share out
import numpy as np  # noqa: E402

HERE = pathlib.Path(__file__).resolve().parent
ROOT = pathlib.Path(os.environ.get("WINNOW_SOURCE_DIR", HERE.parent.parent))
sys.path.insert(0, str(HERE))
from forward import open_oracle  # noqa: E402
from qwen3_moe_numpy import is_moe_layer, softmax  # noqa: E402

START = 271
# All of 16 bits: of an F32 source compress would round what loses next to nothing by it.
MODELS = ("qwen3_moe-plain", "qwen3_moe-not-renormalised", "qwen3_moe-dense-first",
          "qwen3_moe-sparse-step-2", "olmoe-plain", "olmoe-grouped")
# Logits in float32 are within 1e-5 of float64 here (test_forward.py), so log-probabilities within twice that; the mean
# over the text is much closer, unless a router's choice is nearly tied.
NLL = 2e-5


def text_of(seed, length):
    """Characters that the tiny tokenizer never merges: the id of each is its byte."""
    alphabet = [c for c in range(33, 127) if chr(c) not in "oe"]
    return bytes(np.random.default_rng(seed).choice(alphabet, length).tolist())


def masked(folder, kept):
    """The model's forward pass whose routers cannot choose experts that are not among `kept` [MoE layer][experts]."""
    model = open_oracle(folder)
    layers = [layer for layer in range(model.config["num_hidden_layers"]) if is_moe_layer(model.config, layer)]
    kept = {f"model.layers.{layer}.mlp.gate": experts for layer, experts in zip(layers, kept, strict=True)}
    linear = model._linear

    def without(x, name):
        y = linear(x, name)
        if name not in kept:
            return y
        gone = np.ones(y.shape[1], bool)
        gone[kept[name]] = False
        return np.where(gone, -np.inf, y)
    model._linear = without
    return model


def nll(model, ids):
    """Of all of them but the first, in nats per token."""
    probabilities = softmax(model.forward(ids).logits[:-1])
    return -np.mean(np.log(probabilities[np.arange(len(ids) - 1), ids[1:]]))


class LeftOut(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.folder = pathlib.Path(folder.name)
        self.text = text_of(3, 120)
        (self.folder / "text.txt").write_bytes(self.text)
        (self.folder / "calibration.txt").write_bytes(text_of(4, 1200))

    def winnow(self, *arguments):
        result = subprocess.run([os.environ["WINNOW_BINARY"], *map(str, arguments), "--quiet"], capture_output=True,
                                text=True, check=False)
        self.assertEqual(result.returncode, 0, result.stderr)
        return result.stdout

    def left_out(self, model, keep, select):
        """The file with so many experts in each layer, weights as they were, and who was kept."""
        recipe, out, statistics = (self.work / name for name in ("recipe.toml", "out.gguf", "statistics"))
        recipe.write_text(f'version = 1\n[experts]\nkeep = {keep}\nselect = "{select}"\n', encoding="utf-8")
        data = ("--data", self.folder / "calibration.txt", "--context", 128)
        self.winnow("profile", model, "-o", statistics, *data)
        self.winnow("compress", model, "-o", out, "--recipe", recipe, "--statistics", statistics, "--bits", 32, *data,
                    "--report", self.work)
        record = json.loads((self.work / "compress.json").read_text(encoding="utf-8"))
        return out, [layer for layer in record["experts"]["kept"] if layer]

    def test_the_model_without_experts_is_the_original_that_cannot_choose_them(self):
        ids = [START, *self.text]
        for name in MODELS:
            folder = ROOT / "testdata" / "models" / name
            config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
            for fewer, select in ((1, "reap"), (2, "stun")):
                keep = config["num_experts"] - fewer
                if keep < config["num_experts_per_tok"]:
                    continue
                with self.subTest(model=name, keep=keep), tempfile.TemporaryDirectory(dir=self.folder) as work:
                    self.work = pathlib.Path(work)
                    out, kept = self.left_out(folder, keep, select)
                    self.assertEqual({len(layer) for layer in kept}, {keep})
                    scores = json.loads(self.winnow("eval", out, "--data", self.folder / "text.txt", "--context", 128,
                                                    "--json", "-"))
                    self.assertEqual(scores["tokens"], len(self.text))
                    expected = nll(masked(folder, kept), ids)
                    self.assertAlmostEqual(scores["nll"], expected, delta=NLL)
                    # The test can fail: other experts are another model.
                    others = [sorted(set(range(config["num_experts"])) - set(layer))[:1] + layer[1:] for layer in kept]
                    self.assertGreater(abs(nll(masked(folder, others), ids) - expected), 20 * NLL)


if __name__ == "__main__":
    unittest.main()
