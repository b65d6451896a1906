# SPDX-FileCopyrightText: The Winnow authors
# SPDX-License-Identifier: Apache-2.0
"""`winnow convert`: round trips, equal bytes, what it refuses, what it leaves behind."""

import json
import os
import signal
import struct
import time
import unittest

from support import SOURCE, TINY, CommandTest, limit_file_size, start, winnow

GRAIN = SOURCE / "models/grain"


def tensors(folder):
    """name: (dtype, shape, bytes) of all safetensors files of a folder."""
    found = {}
    for path in sorted(folder.glob("*.safetensors")):
        data = path.read_bytes()
        size, = struct.unpack("<Q", data[:8])
        for name, entry in json.loads(data[8:8 + size]).items():
            if name != "__metadata__":
                begin, end = entry["data_offsets"]
                found[name] = (entry["dtype"], entry["shape"], data[8 + size + begin:8 + size + end])
    return found


class Convert(CommandTest):
    def convert(self, *arguments, **options):
        return winnow("convert", *arguments, **options)

    def test_through_gguf_and_back_keeps_every_tensor(self):
        for name in ("plain", "not-renormalised", "sharded", "sparse-step-2", "attention-bias"):
            source = SOURCE / f"testdata/models/qwen3_moe-{name}"
            gguf, back = self.folder / f"{name}.gguf", self.folder / name
            self.assert_ok(self.convert(source, "-o", gguf))
            self.assert_ok(self.convert(gguf, "-o", back))
            self.assertEqual(tensors(source), tensors(back), name)

    def test_equal_work_gives_equal_bytes_whatever_threads_place_and_name(self):
        copy = self.tiny_copy(TINY.name)
        outputs = [self.folder / "a.gguf", self.folder / "b.gguf", self.folder / "c.gguf"]
        self.assert_ok(self.convert(TINY, "-o", outputs[0], "--type", "Q4_0", "-t", 1))
        self.assert_ok(self.convert(copy, "-o", outputs[1], "--type", "q4_0", "-t", 3))
        self.assert_ok(self.convert(".", "-o", outputs[2], "--type", "Q4_0", cwd=copy))
        self.assertEqual(len({path.read_bytes() for path in outputs}), 1)

    def test_no_path_of_the_machine_is_in_the_output(self):
        gguf = self.folder / "a.gguf"
        self.assert_ok(self.convert(self.tiny_copy(), "-o", gguf))
        self.assertNotIn(str(self.folder).encode(), gguf.read_bytes())

    def test_nothing_is_printed_on_stdout(self):
        self.assertEqual(self.convert(TINY, "-o", self.folder / "a.gguf").stdout, b"")

    def test_a_fallback_is_named_with_role_and_type(self):
        done = self.assert_ok(
            self.convert(TINY, "-o", self.folder / "a.gguf", "--type", "Q4_K"))
        message = done.stderr.decode()
        for word in ("expert_down_proj", "Q4_K", "Q5_0", "rows of 32"):
            self.assertIn(word, message)

    def test_what_llama_cpp_would_read_otherwise_is_a_warning(self):
        for name, word in (("not-renormalised", "sum"), ("dense-first", "dense")):
            source = SOURCE / f"testdata/models/qwen3_moe-{name}"
            done = self.assert_ok(self.convert(source, "-o", self.folder / f"{name}.gguf"))
            self.assertIn("llama.cpp", done.stderr.decode())
            self.assertIn(word, done.stderr.decode())
        done = self.convert(TINY, "-o", self.folder / "plain.gguf")
        self.assertNotIn("llama.cpp", done.stderr.decode())

    def test_quantised_input_becomes_bf16_in_a_folder_and_it_says_so(self):
        gguf, folder = self.folder / "q.gguf", self.folder / "out"
        self.assert_ok(self.convert(TINY, "-o", gguf, "--type", "Q8_0"))
        done = self.assert_ok(self.convert(gguf, "-o", folder))
        self.assertIn("BF16", done.stderr.decode())
        self.assertEqual({dtype for dtype, _, _ in tensors(folder).values()}, {"BF16"})

    def test_an_unknown_type_is_refused_with_the_list(self):
        self.assert_fails(self.convert(TINY, "-o", self.folder / "a.gguf", "--type", "Q9"), 1,
                          "Q9", "Q4_K", "IQ4_NL")

    def test_a_quantised_type_in_a_folder_is_refused(self):
        self.assert_fails(self.convert(TINY, "-o", self.folder / "out", "--type", "Q4_0"), 1,
                          "Q4_0", ".gguf")
        self.assertEqual(list(self.folder.iterdir()), [])

    def test_an_existing_file_is_replaced_only_by_force(self):
        gguf = self.folder / "a.gguf"
        gguf.write_text("precious")
        self.assert_fails(self.convert(TINY, "-o", gguf), 1, "a.gguf", "--force")
        self.assertEqual(gguf.read_text(), "precious")
        self.assert_ok(self.convert(TINY, "-o", gguf, "--force"))
        self.assertEqual(gguf.read_bytes()[:4], b"GGUF")

    def test_an_existing_folder_is_never_replaced(self):
        target = self.tiny_copy("out")
        for flags in ([], ["--force"]):
            self.assert_fails(self.convert(GRAIN, "-o", target, *flags), 1, "out")
        self.assertEqual(tensors(target), tensors(TINY))

    def test_the_input_is_never_the_output(self):
        model = self.tiny_copy()
        gguf = self.folder / "a.gguf"
        self.assert_ok(self.convert(model, "-o", gguf))
        before = gguf.read_bytes()
        self.assert_fails(self.convert(gguf, "-o", gguf, "--force"), 1, "is the input")
        (self.folder / "link.gguf").symlink_to(gguf)
        self.assert_fails(self.convert(gguf, "-o", self.folder / "link.gguf", "--force"), 1,
                          "is the input")
        self.assert_fails(self.convert(model, "-o", model, "--force"), 1, "is the input")
        self.assertEqual(gguf.read_bytes(), before)

    def test_a_truncated_model_is_bad_data_and_writes_nothing(self):
        for model in self.truncated_models():
            out = self.folder / "out"
            out.mkdir()
            for name in ("a.gguf", "folder"):
                self.assert_fails(self.convert(model, "-o", out / name), 2, model.name)
            self.assertEqual(list(out.iterdir()), [])
            out.rmdir()

    def test_a_full_disk_is_a_refusal_of_the_system_and_leaves_nothing(self):
        for name in ("a.gguf", "folder"):
            done = self.convert(TINY, "-o", self.folder / name, preexec_fn=limit_file_size(50000))
            self.assert_fails(done, 4, name)
            self.assertEqual(list(self.folder.iterdir()), [])

    def test_a_place_that_does_not_exist_is_a_refusal_of_the_system(self):
        self.assert_fails(self.convert(TINY, "-o", self.folder / "no/a.gguf"), 4, "a.gguf")

    def test_a_loop_of_links_as_output_is_no_internal_error(self):
        loop = self.folder / "loop.gguf"
        loop.symlink_to(loop)
        self.assert_ok(self.convert(TINY, "-o", loop))
        self.assertFalse(loop.is_symlink())

    def test_a_pipe_is_never_replaced_by_a_model(self):
        pipe = self.folder / "pipe.gguf"
        os.mkfifo(pipe)
        self.assert_fails(self.convert(TINY, "-o", pipe, "--force"), 1, "name a regular file")
        self.assertTrue(pipe.is_fifo())

    def test_an_interrupt_ends_it_with_130_and_leaves_nothing(self):
        # Q2_K searches longest: seconds for the bundled model.
        with start("convert", GRAIN, "-o", self.folder / "a.gguf", "--type", "Q2_K") as process:
            for _ in range(1000):
                if any(self.folder.iterdir()):
                    break
                time.sleep(0.01)
            process.send_signal(signal.SIGINT)
            _, stderr = process.communicate(timeout=120)
        self.assertEqual(process.returncode, 130, stderr.decode())
        self.assertEqual(list(self.folder.iterdir()), [])


if __name__ == "__main__":
    unittest.main()
