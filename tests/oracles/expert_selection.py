# SPDX-FileCopyrightText: The Winnow authors
# SPDX-License-Identifier: Apache-2.0
"""Which experts each pruning criterion keeps, from its definition, in NumPy float64.

Everything that needs text is computed from what each token did (router weights g as applied, expert outputs f), not
from the sums of a statistics file. Text is cut and held out as docs/formats/statistics.md says; the tokens of all
domains are pooled.

    python3 tests/oracles/expert_selection.py MODEL_FOLDER TEXT... --keep K [--context 512] [--no-protection]

prints {"methods": {name: {"layers": {"0": {"scores": [...] or null, "kept": [...]}}}}, ...}. Layers without experts
are left out. Exact ties go to the lower index throughout.
"""

import argparse
import dataclasses
import itertools
import json
import math
import pathlib
import sys

import numpy as np

sys.path.insert(0, str(pathlib.Path(__file__).parent))
from bpe import Bpe  # noqa: E402
from forward import open_oracle  # noqa: E402
from qwen3_moe_numpy import is_moe_layer  # noqa: E402
from statistics_numpy import HELD_OUT_EVERY, Recorder, join, windows_of  # noqa: E402

SUPER_PERCENTILE = 99.5
SUPER_SHARE_OF_LARGEST = 0.1
# Shares of a value that count as no difference.
SWAP_GAIN = 1e-12
NEAREST_TIE = 1e-12


@dataclasses.dataclass
class MoeLayer:
    """A layer of N experts and what it did with the T counted tokens."""

    chosen: np.ndarray  # [T, k]
    weights: np.ndarray  # [T, k], g as applied: after renormalisation where the model renormalises
    outputs: np.ndarray  # [T, k, hidden_size], f: before the weight
    router: np.ndarray  # [N, hidden_size]
    matrices: list  # N x (gate, up, down)
    margin: float  # least difference between the logits of the last expert chosen and the first that is not

    @property
    def experts(self):
        return len(self.router)


# --- text and forward pass ---

def start_token(model, tokenizer):
    """The model's BOS, else <|endoftext|>."""
    bos = model.config.get("bos_token_id")
    return tokenizer.added("<|endoftext|>") if bos is None else bos


def sequences_by_domain(paths, tokenizer, context, start):
    """{file name without its last suffix: sequences in the order of the files}; a file is a document."""
    domains = {}
    for path in map(pathlib.Path, paths):
        ids = tokenizer.encode(path.read_bytes().decode("utf-8"))
        domains.setdefault(path.stem, []).extend(windows_of(ids, context, start))
    return domains


def counted(sequences):
    """Sequences of a domain without number 7, 15, 23 ..."""
    return [ids for number, ids in enumerate(sequences) if number % HELD_OUT_EVERY != HELD_OUT_EVERY - 1]


def moe_layer(model, number, seen):
    """The MoeLayer of layer `number`, whose tokens are in `seen`."""
    prefix = f"model.layers.{number}.mlp."
    router = model._weight(prefix + "gate.weight")
    ordered = -np.sort(-seen.logits, axis=1)
    k = seen.chosen.shape[1]
    margin = np.min(ordered[:, k - 1] - ordered[:, k]) if k < len(router) else np.inf
    return MoeLayer(seen.chosen, seen.weights, seen.outputs, router,
                    [model._expert_matrices(prefix, expert) for expert in range(len(router))], float(margin))


def observe(folder, paths, context):
    """({layer number: MoeLayer}, number of counted tokens) of a model on text."""
    model, tokenizer = open_oracle(folder), Bpe(folder)
    if context > model.config.get("max_position_embeddings", context):
        raise ValueError("--context is beyond the model's positions")
    recorder = Recorder(model)
    domains = sequences_by_domain(paths, tokenizer, context, start_token(model, tokenizer))
    runs = [recorder.run(ids)[0] for sequences in domains.values() for ids in counted(sequences)]
    layers = {number: moe_layer(model, number, join([run[number] for run in runs]))
              for number in range(model.config["num_hidden_layers"]) if is_moe_layer(model.config, number)}
    return layers, sum(len(run[0].before) for run in runs)


# --- scores: the K highest are kept ---

def routed(layer, expert):
    """(g [t], f [t, hidden_size]) of the tokens routed to an expert."""
    token, slot = np.nonzero(layer.chosen == expert)
    return layer.weights[token, slot], layer.outputs[token, slot]


def per_expert(layer, score):
    """score(g, f) of each expert as floats; 0 for those never routed."""
    pairs = [routed(layer, expert) for expert in range(layer.experts)]
    return [float(score(g, f)) if len(g) else 0.0 for g, f in pairs]


