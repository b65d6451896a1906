# SPDX-FileCopyrightText: The Winnow authors
# SPDX-License-Identifier: Apache-2.0
"""`winnow compress`: budgets, exit codes, the record, what is left behind, and the quality that the
bundled model keeps."""

import json
import os
import re
import resource
import signal
import subprocess
import time
import unittest

from text_support import BINARY, ENVIRONMENT, GRAIN, CommandTest, tiny

CALIBRATION = GRAIN / "data" / "calib"
# The project's goal at equal bytes; measured 0.2.
KL_OF_PLAIN_CONVERSION = 0.8


class TinyModel(CommandTest):
    def setUp(self):
        super().setUp()
        self.data = self.file("text.txt", "The model of a model reads a model.\n" * 12)
        self.out = self.folder / "out" / "small.gguf"
        self.out.parent.mkdir()

    def arguments(self, *options, model=None, data=True):
        text = ("--data", self.data, "--context", 64) if data else ()
        return ("compress", model or tiny("plain"), "-o", self.out, *text, *options)

    def left(self):
        return sorted(path.name for path in self.out.parent.iterdir())

    def least(self):
        message = self.refuse(3, ["cannot be met"], *self.arguments("--budget", 1000))
        return int(re.search(r"has (\d+) bytes", message)[1])

    def test_one_of_budget_and_bits_is_needed(self):
        self.refuse(1, ["--budget", "--bits"], *self.arguments())
        self.refuse(1, ["--budget", "--bits"], *self.arguments("--budget", "1MB", "--bits", 5))
        for wrong in ("much", "-5", "101%", "x%", ""):
            self.refuse(1, ["--budget"], *self.arguments("--budget", wrong))
        self.refuse(1, ["--bits"], *self.arguments("--bits", 0))
        self.assertEqual(self.left(), [])

    def test_an_impossible_budget_names_the_smallest_which_then_succeeds(self):
        least = self.least()
        self.refuse(3, [str(least)], *self.arguments("--budget", least - 1))
        self.assertEqual(self.left(), [])
        self.succeed(*self.arguments("--budget", least))
        self.assertEqual(self.out.stat().st_size, least)

    def test_bits_that_are_too_few_name_those_that_succeed(self):
        message = self.refuse(3, ["bits per weight"], *self.arguments("--bits", 2))
        self.succeed(*self.arguments("--bits", re.search(r"([\d.]+) bits per weight", message)[1]))

    def test_a_model_that_is_none_is_bad_data(self):
        self.refuse(2, ["absent"], *self.arguments("--bits", 6, model=self.folder / "absent"))
        self.refuse(2, ["text.txt"], *self.arguments("--bits", 6, model=self.data))

    def test_data_that_is_not_there_is_bad_data(self):
        self.refuse(2, ["nothing.txt"], "compress", tiny("plain"), "-o", self.out, "--bits", 6,
                    "--data", self.folder / "nothing.txt")

    def test_the_record_holds_what_the_format_page_lists(self):
        report = self.folder / "report"
        self.succeed(*self.arguments("--bits", 7, "--report", report))
        record = json.loads((report / "compress.json").read_text())
        self.assertEqual(set(record), {
            "schema_version", "version", "command", "model", "output", "budget_bits", "file_bytes",
            "tensor_bytes", "parameters", "bits_per_weight", "calibration_tokens", "probe_tokens",
            "predicted_kl", "together", "fitted", "allocation", "measured", "groups"})
        self.assertEqual(set(record["fitted"]) - {"kl_chosen_again"},
                         {"predicted_kl", "kl", "together"})
        self.assertEqual(record["file_bytes"], self.out.stat().st_size)
        self.assertAlmostEqual(record["bits_per_weight"],
                               8 * record["tensor_bytes"] / record["parameters"], places=12)
        self.assertLessEqual(record["bits_per_weight"], 7)
        for group in record["groups"]:
            keys = {"role", "weights", "kl_per_error", "chosen", "options"}
            self.assertEqual(set(group) - {"layer"}, keys)
            self.assertIn(group["chosen"], [option["type"] for option in group["options"]])
            for option in group["options"]:
                self.assertEqual(set(option),
                                 {"type", "bytes", "tensor_bytes", "error", "predicted_kl"})

    def test_an_allocation_that_is_none_or_lacks_what_it_needs_is_refused(self):
        self.refuse(1, ["emq", "ranked"], *self.arguments("--bits", 7, "--allocation", "emq"))
        for name in ("pmq", "ranked"):
            self.refuse(1, [name, "--data"],
                        *self.arguments("--bits", 7, "--allocation", name, data=False))
        self.refuse(1, ["--allocation ranked", "norms"],
                    *self.arguments("--bits", 7, "--allocation", "ranked", "--transforms",
                                    "ffn-input"))
        self.refuse(1, ["--allocation ranked", "--sequential"],
                    *self.arguments("--bits", 7, "--allocation", "ranked", "--sequential"))
        self.assertEqual(self.left(), [])

    def test_the_record_says_what_an_allocation_rests_on(self):
        for name, key in (("pmq", "pmq"), ("ranked", "ranking")):
            self.succeed(*self.arguments("--bits", 7, "--allocation", name, "--force", "--report",
                                         self.folder))
            record = json.loads((self.folder / "compress.json").read_text())
            self.assertEqual(record["allocation"], name)
            self.assertIn(key, record)

    def test_the_record_of_a_byte_budget_names_it(self):
        budget = self.least() + 5000
        self.succeed(*self.arguments("--budget", budget, "--report", self.folder))
        record = json.loads((self.folder / "compress.json").read_text())
        self.assertEqual(record["budget_bytes"], budget)
        self.assertNotIn("budget_bits", record)

    def test_without_data_the_weights_decide_and_it_says_so(self):
        done = self.succeed(*self.arguments("--bits", 7, "--report", self.folder, data=False))
        self.assertIn("weights alone decide", done.stderr)
        self.assertNotIn("KL", done.stdout)
        record = json.loads((self.folder / "compress.json").read_text())
        self.assertEqual({"measured", "predicted_kl", "kl_per_error"} &
                         (set(record) | set(record["groups"][0])), set())

    def test_stocks_encoders_work_without_data_and_with_no_step_of_the_quantiser(self):
        stock = ("--bits", 7, "--method", "stock")
        done = self.succeed(*self.arguments(*stock, data=False))
        self.assertIn("MXFP4", done.stderr)
        self.assertIn(b"compress --bits 7 --method stock", self.out.read_bytes())
        first = self.out.read_bytes()
        self.succeed(*self.arguments("--bits", 7, "--force", data=False))
        self.assertNotEqual(self.out.read_bytes(), first)
        self.succeed(*self.arguments(*stock, "--force"))
        for options in (("--sequential",), ("--transforms", "inner-scales"), ("--steps", "none")):
            self.refuse(1, [options[0], "stock"], *self.arguments(*stock, "--force", *options))

    def test_equal_work_gives_equal_files_wherever_they_are_and_with_any_number_of_threads(self):
        self.succeed(*self.arguments("--bits", 7, "-t", 1))
        first = self.out.read_bytes()
        self.out = self.folder / "elsewhere.gguf"
        self.succeed(*self.arguments("--bits", 7, "-t", 2))
        self.assertEqual(self.out.read_bytes(), first)
        self.assertNotIn(str(self.folder).encode(), first)

    def test_an_existing_file_is_replaced_only_by_force(self):
        self.out.write_text("precious")
        self.refuse(1, ["--force"], *self.arguments("--bits", 7))
        self.assertEqual(self.out.read_text(), "precious")
        self.succeed(*self.arguments("--bits", 7, "--force"))
        self.assertEqual(self.out.read_bytes()[:4], b"GGUF")
        self.refuse(1, ["is the input"], "compress", self.out, "-o", self.out, "--bits", 6,
                    "--force")

    def test_a_quantised_file_is_compressed_further_with_a_warning(self):
        first = self.folder / "q8.gguf"
        self.succeed("convert", tiny("plain"), "-o", first, "--type", "Q8_0")
        done = self.succeed(*self.arguments("--bits", 6, model=first))
        self.assertIn("quantised already", done.stderr)
        self.assertLess(self.out.stat().st_size, first.stat().st_size)

    def test_a_model_that_llama_cpp_misreads_is_refused_when_it_has_to_be_portable(self):
        model = tiny("not-renormalised")
        self.assertIn("llama.cpp",
                      self.succeed(*self.arguments("--bits", 7, model=model)).stderr)
        self.out.unlink()
        self.refuse(2, ["--portable", "llama.cpp"],
                    *self.arguments("--bits", 7, "--portable", model=model))
        self.assertEqual(self.left(), [])
        self.succeed(*self.arguments("--bits", 7, "--portable"))

    def test_low_rank_corrections_make_an_extended_file_that_runs_and_converts(self):
        for method in ("lorc", "lorc-hessian"):
            done = self.succeed(*self.arguments("--bits", 8, "--method", method, "--rank", 2, "--force",
                                                "--report", self.folder))
            self.assertIn("+ rank 2", done.stdout)
            record = json.loads((self.folder / "compress.json").read_text())
            self.assertLessEqual(record["bits_per_weight"], 8)
            ranks = {option.get("correction_rank") for group in record["groups"]
                     for option in group["options"]}
            self.assertEqual(ranks, {None, 2})
            summary = self.json_of("inspect", self.out)
            self.assertEqual(summary["layout"], "extended")
            factors = [t for t in summary["tensors"] if ".low_rank_" in t["name"]]
            self.assertEqual(summary["correction_bytes"], sum(t["bytes"] for t in factors))
            self.assertGreater(summary["correction_bytes"], 0)
            self.assertEqual(summary["bytes_by_role"]["low_rank_factors"]["bytes"],
                             summary["correction_bytes"])
            self.assertTrue(all(t["used"] for t in factors))
            self.assertEqual(summary["tensor_bytes"], record["tensor_bytes"])
            self.assertIn("extended", self.succeed("inspect", self.out).stdout)
            folded = self.folder / "folded.gguf"
            said = self.succeed("convert", self.out, "-o", folded, "--force").stderr
            self.assertIn("low-rank corrections are added", said)
            self.assertEqual(self.json_of("inspect", folded)["layout"], "plain")
            # Measured 0.012 to 0.023, part of it by 8-bit activations.
            score = self.json_of("eval", self.out, "--reference", tiny("plain"), "--context", 64,
                                 "--data", self.data)["kl_divergence"]
            self.assertLess(score, 0.05)

    def test_low_rank_corrections_are_refused_where_they_cannot_be(self):
        lorc = ("--bits", 8, "--method", "lorc")
        self.refuse(1, ["--portable", "llama.cpp"], *self.arguments(*lorc, "--portable"))
        self.refuse(1, ["--data"], *self.arguments(*lorc, data=False))
        self.refuse(1, ["--hessians"], *self.arguments(*lorc, "--hessians", "diagonal"))
        self.refuse(1, ["--rank", "rtn"], *self.arguments("--bits", 8, "--method", "rtn", "--rank", 4))
        self.refuse(1, ["--rank"], *self.arguments(*lorc, "--rank", 0))
        self.assertEqual(self.left(), [])
        self.succeed(*self.arguments(*lorc, "--rank", 2))
        self.refuse(2, ["low-rank corrections", "convert"], "compress", self.out, "-o",
                    self.folder / "again.gguf", "--bits", 7, "--data", self.data)

    def test_methods_that_no_gguf_file_can_hold_are_refused_with_the_reason(self):
        self.refuse(1, ["inputs"], *self.arguments("--bits", 8, "--method", "adadim"))
        self.refuse(1, ["norm"], *self.arguments("--bits", 8, "--method", "outliertune"))

    def test_a_folder_that_cannot_be_written_is_the_systems_refusal(self):
        self.out = self.folder / "nowhere" / "small.gguf"
        self.refuse(4, ["nowhere"], *self.arguments("--bits", 7))

    def test_a_missing_folder_of_the_output_is_found_before_the_data_are_read(self):
        self.out = self.folder / "nowhere" / "small.gguf"
        self.refuse(4, ["there is no folder", "nowhere"],
                    *self.arguments("--bits", 7, "--data", self.folder / "missing", data=False))

    def test_after_a_full_disk_it_goes_on_with_what_was_finished(self):
        def limit_file_size():
            signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
            resource.setrlimit(resource.RLIMIT_FSIZE, (40000, 40000))
        self.refuse(4, ["small.gguf"], *self.arguments("--bits", 7), preexec_fn=limit_file_size)
        self.assertEqual(self.left(), ["small.gguf.partial"])
        self.succeed(*self.arguments("--bits", 7))
        self.assertEqual(self.left(), ["small.gguf"])
        resumed = self.out.read_bytes()
        self.out.unlink()
        self.succeed(*self.arguments("--bits", 7))
        self.assertEqual(self.out.read_bytes(), resumed)


