# SPDX-FileCopyrightText: The Winnow authors
# SPDX-License-Identifier: Apache-2.0
"""`winnow eval`: the golden likelihoods of the bundled model, keys, wrong data, thread counts."""

import json
import math
import unittest

from text_support import GRAIN, CommandTest, tiny, winnow

# Measured: 2e-7. A forward pass with one wrong detail (an epsilon, a rotation) is off by percents.
RELATIVE_LIMIT = 1e-3
OWN_KEYS = {"tokens", "nll", "nll_standard_error", "perplexity"}
REFERENCE_KEYS = {"kl_divergence", "kl_standard_error", "kl_p99", "top1_agreement",
                  "routing_agreement", "esap"}


class Golden(CommandTest):
    def test_every_domain_has_its_golden_likelihood(self):
        golden = json.loads((GRAIN / "golden" / "nll.json").read_text(encoding="utf-8"))
        result = self.json_of("eval", GRAIN, "--data", GRAIN / "data" / "valid")
        self.assertEqual(result["schema_version"], 1)
        self.assertEqual(result["context"], golden["context"])
        self.assertEqual(set(result["domains"]), set(golden["domains"]))
        for name, expected in [("all", golden), *golden["domains"].items()]:
            scores = result if name == "all" else result["domains"][name]
            with self.subTest(domain=name):
                self.assertEqual(scores["tokens"], expected["tokens"])
                self.assertAlmostEqual(scores["nll"] / expected["nll"], 1, delta=RELATIVE_LIMIT)
                self.assertAlmostEqual(scores["perplexity"], math.exp(scores["nll"]), places=9)
                self.assertEqual(set(scores) & (OWN_KEYS | REFERENCE_KEYS), OWN_KEYS)


class KeysAndValues(CommandTest):
    def test_smaller_types_are_farther_from_the_model_with_f32_which_the_reference_keeps(self):
        distance, nll = {}, []
        for kv_type in ("f32", "f16", "q8_0"):
            result = self.json_of("eval", GRAIN, "--data", GRAIN / "data" / "valid", "--tokens", 2048,
                                  "--reference", GRAIN, "--kv-type", kv_type)
            self.assertEqual(result["kv_type"], kv_type)
            nll.append(result["nll"])
            distance[kv_type] = result["kl_divergence"]
            print(f"{kv_type}: nll {result['nll']:.6f}, KL {result['kl_divergence']:.3g}")
            self.assertAlmostEqual(nll[-1] / nll[0], 1, delta=1e-3)
        self.assertEqual(distance["f32"], 0)
        # Half a step of q8_0 is 2^-8 of a block's largest element, half an ulp of f16 at most
        # 2^-11 of an element. Measured: 2e-5 and 4e-4, most of it from changed expert choices.
        self.assertLess(distance["f32"], distance["f16"])
        self.assertLess(distance["f16"], distance["q8_0"])
        self.assertLess(distance["q8_0"], 1e-3)


class Sparsity(CommandTest):
    CALIBRATED = ("--sparsity-data", GRAIN / "data" / "calib", "--sparsity-tokens", 4096)

    def evaluate(self, *options):
        # A whole window of each domain, as in the calibration: early positions differ from late ones.
        return self.json_of("eval", GRAIN, "--data", GRAIN / "data" / "valid", "--tokens", 4096,
                            "--reference", GRAIN, *options)

    def test_more_sparsity_costs_more_and_is_what_was_asked_for_on_other_text(self):
        dense = self.evaluate()
        self.assertNotIn("sparsity", dense)
        before = 0
        for level in (0, 0.3, 0.6):
            result = self.evaluate("--sparsity", f"chess:{level}", *self.CALIBRATED)
            sparsity = result.pop("sparsity")
            self.assertEqual((sparsity["system"], sparsity["level"]), ("chess", level))
            self.assertIn("arXiv", sparsity["source"])
            self.assertEqual(len(sparsity["layers"]), 6)
            self.assertAlmostEqual(sparsity["realised"], level, delta=0.01)
            print(f"chess:{level}: realised {sparsity['realised']:.4f}, KL {result['kl_divergence']:.4f}")
            if level == 0:
                self.assertEqual(result, dense)
            self.assertGreaterEqual(result["kl_divergence"], before)
            before = result["kl_divergence"]
        self.assertGreater(before, 0)

    def test_a_system_without_calibration_and_its_line_below_the_table(self):
        done = self.succeed("eval", GRAIN, "--data", GRAIN / "data" / "valid", "--tokens", 256,
                            "--sparsity", "wina:0.5")
        self.assertRegex(done.stdout.splitlines()[-1], r"^neurons left out: 50.0%; by layer:( 50.0%){6}$")

    def test_what_is_wrong_is_said_with_the_flag_and_the_remedy(self):
        base = ("eval", tiny("plain"), "--data", self.file("a.txt", "text"), "--context", 64)
        for words, options in (
                (["--sparsity", "'magic'", "chess, teal, wina, cett, top, mass"],
                 ("--sparsity", "magic:0.5")),
                (["--sparsity", "1.5", "chess:N", "from 0 to 1"], ("--sparsity", "chess:1.5")),
                (["--sparsity", "wina:N"], ("--sparsity", "wina")),
                (["--sparsity cett", "--sparsity-data PATH"], ("--sparsity", "cett:0.2")),
                (["--sparsity wina", "leave out --sparsity-data"],
                 ("--sparsity", "wina:0.5", *self.CALIBRATED)),
                (["--sparsity-data", "--sparsity only"], self.CALIBRATED)):
            self.refuse(1, words, *base, *options)


