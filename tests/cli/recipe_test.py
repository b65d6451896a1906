# SPDX-FileCopyrightText: The Winnow authors
# SPDX-License-Identifier: Apache-2.0
"""`winnow compress --recipe`: experts left out, and recipes that are refused before any work."""

import json
import random
import struct
import unittest

from text_support import CommandTest, tiny


class Recipe(CommandTest):
    def setUp(self):
        super().setUp()
        self.data = self.file("text.txt", "The model of a model reads a model.\n" * 40)
        self.out = self.folder / "out" / "small.gguf"
        self.out.parent.mkdir()

    def arguments(self, recipe, *options, data=True):
        text = ("--data", self.data, "--context", 64) if data else ()
        return ("compress", tiny("plain"), "-o", self.out, "--recipe", self.file("r.toml", recipe),
                *text, *options)

    def statistics(self):
        path = self.folder / "stats"
        if not path.exists():
            self.succeed("profile", tiny("plain"), "--data", self.data, "--context", 64, "-o", path)
        return ("--statistics", path)

    def left(self):
        return sorted(path.name for path in self.out.parent.iterdir())

    def test_experts_are_left_out_and_the_record_says_which(self):
        report = self.folder / "report"
        recipe = 'version = 1\nbits = 6\n[experts]\nkeep = 5\nselect = "reap"\n'
        self.succeed(*self.arguments(recipe, "--report", report), *self.statistics())
        record = json.loads((report / "compress.json").read_text(encoding="utf-8"))
        experts = record["experts"]
        self.assertEqual((experts["select"], experts["keep"]), ("reap", 5))
        self.assertEqual([len(kept) for kept in experts["kept"]], [5, 5])
        self.assertLessEqual(record["bits_per_weight"], 6)
        self.assertGreater(record["measured"]["kl_divergence"], 0)
        spec = json.loads(self.succeed("inspect", self.out, "--json", "-").stdout)
        self.assertEqual(spec["spec"]["num_experts"], 5)
        self.succeed("eval", self.out, "--data", self.data, "--context", 64, "--reference", tiny("plain"))

    def test_the_budget_may_stand_on_either_side_but_once(self):
        experts = '[experts]\nkeep = 5\nselect = "aimer"\n'
        self.refuse(1, ["--budget", "--bits"], *self.arguments("version = 1\n" + experts))
        self.refuse(1, ["r.toml", "budget"], *self.arguments("version = 1\nbits = 6\n", "--bits", 6))
        self.succeed(*self.arguments("version = 1\n" + experts, "--bits", 6))

    def test_mistakes_are_named_with_their_line(self):
        begin = "version = 1\nbits = 6\n"
        mistakes = {
            "version = 1\nbits = [\n": ("r.toml:", "TOML"),
            "bits = 6\n": ("r.toml:1", "version"),
            "version = 2\n": ("r.toml:1", "version 2"),
            begin + "passes = 3\n": ("r.toml:3", "passes", "budget"),
            begin + 'budget = "30%"\n': ("r.toml:2", "contradicts"),
            "version = 1\nbits = 99\n": ("r.toml:2", "0.1"),
            "version = 1\nbits = true\n": ("r.toml:2", "number"),
            "version = 1\nbudget = 30\n": ("r.toml:2", "30%"),
            begin + "experts = 3\n": ("r.toml:3", "table"),
            begin + '[experts]\nselect = "reap"\n': ("r.toml:3", "keep"),
            begin + "[experts]\nkeep = 5\n": ("r.toml:3", "select", "reap"),
            begin + '[experts]\nkeep = 0\nselect = "reap"\n': ("r.toml:4", "1 or more"),
            begin + '[experts]\nkeep = 5.5\nselect = "reap"\n': ("r.toml:4", "whole"),
            begin + '[experts]\nkeep = 5\nselect = "luck"\n': ("r.toml:5", "luck", "gram"),
            begin + '[experts]\nkeep = 5\nselect = "reap"\nfoo = 1\n': ("r.toml:6", "experts.foo"),
        }
        for recipe, words in mistakes.items():
            with self.subTest(recipe):
                self.refuse(1, words, *self.arguments(recipe))
        self.assertEqual(self.left(), [])

    def test_what_the_model_or_the_command_lacks_is_named(self):
        def recipe(keep, select):
            return f'version = 1\nbits = 6\n[experts]\nkeep = {keep}\nselect = "{select}"\n'
        self.refuse(1, ["r.toml:4", "--statistics", "profile"], *self.arguments(recipe(5, "reap")))
        self.refuse(1, ["r.toml:4", "9 experts", "keep 2 to 8"], *self.arguments(recipe(9, "aimer")))
        self.refuse(1, ["r.toml:4", "1 experts", "keep 2 to 8"], *self.arguments(recipe(1, "aimer")))
        self.refuse(1, ["r.toml:4", "--data"], *self.arguments(recipe(5, "aimer"), data=False))
        self.assertEqual(self.left(), [])

    def test_passes_that_contradict_each_other_are_named_with_their_line(self):
        recipe = 'version = 1\nbits = 6\n[experts]\noptions = ["narrow", "zero"]\n'
        contradictions = {
            ("--portable",): "--portable",
            ("--allocation", "pmq"): "--allocation slopes or search",
            ("--transforms", "inner-order"): "--transforms",
            ("--method", "lorc"): "low-rank",
            ("--hessians", "diagonal"): "'diagonal'",
            ("--hessians", "layer"): "--hessians expert",
            ("--expert-options", "zero"): "leave out one",
            ("--other-text", 0.2): "leave out one",
        }
        for flags, word in contradictions.items():
            with self.subTest(flags):
                self.refuse(1, ["r.toml:4", word], *self.arguments(recipe, *flags))
        self.refuse(1, ["r.toml:4", "--data"], *self.arguments(recipe, data=False))
        self.refuse(1, ["r.toml:4", "--sequential"], *self.arguments(recipe, "--sequential"))
        both = 'version = 1\nbits = 6\n[experts]\nkeep = 5\nselect = "aimer"\noptions = ["dropped"]\n'
        self.refuse(1, ["r.toml:6", "of the whole model"], *self.arguments(both, "--portable"))
        self.assertEqual(self.left(), [])

    def test_super_experts_that_go_are_named(self):
        model = self.tiny_copy()
        path = model / "model.safetensors"
        data = bytearray(path.read_bytes())
        (length,) = struct.unpack_from("<Q", data)
        entry = json.loads(data[8:8 + length])["model.layers.1.mlp.experts.7.down_proj.weight"]
        self.assertEqual(entry["dtype"], "BF16")
        for at in range(*(8 + length + offset for offset in entry["data_offsets"]), 2):
            if data[at + 1] & 0x7f or data[at] & 0x80:
                data[at + 1] += 3  # 64 times as large
        path.write_bytes(data)
        rng = random.Random(5)  # text that reaches all experts
        text = self.file("many.txt", "".join(chr(rng.randrange(33, 127)) for _ in range(2400)))
        statistics = self.folder / "loud"
        self.succeed("profile", model, "--data", text, "--context", 64, "-o", statistics)

        def compress(keep, protect):
            recipe = (f'version = 1\nbits = 9\n[experts]\nkeep = {keep}\nselect = "frequency"\n'
                      f"protect_super_experts = {protect}\n")
            return self.succeed("compress", model, "-o", self.out, "--force", "--recipe", self.file("r.toml", recipe),
                                "--data", text, "--context", 64, "--statistics", statistics).stderr
        self.assertIn("7 of layer 1", compress(2, "false"))
        self.assertNotIn("super experts", compress(2, "true"))


if __name__ == "__main__":
    unittest.main()
