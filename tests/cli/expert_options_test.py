# SPDX-FileCopyrightText: The Winnow authors
# SPDX-License-Identifier: Apache-2.0
"""`winnow compress --expert-options` and `--tolerance`: one budget over single experts, or a loss in its place."""

import json
import unittest

from text_support import CommandTest, tiny


class ExpertOptions(CommandTest):
    def setUp(self):
        super().setUp()
        self.data = self.file("text.txt", "The model of a model reads a model.\n" * 40)
        self.out = self.folder / "small.gguf"
        self.report = self.folder / "report"

    def arguments(self, *options):
        return ("compress", tiny("plain"), "-o", self.out, "--force", "--data", self.data, "--context", 64,
                "--report", self.report, *options)

    def record(self):
        return json.loads((self.report / "compress.json").read_text(encoding="utf-8"))

    def smallest(self, names):
        error = self.refuse(3, ["possible file has"], *self.arguments("--budget", 1, "--expert-options", names))
        return int(error.split("possible file has ")[1].split()[0])

    def test_below_the_smallest_types_experts_are_replaced_and_everything_still_works(self):
        budget = (self.smallest("types") + self.smallest("all")) // 2
        self.succeed(*self.arguments("--budget", budget, "--expert-options", "all"))
        self.assertLessEqual(self.out.stat().st_size, budget)
        record = self.record()
        replacements = record["replacements"]
        chosen = [expert["chosen"] for expert in replacements["experts"] if "chosen" in expert]
        self.assertTrue(chosen)
        self.assertLessEqual(set(chosen), {"zero", "identity", "constant", "dropped"})
        self.assertTrue(replacements["rounds"])
        left_out = [group for group in record["groups"] if "chosen" not in group]
        self.assertEqual(len(left_out), 3 * len(chosen))
        for expert in replacements["experts"]:
            slope = replacements["kl_per_change"][expert["layer"]]
            for option in expert["options"]:
                self.assertAlmostEqual(option["predicted_kl"], slope * option["change"])
        layout = json.loads(self.succeed("inspect", self.out, "--json", "-").stdout)["layout"]
        self.assertEqual(layout, "extended")
        scores = json.loads(self.succeed("eval", self.out, "--data", self.data, "--context", 64, "--reference",
                                         tiny("plain"), "--json", "-").stdout)
        self.assertGreater(scores["kl_divergence"], 0)
        self.assertLess(scores["routing_agreement"], 1)
        self.succeed("bench", self.out, "--prompt", 8, "--generate", 4, "--repetitions", 1)

    def test_other_text_decides_and_predicts_nothing(self):
        budget = (self.smallest("types") + self.smallest("all")) // 2
        said = {}
        for share in (0, 0.5, 1):
            self.succeed(*self.arguments("--budget", budget, "--expert-options", "all", "--other-text", share))
            self.assertLessEqual(self.out.stat().st_size, budget)
            record = self.record()
            self.assertEqual(record["replacements"]["other_text"], share)
            for expert in record["replacements"]["experts"]:
                slope = record["replacements"]["kl_per_change"][expert["layer"]]
                for option in expert["options"]:
                    self.assertAlmostEqual(option["predicted_kl"], slope * option["change"])
            said[share] = record
        chosen = lambda record: [expert.get("chosen") for expert in record["replacements"]["experts"]]
        self.assertNotEqual(chosen(said[0]), chosen(said[1]))
        recipe = self.file("r.toml", 'version = 1\n[experts]\noptions = ["zero", "identity", "constant", "dropped", '
                                     '"shared", "narrow"]\nother_text = 1\n')
        # A file's budget would not do: its header says how it was asked for, in more or fewer bytes.
        bits = 8 * said[1]["tensor_bytes"] / said[1]["parameters"]
        replacements = []
        for flags in (("--recipe", recipe), ("--expert-options", "all", "--other-text", 1)):
            self.succeed(*self.arguments("--bits", bits, *flags))
            replacements.append(self.record()["replacements"])
        self.assertEqual(*replacements)

    def test_other_text_without_anything_to_weigh_is_refused(self):
        self.refuse(1, ["--other-text", "--expert-options"], *self.arguments("--bits", 6, "--other-text", 0.5))
        for share in ("-0.1", "1.1", "nan", "much"):
            self.refuse(1, ["--other-text"], *self.arguments("--bits", 6, "--expert-options", "all", "--other-text",
                                                             share))
        for line, text in ((3, "other_text = 0.5"), (4, 'options = ["types"]\nother_text = 2')):
            recipe = self.file("r.toml", f"version = 1\n[experts]\n{text}\n")
            self.refuse(1, [f"r.toml:{line}", "other_text"], *self.arguments("--bits", 6, "--recipe", recipe))
        recipe = self.file("r.toml", 'version = 1\n[experts]\noptions = ["types"]\n')
        self.refuse(1, ["leave out one"], *self.arguments("--bits", 6, "--recipe", recipe, "--other-text", 0.5))

    def test_a_recipe_says_the_same_as_the_flag(self):
        options = ("--expert-options", "types,constant,zero")
        self.succeed(*self.arguments("--budget", self.smallest("types"), *options))
        # The budget of a file would leave other room for tensors: its header says how it was asked for.
        bits = 8 * self.record()["tensor_bytes"] / self.record()["parameters"]
        self.succeed(*self.arguments("--bits", bits, *options))
        flag = self.record()
        recipe = self.file("r.toml", 'version = 1\n[experts]\noptions = ["types", "constant", "zero"]\n')
        self.succeed(*self.arguments("--bits", bits, "--recipe", recipe))
        said = self.record()
        for key in ("groups", "replacements", "predicted_kl", "measured"):
            self.assertEqual(said[key], flag[key])

    def test_a_tolerance_gives_the_smallest_file_within_it(self):
        sizes = []
        for tolerance in (0.3, 0.03):
            self.succeed(*self.arguments("--tolerance", tolerance))
            record = self.record()
            self.assertLessEqual(record["measured"]["kl_divergence"], tolerance)
            self.assertEqual(record["tolerance"], tolerance)
            self.assertLessEqual(min(a["measured_kl"] for a in record["attempts"]), tolerance)
            sizes.append(record["file_bytes"])
        self.assertLess(*sizes)

    def test_mistakes_are_named(self):
        self.refuse(1, ["'merged'", "constant"],
                    *self.arguments("--bits", 6, "--expert-options", "merged"))
        self.refuse(1, ["--portable"],
                    *self.arguments("--bits", 6, "--expert-options", "all", "--portable"))
        self.refuse(1, ["--allocation slopes"],
                    *self.arguments("--bits", 6, "--expert-options", "all", "--allocation", "pmq"))
        self.refuse(1, ["--tolerance", "--bits"], *self.arguments("--bits", 6, "--tolerance", 1))
        begin = "version = 1\nbits = 6\n[experts]\n"
        for text, names in {
                begin + 'options = ["merged"]\n': ("r.toml:4", "'merged'"),
                begin + "options = []\n": ("r.toml:4", "experts.options"),
                begin + 'options = "all"\n': ("r.toml:4", "experts.options"),
                "version = 1\ntolerance = 0\n": ("r.toml:2", "above 0"),
                "version = 1\nbits = 6\ntolerance = 1\n": ("r.toml:3", "contradicts"),
        }.items():
            self.refuse(1, names, *self.arguments("--recipe", self.file("r.toml", text)))
        recipe = self.file("r.toml", begin + 'options = ["zero"]\n')
        self.refuse(1, ["leave out one"], *self.arguments("--recipe", recipe, "--expert-options", "all"))


if __name__ == "__main__":
    unittest.main()
