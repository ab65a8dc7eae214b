"""What others have published: the paper's own numbers and those of its peers, each with its source."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Published:
    """A published system. size: as its source says it. score: with the set and the metric. source: where both stand."""

    system: str
    size: str
    score: str
    source: str


PAPER = (
    "EnCLAP large: SPIDEr 49.5 % on AudioCaps' test set, 27.8 % on Clotho's evaluation set "
    "([arXiv 2401.17690](https://arxiv.org/abs/2401.17690); the two figures as the reviewers of "
    "[arXiv 2502.05435](https://arxiv.org/abs/2502.05435) quote them). A masked-codec weight of 0.7, 16 codebooks of "
    "1,024 entries."
)
UNFITTING = (
    'A "SPIDEr 0.223" of EnCLAP that summaries of the paper name fits none of its published figures: on AudioCaps the '
    "large model has 0.495."
)
PEERS = (
    Published(
        "EnCLAP large",
        "BART large beside EnCodec and CLAP",
        "AudioCaps SPIDEr 49.5, Clotho SPIDEr 27.8",
        "[arXiv 2401.17690](https://arxiv.org/abs/2401.17690), as quoted by the reviewers of arXiv 2502.05435",
    ),
    Published(
        "EnCLAP in MECAT",
        "not said",
        "MECAT-Caption DATE 31.9 (long 48.6, short 53.1; Pengi 29.4)",
        "table 8.1 of [xiaomi-research/mecat](https://github.com/xiaomi-research/mecat), arXiv 2507.23511",
    ),
    Published(
        "effb2-trm",
        "EfficientNet-B2 and a Transformer decoder of two layers, 256 wide",
        "no score in the sources that could be read here; 19 times as fast as its teacher HTSAT-BART",
        "[arXiv 2407.14329](https://arxiv.org/abs/2407.14329), "
        "[model](https://huggingface.co/wsntxxn/effb2-trm-audiocaps-captioning)",
    ),
    Published(
        "CoNeTTE",
        "ConvNeXt and a Transformer decoder, four to forty times fewer parameters than its peers",
        "AudioCaps SPIDEr 44.1, Clotho SPIDEr 30.5 (its model page: 44.14, 30.97)",
        "[arXiv 2309.00454](https://arxiv.org/abs/2309.00454), [model](https://huggingface.co/Labbeti/conette)",
    ),
    Published(
        "SLAM-AAC",
        "EAT base and Vicuna, 7 billion parameters, of which a projection and LoRA are trained",
        "AudioCaps SPIDEr 51.8, Clotho SPIDEr 33.2",
        "[arXiv 2410.09503](https://arxiv.org/abs/2410.09503), its folder in X-LANCE/SLAM-LLM",
    ),
)


def peer_lines() -> list[str]:
    """The table of published systems, as lines of Markdown."""
    lines = ["| published system | size | score | source |", "|---|---|---|---|"]
    return [*lines, *(f"| {item.system} | {item.size} | {item.score} | {item.source} |" for item in PEERS)]
