# SPDX-FileCopyrightText: The Winnow authors
# SPDX-License-Identifier: Apache-2.0
"""Each check can fail: small trees with one fault each."""

import pathlib
import subprocess
import tempfile
import unittest

import check_docs
import check_file_length
import check_functions
import check_heavy_headers
import check_layers
import check_licences
import check_names
import check_registries
import check_symbols
import count_results

_ROWS = """winnow_module(base LIBRARIES fmt::fmt)
winnow_module(quant DEPS base)
winnow_module(formats DEPS quant)
winnow_module(kernels DEPS quant)
winnow_module(cli DEPS formats kernels)
"""


class Tree(unittest.TestCase):
    """A fixture: a folder with the files that the test names."""

    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.root = pathlib.Path(folder.name)

    def tree(self, **files):
        for name, text in files.items():
            self.file(name, text)
        return self.root

    def file(self, name, text):
        path = self.root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
        return self.root

    def assert_finds(self, problems, *words):
        self.assertEqual(len(problems), 1, problems)
        for word in words:
            self.assertIn(word, problems[0])


class Layers(Tree):
    def check(self, path, include):
        self.file("src/CMakeLists.txt", _ROWS)
        return check_layers.problems(self.file(path, f'#include "{include}"\n'))

    def test_a_lower_module_is_allowed(self):
        self.assertEqual(self.check("src/formats/a.cc", "base/error.h"), [])

    def test_a_higher_module_is_refused(self):
        self.assert_finds(self.check("src/base/a.h", "quant/codec.h"), "src/base/a.h:1", "quant")

    def test_a_neighbour_is_refused(self):
        self.assert_finds(self.check("src/formats/a.cc", "kernels/k.h"), "may use only")

    def test_the_detail_of_another_module_is_refused(self):
        self.assert_finds(self.check("src/formats/a.cc", "quant/detail/x.h"), "private to 'quant'")

    def test_the_detail_of_the_own_module_is_allowed(self):
        self.assertEqual(self.check("src/quant/a.cc", "quant/detail/x.h"), [])

    def test_a_commented_include_does_not_count(self):
        self.file("src/CMakeLists.txt", _ROWS)
        self.assertEqual(check_layers.problems(self.file("src/base/a.h", '// #include "quant/x.h"\n')), [])

    def test_a_row_that_points_up_is_refused(self):
        root = self.file("src/CMakeLists.txt", "winnow_module(base DEPS quant)\nwinnow_module(quant)\n")
        self.assert_finds(check_layers.problems(root), "not declared above")

    def test_a_module_without_a_row_is_refused(self):
        self.assert_finds(self.check("src/stray/a.cc", "base/error.h"), "no row")


class Registries(Tree):
    LIST = "src/quant/codecs/registry.def"
    CODEC = "namespace x {\nextern const Codec kA{.name = 1};\n}\n"

    def test_agreement_is_silent(self):
        self.file(self.LIST, "// list\nCODEC(kA)\n")
        self.assertEqual(check_registries.problems(self.file("src/quant/codecs/a.cc", self.CODEC)), [])

    def test_a_forgotten_line_is_found(self):
        self.file(self.LIST, "CODEC(kA)\n")
        self.file("src/quant/codecs/a.cc", self.CODEC)
        problems = check_registries.problems(
            self.file("src/quant/codecs/b.cc", "extern const Codec kB{.name = 2};\n"))
        self.assertTrue(any("'kB'" in problem for problem in problems), problems)

    def test_a_line_without_a_file_is_found(self):
        self.assert_finds(check_registries.problems(self.file(self.LIST, "CODEC(kA)\n")), "0 files")

    def test_a_line_written_twice_is_found(self):
        self.file(self.LIST, "CODEC(kA)\nCODEC(kA)\n")
        self.assert_finds(check_registries.problems(self.file("src/quant/codecs/a.cc", self.CODEC)),
                          "twice")

    def test_a_helper_among_extensions_is_found(self):
        self.file(self.LIST, "CODEC(kA)\n")
        self.file("src/quant/codecs/a.cc", self.CODEC)
        self.assert_finds(check_registries.problems(self.file("src/quant/codecs/h.cc", "int x;\n")),
                          "h.cc")

    def test_a_kernel_without_a_function_is_found(self):
        self.file("src/kernels/dispatch_x86.def", "ISA(avx2, kAvx2)\n")
        self.file("src/kernels/avx2/table.def", "KERNEL(dot)\n")
        self.assert_finds(check_registries.problems(self.file("src/kernels/avx2/a.cc", "int y;\n")),
                          "'dot'")

    def test_a_kernel_in_an_included_algorithm_counts(self):
        self.file("src/kernels/dispatch_x86.def", "ISA(avx2, kAvx2)\n")
        self.file("src/kernels/avx2/table.def", "KERNEL(dot)\n")
        self.file("src/kernels/detail/dot.inl", "float dot(int n) {}\n")
        self.assertEqual(check_registries.problems(
            self.file("src/kernels/avx2/a.cc", '#include "kernels/detail/dot.inl"\n')), [])

    def test_an_isa_that_no_dispatch_names_is_found(self):
        root = self.file("src/kernels/avx2/table.def", "// none yet\n")
        self.assert_finds(check_registries.problems(root), "never used")


