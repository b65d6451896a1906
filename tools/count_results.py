# SPDX-FileCopyrightText: The Winnow authors
# SPDX-License-Identifier: Apache-2.0
"""Adds up what the test programs in a log say: the last line of .ci/run.

    count_results.py LOG EXIT_CODE

Understands ctest, unittest, scripts/fuzz and "N passed, N failed". A step that fails without a failed
test (a build, a tool) counts as one failure, so that a failing run never reports none.
"""

import re
import sys


def count(log):
    """(passed, failed)."""
    passed = failed = 0
    for line in log.splitlines():
        if match := re.search(r"tests passed, (\d+) tests? failed out of (\d+)", line):
            failed += int(match[1])
            passed += int(match[2]) - int(match[1])
        elif match := re.fullmatch(r"(\d+) passed, (\d+) failed", line):
            passed += int(match[1])
            failed += int(match[2])
        elif match := re.match(r"Ran (\d+) tests? in", line):
            passed += int(match[1])
        elif match := re.fullmatch(r"FAILED \((.*)\)", line):
            bad = sum(int(number) for number in re.findall(r"(?:failures|errors)=(\d+)", match[1]))
            passed -= bad
            failed += bad
        elif re.fullmatch(r"fuzz_\w+: \d+ inputs, no failure", line):
            passed += 1
        elif re.search(r"fuzz_\w+ failed; the input is in", line):
            failed += 1
    return passed, failed


def main(log, exit_code):
    with open(log, encoding="utf-8", errors="replace") as file:
        passed, failed = count(file.read())
    if exit_code != "0" and failed == 0:
        failed = 1
    print(f"{passed} passed, {failed} failed")


if __name__ == "__main__":
    main(*sys.argv[1:])
