"""How large the experiments are: their scenes, their captioners, and the encoders that they train themselves."""

from __future__ import annotations

import hashlib
from typing import Any

from pydantic import Field

from enclap.training.dataset import Perturbation
from enclap.training.mini.augment import Augmentation
from enclap.training.recipe import Optimisation, Settings


class TowerRecipe(Settings):
    """An audio tower of the experiments' own. views: of single recordings or two of them, made once and drawn again.

    The loss weights and the temperature are those of mini's CLAP.
    """

    channels: tuple[int, ...]
    views: int = Field(gt=0)
    augmentation: Augmentation = Augmentation(reverberation=0.0)
    optimisation: Optimisation


class CodecEncoderRecipe(Settings):
    """A codec encoder of mini's sizes. segments: of the recordings, on whose latents the codebooks are fitted."""

    segment_seconds: float = Field(gt=0)
    segments: int = Field(gt=0)
    optimisation: Optimisation


class ExperimentRecipe(Settings):
    """The size of the experiments at mini's scale.

    labels: of the recordings that scenes are made of. seconds: of a scene. scenes: that captioners are trained on.
    unseen_weight: how often a recording that CLAP does not know is drawn for each that it knows. evaluation_scenes: of
    recordings that nothing was trained on. order, together: shares of scenes with two sounds. captions: wordings of a
    scene. sentences, sentence_steps: of the training of a language model alone. model: as EnclapConfig names sizes.
    """

    labels: tuple[str, ...] = Field(min_length=3)
    seconds: float = Field(gt=0, le=10)
    scenes: int = Field(gt=0)
    unseen_weight: float = Field(gt=0)
    evaluation_scenes: int = Field(gt=1)
    order: float = Field(ge=0, le=1)
    together: float = Field(ge=0, le=1)
    captions: int = Field(gt=0)
    vocabulary: int = Field(gt=300)
    sentences: int = Field(gt=0)
    sentence_steps: int = Field(gt=0)
    model: dict[str, Any]
    perturbation: Perturbation = Perturbation()
    optimisation: Optimisation
    tower: TowerRecipe
    codec: CodecEncoderRecipe

    @property
    def scenes_key(self) -> str:
        """A name for the scenes: they are others when what they are made of is."""
        names = ("labels", "seconds", "scenes", "unseen_weight", "evaluation_scenes", "order", "together", "captions")
        return digest(str({name: getattr(self, name) for name in names}))

    @property
    def key(self) -> str:
        """A name for the runs: a result of another recipe is another result."""
        return digest(self.model_dump_json())

    def scaled(self, usual: Optimisation, seed: int, steps: int | None = None) -> Optimisation:
        """Optimiser settings with a run's seed, and another length where one is given."""
        steps = steps or usual.steps
        return usual.model_copy(
            update={"seed": seed, "steps": steps, "warmup_steps": min(usual.warmup_steps, max(1, steps // 4))}
        )


def digest(text: str) -> str:
    """Twelve hexadecimal digits that stand for a text."""
    return hashlib.sha256(text.encode()).hexdigest()[:12]
