#!/usr/bin/env python3
"""Makes the golden models of this directory and the logits that Hugging Face transformers gives for them.

Needs torch, transformers 5, tokenizers, safetensors and numpy; the tests need none of them.

    python tests/golden/make_models.py                          # the small random models
    python tests/golden/make_models.py --stories DIR --stories-text FILE
    python tests/golden/make_models.py --smollm2 DIR --smollm2-text FILE

What lies where: README.md beside this file.
"""

import argparse
import json
import math
import pathlib
import shutil
import zlib

import numpy as np
import tokenizers
import torch
import transformers
from safetensors.numpy import save_file as save_numpy
from safetensors.torch import load_file, save_file

HERE = pathlib.Path(__file__).resolve().parent
MODELS = HERE / "models"
VOCABULARY = 96
TOKENS = 48  # of a small model's prompt


def fill(model, name):
    """Random weights, far from the initialisation: attention is peaked, norms and biases matter."""
    generator = torch.Generator().manual_seed(zlib.crc32(name.encode()))
    with torch.no_grad():
        for key, value in model.named_parameters():
            noise = torch.randn(value.shape, generator=generator)
            if "norm" in key or ".ln_" in key:
                value.copy_(noise * 0.3 if key.endswith("bias") else 1.0 + 0.3 * noise)
            elif key.endswith("bias"):
                value.copy_(0.3 * noise)
            elif "embed" in key or "wte" in key or "wpe" in key or "lm_head" in key:
                value.copy_(noise * 0.8)
            else:
                fan_in = value.shape[0] if "c_" in key else value.shape[1]
                value.copy_(noise * 1.2 / math.sqrt(fan_in))
    return model


def prompt(name):
    generator = np.random.default_rng(zlib.crc32((name + " prompt").encode()))
    return generator.integers(0, VOCABULARY, TOKENS)


def logits_of(directory, ids, attention="eager"):
    """[T, V] in float32 for the checkpoint as it lies on the disk."""
    model = transformers.AutoModelForCausalLM.from_pretrained(
        directory, dtype=torch.float32, attn_implementation=attention
    )
    with torch.no_grad():
        return model.eval()(torch.tensor([list(ids)])).logits[0].numpy()


def edit_config(directory, **changes):
    """Sets keys of config.json; a value of ... removes the key."""
    path = directory / "config.json"
    config = json.loads(path.read_text())
    for key, value in changes.items():
        if value is ...:
            config.pop(key, None)
        else:
            config[key] = value
    config.pop("transformers_version", None)
    path.write_text(json.dumps(config, indent=2) + "\n")


def write_golden(directory, ids, logits):
    save_numpy(
        {"ids": np.asarray(ids, np.int64), "logits": np.ascontiguousarray(logits, np.float32)},
        directory / "golden.safetensors",
    )


def make(name, model_class, config, dtype=torch.float32, shard="1GB", bare=False, changes=None, **keep):
    """One random model: checkpoint, config as edited, golden logits."""
    directory = MODELS / name
    shutil.rmtree(directory, ignore_errors=True)
    config.architectures = [model_class.__name__]
    model = fill(model_class(config), name).to(dtype)
    model.save_pretrained(directory, max_shard_size=shard)
    if not keep.get("generation_config"):
        (directory / "generation_config.json").unlink(missing_ok=True)
    else:
        (directory / "generation_config.json").write_text(json.dumps(keep["generation_config"]) + "\n")
    if bare:
        path = directory / "model.safetensors"
        tensors = {k.removeprefix("transformer."): v for k, v in load_file(path).items()}
        save_file(tensors, path, metadata={"format": "pt"})
    edit_config(directory, **(changes or {}))
    ids = prompt(name)
    write_golden(directory, ids, logits_of(directory, ids))


