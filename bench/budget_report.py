# SPDX-FileCopyrightText: The Winnow authors
# SPDX-License-Identifier: Apache-2.0
"""The table of bench/budget_curve.py: cells of several draws of the calibration text as one line, in Markdown.

A line's divergence at a token is its mean over the seeds; the standard error over windows says how far other text
could move it, the range over seeds how far other calibration text does. Every line is compared, token by token, with
the best of bits alone and the selections at its share.
"""

import re

from quality_report import plus_minus
from quality_statistics import Tokens, mean, mean_difference, ratio_of_means

TITLES = {"in": "KL", "foreign": "KL, foreign domains"}
COMPARED = "in"  # the text that decides which baseline is the best


def averaged(files):
    """Tokens whose divergence is the mean over the files'; ValueError when they hold different text."""
    read = [Tokens.read(path) for path in files]
    if any(tokens.window != read[0].window for tokens in read):
        raise ValueError("the seeds were not scored on the same tokens")
    return Tokens(read[0].window, [mean(values) for values in zip(*(tokens.kl for tokens in read), strict=True)],
                  read[0].same_top)


def mean_with_error(tokens):
    return mean_difference(tokens, tokens, tokens.kl, [0.0] * len(tokens.kl))


class Line:
    """One arm at one share: its entries, one for each seed."""

    def __init__(self, entries):
        self.entries = entries
        self.impossible = next((entry["impossible"] for entry in entries if "impossible" in entry), None)
        self.tokens = {}
        if self.impossible is None:
            for group in entries[0]["scores"]:
                self.tokens[group] = averaged([entry["scores"][group]["tokens_file"] for entry in entries])

    def seeds(self):
        return [entry["seed"] for entry in self.entries]

    def mean_of(self, key):
        values = [entry[key] for entry in self.entries]
        return None if None in values else mean(values)

    def seed_means(self, group):
        return [entry["scores"][group]["kl_divergence"] for entry in self.entries]


def lines_at(report, share):
    """{arm: Line} in the order of the arms."""
    lines = {}
    for arm in report["arms"]:
        entries = [e for e in report["entries"] if e["arm"] == arm and e["share"] == share]
        if entries:
            lines[arm] = Line(sorted(entries, key=lambda entry: entry["seed"]))
    return lines


def best_baseline(report, lines):
    """Name of the baseline of least divergence, of those that were measured with the most seeds; None without one."""
    possible = [name for name in report["baselines"] if name in lines and lines[name].impossible is None]
    most = max((len(lines[name].entries) for name in possible), default=0)
    possible = [name for name in possible if len(lines[name].entries) == most]
    return min(possible, key=lambda name: mean(lines[name].tokens[COMPARED].kl), default=None)


def ratio(line, base, group):
    """"1.23 ± 0.04", with the range over seeds when there are several; empty for what cannot be compared."""
    if base is None or line.seeds() != base.seeds() or group not in base.tokens:
        return ""
    ours, theirs = line.tokens[group], base.tokens[group]
    text = plus_minus(*ratio_of_means(ours, theirs, ours.kl, theirs.kl))
    each = [a / b for a, b in zip(line.seed_means(group), base.seed_means(group), strict=True)]
    return text + (f" ({min(each):.3f} - {max(each):.3f})" if len(each) > 1 else "")


def number(value):
    return "" if value is None else f"{value:.5f}"


def least_share(message, report):
    """What `winnow compress` said of a budget that cannot be met, as a share of the original."""
    least = re.search(r"has (\d+) bytes", message)
    return f"none: at least {100 * int(least[1]) / report['sixteen_bit_bytes']:.2f}" if least else message


def row(name, line, base, report, groups):
    reached = f"{100 * line.mean_of('tensor_bytes') / report['sixteen_bit_bytes']:.2f}"
    over = any(entry["tensor_bytes"] > entry["share"] / 100 * report["sixteen_bit_bytes"] for entry in line.entries)
    kept = "" if line.entries[0]["keep"] is None else ", ".join(str(entry["keep"]) for entry in line.entries)
    cells = [name, kept, reached + (" **above**" if over else ""), number(line.mean_of("predicted_kl")),
             number(line.mean_of("probe_kl"))]
    for group in groups:
        has = group in line.tokens
        cells += [plus_minus(*mean_with_error(line.tokens[group]), 5) if has else "",
                  ratio(line, base, group) if has else ""]
    return cells


def share_rows(report, share, groups):
    lines = lines_at(report, share)
    best = best_baseline(report, lines)
    rows = []
    for name, line in lines.items():
        if line.impossible is not None:
            cells = [name, "", least_share(line.impossible, report)] + [""] * (2 + 2 * len(groups))
        else:
            cells = row(name, line, lines[best] if best else None, report, groups)
            cells[0] += " (best baseline)" if name == best else ""
        rows.append(f"| {share:g} % | {' | '.join(cells)} |")
    return rows


def markdown(report):
    scored = [entry for entry in report["entries"] if entry["scores"]]
    groups = [group for group in TITLES if any(group in entry["scores"] for entry in scored)]
    counts = ", ".join(f"{TITLES[group]}: {next(e['scores'][group]['tokens'] for e in scored if group in e['scores'])}"
                       for group in groups)
    seeds = sorted({entry["seed"] for entry in report["entries"]})
    programs = sorted({entry["program"] for entry in report["entries"]})
    head = ["share", "arm", "experts kept", "share reached", "predicted KL", "KL on the probe"]
    for group in groups:
        head += [TITLES[group], f"ratio to the best baseline{'' if group == COMPARED else ', foreign'}"]
    return "\n".join([
        f"Tokens scored: {counts or 'none'}. Seeds: {', '.join(map(str, seeds)) or 'none'}. Digests of the program: "
        f"{', '.join(programs) or 'none'}. ± is one standard error over windows, a range is that of the seeds.", "",
        f"| {' | '.join(head)} |", "|" + "---|" * len(head),
        *(line for share in report["shares"] for line in share_rows(report, share, groups))])
