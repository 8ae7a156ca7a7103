#!/usr/bin/env python3
"""Golden token ids for tests/core/tokenizer_*_test.cc.

    python3 make_tokenizer_golden.py [--shared ../../../shared] [--smollm2 ../../build/models/smollm2]

Needs `tokenizers`, `sentencepiece` and `transformers` (made with 0.23.3, 0.2.3 and 5.24.0). Writes
tokenizers/ (transformers_tokenizers.py lists what it adds):
  STYLE/...          small tokenizers, trained here on a text of ../shared/data, as families write them
  STYLE.json         their ids of the texts below
  components.json    one base tokenizer and many variants of its components, with ids
  shared-NAME.json   ids of the texts below, and count and SHA-256 (int32, little-endian) of the ids
                     of each text of ../shared/data/text and SHA-256 of what they decode to, for
                     tokenizers that are not committed
"""

import argparse
import copy
import hashlib
import json
import struct
import sys
from pathlib import Path

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers
from tokenizers import processors, trainers

import transformers_tokenizers

HERE = Path(__file__).resolve().parent
OUT = HERE / "tokenizers"

TEXTS = [
    "",
    " ",
    "Hello world",
    " Hello  world ",
    "Hello, y'all! How're you? I'm 12345 and it's 3.14159.",
    "DON'T WE'LL I'VE HE'S they'd",
    "a\nb\n\nc\r\nd\r\re",
    "\ttab\t\ttabs \t mixed\n \n  x",
    "   leading and trailing   ",
    " " * 17 + "x" + " " * 33,
    "\n" * 9,
    "0 12 345 6789 01234567890123",
    "\u0660\u0661\u0662 \u00b2\u00b3 \u2167 \u00bd \u0967\u0968",
    "caf\u00e9 cafe\u0301 \u00c5 A\u030a \u212b \u1e69 s\u0323\u0307 s\u0307\u0323",
    "na\u00efve \u00dcber Stra\u00dfe \u0130stanbul \u017f \ufb01",
    "\u4f60\u597d\uff0c\u4e16\u754c\u3002\u65e5\u672c\u8a9e\u306e\u30c6\u30ad\u30b9\u30c8 \ud55c\uad6d\uc5b4",
    "\u041f\u0440\u0438\u0432\u0435\u0442, \u043c\u0438\u0440! \u0393\u03b5\u03b9\u03ac \u05e9\u05dc\u05d5\u05dd \u0645\u0631\u062d\u0628\u0627 \u0928\u092e\u0938\u094d\u0924\u0947",
    "\U0001f600 \U0001f468\u200d\U0001f469\u200d\U0001f467 \U0001f1e9\U0001f1ea \U0001f44d\U0001f3fd \u2764\ufe0f",
    "\u00a0no\u2003break\u3000space\u2028line\u0085nel\u180emvs\u200bzwsp\ufeffbom",
    "\x00\x01\x02\x07\x08\x0b\x0c\x1b\x1c\x1f\x7f",
    "def f(x):\n    return x**2  # comment\n\n\tif x != 0 and y >= 1: pass\n",
    "https://example.org/a?b=c&d=%20#e  <tag attr=\"v\">\u2026\u2014\u201cq\u201d</tag>",
    "{\"key\": [1, 2.5e-3, null, \"\\n\"]}",
    "!!!???...---___+++===///\\\\\\",
    "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa",
    "supercalifragilisticexpialidocious antidisestablishmentarianism",
    "<s>Hello</s> <unk> <pad>",
    "<|endoftext|>a<|im_start|>user\nhi<|im_end|>\n<|begin_of_text|><|eot_id|>",
    "x <|im_end|> y<tool_call>z</tool_call> <tool_call>",
    "\u2581under\u2581score \u2581 \u2581\u2581x",
    "[INST] Say \"hi\" [/INST] <0x0A> <0x41>",
    "mask<mask> mask <mask>  <mask>. un<mask>un",
    "word wordy sword word. WORD_word word1",
    "\ud7ff\ue000\ufffd\uffff\U0010ffff\U000e0001",
    "\u0300\u0301 starts with marks \u0e33 \u0eb3 \u1100\u1161\u11a8 \uac01",
]

LLAMA3 = (r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}|"
          r" ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+")
QWEN = LLAMA3.replace(r"\p{N}{1,3}", r"\p{N}")
O200K = (r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+"
         r"(?i:'s|'t|'re|'ve|'m|'ll|'d)?|"
         r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*"
         r"(?i:'s|'t|'re|'ve|'m|'ll|'d)?|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|"
         r"\s+(?!\S)|\s+")
