"""The frozen values that travel between the stages: file -> Waveform -> Window -> Features -> Candidate -> Caption.

Shapes use one alphabet throughout the project: B batch, T code frames, K codebooks, M mel bands, D model width,
E embedding width, S caption tokens, V vocabulary, N samples or items.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

FloatArray = NDArray[np.float32]
IntArray = NDArray[np.int64]


@dataclass(frozen=True, slots=True, eq=False)
class Waveform:
    """Mono audio.

    samples: float32 [N], nominally within -1..1, finite.
    rate: samples per second.
    """

    samples: FloatArray
    rate: int

    @property
    def seconds(self) -> float:
        """Length in seconds."""
        return len(self.samples) / self.rate


@dataclass(frozen=True, slots=True, eq=False)
class Block:
    """Consecutive samples of a recording, as they come from its decoder.

    samples: float32 [N] mono; before the downmix float [N, channels]; nominally within -1..1.
    start: where the first one stands on the recording's time line, in samples from the container's start.
    """

    samples: NDArray[np.floating]
    start: int

    @property
    def end(self) -> int:
        """Where the next sample would stand."""
        return self.start + len(self.samples)


@dataclass(frozen=True, slots=True, eq=False)
class Window:
    """A part of a recording that gets one caption; start and end are seconds on the recording's time line."""

    waveform: Waveform
    start: float
    end: float


@dataclass(frozen=True, slots=True, eq=False)
class Features:
    """What the caption model knows about one window.

    codes: int64 [T, K], values 0..entries-1, codebook 0 the coarsest; T = 0 when the model takes no codes.
    embedding: float32 [E], unit length; None when the model takes no CLAP embedding.
    log_mel: float32 [T, M] at the code frame rate; None unless the model's acoustic input is log_mel.
    """

    codes: IntArray
    embedding: FloatArray | None
    log_mel: FloatArray | None = None


def embedding_of(features: Features) -> FloatArray:
    """The CLAP embedding of features that must have one."""
    if features.embedding is None:
        raise ValueError("features without a CLAP embedding")
    return features.embedding


@dataclass(frozen=True, slots=True)
class Candidate:
    """One sentence that generation proposes.

    token_ids: with the start and end tokens, without padding.
    score: mean log-probability per token (sum of log-probabilities / length ** length penalty).
    """

    token_ids: tuple[int, ...]
    text: str
    score: float


@dataclass(frozen=True, slots=True)
class Caption:
    """The sentence for one window; start and end in seconds on the recording's time line.

    score: how probable it is, 0 to 1, that the best candidate names what is heard, where the model has a calibration
    (the candidates' scores are probabilities then too); elsewhere the best candidate's mean log-probability. None for
    silence, which no model gets.
    candidates: all that were asked for, best first; empty for silence. `text` is the first of them, unless a vaguer
    sentence took its place.
    """

    start: float
    end: float
    text: str
    score: float | None
    silence: bool = False
    candidates: tuple[Candidate, ...] = ()


@dataclass(frozen=True, slots=True)
class CaptionResult:
    """All captions of one recording, in order of time.

    path: what the caller named it: a path, "-" for standard input, None for an array or bytes.
    duration: seconds from the start of the recording's time line to the end of its last caption.
    """

    path: str | None
    duration: float
    captions: tuple[Caption, ...]

    @property
    def text(self) -> str:
        """The sentences of all windows, joined by spaces."""
        return " ".join(caption.text for caption in self.captions)
