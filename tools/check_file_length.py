# SPDX-FileCopyrightText: The Winnow authors
# SPDX-License-Identifier: Apache-2.0
"""Files stay below 500 lines; each exception is listed with its reason."""

from sources import ROOT, finish, read, tracked_files

LIMIT = 500
_SOURCES = (".cc", ".h", ".inl", ".py", ".sh", ".cmake", ".def")
# path: reason
_EXCEPTIONS = {}


def problems(root, exceptions=None):
    exceptions = _EXCEPTIONS if exceptions is None else exceptions
    found = []
    for path in tracked_files(root):
        if path.suffix not in _SOURCES:
            continue
        lines = read(root, path).count("\n")
        if lines > LIMIT and str(path) not in exceptions:
            found.append(f"{path}: {lines} lines; split it by idea, the limit is {LIMIT}")
        if lines <= LIMIT and str(path) in exceptions:
            found.append(f"{path}: is short again; remove its exception")
    return found


if __name__ == "__main__":
    finish(problems(ROOT), f"no file over {LIMIT} lines")
