"""What CLAP is trained to call the recordings: their labels, the families and the words of these."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from enclap.data.recordings import Recording
from enclap.data.synthetic.lexicon import load_lexicon

LIGHT_WORDS = {"a", "an", "and", "at", "being", "by", "for", "from", "in", "into", "is", "of", "on", "out", "over"}
LIGHT_WORDS |= {"the", "through", "to", "up", "with"}
"""Words of labels that say nothing about the sound."""


@dataclass(frozen=True)
class Targets:
    """What the recordings of a corpus are to be called: labels, families and words, each as a row per recording.

    label_names, family_names, word_names: what the columns stand for. label_rows: float32 [N, labels], a 1 for the main
    label. family_rows: float32 [N, families], a 1 for its family. word_rows: float32 [N, words], a 1 for each word of
    any label.
    """

    label_names: tuple[str, ...]
    family_names: tuple[str, ...]
    word_names: tuple[str, ...]
    label_rows: NDArray[np.float32]
    family_rows: NDArray[np.float32]
    word_rows: NDArray[np.float32]


def label_words(label: str) -> list[str]:
    """The words of a label that mean something."""
    return [word for word in re.findall(r"[a-z0-9]+", label.lower()) if word not in LIGHT_WORDS]


def make_targets(recordings: Sequence[Recording], seen: Iterable[int], rarest: int = 3) -> Targets:
    """Labels and words of the recordings; a word counts when at least `rarest` of the `seen` recordings have it."""
    seen = list(seen)
    label_names = sorted({recordings[index].label for index in seen})
    counts = Counter(word for index in seen for word in _words(recordings[index]))
    word_names = sorted(word for word, count in counts.items() if count >= rarest)
    lexicon = load_lexicon()
    families = sorted(lexicon.families)
    return Targets(
        tuple(label_names),
        tuple(families),
        tuple(word_names),
        _rows([{recording.label} for recording in recordings], label_names),
        _rows([{lexicon[recording.label].family} for recording in recordings], families),
        _rows([_words(recording) for recording in recordings], word_names),
    )


def _rows(found: Sequence[set[str]], names: Sequence[str]) -> NDArray[np.float32]:
    """Float32 [len(found), len(names)]: 1 where a name is among what was found."""
    return np.asarray([[name in row for name in names] for row in found], dtype=np.float32)


def _words(recording: Recording) -> set[str]:
    return {word for label in recording.labels for word in label_words(label)}
