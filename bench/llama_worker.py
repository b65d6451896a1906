# SPDX-FileCopyrightText: The Winnow authors
# SPDX-License-Identifier: Apache-2.0
"""One sample of a llama.cpp build's speed, as its own llama-bench takes it: a prompt of random tokens, then single
tokens from an empty context; F16 keys and values, everything else at the library's defaults, which repack weights.

    python3 bench/llama_worker.py stock FOLDER MODEL PROMPT GENERATE THREADS   # npm package @node-llama-cpp/linux-x64
    python3 bench/llama_worker.py ik - MODEL PROMPT GENERATE THREADS           # PyPI package ik-llama-cpp-python
    ... --mapped [--text FILE]    # for limits of memory: weights stay in the mapping, as they are in the file, since
                                  # copies cannot leave memory; and each run has tokens of its own, of a text if given

Prints one line of JSON. The parameter structs of stock grow from release to release: they are kept as opaque words
filled by the library, of which only the first (n_ctx) is changed; passing more bytes than the struct has is sound in
the x86-64 System V convention. ik's package declares its own structs.
"""

import argparse
import ctypes
import itertools
import json
import pathlib
import random
import sys
import time

MICRO_BATCH = 512
WARM_UP_TOKENS = 16  # single tokens before the timed ones, as `winnow bench` does
FLAGS = 72  # of stock's llama_model_params: vocab_only, check_tensors, use_extra_bufts, no_host, no_alloc


class _Opaque(ctypes.Structure):
    _fields_ = [("words", ctypes.c_uint32 * 128)]


class _Batch(ctypes.Structure):
    _fields_ = [("n_tokens", ctypes.c_int32), ("token", ctypes.POINTER(ctypes.c_int32)),
                ("embd", ctypes.POINTER(ctypes.c_float)), ("pos", ctypes.POINTER(ctypes.c_int32)),
                ("n_seq_id", ctypes.POINTER(ctypes.c_int32)),
                ("seq_id", ctypes.POINTER(ctypes.POINTER(ctypes.c_int32))), ("logits", ctypes.POINTER(ctypes.c_int8))]


class _IkBatch(ctypes.Structure):
    _fields_ = [*_Batch._fields_, ("all_pos_0", ctypes.c_int32), ("all_pos_1", ctypes.c_int32),
                ("all_seq_id", ctypes.c_int32)]


def package_version(folder, name):
    """Version of an npm package by its package.json; "" without one."""
    path = pathlib.Path(folder) / "package.json"
    return f"{name} {json.loads(path.read_text(encoding='utf-8'))['version']}" if path.exists() else name


class Stock:
    """The library of the npm package; it chooses the best of its CPU backends when told to load them."""

    batch = _Batch

    def __init__(self, folder):
        bins = pathlib.Path(folder) / "bins" / "linux-x64"
        libraries = sorted(bins.glob("libllama.*so*"))
        if not libraries:
            sys.exit(f"{bins} has no libllama")
        self.lib = ctypes.CDLL(str(libraries[0]))
        ggml = ctypes.CDLL(str(next(bins.glob("libggml.*so*"))))
        ggml.ggml_backend_load_all_from_path(str(bins).encode())
        self.version = package_version(folder, "llama.cpp, node-llama-cpp")
        for name in ("llama_model_default_params", "llama_context_default_params"):
            getattr(self.lib, name).restype = _Opaque
        self.lib.llama_model_load_from_file.argtypes = [ctypes.c_char_p, _Opaque]
        self.lib.llama_init_from_model.argtypes = [ctypes.c_void_p, _Opaque]

    def model_parameters(self, mapped):
        parameters = self.lib.llama_model_default_params()
        flags = ctypes.cast(ctypes.byref(parameters), ctypes.POINTER(ctypes.c_uint8))
        if flags[FLAGS:FLAGS + 5] != [0, 0, 1, 0, 0]:
            sys.exit(f"the flags of llama_model_params have moved: {flags[FLAGS:FLAGS + 5]}")
        flags[FLAGS + 2] = not mapped  # use_extra_bufts, of which repacking is one
        return parameters

    def context_parameters(self, context, _threads):
        parameters = self.lib.llama_context_default_params()
        if list(parameters.words[:4]) != [512, 2048, MICRO_BATCH, 1]:  # n_ctx, n_batch, n_ubatch, n_seq_max
            sys.exit(f"the front of llama_context_params has changed: defaults {list(parameters.words[:4])}")
        parameters.words[0] = context
        return parameters

    def forget(self, context):
        self.lib.llama_get_memory.restype = ctypes.c_void_p
        self.lib.llama_get_memory.argtypes = [ctypes.c_void_p]
        self.lib.llama_memory_clear.argtypes = [ctypes.c_void_p, ctypes.c_bool]
        self.lib.llama_memory_clear(self.lib.llama_get_memory(context), True)


