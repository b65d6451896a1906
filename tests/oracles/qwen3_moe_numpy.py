# SPDX-FileCopyrightText: The Winnow authors
# SPDX-License-Identifier: Apache-2.0
"""The qwen3_moe forward pass in NumPy float64: the obvious reference, slow and short.

Written from the published definition of the architecture (Qwen3 Technical Report, arXiv:2505.09388, and
the fields of config.json), not from any engine. One sequence, no cache: every position is computed anew.

    python tests/oracles/qwen3_moe_numpy.py models/grain      # compares with models/grain/golden
"""

import argparse
import dataclasses
import json
import pathlib
import sys

import numpy as np

sys.path.insert(0, str(pathlib.Path(__file__).parent))
from checkpoint import Checkpoint  # noqa: E402


@dataclasses.dataclass
class Result:
    """What a forward pass of T tokens leaves. L counts the MoE layers only, in order."""

    logits: np.ndarray  # [T, vocab_size]
    router_logits: list  # L x [T, num_experts], before softmax
    experts: list  # L x int [T, top_k], descending probability, ties to the lower index
    expert_weights: list  # L x [T, top_k], as the layer uses them


def rms_norm(x, weight, epsilon):
    """x / sqrt(mean(x^2) + epsilon) * weight over the last axis."""
    return x / np.sqrt(np.mean(x * x, axis=-1, keepdims=True) + epsilon) * weight


def softmax(x):
    e = np.exp(x - x.max(axis=-1, keepdims=True))
    return e / e.sum(axis=-1, keepdims=True)


def silu(x):
    return x / (1.0 + np.exp(-x))


def rotate(x, theta):
    """Rotary embedding of x [T, heads, head_dim] at positions 0..T-1; pairs are (i, i + head_dim / 2)."""
    half = x.shape[-1] // 2
    angles = np.arange(x.shape[0])[:, None] * theta ** (-np.arange(half) / half)
    cos, sin = np.cos(angles)[:, None, :], np.sin(angles)[:, None, :]
    low, high = x[..., :half], x[..., half:]
    return np.concatenate([low * cos - high * sin, high * cos + low * sin], axis=-1)


def is_moe_layer(config, layer):
    """Dense without experts, where listed in mlp_only_layers, or where decoder_sparse_step does not divide layer + 1."""
    return (config.get("num_experts", 0) > 0 and layer not in config.get("mlp_only_layers", [])
            and (layer + 1) % config.get("decoder_sparse_step", 1) == 0)


