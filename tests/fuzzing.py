"""Damaged recordings by the thousand through the reader: `make fuzz`, or `python tests/fuzzing.py --count 10000`.

Case N of a seed is always the same file: one container of those that FFmpeg can write here, damaged in one of several
ways. Another process reads it, so that a crash inside a native library is seen and named. A finding is a case that
ends that process, computes for longer than five seconds, raises what is no InputError, or gives samples that are not
finite.
`--case N` reads a single one in this process and shows how it ends.
"""

from __future__ import annotations

import argparse
import io
import queue
import resource
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from enclap.audio.read import open_audio
from enclap.errors import InputError
from sounds import noise, write_audio

PATIENCE = 5.0  # seconds of processor time for a case
HANGING = 60.0  # seconds, on however busy a machine, after which a case is taken to hang
STARTING = 60.0  # seconds for a reading process to start
MEMORY = 3 * 2**30  # bytes of address space of a reading process: more is a finding
SECONDS = 1.5  # of audio in every file

CONTAINERS: dict[str, tuple[str | None, bool]] = {
    "pcm.wav": ("pcm_s16le", False),
    "float.wav": ("pcm_f32le", False),
    "adpcm.wav": ("adpcm_ms", False),
    "law.wav": ("pcm_mulaw", False),
    "a.w64": ("pcm_s24le", False),
    "a.flac": ("flac", False),
    "a.mp3": ("libmp3lame", False),
    "a.mp2": ("mp2", False),
    "vorbis.ogg": ("vorbis", False),
    "flac.ogg": ("flac", False),
    "a.opus": ("libopus", False),
    "aac.m4a": ("aac", False),
    "alac.m4a": ("alac", False),
    "a.aac": ("aac", False),
    "film.mp4": ("aac", True),
    "film.mov": ("pcm_s16be", True),
    "a.webm": ("libopus", False),
    "vorbis.webm": ("vorbis", False),
    "film.mkv": ("flac", True),
    "film.avi": ("libmp3lame", True),
    "film.ts": ("mp2", True),
    "a.flv": ("aac", False),
    "a.aiff": ("pcm_s16be", False),
    "a.au": ("pcm_s16be", False),
    "a.caf": ("pcm_s16le", False),
    "a.voc": ("pcm_u8", False),
    "a.wma": ("wmav2", False),
    "a.ac3": ("ac3", False),
    "a.eac3": ("eac3", False),
    "a.tta": ("tta", False),
    "a.wv": ("wavpack", False),
}
"""File name -> codec, and whether a moving picture goes with it."""


def make_originals() -> dict[str, bytes]:
    """The undamaged files by name."""
    with tempfile.TemporaryDirectory() as folder:
        for name, (codec, video) in CONTAINERS.items():
            samples = noise(SECONDS, 48_000, channels=1 if "voc" in name else 2)
            write_audio(Path(folder) / name, samples, 48_000, codec=codec, video=video)
        return {name: (Path(folder) / name).read_bytes() for name in CONTAINERS}


Damage = Callable[[bytearray, np.random.Generator, Sequence[bytes]], bytearray]


def flip_anywhere(data: bytearray, random: np.random.Generator, others: Sequence[bytes]) -> bytearray:
    """One to sixty-four bits turned over."""
    return _flip(data, random, len(data))


def flip_head(data: bytearray, random: np.random.Generator, others: Sequence[bytes]) -> bytearray:
    """Bits turned over where headers are."""
    return _flip(data, random, min(len(data), 256))


def cut_end(data: bytearray, random: np.random.Generator, others: Sequence[bytes]) -> bytearray:
    """Everything behind some place lost."""
    return data[: random.integers(1, len(data))]


def cut_start(data: bytearray, random: np.random.Generator, others: Sequence[bytes]) -> bytearray:
    """Everything before some place lost."""
    return data[random.integers(1, len(data)) :]


