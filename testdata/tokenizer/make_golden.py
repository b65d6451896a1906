#!/usr/bin/env python3
# SPDX-FileCopyrightText: The Winnow authors
# SPDX-License-Identifier: Apache-2.0
"""Writes the golden files of the tokenizer tests, with PyPI `tokenizers` as the judge.

    pip install tokenizers==0.23.3
    python testdata/tokenizer/make_golden.py

golden.json: strings and their ids by models/grain/tokenizer.json.
small.json, small_golden.json: a second tokenizer trained here (NFC, user-defined tokens, Llama 3
pattern), and the same for it. valid_golden.json: number and FNV-1a hash of the ids (4 bytes each,
little endian) of each file in models/grain/data/valid, special tokens as text. split_golden.json: words of each pattern of src/text/pre_tokenizer.cc.
The strings are random from a fixed seed and built from Unicode ranges; nothing is quoted from a text.
"""

import json
import pathlib
import random

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers

HERE = pathlib.Path(__file__).resolve().parent
GRAIN = HERE.parent.parent / "models" / "grain"

# One range of letters or signs per script, then the classes that pre-tokenizers tell apart.
RANGES = [
    (0x20, 0x7E), (0x41, 0x7A), (0xA0, 0xFF), (0x100, 0x24F), (0x250, 0x2AF), (0x370, 0x3FF),
    (0x400, 0x4FF), (0x531, 0x58A), (0x591, 0x5F4), (0x600, 0x6FF), (0x700, 0x74F), (0x900, 0x97F),
    (0x980, 0x9FE), (0xB80, 0xBFA), (0xE01, 0xE5B), (0xF00, 0xFDA), (0x10A0, 0x10FF),
    (0x1100, 0x11FF), (0x1200, 0x139F), (0x13A0, 0x13FF), (0x1780, 0x17F9), (0x1800, 0x18AA),
    (0x1E00, 0x1FFF), (0x2000, 0x206F), (0x2070, 0x209C), (0x20A0, 0x20BF), (0x2100, 0x218B),
    (0x2190, 0x22FF), (0x2460, 0x24FF), (0x2600, 0x27BF), (0x2C00, 0x2DFF), (0x3000, 0x30FF),
    (0x3105, 0x312F), (0x3200, 0x33FF), (0x4E00, 0x9FFF), (0xA000, 0xA4C6), (0xA720, 0xABFF),
    (0xAC00, 0xD7A3), (0xE000, 0xE010), (0xF900, 0xFAD9), (0xFB00, 0xFDFF), (0xFE00, 0xFEFF),
    (0xFF01, 0xFFEF), (0x10000, 0x100FA), (0x10330, 0x1034A), (0x12000, 0x12399),
    (0x1D400, 0x1D7FF), (0x1E900, 0x1E95F), (0x1F100, 0x1F1FF), (0x1F300, 0x1F6FF),
    (0x1F900, 0x1F9FF), (0x20000, 0x2A6DF), (0xE0100, 0xE01EF), (0x10FFF0, 0x10FFFF),
    # letters and numbers that Unicode 15 and 16 added
    (0x1C89, 0x1C8A), (0xA7CB, 0xA7DC), (0x105C0, 0x105F3), (0x10D40, 0x10D65), (0x11F02, 0x11F59),
    (0x16D40, 0x16D79), (0x1E4D0, 0x1E4F9), (0x2EBF0, 0x2EE5D), (0x31350, 0x323AF),
]
SPACES = [" ", "  ", "\t", "\n", "\r", "\r\n", "\v", "\f", "\x85", "\xa0", "\u1680", "\u180e",
          "\u2000", "\u2003", "\u2009", "\u200a", "\u200b", "\u2028", "\u2029", "\u202f", "\u205f",
          "\u2060", "\u3000", "\ufeff", "\x1c", "\x1f"]
