# SPDX-FileCopyrightText: The Winnow authors
# SPDX-License-Identifier: Apache-2.0
"""Tables of bench/quality.py as Markdown, with the goals that docs/quality.md states."""

# Mean KL divergence, as a share of stock's at the same bytes, that Winnow aims at.
GOALS = {"Q4_K_M": 0.85, "IQ4_XS": 0.85, "Q3_K_M": 0.6, "Q2_K": 0.7, "IQ2_M": 0.7, "IQ3_XXS": 0.85}
BYTE_MARGIN = 0.002  # tensor bytes may fall short of stock's by this share, and never exceed them


def plus_minus(value, error, digits=3):
    return f"{value:.{digits}f} ± {error:.{digits}f}"


def sentence(row):
    return (f"{row['mix']}: KL {row['winnow']['kl_divergence']:.5f} against {row['stock']['kl_divergence']:.5f}, "
            f"ratio {plus_minus(row['kl_ratio'], row['kl_ratio_error'])}, p99 {row['p99_ratio']:.3f}, "
            f"bytes {row['byte_ratio']:.4f}")


def verdict(row):
    """"met", or what is missed: the ratio, the tail, the top token, the bytes. Empty for a mix without a goal."""
    goal = GOALS.get(row["mix"])
    if goal is None:
        return ""
    missed = []
    if row["kl_ratio"] > goal:
        missed.append("ratio")
    if row["p99_ratio"] > 1:
        missed.append("p99")
    if row["top1_difference"] < 0:
        missed.append("top token")
    if not 1 - BYTE_MARGIN <= row["byte_ratio"] <= 1:
        missed.append("bytes")
    return "met" if not missed else "missed: " + ", ".join(missed)


def counts(types):
    ordered = sorted(types.items(), key=lambda item: (-item[1], item[0]))
    return ", ".join(f"{number} {name}" for name, number in ordered)


def mixes_table(rows):
    lines = ["| stock mix | bits a weight | tensor bytes stock / Winnow | file bytes | mean KL stock | "
             "mean KL Winnow | ratio (goal) | p99 ratio | same top token stock / Winnow, difference | goal |",
             "|---|---|---|---|---|---|---|---|---|---|"]
    for row in rows:
        stock, ours = row["stock"], row["winnow"]
        goal = f" ({GOALS[row['mix']]})" if row["mix"] in GOALS else ""
        lines.append(
            f"| {row['mix']} | {row['bits']:.3f} | {stock['tensor_bytes']} / {ours['tensor_bytes']} "
            f"({row['byte_ratio']:.4f}) | {stock['file_bytes']} / {ours['file_bytes']} | "
            f"{stock['kl_divergence']:.5f} | {ours['kl_divergence']:.5f} | "
            f"**{plus_minus(row['kl_ratio'], row['kl_ratio_error'])}**{goal} | "
            f"{plus_minus(row['p99_ratio'], row['p99_ratio_error'])} | {100 * stock['top1_agreement']:.2f} / "
            f"{100 * ours['top1_agreement']:.2f} %, "
            f"{plus_minus(100 * row['top1_difference'], 100 * row['top1_difference_error'], 2)} | "
            f"{verdict(row)} |")
    return lines


def types_table(rows):
    lines = ["| mix | weights in rows that force a fall-back | stock's types | Winnow's types | seconds |",
             "|---|---|---|---|---|"]
    for row in rows:
        lines.append(f"| {row['mix']} | {100 * row['stock']['short_rows']:.1f} % | {counts(row['stock']['types'])} | "
                     f"{counts(row['winnow']['types'])} | {row['winnow']['seconds']:.0f} |")
    return lines


def stock_table(rows):
    lines = ["| mix, both files in stock llama.cpp | tokens | mean KL stock | mean KL Winnow | ratio | "
             "same top token |",
             "|---|---|---|---|---|---|"]
    for row in rows:
        theirs, ours = row["in_stock"]["stock"], row["in_stock"]["winnow"]
        lines.append(f"| {row['mix']} | {ours['tokens']} | {theirs['kl_divergence']:.5f} | "
                     f"{ours['kl_divergence']:.5f} | {ours['kl_divergence'] / theirs['kl_divergence']:.3f} | "
                     f"{100 * theirs['top1_agreement']:.2f} / {100 * ours['top1_agreement']:.2f} % |")
    return lines


def ablation_table(rows):
    lines = ["| bytes of | step | mean KL | against stock | against another row | p99 against stock | bytes | "
             "seconds |",
             "|---|---|---|---|---|---|---|---|"]
    for row in rows:
        step = row.get("step")
        other = f"{row['against']}: {plus_minus(step['kl_ratio'], step['kl_ratio_error'])}" if step else ""
        lines.append(f"| {row['mix']} | {row['name']} | {row['winnow']['kl_divergence']:.5f} | "
                     f"{plus_minus(row['kl_ratio'], row['kl_ratio_error'])} | {other} | {row['p99_ratio']:.3f} | "
                     f"{row['byte_ratio']:.4f} | {row['winnow']['seconds']:.0f} |")
    return lines


def markdown(report):
    if "ablation" in report:
        return "\n".join(ablation_table(report["ablation"]))
    rows = report["mixes"]
    first = rows[0]
    lines = [f"{first['tokens']} tokens in {first['windows']} windows; ± is one paired standard error.", "",
             *mixes_table(rows), "", *types_table(rows)]
    checked = [row for row in rows if "in_stock" in row]
    return "\n".join(lines + (["", *stock_table(checked)] if checked else []))
