#!/usr/bin/env python3
"""Golden token ids of tokenizers as transformers loads them; called by make_tokenizer_golden.py.

Needs `transformers` (made with 5.24.0) beside `tokenizers` and `sentencepiece`. Writes into tokenizers/:
  strings.json       texts of many kinds, drawn at random from a fixed seed
  spm-NAME.model     small SentencePiece models, trained here
  layouts.json       directories as people have them (which files, with which content), with the ids that
                     AutoTokenizer gives for the texts of make_tokenizer_golden.py, and a hash of the ids
                     of each of strings.json
"""

import hashlib
import json
import os
import random
import shutil
import struct
import tempfile
from pathlib import Path

import sentencepiece
from tokenizers import Tokenizer, models, trainers

NUM_STRINGS = 600
NORMALIZATION_RULES = "0041\t0061\nFB01\t0066 0069\n0065 0301\t00E9\n2460\t0031\n3000\t0020\nFF01\t0021\n"


def random_strings():
    """Words, spaces, numbers, marks, scripts, emoji, control characters and special tokens, mixed."""
    generator = random.Random(7)
    words = ["Hello", "world", "the", "of", "I'm", "don't", "WE'LL", "x1", "naive", "caf\u00e9", "e\u0301",
             "\u4f60\u597d", "\u0416\u0443\u043a", "\U0001f600", "\U0001f468\u200d\U0001f469", "\u2581", "12", "3456", "7", "\u00bd",
             "...", "!?", "(", ")", "\"", "_", "-", "\ufb01", "\u2460", "\uff01", "\u0130", "\u00df", "\u1e9e", "\u03a3\u03c2"]
    spaces = [" ", "  ", "\n", "\t", "\r\n", "\u00a0", "\u3000", "", "", " \n ", "    "]
    specials = ["<s>", "</s>", "<unk>", "<pad>", "<|endoftext|>", "<|im_start|>", "[INST]", "[/INST]", "<m>",
                "<mask>", "<extra>", "<0x0A>", "<user>", "<sep>"]
    made = []
    for index in range(NUM_STRINGS):
        parts = []
        for _ in range(generator.randint(1, 14)):
            kind = generator.random()
            if kind < 0.5:
                parts.append(generator.choice(words))
            elif kind < 0.8:
                parts.append(generator.choice(spaces))
            elif kind < 0.9:
                parts.append(generator.choice(specials))
            elif index % 3 == 0:
                low, high = generator.choice([(0, 0x7f), (0x80, 0x24f), (0x300, 0x36f), (0x370, 0x6ff),
                                              (0x900, 0xdff), (0x2000, 0x2bff), (0x3040, 0x30ff),
                                              (0xac00, 0xacff), (0x1f300, 0x1f5ff)])
                parts.append("".join(chr(generator.randint(low, high))
                                     for _ in range(generator.randint(1, 4))))
            else:
                parts.append("".join(generator.choice("abcdefghijklmnopqrstuvwxyz \u2581")
                                     for _ in range(generator.randint(1, 9))))
        made.append("".join(parts))
    return made


def hash_ids(ids):
    return hashlib.sha256(struct.pack(f"<{len(ids)}i", *ids)).hexdigest()[:12]


def train_models(text, out):
    """Name -> file of small SentencePiece models."""
    with tempfile.TemporaryDirectory() as scratch:
        corpus = Path(scratch) / "corpus.txt"
        corpus.write_text(text, encoding="utf-8")
        rules = Path(scratch) / "rules.tsv"
        rules.write_text(NORMALIZATION_RULES, encoding="utf-8")
        common = {"input": str(corpus), "vocab_size": 500, "hard_vocab_limit": False,
                  "minloglevel": 2, "num_threads": 1, "input_sentence_size": 0}
        settings = {
            "bpe": {"model_type": "bpe", "byte_fallback": True, "normalization_rule_name": "identity",
                    "remove_extra_whitespaces": False, "control_symbols": ["[INST]", "[/INST]"]},
            "bpe-user": {"model_type": "bpe", "byte_fallback": True,
                         "normalization_rule_name": "identity", "remove_extra_whitespaces": False,
                         "user_defined_symbols": ["<user>", "\n\n", "12"],
                         "control_symbols": ["<sep>"]},
            "bpe-plain": {"model_type": "bpe", "normalization_rule_tsv": str(rules),
                          "add_dummy_prefix": False},
            "unigram": {"model_type": "unigram", "normalization_rule_tsv": str(rules),
                        "control_symbols": ["<mask>"]},
            "unigram-bytes": {"model_type": "unigram", "byte_fallback": True,
                              "normalization_rule_name": "identity", "user_defined_symbols": ["<user>"],
                              "unk_id": 3, "bos_id": 1, "eos_id": 2, "pad_id": 0},
        }
        made = {}
        for name, more in settings.items():
            prefix = Path(scratch) / name
            sentencepiece.SentencePieceTrainer.train(model_prefix=str(prefix), **common, **more)
            made[name] = out / f"spm-{name}.model"
            shutil.copy(f"{prefix}.model", made[name])
        return made


