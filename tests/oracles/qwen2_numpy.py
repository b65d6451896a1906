# SPDX-FileCopyrightText: The Winnow authors
# SPDX-License-Identifier: Apache-2.0
"""The qwen2 forward pass in NumPy float64 (arXiv:2407.10671): that of llama, with biases on queries, keys and values."""

from llama_numpy import Llama

ORACLE = Llama
