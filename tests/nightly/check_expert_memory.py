# SPDX-FileCopyrightText: The Winnow authors
# SPDX-License-Identifier: Apache-2.0
"""One budget for layers of 128 experts within a limit of memory: killed while it measures and while it packs, `winnow
compress --expert-options all` writes the bytes of a run that had all the memory. Experts of 384 KiB go through in little
more than half of the model's size. Those of 97 KiB in 24 layers are so small that the tables of their options and the
knapsack's states take more than half as much as they do, and the limit is above the model's own size.

Needs WINNOW_BINARY, the program, and WINNOW_MAKE_SPEED_MODEL, which writes the model.
"""

import pathlib
import sys
import unittest

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent / "cli"))
import compress_memory_test  # noqa: E402


class ExpertsLeftOutOfALargerModel(compress_memory_test.LargerThanMemory):
    SHAPE = ("small-128",)  # 589 MiB
    LIMIT = 320 << 20  # one layer with what is done to it is planned with 294
    TOKENS = 1200
    KILLED_AT = ("costs-expert_down_proj-00004*", "expert_*_proj-00005-*")

    def arguments(self, out, *options):
        return ("compress", self.model, "-o", out, "--data", compress_memory_test.CALIBRATION / "cpp.txt", "--tokens",
                self.TOKENS, "--steps", "scales,guard", "--expert-options", "all", "--budget", "16%", *options)


class ManySmallExpertsLeftOut(ExpertsLeftOutOfALargerModel):
    SHAPE = ("tiny-128", "--layers", "24")  # 298 MiB
    LIMIT = 380 << 20
    EXCEEDS_LIMIT = False


if __name__ == "__main__":
    unittest.main()
