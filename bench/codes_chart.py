"""usage: codes_chart.py DOCUMENT OUT.png

Draws the divergence over the bytes of the codes in DOCUMENT's table "Beside other people's codes"
(docs/experiments/2026-11-rows-in-few-bits.md, which bench/codes.sh fills). Needs matplotlib.
"""
import re
import sys

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt

# Begin of a line's name in the table, and its name in the chart. In a cell "a / b" the first counts,
# but for KIVI, whose second is its residual of 32 tokens, the smaller one.
LINES = [
    ("**kvc**", "kvc: tokens in few bits, or gone", "#c2326b"),
    ("KVTC", "KVTC's manner", "#8a4fc7"),
    ("RDKV", "RDKV's manner", "#2b8f5a"),
    ("KIVI", "KIVI, 4 and 2 bits", "#1f6fd1"),
    ("q", "ggml q8_0 and q4_0, rotated", "#d9541e"),
    ("eviction, kvc's score", "eviction, kvc's score and head budgets", "#b8860b"),
    ("eviction, SnapKV", "eviction, SnapKV", "#6b7280"),
]


def numbers(cell):
    return [float(text) for text in re.findall(r"(?<![\d(.])\d+\.\d+(?![\d.)])", cell)]


def points_of(document, name):
    points = []
    for line in document.splitlines():
        cells = [cell.strip() for cell in line.strip().strip("|").split("|")]
        if len(cells) < 4 or not cells[0].startswith(name) or "%" not in cells[1]:
            continue
        if name == "q" and "rotated" not in cells[0]:
            continue
        shares, losses = numbers(cells[1]), numbers(cells[2])
        if shares and losses:
            last = name == "KIVI"
            points.append((shares[-1 if last else 0], losses[-1 if last else 0]))
    return sorted(points)


def main(path, out):
    with open(path, encoding="utf-8") as file:
        document = file.read().split("## Beside other people's codes")[1].split("\n## ")[0]
    figure, axes = plt.subplots(figsize=(7.7, 4.6), dpi=110)
    for name, label, color in LINES:
        points = points_of(document, name)
        if not points:
            sys.exit(f"{path}: expected lines that begin with {name}, got none")
        axes.plot(*zip(*points), "o-", label=label, color=color, zorder=3,
                  linewidth=2.4 if name == "**kvc**" else 1.4)
    axes.set_xscale("log", base=2)
    axes.set_yscale("log")
    axes.set_xticks([3.125, 6.25, 12.5, 25, 50], ["3.1 %", "6.25 %", "12.5 %", "25 %", "50 %"])
    axes.minorticks_off()
    axes.set_xlabel("cache after the prompt, of the bf16 cache's bytes")
    axes.set_ylabel("KL divergence, nats")
    axes.set_title("SmolLM2: divergence from the full cache", loc="left", fontweight="bold")
    axes.grid(alpha=0.3)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    axes.legend(fontsize=8, frameon=False, loc="lower left")
    figure.tight_layout()
    figure.savefig(out, metadata={"Software": None})


if __name__ == "__main__":
    main(*sys.argv[1:])
