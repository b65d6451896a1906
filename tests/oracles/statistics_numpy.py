# SPDX-FileCopyrightText: The Winnow authors
# SPDX-License-Identifier: Apache-2.0
"""Calibration statistics from their definitions in docs/formats/statistics.md, in NumPy float64.

Every array of a statistics file is computed anew from the oracle's own forward pass, so that nothing but the
definitions is shared with the product. Sums come with the sum of the magnitudes of their terms, which is what their
error is a share of.
"""

import json
import pathlib
import struct
import sys

import numpy as np

sys.path.insert(0, str(pathlib.Path(__file__).parent))
from qwen3_moe_numpy import is_moe_layer, rms_norm, silu, softmax  # noqa: E402

DTYPES = {"F64": "<f8", "U64": "<u8", "F32": "<f4", "I32": "<i4"}
HELD_OUT_EVERY = 8
BINS = 256
TEACHER_TOP = 64


def read_statistics(path):
    """(header, {name: array}) of a statistics file."""
    data = pathlib.Path(path).read_bytes()
    length = struct.unpack("<Q", data[:8])[0]
    directory = json.loads(data[8:8 + length])
    header = json.loads(directory.pop("__metadata__")["winnow.statistics"])
    arrays = {}
    for name, entry in directory.items():
        begin, end = (8 + length + offset for offset in entry["data_offsets"])
        arrays[name] = np.frombuffer(data[begin:end], DTYPES[entry["dtype"]]).reshape(entry["shape"])
    return header, arrays


def windows_of(ids, context, start):
    """Consecutive stretches of context - 1 ids, each after the start token."""
    return [[start, *ids[at:at + context - 1]] for at in range(0, len(ids), context - 1)]


class Layer:
    """What a layer did with some tokens; the arrays' first dimension."""

    def __init__(self):
        self.before = self.after = self.attention_input = self.attention_inner = None
        self.ffn_input = self.ffn_inner = None
        self.logits = self.chosen = self.weights = None  # [T, N], [T, k], [T, k]
        self.inner = self.outputs = None  # [T, k, inner width], [T, k, hidden_size]


class Recorder:
    """The forward pass of an oracle (forward.py), with all that the statistics are sums of."""

    def __init__(self, model):
        self.model = model
        self.layers = []
        self._inputs = {}
        plain = model._linear

        def recording(x, name):
            self._inputs[name] = x
            return plain(x, name)

        model._linear = recording

    def _weight(self, name):
        return self.model._weight(name)

    def _experts(self, x, prefix, seen):
        config = self.model.config
        seen.logits = self.model._linear(x, prefix + "gate")
        seen.chosen = np.argsort(-seen.logits, axis=1, kind="stable")[:, :config["num_experts_per_tok"]]
        seen.weights = np.take_along_axis(softmax(seen.logits), seen.chosen, axis=1)
        if config.get("norm_topk_prob", False):
            seen.weights = seen.weights / seen.weights.sum(axis=1, keepdims=True)
        inner, outputs = [], []
        for token, experts in enumerate(seen.chosen):
            matrices = [self.model._expert_matrices(prefix, expert) for expert in experts]
            a = [silu(gate @ x[token]) * (up @ x[token]) for gate, up, _ in matrices]
            inner.append(a)
            outputs.append([down @ values for values, (_, _, down) in zip(a, matrices)])
        seen.inner, seen.outputs = np.array(inner), np.array(outputs)
        return (seen.weights[:, :, None] * seen.outputs).sum(axis=1)

    def run(self, ids):
        """Returns (one Layer for each layer, the input of the output matrix, logits)."""
        config, layers = self.model.config, []
        epsilon = config["rms_norm_eps"]
        x = self._weight("model.embed_tokens.weight")[np.asarray(ids)]
        for number in range(config["num_hidden_layers"]):
            seen, prefix = Layer(), f"model.layers.{number}."
            seen.before = x
            h = rms_norm(x, self._weight(prefix + "input_layernorm.weight"), epsilon)
            x = x + self.model._attention(h, prefix + "self_attn.")
            seen.attention_input = self._inputs[prefix + "self_attn.q_proj"]
            seen.attention_inner = self._inputs[prefix + "self_attn.o_proj"]
            seen.ffn_input = rms_norm(x, self._weight(prefix + "post_attention_layernorm.weight"), epsilon)
            if is_moe_layer(config, number):
                x = x + self._experts(seen.ffn_input, prefix + "mlp.", seen)
            else:
                x = x + self.model._mlp(seen.ffn_input, prefix + "mlp.")
                seen.ffn_inner = self._inputs[prefix + "mlp.down_proj"]
            seen.after = x
            layers.append(seen)
        h = rms_norm(x, self._weight("model.norm.weight"), epsilon)
        head = "model.embed_tokens" if config.get("tie_word_embeddings", False) else "lm_head"
        return layers, h, h @ self._weight(head + ".weight").T


def total(terms):
    """(sum, sum of magnitudes) over the first dimension."""
    return terms.sum(axis=0), np.abs(terms).sum(axis=0)


def site(name, x):
    return {f"{name}_tokens": np.array([len(x)]), f"{name}_squares": total(x * x),
            f"{name}_magnitudes": total(np.abs(x)), f"{name}_max": np.abs(x).max(axis=0)}


