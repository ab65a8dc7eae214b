"""What each experiment compares: rows of settings, the first of which the others are held to."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from enclap.errors import UsageError
from enclap.text import printable

GIVEN, UNTRAINED, DISTILLED = "given", "untrained", "distilled"
"""Where encoders come from: the given model; random weights; a small tower that learns the given CLAP's embeddings."""
SHARES = {"100 %": 1.0, "30 %": 0.3, "10 %": 0.1}
"""Of the recordings that encoders may see: how many the experiments' own encoders are trained on."""


@dataclass(frozen=True, slots=True)
class Training:
    """How a captioner is trained that differs from the short recipe; rows with the same training share its runs.

    acoustic: what its frames are: codes, log_mel, feature_map (of the audio tower's last block) or none. use_clap:
    whether the model has a slot for CLAP's embedding. has_embedding: whether it is the sound's, else it is zero for
    every sound. codebooks, entries: of the codes; None for the codec's own. mcm: factor of the masked-codec loss.
    mask_span: frames of a mask. sentences: whether the language model is trained on sentences without sounds before.
    tune_clap: whether CLAP's last block and projection learn with the captioner. clap, codec: where they come from,
    `GIVEN`, `UNTRAINED`, `DISTILLED` or one of `SHARES`.
    """

    acoustic: Literal["codes", "log_mel", "feature_map", "none"] = "codes"
    use_clap: bool = True
    has_embedding: bool = True
    codebooks: int | None = None
    entries: int | None = None
    mcm: float = 0.7
    mask_span: int = 10
    sentences: bool = False
    tune_clap: bool = False
    clap: str = GIVEN
    codec: str = GIVEN

    @property
    def has_own_encoders(self) -> bool:
        """Whether the experiments train an encoder for it."""
        return (self.clap, self.codec) != (GIVEN, GIVEN)

    @property
    def key(self) -> str:
        """A name for the folders of its runs, the same whichever experiment asks for it."""
        content = json.dumps(asdict(self), sort_keys=True).encode()
        return hashlib.sha256(content).hexdigest()[:12]


@dataclass(frozen=True, slots=True)
class Row:
    """One line of a table. decoding: options of `DecodingOptions`."""

    name: str
    training: Training = Training()
    decoding: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Verdict:
    """How a mechanism may fail, and which row tells. question: about it. row: held to the first row.

    better, worse, unknown: the answer, one sentence, when that row is better or worse than the first, or when no
    difference is shown.
    """

    question: str
    row: str
    better: str
    worse: str
    unknown: str


@dataclass(frozen=True, slots=True)
class Grid:
    """An experiment. question: that it answers. verdicts: on the mechanisms that it looks at.

    seeds: with which each row is trained, unless others are asked for. limit: what its rows alone cannot say.
    """

    name: str
    title: str
    question: str
    rows: tuple[Row, ...]
    verdicts: tuple[Verdict, ...] = ()
    seeds: int = 3
    limit: str = ""


