# SPDX-FileCopyrightText: The Winnow authors
# SPDX-License-Identifier: Apache-2.0
"""The olmoe forward pass in NumPy float64 (arXiv:2409.02060): that of qwen3_moe, but for the norm of queries and
keys, which goes over the whole projection before it is cut into heads."""

from qwen3_moe_numpy import Qwen3Moe, rms_norm


class Olmoe(Qwen3Moe):
    def _normalized_heads(self, x, prefix, shape):
        projection = self._linear(x, prefix + "proj")
        return rms_norm(projection, self._weight(prefix + "norm.weight"), self.config["rms_norm_eps"]).reshape(shape)


ORACLE = Olmoe
