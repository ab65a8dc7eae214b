"""Captions of a data set's recordings by a model, and how near they are to the sound by the model's own CLAP."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from enclap.audio.read import open_audio
from enclap.audio.window import DEFAULT_WINDOW, WHOLE, is_silent, split_windows
from enclap.captioner import Captioner, Failure
from enclap.engines.base import Engine
from enclap.errors import EnvironmentFault, InputError
from enclap.evaluation.captioning.evaluate import CLAP_SIMILARITY
from enclap.evaluation.captioning.scores import ClipScores, mean_scores
from enclap.evaluation.captioning.tables import CaptionSet, ClipCaptions


@dataclass(frozen=True, slots=True)
class Predicted:
    """The captions of a model beside the references, and why recordings have none."""

    captions: CaptionSet
    failures: Sequence[InputError]


def predict(captioner: Captioner, clips: Sequence[ClipCaptions], folder: Path) -> Predicted:
    """One caption for each recording that can be read. clips: named by their paths in the folder."""
    results = captioner.stream([str(folder / item.clip) for item in clips], window=WHOLE)
    failures: list[InputError] = []
    found: list[tuple[ClipCaptions, str]] = []
    for item, result in zip(clips, results, strict=True):
        if isinstance(result, Failure):
            failures.append(result.error)
        else:
            found.append((item, result.captions[0].text))
    captions = CaptionSet(
        clips=tuple(item.clip for item, _ in found),
        predictions=tuple(text for _, text in found),
        references=tuple(item.captions for item, _ in found),
        labels=tuple(item.labels for item, _ in found),
    )
    return Predicted(captions, failures)


def clap_similarity(engine: Engine, captions: CaptionSet, folder: Path) -> ClipScores:
    """The cosine between each caption and its sound, the mean over the sound's windows; of a set it is the mean.

    A silent recording has none. EnvironmentFault for a model without both of CLAP's towers.
    """
    if not engine.can_embed_text:
        raise EnvironmentFault(f"{CLAP_SIMILARITY}: the model has no text tower of CLAP")
    texts = engine.embed_text(captions.predictions)  # [N, E]
    pairs = zip(captions.clips, texts, strict=True)
    return mean_scores(CLAP_SIMILARITY, [mean_similarity(engine, folder / clip, text) for clip, text in pairs])


def mean_similarity(engine: Engine, path: Path, text: np.ndarray) -> float:
    """The mean cosine between a text's embedding [E] and the recording's windows that are not silent; NaN without any.

    EnvironmentFault when the model takes no CLAP embedding.
    """
    cosines = []
    with open_audio(str(path)) as audio:
        for window in split_windows(audio.blocks, audio.rate, DEFAULT_WINDOW):
            if is_silent(window.waveform.samples):
                continue
            embedding = engine.extract([window])[0].embedding
            if embedding is None:
                raise EnvironmentFault(f"{CLAP_SIMILARITY}: the model takes no CLAP embedding")
            cosines.append(float(embedding @ text))
    return float(np.mean(cosines)) if cosines else float("nan")
