# SPDX-FileCopyrightText: The Winnow authors
# SPDX-License-Identifier: Apache-2.0
"""What bench/quality_peers.py asks of a Python with torch, transformers and llmcompressor.

    python bench/gptq_worker.py folder FILE.gguf OUT           # a dense Llama in GGUF as a folder that Winnow reads
    python bench/gptq_worker.py windows MODEL TEXT COUNT       # how many windows of 512 tokens the text has
    python bench/gptq_worker.py quantize MODEL TEXT COUNT THREADS DTYPE

`folder` dequantises with transformers and puts the weights into Qwen3's architecture (queries and keys normalised,
norm weights one): shapes and values of the matrices stay, so that time and memory do; the text it would write does
not. `quantize` is llmcompressor's GPTQ, 4 bits in groups of 64 (SmolLM2's rows are no multiple of
128), on COUNT windows of TEXT; prints its seconds as JSON.
"""

import json
import pathlib
import sys
import time

CONTEXT = 512
GROUP = 64


def make_folder(source, target):
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer, Qwen3Config, Qwen3ForCausalLM
    source = pathlib.Path(source)
    llama = AutoModelForCausalLM.from_pretrained(source.parent, gguf_file=source.name, dtype=torch.float32)
    config = llama.config
    keep = ("vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads",
            "num_key_value_heads", "max_position_embeddings", "rms_norm_eps", "tie_word_embeddings", "bos_token_id",
            "eos_token_id")
    shell = Qwen3Config(**{key: getattr(config, key) for key in keep},
                        head_dim=config.hidden_size // config.num_attention_heads, attention_bias=False,
                        rope_parameters={"rope_type": "default", "rope_theta": 100000.0})
    model = Qwen3ForCausalLM(shell)
    missing, unexpected = model.load_state_dict(llama.state_dict(), strict=False)
    if unexpected or any("q_norm" not in name and "k_norm" not in name for name in missing):
        sys.exit(f"weights that do not fit: {missing} {unexpected}")
    model.to(torch.bfloat16).save_pretrained(target)
    AutoTokenizer.from_pretrained(source.parent, gguf_file=source.name).save_pretrained(target)
    mend_tokenizer(pathlib.Path(target) / "tokenizer.json")


def mend_tokenizer(path):
    """transformers makes of a GGUF tokenizer one with byte fall-back; SmolLM2's own is plain byte-level BPE."""
    tokenizer = json.loads(path.read_text(encoding="utf-8"))
    byte_level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}
    tokenizer["model"].update(byte_fallback=False, fuse_unk=False, unk_token=None)
    tokenizer.update(normalizer=None, post_processor=None, decoder=byte_level, pre_tokenizer={
        "type": "Sequence", "pretokenizers": [{"type": "Digits", "individual_digits": True}, byte_level]})
    path.write_text(json.dumps(tokenizer, ensure_ascii=False), encoding="utf-8")


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
    if command == "folder":
        make_folder(*words)
    elif command == "windows":
        print(json.dumps(len(windows(words[0], words[1], int(words[2])))))
    else:
        model, text, count, threads, dtype = words
        quantize(model, text, int(count), int(threads), dtype)


if __name__ == "__main__":
    main()
