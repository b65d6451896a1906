# SPDX-FileCopyrightText: The Winnow authors
# SPDX-License-Identifier: Apache-2.0
"""Instructions in the AVX-512 loop over a row of weights for one token, against recorded numbers: read
from the disassembly, because valgrind executes no AVX-512.

`avx512_loop_test.py --update` records the numbers of build/release."""

import re
import subprocess
import sys
import unittest

import recorded_counts

SECTION = "avx512_loop"
NAMESPACE = "winnow::kernels::avx512_vnni::"
# The layout's type in the names of the functions that are made for it (kernels/detail/decoders).
LAYOUTS = {"Q4_0": "NibbleBlocks<4u, false>", "Q4_K": "MinSuperBlocks<4u>", "Q8_0": "Q8Blocks"}
DOT_PRODUCT = "vpdpbusd"
PREFETCH = "prefetcht0"

_FUNCTION = re.compile(r"^[0-9a-f]+ <(.*)>:$")
_INSTRUCTION = re.compile(r"^\s*([0-9a-f]+):\s+(?:\{\w+\}\s+)?(\S+)\s*(.*)$")
_TARGET = re.compile(r"^([0-9a-f]+)\b")


def functions(disassembly):
    """{name: [(address, mnemonic, operands)]} of what `objdump -d --no-show-raw-insn -C` prints."""
    found, current = {}, None
    for line in disassembly.splitlines():
        head = _FUNCTION.match(line)
        if head:
            current = found.setdefault(head.group(1), [])
            continue
        instruction = _INSTRUCTION.match(line)
        if instruction and current is not None:
            address, mnemonic, operands = instruction.groups()
            current.append((int(address, 16), mnemonic, operands))
    return found


def innermost_loops(code):
    """The mnemonics of every loop with dot products that holds no smaller such loop: from the target of
    a jump backwards to the jump."""
    place = {address: index for index, (address, _, _) in enumerate(code)}
    spans = set()
    for index, (_, mnemonic, operands) in enumerate(code):
        target = _TARGET.match(operands)
        if not mnemonic.startswith("j") or not target:
            continue
        begin = place.get(int(target.group(1), 16))
        if begin is not None and begin <= index and any(
                code[i][1] == DOT_PRODUCT for i in range(begin, index + 1)):
            spans.add((begin, index))
    return [[code[i][1] for i in range(begin, end + 1)] for begin, end in spans
            if not any(other != (begin, end) and begin <= other[0] and other[1] <= end
                       for other in spans)]


def one_token_loop(code_by_name, layout):
    """The loop of the direct product with the fewest dot products, as more tokens need more of them; of
    those, one that asks for lines, as where rows are read for the first time."""
    loops = [loop for name, code in code_by_name.items()
             if f"{NAMESPACE}multiply_" in name and layout in name and "panel" not in name
             for loop in innermost_loops(code)]
    if not loops:
        raise LookupError(f"no loop with {DOT_PRODUCT} in a direct product of {layout}")
    return min(loops, key=lambda loop: (loop.count(DOT_PRODUCT), PREFETCH not in loop, len(loop)))


def measured():
    text = subprocess.run(["objdump", "-d", "--no-show-raw-insn", "-C", recorded_counts.program()],
                          capture_output=True, check=True, text=True).stdout
    code = functions(text)
    counts = {}
    for codec, layout in LAYOUTS.items():
        loop = one_token_loop(code, layout)
        counts[f"{codec} instructions"] = len(loop)
        counts[f"{codec} dot products"] = loop.count(DOT_PRODUCT)
    return counts


class FindingTheLoop(unittest.TestCase):
    NAME = "void winnow::kernels::avx512_vnni::multiply_direct<X<Q8Blocks> >(int)"
    TEXT = f"""
0000000000001000 <{NAME}>:
    1000:\tmov    %rdi,%rax
    1003:\txor    %ecx,%ecx
    1005:\tvpdpbusd (%rax),%zmm1,%zmm2
    100b:\tvpdpbusd 0x40(%rax),%zmm1,%zmm3
    1012:\tadd    $0x1,%rcx
    1016:\tjne    1005 <{NAME}+0x5>
    1018:\tvpdpbusd (%rax),%zmm1,%zmm2
    101e:\tprefetcht0 0x40(%rax)
    1022:\tjb     1018 <{NAME}+0x18>
    1024:\tje     1003 <{NAME}+0x3>
    1026:\tdec    %rcx
    1028:\tjne    1026 <{NAME}+0x26>
    102a:\tret
"""

    def test_loops_around_loops_and_without_products_are_left_out(self):
        self.assertEqual(sorted(map(len, innermost_loops(functions(self.TEXT)[self.NAME]))), [3, 4])

    def test_the_fewest_products_belong_to_one_token(self):
        self.assertEqual(one_token_loop(functions(self.TEXT), "Q8Blocks"),
                         ["vpdpbusd", "prefetcht0", "jb"])

    def test_a_layout_without_a_loop_is_an_error(self):
        with self.assertRaises(LookupError):
            one_token_loop(functions(self.TEXT), "MinSuperBlocks<4u>")


class Avx512Loops(unittest.TestCase):
    def test_loops_are_as_long_as_recorded(self):
        self.assertEqual(recorded_counts.problems(SECTION, measured()), [])


if __name__ == "__main__":
    if sys.argv[1:] == ["--update"]:
        recorded_counts.update(SECTION, measured())
    else:
        unittest.main()
