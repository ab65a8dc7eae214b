"""What is wrong with the audio of a data set, found before any work starts: unreadable, twice there, in two splits."""

from __future__ import annotations

import json
from collections.abc import Iterator

from enclap.audio.read import open_audio
from enclap.data.datasets.base import CaptionDataset, CaptionedClip, Fault
from enclap.errors import InputError
from enclap.files import sha256
from enclap.types import Waveform


class CheckedDataset:
    """The clips of a data set that have no fault.

    hashes: SHA-256 of each clip's audio file, by name. identity: a hash over all clips with captions and splits.
    """

    def __init__(self, dataset: CaptionDataset, hashes: dict[str, str], identity: str) -> None:
        self._dataset = dataset
        self.hashes = hashes
        self.identity = identity

    def __len__(self) -> int:
        return len(self.hashes)

    def __iter__(self) -> Iterator[CaptionedClip]:
        return (clip for clip in self._dataset if clip.name in self.hashes)


def check_audio(dataset: CaptionDataset) -> tuple[CheckedDataset, list[Fault]]:
    """The clips without fault, and the faults of the others.

    Every file is read once for its hash, and its first samples are decoded. The same sound under two names is a fault:
    within a split it counts twice, in two splits the test is trained on.
    """
    faults: list[Fault] = []
    hashes: dict[str, str] = {}
    contents: list[object] = []
    first: dict[str, CaptionedClip] = {}
    for clip in dataset:
        if clip.name in hashes:
            faults.append(Fault(clip.table, clip.line, f"a second clip is called {clip.name!r}"))
            continue
        try:
            digest = digest_of(clip)
        except InputError as error:
            faults.append(Fault(clip.table, clip.line, str(error)))
            continue
        except OSError as error:
            faults.append(Fault(clip.table, clip.line, f"{clip.name}: cannot be read: {error.strerror or error}"))
            continue
        other = first.setdefault(digest, CaptionedClip(clip.name, b"", (), clip.split, (), clip.table, clip.line))
        if other.name == clip.name:
            hashes[clip.name] = digest
            contents.append([clip.name, digest, clip.captions, clip.split])
            continue
        where = f"line {other.line}" if other.table == clip.table else f"{other.table} line {other.line}"
        if other.split == clip.split:
            again = f"the sound of {where} again ({other.name}); join their captions"
            faults.append(Fault(clip.table, clip.line, again))
        else:
            leak = f"the sound of {where} ({other.name}), which is in split {other.split!r}, this in {clip.split!r}"
            faults.append(Fault(clip.table, clip.line, leak))
    return CheckedDataset(dataset, hashes, sha256(json.dumps(contents).encode())), faults


def digest_of(clip: CaptionedClip) -> str:
    """The SHA-256 of a clip's audio file; InputError when its first samples cannot be decoded."""
    source = clip.source
    if isinstance(source, Waveform):
        return sha256(source.samples.tobytes())
    with open_audio(source) as audio:
        next(iter(audio.blocks))
    return sha256(source)
