"""The caption tokenizer of a model that is trained from scratch: byte-level BPE, as BART's."""

from __future__ import annotations

from collections.abc import Iterable

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers

from enclap.hub import layout

SPECIAL_TOKENS = (*layout.SPECIAL_TOKENS, "<unk>", "<mask>")
"""In BART's order: ids 0 to 4."""


def train_tokenizer(sentences: Iterable[str], vocabulary: int) -> Tokenizer:
    """A byte-level BPE tokenizer with at most `vocabulary` entries that puts <s> before and </s> after a text.

    Every text can be encoded, since all 256 bytes are entries. The same sentences give the same tokenizer.
    """
    tokenizer = Tokenizer(models.BPE(unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary,
        special_tokens=list(SPECIAL_TOKENS),
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator(sorted(set(sentences)), trainer)
    start, _, end = SPECIAL_TOKENS[:3]
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{start} $A {end}",
        special_tokens=[(token, tokenizer.token_to_id(token)) for token in (start, end)],
    )
    return tokenizer
