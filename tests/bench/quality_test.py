# SPDX-FileCopyrightText: The Winnow authors
# SPDX-License-Identifier: Apache-2.0
"""bench/quality.py: its statistics, its table, and a whole run on a tiny model with a stand-in for stock."""

import json
import math
import os
import pathlib
import random
import sys
import tempfile
import unittest

ROOT = pathlib.Path(os.environ["WINNOW_SOURCE_DIR"])
sys.path.insert(0, str(ROOT / "bench"))
import quality  # noqa: E402
import quality_report  # noqa: E402
import quality_statistics as statistics  # noqa: E402

TINY = ROOT / "testdata" / "models" / "qwen3_moe-plain"

# Takes the place of stock_quantizer.py: "quantises" with `winnow convert`, and counts how often it was asked.
STAND_IN = """
import os, subprocess, sys
words = sys.argv[3:]
with open(os.environ["STAND_IN_LOG"], "a") as log: log.write(words[0] + "\\n")
output = words[words.index("-o") + 1] if "-o" in words else None
if words[0] == "importance": open(output, "w").close()
if words[0] == "quantize":
    sys.exit(subprocess.run([os.environ["WINNOW_BINARY"], "convert", words[1], "-o", output, "--type",
                             words[words.index("--type") + 1], "--quiet"]).returncode)
if words[0] == "divergence":
    import json
    print(json.dumps({f: {"tokens": 9, "kl_divergence": 0.5, "nll": 1, "top1_agreement": 1} for f in words[2:4]}))
"""


def tokens(window, kl, same_top=None):
    return statistics.Tokens(window, kl, same_top or [True] * len(kl))


def correlated(count, seed=3):
    """Two models whose KL varies from window to window a hundred times more than between them."""
    rng, window, ours, theirs = random.Random(seed), [], [], []
    for number in range(count):
        hardness = rng.uniform(0.01, 1)
        for _ in range(20):
            window.append(number)
            theirs.append(hardness)
            ours.append(0.5 * hardness * rng.uniform(0.99, 1.01))
    return tokens(window, ours), tokens(window, theirs)


class Statistics(unittest.TestCase):
    def test_the_ratio_of_means_is_that_of_the_sums(self):
        ours, theirs = tokens([0, 0, 1], [1, 2, 3]), tokens([0, 0, 1], [2, 4, 2])
        ratio, error = statistics.ratio_of_means(ours, theirs, ours.kl, theirs.kl)
        self.assertAlmostEqual(ratio, 6 / 8)
        # residuals 3 - 0.75 x 6 and 3 - 0.75 x 2; sqrt(2 / 1 (1.5^2 + 1.5^2)) / 8
        self.assertAlmostEqual(error, 3 / 8)

    def test_pairing_leaves_little_of_the_variation_between_windows(self):
        ours, theirs = correlated(50)
        ratio, error = statistics.ratio_of_means(ours, theirs, ours.kl, theirs.kl)
        self.assertAlmostEqual(ratio, 0.5, delta=0.01)
        alone = statistics.mean_difference(ours, tokens(ours.window, [0] * len(ours.kl)), ours.kl, [0] * len(ours.kl))
        self.assertLess(error, 0.02 * alone[1] / alone[0])

    def test_the_standard_error_is_the_spread_over_repetitions(self):
        drawn = [statistics.ratio_of_means(a, b, a.kl, b.kl) for a, b in (correlated(30, seed) for seed in range(200))]
        center = statistics.mean([ratio for ratio, _ in drawn])
        spread = math.sqrt(statistics.mean([(ratio - center) ** 2 for ratio, _ in drawn]))
        self.assertAlmostEqual(statistics.mean([error for _, error in drawn]) / spread, 1, delta=0.2)

    def test_bootstrap_of_a_mean_agrees_with_the_formula_and_repeats(self):
        ours, theirs = correlated(60)
        difference = statistics.bootstrap(ours, theirs, lambda a, b: statistics.mean(a) - statistics.mean(b))
        formula = statistics.mean_difference(ours, theirs, ours.kl, theirs.kl)[1]
        self.assertAlmostEqual(difference / formula, 1, delta=0.2)
        self.assertEqual(difference,
                         statistics.bootstrap(ours, theirs, lambda a, b: statistics.mean(a) - statistics.mean(b)))

    def test_nearest_rank_is_that_of_the_evaluation(self):
        self.assertEqual(statistics.nearest_rank(list(range(1, 201)), 0.99), 198)
        self.assertEqual(statistics.nearest_rank([7], 0.99), 7)

    def test_models_scored_on_different_tokens_are_not_compared(self):
        with self.assertRaisesRegex(ValueError, "same tokens"):
            statistics.paired(tokens([0, 0], [1, 1]), tokens([0, 1], [1, 1]))


