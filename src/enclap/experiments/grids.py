"""What each experiment compares: rows of settings, the first of which the others are held to."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from enclap.errors import UsageError
from enclap.text import printable

SPECTROGRAMS = "the captioner's items hold no spectrograms or feature maps yet"
OWN_CODEC = "needs a codec of its own, with other codebooks"
OWN_ENCODERS = "needs CLAP or the codec trained on a part of the recordings"
END_TO_END = "needs a training in which the audio tower or the sentences' decoder takes part"


@dataclass(frozen=True, slots=True)
class Training:
    """How a captioner is trained that differs from the short recipe; rows with the same training share its runs.

    use_codes, use_clap: which inputs the model has. has_embedding: whether CLAP's embedding is the sound's, else it is
    zero for every sound. codebooks: of the codec's, the first ones; None for all. mcm: factor of the masked-codec loss.
    mask_span: frames of a mask.
    """

    use_codes: bool = True
    use_clap: bool = True
    has_embedding: bool = True
    codebooks: int | None = None
    mcm: float = 0.7
    mask_span: int = 10

    @property
    def key(self) -> str:
        """A name for the folders of its runs, the same whichever experiment asks for it."""
        content = json.dumps(asdict(self), sort_keys=True).encode()
        return hashlib.sha256(content).hexdigest()[:12]


@dataclass(frozen=True, slots=True)
class Row:
    """One line of a table. decoding: options of `DecodingOptions`. missing: why it cannot be run, if it cannot."""

    name: str
    training: Training = Training()
    decoding: Mapping[str, Any] = field(default_factory=dict)
    missing: str = ""


@dataclass(frozen=True, slots=True)
class Grid:
    """An experiment. question: that it answers. seeds: with which each row is trained, unless others are asked for."""

    name: str
    title: str
    question: str
    rows: tuple[Row, ...]
    seeds: int = 3

    @property
    def runnable(self) -> tuple[Row, ...]:
        """The rows that can be run, in their order."""
        return tuple(row for row in self.rows if not row.missing)


FULL = Row("full: codes and CLAP")
GRIDS = (
    Grid(
        "components",
        "What each input adds",
        "Is the second encoder redundant: does the model lose anything without the codes, or without CLAP?",
        (
            FULL,
            Row("CLAP alone", Training(use_codes=False)),
            Row("codes alone", Training(use_clap=False)),
            Row("language model alone", Training(use_codes=False, has_embedding=False)),
            Row("log-mel alone", missing=SPECTROGRAMS),
            Row("the audio tower's feature map alone", missing=SPECTROGRAMS),
            Row("log-mel and CLAP", missing=SPECTROGRAMS),
            Row("language model pretrained on sentences", missing=END_TO_END),
            Row("CLAP fine-tuned, with recall on its old labels", missing=END_TO_END),
        ),
        seeds=5,
    ),
    Grid(
        "mcm",
        "Masked codec modeling",
        "Does masked codec modeling interfere with the captions, or help them? The paper's weight is 0.7.",
        (
            Row("0.7, spans of 10 frames"),
            Row("off", Training(mcm=0.0)),
            Row("0.3", Training(mcm=0.3)),
            Row("1.0", Training(mcm=1.0)),
            Row("0.7, single frames", Training(mask_span=1)),
        ),
        seeds=5,
    ),
    Grid(
        "codes",
        "How many codes",
        "How much of the captions depends on the finer codebooks? The paper has 16 codebooks of 1,024 entries.",
        (
            Row("8 codebooks of 256"),
            *(Row(f"{count} of 256", Training(codebooks=count)) for count in (1, 2, 4)),
            Row("16 of 256", missing=OWN_CODEC),
            Row("8 of 64", missing=OWN_CODEC),
            Row("8 of 1,024", missing=OWN_CODEC),
        ),
    ),
    Grid(
        "pretraining",
        "How much the encoders have seen",
        "How much do the captions gain from what CLAP and the codec were trained on?",
        (
            Row("CLAP and codec trained on 100 %"),
            *(
                Row(f"{part} trained on {share}", missing=OWN_ENCODERS)
                for part in ("CLAP", "codec")
                for share in ("30 %", "10 %", "nothing")
            ),
            Row("CLAP's encoder distilled from teachers", missing=OWN_ENCODERS),
        ),
    ),
    Grid(
        "cost",
        "What each part costs",
        "What do the inputs cost in parameters and time, and does CLAP add enough for its cost?",
        (
            FULL,
            Row("CLAP alone", Training(use_codes=False)),
            Row("codes alone", Training(use_clap=False)),
            Row("1 codebook", Training(codebooks=1)),
        ),
    ),
    Grid(
        "decoding",
        "How the sentence is found",
        "Does a wider search or reranking give better captions than the first sentence that the model prefers?",
        (
            Row("beam 4"),
            Row("greedy", decoding={"beams": 1}),
            Row("beam 2", decoding={"beams": 2}),
            Row("beam 8", decoding={"beams": 8}),
            *(
                Row(f"8 samples by {order}", decoding={"sample": True, "candidates": 8, "rerank": order})
                for order in ("likelihood", "clap", "both")
            ),
        ),
    ),
)


def find_grid(name: str) -> Grid:
    """The experiment of this name; UsageError names them all."""
    for grid in GRIDS:
        if grid.name == name:
            return grid
    raise UsageError(f"{printable(name)}: no such experiment; there are {', '.join(grid.name for grid in GRIDS)}")
