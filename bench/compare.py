#!/usr/bin/env python3
# SPDX-FileCopyrightText: The Winnow authors
# SPDX-License-Identifier: Apache-2.0
"""Runs Winnow and other engines alternately on the same GGUF files and compares their speed.

    python3 bench/compare.py MODEL.gguf ... [--pairs 5] [--threads 2] [--prompt 512] [--generate 128]
        [--engines winnow,stock,ik] [--json FILE]

One round gives each engine one sample, in an order that rotates from round to round. For a sample the file is read
once, so that it is in the page cache, and a fresh process loads it, runs the prompt and some tokens to warm up, and
is then timed: a prompt of random tokens (batches of 512, logits of the last token only), and that many single tokens
from an empty context. A process for each sample, since several loaded models would press on each other's memory,
and an idle one's pages may be taken away. Ratios are formed within a round, where the machine is most alike.

Every engine prints the CPU features it uses; one built without AVX-512 is refused where the processor has it.
Needs the standard library only. Where the engines come from: docs/performance.md.
"""

import argparse
import dataclasses
import json
import os
import pathlib
import statistics
import subprocess
import sys

from compare_engines import EngineError, make_engines

ROOT = pathlib.Path(__file__).resolve().parent.parent
MEASURES = ("prefill", "decode")


@dataclasses.dataclass(frozen=True)
class Settings:
    prompt: int = 512
    generate: int = 128
    threads: int = 2
    pairs: int = 5


class Refused(Exception):
    """A comparison that would not be fair, or cannot be made; the message says why and what to do."""


def cpu_flags(path="/proc/cpuinfo"):
    """The processor's feature flags as Linux names them."""
    for line in pathlib.Path(path).read_text(encoding="utf-8").splitlines():
        if line.startswith("flags"):
            return set(line.split(":", 1)[1].split())
    return set()


def uses_avx512(features):
    """Whether an engine's line of features says so: `AVX512 = 1` of llama.cpp's kind, `avx512_vnni` of Winnow's."""
    return "AVX512 = 1" in features or "avx512" in features


def refuse_weak_build(name, features, flags):
    """Raises Refused for a build without AVX-512 on a processor with it."""
    if "avx512f" in flags and not uses_avx512(features):
        raise Refused(f"{name}: this build does not use AVX-512, which the processor has; a comparison with it would "
                      f"flatter the others. It says: '{features.strip()}'. Build it for this machine; see "
                      "docs/performance.md")


def spread(values):
    """Median, least and most of samples."""
    return {"median": statistics.median(values), "min": min(values), "max": max(values)}


def ratios(samples, others):
    """Spread of samples[i] / others[i], round by round."""
    return spread([a / b for a, b in zip(samples, others, strict=True)])


def read_through(path):
    """Reads a file to its end, so that the page cache holds it."""
    buffer = bytearray(1 << 23)
    with open(path, "rb", buffering=0) as file:
        while file.readinto(buffer):
            pass


def rotated(items, by):
    by %= len(items)
    return items[by:] + items[:by]


def run_rounds(engines, model, settings, flags, say):
    """{engine: [sample, ...]}; a sample has prefill and decode in tokens a second, load_seconds, features, version."""
    samples = {engine.name: [] for engine in engines}
    for round_ in range(settings.pairs):
        for engine in rotated(engines, round_):
            read_through(model)
            sample = engine.sample(model, settings)
            refuse_weak_build(engine.name, sample["features"], flags)
            if not samples[engine.name]:
                say(f"{engine.name} {sample['version']}: {sample['features'].strip()}")
            samples[engine.name].append(sample)
            say(f"round {round_ + 1} of {settings.pairs}, {engine.name}: prefill {sample['prefill']:.1f}, "
                f"decode {sample['decode']:.1f} tokens/s")
    return samples


def compare(engines, model, settings, flags, say):
    """Measures one model with all engines; returns what --json writes for it."""
    samples = run_rounds(engines, model, settings, flags, say)
    result = {"model": pathlib.Path(model).name, "file_bytes": os.stat(model).st_size, "engines": {}, "ratios": {}}
    for name, taken in samples.items():
        entry = {"version": taken[0]["version"], "features": taken[0]["features"].strip(), "samples": taken}
        entry.update({measure: spread([s[measure] for s in taken]) for measure in (*MEASURES, "load_seconds")})
        result["engines"][name] = entry
    first = engines[0].name
    for engine in engines[1:]:
        result["ratios"][f"{first}/{engine.name}"] = {
            measure: ratios([s[measure] for s in samples[first]], [s[measure] for s in samples[engine.name]])
            for measure in MEASURES}
    return result


