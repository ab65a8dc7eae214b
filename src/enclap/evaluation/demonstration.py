"""Whether captions of the example files are right: each names what is heard in its window."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from enclap.data.synthetic.demonstration.scenes import EXAMPLES
from enclap.data.synthetic.demonstration.sounds import Sound
from enclap.evaluation.hearing import mentions_label


def is_named(caption: str, sound: Sound) -> bool:
    """Whether the caption names one of the labels of the sound."""
    return any(mentions_label(caption, label) for label in sound.labels)


def wrong_captions(captions: Mapping[str, Sequence[str]]) -> list[str]:
    """What is wrong, one line for each fault; nothing when every window of every example is named.

    captions: for the name of each file, the captions of its windows in order of time. A file without captions, or with
    more or fewer of them than it has parts, is a fault; other files are not looked at.
    """
    faults = []
    for example in EXAMPLES:
        found = captions.get(example.name, ())
        if len(found) != len(example.parts):
            faults.append(f"{example.name}: {len(found)} captions for {len(example.parts)} windows")
            continue
        for number, (caption, part) in enumerate(zip(found, example.parts, strict=True), start=1):
            if not is_named(caption, part.sound):
                faults.append(f"{example.name}, window {number}: {caption!r} does not name the {part.sound.name}")
    return faults
