# SPDX-FileCopyrightText: The Winnow authors
# SPDX-License-Identifier: Apache-2.0
"""Writes the choices of every pruning criterion for tiny models: tests/oracles/expert_selection.py on two small texts.

    python3 testdata/expert_selection/make_golden.py      # needs NumPy

small_sets.json: what the two methods that choose sets do with small whole numbers, where ties are exact, exchanges
happen and several experts are protected; the text has none of these.

Before it writes, it checks that no choice hangs on less than float32 could tell, and that the sets of least squared
error are no better than the best of all sets.
"""

import json
import pathlib
import sys

import numpy as np

HERE = pathlib.Path(__file__).resolve().parent
ROOT = HERE.parents[1]
sys.path.insert(0, str(ROOT / "tests" / "oracles"))
import expert_selection as oracle  # noqa: E402

MADE_BY = "python3 testdata/expert_selection/make_golden.py"
TEXTS = ["models/grain/data/calib/structured.txt", "LICENSES/Unicode-DFS-2016.txt"]  # two domains
CONTEXT = 64
# Even counts and odd ones; the tiny models have 8, 6 and 4 experts.
MODELS = {"qwen3_moe-plain": (5, 3), "qwen3_moe-not-renormalised": (4, 3), "qwen3_moe-dense-first": (3, 2)}
# Smallest gap between router logits that float32 orders alike, and between what is compared, as a share of it.
ROUTER_MARGIN = 2e-6
DECISION_MARGIN = 2e-5
TRIALS = 20


def check_scores(methods, protected):
    """The last expert kept and the first removed are clearly apart."""
    for name, method in methods.items():
        for number, layer in method["layers"].items():
            if layer["scores"] is None:
                continue
            others = [e for e in range(len(layer["scores"])) if e not in protected[number]]
            kept = [layer["scores"][e] for e in others if e in layer["kept"]]
            removed = [layer["scores"][e] for e in others if e not in layer["kept"]]
            if kept and removed:
                gap = min(kept) - max(removed)
                assert gap > DECISION_MARGIN * abs(max(removed)), (name, number, gap)


def check_sets(layers, case):
    """Small changes of distances and of the Gram matrix change no set."""
    rng, keep = np.random.default_rng(3), case["keep"]
    for number, layer in layers.items():
        protected = set(case["super_experts"][str(number)])
        gram = oracle.output_gram(layer)
        clusters = oracle.router_clusters(layer.router, keep, protected)
        removed = oracle.least_error_set(gram, keep, protected)
        for _ in range(TRIALS):
            noise = 1 + DECISION_MARGIN * rng.uniform(-1, 1, gram.shape)
            router = layer.router * (1 + DECISION_MARGIN * rng.uniform(-1, 1, layer.router.shape))
            assert oracle.least_error_set(gram * (noise + noise.T) / 2, keep, protected) == removed, number
            assert oracle.router_clusters(router, keep, protected) == clusters, number


def check_protection(layers, threshold):
    """No expert's largest output is near the threshold."""
    values = np.concatenate([oracle.largest_output(layer) for layer in layers.values()])
    assert np.min(np.abs(values - threshold)) > DECISION_MARGIN * threshold, values


def check_random_grams():
    """Found sets against all sets of random Gram matrices; least ratio best / found."""
    rng = np.random.default_rng(5)
    vectors = [rng.normal(size=(8, 6)) * rng.uniform(0.2, 2, (8, 1)) for _ in range(30)]
    return min(oracle.best_over_found(v @ v.T, keep) for v in vectors for keep in (3, 5))


def gram_cases(rng):
    """Gram matrices of whole numbers: five where exchanges help, five others."""
    wanted, cases = {True: 5, False: 5}, []
    while any(wanted.values()):
        vectors = rng.integers(-4, 5, (8, 5)).astype(float)
        gram, keep = vectors @ vectors.T, int(rng.integers(2, 7))
        protected = sorted(rng.choice(8, int(rng.integers(0, 3)), replace=False).tolist())
        greedy = oracle.greedy_removal(gram, min(8 - keep, 8 - len(protected)), protected)
        removed = oracle.least_error_set(gram, keep, protected)
        if wanted[greedy != removed]:
            wanted[greedy != removed] -= 1
            cases.append({"gram": gram.astype(int).ravel().tolist(), "keep": keep, "protected": protected,
                          "greedy": greedy, "removed": removed, "error": int(oracle.squared_error(gram, removed)),
                          "best_over_found": oracle.best_over_found(gram, keep, protected)})
    return cases


def stun_cases(rng):
    """Router rows and weights of whole numbers, with none to three protected experts and every number to keep."""
    cases = []
    for case in range(8):
        router, weights = rng.integers(-6, 7, (7, 3)), rng.integers(-99, 100, (7, 6))
        protected = sorted(rng.choice(7, case % 4, replace=False).tolist())
        parts = [np.split(row.astype(float), 3) for row in weights]  # gate, up, down
        layer = oracle.MoeLayer(None, None, None, router.astype(float), parts, 0)
        cases.append({"router": router.ravel().tolist(), "weights": weights.ravel().tolist(), "protected": protected,
                      "kept": {str(keep): oracle.stun(layer, keep, protected) for keep in range(1, 8)}})
    return cases


def small_sets():
    rng = np.random.default_rng(11)
    return {"made_by": MADE_BY, "gram": gram_cases(rng), "stun": stun_cases(rng)}


def write(name, golden):
    text = json.dumps(golden, separators=(",", ":")).replace('"methods"', '\n"methods"')
    (HERE / f"{name}.json").write_text(text.replace('},"', '},\n"').replace("},{", "},\n{") + "\n", encoding="utf-8")


def golden_of(name, keeps):
    layers, tokens = oracle.observe(ROOT / "testdata" / "models" / name, [ROOT / text for text in TEXTS], CONTEXT)
    margin = min(layer.margin for layer in layers.values())
    assert margin > ROUTER_MARGIN, margin
    cases = [oracle.selection(layers, keep, protection) for keep in keeps for protection in (True, False)]
    for case in cases:
        check_scores(case["methods"], case["super_experts"])
        check_sets(layers, case)
        case["gram_best_over_found"] = {
            str(number): oracle.best_over_found(oracle.output_gram(layer), case["keep"],
                                                case["super_experts"][str(number)])
            for number, layer in layers.items()}
    check_protection(layers, cases[0]["super_threshold"])
    return {"made_by": MADE_BY, "model": name, "texts": TEXTS, "context": CONTEXT, "tokens": tokens,
            "router_margin": margin, "cases": cases}


def main():
    write("small_sets", small_sets())
    print(f"random Gram matrices: best / found at least {check_random_grams():.4f}")
    for name, keeps in MODELS.items():
        golden = golden_of(name, keeps)
        ratios = [ratio for case in golden["cases"] for ratio in case["gram_best_over_found"].values()]
        print(f"{name}: {golden['tokens']} tokens, router margin {golden['router_margin']:.1e}, "
              f"best / found at least {min(ratios):.12f}")
        write(name, golden)


if __name__ == "__main__":
    main()