def spread(experts, chosen, values):
    """values [T, k, ...] of choices as [T, N, ...], zero where an expert was not chosen."""
    out = np.zeros((len(chosen), experts, *values.shape[2:]))
    np.put_along_axis(out, chosen.reshape(*chosen.shape, *[1] * (values.ndim - 2)), values, axis=1)
    return out


def routing(seen, halves):
    experts, (tokens, k) = seen.logits.shape[1], seen.chosen.shape
    hits = spread(experts, seen.chosen, np.ones((tokens, k)))
    gates = spread(experts, seen.chosen, seen.weights)
    mass = np.take_along_axis(softmax(seen.logits), seen.chosen, axis=1).sum(axis=1)
    ratios = [mass, *(seen.weights[:, 1:] / seen.weights[:, :1]).T]
    return {"tokens": np.array([tokens]), "hits": hits.sum(axis=0),
            "half_hits": np.stack([hits[halves == half].sum(axis=0) for half in (0, 1)]),
            "weight_sums": total(gates), "gate_gram": total(gates[:, :, None] * gates[:, None, :]),
            "weight_ratios": np.stack(ratios),  # the samples; see check_histogram
            "coactivation": hits.T @ hits, "router_logit_sums": total(seen.logits),
            "router_logit_gram": total(seen.logits[:, :, None] * seen.logits[:, None, :])}


def outputs(seen, halves):
    experts = seen.logits.shape[1]
    f = spread(experts, seen.chosen, seen.outputs)
    g = spread(experts, seen.chosen, seen.weights)
    norms = np.sqrt((f * f).sum(axis=2))
    gated = g[:, :, None] * f
    return {"output_norms": total(norms), "output_squares": total(norms ** 2),
            "gated_output_norms": total(g * norms), "gated_output_squares": total((g * norms) ** 2),
            "half_gated_output_norms": tuple(np.stack(parts) for parts in zip(
                *(total((g * norms)[halves == half]) for half in (0, 1)))),
            "output_gram": (np.einsum("tid,tjd->ij", gated, gated),
                            np.einsum("ti,tj->ij", g * norms, g * norms)),
            "output_norm_max": norms.max(axis=0), "output_max": np.abs(f).max(axis=(0, 2)),
            "output_sums": total(f), "gated_output_sums": total((g ** 2)[:, :, None] * f)}


def moments(seen):
    experts, k = seen.logits.shape[1], seen.chosen.shape[1]
    square_gates = spread(experts, seen.chosen, seen.weights)[:, :, None] ** 2
    x = spread(experts, seen.chosen, np.repeat(seen.ffn_input[:, None, :], k, axis=1)) ** 2
    a = spread(experts, seen.chosen, seen.inner) ** 2
    return {"expert_input_squares": total(x), "gated_expert_input_squares": total(square_gates * x),
            "expert_inner_squares": total(a), "gated_expert_inner_squares": total(square_gates * a)}


def similarity(seen):
    inner = (seen.before * seen.after).sum(axis=1)
    before, after = (seen.before ** 2).sum(axis=1), (seen.after ** 2).sum(axis=1)
    terms = {"layer_cosines": inner / np.sqrt(before * after), "layer_input_squares": before,
             "layer_output_squares": after}
    return {name: total(values[:, None]) for name, values in terms.items()}


def layer_statistics(seen, halves):
    """All arrays of a layer by name: (sum, magnitudes) for sums, else the array."""
    result = {**similarity(seen), **site("attention_input", seen.attention_input),
              **site("attention_inner", seen.attention_inner), **site("ffn_input", seen.ffn_input)}
    if seen.logits is None:
        return {**result, **site("ffn_inner", seen.ffn_inner)}
    return {**result, **routing(seen, halves), **outputs(seen, halves), **moments(seen)}


def join(parts):
    """One Layer of the tokens of several."""
    whole = Layer()
    for name in vars(whole):
        values = [getattr(part, name) for part in parts]
        if values[0] is not None:
            setattr(whole, name, np.concatenate(values))
    return whole


def teacher(windows, logits):
    """The held-out windows, and for each prediction the natural logarithms of all probabilities."""
    rows = np.concatenate([values[:-1] for values in logits])
    return {"window_lengths": np.array([len(window) for window in windows]),
            "first_scored": np.ones(len(windows), int), "tokens": np.concatenate(windows),
            "log_probs": np.log(softmax(rows))}


def profile(model, windows):
    """Statistics of one domain: ({"layers.L.NAME" and "output.NAME": array}, teacher or None)."""
    recorder = Recorder(model)
    counted, inputs, halves, held_out, held_logits = [], [], [], [], []
    for number, ids in enumerate(windows):
        layers, output_input, logits = recorder.run(ids)
        if number % HELD_OUT_EVERY == HELD_OUT_EVERY - 1:
            held_out.append(np.array(ids))
            held_logits.append(logits)
            continue
        counted.append(layers)
        inputs.append(output_input)
        halves += [number % 2] * len(ids)
    arrays = {f"output.{name}": value
              for name, value in site("output_input", np.concatenate(inputs)).items()}
    for number in range(len(counted[0])):
        seen = join([layers[number] for layers in counted])
        for name, value in layer_statistics(seen, np.array(halves)).items():
            arrays[f"layers.{number}.{name}"] = value
    return arrays, teacher(held_out, held_logits) if held_out else None
