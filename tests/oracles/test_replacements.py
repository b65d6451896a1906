# SPDX-FileCopyrightText: The Winnow authors
# SPDX-License-Identifier: Apache-2.0
"""What `winnow compress --expert-options all` says that each option changes, against replacements_numpy.py.

Needs WINNOW_BINARY, the program.
"""

import json
import os
import pathlib
import shutil
import subprocess
import sys
import tempfile
import unittest

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # the matrices are too small to share out
import numpy as np  # noqa: E402

HERE = pathlib.Path(__file__).resolve().parent
ROOT = pathlib.Path(os.environ.get("WINNOW_SOURCE_DIR", HERE.parent.parent))
sys.path.insert(0, str(HERE))
from replacements_numpy import REPLACEMENTS, Replacements, cheapest_channel, divide, narrow_widths  # noqa: E402
from replacements_numpy import narrowings, squared_error  # noqa: E402
from statistics_numpy import windows_of  # noqa: E402

START = 271
# An output of an expert is the end of some hundred float32 roundings of 6e-8 each, in chains of products of up to 128
# terms: as test_statistics.py measures, 4.8e-6 of the magnitudes. As a share of the norm of what is subtracted.
# Measured: changes within 6e-7 of themselves, 0.06 of the tolerance, on three instruction sets.
OUTPUTS = 5e-6
# Narrowing is a solution of equations with a condition number of up to 1e3, and a ratio. The oracle's own numbers move
# by 8e-7 at most when each inner activation of these models is moved at random by OUTPUTS; ten times that, since
# roundings are not independent of each other. Measured: 2.6e-7.
NARROWED = 1e-5
# Channels whose removal costs as good as the same could go in another order in float32; costs are as exact as changes.
CHANNEL_MARGIN = 2e-6
# Router logits closer than this could be ordered otherwise in float32.
ROUTER_MARGIN = 1e-5
TINY = sorted(path.parent for path in (ROOT / "testdata" / "models").glob("*/config.json")
              if "num_experts" in json.loads(path.read_text(encoding="utf-8")))


def text_of(seed, length):
    """Characters that the tiny tokenizer never merges: the id of each is its byte."""
    alphabet = [c for c in range(33, 127) if chr(c) not in "oe"]
    return bytes(np.random.default_rng(seed).choice(alphabet, length).tolist())


# --- models of one layer, made here ---

def write_safetensors(path, tensors):
    header, payload = {}, b""
    for name, values in sorted(tensors.items()):
        data = values.astype("<f4").tobytes()
        header[name] = {"dtype": "F32", "shape": list(values.shape),
                        "data_offsets": [len(payload), len(payload) + len(data)]}
        payload += data
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    path.write_bytes(len(text).to_bytes(8, "little") + text + payload)


def expert_matrices(rng, hidden, inner):
    shapes = {"gate": (inner, hidden), "up": (inner, hidden), "down": (hidden, inner)}
    return {part: 2 * rng.standard_normal(shape) / np.sqrt(shape[1]) for part, shape in shapes.items()}


def random_tensors(rng, config):
    """A layer of random weights; matrices keep the size of their input."""
    hidden, heads, prefix = config["hidden_size"], config["num_attention_heads"], "model.layers.0."
    queries, keys = (count * config["head_dim"] for count in (heads, config["num_key_value_heads"]))
    tensors = {"model.embed_tokens.weight": rng.standard_normal((config["vocab_size"], hidden)) / np.sqrt(hidden)}
    for name, rows, size in (("q", queries, hidden), ("k", keys, hidden), ("v", keys, hidden), ("o", hidden, queries)):
        tensors[f"{prefix}self_attn.{name}_proj.weight"] = rng.standard_normal((rows, size)) / np.sqrt(size)
    norms = {f"{prefix}self_attn.q_norm": config["head_dim"], f"{prefix}self_attn.k_norm": config["head_dim"],
             f"{prefix}input_layernorm": hidden, f"{prefix}post_attention_layernorm": hidden, "model.norm": hidden}
    for name, size in norms.items():
        tensors[name + ".weight"] = 1 + 0.2 * rng.standard_normal(size)
    return tensors


