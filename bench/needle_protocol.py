"""How a needle is asked for over a cache of transformers, as eval/compare/compare.cc does: for bench/kvpress_table.py and
bench/codes.py."""

import torch

# Tokens decoded beyond the expected answer's length: eval/compare/compare.cc has the same number.
EXTRA_TOKENS = 4


def step(model, cache, ids, position):
    """ids [B] at `position` -> logits [B, V]."""
    positions = torch.full((len(ids), 1), position)
    out = model(ids[:, None], past_key_values=cache, position_ids=positions, use_cache=True)
    return out.logits[:, -1]


def answered(text, value):
    """eval/tasks/needle_task.h, NeedleAnswered."""
    text = text.lstrip(" ").lower()
    rest = text[len(value):]
    return text.startswith(value.lower()) and not rest[:1].isalpha()


def split(needle, question_before):
    """-> (tokens to prefill, tokens to feed behind them): with the question before, all of it but the words that lead into
    the answer is part of what is compressed."""
    fed = needle["question"]
    cut = len(fed) - needle["lead"] if question_before else 0
    return needle["context"] + fed[:cut], fed[cut:]


def answer(model, tokenizer, needle, cache, logits, fed, position):
    """Whether the needle is found: `fed` and then the model's own tokens go behind `position` tokens of the cache."""
    for token in fed:
        logits = step(model, cache, torch.tensor([token]), position)
        position += 1
    tokens = []
    for _ in range(len(needle["answer"]) + EXTRA_TOKENS):
        tokens.append(int(logits.argmax()))
        logits = step(model, cache, torch.tensor(tokens[-1:]), position)
        position += 1
    return answered(tokenizer.decode(tokens), needle["value"])
