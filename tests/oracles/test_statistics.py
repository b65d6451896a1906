# SPDX-FileCopyrightText: The Winnow authors
# SPDX-License-Identifier: Apache-2.0
"""Every array that `winnow profile` writes for the tiny models against statistics_numpy.py. Needs WINNOW_BINARY."""

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
from forward import open_oracle  # noqa: E402
from statistics_numpy import BINS, TEACHER_TOP, profile, read_statistics, windows_of  # noqa: E402

CONTEXT = 24
START = 271
# Activations in float32 with chains of some hundred roundings each, against float64; as a share of the sum of the
# magnitudes of a sum's terms. Measured: at most 4.8e-6.
SUMS = 1e-5
MAXIMA = 2e-5
LOG_PROBS = 2e-5
# Router logits closer than this could be ordered otherwise in float32.
MARGIN = 1e-5
TINY = sorted(path.parent for path in (ROOT / "testdata" / "models").glob("*/config.json"))


def text_of(rng, length):
    """Characters that the tiny tokenizer never merges: the id of each is its byte."""
    alphabet = [c for c in range(33, 127) if chr(c) not in "oe"]
    return bytes(rng.choice(alphabet, length).tolist())


class Statistics(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory(prefix="winnow-test-")
        self.addCleanup(folder.cleanup)
        self.folder = pathlib.Path(folder.name)
        rng = np.random.default_rng(7)
        # 10 sequences with one held out, and fewer than eight.
        self.texts = {"code": text_of(rng, 9 * (CONTEXT - 1) + 5), "prose": text_of(rng, 70)}
        (self.folder / "data").mkdir()
        for domain, text in self.texts.items():
            (self.folder / "data" / f"{domain}.txt").write_bytes(text)

    def statistics_of(self, model):
        out = self.folder / f"{model.name}.stats"
        subprocess.run([os.environ["WINNOW_BINARY"], "profile", model, "-o", out, "--data",
                        self.folder / "data", "--context", str(CONTEXT)], check=True, capture_output=True)
        return read_statistics(out)

    def check_histogram(self, name, got, samples):
        """Samples beside an edge may fall on either side of it."""
        for row, values in zip(got, samples):
            low, high = ((np.clip(values + shift, 0, 1 - 1e-12) * BINS).astype(int) for shift in (-MARGIN, MARGIN))
            surely = np.bincount(low[low == high], minlength=BINS)
            perhaps = surely + np.bincount(low[low != high], minlength=BINS) \
                + np.bincount(high[low != high], minlength=BINS)
            self.assertEqual(int(row.sum()), len(values), name)
            self.assertTrue(((surely <= row) & (row <= perhaps)).all(), name)

    def check_array(self, name, got, want):
        if name.endswith("weight_ratios"):
            self.check_histogram(name, got, want)
        elif isinstance(want, tuple):
            values, magnitudes = want
            self.assertEqual(got.shape, values.shape, name)
            # A column whose inputs cancel to almost nothing has the rounding errors of the others.
            scale = np.maximum(magnitudes, magnitudes.mean(axis=-1, keepdims=True))
            worst = np.max(np.abs(got - values) / np.maximum(scale, 1e-300))
            self.worst = max(self.worst, worst)
            self.assertLess(worst, SUMS, name)
        elif got.dtype == np.uint64:
            np.testing.assert_array_equal(got, want.astype(np.uint64), name)
        else:
            np.testing.assert_allclose(got, want, rtol=MAXIMA, err_msg=name)

    def check_teacher(self, got, want):
        for name in ("window_lengths", "first_scored", "tokens"):
            np.testing.assert_array_equal(got.pop(name), want[name], name)
        log_probs = want["log_probs"]
        top = min(TEACHER_TOP, log_probs.shape[1])
        tokens, kept = got.pop("top_tokens"), got.pop("top_log_probs")
        self.assertEqual(tokens.shape, (len(log_probs), top))
        np.testing.assert_allclose(kept, np.take_along_axis(log_probs, tokens, axis=1), atol=LOG_PROBS)
        np.testing.assert_allclose(kept, -np.sort(-log_probs, axis=1)[:, :top], atol=LOG_PROBS)
        self.assertTrue((np.sort(tokens, axis=1)[:, 1:] > np.sort(tokens, axis=1)[:, :-1]).all())
        rest = 1 - np.exp(np.take_along_axis(log_probs, tokens, axis=1)).sum(axis=1)
        np.testing.assert_allclose(got.pop("rest_mass"), rest, atol=LOG_PROBS)
        self.assertEqual(got, {})

    def check_model(self, folder):
        self.worst = 0
        header, arrays = self.statistics_of(folder)
        self.assertEqual([domain["name"] for domain in header["domains"]], sorted(self.texts))
        arrays = {name: array for name, array in arrays.items() if ".residual" not in name}
        for number, domain in enumerate(header["domains"]):
            windows = windows_of(list(self.texts[domain["name"]]), CONTEXT, START)
            expected, teacher = profile(open_oracle(folder), windows)
            self.assertEqual(domain["sequences"], len(windows))
            self.assertEqual(domain["held_out_sequences"], len(windows) // 8)
            self.assertEqual(domain["tokens"], int(expected["output.output_input_tokens"][0]))
            prefix = f"domains.{number}."
            mine = {name[len(prefix):]: array for name, array in arrays.items() if name.startswith(prefix)}
            held_out = {name[len("teacher."):]: mine.pop(name) for name in list(mine) if name.startswith("teacher.")}
            self.assertEqual(set(mine), set(expected))
            for name, want in expected.items():
                self.check_array(f"{folder.name} {domain['name']} {name}", mine[name], want)
            self.assertEqual(bool(held_out), teacher is not None)
            if teacher:
                self.check_teacher(held_out, teacher)
        print(f"{folder.name}: sums within {self.worst:.1e}")

    def test_every_array_of_every_tiny_model_is_what_its_definition_says(self):
        self.assertGreaterEqual(len(TINY), 9)
        for folder in TINY:
            with self.subTest(model=folder.name):
                self.check_model(folder)

    def test_no_router_choice_of_the_text_is_too_close_to_tell(self):
        for folder in TINY:
            for text in self.texts.values():
                model = open_oracle(folder)
                k = model.config.get("num_experts_per_tok", 0)
                for window in windows_of(list(text), CONTEXT, START):
                    for logits in model.forward(window).router_logits:
                        ordered = -np.sort(-logits, axis=1)
                        gaps = (ordered[:, :-1] - ordered[:, 1:])[:, :k]
                        self.assertGreater(gaps.min(), MARGIN, folder.name)

    def test_the_recorder_runs_the_oracles_forward_pass(self):
        from statistics_numpy import Recorder
        for folder in TINY:
            ids = json.loads((folder / "golden" / "prompts.json").read_text(encoding="utf-8"))["prompts"][0]["ids"]
            np.testing.assert_allclose(Recorder(open_oracle(folder)).run(ids)[2],
                                       open_oracle(folder).forward(ids).logits, atol=1e-12)


if __name__ == "__main__":
    unittest.main()
