# SPDX-FileCopyrightText: The Winnow authors
# SPDX-License-Identifier: Apache-2.0
"""What the tests of eval and compress share beyond support.py: data files, JSON results, streams as
text."""

import json

import support
from support import SOURCE

GRAIN = SOURCE / "models" / "grain"


def winnow(*arguments, **options):
    return support.winnow(*arguments, **{"text": True, "timeout": 600, **options})


def tiny(name):
    return SOURCE / "testdata" / "models" / f"qwen3_moe-{name}"


class ResultTest(support.CommandTest):
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
        """As assert_fails; the message is UTF-8 whatever the input was. Returns its last line."""
        done = winnow(*arguments, **{**options, "text": False})
        self.assert_fails(done, code, *words)
        return done.stderr.decode().splitlines()[-1]