def make_small_models():
    t = transformers
    sizes = dict(vocab_size=VOCABULARY, hidden_size=32, intermediate_size=56, num_hidden_layers=2)
    gpt2 = dict(vocab_size=VOCABULARY, n_positions=64, n_embd=32, n_layer=2, n_head=4,
                bos_token_id=0, eos_token_id=0)  # fmt: skip
    make("gpt2", t.GPT2LMHeadModel, t.GPT2Config(**gpt2))
    # No prefix, own width of the MLP, bf16, and none of the keys that have defaults.
    make("gpt2-bare", t.GPT2LMHeadModel, t.GPT2Config(**gpt2, n_inner=40), torch.bfloat16, bare=True,
         changes=dict(tie_word_embeddings=..., scale_attn_weights=..., activation_function=...))  # fmt: skip
    # Llama 3's scaling with all three bands inside 48 positions; grouped heads, tied, bf16.
    make("llama", t.LlamaForCausalLM,
         t.LlamaConfig(**sizes, num_attention_heads=4, num_key_value_heads=2, max_position_embeddings=256,
                       head_dim=16, rms_norm_eps=1e-5, tie_word_embeddings=True,
                       rope_parameters=dict(rope_type="llama3", rope_theta=500.0, factor=8.0,
                                            low_freq_factor=1.0, high_freq_factor=4.0,
                                            original_max_position_embeddings=64)),
         torch.bfloat16)  # fmt: skip
    # Biases everywhere, linear scaling, several shards; config.json as transformers 4 wrote it.
    make("llama-bias", t.LlamaForCausalLM,
         t.LlamaConfig(**sizes, num_attention_heads=4, num_key_value_heads=4, max_position_embeddings=128,
                       attention_bias=True, mlp_bias=True, tie_word_embeddings=False,
                       rope_parameters=dict(rope_type="linear", rope_theta=10000.0, factor=2.5)),
         torch.float16, shard="12KB",
         changes=dict(rope_parameters=..., rope_theta=10000.0, rope_scaling=dict(type="linear", factor=2.5),
                      dtype=..., torch_dtype="float16", head_dim=...))  # fmt: skip
    # Heads whose widths do not add up to the model's; one kv head.
    make("mistral", t.MistralForCausalLM,
         t.MistralConfig(**{**sizes, "hidden_size": 40}, num_attention_heads=4, num_key_value_heads=1,
                         head_dim=16, max_position_embeddings=128, sliding_window=None))  # fmt: skip
    make("qwen2", t.Qwen2ForCausalLM,
         t.Qwen2Config(**sizes, num_attention_heads=4, num_key_value_heads=2, max_position_embeddings=128,
                       tie_word_embeddings=True,
                       rope_parameters=dict(rope_type="default", rope_theta=1000000.0)))  # fmt: skip
    make("qwen3", t.Qwen3ForCausalLM,
         t.Qwen3Config(**sizes, num_attention_heads=4, num_key_value_heads=2, head_dim=24,
                       max_position_embeddings=128, eos_token_id=5), torch.bfloat16,
         generation_config=dict(eos_token_id=[5, 7]))  # fmt: skip
    make_window_models(sizes)


def make_window_models(sizes):
    """Sliding windows, several of them in the prompt's 48 tokens: in all layers, and in some."""
    t = transformers
    heads = dict(num_attention_heads=4, num_key_value_heads=2, max_position_embeddings=128)
    make("mistral-window", t.MistralForCausalLM,
         t.MistralConfig(**sizes, **heads, head_dim=8, sliding_window=16))  # fmt: skip
    # The layers from the second on.
    make("qwen2-window", t.Qwen2ForCausalLM,
         t.Qwen2Config(**{**sizes, "num_hidden_layers": 3}, **heads, tie_word_embeddings=True,
                       use_sliding_window=True, sliding_window=12, max_window_layers=1),
         changes=dict(layer_types=...))  # fmt: skip
    # Layer by layer, as transformers 5 writes it.
    make("qwen3-window", t.Qwen3ForCausalLM,
         t.Qwen3Config(**{**sizes, "num_hidden_layers": 3}, **heads, head_dim=16, use_sliding_window=True,
                       sliding_window=10,
                       layer_types=["sliding_attention", "full_attention", "sliding_attention"]))  # fmt: skip


