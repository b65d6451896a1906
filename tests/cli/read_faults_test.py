# SPDX-FileCopyrightText: The Winnow authors
# SPDX-License-Identifier: Apache-2.0
"""Experts that are read while running, from disks and kernels on which reads go wrong: what can be tried again gives
the same text, what cannot ends with a message, and nothing ends with a signal."""

import json
import os
import resource
import unittest

from support import ENVIRONMENT, SOURCE, CommandTest, winnow

GRAIN = SOURCE / "models/grain"
TEXT = "The history of the city begins with a river and a bridge, and people who"
MIB = 1 << 20


def limit(which, value):
    def enter():
        resource.setrlimit(which, (value, value))
    return enter


class ReadFaults(CommandTest):
    @classmethod
    def setUpClass(cls):
        refused = winnow("run", GRAIN, "-p", TEXT, "-n", 24, "--memory", "1MiB").stderr.decode()
        cls.budget = int(refused.split("(")[-1].split(" bytes")[0]) + 5 * MIB
        cls.expected = cls.generate().stdout
        assert cls.expected, refused

    @classmethod
    def generate(cls, *flags, fault=None, **options):
        environment = {**ENVIRONMENT}
        if fault:
            environment.update(LD_PRELOAD=os.environ["WINNOW_READ_FAULTS"], WINNOW_FAULT=fault)
        return winnow("run", GRAIN, "-p", TEXT, "-n", 24, "-t", 2, "--memory", cls.budget, *flags, env=environment,
                      timeout=600, **options)

    def test_reads_that_are_tried_again_change_nothing(self):
        for fault in ("short", "eintr", "eagain", "eio-once", "slow", "einval", "no-direct"):
            for prefetch in ("off", "always"):
                done = self.generate("--io", "threads", "--prefetch", prefetch, fault=fault)
                self.assertEqual(self.assert_ok(done).stdout, self.expected, (fault, prefetch))

    def test_the_faults_happen(self):
        # A disk that takes its time is seen in the time that was waited.
        def waited(**options):
            done = self.generate("--io", "threads", "--stats-json", "--prefetch", "off", **options)
            return json.loads(self.assert_ok(done).stderr.decode().splitlines()[-1])["expert_cache"]["stall_seconds"]
        self.assertGreater(waited(fault="slow"), 0.05)

    def test_a_disk_that_fails_ends_the_run_with_a_message(self):
        done = self.generate("--io", "threads", fault="eio")
        self.assertNotEqual(done.returncode, 0)
        self.assertGreater(done.returncode, 0, "a signal")
        message = done.stderr.decode()
        for word in ("expert ", "layer ", "model.safetensors", "offset ", "Input/output error"):
            self.assertIn(word, message)

    def test_without_io_uring_threads_read(self):
        self.assertEqual(self.assert_ok(self.generate(fault="no-uring")).stdout, self.expected)
        self.assert_fails(self.generate("--io", "uring", fault="no-uring"), 4, "io_uring")

    def test_little_locked_memory_is_enough(self):
        done = self.generate(preexec_fn=limit(resource.RLIMIT_MEMLOCK, 64 << 10))
        self.assertEqual(self.assert_ok(done).stdout, self.expected)

    def test_with_few_descriptors_it_runs_or_says_so(self):
        codes = []
        for descriptors in range(4, 16):
            done = self.generate(preexec_fn=limit(resource.RLIMIT_NOFILE, descriptors))
            codes.append(done.returncode)
            if done.returncode == 0:
                self.assertEqual(done.stdout, self.expected, descriptors)
            else:
                self.assertGreater(done.returncode, 0, "a signal")
                self.assertIn(b"Too many open files", done.stderr, descriptors)
        self.assertEqual(codes[-1], 0)


if __name__ == "__main__":
    unittest.main()
