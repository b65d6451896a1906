# SPDX-FileCopyrightText: The Winnow authors
# SPDX-License-Identifier: Apache-2.0
"""What `winnow eval --reference` has to say of two tiny models, computed without the product: the
float64 forward pass of tests/oracles/qwen3_moe_numpy.py and the definitions of quantities.py.

    python testdata/metrics/make_golden.py      # writes testdata/metrics/evaluation.json; needs NumPy

Windows are token ids (start token first), in two domains of two and one windows; the last one is shorter.
"""

import json
import pathlib
import sys

import numpy as np

ROOT = pathlib.Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tests" / "oracles"))
import quantities  # noqa: E402
import qwen3_moe_numpy  # noqa: E402

MODEL, REFERENCE = "qwen3_moe-sharded", "qwen3_moe-plain"
START = 271
LENGTHS = [("first", 40), ("first", 17), ("second", 33)]


def windows():
    rng = np.random.default_rng(11)
    return [(domain, [START, *rng.integers(0, 256, length).tolist()]) for domain, length in LENGTHS]


def cluster_error(values, clusters):
    """Standard error of the mean of `values` whose clusters are independent: a ratio of cluster sums."""
    values, clusters = np.asarray(values), np.asarray(clusters)
    names = np.unique(clusters)
    if names.size < 2:
        return 0.0
    residuals = [np.sum(values[clusters == c] - values.mean()) for c in names]
    count = names.size
    return float(np.sqrt(np.sum(np.square(residuals)) * count / (count - 1)) / values.size)


def scores(rows):
    """rows: one dict per scored token."""
    def column(key):
        return np.array([row[key] for row in rows])
    window = column("window")
    kl = column("kl")
    return {"tokens": len(rows), "nll": float(column("nll").mean()),
            "nll_standard_error": cluster_error(column("nll"), window),
            "perplexity": float(np.exp(column("nll").mean())),
            "kl_divergence": float(kl.mean()), "kl_standard_error": cluster_error(kl, window),
            "kl_p99": quantities.percentile(kl, 99), "top1_agreement": float(column("top1").mean()),
            "routing_agreement": float(column("routing").mean()), "esap": float(column("esap").mean())}


def token_rows(number, ids, model, reference):
    targets = ids[1:]
    q, p = model.logits[:-1], reference.logits[:-1]
    nll = quantities.negative_log_likelihood(q, targets)
    kl = quantities.kl_divergence(p, q)
    for t in range(len(targets)):
        chosen = [np.asarray([layer[t:t + 1] for layer in one.experts]) for one in (reference, model)]
        yield {"window": number, "nll": nll[t], "kl": kl[t],
               "top1": quantities.top1_agreement(p[t:t + 1], q[t:t + 1]),
               "routing": quantities.routing_agreement(*chosen),
               "esap": quantities.esap(p[t:t + 1], q[t:t + 1])}


def main():
    model, reference = (qwen3_moe_numpy.Qwen3Moe(ROOT / "testdata" / "models" / name) for name in (MODEL, REFERENCE))
    rows, domains = [], {}
    for number, (domain, ids) in enumerate(windows()):
        results = [one.forward(ids) for one in (model, reference)]
        new = list(token_rows(number, ids, *results))
        rows += new
        domains.setdefault(domain, []).extend(new)
    golden = {"model": MODEL, "reference": REFERENCE,
              "windows": [{"domain": domain, "ids": ids} for domain, ids in windows()],
              "all": scores(rows), "domains": {name: scores(part) for name, part in domains.items()}}
    path = pathlib.Path(__file__).parent / "evaluation.json"
    path.write_text(json.dumps(golden, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