class Grain(CommandTest):
    def test_an_interrupt_stops_soon_and_leaves_nothing_behind(self):
        out = self.folder / "out"
        out.mkdir()
        process = subprocess.Popen(
            [BINARY, "compress", str(GRAIN), "-o", str(out / "small.gguf"), "--bits", "5"],
            env=ENVIRONMENT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        self.addCleanup(process.kill)
        line = process.stderr.readline()
        while line and "measuring" not in line:
            line = process.stderr.readline()
        sent = time.monotonic()
        process.send_signal(signal.SIGINT)
        output, _ = process.communicate(timeout=120)
        self.assertEqual(process.returncode, 130)
        self.assertEqual(output, "")
        self.assertLess(time.monotonic() - sent, 30)
        self.assertEqual(os.listdir(out), [])

    def divergence(self, model):
        return self.json_of("eval", model, "--reference", GRAIN, "--tokens", 6000,
                            "--data", GRAIN / "data" / "valid")["kl_divergence"]

    def test_at_30_percent_it_is_closer_to_the_original_than_a_larger_plain_conversion(self):
        small, plain = self.folder / "small.gguf", self.folder / "plain.gguf"
        self.succeed("compress", GRAIN, "-o", small, "--data", CALIBRATION, "--budget", "30%",
                     "--tokens", 8192, "--report", self.folder)
        self.succeed("convert", GRAIN, "-o", plain, "--type", "Q4_K")
        record = json.loads((self.folder / "compress.json").read_text())
        self.assertLessEqual(small.stat().st_size, 0.3 * 2 * record["parameters"])
        self.assertEqual(record["calibration_tokens"] + record["probe_tokens"], 8192)
        # 4.75 against 4.87 bits per weight: the comparison is in favour of the plain file.
        self.assertLess(small.stat().st_size, plain.stat().st_size)
        ours, theirs = self.divergence(small), self.divergence(plain)
        print(f"KL at {record['bits_per_weight']:.3f} bits: {ours:.5f}, plain Q4_K: {theirs:.5f}")
        self.assertLess(ours, KL_OF_PLAIN_CONVERSION * theirs)
        # What was predicted from single groups is near what the whole does to other text.
        self.assertLess(record["predicted_kl"] / 2, ours)
        self.assertLess(ours, record["predicted_kl"] * 2)


if __name__ == "__main__":
    unittest.main()
