#!/usr/bin/env python3
# SPDX-FileCopyrightText: The Winnow authors
# SPDX-License-Identifier: Apache-2.0
"""A quantised dense GGUF model as F32, its channels rescaled so that the weights leave their old grid.

    python3 bench/off_grid.py quantised.gguf -o model.gguf [--seed 1]

The weights of a quantised file lie on a grid that another quantiser may find again, at no error: comparisons of
quantisers on it would measure that. The model is not changed: a factor of an input channel of q, k, v (gate, up) goes
into the norm before, one of a value channel from v to o, one of an inner channel from up to down. Needs numpy and gguf.
"""

import argparse
import pathlib
import sys

import gguf
import numpy as np

SPREAD = 0.35  # standard deviation of the factors' logarithms


def factors(rng, size):
    return np.exp(rng.normal(0.0, SPREAD, size))


def rescale_layer(weights, prefix, groups, rng):
    """weights: {name: float64 [rows, cols] or [size]}, changed in place. groups: query heads to a key-value head."""
    def tensor(name):
        return weights[f"{prefix}{name}.weight"]

    for norm, readers in (("attn_norm", ("attn_q", "attn_k", "attn_v")), ("ffn_norm", ("ffn_gate", "ffn_up"))):
        scale = factors(rng, tensor(norm).size)
        tensor(norm)[:] /= scale
        for name in readers:
            tensor(name)[:] *= scale
    scale = factors(rng, tensor("ffn_up").shape[0])
    tensor("ffn_up")[:] /= scale[:, None]
    tensor("ffn_down")[:] *= scale
    value, out = tensor("attn_v"), tensor("attn_output")
    head_dim = out.shape[1] // groups["heads"]
    scale = factors(rng, value.shape[0])
    value[:] /= scale[:, None]
    if f"{prefix}attn_v.bias" in weights:
        weights[f"{prefix}attn_v.bias"][:] /= scale
    per_head = scale.reshape(groups["kv_heads"], head_dim)
    out[:] *= np.repeat(per_head, groups["heads"] // groups["kv_heads"], axis=0).reshape(-1)


def read(reader):
    """{name: float64 array}, outermost dimension first."""
    return {t.name: gguf.quants.dequantize(t.data, t.tensor_type).astype(np.float64).reshape(
        [int(d) for d in t.shape[::-1]]) for t in reader.tensors}


def main(arguments):
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=pathlib.Path)
    parser.add_argument("-o", "--output", type=pathlib.Path, required=True)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args(arguments)
    reader = gguf.GGUFReader(options.model)
    architecture = reader.fields["general.architecture"].contents()

    def key(name):
        return reader.fields[f"{architecture}.{name}"].contents()

    weights, rng = read(reader), np.random.default_rng(options.seed)
    groups = {"heads": key("attention.head_count"), "kv_heads": key("attention.head_count_kv")}
    for layer in range(key("block_count")):
        rescale_layer(weights, f"blk.{layer}.", groups, rng)
    writer = gguf.GGUFWriter(options.output, architecture)
    for name, field in reader.fields.items():
        if name.startswith("GGUF.") or name in ("general.architecture", "general.file_type"):
            continue
        writer.add_key_value(name, field.contents(), field.types[0], field.types[1] if len(field.types) > 1 else None)
    writer.add_file_type(0)
    for name, array in weights.items():
        writer.add_tensor(name, array.astype(np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
