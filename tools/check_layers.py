# SPDX-FileCopyrightText: The Winnow authors
# SPDX-License-Identifier: Apache-2.0
"""Dependencies point down: compares every #include with the layer table in src/CMakeLists.txt.

A module may include itself, what its row names, and what those may use; never another's detail/.
"""

import re

from sources import ROOT, cpp_files, finish, line_of, read, without_comments

_ROW = re.compile(r"^winnow_module\(\s*(\w+)([^)]*)\)", re.MULTILINE)
_SECTIONS = ("DEPS", "LIBRARIES", "EXCLUDE", "SOURCES", "APART")
_INCLUDE = re.compile(r'^\s*#\s*include\s*"([^"]+)"', re.MULTILINE)


def table(cmake):
    """{module: everything it may include}, from the rows in order. Raises on an upward row."""
    allowed = {}
    for row in _ROW.finditer(re.sub(r"#.*", "", cmake)):
        name, words = row.group(1), row.group(2).split()
        deps, section = [], None
        for word in words:
            if word in _SECTIONS:
                section = word
            elif section == "DEPS":
                deps.append(word)
        for dep in deps:
            if dep not in allowed:
                raise ValueError(f"module '{name}' depends on '{dep}', which is not declared above it")
        allowed[name] = {name}.union(*(allowed[dep] for dep in deps))
    return allowed


def problems(root):
    try:
        allowed = table(read(root, "src/CMakeLists.txt"))
    except ValueError as error:
        return [f"src/CMakeLists.txt: {error}"]
    found = []
    for path in cpp_files(root):
        module = path.parts[1]
        if module not in allowed:
            found.append(f"{path}: module '{module}' has no row in src/CMakeLists.txt")
            continue
        text = without_comments(read(root, path))
        for include in _INCLUDE.finditer(text):
            parts = include.group(1).split("/")
            where = f"{path}:{line_of(text, include.start(1))}: includes {include.group(1)}"
            if parts[0] not in allowed:
                if (root / "src" / include.group(1)).exists() or len(parts) == 1:
                    generated = include.group(1) == "winnow_build_info.h" and module == "cli"
                    if not generated:
                        found.append(f"{where}; write the path from src/, module first")
            elif parts[0] not in allowed[module]:
                found.append(f"{where}, but '{module}' may use only {sorted(allowed[module])}")
            elif "detail" in parts[1:-1] and parts[0] != module:
                found.append(f"{where}, which is private to '{parts[0]}'")
    return found


if __name__ == "__main__":
    finish(problems(ROOT), f"layers hold in {len(cpp_files(ROOT))} files")
