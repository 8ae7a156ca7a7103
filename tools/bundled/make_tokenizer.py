#!/usr/bin/env python3
"""Make the bundled model's tokenizer: byte-level BPE in which every needle word is one token.

usage: make_tokenizer.py -o DIR --words WORDS.txt --size 1024 TEXT.txt [TEXT.txt ...]

WORDS.txt holds one pre-token a line, its leading space included (kvc-train --list-words prints
them). Their merges are learned first, from the words alone, so that no merge of the prose can take
a letter away from them; then merges are learned from the text until the vocabulary is full. Only
the standard library is used and ties are broken by the pair's bytes: the same input gives the same
file everywhere. Writes tokenizer.json (Hugging Face's format) and tokenizer_config.json.
"""
import argparse
import collections
import json
import pathlib
import re

END_OF_TEXT = "<|endoftext|>"
# GPT-2's split, except that " is" stays with the word before it: " harbor is" can be one token, and
# the value that follows stands next to its key.
SPLIT = (r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+(?: is(?!\p{L}))?| ?\p{N}+| ?[^\s\p{L}\p{N}]+"
         r"|\s+(?!\S)|\s+")
# The same with letters and digits narrowed to ASCII (Python's re has no \p): to count pre-tokens.
PRE_TOKEN = re.compile(SPLIT.replace(r"\p{L}", "A-Za-z").replace(r"\p{N}", "0-9")
                       .replace(" ?A-Za-z+", " ?[A-Za-z]+").replace("(?!A-Za-z)", "(?![A-Za-z])")
                       .replace(" ?0-9+", " ?[0-9]+"))


def byte_alphabet():
    """GPT-2's map from bytes to printable characters."""
    kept = list(range(33, 127)) + list(range(161, 173)) + list(range(174, 256))
    chars = {b: chr(b) for b in kept}
    others = [b for b in range(256) if b not in chars]
    chars.update({b: chr(256 + i) for i, b in enumerate(others)})
    return chars


def apply_merge(symbols, pair):
    """`symbols` with each occurrence of `pair`, from the left, joined."""
    joined, i = [], 0
    while i < len(symbols):
        if i + 1 < len(symbols) and (symbols[i], symbols[i + 1]) == pair:
            joined.append(symbols[i] + symbols[i + 1])
            i += 2
        else:
            joined.append(symbols[i])
            i += 1
    return joined


def learn(counts, merges, limit):
    """Adds merges learned from {pre-token: count} until there are `limit` or nothing to merge."""
    words = []
    for word, count in sorted(counts.items()):
        symbols = list(word)
        for pair in merges:
            if pair[0] in symbols:
                symbols = apply_merge(symbols, pair)
        words.append((symbols, count))
    while len(merges) < limit:
        pairs = collections.Counter()
        for symbols, count in words:
            for pair in zip(symbols, symbols[1:]):
                pairs[pair] += count
        if not pairs:
            return
        best = max(pairs.items(), key=lambda item: (item[1], item[0]))[0]
        merges.append(best)
        words = [(apply_merge(s, best) if best[0] in s else s, c) for s, c in words]


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("texts", nargs="+", type=pathlib.Path)
    parser.add_argument("-o", "--output", required=True, type=pathlib.Path)
    parser.add_argument("--words", required=True, type=pathlib.Path)
    parser.add_argument("--size", type=int, default=1024)
    options = parser.parse_args()

    alphabet = byte_alphabet()
    spell = lambda text: "".join(alphabet[b] for b in text.encode("utf-8"))
    wanted = [spell(w) for w in options.words.read_text(encoding="utf-8").split("\n") if w]
    prose = collections.Counter()
    for path in options.texts:
        prose.update(spell(t) for t in PRE_TOKEN.findall(path.read_text(encoding="utf-8")))

    merges = []
    room = options.size - 256 - 1
    space = spell(" ")
    learn(collections.Counter(w for w in wanted if space not in w[1:]), merges, room)
    learn(collections.Counter(wanted), merges, room)
    num_word_merges = len(merges)
    learn({w: c for w, c in prose.items() if c > 1}, merges, room)
    tokens = [END_OF_TEXT] + [alphabet[b] for b in range(256)] + [a + b for a, b in merges]
    missing = [w for w in wanted if w not in tokens]
    if missing or len(set(tokens)) != len(tokens):
        raise SystemExit(f"make_tokenizer.py: error: words without a token: {missing}; raise --size")

    byte_level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True,
                  "use_regex": False}
    split = {"type": "Split", "pattern": {"Regex": SPLIT}, "behavior": "Isolated", "invert": False}
    document = {
        "version": "1.0", "truncation": None, "padding": None,
        "added_tokens": [{"id": 0, "content": END_OF_TEXT, "single_word": False, "lstrip": False,
                          "rstrip": False, "normalized": False, "special": True}],
        "normalizer": None,
        "pre_tokenizer": {"type": "Sequence", "pretokenizers": [split, byte_level]},
        "post_processor": None, "decoder": byte_level,
        "model": {"type": "BPE", "dropout": None, "unk_token": None,
                  "continuing_subword_prefix": None, "end_of_word_suffix": None,
                  "fuse_unk": False, "byte_fallback": False, "ignore_merges": False,
                  "vocab": {t: i for i, t in enumerate(tokens)},
                  "merges": [[a, b] for a, b in merges]},
    }
    options.output.mkdir(parents=True, exist_ok=True)
    write = lambda name, value: (options.output / name).write_text(
        json.dumps(value, ensure_ascii=False, indent=1) + "\n", encoding="utf-8")
    write("tokenizer.json", document)
    write("tokenizer_config.json", {"bos_token": END_OF_TEXT, "eos_token": END_OF_TEXT,
                                    "unk_token": END_OF_TEXT, "model_max_length": 1024,
                                    "tokenizer_class": "GPT2Tokenizer"})
    print(f"{len(tokens)} tokens, {num_word_merges} merges for {len(wanted)} words")


if __name__ == "__main__":
    main()
