#!/usr/bin/env python3
# SPDX-FileCopyrightText: The Winnow authors
# SPDX-License-Identifier: Apache-2.0
"""Stock llama.cpp's quantiser with an importance matrix, all of it done by stock itself.

    python bench/stock_quantizer.py importance MODEL.gguf --data PATH... -o IMPORTANCE.npz [--chunks windows|tool]
    python bench/stock_quantizer.py check IMPORTANCE.npz STATS        # against the moments of `winnow profile`
    python bench/stock_quantizer.py quantize MODEL.gguf IMPORTANCE.npz --type IQ2_M -o OUT.gguf
    python bench/stock_quantizer.py widen FILE.gguf -o OUT.gguf       # the same values as F32
    python bench/stock_quantizer.py divergence REFERENCE.gguf OUT.gguf ... --data PATH... [--windows 24]

The importance of an input is its mean square over the tokens that reach the matrix, for an expert over those routed
to it, without the router's weight; an expert that no token reached has importance 1 everywhere. So does llama.cpp's
imatrix tool with an F32 model. The inputs come from stock's own graph through its evaluation callback.

`windows` cuts the text as `winnow` does (each document by itself, a start token and 511 others, all of it); `tool`
as the imatrix tool does (all text as one, 512 tokens whose first the start token replaces, no shorter rest).
Needs NumPy; where the library comes from: tests/peer/README.md.
"""

import argparse
import json
import os
import pathlib
import sys

import numpy as np

ROOT = pathlib.Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "tests" / "peer"))
from stock_llama import StockLibrary  # noqa: E402

HELD_OUT_EVERY = 8  # of `winnow profile`: sequence 7, 15, ... of a domain is in no sum
SITES = {"attn_q": "attention_input", "attn_output": "attention_inner", "ffn_gate_inp": "ffn_input",
         "ffn_gate": "ffn_input", "ffn_down": "ffn_inner", "ffn_gate_exps": "expert_input",
         "ffn_down_exps": "expert_inner"}


def read_documents(paths):
    """[(domain, text)] of text files and of folders of them, in order of their names."""
    files = []
    for path in map(pathlib.Path, paths):
        files += sorted(p for p in path.iterdir() if p.is_file() and p.name[0] != ".") if path.is_dir() else [path]
    return [(file.stem, file.read_bytes().decode("utf-8")) for file in files]


def winnow_windows(model, documents, context):
    """[(domain, ids)]: of each document context - 1 tokens at a time behind the start token, the last shorter."""
    windows = []
    for domain, text in documents:
        ids = model.tokenize(text)
        for begin in range(0, len(ids), context - 1):
            windows.append((domain, [model.bos, *ids[begin:begin + context - 1]]))
    return windows


def tool_windows(model, documents, context):
    """[("", ids)]: whole windows of all text together, the first token of each replaced by the start token."""
    ids = model.tokenize("".join(text for _, text in documents), add_special=True)
    return [("", [model.bos, *ids[begin + 1:begin + context]])
            for begin in range(0, len(ids) - context + 1, context)]


class Sums:
    """Sums of squares of the inputs of each matrix product, and how many inputs there were."""

    def __init__(self):
        self.squares, self.counts = {}, {}

    def add(self, name, rows, experts, num_experts):
        """rows: [tokens, 1 or top_k, inputs] with experts [tokens, top_k], else [1, tokens, inputs]."""
        squares = np.asarray(rows, np.float64) ** 2
        if experts is None:
            self._add(name, squares.sum(axis=(0, 1))[None], np.array([squares.shape[0] * squares.shape[1]]))
            return
        tokens, top_k = experts.shape
        squares = np.broadcast_to(squares, (tokens, top_k, squares.shape[2])).reshape(tokens * top_k, -1)
        chosen = np.zeros((num_experts, tokens * top_k))
        chosen[experts.ravel(), np.arange(tokens * top_k)] = 1
        self._add(name, chosen @ squares, chosen.sum(axis=1))

    def _add(self, name, squares, counts):
        self.squares[name] = self.squares.get(name, 0) + squares
        self.counts[name] = self.counts.get(name, 0) + counts


def collect(library, path, documents, chunks, context, say):
    """(sums of the windows that `winnow profile` sums, sums of those it holds out)."""
    parts, state = (Sums(), Sums()), {"part": 0}

    def observe(name, rows, experts, weight_shape):
        parts[state["part"]].add(name, rows, experts, weight_shape[0])

    with library.open(path, context=context, threads=1, observer=observe) as model:
        cut = winnow_windows if chunks == "windows" else tool_windows
        windows, seen = cut(model, documents, context), {}
        for number, (domain, ids) in enumerate(windows):
            seen[domain] = seen.get(domain, -1) + 1
            held_out = chunks == "windows" and seen[domain] % HELD_OUT_EVERY == HELD_OUT_EVERY - 1
            state["part"] = int(held_out)
            model.logits(ids)
            if number % 16 == 0:
                say(f"importance: window {number + 1} of {len(windows)}")
    return parts


def save(path, parts):
    arrays = {}
    for part, sums in zip(("summed", "held_out"), parts):
        for name in sums.squares:
            arrays[f"{part}/{name}/squares"] = sums.squares[name]
            arrays[f"{part}/{name}/counts"] = sums.counts[name]
    np.savez(path, **arrays)


def load(path):
    parts = {"summed": Sums(), "held_out": Sums()}
    with np.load(path) as arrays:
        for key in arrays.files:
            part, name, kind = key.split("/")
            getattr(parts[part], kind)[name] = arrays[key]
    return parts["summed"], parts["held_out"]


