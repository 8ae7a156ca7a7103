#!/usr/bin/env python3
"""usage: bench/objective_ablation.py MODEL [--windows N] [--held-back N] [--rank R] [--only TEXT] TEXT...

What the closed form of a joint key latent (latent:1) may weigh, tried out of the pipeline: a Llama-family
MODEL in PyTorch, windows of 512 tokens, no tuning, the same rank in every layer. For each variant the KL
divergence to the model and the perplexity on held-back windows. Prints Markdown. Needs torch, safetensors
and tokenizers; a window takes about 20 s of processor time to calibrate on and 3 s to measure on.

The closed form minimises tr(M E^T E) over rank-R errors E of rows k, their second moment C given:
  C   rows weighted by  attention: sum of a(1-a) over the queries and heads that see the token;
                        output:    sum of a^2 |(v - o) W_O|^2, what an error does to the attention's output
  M   query energy: a diagonal, each rotation pair's mean (the objective input-attention-query);
      met:          E[z z^T] of queries z turned back by the key's position, weighted as C's rows or by
                    attention: what the key meets, with no assumption about relative positions;
      x met:        x of it (by trace), the rest the diagonal.
  heads  together: one C, the blocks of M side by side; each: every kv head its own C and M, by alternating
         least squares from there (factorize/joint_basis.h; with 0.9 met the objective output).
Further: the first token of a window, where attention has its sink, weighted less or kept as it is; C
shrunk towards what white inputs would give, W_K W_K^T.
"""

import argparse
import json
import math
from dataclasses import dataclass

import torch
from safetensors.torch import load_file
from tokenizers import Tokenizer

WINDOW = 512
QUERY_STRIDE = 16  # every 16th query is turned back to every position
ROUNDS, STEPS = 4, 12  # of alternating least squares, of conjugate gradients in each


@dataclass
class Variant:
    rows: str  # "attention", "output"
    met: float = 0.0  # share of M
    met_rows: str = ""  # what weighs the met queries, if not what weighs the rows
    each: bool = False  # kv head on its own
    first: float = 1.0  # weight of the first token
    keep_first: bool = False  # it has full keys
    shrink: float = 0.0  # of C's trace that white inputs add

    def __str__(self):
        metric = {0.0: "query energy", 1.0: "met"}.get(self.met, f"{self.met:g} met")
        metric += f" (by {self.met_rows})" if self.met_rows else ""
        more = [f"first token x {self.first:g}"] * (self.first != 1) + ["first token kept"] * self.keep_first
        more += [f"C shrunk by {self.shrink:g}"] * (self.shrink > 0)
        return f"| {self.rows} | {metric} | {'each' if self.each else 'together'} | {', '.join(more)} |"


VARIANTS = [Variant("attention", met) for met in (0.0, 0.75)]
VARIANTS += [Variant("output", 0.75, "attention")]
VARIANTS += [Variant("output", met) for met in (0.5, 0.75, 0.9)]
VARIANTS += [Variant("output", met, each=True) for met in (0.75, 0.9, 1.0)]
VARIANTS += [
    Variant("attention", 0.9, each=True),
    Variant("output", 0.9, first=0.1),
    Variant("output", 0.9, keep_first=True),
    Variant("output", 0.9, shrink=0.003),
    Variant("output", 0.9, shrink=0.03),
]


