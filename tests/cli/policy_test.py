# SPDX-FileCopyrightText: The Winnow authors
# SPDX-License-Identifier: Apache-2.0
"""Fewer experts per token: `compress --skip-ratios`, and the flags of run, eval and bench."""

import json
import struct
import unittest

import support
from text_support import CommandTest, tiny

SHARES_KEY = b"winnow.policy.skip_shares"
RATIOS_KEY = b"winnow.policy.skip_ratios"
# Behind a key: the types of value and elements, and their number.
ARRAY_HEADER = 4 + 4 + 8


class Policy(CommandTest):
    def setUp(self):
        super().setUp()
        self.data = self.file("text.txt", "The router of a model sends a token to its experts.\n" * 60)

    def compressed(self, *options, name="plain"):
        out = self.folder / "small.gguf"
        self.succeed("compress", tiny(name), "-o", out, "--force", "--data", self.data, "--context", 64,
                     "--bits", 8, "--method", "rtn", "--allocation", "plain", *options)
        return out

    def scores(self, model, *options):
        return self.json_of("eval", model, "--data", self.data, "--context", 64, *options)


class Skipping(Policy):
    def test_the_measured_share_is_near_the_asked_one_and_reported(self):
        out = self.compressed("--skip-ratios")
        plain = self.scores(out)
        self.assertNotIn("routing_policy", plain)
        last = 0
        for share in ("0.1", "22.5%", "50%"):
            result = self.scores(out, "--skip-experts", share, "--reference", tiny("plain"))
            policy = result["routing_policy"]
            asked = float(share.rstrip("%")) / (100 if share.endswith("%") else 1)
            self.assertAlmostEqual(policy["asked_share"], asked)
            # Other weights and other inputs behind layers that skip: near, not equal.
            self.assertAlmostEqual(policy["skipped_share"], asked, delta=0.08)
            self.assertEqual(len(policy["layers"]), 2)
            self.assertGreater(policy["skipped_share"], last)
            last = policy["skipped_share"]
            self.assertNotEqual(result["nll"], plain["nll"])
            self.assertLessEqual(result["routing_agreement"], 1 - asked + 0.08)
        # Of two experts a token, half are skipped: the best is left.
        self.assertEqual(last, 0.5)
        alone = self.scores(out, "--experts-per-token", 1, "--gates-over", 1)
        self.assertEqual(alone["nll"], self.scores(out, "--skip-experts", 0.5)["nll"])
        self.assertEqual(alone["routing_policy"]["skipped_share"], 0.5)
        nothing = self.scores(out, "--skip-experts", 0)
        self.assertEqual(nothing["nll"], plain["nll"])
        self.assertEqual(nothing["routing_policy"]["skipped_share"], 0)

    def test_a_line_tells_people(self):
        out = self.compressed("--skip-ratios")
        text = self.succeed("eval", out, "--data", self.data, "--context", 64, "--skip-experts", "50%").stdout
        self.assertIn("experts skipped: 50.00%; by layer: 50.00% 50.00%", text)
        self.assertIn("up to 50% of the experts", self.succeed("inspect", out).stdout)
        shares = self.json_of("inspect", out)["skip_shares"]
        self.assertEqual(len(shares), 10)
        self.assertNotIn("skip_shares", self.json_of("inspect", tiny("plain")))

    def test_threads_and_commands_agree(self):
        out = self.compressed("--skip-ratios")
        runs = {self.assert_ok(support.winnow("run", out, "-p", "The model", "-n", 12, "--ignore-eos", "-t", threads,
                                              "--skip-experts", "30%")).stdout for threads in (1, 2, 3)}
        self.assertEqual(len(runs), 1)
        bench = self.json_of("bench", out, "--prompt", 16, "--generate", 8, "--repetitions", 1, "--skip-experts", 0.5)
        whole = self.json_of("bench", out, "--prompt", 16, "--generate", 8, "--repetitions", 1)
        self.assertEqual(bench["routing_policy"]["skipped_share"], 0.5)
        self.assertNotIn("routing_policy", whole)
        self.assertLess(bench["decode_bytes_per_token"], whole["decode_bytes_per_token"])

    def test_converted_files_keep_the_ratios(self):
        out = self.compressed("--skip-ratios")
        converted = self.folder / "f16.gguf"
        self.succeed("convert", out, "-o", converted, "--type", "F16")
        self.assertEqual(self.json_of("inspect", converted)["skip_shares"],
                         self.json_of("inspect", out)["skip_shares"])

    def test_damaged_keys_are_named(self):
        out = self.compressed("--skip-ratios")
        sound = out.read_bytes()
        for key, place, value in ((RATIOS_KEY, 3, float("nan")), (RATIOS_KEY, 9, 1.5), (SHARES_KEY, 0, 0.4)):
            damaged = bytearray(sound)
            at = damaged.index(key) + len(key) + ARRAY_HEADER + 4 * place
            damaged[at:at + 4] = struct.pack("<f", value)
            path = self.file("damaged.gguf", bytes(damaged))
            self.refuse(2, [key.decode()], "eval", path, "--data", self.data, "--context", 64,
                        "--skip-experts", 0.1)
            self.refuse(2, [key.decode()], "inspect", path)
            self.succeed("run", path, "-p", "x", "-n", 1)  # nobody asks for them

    def test_mistakes_are_named_with_a_remedy(self):
        out = self.compressed()
        for model in (out, tiny("plain")):
            self.refuse(1, ["--skip-experts", "compress the model with --skip-ratios"],
                        "eval", model, "--data", self.data, "--context", 64, "--skip-experts", 0.1)
        out = self.compressed("--skip-ratios")
        self.refuse(1, ["--skip-experts", "0.5"], "run", out, "-p", "x", "--skip-experts", 0.6)
        self.refuse(1, ["--skip-experts"], "run", out, "-p", "x", "--skip-experts", "-1%")
        self.refuse(1, ["--skip-experts", "--experts-per-token"],
                    "run", out, "-p", "x", "--skip-experts", 0.1, "--experts-per-token", 1)
        dense = tiny("plain").parent / "llama-plain"
        self.refuse(1, ["no experts"], "run", dense, "-p", "x", "--skip-experts", 0.1)
        arguments = ("-o", self.folder / "no.gguf", "--bits", 6, "--skip-ratios")
        self.refuse(1, ["--skip-ratios", "--data"], "compress", tiny("plain"), *arguments)
        self.refuse(1, ["--skip-ratios", "no experts"], "compress", dense, *arguments, "--data", self.data)


