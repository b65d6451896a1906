# SPDX-FileCopyrightText: The Winnow authors
# SPDX-License-Identifier: Apache-2.0
"""Drives the C interface of a prebuilt stock llama.cpp library with ctypes.

Two builds that anyone can install are understood: the extension module of the PyPI wheel `xllamacpp`
(it exports the whole llama_* interface, but not the quantiser) and `libllama.so` of the npm package
`@node-llama-cpp/linux-x64` (it also has llama_model_quantize).

The parameter structs grow from release to release. They are therefore never declared here: a buffer
larger than any of them takes the library's own defaults, and only fields at the front, whose place has
not moved since 2023 and whose defaults are checked, are changed. Passing the larger buffer by value is
sound in the x86-64 System V convention, which copies such a struct to the end of the stack arguments.
"""

import ctypes
import importlib.util
import pathlib

import numpy as np

_STRUCT_BYTES = 512  # the largest, llama_context_params, has about 170


class _Opaque(ctypes.Structure):
    _fields_ = [("words", ctypes.c_uint32 * (_STRUCT_BYTES // 4))]


class _Batch(ctypes.Structure):
    _fields_ = [("n_tokens", ctypes.c_int32),
                ("token", ctypes.POINTER(ctypes.c_int32)),
                ("embd", ctypes.POINTER(ctypes.c_float)),
                ("pos", ctypes.POINTER(ctypes.c_int32)),
                ("n_seq_id", ctypes.POINTER(ctypes.c_int32)),
                ("seq_id", ctypes.POINTER(ctypes.POINTER(ctypes.c_int32))),
                ("logits", ctypes.POINTER(ctypes.c_int8))]


_LOG_CALLBACK = ctypes.CFUNCTYPE(None, ctypes.c_int, ctypes.c_char_p, ctypes.c_void_p)

# llama_ftype numbers of llama.h
FILE_TYPES = {"F32": 0, "F16": 1, "Q4_0": 2, "Q8_0": 7, "Q2_K": 10, "Q3_K_S": 11, "Q3_K_M": 12,
              "Q4_K_S": 14, "Q4_K_M": 15, "Q5_K_S": 16, "Q5_K_M": 17, "Q6_K": 18, "IQ4_NL": 25,
              "IQ4_XS": 30, "BF16": 32}


class StockError(RuntimeError):
    """The stock library refused; the message ends with the last lines it logged."""


class StockLibrary:
    """One loaded llama.cpp build. Not for several threads."""

    def __init__(self, path, backends=None):
        """path: shared library with the llama_* symbols. backends: folder with libggml-cpu-*.so, if separate."""
        self.path = pathlib.Path(path)
        self._lib = ctypes.CDLL(str(path))
        self._log = []
        self._log_callback = _LOG_CALLBACK(lambda _level, text, _data: self._log.append(text))
        self._declare()
        self._lib.llama_log_set(self._log_callback, None)
        if backends is not None:
            ggml = ctypes.CDLL(str(next(pathlib.Path(backends).glob("libggml.*so*"))))
            ggml.ggml_backend_load_all_from_path(str(backends).encode())
        self._lib.llama_backend_init()

    @classmethod
    def from_xllamacpp(cls):
        """The wheel `xllamacpp` of the running interpreter."""
        package = importlib.util.find_spec("xllamacpp")
        if package is None:
            raise StockError("PyPI package xllamacpp is not installed; see tests/peer/requirements.txt")
        folder = pathlib.Path(package.submodule_search_locations[0])
        return cls(next(folder.glob("xllamacpp*.so")))

    @classmethod
    def from_node_package(cls, folder):
        """The folder of an unpacked npm package `@node-llama-cpp/linux-x64` (it holds bins/linux-x64)."""
        bins = pathlib.Path(folder) / "bins" / "linux-x64"
        libraries = sorted(bins.glob("libllama.*so*"))
        if not libraries:
            raise StockError(f"{bins} has no libllama; see tests/peer/README.md")
        return cls(libraries[0], backends=bins)

    def _declare(self):
        lib, pointer, text = self._lib, ctypes.c_void_p, ctypes.c_char_p
        lib.llama_log_set.argtypes = [_LOG_CALLBACK, pointer]
        for name in ("llama_model_default_params", "llama_context_default_params"):
            getattr(lib, name).restype = _Opaque
        lib.llama_model_load_from_file.restype = pointer
        lib.llama_model_load_from_file.argtypes = [text, _Opaque]
        lib.llama_init_from_model.restype = pointer
        lib.llama_init_from_model.argtypes = [pointer, _Opaque]
        lib.llama_model_get_vocab.restype = pointer
        lib.llama_model_get_vocab.argtypes = [pointer]
        lib.llama_vocab_n_tokens.argtypes = [pointer]
        lib.llama_vocab_get_add_bos.argtypes = [pointer]
        lib.llama_vocab_get_add_bos.restype = ctypes.c_bool
        lib.llama_vocab_bos.argtypes = [pointer]
        lib.llama_tokenize.argtypes = [pointer, text, ctypes.c_int32, ctypes.POINTER(ctypes.c_int32),
                                       ctypes.c_int32, ctypes.c_bool, ctypes.c_bool]
        lib.llama_batch_init.restype = _Batch
        lib.llama_batch_init.argtypes = [ctypes.c_int32] * 3
        lib.llama_batch_free.argtypes = [_Batch]
        lib.llama_decode.argtypes = [pointer, _Batch]
        lib.llama_get_logits_ith.restype = ctypes.POINTER(ctypes.c_float)
        lib.llama_get_logits_ith.argtypes = [pointer, ctypes.c_int32]
        lib.llama_get_memory.restype = pointer
        lib.llama_get_memory.argtypes = [pointer]
        lib.llama_memory_clear.argtypes = [pointer, ctypes.c_bool]
        lib.llama_set_n_threads.argtypes = [pointer, ctypes.c_int32, ctypes.c_int32]
        lib.llama_free.argtypes = [pointer]
        lib.llama_model_free.argtypes = [pointer]

    def refuse(self, what):
        """Raises StockError with the end of the library's log."""
        log = b"".join(self._log).decode("utf-8", "replace").strip().splitlines()
        raise StockError("\n  ".join([what, *log[-4:]]))

    def open(self, path, context=512, threads=1):
        """Loads a GGUF file. The caller closes the StockModel. One thread: the library spins at its barriers,
        which on a machine with other work costs more than the second thread brings."""
        return StockModel(self, path, context, threads)

    @property
    def has_quantizer(self):
        return hasattr(self._lib, "llama_model_quantize")

    def quantize(self, source, target, file_type, threads=1):
        """Writes `target`, the file `source` quantised by llama.cpp's own quantiser to a name of FILE_TYPES."""
        self._log.clear()
        self._lib.llama_model_quantize_default_params.restype = _Opaque
        parameters = self._lib.llama_model_quantize_default_params()
        parameters.words[0] = threads                # nthread
        parameters.words[1] = FILE_TYPES[file_type]  # ftype
        self._lib.llama_model_quantize.argtypes = [ctypes.c_char_p, ctypes.c_char_p,
                                                   ctypes.POINTER(_Opaque)]
        if self._lib.llama_model_quantize(str(source).encode(), str(target).encode(),
                                          ctypes.byref(parameters)) != 0:
            self.refuse(f"stock llama.cpp does not quantise {source} to {file_type}")


class StockModel:
    """A loaded model with one context of one sequence."""

    def __init__(self, library, path, context, threads):
        self._library, self._lib = library, library._lib
        self._model = self._context = None
        library._log.clear()
        self._model = self._lib.llama_model_load_from_file(str(path).encode(),
                                                           self._lib.llama_model_default_params())
        if not self._model:
            library.refuse(f"stock llama.cpp does not load {path}")
        self._context = self._lib.llama_init_from_model(self._model, self._context_parameters(context))
        if not self._context:
            library.refuse(f"stock llama.cpp makes no context for {path}")
        self._lib.llama_set_n_threads(self._context, threads, threads)
        self._vocab = self._lib.llama_model_get_vocab(self._model)
        self.vocab_size = self._lib.llama_vocab_n_tokens(self._vocab)
        self.add_bos = self._lib.llama_vocab_get_add_bos(self._vocab)
        self.bos = self._lib.llama_vocab_bos(self._vocab)

    def _context_parameters(self, context):
        parameters = self._lib.llama_context_default_params()
        front = list(parameters.words[:4])  # n_ctx, n_batch, n_ubatch, n_seq_max
        if front != [512, 2048, 512, 1]:
            raise StockError(f"the front of llama_context_params has changed: defaults {front}")
        parameters.words[0] = parameters.words[1] = parameters.words[2] = context
        return parameters

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def close(self):
        if self._context:
            self._lib.llama_free(self._context)
        if self._model:
            self._lib.llama_model_free(self._model)
        self._model = self._context = None

    def tokenize(self, text, add_special=False, parse_special=False):
        """Token ids of a str, by the library's own tokenizer."""
        data = text.encode("utf-8")
        room = (ctypes.c_int32 * (len(data) + 8))()
        count = self._lib.llama_tokenize(self._vocab, data, len(data), room, len(room),
                                         add_special, parse_special)
        if count < 0:
            raise StockError(f"llama_tokenize returned {count}")
        return list(room[:count])

    def logits(self, ids):
        """float32 [len(ids), vocab_size]: the logits after each id, positions from 0, empty cache."""
        count = len(ids)
        batch = self._lib.llama_batch_init(count, 0, 1)
        try:
            batch.n_tokens = count
            for i, token in enumerate(ids):
                batch.token[i], batch.pos[i], batch.logits[i] = int(token), i, 1
                batch.n_seq_id[i], batch.seq_id[i][0] = 1, 0
            self._lib.llama_memory_clear(self._lib.llama_get_memory(self._context), True)
            code = self._lib.llama_decode(self._context, batch)
            if code != 0:
                self._library.refuse(f"llama_decode returned {code}")
            rows = [np.ctypeslib.as_array(self._lib.llama_get_logits_ith(self._context, i),
                                          (self.vocab_size,)).copy() for i in range(count)]
        finally:
            self._lib.llama_batch_free(batch)
        return np.stack(rows)
