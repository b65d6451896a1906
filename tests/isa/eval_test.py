# SPDX-FileCopyrightText: The Winnow authors
# SPDX-License-Identifier: Apache-2.0
"""The whole program under a forced instruction set (WINNOW_ISA), against golden and against the best
one. A processor without it has to refuse in a sentence."""

import json
import os
import pathlib
import subprocess
import tempfile
import unittest

BINARY = os.environ["WINNOW_BINARY"]
ISA = os.environ["WINNOW_ISA"]
MODEL = pathlib.Path(os.environ["WINNOW_SOURCE_DIR"]) / "models" / "grain"
DOMAIN = "cpp"

# Golden's own limit for a correct forward pass: float sums in another order move the mean by less than
# 1e-4, a wrong kernel by more than 1.
RELATIVE_LIMIT = 1e-3
# Of the quantised model, between two instruction sets: codes and block products are equal integers, so
# only float sums and the near-ties of the router that they tip differ.
TOKENS = 1500


def winnow(*arguments):
    return subprocess.run([BINARY, *map(str, arguments)], capture_output=True, text=True,
                          env={"PATH": os.defpath, "LC_ALL": "C.UTF-8"}, timeout=800, check=False)


def negative_log_likelihood(model, isa, *arguments):
    done = winnow("eval", model, "--data", MODEL / "data" / "valid" / f"{DOMAIN}.txt", "--isa", isa,
                  "--json", "-", *arguments)
    if done.returncode != 0:
        raise AssertionError(done.stderr)
    return json.loads(done.stdout)["domains"][DOMAIN]["nll"]


class ForcedIsa(unittest.TestCase):
    def setUp(self):
        self.supported = winnow("eval", MODEL, "--data", MODEL / "data" / "valid" / f"{DOMAIN}.txt",
                                "--tokens", 1, "--isa", ISA)

    def refused(self):
        """Whether this processor lacks the instruction set; then only the refusal is checked."""
        if self.supported.returncode == 0:
            return False
        self.assertEqual(self.supported.returncode, 1, self.supported.stderr)
        self.assertIn(ISA, self.supported.stderr)
        self.assertIn("scalar", self.supported.stderr)
        return True

    def test_the_original_model_scores_as_golden_says(self):
        if self.refused():
            return
        golden = json.loads((MODEL / "golden" / "nll.json").read_text(encoding="utf-8"))
        expected = golden["domains"][DOMAIN]["nll"]
        self.assertAlmostEqual(negative_log_likelihood(MODEL, ISA), expected,
                               delta=RELATIVE_LIMIT * expected)

    def test_a_quantised_model_scores_as_on_the_best_instruction_set(self):
        if self.refused():
            return
        with tempfile.TemporaryDirectory() as folder:
            small = pathlib.Path(folder) / "small.gguf"
            done = winnow("convert", MODEL, "-o", small, "--type", "Q4_K")
            self.assertEqual(done.returncode, 0, done.stderr)
            best = negative_log_likelihood(small, "auto", "--tokens", TOKENS)
            forced = negative_log_likelihood(small, ISA, "--tokens", TOKENS)
        self.assertAlmostEqual(forced, best, delta=RELATIVE_LIMIT * best)


if __name__ == "__main__":
    unittest.main()
