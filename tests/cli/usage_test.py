# SPDX-FileCopyrightText: The Winnow authors
# SPDX-License-Identifier: Apache-2.0
"""The command line's contract with people and scripts: exit codes, streams, help, man page,
completion, version."""

import os
import pathlib
import pty
import re
import select
import signal
import subprocess
import tempfile
import unittest

BINARY = os.environ["WINNOW_BINARY"]
ENVIRONMENT = {"PATH": os.defpath, "LC_ALL": "C.UTF-8"}


def winnow(*arguments, **options):
    options = {"capture_output": True, "text": True, "env": ENVIRONMENT, "timeout": 120,
               "check": False, **options}
    return subprocess.run([BINARY, *arguments], **options)


def commands():
    """The names that `winnow --help` lists."""
    listing = winnow("--help").stdout.split("Commands:\n")[1].split("\n\n")[0]
    return re.findall(r"^  (\w+)", listing, re.MULTILINE)


class Usage(unittest.TestCase):
    def assert_refused(self, done, *words):
        self.assertEqual(done.returncode, 1, done.stderr)
        self.assertEqual(done.stdout, "")
        self.assertEqual(done.stderr.count("\n"), 1, "one line")
        self.assertTrue(done.stderr.startswith("winnow: "), done.stderr)
        for word in words:
            self.assertIn(word, done.stderr)

    def test_no_arguments_is_a_usage_error_that_names_help(self):
        self.assert_refused(winnow(), "winnow --help")

    def test_an_unknown_command_is_refused_with_the_nearest_one(self):
        self.assert_refused(winnow("complection"), "complection", "completion")

    def test_an_unknown_flag_is_refused_with_the_nearest_one(self):
        self.assert_refused(winnow("man", "--quit"), "man", "--quit", "--quiet")

    def test_a_missing_argument_is_named(self):
        self.assert_refused(winnow("completion"), "SHELL", "winnow completion --help")

    def test_a_wrong_choice_lists_the_choices(self):
        self.assert_refused(winnow("completion", "tcsh"), "tcsh", "bash", "zsh", "fish")

    def test_a_surplus_argument_is_named(self):
        self.assert_refused(winnow("completion", "bash", "surplus"), "surplus")

    def test_a_flag_before_the_command_is_refused(self):
        self.assert_refused(winnow("--wrong", "man"), "--wrong")


class Help(unittest.TestCase):
    def test_help_goes_to_standard_output_and_succeeds(self):
        for arguments in (["--help"], ["-h"], *([name, "--help"] for name in commands())):
            with self.subTest(arguments=arguments):
                done = winnow(*arguments)
                self.assertEqual((done.returncode, done.stderr), (0, ""))
                self.assertTrue(done.stdout.startswith("Usage: winnow"))

    def test_help_wins_over_missing_arguments(self):
        self.assertEqual(winnow("completion", "--help").returncode, 0)

    def test_help_fits_a_hundred_columns(self):
        for name in commands():
            for line in winnow(name, "--help").stdout.splitlines():
                self.assertLessEqual(len(line), 100, line)

    def test_every_option_of_every_command_is_explained(self):
        for name in commands():
            for line in winnow(name, "--help").stdout.split("Options:\n")[1].splitlines():
                self.assertRegex(line, r"^ {32}\S|^  -.*\S$")

    def test_version_says_what_was_built_and_from_what(self):
        done = winnow("--version")
        self.assertEqual(done.returncode, 0)
        self.assertRegex(done.stdout, r"^winnow \d+\.\d+\.\d+\n")
        for key in ("commit", "compiler", "build", "isa", "formats"):
            self.assertRegex(done.stdout, rf"(?m)^{key}: \S")
        self.assertIn("GGUF 3", done.stdout)


