# SPDX-FileCopyrightText: The Winnow authors
# SPDX-License-Identifier: Apache-2.0
"""bench/compare.py: its statistics and refusals, with engines that only pretend."""

import json
import os
import pathlib
import sys
import tempfile
import unittest

ROOT = pathlib.Path(os.environ["WINNOW_SOURCE_DIR"])
sys.path.insert(0, str(ROOT / "bench"))
import compare  # noqa: E402
import compare_engines  # noqa: E402

FAST = "avx512_vnni"
SLOW = "AVX = 1 | AVX2 = 1 | AVX512 = 0 | AVX512_VNNI = 0 | "
FLAGS = {"avx2", "avx512f"}


class FakeEngine:
    """Gives the (prefill, decode) pairs in order, and notes when it was asked."""

    def __init__(self, name, speeds, features=FAST, calls=None):
        self.name, self.speeds, self.features = name, list(speeds), features
        self.calls = [] if calls is None else calls

    def sample(self, model, settings):
        self.calls.append(self.name)
        prefill, decode = self.speeds.pop(0)
        return {"prefill": prefill, "decode": decode, "features": self.features, "version": "1", "load_seconds": 0.5}


class CompareTest(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.folder = pathlib.Path(folder.name)
        self.model = self.folder / "m.gguf"
        self.model.write_bytes(b"GGUF")
        self.out, self.said = [], []

    def main(self, engines, *arguments, flags=FLAGS):
        return compare.main([str(self.model), *arguments], engines, flags, self.out.append, self.said.append)


class Statistics(CompareTest):
    def test_medians_and_ratios_are_those_of_the_rounds(self):
        ours = FakeEngine("winnow", [(100, 20), (300, 40), (200, 90)])
        theirs = FakeEngine("stock", [(50, 10), (100, 40), (50, 30)])
        target = self.folder / "out.json"
        self.assertEqual(self.main([ours, theirs], "--pairs", "3", "--json", str(target)), 0)
        report = json.loads(target.read_text())
        self.assertEqual((report["schema_version"], report["pairs"], report["threads"]), (1, 3, 2))
        model = report["models"][0]
        self.assertEqual(model["engines"]["winnow"]["prefill"], {"median": 200, "min": 100, "max": 300})
        self.assertEqual(model["engines"]["stock"]["decode"], {"median": 30, "min": 10, "max": 40})
        ratio = model["ratios"]["winnow/stock"]
        self.assertEqual(ratio["prefill"], {"median": 3, "min": 2, "max": 4})
        # Of 2, 1, 3: not the ratio of the medians, 40 / 30.
        self.assertEqual(ratio["decode"], {"median": 2, "min": 1, "max": 3})

    def test_the_order_of_the_engines_rotates(self):
        calls = []
        engines = [FakeEngine(name, [(1, 1)] * 3, calls=calls) for name in ("a", "b", "c")]
        self.assertEqual(self.main(engines, "--pairs", "3"), 0)
        self.assertEqual(calls, ["a", "b", "c", "b", "c", "a", "c", "a", "b"])

    def test_the_table_shows_medians_with_their_spread_and_each_engines_features(self):
        engines = [FakeEngine("winnow", [(300, 40)]), FakeEngine("stock", [(100, 20)], "AVX512 = 1 | ")]
        self.assertEqual(self.main(engines, "--pairs", "1"), 0)
        table = self.out[0]
        self.assertIn("| winnow 1 | 300.0 (300.0 - 300.0) | 40.0 (40.0 - 40.0) |  |  | 0.50", table)
        self.assertIn("| stock 1 | 100.0 (100.0 - 100.0) | 20.0 (20.0 - 20.0) | 3.00 (3.00 - 3.00) | 2.00", table)
        self.assertIn("stock: `AVX512 = 1 |`", table)


class Refusals(CompareTest):
    def test_a_build_without_avx512_is_refused_where_the_processor_has_it(self):
        engines = [FakeEngine("winnow", [(1, 1)] * 5), FakeEngine("ik", [(1, 1)] * 5, SLOW)]
        self.assertEqual(self.main(engines), 2)
        self.assertEqual(self.out, [])
        self.assertIn("ik: this build does not use AVX-512", self.said[-1])
        self.assertIn("AVX512 = 0", self.said[-1])

    def test_winnow_itself_is_refused_too(self):
        self.assertEqual(self.main([FakeEngine("winnow", [(1, 1)] * 5, "avx2")]), 2)

    def test_it_is_welcome_on_a_processor_without_avx512(self):
        engines = [FakeEngine("winnow", [(1, 1)], "avx2"), FakeEngine("ik", [(1, 1)], SLOW)]
        self.assertEqual(self.main(engines, "--pairs", "1", flags={"avx2"}), 0)

    def test_an_engine_that_is_not_there_is_named(self):
        self.assertEqual(self.main(None, "--engines", "stock", "--stock-node", str(self.folder)), 2)
        self.assertIn("npm ci --prefix tests/peer", self.said[-1])
        self.assertEqual(self.main(None, "--engines", "winnow", "--winnow", str(self.folder / "none")), 2)
        self.assertIn("winnow:", self.said[-1])
        self.assertEqual(self.main(None, "--engines", "fast"), 2)
        self.assertIn("'fast' is not one of", self.said[-1])

    def test_what_a_failing_engine_said_is_passed_on(self):
        with self.assertRaisesRegex(compare_engines.EngineError, "exit code 3\n  no such model"):
            script = "import sys; sys.stderr.write('no such model'); sys.exit(3)"
            compare_engines.run("x", [sys.executable, "-c", script])


class RealEngine(CompareTest):
    def test_winnow_gives_samples(self):
        tiny = ROOT / "testdata/models/qwen3_moe-plain"
        sample = compare_engines.Winnow(os.environ["WINNOW_BINARY"]).sample(tiny, compare.Settings(16, 4, 1, 1))
        self.assertGreater(sample["prefill"], 0)
        self.assertGreater(sample["decode"], 0)
        self.assertNotEqual(sample["features"], "")


if __name__ == "__main__":
    unittest.main()
