# SPDX-FileCopyrightText: The Winnow authors
# SPDX-License-Identifier: Apache-2.0
"""What bench/quality_peers.py asks of a Python with torch, transformers and llmcompressor.

    python bench/gptq_worker.py windows MODEL TEXT COUNT       # how many windows of 512 tokens the text has
    python bench/gptq_worker.py quantize MODEL TEXT COUNT THREADS DTYPE

`quantize` is llmcompressor's GPTQ, 4 bits in groups of 64 (SmolLM2's rows are no multiple of
128), on COUNT windows of TEXT; prints its seconds as JSON.
"""

import json
import pathlib
import sys
import time

CONTEXT = 512
GROUP = 64


def windows(model, text, count):
    """Token lists: the start token and 511 others, as `winnow` cuts a text file."""
    from transformers import AutoTokenizer
    tokenizer = AutoTokenizer.from_pretrained(model)
    ids = tokenizer(pathlib.Path(text).read_text(encoding="utf-8"), add_special_tokens=False)["input_ids"]
    start = tokenizer.bos_token_id
    cut = [[start, *ids[begin:begin + CONTEXT - 1]] for begin in range(0, len(ids) - CONTEXT + 2, CONTEXT - 1)]
    return cut[:count]


def quantize(model, text, count, threads, dtype):
    import torch
    torch.set_num_threads(threads)
    from compressed_tensors.quantization import QuantizationArgs, QuantizationScheme
    from datasets import Dataset
    from llmcompressor import oneshot
    from llmcompressor.modifiers.quantization import GPTQModifier
    from transformers import AutoModelForCausalLM, AutoTokenizer
    start = time.perf_counter()
    loaded = AutoModelForCausalLM.from_pretrained(model, dtype=dtype)
    rows = windows(model, text, count)
    data = Dataset.from_dict({"input_ids": rows, "attention_mask": [[1] * len(row) for row in rows]})
    begun = time.perf_counter()
    weights = QuantizationArgs(num_bits=4, type="int", symmetric=True, strategy="group", group_size=GROUP)
    scheme = QuantizationScheme(targets=["Linear"], weights=weights)
    oneshot(model=loaded, dataset=data, tokenizer=AutoTokenizer.from_pretrained(model),
            recipe=[GPTQModifier(config_groups={"group_0": scheme}, ignore=["lm_head"])],
            max_seq_length=CONTEXT, num_calibration_samples=count)
    done = time.perf_counter()
    print(json.dumps({"seconds": done - begun, "load_seconds": begun - start, "windows": len(rows)}))


def main():
    command, *words = sys.argv[1:]
    if command == "windows":
        print(json.dumps(len(windows(words[0], words[1], int(words[2])))))
    else:
        model, text, count, threads, dtype = words
        quantize(model, text, int(count), int(threads), dtype)


if __name__ == "__main__":
    main()
