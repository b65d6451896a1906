# SPDX-FileCopyrightText: The Winnow authors
# SPDX-License-Identifier: Apache-2.0
"""`winnow profile`: the file, its summary, merging, kills, memory, bad inputs."""

import json
import os
import pathlib
import re
import signal
import struct
import subprocess
import time
import unittest

from support import limit_file_size
from text_support import BINARY, ENVIRONMENT, GRAIN, CommandTest, tiny


def header(path):
    """The directory of a statistics file, and the JSON that it carries."""
    with open(path, "rb") as file:
        size = struct.unpack("<Q", file.read(8))[0]
        directory = json.loads(file.read(size))
    return directory, json.loads(directory["__metadata__"]["winnow.statistics"])


class TinyModel(CommandTest):
    def setUp(self):
        super().setUp()
        self.data = self.folder / "data"
        self.data.mkdir()
        self.write("prose", "The model of a model reads a model.\n" * 60)
        self.write("code", "for (int i = 0; i < 9; ++i) { sum += i; }\n" * 40)
        self.out = self.folder / "out" / "s.stats"
        self.out.parent.mkdir()

    def write(self, name, text):
        (self.data / f"{name}.txt").write_text(text)

    def arguments(self, *options, model=None, data=None, out=None):
        return ("profile", model or tiny("plain"), "-o", out or self.out, "--data",
                data or self.data, "--context", 32, *options)

    def left(self):
        return sorted(path.name for path in self.out.parent.iterdir())

    def test_the_summary_has_the_keys_of_the_format_page_and_the_file_what_it_promises(self):
        summary = self.json_of(*self.arguments())
        self.assertEqual(set(summary), {
            "schema_version", "model", "output", "bytes", "tokens", "held_out_tokens",
            "resumed_layers", "states_on_disk", "statistics", "few_hits", "layers"})
        self.assertEqual(summary["bytes"], self.out.stat().st_size)
        directory, statistics = header(self.out)
        self.assertEqual(summary["statistics"], statistics)
        self.assertEqual([domain["name"] for domain in statistics["domains"]], ["code", "prose"])
        for domain in statistics["domains"]:
            self.assertEqual(domain["held_out_sequences"], domain["sequences"] // 8)
        for layer in summary["layers"]:
            self.assertEqual(set(layer), {"layer", "least_hits", "median_hits",
                                          "split_half_rank_agreement", "under_sampled"})
        for name, entry in directory.items():
            if name != "__metadata__":
                width = {"F64": 8, "U64": 8, "F32": 4, "I32": 4}[entry["dtype"]]
                self.assertEqual(entry["data_offsets"][0] % width, 0, name)
        self.assertEqual(self.left(), ["s.stats"])

    def test_without_json_it_prints_a_table_and_warns_of_experts_with_little_text(self):
        done = self.succeed(*self.arguments("--tokens", 60))
        self.assertIn("under-sampled", done.stdout)
        self.assertIn("fewer than 256 tokens", done.stderr)

    def test_threads_and_memory_change_no_byte(self):
        self.succeed(*self.arguments("-t", 1))
        for options in (("-t", 2), ("--max-memory", "4GiB"), ("--keep-states",)):
            other = self.out.parent / "other.stats"
            self.succeed(*self.arguments(*options, out=other))
            self.assertEqual(other.read_bytes(), self.out.read_bytes(), options)
            other.unlink()
        self.assertEqual(self.left(), ["other.stats.states", "s.stats"])

    def test_shards_of_whole_units_merge_to_the_bytes_of_one_run(self):
        lines = [json.dumps({"text": f"Sentence number {i} of the text."}) for i in range(200)]
        pieces = {"all": lines, "a": lines[:128], "b": lines[128:]}
        for name, piece in pieces.items():
            (self.folder / name).mkdir()
            (self.folder / name / "text.jsonl").write_text("\n".join(piece))
            self.succeed(*self.arguments("--context", 64, data=self.folder / name,
                                         out=self.folder / f"{name}.stats"))
        self.succeed("profile", tiny("plain"), "-o", self.out, "--merge",
                     self.folder / "a.stats", self.folder / "b.stats")
        self.assertEqual(header(self.out)[1]["domains"][0]["sequences"], 200)
        self.assertEqual(self.out.read_bytes(), (self.folder / "all.stats").read_bytes())

    def test_ranges_of_sequences_merge_to_the_whole_wherever_the_text_is_cut(self):
        parts = []
        for number, cut in enumerate(("0:5", "5:9", "9:")):
            parts.append(self.folder / f"{number}.stats")
            self.succeed(*self.arguments("--sequences", cut, out=parts[-1]))
        merged = self.folder / "merged.stats"
        self.succeed("profile", tiny("plain"), "-o", merged, "--merge", *parts)
        self.succeed(*self.arguments())
        of_parts, of_all = header(merged)[1], header(self.out)[1]
        by_name = lambda domain: domain["name"]
        self.assertEqual(sorted(of_parts.pop("domains"), key=by_name), sorted(of_all.pop("domains"), key=by_name))
        self.assertEqual(of_parts, of_all)

    def test_ranges_without_a_sequence_are_refused(self):
        for text in ("5", "5:5", "7:5", "x:9", "-1:4", "1:2:3", "100000:"):
            self.refuse(1, ["--sequences"], *self.arguments("--sequences", text))
        self.refuse(1, ["--sequences", "--merge"], "profile", tiny("plain"), "-o", self.out, "--merge", self.out,
                    "--sequences", "0:4")

    def test_one_of_data_and_merge_is_needed(self):
        self.refuse(1, ["--data", "--merge"], "profile", tiny("plain"), "-o", self.out)
        self.refuse(1, ["--data", "--merge"], *self.arguments("--merge", self.out))

    def test_statistics_of_another_model_are_not_merged(self):
        self.succeed(*self.arguments(model=tiny("not-renormalised")))
        merged = self.folder / "merged.stats"
        self.refuse(2, ["another model"], "profile", tiny("plain"), "-o", merged, "--merge",
                    self.out)
        self.refuse(2, ["statistics"], "profile", tiny("plain"), "-o", merged, "--merge",
                    tiny("plain") / "model.safetensors")
        self.assertFalse(merged.exists())

    def test_empty_and_binary_text_is_bad_data(self):
        empty, binary = self.folder / "empty.txt", self.folder / "binary.txt"
        empty.write_text("")
        binary.write_bytes(b"some text\0and more")
        self.refuse(2, ["empty.txt"], *self.arguments(data=empty))
        self.refuse(2, ["binary.txt", "offset 9"], *self.arguments(data=binary))
        self.assertEqual(self.left(), [])

    def test_a_domain_of_three_tokens_is_kept_with_a_warning(self):
        self.write("brief", "abc")
        done = self.succeed(*self.arguments())
        self.assertIn("brief", done.stderr)
        self.assertIn("brief", [domain["name"] for domain in header(self.out)[1]["domains"]])

    def test_an_existing_file_is_replaced_only_by_force(self):
        self.out.write_text("precious")
        self.refuse(1, ["--force"], *self.arguments())
        self.assertEqual(self.out.read_text(), "precious")
        self.succeed(*self.arguments("--force"))

    def test_outputs_that_cannot_be_written_are_refused_before_the_work(self):
        self.refuse(4, ["nowhere"], *self.arguments(out=self.folder / "nowhere" / "s"))
        self.refuse(1, ["/dev/full"], *self.arguments(out="/dev/full"))
        self.assertFalse(pathlib.Path("/dev/full.partial").exists())

    def test_a_full_disk_leaves_no_output(self):
        self.refuse(4, ["out"], *self.arguments(), preexec_fn=limit_file_size(20000))
        self.assertFalse(self.out.exists())
        self.succeed(*self.arguments("--restart"))
        self.assertEqual(self.left(), ["s.stats"])

    def test_too_little_memory_names_the_least_which_then_succeeds(self):
        message = self.refuse(3, ["--max-memory"], *self.arguments("--max-memory", "1MiB"))
        self.assertEqual(self.left(), [])
        least = int(re.search(r"takes (\d+) bytes", message)[1])
        # What the process itself takes differs a little between runs.
        self.succeed(*self.arguments("--max-memory", least + (2 << 20)))

    def test_a_context_beyond_the_models_positions_is_refused(self):
        self.refuse(1, ["--context"], *self.arguments("--context", 100000))


class Killed(CommandTest):
    """Grain takes long enough to be killed at many moments."""

    def arguments(self, out, *options):
        return ("profile", GRAIN, "-o", out, "--data", GRAIN / "data/calib", "--tokens", 6000,
                *options)

    def start(self, out, *options):
        process = subprocess.Popen([BINARY, *map(str, self.arguments(out, *options))],
                                   env=ENVIRONMENT, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        self.addCleanup(process.communicate)
        self.addCleanup(process.kill)
        return process

    def kill_after_layers(self, out, layers, *options):
        """SIGKILL as soon as parts of so many layers are there."""
        process = self.start(out, *options)
        partial = pathlib.Path(f"{out}.partial")
        while process.poll() is None:
            if len({path.name.split(".")[0] for path in partial.glob("layer-?????.domain-?????")}) >= layers:
                break
            time.sleep(0.005)
        process.kill()
        process.wait()
        self.assertFalse(out.exists())

    def test_a_killed_run_goes_on_and_gives_the_same_bytes(self):
        whole = self.folder / "whole.stats"
        self.succeed(*self.arguments(whole))
        for layers, options in ((0, ()), (2, ()), (4, ("--keep-states",)), (6, ())):
            out = self.folder / f"killed-{layers}.stats"
            self.kill_after_layers(out, layers, *options)
            summary = self.json_of(*self.arguments(out, *options))
            self.assertGreaterEqual(summary["resumed_layers"], max(0, layers - 1))
            self.assertEqual(out.read_bytes(), whole.read_bytes(), layers)
            self.assertFalse(pathlib.Path(f"{out}.partial").exists())

    def test_two_processes_do_not_write_one_output(self):
        out = self.folder / "s.stats"
        process = self.start(out)
        lock = pathlib.Path(f"{out}.partial/run.json")
        while not lock.exists() and process.poll() is None:
            time.sleep(0.005)
        process.send_signal(signal.SIGSTOP)
        self.refuse(4, ["another process"], *self.arguments(out))
        process.send_signal(signal.SIGCONT)
        self.assertEqual(process.wait(), 0)
        self.assertTrue(out.exists())

    def test_an_interrupt_exits_with_130_and_the_work_is_found_again(self):
        out = self.folder / "s.stats"
        process = self.start(out)
        while process.poll() is None and not list(self.folder.glob("s.stats.partial/layer-00001*")):
            time.sleep(0.005)
        process.send_signal(signal.SIGINT)
        self.assertEqual(process.wait(), 130)
        self.assertFalse(out.exists())
        self.assertGreater(self.json_of(*self.arguments(out))["resumed_layers"], 0)


class Memory(CommandTest):
    def check(self, model, text, limit, *options):
        """Peak memory within the limit, and the bytes of a run without one."""
        self.assertGreater(model.stat().st_size, limit)
        arguments = ("profile", model, "--data", text, *options)
        self.succeed(*arguments, "-o", self.folder / "free.stats")
        bounded = self.folder / "bounded.stats"
        peak = self.peak_of(*arguments, "-o", bounded, "--max-memory", limit)
        print(f"peak {peak / 2**20:.1f} MiB of {limit / 2**20:.0f} MiB, "
              f"model {model.stat().st_size / 2**20:.1f} MiB")
        self.assertLessEqual(peak, limit)
        self.assertEqual(bounded.read_bytes(), (self.folder / "free.stats").read_bytes())

    def test_a_model_larger_than_the_limit_is_profiled_within_it(self):
        # Grain in F32 takes 85 MB; its layers take 10 MB, its embedding 4 MB.
        model = self.folder / "f32.gguf"
        self.succeed("convert", GRAIN, "-o", model, "--type", "F32")
        self.check(model, GRAIN / "data/calib/cpp.txt", 72 << 20, "--tokens", 16000)

    def test_a_model_of_many_layers_is_profiled_in_less_than_half_of_its_size(self):
        model = self.folder / "many.gguf"
        subprocess.run([os.environ["WINNOW_MAKE_SPEED_MODEL"], "--shape", "tiny", "--layers", "40",
                        "--type", "Q8_0", "-o", model], check=True, capture_output=True)
        limit = 56 << 20
        self.assertGreater(model.stat().st_size, 2 * limit)
        self.check(model, GRAIN / "data/calib/cpp.txt", limit, "--tokens", 3000)


if __name__ == "__main__":
    unittest.main()
