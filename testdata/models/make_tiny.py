# SPDX-FileCopyrightText: The Winnow authors
# SPDX-License-Identifier: Apache-2.0
"""Writes tiny random models (Hugging Face folders) with golden outputs, one folder a variant.

Weights come from a seeded NumPy generator and are rounded to the stored type; golden values are those of
`transformers` in float32 on the stored weights, accepted only if the architecture's float64 pass
in tests/oracles agrees. The same versions of NumPy and transformers give the same bytes.

    python testdata/models/make_tiny.py [NAME ...]      # torch, transformers, tokenizers, numpy
"""

import json
import pathlib
import shutil
import sys

import numpy as np
import torch
import transformers
from tokenizers import Tokenizer

HERE = pathlib.Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent.parent / "tests" / "oracles"))
from forward import open_oracle  # noqa: E402
from qwen3_moe_numpy import is_moe_layer  # noqa: E402

TEXT = "A tïny model, of 30 parts."
TOKENS = 24             # of the golden input, BOS included
GREEDY_TOKENS = 8
TOLERANCE = 2e-5        # |float32 - float64| logit; logits are of order 3, sums of at most 128 terms
SMALLEST_MARGIN = 1e-3  # between the last chosen router logit and the next, and between the two best greedy tokens
MOST_BYTES = 150_000    # a folder's weights

# By the name of the variant up to its first "-". Where head_dim is a key, it is not hidden_size / heads.
ARCHITECTURES = {
    "llama": {
        "architectures": ["LlamaForCausalLM"], "model_type": "llama", "vocab_size": 272, "hidden_size": 32,
        "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2,
        "head_dim": 8, "hidden_act": "silu", "attention_bias": False, "mlp_bias": False, "attention_dropout": 0.0,
        "rms_norm_eps": 1e-05, "rope_theta": 10000.0, "rope_scaling": None, "pretraining_tp": 1,
        "max_position_embeddings": 128, "tie_word_embeddings": True, "initializer_range": 0.02,
        "bos_token_id": 271, "eos_token_id": 271, "pad_token_id": 271},
    "olmoe": {
        "architectures": ["OlmoeForCausalLM"], "model_type": "olmoe", "vocab_size": 272, "hidden_size": 32,
        "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 4,
        "hidden_act": "silu", "num_experts": 6, "num_experts_per_tok": 2, "norm_topk_prob": False,
        "attention_bias": False, "attention_dropout": 0.0, "clip_qkv": None, "rms_norm_eps": 1e-05,
        "rope_theta": 10000.0, "rope_scaling": None, "max_position_embeddings": 128,
        "tie_word_embeddings": False, "initializer_range": 0.02, "output_router_logits": False,
        "router_aux_loss_coef": 0.01, "bos_token_id": 271, "eos_token_id": 271, "pad_token_id": 271},
    "qwen2": {
        "architectures": ["Qwen2ForCausalLM"], "model_type": "qwen2", "vocab_size": 272, "hidden_size": 32,
        "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2,
        "hidden_act": "silu", "attention_dropout": 0.0, "rms_norm_eps": 1e-06, "rope_theta": 1000000.0,
        "rope_scaling": None, "max_position_embeddings": 128, "tie_word_embeddings": True,
        "use_sliding_window": False, "sliding_window": None, "max_window_layers": 2, "initializer_range": 0.02,
        "bos_token_id": 271, "eos_token_id": 271, "pad_token_id": 271},
    "qwen3": {
        "architectures": ["Qwen3ForCausalLM"], "model_type": "qwen3", "vocab_size": 272, "hidden_size": 32,
        "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2,
        "head_dim": 16, "hidden_act": "silu", "attention_bias": False, "attention_dropout": 0.0,
        "rms_norm_eps": 1e-06, "rope_theta": 1000000.0, "rope_scaling": None, "max_position_embeddings": 128,
        "tie_word_embeddings": True, "use_sliding_window": False, "sliding_window": None,
        "initializer_range": 0.02, "bos_token_id": 271, "eos_token_id": 271, "pad_token_id": 271},
    "qwen3_moe": {
        "architectures": ["Qwen3MoeForCausalLM"], "model_type": "qwen3_moe", "vocab_size": 272,
        "hidden_size": 32, "intermediate_size": 48, "moe_intermediate_size": 32, "num_hidden_layers": 2,
        "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 16, "hidden_act": "silu",
        "num_experts": 8, "num_experts_per_tok": 2, "norm_topk_prob": True, "decoder_sparse_step": 1,
        "mlp_only_layers": [], "attention_bias": False, "attention_dropout": 0.0, "rms_norm_eps": 1e-06,
        "rope_theta": 10000.0, "rope_scaling": None, "max_position_embeddings": 128,
        "tie_word_embeddings": True, "use_sliding_window": False, "sliding_window": None,
        "initializer_range": 0.02, "output_router_logits": False, "router_aux_loss_coef": 0.001,
        "bos_token_id": 271, "eos_token_id": 271, "pad_token_id": 271},
}