class Ik:
    """The library of ik-llama-cpp-python, weights repacked at load (its -rtr), else its defaults."""

    batch = _IkBatch

    def __init__(self, _folder):
        import importlib.metadata  # the package is in the interpreter that runs this file

        from ik_llama_cpp import _ctypes_api as api
        from ik_llama_cpp._lib_loader import load_shared_library
        self.api, self.lib = api, load_shared_library()
        self.version = f"ik_llama.cpp, ik-llama-cpp-python {importlib.metadata.version('ik-llama-cpp-python')}"
        for name, result in (("llama_model_default_params", api.llama_model_params),
                             ("llama_context_default_params", api.llama_context_params)):
            getattr(self.lib, name).restype = result
        self.lib.llama_model_load_from_file.argtypes = [ctypes.c_char_p, api.llama_model_params]
        self.lib.llama_init_from_model.argtypes = [ctypes.c_void_p, api.llama_context_params]

    def model_parameters(self, mapped):
        parameters = self.lib.llama_model_default_params()
        parameters.repack_tensors = not mapped
        parameters.use_mmap = mapped  # repacked weights cannot stay in the mapping
        return parameters

    def context_parameters(self, context, threads):
        parameters = self.lib.llama_context_default_params()
        parameters.n_ctx, parameters.n_ubatch = context, MICRO_BATCH
        parameters.n_threads = parameters.n_threads_batch = threads
        return parameters

    def forget(self, context):
        self.lib.llama_kv_cache_clear.argtypes = [ctypes.c_void_p]
        self.lib.llama_kv_cache_clear(context)


