#!/usr/bin/env python3
# SPDX-FileCopyrightText: The Winnow authors
# SPDX-License-Identifier: Apache-2.0
"""Quality at equal bytes: files of `winnow compress` against those of stock llama.cpp with its importance matrix.

    python3 bench/quality.py MODEL --data CALIB --valid VALID [--mixes Q4_K_M,Q3_K_M,...] [--json FILE]
    python3 bench/quality.py MODEL --data CALIB --valid VALID --ablation [FILE] [--mixes Q3_K_M] [--json FILE]

For each of stock's hand-made mixes: stock's own quantiser writes a file, with the importance matrix that stock
collects from CALIB; `winnow compress` gets the same text and, as its budget, the bytes of that file's tensors; both
are scored by `winnow eval` on VALID against MODEL. Ratios are formed token by token; their standard errors treat
windows as independent. The ablation runs `winnow compress` with the sets of flags in FILE (default
bench/quality_ablation.json) at the bytes of the mixes.

Stock runs in an own process (bench/stock_quantizer.py) under --stock-python, which needs NumPy.
"""

import argparse
import json
import math
import os
import pathlib
import subprocess
import sys
import tempfile
import time

import quality_report
from quality_statistics import Tokens, paired

ROOT = pathlib.Path(__file__).resolve().parent.parent
STOCK = ROOT / "bench" / "stock_quantizer.py"
MIXES = ("Q4_K_M", "Q4_K_S", "IQ4_XS", "Q3_K_M", "Q3_K_S", "IQ3_XXS", "Q2_K", "IQ2_M")
STOCK_ROW = 256  # block length of the K and I types; other rows fall back to types with blocks of 32


class Failed(Exception):
    """A command failed; the message ends with what it said."""

    def __init__(self, message, code=None):
        super().__init__(message)
        self.code = code  # of the command's exit, if it ran


def run(command):
    """(standard output, seconds) of a command."""
    start = time.perf_counter()
    try:
        done = subprocess.run([str(word) for word in command], capture_output=True, text=True, check=False)
    except OSError as error:
        raise Failed(f"{command[0]}: {error}") from error
    if done.returncode != 0:
        end = "\n  ".join((done.stderr or done.stdout).strip().splitlines()[-6:])
        raise Failed(f"{' '.join(map(str, command))}: exit code {done.returncode}\n  {end}", done.returncode)
    return done.stdout, time.perf_counter() - start


