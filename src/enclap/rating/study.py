"""What is rated and by whom: clips with their captions, raters who are codes, and an order for each of them."""

from __future__ import annotations

import json
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from enclap.audio.read import open_audio
from enclap.errors import DataError, InputError, UsageError
from enclap.evaluation.captioning.tables import ClipCaptions, match
from enclap.files import new_folder, stays_inside, write_whole
from enclap.serving.page_pictures import peaks_of
from enclap.text import printable

SCHEMA = 1
STUDY = "study.json"
HUMAN = "human"
"""The system whose captions are references."""
CLIPS, RATERS = 100, 5
TOKEN_BYTES = 24
CODE_LETTERS, CODE_LENGTH = "23456789ABCDEFGHJKLMNPQRSTUVWXYZ", 10
"""Of a rater's code: 50 bits, without letters that look like others."""
PLAYABLE = (".wav", ".mp3", ".ogg", ".oga", ".opus", ".flac", ".m4a", ".mp4", ".webm")
"""Recordings that browsers play."""
ENDS = ".!?"
FAULTS_SHOWN = 5


@dataclass(frozen=True, slots=True)
class Item:
    """One caption of a clip, as it is shown, and the systems that gave it: rated once when several did."""

    text: str
    systems: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class RatedClip:
    """A recording, its path in the folder of recordings, and the captions that are rated.

    peaks: of its waveform, 0 to 1.
    """

    path: str
    items: tuple[Item, ...]
    peaks: tuple[float, ...] = ()


@dataclass(frozen=True, slots=True)
class Study:
    """All that stays as it is while people rate.

    audio: the folder of the recordings. seed: of the choice of clips and of all orders. token: the part of the link
    that nobody can guess. codes: of the raters, who are numbers from 1 on and have no names.
    """

    audio: str
    seed: int
    clips: tuple[RatedClip, ...]
    token: str
    codes: tuple[str, ...]

    @property
    def systems(self) -> tuple[str, ...]:
        """The systems in the order in which their captions were given, people last."""
        names = dict.fromkeys(name for clip in self.clips for item in clip.items for name in item.systems)
        return tuple(sorted(names, key=lambda name: name == HUMAN))

    def order(self, rater: int) -> list[tuple[int, int]]:
        """Clip and item of each caption in the order of a rater, the captions of a clip one after another.

        Clips and the captions of each clip are shuffled for each rater; the order is the same on every call.
        """
        generator = np.random.default_rng((self.seed, rater))
        clips = generator.permutation(len(self.clips)).tolist()
        return [(clip, item) for clip in clips for item in generator.permutation(len(self.clips[clip].items)).tolist()]

    def rater_of(self, code: str) -> int | None:
        """The number of the rater who has this code; blanks, hyphens and small letters do not matter."""
        given = "".join(letter for letter in code.upper() if letter.isalnum()).encode()
        found = [number for number, known in enumerate(self.codes, 1) if secrets.compare_digest(known.encode(), given)]
        return found[0] if found else None


def choose_clips(
    systems: Mapping[str, Sequence[ClipCaptions]], references: Sequence[ClipCaptions], count: int, seed: int
) -> tuple[RatedClip, ...]:
    """At most `count` clips that are drawn, each with a caption of every system and with one that a person wrote.

    The person's is drawn from the clip's references. All captions begin with a capital and end with a full stop, so
    that how a system writes does not tell which it is. DataError unless all systems captioned the clips of the
    references.
    """
    if HUMAN in systems:
        raise UsageError(f"{HUMAN}: a name for people's captions; give these predictions another, NAME=FILE")
    captions = {name: match(items, references, f"predictions of {name}") for name, items in systems.items()}
    generator = np.random.default_rng(seed)
    drawn = sorted(generator.permutation(len(references))[:count].tolist())
    clips = []
    for number in drawn:
        written = references[number].captions
        given = {name: found.predictions[number] for name, found in captions.items()}
        given[HUMAN] = written[int(generator.integers(len(written)))]
        texts: dict[str, list[str]] = {}
        for name, text in given.items():
            texts.setdefault(as_sentence(text), []).append(name)
        items = tuple(Item(text, tuple(names)) for text, names in texts.items())
        clips.append(RatedClip(references[number].clip, items))
    return tuple(clips)


def as_sentence(caption: str) -> str:
    """The caption with a capital first letter and a full stop, and otherwise as it is."""
    text = " ".join(caption.split())
    return text[:1].upper() + text[1:] + ("" if text.endswith(tuple(ENDS)) else ".")


def with_peaks(clips: Sequence[RatedClip], folder: Path) -> tuple[RatedClip, ...]:
    """The clips with their waveforms; DataError names recordings that are missing, unreadable or play in no browser."""
    faults: list[str] = []
    found: list[RatedClip] = []
    for clip in clips:
        path = folder / clip.path
        if not stays_inside(clip.path):
            faults.append(f"{clip.path}: leads out of the folder")
        elif path.suffix.lower() not in PLAYABLE:
            faults.append(f"{clip.path}: browsers do not play it; convert it to one of {' '.join(PLAYABLE)}")
        else:
            try:
                with open_audio(str(path)) as audio:
                    peaks, _ = peaks_of(audio.blocks)
                found.append(replace(clip, peaks=tuple(round(peak, 3) for peak in peaks)))
            except InputError as error:
                faults.append(str(error))
    if faults:
        more = f"; and {len(faults) - FAULTS_SHOWN} more" if len(faults) > FAULTS_SHOWN else ""
        raise DataError(printable(f"{folder}: {'; '.join(faults[:FAULTS_SHOWN])}{more}"))
    return tuple(found)


def open_study(folder: Path, clips: Sequence[RatedClip], audio: Path, seed: int, raters: int) -> Study:
    """The study in the folder; it is made when there is none, and it goes on when it is about the same captions.

    UsageError when the folder holds another study, or has fewer raters than `raters`.
    """
    if not (folder / STUDY).is_file():
        codes = ["".join(secrets.choice(CODE_LETTERS) for _ in range(CODE_LENGTH)) for _ in range(raters)]
        token = secrets.token_urlsafe(TOKEN_BYTES)
        study = Study(str(audio.resolve()), seed, with_peaks(clips, audio), token, tuple(codes))
        with new_folder(folder) as temporary:
            write_whole(temporary / STUDY, json.dumps({"schema": SCHEMA} | asdict(study)) + "\n")
            (temporary / STUDY).chmod(0o600)  # it holds the codes
        return study
    study = read_study(folder)
    same = [(clip.path, clip.items) for clip in study.clips] == [(clip.path, clip.items) for clip in clips]
    if not same or study.seed != seed or len(study.codes) != raters:
        remedy = "give the same files and options as before, or another --output"
        raise UsageError(f"{printable(str(folder))}: holds another study; {remedy}")
    return replace(study, audio=str(audio.resolve()))


def read_study(folder: Path) -> Study:
    """The study that a folder holds; DataError when there is none that can be read."""
    path = folder / STUDY
    try:
        table: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        if table.pop("schema") != SCHEMA:
            raise ValueError("another schema")
        clips = tuple(
            RatedClip(
                clip["path"],
                tuple(Item(item["text"], tuple(item["systems"])) for item in clip["items"]),
                tuple(clip["peaks"]),
            )
            for clip in table.pop("clips")
        )
        return Study(clips=clips, codes=tuple(table.pop("codes")), **table)
    except FileNotFoundError as error:
        raise DataError(f"{printable(str(folder))}: holds no {STUDY}; give the folder of an `enclap rate`") from error
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataError(f"{printable(str(path))}: cannot be read as a study ({type(error).__name__})") from error