SUFFIXES = ["s", "S", "\u017f", "t", "T", "re", "RE", "rE", "ve", "VE", "m", "M", "ll", "LL", "lL", "d", "D",
            "\u212a", "k", "x", "r", "v", "l", "\u1e9e", "\u00df", "\ufb06", "\u0131", "\u0130"]
QUOTES = ["'", "'", "'", "\u2019", "`", "\u02bc"]
WORDS = ("the of and to in model weights expert router token Straße Müßiggang übermütig Ängste "
         "Donaudampfschifffahrtsgesellschaft déjà naïveté garçon œuvre çà où élève aujourd'hui "
         "l'été qu'il JSON HTTPServer camelCase snake_case __init__ 3.14159 0xFF 1e-9 1,000,000 "
         "std::vector<int> printf(\"%d\\n\") {'key': [1, 2]} /* note */ // -> => != <= && || ## @x "
         "https://example.org/a?b=c&d=%20 user@example.org C:\\temp\\x.txt $HOME 50% #42").split(" ")
MARKS = list(range(0x300, 0x36F)) + [0x591, 0x5B0, 0x64B, 0x93C, 0x94D, 0xE48, 0x1AB0, 0x20D0, 0x3099]
EMOJI = ["\U0001F600", "\U0001F468\u200d\U0001F469\u200d\U0001F467", "\U0001F1E9\U0001F1EA",
         "\U0001F44D\U0001F3FD", "\u2764\ufe0f", "\u2764\ufe0f\u200d\U0001F525", "1\ufe0f\u20e3",
         "\U0001F3F4\U000E0067\U000E0062\U000E007F", "\u00a9\ufe0f"]
SPECIAL = ["<|endoftext|>", "<|endoftext", "|>", "<|im_start|>", "<|", "endoftext"]


def script(rng):
    low, high = rng.choice(RANGES)
    points = [rng.randint(low, high) for _ in range(rng.randint(1, 9))]
    return "".join(chr(p) for p in points if not 0xD800 <= p < 0xE000)


def code_line(rng):
    return "    " * rng.randint(0, 4) + rng.choice(WORDS) + rng.choice(["(", "[i] = ", ";", ":\n", " { "])


def part(rng):
    makers = [
        script, script, script,
        lambda r: "".join(r.choice(SPACES) for _ in range(r.randint(1, 6))),
        lambda r: r.choice([" ", "\n", "\t", "\r\n"]) * r.randint(1, 40),
        lambda r: "".join(r.choice("0123456789") for _ in range(r.randint(1, 12))),
        lambda r: r.choice(WORDS) + r.choice(QUOTES) + r.choice(SUFFIXES),
        lambda r: r.choice(QUOTES) + r.choice(SUFFIXES) + r.choice(["", " ", "s", "a"]),
        lambda r: " ".join(r.choice(WORDS) for _ in range(r.randint(1, 5))),
        lambda r: r.choice(WORDS).upper() + r.choice("!?.,;:-"),
        code_line,
        lambda r: r.choice("aeiou") + "".join(chr(r.choice(MARKS)) for _ in range(r.randint(1, 5))),
        lambda r: "".join(r.choice(EMOJI) for _ in range(r.randint(1, 3))),
        lambda r: "".join(chr(r.choice([*range(32), *range(0x7F, 0xA0)])) for _ in range(r.randint(1, 4))),
        lambda r: "".join(r.choice("!\"#$%&()*+,-./:;<=>?@[]^_{|}~") for _ in range(r.randint(1, 8))),
        lambda r: r.choice("abcxyzQ") * r.randint(10, 60),
        lambda r: r.choice(SPECIAL),
    ]
    return rng.choice(makers)(rng)


def strings(seed, count):
    rng = random.Random(seed)
    fixed = ["", " ", "\n", "a", "'s", "'S", "'\u017f", "I'\u017f", "'\u212a", "\u212a's", "\0", "a\0b", "\r\n\r\n ",
             "   x", "x   ", " \n \n x", "\t\tx\t", "...\r\n\n", "e\u0301", "\u00e9", "\uac00", "\u1100\u1161"]
    return fixed + ["".join(part(rng) for _ in range(rng.randint(1, 3))) for _ in range(count)]