FULL = Row("full: codes and CLAP")
OWN = {"clap": "100 %", "codec": "100 %"}
GRIDS = (
    Grid(
        "components",
        "What each input adds",
        "Is the second encoder redundant: does the model lose anything without the codes, or without CLAP?",
        (
            FULL,
            Row("CLAP alone", Training(acoustic="none")),
            Row("codes alone", Training(use_clap=False)),
            Row("log-mel alone", Training(acoustic="log_mel", use_clap=False)),
            Row("the audio tower's feature map alone", Training(acoustic="feature_map", use_clap=False)),
            Row("log-mel and CLAP", Training(acoustic="log_mel")),
            Row("language model alone", Training(acoustic="none", has_embedding=False)),
            Row("full, language model pretrained on sentences", Training(sentences=True)),
            Row("full, CLAP fine-tuned", Training(tune_clap=True)),
        ),
        (
            Verdict(
                "Is the dual encoder redundant?",
                "CLAP alone",
                "Yes, at this scale: CLAP alone is better than both encoders.",
                "No: without the codes the captions lose.",
                "It is not shown that it is not: CLAP alone is no worse than both encoders beyond chance.",
            ),
            Verdict(
                "Does CLAP add?",
                "codes alone",
                "No: it takes away.",
                "Yes: without CLAP the captions lose.",
                "Not shown.",
            ),
        ),
        seeds=5,
        limit="The sentences of the pretrained language model come from the grammar that wrote the captions: it is no "
        "BART. Of CLAP only the last block and the projection are fine-tuned. The feature map has one frame for every "
        "sixteen of the codes.",
    ),
    Grid(
        "mcm",
        "Masked codec modeling",
        "Does masked codec modeling interfere with the captions, or help them?",
        (
            Row("0.7, spans of 10 frames"),
            Row("off", Training(mcm=0.0)),
            Row("0.3", Training(mcm=0.3)),
            Row("1.0", Training(mcm=1.0)),
            Row("0.7, single frames", Training(mask_span=1)),
        ),
        (
            Verdict(
                "Does masked codec modeling interfere?",
                "off",
                "Yes: without it the captions are better.",
                "No, it helps: without it the captions lose.",
                "Neither harm nor help is shown.",
            ),
        ),
        seeds=5,
    ),
    Grid(
        "codes",
        "How many codes",
        "How much of the captions depends on the number and the size of the codebooks?",
        (
            Row("8 codebooks of 256"),
            *(Row(f"{count} of 256", Training(codebooks=count)) for count in (1, 2, 4, 16)),
            Row("8 of 64", Training(codebooks=8, entries=64)),
            Row("8 of 1,024", Training(codebooks=8, entries=1024)),
        ),
        (
            Verdict(
                "Are the finer codebooks needed?",
                "1 of 256",
                "No: the first codebook alone is better.",
                "Yes: with the first codebook alone the captions lose.",
                "Not shown: the first codebook alone is no worse beyond chance.",
            ),
        ),
        limit="The codec's own eight codebooks were trained with its encoder. Those of 64 and 1,024 entries, and the "
        "ninth to the sixteenth of 256, are fitted to the same latents by k-means; a difference may come from that.",
    ),
    Grid(
        "pretraining",
        "How much the encoders have seen",
        "How much do the captions gain from what CLAP and the codec were trained on?",
        (
            Row("CLAP and codec trained on 100 %", Training(**OWN)),  # type: ignore[arg-type]
            *(
                Row(f"{part} {named}", Training(**{**OWN, part.lower(): kind}))  # type: ignore[arg-type]
                for part in ("CLAP", "codec")
                for named, kind in (("on 30 %", "30 %"), ("on 10 %", "10 %"), ("untrained", UNTRAINED))
            ),
            Row("CLAP distilled from the given one", Training(clap=DISTILLED, codec="100 %")),
        ),
        (
            Verdict(
                "Does what CLAP was trained on reach the captions?",
                "CLAP untrained",
                "No: an untrained CLAP is better.",
                "Yes: with an untrained CLAP the captions lose.",
                "Not shown.",
            ),
            Verdict(
                "Does what the codec was trained on reach the captions?",
                "codec untrained",
                "No: an untrained codec is better.",
                "Yes: with an untrained codec the captions lose.",
                "Not shown.",
            ),
        ),
        limit="The encoders are small, trained for a hundred steps on recordings of the scenes' kinds of sounds alone; "
        "the distilled one learns from the given CLAP, which learned from a teacher of AudioSet.",
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
        (
            Verdict(
                "Does the search matter?",
                "greedy",
                "A search for more than the likeliest next word makes captions worse.",
                "Yes: greedy search is worse than four beams.",
                "Not shown: greedy search is no worse than four beams beyond chance.",
            ),
            Verdict(
                "Does reranking by CLAP add?",
                "8 samples by clap",
                "Yes: it is better than four beams.",
                "No: it is worse than four beams.",
                "Not shown.",
            ),
        ),
    ),
)
"""The experiments that train; `cost`, which trains nothing, measures the rows of all of them."""
COST = "cost"


def find_grid(name: str) -> Grid:
    """The experiment of this name; UsageError names them all."""
    for grid in GRIDS:
        if grid.name == name:
            return grid
    known = ", ".join((*(grid.name for grid in GRIDS), COST))
    raise UsageError(f"{printable(name)}: no such experiment; there are {known}")
