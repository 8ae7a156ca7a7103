#!/usr/bin/env python3
"""Prints what preparing large models costs on 1, 8 and 64 machines, as the tables of docs/design/ranks.md.

usage: rank_costs.py BIN [--tflops X] [--network GB/s] [--disk GB/s] [--threads N] [--models 7B,70B,405B] [--ranks 1,8,64] [OPTIONS OF KVC-FACTORIZE ...]

Memory, bytes and operations are those of `kvc-factorize --dry-run --ranks N` (factorize/rank_cost.h) for configurations of published sizes.
Times follow from three rates of one machine: operations in float32 that it sustains, the network, and what it reads of the checkpoint's folder.
"""
import argparse, json, os, subprocess, sys, tempfile

# layers, width, heads, kv heads, MLP width, vocabulary: Llama 2 7B, Llama 3 70B and 405B
MODELS = {"7B": (32, 4096, 32, 32, 11008, 32000), "70B": (80, 8192, 64, 8, 28672, 128256),
          "405B": (126, 16384, 128, 8, 53248, 128256)}

def config(layers, width, heads, kv_heads, mlp, vocabulary):
    return {"architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_size": width, "intermediate_size": mlp,
            "num_hidden_layers": layers, "num_attention_heads": heads, "num_key_value_heads": kv_heads, "vocab_size": vocabulary,
            "max_position_embeddings": 8192, "rms_norm_eps": 1e-5, "rope_theta": 500000.0, "hidden_act": "silu",
            "tie_word_embeddings": False, "torch_dtype": "bfloat16"}

def plan(binary, model, ranks, threads, options):
    with tempfile.TemporaryDirectory() as folder:
        with open(os.path.join(folder, "config.json"), "w") as file:
            json.dump(config(*MODELS[model]), file)
        command = [os.path.join(binary, "kvc-factorize"), folder, "-o", os.path.join(folder, "out"), "--dry-run", "--json",
                   "--ranks", str(ranks), "--threads", str(threads), *options]
        return json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)["rank_cost"]

def seconds(stage, rates, threads):
    """One stage: products on all threads, decompositions on one; sending and reading are not overlapped with them."""
    flops = rates.tflops * 1e12
    together = (stage["flops"] - stage["flops_alone"]) / flops
    alone = stage["flops_alone"] / (flops / threads)
    return together + alone + stage["sent_bytes"] / (rates.network * 1e9) + stage["read_bytes"] / (rates.disk * 1e9)

def main():
    parser = argparse.ArgumentParser(usage=__doc__.split("\n\n")[1], allow_abbrev=False)
    parser.add_argument("binary")
    parser.add_argument("--tflops", type=float, default=2.0)
    parser.add_argument("--network", type=float, default=1.25)
    parser.add_argument("--disk", type=float, default=1.0)
    parser.add_argument("--threads", type=int, default=32)
    parser.add_argument("--models", default="7B,70B,405B")
    parser.add_argument("--ranks", default="1,8,64")
    rates, options = parser.parse_known_args()
    print("| model | machines | memory of each, GB | sent by each, GB | read by each, GB | PFLOP of each | hours | speed-up |")
    print("|---|---|---|---|---|---|---|---|")
    for model in rates.models.split(","):
        alone = None
        for ranks in map(int, rates.ranks.split(",")):
            cost = plan(rates.binary, model, ranks, rates.threads, options)
            hours = sum(seconds(stage, rates, rates.threads) for stage in cost["stages"]) / 3600
            alone = alone or hours
            total = lambda key: sum(stage[key] for stage in cost["stages"])
            print(f"| {model} | {ranks} | {cost['memory_bytes'] / 1e9:.1f} | {total('sent_bytes') / 1e9:.1f} | "
                  f"{total('read_bytes') / 1e9:.0f} | {total('flops') / 1e15:.1f} | {hours:.2f} | {alone / hours:.1f} |")

main()
