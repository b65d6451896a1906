# SPDX-FileCopyrightText: The Winnow authors
# SPDX-License-Identifier: Apache-2.0
"""Importance matrices that `winnow profile` writes, read by the PyPI package gguf and from the published layout."""

import json
import os
import pathlib
import struct
import subprocess
import tempfile
import unittest

import gguf
import numpy as np

BINARY = os.environ["WINNOW_BINARY"]
SOURCE = pathlib.Path(os.environ["WINNOW_SOURCE_DIR"])
TINY = SOURCE / "testdata/models/qwen3_moe-plain"
SITES = {"attn_q": "attention_input", "attn_k": "attention_input", "attn_v": "attention_input",
         "attn_output": "attention_inner", "ffn_gate_inp": "ffn_input"}
EXPERTS = {"ffn_gate_exps": "expert_input", "ffn_up_exps": "expert_input", "ffn_down_exps": "expert_inner"}


def statistics(path):
    """{name: array} of a statistics file of one domain."""
    data = path.read_bytes()
    length = struct.unpack("<Q", data[:8])[0]
    directory = json.loads(data[8:8 + length])
    del directory["__metadata__"]
    types = {"F64": "<f8", "U64": "<u8", "F32": "<f4", "I32": "<i4"}
    return {name: np.frombuffer(data[8 + length + entry["data_offsets"][0]:8 + length + entry["data_offsets"][1]],
                                types[entry["dtype"]]).reshape(entry["shape"]) for name, entry in directory.items()}


def binary_entries(path):
    """{name: (chunks, values)} and what follows them, of the binary form."""
    data, at, entries = path.read_bytes(), 4, {}
    for _ in range(struct.unpack_from("<i", data)[0]):
        length = struct.unpack_from("<i", data, at)[0]
        name = data[at + 4:at + 4 + length].decode()
        chunks, count = struct.unpack_from("<ii", data, at + 4 + length)
        at += 12 + length
        entries[name] = chunks, np.frombuffer(data, "<f4", count, at)
        at += 4 * count
    return entries, data[at:]


class Imatrix(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory(prefix="winnow-test-")
        self.addCleanup(folder.cleanup)
        self.folder = pathlib.Path(folder.name)
        (self.folder / "text.txt").write_text("A model of models reads a text of words. " * 40)

    def profile(self, name):
        out = self.folder / name
        subprocess.run([BINARY, "profile", TINY, "-o", self.folder / "s", "--force", "--data", self.folder / "text.txt",
                        "--context", "64", "--imatrix", out], check=True, capture_output=True)
        return out, statistics(self.folder / "s")

    def expected(self, arrays):
        """{tensor name: (sums [matrices, columns], counts [matrices])}."""
        result = {}
        for layer in range(2):
            prefix = f"domains.0.layers.{layer}."
            for tensor, site in SITES.items():
                sums = arrays[f"{prefix}{site}_squares"][None]
                result[f"blk.{layer}.{tensor}.weight"] = sums, arrays[f"{prefix}{site}_tokens"]
            for tensor, site in EXPERTS.items():
                result[f"blk.{layer}.{tensor}.weight"] = arrays[f"{prefix}{site}_squares"], arrays[f"{prefix}hits"]
        return result

    def test_the_gguf_form_is_read_by_the_reference_package(self):
        path, arrays = self.profile("imatrix.gguf")
        reader = gguf.GGUFReader(path)
        self.assertEqual(reader.fields["general.type"].contents(), "imatrix")
        self.assertEqual(reader.fields["imatrix.datasets"].contents(), ["text"])
        self.assertEqual(reader.fields["imatrix.chunk_size"].contents(), 64)
        tensors = {tensor.name: tensor.data for tensor in reader.tensors}
        expected = self.expected(arrays)
        self.assertEqual(set(tensors), {name + part for name in expected for part in (".in_sum2", ".counts")})
        for name, (sums, counts) in expected.items():
            np.testing.assert_array_equal(tensors[name + ".in_sum2"], sums.astype(np.float32), name)
            np.testing.assert_array_equal(tensors[name + ".counts"].ravel(), counts.astype(np.float32), name)

    def test_the_binary_form_holds_means_times_chunks(self):
        path, arrays = self.profile("imatrix.dat")
        entries, end = binary_entries(path)
        expected = self.expected(arrays)
        self.assertEqual(list(entries), sorted(expected))
        for name, (sums, counts) in expected.items():
            chunks, values = entries[name]
            self.assertEqual(chunks, -(-int(counts.max()) // 64))
            means = np.where(counts[:, None] > 0, sums / np.maximum(counts, 1)[:, None], 1.0)
            np.testing.assert_allclose(values, (means * chunks).ravel(), rtol=2 ** -23, err_msg=name)
        chunks, length = struct.unpack_from("<ii", end)
        self.assertEqual(end[8:], b"text")
        self.assertEqual((chunks > 0, length), (True, 4))


if __name__ == "__main__":
    unittest.main()
