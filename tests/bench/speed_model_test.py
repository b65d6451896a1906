# SPDX-FileCopyrightText: The Winnow authors
# SPDX-License-Identifier: Apache-2.0
"""make_speed_model as a program: its files run in winnow, and its mistakes are explained."""

import json
import os
import pathlib
import subprocess
import tempfile
import unittest

BINARY = pathlib.Path(os.environ["WINNOW_BINARY"])
GRAIN = pathlib.Path(os.environ["WINNOW_SOURCE_DIR"]) / "models" / "grain"


def run(program, *arguments):
    return subprocess.run([BINARY.parent / program, *map(str, arguments)], capture_output=True, check=False)


class SpeedModel(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.folder = pathlib.Path(folder.name)

    def make(self, name, *arguments):
        path = self.folder / name
        done = run("make_speed_model", *arguments, "-o", path)
        self.assertEqual(done.returncode, 0, done.stderr)
        return path

    def test_the_shape_is_what_inspect_finds(self):
        path = self.make("m.gguf", "--shape", "tiny", "--layers", 3, "--type", "Q4_K", "--output-type", "Q8_0")
        report = json.loads(run("winnow", "inspect", path, "--json", "-").stdout)
        types = {tensor["name"]: tensor["type"] for tensor in report["tensors"]}
        self.assertEqual(types["blk.2.ffn_up_exps.weight"], "Q4_K")
        self.assertEqual(types["output.weight"], "Q8_0")
        self.assertEqual(types["blk.0.ffn_gate_inp.weight"], "F32")
        self.assertNotIn("blk.3.ffn_up_exps.weight", types)

    def test_bench_runs_it(self):
        path = self.make("m.gguf", "--shape", "tiny-dense", "--type", "Q6_K")
        done = run("winnow", "bench", path, "--prompt", 8, "--generate", 4, "--repetitions", 1)
        self.assertEqual(done.returncode, 0, done.stderr)

    def test_inflated_grain_says_what_grain_says(self):
        path = self.make("wide.gguf", "--inflate", GRAIN, "--width", 512)
        question = ["-p", "In the beginning", "-n", 24, "--temp", 0]
        texts = [run("winnow", "run", model, *question).stdout for model in (GRAIN, path)]
        self.assertGreater(len(texts[0]), 24)
        self.assertEqual(texts[0], texts[1])

    def test_mistakes_are_usage_errors_that_say_what_to_write(self):
        out = ["-o", self.folder / "m.gguf"]
        for arguments, words in ((out, b"--shape or --inflate"),
                                 ([*out, "--shape", "tiny"], b"--type"),
                                 ([*out, "--shape", "gpt", "--type", "Q4_0"], b"olmoe-1b-7b"),
                                 ([*out, "--shape", "tiny", "--type", "Q9"], b"Q4_0"),
                                 ([*out, "--inflate", GRAIN, "--width", 8], b"128 wide"),
                                 (["--shape", "tiny", "--type", "Q4_0"], b"--output")):
            with self.subTest(arguments=arguments):
                done = run("make_speed_model", *arguments)
                self.assertEqual(done.returncode, 1)
                self.assertIn(words, done.stderr)
        self.assertEqual(list(self.folder.iterdir()), [])


if __name__ == "__main__":
    unittest.main()
