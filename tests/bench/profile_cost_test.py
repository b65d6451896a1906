#!/usr/bin/env python3
# SPDX-FileCopyrightText: The Winnow authors
# SPDX-License-Identifier: Apache-2.0
"""bench/profile_cost.py: ratios are formed pair by pair, both commands run, and failures are told."""

import contextlib
import io
import json
import os
import pathlib
import sys
import tempfile
import unittest

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent
sys.path.insert(0, str(ROOT / "bench"))
import profile_cost  # noqa: E402

WINNOW = os.environ.get("WINNOW_BINARY", str(ROOT / "build/release/bin/winnow"))
GRAIN = ROOT / "models/grain"


class Summaries(unittest.TestCase):
    def test_the_ratio_is_the_median_of_the_pairs_ratios(self):
        pairs = [((1.0, 2.0), (2.0, 2.0)), ((10.0, 4.0), (11.0, 2.0)), ((2.0, 1.0), (3.0, 3.0))]
        result = profile_cost.summary(pairs)
        self.assertEqual(result["processor"]["ratio"], {"median": 1.5, "min": 1.1, "max": 2.0})
        self.assertEqual(result["wall"]["ratio"], {"median": 1.0, "min": 0.5, "max": 3.0})
        self.assertEqual(result["processor"]["forward_seconds"]["median"], 2.0)

    def test_processor_time_is_that_of_the_child(self):
        processor, seconds = profile_cost.timed([sys.executable, "-c", "import time; time.sleep(0.3)"])
        self.assertGreaterEqual(seconds, 0.3)
        self.assertGreater(processor, 0)
        self.assertLess(processor, seconds)


class Runs(unittest.TestCase):
    def test_both_commands_read_the_text_and_the_record_has_their_times(self):
        with tempfile.TemporaryDirectory() as folder:
            path = pathlib.Path(folder) / "cost.json"
            with contextlib.redirect_stdout(io.StringIO()) as said:
                code = profile_cost.main([str(GRAIN), "--data", str(GRAIN / "data/calib"), "--tokens", "600",
                                          "--repetitions", "2", "--winnow", WINNOW, "--json", str(path)])
            self.assertEqual(code, 0)
            record = json.loads(path.read_text(encoding="utf-8"))
        self.assertIn("processor", said.getvalue())
        self.assertEqual(record["schema_version"], 1)
        for clock in ("processor", "wall"):
            self.assertGreater(record[clock]["ratio"]["min"], 0)
            self.assertGreater(record[clock]["profile_seconds"]["median"], 0)

    def test_a_command_that_fails_is_told_with_its_words(self):
        with contextlib.redirect_stderr(io.StringIO()) as said:
            code = profile_cost.main(["/nowhere", "--data", "/nowhere", "--winnow", WINNOW])
        self.assertEqual(code, 2)
        self.assertIn("/nowhere", said.getvalue())


if __name__ == "__main__":
    unittest.main()