def make_model(folder, seed, inner, router, likeness=0.0, **changes):
    """Writes a Hugging Face folder. router: function of (rng, shape) that gives the router's rows.

    With `likeness`, experts 1, 3, 5 ... are the one before them and noise, the more the higher their number.
    """
    source = ROOT / "testdata" / "models" / "qwen3_moe-plain"
    config = json.loads((source / "config.json").read_text(encoding="utf-8"))
    config |= {"num_hidden_layers": 1, "moe_intermediate_size": inner, "torch_dtype": "float32", **changes}
    folder.mkdir()
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(source / name, folder)
    (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")
    rng = np.random.default_rng(seed)
    tensors = random_tensors(rng, config)
    hidden, experts = config["hidden_size"], config["num_experts"]
    tensors["model.layers.0.mlp.gate.weight"] = router(rng, (experts, hidden))
    before = None
    for expert in range(experts):
        matrices = expert_matrices(rng, hidden, inner)
        if likeness and expert % 2:
            matrices = {part: before[part] + likeness * expert * noise for part, noise in matrices.items()}
        for part, values in matrices.items():
            tensors[f"model.layers.0.mlp.experts.{expert}.{part}_proj.weight"] = values
        before = matrices
    write_safetensors(folder / "model.safetensors", tensors)
    return folder


def even_router(rng, shape):
    return 2 * rng.standard_normal(shape) / np.sqrt(shape[1])


def rare_third(share):
    """Rows 0 and 1, 3 and 4 are opposite, so two of their logits are positive: expert 2 needs a row of its own."""
    def router(rng, shape):
        rows = even_router(rng, shape)
        rows[1], rows[4] = -rows[0], -rows[3]
        rows[2] *= share
        return rows
    return router


# --- comparison ---

class Changes(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory(prefix="winnow-test-")
        self.addCleanup(folder.cleanup)
        self.folder = pathlib.Path(folder.name)

    def record_of(self, model, text, context):
        (self.folder / "text.txt").write_bytes(text)
        run = subprocess.run([os.environ["WINNOW_BINARY"], "compress", model, "-o", self.folder / "out.gguf", "--data",
                              self.folder / "text.txt", "--context", str(context), "--bits", "32", "--expert-options",
                              "all", "--force", "--report", self.folder], capture_output=True, text=True)
        self.assertEqual(run.returncode, 0, run.stderr)
        return json.loads((self.folder / "compress.json").read_text(encoding="utf-8"))

    def check(self, model, text, context):
        """Compares all options of all experts. Returns {(layer, replacement): experts that have it} and the oracle."""
        record = self.record_of(model, text, context)
        oracle = Replacements(model, windows_of(list(text), context, START))
        self.assertGreater(oracle.least_router_gap(), ROUTER_MARGIN, "choose another text")
        slopes, seen = record["replacements"]["kl_per_change"], {}
        for number in oracle.numbers:
            options = {e["expert"]: e["options"] for e in record["replacements"]["experts"] if e["layer"] == number}
            expected, borrowed = self.expected(oracle.layers[number]), set()
            for expert, listed in options.items():
                self.check_expert((model.name, number, expert), expected, expert, listed)
                for option in listed:
                    seen.setdefault((number, option["replacement"]), []).append(expert)
                    if option["replacement"] == "shared":
                        self.assertEqual(option["shared_with"], oracle.layers[number].nearest(expert))
                        borrowed.add(option["shared_with"])
                    self.assertAlmostEqual(option["predicted_kl"], option["change"] * slopes[number], places=12)
            self.check_who(oracle, number, {e for e in options if options[e]}, borrowed, seen)
        return seen, oracle

    def expected(self, layer):
        """{(replacement, width): (change, tolerance) of each expert}"""
        result = {}
        for name in (name for name in REPLACEMENTS if name != "dropped" or layer.experts > layer.top_k):
            changes, squares = layer.changes(name)
            result[name, None] = changes, 2 * OUTPUTS * np.sqrt(changes * squares) + OUTPUTS ** 2 * squares
        narrowed, margin = layer.narrow_changes()
        self.assertGreater(margin, CHANNEL_MARGIN, "choose another seed")
        for width, changes in narrowed.items():
            result["narrow", width] = changes, NARROWED * changes
        return result

    def check_expert(self, where, expected, expert, options):
        got = {(option["replacement"], option.get("width")): option["change"] for option in options}
        self.assertEqual(len(got), len(options), where)
        for key, change in got.items():
            want, tolerance = (values[expert] for values in expected[key])
            self.assertLess(abs(change - want), tolerance, (*where, *key))
        if options:  # zero, identity, constant and all widths are there for every expert that may be replaced
            always = {key for key in expected if key[0] not in ("dropped", "shared")}
            self.assertEqual(always - set(got), set(), where)
        if ("shared", None) in got:
            best = min(change for (name, _), change in got.items() if name not in ("shared", "narrow"))
            self.assertLessEqual(got["shared", None], best / 2, where)

    def check_who(self, oracle, number, replaceable, borrowed, seen):
        """Super experts, and those whose matrices another could use, have no options; some rows of the router stay."""
        layer = oracle.layers[number]
        everyone = set(range(layer.experts))
        self.assertEqual(replaceable, everyone - set(oracle.super_experts[number]) - borrowed)
        self.assertEqual(set(seen.get((number, "dropped"), [])), layer.droppable() & replaceable)

    def test_of_every_tiny_model_are_what_their_definitions_say(self):
        self.assertGreaterEqual(len(TINY), 10)
        for model in TINY:
            with self.subTest(model=model.name):
                seen, oracle = self.check(model, text_of(5, 400), 24)
                for number, name in ((n, name) for n in oracle.numbers for name in ("zero", "identity", "constant")):
                    self.assertIn((number, name), seen)

    def test_of_experts_that_are_alike_or_lose_channels(self):
        for renormalise in (True, False):
            with self.subTest(renormalise=renormalise):
                model = make_model(self.folder / f"pairs-{renormalise}", 2, 128, even_router, 0.01, num_experts=6,
                                   norm_topk_prob=renormalise)
                seen, _ = self.check(model, text_of(2, 4000), 128)
                self.assertGreaterEqual(len(seen[0, "shared"]), 2)
                self.assertGreaterEqual(len(seen[0, "narrow"]), 4)

    def test_of_an_expert_that_only_a_super_expert_resembles(self):
        """Super expert 5 keeps its own matrices, so that nobody uses those of 4: anything may stand for it."""
        model = make_model(self.folder / "resembled", 1, 128, even_router, 0.01, num_experts=6)
        self.check(model, text_of(1, 4000), 128)

    def test_of_a_single_expert(self):
        model = make_model(self.folder / "single", 1, 96, even_router, num_experts=1, num_experts_per_tok=1)
        self.check(model, text_of(1, 2000), 128)

    def test_of_experts_that_see_few_tokens_or_none(self):
        for share, calibration, held_out in ((0.0, False, False), (0.02, True, False), (0.4, True, True)):
            with self.subTest(share=share):
                model = make_model(self.folder / f"rare-{share}", 3, 64, rare_third(share), num_experts=5)
                seen, oracle = self.check(model, text_of(3, 1500), 64)
                layer = oracle.layers[0]
                self.assertEqual((layer.calibration.hits[2] > 0, layer.held_out.hits[2] > 0), (calibration, held_out))
                self.assertIn(2, seen[0, "narrow"])

    def test_of_a_text_too_short_to_hold_any_out(self):
        model = make_model(self.folder / "short", 4, 64, even_router, num_experts=4)
        _, oracle = self.check(model, text_of(4, 400), 100)
        self.assertIsNone(oracle.layers[0].held_out)


class Definitions(unittest.TestCase):
    """Of the oracle itself."""

    def test_the_cheapest_channel_is_the_one_whose_removal_loses_least(self):
        rng = np.random.default_rng(1)
        inputs, down = rng.standard_normal((40, 8)) @ rng.standard_normal((8, 8)), rng.standard_normal((5, 8))
        hessian, kept = inputs.T @ inputs, list(range(8))
        while len(kept) > 2:
            losses = []
            for place in range(len(kept)):
                k = kept[:place] + kept[place + 1:]
                s = [channel for channel in range(8) if channel not in k]
                left = hessian[np.ix_(s, s)] - hessian[np.ix_(s, k)] @ np.linalg.inv(hessian[np.ix_(k, k)]) \
                    @ hessian[np.ix_(k, s)]
                losses.append(np.trace(down[:, s] @ left @ down[:, s].T))
            place = cheapest_channel(down, hessian, kept)[0]
            self.assertEqual(place, int(np.argmin(losses)))
            del kept[place]
            narrowed = narrowings(down, hessian, [len(kept)])[0][len(kept)]
            self.assertAlmostEqual(squared_error(narrowed - down, hessian) / min(losses), 1, places=9)
            best = np.linalg.lstsq(inputs[:, kept], inputs @ down.T, rcond=None)[0]
            np.testing.assert_allclose(narrowed[:, kept], best.T, atol=1e-9)

    def test_widths_are_whole_blocks(self):
        self.assertEqual([narrow_widths(inner) for inner in (24, 32, 64, 96, 128, 192)],
                         [[], [], [32], [64, 32], [96, 64], [128, 96]])

    def test_a_window_is_in_one_part_of_the_text(self):
        windows = [[START, *range(10)] for _ in range(30)]
        calibration, held_out, probe = divide(windows)
        self.assertEqual((len(calibration), len(held_out), len(probe)), (21, 2, 7))


if __name__ == "__main__":
    unittest.main()
