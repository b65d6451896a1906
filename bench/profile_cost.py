#!/usr/bin/env python3
# SPDX-FileCopyrightText: The Winnow authors
# SPDX-License-Identifier: Apache-2.0
"""What profiling, Hessians and quantising cost, as processor time beside a forward pass and the machine's speed.

    python3 bench/profile_cost.py MODEL --data CALIB [--tokens 32704] [--repetitions 7] [--tools DIR] [--json FILE]

1. `winnow eval` (a forward pass with all logits) and `winnow profile` read the same windows, alternately; start-up
   included. Goal: a ratio of 1.15 or less.
2. `profile_cost`: each layer over the same tokens in one batch with nothing, with each family of statistics, with
   Hessians of the inputs of all quantised matrices. Goals: 1.15 with all statistics, 1.6 with Hessians.
3. `quantise_cost`: the default quantiser on one matrix beside its arithmetic at the measured f32 peak. Goal: 3.

Processor time is user and system time of the finished process (wait4), which other load disturbs less than the clock
does; the clock's is shown beside it. The ratio is the median over the pairs, with the smallest and the largest.
"""

import argparse
import json
import os
import pathlib
import statistics
import subprocess
import sys
import tempfile
import time

ROOT = pathlib.Path(__file__).resolve().parent.parent


class Failed(Exception):
    """A command failed; the message ends with what it said."""


def timed(command):
    """(processor seconds, seconds) of a command."""
    with tempfile.TemporaryFile() as said:
        start = time.perf_counter()
        child = os.posix_spawn(command[0], command, os.environ,
                               file_actions=[(os.POSIX_SPAWN_DUP2, said.fileno(), 1),
                                             (os.POSIX_SPAWN_DUP2, said.fileno(), 2)])
        _, status, usage = os.wait4(child, 0)
        seconds = time.perf_counter() - start
        if status != 0:
            said.seek(0)
            raise Failed(f"{' '.join(command)}: failed\n{said.read().decode(errors='replace')[-1000:]}")
    return usage.ru_utime + usage.ru_stime, seconds


def spread(values):
    return {"median": statistics.median(values), "min": min(values), "max": max(values)}


def summary(pairs):
    """pairs: ((processor, clock) of eval, the same of profile), one for each repetition."""
    result = {}
    for place, clock in enumerate(("processor", "wall")):
        forward = [pair[0][place] for pair in pairs]
        profile = [pair[1][place] for pair in pairs]
        result[clock] = {"forward_seconds": spread(forward), "profile_seconds": spread(profile),
                         "ratio": spread([b / a for a, b in zip(forward, profile)])}
    return result


def compare(options):
    common = ["--data", *options.data, "--tokens", str(options.tokens), "--context", str(options.context),
              "--threads", str(options.threads), "--quiet"]
    pairs = []
    with tempfile.TemporaryDirectory() as folder:
        out = str(pathlib.Path(folder) / "cost.stats")
        for repetition in range(options.repetitions):
            runs = [[options.winnow, "eval", options.model, *common],
                    [options.winnow, "profile", options.model, "-o", out, "--restart", "--force", *common]]
            order = (0, 1) if repetition % 2 == 0 else (1, 0)  # so that neither is always the warm one
            took = {which: timed(runs[which]) for which in order}
            pairs.append((took[0], took[1]))
    return summary(pairs)


def show(result, say):
    say(f"{'':<12}{'forward s':>12}{'profile s':>12}{'ratio':>10}  (min - max)")
    for clock, values in result.items():
        ratio = values["ratio"]
        say(f"{clock:<12}{values['forward_seconds']['median']:>12.3f}{values['profile_seconds']['median']:>12.3f}"
            f"{ratio['median']:>10.3f}  ({ratio['min']:.3f} - {ratio['max']:.3f})")


def run_tool(options, name, *arguments):
    command = [str(pathlib.Path(options.tools) / name), *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise Failed(f"{' '.join(command)}: {done.stderr.strip()}")
    return done.stdout


def parse(arguments):
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("--data", nargs="+", required=True)
    parser.add_argument("--tokens", type=int, default=32704)
    parser.add_argument("--context", type=int, default=512)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--repetitions", type=int, default=7)
    parser.add_argument("--winnow", default=str(ROOT / "build/release/bin/winnow"))
    parser.add_argument("--tools", help="folder of profile_cost and quantise_cost; without it they are left out")
    parser.add_argument("--json", metavar="FILE")
    return parser.parse_args(arguments)


def main(arguments=None):
    options = parse(arguments)
    try:
        result = compare(options)
        show(result, print)
        if options.tools:
            print(run_tool(options, "profile_cost", options.model, options.data[0], 8 * (options.context - 1),
                           options.repetitions, options.threads))
            print(run_tool(options, "quantise_cost"))
    except (Failed, OSError) as error:
        print(f"profile_cost: {error}", file=sys.stderr)
        return 2
    if options.json:
        record = {"schema_version": 1, "model": options.model, "tokens": options.tokens, "threads": options.threads,
                  "repetitions": options.repetitions, **result}
        pathlib.Path(options.json).write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
