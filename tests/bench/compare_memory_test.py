# SPDX-FileCopyrightText: The Winnow authors
# SPDX-License-Identifier: Apache-2.0
"""bench/compare_memory.py: its sums, and samples of the real program."""

import os
import pathlib
import sys
import unittest

ROOT = pathlib.Path(os.environ["WINNOW_SOURCE_DIR"])
sys.path.insert(0, str(ROOT / "bench"))
import compare  # noqa: E402
import compare_memory  # noqa: E402

RESIDENT = {"decode": 40.0, "fraction": 0.5}
# A token needs 100 MB of dense weights and 8 experts of 10 MB, of which 6 are there.
SAMPLE = {"hit_rate": 0.75, "cycle": 80e6, "token_bytes": 180e6, "memory_rate": 40e9, "disk_rate": 1e9,
          "read_per_token": 20e6, "decode": 45.0, "stall_share": 0.2}


class Physics(unittest.TestCase):
    def test_a_slow_disk_is_the_limit(self):
        self.assertEqual(compare_memory.physics(SAMPLE, RESIDENT), (50.0, "disk"))

    def test_a_fast_disk_leaves_the_memory_to_which_reads_add(self):
        limit, part = compare_memory.physics({**SAMPLE, "disk_rate": 10e9}, RESIDENT)
        self.assertEqual((limit, part), (0.5 * 40e9 / (100e6 + 80e6 + 20e6), "memory"))

    def test_nothing_is_read_when_all_is_there(self):
        limit, part = compare_memory.physics({**SAMPLE, "read_per_token": 0}, RESIDENT)
        self.assertEqual((round(limit, 6), part), (round(0.5 * 40e9 / 180e6, 6), "memory"))

    def test_what_was_reached_of_it_is_told_round_by_round(self):
        summary = compare_memory.of_winnow([SAMPLE, {**SAMPLE, "decode": 30.0}], [RESIDENT] * 2)
        self.assertEqual((summary["of_formula"]["max"], summary["of_formula"]["min"]), (0.9, 0.6))
        self.assertEqual(summary["limited_by"], "disk")


class Samples(unittest.TestCase):
    def engine(self, *flags):
        return compare_memory.LimitedWinnow("winnow", pathlib.Path(os.environ["WINNOW_BINARY"]),
                                            str(ROOT / "models/grain/data/valid/prose_en.txt"), flags)

    def sample(self, engine, limit):
        return engine.sample(ROOT / "models/grain", compare.Settings(4, 8, 1, 1), limit, None)

    def test_with_a_limit_it_tells_what_was_read(self):
        sample = self.sample(self.engine(), 52 << 20)
        self.assertGreater(sample["hit_rate"], 0)
        self.assertLess(sample["hit_rate"], 1)
        # 24 experts of three matrices, each of which a read may begin and end a block beyond.
        self.assertGreaterEqual(sample["cycle"], 24 * 3 * 256 * 128 * 2)
        self.assertLessEqual(sample["cycle"], 24 * 3 * (256 * 128 * 2 + 2 * 4096))
        self.assertEqual(sample["hit_rate"], 1 - sample["read_per_token"] / sample["cycle"])
        self.assertGreater(sample["cold"], 0)

    def test_without_one_there_is_no_cache(self):
        self.assertNotIn("hit_rate", self.sample(self.engine(), 0))

    def test_every_run_has_tokens_of_its_own_within_a_limit(self):
        """With eight tokens again and again a cache that holds them all would have no misses."""
        sample = self.sample(self.engine("--cache-policy", "lru"), 60 << 20)
        self.assertLess(sample["hit_rate"], 1)


if __name__ == "__main__":
    unittest.main()
