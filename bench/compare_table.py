#!/usr/bin/env python3
"""Results of `kvc-eval compare -o` and of `kvc-export --method auto --json` as one Markdown table.

usage: compare_table.py FILE... [--cell kld|needles|cost]

A row for each policy, a column for each budget, `-` where a budget has no room for what the policy
always keeps. Cells: mean divergence from the full cache in nats, perplexity against the full cache's,
needles found, RULER-style mean; or with `needles` the last two alone, and the smallest budget that still finds nine
tenths of what the full cache finds; or with `cost` the share of the full cache's bytes that is allocated
behind the prompt, the processor seconds that choosing what a prompt keeps takes beside the model's own
work, and processor milliseconds for a token decoded alone. The least divergence of a column is bold. Files that are
tabulated together must have measured the same windows and needles.
"""

import argparse
import json


def share(budget):
    return float(budget.rstrip("%"))


def read(files):
    """-> (full cache's line, needles asked, {(policy, budget): line or None})."""
    full, needles, cells = None, 0, {}
    for file in files:
        with open(file) as stream:
            result = json.load(stream)
        lines = result.get("tried") or result["lines"]
        full = full or lines[0]
        assert lines[0].get("kld_mean") is None or lines[0]["perplexity"] == full["perplexity"], \
            f"{file}: expected the windows of {files[0]}, got others"
        needles = max(needles, result.get("needles", sum(cell["samples"] for cell in lines[0].get("cells", []))))
        cells |= {(line["name"], line["budget"]): line for line in lines[1:]}
        cells |= {(line["name"], line["budget"]): None for line in result.get("impossible", [])}
    return full, needles, cells


def facts(line, needles):
    parts = []
    if "needles_found" in line:
        parts.append(f"{line['needles_found']}/{needles}")
    if "ruler_score" in line:
        parts.append(f"{100 * line['ruler_score']:.0f} %")
    return parts


def quality(line, full, best):
    kld = f"{line['kld_mean']:.3f}"
    growth = 100 * (line["perplexity"] / full["perplexity"] - 1)
    return [f"**{kld}**" if line is best else kld, f"{growth:+.1f} %"]


def cost(line):
    if "prompt_share" not in line:
        return []
    parts = [f"{100 * line['prompt_share']:.2f} %"]
    if "token_seconds" in line:
        parts += [f"{line['choosing_seconds']:.2f} s", f"{1000 * line['token_seconds']:.1f} ms"]
    return parts


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("files", nargs="+")
    parser.add_argument("--cell", choices=["kld", "needles", "cost"], default="kld")
    args = parser.parse_args()
    full, needles, cells = read(args.files)
    with_text = args.cell == "kld" and "kld_mean" in full
    names = list(dict.fromkeys(name for name, _ in cells))
    budgets = sorted({budget for _, budget in cells}, key=share, reverse=True)
    best = {}
    if with_text:
        for budget in budgets:
            column = [line for (_, b), line in cells.items() if b == budget and line]
            best[budget] = min(column, key=lambda line: line["kld_mean"], default=None)
    head = [f"perplexity {full['perplexity']:.2f}"] if with_text else []
    asked = cost if args.cell == "cost" else lambda line: facts(line, needles)
    print(f"full cache: {', '.join(head + asked(full))}\n")
    smallest = ["smallest with 9/10 of the needles"] if args.cell == "needles" and needles else []
    titles = ["policy", *budgets, *smallest]
    print("| " + " | ".join(titles) + " |\n" + "|---" * len(titles) + "|")
    for name in names:
        row, least = [f"`{name}`"], "-"
        for budget in budgets:
            line = cells.get((name, budget))
            text = quality(line, full, best[budget]) if line and with_text else []
            row.append(", ".join(text + asked(line)) if line else "-")
            if line and line.get("needles_found", 0) >= 0.9 * full.get("needles_found", 0):
                least = budget
        print("| " + " | ".join(row + ([least] if smallest else [])) + " |")


if __name__ == "__main__":
    main()
