# SPDX-FileCopyrightText: The Winnow authors
# SPDX-License-Identifier: Apache-2.0
"""What the tests of commands share: running the program, a folder that vanishes, refusals."""

import json
import os
import pathlib
import subprocess
import tempfile
import unittest

BINARY = os.environ["WINNOW_BINARY"]
SOURCE = pathlib.Path(os.environ["WINNOW_SOURCE_DIR"])
GRAIN = SOURCE / "models" / "grain"
ENVIRONMENT = {"PATH": os.defpath, "LC_ALL": "C.UTF-8"}


def winnow(*arguments, **options):
    options = {"capture_output": True, "text": True, "env": ENVIRONMENT, "timeout": 600,
               "check": False, **options}
    return subprocess.run([BINARY, *map(str, arguments)], **options)


def tiny(name):
    return SOURCE / "testdata" / "models" / f"qwen3_moe-{name}"


class CommandTest(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.folder = pathlib.Path(folder.name)

    def file(self, name, content):
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return path

    def succeed(self, *arguments):
        done = winnow(*arguments)
        self.assertEqual(done.returncode, 0, done.stderr)
        return done

    def json_of(self, *arguments):
        return json.loads(self.succeed(*arguments, "--json", "-").stdout)

    def refuse(self, code, words, *arguments, **options):
        done = winnow(*arguments, **options)
        self.assertEqual(done.returncode, code, done.stderr)
        self.assertEqual(done.stdout, "")
        last = done.stderr.splitlines()[-1]
        self.assertTrue(last.startswith("winnow: "), done.stderr)
        for word in words:
            self.assertIn(word, last)
        return last
