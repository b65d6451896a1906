#!/usr/bin/env python3
# SPDX-FileCopyrightText: The Winnow authors
# SPDX-License-Identifier: Apache-2.0
"""Makes the golden model files of this folder with the packages of their publishers.

    python3 -m venv venv && venv/bin/pip install numpy==2.4.6 gguf==0.19.0 safetensors==0.5.3
    venv/bin/python testdata/formats/make_golden.py

Each file comes with NAME.json: its key-values, and of every tensor type, shape (outermost first) and
payload in hexadecimal digits.
"""
import json
import pathlib

import gguf
import numpy as np
import safetensors

HERE = pathlib.Path(__file__).parent


def write_json(name, value):
    (HERE / name).write_text(json.dumps(value, indent=1) + "\n")


def describe(name, type_name, shape, payload):
    return {"name": name, "type": type_name, "shape": list(shape), "payload": payload.hex()}


SCALARS = [  # (key, GGUF type, value)
    ("test.u8", "UINT8", 255),
    ("test.i8", "INT8", -128),
    ("test.u16", "UINT16", 65535),
    ("test.i16", "INT16", -32768),
    ("test.u32", "UINT32", 4294967295),
    ("test.i32", "INT32", -2147483648),
    ("test.f32", "FLOAT32", 0.15625),
    ("test.bool", "BOOL", True),
    ("test.string", "STRING", "gr\u00fc\u00df dich \u4f60\u597d"),
    ("test.u64", "UINT64", 18446744073709551615),
    ("test.i64", "INT64", -9223372036854775808),
    ("test.f64", "FLOAT64", 1e-300),
]


def write_gguf(path, split_max_tensors=0):
    rng = np.random.default_rng(7)
    writer = gguf.GGUFWriter(path, "test", split_max_tensors=split_max_tensors)
    expected = {"keys": [["general.architecture", "STRING", "test"]], "tensors": []}
    for key, kind, value in SCALARS:
        writer.add_key_value(key, value, gguf.GGUFValueType[kind])
        expected["keys"].append([key, kind, value])
    for key, value in [
        ("test.strings", ["", "a", "\u00e9\u00e8"]),
        ("test.integers", [1, -2, 2147483647]),
        ("test.floats", [0.5, -1.25]),
        ("test.bools", [True, False, True]),
    ]:
        writer.add_array(key, value)
        expected["keys"].append([key, "array", value])
    for name, shape in [("token_embd.weight", (5, 64)), ("norm.weight", (33,)), ("exps", (2, 3, 32))]:
        values = rng.standard_normal(shape, dtype=np.float32)
        for kind in ("F32", "F16", "BF16", "Q8_0"):
            if kind == "Q8_0" and shape[-1] % 32:
                continue
            quantised = gguf.quantize(values, gguf.GGMLQuantizationType[kind])
            payload = quantised.tobytes()
            full_name = f"{name}.{kind.lower()}"
            if kind == "F16":
                writer.add_tensor(full_name, quantised)
            else:
                writer.add_tensor(full_name, quantised, raw_dtype=gguf.GGMLQuantizationType[kind])
            expected["tensors"].append(describe(full_name, kind, shape, payload))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return expected


SAFETENSORS_TYPES = {  # name in files: (name in the package, bytes)
    "F32": ("float32", 4),
    "BF16": ("bfloat16", 2),
    "F16": ("float16", 2),
    "I64": ("int64", 8),
}


def write_safetensors(path, names, kinds, rng):
    expected = []
    tensors = {}
    for name in names:
        for kind in kinds:
            dtype, size = SAFETENSORS_TYPES[kind]
            shape = [int(rng.integers(1, 5)), 6]
            payload = rng.bytes(shape[0] * 6 * size)
            full_name = f"{name}.{kind.lower()}"
            tensors[full_name] = {"dtype": dtype, "shape": shape, "data": payload}
            expected.append(describe(full_name, kind, shape, payload))
    safetensors.serialize_file(tensors, path, {"format": "pt"})
    return expected


def main():
    write_json("plain.gguf.json", write_gguf(HERE / "plain.gguf"))
    write_json("split.gguf.json", write_gguf(HERE / "split.gguf", split_max_tensors=5))
    rng = np.random.default_rng(11)
    folder = HERE / "single"
    folder.mkdir(exist_ok=True)
    expected = write_safetensors(folder / "model.safetensors", ["model.norm", "lm_head"],
                                 ["F32", "BF16", "F16"], rng)
    write_json("single.json", {"keys": [], "tensors": expected})

    folder = HERE / "sharded"
    folder.mkdir(exist_ok=True)
    weight_map, expected = {}, []
    for i in (1, 2):
        shard = f"model-0000{i}-of-00002.safetensors"
        part = write_safetensors(folder / shard, [f"model.layers.{i}.gate"],
                                 ["BF16", "I64"], rng)
        weight_map.update({tensor["name"]: shard for tensor in part})
        expected += part
    total = sum(len(tensor["payload"]) // 2 for tensor in expected)
    (folder / "model.safetensors.index.json").write_text(
        json.dumps({"metadata": {"total_size": total}, "weight_map": weight_map}, indent=2) + "\n")
    (folder / "config.json").write_text('{"model_type": "test"}\n')
    write_json("sharded.json", {"keys": [], "tensors": expected})


main()
