#!/usr/bin/env python3
# SPDX-FileCopyrightText: The Winnow authors
# SPDX-License-Identifier: Apache-2.0
"""KL divergence against size: bits alone, expert selection with quantisation after it, and other arms.

    python3 bench/budget_curve.py MODEL --calib CALIB --valid VALID --work FOLDER [--hold-out cpp,german]
        [--shares 60,40,30,24,20,16,14,12] [--seeds 3] [--methods bits,reap,...] [--arm NAME=FLAGS ...]

A share is that of a file's tensor bytes among the tensor bytes of MODEL at 16 bits a weight. At each of them:
  bits     `winnow compress --bits B`: no expert goes, the types are chosen;
  a way to select experts (docs/formats/recipe.md): a recipe leaves all but `keep` experts of each layer out, and the
           rest is compressed to the same bytes. Of --keeps the one is taken whose file has the smallest divergence on
           the probe, the part of the calibration text that compress itself measures on: VALID chooses nothing. (With
           statistics, as here, that part is what `winnow profile` held out; for bits and arms compress cuts it);
  an arm   `winnow compress --bits B FLAGS`.
A seed is a draw of the calibration text: each file's lines, rotated by an amount of the seed's, of which the first
--draw are taken. What --hold-out names (files of both CALIB and VALID, by name without suffix) is no calibration text;
with --other it makes the column of foreign domains.

Every finished cell is a JSON file in FOLDER, and is not measured again; `compress --keep-measurements` serves all
shares of an arm and a seed. With --report-only the table is of the cells
that are there, and nothing is measured.
"""

import argparse
import dataclasses
import hashlib
import json
import os
import pathlib
import random
import shlex
import shutil
import sys

import budget_report
from quality import ROOT, Failed, run

SHARES = "60,40,30,24,20,16,14,12"
BITS = "bits"
SELECTIONS = ("frequency", "mean-norm", "mean-square-norm", "gated-norm-sum", "reap", "aimer", "stun", "gram")
CANNOT_BE_MET = 3  # exit code of compress: no file is as small as that
PRUNED_ROLES = ("expert_gate_proj", "expert_up_proj", "expert_down_proj", "router")


@dataclasses.dataclass(frozen=True)
class Arm:
    """One line of the table at each share."""

    name: str
    flags: tuple = ()
    select: str = ""  # of a recipe; empty: no expert is left out beforehand


def files_of(paths):
    """The files that `winnow` would read of --data PATH..., in its order."""
    found = []
    for path in map(pathlib.Path, paths):
        inside = sorted(p for p in path.iterdir() if p.is_file() and p.name[0] != ".") if path.is_dir() else [path]
        found += inside
    return found


def drawn(text, rng, share):
    """The first `share` of the text's lines, by characters, of the lines rotated by a random amount."""
    lines = text.splitlines(keepends=True)
    if not lines:
        return text
    if not lines[-1].endswith("\n"):
        lines[-1] += "\n"
    start = rng.randrange(len(lines))
    taken, wanted = [], share * sum(map(len, lines))
    for line in lines[start:] + lines[:start]:
        if wanted <= 0:
            break
        taken.append(line)
        wanted -= len(line)
    return "".join(taken)


def digest(paths):
    """Of the contents and names of files."""
    whole = hashlib.sha256()
    for path in paths:
        whole.update(path.name.encode() + b"\0" + hashlib.sha256(path.read_bytes()).digest())
    return whole.hexdigest()[:16]


def write_json(path, value):
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f"writing-{path.name}")
    partial.write_text(json.dumps(value, indent=1) + "\n", encoding="utf-8")
    partial.rename(path)


