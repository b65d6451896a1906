#!/usr/bin/env python3
# SPDX-FileCopyrightText: The Winnow authors
# SPDX-License-Identifier: Apache-2.0
"""Winnow and other engines under the same limits of memory, with the model on the disk.

    python3 bench/compare_memory.py MODEL.gguf [--shares 75,50,25] [--pairs 5] [--prompt 1] [--generate 32]
        [--engines winnow,stock,ik] [--variant NAME=FLAGS ...] [--text FILE] [--read-ahead KIB] [--json FILE]

A limit is a share of the file's size, kept by a control group (version 1; needs root), which counts the page cache of
a mapping too. Winnow is told the same number as --memory. For a sample the caches of the system are dropped, and a
fresh process loads the model, runs the prompt twice, the second time timed, 16 single tokens (`cold`: the first ones)
and then the timed ones. Every run has tokens of its own, random ones or the text's, so that none finds what the one
before left. The others map the file and do not repack, since copies of weights could not leave memory.

Winnow's decoding is compared with what the machine allows for the bytes W that it read for a token, with everything
overlapped:
    tokens/s <= min(e B / (D + Z + W), R / W)
B and R are the rates at which memory and disk were read in the same process, D and Z the bytes a token needs of dense
weights, keys and values, and of experts, and e the share of B that decoding reaches with all experts in memory, from
a sample of the same round without a limit. The hit rate is 1 - W / Z, so that guesses that were read are no hits.
Needs the standard library only.
"""

import argparse
import contextlib
import dataclasses
import json
import os
import pathlib
import shlex
import statistics
import subprocess
import sys

from compare import Refused, cell, cpu_flags, ratios, refuse_weak_build, rotated, spread
from compare_engines import EngineError, LlamaLibrary, make_engines, run

GROUPS = pathlib.Path("/sys/fs/cgroup/memory")
MEASURES = ("cold", "decode", "prefill")
RESIDENT = "resident"


@contextlib.contextmanager
def memory_group(limit):
    """A control group with a limit in bytes; yields its folder. Refused where none can be made."""
    group = GROUPS / f"winnow-bench-{os.getpid()}"
    try:
        group.mkdir()
        (group / "memory.limit_in_bytes").write_text(str(limit), encoding="ascii")
    except OSError as error:
        raise Refused(f"{group}: {error}; limits need root and control groups of version 1") from error
    try:
        yield group
    finally:
        group.rmdir()


def drop_caches():
    os.sync()
    pathlib.Path("/proc/sys/vm/drop_caches").write_text("3", encoding="ascii")


@contextlib.contextmanager
def read_ahead(model, kib):
    """Sets the read-ahead of the disk that `model` is on; yields what is in force."""
    number = os.stat(model).st_dev
    device = pathlib.Path(f"/sys/dev/block/{os.major(number)}:{os.minor(number)}").resolve()
    if not (device / "queue").is_dir():
        device = device.parent  # of a partition
    setting = device / "queue" / "read_ahead_kb"
    before = setting.read_text(encoding="ascii").strip()
    if kib is not None:
        setting.write_text(str(kib), encoding="ascii")
    try:
        yield int(setting.read_text(encoding="ascii"))
    finally:
        setting.write_text(before, encoding="ascii")


@dataclasses.dataclass(frozen=True)
class LimitedWinnow:
    """`winnow bench --memory`, with more flags for a variant."""

    name: str
    binary: pathlib.Path
    text: str | None
    flags: tuple = ()

    def sample(self, model, settings, limit, enter):
        memory = ("--memory", limit) if limit else ()
        text = ("--data", self.text) if self.text else ()
        report = run(self.name, [
            self.binary, "bench", model, "--prompt", settings.prompt, "--generate", settings.generate,
            "--repetitions", 1, "-t", settings.threads, *memory, *text, *self.flags, "--quiet", "--json", "-"], enter)
        sample = {"prefill": report["prefill_tokens_per_second"]["median"],
                  "decode": report["decode_tokens_per_second"]["median"],
                  "cold": report["warm_up_tokens_per_second"], "first_token_seconds": report["first_token_seconds"],
                  "features": report["isa"], "version": f"{report['version']} {report['commit']}",
                  "memory_rate": report["read_bandwidth"], "fraction": report["bandwidth_fraction"],
                  "token_bytes": report["decode_bytes_per_token"]}
        if "expert_cache" in report:
            cache = report["expert_cache"]
            uses = cache["hits"] + cache["misses"]
            cycle = uses / settings.generate * report["expert_bytes"]
            read = cache["bytes_read"] / settings.generate
            sample |= {"disk_rate": report["disk_bandwidth"], "hit_rate": 1 - read / cycle if cycle else 1.0,
                       "stall_share": cache["stall_seconds"] * sample["decode"] / settings.generate,
                       "read_per_token": read, "cycle": cycle, "prefetch": report.get("prefetch")}
        return sample


