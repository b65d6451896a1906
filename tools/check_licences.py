# SPDX-FileCopyrightText: The Winnow authors
# SPDX-License-Identifier: Apache-2.0
"""Every file says under which licence it stands (REUSE style): two SPDX lines, or .reuse/dep5.

`reuse lint` in CI checks the same from outside; this one also wants the lines at the top of our own
sources, and runs without it.
"""

import fnmatch
import re

from sources import ROOT, finish, read, tracked_files

_SOURCES = (".cc", ".h", ".inl", ".py", ".sh", ".cmake")
# In pieces, because the reuse tool would take these lines for marks of this file.
_COPYRIGHT = "SPDX-" "FileCopyrightText: The Winnow authors"
_LICENCE = "SPDX-" "License-Identifier: Apache-2.0"


def stanzas(dep5):
    """[(patterns, licence expression)] of a dep5 file."""
    found = []
    for block in re.split(r"\n\s*\n", dep5):
        files = re.search(r"^Files:(.*(?:\n[ \t]+.*)*)", block, re.MULTILINE)
        licence = re.search(r"^License:\s*(.+)", block, re.MULTILINE)
        if files and licence:
            found.append((files.group(1).split(), licence.group(1).strip()))
    return found


def identifiers(expression):
    return set(re.findall(r"[\w.\-+]+", expression)) - {"AND", "OR", "WITH"}


def has_header(root, path):
    with open(root / path, encoding="utf-8", errors="replace") as file:
        top = file.read(300).splitlines()[:3]
    return any(_COPYRIGHT in line for line in top) and any(_LICENCE in line for line in top)


def problems(root):
    found = []
    files = tracked_files(root)
    dep5 = stanzas(read(root, ".reuse/dep5"))
    used = {"Apache-2.0"}
    for path in files:
        name = str(path)
        if name.startswith(("LICENSES/", ".reuse/")) or name == "LICENSE":
            continue
        if has_header(root, path):
            continue
        if path.suffix in _SOURCES:
            found.append(f"{name}: does not begin with the two SPDX lines")
            continue
        # The last matching stanza counts, as in Debian's format.
        matching = [licence for patterns, licence in dep5
                    if any(fnmatch.fnmatchcase(name, pattern) for pattern in patterns)]
        if matching:
            used |= identifiers(matching[-1])
        else:
            found.append(f"{name}: no SPDX lines and no pattern in .reuse/dep5")
    texts = {path.name.removesuffix(".txt") for path in files if path.parts[0] == "LICENSES"}
    found += [f"LICENSES/{name}.txt: missing, but used" for name in sorted(used - texts)]
    found += [f"LICENSES/{name}.txt: no file stands under it" for name in sorted(texts - used)]
    for path in (path for path in files if path.parts[0] == "LICENSES"):
        for pointer in re.findall(r"models/\S+\.txt", read(root, path)):
            if not (root / pointer).is_file():
                found.append(f"{path}: points to {pointer}, which does not exist")
    return found


if __name__ == "__main__":
    finish(problems(ROOT), "every file has a licence")