class Comparison:
    """The files of one comparison in one folder. Stock's are kept and used again; Winnow's are written anew."""

    def __init__(self, options, say):
        self.options, self.say = options, say
        self.folder = pathlib.Path(options.work)
        self.folder.mkdir(parents=True, exist_ok=True)
        self.threads = ["--threads", str(options.threads)]

    def winnow(self, *arguments):
        return run([self.options.winnow, *arguments, "--quiet"])

    def stock(self, *arguments):
        return run([self.options.stock_python, "-B", STOCK, "--stock-node", self.options.stock_node, *arguments])

    def source(self):
        """The model as a GGUF file in F32: stock reads it, and rounds no activation for its sake."""
        path = self.folder / "source.gguf"
        if not path.exists():
            self.winnow("convert", self.options.model, "-o", path, "--type", "F32")
        return path

    def importance(self):
        path = self.folder / f"importance-{self.options.chunks}.npz"
        if not path.exists():
            self.say("stock: importance matrix")
            _, seconds = self.stock("importance", self.source(), "--data", *self.options.data, "-o", path,
                                    "--chunks", self.options.chunks, "--context", str(self.options.context))
            self.say(f"stock: importance matrix, {seconds:.0f} s")
        return path

    def stock_file(self, mix):
        path = self.folder / f"stock-{mix}.gguf"
        if not path.exists():
            partial = self.folder / f"writing-{path.name}"
            _, seconds = self.stock("quantize", self.source(), self.importance(), "--type", mix, "-o", partial,
                                    "--threads", str(self.options.threads))
            partial.rename(path)
            self.say(f"stock {mix}: {seconds:.0f} s")
        return self.described(path)

    def winnow_file(self, name, bits, flags):
        path = self.folder / f"winnow-{name}.gguf"
        _, seconds = self.winnow("compress", self.options.model, "-o", path, "--force", "--restart", "--portable",
                                 "--bits", repr(bits), "--data", *self.options.data, "--tokens",
                                 str(self.options.calibration_tokens), "--context",
                                 str(self.options.context), *self.threads, *flags)
        self.say(f"winnow {name}: {seconds:.0f} s")
        return {**self.described(path), "seconds": seconds, "flags": list(flags)}

    def described(self, path):
        """Bytes, types and the share of weights whose rows force a fall-back."""
        report = json.loads(self.winnow("inspect", path, "--json", "-")[0])
        types, short = {}, 0
        for tensor in report["tensors"]:
            types[tensor["type"]] = types.get(tensor["type"], 0) + 1
            if len(tensor["shape"]) > 1 and tensor["shape"][-1] % STOCK_ROW:
                short += math.prod(tensor["shape"])
        return {"path": str(path), "tensor_bytes": report["tensor_bytes"], "file_bytes": path.stat().st_size,
                "parameters": report["parameters"], "types": types, "short_rows": short / report["parameters"]}

    def scored(self, file):
        """The file's entry with its scores, and the scores of single tokens."""
        tokens = pathlib.Path(file["path"]).with_suffix(".tokens.json")
        model = file["path"]
        if self.options.widen:
            model = self.folder / "widened.gguf"
            self.stock("widen", file["path"], "-o", model)
        text, _ = self.winnow("eval", model, "--data", *self.options.valid, "--reference", self.options.model,
                              "--context", str(self.options.context), "--tokens", str(self.options.tokens),
                              "--json", "-", "--tokens-out", tokens, *self.threads)
        scores = json.loads(text)
        keep = ("tokens", "nll", "kl_divergence", "kl_standard_error", "kl_p99", "top1_agreement",
                "routing_agreement")
        return {**file, **{key: scores[key] for key in keep if key in scores},
                "domains": {name: entry["kl_divergence"] for name, entry in scores["domains"].items()}
                }, Tokens.read(tokens)


def bits_of(file):
    """The budget that is met by exactly the file's tensor bytes, rounded down."""
    bits = 8 * file["tensor_bytes"] / file["parameters"]
    while bits * file["parameters"] / 8 > file["tensor_bytes"]:
        bits = math.nextafter(bits, 0)
    return bits


def compare_mix(comparison, mix):
    """One row of the table: stock's file, Winnow's of the same tensor bytes, and the paired comparison."""
    stock, theirs = comparison.scored(comparison.stock_file(mix))
    ours, tokens = comparison.scored(comparison.winnow_file(mix, bits_of(stock), comparison.options.flags))
    result = {"mix": mix, "bits": bits_of(stock), "stock": stock, "winnow": ours, **paired(tokens, theirs)}
    result["byte_ratio"] = ours["tensor_bytes"] / stock["tensor_bytes"]
    comparison.say(quality_report.sentence(result))
    return result


def ablate(comparison, mix, steps):
    """[{name, flags, ... the paired comparison with stock's file and with another row}] at one mix's bytes: with the
    row that the step names in "against", else with the one before."""
    stock, theirs = comparison.scored(comparison.stock_file(mix))
    rows, scores = [], {}
    for step in steps:
        file = comparison.winnow_file(f"{mix}-{step['name'].replace(' ', '-')}", bits_of(stock), step["flags"])
        scored, tokens = comparison.scored(file)
        row = {"mix": mix, "name": step["name"], "stock": stock, "winnow": scored, **paired(tokens, theirs),
               "byte_ratio": scored["tensor_bytes"] / stock["tensor_bytes"]}
        if rows:
            row["against"] = step.get("against", rows[-1]["name"])
            row["step"] = paired(tokens, scores[row["against"]])
        scores[step["name"]] = tokens
        rows.append(row)
        comparison.say(f"{step['name']}: {quality_report.sentence(row)}")
    return rows