def frequency(layer):
    """Number of tokens routed to the expert; a baseline in REAP (arXiv:2510.13999)."""
    return [int(np.sum(layer.chosen == expert)) for expert in range(layer.experts)]


def mean_norm(layer):
    """MAN (arXiv:2606.15716): mean over routed tokens of |f|."""
    return per_expert(layer, lambda g, f: np.mean(np.linalg.norm(f, axis=1)))


def mean_square_norm(layer):
    """MSAN (arXiv:2606.15716): mean over routed tokens of |f|^2."""
    return per_expert(layer, lambda g, f: np.mean(np.sum(f * f, axis=1)))


def reap(layer):
    """REAP (arXiv:2510.13999): mean over routed tokens of g |f|."""
    return per_expert(layer, lambda g, f: np.mean(g * np.linalg.norm(f, axis=1)))


def gated_norm_sum(layer):
    """Expert activation norm weighted by the gate, a baseline in REAP (arXiv:2510.13999): sum of g |f|."""
    return per_expert(layer, lambda g, f: np.sum(g * np.linalg.norm(f, axis=1)))


def aimer(layer):
    """AIMER (arXiv:2603.18492), without data: minus mean |w| / rms(w) over the three matrices together."""
    flat = [flat_weights(matrices) for matrices in layer.matrices]
    return [float(-np.mean(np.abs(w)) / np.sqrt(np.mean(w * w))) for w in flat]


SCORES = {"frequency": frequency, "mean-norm": mean_norm, "mean-square-norm": mean_square_norm, "reap": reap,
          "gated-norm-sum": gated_norm_sum, "aimer": aimer}


def flat_weights(matrices):
    """gate, up and down of an expert, one after the other."""
    return np.concatenate([matrix.ravel() for matrix in matrices])


def keep_highest(scores, keep, protected):
    """The protected experts, then the highest scores until there are `keep`; more where more are protected."""
    others = [expert for expert in np.argsort(-np.array(scores), kind="stable").tolist() if expert not in protected]
    return sorted([*protected, *others[:max(0, keep - len(protected))]])


# --- super experts ---

def largest_output(layer):
    """Largest |entry of f| of each expert; 0 for those never routed."""
    return per_expert(layer, lambda g, f: np.max(np.abs(f)))


def super_experts(layers):
    """REAP's code (arXiv:2510.13999): ({layer: experts that nothing removes}, threshold).

    Strictly above both the 99.5th percentile over all experts of all MoE layers and a tenth of the largest.
    """
    largest = {number: largest_output(layer) for number, layer in layers.items()}
    values = np.concatenate(list(largest.values()))
    threshold = max(np.percentile(values, SUPER_PERCENTILE), SUPER_SHARE_OF_LARGEST * values.max())
    return {number: [expert for expert, value in enumerate(row) if value > threshold]
            for number, row in largest.items()}, float(threshold)


# --- STUN ---

def members_kept(cluster, protected):
    """How many experts of a cluster stay: its protected ones, else one."""
    return max(1, len(protected & set(cluster)))


def router_clusters(router, keep, protected):
    """STUN (arXiv:2409.06211), stage 1: complete linkage on the distance of router rows.

    Merges the closest two clusters, ties to the smallest pair of lowest members, until no more than `keep` experts
    would stay, or one cluster is left.
    """
    distance = np.linalg.norm(router[:, None, :] - router[None, :, :], axis=2)
    clusters = [[expert] for expert in range(len(router))]  # in the order of their lowest members
    while len(clusters) > 1 and sum(members_kept(cluster, protected) for cluster in clusters) > keep:
        pairs = itertools.combinations(range(len(clusters)), 2)
        low, high = min(pairs, key=lambda pair: distance[np.ix_(clusters[pair[0]], clusters[pair[1]])].max())
        clusters[low] = sorted(clusters[low] + clusters.pop(high))
    return clusters


def representative(cluster, flat):
    """The member whose weights are nearest to the mean of all members'; ties to the lower index.

    Two members are equally far from their mean, whatever the last bits say: hence the tolerance.
    """
    mean = np.mean([flat[expert] for expert in cluster], axis=0)
    distances = [np.linalg.norm(flat[expert] - mean) for expert in cluster]
    limit = min(distances) * (1 + NEAREST_TIE)
    return next(expert for expert, distance in zip(cluster, distances) if distance <= limit)


def stun(layer, keep, protected):
    """STUN (arXiv:2409.06211), stage 1: one expert of each cluster, or its protected ones and only them."""
    flat, protected = [flat_weights(matrices) for matrices in layer.matrices], set(protected)
    kept = []
    for cluster in router_clusters(layer.router, keep, protected):
        kept += sorted(protected & set(cluster)) or [representative(cluster, flat)]
    return sorted(kept)


