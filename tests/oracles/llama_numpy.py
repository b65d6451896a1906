# SPDX-FileCopyrightText: The Winnow authors
# SPDX-License-Identifier: Apache-2.0
"""The llama forward pass in NumPy float64 (arXiv:2302.13971): that of qwen3, without norms on queries and keys."""

from qwen3_moe_numpy import Qwen3Moe


class Llama(Qwen3Moe):
    def _normalized_heads(self, x, prefix, shape):
        return self._linear(x, prefix + "proj").reshape(shape)


ORACLE = Llama
