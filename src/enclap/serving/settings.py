"""What a server accepts and whom it serves: one frozen value, made once from the command line."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path

from enclap.audio.source import ReadLimits
from enclap.errors import UsageError
from enclap.text import printable

SIZE = re.compile(r"(\d+(?:\.\d+)?)\s*([KMGT]?)B?", re.IGNORECASE)
POWERS = {"": 0, "K": 1, "M": 2, "G": 3, "T": 4}
HIGHEST_RATE = 192_000  # Hz: a window of 10 s takes 8 MB at most
LONGEST_WINDOW = 120.0  # seconds held at once for window=0: 92 MB at most
MOST_HITS = 100  # of a search
OPENAI_MODELS = (
    "whisper-1",
    "gpt-transcribe",
    "gpt-4o-transcribe",
    "gpt-4o-mini-transcribe",
    "gpt-4o-mini-transcribe-2025-12-15",
    "gpt-4o-transcribe-diarize",
)
"""Those that OpenAI's client knows in November 2026."""


@dataclass(frozen=True, slots=True)
class ServeSettings:
    """Limits and permissions of a server.

    max_upload: bytes of one request. max_seconds: of audio in one file. queue: requests that are captioned or wait for
    it at once. timeout: seconds that one request may take, its upload included. keys: any of them is accepted; empty
    for a server that asks for none. allowed_hosts: names beside localhost and addresses by which the server is
    reached. cors_origins: other sites whose pages may call it. aliases: name of a model -> the model, for clients that
    insist on a name. rate: requests per minute from one client, None for any number. library: of sounds that can be
    searched, None for none. callback_prefixes: addresses below which clients may have themselves told that a job has
    ended.
    """

    max_upload: int = 512 * 2**20
    max_seconds: float = 14_400.0
    queue: int = 32
    timeout: float = 600.0
    keys: tuple[str, ...] = ()
    allowed_hosts: tuple[str, ...] = ()
    cors_origins: tuple[str, ...] = ()
    aliases: dict[str, str] = field(default_factory=dict)
    rate: int | None = None
    root_path: str = ""
    library: Path | None = None
    callback_prefixes: tuple[str, ...] = ()

    @property
    def read_limits(self) -> ReadLimits:
        """What the reader accepts from a client; the memory of 32 requests at these limits stays below 3 GB."""
        return ReadLimits(self.max_upload, self.max_seconds, highest_rate=HIGHEST_RATE, window_seconds=LONGEST_WINDOW)


def parse_size(text: str, option: str) -> int:
    """512MB -> bytes, in powers of 1,024; UsageError for what is no size."""
    match = SIZE.fullmatch(text.strip())
    if match is None or float(match[1]) <= 0:
        raise UsageError(f"{option} {printable(text)}: not a size; write it like 512MB or 2GB")
    return int(float(match[1]) * 1024 ** POWERS[match[2].upper()])


def read_keys(path: Path) -> tuple[str, ...]:
    """The keys in a file, one a line; empty lines and lines that start with # are left out.

    Raises UsageError when the file cannot be read, holds no key, or a key is too short to be safe.
    """
    shown = printable(str(path))
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"{shown}: the keys cannot be read: {getattr(error, 'strerror', None) or error}") from error
    keys = tuple(key for line in lines if (key := line.strip()) and not key.startswith("#"))
    if not keys:
        raise UsageError(f"{shown}: holds no key; write one a line, each of 16 characters or more")
    for number, key in enumerate(keys, start=1):
        if len(key) < 16 or not key.isascii() or not key.isprintable() or " " in key:
            raise UsageError(f"{shown}: key {number} is not 16 or more ASCII letters, digits and signs; make it longer")
    return keys


def parse_aliases(typed: list[str], model: str) -> dict[str, str]:
    """The names under which clients may ask for the model; `--model-alias whisper-1=mini` adds to OpenAI's own names.

    Raises UsageError for an alias of a model that is not served.
    """
    aliases = dict.fromkeys(OPENAI_MODELS, model)
    for item in typed:
        name, equals, target = item.partition("=")
        if not name or not equals or target != model:
            raise UsageError(f"--model-alias {printable(item)}: write NAME={model}, the model that is served")
        aliases[name] = model
    return aliases
