# SPDX-FileCopyrightText: The Winnow authors
# SPDX-License-Identifier: Apache-2.0
"""The NumPy forward passes against the golden outputs of models/grain and of every tiny model."""

import json
import pathlib
import sys
import unittest

import numpy as np

HERE = pathlib.Path(__file__).resolve().parent
ROOT = HERE.parent.parent
sys.path.insert(0, str(HERE))
from forward import open_oracle  # noqa: E402
from qwen3_moe_numpy import golden_array, is_moe_layer, rotate  # noqa: E402

# float32 golden values against float64: measured up to 1.1e-5 on logits of grain, 7.6e-6 on tiny models.
LOGIT_TOLERANCE = 5e-5
TINY = sorted(path.parent for path in (ROOT / "testdata" / "models").glob("*/config.json"))
MODELS = [ROOT / "models" / "grain", *TINY]


def prompts(folder):
    return json.loads((folder / "golden" / "prompts.json").read_text(encoding="utf-8"))["prompts"]


class ForwardPass(unittest.TestCase):
    def test_the_tiny_models_are_there(self):
        self.assertGreaterEqual(len(MODELS), 9)

    def test_gives_the_golden_logits_and_routing(self):
        for folder in MODELS:
            model = open_oracle(folder)
            for prompt in prompts(folder):
                with self.subTest(model=folder.name, prompt=prompt["name"]):
                    result = model.forward(prompt["ids"])
                    for key in ("logits", "router_logits", "expert_weights"):
                        want = golden_array(folder / "golden", prompt[key])
                        got = getattr(result, key)
                        self.assertEqual(len(got), len(want))  # no layers at all in a dense model
                        for ours, golden in zip(got, want):
                            self.assertLess(np.abs(ours - golden).max(), LOGIT_TOLERANCE)
                    for ours, golden in zip(result.experts, golden_array(folder / "golden", prompt["experts"])):
                        np.testing.assert_array_equal(ours, golden)

    def test_the_first_greedy_token_follows(self):
        for folder in MODELS:
            for prompt in prompts(folder):
                with self.subTest(model=folder.name, prompt=prompt["name"]):
                    logits = open_oracle(folder).forward(prompt["ids"]).logits
                    self.assertEqual(int(logits[-1].argmax()), prompt["greedy_ids"][0])

    def test_the_past_does_not_see_the_future(self):
        model, ids = open_oracle(MODELS[1]), prompts(MODELS[1])[0]["ids"]
        np.testing.assert_allclose(model.forward(ids[:9]).logits, model.forward(ids).logits[:9], atol=1e-12)


class Parts(unittest.TestCase):
    def test_rotation_keeps_length_and_depends_on_distance_only(self):
        rng = np.random.default_rng(4)
        q, k = (np.repeat(rng.normal(size=(1, 1, 8)), 6, axis=0) for _ in range(2))
        q_rotated, k_rotated = rotate(q, 100.0)[:, 0], rotate(k, 100.0)[:, 0]
        np.testing.assert_allclose(np.linalg.norm(q_rotated, axis=1), np.linalg.norm(q[0]), rtol=1e-13)
        self.assertAlmostEqual(q_rotated[3] @ k_rotated[1], q_rotated[5] @ k_rotated[3], places=12)

    def test_which_layers_are_dense(self):
        self.assertEqual([is_moe_layer({"num_experts": 4, "decoder_sparse_step": 2}, i) for i in range(4)],
                         [False, True, False, True])
        self.assertEqual([is_moe_layer({"num_experts": 4, "mlp_only_layers": [0, 2]}, i) for i in range(3)],
                         [False, True, False])
        self.assertFalse(is_moe_layer({"decoder_sparse_step": 1}, 0))


if __name__ == "__main__":
    unittest.main()
