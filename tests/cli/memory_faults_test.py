# SPDX-FileCopyrightText: The Winnow authors
# SPDX-License-Identifier: Apache-2.0
"""Memory that runs out, at places all over a run: it ends with a message and leaves nothing half-written, or does
without what it asked for; no signal ends it."""

import os
import pathlib
import unittest

from support import ENVIRONMENT, SOURCE, TINY, CommandTest, winnow

GRAIN = SOURCE / "models/grain"
PLACES = 40
OUT_OF_MEMORY = 4  # the exit code for what the system refuses
# What is refused for good, as a system does that has little left. Where small pieces are refused for good as well, the
# JSON library aborts: taking down a tree takes a vector of its values, for a vocabulary one of 64 KiB and more.
LARGE = 1 << 20


def preloaded(**settings):
    return {**ENVIRONMENT, "LD_PRELOAD": os.environ["WINNOW_MEMORY_FAULTS"],
            **{name: str(value) for name, value in settings.items()}}


@unittest.skipIf({"asan", "tsan"} & set(pathlib.Path(os.environ["WINNOW_BINARY"]).parts),
                 "a sanitizer has an allocator of its own")
class MemoryFaults(CommandTest):
    def check(self, *arguments, least):
        """Fails allocations of at least `least` bytes at places spread over the run; returns how many were noticed."""
        count = self.folder / "count"
        expected = self.assert_ok(winnow(*arguments, env=preloaded(WINNOW_COUNT_TO=count, WINNOW_FAIL_BYTES=least)))
        allocations = int(count.read_text())
        self.assertGreater(allocations, 0)
        noticed = 0
        for place in sorted({1 + i * allocations // PLACES for i in range(PLACES)}):
            for how in ("WINNOW_FAIL_AT", "WINNOW_FAIL_FROM")[:2 if least else 1]:
                done = winnow(*arguments, env=preloaded(WINNOW_FAIL_BYTES=least, **{how: place}))
                message = f"{how}={place}: {done.returncode}: {done.stderr.decode()[-300:]}"
                if done.returncode == 0:
                    self.assertEqual(done.stdout, expected.stdout, message)
                    continue
                noticed += 1
                self.assertEqual(done.returncode, OUT_OF_MEMORY, message)
                self.assertIn(b"winnow: ", done.stderr, message)
        return noticed

    def test_a_run_ends_with_a_message_wherever_memory_fails_once(self):
        self.assertGreater(self.check("run", TINY, "-p", "ab", "-n", 4, "-t", 2, least=0), PLACES // 2)

    def test_so_does_one_that_reads_experts(self):
        run = ("run", GRAIN, "-p", "The", "-n", 2, "-t", 2, "--memory", "45MiB")
        self.assertGreater(self.check(*run, least=0), PLACES // 2)

    def test_so_does_one_that_gets_no_large_piece_any_more(self):
        run = ("run", GRAIN, "-p", "The", "-n", 2, "-t", 2, "--memory", "45MiB")
        self.assertGreater(self.check(*run, least=LARGE), 0)

    def test_a_file_that_could_not_be_finished_is_not_there(self):
        out = self.folder / "out.gguf"
        count = self.folder / "count"
        convert = ("convert", TINY, "-o", out, "--type", "Q8_0")
        self.assert_ok(winnow(*convert, env=preloaded(WINNOW_COUNT_TO=count)))
        written = out.read_bytes()
        allocations = int(count.read_text())
        for place in range(1, allocations, allocations // PLACES):
            out.unlink(missing_ok=True)
            done = winnow(*convert, env=preloaded(WINNOW_FAIL_AT=place))
            if done.returncode == 0:
                self.assertEqual(out.read_bytes(), written)
            else:
                self.assertEqual(done.returncode, OUT_OF_MEMORY, done.stderr.decode())
                self.assertFalse(out.exists(), place)
        self.assertEqual(sorted(path.name for path in pathlib.Path(self.folder).iterdir() if path != out), ["count"])


if __name__ == "__main__":
    unittest.main()