class Reduced(Policy):
    def test_the_models_own_numbers_change_nothing_and_fewer_do(self):
        own = self.scores(tiny("odd-sizes"))
        same = self.scores(tiny("odd-sizes"), "--experts-per-token", 3, "--gates-over", 3)
        self.assertEqual(same["nll"], own["nll"])
        self.assertEqual(same["routing_policy"],
                         {"experts_per_token": 3, "gates_over": 3, "skipped_share": 0,
                          "layers": same["routing_policy"]["layers"]})
        corrected = self.scores(tiny("odd-sizes"), "--experts-per-token", 2)
        naive = self.scores(tiny("odd-sizes"), "--experts-per-token", 2, "--gates-over", 2)
        self.assertEqual(len({own["nll"], corrected["nll"], naive["nll"]}), 3)
        self.assertAlmostEqual(naive["routing_policy"]["skipped_share"], 1 / 3)

    def test_limits_are_named(self):
        for options in (("--experts-per-token", 4), ("--experts-per-token", 0), ("--gates-over", 99)):
            self.refuse(1, [options[0]], "run", tiny("odd-sizes"), "-p", "x", *options)

    def test_gates_that_are_not_divided_stay_and_a_warning_says_so(self):
        done = self.succeed("eval", tiny("not-renormalised"), "--data", self.data, "--context", 64,
                            "--gates-over", 4, "--json", "-")
        self.assertIn("--gates-over changes nothing", done.stderr)
        self.assertEqual(json.loads(done.stdout)["nll"], self.scores(tiny("not-renormalised"))["nll"])


if __name__ == "__main__":
    unittest.main()
