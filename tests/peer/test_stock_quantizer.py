# SPDX-FileCopyrightText: The Winnow authors
# SPDX-License-Identifier: Apache-2.0
"""The baseline of bench/quality.py is stock's: importance matrices against `winnow profile` and against NumPy in
float64, and what the quantiser makes of them. How to run: README.md here; environment as in test_stock_runtime.py.
"""

import os
import pathlib
import subprocess
import sys
import tempfile
import unittest

import numpy as np

import gguf

HERE = pathlib.Path(__file__).resolve().parent
ROOT = HERE.parent.parent
sys.path[:0] = [str(HERE), str(ROOT / "tests" / "oracles"), str(ROOT / "bench")]
import stock_quantizer as stock  # noqa: E402
from qwen3_moe_numpy import Qwen3Moe  # noqa: E402
from stock_llama import StockError, StockLibrary  # noqa: E402

BINARY = os.environ.get("WINNOW_BINARY", ROOT / "build" / "release" / "bin" / "winnow")
MODEL = pathlib.Path(os.environ.get("WINNOW_MODEL", ROOT / "models" / "grain"))
NODE_PACKAGE = pathlib.Path(os.environ.get(
    "WINNOW_STOCK_NODE", HERE / "node_modules" / "@node-llama-cpp" / "linux-x64"))
CONTEXT = 512
DATA_BYTES = 16000  # of each of two files: 22 windows of grain, two of them held out by the profile

# Relative: stock's F32 arithmetic against float64. Measured: 2.3e-6 on inputs, 7e-7 on sums of squares.
INPUT_LIMIT, SUM_LIMIT = 1e-5, 5e-6
# Relative, importance against the profile's second moments (the quantisation's own requirement). Where an
# expert is exchanged for a nearly tied one, the sums of both move: such experts are left out, and counted.
MOMENT_LIMIT = 1e-4


def winnow(*arguments):
    subprocess.run([str(BINARY), *map(str, arguments), "--quiet"], check=True, capture_output=True)


class Inputs:
    """Keeps the inputs of each product of one window."""

    def __init__(self):
        self.rows = {}

    def __call__(self, name, rows, experts, _shape):
        self.rows[name] = np.array(rows, np.float64)


class OracleInputs(Qwen3Moe):
    """Keeps the inputs of each matrix that _linear applies."""

    def __init__(self, folder):
        super().__init__(folder)
        self.inputs = {}

    def _linear(self, x, name):
        self.inputs[name] = x
        return super()._linear(x, name)


