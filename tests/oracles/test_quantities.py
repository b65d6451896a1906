# SPDX-FileCopyrightText: The Winnow authors
# SPDX-License-Identifier: Apache-2.0
"""The definitions in quantities.py against values worked out by hand and against known inequalities."""

import math
import pathlib
import sys
import unittest

import numpy as np

sys.path.insert(0, str(pathlib.Path(__file__).parent))
import quantities as q  # noqa: E402


def logits(*rows):
    return np.log(np.array(rows))


class Divergence(unittest.TestCase):
    def test_two_points_by_hand(self):
        reference, model = logits([0.5, 0.5]), logits([0.9, 0.1])
        by_hand = 0.5 * math.log(0.5 / 0.9) + 0.5 * math.log(0.5 / 0.1)
        self.assertAlmostEqual(q.kl_divergence(reference, model)[0], by_hand, places=14)

    def test_direction_matters(self):
        a, b = logits([0.5, 0.5]), logits([0.9, 0.1])
        self.assertGreater(abs(q.kl_divergence(a, b)[0] - q.kl_divergence(b, a)[0]), 0.1)

    def test_a_constant_added_to_all_logits_changes_nothing(self):
        rng = np.random.default_rng(1)
        a, b = rng.normal(size=(5, 40)), rng.normal(size=(5, 40))
        np.testing.assert_allclose(q.kl_divergence(a, b), q.kl_divergence(a + 700.0, b - 300.0), atol=1e-11)

    def test_pinsker_bounds_total_variation(self):
        rng = np.random.default_rng(2)
        a, b = rng.normal(size=(200, 30)), rng.normal(size=(200, 30))
        self.assertTrue((q.total_variation(a, b) <= np.sqrt(q.kl_divergence(a, b) / 2)).all())

    def test_equal_distributions_are_at_zero(self):
        a = np.random.default_rng(3).normal(size=(7, 11))
        figures = q.compare(a, a)
        self.assertEqual(figures["kl_divergence"], 0.0)
        self.assertEqual(figures["top1_agreement"], 1.0)
        self.assertAlmostEqual(figures["esap"], 1.0, places=14)


class Shares(unittest.TestCase):
    def test_esap_by_hand(self):
        reference = logits([0.5, 0.3, 0.2], [1 / 3, 1 / 3, 1 / 3])
        model = logits([0.1, 0.6, 0.3], [1 / 3, 1 / 3, 1 / 3])
        self.assertAlmostEqual(q.esap(reference, model), (0.6 + 1.0) / 2, places=14)

    def test_top1_ties_go_to_the_lower_id(self):
        self.assertEqual(q.top1_agreement(np.array([[1.0, 1.0, 0.0]]), np.array([[2.0, 1.0, 0.0]])), 1.0)
        self.assertEqual(q.top1_agreement(np.array([[1.0, 1.0, 0.0]]), np.array([[1.0, 2.0, 0.0]])), 0.0)

    def test_negative_log_likelihood_picks_the_target(self):
        got = q.negative_log_likelihood(logits([0.25, 0.75], [0.1, 0.9]), [0, 1])
        np.testing.assert_allclose(got, [-math.log(0.25), -math.log(0.9)], rtol=1e-14)


class Percentile(unittest.TestCase):
    def test_nearest_rank(self):
        self.assertEqual(q.percentile(np.arange(1, 101), 99), 99)
        self.assertEqual(q.percentile(np.arange(1, 1001), 99), 990)
        self.assertEqual(q.percentile([5.0, 1.0], 99), 5.0)
        self.assertEqual(q.percentile([4.0], 99), 4.0)


class Routing(unittest.TestCase):
    def test_order_of_choice_does_not_count(self):
        self.assertEqual(q.routing_agreement([[[0, 1]]], [[[1, 0]]]), 1.0)

    def test_half_in_common(self):
        self.assertEqual(q.routing_agreement([[[0, 1], [2, 3]]], [[[0, 4], [3, 5]]]), 0.5)

    def test_removed_and_merged_experts_are_mapped(self):
        moved = [[0, 0, -1, 1]]  # 0 and 1 merged into 0, 2 removed, 3 is now 1
        self.assertEqual(q.routing_agreement([[[0, 3]]], [[[0, 1]]], moved), 1.0)
        self.assertEqual(q.routing_agreement([[[0, 1]]], [[[0, 1]]], moved), 0.5)
        self.assertEqual(q.routing_agreement([[[2, 3]]], [[[0, 1]]], moved), 0.5)


if __name__ == "__main__":
    unittest.main()
