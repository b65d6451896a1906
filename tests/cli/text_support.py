# SPDX-FileCopyrightText: The Winnow authors
# SPDX-License-Identifier: Apache-2.0
"""What the tests of eval and compress share: text in place of bytes, JSON results, refusals."""

import json
import os
import subprocess

import support

GRAIN = support.SOURCE / "models" / "grain"
SOURCE = support.SOURCE
BINARY = support.BINARY
ENVIRONMENT = support.ENVIRONMENT


def winnow(*arguments, **options):
    return support.winnow(*arguments, **{"text": True, "timeout": 1800, **options})


def tiny(name):
    return SOURCE / "testdata" / "models" / f"qwen3_moe-{name}"


class CommandTest(support.CommandTest):
    def file(self, name, content):
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return path

    def succeed(self, *arguments):
        done = winnow(*arguments)
        self.assertEqual(done.returncode, 0, done.stderr)
        return done

    def peak_of(self, *arguments):
        """Largest resident memory of a run that must succeed."""
        process = subprocess.Popen([BINARY, *map(str, arguments)], env=ENVIRONMENT,
                                   stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
        with process.stderr:
            message = process.stderr.read()
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        self.assertEqual(process.returncode, 0, message)
        return usage.ru_maxrss * 1024

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
