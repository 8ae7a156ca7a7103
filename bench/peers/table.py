#!/usr/bin/env python3
"""kvc beside llama.cpp, OpenVINO GenAI and ONNX Runtime: the same checkpoint, in turns, one table.

usage: table.py BIN FOLDER [--rounds 5] [--threads 2] [--lengths 16,512,2048,4096,7168] [--new 32]
                [--engines kvc,llama.cpp,...] [--json FILE]

FOLDER is what bench/peers.sh makes: full.kvc, quarter.kvc, sixteenth.kvc, f32.kvc, model.gguf and config.json.
Every engine runs in a process of its own, one after the other, and then again: a round. Prints the median of
the rounds and the least and largest in brackets.
"""
import argparse
import json
import os
import platform
import statistics
import subprocess
import sys

HERE = os.path.dirname(os.path.abspath(__file__))


def engines_of(folder, bin_folder):
    gguf = os.path.join(folder, "model.gguf")
    half = os.path.join(folder, "model-f16.gguf")
    bundle = lambda name: {"bin": bin_folder, "model": os.path.join(folder, name)}
    return {
        "kvc, full cache": ("kvc", bundle("full.kvc")),
        "kvc, 25 %": ("kvc", bundle("quarter.kvc")),
        "kvc, 6.25 %": ("kvc", bundle("sixteenth.kvc")),
        "llama.cpp": ("llama_cpp", {"model": gguf, "flash": False, "cache": "f16"}),
        "llama.cpp, flash": ("llama_cpp", {"model": gguf, "flash": True, "cache": "f16"}),
        "llama.cpp, flash, q8_0": ("llama_cpp", {"model": gguf, "flash": True, "cache": "q8_0"}),
        "OpenVINO, bf16": ("openvino", {"model": half, "precision": "bf16"}),
        "OpenVINO, f32": ("openvino", {"model": half, "precision": "f32"}),
        "ONNX Runtime, f32": ("onnx_runtime", {"model": os.path.join(folder, "f32.kvc")}),
    }


def run_engine(name, options, lengths, new):
    code = f"import json, sys; sys.path.insert(0, {HERE!r}); import engines; engines.{name}(*json.load(sys.stdin))"
    result = subprocess.run([sys.executable, "-c", code], input=json.dumps([options, lengths, new]), text=True,
                            capture_output=True, check=False)
    lines = [line for line in result.stdout.splitlines() if line.startswith("{")]
    if result.returncode != 0 or not lines:
        sys.exit(f"{name}: {result.stderr.strip() or result.stdout.strip()}")
    return json.loads(lines[-1])


def cell(values):
    if not values or any(v is None for v in values):
        return "-"
    if len(values) == 1:
        return f"{values[0]:.0f}"
    return f"{statistics.median(values):.0f} ({min(values):.0f}-{max(values):.0f})"


def processor():
    with open("/proc/cpuinfo", encoding="utf-8") as file:
        text = file.read()
    field = lambda name: next((l.split(":", 1)[1].strip() for l in text.splitlines() if l.startswith(name)), "?")
    features = [f for f in ("avx2", "avx512f", "avx512_bf16", "amx_bf16") if f in field("flags").split()]
    return f"{field('model name')} (model {field('model')}; {', '.join(features)})"


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("bin")
    parser.add_argument("folder")
    for name, value in (("rounds", 5), ("threads", 2), ("new", 32), ("seed", 1)):
        parser.add_argument("--" + name, type=int, default=value)
    parser.add_argument("--lengths", default="16,512,2048,4096,7168")
    parser.add_argument("--engines", default="", help="names of rows, separated by semicolons; default: all")
    parser.add_argument("--json", help="also write every measurement here")
    args = parser.parse_args()
    lengths = [int(n) for n in args.lengths.split(",")]
    vocabulary = json.load(open(os.path.join(args.folder, "config.json"), encoding="utf-8"))["vocab_size"]
    chosen = engines_of(args.folder, args.bin)
    if args.engines:
        chosen = {name: chosen[name] for name in args.engines.split(";")}
    measured = {name: [] for name in chosen}
    for round_index in range(args.rounds):
        for name, (engine, options) in chosen.items():
            options = options | {"threads": args.threads, "seed": args.seed + round_index, "vocabulary": vocabulary}
            measured[name].append(run_engine(engine, options, lengths, args.new))
            print(f"round {round_index + 1} of {args.rounds}: {name}", file=sys.stderr)
    if args.json:
        with open(args.json, "w", encoding="utf-8") as file:
            json.dump(measured, file, indent=1)

    print(f"{processor()}, {platform.system()}, {args.threads} threads; median of {args.rounds} rounds in turns\n")
    heads = [f"prompt of {n}" for n in lengths if n >= 512] + [f"decode at {n}" for n in lengths]
    print("| tokens/s | " + " | ".join(heads + ["loading, s", "peak, MiB"]) + " |")
    print("|---" * (len(heads) + 3) + "|")
    for name, rounds in measured.items():
        column = lambda key, i: cell([r["runs"][i][key] for r in rounds])
        cells = [column("prefill", i) for i, n in enumerate(lengths) if n >= 512]
        cells += [column("decode", i) for i in range(len(lengths))]
        load = [r["load_seconds"] for r in rounds]
        cells.append("-" if None in load else f"{statistics.median(load):.1f}")
        cells.append(cell([r["peak_rss_bytes"] / 2**20 for r in rounds]))
        print(f"| {name} | " + " | ".join(cells) + " |")


if __name__ == "__main__":
    main()
