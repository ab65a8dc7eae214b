"""The training recordings from their public sources: `python -m enclap.data.rebuild --output FOLDER`.

The recordings themselves are not part of this project; `recipes/mini/recordings.csv` says of each where it lies, who
made it, under which licence, and what was done to it. This module clones the repositories that are named there and
makes the same collection again: mono, 32 kHz or less, cut and joined as listed. The files are FLAC, where the
collection that mini was trained on is Ogg Vorbis, so samples are close to the originals', not equal; the column sha256
holds the hashes of the originals.
"""

from __future__ import annotations

import csv
import logging
import os
import subprocess
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import av
import numpy as np
import typer

from enclap.audio.read import read_audio
from enclap.audio.resample import resample
from enclap.data.attribution import DEBIAN_PACKAGE
from enclap.data.recordings import Recording, read_manifest
from enclap.data.synthetic.acoustics import fade, loudness
from enclap.errors import DataError, EnclapError, EnvironmentFault
from enclap.files import replace_folder, replacement_path, scratch_folder
from enclap.types import FloatArray, Waveform

logger = logging.getLogger(__name__)

RATE = 32_000  # Hz: the highest rate of the collection
GAP_SECONDS = 0.1  # between takes that were joined
LOUDEST_PART = "berklee/"  # source folder whose long clips were cut to their loudest part; others to their start
LENGTH_TOLERANCE = 0.5  # seconds by which joined takes may differ from the listed length
HOST = "https://github.com"


def rebuild(manifest: Path, output: Path, host: str = HOST) -> list[str]:
    """What could not be made again, a line each; everything else lies in `output` with a manifest.csv.

    Recordings that lie there already are left as they are, so a run that was cut off goes on. DataError when the
    manifest cannot be read, EnvironmentFault without git.
    """
    by_repository: dict[str, list[Recording]] = defaultdict(list)
    for recording in read_manifest(manifest):
        by_repository[recording.source_repo].append(recording)
    missing = []
    for repository, recordings in sorted(by_repository.items()):
        if repository.startswith(DEBIAN_PACKAGE):
            missing.append(
                f"{repository}: not fetched here; unpack it and cut its sounds as listed ({len(recordings)})"
            )
            continue
        try:
            sources = clone_repository(repository, output / ".sources", host)
        except DataError as error:
            missing.append(f"{error} ({len(recordings)} recordings)")
            continue
        logger.info("%s: %d recordings", repository, len(recordings))
        missing += [
            fault for recording in recordings if (fault := make_recording(recording, sources, output)) is not None
        ]
    output.mkdir(parents=True, exist_ok=True)
    with (
        manifest.open(encoding="utf-8", newline="") as source,
        replacement_path(output / "manifest.csv") as temporary,
        temporary.open("w", encoding="utf-8", newline="") as target,
    ):
        reader = csv.DictReader(source)
        writer = csv.DictWriter(target, reader.fieldnames or [], lineterminator="\n")
        writer.writeheader()
        for row in reader:
            path = rebuilt_path(row["path"])
            if (output / path).exists():
                writer.writerow({**row, "path": path})
    return missing


def rebuilt_path(path: str) -> str:
    """Where a recording of the collection lies in one that was made again."""
    return str(Path(path).with_suffix(".flac"))


def clone_repository(repository: str, folder: Path, host: str) -> Path:
    """The folder of the repository's newest files, cloned once.

    EnvironmentFault without git, DataError when the repository cannot be cloned.
    """
    target = folder / repository.replace("/", "--")
    if target.exists():
        return target
    with scratch_folder(target) as scratch:
        clone = scratch / "clone"
        command = ["git", "clone", "--quiet", "--depth", "1", f"{host}/{repository}", str(clone)]
        environment = {**os.environ, "GIT_TERMINAL_PROMPT": "0"}  # git asks nothing
        try:
            subprocess.run(command, check=True, capture_output=True, text=True, env=environment)
        except FileNotFoundError as error:
            raise EnvironmentFault("git is needed to fetch the recordings; install it and run this again") from error
        except subprocess.CalledProcessError as error:
            reasons = [line for line in error.stderr.splitlines() if line.startswith("fatal:")] or [
                "fatal: no reason given"
            ]
            raise DataError(f"{repository}: cannot be cloned from {host} ({reasons[0]})") from error
        replace_folder(clone, target, scratch / "replaced")
    return target


def make_recording(recording: Recording, sources: Path, output: Path) -> str | None:
    """What is wrong with a recording after writing it to `output`, unless it is there; None when nothing is."""
    target = output / rebuilt_path(recording.path)
    if target.exists():
        return None
    try:
        takes = [read_audio(sources / path) for path in recording.source_path.split("; ")]
    except EnclapError as error:
        return f"{recording.path}: {error}"
    waveform = edit_takes(takes, recording)
    target.parent.mkdir(parents=True, exist_ok=True)
    write_flac(waveform, target)
    difference = abs(waveform.seconds - recording.seconds)
    if difference > LENGTH_TOLERANCE:
        return f"{recording.path}: {waveform.seconds:.2f} s, but {recording.seconds:.2f} s are listed"
    return None


def edit_takes(takes: Sequence[Waveform], recording: Recording) -> Waveform:
    """The takes joined and cut to the listed length."""
    rate = min(RATE, max(take.rate for take in takes))
    parts: list[FloatArray] = []
    for take in takes:
        parts += [resample(take, rate), np.zeros(int(GAP_SECONDS * rate), dtype=np.float32)]
    audio = np.concatenate(parts[:-1])
    length = round(recording.seconds * rate)
    if len(audio) > length and len(takes) == 1:
        audio = fade(cut_segment(audio, length, rate, recording.source_path.startswith(LOUDEST_PART)), rate)
    peak = float(np.abs(audio).max())
    return Waveform(audio / np.float32(max(peak, 1.0)), rate)


def cut_segment(audio: FloatArray, length: int, rate: int, loudest: bool) -> FloatArray:
    """The first `length` samples, or those in which the sound is loudest."""
    starts = range(0, len(audio) - length + 1, rate // 2) if loudest else (0,)
    start = max(starts, key=lambda start: loudness(audio[start : start + length], rate))
    return audio[start : start + length]


def write_flac(waveform: Waveform, target: Path) -> None:
    """Write the waveform as 16-bit mono FLAC to `target`, by way of a temporary name."""
    pcm = np.round(np.clip(waveform.samples, -1.0, 1.0) * 32767.0).astype(np.int16)
    frame = av.AudioFrame.from_ndarray(pcm[np.newaxis], "s16", "mono")
    frame.sample_rate = waveform.rate
    with replacement_path(target) as temporary, av.open(str(temporary), "w", format="flac") as container:
        stream = container.add_stream("flac", rate=waveform.rate, layout="mono", format="s16")
        container.mux(stream.encode(frame))
        container.mux(stream.encode(None))


def main(
    output: Annotated[Path, typer.Option(help="Folder for the recordings and their manifest.csv.")],
    manifest: Annotated[Path, typer.Option(help="The list of recordings.")] = Path("recipes/mini/recordings.csv"),
    host: Annotated[str, typer.Option(help="Where the repositories lie.")] = HOST,
) -> None:
    """Make the collection of training recordings again from its public sources; says what could not be made."""
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    try:
        missing = rebuild(manifest, output, host)
    except EnclapError as error:
        typer.echo(f"error: {error}", err=True)
        raise typer.Exit(error.exit_code) from error
    for line in missing:
        typer.echo(f"missing: {line}", err=True)
    raise typer.Exit(1 if missing else 0)


if __name__ == "__main__":
    typer.run(main)
