# SPDX-FileCopyrightText: The Winnow authors
# SPDX-License-Identifier: Apache-2.0
"""bench/budget_curve.py: its draws, its choice, its table, and whole runs on a tiny model."""

import json
import os
import pathlib
import random
import sys
import tempfile
import unittest
from unittest import mock

ROOT = pathlib.Path(os.environ["WINNOW_SOURCE_DIR"])
sys.path.insert(0, str(ROOT / "bench"))
import budget_curve  # noqa: E402
import budget_report  # noqa: E402

TINY = ROOT / "testdata" / "models" / "qwen3_moe-plain"
LINES = [f"line {number}\n" for number in range(10)]


class Draws(unittest.TestCase):
    def test_a_draw_is_whole_lines_in_order_around_the_end(self):
        for seed in range(20):
            lines = budget_curve.drawn("".join(LINES), random.Random(seed), 0.5).splitlines(keepends=True)
            self.assertEqual(len(lines), 5)
            start = LINES.index(lines[0])
            self.assertEqual(lines, (LINES + LINES)[start:start + 5])

    def test_all_of_it_is_a_rotation_and_seeds_differ(self):
        whole = {budget_curve.drawn("".join(LINES), random.Random(seed), 1) for seed in range(20)}
        self.assertGreater(len(whole), 5)
        self.assertEqual({"".join(sorted(text.splitlines(keepends=True))) for text in whole}, {"".join(LINES)})

    def test_a_last_line_without_an_end_is_not_joined_to_the_first(self):
        for seed in range(5):
            lines = budget_curve.drawn("one\ntwo", random.Random(seed), 1).splitlines()
            self.assertEqual(sorted(lines), ["one", "two"])
        self.assertEqual(budget_curve.drawn("", random.Random(0), 1), "")