class KeyEntropy(CommandTest):
    def test_every_head_has_a_share_and_the_scores_stay(self):
        base = ("eval", GRAIN, "--data", GRAIN / "data" / "valid", "--tokens", 512)
        result = self.json_of(*base, "--key-entropy")
        entropy = result.pop("key_entropy")
        self.assertEqual(result, self.json_of(*base))
        self.assertGreater(entropy["tokens"], 512)
        self.assertEqual(len(entropy["layers"]), 6)
        for layer in entropy["layers"]:
            self.assertEqual(len(layer["heads"]), 4)
            self.assertTrue(all(0 < head < 1 for head in layer["heads"]), layer)
            self.assertGreater(layer["nuclear_norm"], 0)
        self.assertEqual(self.json_of(*base, "--key-entropy", "--sparsity", "top:0.9")["key_entropy"], entropy)
        table = self.succeed(*base, "--key-entropy").stdout.splitlines()
        self.assertEqual([line.split()[0] for line in table[-6:]], list("012345"))


class Results(CommandTest):
    def setUp(self):
        super().setUp()
        self.text = self.file("data/a.txt", "The model reads this text, a model of a model.\n" * 6)
        self.file("data/b.jsonl", '{"text": "odel el od"}\n{"text": "another line"}\n')
        self.data = self.text.parent

    def test_a_reference_adds_its_keys_to_the_whole_and_to_each_domain(self):
        result = self.json_of("eval", tiny("sharded"), "--data", self.data, "--context", 64,
                              "--reference", tiny("plain"))
        for scores in (result, *result["domains"].values()):
            self.assertLessEqual(OWN_KEYS | REFERENCE_KEYS, set(scores))
            self.assertGreater(scores["kl_divergence"], 0)
            self.assertGreaterEqual(scores["kl_p99"], scores["kl_divergence"] / 2)
            for share in ("top1_agreement", "routing_agreement", "esap"):
                self.assertTrue(0 <= scores[share] <= 1, share)
        self.assertEqual(result["tokens"], sum(d["tokens"] for d in result["domains"].values()))

    def test_tokens_out_has_every_token_that_the_scores_count(self):
        target = self.folder / "tokens.json"
        result = self.json_of("eval", tiny("sharded"), "--data", self.data, "--context", 64,
                              "--reference", tiny("plain"), "--tokens-out", target)
        tokens = json.loads(target.read_text())
        self.assertEqual(tokens["schema_version"], 1)
        self.assertTrue(tokens["has_reference"])
        self.assertEqual(tokens["domains"], list(result["domains"]))
        lists = [tokens[key] for key in ("domain", "window", "nll", "kl_divergence", "same_top")]
        self.assertEqual({len(values) for values in lists}, {result["tokens"]})
        for number, (name, scores) in enumerate(result["domains"].items()):
            here = [i for i, domain in enumerate(tokens["domain"]) if domain == number]
            self.assertEqual(len(here), scores["tokens"], name)
            for key in ("nll", "kl_divergence"):
                total = sum(tokens[key][i] for i in here)
                self.assertAlmostEqual(total / len(here), scores[key], places=12)
        self.assertAlmostEqual(sum(tokens["same_top"]) / len(tokens["same_top"]), result["top1_agreement"])
        self.assertEqual(tokens["window"], sorted(tokens["window"]))
        self.assertLessEqual(max(tokens["window"].count(w) for w in set(tokens["window"])), 63)

    def test_tokens_out_without_a_reference_has_likelihoods_only(self):
        target = self.folder / "tokens.json"
        self.succeed("eval", tiny("plain"), "--data", self.data, "--context", 64, "--tokens-out", target)
        tokens = json.loads(target.read_text())
        self.assertFalse(tokens["has_reference"])
        self.assertNotIn("kl_divergence", tokens)
        self.assertGreater(min(tokens["nll"]), 0)

    def test_a_model_is_at_no_distance_from_itself(self):
        result = self.json_of("eval", tiny("plain"), "--data", self.data, "--context", 64,
                              "--reference", tiny("plain"))
        self.assertEqual((result["kl_divergence"], result["kl_p99"]), (0, 0))
        self.assertEqual((result["top1_agreement"], result["routing_agreement"]), (1, 1))
        self.assertEqual(result["esap"], 1)

    def test_results_are_the_same_bit_for_bit_with_one_thread_and_with_two(self):
        def scores(model, reference, data, threads):
            result = self.json_of("eval", model, "--data", data, "--reference", reference,
                                  "--tokens", 600, "--context", 128, "-t", threads)
            self.assertEqual(result.pop("threads"), threads)
            return result
        small = self.folder / "small.gguf"
        self.succeed("convert", GRAIN, "-o", small, "--type", "Q4_0")
        for case in ((tiny("sharded"), tiny("plain"), self.data),
                     (small, GRAIN, GRAIN / "data" / "valid")):
            self.assertEqual(scores(*case, 1), scores(*case, 2))

    def test_tokens_are_shared_by_the_domains(self):
        result = self.json_of("eval", GRAIN, "--data", GRAIN / "data" / "valid", "--tokens", 100)
        self.assertEqual(result["tokens"], 100)
        self.assertEqual([d["tokens"] for d in result["domains"].values()], [13] * 4 + [12] * 4)

    def test_models_with_experts_in_other_layers_are_compared_without_routing(self):
        arguments = ("eval", tiny("sparse-step-2"), "--data", self.data, "--context", 64,
                     "--reference", tiny("plain"))
        self.assertEqual(REFERENCE_KEYS - set(self.json_of(*arguments)), {"routing_agreement"})
        self.assertRegex(self.succeed(*arguments).stdout.splitlines()[-1], r"% +- +0\.\d+$")

    def test_the_table_names_each_domain_and_the_whole(self):
        lines = self.succeed("eval", tiny("plain"), "--data", self.data,
                             "--context", 64).stdout.splitlines()
        self.assertEqual([line.split()[0] for line in lines], ["domain", "a", "b", "all"])

    def test_json_into_a_file_leaves_the_table_on_standard_output(self):
        target = self.folder / "result.json"
        done = self.succeed("eval", tiny("plain"), "--data", self.data, "--context", 64,
                            "--json", target)
        self.assertIn("perplexity", done.stdout)
        self.assertEqual(set(json.loads(target.read_text())["domains"]), {"a", "b"})

    def test_bytes_that_are_no_utf8_are_scored_as_bytes(self):
        data = self.file("broken.txt", b"ab\xff\xfe\xc3")
        self.assertEqual(self.json_of("eval", tiny("plain"), "--data", data,
                                      "--context", 64)["tokens"], 5)


