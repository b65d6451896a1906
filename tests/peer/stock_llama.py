# SPDX-FileCopyrightText: The Winnow authors
# SPDX-License-Identifier: Apache-2.0
"""Drives the C interface of a prebuilt stock llama.cpp library with ctypes: logits, the quantiser, and the
inputs of its matrix products.

Two builds that anyone can install are understood: the extension module of the PyPI wheel `xllamacpp`
(it exports the whole llama_* interface, but not the quantiser) and `libllama.so` of the npm package
`@node-llama-cpp/linux-x64` (it also has llama_model_quantize).

The parameter structs grow from release to release. They are therefore never declared here: a buffer
larger than any of them takes the library's own defaults, and only fields at the front, whose place has
not moved since 2023 and whose defaults are checked, are changed; the evaluation callback is found by the
defaults around it. Passing the larger buffer by value is
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


class _Tensor(ctypes.Structure):
    """ggml_tensor; StockLibrary.check_tensor compares it with what the library's own functions say."""
    _fields_ = [("type", ctypes.c_int32), ("buffer", ctypes.c_void_p),
                ("ne", ctypes.c_int64 * 4), ("nb", ctypes.c_size_t * 4),
                ("op", ctypes.c_int32), ("op_params", ctypes.c_int32 * 16), ("flags", ctypes.c_int32),
                ("src", ctypes.c_void_p * 10), ("view_src", ctypes.c_void_p),
                ("view_offs", ctypes.c_size_t), ("data", ctypes.c_void_p), ("name", ctypes.c_char * 64)]


class _Importance(ctypes.Structure):
    """llama_model_imatrix_data; the array of them ends with a null name."""
    _fields_ = [("name", ctypes.c_char_p), ("data", ctypes.POINTER(ctypes.c_float)),
                ("size", ctypes.c_size_t)]


_EVAL_CALLBACK = ctypes.CFUNCTYPE(ctypes.c_bool, ctypes.c_void_p, ctypes.c_bool, ctypes.c_void_p)
_LOG_CALLBACK = ctypes.CFUNCTYPE(None, ctypes.c_int, ctypes.c_char_p, ctypes.c_void_p)

# llama_ftype numbers of llama.h
FILE_TYPES = {"F32": 0, "F16": 1, "Q4_0": 2, "Q8_0": 7, "Q2_K": 10, "Q3_K_S": 11, "Q3_K_M": 12,
              "Q3_K_L": 13, "Q4_K_S": 14, "Q4_K_M": 15, "Q5_K_S": 16, "Q5_K_M": 17, "Q6_K": 18,
              "IQ2_XXS": 19, "IQ2_XS": 20, "Q2_K_S": 21, "IQ3_XS": 22, "IQ3_XXS": 23, "IQ4_NL": 25,
              "IQ3_S": 26, "IQ3_M": 27, "IQ2_S": 28, "IQ2_M": 29, "IQ4_XS": 30, "BF16": 32}
