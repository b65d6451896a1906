# SPDX-FileCopyrightText: The Winnow authors
# SPDX-License-Identifier: Apache-2.0
"""`winnow bench`: the JSON contract and the sums behind its fractions."""

import json
import signal
import unittest

from support import TINY, CommandTest, start, winnow

SHORT = ["--prompt", 16, "--generate", 4, "--repetitions", 3, "-t", 1]
KEYS = {"schema_version", "model", "prompt", "generate", "repetitions",
        "prefill_tokens_per_second", "decode_tokens_per_second", "decode_bytes_per_token",
        "warm_up_tokens_per_second",
        "read_bandwidth", "read_bandwidth_4k", "bandwidth_fraction", "bandwidth_fractions",
        "int8_peak_ops", "prefill_peak_fractions",
        "prefill_peak_fraction", "peak_rss", "startup_seconds", "first_token_seconds", "sequences",
        "isa", "threads", "kv_type", "seed", "version", "commit"}
TOGETHER_KEYS = {"batch_tokens_per_second", "decode_bytes_per_step", "batch_speedup",
                 "batch_speedups", "batch_bound",
                 "batch_bound_fraction"}
# Of the tiny model, by hand (src/engine/cost_test.cc).
WEIGHT_BYTES = 2 * (2 * (128 * 32 + 32 * 64 + 8 * 32 + 2 * 3 * 32 * 32 + 2 * 32 + 2 * 16)
                    + 32 + 272 * 32 + 32)
KV_BYTES = 2 * 2 * 32 * 2
EXPERT_BYTES = 3 * 32 * 32 * 2
EXPERTS, TOP_K, LAYERS = 8, 2, 2
MULTIPLY_ADDS = 2 * (128 * 32 + 32 * 64 + 8 * 32 + 2 * 3 * 32 * 32)


