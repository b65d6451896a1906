# SPDX-FileCopyrightText: The Winnow authors
# SPDX-License-Identifier: Apache-2.0
"""The qwen3 forward pass in NumPy float64 (arXiv:2505.09388): that of qwen3_moe, every layer dense."""

from qwen3_moe_numpy import Qwen3Moe

ORACLE = Qwen3Moe
