# SPDX-FileCopyrightText: The Winnow authors
# SPDX-License-Identifier: Apache-2.0
"""What the tests of single commands share: running the program, tiny models, broken copies."""

import os
import pathlib
import resource
import shutil
import signal
import subprocess
import tempfile
import unittest

BINARY = os.environ["WINNOW_BINARY"]
SOURCE = pathlib.Path(os.environ["WINNOW_SOURCE_DIR"])
TINY = SOURCE / "testdata/models/qwen3_moe-plain"
ENVIRONMENT = {"PATH": os.defpath, "LC_ALL": "C.UTF-8"}


def winnow(*arguments, **options):
    """Runs the program; streams are bytes, since generated text need not be UTF-8."""
    options = {"capture_output": True, "env": ENVIRONMENT, "timeout": 1800, "check": False,
               **options}
    return subprocess.run([BINARY, *map(str, arguments)], **options)


def start(*arguments, **options):
    options = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "env": ENVIRONMENT, **options}
    return subprocess.Popen([BINARY, *map(str, arguments)], **options)


def limit_file_size(size):
    """For preexec_fn: writes beyond `size` bytes fail with EFBIG, as a full disk does."""
    def limit():
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))
    return limit


class CommandTest(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory(prefix="winnow-test-")
        self.addCleanup(folder.cleanup)
        self.folder = pathlib.Path(folder.name)

    def tiny_copy(self, name="model"):
        """A copy of the tiny model that a test may damage."""
        target = self.folder / name
        shutil.copytree(TINY, target, ignore=shutil.ignore_patterns("golden"))
        return target

    def truncated_models(self):
        """A folder and a GGUF file, both cut short."""
        folder = self.tiny_copy("short")
        weights = folder / "model.safetensors"
        os.truncate(weights, weights.stat().st_size * 2 // 3)
        gguf = self.folder / "short.gguf"
        self.assert_ok(winnow("convert", TINY, "-o", gguf))
        os.truncate(gguf, gguf.stat().st_size * 2 // 3)
        return [folder, gguf]

    def assert_ok(self, done):
        self.assertEqual(done.returncode, 0, done.stderr.decode())
        return done

    def assert_fails(self, done, code, *words):
        """The exit code, nothing on standard output, and one last line with all the words."""
        message = done.stderr.decode()
        self.assertEqual(done.returncode, code, message)
        self.assertEqual(done.stdout, b"")
        last = message.splitlines()[-1]
        self.assertTrue(last.startswith("winnow: "), message)
        for word in words:
            self.assertIn(str(word), last)

    def assert_quiet_when_the_reader_has_gone(self, *arguments):
        read, write = os.pipe()
        os.close(read)
        with os.fdopen(write, "wb") as closed:
            done = winnow(*arguments, capture_output=False, stdout=closed, stderr=subprocess.PIPE)
        self.assertEqual(done.returncode, 0, done.stderr.decode())
        self.assertNotIn(b"winnow: ", done.stderr)