class Streams(unittest.TestCase):
    def test_a_reader_that_went_away_is_no_failure(self):
        reader, writer = os.pipe()
        os.close(reader)
        done = subprocess.run([BINARY, "man"], stdout=writer, stderr=subprocess.PIPE, env=ENVIRONMENT,
                              check=False)
        os.close(writer)
        self.assertEqual((done.returncode, done.stderr), (0, b""))

    def test_a_standard_output_that_was_never_open_is_no_failure(self):
        done = subprocess.run(["bash", "-c", f"'{BINARY}' man >&-"], capture_output=True,
                              env=ENVIRONMENT, check=False)
        self.assertEqual((done.returncode, done.stderr), (0, b""))

    def test_a_full_disk_is_a_failure_of_the_system(self):
        with open("/dev/full", "w", encoding="utf-8") as full:
            done = winnow("man", capture_output=False, stdout=full, stderr=subprocess.PIPE)
        self.assertEqual(done.returncode, 4)
        self.assertIn("No space left", done.stderr)

    def test_messages_are_coloured_on_a_terminal_only_and_not_against_the_users_will(self):
        self.assertNotIn(b"\x1b", winnow("nothing", text=False).stderr)
        self.assertIn(b"\x1b[", self.on_terminal({"TERM": "xterm"}))
        self.assertNotIn(b"\x1b", self.on_terminal({"TERM": "xterm", "NO_COLOR": "1"}))
        self.assertNotIn(b"\x1b", self.on_terminal({"TERM": "dumb"}))

    def on_terminal(self, environment):
        ours, theirs = pty.openpty()
        try:
            subprocess.run([BINARY, "nothing"], stderr=theirs, env={**ENVIRONMENT, **environment},
                           check=False)
            ready, _, _ = select.select([ours], [], [], 10)
            self.assertTrue(ready, "nothing on the terminal")
            return os.read(ours, 4096)
        finally:
            os.close(ours)
            os.close(theirs)


class Signals(unittest.TestCase):
    def stopped_by(self, signal_number):
        """Stops a process that cannot finish, because nobody empties its pipe."""
        reader, writer = os.pipe()
        os.set_blocking(writer, False)
        try:
            while True:
                os.write(writer, b"x" * 4096)  # until the pipe is full
        except BlockingIOError:
            os.set_blocking(writer, True)
        process = subprocess.Popen([BINARY, "man"], stdout=writer, stderr=subprocess.PIPE,
                                   env=ENVIRONMENT)
        self.addCleanup(process.stderr.close)
        self.wait_until_blocked(process)
        process.send_signal(signal_number)
        code = process.wait(timeout=60)
        os.close(reader)
        os.close(writer)
        return code

    def wait_until_blocked(self, process):
        """Until the kernel says that it sleeps in the write to the pipe."""
        for _ in range(3000):
            syscall = pathlib.Path(f"/proc/{process.pid}/syscall").read_text(encoding="ascii")
            if syscall.split()[:2] == ["1", "0x1"]:
                return
            select.select([], [], [], 0.01)
        self.fail("it never blocked")

    def test_sigint_ends_with_130(self):
        self.assertEqual(self.stopped_by(signal.SIGINT), 130)

    def test_sigterm_ends_with_143(self):
        self.assertEqual(self.stopped_by(signal.SIGTERM), 143)


class Generated(unittest.TestCase):
    def test_completion_for_bash_is_valid_and_offers_commands_and_flags(self):
        script = winnow("completion", "bash").stdout
        subprocess.run(["bash", "-n"], input=script, text=True, check=True)
        self.assertEqual(self.bash_offers(script, "comple"), sorted(
            name for name in commands() if name.startswith("comple")))
        self.assertEqual(self.bash_offers(script, "completion", "z"), ["zsh"])
        self.assertEqual(self.bash_offers(script, "man", "--q"), ["--quiet"])

    def bash_offers(self, script, *words):
        line = " ".join(("winnow", *words))
        probe = (f"{script}\nCOMP_WORDS=({line}); COMP_CWORD={len(words)}; _winnow\n"
                 'printf "%s\\n" "${COMPREPLY[@]}"')
        done = subprocess.run(["bash", "-c", probe], capture_output=True, text=True, check=True)
        return sorted(done.stdout.split())

    def test_completions_name_every_command(self):
        for shell in ("bash", "zsh", "fish"):
            script = winnow("completion", shell).stdout
            for name in commands():
                self.assertRegex(script, rf"\b{name}\b", shell)

    def test_the_man_page_renders_without_warnings_and_holds_every_option(self):
        page = winnow("man").stdout
        with tempfile.NamedTemporaryFile("w", suffix=".1") as file:
            file.write(page)
            file.flush()
            done = subprocess.run(["man", "--warnings=all", "-l", file.name], capture_output=True,
                                  text=True, check=True,
                                  env={**ENVIRONMENT, "MANWIDTH": "100", "MANPAGER": "cat"})
        self.assertEqual(done.stderr, "")
        rendered = re.sub(r".\x08", "", done.stdout)
        for name in commands():
            for flag in re.findall(r"(?m)^  .*?(--[\w-]+)", winnow(name, "--help").stdout):
                self.assertIn(flag, rendered)


if __name__ == "__main__":
    unittest.main()