# Sizes of the norms of queries and keys, where there are any, from the widths of the two projections and of a head.
QUERY_KEY_NORMS = {
    "olmoe": lambda query, key, _head_dim: (query, key),
    "qwen3": lambda _query, _key, head_dim: (head_dim, head_dim),
    "qwen3_moe": lambda _query, _key, head_dim: (head_dim, head_dim),
}

# name -> (seed, stored type, layout, changes to the architecture's configuration)
VARIANTS = {
    "llama-plain": (12, "BF16", "single", {}),
    "llama-odd-sizes": (13, "F32", "single", {
        "hidden_size": 36, "intermediate_size": 20, "num_attention_heads": 3, "num_key_value_heads": 1,
        "head_dim": 10, "attention_bias": True, "tie_word_embeddings": False, "rope_theta": 100000.0}),
    "olmoe-plain": (9, "BF16", "single", {}),
    "olmoe-grouped": (10, "F32", "single", {
        "num_key_value_heads": 2, "num_experts": 3, "intermediate_size": 24, "norm_topk_prob": True,
        "attention_bias": True, "tie_word_embeddings": True}),
    "qwen2-plain": (14, "BF16", "single", {}),
    "qwen2-odd-sizes": (15, "F32", "single", {
        "hidden_size": 36, "intermediate_size": 20, "num_attention_heads": 3, "num_key_value_heads": 1,
        "tie_word_embeddings": False, "rope_theta": 10000.0}),
    "qwen3-plain": (11, "BF16", "single", {}),
    "qwen3_moe-plain": (3, "BF16", "single", {}),
    "qwen3_moe-not-renormalised": (2, "F16", "single", {
        "norm_topk_prob": False, "num_experts": 6, "tie_word_embeddings": False, "rope_theta": 1000000.0}),
    "qwen3_moe-sparse-step-2": (3, "F32", "single", {
        "num_hidden_layers": 3, "decoder_sparse_step": 2, "num_experts": 3, "intermediate_size": 32,
        "num_attention_heads": 2, "num_key_value_heads": 1}),
    "qwen3_moe-dense-first": (4, "BF16", "single", {
        "num_hidden_layers": 3, "mlp_only_layers": [0], "num_key_value_heads": 4, "num_experts": 4,
        "tie_word_embeddings": False}),
    "qwen3_moe-attention-bias": (5, "F32", "single", {
        "attention_bias": True, "num_experts": 3, "num_experts_per_tok": 3, "moe_intermediate_size": 24}),
    "qwen3_moe-sharded": (6, "BF16", "sharded", {}),
    "qwen3_moe-fused-experts": (7, "BF16", "fused", {"rope_theta": 500000.0}),
    "qwen3_moe-odd-sizes": (8, "F32", "single", {
        "hidden_size": 20, "intermediate_size": 36, "moe_intermediate_size": 12, "num_attention_heads": 3,
        "num_key_value_heads": 1, "head_dim": 10, "num_experts": 7, "num_experts_per_tok": 3,
        "rms_norm_eps": 1e-05, "tie_word_embeddings": False}),
}


