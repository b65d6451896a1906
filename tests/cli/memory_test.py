# SPDX-FileCopyrightText: The Winnow authors
# SPDX-License-Identifier: Apache-2.0
"""--memory of run, eval and bench, and winnow plan: the same results within the limit, measured from
outside by the peak of a control group of version 1 (the page cache included) and by VmHWM."""

import contextlib
import json
import os
import pathlib
import shutil
import subprocess
import unittest

from support import BINARY, ENVIRONMENT, SOURCE, CommandTest, winnow

GRAIN = SOURCE / "models/grain"
TEXT = "The history of the city begins with a river and a bridge, and people who"
MIB = 1 << 20
GROUPS = pathlib.Path("/sys/fs/cgroup/memory")


@contextlib.contextmanager
def memory_group(limit=None):
    """A fresh control group with a limit in bytes; skipped where none can be made, but not in CI."""
    group = GROUPS / f"winnow-test-{os.getpid()}"
    try:
        group.mkdir()
    except OSError as error:
        if os.environ.get("CI"):
            raise
        raise unittest.SkipTest(f"no control group: {error}") from error
    try:
        if limit is not None:
            (group / "memory.limit_in_bytes").write_text(str(limit))
        yield group
    finally:
        group.rmdir()


def run_in(group, *arguments):
    def enter():
        (group / "cgroup.procs").write_text(str(os.getpid()))
    return subprocess.run([BINARY, *map(str, arguments)], capture_output=True, env=ENVIRONMENT,
                          timeout=600, check=False, preexec_fn=enter)


def peak(group):
    return int((group / "memory.max_usage_in_bytes").read_text())