def unigram_json(text, charsmap):
    tokenizer = Tokenizer(models.Unigram())
    tokenizer.train_from_iterator([text], trainers.UnigramTrainer(
        vocab_size=400, show_progress=False, special_tokens=["<unk>", "<s>", "</s>"],
        unk_token="<unk>"))
    value = json.loads(tokenizer.to_str())
    metaspace = {"type": "Metaspace", "replacement": "\u2581", "prepend_scheme": "always", "split": True}
    value["pre_tokenizer"] = metaspace
    value["decoder"] = metaspace
    value["normalizer"] = {"type": "Sequence", "normalizers": [
        {"type": "Precompiled", "precompiled_charsmap": charsmap},
        {"type": "Strip", "strip_left": False, "strip_right": True},
        {"type": "Replace", "pattern": {"Regex": " {2,}"}, "content": "\u2581"}]}
    value["post_processor"] = {"type": "RobertaProcessing", "sep": ["</s>", 2], "cls": ["<s>", 1],
                               "trim_offsets": True, "add_prefix_space": True}
    return value


def charsmap_of(model):
    import base64
    from sentencepiece import sentencepiece_model_pb2
    proto = sentencepiece_model_pb2.ModelProto()
    proto.ParseFromString(model.read_bytes())
    return base64.b64encode(proto.normalizer_spec.precompiled_charsmap).decode()


def token(content, **flags):
    return {"content": content, "lstrip": False, "rstrip": False, "single_word": False,
            "normalized": False, "special": False, **flags}


