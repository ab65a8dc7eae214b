"""How sentences are drawn from the model: one frozen value for every engine and every command."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

DEFAULT_BEAMS = 4
"""The published width of the search."""


class DecodingOptions(BaseModel):
    """Decoding settings; None leaves the choice to the model folder's generation_config.json.

    beams: 1 is greedy search; None for the width that the model's calibration asks for (mini's 6), `DEFAULT_BEAMS`
    without one. candidates: sentences returned per window, at most `beams` unless sampling.
    rerank: what orders the candidates: their "likelihood" (with mini beside their similarity to the sound, as its
    calibration weighs it), their similarity by "clap" alone, or "both", standardised.
    Lengths count tokens with start and end tokens, as transformers counts them.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    beams: int | None = Field(default=None, ge=1, le=64)
    candidates: int = Field(default=1, ge=1, le=64)
    min_length: int | None = Field(default=None, ge=0)
    max_length: int | None = Field(default=None, ge=2)
    no_repeat_ngram: int | None = Field(default=None, ge=0)
    length_penalty: float = 1.0
    early_stopping: bool = True
    sample: bool = False
    temperature: float = Field(default=1.0, gt=0.0)
    top_p: float = Field(default=0.95, gt=0.0, le=1.0)
    seed: int = 0
    rerank: Literal["likelihood", "clap", "both"] = "likelihood"

    @property
    def width(self) -> int:
        """The beams of the search, for a model that asks for none."""
        return DEFAULT_BEAMS if self.beams is None else self.beams
