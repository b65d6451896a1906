# SPDX-FileCopyrightText: The Winnow authors
# SPDX-License-Identifier: Apache-2.0
"""Headers that take seconds to compile are included in few files: the list is here.

A file that needs one more is added with thought: most code can use the small header of ours instead.
"""

import fnmatch
import re

from sources import ROOT, cpp_files, finish, line_of, read, without_comments

# header pattern: files that may include it
_HEAVY = {
    "nlohmann/json.hpp": ["src/base/json.h"],
    "CLI/*": ["src/cli/options.cc", "src/cli/parser.cc", "src/cli/reference.cc",
              "src/cli/options_test.cc"],
    "spdlog/*": [],
    "toml++/*": ["src/compress/recipe.cc"],
    "Eigen/*": ["src/compress/linear_algebra.cc"],
    "pcre2.h": ["src/text/regex_splitter.cc"],
    "utf8proc.h": ["src/text/*.cc"],
    "xxhash.h": ["src/base/*.cc", "src/formats/*.cc"],
    "immintrin.h": ["src/kernels/*"],
    "arm_neon.h": ["src/kernels/*"],
    "regex": [],
    "iostream": [],
}
_INCLUDE = re.compile(r'^\s*#\s*include\s*[<"]([^>"]+)[>"]', re.MULTILINE)


def problems(root):
    found = []
    for path in cpp_files(root):
        text = without_comments(read(root, path))
        for include in _INCLUDE.finditer(text):
            for header, places in _HEAVY.items():
                if fnmatch.fnmatch(include.group(1), header) and not any(
                        fnmatch.fnmatch(str(path), place) for place in places):
                    found.append(f"{path}:{line_of(text, include.start(1))}: <{include.group(1)}> is "
                                 f"heavy and allowed only in {places or 'no file'} "
                                 "(tools/check_heavy_headers.py)")
    return found


if __name__ == "__main__":
    finish(problems(ROOT), f"{len(_HEAVY)} heavy headers stay in their files")
