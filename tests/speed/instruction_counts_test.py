# SPDX-FileCopyrightText: The Winnow authors
# SPDX-License-Identifier: Apache-2.0
"""Instructions that one call of a kernel executes, counted by callgrind, against recorded numbers.

Unlike times they are the same on every run and every machine. Valgrind executes no AVX-512: for that see
avx512_loop_test.py. `instruction_counts_test.py --update` records the numbers of build/release."""

import pathlib
import subprocess
import sys
import tempfile
import unittest

import recorded_counts

SECTION = "callgrind"
ISAS = ("avx2", "scalar")
KERNELS = ("direct_q4_k", "panel_q4_0", "attend_decode")


def executed(isa, kernel, repetitions):
    """Instructions of the whole program."""
    with tempfile.TemporaryDirectory() as folder:
        out = pathlib.Path(folder) / "callgrind.out"
        command = ["valgrind", "--tool=callgrind", f"--callgrind-out-file={out}",
                   recorded_counts.program(), isa, kernel, str(repetitions)]
        result = subprocess.run(command, capture_output=True, text=True)
        if result.returncode != 0:
            raise RuntimeError(f"{' '.join(command)}: exit code {result.returncode}\n{result.stderr}")
        for line in out.read_text(encoding="utf-8").splitlines():
            if line.startswith("totals:"):
                return int(line.split()[1])
        raise RuntimeError(f"{out} has no line `totals:`")


def measured():
    """Of one call: what two calls more cost, halved, so that preparing the data does not count."""
    return {f"{isa} {kernel}": (executed(isa, kernel, 3) - executed(isa, kernel, 1)) // 2
            for isa in ISAS for kernel in KERNELS}


class Judgement(unittest.TestCase):
    def test_more_than_three_percent_above_the_record_fails(self):
        self.assertIsNone(recorded_counts.judge("k", 1030, 1000, True))
        self.assertIn("slower", recorded_counts.judge("k", 1031, 1000, True))

    def test_more_than_three_percent_below_the_record_asks_to_record_the_gain(self):
        self.assertIsNone(recorded_counts.judge("k", 970, 1000, True))
        self.assertIn("--update", recorded_counts.judge("k", 969, 1000, True))

    def test_another_compiler_may_differ_by_a_factor_of_two(self):
        self.assertIsNone(recorded_counts.judge("k", 2000, 1000, False))
        self.assertIn("factor", recorded_counts.judge("k", 2001, 1000, False))
        self.assertIsNone(recorded_counts.judge("k", 500, 1000, False))
        self.assertIn("factor", recorded_counts.judge("k", 499, 1000, False))


class InstructionCounts(unittest.TestCase):
    def test_kernels_execute_as_many_instructions_as_recorded(self):
        self.assertEqual(recorded_counts.problems(SECTION, measured()), [])


if __name__ == "__main__":
    if sys.argv[1:] == ["--update"]:
        recorded_counts.update(SECTION, measured())
    else:
        unittest.main()
