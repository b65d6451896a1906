# SPDX-FileCopyrightText: The Winnow authors
# SPDX-License-Identifier: Apache-2.0
"""One file of each version of the extended layout is read for ever as it was when it was written."""

import json
import pathlib
import sys
import unittest

import support

FORMATS = support.SOURCE / "testdata" / "formats"
sys.path.insert(0, str(FORMATS))
import make_extended  # noqa: E402

VERSIONS = (1, 2, 3)


class ExtendedLayout(unittest.TestCase):
    def test_every_version_has_its_file(self):
        page = (support.SOURCE / "docs" / "formats" / "extended.md").read_text(encoding="utf-8")
        self.assertIn("## Version 3", page)
        self.assertNotIn("## Version 4", page, "a new version needs a golden file: testdata/formats/make_extended.py")
        for version in VERSIONS:
            self.assertTrue((FORMATS / f"extended-{version}.gguf").exists())

    def test_what_was_written_is_read(self):
        for version in VERSIONS:
            with self.subTest(version=version):
                expected = json.loads((FORMATS / f"extended-{version}.json").read_text(encoding="utf-8"))
                found = make_extended.found_in(FORMATS / f"extended-{version}.gguf")
                # Weights are the same to the bit, and so are sums of the scalar code, but for libm's exp.
                self.assertAlmostEqual(found.pop("nll"), expected.pop("nll"), delta=1e-6)
                self.assertEqual(found, expected)

    def test_a_newer_one_is_refused_with_a_sentence(self):
        data = (FORMATS / "extended-3.gguf").read_bytes()
        key = b"winnow.min_reader_version"
        at = data.index(key) + len(key) + 4  # behind the key and the type of its value
        self.assertEqual(data[at], 3)
        path = pathlib.Path(self.enterContext(support.tempfile.TemporaryDirectory())) / "newer.gguf"
        path.write_bytes(data[:at] + b"\x63" + data[at + 1:])
        done = support.winnow("inspect", path)
        self.assertEqual(done.returncode, 2)
        for word in ("newer.gguf", "99", "3"):
            self.assertIn(word, done.stderr.decode())


if __name__ == "__main__":
    unittest.main()
