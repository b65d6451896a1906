# SPDX-FileCopyrightText: The Winnow authors
# SPDX-License-Identifier: Apache-2.0
"""Finds the forward pass of a model by its architecture: ORACLE in <model_type>_numpy.py beside this file."""

import importlib
import json
import pathlib
import sys

sys.path.insert(0, str(pathlib.Path(__file__).parent))


def open_oracle(folder):
    """The float64 forward pass of a Hugging Face folder, opened on it."""
    config = json.loads((pathlib.Path(folder) / "config.json").read_text(encoding="utf-8"))
    return importlib.import_module(config["model_type"] + "_numpy").ORACLE(folder)
