#!/usr/bin/env python3
"""usage: bench/objective_ablation.py MODEL [--windows N] [--held-back N] [--rank R] TEXT...

What the closed form of a joint key latent (latent:1) may weigh, tried out of the pipeline: a Llama-family
MODEL in PyTorch, windows of 512 tokens, no tuning, the same rank in every layer. For each variant the KL
divergence to the model and the perplexity on held-back windows. Prints Markdown. Needs torch, safetensors
and tokenizers; a window takes about 4 s of processor time to calibrate on and 3 s to measure on.

The closed form minimises tr(M E^T E) over rank-R errors E of rows k, their second moment C given:
  C   rows weighted by  attention: sum of a(1-a) over the queries and heads that see the token;
                        output:    sum of a^2 |(v - o) W_O|^2, what an error does to the attention's output
  M   query energy: a diagonal, each rotation pair's mean (the objective input-attention-query);
      met:          E[z z^T] of queries z turned back by the key's position, weighted by a(1-a): what the
                    key meets, with no assumption about relative positions;
      x met:        x of it (by trace), the rest the diagonal.
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
QUERY_STRIDE = 32  # every 32nd query is turned back to every position


@dataclass
class Variant:
    rows: str  # "attention", "output"
    met: float = 0.0  # share of M
    first: float = 1.0  # weight of the first token
    keep_first: bool = False  # it has full keys
    shrink: float = 0.0  # of C's trace that white inputs add

    def __str__(self):
        metric = {0.0: "query energy", 1.0: "met"}.get(self.met, f"{self.met:g} met")
        more = [f"first token x {self.first:g}"] * (self.first != 1) + ["first token kept"] * self.keep_first
        more += [f"C shrunk by {self.shrink:g}"] * (self.shrink > 0)
        return f"| {self.rows} | {metric} | {', '.join(more)} |"


VARIANTS = [Variant(rows, met) for rows in ("attention", "output") for met in (0.0, 0.25, 0.5, 0.75, 1.0)]
VARIANTS += [
    Variant("attention", first=0.1),
    Variant("output", keep_first=True),
    Variant("attention", shrink=0.03),
    Variant("output", shrink=0.003),
    Variant("output", shrink=0.03),
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
    """[layers] of sums over the windows: "attention", "output" [m, m], of the first tokens alone "attention first",
    "output first"; "energy" [m], "met" [G, D, D]."""
    sums = [{} for _ in range(model.layers)]
    heads, width, group = model.kv_heads, model.head_width, model.group

    def tap(index, keys, q, v, a, o):
        def add(name, value):
            sums[index][name] = sums[index].get(name, 0) + value.double()

        moved = a - a * a
        out = model.weights[f"layers.{index}.self_attn.o_proj.weight"].view(model.width, model.heads, width)
        out = out.permute(1, 0, 2)
        metric = out.transpose(1, 2) @ out  # [H, D, D]
        seen = v @ metric
        distance = (seen * v).sum(-1)[:, None] + ((o @ metric) * o).sum(-1)[:, :, None] - 2 * o @ seen.transpose(1, 2)
        weights = {"attention": moved.sum((0, 1)), "output": (a * a * distance.clamp_min(0)).sum((0, 1))}
        for name, weight in weights.items():
            add(name, (keys * weight[:, None]).T @ keys)
            add(f"{name} first", weight[0] * torch.outer(keys[0], keys[0]))
        energy = (q * q).sum(1).view(heads, group, 2, width // 2).sum(1).mean(1, keepdim=True)
        add("energy", energy.expand(heads, 2, width // 2).reshape(-1))
        times = torch.arange(QUERY_STRIDE - 1, WINDOW, QUERY_STRIDE)
        met = torch.zeros(heads, width, width)
        for head in range(model.heads):
            turned = model.turn(q[head, times][:, None], -1.0).reshape(-1, width)  # [times * T, D]
            met[head // group] += (turned * moved[head, times].reshape(-1, 1)).T @ turned
        add("met", met)

    for ids in windows:
        x = model.embed(ids)
        for index in range(model.layers):
            x = model.layer(index, x, tap=tap)
    return sums


def projections(model, sums, variant, rank):
    """[layers] of [m, m]: keys to their truncation of `rank`."""
    result = []
    for index, layer in enumerate(sums):
        rows = layer[variant.rows] - (1 - variant.first) * layer[f"{variant.rows} first"]
        weight = model.weights[f"layers.{index}.self_attn.k_proj.weight"].double()
        white = weight @ weight.T
        rows = rows + variant.shrink * rows.trace() / white.trace() * white
        diagonal = torch.diag(layer["energy"])
        met = torch.block_diag(*layer["met"])
        metric = variant.met * met / met.trace() + (1 - variant.met) * diagonal / diagonal.trace()
        values, vectors = torch.linalg.eigh(metric)
        values = values.clamp_min(1e-6 * values.max()).sqrt()
        root, inverse = (vectors * values) @ vectors.T, (vectors / values) @ vectors.T
        basis = torch.linalg.eigh(root @ rows @ root)[1][:, -rank:]
        result.append((root @ basis @ basis.T @ inverse).float())
    return result


def main():
    parser = argparse.ArgumentParser(usage=__doc__.splitlines()[0])
    parser.add_argument("model")
    parser.add_argument("texts", nargs="+")
    parser.add_argument("--windows", type=int, default=12)
    parser.add_argument("--held-back", type=int, default=3)
    parser.add_argument("--rank", type=int, default=48)
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
    print("| C, rows weighted by | M | further | KLD | perplexity |\n|---|---|---|---|---|", flush=True)
    for variant in VARIANTS:
        thin = projections(model, sums, variant, args.rank)
        runs = [model.log_probabilities(window, thin, int(variant.keep_first)) for window in held_back]
        kld = torch.cat([(p.exp() * (p - q)).sum(-1) for p, q in zip(reference, runs)]).double().mean().item()
        print(f"{variant} {kld:.4f} | {100 * (math.exp(nll(runs)) / full - 1):+.1f} % |", flush=True)


if __name__ == "__main__":
    main()
