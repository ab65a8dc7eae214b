"""Labels of windows by CLAP alone: which of some texts a sound is near to, as probabilities."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from enclap.audio.crops import mean_direction
from enclap.data.synthetic.grammar import finish
from enclap.data.synthetic.lexicon import load_lexicon
from enclap.decoding.memory import SoundMemory
from enclap.engines.base import Engine
from enclap.search.relevance import LABEL_CURVE, OTHER_LABEL_CURVE, evidence
from enclap.types import FloatArray

TEXTS_TOGETHER = 64
FEW_WORDS, SENTENCE = 4, "The sound of {}."
"""Texts of so few words are also asked as a sentence, which the text tower knows better."""
LEAST_SPREAD = 1e-6


@dataclass(frozen=True, slots=True)
class Tag:
    """A label of a window. score: how probable it is, 0 to 1, that the label can be heard."""

    label: str
    score: float


class LabelSet:
    """Labels, and the sentences of all kinds that their nearness is measured against.

    The cosines of a window to all sentences have a level and a spread of their own: a noisy one is near to nothing.
    A label's evidence is how many spreads above that level it lies, which does not depend on what else is asked for.
    labels: any words; None for all that the lexicon knows. memory: by whose recordings a window is recognised first.
    """

    def __init__(self, engine: Engine, labels: Sequence[str] | None = None, memory: SoundMemory | None = None) -> None:
        self._memory = memory
        entries = load_lexicon().entries
        sentences = {label: finish(entry.clauses[0]) for label, entry in entries.items()}
        self._background = embed_texts(engine, list(sentences.values()))
        vectors = dict(zip(sentences, self._background, strict=True))
        self.labels = tuple(sentences) if labels is None else tuple(labels)
        others = {label: text_vector(engine, label) for label in self.labels if label not in vectors}
        self._vectors = np.stack([vectors[label] if label in vectors else others[label] for label in self.labels])
        self._curves = [OTHER_LABEL_CURVE if label in others else LABEL_CURVE for label in self.labels]

    @property
    def width(self) -> int:
        """E, the width of the embeddings."""
        return int(self._background.shape[1])

    def level(self, embedding: FloatArray) -> tuple[float, float]:
        """Mean and standard deviation of the cosines of a window's embedding [E] to the sentences of all kinds."""
        cosines = self._background @ embedding
        return float(cosines.mean()), max(float(cosines.std()), LEAST_SPREAD)

    def evidence(self, embedding: FloatArray) -> list[float]:
        """How far each label lies above the level of a window's embedding [E], in spreads, in their order."""
        recalled = embedding if self._memory is None else self._memory.recall(embedding)
        level, spread = self.level(recalled)
        return [evidence(float(cosine), level, spread) for cosine in self._vectors @ recalled]

    def scores(self, embedding: FloatArray) -> list[float]:
        """How probable each label is, 0 to 1, in their order."""
        values = self.evidence(embedding)
        return [curve.probability(value) for curve, value in zip(self._curves, values, strict=True)]

    def tags(self, embedding: FloatArray, threshold: float) -> list[Tag]:
        """The labels that are at least so probable, the most probable first."""
        found = [Tag(label, score) for label, score in zip(self.labels, self.scores(embedding), strict=True)]
        return sorted((tag for tag in found if tag.score >= threshold), key=lambda tag: -tag.score)


def text_vector(engine: Engine, words: str) -> FloatArray:
    """Float32 [E], unit length: the direction of the words, and of a sentence of them where they are few."""
    texts = [words] + ([SENTENCE.format(words)] if len(words.split()) <= FEW_WORDS else [])
    return mean_direction(engine.embed_text(texts))


def embed_texts(engine: Engine, texts: Sequence[str]) -> FloatArray:
    """Float32 [N, E]: the texts' embeddings, some at a time."""
    parts = [engine.embed_text(texts[start : start + TEXTS_TOGETHER]) for start in range(0, len(texts), TEXTS_TOGETHER)]
    return np.concatenate(parts)
