# SPDX-FileCopyrightText: The Winnow authors
# SPDX-License-Identifier: Apache-2.0
"""What `--expert-options` puts in the place of an expert, and how much that changes, in NumPy float64.

Every expert is run on every token, and the layer's output is computed anew with the replacement in it, from the
definitions of docs/formats/recipe.md. g: router weight as applied, f: the expert's output, x: its input, a: its inner
activations. A change is the squared change of the layer's output per token of the calibration text (start tokens
included), after half a token of the layer's mean was added: (S_e + sum_j S_j / (2 sum_j hits_j)) / T.
"""

import dataclasses
import pathlib
import sys

import numpy as np

sys.path.insert(0, str(pathlib.Path(__file__).parent))
from expert_selection import moe_layer, super_experts  # noqa: E402
from forward import open_oracle  # noqa: E402
from qwen3_moe_numpy import is_moe_layer, silu, softmax  # noqa: E402
from statistics_numpy import Recorder, join, spread  # noqa: E402

PROBE_TOKENS = 4096
HELD_OUT_EVERY = 8
PRIOR_TOKENS = 0.5  # per inner channel: how many tokens without anything in common between channels
RIDGE = 1  # times the mean of the diagonal
BLOCK = 32
SUPER_BLOCK = 256
NARROW_SHARES = (0.75, 0.5)
ROUTER_ROWS = 1.5  # that a layer keeps at least, for each expert that a token goes to


