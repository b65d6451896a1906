#!/usr/bin/env python3
# SPDX-FileCopyrightText: The Winnow authors
# SPDX-License-Identifier: Apache-2.0
"""Ten thousand tokens with experts from the disk: memory stays where it was after the first thousand, and below the
limit, whatever is read early.

    WINNOW_BINARY=build/release/bin/winnow python3 tests/nightly/check_soak.py [TOKENS]
"""

import os
import pathlib
import subprocess
import sys
import time

ROOT = pathlib.Path(__file__).resolve().parents[2]
GRAIN = ROOT / "models" / "grain"
BINARY = os.environ["WINNOW_BINARY"]
LIMIT = 45 << 20
GENERATE = 250
# Of the samples, those of the first tenth are not compared: caches fill.
WARM_SHARE = 0.1
# VmRSS counts pages in batches of 64 for each thread.
GROWTH = 1 << 20


def resident(process):
    try:
        status = pathlib.Path(f"/proc/{process.pid}/status").read_text(encoding="ascii")
    except OSError:
        return None
    found = [line.split() for line in status.splitlines() if line.startswith("VmRSS:")]
    return int(found[0][1]) << 10 if found else None


def soak(tokens, *flags):
    command = [BINARY, "bench", GRAIN, "--memory", LIMIT, "--prompt", 8, "--generate", GENERATE, "--repetitions",
               max(1, tokens // GENERATE), "--json", os.devnull, *flags]
    with subprocess.Popen(list(map(str, command)), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        samples = []
        while process.poll() is None:
            samples.append(resident(process))
            time.sleep(0.05)
    if process.returncode != 0:
        sys.exit(f"{flags}: exit code {process.returncode}")
    samples = [sample for sample in samples if sample]
    steady = samples[int(len(samples) * WARM_SHARE):]
    if len(steady) < 20:
        sys.exit(f"{flags}: only {len(steady)} samples; ask for more tokens")
    half = len(steady) // 2
    first, second = max(steady[:half]), max(steady[half:])
    print(f"{' '.join(flags)}: {tokens} tokens, resident {first / 2**20:.2f} MiB in the first half, "
          f"{second / 2**20:.2f} MiB in the second, limit {LIMIT >> 20} MiB")
    if second > first + GROWTH or max(samples) > LIMIT:
        sys.exit("memory grew")


def main():
    tokens = int(sys.argv[1]) if len(sys.argv) > 1 else 10000
    for io in ("uring", "threads", "buffered"):
        for prefetch in ("off", "always"):
            soak(tokens, "--io", io, "--prefetch", prefetch)


if __name__ == "__main__":
    main()
