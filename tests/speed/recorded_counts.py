# SPDX-FileCopyrightText: The Winnow authors
# SPDX-License-Identifier: Apache-2.0
"""The recorded numbers of instructions in instruction_counts.json, and how a measured one is judged.

Every number is true of one compiler: {section: {"compiler": "g++ 12.2.0", "counts": {name: n}}}."""

import json
import os
import pathlib
import subprocess

HERE = pathlib.Path(__file__).resolve().parent
FILE = HERE / "instruction_counts.json"
TOLERANCE = 0.03      # with the recorded compiler
OTHER_COMPILER = 2.0  # a factor


def program():
    built = HERE.parents[1] / "build" / "release" / "bin" / "winnow_kernel_counts"
    return os.environ.get("WINNOW_KERNEL_COUNTS", str(built))


def compiler():
    return subprocess.run([program(), "--compiler"], capture_output=True, check=True,
                          text=True).stdout.strip()


def judge(name, measured, recorded, same_compiler):
    """What is wrong with a measured number, or None."""
    ratio = measured / recorded
    text = f"{name}: {measured} instructions, recorded are {recorded} ({100 * (ratio - 1):+.1f} %)"
    if not same_compiler:
        if 1 / OTHER_COMPILER <= ratio <= OTHER_COMPILER:
            return None
        return f"{text}; more than a factor of {OTHER_COMPILER:g}, though with another compiler"
    if ratio > 1 + TOLERANCE:
        return f"{text}; find what made it slower, or justify it and record it with --update"
    if ratio < 1 - TOLERANCE:
        return f"{text}; a gain: record it with --update so that it cannot be lost"
    return None


def problems(section, measured):
    """All that is wrong with measured {name: number} in a section of the file."""
    record = json.loads(FILE.read_text(encoding="utf-8"))[section]
    same = record["compiler"] == compiler()
    if not same:
        print(f"{section}: recorded with {record['compiler']}, built with {compiler()}: only a "
              f"factor of {OTHER_COMPILER:g} is checked")
    found = [f"{name}: measured or recorded, but not both"
             for name in sorted(set(measured) ^ set(record["counts"]))]
    verdicts = (judge(name, number, record["counts"][name], same)
                for name, number in measured.items() if name in record["counts"])
    return found + [verdict for verdict in verdicts if verdict]


def update(section, measured):
    """Records measured {name: number} and prints what changed."""
    whole = json.loads(FILE.read_text(encoding="utf-8")) if FILE.exists() else {}
    before = whole.get(section, {}).get("counts", {})
    for name, number in measured.items():
        print(f"{name}: {before.get(name, 'nothing')} -> {number}")
    whole[section] = {"compiler": compiler(), "counts": measured}
    FILE.write_text(json.dumps(whole, indent=2) + "\n", encoding="utf-8")