def write_cached(name, first):
    """Logits with a cache: the first tokens of the prompt at once, then one after the other."""
    directory = MODELS / name
    ids = prompt(name)
    model = transformers.AutoModelForCausalLM.from_pretrained(directory, dtype=torch.float32, attn_implementation="eager")
    cache = transformers.DynamicCache(config=model.config)
    parts = [ids[:first]] + [ids[t : t + 1] for t in range(first, len(ids))]
    with torch.no_grad():
        rows = [model.eval()(torch.tensor([list(part)]), past_key_values=cache).logits[0] for part in parts]
    save_numpy(
        {"ids": np.asarray(ids, np.int64), "first": np.asarray([first], np.int64),
         "logits": np.ascontiguousarray(torch.cat(rows).numpy(), np.float32)},
        directory / "cached.safetensors",
    )  # fmt: skip


def write_short(name, count):
    """Logits of the first tokens of the prompt alone."""
    ids = prompt(name)[:count]
    directory = MODELS / name
    save_numpy(
        {"ids": np.asarray(ids, np.int64), "logits": np.ascontiguousarray(logits_of(directory, ids), np.float32)},
        directory / "short.safetensors",
    )


def make_rotation_models():
    """Every rotation that transformers knows, prompts beyond the original context, and the families that need them."""
    t = transformers
    sizes = dict(vocab_size=VOCABULARY, hidden_size=32, intermediate_size=56, num_hidden_layers=2,
                 num_attention_heads=4, num_key_value_heads=2)  # fmt: skip
    # Beyond max_position_embeddings, where the base depends on the length.
    make("llama-dynamic", t.LlamaForCausalLM,
         t.LlamaConfig(**sizes, max_position_embeddings=32,
                       rope_parameters=dict(rope_type="dynamic", rope_theta=100.0, factor=3.0)))  # fmt: skip
    write_short("llama-dynamic", 32)
    # All three bands of the ramp within 8 pairs, an attention factor, the original context of 16.
    make("llama-yarn", t.LlamaForCausalLM,
         t.LlamaConfig(**sizes, head_dim=16, max_position_embeddings=128,
                       rope_parameters=dict(rope_type="yarn", rope_theta=500.0, factor=4.0, beta_fast=2.0,
                                            beta_slow=0.2, original_max_position_embeddings=16)),
         changes=dict(rope_parameters=..., rope_theta=500.0, original_max_position_embeddings=16,
                      rope_scaling=dict(type="yarn", factor=4.0, beta_fast=2.0, beta_slow=0.2)))  # fmt: skip
    # Short factors up to 24 tokens, long ones beyond.
    make("mistral-longrope", t.MistralForCausalLM,
         t.MistralConfig(**sizes, max_position_embeddings=128, sliding_window=None,
                         rope_parameters=dict(rope_type="longrope", rope_theta=100.0, short_factor=[1.0, 1.1, 1.2, 1.4],
                                              long_factor=[1.5, 2.0, 3.0, 5.0],
                                              original_max_position_embeddings=24)))  # fmt: skip
    write_cached("mistral-longrope", 20)
    # Half of each head rotated, layer norms with bias around a gated MLP, biases of q, k, v.
    make("stablelm", t.StableLmForCausalLM,
         t.StableLmConfig(**sizes, max_position_embeddings=128, use_qkv_bias=True, partial_rotary_factor=0.5))  # fmt: skip
    # The second layer is not rotated.
    make("smollm3", t.SmolLM3ForCausalLM,
         t.SmolLM3Config(**sizes, max_position_embeddings=128, no_rope_layers=[1, 0], pad_token_id=0,
                         bos_token_id=1, eos_token_id=2, rope_parameters=dict(rope_type="default", rope_theta=1000.0)))  # fmt: skip
    # Norms behind attention and MLP, norms of q and k over all heads.
    make("olmo2", t.Olmo2ForCausalLM,
         t.Olmo2Config(**sizes, max_position_embeddings=128, pad_token_id=0, eos_token_id=2))  # fmt: skip


def thin_copy(source, name, layout, groups, ranks):
    """Directory of a thin checkpoint, its tensors, and a scratch directory for the dense equivalent."""
    directory, dense = MODELS / name, MODELS / (name + ".dense")
    for path in (directory, dense):
        shutil.rmtree(path, ignore_errors=True)
        path.mkdir()
        shutil.copy(MODELS / source / "config.json", path)
    edit_config(directory, kvc=dict(format=1, layout=layout, groups=groups, ranks=ranks), dtype="float32")
    edit_config(dense, dtype="float32")
    tensors = {k: v.float() for k, v in load_file(MODELS / source / "model.safetensors").items()}
    return directory, dense, tensors, torch.Generator().manual_seed(zlib.crc32(name.encode()))


