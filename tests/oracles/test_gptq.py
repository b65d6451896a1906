# SPDX-FileCopyrightText: The Winnow authors
# SPDX-License-Identifier: Apache-2.0
"""The rounding of gptq_numpy.py against what follows from its definition."""

import pathlib
import sys
import unittest

import numpy as np

sys.path.insert(0, str(pathlib.Path(__file__).parent))
import gptq_numpy as g  # noqa: E402


class Feedback(unittest.TestCase):
    def test_without_correlations_it_is_plain_rounding(self):
        weights, _, scales = g.problem(2, 1, 64, 10)
        scale = scales[0].astype(np.float64)
        plain = np.clip(np.round(weights[0] / np.repeat(scale, g.BLOCK)), -8, 7)
        np.testing.assert_array_equal(g.round_row(weights[0], np.eye(64), scale), plain)

    def test_it_loses_less_than_plain_rounding(self):
        weights, inputs, scales = g.problem(3, 8, 64, 300)
        hessian = g.gram(inputs, 0.01)
        wide = np.repeat(scales.astype(np.float64), g.BLOCK, axis=1)
        plain = np.clip(np.round(weights / wide), -8, 7) * wide
        fed = np.array([g.round_row(w, hessian, s.astype(np.float64)) for w, s in zip(weights, scales)])
        self.assertLess(g.loss(weights, fed * wide, hessian), 0.8 * g.loss(weights, plain, hessian))

    def test_the_last_weight_takes_its_best_level(self):
        weights, inputs, scales = g.problem(4, 1, 32, 100)
        hessian = g.gram(inputs, 0.01)
        levels = g.round_row(weights[0], hessian, scales[0].astype(np.float64))
        scale = float(scales[0][0])
        losses = []
        for level in g.LEVELS:
            tried = levels.copy()
            tried[-1] = level
            losses.append(g.loss(weights, (tried * scale)[None], hessian))
        self.assertEqual(g.LEVELS[int(np.argmin(losses))], levels[-1])


if __name__ == "__main__":
    unittest.main()
