# SPDX-FileCopyrightText: The Winnow authors
# SPDX-License-Identifier: Apache-2.0
"""PMQ's weighting of experts from the formula of arXiv:2410.06270, in NumPy float64.

An expert i costs phi_i^alpha w_i^beta eps_i^gamma: phi the share of the tokens routed to it, w its router weight as
applied, averaged over all tokens, eps the Frobenius norm of what the layer's output changes by when one matrix of this
expert alone is rounded. Each expert is changed by itself and the layer's output computed anew.
"""

import pathlib
import sys

import numpy as np

sys.path.insert(0, str(pathlib.Path(__file__).parent))
from forward import open_oracle  # noqa: E402
from qwen3_moe_numpy import is_moe_layer, silu  # noqa: E402
from statistics_numpy import Recorder  # noqa: E402

MATRICES = ("gate_proj", "up_proj", "down_proj")


def expert_output(matrices, x):
    gate, up, down = matrices
    return (silu(x @ gate.T) * (x @ up.T)) @ down.T


def layer_output(seen, experts):
    """Output of the experts of a layer, router weights applied. experts: three matrices each."""
    out = np.zeros_like(seen.ffn_input)
    for e, matrices in enumerate(experts):
        token, choice = np.nonzero(seen.chosen == e)
        out[token] += seen.weights[token, choice][:, None] * expert_output(matrices, seen.ffn_input[token])
    return out


class Pmq:
    """The facts of a Hugging Face folder on some tokens."""

    def __init__(self, folder, ids):
        self.model = open_oracle(folder)
        self.count = self.model.config["num_experts"]
        self.layers = Recorder(self.model).run(ids)[0]

    def experts(self, model, layer):
        return [model._expert_matrices(f"model.layers.{layer}.mlp.", e) for e in range(self.count)]

    def moe_layers(self):
        return [number for number in range(len(self.layers)) if is_moe_layer(self.model.config, number)]

    def frequency(self, layer):
        chosen = self.layers[layer].chosen
        return np.array([(chosen == e).any(axis=1).mean() for e in range(self.count)])

    def weight(self, layer):
        seen = self.layers[layer]
        return np.array([np.where(seen.chosen == e, seen.weights, 0).sum(axis=1).mean() for e in range(self.count)])

    def norms(self, layer, matrix, rounded):
        """eps of each expert; rounded: the folder of the same model with rounded weights."""
        seen = self.layers[layer]
        plain, other = self.experts(self.model, layer), self.experts(open_oracle(rounded), layer)
        before = layer_output(seen, plain)
        place = MATRICES.index(matrix)
        norms = []
        for e in range(self.count):
            changed = list(plain)
            changed[e] = [other[e][m] if m == place else plain[e][m] for m in range(3)]
            norms.append(np.linalg.norm(layer_output(seen, changed) - before))
        return np.array(norms)

    def damage(self, layer, matrix, rounded, alpha, beta, gamma):
        return np.sum(self.frequency(layer)**alpha * self.weight(layer)**beta
                      * self.norms(layer, matrix, rounded)**gamma)