class Session:
    """A loaded model with a context of one sequence."""

    def __init__(self, engine, model, context, threads, mapped=False):
        lib, pointer = engine.lib, ctypes.c_void_p
        self.engine, self.lib = engine, lib
        lib.llama_backend_init()
        lib.llama_model_load_from_file.restype = lib.llama_init_from_model.restype = pointer
        lib.llama_print_system_info.restype = ctypes.c_char_p
        start = time.perf_counter()
        loaded = lib.llama_model_load_from_file(str(model).encode(), engine.model_parameters(mapped))
        if not loaded:
            sys.exit(f"{model} does not load")
        self.context = lib.llama_init_from_model(loaded, engine.context_parameters(context, threads))
        if not self.context:
            sys.exit(f"no context for {model}")
        self.load_seconds = time.perf_counter() - start
        lib.llama_set_n_threads.argtypes = [pointer, ctypes.c_int32, ctypes.c_int32]
        lib.llama_set_n_threads(self.context, threads, threads)
        lib.llama_model_get_vocab.restype, lib.llama_model_get_vocab.argtypes = pointer, [pointer]
        lib.llama_vocab_n_tokens.argtypes = lib.llama_synchronize.argtypes = [pointer]
        self.vocab = lib.llama_model_get_vocab(loaded)
        self.vocab_size = lib.llama_vocab_n_tokens(self.vocab)
        self.of_text = loaded if isinstance(engine, Ik) else self.vocab  # what llama_tokenize takes
        lib.llama_batch_init.restype = engine.batch
        lib.llama_batch_init.argtypes = [ctypes.c_int32] * 3
        lib.llama_decode.argtypes = [pointer, engine.batch]
        self.batch = lib.llama_batch_init(MICRO_BATCH, 0, 1)

    def features(self):
        return self.lib.llama_print_system_info().decode()

    def run(self, tokens, chunk):
        """Seconds to run `tokens` from an empty context, `chunk` at a time, each with logits of its last token."""
        self.engine.forget(self.context)
        start = time.perf_counter()
        for begin in range(0, len(tokens), chunk):
            part = tokens[begin:begin + chunk]
            self.batch.n_tokens = len(part)
            for i, token in enumerate(part):
                self.batch.token[i], self.batch.pos[i], self.batch.logits[i] = token, begin + i, i + 1 == len(part)
                self.batch.n_seq_id[i], self.batch.seq_id[i][0] = 1, 0
            if self.lib.llama_decode(self.context, self.batch) != 0:
                sys.exit("llama_decode failed")
            self.lib.llama_synchronize(self.context)
        return time.perf_counter() - start


    def tokens(self, path):
        """The tokens of a text file, without special ones."""
        text = pathlib.Path(path).read_bytes()
        tokens = (ctypes.c_int32 * (len(text) + 1))()
        tokenize = self.lib.llama_tokenize
        tokenize.argtypes = [ctypes.c_void_p, ctypes.c_char_p, ctypes.c_int32, ctypes.POINTER(ctypes.c_int32),
                             ctypes.c_int32, ctypes.c_bool, ctypes.c_bool]
        count = tokenize(self.of_text, text, len(text), tokens, len(tokens), False, False)
        if count <= 0:
            sys.exit(f"{path}: llama_tokenize gave {count} tokens")
        return tokens[:count]


def bytes_read():
    """What this process has read from disks, faults of mappings included."""
    fields = dict(line.split(": ") for line in pathlib.Path("/proc/self/io").read_text(encoding="ascii").splitlines())
    return int(fields["read_bytes"])


def sources(session, options, most):
    """A function that gives the first `count` tokens of the next run: the same of all runs, or each its own."""
    rng = random.Random(0)
    text = session.tokens(options.text) if options.text else None
    tokens = itertools.cycle(text) if text else iter(lambda: rng.randrange(session.vocab_size), None)
    if options.mapped:
        return lambda count: list(itertools.islice(tokens, count))
    first = list(itertools.islice(tokens, most))
    return lambda count: first[:count]


def main():
    parser = argparse.ArgumentParser()
    for name, kind in (("kind", str), ("folder", str), ("model", str), ("prompt", int), ("generate", int),
                       ("threads", int)):
        parser.add_argument(name, type=kind)
    parser.add_argument("--mapped", action="store_true")
    parser.add_argument("--text")
    options = parser.parse_args()
    prompt, generate = options.prompt, options.generate
    engine = {"stock": Stock, "ik": Ik}[options.kind](options.folder)
    session = Session(engine, options.model, max(prompt, generate), options.threads, options.mapped)
    take = sources(session, options, max(prompt, generate))
    session.run(take(prompt), MICRO_BATCH)
    prefill = session.run(take(prompt), MICRO_BATCH)
    warm_up = min(generate, WARM_UP_TOKENS)
    warmed = session.run(take(warm_up), 1)
    before = bytes_read()
    decode = session.run(take(generate), 1)
    print(json.dumps({"prefill": prompt / prefill, "decode": generate / decode, "warm_up": warm_up / warmed,
                      "read_per_token": (bytes_read() - before) / generate, "features": session.features(),
                      "version": engine.version, "load_seconds": session.load_seconds}))


if __name__ == "__main__":
    main()
