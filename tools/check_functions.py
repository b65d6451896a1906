# SPDX-FileCopyrightText: The Winnow authors
# SPDX-License-Identifier: Apache-2.0
"""Functions stay short: prints the median length and the share over 60 lines; fails beyond 3 %.

A brace matcher, not a parser: it finds bodies at namespace and class scope, which is where this code
base has them. A function counts from the first line of its signature to its closing brace.
"""

import re
import statistics

from sources import ROOT, cpp_files, finish, read, without_comments_and_strings

LONG = 60
LARGEST_SHARE = 0.03

_SCOPE = re.compile(r"(?:^|\s)(?:namespace|class|struct|union)\b|extern\s*$")
_MACRO_LINE = re.compile(r"^[ \t]*#(?:[^\n]*\\\n)*[^\n]*", re.MULTILINE)


def _matching(text, opening):
    depth = 0
    for offset in range(opening, len(text)):
        if text[offset] == "{":
            depth += 1
        elif text[offset] == "}":
            depth -= 1
            if depth == 0:
                return offset
    return len(text) - 1


def _is_scope(statement):
    return bool(_SCOPE.search(statement)) and not re.search(r"\)\s*(const|noexcept|override|final|->.*)?\s*$",
                                                            statement)


def _is_function(statement):
    before_parenthesis = statement.split("(", 1)[0]
    if "(" not in statement or statement.lstrip().startswith("enum"):
        return False
    return "=" not in re.sub(r"operator\s*[=!<>+\-*/]+", "", before_parenthesis)


def _is_member_initializer(statement):
    # `Type::Type() : a_{1}, b_{2} {`: a brace directly after a name inside the initializer list.
    return bool(re.search(r"\)\s*(noexcept)?\s*:[^:]", statement) and re.search(r"\w\s*$", statement)
                and not re.search(r"\)\s*(const|noexcept|override)\s*$", statement))


def functions(source):
    """[(name, first line, lines)] of the functions with bodies."""
    text = _MACRO_LINE.sub(lambda match: re.sub(r"[^\n]", " ", match.group()),
                           without_comments_and_strings(source))
    found, start, offset = [], 0, 0
    while offset < len(text):
        character = text[offset]
        if character in ";}":
            start = offset + 1
        elif character == "{":
            statement = text[start:offset]
            if _is_scope(statement):
                start = offset + 1
            elif _is_member_initializer(statement):
                offset = _matching(text, offset)
            else:
                end = _matching(text, offset)
                if _is_function(statement):
                    first = text.count("\n", 0, start + len(statement) - len(statement.lstrip())) + 1
                    name = re.search(r"([\w:~]+|operator\W+)\s*\(", statement)
                    found.append((name.group(1) if name else "?", first,
                                  text.count("\n", 0, end) + 2 - first))
                offset, start = end, end + 1
        offset += 1
    return found


def measure(root):
    return [(str(path), *function) for path in cpp_files(root)
            if not path.stem.endswith("_test") for function in functions(read(root, path))]


def problems(measured):
    long = [entry for entry in measured if entry[3] > LONG]
    if not measured or len(long) <= LARGEST_SHARE * len(measured):
        return []
    return [f"{path}:{line}: {name} has {lines} lines" for path, name, line, lines in long] + [
        f"{len(long)} of {len(measured)} functions have more than {LONG} lines, "
        f"at most {LARGEST_SHARE:.0%} may"]


def summary(measured):
    lengths = [entry[3] for entry in measured]
    over = sum(length > LONG for length in lengths)
    return (f"{len(lengths)} functions, median {statistics.median(lengths):.0f} lines, "
            f"{over} over {LONG} ({over / len(lengths):.1%}), longest {max(lengths)}")


if __name__ == "__main__":
    everything = measure(ROOT)
    print(summary(everything))
    finish(problems(everything), "short enough")
