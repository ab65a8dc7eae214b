"""What mini remembers: the embeddings of the recordings that it was trained on, and what they are called."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from enclap.audio.read import read_audio
from enclap.audio.window import DEFAULT_WINDOW, is_silent, split_windows
from enclap.data.recordings import Recording
from enclap.data.synthetic.grammar import finish, label_texts
from enclap.data.synthetic.lexicon import load_lexicon
from enclap.decoding.memory import SoundMemory, unit
from enclap.decoding.ranking import EMBEDDED_SPANS
from enclap.engines import load_engine
from enclap.engines.base import Engine
from enclap.training.mini.context import MiniRun
from enclap.types import Block, Window, embedding_of


def remember(run: MiniRun) -> None:
    """Write model/memory.npz."""
    recordings = [run.labelled[number] for number in sorted([*run.seen, *run.unseen])]
    make_memory(run.model, run.recordings, recordings).write(run.model)


def make_memory(model: Path, folder: Path, recordings: Sequence[Recording]) -> SoundMemory:
    """The memory of the model in a folder: of the first window of each recording that is not silent.

    The concepts are all that the lexicon has, those without a recording too.
    """
    engine, lexicon = load_engine(model, engine="onnx", threads=1), load_lexicon()
    labels = list(lexicon.entries)
    place = {label: number for number, label in enumerate(labels)}
    sounds, concepts = [], []
    for recording in recordings:
        window = first_window(folder / recording.path)
        if not is_silent(window.waveform.samples):
            [features] = engine.extract([window])
            embedding = embedding_of(features)
            sounds.append(embedding[: len(embedding) // EMBEDDED_SPANS])
            concepts.append(place[recording.label])
    return SoundMemory(
        unit(np.stack(sounds)),
        np.array(concepts),
        unit(np.stack([embedding_of_label(engine, label) for label in labels])),
        tuple(lexicon[label].clauses[0] for label in labels),
        tuple(finish(lexicon[label].sentences[0]) for label in labels),
    )


def first_window(path: Path) -> Window:
    """The first ten seconds of a recording."""
    waveform = read_audio(path)
    return next(iter(split_windows([Block(waveform.samples, 0)], waveform.rate, DEFAULT_WINDOW)))


def embedding_of_label(engine: Engine, label: str) -> np.ndarray:
    """Float32 [E]: the mean embedding of what a label may be called."""
    mean: np.ndarray = np.mean([engine.embed_text([finish(text)])[0] for text in label_texts(label)], axis=0)
    return mean
