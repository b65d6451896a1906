#!/usr/bin/env python3
# SPDX-FileCopyrightText: The Winnow authors
# SPDX-License-Identifier: Apache-2.0
"""A model whose experts come in similar pairs, made from one whose experts do not: for methods that merge experts.

    python3 bench/split_experts.py models/grain /tmp/grain-split [--noise 0.02] [--seed 1]

Every expert becomes two: N experts of which k are chosen become 2N of which 2k are chosen. Both copies have the
original's row of the router, so that they are chosen together and each gets half of its weight (a softmax over the
doubled list halves the probabilities; renormalising the chosen ones gives the same halves). So the layer's output
stays, but for noise: each copy's matrices are the original's plus independent normal noise, whose standard deviation
is `noise` times that of the matrix, and its row of the router gets noise of `router_noise` times the router's, which
keeps the copies' logits from being equal. Everything is rounded to the type that the source stores.

The places of the experts of a layer are shuffled by the seed, for each layer anew, so that no method gains from
looking at neighbours first; split_experts.json in OUT says from which expert each one was made.

Qwen3-MoE and OLMoE folders with separate expert matrices (BF16, F16 or F32). Needs numpy.
"""

import argparse
import json
import pathlib
import re
import shutil
import sys

import numpy as np

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent / "tests" / "oracles"))
from checkpoint import Checkpoint  # noqa: E402

EXPERT = re.compile(r"(model\.layers\.(\d+)\.mlp)\.experts\.(\d+)\.(gate_proj|up_proj|down_proj)\.weight")
ROUTER = re.compile(r"model\.layers\.(\d+)\.mlp\.gate\.weight")
MODEL_TYPES = ("qwen3_moe", "olmoe")
MATRICES = ("gate_proj", "up_proj", "down_proj")
ROUTER_TAG, MATRIX_TAG, ORDER_TAG = range(3)  # streams of random numbers


class Unsuitable(Exception):
    """The source cannot be split; the message says why."""


def f32_to_bf16(values):
    """Nearest BF16, ties to even, of finite float32 values, as uint16 bit patterns."""
    bits = np.ascontiguousarray(values, np.float32).view(np.uint32)
    return ((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16).astype(np.uint16)


class Splitter:
    """The tensors of the new model, computed when asked for; nothing depends on the order of asking."""

    def __init__(self, source, noise, router_noise, seed):
        self.source, self.noise, self.router_noise, self.seed = source, noise, router_noise, seed
        if source.config.get("model_type") not in MODEL_TYPES:
            raise Unsuitable(f"model_type {source.config.get('model_type')}: not one of {', '.join(MODEL_TYPES)}")
        if not any(EXPERT.fullmatch(name) for name in source.names()):
            raise Unsuitable("no separate expert matrices (model.layers.L.mlp.experts.E.up_proj.weight)")
        self.experts = source.config["num_experts"]
        self.layers = sorted(int(found[1]) for found in map(ROUTER.fullmatch, source.names()) if found)
        self.origins = {layer: self.order(layer) for layer in self.layers}

    def order(self, layer):
        """[(original expert, which copy)] of the new layer's experts."""
        places = np.random.default_rng([self.seed, ORDER_TAG, layer]).permutation(2 * self.experts)
        return [(int(place) // 2, int(place) % 2) for place in places]

    def config(self):
        doubled = {key: 2 * self.source.config[key] for key in ("num_experts", "num_experts_per_tok")}
        return {**self.source.config, **doubled}

    def names(self):
        """All tensors of the new model, experts in the place of the old ones."""
        names = [name for name in self.source.names() if not EXPERT.fullmatch(name)]
        names += [f"model.layers.{layer}.mlp.experts.{expert}.{matrix}.weight" for layer in self.layers
                  for expert in range(2 * self.experts) for matrix in MATRICES]
        return sorted(names)

    def stored(self, values, like):
        """(values as bytes, type, shape) in the type that the source has for `like`."""
        raw, is_bf16 = self.source.raw(like)
        if is_bf16:
            return f32_to_bf16(values).tobytes(), "BF16", values.shape
        return values.astype(raw.dtype).tobytes(), {2: "F16", 4: "F32"}[raw.dtype.itemsize], values.shape

    def noisy(self, values, amount, *stream):
        deviation = amount * float(values.std())
        return values + deviation * np.random.default_rng([self.seed, *stream]).standard_normal(values.shape)

    def tensor(self, name):
        """(bytes, type, shape) of one tensor of the new model."""
        expert, router = EXPERT.fullmatch(name), ROUTER.fullmatch(name)
        if expert:
            layer, matrix = int(expert[2]), expert[4]
            original, copy = self.origins[layer][int(expert[3])]
            like = f"{expert[1]}.experts.{original}.{matrix}.weight"
            stream = (MATRIX_TAG, layer, original, copy, MATRICES.index(matrix))
            return self.stored(self.noisy(self.source.array(like), self.noise, *stream), like)
        values = self.source.array(name)
        if router:
            layer = int(router[1])
            values = values[[original for original, _ in self.origins[layer]]]
            values = self.noisy(values, self.router_noise, ROUTER_TAG, layer)
        return self.stored(values, name)


def write_safetensors(path, splitter):
    """Two passes: the sizes follow from the shapes, then one tensor at a time is in memory."""
    header, offset = {"__metadata__": {"format": "pt"}}, 0
    names = splitter.names()
    for name in names:
        data, dtype, shape = splitter.tensor(name)
        header[name] = {"dtype": dtype, "shape": list(shape), "data_offsets": [offset, offset + len(data)]}
        offset += len(data)
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    with path.open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for name in names:
            file.write(splitter.tensor(name)[0])


def split(source, output, noise, router_noise, seed):
    splitter = Splitter(Checkpoint(source), noise, router_noise, seed)
    output.mkdir(parents=True)
    for path in sorted(source.glob("*.json")):
        if path.name not in ("config.json", "model.safetensors.index.json"):
            shutil.copy(path, output / path.name)
    write_safetensors(output / "model.safetensors", splitter)
    origins = {str(layer): [original for original, _ in splitter.origins[layer]] for layer in splitter.layers}
    record = {"schema_version": 1, "noise": noise, "router_noise": router_noise, "seed": seed, "origins": origins}
    (output / "split_experts.json").write_text(json.dumps(record) + "\n", encoding="utf-8")
    (output / "config.json").write_text(json.dumps(splitter.config(), indent=1) + "\n", encoding="utf-8")


def main(arguments):
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("source", type=pathlib.Path, help="Hugging Face folder (safetensors)")
    parser.add_argument("output", type=pathlib.Path, help="folder to write; must not be there")
    parser.add_argument("--noise", type=float, default=0.02, help="of the experts' matrices, relative")
    parser.add_argument("--router-noise", type=float, default=0.001, help="of the rows of the router, relative")
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args(arguments)
    try:
        split(options.source, options.output, options.noise, options.router_noise, options.seed)
    except (Unsuitable, OSError, KeyError) as error:
        print(f"split_experts: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
