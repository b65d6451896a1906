# SPDX-FileCopyrightText: The Winnow authors
# SPDX-License-Identifier: Apache-2.0
"""Definitions of the quality figures that `winnow eval` reports, in NumPy float64, one formula each.

Everywhere: reference and model are logits [T, V] of the same T positions (any float type), or what a
docstring says; results are in nats, or shares in [0, 1]. Nothing here knows a model or a file.
"""

import numpy as np


def log_softmax(logits):
    """ln p over the last axis, in float64."""
    x = np.asarray(logits, np.float64)
    x = x - x.max(axis=-1, keepdims=True)
    return x - np.log(np.exp(x).sum(axis=-1, keepdims=True))


def negative_log_likelihood(logits, targets):
    """-ln p(target) of each position, [T]. Row t of the logits predicts targets[t]."""
    return -log_softmax(logits)[np.arange(len(targets)), np.asarray(targets)]


def kl_divergence(reference, model):
    """KL(reference || model) = sum_v p ln(p / q) of each position, [T]; never negative but for rounding."""
    p, q = log_softmax(reference), log_softmax(model)
    return np.sum(np.exp(p) * (p - q), axis=-1)


def percentile(values, percent):
    """Nearest rank: the smallest value with at least `percent` % of all values at or below it."""
    ordered = np.sort(np.asarray(values, np.float64))
    rank = int(np.ceil(percent / 100.0 * len(ordered)))
    return float(ordered[max(rank, 1) - 1])


def top1_agreement(reference, model):
    """Share of positions with the same most likely token; ties go to the lower id in both."""
    return float(np.mean(np.argmax(reference, axis=-1) == np.argmax(model, axis=-1)))


def total_variation(reference, model):
    """Half the sum of |p - q| of each position, [T]."""
    return 0.5 * np.abs(np.exp(log_softmax(reference)) - np.exp(log_softmax(model))).sum(axis=-1)


def esap(reference, model):
    """Expected speculative acceptance: mean of sum_v min(p, q) = mean of 1 - total variation."""
    return float(np.mean(1.0 - total_variation(reference, model)))


def routing_agreement(reference, model, expert_map=None):
    """Mean over layers and tokens of |sets in common| / k.

    reference, model: integer arrays [L, T, k] of chosen experts, in any order.
    expert_map: [L, E], where each reference expert is found in the model; -1 if it was removed. Reference
    experts that share a place count once, so a merged layer can stay below 1.
    """
    reference, model = np.asarray(reference), np.asarray(model)
    layers, tokens, k = reference.shape
    common = 0
    for layer in range(layers):
        for token in range(tokens):
            wanted = reference[layer, token]
            if expert_map is not None:
                wanted = np.asarray(expert_map)[layer][wanted]
            common += len((set(wanted.tolist()) - {-1}) & set(model[layer, token].tolist()))
    return common / (layers * tokens * k)


def standard_error(values):
    """Of the mean of independent values; 0 for fewer than two."""
    values = np.asarray(values, np.float64)
    return float(values.std(ddof=1) / np.sqrt(values.size)) if values.size > 1 else 0.0


def compare(reference, model):
    """The figures of `winnow eval --reference` for one set of positions."""
    divergence = kl_divergence(reference, model)
    return {"kl_divergence": float(divergence.mean()), "kl_p99": percentile(divergence, 99),
            "kl_standard_error": standard_error(divergence),
            "top1_agreement": top1_agreement(reference, model), "esap": esap(reference, model)}
