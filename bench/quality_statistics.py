# SPDX-FileCopyrightText: The Winnow authors
# SPDX-License-Identifier: Apache-2.0
"""Two models scored on the same tokens: ratio and difference of their distances from a third, with paired errors.

Windows are the clusters: they are independent, the tokens within one are not. A token is in both models' sums, so
most of what makes one text harder than another cancels. Standard library only.
"""

import dataclasses
import json
import math
import pathlib
import random

BOOTSTRAP = 200  # resamples of the windows for what has no formula
SEED = 1


@dataclasses.dataclass
class Tokens:
    """What `winnow eval --tokens-out` wrote: lists over scored tokens."""

    window: list
    kl: list
    same_top: list

    @classmethod
    def read(cls, path):
        data = json.loads(pathlib.Path(path).read_text(encoding="utf-8"))
        return cls(data["window"], data["kl_divergence"], data["same_top"])


def mean(values):
    return math.fsum(values) / len(values)


def nearest_rank(values, share):
    """The smallest value that at least `share` of all do not exceed."""
    return sorted(values)[max(0, math.ceil(share * len(values)) - 1)]


def window_sums(tokens, values):
    """[(sum, tokens)] of each window, in order of their numbers."""
    sums = {}
    for window, value in zip(tokens.window, values, strict=True):
        entry = sums.setdefault(window, [0.0, 0])
        entry[0] += value
        entry[1] += 1
    return [tuple(sums[window]) for window in sorted(sums)]


def clustered_error(residuals, total):
    """Standard error of a ratio of sums whose residual in each window is given; 0 with one window."""
    count = len(residuals)
    if count < 2:
        return 0.0
    return math.sqrt(math.fsum(r * r for r in residuals) * count / (count - 1)) / total


def ratio_of_means(ours, theirs, our_values, their_values):
    """(sum of ours / sum of theirs, its standard error by the delta method over windows)."""
    a, b = window_sums(ours, our_values), window_sums(theirs, their_values)
    total = math.fsum(s for s, _ in b)
    ratio = math.fsum(s for s, _ in a) / total
    return ratio, clustered_error([x - ratio * y for (x, _), (y, _) in zip(a, b, strict=True)], total)


def mean_difference(ours, theirs, our_values, their_values):
    """(mean of ours - theirs, its standard error over windows)."""
    sums = window_sums(ours, [x - y for x, y in zip(our_values, their_values, strict=True)])
    count = sum(n for _, n in sums)
    difference = math.fsum(s for s, _ in sums) / count
    return difference, clustered_error([s - difference * n for s, n in sums], count)


def bootstrap(ours, theirs, statistic, seed=SEED, resamples=BOOTSTRAP):
    """Standard deviation of statistic(ours' KL, theirs') over resamples of whole windows, the same for both."""
    members = {}
    for place, window in enumerate(ours.window):
        members.setdefault(window, []).append(place)
    windows, rng, values = list(members.values()), random.Random(seed), []
    for _ in range(resamples):
        chosen = [place for _ in windows for place in windows[rng.randrange(len(windows))]]
        values.append(statistic([ours.kl[i] for i in chosen], [theirs.kl[i] for i in chosen]))
    center = mean(values)
    return math.sqrt(math.fsum((v - center) ** 2 for v in values) / max(1, len(values) - 1))


def paired(ours, theirs, resamples=BOOTSTRAP):
    """All that the table needs of two models on the same tokens. Raises ValueError when the tokens differ."""
    if ours.window != theirs.window:
        raise ValueError("the two models were not scored on the same tokens")
    ratio, ratio_error = ratio_of_means(ours, theirs, ours.kl, theirs.kl)
    difference, difference_error = mean_difference(ours, theirs, ours.kl, theirs.kl)
    top, top_error = mean_difference(ours, theirs, ours.same_top, theirs.same_top)
    p99 = [nearest_rank(tokens.kl, 0.99) for tokens in (ours, theirs)]
    p99_error = bootstrap(ours, theirs, lambda a, b: nearest_rank(a, 0.99) / nearest_rank(b, 0.99),
                          resamples=resamples) if p99[1] > 0 else 0.0
    return {"tokens": len(ours.kl), "windows": len(set(ours.window)), "kl_ratio": ratio,
            "kl_ratio_error": ratio_error, "kl_difference": difference, "kl_difference_error": difference_error,
            "p99_ratio": p99[0] / p99[1] if p99[1] > 0 else math.nan, "p99_ratio_error": p99_error,
            "top1_difference": top, "top1_difference_error": top_error}