def cut_middle(data: bytearray, random: np.random.Generator, others: Sequence[bytes]) -> bytearray:
    """A piece lost."""
    start, end = sorted(random.integers(0, len(data) + 1, 2))
    return data[:start] + data[end:] or data[:1]


def repeat_piece(data: bytearray, random: np.random.Generator, others: Sequence[bytes]) -> bytearray:
    """A piece that comes several times."""
    start, end = sorted(random.integers(0, len(data) + 1, 2))
    return data[:end] + data[start:end] * int(random.integers(1, 5)) + data[end:]


def wrong_head(data: bytearray, random: np.random.Generator, others: Sequence[bytes]) -> bytearray:
    """The beginning of another container."""
    length = int(random.integers(4, 512))
    other = others[random.integers(len(others))]
    return bytearray(other[:length]) + data[length if random.random() < 0.5 else 0 :]


def extreme_field(data: bytearray, random: np.random.Generator, others: Sequence[bytes]) -> bytearray:
    """A few numbers in the headers set to the smallest, the largest or a sign's edge."""
    for _ in range(random.integers(1, 4)):
        width = int(random.choice([1, 2, 4, 8]))
        value = [b"\x00" * width, b"\xff" * width, b"\x7f" + b"\xff" * (width - 1), b"\x80" + b"\x00" * (width - 1)]
        start = int(random.integers(0, max(1, min(len(data), 1024) - width)))
        chosen = value[random.integers(len(value))]
        data[start : start + width] = chosen if random.random() < 0.5 else chosen[::-1]
    return data


def blot(data: bytearray, random: np.random.Generator, others: Sequence[bytes]) -> bytearray:
    """A stretch of zeros or of noise."""
    start = int(random.integers(0, len(data)))
    length = int(random.integers(1, 4096))
    stretch = bytes(length) if random.random() < 0.5 else random.bytes(length)
    data[start : start + length] = stretch[: len(data) - start]
    return data


def noise_behind_head(data: bytearray, random: np.random.Generator, others: Sequence[bytes]) -> bytearray:
    """A good beginning and nothing sensible after it."""
    return data[: random.integers(4, 1024)] + bytearray(random.bytes(int(random.integers(0, 20_000))))


DAMAGES: tuple[Damage, ...] = (
    flip_anywhere,
    flip_head,
    cut_end,
    cut_start,
    cut_middle,
    repeat_piece,
    wrong_head,
    extreme_field,
    blot,
    noise_behind_head,
)


def _flip(data: bytearray, random: np.random.Generator, length: int) -> bytearray:
    for place in random.integers(0, length, int(2 ** random.uniform(0, 6))):
        data[place] ^= 1 << int(random.integers(8))
    return data


@dataclass(frozen=True)
class Case:
    """A damaged file; `label` says what was done to what."""

    label: str
    name: str
    content: bytes


