# SPDX-FileCopyrightText: The Winnow authors
# SPDX-License-Identifier: Apache-2.0
"""`winnow compress --max-memory` on models that are larger than the limit: killed twice, it still writes the bytes of a
run that had all the memory."""

import os
import signal
import subprocess
import time
import unittest

from text_support import BINARY, ENVIRONMENT, GRAIN, CommandTest

CALIBRATION = GRAIN / "data" / "calib"


class LargerThanMemory(CommandTest):
    SHAPE = ("tiny", "--layers", "9")
    LIMIT = 108 << 20
    EXCEEDS_LIMIT = True
    TOKENS = 2500
    KILLED_AT = ("costs-expert_down_proj-00004.json", "expert_down_proj-00005.*")

    def setUp(self):
        super().setUp()
        self.model = self.folder / "model.gguf"
        subprocess.run([os.environ["WINNOW_MAKE_SPEED_MODEL"], "--shape", *self.SHAPE, "--type", "F32",
                        "-o", self.model], check=True, capture_output=True)
        if self.EXCEEDS_LIMIT:
            self.assertGreater(self.model.stat().st_size, self.LIMIT)

    def arguments(self, out, *options):
        return ("compress", self.model, "-o", out, "--data", CALIBRATION / "cpp.txt", "--tokens", self.TOKENS,
                "--steps", "scales,guard", "--allocation", "uniform", "--bits", "4.6", *options)

    def kill_when(self, pattern, out, *options):
        """Starts a run and kills it as soon as a file of that name is in the unfinished output."""
        process = subprocess.Popen([BINARY, *map(str, self.arguments(out, *options))],
                                   env=ENVIRONMENT, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
        with process.stderr:
            while process.poll() is None and not list(out.parent.glob(f"{out.name}.partial/{pattern}")):
                time.sleep(0.005)
            process.kill()
            message = process.stderr.read()
        self.assertEqual(process.wait(), -signal.SIGKILL, message)
        self.assertFalse(out.exists())

    def test_it_stays_within_the_limit_and_gives_the_same_bytes_killed_twice(self):
        free, limited = self.folder / "free.gguf", self.folder / "limited.gguf"
        self.succeed(*self.arguments(free))
        options = ("--max-memory", self.LIMIT)
        for pattern in self.KILLED_AT:
            self.kill_when(pattern, limited, *options)
        peak = self.peak_of(*self.arguments(limited, *options))
        print(f"peak {peak / 2**20:.1f} MiB of {self.LIMIT / 2**20:.0f} MiB, "
              f"model {self.model.stat().st_size / 2**20:.1f} MiB")
        self.assertLessEqual(peak, self.LIMIT)
        self.assertEqual(limited.read_bytes(), free.read_bytes())
        self.assertEqual(sorted(os.listdir(self.folder)), ["free.gguf", "limited.gguf", "model.gguf"])


class ManyExpertsLargerThanMemory(LargerThanMemory):
    """128 experts a layer, of which a token goes to 8: on average 75 tokens for each."""

    SHAPE = ("tiny-128", "--layers", "7")
    LIMIT = 84 << 20  # one layer with what is done to it is planned with 77
    TOKENS = 1200


if __name__ == "__main__":
    unittest.main()