DEEPSEEK = [r"\p{N}{1,3}", "[\u4e00-\u9fa5\u3040-\u309f\u30a0-\u30ff]+",
            "[!\"#$%&'()*+,\\-./:;<=>?@\\[\\\\\\]^_`{|}~][A-Za-z]+|[^\r\n\\p{L}\\p{P}\\p{S}]?"
            "[\\p{L}\\p{M}]+| ?[\\p{P}\\p{S}]+[\r\n]*|\\s*[\r\n]+|\\s+(?!\\S)|\\s+"]
METASPACE = "\u2581"


# For the variants of components, where each text is there for several of them.
COMPONENT_TEXTS = [
    "Hello, wordy world! I'm 12 345 67x.",
    "  a  b\n\n\tc \u00a0d\u180ee\u200df\n",
    "aaaab aab\n\nfoo..-# {x} A^Z ]\x0b\x1b",
    "caf\u00e9 cafe\u0301 \ufb01 \u00b2 \u24b6_\u203f s\u0307\u0323 \u0130",
    "\u4f60\u597d\u4e16\u754c\u3042\u30fc \u0663 \u0939\u093f \U0001f600\u00df",
    "x <mask> wordword sword word  <mask>word.<s> Word </s>\u2581y",
]
# Characters that the base of components.json does not know.
UNKNOWN_TEXTS = ["", " ", "\u0301a b", "\x01\x02Hello word", "\u0e01\u0e02 a\u0e03\u0e04b \U00010348\U00010349. \u0e05"]


def write(path, value, lists=()):
    """One line, but one for each element of the lists named."""
    path.parent.mkdir(parents=True, exist_ok=True)
    parts = []
    for key, part in value.items():
        if key in lists:
            text = "[\n" + ",\n".join(json.dumps(x, separators=(",", ":")) for x in part) + "\n]"
        else:
            text = json.dumps(part, separators=(",", ":"))
        parts.append(json.dumps(key) + ":" + text)
    path.write_text("{" + ",\n".join(parts) + "}\n")


def cases(encode, encode_special, decode, texts=None):
    made = []
    for text in TEXTS if texts is None else texts:
        ids = encode(text)
        case = {"text": text, "ids": ids}
        decoded = decode(ids)
        if decoded != text:
            case["decoded"] = decoded
        if encode_special(text) != ids:
            case["with_special"] = encode_special(text)
        made.append(case)
    return made


def hf(tokenizer):
    return (lambda t: tokenizer.encode(t, add_special_tokens=False).ids,
            lambda t: tokenizer.encode(t).ids,
            lambda ids: tokenizer.decode(ids, skip_special_tokens=False))


def training_text(shared):
    text = (shared / "data/text/carroll-alice.txt").read_text(encoding="utf-8")[:60000]
    return [text] + [t for t in TEXTS if "<" not in t] * 3


def special(content, **flags):
    return AddedToken(content, **{"special": True, "normalized": False, **flags})


def train_bytes(text, size, tokens, pre_tokenizer, normalizer=None):
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizer
    if normalizer is not None:
        tokenizer.normalizer = normalizer
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.train_from_iterator(text, trainers.BpeTrainer(
        vocab_size=size, show_progress=False,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet()))
    tokenizer.add_tokens(tokens)
    return tokenizer


def byte_level(split):
    return pre_tokenizers.Sequence([
        pre_tokenizers.Split(Regex(split), "isolated"),
        pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)])


def llama3_style(text):
    tokens = [special(t) for t in ("<|begin_of_text|>", "<|end_of_text|>", "<|eot_id|>")]
    made = train_bytes(text, 700, tokens, byte_level(LLAMA3))
    made.post_processor = processors.Sequence([
        processors.ByteLevel(trim_offsets=False),
        processors.TemplateProcessing(
            single="<|begin_of_text|> $A",
            special_tokens=[("<|begin_of_text|>", made.token_to_id("<|begin_of_text|>"))])])
    value = json.loads(made.to_str())
    value["model"]["ignore_merges"] = True
    return value


def qwen_style(text):
    tokens = [special(t) for t in ("<|endoftext|>", "<|im_start|>", "<|im_end|>")]
    tokens += [AddedToken(t, special=False, normalized=False)
               for t in ("<tool_call>", "</tool_call>")]
    made = train_bytes(text, 700, tokens, byte_level(QWEN), normalizers.NFC())
    made.post_processor = processors.ByteLevel(trim_offsets=False)
    return json.loads(made.to_str())