def layouts(spm):
    """(name, {file: a path within tokenizers/, or JSON content})"""
    def gpt2(config, **more):
        return {"vocab.json": "gpt2-style/vocab.json", "merges.txt": "gpt2-style/merges.txt",
                "config.json": config, **more}

    def qwen(config, tokenizer_config, **more):
        return {"tokenizer.json": "qwen-style/tokenizer.json", "config.json": config,
                "tokenizer_config.json": tokenizer_config, **more}

    def model(name, model_type, tokenizer_config=None, **more):
        made = {"tokenizer.model": f"spm-{name}.model", "config.json": {"model_type": model_type}, **more}
        if tokenizer_config is not None:
            made["tokenizer_config.json"] = tokenizer_config
        return made

    fast = {"tokenizer_class": "PreTrainedTokenizerFast"}
    of_gpt2, of_qwen2, of_llama = ({"model_type": t} for t in ("gpt2", "qwen2", "llama"))
    made = [
        ("gpt2 files", gpt2(of_gpt2)),
        ("gpt2 files, class", gpt2(of_llama, **{"tokenizer_config.json": {
            "tokenizer_class": "GPT2Tokenizer", "add_prefix_space": True}})),
        ("gpt2 files, fast class, null", gpt2(of_llama, **{"tokenizer_config.json": {
            "tokenizer_class": "GPT2TokenizerFast", "bos_token": None, "pad_token": "<pad>",
            "mask_token": "<m>"}})),
        ("qwen2 files", gpt2(of_qwen2)),
        ("qwen3 files", gpt2({"model_type": "qwen3"})),
        ("qwen2 files, other class", gpt2(of_qwen2, **{"tokenizer_config.json": {
            "tokenizer_class": "GPT2Tokenizer"}})),
        ("qwen2 class, other model", gpt2(of_gpt2, **{"tokenizer_config.json": {
            "tokenizer_class": "Qwen2Tokenizer", "add_prefix_space": True}})),
        ("added_tokens.json", gpt2(of_gpt2, **{"added_tokens.json": {
            "<m>": 700, "lo": 601, "<pad>": 650}, "special_tokens_map.json": {"pad_token": "<pad>"}})),
        ("decoder with gaps, bos", gpt2(of_gpt2, **{"tokenizer_config.json": {
            "tokenizer_class": "GPT2Tokenizer", "add_bos_token": True, "added_tokens_decoder": {
                "800": token("<m>", lstrip=True), "5": token("<extra>", special=True),
                "600": token("<|endoftext|>", special=True, rstrip=True)}}})),
        ("json, decoder", qwen(of_llama, {**fast, "added_tokens_decoder": {
            "702": token("<|im_end|>", special=True, lstrip=True, rstrip=True),
            "705": token("<m>"), "706": token("Hello", normalized=True, single_word=True)}})),
        ("json, added_tokens.json", qwen(of_llama, fast, **{"added_tokens.json": {"<m>": 900}})),
        ("json, extra tokens", qwen(of_llama, {**fast, "extra_special_tokens": ["<m>"],
                                               "image_token": "<extra>", "pad_token": "<pad>"})),
        ("json, named extra tokens", qwen(of_llama, {**fast, "extra_special_tokens": {
            "image_token": "<m>", "end_token": "<extra>"}})),
        ("json, additional tokens", qwen(of_llama, {**fast, "additional_special_tokens": ["<m>", "12"]})),
        ("json, special_tokens_map", qwen(of_llama, fast, **{"special_tokens_map.json": {
            "mask_token": {"content": "<m>", "lstrip": True, "rstrip": False, "normalized": True,
                           "single_word": False}, "eos_token": "<|im_end|>"}})),
        ("json, prefix space of a class", qwen(of_llama, {"tokenizer_class": "Qwen2Tokenizer",
                                                          "eos_token": "<|im_end|>",
                                                          "add_prefix_space": True})),
        ("json, prefix space without one", qwen(of_llama, {**fast, "add_prefix_space": True})),
        ("unigram json", {"tokenizer.json": "unigram-style/tokenizer.json",
                          "config.json": of_llama, "tokenizer_config.json": fast}),
    ]
    for name in spm:
        made.append((f"model {name}", model(name, "mistral")))
        if name.startswith("bpe"):
            made.append((f"model {name}, not legacy", model(name, "mistral", {"legacy": False})))
            for more in ({}, {"legacy": True}, {"add_prefix_space": False}):
                settings = {"tokenizer_class": "LlamaTokenizer", **more}
                made.append((f"model {name}, {json.dumps(settings)}", model(name, "llama", settings)))
    made.append(("model bpe, decoder", model("bpe", "mistral", {"added_tokens_decoder": {
        "0": token("<unk>", special=True), "1": token("<s>", special=True),
        "2": token("<user>", special=True), "600": token("<extra>", normalized=True)}})))
    return made


def load(files, out, directory):
    from transformers import AutoTokenizer
    for name, content in files.items():
        if isinstance(content, str):
            shutil.copy(out / content, directory / name)
        else:
            (directory / name).write_text(json.dumps(content))
    return AutoTokenizer.from_pretrained(directory)


def write_layouts(out, texts, training_text, write):
    """`write(path, value, lists)` as in make_tokenizer_golden.py."""
    os.environ["TRANSFORMERS_VERBOSITY"] = "error"
    strings = random_strings()
    write(out / "strings.json", {"texts": strings}, ["texts"])
    spm = train_models(training_text, out)
    write(out / "unigram-style/tokenizer.json",
          unigram_json(training_text, charsmap_of(spm["unigram"])))
    made = []
    for name, files in layouts(spm):
        with tempfile.TemporaryDirectory() as directory:
            tokenizer = load(files, out, Path(directory))
        encode = lambda text: tokenizer.encode(text, add_special_tokens=False)
        cases = []
        for text in texts:
            ids = encode(text)
            cases.append({"text": text, "ids": ids, "decoded": tokenizer.decode(
                ids, skip_special_tokens=False, clean_up_tokenization_spaces=False)})
        made.append({"name": name, "files": files, "bos": tokenizer.bos_token_id,
                     "eos": tokenizer.eos_token_id, "cases": cases,
                     "hashes": [hash_ids(encode(text)) for text in strings]})
    write(out / "layouts.json", {"layouts": made}, ["layouts"])