def write(name, value):
    text = json.dumps(value, ensure_ascii=True, separators=(",", ":")).replace("],[", "],\n[")
    (HERE / name).write_text(text + "\n")


def encodings(tokenizer, texts):
    """[text, ids with special tokens parsed, ids with them as text (only if different)]."""
    rows = []
    for text in texts:
        tokenizer.encode_special_tokens = False
        parsed = tokenizer.encode(text, add_special_tokens=False).ids
        tokenizer.encode_special_tokens = True
        plain = tokenizer.encode(text, add_special_tokens=False).ids
        rows.append([text, parsed] + ([plain] if plain != parsed else []))
    return rows


def llama3_pattern():
    return (r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}|"
            r" ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+")


def train_small():
    tokenizer = Tokenizer(models.BPE(ignore_merges=True))
    tokenizer.normalizer = normalizers.NFC()
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([
        pre_tokenizers.Split(Regex(llama3_pattern()), "isolated"),
        pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)])
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(vocab_size=420, show_progress=False, special_tokens=["<s>", "</s>"],
                                  initial_alphabet=pre_tokenizers.ByteLevel.alphabet())
    tokenizer.train_from_iterator(strings(7, 400), trainer)
    tokenizer.add_tokens(["<tool>", "<tool>>", "caf\u00e9", "<",  # normalised, found second
                          AddedToken("e\u0301x", normalized=False), AddedToken("\u212b", normalized=True),
                          AddedToken("   ", normalized=False), AddedToken("im", normalized=False)])
    tokenizer.add_special_tokens(["<|im_start|>", AddedToken("<|end|>", normalized=True)])
    tokenizer.save(str(HERE / "small.json"), pretty=False)
    return tokenizer


def small_texts():
    rng = random.Random(11)
    pieces = ["<tool>", "<tool>>", "<", ">", "caf\u00e9", "cafe\u0301", "e\u0301x", "\u00e9x", "\u212b", "A\u030a", "   ",
              " ", "im", "<|im_start|>", "<|end|>", "<s>", "</s>", "x", "the", "a\u0323\u0307", "a\u0307\u0323", "\u1100\u1161\u11a8"]
    mixed = ["".join(rng.choice(pieces) for _ in range(rng.randint(1, 7))) for _ in range(300)]
    return mixed + strings(13, 200)


def fnv1a(ids):
    value = 0xCBF29CE484222325
    for byte in b"".join(i.to_bytes(4, "little") for i in ids):
        value = (value ^ byte) * 0x100000001B3 % 2**64
    return value


def valid_texts(tokenizer):
    tokenizer.encode_special_tokens = True
    result = {}
    for path in sorted((GRAIN / "data" / "valid").glob("*.txt")):
        ids = tokenizer.encode(path.read_bytes().decode(), add_special_tokens=False).ids
        result[path.stem] = {"tokens": len(ids), "fnv1a": f"{fnv1a(ids):016x}"}
    return result


def splits(texts):
    byte_level = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)
    split = pre_tokenizers.Split(Regex(llama3_pattern()), "isolated")
    digits = pre_tokenizers.Sequence([pre_tokenizers.Digits(individual_digits=True), byte_level])
    result = {}
    for name, step in {"gpt-2": byte_level, "llama-bpe": split, "smollm": digits}.items():
        result[name] = [[text, [end for _, (_, end) in step.pre_tokenize_str(text)]] for text in texts]
    return result


def main():
    grain = Tokenizer.from_file(str(GRAIN / "tokenizer.json"))
    write("golden.json", encodings(grain, strings(1, 2200)))
    write("valid_golden.json", valid_texts(grain))
    write("small_golden.json", encodings(train_small(), small_texts()))
    write("split_golden.json", splits(strings(17, 250)))


if __name__ == "__main__":
    main()