# --- the set of least squared error ---

def output_gram(layer):
    """G_ij = sum over tokens of g_i g_j <f_i, f_j>; p^T G p is the squared error of zeroing the experts of p."""
    gram = np.zeros((layer.experts, layer.experts))
    for chosen, weights, outputs in zip(layer.chosen, layer.weights, layer.outputs):
        gated = weights[:, None] * outputs
        gram[np.ix_(chosen, chosen)] += gated @ gated.T
    return (gram + gram.T) / 2


def squared_error(gram, removed):
    """p^T G p with p the indicator of `removed`, summed exactly, so that zeros and order make no difference."""
    removed = sorted(removed)
    return math.fsum(gram[np.ix_(removed, removed)].ravel())


def greedy_removal(gram, count, protected):
    """Adds the expert that raises p^T G p least until `count` are removed."""
    removed = []
    while len(removed) < count:
        free = [expert for expert in range(len(gram)) if expert not in removed and expert not in protected]
        removed.append(min(free, key=lambda expert: squared_error(gram, [*removed, expert])))
    return sorted(removed)


def swapped(gram, removed, protected):
    """The best exchange of a removed with a kept expert, ties to the lowest removed, then kept; or None."""
    kept = [expert for expert in range(len(gram)) if expert not in removed and expert not in protected]
    options = [sorted({*removed, new} - {old}) for old in sorted(removed) for new in kept]
    if not options:
        return None
    best = min(options, key=lambda option: squared_error(gram, option))
    now = squared_error(gram, removed)
    return best if now - squared_error(gram, best) > SWAP_GAIN * now else None


def least_error_set(gram, keep, protected):
    """Experts to remove: greedy, then exchanges while they lower p^T G p."""
    count = min(len(gram) - keep, len(gram) - len(protected))
    removed = greedy_removal(gram, count, protected)
    while (better := swapped(gram, removed, protected)) is not None:
        removed = better
    return removed


def gram_selection(layer, keep, protected):
    """Removes the set whose zeroing has a small exact squared error p^T G p (docs/formats/statistics.md)."""
    removed = least_error_set(output_gram(layer), keep, protected)
    return [expert for expert in range(layer.experts) if expert not in removed]


def best_over_found(gram, keep, protected=()):
    """Least p^T G p of all sets of the same size, over that of the set found; at most 1. Small N only."""
    found = least_error_set(gram, keep, protected)
    free = [expert for expert in range(len(gram)) if expert not in protected]
    best = min(squared_error(gram, p) for p in itertools.combinations(free, len(found)))
    error = squared_error(gram, found)
    assert error >= best * (1 - 1e-12), (error, best)
    return best / error if error > 0 else 1.0


# --- all of them ---

SETS = {"stun": stun, "gram": gram_selection}


def select(layers, keep, protected):
    """{name: {"layers": {number: {"scores", "kept"}}}}; protected: experts by layer."""
    methods = {}
    for name, score in SCORES.items():
        scores = {number: score(layer) for number, layer in layers.items()}
        methods[name] = {"layers": {str(number): {"scores": row, "kept": keep_highest(row, keep, protected[number])}
                                    for number, row in scores.items()}}
    for name, choose in SETS.items():
        methods[name] = {"layers": {str(number): {"scores": None, "kept": choose(layer, keep, protected[number])}
                                    for number, layer in layers.items()}}
    return methods


def selection(layers, keep, protection):
    """What is printed: the choice of every method, and what protects."""
    protected, threshold = super_experts(layers)
    if not protection:
        protected, threshold = {number: [] for number in layers}, None
    return {"keep": keep, "protection": protection, "super_threshold": threshold,
            "super_experts": {str(number): experts for number, experts in protected.items()},
            "methods": select(layers, keep, protected)}


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model", type=pathlib.Path)
    parser.add_argument("text", type=pathlib.Path, nargs="+")
    parser.add_argument("--keep", type=int, required=True, help="experts that each layer keeps")
    parser.add_argument("--context", type=int, default=512, help="positions of a window, start token included")
    parser.add_argument("--no-protection", action="store_true", help="super experts may be removed")
    arguments = parser.parse_args()
    layers, _ = observe(arguments.model, arguments.text, arguments.context)
    if not layers or not 0 < arguments.keep <= min(layer.experts for layer in layers.values()):
        parser.error("--keep is from 1 to the number of experts")
    print(json.dumps(selection(layers, arguments.keep, not arguments.no_protection)))


if __name__ == "__main__":
    main()
