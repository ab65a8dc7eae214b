"""What mini remembers: the embeddings of the recordings that it was trained on, and what they are called."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from enclap.audio.crops import mean_direction
from enclap.audio.read import read_audio
from enclap.audio.window import first_window, is_silent
from enclap.data.recordings import Recording
from enclap.data.synthetic.grammar import finish, label_texts
from enclap.data.synthetic.lexicon import load_lexicon
from enclap.decoding.memory import SoundMemory
from enclap.decoding.ranking import unit_spans
from enclap.engines import load_engine
from enclap.engines.base import Engine
from enclap.training.mini.context import MiniRun
from enclap.types import FloatArray, embedding_of


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
        window = first_window(read_audio(folder / recording.path))
        if not is_silent(window.waveform.samples):
            [features] = engine.extract([window])
            sounds.append(unit_spans(embedding_of(features))[0])
            concepts.append(place[recording.label])
    return SoundMemory(
        np.stack(sounds),
        np.array(concepts),
        np.stack([mean_direction(label_embeddings(engine, label)) for label in labels]),
        tuple(lexicon[label].clauses[0] for label in labels),
        tuple(finish(lexicon[label].sentences[0]) for label in labels),
    )


def label_embeddings(engine: Engine, label: str) -> FloatArray:
    """Float32 [N, E]: the embeddings of what a label may be called, one by one, so that none is padded."""
    return np.concatenate([engine.embed_text([finish(text)]) for text in label_texts(label)])
