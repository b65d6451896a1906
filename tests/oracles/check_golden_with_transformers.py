# SPDX-FileCopyrightText: The Winnow authors
# SPDX-License-Identifier: Apache-2.0
"""Compares models/grain/golden with Hugging Face `transformers` in float32 on the same weights.

Run once per change of the golden files; the numbers are kept in docs/verification.md. Needs torch,
transformers and tokenizers (not part of the peer test's requirements: several gigabytes).

    python tests/oracles/check_golden_with_transformers.py models/grain
"""

import argparse
import json
import pathlib
import platform
import sys

import numpy as np
import torch
import transformers
from tokenizers import Tokenizer

sys.path.insert(0, str(pathlib.Path(__file__).parent))
from qwen3_moe_numpy import golden_array  # noqa: E402

LOGIT_TOLERANCE = 2e-3  # the product's own limit against golden; float32 in another order of sums stays far below
ROUTER_MARGIN = 1e-5    # router logits closer than this may swap between two float32 implementations
GREEDY_MARGIN = 1e-3    # likewise the two best next tokens
NLL_TOLERANCE = 1e-5    # relative


def load(folder):
    return transformers.Qwen3MoeForCausalLM.from_pretrained(
        folder, dtype=torch.float32, attn_implementation="eager").eval()


def router_outputs(model, ids):
    """logits [T, V] and router logits [L, T, E] of one sequence, caught by hooks on the routers."""
    caught = []
    hooks = [layer.mlp.gate.register_forward_hook(lambda module, inputs, _out: caught.append(
        torch.nn.functional.linear(inputs[0].reshape(-1, inputs[0].shape[-1]), module.weight)))
        for layer in model.model.layers]
    logits = model(torch.tensor([ids])).logits[0]
    for hook in hooks:
        hook.remove()
    return logits.numpy(), torch.stack(caught).numpy()


def used_experts(model, ids):
    """Expert ids and weights [L, T, K] as the library's own router modules return them."""
    caught = []
    hooks = [layer.mlp.gate.register_forward_hook(lambda _m, _i, out: caught.append(out))
             for layer in model.model.layers]
    model(torch.tensor([ids]))
    for hook in hooks:
        hook.remove()
    top_k = model.config.num_experts_per_tok
    pairs = [[t for t in out if t.shape[-1] == top_k] for out in caught]
    weights = torch.stack([next(t for t in p if t.is_floating_point()) for p in pairs])
    experts = torch.stack([next(t for t in p if not t.is_floating_point()) for p in pairs])
    return experts.numpy(), weights.numpy()


def check_prompt(model, golden, prompt, report):
    logits, router_logits = router_outputs(model, prompt["ids"])
    experts, weights = used_experts(model, prompt["ids"])
    want = {key: golden_array(golden, prompt[key])
            for key in ("logits", "router_logits", "experts", "expert_weights")}
    ordered = -np.sort(-want["router_logits"], axis=-1)
    top_k = experts.shape[-1]
    clear = ordered[..., top_k - 1] - ordered[..., top_k] > ROUTER_MARGIN
    same_set = (np.sort(experts, -1) == np.sort(want["experts"], -1)).all(-1)
    by_expert = lambda ids, values: np.take_along_axis(values, np.argsort(ids, -1), -1)  # noqa: E731
    weight_gap = np.abs(by_expert(experts, weights) - by_expert(want["experts"], want["expert_weights"]))[same_set]
    report[prompt["name"]] = {
        "max_logit_difference": float(np.abs(logits - want["logits"]).max()),
        "max_router_logit_difference": float(np.abs(router_logits - want["router_logits"]).max()),
        "routings": int(clear.size), "within_margin": int((~clear).sum()),
        "differing_beyond_margin": int((~same_set & clear).sum()),
        "max_expert_weight_difference": float(weight_gap.max()),
        "greedy": greedy(model, prompt)}


def greedy(model, prompt):
    """Own argmax loop without a cache, so that nothing of generate()'s settings enters."""
    ids, smallest_gap = list(prompt["ids"]), np.inf
    for step, expected in enumerate(prompt["greedy_ids"]):
        best = torch.topk(model(torch.tensor([ids])).logits[0, -1], 2)
        smallest_gap = min(smallest_gap, float(best.values[0] - best.values[1]))
        if int(best.indices[0]) != expected:
            return {"identical": False, "first_difference": step,
                    "gap": float(best.values[0] - best.values[1])}
        ids.append(expected)
    return {"identical": True, "tokens": len(prompt["greedy_ids"]), "smallest_gap": smallest_gap}


def file_nll(model, ids, bos, context):
    """Sum of -ln p over `ids`, in windows of context - 1 ids with `bos` before each (golden/nll.json)."""
    total = 0.0
    for begin in range(0, len(ids), context - 1):
        window = [bos, *ids[begin:begin + context - 1]]
        logits = model(torch.tensor([window])).logits[0, :-1].double()
        targets = torch.tensor(window[1:])[:, None]
        total -= float(torch.log_softmax(logits, -1).gather(1, targets).sum())
    return total


def check_nll(model, folder, report):
    golden = json.loads((folder / "golden" / "nll.json").read_text(encoding="utf-8"))
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    bos, tokens, total = model.config.bos_token_id, 0, 0.0
    for domain, want in golden["domains"].items():
        text = (folder / "data" / "valid" / f"{domain}.txt").read_bytes().decode("utf-8")
        ids = tokenizer.encode(text, add_special_tokens=False).ids
        nll = file_nll(model, ids, bos, golden["context"])
        tokens, total = tokens + len(ids), total + nll
        report[domain] = {"tokens": len(ids), "tokens_golden": want["tokens"], "nll": nll / len(ids),
                          "nll_golden": want["nll"], "relative": abs(nll / len(ids) / want["nll"] - 1)}
    report["all"] = {"tokens": tokens, "tokens_golden": golden["tokens"], "nll": total / tokens,
                     "nll_golden": golden["nll"], "relative": abs(total / tokens / golden["nll"] - 1)}


def failures(report):
    for name, row in report["prompts"].items():
        if row["max_logit_difference"] > LOGIT_TOLERANCE or row["differing_beyond_margin"]:
            yield name
        if not row["greedy"]["identical"] and row["greedy"]["gap"] > GREEDY_MARGIN:
            yield name + " greedy"
    for name, row in report["nll"].items():
        if row["tokens"] != row["tokens_golden"] or row["relative"] > NLL_TOLERANCE:
            yield "nll " + name


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model", type=pathlib.Path)
    folder = parser.parse_args().model
    report = {"python": platform.python_version(), "torch": torch.__version__,
              "transformers": transformers.__version__, "prompts": {}, "nll": {}}
    with torch.no_grad():
        model = load(folder)
        golden = folder / "golden"
        for prompt in json.loads((golden / "prompts.json").read_text(encoding="utf-8"))["prompts"]:
            check_prompt(model, golden, prompt, report["prompts"])
        check_nll(model, folder, report["nll"])
    report["failures"] = list(failures(report))
    print(json.dumps(report, indent=1))
    sys.exit(1 if report["failures"] else 0)


if __name__ == "__main__":
    main()
