"""Captions of a data set's recordings by a model, and how near they are to the sound by the model's own CLAP."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from enclap.audio.read import Source, open_audio
from enclap.audio.window import DEFAULT_WINDOW, WHOLE, is_silent, split_windows
from enclap.captioner import Captioner, Failure
from enclap.data.datasets.base import CaptionedClip, source_of
from enclap.engines.base import Engine
from enclap.errors import EnvironmentFault, InputError
from enclap.evaluation.captioning.evaluate import CLAP_SIMILARITY
from enclap.evaluation.captioning.scores import ClipScores, mean_scores
from enclap.evaluation.captioning.tables import CaptionSet
from enclap.types import FloatArray


@dataclass(frozen=True, slots=True)
class Predicted:
    """The captions of a model beside the references, the sounds that they are about, and why recordings have none."""

    captions: CaptionSet
    sources: Sequence[Source]
    failures: Sequence[InputError]


def predict(captioner: Captioner, clips: Iterable[CaptionedClip]) -> Predicted:
    """One caption for each clip of a data set that can be read, of the whole clip as one window."""
    found: list[tuple[CaptionedClip, str]] = []
    failures: list[InputError] = []
    clips = list(clips)
    results = captioner.stream([source_of(clip) for clip in clips], window=WHOLE)
    for clip, result in zip(clips, results, strict=True):
        if isinstance(result, Failure):
            failures.append(result.error)
        else:
            found.append((clip, result.captions[0].text))
    captions = CaptionSet(
        clips=tuple(clip.name for clip, _ in found),
        predictions=tuple(text for _, text in found),
        references=tuple(clip.captions for clip, _ in found),
        labels=tuple(clip.labels for clip, _ in found),
    )
    return Predicted(captions, [source_of(clip) for clip, _ in found], failures)


def clap_similarity(engine: Engine, sources: Sequence[Source], systems: Sequence[Sequence[str]]) -> list[ClipScores]:
    """For each system the cosine between its caption and each sound, the mean over windows; of a set it is the mean.

    systems: for each the captions of the sounds. A silent sound has no score. EnvironmentFault for a model without both
    of CLAP's towers.
    """
    if not engine.can_embed_text:
        raise EnvironmentFault(f"{CLAP_SIMILARITY}: the model has no text tower of CLAP")
    texts = np.stack([engine.embed_text(captions) for captions in systems], axis=1)  # [N, systems, E]
    cosines = [mean_similarities(engine, source, own) for source, own in zip(sources, texts, strict=True)]
    return [mean_scores(CLAP_SIMILARITY, column) for column in np.array(cosines).T]


def mean_similarities(engine: Engine, source: Source, texts: FloatArray) -> FloatArray:
    """Mean cosines [n] of embeddings [n, E] with the sound's windows that are not silent; NaN without any.

    EnvironmentFault when the model takes no CLAP embedding.
    """
    cosines = []
    with open_audio(source) as audio:
        for window in split_windows(audio.blocks, audio.rate, DEFAULT_WINDOW):
            if is_silent(window.waveform.samples):
                continue
            embedding = engine.extract([window])[0].embedding
            if embedding is None:
                raise EnvironmentFault(f"{CLAP_SIMILARITY}: the model takes no CLAP embedding")
            cosines.append(texts @ embedding)
    means: FloatArray = np.mean(cosines, axis=0) if cosines else np.full(len(texts), np.nan, np.float32)
    return means
