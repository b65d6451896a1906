# SPDX-FileCopyrightText: The Winnow authors
# SPDX-License-Identifier: Apache-2.0
"""The bundled model under one forced instruction set: plain weights give the golden likelihood, and
quantised ones stay within rounding of the best instruction set. Skipped on processors without it."""

import json
import os
import pathlib
import subprocess
import tempfile
import unittest

BINARY = os.environ["WINNOW_BINARY"]
ISA = os.environ["WINNOW_ISA"]
GRAIN = pathlib.Path(os.environ["WINNOW_SOURCE_DIR"]) / "models" / "grain"
TOKENS = "2048"


def evaluate(model, *options):
    command = [BINARY, "eval", str(model), "--data", str(GRAIN / "data" / "valid"), "--tokens", TOKENS,
               "--json", "-", *options]
    result = subprocess.run(command, capture_output=True, check=True, text=True)
    return json.loads(result.stdout)


def setUpModule():
    probe = subprocess.run([BINARY, "eval", str(GRAIN), "--data", str(GRAIN / "data" / "valid"), "--tokens", "64",
                            "--isa", ISA], capture_output=True, text=True)
    if probe.returncode == 1 and "is not supported by this processor" in probe.stderr:
        raise unittest.SkipTest(probe.stderr.strip())


class ForcedInstructionSet(unittest.TestCase):
    def test_plain_weights_agree_with_the_best_instruction_set(self):
        forced = evaluate(GRAIN, "--isa", ISA)
        best = evaluate(GRAIN)
        self.assertEqual(forced["isa"], ISA)
        # Sums of F32 in another order: relative differences of 1e-6 in the likelihood.
        self.assertAlmostEqual(forced["nll"], best["nll"], delta=1e-4)

    def test_keys_and_values_in_f16_cost_less_than_a_thousandth(self):
        wide = evaluate(GRAIN, "--isa", ISA)
        half = evaluate(GRAIN, "--isa", ISA, "--kv-type", "f16")
        self.assertEqual((wide["kv_type"], half["kv_type"]), ("f32", "f16"))
        self.assertNotEqual(half["nll"], wide["nll"])
        self.assertAlmostEqual(half["nll"] / wide["nll"], 1, delta=1e-3)

    def test_quantised_weights_agree_with_the_best_instruction_set(self):
        with tempfile.TemporaryDirectory() as folder:
            model = pathlib.Path(folder) / "q4_k.gguf"
            subprocess.run([BINARY, "convert", str(GRAIN), "-o", str(model), "--type", "Q4_K"],
                           capture_output=True, check=True)
            forced = evaluate(model, "--isa", ISA)
            best = evaluate(model)
        # Codes are the same on all instruction sets but for activations that rounding moves across
        # the border of two codes, one step of 1/127 of a block's largest value.
        self.assertAlmostEqual(forced["nll"], best["nll"], delta=2e-3)


if __name__ == "__main__":
    unittest.main()
