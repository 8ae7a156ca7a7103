#!/usr/bin/env python3
"""usage: thin_models.py BIN SOURCE WORK [COUNT]

Random thin models (default 4) in f16, bf16 and with an int8 cache: the verification of each bundle
passes, because its bound follows from formats and shapes. Layers, widths, heads, norms, biases and
the size of attention logits vary. Needs nothing but Python and the commands of a build with LibTorch.
"""

import json
import math
import pathlib
import random
import shutil
import struct
import subprocess
import sys

LAYOUTS = {
    "llama": ["latent:1", "latent:heads", "rope-pairs"],
    "qwen2": ["latent:1", "rope-pairs"],
    "qwen3": ["latent:1", "latent:heads"],
}
FORMATS = (("f16",), ("bf16",), ("f32", "--cache-dtype", "int8"))


def config_of(rng):
    family = rng.choice(list(LAYOUTS))
    width = rng.choice([8, 16, 24, 32])
    kv_heads = rng.choice([1, 2, 4])
    heads = kv_heads * rng.choice([1, 2, 3])
    hidden = heads * width if family == "qwen2" else rng.choice([32, 64, 96])
    return {
        "model_type": family,
        "num_hidden_layers": rng.choice([1, 2, 3, 6]),
        "num_attention_heads": heads,
        "num_key_value_heads": kv_heads,
        "head_dim": width,
        "hidden_size": hidden,
        "intermediate_size": 2 * hidden,
        "vocab_size": 96,
        "max_position_embeddings": 128,
        "rms_norm_eps": 1e-5,
        "rope_theta": 10000.0,
        "hidden_act": "silu",
        "tie_word_embeddings": False,
        "torch_dtype": "float32",
    }


def tensors_of(config, rng):
    gain = rng.choice([0.5, 1.2, 2.0])
    hidden, width = config["hidden_size"], config["head_dim"]
    queries = config["num_attention_heads"] * width
    keys = config["num_key_value_heads"] * width

    def matrix(rows, columns, scale):
        return [rows, columns], [rng.gauss(0.0, scale) for _ in range(rows * columns)]

    def norm(size):
        return [size], [1.0 + rng.gauss(0.0, 0.3) for _ in range(size)]

    def linear(rows, columns):
        return matrix(rows, columns, gain / math.sqrt(columns))

    yield "model.embed_tokens.weight", matrix(config["vocab_size"], hidden, 0.8)
    yield "lm_head.weight", matrix(config["vocab_size"], hidden, 0.8)
    yield "model.norm.weight", norm(hidden)
    for layer in range(config["num_hidden_layers"]):
        prefix = f"model.layers.{layer}."
        yield prefix + "input_layernorm.weight", norm(hidden)
        yield prefix + "post_attention_layernorm.weight", norm(hidden)
        for name, rows in (("q", queries), ("k", keys), ("v", keys)):
            yield f"{prefix}self_attn.{name}_proj.weight", linear(rows, hidden)
            if config["model_type"] == "qwen2":
                yield f"{prefix}self_attn.{name}_proj.bias", ([rows], [rng.gauss(0.0, 0.3) for _ in range(rows)])
        if config["model_type"] == "qwen3":
            yield prefix + "self_attn.q_norm.weight", norm(width)
            yield prefix + "self_attn.k_norm.weight", norm(width)
        yield prefix + "self_attn.o_proj.weight", linear(hidden, queries)
        yield prefix + "mlp.gate_proj.weight", linear(2 * hidden, hidden)
        yield prefix + "mlp.up_proj.weight", linear(2 * hidden, hidden)
        yield prefix + "mlp.down_proj.weight", linear(hidden, 2 * hidden)


def write_model(directory, rng):
    config = config_of(rng)
    directory.mkdir(parents=True)
    (directory / "config.json").write_text(json.dumps(config))
    header, data, offset = {}, [], 0
    for name, (shape, values) in tensors_of(config, rng):
        data.append(struct.pack(f"<{len(values)}f", *values))
        header[name] = {"dtype": "F32", "shape": shape, "data_offsets": [offset, offset + len(data[-1])]}
        offset += len(data[-1])
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    (directory / "model.safetensors").write_bytes(struct.pack("<Q", len(text)) + text + b"".join(data))
    return config


def main():
    binaries, work = pathlib.Path(sys.argv[1]), pathlib.Path(sys.argv[3])
    count = int(sys.argv[4]) if len(sys.argv) > 4 else 4
    if not (binaries / "kvc-factorize").exists():
        print("SKIPPED: expected a build with LibTorch")
        return 77
    failures, closest = 0, 0.0
    for seed in range(count):
        shutil.rmtree(work, ignore_errors=True)
        rng = random.Random(seed)
        config = write_model(work / "model", rng)
        layout, rank = rng.choice(LAYOUTS[config["model_type"]]), rng.choice(["25%", "50%", "75%"])

        def run(*words):
            return subprocess.run([binaries / words[0], *words[1:], "--quiet"], capture_output=True, text=True, check=False)

        run("kvc-factorize", work / "model", "-o", work / "thin", "--objective", "weight", "--layout", layout, "--rank", rank).check_returncode()
        for dtype, *more in FORMATS:
            bundle = work / "bundle"
            shutil.rmtree(bundle, ignore_errors=True)
            made = run("kvc-export", work / "thin", "-o", bundle, "--method", "full", "--dtype", dtype, *more)
            if made.returncode != 0:
                failures += 1
                print(f"FAILED: seed {seed}, {config['model_type']} {layout} {rank} {dtype} {more}: {made.stderr.strip()}")
                continue
            record = json.loads((bundle / "manifest.json").read_text())["verification"]
            closest = max(closest, record["max_abs_error"] / record["tolerance"])
    shutil.rmtree(work, ignore_errors=True)
    print(f"{count} models, errors up to {closest:.2f} of the tolerance")
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
