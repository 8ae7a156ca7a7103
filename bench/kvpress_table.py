#!/usr/bin/env python3
"""kvpress on the windows and needles that `kvc-eval compare` measures with.

usage: kvpress_table.py MODEL PROMPTS OUT.json [--press NAME]... [--share 0.5,0.25,0.125]
                        [--lukv SCORER=TABLE.npy]...

MODEL is a Hugging Face directory, PROMPTS the file of `kvc-eval compare ... --save-prompts`, TABLE the
head budgets of `kvc-profile --lukv-table` for kvpress's LUKVPress. Prints a Markdown table and writes
OUT.json, to which presses that are missing are added by a later run.

Needs an environment of its own: pip install kvpress==0.5.5 "transformers==5.2.*" "tokenizers==0.22.*"
"huggingface_hub==1.4.*" "datasets==4.0.*" and a CPU build of torch.

Protocol, as in eval/compare/compare.h: the context is prefilled under the press, every following token is fed alone
(head-wise presses fake an evicted key for one query at a time) at its true position, and the next
one's distribution is compared with the full cache's, in nats. In needle prompts with the question before, the words that lead into the
answer are fed behind the compression. A press keeps the share of the tokens, which is its share of the bytes,
because keys and values are at full width; head-wise presses do not free what they drop.
"""

import argparse
import json
import math
import os
import time

import numpy
import torch
from kvpress import (
    AdaKVPress,
    ExpectedAttentionPress,
    KeyDiffPress,
    KnormPress,
    LUKVPress,
    PyramidKVPress,
    SnapKVPress,
    StreamingLLMPress,
)
from transformers import AutoModelForCausalLM, AutoTokenizer, DynamicCache

from needle_protocol import answer, split, step

PRESSES = {
    "snapkv": lambda ratio: SnapKVPress(compression_ratio=ratio),
    "ada/snapkv": lambda ratio: AdaKVPress(SnapKVPress(compression_ratio=ratio)),
    "expected-attention": lambda ratio: ExpectedAttentionPress(compression_ratio=ratio),
    "ada/expected-attention": lambda ratio: AdaKVPress(ExpectedAttentionPress(compression_ratio=ratio)),
    "keydiff": lambda ratio: KeyDiffPress(compression_ratio=ratio),
    "knorm": lambda ratio: KnormPress(compression_ratio=ratio),
    "pyramidkv": lambda ratio: PyramidKVPress(compression_ratio=ratio),
    "streaming": lambda ratio: StreamingLLMPress(compression_ratio=ratio),
}


def lukv_press(scorer, table):
    """LUKVPress over one of PRESSES with head budgets from a file instead of a download."""

    def make(ratio):
        press = LUKVPress(press=PRESSES[scorer](0.0), compression_ratio=ratio, window=32)
        press._budget_curves = table
        return press

    return make


def clear_masks(model):
    """Head-wise presses leave what they evicted on the attention modules."""
    for layer in model.model.layers:
        layer.self_attn.masked_key_indices = None


def prefill(model, press, ids):
    """ids [B, T] -> (cache, logits of the last token [B, V]). press None: everything is kept."""
    cache = DynamicCache()
    clear_masks(model)
    if press is None:
        out = model(ids, past_key_values=cache, use_cache=True, logits_to_keep=1)
    else:
        with press(model):
            out = model(ids, past_key_values=cache, use_cache=True, logits_to_keep=1)
    return cache, out.logits[:, -1]


def walk(model, press, windows, context):
    """windows [B, context + decode] -> log-probabilities [B, decode, V] of the decoded tokens' places."""
    cache, logits = prefill(model, press, windows[:, :context])
    rows = [logits.log_softmax(-1)]
    for position in range(context, windows.shape[1] - 1):
        rows.append(step(model, cache, windows[:, position], position).log_softmax(-1))
    return torch.stack(rows, 1)


def ask(model, tokenizer, press, needle, question_before):
    prompt, fed = split(needle, question_before)
    cache, logits = prefill(model, press, torch.tensor([prompt]))
    return answer(model, tokenizer, needle, cache, logits, fed, len(prompt))


def measure(model, tokenizer, press, prompts, reference, logp=None):
    """reference: log-probabilities of the full cache, or None; logp: those of `press`, where they are known."""
    started = time.time()
    windows = torch.tensor(prompts["samples"])
    if logp is None:
        logp = walk(model, press, windows, prompts["context"])
    nll = -logp.gather(-1, windows[:, prompts["context"]:, None]).mean().item()
    line = {"perplexity": math.exp(nll)}
    if reference is not None:
        kld = (reference.exp() * (reference - logp)).sum(-1)
        line |= {
            "kld_mean": kld.mean().item(),
            "same_top": (reference.argmax(-1) == logp.argmax(-1)).double().mean().item(),
        }
    before = prompts["question"] == "before"
    line["needles_found"] = sum(ask(model, tokenizer, press, n, before) for n in prompts["needles"])
    line["needles"] = len(prompts["needles"])
    line["seconds"] = time.time() - started
    return line


def table(result, shares):
    full = result["full"]
    print(f"full cache: perplexity {full['perplexity']:.2f}, needles {full['needles_found']}/{full['needles']}\n")
    print("| kvpress | " + " | ".join(f"{100 * s:g} %: KLD, perplexity, needles" for s in shares) + " |")
    print("|---|" + "---|" * len(shares))
    for name in sorted({key.rsplit("@", 1)[0] for key in result if "@" in key}):
        cells = []
        for share in shares:
            line = result.get(f"{name}@{share:g}")
            cells.append("-" if line is None else
                         f"{line['kld_mean']:.3f}, {100 * (line['perplexity'] / full['perplexity'] - 1):+.1f} %, "
                         f"{line['needles_found']}/{line['needles']}")
        print(f"| {name} | " + " | ".join(cells) + " |")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("prompts")
    parser.add_argument("out")
    parser.add_argument("--press", action="append", choices=sorted(PRESSES))
    parser.add_argument("--share", default="0.5,0.25,0.125")
    parser.add_argument("--lukv", action="append", default=[], metavar="SCORER=TABLE.npy")
    args = parser.parse_args()
    shares = [float(s) for s in args.share.split(",")]
    presses = {name: PRESSES[name] for name in args.press or PRESSES}
    for scorer, _, table in (entry.partition("=") for entry in args.lukv):
        presses[f"lukv/{scorer}"] = lukv_press(scorer, numpy.load(table))
    with open(args.prompts) as file:
        prompts = json.load(file)
    result = {}
    if os.path.exists(args.out):
        with open(args.out) as file:
            result = json.load(file)
    tokenizer = AutoTokenizer.from_pretrained(args.model)
    model = AutoModelForCausalLM.from_pretrained(args.model, dtype=torch.float32, attn_implementation="sdpa").eval()
    with torch.no_grad():
        reference = walk(model, None, torch.tensor(prompts["samples"]), prompts["context"])
        if "full" not in result:
            result["full"] = measure(model, tokenizer, None, prompts, None, reference)
        for name, make in presses.items():
            for share in shares:
                key = f"{name}@{share:g}"
                if key in result:
                    continue
                result[key] = measure(model, tokenizer, make(1 - share), prompts, reference)
                print(key, result[key], flush=True)
                with open(args.out + ".partial", "w") as file:
                    json.dump(result, file, indent=1)
                os.replace(args.out + ".partial", args.out)
    table(result, shares)


if __name__ == "__main__":
    main()
