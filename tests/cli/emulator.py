"""usage: emulator.py WORK BUNDLE f32|bf16

Holds a bundle on the emulator to the processor: WORK/run-BUNDLE-{cpu,emulator}.json are texts that
each wrote alone (kvc-run --json), WORK/BUNDLE-{cpu,emulator}.npy the logits of both along the
processor's text, WORK/BUNDLE-reference.npy those of the full cache on the processor; in the last
three the processor rounds no activations.

In f32 tokens are the same. In bf16 both round what they multiply (2^-9) in each product of each
layer, differently, and two things follow.

* Errors of the logits add up like a random walk's: up to BOUND of the largest logit, an eighth of
  it on average. Tokens may differ where the best two are closer than four times the average.
* Where tokens compete for bits, some are of almost equal worth, and which of them gets more follows
  from a rounding: other chunks of a prompt change it on one and the same device
  (docs/experiments/2026-12-emulator-and-processor.md). So two such caches are held to what they
  cost: with K = KLD(full cache || the processor's), a token on average, KLD(processor ||
  emulator) is at most K / 2, about twice the most that was seen between such caches. Distributions
  within K of each other have probabilities within sqrt(K / 2) (Pinsker), so tokens may differ where
  the best two are closer than sqrt(2 K).
"""

import array
import ast
import json
import math
import sys

BOUND = {"f32": 1e-4, "bf16": 1 / 32}
# Of K: what KLD(processor || emulator) may be. In f32 choices are the same, and what is left is the
# processor's queries, which are whole numbers where they meet codes.
SHARE = {"f32": 1 / 64, "bf16": 1 / 2}

work, bundle, dtype = sys.argv[1:]
compressed = bundle in ("tiers", "bits")


def fail(message):
    sys.exit(f"FAILED: {bundle}: {message}")


def read(path):
    """Rows of a .npy of floats [rows, columns]."""
    with open(path, "rb") as file:
        data = file.read()
    size = int.from_bytes(data[8:10], "little")
    header = ast.literal_eval(data[10 : 10 + size].decode())
    assert header["descr"] == "<f4", header
    rows, columns = header["shape"]
    all_rows = array.array("f", data[10 + size :])
    return [all_rows[i * columns : (i + 1) * columns] for i in range(rows)]


def best(row):
    return max(range(len(row)), key=row.__getitem__)


def log_probabilities(row):
    largest = max(row)
    total = largest + math.log(sum(math.exp(x - largest) for x in row))
    return [x - total for x in row]


def kld(p, q):
    return sum(math.exp(a) * (a - b) for a, b in zip(p, q))


def mean_kld(first, second):
    return sum(map(kld, first, second)) / len(first)


def check_logits(expected, actual):
    """Returns the largest logit."""
    largest = worst = total = 0.0
    for a, b in zip(expected, actual):
        errors = [x - y for x, y in zip(a, b)]
        largest = max(largest, max(a), -min(a))
        square = sum(e * e for e in errors)
        worst = max(worst, max(errors), -min(errors)) if math.isfinite(square) else math.inf
        total += square
    mean = math.sqrt(total / sum(map(len, expected)))
    print(f"{bundle}: logits up to {largest:.3f}, largest difference {worst:.5f}, rms {mean:.6f}")
    if worst > BOUND[dtype] * largest or not mean <= BOUND[dtype] * largest / 8:
        fail("logits differ by more than the format explains")
    return largest


def check_caches(reference, expected, actual):
    """Returns K."""
    cost = mean_kld(reference, expected)
    apart = mean_kld(expected, actual)
    print(f"{bundle}: the cache costs {cost:.5f} ({mean_kld(reference, actual):.5f} on the emulator), apart {apart:.6f}")
    if not 0 <= apart <= SHARE[dtype] * cost:
        fail(f"expected a KLD of at most {SHARE[dtype]} of {cost:.5f}, got {apart:.5f}")
    return cost


def check_tokens(texts, expected, actual, gap, band):
    """Every token's best, and both texts up to where they part: gap(row, token) says how far behind
    the best a token is."""
    parted = None
    for t, tokens in enumerate(zip(*texts)):
        candidates = {best(actual[t]), *(tokens if parted is None else ())}
        worst = max(gap(expected[t], token) for token in candidates)
        if worst > band:
            fail(f"token {t}: expected {best(expected[t])}, got {candidates}, {worst:.4f} behind, {band:.4f} allowed")
        # A prompt's only row of logits is not rounded, unlike all of them together.
        if parted is None and t > 0 and best(actual[t]) != tokens[1]:
            fail(f"token {t}: expected the best of its logits, {best(actual[t])}, got {tokens[1]}")
        if parted is None and tokens[0] != tokens[1]:
            parted = t
            print(f"{bundle}: token {t} is {tokens[0]} or {tokens[1]}, {worst:.4f} apart, {band:.4f} allowed")
    if parted is None:
        print(f"{bundle}: {len(texts[0])} tokens are the same")


def main():
    runs = [json.load(open(f"{work}/run-{bundle}-{device}.json")) for device in ("cpu", "emulator")]
    texts = [run["outputs"][0]["token_ids"] for run in runs]
    if len(texts[0]) != len(texts[1]):
        fail(f"expected {len(texts[0])} tokens, got {len(texts[1])}")
    # Rows of almost equal worth may land in neighbouring tiers.
    a, b = (run["cache"]["allocated_bytes"] for run in runs)
    if abs(a - b) > (0.01 * a if compressed else 0):
        fail(f"expected {a} bytes, got {b}")

    names = ("reference", "cpu", "emulator") if compressed else ("cpu", "emulator")
    rows = [read(f"{work}/{bundle}-{name}.npy") for name in names]
    of_text = [some[-len(texts[0]) :] for some in rows]
    if compressed:
        of_text = [[log_probabilities(row) for row in some] for some in of_text]
        cost = check_caches(*of_text)
        band = math.sqrt(2 * cost)
        gap = lambda row, token: math.exp(max(row)) - math.exp(row[token])
    else:
        band = BOUND[dtype] * check_logits(*rows) / 2
        gap = lambda row, token: max(row) - row[token]
    check_tokens(texts, *of_text[-2:], gap, 0 if dtype == "f32" else band)


main()