class Model:
    def __init__(self, path):
        config = json.load(open(f"{path}/config.json"))
        weights = load_file(f"{path}/model.safetensors")
        self.weights = {name.removeprefix("model."): value.float() for name, value in weights.items()}
        self.layers, self.heads = config["num_hidden_layers"], config["num_attention_heads"]
        self.kv_heads, self.width = config["num_key_value_heads"], config["hidden_size"]
        self.head_width = self.width // self.heads
        self.group = self.heads // self.kv_heads
        self.epsilon = config["rms_norm_eps"]
        theta = config.get("rope_theta") or config["rope_parameters"]["rope_theta"]
        frequencies = theta ** (-torch.arange(0, self.head_width, 2).float() / self.head_width)
        angles = torch.outer(torch.arange(WINDOW).float(), frequencies).repeat(1, 2)  # [T, D]
        self.cos, self.sin = angles.cos(), angles.sin()
        self.mask = torch.full((WINDOW, WINDOW), -math.inf).triu(1)

    def turn(self, x, sign=1.0):
        half = self.head_width // 2
        return x * self.cos + sign * torch.cat([-x[..., half:], x[..., :half]], -1) * self.sin

    def norm(self, x, name):
        return x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + self.epsilon) * self.weights[name]

    def embed(self, ids):
        return self.weights["embed_tokens.weight"][torch.tensor(ids)]

    def layer(self, index, x, projection=None, tap=None, kept=0):
        """x [T, E] through a layer; keys [T, G*D] behind the first `kept` times `projection` before the rotation."""
        at = lambda name: self.weights[f"layers.{index}.{name}.weight"]
        split = lambda y, heads: y.view(WINDOW, heads, self.head_width).transpose(0, 1)
        inputs = self.norm(x, f"layers.{index}.input_layernorm.weight")
        keys = inputs @ at("self_attn.k_proj").T
        q = self.turn(split(inputs @ at("self_attn.q_proj").T, self.heads))  # [H, T, D]
        thin = keys if projection is None else torch.cat([keys[:kept], keys[kept:] @ projection])
        k = self.turn(split(thin, self.kv_heads))
        v = split(inputs @ at("self_attn.v_proj").T, self.kv_heads).repeat_interleave(self.group, 0)
        logits = q @ k.repeat_interleave(self.group, 0).transpose(1, 2) / math.sqrt(self.head_width)
        a = torch.softmax(logits + self.mask, -1)  # [H, T, T]
        o = a @ v
        if tap:
            tap(index, keys, q, v, a, o)
        x = x + o.transpose(0, 1).reshape(WINDOW, self.width) @ at("self_attn.o_proj").T
        inputs = self.norm(x, f"layers.{index}.post_attention_layernorm.weight")
        gate = torch.nn.functional.silu(inputs @ at("mlp.gate_proj").T)
        return x + (gate * (inputs @ at("mlp.up_proj").T)) @ at("mlp.down_proj").T

    def log_probabilities(self, ids, projections=None, kept=0):
        x = self.embed(ids)
        for index in range(self.layers):
            x = self.layer(index, x, projections[index] if projections else None, kept=kept)
        return torch.log_softmax(self.norm(x, "norm.weight") @ self.weights["embed_tokens.weight"].T, -1)[:-1]


