"""One item -> its windows and its end: the stage that needs the recording's bytes, and nothing of the model."""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, BinaryIO, cast

from enclap.audio.read import Source
from enclap.audio.window import DEFAULT_WINDOW, is_silent
from enclap.batch.remote import is_address, open_address
from enclap.batch.sources import DATASET, Item
from enclap.captioner import read_windows
from enclap.data.datasets.hugging_face import audio_splits
from enclap.errors import AudioNotFound, AudioUnreadable, EnclapError, InputError
from enclap.files import sha256
from enclap.text import first_line, printable
from enclap.types import Window

SPOOL_BYTES = 16 * 2**20  # of a file from elsewhere, kept in memory; the rest goes to a temporary file
COPY_BYTES = 2**20


@dataclass(frozen=True, slots=True)
class Position:
    """Where an item stands: its shard, and its place in the shard."""

    shard: int
    place: int


@dataclass(frozen=True, slots=True, eq=False)
class DecodedWindow:
    """A window of an item. name: the item's, for messages. silent: whether it is too quiet for any model."""

    position: Position
    index: int
    name: str
    window: Window
    silent: bool


@dataclass(frozen=True, slots=True)
class ItemEnd:
    """The end of an item, after its windows: how many there were, or what is wrong with the item, and its kind."""

    position: Position
    windows: int
    sha256: str | None = None
    fault: str | None = None
    kind: str | None = None


Decoded = DecodedWindow | ItemEnd


class _NamedSpool(tempfile.SpooledTemporaryFile[bytes]):
    """Bytes from elsewhere, as a file with a name: its ending is a hint for FFmpeg."""

    name = "audio"


def decode_item(position: Position, item: Item, window: float) -> Iterator[Decoded]:
    """The windows of an item, `window` seconds each, then its end. Whatever is wrong with the item is in its end."""
    count, digest = 0, None
    try:
        if item.fault is not None:
            raise AudioNotFound(item.fault)
        with closing(OpenedItem(item)) as opened:
            digest = opened.sha256
            with closing(read_windows(opened.source, window)) as pieces:
                for piece, _ in pieces:
                    yield DecodedWindow(position, count, item.id, piece, is_silent(piece.waveform.samples))
                    count += 1
    except InputError as error:
        yield ItemEnd(position, count, digest, str(error), type(error).__name__)
    else:
        yield ItemEnd(position, count, digest)


def decode_slice(first: Position, items: Sequence[Item], window: float, together: int) -> Iterator[list[Decoded]]:
    """The events of neighbouring items of a shard, in runs of at most `together` windows, or their usual seconds.

    Which windows stand in a run depends on the shard alone: sums over a batch are rounded as its size makes them, so
    only equal batches give scores that are equal to the last digit, whoever works on them and however often.
    """
    run: list[Decoded] = []
    windows, seconds = 0, 0.0
    for offset, item in enumerate(items):
        for event in decode_item(Position(first.shard, first.place + offset), item, window):
            run.append(event)
            if isinstance(event, DecodedWindow):
                windows, seconds = windows + 1, seconds + event.window.waveform.seconds
            if windows >= together or seconds >= together * DEFAULT_WINDOW:
                yield run
                run, windows, seconds = [], 0, 0.0
    if run:
        yield run


class OpenedItem:
    """What the captioner reads of an item, and the SHA-256 of its bytes; InputError when they cannot be had."""

    def __init__(self, item: Item) -> None:
        self._spool: _NamedSpool | None = None
        is_plain = item.offset is None and not is_address(item.uri)
        try:
            if is_plain:
                self.source: Source = Path(item.uri)
                self.sha256 = sha256(self.source)
            else:
                self.source, self.sha256 = self.fetch(item)
        except (InputError, MemoryError):
            raise
        except (EnclapError, FileNotFoundError) as error:
            what = "no such file" if isinstance(error, FileNotFoundError) else str(error)
            raise AudioNotFound(f"{printable(item.uri)}: {what}") from error
        except Exception as error:  # OSError, ValueError for a name, whatever a driver raises
            reason = getattr(error, "strerror", None) or first_line(error)
            raise AudioNotFound(f"{printable(item.uri)}: cannot be read: {reason}") from error

    def fetch(self, item: Item) -> tuple[Source, str]:
        """A file of the bytes that an item names elsewhere, and their SHA-256."""
        if item.uri.startswith(DATASET):
            sound = row_sound(item.uri, int(item.offset or 0))
            if sound["bytes"] is None:
                return Path(sound["path"]), sha256(Path(sound["path"]))
            return sound["bytes"], sha256(sound["bytes"])
        self._spool = spool = _NamedSpool(max_size=SPOOL_BYTES)
        digest, left = hashlib.sha256(), item.size
        with open_address(item.uri) if is_address(item.uri) else Path(item.uri).open("rb") as file:
            file.seek(item.offset or 0)
            while piece := file.read(COPY_BYTES if left is None else min(COPY_BYTES, left)):
                spool.write(piece)
                digest.update(piece)
                left = None if left is None else left - len(piece)
        if left:
            raise AudioUnreadable(f"{printable(item.id)}: {printable(item.uri)} ends {left} bytes too early")
        spool.seek(0)
        spool.name = item.id if item.size is not None else item.uri
        return cast(BinaryIO, spool), digest.hexdigest()

    def close(self) -> None:
        """Give the bytes from elsewhere back."""
        if self._spool is not None:
            self._spool.close()


def row_sound(uri: str, row: int) -> dict[str, Any]:
    """The file or the bytes of a row's sound."""
    name, _, split = uri.removeprefix(DATASET).rpartition(":")
    table, column = _splits(name)[split]
    sound: dict[str, Any] = table[row][column]
    return sound


_splits = lru_cache(maxsize=4)(audio_splits)
