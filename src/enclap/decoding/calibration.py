"""How far a caption can be trusted: a model's calibration, as its folder keeps it."""

from __future__ import annotations

import json
import math
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from enclap.errors import ModelError
from enclap.files import write_whole

FILE_NAME = "confidence.json"
VERSION = 1


class Calibration(BaseModel):
    """A model's calibration, measured on recordings that it was not trained on.

    slope, offset: of the logistic curve from a candidate's score to the probability that it names what is heard
    (Platt scaling). threshold: captions less probable than this give way to a vaguer one, unless they name several
    sounds, as those of more than `longest` words do: a vague one names one. vague: the vaguer sentences, one
    for each family of sounds; empty where captions are never replaced. phrase: a candidate that says so many words in
    a row twice gives way to the next of the beam, and the last of them to a vaguer sentence; 0: none does. similarity:
    what a candidate's nearness to the sound (cosine of CLAP's embeddings) counts beside its mean log-probability in
    its score, by which the beam is ordered; 0: nothing.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    version: int = Field(ge=VERSION, le=VERSION)
    slope: float = Field(gt=0)
    offset: float
    threshold: float = Field(ge=0, le=1)
    longest: int = Field(default=6, gt=0)
    vague: tuple[str, ...] = ()
    phrase: int = Field(default=0, ge=0)
    similarity: float = Field(default=0.0, ge=0)

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

    def probability(self, score: float) -> float:
        """How probable it is, 0 to 1, that a caption with this score names what is heard."""
        return 1.0 / (1.0 + math.exp(-(self.slope * score + self.offset)))