class Refusals(CommandTest):
    def evaluate(self, code, words, *data, model=None, options=()):
        self.refuse(code, words, "eval", model or tiny("plain"), "--data", *data, "--context", 64,
                    *options)

    def test_missing_and_empty_data(self):
        self.evaluate(2, ["absent.txt"], self.folder / "absent.txt")
        (self.folder / "empty").mkdir()
        self.evaluate(2, ["empty", "no files"], self.folder / "empty")
        self.evaluate(2, ["void.txt", "no tokens"], self.file("void.txt", ""))

    def test_a_broken_jsonl_line_is_named(self):
        good = '{"text": "x"}\n'
        for line in ('{"text": 1}', '{"text": "x"', '{"messages": []}'):
            self.evaluate(2, ["chat.jsonl", "line 2"], self.file("chat.jsonl", good + line + "\n"))
        self.evaluate(2, ["chat.jsonl", "line 1"], self.file("chat.jsonl", b'{"text": "\xff"}'))

    def test_a_model_that_is_none(self):
        data = self.file("a.txt", "text")
        self.evaluate(2, ["absent"], data, model=self.folder / "absent")
        self.evaluate(2, ["a.txt"], data, model=data)

    def test_a_reference_with_another_vocabulary(self):
        self.evaluate(2, ["vocabular"], self.file("a.txt", "text"), options=("--reference", GRAIN))

    def test_a_context_beyond_the_models_positions(self):
        data = self.file("a.txt", "text")
        self.refuse(1, ["--context", "129", "128"], "eval", tiny("plain"), "--data", data,
                    "--context", 129)
        self.refuse(1, ["--context"], "eval", tiny("plain"), "--data", data, "--context", 1)

    def test_no_data_at_all(self):
        self.assertEqual(winnow("eval", tiny("plain")).returncode, 1)

    def test_a_result_file_that_cannot_be_written(self):
        data = self.file("a.txt", "text")
        self.evaluate(4, ["nowhere"], data,
                      options=("--json", self.folder / "nowhere" / "result.json"))


if __name__ == "__main__":
    unittest.main()