def importance_values(parts):
    """{tensor name: float32 means} of layers' matrices, as the imatrix tool hands them to the quantiser."""
    values = {}
    for name in parts[0].squares:
        if not name.startswith("blk."):
            continue
        squares = sum(part.squares.get(name, 0) for part in parts)
        counts = sum(part.counts.get(name, 0) for part in parts)[:, None]
        values[name] = np.where(counts > 0, squares / np.maximum(counts, 1), 1).astype(np.float32)
    return values


def read_safetensors(path):
    """({name: array}, metadata) of F64, F32, U64 and I32 arrays."""
    types = {"F64": np.float64, "F32": np.float32, "U64": np.uint64, "I32": np.int32}
    data = pathlib.Path(path).read_bytes()
    start = 8 + int.from_bytes(data[:8], "little")
    header = json.loads(data[8:start])
    metadata = header.pop("__metadata__", {})
    arrays = {}
    for name, entry in header.items():
        begin, end = (start + at for at in entry["data_offsets"])
        arrays[name] = np.frombuffer(data[begin:end], types[entry["dtype"]]).reshape(entry["shape"])
    return arrays, metadata


def profile_moments(stats, layer, site):
    """([rows, inputs] sums of squares, [rows] counts) of all domains together; None when the site is absent."""
    arrays, metadata = stats
    squares = counts = 0
    for domain in range(len(json.loads(metadata["winnow.statistics"])["domains"])):
        prefix = f"domains.{domain}.layers.{layer}."
        if f"{prefix}{site}_squares" not in arrays:
            return None
        squares = squares + np.atleast_2d(arrays[f"{prefix}{site}_squares"])
        counts = counts + arrays[prefix + ("hits" if site.startswith("expert") else f"{site}_tokens")].astype(float)
    return squares, counts


def check(parts, stats):
    """[(tensor, relative error of the sums, largest share of a count that differs)] against a statistics file."""
    rows = []
    for name, squares in parts[0].squares.items():
        kind = name.split(".")[2] if name.startswith("blk.") else ""
        ours = profile_moments(stats, int(name.split(".")[1]), SITES[kind]) if kind in SITES else None
        if ours is None:
            continue
        counts = parts[0].counts[name]
        error = np.abs(squares.sum(axis=0) - ours[0].sum(axis=0)).max() / squares.sum(axis=0).max()
        means = [s / np.maximum(c, 1)[:, None] for s, c in ((squares, counts), ours)]
        each = np.linalg.norm(means[0] - means[1]) / np.linalg.norm(means[0])
        rows.append((name, error, each, float(np.abs(counts - ours[1]).sum() / counts.sum())))
    return rows


def log_softmax(logits):
    shifted = logits.astype(np.float64) - logits.max(axis=1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))


def divergence(library, reference, files, documents, context, num_windows):
    """{file: {tokens, kl_divergence, top1_agreement, nll}} with all logits from stock; windows spread over the text."""
    def run(path, windows=None):
        with library.open(path, context=context) as model:
            if windows is None:
                every = winnow_windows(model, documents, context)
                step = max(1, len(every) // num_windows)
                windows = [ids for _, ids in every[::step][:num_windows]]
            return windows, [log_softmax(model.logits(ids)[:-1]).astype(np.float32) for ids in windows]

    windows, base = run(reference)
    result = {}
    for file in files:
        _, other = run(file, windows)
        kl = np.concatenate([(np.exp(p.astype(np.float64)) * (p - q)).sum(axis=1) for p, q in zip(base, other)])
        same = np.concatenate([p.argmax(axis=1) == q.argmax(axis=1) for p, q in zip(base, other)])
        nll = np.concatenate([-q[np.arange(len(q)), ids[1:]] for q, ids in zip(other, windows)])
        result[str(file)] = {"tokens": len(kl), "kl_divergence": float(kl.mean()), "nll": float(nll.mean()),
                             "top1_agreement": float(same.mean())}
    return result


def parse(arguments):
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    node = ROOT / "tests/peer/node_modules/@node-llama-cpp/linux-x64"
    parser.add_argument("--stock-node", default=os.environ.get("WINNOW_STOCK_NODE", node))
    commands = parser.add_subparsers(dest="command", required=True)
    for name in ("importance", "check", "quantize", "widen", "divergence"):
        command = commands.add_parser(name)
        command.add_argument("inputs", nargs="+")
        command.add_argument("--data", nargs="+", default=[])
        command.add_argument("-o", "--output")
        command.add_argument("--type", default="Q4_K_M", help="a name of FILE_TYPES")
        command.add_argument("--chunks", choices=("windows", "tool"), default="windows")
        command.add_argument("--context", type=int, default=512)
        command.add_argument("--windows", type=int, default=24)
        command.add_argument("--threads", type=int, default=2, help="of the quantiser")
    return parser.parse_args(arguments)


def main(arguments):
    options = parse(arguments)
    say = lambda text: print(text, file=sys.stderr, flush=True)  # noqa: E731
    if options.command == "check":
        rows = check(load(options.inputs[0]), read_safetensors(options.inputs[1]))
        print(json.dumps([dict(zip(("tensor", "sum_error", "mean_error", "count_error"), row)) for row in rows]))
        return 0
    library = StockLibrary.from_node_package(options.stock_node)
    if options.command == "importance":
        parts = collect(library, options.inputs[0], read_documents(options.data), options.chunks, options.context, say)
        save(options.output, parts)
    elif options.command == "quantize":
        values = importance_values(load(options.inputs[1]))
        print(library.quantize(options.inputs[0], options.output, options.type, options.threads, values))
    elif options.command == "widen":
        library.quantize(options.inputs[0], options.output, "F32", options.threads)
    else:
        print(json.dumps(divergence(library, options.inputs[0], options.inputs[1:], read_documents(options.data),
                                    options.context, options.windows)))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
