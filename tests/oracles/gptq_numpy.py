# SPDX-FileCopyrightText: The Winnow authors
# SPDX-License-Identifier: Apache-2.0
"""Rounding with error feedback from its definition, in float64, and the golden file made with it.

Optimal brain compression: when weight j is fixed at q, the weights F that are still free minimise
dw H dw^T by moving by -(w_j - q) / [G]_jj * G_j, G the inverse of H on {j} and F. Here G is computed
anew for every column; a program would factor once. The scales are fixed.

    python tests/oracles/gptq_numpy.py > testdata/quantise/feedback.json
"""

import json
import sys

import numpy as np

LEVELS = np.arange(-8, 8)
BLOCK = 32


def round_row(weights, hessian, scales):
    """Levels of one row, columns in order. scales: one per block of 32."""
    work = weights.astype(np.float64).copy()
    levels = np.zeros(len(work), dtype=int)
    for j in range(len(work)):
        scale = scales[j // BLOCK]
        levels[j] = LEVELS[np.argmin(np.abs(work[j] - scale * LEVELS))]
        inverse = np.linalg.inv(hessian[j:, j:])
        work[j:] -= (work[j] - scale * levels[j]) / inverse[0, 0] * inverse[0]
    return levels


def gram(inputs, damping):
    hessian = inputs.T.astype(np.float64) @ inputs.astype(np.float64)
    return hessian + damping * np.mean(np.diag(hessian)) * np.eye(len(hessian))


def loss(weights, rounded, hessian):
    error = rounded - weights.astype(np.float64)
    return float(np.sum((error @ hessian) * error))


def problem(seed, rows, size, tokens):
    rng = np.random.default_rng(seed)
    weights = (0.02 * rng.normal(size=(rows, size))).astype(np.float32)
    inputs = rng.normal(size=(tokens, size))
    for j in range(1, size):
        inputs[:, j] += 0.8 * inputs[:, j - 1]
    inputs = inputs.round(3).astype(np.float32)
    largest = np.abs(weights.reshape(rows, -1, BLOCK)).max(axis=2)
    scales = (largest / 7).astype(np.float16)
    return weights, inputs, scales


def main():
    rows, size, tokens, damping = 4, 64, 80, 0.01
    weights, inputs, scales = problem(1, rows, size, tokens)
    hessian = gram(inputs, damping)
    levels = np.array([round_row(w, hessian, s.astype(np.float64)) for w, s in zip(weights, scales)])
    rounded = levels * np.repeat(scales.astype(np.float64), BLOCK, axis=1)
    golden = {
        "made_by": "python tests/oracles/gptq_numpy.py > testdata/quantise/feedback.json",
        "rows": rows, "size": size, "tokens": tokens, "damping": damping,
        "weights": [float(v) for v in weights.ravel()],
        "inputs": [round(float(v), 3) for v in inputs.ravel()],
        "scales": [float(v) for v in scales.ravel()],
        "levels": levels.ravel().tolist(),
        "loss": loss(weights, rounded, hessian),
    }
    json.dump(golden, sys.stdout, separators=(",", ":"))
    sys.stdout.write("\n")


if __name__ == "__main__":
    main()
