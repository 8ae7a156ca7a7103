#!/usr/bin/env python3
"""Other people's codes of cached keys and values, simulated, on the windows and needles of `kvc-eval compare`.

usage: codes.py MODEL PROMPTS CALIBRATION.txt OUT.json [--code NAME]... [--no-needles] [--threads N]

MODEL is a Hugging Face directory, PROMPTS the file of `kvc-eval compare ... --save-prompts`. Prints a line for each code
and writes OUT.json in the form of `kvc-eval compare -o`, so `kvc report` draws both (bench/codes.sh runs the two).
Needs torch and transformers (tests/venv.sh BUILD torch).

Nothing here is fast or small: rows are coded and decoded again, and what they would take is counted, scales, zeros and
positions included. A context is prefilled in full, its rows are coded, and the tokens behind it are fed at their true
positions over the coded rows; their own rows stay exact except where a code is one of rows (ggml). bfloat16 rows of the
whole context are 100 %. bench/cache_codes.py says what each code does.
"""

import argparse
import json
import math
import time

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, DynamicCache
from transformers.models.llama.modeling_llama import apply_rotary_pos_emb

from cache_codes import FULL_BITS, SINKS, WINDOW, Axis, Ggml, Kvtc, all_codes, unrotate
from needle_protocol import answer, split


class Layer:
    """Rows of a layer, as codes see them."""

    def __init__(self, keys, values, queries, rotation):
        self.keys, self.values, self.queries, self.rotation = keys, values, queries, rotation
        self.dropped = None  # [B, G, T], or none


class CodedCache(DynamicCache):
    """A cache whose new rows are coded as they come, by `row`."""

    def __init__(self, row):
        super().__init__()
        self.row = row

    def update(self, keys, values, layer, *args, **kwargs):
        return super().update(self.row(keys), self.row(values), layer, *args, **kwargs)


def prefill(model, ids):
    """ids [B, T] -> (layers, log-probabilities behind the last token [B, V])"""
    attention = [layer.self_attn for layer in model.model.layers]
    queries = {}
    hooks = [module.q_proj.register_forward_hook(
        lambda _, __, out, index=index: queries.__setitem__(index, out[:, -WINDOW:]))
        for index, module in enumerate(attention)]
    cache = DynamicCache()
    out = model(ids, past_key_values=cache, use_cache=True, logits_to_keep=1)
    for hook in hooks:
        hook.remove()
    positions = torch.arange(ids.shape[1])[None]
    cos, sin = model.model.rotary_emb(cache.layers[0].keys, positions)
    layers = []
    for index, rows in enumerate(cache.layers):
        width = rows.keys.shape[-1]
        query = queries[index].unflatten(-1, (-1, width)).transpose(1, 2)
        query, _ = apply_rotary_pos_emb(query, query, cos[:, -WINDOW:], sin[:, -WINDOW:])
        layers.append(Layer(rows.keys.bfloat16().float(), rows.values.bfloat16().float(), query, (cos[0], sin[0])))
    return layers, out.logits[:, -1].log_softmax(-1)


def coded(layers, code, context):
    """-> (copies of the layers' rows under the code, bits or None where there is no room)"""
    copies = [Layer(layer.keys.clone(), layer.values.clone(), layer.queries, layer.rotation) for layer in layers]
    bits = code(copies, context) if code else None
    return copies, bits


def cache_of(layers, code):
    cache = DynamicCache()
    for index, layer in enumerate(layers):
        cache.update(layer.keys, layer.values, index)
    if isinstance(code, Ggml):
        own = CodedCache(code.row)
        own.layers = cache.layers
        return own
    return cache


class Dropped:
    """While it is open, no head sees the tokens that it dropped: attention gets a mask for each head."""

    def __init__(self, model, layers):
        self.model, self.layers, self.hooks = model, layers, []

    def __enter__(self):
        for index, (layer, block) in enumerate(zip(self.layers, self.model.model.layers)):
            if layer.dropped is None:
                continue
            repeats = self.model.config.num_attention_heads // layer.dropped.shape[1]
            hidden = layer.dropped.repeat_interleave(repeats, 1)[:, :, None]  # [B, H, 1, T]

            def mask(_, args, kwargs, index=index, hidden=hidden):
                states = kwargs["hidden_states"] if "hidden_states" in kwargs else args[0]
                new = states.shape[1]
                past = kwargs["past_key_values"].get_seq_length(index)
                seen = torch.ones(new, past + new, dtype=torch.bool).tril(past)[None, None]
                seen = seen & ~torch.nn.functional.pad(hidden, (0, past + new - hidden.shape[-1]))
                kwargs["attention_mask"] = torch.zeros(seen.shape).masked_fill(~seen, -math.inf)
                return args, kwargs

            self.hooks.append(block.self_attn.register_forward_pre_hook(mask, with_kwargs=True))
        return self

    def __exit__(self, *_):
        for hook in self.hooks:
            hook.remove()


def walk(model, windows, context, layers, first, code):
    """-> log-probabilities [B, decode, V] of the tokens behind the context, over the layers' rows"""
    cache = cache_of(layers, code)
    fed = windows[:, context:-1]
    positions = torch.arange(context, context + fed.shape[1])[None].expand(len(fed), -1)
    with Dropped(model, layers):
        out = model(fed, past_key_values=cache, position_ids=positions, use_cache=True)
    return torch.cat([first[:, None], out.logits.log_softmax(-1)], 1)