def finish_thin(name, directory, dense, thin, full, attention="eager"):
    """Golden logits of the thin checkpoint are those of the dense model with the same keys."""
    save_file({k: v.contiguous() for k, v in thin.items()}, directory / "model.safetensors")
    save_file({k: v.contiguous() for k, v in full.items()}, dense / "model.safetensors", metadata={"format": "pt"})
    ids = prompt(name)
    write_golden(directory, ids, logits_of(dense, ids, attention))
    shutil.rmtree(dense)


def make_latent(source, name, groups, ranks):
    directory, dense, tensors, generator = thin_copy(source, name, "latent", groups, ranks)
    config = json.loads((directory / "config.json").read_text())
    kv_heads, width = config["num_key_value_heads"], config["hidden_size"]
    head_width = config.get("head_dim") or width // config["num_attention_heads"]
    thin, full = dict(tensors), dict(tensors)
    rows = kv_heads // groups * head_width  # of a group
    for layer, layer_ranks in enumerate(ranks):
        key = f"model.layers.{layer}.self_attn.k_"
        latent = torch.randn(sum(layer_ranks), width, generator=generator) * 1.2 / math.sqrt(width)
        rebuild = torch.zeros(kv_heads * head_width, max(layer_ranks))
        dense_key = torch.zeros(kv_heads * head_width, width)
        begin = 0
        for group, rank in enumerate(layer_ranks):
            of_group = slice(group * rows, (group + 1) * rows)
            rebuild[of_group, :rank] = torch.randn(rows, rank, generator=generator) / math.sqrt(rank)
            dense_key[of_group] = rebuild[of_group, :rank] @ latent[begin : begin + rank]
            # What lies beyond a group's rank must not be read as part of it.
            rebuild[of_group, rank:] = 7.0
            begin += rank
        thin[key + "proj.weight"], thin[key + "rebuild.weight"] = latent, rebuild
        full[key + "proj.weight"] = dense_key
    finish_thin(name, directory, dense, thin, full)


def make_absorb(source, name, ranks):
    """GPT-2: thin queries and keys; the dense equivalent pads both with zeros to the head width."""
    directory, dense, tensors, generator = thin_copy(source, name, "absorb", len(ranks[0]), ranks)
    config = json.loads((directory / "config.json").read_text())
    heads, width = config["n_head"], config["n_embd"]
    head_width = width // heads
    thin, full = dict(tensors), dict(tensors)
    for layer, layer_ranks in enumerate(ranks):
        key = f"transformer.h.{layer}.attn.c_attn."
        weight, bias = tensors[key + "weight"], tensors[key + "bias"]
        parts = {"weight": [], "bias": []}
        padded_weight, padded_bias = weight.clone(), bias.clone()
        padded_weight[:, : 2 * width], padded_bias[: 2 * width] = 0.0, 0.0
        for part in range(2):  # queries, keys
            for head, rank in enumerate(layer_ranks):
                columns = torch.randn(width, rank, generator=generator) * 1.2 / math.sqrt(width)
                offset = torch.zeros(rank) if part == 1 else 0.3 * torch.randn(rank, generator=generator)
                begin = part * width + head * head_width
                padded_weight[:, begin : begin + rank], padded_bias[begin : begin + rank] = columns, offset
                parts["weight"].append(columns)
                parts["bias"].append(offset)
        thin[key + "weight"] = torch.cat(parts["weight"] + [weight[:, 2 * width :]], dim=1)
        thin[key + "bias"] = torch.cat(parts["bias"] + [bias[2 * width :]])
        full[key + "weight"], full[key + "bias"] = padded_weight, padded_bias
    finish_thin(name, directory, dense, thin, full)


def head_sizes(directory):
    """kv heads and head width of a checkpoint with rotation."""
    config = json.loads((directory / "config.json").read_text())
    return config["num_key_value_heads"], config.get("head_dim") or config["hidden_size"] // config["num_attention_heads"]


