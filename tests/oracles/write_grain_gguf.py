# SPDX-FileCopyrightText: The Winnow authors
# SPDX-License-Identifier: Apache-2.0
"""Writes a GGUF file of a Hugging Face qwen3_moe folder with the PyPI package `gguf` only.

The reference for what stock llama.cpp asks of a `qwen3moe` file: the product's converter is compared
with it, key by key (see KEYS in the README beside this file), and the peer test uses it when it needs
a file that the product had no hand in.

    python tests/oracles/write_grain_gguf.py models/grain grain-BF16.gguf [--drop KEY ...] [--no-bf16]
"""

import argparse
import json
import pathlib
import sys

import numpy as np

import gguf

sys.path.insert(0, str(pathlib.Path(__file__).parent))
from checkpoint import Checkpoint, bf16_to_f32  # noqa: E402
from qwen3_moe_numpy import rope_theta  # noqa: E402

TOKEN_NORMAL = 1
TOKEN_CONTROL = 3
TOKEN_USER_DEFINED = 4
TOKEN_UNUSED = 5

# Hugging Face name after "model.layers.L." -> GGUF name after "blk.L."
LAYER_TENSORS = {
    "input_layernorm.weight": "attn_norm.weight",
    "self_attn.q_proj.weight": "attn_q.weight",
    "self_attn.k_proj.weight": "attn_k.weight",
    "self_attn.v_proj.weight": "attn_v.weight",
    "self_attn.o_proj.weight": "attn_output.weight",
    "self_attn.q_norm.weight": "attn_q_norm.weight",
    "self_attn.k_norm.weight": "attn_k_norm.weight",
    "post_attention_layernorm.weight": "ffn_norm.weight",
    "mlp.gate.weight": "ffn_gate_inp.weight",
}
EXPERT_TENSORS = {
    "gate_proj": "ffn_gate_exps.weight",
    "up_proj": "ffn_up_exps.weight",
    "down_proj": "ffn_down_exps.weight",
}


def model_keys(config):
    """Key -> (GGUF type name, value) of the model's shape. `config` is config.json of a qwen3_moe."""
    heads = config["num_attention_heads"]
    head_dim = config.get("head_dim") or config["hidden_size"] // heads
    return {
        "general.architecture": ("string", "qwen3moe"),
        "general.type": ("string", "model"),
        "general.name": ("string", config.get("_name", "grain")),
        "general.file_type": ("uint32", 32),
        "general.quantization_version": ("uint32", 2),
        "qwen3moe.block_count": ("uint32", config["num_hidden_layers"]),
        "qwen3moe.context_length": ("uint32", config["max_position_embeddings"]),
        "qwen3moe.embedding_length": ("uint32", config["hidden_size"]),
        "qwen3moe.feed_forward_length": ("uint32", config["intermediate_size"]),
        "qwen3moe.attention.head_count": ("uint32", heads),
        "qwen3moe.attention.head_count_kv": ("uint32", config["num_key_value_heads"]),
        "qwen3moe.attention.key_length": ("uint32", head_dim),
        "qwen3moe.attention.value_length": ("uint32", head_dim),
        "qwen3moe.attention.layer_norm_rms_epsilon": ("float32", config["rms_norm_eps"]),
        "qwen3moe.rope.freq_base": ("float32", rope_theta(config)),
        "qwen3moe.expert_count": ("uint32", config["num_experts"]),
        "qwen3moe.expert_used_count": ("uint32", config["num_experts_per_tok"]),
        "qwen3moe.expert_feed_forward_length": ("uint32", config["moe_intermediate_size"]),
    }