def collect(model, windows):
    """[layers] of sums over the windows, for NAME in attention, output: "NAME" [G, m, m], each kv head's C, and
    "NAME first" [m, m], the first tokens' part of all; "NAME met" [G, D, D]; "energy" [m]."""
    sums = [{} for _ in range(model.layers)]
    heads, width, group = model.kv_heads, model.head_width, model.group

    def tap(index, keys, q, v, a, o):
        def add(name, value):
            sums[index][name] = sums[index].get(name, 0) + value.double()

        out = model.weights[f"layers.{index}.self_attn.o_proj.weight"].view(model.width, model.heads, width)
        out = out.permute(1, 0, 2)
        metric = out.transpose(1, 2) @ out  # [H, D, D]
        seen = v @ metric
        distance = (seen * v).sum(-1)[:, None] + ((o @ metric) * o).sum(-1)[:, :, None] - 2 * o @ seen.transpose(1, 2)
        energy = (q * q).sum(1).view(heads, group, 2, width // 2).sum(1).mean(1, keepdim=True)
        add("energy", energy.expand(heads, 2, width // 2).reshape(-1))
        times = torch.arange(QUERY_STRIDE - 1, WINDOW, QUERY_STRIDE)
        for name, pairs in (("attention", a - a * a), ("output", a * a * distance.clamp_min(0))):
            rows = pairs.sum(1).view(heads, group, WINDOW).sum(1)  # [G, T]
            add(name, torch.stack([(keys * weight[:, None]).T @ keys for weight in rows]))
            add(f"{name} first", rows[:, 0].sum() * torch.outer(keys[0], keys[0]))
            met = torch.zeros(heads, width, width)
            for head in range(model.heads):
                turned = model.turn(q[head, times][:, None], -1.0).reshape(-1, width)  # [times * T, D]
                met[head // group] += (turned * pairs[head, times].reshape(-1, 1)).T @ turned
            add(f"{name} met", met)

    for ids in windows:
        x = model.embed(ids)
        for index in range(model.layers):
            x = model.layer(index, x, tap=tap)
    return sums


def inverse(x):
    values, vectors = torch.linalg.eigh(x)
    return (vectors / values.clamp_min(1e-6 * values.max())) @ vectors.T


def conjugate_gradients(apply, right, x, precondition):
    residual = right - apply(x)
    direction = precondition(residual)
    energy = (residual * direction).sum()
    enough = 1e-10 * (right * precondition(right)).sum()
    for _ in range(STEPS):
        if energy <= enough:
            break
        image = apply(direction)
        length = energy / (direction * image).sum()
        x, residual = x + length * direction, residual - length * image
        step = precondition(residual)
        energy, before = (residual * step).sum(), energy
        direction = step + energy / before * direction
    return x


def refine(metrics, grams, up, down):
    """Rebuild `up` [m, R] and reduce `down` [R, m], improved: every head g has its metric [D, D] and its gram [m, m]."""
    width = metrics.shape[1]
    part = lambda x, g: x[g * width : (g + 1) * width]

    def regress(up, a):
        error = torch.eye(len(up), dtype=up.dtype) - up @ a
        return up + torch.cat([part(error, g) @ c @ a.T @ inverse(a @ c @ a.T) for g, c in enumerate(grams)])

    up = regress(up, down)
    for _ in range(ROUNDS):
        left = [part(up, g).T @ metric for g, metric in enumerate(metrics)]  # [R, D]
        both = [x @ part(up, g) for g, x in enumerate(left)]  # [R, R]
        rows = inverse(sum(b * c.trace() for b, c in zip(both, grams)))
        columns = inverse(sum(c * b.trace() for b, c in zip(both, grams)))
        right = sum(x @ part(c, g) for g, (x, c) in enumerate(zip(left, grams)))
        apply = lambda x: sum(b @ x @ c for b, c in zip(both, grams))
        down = conjugate_gradients(apply, right, down, lambda x: rows @ x @ columns)
        up = regress(up, down)
    return up, down


def projections(model, sums, variant, rank):
    """[layers] of [m, m]: keys to their truncation of `rank`."""
    result = []
    for index, layer in enumerate(sums):
        rows = layer[variant.rows].sum(0) - (1 - variant.first) * layer[f"{variant.rows} first"]
        weight = model.weights[f"layers.{index}.self_attn.k_proj.weight"].double()
        white = weight @ weight.T
        rows = rows + variant.shrink * rows.trace() / white.trace() * white
        diagonal = torch.diag(layer["energy"])
        met = torch.block_diag(*layer[f"{variant.met_rows or variant.rows} met"])
        metric = variant.met * met / met.trace() + (1 - variant.met) * diagonal / diagonal.trace()
        values, vectors = torch.linalg.eigh(metric)
        values = values.clamp_min(1e-6 * values.max()).sqrt()
        root, undo = (vectors * values) @ vectors.T, (vectors / values) @ vectors.T
        basis = torch.linalg.eigh(root @ rows @ root)[1][:, -rank:]
        up, down = undo @ basis, basis.T @ root
        if variant.each:
            width = model.head_width
            blocks = torch.stack([metric[g : g + width, g : g + width] for g in range(0, len(metric), width)])
            up, down = refine(blocks, [gram / gram.trace() for gram in layer[variant.rows]], up, down)
        result.append((up @ down).T.float())
    return result


def main():
    parser = argparse.ArgumentParser(usage=__doc__.splitlines()[0])
    parser.add_argument("model")
    parser.add_argument("texts", nargs="+")
    parser.add_argument("--windows", type=int, default=12)
    parser.add_argument("--held-back", type=int, default=3)
    parser.add_argument("--rank", type=int, default=48)
    parser.add_argument("--only", default="", help="variants whose row holds this text")
    args = parser.parse_args()
    torch.set_grad_enabled(False)
    model = Model(args.model)
    tokenizer = Tokenizer.from_file(f"{args.model}/tokenizer.json")
    ids = []
    for text in args.texts:
        ids += tokenizer.encode(open(text, encoding="utf8").read(), add_special_tokens=False).ids
    count = args.windows + args.held_back
    windows = [ids[i * len(ids) // count :][:WINDOW] for i in range(count)]
    apart = {(2 * i + 1) * count // (2 * args.held_back) for i in range(args.held_back)}
    sums = collect(model, [window for i, window in enumerate(windows) if i not in apart])
    held_back = [windows[i] for i in sorted(apart)]
    reference = [model.log_probabilities(window) for window in held_back]
    target = [torch.tensor(window[1:])[:, None] for window in held_back]
    nll = lambda runs: -torch.cat([run.gather(1, t) for run, t in zip(runs, target)]).double().mean().item()
    full = math.exp(nll(reference))
    print(f"{args.windows} windows to calibrate on, {args.held_back} held back; rank {args.rank}; full perplexity {full:.2f}\n")
    print("| C, rows weighted by | M | heads | further | KLD | perplexity |\n|---|---|---|---|---|---|", flush=True)
    for variant in VARIANTS:
        if args.only not in str(variant):
            continue
        thin = projections(model, sums, variant, args.rank)
        runs = [model.log_probabilities(window, thin, int(variant.keep_first)) for window in held_back]
        kld = torch.cat([(p.exp() * (p - q)).sum(-1) for p, q in zip(reference, runs)]).double().mean().item()
        print(f"{variant} {kld:.4f} | {100 * (math.exp(nll(runs)) / full - 1):+.1f} % |", flush=True)


if __name__ == "__main__":
    main()
