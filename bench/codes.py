#!/usr/bin/env python3
"""Other people's codes of cached keys and values, simulated, on the windows and needles of `kvc-eval compare`.

usage: codes.py MODEL PROMPTS CALIBRATION.txt OUT.json [--code NAME]... [--no-needles] [--threads N]

MODEL is a Hugging Face directory, PROMPTS the file of `kvc-eval compare ... --save-prompts`. Prints a line for each code
and writes OUT.json in the form of `kvc-eval compare -o`, so `kvc report` draws both (bench/codes.sh runs the two).
Needs torch and transformers (tests/venv.sh BUILD torch).

Nothing here is fast or small: rows are coded and decoded again, and what they would take is counted, scales, zeros and
positions included. A context is prefilled in full, its rows are coded, and the tokens behind it are fed at their true
positions over the coded rows; their own rows stay exact except where a code is one of rows (ggml). bfloat16 rows of the
whole context are 100 %. What each code does, and where it is kinder than its paper, stands at its class.
"""

import argparse
import json
import math
import time
import zlib

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, DynamicCache
from transformers.models.llama.modeling_llama import apply_rotary_pos_emb, rotate_half

from needle_protocol import answer, split

FULL_BITS = 16
SINKS = 4
WINDOW = 32


# ---- rows ----------------------------------------------------------------------------------------------------------

def grouped(x, size):
    """[..., D] -> [..., D / size, size]"""
    return x.unflatten(-1, (-1, size))


def q8_0(x):
    """ggml's block of 32: one f16 scale, 8 bits each."""
    blocks = grouped(x, 32)
    scale = (blocks.abs().amax(-1, keepdim=True) / 127).half().float()
    return (torch.where(scale > 0, (blocks / scale).round().clamp(-127, 127), 0) * scale).flatten(-2)


def q4_0(x):
    """ggml's block of 32: one f16 scale, which sends the number of largest size to -8."""
    blocks = grouped(x, 32)
    at = blocks.abs().argmax(-1, keepdim=True)
    scale = blocks.gather(-1, at) / -8
    codes = torch.where(scale != 0, (blocks / scale + 8.5).floor().clamp(0, 15), 8)
    return ((codes - 8) * scale.half().float()).flatten(-2)


def hadamard(width):
    h = torch.ones(1, 1)
    while len(h) < width:
        h = torch.cat([torch.cat([h, h], 1), torch.cat([h, -h], 1)])
    return h / math.sqrt(width)


def min_max(x, bits):
    """Groups [..., size] between their least and largest number, in f16; 32 bits for each group."""
    low = x.amin(-1, keepdim=True).half().float()
    scale = ((x.amax(-1, keepdim=True) - low) / (2**bits - 1)).half().float()
    return torch.where(scale > 0, ((x - low) / scale).round().clamp(0, 2**bits - 1), 0) * scale + low


# ---- codes: code(layers, context) -> bits that a context's rows take; rows are changed in place ------------------------
# A layer has keys and values [B, G, T, D], queries [B, H, WINDOW, D] of the context's end, rotation (cos, sin) [T, D].

class Ggml:
    """--cache-type-k/-v of llama.cpp: every row in blocks of 32. It rotates rows by a Hadamard matrix before (PR 21038)
    where `rotate`. Rows of coming tokens are coded too."""

    def __init__(self, block, bits, rotate):
        self.block, self.bits, self.rotate = block, bits, rotate

    def row(self, x):
        if not self.rotate:
            return self.block(x)
        turn = hadamard(x.shape[-1])
        return self.block(x @ turn) @ turn.T

    def __call__(self, layers, context):
        bits = 0
        for layer in layers:
            for name in ("keys", "values"):
                x = getattr(layer, name)
                bits += x.numel() * self.bits
                setattr(layer, name, self.row(x))
        return bits


class Kivi:
    """KIVI (2402.02750): keys by channel in groups of 32 tokens, values by token in groups of 32 channels, least number
    and step in f16 for each group; the last tokens that fill no `residual` (keys) and the last `residual` ones (values)
    stay as they are. Kinder than the paper: values of the residual are not coded while the tokens behind the context
    push them out."""

    def __init__(self, bits, residual):
        self.bits, self.residual = bits, residual

    def __call__(self, layers, context):
        coded_keys = context - context % self.residual
        coded_values = max(0, context - self.residual)
        bits = 0
        for layer in layers:
            keys = layer.keys[:, :, :coded_keys].transpose(2, 3)
            layer.keys[:, :, :coded_keys] = min_max(grouped(keys, 32), self.bits).flatten(-2).transpose(2, 3)
            values = layer.values[:, :, :coded_values]
            layer.values[:, :, :coded_values] = min_max(grouped(values, 32), self.bits).flatten(-2)
            for x, coded in ((layer.keys, coded_keys), (layer.values, coded_values)):
                per_token = x.numel() // context
                bits += per_token * (coded * (self.bits + 1) + (context - coded) * FULL_BITS)
        return bits


