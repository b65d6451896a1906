#!/usr/bin/env python3
# SPDX-FileCopyrightText: The Winnow authors
# SPDX-License-Identifier: Apache-2.0
"""Time and memory of quantising with Hessians: `winnow compress` and llmcompressor's GPTQ on the same tokens.

    python3 bench/quality_peers.py FOLDER --text FILE --peer-python PYTHON [--sequences 16,64,256] [--json FILE]

FOLDER is a dense Hugging Face folder that both read; `winnow convert` makes one of a GGUF file. Each number of
sequences is one fresh process of each tool; a sequence is the start token and 511 others of FILE, in the order of the
file. Reported are wall time, processor time and the largest resident memory (the kernel's, of the process), and the
slope of both times over the number of sequences by least squares: what one sequence more costs, without start-up.
"""

import argparse
import json
import os
import pathlib
import subprocess
import sys
import tempfile
import time

ROOT = pathlib.Path(__file__).resolve().parent.parent
WORKER = ROOT / "bench" / "gptq_worker.py"
CONTEXT = 512


class Failed(Exception):
    """A command failed; the message ends with what it said."""


def measured(command, environment=None):
    """(standard output, {wall, processor, peak_bytes}) of a fresh process."""
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as errors:
        start = time.perf_counter()
        child = subprocess.Popen([str(word) for word in command], stdout=out, stderr=errors, env=environment)
        _, status, usage = os.wait4(child.pid, 0)
        wall = time.perf_counter() - start
        child.returncode = os.waitstatus_to_exitcode(status)
        out.seek(0), errors.seek(0)
        text, said = out.read().decode("utf-8", "replace"), errors.read().decode("utf-8", "replace")
    if child.returncode != 0:
        end = "\n  ".join(said.strip().splitlines()[-6:])
        raise Failed(f"{' '.join(map(str, command))}: exit code {child.returncode}\n  {end}")
    return text, {"wall": wall, "processor": usage.ru_utime + usage.ru_stime, "peak_bytes": usage.ru_maxrss * 1024}


def slope(points):
    """Least-squares slope of [(x, y)]; with two points the difference quotient."""
    count = len(points)
    mean_x, mean_y = (sum(values) / count for values in zip(*points))
    return sum((x - mean_x) * (y - mean_y) for x, y in points) / sum((x - mean_x) ** 2 for x, _ in points)


def run_winnow(options, count, folder):
    command = [options.winnow, "compress", options.model, "-o", pathlib.Path(folder) / "out.gguf", "--force", "--quiet",
               "--bits", options.bits, "--data", options.text, "--tokens", count * (CONTEXT - 1), "--context", CONTEXT,
               "--threads", options.threads, *options.flags]
    return measured(command)[1]


def run_peer(options, count, folder):
    environment = {**os.environ, "OMP_NUM_THREADS": str(options.threads), "MKL_NUM_THREADS": str(options.threads),
                   "HF_HUB_OFFLINE": "1", "HF_HOME": str(folder), "TMPDIR": str(folder)}
    text, usage = measured([options.peer_python, "-B", WORKER, "quantize", options.model, options.text, count,
                            options.threads, options.peer_dtype], environment)
    return {**usage, **json.loads(text.strip().splitlines()[-1])}


def measure(options, say):
    """{tool: [{sequences, wall, processor, peak_bytes}]}, the tools alternately."""
    runs = {"winnow": [], "llmcompressor": []}
    for count in options.sequences:
        for tool, runner in (("winnow", run_winnow), ("llmcompressor", run_peer)):
            with tempfile.TemporaryDirectory(prefix="winnow-peers-") as folder:
                usage = runner(options, count, folder)
            if usage.get("windows", count) != count:
                raise Failed(f"{options.text} holds {usage['windows']} sequences; {count} were asked for")
            runs[tool].append({"sequences": count, **usage})
            say(f"{tool}, {count} sequences: {usage['wall']:.1f} s, processor {usage['processor']:.1f} s, "
                f"{usage['peak_bytes'] / 2**20:.0f} MiB")
    return runs


def slopes(runs):
    return {key: slope([(run["sequences"], run[key]) for run in runs]) if len(runs) > 1 else None
            for key in ("wall", "processor")}


def markdown(runs):
    lines = ["| tool | sequences | wall, s | processor, s | peak memory, MiB |", "|---|---|---|---|---|"]
    for tool, taken in runs.items():
        lines += [f"| {tool} | {run['sequences']} | {run['wall']:.1f} | {run['processor']:.1f} | "
                  f"{run['peak_bytes'] / 2**20:.0f} |" for run in taken]
    ours, theirs = slopes(runs["winnow"]), slopes(runs["llmcompressor"])
    if ours["wall"] is None:
        return "\n".join(lines)
    peaks = [max(run["peak_bytes"] for run in runs[tool]) for tool in ("winnow", "llmcompressor")]
    lines += ["", "| | Winnow | llmcompressor | Winnow / llmcompressor (goal) |", "|---|---|---|---|"]
    lines += [f"| {name}, s a sequence | {ours[key]:.3f} | {theirs[key]:.3f} | {ours[key] / theirs[key]:.3f} (0.2) |"
              for name, key in (("wall time", "wall"), ("processor time", "processor"))]
    lines.append(f"| peak memory, MiB | {peaks[0] / 2**20:.0f} | {peaks[1] / 2**20:.0f} | "
                 f"{peaks[0] / peaks[1]:.3f} (0.333) |")
    return "\n".join(lines)


def parse(arguments):
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", help="Hugging Face folder that both tools read")
    parser.add_argument("--text", required=True, help="one text file with enough tokens")
    parser.add_argument("--sequences", default="16,64,256", help="numbers of sequences, separated by commas")
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--bits", default="4.5", help="budget of winnow compress")
    parser.add_argument("--flags", default="", help="more flags for winnow compress, in one argument")
    parser.add_argument("--winnow", type=pathlib.Path, default=ROOT / "build/release/bin/winnow", help="the program")
    parser.add_argument("--peer-python", default=os.environ.get("WINNOW_PEER_PYTHON", sys.executable),
                        help="Python that has torch, transformers and llmcompressor")
    parser.add_argument("--peer-dtype", default="bfloat16", help="torch type that llmcompressor loads the model in")
    parser.add_argument("--json", metavar="FILE", help="write everything measured to this file")
    options = parser.parse_args(arguments)
    options.flags = options.flags.split()
    options.sequences = [int(word) for word in options.sequences.split(",")]
    return options


def main(arguments, out=print, say=lambda text: print(text, file=sys.stderr, flush=True)):
    """Exit code: 0, or 2 when a command failed."""
    options = parse(arguments)
    try:
        runs = measure(options, say)
    except (Failed, OSError, ValueError) as error:
        say(f"quality_peers: {error}")
        return 2
    out(markdown(runs))
    if options.json:
        report = {"schema_version": 1, "model": str(options.model), "threads": options.threads, "bits": options.bits,
                  "flags": options.flags, "peer_dtype": options.peer_dtype, "runs": runs,
                  "slopes": {tool: slopes(taken) for tool, taken in runs.items()}}
        pathlib.Path(options.json).write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
