"""A few of the damaged recordings that `make fuzz` reads by the thousand, and what they have found."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from enclap.audio.read import read_audio
from enclap.errors import AudioUnreadable
from fuzzing import CONTAINERS, DAMAGES, make_case, make_originals, read_case, run_pool
from sounds import write_wav

FOUND = {
    1767: "a track without a decoder",
    4670: "a track that begins in the middle",
    9332: "packets of one sample",
}


@pytest.fixture(scope="module")
def originals() -> dict[str, bytes]:
    return make_originals()


def test_every_damage_of_every_container_ends_well() -> None:
    outcomes, findings = run_pool(seed=1, numbers=range(len(CONTAINERS) * len(DAMAGES)), workers=1)
    assert findings == []
    assert outcomes["read"] > 0.2 * outcomes.total()
    assert outcomes["AudioUnreadable"] > 0.05 * outcomes.total()


def test_the_originals_are_read_and_cases_repeat(originals: dict[str, bytes]) -> None:
    for number, (name, content) in enumerate(originals.items()):
        case = make_case(3, number, originals)
        assert case == make_case(3, number, originals)
        assert case.content != content
        assert read_case(type(case)("whole", name, content)) == "read"


@pytest.mark.parametrize("number", FOUND, ids=lambda number: FOUND[number])
def test_what_was_found_stays_mended(originals: dict[str, bytes], number: int) -> None:
    assert read_case(make_case(0, number, originals)) in ("read", "AudioUnreadable")


def test_a_codec_that_is_not_known_is_named(tmp_path: Path) -> None:
    path = write_wav(tmp_path / "a.wav", np.ones((8000, 1), np.int16), 8000)
    content = bytearray(path.read_bytes())
    content[20:22] = b"\x34\x12"  # the format tag
    with pytest.raises(AudioUnreadable, match="no audio track that can be decoded"):
        read_audio(bytes(content))


@pytest.mark.soak
def test_ten_thousand_damaged_recordings_end_well() -> None:
    _, findings = run_pool(seed=0, numbers=range(10_000), workers=2)
    assert findings == []