class Verdict(unittest.TestCase):
    def row(self, **changes):
        return {"mix": "Q3_K_M", "kl_ratio": 0.5, "p99_ratio": 0.9, "top1_difference": 0.01, "byte_ratio": 0.999,
                **changes}

    def test_a_goal_is_met_or_what_is_missed_is_named(self):
        self.assertEqual(quality_report.verdict(self.row()), "met")
        for change, word in (({"kl_ratio": 0.61}, "ratio"), ({"p99_ratio": 1.01}, "p99"),
                             ({"byte_ratio": 1.0001}, "bytes"), ({"byte_ratio": 0.9979}, "bytes"),
                             ({"top1_difference": -0.001}, "top token")):
            self.assertEqual(quality_report.verdict(self.row(**change)), f"missed: {word}")
        self.assertEqual(quality_report.verdict(self.row(mix="Q4_K_S")), "")

    def test_the_budget_is_never_above_stocks_bytes(self):
        for size in (9314208, 1000003, 17):
            bits = quality.bits_of({"tensor_bytes": size, "parameters": 21169920})
            self.assertLessEqual(bits * 21169920 / 8, size)
            self.assertGreater(bits * 21169920 / 8, size * (1 - 1e-12))


class Run(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.folder = pathlib.Path(folder.name)
        self.text = self.folder / "a.txt"
        self.text.write_text("The model reads this text, a model of a model.\n" * 12, encoding="utf-8")
        self.log = self.folder / "asked"
        os.environ["STAND_IN_LOG"] = str(self.log)
        stand_in = self.folder / "stand_in.py"
        stand_in.write_text(STAND_IN, encoding="utf-8")
        self.addCleanup(setattr, quality, "STOCK", quality.STOCK)
        quality.STOCK = stand_in
        self.said = []

    def run_it(self, *arguments, mixes="Q4_0"):
        printed = []
        code = quality.main([str(TINY), "--data", str(self.text), "--valid", str(self.text), "--mixes", mixes,
                             "--context", "64", "--threads", "1", "--winnow", os.environ["WINNOW_BINARY"],
                             "--stock-python", sys.executable, "--stock-node", "nowhere",
                             "--work", str(self.folder / "work"), "--json", str(self.folder / "out.json"),
                             *arguments], out=printed.append, say=self.said.append)
        return code, "\n".join(printed)

    def result(self):
        return json.loads((self.folder / "out.json").read_text(encoding="utf-8"))

    def test_a_row_holds_both_files_at_equal_bytes_and_their_comparison(self):
        code, table = self.run_it("--in-stock", "Q4_0")
        self.assertEqual(code, 0, self.said)
        row = self.result()["mixes"][0]
        self.assertLessEqual(row["winnow"]["tensor_bytes"], row["stock"]["tensor_bytes"])
        self.assertEqual(row["tokens"], row["stock"]["tokens"])
        self.assertAlmostEqual(row["kl_ratio"], row["winnow"]["kl_divergence"] / row["stock"]["kl_divergence"])
        self.assertEqual(row["in_stock"]["winnow"]["kl_divergence"], 0.5)
        self.assertIn("| Q4_0 |", table)
        self.assertGreater(row["stock"]["short_rows"], 0.9)  # all rows of the tiny model are short

    def test_files_of_stock_are_made_once(self):
        self.run_it()
        self.run_it()
        self.assertEqual(self.log.read_text(encoding="utf-8").split(), ["importance", "quantize"])

    def test_the_ablation_compares_each_step_with_stock_and_with_another_row(self):
        steps = self.folder / "steps.json"
        steps.write_text(json.dumps({"steps": [
            {"name": "few tokens", "flags": ["--tokens", "100"]}, {"name": "all", "flags": []},
            {"name": "half", "flags": ["--tokens", "200"], "against": "few tokens"}]}), encoding="utf-8")
        code, table = self.run_it("--ablation", str(steps))
        self.assertEqual(code, 0, self.said)
        first, second, third = self.result()["ablation"]
        self.assertEqual((second["against"], third["against"]), ("few tokens", "few tokens"))
        self.assertAlmostEqual(third["step"]["kl_ratio"],
                               third["winnow"]["kl_divergence"] / first["winnow"]["kl_divergence"])
        self.assertNotIn("step", first)
        self.assertAlmostEqual(second["step"]["kl_ratio"],
                               second["winnow"]["kl_divergence"] / first["winnow"]["kl_divergence"])
        self.assertIn("few tokens", table)

    def test_a_program_that_fails_is_named_with_what_it_said(self):
        code, table = self.run_it(mixes="NO_SUCH_TYPE")
        self.assertEqual((code, table), (2, ""))
        self.assertIn("NO_SUCH_TYPE", self.said[-1])


if __name__ == "__main__":
    unittest.main(verbosity=2)
