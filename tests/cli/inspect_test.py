# SPDX-FileCopyrightText: The Winnow authors
# SPDX-License-Identifier: Apache-2.0
"""`winnow inspect`: the JSON contract, agreement between formats, refusals."""

import json
import unittest

from support import TINY, SOURCE, CommandTest, winnow

KEYS = {"schema_version", "model", "format", "files", "file_bytes", "architecture", "spec",
        "router", "parameters", "tensor_bytes", "bits_per_weight", "bytes_by_role",
        "bytes_by_type", "tokenizer", "provenance", "tensors", "layout", "correction_bytes"}


class Inspect(CommandTest):
    def inspect(self, model):
        done = self.assert_ok(winnow("inspect", model, "--json", "-"))
        return json.loads(done.stdout)

    def test_json_has_every_key_and_nothing_else_is_on_stdout(self):
        report = self.inspect(TINY)
        self.assertEqual(set(report), KEYS)
        self.assertEqual(report["schema_version"], 1)
        self.assertEqual(report["model"], "qwen3_moe-plain")
        self.assertEqual(report["format"], "safetensors")
        self.assertEqual(report["spec"]["num_experts"], 8)
        self.assertEqual(report["spec"]["top_k"], 2)
        self.assertEqual(report["tokenizer"]["tokens"], 272)
        self.assertEqual(report["bits_per_weight"], 16.0)

    def test_sums_agree_with_each_other(self):
        for name in ("plain", "fused-experts", "sharded", "dense-first"):
            report = self.inspect(SOURCE / f"testdata/models/qwen3_moe-{name}")
            for table in ("bytes_by_role", "bytes_by_type"):
                entries = report[table].values()
                self.assertEqual(sum(e["bytes"] for e in entries), report["tensor_bytes"], name)
                self.assertEqual(sum(e["parameters"] for e in entries), report["parameters"])
            self.assertEqual(sum(t["bytes"] for t in report["tensors"]), report["tensor_bytes"])
            self.assertTrue(all(t["used"] for t in report["tensors"]), name)

    def test_a_fused_tensor_has_both_its_roles(self):
        report = self.inspect(SOURCE / "testdata/models/qwen3_moe-fused-experts")
        fused = [t for t in report["tensors"] if t["name"].endswith("gate_up_proj")]
        self.assertTrue(fused)
        for tensor in fused:
            self.assertEqual(tensor["roles"], ["expert_gate_proj", "expert_up_proj"])

    def test_gguf_and_folder_say_the_same_of_a_model(self):
        gguf = self.folder / "m.gguf"
        self.assert_ok(winnow("convert", TINY, "-o", gguf))
        a, b = self.inspect(TINY), self.inspect(gguf)
        self.assertEqual(b["format"], "GGUF")
        for key in ("architecture", "router", "parameters", "tokenizer"):
            self.assertEqual(a[key], b[key])
        self.assertTrue(b["provenance"]["winnow.source"].startswith("qwen3_moe-plain:"))
        self.assertEqual(b["provenance"]["winnow.command"], "convert")

    def test_json_goes_to_a_file_beside_the_table(self):
        target = self.folder / "report.json"
        done = self.assert_ok(winnow("inspect", TINY, "--json", target))
        self.assertIn(b"softmax over 8 experts, top 2", done.stdout)
        self.assertEqual(json.loads(target.read_text()), self.inspect(TINY))

    def test_the_table_names_router_types_and_tensors(self):
        text = self.assert_ok(winnow("inspect", TINY)).stdout.decode()
        for word in ("Qwen3MoeForCausalLM", "renormalised", "BF16", "expert_down_proj", "272",
                     "model.layers.1.mlp.experts.7.up_proj.weight"):
            self.assertIn(word, text)

    def test_a_model_without_tokenizer_is_still_shown(self):
        model = self.tiny_copy()
        (model / "tokenizer.json").unlink()
        self.assertIn("tokenizer.json", self.inspect(model)["tokenizer"]["problem"])

    def test_truncated_models_are_bad_data(self):
        for model in self.truncated_models():
            self.assert_fails(winnow("inspect", model), 2, model.name)

    def test_what_is_no_model_is_bad_data(self):
        (self.folder / "text.gguf").write_text("no model at all, but long enough to look at")
        self.assert_fails(winnow("inspect", self.folder / "text.gguf"), 2, "text.gguf")
        self.assert_fails(winnow("inspect", self.folder / "missing"), 2, "missing")
        self.assert_fails(winnow("inspect", self.folder), 2, "model.safetensors")

    def test_a_reader_that_has_gone_ends_it_quietly(self):
        self.assert_quiet_when_the_reader_has_gone("inspect", TINY)


if __name__ == "__main__":
    unittest.main()