class Qwen3Moe:
    """A checkpoint with its forward pass. Weights are widened when used, so grain needs little memory."""

    def __init__(self, folder):
        self.checkpoint = Checkpoint(folder)
        self.config = self.checkpoint.config
        self._cache = {}

    def _weight(self, name):
        if name not in self._cache:
            self._cache[name] = self.checkpoint.array(name)
        return self._cache[name]

    def _linear(self, x, name):
        y = x @ self._weight(name + ".weight").T
        return y + self._weight(name + ".bias") if name + ".bias" in self.checkpoint else y

    def _normalized_heads(self, x, prefix, shape):
        """Queries or keys [T, heads, head_dim], each head normalised by itself."""
        heads = self._linear(x, prefix + "proj").reshape(shape)
        return rms_norm(heads, self._weight(prefix + "norm.weight"), self.config["rms_norm_eps"])

    def _attention(self, x, prefix):
        config, tokens = self.config, x.shape[0]
        heads, groups = config["num_attention_heads"], config["num_key_value_heads"]
        head_dim = config.get("head_dim") or config["hidden_size"] // heads
        q = rotate(self._normalized_heads(x, prefix + "q_", (tokens, heads, head_dim)), rope_theta(config))
        k = rotate(self._normalized_heads(x, prefix + "k_", (tokens, groups, head_dim)), rope_theta(config))
        v = self._linear(x, prefix + "v_proj").reshape(tokens, groups, head_dim)
        future = np.triu(np.ones((tokens, tokens), bool), 1)
        out = np.empty_like(q)
        for head in range(heads):
            group = head * groups // heads
            scores = q[:, head] @ k[:, group].T / np.sqrt(head_dim)
            out[:, head] = softmax(np.where(future, -np.inf, scores)) @ v[:, group]
        return self._linear(out.reshape(tokens, heads * head_dim), prefix + "o_proj")

    def _expert_matrices(self, prefix, expert):
        """gate, up [inner, hidden] and down [hidden, inner] of one expert, stored apart or fused."""
        fused = prefix + "experts.gate_up_proj"
        if fused in self.checkpoint:
            gate, up = np.split(self._weight(fused)[expert], 2, axis=0)
            return gate, up, self._weight(prefix + "experts.down_proj")[expert]
        stem = f"{prefix}experts.{expert}."
        return tuple(self._weight(f"{stem}{part}_proj.weight") for part in ("gate", "up", "down"))

    def _moe(self, x, prefix, result):
        top_k = self.config["num_experts_per_tok"]
        logits = self._linear(x, prefix + "gate")
        chosen = np.argsort(-logits, axis=1, kind="stable")[:, :top_k]
        weights = np.take_along_axis(softmax(logits), chosen, axis=1)
        if self.config.get("norm_topk_prob", False):
            weights = weights / weights.sum(axis=1, keepdims=True)
        y = np.zeros_like(x)
        for expert in np.unique(chosen):
            token, slot = np.nonzero(chosen == expert)
            gate, up, down = self._expert_matrices(prefix, expert)
            inner = silu(x[token] @ gate.T) * (x[token] @ up.T)
            y[token] += weights[token, slot, None] * (inner @ down.T)
        result.router_logits.append(logits)
        result.experts.append(chosen)
        result.expert_weights.append(weights)
        return y

    def _mlp(self, x, prefix):
        gate, up = self._linear(x, prefix + "gate_proj"), self._linear(x, prefix + "up_proj")
        return self._linear(silu(gate) * up, prefix + "down_proj")

    def forward(self, ids):
        """ids: token ids of one sequence from position 0. Returns a Result in float64."""
        config, result = self.config, Result(None, [], [], [])
        epsilon = config["rms_norm_eps"]
        x = self._weight("model.embed_tokens.weight")[np.asarray(ids)]
        for layer in range(config["num_hidden_layers"]):
            prefix = f"model.layers.{layer}."
            x = x + self._attention(rms_norm(x, self._weight(prefix + "input_layernorm.weight"), epsilon),
                                    prefix + "self_attn.")
            h = rms_norm(x, self._weight(prefix + "post_attention_layernorm.weight"), epsilon)
            if is_moe_layer(config, layer):
                x = x + self._moe(h, prefix + "mlp.", result)
            else:
                x = x + self._mlp(h, prefix + "mlp.")
        x = rms_norm(x, self._weight("model.norm.weight"), epsilon)
        head = "model.embed_tokens" if config.get("tie_word_embeddings", False) else "lm_head"
        result.logits = x @ self._weight(head + ".weight").T
        return result


ORACLE = Qwen3Moe


def rope_theta(config):
    """Newer config.json files keep the base inside rope_parameters."""
    return config["rope_theta"] if "rope_theta" in config else config["rope_parameters"]["rope_theta"]


def golden_array(folder, entry):
    """An array of the golden folder: {"file", "dtype", "shape"} as in prompts.json and windows.json."""
    dtype = np.dtype(entry["dtype"]).newbyteorder("<")
    return np.fromfile(pathlib.Path(folder) / entry["file"], dtype).reshape(entry["shape"])


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model", type=pathlib.Path)
    folder = parser.parse_args().model
    model, golden = Qwen3Moe(folder), folder / "golden"
    for prompt in json.loads((golden / "prompts.json").read_text(encoding="utf-8"))["prompts"]:
        result = model.forward(prompt["ids"])
        logits = np.abs(result.logits - golden_array(golden, prompt["logits"])).max()
        router = np.abs(np.stack(result.router_logits) - golden_array(golden, prompt["router_logits"])).max()
        experts = (np.stack(result.experts) != golden_array(golden, prompt["experts"])).sum()
        print(f"{prompt['name']}: max |logit difference| {logits:.2e}, router {router:.2e}, "
              f"differing expert choices {experts}")


if __name__ == "__main__":
    main()