class Table(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.folder = pathlib.Path(folder.name)
        self.entries = []

    def entry(self, arm, seed, kl, **changes):
        path = self.folder / f"{arm}-{seed}.json"
        path.write_text(json.dumps({"window": [0, 0, 1, 1], "kl_divergence": kl, "same_top": [True] * 4}),
                        encoding="utf-8")
        scores = {"in": {"tokens": 4, "kl_divergence": sum(kl) / 4, "tokens_file": str(path)}}
        self.entries.append({"arm": arm, "share": 20.0, "seed": seed, "keep": None, "tensor_bytes": 190, "program": "p",
                             "predicted_kl": 0.5, "probe_kl": 0.25, "scores": scores, **changes})

    def report(self):
        arms = list(dict.fromkeys(entry["arm"] for entry in self.entries))
        return {"arms": arms, "baselines": [arm for arm in arms if arm != "joint"], "shares": [20.0],
                "sixteen_bit_bytes": 1000, "entries": self.entries}

    def rows(self):
        return [[cell.strip() for cell in line.split("|")[1:-1]]
                for line in budget_report.markdown(self.report()).splitlines() if line.startswith("| 20 %")]

    def test_lines_are_compared_with_the_best_baseline_at_their_share(self):
        self.entry("bits", 1, [4, 4, 4, 4])
        self.entry("reap", 1, [1, 2, 3, 2], keep=24)
        self.entry("joint", 1, [0.5, 1, 1.5, 1])
        bits, reap, joint = self.rows()
        self.assertEqual(reap[1:4], ["reap (best baseline)", "24", "19.00"])
        self.assertEqual(reap[7], "1.000 ± 0.000")
        self.assertEqual(joint[1:7], ["joint", "", "19.00", "0.50000", "0.25000", "1.00000 ± 0.25000"])
        self.assertEqual(joint[7], "0.500 ± 0.000")
        self.assertTrue(bits[7].startswith("2.000 ±"))

    def test_seeds_are_averaged_and_their_range_is_shown(self):
        for seed, factor in ((1, 1), (2, 3)):
            self.entry("bits", seed, [2, 2, 2, 2])
            self.entry("joint", seed, [factor, factor, factor, factor])
        _, joint = self.rows()
        self.assertEqual(joint[6], "2.00000 ± 0.00000")
        self.assertEqual(joint[7], "1.000 ± 0.000 (0.500 - 1.500)")

    def test_what_is_above_its_budget_is_marked_and_what_is_impossible_says_why(self):
        self.entry("joint", 1, [1, 1, 1, 1], tensor_bytes=201)
        self.entry("bits", 1, [9, 9, 9, 9], impossible="the smallest has 300 bytes", scores={})
        joint, bits = self.rows()
        self.assertEqual(joint[3], "20.10 **above**")
        self.assertEqual(bits[3], "none: at least 30.00")
        self.assertEqual(joint[7], "")  # there is nothing to compare with

    def test_lines_of_different_seeds_are_not_compared(self):
        for seed in (1, 2):
            self.entry("bits", seed, [2, 2, 2, 2])
        self.entry("joint", 1, [1, 1, 1, 1])
        self.assertEqual(self.rows()[1][7], "")


class Run(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.folder = pathlib.Path(folder.name)
        self.texts = {}
        for kind in ("calib", "valid"):
            (self.folder / kind).mkdir()
            for name in ("home", "away"):
                text = self.folder / kind / f"{name}.txt"
                text.write_text("".join(f"The {kind} model {n} reads a {name} model of models.\n" for n in range(24)),
                                encoding="utf-8")
        self.said = []

    def run_it(self, *arguments, methods="bits,aimer"):
        printed = []
        code = budget_curve.main([
            str(TINY), "--calib", str(self.folder / "calib"), "--valid", str(self.folder / "valid"), "--shares", "50",
            "--seeds", "1", "--methods", methods, "--keeps", "6,4", "--context", "64", "--threads", "1", "--work",
            str(self.folder / "work"), "--json", str(self.folder / "out.json"), "--winnow",
            os.environ["WINNOW_BINARY"], *arguments], out=printed.append, say=self.said.append)
        return code, "\n".join(printed)

    def entries(self):
        report = json.loads((self.folder / "out.json").read_text(encoding="utf-8"))
        return {entry["arm"]: entry for entry in report["entries"]}

    def cell(self, name):
        return json.loads((self.folder / "work" / "seed-1" / name).read_text(encoding="utf-8"))

    def test_arms_get_the_same_bytes_and_both_texts_are_scored(self):
        code, table = self.run_it("--hold-out", "away", "--arm", "plain=--allocation uniform", methods="bits,reap")
        self.assertEqual(code, 0, self.said)
        entries = self.entries()
        self.assertEqual(list(entries), ["bits", "reap", "plain"])
        inspected = json.loads((self.folder / "out.json").read_text(encoding="utf-8"))["sixteen_bit_bytes"]
        for entry in entries.values():
            self.assertLessEqual(entry["tensor_bytes"], 0.5 * inspected)
            self.assertGreater(entry["tensor_bytes"], 0.35 * inspected)
            self.assertGreater(entry["scores"]["foreign"]["kl_divergence"], 0)
            self.assertNotEqual(entry["scores"]["in"]["kl_divergence"], entry["scores"]["foreign"]["kl_divergence"])
        drawn = (self.folder / "work" / "seed-1" / "text").rglob("*.txt")
        self.assertEqual([path.name for path in drawn], ["home.txt"])
        self.assertIn("foreign", table)
        self.assertEqual(list(self.folder.rglob("*.gguf")), [])

    def test_the_probe_chooses_how_many_experts_stay(self):
        self.assertEqual(self.run_it(methods="aimer")[0], 0, self.said)
        cells = {keep: self.cell(f"aimer/50/keep-{keep}.json") for keep in (6, 4)}
        best = min(cells, key=lambda keep: cells[keep]["probe_kl"])
        self.assertEqual(self.entries()["aimer"]["keep"], best)
        scored = list((self.folder / "work").rglob("keep-*.in.json"))
        self.assertEqual([path.name for path in scored], [f"keep-{best}.in.json"])

    def test_finished_cells_are_not_measured_again(self):
        self.assertEqual(self.run_it()[0], 0, self.said)
        first = (self.folder / "out.json").read_text(encoding="utf-8")
        asked = []
        real = budget_curve.run
        with mock.patch.object(budget_curve, "run", lambda command: asked.append(command[1]) or real(command)):
            self.assertEqual(self.run_it()[0], 0)
        self.assertEqual(asked, ["inspect"])
        self.assertEqual((self.folder / "out.json").read_text(encoding="utf-8"), first)

    def test_a_report_of_what_is_there_measures_nothing(self):
        self.run_it(methods="bits")
        code, table = self.run_it("--report-only")
        self.assertEqual(code, 0)
        self.assertIn("| 50 % | bits", table)
        self.assertNotIn("aimer", table)

    def test_experts_are_selected_on_the_text_of_the_cell(self):
        for share, draw in (("50", "1"), ("60", "0.5"), ("70", "0.5")):
            code, _ = self.run_it("--shares", share, "--draw", draw, "--keeps", "6", methods="frequency")
            self.assertEqual(code, 0, self.said)
        self.assertEqual(len(list((self.folder / "work" / "seed-1").glob("statistics-*"))), 2)

    def test_cells_of_other_settings_are_refused(self):
        self.run_it(methods="bits")
        code, _ = self.run_it("--flags", "--allocation uniform", methods="bits")
        self.assertEqual(code, 2)
        self.assertIn("other settings", self.said[-1])

    def test_a_budget_that_cannot_be_met_is_a_cell_that_says_so(self):
        code, table = self.run_it("--shares", "5", methods="bits")
        self.assertEqual(code, 0, self.said)
        self.assertRegex(table, r"\| 5 % \| bits \|  \| none: at least \d\d\.\d\d ")
        self.assertIn("cannot be met", self.cell("bits/5/file.json")["impossible"])

    def test_mistakes_end_it_with_words(self):
        for arguments, word in ((("--hold-out", "nowhere"), "nowhere"), (("--hold-out", "home,away"), "--calib"),
                                (("--arm", "bits=--allocation uniform"), "bits"), (("--arm", "../x=-q"), "letters"),
                                (("--arm", "wrong=--no-such-flag"), "no-such-flag")):
            code, table = self.run_it(*arguments, methods="bits")
            self.assertEqual((code, table), (2, ""))
            self.assertIn(word, self.said[-1])


if __name__ == "__main__":
    unittest.main(verbosity=2)