# Best steps of a mid-rise quantizer of b bits for a normal number of deviation 1 (Max, 1960).
STEPS = {1: 1.596, 2: 0.996, 3: 0.586, 4: 0.335, 5: 0.188, 6: 0.104, 7: 0.057, 8: 0.031}


def mid_rise(x, step, bits):
    """-> (codes, decoded numbers)"""
    codes = (x / step).floor().clamp(-(2 ** (bits - 1)), 2 ** (bits - 1) - 1)
    return codes, (codes + 0.5) * step


class Axis:
    """Principal axes of a layer's keys or values over its heads: mean, axes [D, D], and for each number of bits 0 .. 8 the
    step [9, D] of least squared error over calibration rows, with that error [9, D]."""

    def __init__(self, rows):
        self.mean = rows.mean(0)
        centred = (rows - self.mean).double()
        values, vectors = torch.linalg.eigh(centred.T @ centred / len(rows))
        self.vectors = vectors.flip(1).float()
        y = (rows - self.mean) @ self.vectors
        deviation = y.std(0).clamp(min=1e-6)
        self.steps, self.errors = [deviation], [y.square().mean(0)]
        for bits, best in STEPS.items():
            steps = torch.stack([deviation * best * wider for wider in (0.8, 1.0, 1.26, 1.6, 2.0, 2.5, 3.2)])
            errors = torch.stack([(mid_rise(y, step, bits)[1] - y).square().mean(0) for step in steps])
            error, at = errors.min(0)
            self.steps.append(steps.gather(0, at[None])[0])
            self.errors.append(error)
        self.steps, self.errors = torch.stack(self.steps), torch.stack(self.errors)


