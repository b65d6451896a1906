# SPDX-FileCopyrightText: The Winnow authors
# SPDX-License-Identifier: Apache-2.0
"""Nothing in the repository names a developer's own machine, and every open end has an issue."""

import re

from sources import ROOT, finish, read, tracked_files

_RULES = (
    # Written in two pieces, so that this file passes its own check.
    (re.compile(r"(?<![\w.])/(?:wor" r"k|hom" r"e|User" r"s)/\w"), "a path of one machine"),
    (re.compile(r"\bTO" r"DO\b(?!\(#\d+\))"), "an open end without an issue; write TO" "DO(#12)"),
    (re.compile(r"\b(?:FIX" r"ME|XX" r"X|HA" r"CK)\b"), "an open end; mend it or open an issue"),
    (re.compile(r"^(?:<{7}|>{7}) ", re.MULTILINE), "a merge conflict"),
)
_TEXT = {".cc", ".h", ".inl", ".def", ".py", ".sh", ".md", ".txt", ".cmake", ".json", ".toml", ".yml", ""}
# Texts of others: model data, licences.
_OTHERS = ("models/", "LICENSE", "testdata/", "fuzz/corpus/")


def problems(root):
    found = []
    for path in tracked_files(root):
        if path.suffix not in _TEXT or str(path).startswith(_OTHERS):
            continue
        for number, line in enumerate(read(root, path).splitlines(), 1):
            for rule, reason in _RULES:
                match = rule.search(line)
                if match:
                    found.append(f"{path}:{number}: '{match.group()}' is {reason}")
    return found


if __name__ == "__main__":
    finish(problems(ROOT), "no foreign names")