def divide(windows):
    """(calibration, held out, probe) windows of a text, as docs/formats/compress-record.md says."""
    scored = [len(ids) - 1 for ids in windows]
    wanted = max(1, min(PROBE_TOKENS, sum(scored) // 4))
    stride, taken, probe, rest = min(max(1, sum(scored) // wanted), len(windows)), 0, [], []
    for number, ids in enumerate(windows):
        if number % stride == stride - 1 and taken < wanted:
            taken += scored[number]
            probe.append(ids)
        else:
            rest.append(ids)
    held_out = rest[HELD_OUT_EVERY - 1::HELD_OUT_EVERY]
    return [ids for n, ids in enumerate(rest) if n % HELD_OUT_EVERY != HELD_OUT_EVERY - 1], held_out, probe


# --- what a layer did ---

@dataclasses.dataclass
class Part:
    """A layer of N experts on T tokens of one part of the text; every expert on every token."""

    x: np.ndarray  # [T, hidden_size]
    logits: np.ndarray  # [T, N]
    weights: np.ndarray  # g [T, N], 0 where an expert was not chosen
    inner: list  # N x a [T, moe_intermediate_size]
    outputs: np.ndarray  # f [T, N, hidden_size]

    @property
    def hits(self):
        return (self.weights > 0).sum(axis=0)


def part_of(seen, matrices):
    weights = spread(len(matrices), seen.chosen, seen.weights)
    inner = [silu(seen.ffn_input @ gate.T) * (seen.ffn_input @ up.T) for gate, up, _ in matrices]
    outputs = np.stack([a @ down.T for a, (_, _, down) in zip(inner, matrices)], axis=1)
    return Part(seen.ffn_input, seen.logits, weights, inner, outputs)


def route(logits, top_k, renormalise):
    """Router weights [T, N], zero where an expert is not chosen; logits of minus infinity are never chosen."""
    chosen = np.argsort(-logits, axis=1, kind="stable")[:, :top_k]
    weights = np.take_along_axis(softmax(logits), chosen, axis=1)
    if renormalise:
        weights = weights / weights.sum(axis=1, keepdims=True)
    return spread(logits.shape[1], chosen, weights)


# --- replacements: (change of the layer's output [T, hidden_size], magnitudes of what was subtracted) ---

def difference(g, new, old):
    return g[:, None] * (new - old), g[:, None] * (np.abs(new) + np.abs(old))


def zero(layer, expert):
    """Nothing: MoE++ (arXiv:2410.07348)."""
    part = layer.calibration
    return difference(part.weights[:, expert], np.zeros_like(part.x), part.outputs[:, expert])


def identity(layer, expert):
    """The input: MoE++."""
    part = layer.calibration
    return difference(part.weights[:, expert], part.x, part.outputs[:, expert])


def constant(layer, expert):
    """The m that makes sum g^2 |f - m|^2 least: MoE++; MoNE (arXiv:2507.00390) has the plain mean."""
    part = layer.calibration
    f, g = part.outputs[:, expert], part.weights[:, expert]
    m = np.linalg.lstsq(g[:, None], g[:, None] * f, rcond=None)[0][0] if g.any() else np.zeros(f.shape[1])
    return difference(g, np.broadcast_to(m, f.shape), f)


def dropped(layer, expert):
    """No row of the router either, as REAP (arXiv:2510.13999) leaves experts out: every token is routed anew."""
    part, logits = layer.calibration, layer.calibration.logits.copy()
    logits[:, expert] = -np.inf
    change = route(logits, layer.top_k, layer.renormalise) - part.weights
    return (np.einsum("te,ted->td", change, part.outputs),
            np.einsum("te,ted->td", np.abs(change), np.abs(part.outputs)))


def shared(layer, expert):
    """The matrices of the expert whose own are nearest; groups as in M-SMoE (arXiv:2310.01334), without merging."""
    part = layer.calibration
    return difference(part.weights[:, expert], part.outputs[:, layer.nearest(expert)], part.outputs[:, expert])


REPLACEMENTS = {"zero": zero, "identity": identity, "constant": constant, "dropped": dropped, "shared": shared}


# --- narrowing ---

def narrow_widths(inner):
    """Three quarters and half of the channels, in whole blocks of 32 and of 256; the widest first. None without whole
    blocks of 32."""
    if inner % BLOCK:
        return []
    widths = {int(inner * share) // block * block for share in NARROW_SHARES for block in (BLOCK, SUPER_BLOCK)}
    return sorted((width for width in widths if width > 0), reverse=True)


def compensated(down, hessian, kept):
    """W_K + W_S H_SK H_KK^-1: the columns K that stand best for all of them, those of S being zero."""
    narrowed = np.zeros_like(down)
    narrowed[:, kept] = np.linalg.solve(hessian[np.ix_(kept, kept)], hessian[kept] @ down.T).T
    return narrowed


def squared_error(change, hessian):
    """tr(D H D^T)"""
    return float(np.sum((change @ hessian) * change))


def cheapest_channel(down, hessian, kept):
    """(place in `kept` of the channel whose loss, best compensated, costs least; share by which the next costs more).

    Optimal Brain Surgeon (Hassibi and Stork, 1992), for a column of a matrix in the place of a weight:
    |w_q|^2 / [H_KK^-1]_qq, w_q being what the compensation so far has made of the column. All is computed anew at
    each step.
    """
    inverse = np.linalg.inv(hessian[np.ix_(kept, kept)])
    costs = (compensated(down, hessian, kept)[:, kept] ** 2).sum(axis=0) / np.diag(inverse)
    first, second = np.sort(costs)[:2]
    return int(np.argmin(costs)), second / first - 1


def narrowings(down, hessian, widths):
    """({width: down projection with zeros in the place of what went}, least margin of a choice)."""
    kept, found, margin = list(range(len(hessian))), {}, np.inf
    for width in widths:
        while len(kept) > width:
            place, gap = cheapest_channel(down, hessian, kept)
            margin = min(margin, gap)
            del kept[place]
        found[width] = compensated(down, hessian, kept)
    return found, margin


def own_hessians(part):
    """sum g^2 a a^T over the tokens of each expert."""
    weighted = [g[:, None] * a for g, a in zip(part.weights.T, part.inner)]
    return [rows.T @ rows for rows in weighted]


def shrunk(hessian, tokens):
    """As if half as many tokens more as there are channels had been seen, in which channels have nothing in common."""
    return hessian + PRIOR_TOKENS * len(hessian) / tokens * np.diag(np.diag(hessian))


# --- a layer ---

class Layer:
    """What the replacements of a layer's experts change. Sums S are over the tokens of the calibration text."""

    def __init__(self, config, matrices, calibration, held_out):
        self.matrices = matrices
        self.calibration, self.held_out = calibration, held_out  # Parts; held_out is None where there is little text
        self.top_k, self.renormalise = config["num_experts_per_tok"], config.get("norm_topk_prob", False)

    @property
    def experts(self):
        return len(self.matrices)

    def nearest(self, expert):
        """The other expert with the least squared distance of all three matrices; ties to the lower number."""
        distances = [sum(np.sum((a - b) ** 2) for a, b in zip(self.matrices[expert], other))
                     for other in self.matrices]
        distances[expert] = np.inf
        return int(np.argmin(distances))

    def droppable(self):
        """The experts whose rows of the router may go: so many that enough rows stay, by rising change."""
        rows = self.experts - int(np.ceil(ROUTER_ROWS * self.top_k))
        return set(np.argsort(self.changes("dropped")[0], kind="stable")[:rows].tolist()) if rows > 0 else set()

    def per_token(self, sums):
        """Half a token of the layer's mean added, then divided by the number of tokens."""
        part = self.calibration
        return (sums + 0.5 * sums.sum() / part.hits.sum()) / len(part.x)

    def changes(self, name):
        """(change of each expert, squared magnitudes of what is subtracted there in the same unit)."""
        pairs = [REPLACEMENTS[name](self, expert) for expert in range(self.experts)]
        sums, magnitudes = (np.array([np.sum(values ** 2) for values in column]) for column in zip(*pairs))
        return self.per_token(sums), self.per_token(magnitudes)

    def narrow_changes(self):
        """({width: change of each expert}, least margin of a choice of channels).

        The share of the squared output that changes on the expert's held-out tokens (where it has none: on those it was
        fitted to), times that output on the calibration text.
        """
        squares = np.array([np.sum(zero(self, expert)[0] ** 2) for expert in range(self.experts)])
        own = own_hessians(self.calibration)
        judges = own_hessians(self.held_out) if self.held_out else own
        widths = narrow_widths(len(own[0]))
        sums, margin = {width: np.zeros(self.experts) for width in widths}, np.inf
        for expert in np.flatnonzero(self.calibration.hits):
            down, hessian = self.matrices[expert][2], shrunk(own[expert], self.calibration.hits[expert])
            judge = judges[expert] if np.trace(judges[expert]) > 0 else own[expert]
            ridge = RIDGE * np.mean(np.diag(hessian)) * np.eye(len(hessian))
            found, gap = narrowings(down, hessian + ridge, widths)
            margin = min(margin, gap)
            for width, narrowed in found.items():
                share = squared_error(narrowed - down, judge) / squared_error(down, judge)
                sums[width][expert] = share * squares[expert]
        return {width: self.per_token(values) for width, values in sums.items()}, margin


class Replacements:
    """The layers with experts of a Hugging Face folder on windows of text."""

    def __init__(self, folder, windows):
        self.model = open_oracle(folder)
        config = self.model.config
        self.numbers = [n for n in range(config["num_hidden_layers"]) if is_moe_layer(config, n)]
        recorder = Recorder(self.model)
        calibration, held_out, _ = (self._run(recorder, part) for part in divide(windows))
        self.super_experts = super_experts({n: moe_layer(self.model, n, calibration[n]) for n in self.numbers})[0]
        self.layers = {}
        for n in self.numbers:
            matrices = [self.model._expert_matrices(f"model.layers.{n}.mlp.", e) for e in range(config["num_experts"])]
            self.layers[n] = Layer(config, matrices, part_of(calibration[n], matrices),
                                   part_of(held_out[n], matrices) if held_out else None)

    def _run(self, recorder, windows):
        runs = [recorder.run(ids)[0] for ids in windows]
        return [join(layers) for layers in zip(*runs)]

    def least_router_gap(self):
        """Between the logits of the experts that a token goes to, the next best one, and the one behind that."""
        gaps = [np.inf]
        for layer in self.layers.values():
            ordered = -np.sort(-layer.calibration.logits, axis=1)
            gaps.append(np.min((ordered[:, :-1] - ordered[:, 1:])[:, layer.top_k - 1:layer.top_k + 1], initial=np.inf))
        return float(min(gaps))
