"""A folder of made-up sounds with German captions, as somebody would fine-tune a model on."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from enclap.data.synthetic.tones import synthesise
from sounds import write_wav

RATE = 32_000
SOUNDS = {
    "bell": "eine Glocke läutet",
    "beeps": "ein Gerät piept",
    "rain": "Regen prasselt auf das Dach",
    "bird": "ein Vogel zwitschert",
    "engine": "ein Motor brummt",
    "footsteps": "Schritte hallen durch den Flur",
    "wind": "der Wind heult ums Haus",
}


def write_german_clips(folder: Path, count: int) -> Path:
    """The folder, with `count` sounds (at most 49 of different captions) in pairs of two kinds, and captions.csv."""
    folder.mkdir(parents=True)
    rows = ["path,caption\n"]
    kinds = list(SOUNDS)
    for number in range(count):
        first, second = kinds[number % 7], kinds[(number + 1 + number // 7) % 7]
        parts = [synthesise(kind, 1.0 + 0.5 * (number % 2), seed=number).samples for kind in (first, second)]
        samples = np.concatenate([parts[0], np.zeros(RATE // 5, dtype=np.float32), parts[1]])
        write_wav(folder / f"klang{number:02d}.wav", (samples[:, None] * 32767).astype(np.int16), RATE)
        sentence = f"{SOUNDS[first]}, und danach hört man, wie {SOUNDS[second]}."
        rows.append(f'klang{number:02d}.wav,"{sentence[0].upper() + sentence[1:]}"\n')
    (folder / "captions.csv").write_text("".join(rows), encoding="utf-8")
    return folder
