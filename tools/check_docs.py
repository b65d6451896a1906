# SPDX-FileCopyrightText: The Winnow authors
# SPDX-License-Identifier: Apache-2.0
"""Runs the commands that README and docs show, so that they stay true.

    check_docs.py BINARY [FILE.md ...]

Blocks that begin with ```sh run are run by bash, one after the other, in one temporary folder for each
document: `winnow` is on the PATH, `models/` is the repository's folder. Other blocks are left alone.
"""

import dataclasses
import os
import pathlib
import re
import subprocess
import sys
import tempfile

from sources import ROOT, tracked_files

_BLOCK = re.compile(r"^```sh run\n(.*?)^```", re.MULTILINE | re.DOTALL)
_SECONDS = 900


@dataclasses.dataclass(frozen=True)
class Block:
    line: int
    text: str


@dataclasses.dataclass(frozen=True)
class Outcome:
    problem: str  # empty when it ran


def blocks(markdown):
    return [Block(markdown.count("\n", 0, match.start()) + 1, match.group(1))
            for match in _BLOCK.finditer(markdown)]


def run_block(name, block, environment, folder):
    done = subprocess.run(["bash", "-euo", "pipefail", "-c", block.text], cwd=folder,
                          env={"PATH": os.defpath, **environment}, capture_output=True, text=True,
                          timeout=_SECONDS, check=False)
    if done.returncode == 0:
        return Outcome("")
    return Outcome(f"{name}:{block.line}: exit code {done.returncode}\n{block.text}{done.stderr}")


def run_document(path, binary):
    outcomes = []
    with tempfile.TemporaryDirectory() as folder:
        (pathlib.Path(folder) / "models").symlink_to(ROOT / "models")
        environment = {"PATH": f"{binary.parent}:{os.environ.get('PATH', os.defpath)}", "HOME": folder,
                       "LC_ALL": "C.UTF-8"}
        for block in blocks((ROOT / path).read_text(encoding="utf-8")):
            outcomes.append(run_block(path, block, environment, folder))
    return outcomes


def main(arguments):
    binary = pathlib.Path(arguments[0]).resolve()
    documents = arguments[1:] or [path for path in tracked_files(ROOT)
                                  if path.suffix == ".md" and path.parts[0] not in ("models", "testdata")]
    outcomes = [outcome for path in documents for outcome in run_document(path, binary)]
    problems = [outcome.problem for outcome in outcomes if outcome.problem]
    print("\n".join(problems))
    print(f"{len(outcomes) - len(problems)} passed, {len(problems)} failed")
    sys.exit(1 if problems else 0)


if __name__ == "__main__":
    main(sys.argv[1:])
