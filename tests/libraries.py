"""Libraries of made-up sounds, heard by an engine that knows a few tones by name."""

from __future__ import annotations

import zlib
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from enclap.captioner import Captioner
from enclap.decoding.options import DecodingOptions
from enclap.search.indexing import Indexed
from enclap.search.library import Library
from enclap.search.making import make_library
from enclap.types import Candidate, Features, FloatArray, Window, embedding_of
from sounds import tone, write_audio

RATE = 16_000
SOUNDS = {"dog": 300.0, "rain": 600.0, "bell": 1200.0, "engine": 2400.0, "wind": 3600.0}
"""Names of sounds, and the tone in Hz that stands for each."""
WIDTH = 16


@cache
def direction(word: str) -> FloatArray:
    """The unit vector [WIDTH] of a word: the same at every call."""
    vector = np.random.default_rng(zlib.crc32(word.encode())).normal(size=WIDTH)
    return (vector / np.linalg.norm(vector)).astype(np.float32)


class ToneEngine:
    """Names the tone of each window; a text is near to the sounds whose names it holds. heard: windows so far."""

    name = "tone"
    code_rate = 25.0
    max_frames = 1021
    windows_together = 4
    recordings_together = 1
    can_embed_text = True

    def __init__(self) -> None:
        self.heard = 0

    def extract(self, windows: Sequence[Window], *, whole: bool = False) -> list[Features]:
        self.heard += len(windows)
        return [Features(np.zeros((1, 1), np.int64), direction(sound_of(window))) for window in windows]

    def generate(self, features: Sequence[Features], options: DecodingOptions) -> list[list[Candidate]]:
        names = [max(SOUNDS, key=lambda name: float(direction(name) @ embedding_of(item))) for item in features]
        return [[Candidate((0, 2), f"A {name} is heard.", -0.5)] for name in names]

    def embed_text(self, texts: Sequence[str]) -> FloatArray:
        vectors = [sum((direction(word.strip(".").lower()) for word in text.split()), 0.0) for text in texts]
        return np.array([vector / np.linalg.norm(vector) for vector in vectors], np.float32).reshape(-1, WIDTH)


def sound_of(window: Window) -> str:
    """The name of the loudest tone."""
    samples = window.waveform.samples
    hertz = float(np.argmax(np.abs(np.fft.rfft(samples)))) * window.waveform.rate / len(samples)
    return min(SOUNDS, key=lambda name: abs(SOUNDS[name] - hertz))


def tone_captioner(folder: Path, seed: int = 0) -> Captioner:
    """A captioner over the tone engine; its folder holds weights that differ from seed to seed."""
    for name in ("model.safetensors", "clap/model.safetensors"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(f"{name} {seed}".encode())
    return Captioner(ToneEngine(), "tones", None, folder)


def write_sound(path: Path, *names: str, seconds: float = 1.0, hertz: float = 0.0) -> Path:
    """A recording of these sounds, each for so long. hertz: added to each, so that files of one sound may differ."""
    path.parent.mkdir(parents=True, exist_ok=True)
    return write_audio(path, np.concatenate([tone(seconds, RATE, SOUNDS[name] + hertz) for name in names]), RATE)


def write_sounds(folder: Path, sounds: Mapping[str, str]) -> Path:
    """A folder of recordings: the name of each file, and its sound."""
    for number, (name, sound) in enumerate(sounds.items()):
        write_sound(folder / name, sound, hertz=float(number))
    return folder


def indexed(path: Path, folder: Path, captioner: Captioner, **options: Any) -> tuple[Library, Indexed]:
    """The library made or brought up to date, and what was done."""
    done = make_library(path, folder, captioner, **options)
    return Library.open(path), done


def all_rows(library: Library) -> list[tuple[Any, ...]]:
    """Every row but for the file's time of change, in order."""
    names = ("path", "start", "end", "caption", "names", "sha256", "embedding", "fingerprint", "tags")
    rows = library.rows.columns(names).to_pylist()
    return sorted(
        tuple(tuple(row[name]) if isinstance(row[name], list) else row[name] for name in names) for row in rows
    )
