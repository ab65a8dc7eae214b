"""How far a caption can be trusted: a model's calibration, as its folder keeps it."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Sequence
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from enclap.errors import ModelError
from enclap.files import write_whole

FILE_NAME = "confidence.json"
VERSION = 3
SEVERAL = re.compile(r",|\b(?:then|before|while|followed by|along with|at the same time|over the sound of)\b")
"""What joins two sounds in a sentence of mini's grammar."""


class Calibration(BaseModel):
    """A model's calibration, measured on recordings that it was not trained on.

    slope, nearness, several, crowd, offset: of the logistic curve from a candidate to the probability that it names
    what is heard (Platt scaling with several inputs): of its mean log-probability, of its nearness to the sound (cosine
    of CLAP's embeddings), of whether it tells several sounds, of the share of the beam that does, and of nothing. A
    beam with many such sentences says that a caption of one sound leaves something out.

    threshold: captions less probable than this give way to a vaguer one, unless they name several sounds, as those of
    more than `longest` words do: a vague one names one. vague: the vaguer sentences, one for each family of sounds;
    empty where captions are never replaced. phrase: a candidate that says so many words in a row twice gives way to the
    next of the beam, and the last of them to a vaguer sentence; 0: none does.

    similarity, company, echo: what counts beside the mean log-probability where the beam is ordered: nearness; telling
    several sounds, times the share of the beam that does; and, taken off, telling one thing twice; 0: nothing. halves:
    a window whose halves have a lower cosine than this holds several sounds, for embeddings of a whole window and its
    halves, such as mini's: the parts of a sentence are compared with the parts of the window then; None: never. guess:
    the mean log-probability that a sentence of the memory is taken to have, which no decoder has seen.
    beams: width of the search where nobody asked for another.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    version: int = Field(ge=VERSION, le=VERSION)
    slope: float = Field(gt=0)
    nearness: float = Field(default=0.0, ge=0)
    several: float = 0.0
    crowd: float = 0.0
    offset: float
    threshold: float = Field(ge=0, le=1)
    longest: int = Field(default=6, gt=0)
    vague: tuple[str, ...] = ()
    phrase: int = Field(default=0, ge=0)
    similarity: float = Field(default=0.0, ge=0)
    company: float = Field(default=0.0, ge=0)
    echo: float = Field(default=0.0, ge=0)
    halves: float | None = None
    guess: float = Field(default=-1.0, le=0)
    beams: int | None = Field(default=None, ge=1, le=64)

    @classmethod
    def read(cls, folder: Path) -> Calibration | None:
        """The calibration in a model folder, None where there is none; ModelError when it cannot be read."""
        path = folder / FILE_NAME
        if not path.exists():
            return None
        try:
            return cls.model_validate_json(path.read_bytes())
        except (OSError, ValidationError) as error:
            line = " ".join(str(error).split())[:200]
            raise ModelError(f"{path}: not a calibration that this enclap reads ({line})") from error

    def write(self, folder: Path) -> None:
        """Write it into a model folder."""
        write_whole(folder / FILE_NAME, json.dumps(self.model_dump(), indent=1) + "\n")

    def probability(self, likelihood: float, nearness: float, text: str, share: float) -> float:
        """How probable it is, 0 to 1, that a caption names what is heard.

        likelihood: its mean log-probability. nearness: cosine of its text and the sound in CLAP's space. share: of the
        candidates beside it, it included, that tell several sounds.
        """
        told = self.crowd * share + (self.several if tells_several(text) else 0.0)
        return 1.0 / (1.0 + math.exp(-(self.slope * likelihood + self.nearness * nearness + told + self.offset)))


def tells_several(text: str) -> bool:
    """Whether a sentence of mini's grammar tells more than one sound."""
    return SEVERAL.search(text) is not None


def share_of_several(texts: Sequence[str]) -> float:
    """The share of the sentences that tell more than one sound, 0 without any."""
    return sum(map(tells_several, texts)) / max(1, len(texts))
