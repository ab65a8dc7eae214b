"""A small study for the tests of rating: recordings, captions of two systems, references, and what serves them."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path

from sounds import noise, write_audio

CLIPS = ("dog.wav", "rain.wav", "bell.wav", "wind.wav")
FIRST = ("a dog barks", "rain falls", "a bell rings", "Wind blows.")
SECOND = ("A cat meows.", "Rain falls.", "someone plays the drums", "wind")
HUMAN = ("A dog is barking twice.", "It is raining on a roof", "The bell of a church rings", "A storm is blowing")


def write_table(path: Path, header: Sequence[str], rows: Sequence[Sequence[str]]) -> Path:
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([header, *rows])
    return path


def study_files(folder: Path) -> list[str]:
    """The arguments of `enclap rate` for a study of four clips, whose files are now in the folder."""
    (folder / "sounds").mkdir(parents=True)
    for number, clip in enumerate(CLIPS):
        write_audio(folder / "sounds" / clip, noise(1.0 + number, 16_000), 16_000)
    first = write_table(folder / "first.csv", ["path", "caption"], list(zip(CLIPS, FIRST, strict=True)))
    second = write_table(folder / "second.csv", ["path", "caption"], list(zip(CLIPS, SECOND, strict=True)))
    truth = [(clip, text, f"{text} once more") for clip, text in zip(CLIPS, HUMAN, strict=True)]
    references = write_table(folder / "references.csv", ["path", "reference_1", "reference_2"], truth)
    return [
        str(first),
        f"other={second}",
        "--references",
        str(references),
        "--audio",
        str(folder / "sounds"),
        "--output",
        str(folder / "ratings"),
    ]
