"""The card of a trained model: what it was made of and how, what was measured, and by which versions."""

from __future__ import annotations

import platform
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

import yaml

from enclap.hub.layout import CARD
from enclap.training.caption_recipe import CaptionTraining
from enclap.version import __version__

PACKAGES = ("torch", "transformers", "accelerate", "tokenizers")
METRIC_NAMES = {
    "loss": "caption cross-entropy (label-smoothed)",
    "exact": "sentences that are word for word a reference",
    "cider": "CIDEr-D",
    "spider": "SPIDEr",
}


@dataclass(frozen=True, slots=True)
class Card:
    """start: the model that was trained further. data: names of the data. clips: in it, of which `validated` were kept
    apart. metrics: of the validation, by the names of METRIC_NAMES. licence: of the encoders, None where unknown.
    """

    start: str
    data: tuple[str, ...]
    clips: int
    validated: int
    recipe: CaptionTraining
    metrics: Mapping[str, float]
    licence: str | None = None

    def text(self, name: str = "model") -> str:
        """README.md for the model folder; its head is what the hub reads."""
        head: dict[str, Any] = {
            **({} if self.licence is None else {"license": self.licence}),
            "pipeline_tag": "audio-text-to-text",
            "library_name": "enclap",
            "tags": ["audio-captioning", "EnCLAP"],
        }
        measured = {key: value for key, value in self.metrics.items() if key in METRIC_NAMES}
        if measured:
            head["model-index"] = [
                {
                    "name": name,
                    "results": [
                        {
                            "task": {"type": "audio-captioning", "name": "Audio captioning"},
                            "dataset": {"type": "custom", "name": f"{self.data[0]} (validation)"},
                            "metrics": [
                                {"type": key, "name": METRIC_NAMES[key], "value": round(value, 6)}
                                for key, value in measured.items()
                            ],
                        }
                    ],
                }
            ]
        versions = {name: metadata.version(name) for name in PACKAGES}
        used = ", ".join(f"{name} {number}" for name, number in versions.items())
        table = "\n".join(f"| {METRIC_NAMES[key]} | {value:.4f} |" for key, value in measured.items())
        figures = (
            f"| on {self.validated} clips kept apart | |\n|---|---|\n{table}\n" if table else "Nothing was measured.\n"
        )
        return (
            f"---\n{yaml.safe_dump(head, sort_keys=False)}---\n\n# {name}\n\n"
            f"An audio captioner (EnCLAP, arXiv 2401.17690), trained by enclap {__version__} from {self.start}.\n\n"
            f"```sh\nenclap caption --model FOLDER sound.wav\n```\n\n## Data\n\n{self.clips} clips of "
            f"{', '.join(self.data)}.\n\n## Measured\n\n{figures}\n## Recipe\n\n```yaml\n"
            f"{yaml.safe_dump(self.recipe.model_dump(mode='json'), sort_keys=False)}```\n\n"
            f"Python {platform.python_version()}, {used}.\n"
        )


def licence_of(folder: Path) -> str | None:
    """The licence that the card in a model folder names; None where there is no card or none in it."""
    card = folder / CARD
    parts = card.read_text(encoding="utf-8").split("---\n") if card.is_file() else []
    head = yaml.safe_load(parts[1]) if len(parts) > 2 and not parts[0] else None
    return head.get("license") if isinstance(head, dict) else None
