# SPDX-FileCopyrightText: The Winnow authors
# SPDX-License-Identifier: Apache-2.0
"""bench/quality_peers.py: its slopes and limits, and a whole run on a tiny model with a stand-in for the peer."""

import json
import os
import pathlib
import sys
import tempfile
import unittest

ROOT = pathlib.Path(os.environ["WINNOW_SOURCE_DIR"])
sys.path.insert(0, str(ROOT / "bench"))
import quality_peers as peers  # noqa: E402

TINY = ROOT / "testdata" / "models" / "qwen3-plain"
STAND_IN = """
import json, sys
held = bytearray(int(sys.argv[4]) << 20)
print(json.dumps({"seconds": 1, "load_seconds": 1, "windows": min(int(sys.argv[4]), 3)}))
"""


class Peers(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.folder = pathlib.Path(folder.name)
        self.text = self.folder / "a.txt"
        self.text.write_text("The model reads this text, a model of a model.\n" * 12, encoding="utf-8")
        worker = self.folder / "worker.py"
        worker.write_text(STAND_IN, encoding="utf-8")
        self.addCleanup(setattr, peers, "WORKER", peers.WORKER)
        self.addCleanup(setattr, peers, "CONTEXT", peers.CONTEXT)
        peers.WORKER, peers.CONTEXT = worker, 64
        self.said = []

    def run_it(self, sequences):
        printed = []
        code = peers.main([str(TINY), "--text", str(self.text), "--sequences", sequences, "--threads", "1",
                           "--bits", "9", "--winnow", os.environ["WINNOW_BINARY"], "--peer-python", sys.executable,
                           "--json", str(self.folder / "out.json")], out=printed.append, say=self.said.append)
        return code, "\n".join(printed)

    def test_the_slope_leaves_out_what_every_run_costs(self):
        self.assertAlmostEqual(peers.slope([(16, 7 + 16 * 0.25), (64, 7 + 64 * 0.25), (256, 7 + 256 * 0.25)]), 0.25)

    def test_both_tools_run_once_for_each_number_of_sequences(self):
        code, table = self.run_it("1,3")
        self.assertEqual(code, 0, self.said)
        report = json.loads((self.folder / "out.json").read_text(encoding="utf-8"))
        for tool in ("winnow", "llmcompressor"):
            self.assertEqual([run["sequences"] for run in report["runs"][tool]], [1, 3])
            self.assertGreater(min(run["peak_bytes"] for run in report["runs"][tool]), 1 << 20)
            self.assertIn(tool, table)

    def test_memory_is_the_peak_of_the_process_that_was_measured(self):
        def peak(megabytes):
            code = f"held = b'x' * ({megabytes} << 20)"
            return peers.measured([sys.executable, "-c", code])[1]["peak_bytes"]
        # A new process begins with the peak of the one that started it: both are far above that.
        self.assertAlmostEqual(peak(384) - peak(128), 256 << 20, delta=8 << 20)

    def test_fewer_sequences_than_asked_for_are_refused(self):
        code, table = self.run_it("5")
        self.assertEqual((code, table), (2, ""))
        self.assertIn("holds 3 sequences", self.said[-1])


if __name__ == "__main__":
    unittest.main(verbosity=2)