class Curve:
    """All cells of one curve, in one folder."""

    def __init__(self, options, say):
        self.options, self.say = options, say
        self.folder = pathlib.Path(options.work)
        self.program = digest([pathlib.Path(options.winnow)])
        report = json.loads(self.winnow("inspect", options.model, "--json", "-")[0])
        self.parameters, self.experts = report["parameters"], report["spec"]["num_experts"]
        roles = report["bytes_by_role"]
        self.pruned = sum(roles[role]["parameters"] for role in PRUNED_ROLES if role in roles)
        self.calibration, own_held_out = self.divide(options.calib, "--calib")
        valid, held_out = self.divide(options.valid, "--valid")
        if options.hold_out and not (own_held_out or held_out):
            raise Failed(f"--hold-out {','.join(options.hold_out)}: no file of --calib or --valid has such a name")
        self.texts = {"in": valid, "foreign": held_out + files_of(options.other)}

    def divide(self, paths, flag):
        """(files, files of the domains that are held out)."""
        files = files_of(paths)
        held_out = [path for path in files if path.stem in self.options.hold_out]
        rest = [path for path in files if path not in held_out]
        if not rest:
            raise Failed(f"{flag}: no text is left")
        return rest, held_out

    def winnow(self, *arguments):
        return run([self.options.winnow, *arguments, "--quiet"])

    def threads(self):
        return ("--threads", self.options.threads)

    def draw(self, seed):
        """The files of a seed's calibration text; they are the same wherever they are drawn."""
        paths = []
        for place, path in enumerate(self.calibration):
            target = self.folder / f"seed-{seed}" / "text" / str(place) / path.name
            rng = random.Random(f"{seed} {path.name}")
            target.parent.mkdir(parents=True, exist_ok=True)
            with path.open(encoding="utf-8", errors="surrogateescape", newline="") as file:
                text = drawn(file.read(), rng, self.options.draw)
            with target.open("w", encoding="utf-8", errors="surrogateescape", newline="") as file:
                file.write(text)
            paths.append(target)
        return paths

    def calibration_flags(self, seed):
        return ("--data", *self.draw(seed), "--tokens", self.options.tokens, "--context", self.options.context,
                *self.threads())

    def statistics(self, seed):
        """What `winnow profile` says of the seed's text, on which experts are selected; its name says of which text."""
        name = f"statistics-{digest(self.draw(seed))}-{self.options.tokens}-{self.options.context}"
        path = self.folder / f"seed-{seed}" / name
        if not path.exists():
            self.say(f"seed {seed}: statistics")
            self.winnow("profile", self.options.model, "-o", path, *self.calibration_flags(seed))
        return path

    def cell(self, path, settings, make):
        """The cell at `path`: what is there, or what `make` gives, whose keys join the settings."""
        if path.exists():
            cell = json.loads(path.read_text(encoding="utf-8"))
            if cell["settings"] != settings:
                raise Failed(f"{path}: was measured with other settings; use another --work, or remove it")
            return cell
        if self.options.report_only:
            return None
        cell = {"settings": settings, "program": self.program, **make()}
        write_json(path, cell)
        return cell

    def bits(self, share, keep):
        """--bits that gives `share` percent of the original's 16-bit tensor bytes: it counts the file's own weights."""
        left = self.parameters - (self.pruned * (self.experts - keep) // self.experts if keep else 0)
        return 16 * share / 100 * self.parameters / left

    def place(self, arm, share, seed, keep):
        name = f"keep-{keep}" if keep else "file"
        return self.folder / f"seed-{seed}" / arm.name / f"{share:g}" / name

    def measured(self, arm, seed, keep):
        """Where files are written: at all shares in one place, so that what is measured once serves all of them."""
        return self.folder / f"seed-{seed}" / arm.name / f"measured-{self.program}" / f"{keep or 'file'}.gguf"

    def forget(self, arm, seed):
        """What was measured for a seed that is done."""
        shutil.rmtree(self.measured(arm, seed, None).parent, ignore_errors=True)

    def settings(self, arm, share, seed, keep):
        return {"model": str(self.options.model), "calibration": digest(self.calibration), "draw": self.options.draw,
                "tokens": self.options.tokens, "context": self.options.context, "seed": seed, "share": share,
                "select": arm.select, "keep": keep, "flags": [*self.options.flags, *arm.flags]}

    def compress(self, arm, share, seed, keep):
        """Writes the file; what its record says, or why there can be none."""
        place, whole = self.place(arm, share, seed, keep), self.measured(arm, seed, keep)
        place.parent.mkdir(parents=True, exist_ok=True)
        whole.parent.mkdir(parents=True, exist_ok=True)
        recipe = ()
        if arm.select:
            text = f'version = 1\n[experts]\nkeep = {keep}\nselect = "{arm.select}"\n'
            whole.with_suffix(".toml").write_text(text, encoding="utf-8")
            recipe = ("--recipe", whole.with_suffix(".toml"), "--statistics", self.statistics(seed))
        try:
            _, seconds = self.winnow("compress", self.options.model, "-o", whole, "--force", "--keep-measurements",
                                     "--bits", repr(self.bits(share, keep)), *self.calibration_flags(seed), *recipe,
                                     *self.options.flags, *arm.flags, "--report", place.with_suffix(".report"))
        except Failed as failure:
            if failure.code != CANNOT_BE_MET:
                raise
            return {"impossible": str(failure).strip().splitlines()[-1].strip()}
        whole.replace(place.with_suffix(".gguf"))
        record = json.loads((place.with_suffix(".report") / "compress.json").read_text(encoding="utf-8"))
        return {"tensor_bytes": record["tensor_bytes"], "file_bytes": record["file_bytes"], "seconds": seconds,
                "predicted_kl": record.get("predicted_kl"), "probe_kl": record["measured"]["kl_divergence"],
                "calibration_tokens": record["calibration_tokens"]}

    def candidate(self, arm, share, seed, keep):
        place, made = self.place(arm, share, seed, keep), []

        def make():
            made.append(self.compress(arm, share, seed, keep))
            return made[0]
        cell = self.cell(place.with_suffix(".json"), self.settings(arm, share, seed, keep), make)
        if made and "impossible" not in cell:
            self.say(f"seed {seed}, {share:g} %, {arm.name}{f' keeping {keep}' if keep else ''}: KL on the probe "
                     f"{cell['probe_kl']:.5f}, {cell['seconds']:.0f} s")
        return cell

    def keeps(self, arm):
        return [keep for keep in self.options.keeps if keep < self.experts] if arm.select else [None]

    def chosen(self, arm, share, seed):
        """(number of experts that are kept, cell) of the smallest divergence on the probe, or (None, cell) of one that
        says why none is possible; None while a candidate is missing."""
        cells = [(keep, self.candidate(arm, share, seed, keep)) for keep in self.keeps(arm)]
        if any(cell is None for _, cell in cells):
            return None
        possible = [(keep, cell) for keep, cell in cells if "impossible" not in cell]
        return min(possible, key=lambda entry: entry[1]["probe_kl"]) if possible else (None, cells[-1][1])

    def scores(self, arm, share, seed, keep, group):
        """The file's divergence from MODEL on one of the texts."""
        place, texts = self.place(arm, share, seed, keep), self.texts[group]
        tokens = place.with_suffix(f".{group}-tokens.json")

        def make():
            if not place.with_suffix(".gguf").exists():  # it was the second best when it was made
                self.compress(arm, share, seed, keep)
            text, _ = self.winnow("eval", place.with_suffix(".gguf"), "--data", *texts, "--reference",
                                  self.options.model, "--context", self.options.context, "--tokens",
                                  self.options.valid_tokens, "--json", "-", "--tokens-out", tokens, *self.threads())
            scores = json.loads(text)
            return {key: scores[key] for key in ("tokens", "kl_divergence", "kl_standard_error", "kl_p99",
                                                 "top1_agreement")}
        settings = {**self.settings(arm, share, seed, keep), "text": digest(texts),
                    "valid_tokens": self.options.valid_tokens}
        cell = self.cell(place.with_suffix(f".{group}.json"), settings, make)
        return cell and {**cell, "tokens_file": str(tokens)}

    def measure(self, arm, share, seed):
        """The entry of one arm at one share and seed, or None while it is not complete."""
        chosen = self.chosen(arm, share, seed)
        if chosen is None:
            return None
        keep, cell = chosen
        entry = {"arm": arm.name, "share": share, "seed": seed, "keep": keep, **cell, "scores": {}}
        if "impossible" not in cell:
            for group in (group for group, texts in self.texts.items() if texts):
                entry["scores"][group] = self.scores(arm, share, seed, keep, group)
            if None in entry["scores"].values():
                return None
        for path in self.place(arm, share, seed, keep).parent.glob("*.gguf"):
            path.unlink()
        return entry


def arms_of(options):
    arms = [Arm(name, (), "" if name == BITS else name) for name in options.methods]
    for text in options.arm:
        name, _, flags = text.partition("=")
        arms.append(Arm(name, tuple(shlex.split(flags))))
    names = [arm.name for arm in arms]
    if len(set(names)) != len(names) or not all(name.replace("-", "").isalnum() for name in names):
        raise Failed(f"names of arms have to differ and to be letters, digits and hyphens: {', '.join(names)}")
    return arms


def measure(options, say):
    curve, arms = Curve(options, say), arms_of(options)
    entries = []
    for seed in range(1, options.seeds + 1):
        for arm in arms:
            entries += [curve.measure(arm, share, seed) for share in options.shares]
            curve.forget(arm, seed)
    return {"schema_version": 1, "model": str(options.model), "sixteen_bit_bytes": 2 * curve.parameters,
            "arms": [arm.name for arm in arms], "baselines": options.methods, "shares": options.shares,
            "entries": [entry for entry in entries if entry]}


def names_in(text):
    return [name for name in text.split(",") if name]


def parse(arguments):
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", help="safetensors folder or GGUF file in full precision")
    parser.add_argument("--calib", nargs="+", required=True, help="calibration text: files or folders")
    parser.add_argument("--valid", nargs="+", required=True, help="text to score on")
    parser.add_argument("--other", nargs="+", default=[], help="more text of foreign domains to score on")
    parser.add_argument("--hold-out", type=names_in, default=[], help="domains that are no calibration text")
    parser.add_argument("--work", required=True, help="folder of the cells")
    parser.add_argument("--shares", type=lambda text: [float(share) for share in names_in(text)], default=SHARES,
                        help="percent of the 16-bit tensor bytes")
    parser.add_argument("--seeds", type=int, default=3, help="draws of the calibration text")
    parser.add_argument("--draw", type=float, default=0.75, help="of each calibration file, how much a draw takes")
    parser.add_argument("--methods", type=names_in, default=",".join((BITS, *SELECTIONS)),
                        help="of bits and " + " ".join(SELECTIONS))
    parser.add_argument("--keeps", type=lambda text: [int(keep) for keep in names_in(text)], default="31,28,24,20,16",
                        help="numbers of experts that a selection may keep")
    parser.add_argument("--arm", action="append", default=[], metavar="NAME=FLAGS",
                        help="another arm, with these flags of winnow compress; several are possible")
    parser.add_argument("--flags", type=shlex.split, default=[], help="flags of winnow compress for all arms")
    parser.add_argument("--tokens", type=int, default=0, help="calibration tokens; 0 means all of the draw")
    parser.add_argument("--valid-tokens", type=int, default=0, help="score on at most this many; 0 means all")
    parser.add_argument("--context", type=int, default=512)
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--report-only", action="store_true", help="a table of the cells that are there")
    parser.add_argument("--json", metavar="FILE", help="write what the table is made of to this file")
    parser.add_argument("--winnow", type=pathlib.Path, default=ROOT / "build/release/bin/winnow", help="the program")
    return parser.parse_args(arguments)


def main(arguments, out=print, say=lambda text: print(text, file=sys.stderr, flush=True)):
    """Exit code: 0, or 2 when a command failed."""
    options = parse(arguments)
    try:
        result = measure(options, say)
    except (Failed, OSError, ValueError) as error:
        say(f"budget_curve: {error}")
        return 2
    out(budget_report.markdown(result))
    if options.json:
        write_json(pathlib.Path(options.json), result)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