def cell(values, digits=1):
    return f"{values['median']:.{digits}f} ({values['min']:.{digits}f} - {values['max']:.{digits}f})"


def markdown(result, settings):
    """A table of the medians with least and most, and of the first engine's ratio to each other one."""
    first = next(iter(result["engines"]))
    lines = [f"### {result['model']}, {settings.threads} threads, {settings.pairs} rounds", "",
             f"| engine | prefill of {settings.prompt}, tokens/s | decode of {settings.generate}, tokens/s | "
             f"{first} / it, prefill | {first} / it, decode | load, s |", "|---|---|---|---|---|---|"]
    for name, entry in result["engines"].items():
        ratio = result["ratios"].get(f"{first}/{name}")
        compared = [cell(ratio[measure], 2) if ratio else "" for measure in MEASURES]
        lines.append(f"| {name} {entry['version']} | {cell(entry['prefill'])} | {cell(entry['decode'])} | "
                     f"{compared[0]} | {compared[1]} | {cell(entry['load_seconds'], 2)} |")
    samples = result["engines"][first]["samples"]
    if "bandwidth_fractions" in samples[0]:
        fractions = spread([s["bandwidth_fractions"]["median"] for s in samples])
        peaks = spread([s["prefill_peak_fractions"]["median"] for s in samples])
        lines += ["", f"{first}: decode {cell(fractions, 3)} of the read bandwidth, prefill {cell(peaks, 3)} of the "
                  "int8 peak, each measured beside it in the same sample."]
    return "\n".join(lines + ["", *(f"{name}: `{entry['features']}`" for name, entry in result["engines"].items())])


def parse(arguments):
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="+", metavar="MODEL", help="GGUF file")
    parser.add_argument("--pairs", type=int, default=Settings.pairs, help="rounds, at least 1; 5 or more for a claim")
    parser.add_argument("--threads", type=int, default=Settings.threads)
    parser.add_argument("--prompt", type=int, default=Settings.prompt, help="tokens")
    parser.add_argument("--generate", type=int, default=Settings.generate, help="tokens")
    parser.add_argument("--engines", default="winnow,stock",
                        help="of winnow, stock, ik; the first is compared with the others")
    parser.add_argument("--json", metavar="FILE", help="write samples and statistics to this file")
    parser.add_argument("--winnow", type=pathlib.Path, default=ROOT / "build/release/bin/winnow", help="the program")
    node = ROOT / "tests/peer/node_modules/@node-llama-cpp/linux-x64"
    parser.add_argument("--stock-node", type=pathlib.Path, default=os.environ.get("WINNOW_STOCK_NODE", node),
                        help="folder of the npm package @node-llama-cpp/linux-x64")
    parser.add_argument("--ik-python", type=pathlib.Path, default=os.environ.get("WINNOW_IK_PYTHON"),
                        help="Python that has the PyPI package ik-llama-cpp-python, built for this machine")
    options = parser.parse_args(arguments)
    for name in ("pairs", "threads", "prompt", "generate"):
        if getattr(options, name) < 1:
            parser.error(f"--{name} is {getattr(options, name)}; expected at least 1")
    return options


def main(arguments, engines=None, flags=None, out=print, say=lambda text: print(text, file=sys.stderr, flush=True)):
    """Exit code: 0, or 2 when an engine is missing, fails, or would make the comparison unfair."""
    options = parse(arguments)
    settings = Settings(options.prompt, options.generate, options.threads, options.pairs)
    flags = cpu_flags() if flags is None else flags
    try:
        engines = make_engines(options) if engines is None else engines
        results = [compare(engines, model, settings, flags, say) for model in options.models]
    except (Refused, EngineError, OSError, subprocess.SubprocessError) as error:
        say(f"compare: {error}")
        return 2
    for result in results:
        out(markdown(result, settings) + "\n")
    if options.json:
        report = {"schema_version": 1, **dataclasses.asdict(settings), "cpu_flags": sorted(flags), "models": results}
        pathlib.Path(options.json).write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
