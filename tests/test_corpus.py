"""The training recordings made again from their sources: from repositories that the test makes itself."""

from __future__ import annotations

import csv
import hashlib
import subprocess
from pathlib import Path

import numpy as np
import pytest

from enclap.audio.read import read_audio
from enclap.data.attribution import DEBIAN_PACKAGE
from enclap.data.rebuild import GAP_SECONDS, rebuild
from enclap.data.recordings import read_collection, read_manifest
from sounds import tone, write_wav

ROOT = Path(__file__).resolve().parents[1]
MANIFEST = ROOT / "recipes" / "mini" / "recordings.csv"
RATE = 8_000


@pytest.fixture
def host(tmp_path: Path) -> Path:
    """A folder of git repositories, as a code host would serve them."""
    repository = tmp_path / "host" / "someone" / "sounds"
    (repository / "berklee").mkdir(parents=True)
    soft = 0.02 * tone(4.0, RATE)
    long = np.concatenate([soft, tone(2.0, RATE), soft])
    for name, samples in (("one", tone(1.0, RATE)), ("two", tone(0.5, RATE)), ("berklee/long", long)):
        write_wav(repository / f"{name}.wav", (samples * 32767).astype(np.int16), RATE)
    for command in (["init", "-q"], ["add", "-A"], ["commit", "-qm", "sounds"]):
        settings = ["-c", "user.name=test", "-c", "user.email=test@example.org"]
        subprocess.run(["git", *settings, *command], cwd=repository, check=True)
    return tmp_path / "host"


def write_manifest(path: Path, rows: list[tuple[str, str, str, float]]) -> Path:
    columns = MANIFEST.read_text(encoding="utf-8").splitlines()[0].split(",")
    with path.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.DictWriter(stream, columns, restval="")
        writer.writeheader()
        for name, repository, sources, seconds in rows:
            writer.writerow(
                {
                    "path": name,
                    "labels": "bell ringing",
                    "source_repo": repository,
                    "source_path": sources,
                    "split": "train",
                    "seconds": seconds,
                }
            )
    return path


def test_recordings_are_cut_and_joined_as_listed(tmp_path: Path, host: Path) -> None:
    rows = [
        ("a/joined.ogg", "someone/sounds", "one.wav; two.wav", 1.6),
        ("a/cut.ogg", "someone/sounds", "one.wav", 0.4),
        ("a/loudest.ogg", "someone/sounds", "berklee/long.wav", 2.0),
        ("a/gone.ogg", "someone/sounds", "none.wav", 1.0),
        ("b/lost.ogg", "someone/else", "one.wav", 1.0),
    ]
    output = tmp_path / "made"
    missing = rebuild(write_manifest(tmp_path / "list.csv", rows), output, host.as_uri())
    assert len(missing) == 2 and missing[0].startswith("someone/else: cannot be cloned") and "none.wav" in missing[1]
    made = {recording.path: recording for recording in read_manifest(output / "manifest.csv")}
    assert sorted(made) == ["a/cut.flac", "a/joined.flac", "a/loudest.flac"]
    joined = read_audio(output / "a" / "joined.flac")
    assert joined.rate == RATE and joined.seconds == pytest.approx(1.5 + GAP_SECONDS)
    np.testing.assert_allclose(joined.samples[:RATE], tone(1.0, RATE)[:, 0], atol=1e-3)
    assert read_audio(output / "a" / "cut.flac").seconds == pytest.approx(0.4)
    loudest = read_audio(output / "a" / "loudest.flac")
    assert loudest.seconds == pytest.approx(2.0) and np.sqrt(np.square(loudest.samples).mean()) > 0.15
    before = (output / "a" / "joined.flac").stat().st_mtime_ns
    assert rebuild(tmp_path / "list.csv", output, host.as_uri())  # a second run goes on where the first one stopped
    assert (output / "a" / "joined.flac").stat().st_mtime_ns == before


def test_the_list_names_a_source_an_author_and_a_licence_for_every_recording() -> None:
    recordings = read_manifest(MANIFEST)
    assert len(recordings) == 4_419 and len({recording.path for recording in recordings}) == 4_419
    for recording in recordings:
        debian = recording.source_repo.startswith(DEBIAN_PACKAGE)
        assert (debian or recording.source_repo.count("/") == 1) and recording.source_path and recording.licence, (
            recording.path
        )


@pytest.mark.shared
def test_the_list_is_that_of_the_recordings_that_mini_learned_from(shared: Path) -> None:
    folder = shared / "data" / "sounds"
    assert read_manifest(MANIFEST) == read_collection(folder)
    with MANIFEST.open(encoding="utf-8", newline="") as stream:
        for row in list(csv.DictReader(stream))[::20]:
            assert hashlib.sha256((folder / row["path"]).read_bytes()).hexdigest() == row["sha256"]