def in_stock(comparison, result):
    """What stock's own engine says of one mix's two files, on some windows; adds it to the result."""
    text, _ = comparison.stock("divergence", comparison.source(), result["stock"]["path"], result["winnow"]["path"],
                               "--data", *comparison.options.valid, "--context", str(comparison.options.context),
                               "--windows", str(comparison.options.stock_windows))
    by_file = json.loads(text.strip().splitlines()[-1])
    result["in_stock"] = {side: by_file[result[side]["path"]] for side in ("stock", "winnow")}
    comparison.say(f"{result['mix']} in stock: {result['in_stock']}")


def parse(arguments):
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", help="safetensors folder or GGUF file in full precision")
    parser.add_argument("--data", nargs="+", required=True, help="calibration text: files or folders")
    parser.add_argument("--valid", nargs="+", required=True, help="text to score on")
    parser.add_argument("--mixes", default=",".join(MIXES), help="stock's names, separated by commas")
    parser.add_argument("--ablation", nargs="?", const=ROOT / "bench/quality_ablation.json", metavar="FILE",
                        help="run the sets of flags in FILE instead")
    parser.add_argument("--flags", default="", help="more flags for winnow compress, in one argument")
    parser.add_argument("--tokens", type=int, default=0, help="score at most this many; 0 means all")
    parser.add_argument("--calibration-tokens", type=int, default=0,
                        help="winnow compress reads at most this many tokens of --data; 0 means all, as stock does")
    parser.add_argument("--context", type=int, default=512)
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--chunks", choices=("windows", "tool"), default="windows",
                        help="how the importance matrix cuts the text; see stock_quantizer.py")
    parser.add_argument("--widen", action="store_true",
                        help="score copies of both files in F32, so that no activation is rounded to 8 bits")
    parser.add_argument("--in-stock", default="", metavar="MIXES", help="also run the files of these mixes in stock")
    parser.add_argument("--stock-windows", type=int, default=24, help="windows for --in-stock")
    parser.add_argument("--json", metavar="FILE", help="write everything measured to this file")
    parser.add_argument("--work", help="folder for the files; stock's are used again when they are there")
    parser.add_argument("--winnow", type=pathlib.Path, default=ROOT / "build/release/bin/winnow", help="the program")
    parser.add_argument("--stock-python", default=os.environ.get("WINNOW_STOCK_PYTHON", sys.executable),
                        help="Python with NumPy, for stock")
    node = ROOT / "tests/peer/node_modules/@node-llama-cpp/linux-x64"
    parser.add_argument("--stock-node", default=os.environ.get("WINNOW_STOCK_NODE", node),
                        help="folder of the npm package @node-llama-cpp/linux-x64")
    options = parser.parse_args(arguments)
    options.flags = options.flags.split()
    return options


def measure(options, say):
    comparison, mixes = Comparison(options, say), options.mixes.split(",")
    if options.ablation:
        steps = json.loads(pathlib.Path(options.ablation).read_text(encoding="utf-8"))["steps"]
        return {"ablation": [row for mix in mixes for row in ablate(comparison, mix, steps)]}
    rows = [compare_mix(comparison, mix) for mix in mixes]
    for row in rows:
        if row["mix"] in options.in_stock.split(","):
            in_stock(comparison, row)
    return {"mixes": rows}


def main(arguments, out=print, say=lambda text: print(text, file=sys.stderr, flush=True)):
    """Exit code: 0, or 2 when a command failed."""
    options = parse(arguments)
    with tempfile.TemporaryDirectory(prefix="winnow-quality-") as folder:
        options.work = options.work or folder
        try:
            result = measure(options, say)
        except (Failed, OSError, ValueError) as error:
            say(f"quality: {error}")
            return 2
    report = {"schema_version": 1, "model": str(options.model), "data": options.data, "valid": options.valid,
              "calibration_tokens": options.calibration_tokens, "context": options.context, "chunks": options.chunks,
              "widen": options.widen, **result}
    out(quality_report.markdown(report))
    if options.json:
        pathlib.Path(options.json).write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