class Bench(CommandTest):
    def test_json_has_every_key_and_its_fractions_follow_from_it(self):
        done = self.assert_ok(winnow("bench", TINY, *SHORT, "--json", "-"))
        report = json.loads(done.stdout)
        self.assertEqual(set(report), KEYS)
        self.assertEqual((report["prompt"], report["generate"], report["repetitions"]), (16, 4, 3))
        for key in ("prefill_tokens_per_second", "decode_tokens_per_second",
                    "bandwidth_fractions", "prefill_peak_fractions"):
            self.assertLessEqual(report[key]["min"], report[key]["median"])
            self.assertLessEqual(report[key]["median"], report[key]["max"])
            self.assertGreater(report[key]["min"], 0)
        self.assertEqual(report["decode_bytes_per_token"], WEIGHT_BYTES + 2 * KV_BYTES)
        self.assertGreaterEqual(report["read_bandwidth"], report["read_bandwidth_4k"])
        self.assertAlmostEqual(
            report["bandwidth_fraction"], report["decode_tokens_per_second"]["median"]
            * report["decode_bytes_per_token"] / report["read_bandwidth"])
        self.assertAlmostEqual(
            report["prefill_peak_fraction"], 2 * (MULTIPLY_ADDS + 272 * 32 / 16)
            * report["prefill_tokens_per_second"]["median"] / report["int8_peak_ops"])
        self.assertEqual(report["threads"], 1)

    def test_keys_and_values_count_with_the_bytes_of_their_type(self):
        for kv_type, size in (("f32", 4 * 16), ("f16", 2 * 16), ("q8_0", 16 + 2)):
            report = json.loads(winnow("bench", TINY, *SHORT, "--kv-type", kv_type,
                                       "--json", "-").stdout)
            self.assertEqual(report["kv_type"], kv_type)
            self.assertEqual(report["decode_bytes_per_token"], WEIGHT_BYTES + 2 * 2 * 2 * 2 * size)

    def test_a_text_can_give_the_tokens(self):
        text = self.folder / "text.txt"
        text.write_text("of the river and the bridge", encoding="utf-8")
        report = json.loads(winnow("bench", TINY, *SHORT, "--data", text, "--json", "-").stdout)
        self.assertEqual(set(report), KEYS)
        text.write_text("", encoding="utf-8")
        self.assert_fails(winnow("bench", TINY, *SHORT, "--data", text), 2, "text.txt")

    def test_the_first_token_comes_after_loading(self):
        report = json.loads(winnow("bench", TINY, *SHORT, "--json", "-").stdout)
        self.assertGreater(report["startup_seconds"], 0)
        self.assertGreater(report["first_token_seconds"], report["startup_seconds"])

    def test_sequences_are_decoded_together_and_compared_by_their_bytes(self):
        done = self.assert_ok(winnow("bench", TINY, *SHORT, "--sequences", 4, "--json", "-"))
        report = json.loads(done.stdout)
        self.assertEqual(set(report), KEYS | TOGETHER_KEYS)
        self.assertEqual(report["sequences"], 4)
        # Dense weights once, a row of the embedding, keys and values for each, and in each layer
        # between the experts of one token and all of them.
        dense = WEIGHT_BYTES - LAYERS * TOP_K * EXPERT_BYTES + 3 * 2 * 32 + 4 * 2 * KV_BYTES
        self.assertGreater(report["decode_bytes_per_step"], dense + LAYERS * TOP_K * EXPERT_BYTES)
        self.assertLessEqual(report["decode_bytes_per_step"],
                             dense + LAYERS * EXPERTS * EXPERT_BYTES)
        self.assertAlmostEqual(
            report["batch_bound"],
            4 * report["decode_bytes_per_token"] / report["decode_bytes_per_step"])
        self.assertAlmostEqual(
            report["batch_speedup"], report["batch_tokens_per_second"]["median"]
            / report["decode_tokens_per_second"]["median"])
        self.assertAlmostEqual(report["batch_bound_fraction"],
                               report["batch_speedup"] / report["batch_bound"])

    def test_the_bytes_of_a_step_are_the_same_in_every_run(self):
        runs = [json.loads(winnow("bench", TINY, *SHORT, "--sequences", 3, "--json", "-").stdout)
                for _ in range(2)]
        self.assertEqual(runs[0]["decode_bytes_per_step"], runs[1]["decode_bytes_per_step"])

    def test_profiled_ops_and_the_rest_add_up_to_the_pass(self):
        done = self.assert_ok(winnow("bench", TINY, *SHORT, "--profile-ops", "--json", "-"))
        report = json.loads(done.stdout)
        self.assertEqual(set(report), KEYS | {"ops", "non_matrix_fraction"})
        self.assertEqual(set(report["ops"]), {"prefill", "decode"})
        for ops in report["ops"].values():
            self.assertAlmostEqual(sum(op["share"] for op in ops.values()), 1, places=3)
            self.assertIn("other", ops)
        self.assertGreater(report["non_matrix_fraction"], 0)
        self.assertLessEqual(report["non_matrix_fraction"], 1)
        text = self.assert_ok(winnow("bench", TINY, *SHORT, "--profile-ops")).stdout.decode()
        self.assertIn("not matrix work", text)

    def test_memory_for_measuring_the_machine_is_not_the_models(self):
        report = json.loads(winnow("bench", TINY, *SHORT, "--json", "-").stdout)
        self.assertLess(report["peak_rss"], 60_000_000)

    def test_lengths_beyond_the_context_are_cut_with_a_message(self):
        done = self.assert_ok(winnow("bench", TINY, "--prompt", 500, "--generate", 2,
                                     "--repetitions", 1, "-t", 1, "--json", "-"))
        self.assertEqual(json.loads(done.stdout)["prompt"], 128)
        self.assertIn(b"--prompt 500", done.stderr)

    def test_people_get_a_table(self):
        text = self.assert_ok(winnow("bench", TINY, *SHORT)).stdout.decode()
        for word in ("prefill", "decode", "tok/s", "GB/s", "peak memory"):
            self.assertIn(word, text)

    def test_wrong_numbers_are_usage_errors(self):
        for flag in ("--prompt", "--generate", "--repetitions", "--sequences"):
            self.assert_fails(winnow("bench", TINY, flag, 0), 1, flag)

    def test_truncated_models_are_bad_data(self):
        for model in self.truncated_models():
            self.assert_fails(winnow("bench", model), 2, model.name)

    def test_an_interrupt_ends_it_with_130(self):
        with start("bench", TINY, "--repetitions", 1000000, "-t", 1, "-v") as process:
            process.stderr.readline()  # the weights are read
            process.send_signal(signal.SIGINT)
            stdout, _ = process.communicate(timeout=60)
        self.assertEqual((process.returncode, stdout), (130, b""))


if __name__ == "__main__":
    unittest.main()
