# SPDX-FileCopyrightText: The Winnow authors
# SPDX-License-Identifier: Apache-2.0
"""Library code never ends the process, prints, or reads the environment: reads `nm` of the archives.

    check_symbols.py FOLDER_WITH_ARCHIVES
"""

import fnmatch
import pathlib
import re
import subprocess
import sys

from sources import finish

_FORBIDDEN = re.compile(
    r"^(abort|exit|_exit|_Exit|quick_exit|raise|kill|__assert_fail"
    r"|v?f?printf|__v?f?printf_chk|d?printf|puts|putchar|fputs|fputc|perror|stdout|stderr"
    r"|fmt::.*::(v?print)\b.*"
    r"|std::(__cxx11::)?(cout|cerr|clog)|std::ios_base::Init::Init\(\)"
    r"|getenv|secure_getenv|environ|setenv|putenv)$")

# (module, symbol, reason)
_ALLOWED = (
    # base/error.h and fmt format errors throw.
    ("os", "raise", "a SIGBUS that is not the fault guard's goes on to the former action"),
)
_CLI = "libwinnow_cli.a"  # the only module that prints, exits and reads the environment


def forbidden_symbols(nm_output):
    """[(object, symbol)] of undefined symbols that library code may not need."""
    found = []
    for line in nm_output.splitlines():
        match = re.match(r"(\S+):\s+[Uuw] (.+?)(@.*)?$", line)
        if match and _FORBIDDEN.match(match.group(2)):
            found.append((match.group(1), match.group(2)))
    return found


def problems(archives):
    found = []
    for archive in archives:
        listing = subprocess.run(["nm", "-A", "-C", "--undefined-only", archive],
                                 capture_output=True, text=True, check=True).stdout
        module = archive.stem.removeprefix("libwinnow_")
        for place, symbol in forbidden_symbols(listing):
            if not any(fnmatch.fnmatch(module, where) and symbol == name
                       for where, name, _ in _ALLOWED):
                found.append(f"{pathlib.Path(place).name}: uses {symbol}; throw an Error, or tell the "
                             "Log; only src/cli prints, exits or reads the environment")
    return found


def main(folder):
    archives = [path for path in sorted(pathlib.Path(folder).glob("libwinnow_*.a"))
                if path.name != _CLI]
    if not archives:
        sys.exit(f"{folder}: no libwinnow_*.a; build first")
    finish(problems(archives), f"{len(archives)} archives are clean")


if __name__ == "__main__":
    main(sys.argv[1])
