# SPDX-FileCopyrightText: The Winnow authors
# SPDX-License-Identifier: Apache-2.0
"""`winnow trace`: recording, the file as its page describes it, replays, refusals."""

import array
import json
import struct
import unittest

from text_support import CommandTest, tiny, SOURCE

POLICIES = {"adaptive", "segmented-lru", "lru", "layer-lru", "lfu", "lfru", "edge-moe", "sequence-matching",
            "predicted-demand", "random-subset"}
LAYERS, EXPERTS, TOP_K = 2, 8, 2


def read(path):
    """The header's JSON object and the arrays of a trace, without any library."""
    data = path.read_bytes()
    (length,) = struct.unpack_from("<Q", data)
    header = json.loads(data[8:8 + length])
    metadata = header.pop("__metadata__")
    arrays = {}
    for name, info in header.items():
        begin, end = info["data_offsets"]
        elements = array.array({"U64": "Q", "U32": "I", "U16": "H"}[info["dtype"]])
        elements.frombytes(data[8 + length + begin:8 + length + end])
        arrays[name] = (info["shape"], list(elements))
    return json.loads(metadata["winnow.trace"]), arrays


class Trace(CommandTest):
    def setUp(self):
        super().setUp()
        self.data = self.file("text.txt", "The router of a model sends a token to its experts.\n" * 30)
        self.trace = self.folder / "routes.trace"

    def record(self, *options, model="plain"):
        self.succeed("trace", tiny(model), "--data", self.data, "--context", 64, "-o", self.trace,
                     "--force", *options)
        return read(self.trace)

    def replay(self, *options):
        return self.json_of("trace", "--replay", self.trace, *options)


class Recording(Trace):
    def test_the_file_is_as_its_page_says(self):
        header, arrays = self.record()
        self.assertEqual(header["format_version"], 1)
        self.assertTrue(header["source"].startswith("qwen3_moe-plain:"))
        self.assertEqual((header["num_hidden_layers"], header["num_experts"], header["top_k"],
                          header["stored_experts"]), (LAYERS, EXPERTS, TOP_K, LAYERS * EXPERTS))
        shape, experts = arrays["experts"]
        self.assertEqual(shape[1:], [LAYERS, TOP_K])
        for row in range(0, len(experts), TOP_K):
            self.assertEqual(len(set(experts[row:row + TOP_K])), TOP_K)
            self.assertLess(max(experts[row:row + TOP_K]), EXPERTS)
        self.assertEqual(arrays["layers"][1], [0, 1])
        sequences = arrays["sequences"][1]
        self.assertEqual(sequences, list(range(0, shape[0], 64)))

    def test_threads_change_no_byte(self):
        self.record("-t", 1)
        one = self.trace.read_bytes()
        self.record("-t", 2)
        self.assertEqual(one, self.trace.read_bytes())

    def test_tokens_bound_the_text(self):
        _, arrays = self.record("--tokens", 100)
        scored = arrays["experts"][0][0] - len(arrays["sequences"][1])  # without start tokens
        self.assertEqual(scored, 100)

    def test_a_trace_is_not_overwritten_unasked(self):
        self.record()
        self.refuse(1, ["routes.trace", "--force"], "trace", tiny("plain"), "--data", self.data,
                    "-o", self.trace)

    def test_a_model_without_experts_has_no_routes(self):
        self.refuse(1, ["no experts"], "trace", SOURCE / "testdata/models/qwen3-plain", "--data",
                    self.data, "-o", self.trace)


class Replaying(Trace):
    def test_every_policy_is_between_nothing_and_belady(self):
        self.record()
        report = self.replay("--slots", "2,4,8,16")
        self.assertEqual(report["schema_version"], 1)
        self.assertEqual(report["experts_per_token"], LAYERS * TOP_K)
        self.assertEqual([r["slots"] for r in report["replays"]], [2, 4, 8, 16])
        for replay in report["replays"]:
            self.assertEqual(set(replay["policies"]), POLICIES)
            for counts in replay["policies"].values():
                self.assertEqual(counts["hits"] + counts["misses"], report["requests"])
                self.assertLessEqual(counts["hits"], replay["belady"]["hits"])
        whole = report["replays"][-1]
        self.assertEqual({c["misses"] for c in whole["policies"].values()}, {report["first_uses"]})
        self.assertEqual(whole["static_optimum"]["misses"], 0)

    def test_lru_hits_what_a_list_of_the_last_uses_holds(self):
        _, arrays = self.record()
        shape, experts = arrays["experts"]
        hits, held = 0, []
        for row in range(shape[0] * LAYERS):
            keys = [(row % LAYERS, e) for e in experts[row * TOP_K:(row + 1) * TOP_K]]
            present = [key for key in keys if key in held]
            hits += len(present)
            held = [key for key in held if key not in keys] + present
            held = (held + [key for key in keys if key not in present])[-5:]
        report = self.replay("--slots", 5, "--policy", "lru")
        self.assertEqual(report["replays"][0]["policies"]["lru"]["hits"], hits)

    def test_shares_are_of_the_stored_experts(self):
        self.record()
        slots = [r["slots"] for r in self.replay("--policy", "lru")["replays"]]
        self.assertEqual(slots, [4, 8, 12])
        report = self.replay("--share", "50,12.5", "--slots", 3, "--policy", "lru", "lfu")
        self.assertEqual([r["slots"] for r in report["replays"]], [2, 3, 8])
        self.assertEqual(list(report["replays"][0]["policies"]), ["lru", "lfu"])

    def test_the_seed_decides_the_random_subset(self):
        self.record()
        a, b, again = (self.replay("--slots", 5, "--policy", "random-subset", "--seed", seed)
                       for seed in (1, 2, 1))
        self.assertEqual(a, again)
        self.assertNotEqual(a["replays"], b["replays"])

    def test_the_table_has_a_line_for_each_policy_and_bound(self):
        self.record()
        text = self.succeed("trace", "--replay", self.trace, "--share", 50).stdout
        for name in (*POLICIES, "Belady", "static optimum", "8 (50%)", "qwen3_moe-plain:"):
            self.assertIn(name, text)


class Refusals(Trace):
    def test_slots_below_what_a_layer_needs(self):
        self.record()
        self.refuse(1, ["1 slots", "2 experts"], "trace", "--replay", self.trace, "--slots", 1)

    def test_unknown_policies_and_bad_numbers(self):
        self.record()
        self.refuse(1, ["'clock'", "segmented-lru"], "trace", "--replay", self.trace, "--policy", "clock")
        self.refuse(1, ["--share"], "trace", "--replay", self.trace, "--share", "25,many")
        self.refuse(1, ["--slots"], "trace", "--replay", self.trace, "--slots", "0")

    def test_files_that_are_no_trace(self):
        self.refuse(2, ["text.txt", "not a trace"], "trace", "--replay", self.data)
        self.record()
        short = self.file("short.trace", self.trace.read_bytes()[:-1])
        self.refuse(2, ["short.trace"], "trace", "--replay", short)
        self.refuse(2, ["missing"], "trace", "--replay", self.folder / "missing")

    def test_recording_and_replaying_are_one_or_the_other(self):
        self.refuse(1, ["--replay"], "trace")
        self.refuse(1, ["--replay"], "trace", tiny("plain"), "--replay", self.trace)
        self.refuse(1, ["--slots"], "trace", tiny("plain"), "--data", self.data, "-o", self.trace,
                    "--slots", 4)


if __name__ == "__main__":
    unittest.main()
