"""Sounds without recordings: their sentences are learned from CLAP's text embeddings in the place of audio's.

Text-side training (arXiv 2309.07372, 2309.12242): text and audio share a space, but not a place in it. What parts them
is measured on recordings that CLAP was not trained on; its mean is added to a text embedding, with noise of its shape.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from pydantic import Field

from enclap.data.recordings import Recording
from enclap.data.synthetic.grammar import Sound, finish, label_texts
from enclap.data.synthetic.lexicon import load_lexicon
from enclap.data.synthetic.scenes import LONGEST
from enclap.model.conv_clap import SPANS
from enclap.training.recipe import Settings
from enclap.types import FloatArray

TextEmbedder = Callable[[Sequence[str]], FloatArray]
"""Texts to unit embeddings, float32 [N, E]."""
SALT = 7
"""Of the draws here, so that the clips which stay sounds are those of a rehearsal without text."""
IN_ORDER = 0.4
"""How often a clip of text tells two sounds in order; the others tell one."""


class TextSide(Settings):
    """Clips of a rehearsal that hold no sound.

    share: of the clips. enough: recordings with which a label is left to its recordings. measured: views by which the
    gap between text and audio is measured. noise: how much of its deviation is added; on recordings that CLAP does not
    know the whole of it is longer than the embedding itself.
    """

    share: float = Field(gt=0, lt=1)
    enough: int = Field(default=1, gt=0)
    measured: int = Field(default=1_000, gt=1)
    noise: float = Field(default=0.4, ge=0)


@dataclass(frozen=True, slots=True, eq=False)
class ModalityGap:
    """What audio embeddings have beside those of their texts: float32 [E] each, a mean and a standard deviation."""

    shift: FloatArray
    deviation: FloatArray

    @classmethod
    def measure(cls, audio: FloatArray, text: FloatArray) -> ModalityGap:
        """The gap between N sounds' embeddings [N, E] and those of their texts [N, E], in the same order."""
        gap = audio - text
        return cls(gap.mean(axis=0), gap.std(axis=0))

    def quieter(self, noise: float) -> ModalityGap:
        """The same shift with `noise` times the deviation."""
        return ModalityGap(self.shift, self.deviation * np.float32(noise))

    def bridge(self, text: FloatArray, generator: np.random.Generator) -> FloatArray:
        """An embedding [SPANS, E / SPANS] such as a sound of the text [E] may have: each span of unit length."""
        noise = generator.standard_normal(len(text)).astype(np.float32)
        spans: FloatArray = (text + self.shift + noise * self.deviation).reshape(SPANS, -1)
        lengths = np.maximum(np.linalg.norm(spans, axis=1, keepdims=True), 1e-6)
        bridged: FloatArray = (spans / lengths).astype(np.float32)
        return bridged


def labels_without(recordings: Iterable[Recording], enough: int) -> tuple[str, ...]:
    """The lexicon's labels that fewer than `enough` of the recordings have, sorted."""
    counts = Counter(label for recording in recordings for label in recording.labels)
    return tuple(label for label in sorted(load_lexicon().entries) if counts[label] < enough)


class TextSounds:
    """Draws clips without sound, each from (seed, number). labels: of what they tell."""

    def __init__(
        self, labels: Sequence[str], embed_text: TextEmbedder, gap: ModalityGap, share: float, seed: int
    ) -> None:
        self._labels, self._gap, self._share, self._seed = labels, gap, share, seed
        texts = [[finish(text) for text in label_texts(label)] for label in labels]
        self._ends = np.cumsum([len(part) for part in texts])
        self._embeddings = np.concatenate([embed_text(part) for part in texts])  # one label at a time: equal padding

    def draw(self, number: int) -> tuple[FloatArray, tuple[Sound, ...]] | None:
        """Unit embedding float32 [E] and the sounds that it tells; None where the clip is left to recordings."""
        generator = np.random.default_rng((self._seed, number, SALT))
        if generator.random() >= self._share:
            return None
        count = 1 + int(generator.random() < IN_ORDER and len(self._labels) > 1)
        chosen = generator.choice(len(self._labels), count, replace=False).tolist()
        starts = [int(self._ends[label - 1]) if label else 0 for label in chosen]
        rows = [generator.integers(start, self._ends[label]) for start, label in zip(starts, chosen, strict=True)]
        spans = [self._gap.bridge(self._embeddings[row], generator) for row in rows]  # one of each label's texts
        whole = np.sum([part[0] for part in spans], axis=0)
        joined = np.stack([whole / np.linalg.norm(whole), spans[0][1], spans[-1][2]])
        length = LONGEST / count
        sounds = (Sound(self._labels[label], at * length, (at + 1) * length) for at, label in enumerate(chosen))
        return (joined / np.float32(SPANS**0.5)).ravel().astype(np.float32), tuple(sounds)
