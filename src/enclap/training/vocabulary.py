"""A caption model's vocabulary, extended for captions that its tokenizer cuts into too many pieces."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Sequence

import torch
from tokenizers import Tokenizer
from torch import nn

from enclap.model import EnclapForConditionalGeneration

PIECES_PER_WORD = 1.5
"""Mean tokens of a word above which a vocabulary is extended; mini's own sentences have 1.2, German ones 4."""
AIM = 1.25
"""Tokens of a word at which an extension ends."""
MOST_NEW = 4_000
"""Tokens that are added at most: each is a row of the token table that must be learnt."""
LEAST_USES = 2
"""Of a pair of tokens in the captions, to become one token."""
Merge = tuple[str, str]


def pieces_per_word(tokenizer: Tokenizer, captions: Sequence[str]) -> float:
    """Mean number of tokens that a word of the captions takes."""
    tokens = sum(len(item.ids) for item in tokenizer.encode_batch(list(captions), add_special_tokens=False))
    return tokens / max(1, sum(len(text.split()) for text in captions))


def learn_merges(tokenizer: Tokenizer, captions: Sequence[str], most: int = MOST_NEW) -> list[Merge]:
    """Pairs of tokens that become new ones, in order: byte pair encoding that goes on from a tokenizer's own pieces.

    The same captions give the same merges.
    """
    words = Counter(word for text in captions for word in split_words(tokenizer, text))
    pieces = {word: [item.value for item in tokenizer.model.tokenize(word)] for word in words}
    total = sum(len(text.split()) for text in captions)
    merges: list[Merge] = []
    while len(merges) < most and sum(len(pieces[word]) * count for word, count in words.items()) > AIM * total:
        pairs: Counter[Merge] = Counter()
        for word, count in words.items():
            for pair in zip(pieces[word], pieces[word][1:], strict=False):
                pairs[pair] += count
        if not pairs:
            break
        best = min(pairs, key=lambda pair: (-pairs[pair], pair))
        if pairs[best] < LEAST_USES:
            break
        merges.append(best)
        for word, parts in pieces.items():
            if best[0] in parts:
                pieces[word] = merged(parts, best)
    return merges


def split_words(tokenizer: Tokenizer, text: str) -> list[str]:
    """The words of a text as the tokenizer's model gets them."""
    if tokenizer.normalizer is not None:
        text = tokenizer.normalizer.normalize_str(text)
    return [word for word, _ in tokenizer.pre_tokenizer.pre_tokenize_str(text)]


def merged(parts: Sequence[str], pair: Merge) -> list[str]:
    """The parts with every occurrence of the pair joined, from the left."""
    found: list[str] = []
    position = 0
    while position < len(parts):
        joined = tuple(parts[position : position + 2]) == pair
        found.append("".join(pair) if joined else parts[position])
        position += 2 if joined else 1
    return found


def extended_tokenizer(tokenizer: Tokenizer, merges: Iterable[Merge]) -> Tokenizer:
    """The tokenizer with these merges after its own; the ids of its own tokens stay."""
    table = json.loads(tokenizer.to_str())
    vocabulary: dict[str, int] = table["model"]["vocab"]
    number = max(tokenizer.get_vocab().values()) + 1
    for left, right in merges:
        table["model"]["merges"].append([left, right])
        if left + right not in vocabulary:
            vocabulary[left + right] = number
            number += 1
    return Tokenizer.from_str(json.dumps(table))


def extend_model(model: EnclapForConditionalGeneration, old: Tokenizer, new: Tokenizer) -> None:
    """Give the model a row for every new token: at first the mean of the rows of the old tokens that it is made of."""
    table: nn.Embedding = model.get_input_embeddings()  # type: ignore[assignment]
    rows = max(model.config.vocab_size, new.get_vocab_size())
    if rows == model.config.vocab_size and new.get_vocab_size() == old.get_vocab_size():
        return
    weights = torch.empty(rows, table.embedding_dim)
    weights[: len(table.weight)] = table.weight.data
    bias = torch.zeros(1, rows)
    bias[:, : len(table.weight)] = model.final_logits_bias
    known = old.get_vocab()
    for token, number in new.get_vocab().items():
        if token not in known:
            parts = [item.id for item in old.model.tokenize(token)]
            weights[number] = table.weight.data[parts].mean(dim=0)
    model.set_input_embeddings(nn.Embedding(rows, table.embedding_dim, padding_idx=table.padding_idx))
    model.get_input_embeddings().weight.data.copy_(weights)  # type: ignore[operator]
    model.lm_head = nn.Linear(table.embedding_dim, rows, bias=False)
    model.register_buffer("final_logits_bias", bias)
    model.config.vocab_size = rows
    model.tie_weights()


def repeats_within(ids: Sequence[int], length: int) -> bool:
    """Whether a run of so many tokens comes twice in a sentence."""
    runs = [tuple(ids[start : start + length]) for start in range(len(ids) - length + 1)]
    return len(set(runs)) < len(runs)
