# SPDX-FileCopyrightText: The Winnow authors
# SPDX-License-Identifier: Apache-2.0
"""What the checks share: the project's files, and C++ text without comments and strings."""

import pathlib
import re
import subprocess
import sys

ROOT = pathlib.Path(__file__).resolve().parent.parent


def tracked_files(root):
    """Files of a checkout, new ones included; in an unpacked archive, all but build/ and .git/."""
    listing = subprocess.run(
        ["git", "-c", "safe.directory=*", "-C", root, "ls-files", "-z", "--cached", "--others",
         "--exclude-standard"],
        capture_output=True, check=False)
    if listing.returncode == 0 and (root / ".git").exists():
        names = [pathlib.PurePosixPath(name) for name in listing.stdout.decode().split("\0") if name]
    else:
        names = [pathlib.PurePosixPath(path.relative_to(root).as_posix())
                 for path in root.rglob("*") if path.is_file()]
        names = [name for name in names if name.parts[0] not in ("build", ".git")]
    return sorted(name for name in set(names) if (root / name).is_file())


def cpp_files(root, folder="src"):
    """The .cc, .h and .inl files below `folder`, as paths relative to the root."""
    return [path for path in tracked_files(root)
            if path.parts[0] == folder and path.suffix in (".cc", ".h", ".inl")]


def read(root, path):
    return (root / path).read_text(encoding="utf-8", errors="replace")


_TOKEN = re.compile(
    r'R"(?P<tag>[^(\s]*)\(.*?\)(?P=tag)"'     # raw string
    r'|"(?:\\.|[^"\\\n])*"'                   # string
    r"|(?<![0-9A-Za-z_])'(?:\\.|[^'\\\n])+'"  # character, not a digit separator
    r"|//[^\n]*|/\*.*?\*/", re.DOTALL)


def without_comments_and_strings(text):
    """Blanks them out and keeps every line end, so that line numbers stay true."""
    return _TOKEN.sub(lambda match: re.sub(r"[^\n]", " ", match.group()), text)


def without_comments(text):
    """Blanks out comments only."""
    def blank(match):
        found = match.group()
        return re.sub(r"[^\n]", " ", found) if found.startswith("/") else found
    return _TOKEN.sub(blank, text)


def line_of(text, offset):
    return text.count("\n", 0, offset) + 1


def finish(problems, summary):
    """Prints the outcome and ends the check."""
    for problem in problems:
        print(problem)
    print(f"{len(problems)} problems" if problems else summary)
    sys.exit(1 if problems else 0)