def o200k_style(text):
    return json.loads(train_bytes(text, 600, [special("<|endoftext|>")],
                                  byte_level(O200K)).to_str())


def deepseek_style(text):
    splits = [pre_tokenizers.Split(Regex(r), "isolated") for r in DEEPSEEK]
    split = pre_tokenizers.Sequence(
        splits + [pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)])
    return json.loads(train_bytes(text, 600, [special("<|endoftext|>")], split).to_str())


def train_metaspace(text, size, pre_tokenizer):
    """A Llama-2 style model: no pre-tokenizer at use, byte tokens, an unknown token."""
    tokenizer = Tokenizer(models.BPE(unk_token="<unk>", byte_fallback=True, fuse_unk=True))
    if pre_tokenizer is not None:
        tokenizer.pre_tokenizer = pre_tokenizer
    tokens = ["<unk>", "<s>", "</s>"] + [f"<0x{b:02X}>" for b in range(256)]
    tokenizer.train_from_iterator(text, trainers.BpeTrainer(
        vocab_size=size, show_progress=False, special_tokens=tokens, limit_alphabet=110))
    value = json.loads(tokenizer.to_str())
    value["pre_tokenizer"] = None
    value["added_tokens"] = value["added_tokens"][:3]
    return value


def add_llama2_parts(value):
    value["normalizer"] = {"type": "Sequence", "normalizers": [
        {"type": "Prepend", "prepend": METASPACE},
        {"type": "Replace", "pattern": {"String": " "}, "content": METASPACE}]}
    value["decoder"] = {"type": "Sequence", "decoders": [
        {"type": "Replace", "pattern": {"String": METASPACE}, "content": " "},
        {"type": "ByteFallback"}, {"type": "Fuse"},
        {"type": "Strip", "content": " ", "start": 1, "stop": 0}]}
    value["post_processor"] = {
        "type": "TemplateProcessing",
        "single": [{"SpecialToken": {"id": "<s>", "type_id": 0}},
                   {"Sequence": {"id": "A", "type_id": 0}},
                   {"SpecialToken": {"id": "</s>", "type_id": 0}}],
        "pair": [{"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 1}}],
        "special_tokens": {"<s>": {"id": "<s>", "ids": [1], "tokens": ["<s>"]},
                           "</s>": {"id": "</s>", "ids": [2], "tokens": ["</s>"]}}}
    return value


def write_style(name, value):
    """A committed tokenizer, in a directory as Tokenizer::Load wants it, and its ids."""
    write(OUT / name / "tokenizer.json", value)
    made = cases(*hf(Tokenizer.from_str(json.dumps(value))))
    write(OUT / f"{name}.json", {"directory": name, "cases": made}, ["cases"])


def write_gpt2_files(text):
    """GPT-2's two files: made from the same tokenizer as tokenizer.json would hold."""
    made = train_bytes(text, 600, [], pre_tokenizers.ByteLevel(add_prefix_space=False))
    value = json.loads(made.to_str())
    value["model"]["vocab"]["<|endoftext|>"] = len(value["model"]["vocab"])
    made = Tokenizer.from_str(json.dumps(value))
    made.add_special_tokens([special("<|endoftext|>")])
    merges = ["#version: 0.2"] + [" ".join(pair) for pair in value["model"]["merges"]]
    directory = OUT / "gpt2-style"
    write(directory / "vocab.json", value["model"]["vocab"])
    (directory / "merges.txt").write_text("\n".join(merges) + "\n", encoding="utf-8")
    write(OUT / "gpt2-style.json", {"directory": "gpt2-style", "cases": cases(*hf(made))},
          ["cases"])


def variants():
    """(name, top-level keys to replace, keys of the model to replace)"""
    def split(pattern, behavior, invert=False):
        kind = "String" if isinstance(pattern, str) else "Regex"
        pattern = pattern if isinstance(pattern, str) else pattern[0]
        return {"type": "Split", "pattern": {kind: pattern}, "behavior": behavior,
                "invert": invert}

    def pre(name, value):
        return name, {"normalizer": None, "pre_tokenizer": value}, {}

    def token(content, at, **flags):
        return {"id": at, "content": content, "single_word": False, "lstrip": False,
                "rstrip": False, "normalized": False, "special": False, **flags}

    made = [("base", {}, {}), ("no byte fallback", {}, {"byte_fallback": False}),
            ("unknown not fused", {}, {"byte_fallback": False, "fuse_unk": False}),
            ("no unknown token", {}, {"byte_fallback": False, "unk_token": None}),
            ("ignore merges", {"pre_tokenizer": {"type": "WhitespaceSplit"}},
             {"ignore_merges": True})]
    for behavior in ("Removed", "Isolated", "MergedWithPrevious", "MergedWithNext", "Contiguous"):
        for invert in (False, True):
            suffix = behavior + (" inverted" if invert else "")
            made.append(pre("split regex " + suffix, split([r"[eo]|\d{2}"], behavior, invert)))
            made.append(pre("split string " + suffix, split("l", behavior, invert)))
    for expression in (r"\w+", r"\W", r"\s", r"\S+", r"[\s\d]", r"[^\S\n]+", r"^.", r".$", r"a{,3}",
                       r"a{2}?", r"a{1,2}+", r"x*", r"\bw", r"\Bo", r"\p{^L}+", r"\P{L}",
                       r"\u4e16|\x{4f60}|\x41", r"(?i:word)(?=\s)", r"(?<!s)word", r"(a|b)+?c?",
                       r"\p{Han}+", r"[\p{Han}\p{Hiragana}]", r"\v|\f|\e|\a", r"(?>ab?)", r"{|}",
                       r"a++|o?+", r"[A-Z\-\]^]", "#", r"\.\.|\-", r"\p{Lu}\p{Ll}*", r"\Ax|\z",
                       r"[a-c[x-z]]+", r"[^a-z[0-9]\s]", r"[a-z&&[^aeiou]]+", r"[^a-z&&[^aeiou]]",
                       r"[[:alpha:]]+", r"[^[:space:]\d]+", r"[[:alnum:]-]+", r"[\W\d]",
                       r"[\p{L}&&\p{Latin}]+", r"[[a-m]&&[k-z]]", r"(?i)word|HELLO", r"(?i)[h-w]+",
                       r"x(?i)w|WORD", r"(w(?i)O)r|x", r"(?i:w(?-i)o)r", r"(?m:a.b)|(?m)y.", r"\h+", r"\H",
                       r"(?i)(?m)c.?a|\s"):
        made.append(pre("expression " + expression, split([expression], "Isolated")))
    made += [
        pre("digits", {"type": "Digits", "individual_digits": False}),
        pre("individual digits", {"type": "Digits", "individual_digits": True}),
        pre("whitespace", {"type": "Whitespace"}),
        pre("whitespace split", {"type": "WhitespaceSplit"}),
        pre("punctuation", {"type": "Punctuation", "behavior": "Isolated"}),
        pre("punctuation contiguous", {"type": "Punctuation", "behavior": "Contiguous"}),
        pre("delimiter", {"type": "CharDelimiterSplit", "delimiter": "o"}),
        pre("sequence", {"type": "Sequence", "pretokenizers": [
            {"type": "Digits", "individual_digits": True}, {"type": "Sequence", "pretokenizers": [
                split("o", "MergedWithNext"), {"type": "WhitespaceSplit"}]}]}),
    ]
    for scheme in ("always", "first", "never"):
        for is_split in (True, False):
            part = {"type": "Metaspace", "replacement": METASPACE, "prepend_scheme": scheme,
                    "split": is_split}
            made.append((f"metaspace {scheme} split {is_split}",
                         {"normalizer": None, "pre_tokenizer": part,
                          "decoder": {k: part[k] for k in part}}, {}))
    made.append(("metaspace legacy", {"normalizer": None, "pre_tokenizer": {
        "type": "Metaspace", "replacement": METASPACE, "add_prefix_space": True},
        "decoder": {"type": "Metaspace", "replacement": METASPACE, "add_prefix_space": True}}, {}))
    made.append(("metaspace behind a removed start", {"normalizer": None, "pre_tokenizer": {
        "type": "Sequence", "pretokenizers": [split("H", "Removed"), {
            "type": "Metaspace", "replacement": METASPACE, "prepend_scheme": "first",
            "split": True}]}}, {}))
    made.append(("lowercase", {"normalizer": {"type": "Lowercase"}}, {}))
    for left in (True, False):
        for right in (True, False):
            made.append((f"strip {left} {right}", {"normalizer": {
                "type": "Strip", "strip_left": left, "strip_right": right}}, {}))
    # What a normalizer removes in front of "first".
    first = {"type": "Metaspace", "replacement": METASPACE, "prepend_scheme": "first", "split": True}
    clean = {"type": "BertNormalizer", "clean_text": True, "handle_chinese_chars": False,
             "strip_accents": False, "lowercase": False}
    for what, normalizer in (
            ("strip", {"type": "Strip", "strip_left": True, "strip_right": False}),
            ("clean text", clean),
            ("accents", {"type": "Sequence", "normalizers": [
                {"type": "NFD"}, {"type": "StripAccents"}]}),
            ("removed", {"type": "Replace", "pattern": {"Regex": "^ +|H|\\Ac"}, "content": ""}),
            ("replaced", {"type": "Replace", "pattern": {"Regex": "^ +"}, "content": "x"}),
            ("prepended", {"type": "Sequence", "normalizers": [
                {"type": "Prepend", "prepend": "x"}, {"type": "Strip", "strip_left": True,
                                                      "strip_right": True}]})):
        made.append(("first behind " + what, {"normalizer": normalizer, "pre_tokenizer": first}, {}))
    made.append(("strip accents", {"normalizer": {"type": "Sequence", "normalizers": [
        {"type": "NFD"}, {"type": "StripAccents"}]}}, {}))
    for chinese, accents, lower in ((True, None, True), (False, True, False), (True, False, True)):
        made.append((f"bert {chinese} {accents} {lower}", {"normalizer": {
            "type": "BertNormalizer", "clean_text": chinese, "handle_chinese_chars": chinese,
            "strip_accents": accents, "lowercase": lower}}, {}))
    made.append(("byte-level normalizer", {"normalizer": {"type": "ByteLevel"}}, {}))
    for kind in ("RobertaProcessing", "BertProcessing"):
        more = {"trim_offsets": True, "add_prefix_space": False} if kind[0] == "R" else {}
        made.append((kind, {"post_processor": {"type": kind, "sep": ["</s>", 2], "cls": ["<s>", 1],
                                               **more}}, {}))
    made.append(("sequence of processors", {"post_processor": {"type": "Sequence", "processors": [
        {"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": True, "use_regex": True},
        {"type": "BertProcessing", "sep": ["</s>", 2], "cls": ["<s>", 1]}]}}, {}))
    for form in ("NFC", "NFD", "NFKC", "NFKD"):
        made.append((form, {"normalizer": {"type": form}}, {}))
    made.append(("replace by expression", {"normalizer": {
        "type": "Replace", "pattern": {"Regex": r"\s+"}, "content": METASPACE}}, {}))
    made.append(("no decoder", {"decoder": None}, {}))
    made.append(("replace by expression and strip", {"decoder": {"type": "Sequence", "decoders": [
        {"type": "Replace", "pattern": {"Regex": METASPACE + "|e"}, "content": " "},
        {"type": "ByteFallback"}, {"type": "Fuse"},
        {"type": "Strip", "content": " ", "start": 2, "stop": 0}]}}, {}))
    for flags in ({}, {"lstrip": True}, {"rstrip": True}, {"lstrip": True, "rstrip": True},
                  {"single_word": True}, {"normalized": True},
                  {"single_word": True, "lstrip": True, "rstrip": True}):
        tokens = [token("<mask>", 2000, **flags), token("word", 2001, **flags),
                  token("wordy", 2002, **flags), token(" <", 2003)]
        made.append(("added tokens " + " ".join(flags), {"added_tokens": "+", "more": tokens}, {}))
    return made


def fitted(value):
    """With added tokens renumbered as `tokenizers` does when it reads them: behind the others."""
    more = value.pop("more", None)
    if more is not None:
        del value["added_tokens"]
        value["added_tokens"] = value.pop("kept")
        for token in more:
            known = value["model"]["vocab"].get(token["content"])
            token["id"] = known if known is not None else 1 + max(
                [t["id"] for t in value["added_tokens"]] + list(value["model"]["vocab"].values()))
            value["added_tokens"].append(token)
    return value


def write_components():
    # Trained without a pre-tokenizer until each text is almost one token: every cut shows in the ids.
    text = COMPONENT_TEXTS + [METASPACE + t.replace(" ", METASPACE) for t in COMPONENT_TEXTS]
    base = add_llama2_parts(train_metaspace(text * 3, 950, None))
    made = []
    for name, top, model in variants():
        value = copy.deepcopy(base)
        value["kept"] = value["added_tokens"]
        value.update(copy.deepcopy(top))
        value["model"].update(model)
        value = fitted(value)
        value.pop("kept", None)
        try:
            encoders = hf(Tokenizer.from_str(json.dumps(value)))
            made_cases = cases(*encoders, COMPONENT_TEXTS + UNKNOWN_TEXTS)
        except BaseException as error:  # a panic in the library is no Exception
            print("left out:", name, repr(error)[:100], file=sys.stderr)
            continue
        replaced = {key: value[key] for key in top if key != "more"}
        made.append({"name": name, "set": replaced, "model": model, "cases": made_cases})
    write(OUT / "components.json", {"base": base, "variants": made}, ["variants"])


def shared_ids(encode, decode, shared):
    made = []
    for path in sorted((shared / "data/text").iterdir()):
        text = path.read_bytes().decode("utf-8")
        ids = encode(text)
        packed = struct.pack(f"<{len(ids)}i", *ids)
        decoded = decode(ids)
        made.append({"file": path.name, "count": len(ids),
                     "sha256": hashlib.sha256(packed).hexdigest(),
                     "decoded_sha256": hashlib.sha256(decoded.encode("utf-8")).hexdigest(),
                     "exact": decoded == text})
    return made


def write_shared(name, files, shared, encoders):
    """`files`: name in the tokenizer's directory -> path, from ../shared or the repository."""
    encode, encode_special, decode = encoders
    write(OUT / f"shared-{name}.json", {
        "files": files, "cases": cases(encode, encode_special, decode),
        "texts": shared_ids(encode, decode, shared)}, ["cases", "texts"])


def bare_model_encoders(path):
    """Of a tokenizer.model without other files, as transformers reads it."""
    import os
    import tempfile
    import shutil
    from transformers import AutoTokenizer
    with tempfile.TemporaryDirectory() as directory:
        shutil.copy(path, os.path.join(directory, "tokenizer.model"))
        Path(directory, "config.json").write_text('{"model_type": "mistral"}')
        made = AutoTokenizer.from_pretrained(directory)
    return (lambda t: made.encode(t, add_special_tokens=False),
            lambda t: made.encode(t),
            lambda ids: made.decode(ids, skip_special_tokens=False, clean_up_tokenization_spaces=False))


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--shared", type=Path, default=HERE.parents[2] / "shared")
    parser.add_argument("--smollm2", type=Path, default=HERE.parents[1] / "build/models/smollm2")
    options = parser.parse_args()
    shared = options.shared
    text = training_text(shared)
    for name, style in (("llama3-style", llama3_style), ("qwen-style", qwen_style),
                        ("o200k-style", o200k_style), ("deepseek-style", deepseek_style)):
        write_style(name, style(text))
    write_style("llama2-style", add_llama2_parts(
        train_metaspace(text, 700, pre_tokenizers.Metaspace())))
    write_gpt2_files(text)
    write_components()
    transformers_tokenizers.write_layouts(OUT, TEXTS, "".join(text), write)

    data = shared / "data"
    gpt2 = data / "tokenizers/gpt2"
    hf_gpt2 = hf(Tokenizer.from_file(str(gpt2 / "tokenizer.hf.json")))
    gpt2_at = "../shared/data/tokenizers/gpt2/"
    write_shared("gpt2-json", {"tokenizer.json": gpt2_at + "tokenizer.hf.json"}, shared, hf_gpt2)
    write_shared("gpt2-files", {n: gpt2_at + n for n in ("encoder.json", "vocab.bpe")}, shared,
                 hf_gpt2)
    write_shared("stories260k",
                 {n: "../shared/data/models/stories260k/" + n
                  for n in ("tokenizer.json", "tokenizer_config.json")}, shared,
                 hf(Tokenizer.from_file(str(data / "models/stories260k/tokenizer.json"))))
    write_shared("smollm2", {n: "build/models/smollm2/" + n
                             for n in ("tokenizer.json", "tokenizer_config.json")}, shared,
                 hf(Tokenizer.from_file(str(options.smollm2 / "tokenizer.json"))))
    for version in ("v1", "v3"):
        path = data / f"tokenizers/mistral/tokenizer.model.{version}"
        write_shared(f"mistral-{version}",
                     {"tokenizer.model":
                      f"../shared/data/tokenizers/mistral/tokenizer.model.{version}"},
                     shared, bare_model_encoders(path))


if __name__ == "__main__":
    main()