@dataclasses.dataclass(frozen=True)
class LimitedLibrary:
    """A build of llama.cpp or of its relatives that maps the file."""

    library: LlamaLibrary
    text: str | None

    @property
    def name(self):
        return self.library.name

    def sample(self, model, settings, _limit, enter):
        text = ("--text", self.text) if self.text else ()
        sample = run(self.name, [*self.library.command, model, settings.prompt, settings.generate, settings.threads,
                                 "--mapped", *text], enter)
        return {**sample, "cold": sample["warm_up"]}


def physics(sample, resident):
    """The formula's tokens a second, and which of its two parts it is."""
    read = sample["read_per_token"]
    memory = resident["fraction"] * sample["memory_rate"] / (sample["token_bytes"] + read)
    disk = sample["disk_rate"] / read if read else float("inf")
    return min((memory, "memory"), (disk, "disk"))


def run_rounds(engines, resident, model, limit, settings, say):
    """{engine: [sample, ...]} under one limit, and of the first engine without one under RESIDENT."""
    samples = {engine.name: [] for engine in engines}
    samples[RESIDENT] = []
    for round_ in range(settings.pairs):
        samples[RESIDENT].append(resident.sample(model, settings, 0, None))
        for engine in rotated(engines, round_):
            drop_caches()
            with memory_group(limit) as group:
                def enter(group=group):
                    (group / "cgroup.procs").write_text(str(os.getpid()), encoding="ascii")
                sample = engine.sample(model, settings, limit, enter)
                sample["peak"] = int((group / "memory.max_usage_in_bytes").read_text(encoding="ascii"))
                (group / "memory.force_empty").write_text("0", encoding="ascii")
            refuse_weak_build(engine.name, sample["features"], cpu_flags())
            samples[engine.name].append(sample)
            say(f"round {round_ + 1} of {settings.pairs}, limit {limit / 2**20:.0f} MiB, {engine.name}: "
                f"cold {sample['cold']:.2f}, decode {sample['decode']:.2f}, prefill {sample['prefill']:.1f} tokens/s, "
                f"{sample['read_per_token'] / 2**20:.0f} MiB a token")
    return samples


def compare(engines, resident, model, share, settings, say):
    """Measures one limit with all engines; returns what --json writes for it."""
    size = os.stat(model).st_size
    limit = int(size * share / 100) // 4096 * 4096
    samples = run_rounds(engines, resident, model, limit, settings, say)
    result = {"model": pathlib.Path(model).name, "file_bytes": size, "share": share, "limit": limit,
              RESIDENT: spread([s["decode"] for s in samples[RESIDENT]]), "engines": {}, "ratios": {}}
    for engine in engines:
        taken = samples[engine.name]
        entry = {"version": taken[0]["version"], "features": taken[0]["features"].strip(), "samples": taken}
        for key in (*MEASURES, "read_per_token", "peak"):
            entry[key] = spread([s[key] for s in taken])
        if isinstance(engine, LimitedWinnow):
            entry |= of_winnow(taken, samples[RESIDENT])
        result["engines"][engine.name] = entry
    first = engines[0].name
    for engine in engines[1:]:
        result["ratios"][engine.name] = {
            measure: ratios([s[measure] for s in samples[first]], [s[measure] for s in samples[engine.name]])
            for measure in MEASURES}
    return result


def of_winnow(taken, residents):
    """What only Winnow tells: hit rate, stalls, and the part of the formula that was reached."""
    limits = [physics(s, resident) for s, resident in zip(taken, residents, strict=True)]
    return {"hit_rate": spread([s["hit_rate"] for s in taken]), "disk_rate": spread([s["disk_rate"] for s in taken]),
            "stall_share": spread([s["stall_share"] for s in taken]),
            "of_formula": spread([s["decode"] / limit for s, (limit, _) in zip(taken, limits, strict=True)]),
            "limited_by": statistics.mode(part for _, part in limits)}