class Kvtc:
    """In KVTC's manner (2511.01815): the rotation taken off the keys, principal axes over a layer's heads from
    calibration text, bits for each axis by its variance, codes packed by DEFLATE (zlib; the smaller of that and
    plain bits counts); sinks and the newest `window` tokens stay as they are. Other than the paper: axes over the heads
    of a layer and not over all layers, which some thousand calibration tokens cannot fill; steps by axis from calibration,
    none in the rows; bits by axis from one price over the layers for keys, and one for values, which get half of the
    bytes each, instead of a dynamic program. The share is met with DEFLATE's sizes on the first window; the others and
    needles have the same prices."""

    def __init__(self, share, window, calibration):
        self.share, self.window, self.axes = share, window, calibration
        self.prices = {}  # log2 of the loss that a bit must save

    def code(self, layer, index, name, theta, end, windows=None):
        """-> keys or values [B, G, T', D] after coding, and bits of the codes, of the first `windows` or all."""
        axis, size = self.axes[index][name], 0
        x = getattr(layer, name)[:windows, :, SINKS:end]
        if name == "keys":
            x = unrotate(x, layer.rotation, slice(SINKS, end))
        y = (x.transpose(1, 2).flatten(2) - axis.mean) @ axis.vectors
        bits = (axis.errors + theta * torch.arange(9)[:, None]).argmin(0)
        decoded = torch.zeros_like(y)
        for b in range(1, 9):
            at = bits == b
            if not at.any():
                continue
            codes, decoded[..., at] = mid_rise(y[..., at], axis.steps[b, at], b)
            for one in codes:
                packed = zlib.compress(one.T.contiguous().to(torch.int8).numpy().tobytes(), 6)
                size += 8 * min(len(packed), one.numel() * b / 8)
        rows = (decoded @ axis.vectors.T + axis.mean).unflatten(2, (x.shape[1], -1)).transpose(1, 2)
        return (rotate(rows, layer.rotation, slice(SINKS, end)) if name == "keys" else rows), size

    def find_price(self, layers, name, end, wanted):
        low, high = -30.0, 6.0
        some = range(0, len(layers), 4)  # every fourth layer tells the size well enough
        for _ in range(8):
            price = 0.5 * (low + high)
            size = sum(self.code(layers[i], i, name, 2**price, end, 1)[1] for i in some)
            size *= len(layers) / len(some) * len(layers[0].keys)  # the first window stands for all
            low, high = (price, high) if size > wanted else (low, price)
        return high

    def __call__(self, layers, context):
        end = context - self.window
        per_token = sum(x.numel() // context for layer in layers for x in (layer.keys, layer.values))
        whole = per_token * (SINKS + self.window) * FULL_BITS
        wanted = self.share * per_token * context * FULL_BITS
        if whole > wanted:
            return None
        size = whole
        for name in ("keys", "values"):
            if name not in self.prices:
                self.prices[name] = self.find_price(layers, name, end, (wanted - whole) / 2)
            for index, layer in enumerate(layers):
                rows, bits = self.code(layer, index, name, 2 ** self.prices[name], end)
                getattr(layer, name)[:, :, SINKS:end] = rows
                size += bits
        return size


def rotate(x, rotation, at):
    cos, sin = (part[at] for part in rotation)
    return x * cos + rotate_half(x) * sin


def unrotate(x, rotation, at):
    cos, sin = (part[at] for part in rotation)
    return x * cos - rotate_half(x) * sin


class Rdkv:
    """In RDKV's manner (2605.08317, no public code: our reading of its abstract and summaries): every token of a head gets
    bits out of 0 (dropped), 2, 4, 8 and 16 by reverse water-filling once after the prefill, by the distortion that coding
    it induces on the attention's output under the queries of the context's end; one price for the model. The
    distortion of each width is measured, not modelled. Rows in bits are min-max by token in groups of 32 channels, a key
    and a value alike. Sinks and the newest tokens stay as they are; 4 bytes for a kept token's position in each head."""

    WIDTHS = (0, 2, 4, 8, 16)

    def __init__(self, share):
        self.share = share

    @staticmethod
    def distortions(layer, context):
        """-> loss [B, G, T, widths]"""
        b, g, t, d = layer.keys.shape
        queries = layer.queries.unflatten(1, (g, -1))  # [B, G, h, W, D]
        logits = torch.einsum("bghwd,bgtd->bghwt", queries, layer.keys) / math.sqrt(d)
        seen = torch.arange(t)[None] <= torch.arange(context - WINDOW, context)[:, None]
        a = logits.masked_fill(~seen, -math.inf).softmax(-1)
        output = torch.einsum("bghwt,bgtd->bghwd", a, layer.values)
        # |v_t - o|^2, in three terms.
        apart = (output.square().sum(-1)[..., None] + layer.values.square().sum(-1)[:, :, None, None]
                 - 2 * torch.einsum("bghwd,bgtd->bghwt", output, layer.values))
        losses = [(a.square() * apart).mean(3).sum(2)]
        for bits in Rdkv.WIDTHS[1:-1]:
            dk = min_max(grouped(layer.keys, 32), bits).flatten(-2) - layer.keys
            dv = min_max(grouped(layer.values, 32), bits).flatten(-2) - layer.values
            moved = torch.einsum("bghwd,bgtd->bghwt", queries, dk).square() / d
            losses.append((a.square() * (moved * apart + dv.square().sum(-1)[:, :, None, None])).mean(3).sum(2))
        return torch.stack(losses + [torch.zeros_like(losses[0])], -1)

    def __call__(self, layers, context):
        d = layers[0].keys.shape[-1]
        costs = torch.tensor([0.0] + [2 * d * (w + 1.0) + 32 for w in self.WIDTHS[1:-1]] + [2 * d * 16.0 + 32])
        batch, heads = layers[0].keys.shape[:2]
        losses = torch.stack([self.distortions(layer, context) for layer in layers])  # [L, B, G, T, widths]
        losses[..., :SINKS, :-1] = math.inf
        losses[..., context - WINDOW:, :-1] = math.inf
        wanted = self.share * len(layers) * heads * context * 2 * d * FULL_BITS  # of one sequence
        if (SINKS + WINDOW) / context > self.share:
            return None
        bits = 0
        choice = torch.empty(losses.shape[:-1], dtype=torch.long)
        for one in range(batch):  # a price for each sequence
            low, high = -60.0, 20.0
            for _ in range(40):
                theta = 0.5 * (low + high)
                choice[:, one] = (losses[:, one] + 2**theta * costs).argmin(-1)
                low, high = (theta, high) if costs[choice[:, one]].sum() > wanted else (low, theta)
            choice[:, one] = (losses[:, one] + 2**high * costs).argmin(-1)
            bits += costs[choice[:, one]].sum().item()
        for index, layer in enumerate(layers):
            for name in ("keys", "values"):
                x = getattr(layer, name)
                result = x.clone()
                for at, width in enumerate(self.WIDTHS[1:-1], 1):
                    coded = min_max(grouped(x, 32), width).flatten(-2)
                    result = torch.where((choice[index] == at)[..., None], coded, result)
                setattr(layer, name, result)
            layer.dropped = choice[index] == 0
        return bits


# ---- the model -----------------------------------------------------------------------------------------------------

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


def all_codes(axes):
    codes = {
        "q8_0": Ggml(q8_0, 8.5, False),
        "q8_0, rotated": Ggml(q8_0, 8.5, True),
        "q4_0": Ggml(q4_0, 4.5, False),
        "q4_0, rotated": Ggml(q4_0, 4.5, True),
    }
    for bits in (4, 2):
        for residual in (128, 32):
            codes[f"KIVI {bits} bits, residual {residual}"] = Kivi(bits, residual)
    for share in (0.5, 0.25, 0.125, 0.0625):
        for window in (128, WINDOW):
            codes[f"KVTC's manner, window {window}, {100 * share:g} %"] = Kvtc(share, window, axes)
    for share in (0.5, 0.25, 0.125, 0.0625):
        codes[f"RDKV's manner, {100 * share:g} %"] = Rdkv(share)
    return codes


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