def has_bias(config, projection):
    """Qwen2 has no key for it."""
    return config.get("attention_bias", config["model_type"] == "qwen2" and projection != "o_proj")


def tensor_shapes(config):
    """Hugging Face name -> shape [out, in] of all tensors, experts stored one by one."""
    hidden, heads, groups = (config[k] for k in ("hidden_size", "num_attention_heads", "num_key_value_heads"))
    head_dim, experts = config.get("head_dim", hidden // heads), config.get("num_experts", 0)
    query_key = QUERY_KEY_NORMS.get(config["model_type"], lambda *_: ())(heads * head_dim, groups * head_dim, head_dim)
    inner = config.get("moe_intermediate_size", config["intermediate_size"])
    shapes = {"model.embed_tokens.weight": (config["vocab_size"], hidden)}
    for layer in range(config["num_hidden_layers"]):
        prefix = f"model.layers.{layer}."
        rows = {"q_proj": (heads * head_dim, hidden), "k_proj": (groups * head_dim, hidden),
                "v_proj": (groups * head_dim, hidden), "o_proj": (hidden, heads * head_dim)}
        for name, shape in rows.items():
            shapes[f"{prefix}self_attn.{name}.weight"] = shape
            if has_bias(config, name):
                shapes[f"{prefix}self_attn.{name}.bias"] = shape[:1]
        for name, size in (*zip(("self_attn.q_norm", "self_attn.k_norm"), query_key), ("input_layernorm", hidden),
                           ("post_attention_layernorm", hidden)):
            shapes[f"{prefix}{name}.weight"] = (size,)
        if not is_moe_layer(config, layer):
            add_mlp(shapes, prefix + "mlp.", hidden, config["intermediate_size"])
            continue
        shapes[prefix + "mlp.gate.weight"] = (experts, hidden)
        for expert in range(experts):
            add_mlp(shapes, f"{prefix}mlp.experts.{expert}.", hidden, inner)
    shapes["model.norm.weight"] = (hidden,)
    if not config["tie_word_embeddings"]:
        shapes["lm_head.weight"] = (config["vocab_size"], hidden)
    return shapes


def add_mlp(shapes, prefix, hidden, inner):
    shapes[prefix + "gate_proj.weight"] = shapes[prefix + "up_proj.weight"] = (inner, hidden)
    shapes[prefix + "down_proj.weight"] = (hidden, inner)


def random_tensors(config, seed):
    """Matrices keep the size of their input on average; norms lie around 1 and biases around 0."""
    rng = np.random.default_rng(seed)
    tensors = {}
    for name, shape in tensor_shapes(config).items():
        noise = rng.standard_normal(shape)
        if name.endswith("norm.weight"):
            noise = 1.0 + 0.2 * noise
        elif len(shape) == 2:
            noise *= (2.0 if ".mlp." in name else 1.0) / np.sqrt(shape[1])
        else:
            noise *= 0.3
        tensors[name] = noise.astype(np.float32)
    return tensors


def fuse_experts(tensors, config):
    """The layout of newer checkpoints: gate_up_proj [E, 2 I, H] (gate first) and down_proj [E, H, I]."""
    fused = {name: t for name, t in tensors.items() if ".mlp.experts." not in name}
    for layer in range(config["num_hidden_layers"]):
        prefix = f"model.layers.{layer}.mlp.experts."

        def stack(part):
            return np.stack([tensors[f"{prefix}{e}.{part}_proj.weight"] for e in range(config["num_experts"])])

        fused[prefix + "gate_up_proj"] = np.concatenate([stack("gate"), stack("up")], axis=1)
        fused[prefix + "down_proj"] = stack("down")
    return fused


def to_bytes(tensor, dtype):
    """Little-endian bytes in `dtype`; BF16 rounds to nearest, ties to even."""
    if dtype == "BF16":
        bits = tensor.view(np.uint32).astype(np.uint64)
        return ((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16).astype("<u2").tobytes()
    return tensor.astype({"F16": "<f2", "F32": "<f4"}[dtype]).tobytes()


def write_safetensors(path, tensors, dtype):
    header, payload = {"__metadata__": {"format": "pt"}}, b""
    for name in sorted(tensors):
        data = to_bytes(tensors[name], dtype)
        header[name] = {"dtype": dtype, "shape": list(tensors[name].shape),
                        "data_offsets": [len(payload), len(payload) + len(data)]}
        payload += data
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    path.write_bytes(len(text).to_bytes(8, "little") + text + payload)
    return len(payload)


def write_weights(folder, tensors, dtype, layout):
    if layout != "sharded":
        return write_safetensors(folder / "model.safetensors", tensors, dtype)
    names, total, weight_map = sorted(tensors), 0, {}
    for part in range(2):  # every second tensor, so that the experts of one layer lie in both shards
        file, chosen = f"model-{part + 1:05}-of-00002.safetensors", names[part::2]
        total += write_safetensors(folder / file, {n: tensors[n] for n in chosen}, dtype)
        weight_map.update({n: file for n in chosen})
    write_json(folder / "model.safetensors.index.json",
               {"metadata": {"total_size": total}, "weight_map": dict(sorted(weight_map.items()))})
    return total


def write_json(path, value):
    path.write_text(json.dumps(value, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def byte_letters():
    """The printable letter of each byte in byte-level BPE files (the GPT-2 convention), in byte order."""
    plain = [*range(ord("!"), ord("~") + 1), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    letters, extra = [], 0
    for byte in range(256):
        letters.append(chr(byte if byte in plain else 256 + extra))
        extra += byte not in plain
    return letters


def write_tokenizer(folder, config):
    """All bytes, a few merges, <|endoftext|> in the last row; the rows between are unused padding."""
    vocab = {letter: i for i, letter in enumerate(byte_letters())}
    merges = ["o d", "e l", "od el", "Ġ m", "Ġ a"]
    for merge in merges:
        vocab[merge.replace(" ", "")] = len(vocab)
    split = json.loads((HERE.parent.parent / "models" / "grain" / "tokenizer.json").read_text(encoding="utf-8"))
    end = {"id": config["bos_token_id"], "content": "<|endoftext|>", "single_word": False, "lstrip": False,
           "rstrip": False, "normalized": False, "special": True}
    model = {**split["model"], "vocab": vocab, "merges": merges}
    write_json(folder / "tokenizer.json", {**split, "added_tokens": [end], "model": model})
    write_json(folder / "tokenizer_config.json", {
        "add_bos_token": True, "add_prefix_space": False, "bos_token": "<|endoftext|>",
        "eos_token": "<|endoftext|>", "pad_token": "<|endoftext|>", "unk_token": None,
        "clean_up_tokenization_spaces": False, "model_max_length": config["max_position_embeddings"],
        "tokenizer_class": "Qwen2Tokenizer"})


def run_transformers(folder, ids):
    """float32 logits [T, V] after `ids`, and the greedy continuation with its smallest top-2 gap."""
    model = transformers.AutoModelForCausalLM.from_pretrained(
        folder, dtype=torch.float32, attn_implementation="eager").eval()
    with torch.no_grad():
        logits = model(torch.tensor([ids])).logits[0].numpy()
        greedy, gap = [], np.inf
        for _ in range(GREEDY_TOKENS):
            best = torch.topk(model(torch.tensor([ids + greedy])).logits[0, -1], 2)
            gap = min(gap, float(best.values[0] - best.values[1]))
            greedy.append(int(best.indices[0]))
    return logits, greedy, gap


def check(name, difference, margin, gap, size):
    print(f"{name}: {size} bytes, |transformers - NumPy| {difference:.1e}, router margin {margin:.1e}, "
          f"greedy gap {gap:.1e}")
    if difference > TOLERANCE:
        sys.exit(f"{name}: transformers and NumPy differ by {difference}")
    if min(margin, gap) < SMALLEST_MARGIN:
        sys.exit(f"{name}: a near-tie ({margin}, {gap}); choose another seed")
    if size > MOST_BYTES:
        sys.exit(f"{name}: {size} bytes are more than {MOST_BYTES}")


def router_margin(router_logits, top_k):
    """Smallest gap between the last chosen and the first unchosen expert; infinite if all are chosen or none."""
    if not router_logits:
        return np.inf
    ordered = -np.sort(-np.stack(router_logits), axis=-1)
    return np.inf if ordered.shape[-1] == top_k else float((ordered[..., top_k - 1] - ordered[..., top_k]).min())


def stack_layers(values):
    """[L, T, ...] of the MoE layers; [0, T, 0] of a dense model."""
    return np.stack(values) if values else np.empty((0, TOKENS, 0))


def write_golden(folder, name, config, size):
    ids = [config["bos_token_id"], *Tokenizer.from_file(str(folder / "tokenizer.json")).encode(TEXT).ids]
    assert len(ids) == TOKENS, len(ids)
    logits, greedy, gap = run_transformers(folder, ids)
    ours = open_oracle(folder).forward(ids)
    check(name, np.abs(logits - ours.logits).max(),
          router_margin(ours.router_logits, config.get("num_experts_per_tok", 0)), gap, size)
    golden = folder / "golden"
    golden.mkdir()
    entry = {"name": name, "text": TEXT, "ids": ids}
    arrays = {"logits": logits.astype("<f4"), "router_logits": stack_layers(ours.router_logits).astype("<f4"),
              "experts": stack_layers(ours.experts).astype("<i4"),
              "expert_weights": stack_layers(ours.expert_weights).astype("<f4")}
    for key, values in arrays.items():
        (golden / f"p0_{key}.bin").write_bytes(values.tobytes())
        kind = "int32" if key == "experts" else "float32"
        entry[key] = {"file": f"p0_{key}.bin", "dtype": kind, "shape": list(values.shape)}
    entry.update({"greedy_ids": greedy, "greedy_min_top1_top2_gap": gap})
    write_json(golden / "prompts.json", {
        "protocol": "As models/grain/golden/prompts.json. Logits and greedy: transformers, float32; router_logits, "
                    "experts and expert_weights: the float64 NumPy pass; L counts the MoE layers only.",
        "made_with": f"transformers {transformers.__version__}, torch {torch.__version__}, numpy {np.__version__}",
        "prompts": [entry]})


def make(name):
    seed, dtype, layout, changes = VARIANTS[name]
    config = {**ARCHITECTURES[name.split("-")[0]], **changes,
              "torch_dtype": {"BF16": "bfloat16", "F16": "float16", "F32": "float32"}[dtype]}
    tensors = random_tensors(config, seed)
    if layout == "fused":  # as newer releases of transformers write config.json, too
        tensors = fuse_experts(tensors, config)
        theta = config.pop("rope_theta")
        config.pop("rope_scaling")
        config["rope_parameters"] = {"rope_theta": theta, "rope_type": "default"}
        config["dtype"] = config.pop("torch_dtype")
    folder = HERE / name
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    write_json(folder / "config.json", config)
    write_tokenizer(folder, config)
    write_golden(folder, name, config, write_weights(folder, tensors, dtype, layout))


def main():
    transformers.utils.logging.disable_progress_bar()
    for name in sys.argv[1:] or VARIANTS:
        make(name)


if __name__ == "__main__":
    main()
