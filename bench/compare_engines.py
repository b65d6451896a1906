# SPDX-FileCopyrightText: The Winnow authors
# SPDX-License-Identifier: Apache-2.0
"""The engines that compare.py knows: each gives one sample of speed from a fresh process."""

import json
import pathlib
import subprocess
import sys

WORKER = pathlib.Path(__file__).resolve().parent / "llama_worker.py"


class EngineError(Exception):
    """An engine is not there or failed; the message ends with what it said."""


def run(name, command, enter=None):
    """Standard output of a command, parsed as JSON (the last line, or all of it). The new process calls `enter`."""
    try:
        done = subprocess.run([str(word) for word in command], capture_output=True, text=True, check=False,
                              preexec_fn=enter)
    except OSError as error:
        raise EngineError(f"{name}: {error}; see docs/performance.md for where engines come from") from error
    if done.returncode != 0:
        end = "\n  ".join(done.stderr.strip().splitlines()[-6:])
        raise EngineError(f"{name}: exit code {done.returncode}\n  {end}")
    try:
        return json.loads(done.stdout)
    except ValueError:
        return json.loads(done.stdout.strip().splitlines()[-1])


class Winnow:
    """`winnow bench` with one repetition; it warms up by itself."""

    name = "winnow"

    def __init__(self, binary):
        self.binary = binary

    def sample(self, model, settings):
        report = run(self.name, [
            self.binary, "bench", model, "--prompt", settings.prompt, "--generate", settings.generate,
            "--repetitions", 1, "-t", settings.threads, "--quiet", "--json", "-"])
        keep = ("bandwidth_fraction", "bandwidth_fractions", "prefill_peak_fraction",
                "prefill_peak_fractions", "read_bandwidth", "int8_peak_ops",
                "decode_bytes_per_token")
        return {"prefill": report["prefill_tokens_per_second"]["median"],
                "decode": report["decode_tokens_per_second"]["median"],
                "load_seconds": report["startup_seconds"],
                "features": report["isa"], "version": f"{report['version']} {report['commit']}",
                **{key: report[key] for key in keep}}


class LlamaLibrary:
    """A build of llama.cpp or of its relatives, through its C interface in llama_worker.py."""

    def __init__(self, name, python, kind, where):
        self.name, self.command = name, [python, "-B", WORKER, kind, where]

    def sample(self, model, settings):
        return run(self.name, [*self.command, model, settings.prompt, settings.generate, settings.threads])


def make_engines(options):
    """The engines named in options.engines, in that order. Raises EngineError for one that is not there."""
    engines = []
    for name in options.engines.split(","):
        if name == "winnow":
            engines.append(Winnow(options.winnow))
        elif name == "stock":
            if not (pathlib.Path(options.stock_node) / "bins").is_dir():
                raise EngineError(f"stock: {options.stock_node} is not the npm package; run "
                                  "'npm ci --prefix tests/peer' or give --stock-node")
            engines.append(LlamaLibrary(name, sys.executable, "stock", options.stock_node))
        elif name == "ik":
            if options.ik_python is None:
                raise EngineError("ik: give --ik-python, a Python with ik-llama-cpp-python built for this machine; "
                                  "see docs/performance.md")
            engines.append(LlamaLibrary(name, options.ik_python, "ik", "-"))
        else:
            raise EngineError(f"--engines: '{name}' is not one of: winnow, stock, ik")
    return engines
