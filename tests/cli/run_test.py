# SPDX-FileCopyrightText: The Winnow authors
# SPDX-License-Identifier: Apache-2.0
"""`winnow run`: what is on which stream, prompts, limits, stops, signals."""

import json
import os
import signal
import subprocess
import unittest

from support import SOURCE, TINY, CommandTest, start, winnow

GRAIN = SOURCE / "models/grain"
PROMPT = "The history of"


class Run(CommandTest):
    def run_grain(self, *arguments, **options):
        return self.assert_ok(winnow("run", GRAIN, "-q", *arguments, **options))

    def statistics(self, done):
        return json.loads(done.stderr.decode().splitlines()[-1])

    def test_stdout_is_the_text_and_the_last_line_of_stderr_the_statistics(self):
        done = self.assert_ok(winnow("run", GRAIN, "-p", PROMPT, "-n", 12))
        last = done.stderr.decode().splitlines()[-1]
        self.assertIn("generated 12 tokens", last)
        self.assertIn("first token", last)
        quiet = self.run_grain("-p", PROMPT, "-n", 12)
        self.assertEqual(quiet.stdout, done.stdout)
        self.assertTrue(done.stdout)

    def test_statistics_as_json_have_every_key(self):
        done = self.assert_ok(winnow("run", GRAIN, "-p", PROMPT, "-n", 5, "--stats-json"))
        statistics = self.statistics(done)
        self.assertEqual(set(statistics), {
            "schema_version", "load_seconds", "prompt_tokens", "prompt_tokens_per_second",
            "generated_tokens", "generated_tokens_per_second", "time_to_first_token_seconds",
            "stop_reason", "seed", "peak_rss", "isa", "threads", "kv_type"})
        self.assertEqual(statistics["generated_tokens"], 5)
        self.assertEqual(statistics["stop_reason"], "limit")

    def test_the_peak_of_memory_holds_copied_weights_whole_and_mapped_ones_once(self):
        def peak(weights):
            done = winnow("run", GRAIN, "-p", PROMPT, "-n", 5, "--stats-json", "--weights", weights)
            return self.statistics(self.assert_ok(done))["peak_rss"]
        size = sum(file.stat().st_size for file in GRAIN.glob("*.safetensors"))
        self.assertGreater(peak("copied"), size)
        # How much of a mapping is resident is the system's choice, but never more than all of it.
        for weights in ("mapped", "mapped-only"):
            self.assertLess(peak(weights), size + 200 * 2**20, weights)

    def test_the_prompt_comes_as_text_from_a_file_or_from_stdin(self):
        (self.folder / "prompt").write_text(PROMPT)
        expected = self.run_grain("-p", PROMPT, "-n", 8).stdout
        self.assertEqual(self.run_grain("-f", self.folder / "prompt", "-n", 8).stdout, expected)
        self.assertEqual(self.run_grain("-", "-n", 8, input=PROMPT.encode()).stdout, expected)

    def test_not_one_prompt_or_two_are_refused(self):
        for arguments in ([], ["-p", "a", "-f", "b"], ["-", "-p", "a"]):
            self.assert_fails(winnow("run", TINY, *arguments), 1, "-p TEXT")

    def test_a_begin_token_alone_is_a_prompt_where_the_model_has_one(self):
        self.assertTrue(self.run_grain("-p", "", "-n", 4).stdout)

    def test_an_empty_prompt_without_begin_token_is_refused(self):
        model = self.tiny_copy()
        config = model / "tokenizer_config.json"
        settings = json.loads(config.read_text())
        settings["add_bos_token"] = False
        config.write_text(json.dumps(settings))
        self.assert_fails(winnow("run", model, "-p", ""), 1, "empty")

    def test_a_prompt_beyond_the_context_is_refused_with_both_lengths(self):
        done = winnow("run", TINY, "-p", "x" * 200)
        self.assert_fails(done, 1, "201", "128")
        self.assert_fails(winnow("run", TINY, "-p", "x" * 20, "--context", 10), 1, "21", "10")

    def test_a_context_beyond_the_model_is_refused(self):
        self.assert_fails(winnow("run", TINY, "-p", "x", "--context", 129), 1, "--context", "129",
                          "128")

    def test_generation_ends_where_the_context_is_full(self):
        done = self.assert_ok(winnow("run", TINY, "-p", "x" * 5, "--context", 10, "-n", 100,
                                     "--ignore-eos", "--stats-json"))
        self.assertEqual(self.statistics(done)["generated_tokens"], 5)  # 6 positions are taken

    def test_seeds_decide_and_threads_do_not(self):
        def sample(seed, threads):
            return self.run_grain("-p", PROMPT, "-n", 24, "--temp", 1, "--seed", seed, "-t",
                                  threads).stdout
        self.assertEqual(sample(1, 1), sample(1, 2))
        self.assertNotEqual(sample(1, 2), sample(2, 2))

    def test_a_stop_string_ends_the_text_before_it(self):
        whole = self.run_grain("-p", PROMPT, "-n", 24).stdout.decode()
        stop = whole[20:25]
        done = self.assert_ok(winnow("run", GRAIN, "-p", PROMPT, "-n", 24, "--stop", "\x01",
                                     "--stop", stop, "--stats-json"))
        self.assertEqual(done.stdout.decode(), whole[:whole.index(stop)])
        self.assertEqual(self.statistics(done)["stop_reason"], "stop_string")

    def test_options_out_of_range_are_refused_before_the_model_is_read(self):
        for flag, value in (("--temp", "-1"), ("--top-p", "1.5"), ("--top-p", "0"),
                            ("--min-p", "1"), ("--repeat-penalty", "0"), ("-n", "-1"),
                            ("-n", "many"), ("--stop", ""), ("--isa", "sse9"), ("--kv-type", "q3")):
            done = winnow("run", self.folder / "missing", "-p", "a", flag, value)
            self.assertEqual(done.returncode, 1, (flag, value, done.stderr))
            self.assertEqual(done.stdout, b"")

    def test_truncated_models_are_bad_data(self):
        for model in self.truncated_models():
            self.assert_fails(winnow("run", model, "-p", "a"), 2, model.name)

    def test_a_missing_prompt_file_is_bad_data(self):
        self.assert_fails(winnow("run", TINY, "-f", self.folder / "none"), 2, "none")

    def test_a_reader_that_has_gone_ends_it_quietly(self):
        self.assert_quiet_when_the_reader_has_gone("run", GRAIN, "-p", PROMPT, "-n", 50)

    def test_text_appears_as_it_is_made_and_an_interrupt_keeps_it(self):
        with start("run", GRAIN, "-p", PROMPT, "-n", 900, "--ignore-eos", "-t", 1,
                   "--stats-json") as process:
            first = os.read(process.stdout.fileno(), 1)
            process.send_signal(signal.SIGINT)
            rest, stderr = process.communicate(timeout=60)
        self.assertEqual(process.returncode, 130, stderr.decode())
        statistics = json.loads(stderr.decode().splitlines()[-1])
        self.assertEqual(statistics["stop_reason"], "interrupted")
        self.assertLess(statistics["generated_tokens"], 900)
        whole = self.run_grain("-p", PROMPT, "-n", statistics["generated_tokens"], "--ignore-eos")
        self.assertEqual(first + rest, whole.stdout)

    def test_sigterm_ends_it_with_143(self):
        with start("run", GRAIN, "-p", PROMPT, "-n", 900, "--ignore-eos", "-t", 1) as process:
            os.read(process.stdout.fileno(), 1)
            process.send_signal(signal.SIGTERM)
            process.communicate(timeout=60)
        self.assertEqual(process.returncode, 143)

    def test_a_full_disk_behind_stdout_is_a_refusal_of_the_system(self):
        with open("/dev/full", "wb") as full:
            done = winnow("run", TINY, "-p", "a", "-n", 3, capture_output=False, stdout=full,
                          stderr=subprocess.PIPE)
        self.assertEqual(done.returncode, 4, done.stderr.decode())


if __name__ == "__main__":
    unittest.main()
