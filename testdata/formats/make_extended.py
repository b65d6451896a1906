#!/usr/bin/env python3
# SPDX-FileCopyrightText: The Winnow authors
# SPDX-License-Identifier: Apache-2.0
"""Makes the golden files of one version of the extended layout (docs/formats/extended.md):

    WINNOW_BINARY=build/release/bin/winnow python3 testdata/formats/make_extended.py 3

extended-N.gguf is a file of that version, extended-N.json what a reader finds in it: what `winnow inspect` says of it,
and the loss that `winnow eval` has on TEXT. A file that a released program wrote stays as it is for ever: only the
version that is named is made, and only while it has not been released.
"""
import json
import os
import pathlib
import shutil
import struct
import subprocess
import sys
import tempfile

import random

HERE = pathlib.Path(__file__).resolve().parent
TINY = HERE.parent / "models" / "qwen3_moe-plain"
TEXT = "The quick brown fox jumps over the lazy dog; 1234567890 (pack my box).\n"
# Of what `winnow inspect` says, what the bytes of the file decide.
INSPECTED = ("architecture", "spec", "router", "layout", "parameters", "tensor_bytes", "bytes_by_role", "tensors")


def winnow(*arguments):
    done = subprocess.run([os.environ["WINNOW_BINARY"], *map(str, arguments), "--quiet"], capture_output=True, text=True,
                          check=False)
    if done.returncode != 0:
        sys.exit(done.stderr)
    return done.stdout


def with_twins(folder):
    """The tiny model, experts 1, 3, 5 and 7 of each layer being copies of the ones before them."""
    shutil.copytree(TINY, folder, ignore=shutil.ignore_patterns("golden"))
    path = folder / "model.safetensors"
    data = bytearray(path.read_bytes())
    (length,) = struct.unpack_from("<Q", data)
    header, start = json.loads(data[8:8 + length]), 8 + length
    for name, entry in header.items():
        for expert in (1, 3, 5, 7):
            if f".experts.{expert}." in name:
                source = header[name.replace(f".experts.{expert}.", f".experts.{expert - 1}.")]
                begin, end = (start + offset for offset in source["data_offsets"])
                target = start + entry["data_offsets"][0]
                data[target:target + end - begin] = data[begin:end]
    path.write_bytes(data)
    return folder


def make(version, work):
    rng = random.Random(1)
    text = work / "text.txt"
    text.write_text("".join(rng.choice("abcdefghij klmnopqrstuvwxyz.\n") for _ in range(1500)), encoding="utf-8")
    out = HERE / f"extended-{version}.gguf"
    options = {1: (TINY, "--method", "lorc", "--rank", 2, "--bits", 9),
               2: (TINY, "--expert-options", "zero,identity,constant,dropped", "--bits", 4.2),
               3: (None, "--expert-options", "shared,zero", "--bits", 4.8)}
    model, *flags = options[version]
    winnow("compress", model or with_twins(work / "twins"), "-o", out, "--force", "--data", text, "--context", 128, *flags)
    return out


def found_in(path):
    """What a reader finds in the file."""
    with tempfile.TemporaryDirectory() as folder:
        text = pathlib.Path(folder) / "text.txt"
        text.write_text(TEXT, encoding="utf-8")
        inspected = json.loads(winnow("inspect", path, "--json", "-"))
        # Other instruction sets add in other orders, and round activations to other codes.
        scores = json.loads(winnow("eval", path, "--data", text, "--context", 128, "--isa", "scalar", "--json", "-"))
    return {**{key: inspected[key] for key in INSPECTED if key in inspected}, "nll": scores["nll"]}


def main():
    versions = [int(argument) for argument in sys.argv[1:]]
    if not versions:
        sys.exit(__doc__)
    for version in versions:
        with tempfile.TemporaryDirectory() as folder:
            path = make(version, pathlib.Path(folder))
        found = found_in(path)
        path.with_suffix(".json").write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
        print(path.name, path.stat().st_size, found["layout"], found["nll"])


if __name__ == "__main__":
    main()