_QUANTIZE_FLAGS = 0x100  # word 4 of llama_model_quantize_params: allow_requantize no, quantize_output_tensor yes
_SECOND_FLAGS = 0xffff  # of word 5: keep_split and dry_run; the two bytes behind them are padding and hold anything
_IMPORTANCE_WORD = 6  # llama_model_quantize_params.imatrix: 4 numbers and 8 bytes of flags before it
_TYPE_F32, _TYPE_F16 = 0, 1


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
        self._base = self._lib  # has ggml_get_name and its like
        self._declare()
        self._lib.llama_log_set(self._log_callback, None)
        if backends is not None:
            ggml = ctypes.CDLL(str(next(pathlib.Path(backends).glob("libggml.*so*"))))
            ggml.ggml_backend_load_all_from_path(str(backends).encode())
            self._base = ctypes.CDLL(str(next(pathlib.Path(backends).glob("libggml-base*so*"))))
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

    def open(self, path, context=512, threads=1, observer=None):
        """Loads a GGUF file. The caller closes the StockModel. One thread: the library spins at its barriers,
        which on a machine with other work costs more than the second thread brings.
        observer: called with each matrix product as observer(weight's name, inputs, experts, weight's shape):
        float32 [1, tokens, width], or [tokens, 1 or top_k, width] with experts int32 [tokens, top_k]; the shape
        is [experts, rows, width]. Views that last for the call. Keys and values are then kept in F32."""
        return StockModel(self, path, context, threads, observer)

    def check_tensor(self, address):
        """The ggml_tensor at an address; StockError when the library lays it out in another way."""
        tensor = _Tensor.from_address(address)
        self._base.ggml_get_name.restype = ctypes.c_void_p
        self._base.ggml_get_data.restype = ctypes.c_void_p
        for function, expected in (("ggml_get_name", address + _Tensor.name.offset),
                                   ("ggml_get_data", tensor.data)):
            getattr(self._base, function).argtypes = [ctypes.c_void_p]
            if getattr(self._base, function)(address) != expected:
                raise StockError("the layout of ggml_tensor has changed")
        return tensor

    def operation(self, tensor):
        """Name of the operation that computes a tensor: "MUL_MAT" ..."""
        self._base.ggml_op_name.restype = ctypes.c_char_p
        return self._base.ggml_op_name(tensor.op).decode()

    @property
    def has_quantizer(self):
        return hasattr(self._lib, "llama_model_quantize")

    def quantize(self, source, target, file_type, threads=1, importance=None):
        """Writes `target`, the file `source` quantised by llama.cpp's own quantiser to a name of FILE_TYPES; from
        a quantised source only "F32". Returns the library's log.
        importance: {tensor name: float32 importance of each input, of all experts one after the other}."""
        self._log.clear()
        self._lib.llama_model_quantize_default_params.restype = _Opaque
        parameters = self._lib.llama_model_quantize_default_params()
        parameters.words[0] = threads                # nthread
        parameters.words[1] = FILE_TYPES[file_type]  # ftype
        parameters.words[5] &= _SECOND_FLAGS
        if parameters.words[4] != _QUANTIZE_FLAGS or any(parameters.words[5:14]):
            raise StockError(f"llama_model_quantize_params has changed: {list(parameters.words[:16])}")
        parameters.words[4] |= int(file_type == "F32")  # allow_requantize
        if importance:
            array = importance_array(importance)
            address = ctypes.addressof(array)
            parameters.words[_IMPORTANCE_WORD] = address & 0xffffffff
            parameters.words[_IMPORTANCE_WORD + 1] = address >> 32
        self._lib.llama_model_quantize.argtypes = [ctypes.c_char_p, ctypes.c_char_p,
                                                   ctypes.POINTER(_Opaque)]
        if self._lib.llama_model_quantize(str(source).encode(), str(target).encode(),
                                          ctypes.byref(parameters)) != 0:
            self.refuse(f"stock llama.cpp does not quantise {source} to {file_type}")
        return b"".join(self._log).decode("utf-8", "replace")

    def quantize_rows(self, kind, rows, block, importance=None):
        """Bytes of float32 rows [rows, columns] as this library's quantiser makes them.
        kind: number of the type; block: (weights, bytes) of a block; importance: float32 [columns] or None."""
        quantize = self._base.ggml_quantize_chunk
        quantize.restype = ctypes.c_size_t
        quantize.argtypes = [ctypes.c_int, ctypes.c_void_p, ctypes.c_void_p, *[ctypes.c_int64] * 3, ctypes.c_void_p]
        rows = np.ascontiguousarray(rows, np.float32)
        packed = np.zeros(rows.size // block[0] * block[1], np.uint8)
        if importance is not None:
            importance = np.ascontiguousarray(importance, np.float32)
        pointer = None if importance is None else importance.ctypes.data
        written = quantize(kind, rows.ctypes.data, packed.ctypes.data, 0, *rows.shape, pointer)
        if written != packed.size:
            raise StockError(f"ggml_quantize_chunk wrote {written} bytes, expected {packed.size}")
        return packed



def importance_array(importance):
    """The C array of llama_model_imatrix_data for {name: float32 array}; it keeps the values alive."""
    array = (_Importance * (len(importance) + 1))()
    array.values = {name: np.ascontiguousarray(values, np.float32).ravel()
                    for name, values in importance.items()}
    for entry, (name, values) in zip(array, array.values.items()):
        entry.name, entry.size = name.encode(), values.size
        entry.data = values.ctypes.data_as(ctypes.POINTER(ctypes.c_float))
    return array


def strided(tensor, dtype):
    """A view of a tensor's first three dimensions, outermost first. Valid until the next operation."""
    shape, strides = tuple(tensor.ne[2::-1]), tuple(tensor.nb[2::-1])
    room = sum((n - 1) * step for n, step in zip(shape, strides)) + np.dtype(dtype).itemsize
    return np.ndarray(shape, dtype, (ctypes.c_char * room).from_address(tensor.data), strides=strides)


class StockModel:
    """A loaded model with one context of one sequence."""

    def __init__(self, library, path, context, threads, observer):
        self._library, self._lib = library, library._lib
        self._observer, self._failure = observer, None
        self._callback = _EVAL_CALLBACK(self._on_tensor)
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
        if self._observer is not None:
            self._observe(parameters)
        return parameters

    def _observe(self, parameters):
        """Sets cb_eval, and attention to F32 without flash attention, which rounds to F16. cb_eval and its data
        are null, and F16 twice follows; three kinds left to the model and flash attention left to the library
        are -1 each."""
        words, unset = list(parameters.words), 0xffffffff
        places = [i for i in range(4, 64, 2) if words[i:i + 6] == [0, 0, 0, 0, _TYPE_F16, _TYPE_F16]]
        kinds = [i for i in range(4, 64) if words[i:i + 4] == [unset] * 4]
        if len(places) != 1 or len(kinds) != 1:
            raise StockError(f"llama_context_params has changed: {words[:48]}")
        parameters.words[kinds[0] + 3] = 0
        address = ctypes.cast(self._callback, ctypes.c_void_p).value
        first = places[0]
        parameters.words[first], parameters.words[first + 1] = address & 0xffffffff, address >> 32
        parameters.words[first + 4] = parameters.words[first + 5] = _TYPE_F32

    def _on_tensor(self, address, ask, _data):
        try:
            tensor = self._library.check_tensor(address)
            operation = self._library.operation(tensor)
            if operation not in ("MUL_MAT", "MUL_MAT_ID"):
                return not ask
            weight = _Tensor.from_address(tensor.src[0])
            rows = _Tensor.from_address(tensor.src[1])
            wanted = weight.name.endswith(b".weight") and rows.type == _TYPE_F32
            if ask or not wanted:
                return wanted or not ask
            experts = None
            if operation == "MUL_MAT_ID":
                experts = strided(_Tensor.from_address(tensor.src[2]), np.int32)[0]
            shape = tuple(weight.ne[2::-1])
            self._observer(weight.name.decode(), strided(rows, np.float32), experts, shape)
        except Exception as error:  # an exception cannot pass through C
            self._failure = error
        return True

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
            if self._failure is not None:
                raise self._failure
            if code != 0:
                self._library.refuse(f"llama_decode returned {code}")
            rows = [np.ctypeslib.as_array(self._lib.llama_get_logits_ith(self._context, i),
                                          (self.vocab_size,)).copy() for i in range(count)]
        finally:
            self._lib.llama_batch_free(batch)
        return np.stack(rows)