class StockQuantizer(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        folder = tempfile.TemporaryDirectory(prefix="winnow-peer-")
        cls.addClassCleanup(folder.cleanup)
        cls.folder = pathlib.Path(folder.name)
        cls.library = StockLibrary.from_node_package(NODE_PACKAGE)
        cls.source = cls.folder / "source.gguf"
        winnow("convert", MODEL, "-o", cls.source, "--type", "F32")
        cls.data = cls.folder / "data"
        cls.data.mkdir()
        for domain in ("cpp", "german"):
            head = (MODEL / "data" / "calib" / f"{domain}.txt").read_bytes()[:DATA_BYTES]
            (cls.data / f"{domain}.txt").write_bytes(head.decode("utf-8", "ignore").encode("utf-8"))
        cls.documents = stock.read_documents([cls.data])
        cls.parts = stock.collect(cls.library, cls.source, cls.documents, "windows", CONTEXT, lambda _: None)
        cls.values = stock.importance_values(cls.parts)

    def quantized(self, name, file_type, values=None):
        path = self.folder / f"{name}.gguf"
        self.library.quantize(self.source, path, file_type, importance=values)
        return path

    def test_inputs_in_stock_are_those_of_the_definition(self):
        seen, oracle = Inputs(), OracleInputs(MODEL)
        with self.library.open(self.source, context=CONTEXT, observer=seen) as model:
            ids = stock.winnow_windows(model, self.documents, CONTEXT)[0][1]
            model.logits(ids)
        oracle.forward(ids)
        for layer in range(oracle.config["num_hidden_layers"]):
            for ours, name in (("attn_q", "self_attn.q_proj"), ("attn_output", "self_attn.o_proj"),
                               ("ffn_gate_inp", "mlp.gate")):
                got, want = seen.rows[f"blk.{layer}.{ours}.weight"][0], oracle.inputs[f"model.layers.{layer}.{name}"]
                with self.subTest(layer=layer, input=ours):
                    self.assertLess(np.linalg.norm(got - want) / np.linalg.norm(want), INPUT_LIMIT)
                    squares, wanted = (got ** 2).sum(axis=0), (want ** 2).sum(axis=0)
                    self.assertLess(np.abs(squares - wanted).max() / wanted.max(), SUM_LIMIT)

    def test_importance_is_the_profiles_second_moment(self):
        stats = self.folder / "stats"
        winnow("profile", MODEL, "--data", self.data, "--context", CONTEXT, "-o", stats)
        moments = stock.read_safetensors(stats)
        compared = left_out = 0
        for name, squares in self.parts[0].squares.items():
            kind = name.split(".")[2] if name.startswith("blk.") else ""
            if kind not in stock.SITES:
                continue
            ours, counts = stock.profile_moments(moments, int(name.split(".")[1]), stock.SITES[kind])
            same = self.parts[0].counts[name] == counts
            left_out += int((~same).sum())
            compared += int(same.sum())
            error = np.abs(squares - ours).max(axis=1) / ours.max(axis=1)
            with self.subTest(tensor=name):
                self.assertLess(error[same].max(), MOMENT_LIMIT)
        print(f"{compared} second moments compared, {left_out} left out for a different number of tokens")
        self.assertLess(left_out, compared / 20)

    def test_held_out_windows_are_in_the_importance_too(self):
        name = "blk.0.attn_q.weight"
        counts = [part.counts[name][0] for part in self.parts]
        self.assertGreater(counts[1], 0)
        squares = sum(part.squares[name][0] for part in self.parts)
        np.testing.assert_allclose(self.values[name][0], squares / sum(counts), rtol=1e-6)

    def test_the_tools_way_to_cut_gives_nearly_the_same_importance(self):
        other = stock.importance_values(
            stock.collect(self.library, self.source, self.documents, "tool", CONTEXT, lambda _: None))
        self.assertEqual(set(other), set(self.values))
        for name, values in self.values.items():
            if "exps" not in name:  # a few tokens more or less change rare experts
                difference = np.linalg.norm(other[name] - values) / np.linalg.norm(values)
                self.assertLess(difference, 0.1, name)

    def test_an_expert_without_tokens_has_importance_one(self):
        sums = stock.Sums()
        sums.add("blk.0.ffn_up_exps.weight", np.full((2, 1, 4), 3.0), np.array([[0, 2], [2, 0]]), 3)
        self.assertEqual(stock.importance_values((sums, stock.Sums()))["blk.0.ffn_up_exps.weight"].tolist(),
                         [[9.0] * 4, [1.0] * 4, [9.0] * 4])

    def test_the_quantiser_uses_it(self):
        """Types that need it are refused without, weights that it calls important come out closer."""
        with self.assertRaisesRegex(StockError, "imatrix"):
            self.quantized("none", "IQ2_XXS")
        name = "blk.2.attn_q.weight"
        error = {}
        for kind, values in (("plain", None), ("importance", self.values)):
            tensor = {t.name: t for t in gguf.GGUFReader(self.quantized(kind, "Q2_K", values)).tensors}[name]
            exact = {t.name: t for t in gguf.GGUFReader(self.source).tensors}[name].data
            restored = gguf.quants.dequantize(tensor.data, tensor.tensor_type)
            error[kind] = float((((restored - exact) ** 2).sum(axis=0) * self.values[name][0]).sum())
        print(f"error weighted by importance: {error}")
        self.assertLess(error["importance"], error["plain"])

    def test_widening_keeps_every_value(self):
        narrow, wide = self.quantized("narrow", "IQ2_M", self.values), self.folder / "wide.gguf"
        self.library.quantize(narrow, wide, "F32")
        values = {t.name: t.data for t in gguf.GGUFReader(wide).tensors}
        for tensor in gguf.GGUFReader(narrow).tensors:
            want = gguf.quants.dequantize(tensor.data, tensor.tensor_type)
            np.testing.assert_array_equal(values[tensor.name].ravel(), want.ravel(), tensor.name)


if __name__ == "__main__":
    unittest.main(verbosity=2)