def tokenizer_keys(folder, vocab_size):
    """Key -> (GGUF type name, value) of the tokenizer, from tokenizer.json and tokenizer_config.json."""
    tokenizer = json.loads((folder / "tokenizer.json").read_text(encoding="utf-8"))
    settings = json.loads((folder / "tokenizer_config.json").read_text(encoding="utf-8"))
    tokens = [f"[PAD{i}]" for i in range(vocab_size)]
    types = [TOKEN_UNUSED] * vocab_size
    for text, index in tokenizer["model"]["vocab"].items():
        tokens[index], types[index] = text, TOKEN_NORMAL
    ids = {}
    for added in tokenizer["added_tokens"]:
        tokens[added["id"]] = added["content"]
        types[added["id"]] = TOKEN_CONTROL if added["special"] else TOKEN_USER_DEFINED
        ids[added["content"]] = added["id"]
    merges = [m if isinstance(m, str) else " ".join(m) for m in tokenizer["model"]["merges"]]
    return {
        "tokenizer.ggml.model": ("string", "gpt2"),
        "tokenizer.ggml.pre": ("string", "qwen2"),
        "tokenizer.ggml.tokens": ("array of string", tokens),
        "tokenizer.ggml.token_type": ("array of int32", types),
        "tokenizer.ggml.merges": ("array of string", merges),
        "tokenizer.ggml.bos_token_id": ("uint32", ids[settings["bos_token"]]),
        "tokenizer.ggml.eos_token_id": ("uint32", ids[settings["eos_token"]]),
        "tokenizer.ggml.padding_token_id": ("uint32", ids[settings["pad_token"]]),
        "tokenizer.ggml.add_bos_token": ("bool", bool(settings.get("add_bos_token", False))),
        "tokenizer.ggml.add_eos_token": ("bool", False),
    }


def add_key(writer, key, kind, value):
    """Writes one key. The writer has put general.architecture already."""
    if key == "general.architecture":
        return
    adders = {"string": writer.add_string, "uint32": writer.add_uint32,
              "float32": writer.add_float32, "bool": writer.add_bool}
    if kind in adders:
        adders[kind](key, value)
    else:
        writer.add_array(key, value)


def gguf_tensors(checkpoint):
    """Yields (GGUF name, values, whether the values are BF16 bits) in file order; [out, in] row-major."""
    config = checkpoint.config
    yield "token_embd.weight", *checkpoint.raw("model.embed_tokens.weight")
    yield "output_norm.weight", *checkpoint.raw("model.norm.weight")
    if not config.get("tie_word_embeddings", False):
        yield "output.weight", *checkpoint.raw("lm_head.weight")
    for layer in range(config["num_hidden_layers"]):
        prefix = f"model.layers.{layer}."
        for source, target in LAYER_TENSORS.items():
            yield f"blk.{layer}.{target}", *checkpoint.raw(prefix + source)
        for source, target in EXPERT_TENSORS.items():
            yield f"blk.{layer}.{target}", *stacked_experts(checkpoint, prefix + "mlp.experts.", source)


def stacked_experts(checkpoint, prefix, part):
    """([E, out, in] of one projection, whether BF16 bits); from one tensor an expert or from the fused form."""
    if prefix + "gate_up_proj" not in checkpoint:
        parts = [checkpoint.raw(f"{prefix}{e}.{part}.weight") for e in range(checkpoint.config["num_experts"])]
        return np.stack([p[0] for p in parts]), parts[0][1]
    if part == "down_proj":
        return checkpoint.raw(prefix + part)
    values, is_bf16 = checkpoint.raw(prefix + "gate_up_proj")
    gate, up = np.split(values, 2, axis=1)
    return np.ascontiguousarray(gate if part == "gate_proj" else up), is_bf16


def is_kept_f32(name, values):
    """Norms and router are F32 in files that stock's own converter writes, whatever the type of the rest."""
    return values.ndim == 1 or name.endswith("ffn_gate_inp.weight")


def write(folder, out, drop=(), keep_bf16=True):
    """Writes `folder` as BF16 (norms, router F32) or, without keep_bf16, as F32. Keys in `drop` are left out."""
    checkpoint = Checkpoint(folder)
    writer = gguf.GGUFWriter(str(out), "qwen3moe")
    keys = {**model_keys(checkpoint.config), **tokenizer_keys(folder, checkpoint.config["vocab_size"])}
    for key, (kind, value) in keys.items():
        if key not in drop:
            add_key(writer, key, kind, value)
    for name, values, is_bf16 in gguf_tensors(checkpoint):
        if is_bf16 and keep_bf16 and not is_kept_f32(name, values):
            writer.add_tensor(name, values.view(np.uint8).reshape(*values.shape[:-1], -1),
                              raw_dtype=gguf.GGMLQuantizationType.BF16)
        else:
            writer.add_tensor(name, bf16_to_f32(values) if is_bf16 else values.astype(np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=pathlib.Path)
    parser.add_argument("out", type=pathlib.Path)
    parser.add_argument("--drop", action="append", default=[], help="leave this key out")
    parser.add_argument("--no-bf16", action="store_true", help="write F32")
    options = parser.parse_args()
    write(options.folder, options.out, options.drop, not options.no_bf16)


if __name__ == "__main__":
    main()