def make_post_rope(source, name, ranks):
    """Projections behind the rotation: transformers' own attention is called with thin queries and keys."""
    directory, dense, thin, generator = thin_copy(source, name, "post-rope", len(ranks[0]), ranks)
    kv_heads, head_width = head_sizes(directory)
    full = dict(thin)
    factors = []  # of each layer: A and B [G, D, R], offsets [G, R], zeros beyond a head's rank
    for layer, layer_ranks in enumerate(ranks):
        key = f"model.layers.{layer}.self_attn."
        a, b = (torch.zeros(kv_heads, head_width, max(layer_ranks)) for _ in range(2))
        offset = torch.zeros(kv_heads, max(layer_ranks))
        for head, rank in enumerate(layer_ranks):
            a[head, :, :rank] = torch.randn(head_width, rank, generator=generator) / math.sqrt(head_width)
            b[head, :, :rank] = torch.randn(head_width, rank, generator=generator) / math.sqrt(rank)
            offset[head, :rank] = torch.randn(rank, generator=generator)
        rows = [a[head, :, :rank].T for head, rank in enumerate(layer_ranks)]
        thin[key + "k_reduce.weight"] = torch.cat(rows)
        thin[key + "k_reduce.bias"] = torch.cat([offset[head, :rank] for head, rank in enumerate(layer_ranks)])
        thin[key + "q_reduce.weight"] = torch.cat([b[head, :, :rank].T for head, rank in enumerate(layer_ranks)])
        factors.append((a, b, offset))

    def attention(module, query, key, value, mask, scaling, **options):
        a, b, offset = factors[module.layer_idx]
        share = query.shape[1] // kv_heads
        key = key @ a + offset[:, None, :]
        query = query @ b.repeat_interleave(share, dim=0)
        key, value = (x.repeat_interleave(share, dim=1) for x in (key, value))
        logits = query @ key.transpose(2, 3) * scaling
        positions = torch.arange(query.shape[2])
        age = positions[:, None] - positions[None, :]
        window = options.get("sliding_window") or len(positions)
        logits = logits.masked_fill((age < 0) | (age >= window), -math.inf)
        return (logits.softmax(dim=-1) @ value).transpose(1, 2).contiguous(), None

    transformers.AttentionInterface.register("thin", attention)
    finish_thin(name, directory, dense, thin, full, "thin")


