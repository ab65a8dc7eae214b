"""Which recordings trained what: the one rule by which training, calibration and measurement set recordings apart.

mini's recordings fall into five splits. CLAP is trained on `SEEN`; the captioner on those and on `UNSEEN`, which CLAP
does not know; settings are chosen and scores calibrated on `VALIDATION`, which nothing is trained on; `TEST` is looked
at once for each release. `EXTERNAL` are all recordings of three source repositories: no stage sees anything of them, so
that they stand for recordings from elsewhere. The draw has no seed: it depends on the name of a recording's original
alone, so that clips of one original stay together.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

from enclap.data.recordings import Recording

SEEN, UNSEEN, VALIDATION, TEST, EXTERNAL = "seen", "unseen", "validation", "test", "external"
SPLITS = (SEEN, UNSEEN, VALIDATION, TEST, EXTERNAL)

EXTERNAL_SOURCES = (
    "Debian package scratch 1.4.0.6~dfsg1-6.1",
    "NordCello/Escape-From-Nevado",
    "OreCruncher/DynamicSurroundings",
)
"""Source repositories, as manifest_more.csv names them, whose recordings no stage sees."""

HELD_OUT_FOLD = 4
"""ESC-10's fold that CLAP is not trained on."""
HELD_OUT_FRACTION = 0.15
"""Of the originals outside ESC-10: those that CLAP is not trained on."""
CAPTIONER_FRACTION = 0.5
"""Of the recordings that CLAP is not trained on: those that the captioner is trained on."""


def hash_fraction(key: str, salt: str = "") -> float:
    """A number in [0, 1) that depends on the two texts alone and is uniform over keys: a draw without a seed."""
    return int.from_bytes(hashlib.sha256(f"{salt}:{key}".encode()).digest()[:8], "big") / 2.0**64


def is_held_out(recording: Recording, fraction: float = HELD_OUT_FRACTION) -> bool:
    """Whether CLAP is not trained on a training recording: it is of the held-out fold, or of the held-out originals."""
    if recording.fold is not None:
        return recording.fold == HELD_OUT_FOLD
    return hash_fraction(recording.recording, "held out") < fraction


def is_for_captioner(recording: Recording) -> bool:
    """Whether the captioner is trained on a recording that CLAP is not trained on."""
    return hash_fraction(recording.recording, "captioner") < CAPTIONER_FRACTION


def split_of(recording: Recording) -> str:
    """The recording's split, one of `SPLITS`."""
    if recording.source_repo in EXTERNAL_SOURCES:
        return EXTERNAL
    if recording.split == "test":
        return TEST
    if not is_held_out(recording):
        return SEEN
    return UNSEEN if is_for_captioner(recording) else VALIDATION


def select(recordings: Sequence[Recording], *splits: str) -> list[Recording]:
    """The recordings of these splits, in their order."""
    return [recording for recording in recordings if split_of(recording) in splits]