def calibrate(model, tokenizer, path, length=896, windows=6):
    """-> for each layer the axes of its keys, without rotation, and of its values"""
    with open(path, encoding="utf-8") as file:
        ids = tokenizer(file.read())["input_ids"]
    batch = torch.tensor([ids[i * length:(i + 1) * length] for i in range(min(windows, len(ids) // length))])
    layers, _ = prefill(model, batch)
    axes = []
    for layer in layers:
        own = {}
        for name in ("keys", "values"):
            x = getattr(layer, name)[:, :, SINKS:]
            if name == "keys":
                x = unrotate(x, layer.rotation, slice(SINKS, None))
            own[name] = Axis(x.transpose(1, 2).flatten(2).flatten(0, 1)[::3])
        axes.append(own)
    return axes


class Needle:
    """A needle prompt, prefilled once for all codes."""

    def __init__(self, model, needle, question_before):
        self.needle = needle
        self.prompt, self.fed = split(needle, question_before)
        self.layers, self.first = prefill(model, torch.tensor([self.prompt]))

    def found(self, model, tokenizer, code):
        layers, bits = coded(self.layers, code, len(self.prompt))
        if code and bits is None:
            return False
        with Dropped(model, layers):
            return answer(model, tokenizer, self.needle, cache_of(layers, code), self.first, self.fed, len(self.prompt))


def line_of(name, logp, reference, windows, context, share):
    """A line of `kvc-eval compare -o`. Standard errors are of the windows' means."""
    kld = (reference.exp() * (reference - logp)).sum(-1)
    nll = -logp.gather(-1, windows[:, context:, None])
    same = (reference.argmax(-1) == logp.argmax(-1)).double()
    means = kld.mean(1)
    return {
        "name": name, "policy": name, "budget": f"{100 * share:.4g}%", "bundle": "codes", "method": "code", "scorer": "",
        "kld_mean": kld.mean().item(), "kld_stderr": (means.std() / math.sqrt(len(means))).item() if len(means) > 1 else 0.0,
        "kld_median": kld.median().item(), "kld_p999": kld.flatten().quantile(0.999).item(),
        "same_top": same.mean().item(), "perplexity": math.exp(nll.mean().item()), "nll": nll.mean().item(),
        "tokens": kld.numel(), "prompt_share": share,
    }


def full_bits(layers, context):
    return sum(x.numel() for layer in layers for x in (layer.keys, layer.values)) * FULL_BITS


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("prompts")
    parser.add_argument("calibration")
    parser.add_argument("out")
    parser.add_argument("--code", action="append", help="those whose name begins so; repeatable; default: all")
    parser.add_argument("--no-needles", action="store_true")
    parser.add_argument("--threads", type=int, default=0)
    args = parser.parse_args()
    if args.threads:
        torch.set_num_threads(args.threads)
    with open(args.prompts) as file:
        prompts = json.load(file)
    tokenizer = AutoTokenizer.from_pretrained(args.model)
    model = AutoModelForCausalLM.from_pretrained(args.model, dtype=torch.float32, attn_implementation="sdpa").eval()
    context, windows = prompts["context"], torch.tensor(prompts["samples"])
    result = {"context": context, "decode": prompts["decode"], "samples": len(windows), "needles": 0,
              "question": prompts["question"], "lines": [], "impossible": []}
    with torch.no_grad():
        axes = []  # filled where a code needs them
        codes = {name: code for name, code in all_codes(axes).items() if not args.code or name.startswith(tuple(args.code))}
        if any(isinstance(code, Kvtc) for code in codes.values()):
            axes.extend(calibrate(model, tokenizer, args.calibration))
        layers, first = prefill(model, windows[:, :context])
        needles = []
        if not args.no_needles:
            needles = [Needle(model, needle, prompts["question"] == "before") for needle in prompts["needles"]]
        result["needles"] = len(needles)
        reference = walk(model, windows, context, layers, first, None)
        for name, code in {"full": None, **codes}.items():
            started = time.time()
            rows, bits = coded(layers, code, context)
            if code and bits is None:
                result["impossible"].append({"name": name, "budget": "", "reason": "no room for the rows that it keeps whole"})
                continue
            share = bits / full_bits(layers, context) if code else 1.0
            line = line_of(name, walk(model, windows, context, rows, first, code), reference, windows, context, share)
            if needles:
                line["needles_found"] = sum(needle.found(model, tokenizer, code) for needle in needles)
                line["needle_accuracy"] = line["needles_found"] / len(needles)
            result["lines"].append(line)
            print(f"{name:42} {100 * share:6.2f} %  KLD {line['kld_mean']:.4f} +- {line['kld_stderr']:.4f}  "
                  f"perplexity {line['perplexity']:.3f}  same top {100 * line['same_top']:.1f} %  "
                  f"needles {line.get('needles_found', '-')}/{len(needles)}  {time.time() - started:.0f} s", flush=True)
            with open(args.out, "w") as file:
                json.dump(result, file, indent=1)


if __name__ == "__main__":
    main()
