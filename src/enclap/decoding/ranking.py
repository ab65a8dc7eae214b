"""In which order the sentences about a window stand: how near they are to its sound, and what else counts.

Reranking by CLAP and likelihood is EnCLAP++'s (arXiv 2409.01201). How `both` weighs the two is ours: each score is
standardised over a clip's candidates, so that neither outweighs the other by its scale.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from enclap.decoding.calibration import SEVERAL, Calibration, tells_several
from enclap.types import Candidate, FloatArray

EMBEDDED_SPANS = 3
"""Parts of mini's embedding: of the whole window and of its halves."""
WORD = re.compile(r"[a-z0-9'-]+")
SHORTEST_NAME = 4
"""Letters of a word that names something."""
LIGHT_WORDS = {"with", "along", "same", "time", "over", "sound", "background", "someone", "something", "person"}
LIGHT_WORDS |= {"play", "speak", "sing"}
"""What two sounds may share, without an s at the end."""
JOINTS = re.compile(r"^(?:(?:and|first|then|finally|a moment later)\b\s*)+", re.IGNORECASE)
AT_ONCE = re.compile(r"\b(?:while|at the same time|along with|over the sound of)\b")

EmbedTexts = Callable[[Sequence[str]], FloatArray]
"""Texts to float32 [N, E], unit length."""


def nearness_to(embedding: FloatArray, texts: Sequence[str], embed: EmbedTexts, by_parts: bool) -> FloatArray:
    """Float32 [N]: the cosines of sentences with a window's sound.

    by_parts: of those that tell several sounds the mean over them: one that comes first with the first half of the
    window, the last with the second one, and what is heard meanwhile with all of it. CLAP's texts tell one sound each.
    """
    parts = [parts_of(text) if by_parts and tells_several(text) else [] for text in texts]
    embedded = embed([*texts, *itertools.chain(*parts)])
    near: FloatArray = embedded[: len(texts)] @ embedding
    spans = unit_spans(embedding) if by_parts else np.empty((0, 0), np.float32)
    place = len(texts)
    for number, found in enumerate(parts):
        if len(found) > 1:
            names = [unit_spans(row)[0] for row in embedded[place : place + len(found)]]
            where = [0] * len(found) if AT_ONCE.search(texts[number]) else [1, *[0] * (len(found) - 2), 2]
            near[number] = np.mean([name @ spans[span] for name, span in zip(names, where, strict=True)])
        place += len(found)
    return near


def parts_of(text: str) -> list[str]:
    """What a sentence tells of each sound, as sentences: "A dog barks." and "A bell rings."."""
    parts = [JOINTS.sub("", part.strip()) for part in SEVERAL.split(text.rstrip("."))]
    return [f"{part[0].upper()}{part[1:]}." for part in parts if len(part.split()) > 1]


def unit_spans(embedding: FloatArray) -> FloatArray:
    """Float32 [EMBEDDED_SPANS, D]: the parts of an embedding [E], each at unit length."""
    return unit(embedding.reshape(EMBEDDED_SPANS, -1))


def unit(vectors: FloatArray) -> FloatArray:
    """The vectors [..., D] at unit length."""
    scaled: FloatArray = vectors / np.maximum(np.linalg.norm(vectors, axis=-1, keepdims=True), np.float32(1e-9))
    return scaled


def likeness_of_halves(embedding: FloatArray) -> float:
    """The cosine of a window's halves, for an embedding of the whole and of its halves; low where the sound changes."""
    _, first, second = unit_spans(embedding)
    return float(first @ second)


def beam_values(
    candidates: Sequence[Candidate], nearness: FloatArray, share: float, calibration: Calibration | None
) -> NDArray[np.float64]:
    """What the candidates [N] of one clip are ordered by: mean log-probabilities, and what the calibration adds.

    nearness: float [N], cosine between the CLAP embeddings of clip and sentence. share: of the searched candidates that
    tell several sounds.
    """
    values = np.array([item.score for item in candidates], dtype=np.float64)
    if calibration is None:
        return values
    company = calibration.company * share
    told = [-calibration.echo if tells_twice(item.text) else company * tells_several(item.text) for item in candidates]
    return values + calibration.similarity * nearness.astype(np.float64) + told


def best_first(values: NDArray[np.float64], nearness: FloatArray, by: str = "likelihood") -> list[int]:
    """The places of one clip's candidates, best first; of equals the one that stands first.

    by: "likelihood", the values; "clap", the nearness; "both", the sum of the two, each standardised. Those alike by
    this are ordered by their values.
    """
    near = nearness.astype(np.float64)
    keys = {"likelihood": values, "clap": near, "both": standardised(values) + standardised(near)}[by]
    return [int(place) for place in np.lexsort((-values, -keys))]


def tells_twice(text: str) -> bool:
    """Whether two parts of a sentence share a word that names something: "Birds sing while a bird chirps."."""
    parts = [
        {word.removesuffix("s") for word in WORD.findall(part) if len(word) >= SHORTEST_NAME} - LIGHT_WORDS
        for part in SEVERAL.split(text.lower())
    ]
    return any(first & second for first, second in itertools.combinations(parts, 2))


def standardised(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Values [N] with mean 0 and standard deviation 1; zeros when all are equal."""
    deviation = values.std()
    return (values - values.mean()) / deviation if deviation > 1e-9 else np.zeros_like(values)


def repeats_phrase(text: str, words: int) -> bool:
    """Whether a sentence holds the same run of `words` words twice; capitals and punctuation do not count.

    A rule on tokens misses "A dog barks, and then a dog barks.": "A" and " a" are different tokens.
    """
    spoken = WORD.findall(text.lower())
    runs = [tuple(spoken[start : start + words]) for start in range(len(spoken) - words + 1)]
    return len(set(runs)) < len(runs)