def make_case(seed: int, number: int, originals: dict[str, bytes]) -> Case:
    """Case `number` of `seed`; containers and damages take turns, so that every pair comes up."""
    random = np.random.default_rng([seed, number])
    names = list(originals)
    name = names[number % len(names)]
    damage = DAMAGES[number // len(names) % len(DAMAGES)]
    content = bytes(damage(bytearray(originals[name]), random, list(originals.values())))
    shown = name if random.random() < 0.8 else names[random.integers(len(names))]  # a wrong ending is a wrong hint
    return Case(f"{damage.__name__} of {name} called {shown}", shown, content)


def read_case(case: Case) -> str:
    """How reading ended: "read" or the name of an InputError; everything else is raised."""
    source = io.BytesIO(case.content)
    source.name = case.name  # type: ignore[attr-defined]
    try:
        with open_audio(source) as audio:
            for block in audio.blocks:
                if not np.isfinite(block.samples).all():
                    raise ValueError("samples that are not finite came through")
    except InputError as error:
        if "\n" in str(error) or not str(error).isprintable():
            raise ValueError(f"a message of more than one line: {error!r}") from error
        return type(error).__name__
    return "read"


def serve(seed: int) -> None:
    """Read the cases whose numbers come on standard input; a line on standard output says how each ended."""
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    originals = make_originals()
    print("ready", flush=True)
    for line in sys.stdin:
        began = time.process_time()
        try:
            outcome = read_case(make_case(seed, int(line), originals))
        except BaseException as error:
            outcome = f"!{type(error).__name__}: {error}".splitlines()[0]
        if time.process_time() - began > PATIENCE:
            outcome = f"!computed for {time.process_time() - began:.1f} s"
        print(outcome, flush=True)


class Reader:
    """A process that reads cases."""

    def __init__(self, seed: int) -> None:
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115  (closed with this)
        command = [sys.executable, __file__, "--serve", "--seed", str(seed)]
        pipe = subprocess.PIPE
        self._process = subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=self._errors, text=True, bufsize=1)
        self._lines: queue.SimpleQueue[str] = queue.SimpleQueue()
        threading.Thread(target=self._listen, daemon=True).start()
        if self._answer(STARTING) != "ready":
            raise RuntimeError(f"the reading process did not start: {self.close()}")

    def read(self, number: int) -> str | None:
        """How the case ended; None when this reader is of no more use."""
        assert self._process.stdin is not None
        self._process.stdin.write(f"{number}\n")
        return self._answer(HANGING)

    def close(self) -> str:
        """End the process; how it had ended or that it had not, and its last words."""
        code = self._process.poll()
        self._process.kill()
        self._process.communicate()
        self._errors.seek(0)
        words = self._errors.read().decode(errors="replace").strip().splitlines()[-3:]
        self._errors.close()
        ended = f"hung for {HANGING:.0f} s" if code is None else f"ended the process with {code}"
        return f"{ended} {' / '.join(words)}"

    def _listen(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            self._lines.put(line.rstrip("\n"))
        self._process.wait()
        self._lines.put("")  # it has ended

    def _answer(self, patience: float) -> str | None:
        try:
            return self._lines.get(timeout=patience) or None
        except queue.Empty:
            return None


def run_cases(seed: int, numbers: Sequence[int]) -> Iterator[tuple[int, str]]:
    """The number of each case and how it ended; what begins with "!" is a finding."""
    reader = Reader(seed)
    for number in numbers:
        outcome = reader.read(number)
        if outcome is None:
            outcome = "!" + reader.close()
            reader = Reader(seed)
        yield number, outcome
    reader.close()


def run_pool(seed: int, numbers: range, workers: int) -> tuple[Counter[str], list[str]]:
    """How often cases ended how, and the findings, each in words that repeat it."""
    outcomes: Counter[str] = Counter()
    findings: list[str] = []
    originals = make_originals()

    def work(start: int) -> None:
        for number, outcome in run_cases(seed, numbers[start::workers]):
            outcomes["FOUND" if outcome.startswith("!") else outcome] += 1
            if outcome.startswith("!"):
                label = make_case(seed, number, originals).label
                findings.append(f"--seed {seed} --case {number} ({label}): {outcome[1:]}")

    threads = [threading.Thread(target=work, args=(start,)) for start in range(workers)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return outcomes, findings


def main() -> int:
    """0 when nothing was found."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--workers", type=int, default=2, help="reading processes (default: 2)")
    parser.add_argument("--case", type=int, help="read this one here")
    parser.add_argument("--serve", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.serve:
        serve(options.seed)
        return 0
    if options.case is not None:
        case = make_case(options.seed, options.case, make_originals())
        print(f"{case.label}, {len(case.content)} bytes: {read_case(case)}")
        return 0
    began = time.monotonic()
    outcomes, findings = run_pool(options.seed, range(options.count), options.workers)
    print(*findings, sep="\n", end="\n" if findings else "")
    told = ", ".join(f"{count} {outcome}" for outcome, count in outcomes.most_common())
    print(f"seed {options.seed}, {options.count} cases in {time.monotonic() - began:.0f} s: {told}")
    return 1 if findings else 0


if __name__ == "__main__":
    sys.exit(main())