class MemoryTest(CommandTest):
    def generate(self, *arguments, model=GRAIN, tokens=24):
        return winnow("run", model, "-p", TEXT, "-n", tokens, "-t", 2, *arguments)

    def minimum(self, *arguments):
        """The bytes that the message of a refusal names."""
        done = self.generate("--memory", "1MiB", *arguments)
        self.assert_fails(done, 3, "--memory", "at least", "bytes")
        return int(done.stderr.decode().split("(")[-1].split(" bytes")[0])

    def uncached_copy(self):
        """A copy of the model of which the page cache holds nothing."""
        copy = self.folder / "grain"
        shutil.copytree(GRAIN, copy, ignore=shutil.ignore_patterns("golden", "data"))
        for path in copy.iterdir():
            if not path.is_file():
                continue
            descriptor = os.open(path, os.O_RDONLY)
            os.fsync(descriptor)
            os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
            os.close(descriptor)
        return copy

    def test_the_text_is_the_same_with_any_memory(self):
        expected = self.assert_ok(self.generate()).stdout
        least = self.minimum()
        for budget in (least, least + 3 * MIB, least + 12 * MIB, "2GiB", "60%", "auto"):
            done = self.assert_ok(self.generate("--memory", budget))
            self.assertEqual(done.stdout, expected, budget)

    def test_the_text_is_the_same_however_experts_are_read(self):
        expected = self.assert_ok(self.generate()).stdout
        budget = self.minimum() + 5 * MIB
        for io in ("auto", "uring", "threads", "buffered"):
            if io == "uring" and not os.environ.get("CI"):
                done = self.generate("--memory", budget, "--io", io)
                if b"does not allow io_uring" in done.stderr:
                    continue
            for policy in ("lru", "segmented-lru"):
                done = self.generate("--memory", budget, "--io", io, "--cache-policy", policy)
                self.assertEqual(self.assert_ok(done).stdout, expected, (io, policy))

    def test_the_text_is_the_same_whatever_is_read_early(self):
        expected = self.assert_ok(self.generate()).stdout
        budget = self.minimum() + 5 * MIB
        for prefetch in ("off", "auto", "always"):
            for predictor in ("next-router", "token-table", "sequence-prior"):
                done = self.generate("--memory", budget, "--prefetch", prefetch, "--predictor", predictor)
                self.assertEqual(self.assert_ok(done).stdout, expected, (prefetch, predictor))

    def test_the_statistics_say_what_was_predicted(self):
        budget = self.minimum() + 5 * MIB

        def statistics(prefetch):
            done = self.assert_ok(self.generate("--memory", budget, "--stats-json", "--prefetch", prefetch))
            return json.loads(done.stderr.decode().splitlines()[-1])

        self.assertNotIn("prefetch", statistics("off"))
        found = statistics("always")["prefetch"]
        self.assertEqual(len(found["recall"]), 6)
        self.assertIsNone(found["recall"][0], "nothing is known before the first router")
        for once, twice in zip(found["recall"][1:], found["recall_twice"][1:]):
            # Far above chance: 4 and 8 of 32.
            self.assertGreater(once, 0.3)
            self.assertGreater(twice, once)
        self.assertEqual(found["read"], found["named"])
        self.assertEqual(found["useful"], found["named_right"])
        self.assertGreater(found["useful"], 0)

    def test_a_run_begins_with_what_earlier_ones_used(self):
        expected = self.assert_ok(self.generate()).stdout
        hot = self.folder / "hot.json"
        flags = ("--memory", self.minimum() + 8 * MIB, "--hot-set", hot)
        for run in range(3):
            done = self.assert_ok(self.generate(*flags, "--stats-json"))
            self.assertEqual(done.stdout, expected)
            kept = json.loads(hot.read_text(encoding="utf-8"))
            self.assertEqual(kept["format"], "winnow-hot-set")
            counts = [uses for _, _, uses in kept["experts"]]
            self.assertEqual(counts, sorted(counts, reverse=True))
            if run == 0:
                first = counts
        self.assertGreater(sum(counts), sum(first))
        # A file that is something else is left alone.
        hot.write_text("my notes", encoding="utf-8")
        self.assert_fails(self.generate(*flags), 2, "hot.json")
        self.assertEqual(hot.read_text(encoding="utf-8"), "my notes")

    def test_tokens_go_to_experts_in_memory_when_asked_to(self):
        flags = ("--memory", self.minimum() + 3 * MIB, "--stats-json")

        def statistics(*more):
            done = self.assert_ok(self.generate(*flags, *more, tokens=100))
            return json.loads(done.stderr.decode().splitlines()[-1])

        own, near = statistics(), statistics("--prefer-cached", "1,12")
        self.assertNotIn("routing_policy", own)
        self.assertGreater(near["routing_policy"]["redirected_share"], 0.05)
        self.assertEqual(near["routing_policy"]["skipped_share"], 0)
        self.assertGreater(near["expert_cache"]["hit_rate"], own["expert_cache"]["hit_rate"] + 0.05)
        # With all experts in memory nothing changes.
        expected = self.assert_ok(self.generate()).stdout
        done = self.assert_ok(self.generate("--prefer-cached", "1,12"))
        self.assertEqual(done.stdout, expected)
        for wrong in ("12", "5,12", "1,4", "1,33", "a,b"):
            self.assert_fails(self.generate("--prefer-cached", wrong), 1, "--prefer-cached")
        self.assert_fails(self.generate("--prefer-cached", "1,12", "--experts-per-token", 2), 1, "--prefer-cached")

    def test_the_statistics_say_what_was_read(self):
        budget = self.minimum() + 5 * MIB
        done = self.assert_ok(self.generate("--memory", budget, "--stats-json"))
        statistics = json.loads(done.stderr.decode().splitlines()[-1])
        cache = statistics["expert_cache"]
        self.assertGreater(cache["misses"], 0)
        self.assertGreater(cache["hits"], 0)
        self.assertGreater(cache["bytes_read"], cache["misses"])
        self.assertIn(b"read from the disk when needed", done.stderr)

    def test_the_least_memory_is_enough_and_a_byte_less_is_refused(self):
        least = self.minimum()
        done = self.assert_ok(self.generate("--memory", least, "--stats-json"))
        # The experts of one token do not fit, yet some are found.
        cache = json.loads(done.stderr.decode().splitlines()[-1])["expert_cache"]
        self.assertGreater(cache["hits"], 0)
        # The least is told in steps of 4 MiB.
        self.assert_fails(self.generate("--memory", least - 4 * MIB - 1), 3, "at least")

    def test_evaluation_is_the_same_within_a_limit(self):
        data = self.folder / "text.txt"
        data.write_text(TEXT * 20)
        arguments = ("eval", GRAIN, "--data", data, "--context", 64, "--json", "-")
        expected = json.loads(self.assert_ok(winnow(*arguments)).stdout)
        done = winnow(*arguments, "--memory", "48MiB")
        found = json.loads(self.assert_ok(done).stdout)
        self.assertGreater(found.pop("expert_cache")["evictions"], 0)
        self.assertEqual(found, expected)
        done = winnow(*arguments, "--memory", "96MiB", "--reference", GRAIN)
        found = json.loads(self.assert_ok(done).stdout)
        self.assertEqual(found["kl_divergence"], 0)
        self.assertEqual(found["nll"], expected["nll"])

    def test_the_group_never_holds_more_than_the_limit(self):
        copy = self.uncached_copy()
        least = self.minimum()
        for budget in (least, least + 6 * MIB, least + 16 * MIB, 160 * MIB):
            for io in ("auto", "buffered"):
                with memory_group() as group:
                    done = run_in(group, "run", copy, "-p", TEXT * 8, "-n", 24, "-t", 2,
                                  "--context", 256, "--memory", budget, "--io", io, "--stats-json")
                    self.assert_ok(done)
                    statistics = json.loads(done.stderr.decode().splitlines()[-1])
                    self.assertLessEqual(peak(group), budget, (budget, io))
                    self.assertLessEqual(statistics["peak_rss"], budget)

    def test_the_evaluation_never_holds_more_than_the_limit(self):
        copy = self.uncached_copy()
        data = self.folder / "text.txt"
        data.write_text(TEXT * 60)
        with memory_group() as group:
            done = run_in(group, "eval", copy, "--data", data, "--memory", "64MiB")
            self.assert_ok(done)
            self.assertLessEqual(peak(group), 64 * MIB)

    def test_a_model_that_does_not_fit_streams_by_itself(self):
        expected = self.assert_ok(self.generate()).stdout
        with memory_group(limit=self.minimum() + 14 * MIB) as group:
            done = run_in(group, "run", self.uncached_copy(), "-p", TEXT, "-n", 24, "-t", 2)
            self.assert_ok(done)
            self.assertEqual(done.stdout, expected)
            self.assertIn(b"does not fit", done.stderr)
            self.assertIn(b"--memory auto", done.stderr)

    def test_flags_that_make_no_sense_are_refused(self):
        self.assert_fails(self.generate("--memory", "lots"), 1, "--memory")
        self.assert_fails(self.generate("--memory", "101%"), 1, "--memory", "from 0 to 100")
        self.assert_fails(self.generate("--memory", "1GiB", "--weights", "mapped"), 1, "--weights")
        self.assert_fails(self.generate("--memory", "1GiB", "--cache-policy", "best"), 1,
                          "segmented-lru")

    def test_a_file_that_is_cut_while_it_is_read_ends_in_a_message(self):
        copy = self.uncached_copy()
        weights = copy / "model.safetensors"
        process = subprocess.Popen(
            [BINARY, "run", copy, "-p", TEXT, "-n", "100000", "--context", "512", "--ignore-eos",
             "--memory", str(self.minimum("--context", 512) + 2 * MIB)],
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=ENVIRONMENT)
        process.stdout.read(8)  # it generates
        os.truncate(weights, weights.stat().st_size // 2)
        _, errors = process.communicate(timeout=120)
        self.assertEqual(process.returncode, 2, errors.decode())
        self.assertIn("model.safetensors", errors.decode().splitlines()[-1])

    def test_bench_tells_what_the_cache_and_the_disk_did(self):
        done = winnow("bench", GRAIN, "--prompt", 16, "--generate", 8, "--repetitions", 1, "--memory",
                      "48MiB", "--json", "-")
        report = json.loads(self.assert_ok(done).stdout)
        for key in ("hits", "misses", "evictions", "bytes_read", "stall_seconds"):
            self.assertIn(key, report["expert_cache"])
        self.assertGreater(report["disk_bandwidth"], 0)
        self.assertGreater(report["read_bandwidth"], 0)
        self.assertEqual(report["memory_budget"], 48 * MIB)
        self.assertLessEqual(report["peak_rss"], 48 * MIB)

    def plan(self, *arguments):
        return winnow("plan", GRAIN, "--context", 128, "--disk-bandwidth", "1GB", "--read-bandwidth",
                      "20GB", *arguments)

    def test_the_plan_says_where_every_byte_goes(self):
        done = self.plan("--memory", "48MiB", "--json", "-")
        plan = json.loads(self.assert_ok(done).stdout)
        parts = plan["bytes"]
        self.assertEqual(sum(size for name, size in parts.items() if name != "total"),
                         parts["total"])
        self.assertLessEqual(parts["total"], 48 * MIB)
        self.assertFalse(plan["resident"])
        self.assertTrue(0 < plan["hit_rate"] < 1)
        slots = plan["slots"][0]
        self.assertAlmostEqual(plan["hit_rate"], slots["slots"] / slots["experts"])
        missing = (1 - plan["hit_rate"]) * plan["token_cycle"]
        self.assertEqual(plan["limited_by"], "disk")
        self.assertAlmostEqual(plan["decode_tokens_per_second"], 1e9 / missing, delta=1e-3)
        text = self.assert_ok(self.plan("--memory", "48MiB")).stdout.decode()
        for word in ("dense weights", "slots of", "limited by the disk"):
            self.assertIn(word, text)

    def test_the_plan_knows_when_all_fits_and_when_nothing_does(self):
        plan = json.loads(self.assert_ok(self.plan("--memory", "1GiB", "--json", "-")).stdout)
        self.assertTrue(plan["resident"])
        self.assertEqual(plan["limited_by"], "memory")
        self.assert_fails(self.plan("--memory", "8MiB"), 3, "at least", "128 positions")


if __name__ == "__main__":
    unittest.main()