class Symbols(Tree):
    def test_library_code_that_aborts_and_prints_is_found(self):
        source = self.root / "bad.cc"
        source.write_text('#include <cstdio>\n#include <cstdlib>\n'
                          'void f(int x) { if (x) std::abort(); std::printf("%d", x); }\n')
        archive = self.root / "libwinnow_bad.a"
        subprocess.run(["g++", "-c", "-o", self.root / "bad.o", source], check=True)
        subprocess.run(["ar", "cr", archive, self.root / "bad.o"], check=True)
        problems = check_symbols.problems([archive])
        self.assertEqual(len(problems), 2, problems)

    def test_streams_and_the_environment_are_found(self):
        listing = "a.o:    U std::cout\na.o:    U getenv\na.o:    U memcpy\n"
        self.assertEqual([symbol for _, symbol in check_symbols.forbidden_symbols(listing)],
                         ["std::cout", "getenv"])


class HeavyHeaders(Tree):
    def test_a_heavy_header_outside_its_files_is_found(self):
        root = self.file("src/model/a.cc", "#include <nlohmann/json.hpp>\n")
        self.assert_finds(check_heavy_headers.problems(root), "src/model/a.cc:1")

    def test_its_own_file_may(self):
        root = self.file("src/base/json.h", "#include <nlohmann/json.hpp>\n")
        self.assertEqual(check_heavy_headers.problems(root), [])


class Names(Tree):
    def test_a_path_of_one_machine_is_found(self):
        self.assert_finds(check_names.problems(self.file("a.md", "see /ho" "me/me/x\n")), "a.md:1")

    def test_an_open_end_without_an_issue_is_found(self):
        self.assert_finds(check_names.problems(self.file("a.cc", "// TO" "DO later\n")), "issue")

    def test_an_open_end_with_an_issue_is_allowed(self):
        self.assertEqual(check_names.problems(self.file("a.cc", "// TO" "DO(#7): later\n")), [])


class Functions(unittest.TestCase):
    def test_finds_functions_methods_and_tests_with_their_lengths(self):
        source = """namespace a {
// f() {
struct S {
  S() : x_{1}, y_(2) {
    g();
  }
  int m() const { return '{'; }
  int x_{0};
};
constexpr std::array kX = {f(1), g(2)};
template <typename T>
auto f(T t) -> int {
  if (t) {
    return "}"[0];
  }
  return 1;
}
}  // namespace a
"""
        self.assertEqual(check_functions.functions(source), [("S", 4, 3), ("m", 7, 1), ("f", 11, 7)])

    def test_too_many_long_functions_fail(self):
        measured = [("a.cc", "f", 1, 61)] + [("a.cc", "g", 1, 5)] * 9
        self.assertEqual(len(check_functions.problems(measured)), 2)

    def test_a_few_long_functions_pass(self):
        self.assertEqual(check_functions.problems([("a.cc", "f", 1, 61)] + [("a.cc", "g", 1, 5)] * 99), [])


class FileLength(Tree):
    def test_a_long_file_is_found(self):
        root = self.file("src/a.cc", "\n" * 501)
        self.assert_finds(check_file_length.problems(root, {}), "501 lines")

    def test_an_exception_needs_to_be_needed(self):
        root = self.file("src/a.cc", "\n")
        self.assert_finds(check_file_length.problems(root, {"src/a.cc": "a table"}), "short again")


class Licences(Tree):
    HEADER = "// SPDX-" "FileCopyrightText: The Winnow authors\n// SPDX-" "License-Identifier: Apache-2.0\n"

    def setUp(self):
        super().setUp()
        self.file("LICENSES/Apache-2.0.txt", "text")
        self.file(".reuse/dep5", "Files: *.md\nLicense: Apache-2.0\n")

    def test_marked_files_pass(self):
        self.file("README.md", "x")
        self.assertEqual(check_licences.problems(self.file("src/a.cc", self.HEADER)), [])

    def test_a_source_without_marks_is_found(self):
        self.assert_finds(check_licences.problems(self.file("src/a.cc", "int x;\n")), "SPDX lines")

    def test_a_file_that_no_pattern_covers_is_found(self):
        self.assert_finds(check_licences.problems(self.file("data.bin", "x")), "data.bin")

    def test_a_licence_without_its_text_is_found(self):
        self.file(".reuse/dep5", "Files: *.md\nLicense: Apache-2.0\n\nFiles: d/*\nLicense: BSL-1.0\n")
        self.assert_finds(check_licences.problems(self.file("d/x.txt", "x")), "BSL-1.0.txt: missing")


class Docs(unittest.TestCase):
    def test_marked_blocks_are_found_and_others_left(self):
        text = "```sh run\nwinnow --version\n```\n\n```sh\nrm -rf x\n```\n"
        self.assertEqual([block.text for block in check_docs.blocks(text)], ["winnow --version\n"])

    def test_a_failing_command_is_reported(self):
        block = check_docs.Block(line=3, text="true\nfalse\n")
        self.assertIn("exit code 1", check_docs.run_block("a.md", block, {}, ".").problem)


class Results(unittest.TestCase):
    def test_adds_up_what_each_kind_of_program_says(self):
        log = ("98% tests passed, 2 tests failed out of 100\nRan 5 tests in 0.1s\nFAILED (failures=1, errors=1)\n"
               "3 passed, 1 failed\nfuzz_gguf: 120 inputs, no failure\n")
        self.assertEqual(count_results.count(log), (98 + 3 + 3 + 1, 2 + 2 + 1))


if __name__ == "__main__":
    unittest.main()