def markdown(result, settings):
    """A table of the medians with least and most, and of the first engine's ratio to each other one."""
    first = next(iter(result["engines"]))
    lines = [f"### {result['model']}, {result['share']:g} % ({result['limit'] / 2**20:.0f} MiB), {settings.pairs} "
             f"rounds; all in memory: {cell(result[RESIDENT])} tokens/s", "",
             f"| | first 16 tokens, tokens/s | decode of {settings.generate} | prefill of {settings.prompt} | MiB read a "
             f"token | {first} / it: first | decode | prefill | peak, MiB | hit rate | stalls | of the formula | by |",
             "|" + "---|" * 13]
    for name, entry in result["engines"].items():
        ratio = result["ratios"].get(name)
        mib = {key: value / 2**20 for key, value in entry["read_per_token"].items()}
        words = [name, *(cell(entry[measure], 2) for measure in MEASURES), cell(mib, 0),
                 *(cell(ratio[measure], 2) if ratio else "" for measure in MEASURES),
                 f"{entry['peak']['max'] / 2**20:.0f}"]
        if "hit_rate" in entry:
            words += [*(cell(entry[key], 3) for key in ("hit_rate", "stall_share", "of_formula")), entry["limited_by"]]
        lines.append(f"| {' | '.join(words)} |")
    return "\n".join(lines)


def limited_engines(options):
    """[Winnow and its variants, then the others]."""
    engines = []
    for engine in make_engines(options):
        if isinstance(engine, LlamaLibrary):
            engines.append(LimitedLibrary(engine, options.text))
            continue
        engines.append(LimitedWinnow(engine.name, options.winnow, options.text))
        for variant in options.variant:
            name, _, flags = variant.partition("=")
            engines.append(LimitedWinnow(name, options.winnow, options.text, tuple(shlex.split(flags))))
    return engines


def parse(arguments):
    root = pathlib.Path(__file__).resolve().parent.parent
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", help="GGUF file")
    parser.add_argument("--shares", type=lambda text: [float(word) for word in text.split(",")], default="75,50,25",
                        help="limits in percent of the file's size")
    parser.add_argument("--pairs", type=int, default=5, help="rounds; 5 or more for a claim")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--prompt", type=int, default=1, help="tokens")
    parser.add_argument("--generate", type=int, default=32, help="tokens")
    parser.add_argument("--engines", default="winnow,stock", help="of winnow, stock, ik; the first is compared")
    parser.add_argument("--variant", action="append", default=[], metavar="NAME=FLAGS",
                        help="Winnow once more with these flags; several are possible")
    parser.add_argument("--text", help="take tokens from this file, not random ones")
    parser.add_argument("--read-ahead", type=int, metavar="KIB", help="of the disk, meanwhile; else as it is")
    parser.add_argument("--json", metavar="FILE", help="write samples and statistics to this file")
    parser.add_argument("--winnow", type=pathlib.Path, default=root / "build/release/bin/winnow", help="the program")
    node = root / "tests/peer/node_modules/@node-llama-cpp/linux-x64"
    parser.add_argument("--stock-node", type=pathlib.Path, default=os.environ.get("WINNOW_STOCK_NODE", node))
    parser.add_argument("--ik-python", type=pathlib.Path, default=os.environ.get("WINNOW_IK_PYTHON"))
    return parser.parse_args(arguments)


def main(arguments, out=print, say=lambda text: print(text, file=sys.stderr, flush=True)):
    """Exit code: 0, or 2 when an engine is missing, fails, or a limit cannot be set."""
    options = parse(arguments)
    try:
        engines = limited_engines(options)
        resident = LimitedWinnow(RESIDENT, options.winnow, options.text)
        results = []
        with read_ahead(options.model, options.read_ahead) as kib:
            for share in options.shares:
                results.append(compare(engines, resident, options.model, share, options, say))
                out(markdown(results[-1], options) + "\n")
    except (Refused, EngineError, OSError, subprocess.SubprocessError) as error:
        say(f"compare_memory: {error}")
        return 2
    if options.json:
        report = {"schema_version": 1, "read_ahead_kib": kib, "threads": options.threads, "prompt": options.prompt,
                  "generate": options.generate, "pairs": options.pairs, "cpu_flags": sorted(cpu_flags()),
                  "limits": results}
        pathlib.Path(options.json).write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
