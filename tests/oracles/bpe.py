# SPDX-FileCopyrightText: The Winnow authors
# SPDX-License-Identifier: Apache-2.0
"""Byte-level BPE of a tokenizer.json with the standard library alone, so that oracles read text as the product does.

Knows what the bundled and the tiny models have: a Split by a regular expression, then ByteLevel; merges by rank
(arXiv:1508.07909, in GPT-2's form over bytes). Special tokens are not parsed. The checks at the end compare with
testdata/tokenizer:

    python tests/oracles/bpe.py
"""

import functools
import json
import pathlib
import re
import sys
import unicodedata

# Unicode's White_Space; Python's \s has U+001C to U+001F too.
_SPACES = r"\t-\r \x85\xa0\u1680\u2000-\u200a\u2028\u2029\u202f\u205f\u3000"


@functools.lru_cache(maxsize=None)
def category_ranges(letter):
    """The code points whose general category begins with `letter`, as the inside of a bracket expression."""
    points = [c for c in range(sys.maxunicode + 1) if unicodedata.category(chr(c))[0] == letter]
    starts = [c for i, c in enumerate(points) if i == 0 or points[i - 1] != c - 1]
    ends = [c for i, c in enumerate(points) if i + 1 == len(points) or points[i + 1] != c + 1]
    return "".join(rf"\U{low:08x}-\U{high:08x}" for low, high in zip(starts, ends))


def python_pattern(pattern):
    r"""The expression in Python's syntax: \p{L}, \p{N}, \s and \S written out, case folding for ASCII alone."""
    out, in_class = [], False
    for part in re.findall(r"\\p\{[LN]\}|\(\?i:|\\.|.", pattern, re.DOTALL):
        if part in ("[", "]"):
            in_class = part == "["
        inside = {r"\p{L}": category_ranges("L"), r"\p{N}": category_ranges("N"), r"\s": _SPACES}.get(part)
        if inside is not None:
            part = inside if in_class else f"[{inside}]"
        elif part == r"\S":
            part = f"[^{_SPACES}]"
        out.append("(?ai:" if part == "(?i:" else part)
    return re.compile("".join(out))


def byte_characters():
    """The printable character that stands for each byte: itself if it is visible in Latin-1, else from U+0100 on."""
    visible = {*range(33, 127), *range(161, 173), *range(174, 256)}
    hidden = [b for b in range(256) if b not in visible]
    return [chr(b) if b in visible else chr(256 + hidden.index(b)) for b in range(256)]


class Bpe:
    """The tokenizer of a Hugging Face folder."""

    def __init__(self, folder):
        text = json.loads((pathlib.Path(folder) / "tokenizer.json").read_text(encoding="utf-8"))
        if text["normalizer"] is not None:
            raise ValueError("a tokenizer without a normalizer is expected")
        split = text["pre_tokenizer"]["pretokenizers"][0]
        self._pattern = python_pattern(split["pattern"]["Regex"])
        self._ids = text["model"]["vocab"]
        merges = [tuple(m.split(" ")) if isinstance(m, str) else tuple(m) for m in text["model"]["merges"]]
        self._ranks = {pair: rank for rank, pair in enumerate(merges)}
        self._characters = byte_characters()
        self._added = {token["content"]: token["id"] for token in text["added_tokens"]}
        self._known = {}

    def added(self, content):
        return self._added.get(content)

    def _merge(self, piece):
        parts = [self._characters[b] for b in piece.encode("utf-8")]
        while len(parts) > 1:
            pairs = list(zip(parts, parts[1:]))
            best = min(pairs, key=lambda pair: self._ranks.get(pair, len(self._ranks)))
            if best not in self._ranks:
                break
            at = pairs.index(best)
            parts[at:at + 2] = ["".join(best)]
        return [self._ids[part] for part in parts]

    def encode(self, text):
        """Token ids of a document, without a start token."""
        ids = []
        for match in self._pattern.finditer(text):
            piece = match.group()
            if piece not in self._known:
                self._known[piece] = self._merge(piece)
            ids += self._known[piece]
        return ids


def check():
    """Texts of testdata/tokenizer/golden.json, made by the tokenizers library for models/grain."""
    root = pathlib.Path(__file__).resolve().parents[2]
    tokenizer = Bpe(root / "models" / "grain")
    golden = json.loads((root / "testdata" / "tokenizer" / "golden.json").read_text(encoding="utf-8"))
    # The last element is the ids with special tokens as text.
    wrong = [entry[0] for entry in golden if tokenizer.encode(entry[0]) != entry[-1]]
    print(f"{len(golden)} texts, {len(wrong)} differ: {wrong[:5]}")
    return not wrong


if __name__ == "__main__":
    sys.exit(0 if check() else 1)