def make_rope_pairs(source, name, ranks):
    """Rotation pairs: the dense equivalent has zeros where pairs are dropped."""
    directory, dense, thin, generator = thin_copy(source, name, "rope-pairs", len(ranks[0]), ranks)
    kv_heads, head_width = head_sizes(directory)
    full, pairs = dict(thin), []
    for layer, layer_ranks in enumerate(ranks):
        pairs.append([torch.randperm(head_width // 2, generator=generator)[: rank // 2].tolist() for rank in layer_ranks])
        for part in "qk":
            for kind in ("weight", "bias"):
                tensor = f"model.layers.{layer}.self_attn.{part}_proj.{kind}"
                if tensor not in full:
                    continue
                rows = full[tensor]
                heads = rows.shape[0] // head_width
                kept = torch.tensor([
                    head * head_width + j + half
                    for head in range(heads)
                    for j in pairs[layer][head * kv_heads // heads]
                    for half in (0, head_width // 2)
                ])  # fmt: skip
                zeroed = torch.zeros_like(rows)
                zeroed[kept] = rows[kept]
                full[tensor], thin[tensor] = zeroed, rows[kept]
    block = json.loads((directory / "config.json").read_text())["kvc"]
    edit_config(directory, kvc=dict(**block, pairs=pairs))
    finish_thin(name, directory, dense, thin, full)


def make_thin_models():
    make_absorb("gpt2", "gpt2-absorb", [[3, 8, 1, 5], [4, 4, 4, 4]])
    make_latent("llama", "llama-latent", 2, [[6, 3], [5, 16]])
    make_latent("qwen2", "qwen2-latent", 1, [[7], [5]])
    make_latent("qwen3", "qwen3-latent", 1, [[11], [4]])
    make_post_rope("llama", "llama-post-rope", [[5, 16], [3, 8]])
    make_post_rope("qwen3", "qwen3-post-rope", [[7, 11], [24, 2]])
    make_rope_pairs("qwen2", "qwen2-rope-pairs", [[2, 6], [8, 4]])
    make_rope_pairs("mistral", "mistral-rope-pairs", [[6], [10]])
    make_latent("mistral-window", "mistral-window-latent", 1, [[5], [9]])
    make_rope_pairs("mistral-window", "mistral-window-rope-pairs", [[2, 6], [8, 4]])
    make_post_rope("qwen3-window", "qwen3-window-post-rope", [[5, 16], [3, 8], [16, 2]])


def make_thin_rotation_models():
    make_latent("llama-yarn", "llama-yarn-latent", 1, [[9], [5]])
    make_post_rope("llama-yarn", "llama-yarn-post-rope", [[5, 16], [3, 8]])
    make_rope_pairs("llama-yarn", "llama-yarn-rope-pairs", [[2, 6], [16, 4]])
    make_post_rope("mistral-longrope", "mistral-longrope-post-rope", [[5, 8], [3, 7]])
    make_rope_pairs("mistral-longrope", "mistral-longrope-rope-pairs", [[2, 6], [8, 4]])
    make_latent("stablelm", "stablelm-latent", 2, [[6, 3], [5, 8]])
    make_post_rope("stablelm", "stablelm-post-rope", [[5, 8], [3, 7]])
    make_latent("smollm3", "smollm3-latent", 1, [[7], [5]])
    make_post_rope("smollm3", "smollm3-post-rope", [[5, 8], [3, 7]])
    make_rope_pairs("smollm3", "smollm3-rope-pairs", [[2, 6], [8, 4]])
    make_post_rope("olmo2", "olmo2-post-rope", [[5, 8], [3, 7]])


def first_ids(directory, text, count):
    tokenizer = tokenizers.Tokenizer.from_file(str(directory / "tokenizer.json"))
    return tokenizer.encode(text, add_special_tokens=False).ids[:count]


def make_stories(directory, text_file):
    """All logits at the first 64 tokens of a text of the model's own domain."""
    text = text_file.read_text(encoding="utf-8")
    ids = [1] + first_ids(directory, text, 63)  # it was trained with <s> in front
    target = HERE / "stories260k"
    target.mkdir(exist_ok=True)
    write_golden(target, ids, logits_of(directory, ids))


def make_smollm2(directory, text_file):
    """A sample of the logits at 32 of the first 512 tokens of a text (all would be 100 MB)."""
    ids = first_ids(directory, text_file.read_text(encoding="utf-8"), 512)
    logits = logits_of(directory, ids).astype(np.float64)  # [512, V]
    positions = np.arange(15, 512, 16)
    sample = np.sort(np.random.default_rng(7).choice(logits.shape[1], 256, replace=False))
    highest = logits.max(axis=1, keepdims=True)
    logsumexp = (highest + np.log(np.exp(logits - highest).sum(axis=1, keepdims=True)))[:, 0]
    target = HERE / "smollm2"
    target.mkdir(exist_ok=True)
    save_numpy(
        {
            "ids": np.asarray(ids, np.int64),
            "positions": positions.astype(np.int64),
            "vocabulary_ids": sample.astype(np.int64),
            "logits": np.ascontiguousarray(logits[positions][:, sample], np.float32),
            "logsumexp": logsumexp[positions].astype(np.float32),
            "argmax": logits.argmax(axis=1)[positions].astype(np.int64),
        },
        target / "golden.safetensors",
    )


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--stories", type=pathlib.Path)
    parser.add_argument("--stories-text", type=pathlib.Path)
    parser.add_argument("--smollm2", type=pathlib.Path)
    parser.add_argument("--smollm2-text", type=pathlib.Path)
    options = parser.parse_args()
    torch.manual_seed(0)
    if options.stories:
        make_stories(options.stories, options.stories_text)
    if options.smollm2:
        make_smollm2(options.smollm2, options.smollm2_text)
    if not options.stories and not options.smollm2:
        MODELS.mkdir(exist_ok=True)
        make_small_models()
        make_thin_models()
        make_rotation_models()
        make_thin_rotation_models()


if __name__ == "__main__":
    main()
