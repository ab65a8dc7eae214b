"""The scenes of the experiments, made once and heard once: all that a row may give its captioner, as arrays.

Each part is written whole, so that a run that was cut off goes on at the first that is missing.
"""

from __future__ import annotations

import itertools
import json
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from enclap.audio.resample import resample
from enclap.data.recordings import Corpus, open_corpus
from enclap.data.splits import SEEN, UNSEEN, VALIDATION, split_of
from enclap.data.synthetic.lexicon import load_lexicon
from enclap.data.synthetic.scenes import Scene, SceneComposer, SceneMix
from enclap.errors import DataError, UsageError
from enclap.evaluation.hearing import has_correct_order
from enclap.experiments.recipe import ExperimentRecipe
from enclap.files import replacement_path
from enclap.hub.layout import CLAP, CODEC
from enclap.hub.resolve import find_model
from enclap.model.clap import Clap
from enclap.model.codec import Codec
from enclap.model.conv_clap import ConvClapModel, ConvTower
from enclap.training.mini.context import CORPUS_RATE
from enclap.training.mini.scenes import scene_record
from enclap.types import FloatArray, IntArray

logger = logging.getLogger(__name__)

SCENES_PER_PART = 50
TRAINING_SEED, EVALUATION_SEED = 1, 1_000
"""Of the scenes that are trained on and of those that are captioned; runs have seeds of their own."""
EMBED_TOGETHER = 10


@dataclass(frozen=True, slots=True)
class SceneTexts:
    """What is said of a scene. originals: the recordings that it was made of, by what clips of one have in common."""

    name: str
    captions: tuple[str, ...]
    labels: tuple[str, ...]
    originals: tuple[str, ...]

    @property
    def sequence(self) -> tuple[str, ...]:
        """The labels of two sounds that follow each other; empty when the scene has no two, or both at once."""
        in_order = len(self.labels) == 2 and has_correct_order(self.captions[0], *self.labels)
        return self.labels if in_order else ()

    @property
    def families(self) -> list[str]:
        """The families of its sounds, sorted."""
        lexicon = load_lexicon()
        return sorted({lexicon[label].family for label in self.labels})


@dataclass(frozen=True, slots=True, eq=False)
class Scenes:
    """Scenes of one length, as arrays over N of them; all are in the order of `texts`.

    samples: int16 [N, samples at the codec's rate]. mel: float16 [N, F, M] dB. log_mel: the same at the rate of codes,
    [N, T, M]. latents: float32 [N, T, D] of the given codec. codes: int64 [N, T, K]. maps: float16 [N, C, F', M'],
    what the given CLAP's last block reads. feature_map: float16 [N, F', C'], what it gives. embedding: float32 [N, E].
    """

    texts: Sequence[SceneTexts]
    samples: NDArray[np.int16]
    mel: NDArray[np.float16]
    log_mel: NDArray[np.float16]
    latents: FloatArray
    codes: IntArray
    maps: NDArray[np.float16]
    feature_map: NDArray[np.float16]
    embedding: FloatArray


ARRAYS = ("samples", "mel", "log_mel", "latents", "codes", "maps", "feature_map", "embedding")


class Encoders:
    """The codec and CLAP of a model folder, taken apart as far as experiments need; UsageError for another CLAP."""

    def __init__(self, model: str) -> None:
        self.folder = find_model(model)
        self.codec = Codec.from_folder(self.folder / CODEC)
        self.clap = Clap.from_folder(self.folder / CLAP)
        if not isinstance(self.clap.encoder.network, ConvClapModel):
            raise UsageError(
                "experiments at mini's size take mini's kind of CLAP; use --recipe for the published sizes"
            )
        self.tower: ConvTower = self.clap.encoder.network.audio_tower
        self.front_end = self.clap.encoder.front_end
        self.frame_rate = self.codec.rate / self.codec.hop

    @torch.inference_mode()
    def hear(self, scenes: Sequence[Scene], seconds: float) -> dict[str, NDArray[Any]]:
        """The arrays of `Scenes` for composed scenes, filled with silence or cut to one length.

        CLAP hears a scene as it is, not repeated to ten seconds: it has learnt from such short views too, its
        convolutions are local, and it takes a third of the time.
        """
        rate, front_end = self.codec.rate, self.front_end
        waves = [fill(resample(scene.waveform, rate), round(seconds * rate)) for scene in scenes]
        own = [fill(resample(scene.waveform, front_end.rate), round(seconds * front_end.rate)) for scene in scenes]
        latents = self.codec.model.encoder(torch.from_numpy(np.stack(waves))[:, None])  # [N, D, T]
        codes = self.codec.model.quantizer.encode(latents)  # [K, N, T]
        mels = np.stack([front_end.log_mel(samples)[:-1] for samples in own])  # [N, F, M]
        starts = range(0, len(mels), EMBED_TOGETHER)
        maps = torch.cat([early_maps(self.tower, torch.from_numpy(mels[at : at + EMBED_TOGETHER])) for at in starts])
        hidden = late_map(self.tower, maps)
        frames = latents.shape[2]
        return {
            "samples": np.round(np.clip(np.stack(waves), -1, 1) * 32767).astype(np.int16),
            "mel": mels.astype(np.float16),
            "log_mel": np.stack([pooled(mel, frames) for mel in mels]).astype(np.float16),
            "latents": latents.transpose(1, 2).numpy(),
            "codes": codes.permute(1, 2, 0).numpy(),
            "maps": maps.numpy().astype(np.float16),
            "feature_map": hidden.transpose(1, 2).numpy().astype(np.float16),
            "embedding": embed_maps(self.tower, hidden).numpy(),
        }


def early_maps(tower: ConvTower, mel: Tensor) -> Tensor:
    """What the tower's last block reads, [B, C, F', M'], of mel [B, F, M] in dB."""
    hidden: Tensor = tower.input_norm(mel.transpose(1, 2)).transpose(1, 2).unsqueeze(1)
    hidden = hidden.contiguous(memory_format=torch.channels_last)
    for block in tower.blocks[:-1]:
        hidden = functional.avg_pool2d(block(hidden), 2)
    return hidden.contiguous()


def late_map(tower: ConvTower, maps: Tensor) -> Tensor:
    """The tower's feature map [B, C', F'] from what its last block reads."""
    found: Tensor = tower.blocks[-1](maps).mean(dim=3)
    return found


def embed_maps(tower: ConvTower, hidden: Tensor) -> Tensor:
    """CLAP's unit embedding [B, E] of feature maps [B, C', F']."""
    return functional.normalize(tower.spans(hidden).flatten(1), dim=-1)


def fill(samples: FloatArray, length: int) -> FloatArray:
    """Float32 [length]: the samples, cut or with silence after them."""
    return np.pad(samples[:length], (0, max(0, length - len(samples))))


def pooled(mel: FloatArray, frames: int) -> FloatArray:
    """Mel frames [F, M] averaged to `frames` of them, [frames, M]."""
    edges = np.linspace(0, len(mel), frames + 1).round().astype(int)
    return np.stack([mel[start : max(end, start + 1)].mean(axis=0) for start, end in itertools.pairwise(edges)])


class SceneSource:
    """Composes the experiments' scenes from a folder of recordings and lets the given encoders hear them."""

    def __init__(self, recordings: Path, folder: Path, recipe: ExperimentRecipe, encoders: Encoders) -> None:
        self.encoders = encoders
        self.folder = folder
        self.recordings = recordings
        self._recipe = recipe

    @cached_property
    def corpus(self) -> Corpus:
        """The recordings of the experiments' labels, decoded; DataError when a split lacks kinds of sounds."""
        corpus = self.corpus_at(CORPUS_RATE)
        missing = set(self._recipe.labels) - {recording.label for recording in corpus.recordings}
        if missing:
            raise DataError(f"{self.recordings}: no recordings of {', '.join(sorted(missing))}; change `labels`")
        return corpus

    def corpus_at(self, rate: int) -> Corpus:
        """The same recordings, decoded at a rate."""
        return open_corpus(self.recordings, self.folder / "cache", rate, set(self._recipe.labels))

    def numbers(self, *splits: str) -> list[int]:
        """The recordings of these splits."""
        return [number for number, item in enumerate(self.corpus.recordings) if split_of(item) in splits]

    @cached_property
    def training(self) -> Scenes:
        """The scenes that captioners are trained on, of recordings that CLAP knows and of others."""
        recipe = self._recipe
        weights = dict.fromkeys(self.numbers(SEEN), 1.0)
        weights |= dict.fromkeys(self.numbers(UNSEEN), recipe.unseen_weight)
        return self._scenes("training", recipe.scenes, weights, TRAINING_SEED)

    @cached_property
    def evaluation(self) -> Scenes:
        """The scenes that are captioned, of recordings that nothing was trained on."""
        weights = dict.fromkeys(self.numbers(VALIDATION), 1.0)
        return self._scenes("evaluation", self._recipe.evaluation_scenes, weights, EVALUATION_SEED)

    def _scenes(self, name: str, count: int, weights: dict[int, float], seed: int) -> Scenes:
        recipe, folder = self._recipe, self.folder / name
        mix = SceneMix(recipe.order, recipe.together, 0.0, 0.0, 0.0, longest=recipe.seconds)
        composer = SceneComposer(self.corpus, weights, mix, seed)
        parts = []
        for start in range(0, count, SCENES_PER_PART):
            path = folder / f"{start:06d}.npz"
            if not path.exists():
                numbers = range(start, min(count, start + SCENES_PER_PART))
                self._write_part(path, composer, numbers)
                logger.info("%s: scenes up to %d of %d", folder, numbers[-1] + 1, count)
            with np.load(path) as part:
                parts.append({key: part[key] for key in part.files})
        rows = [row for part in parts for row in json.loads(part["texts"].tobytes())]
        texts = [
            SceneTexts(f"{name}/{number}", tuple(row["captions"]), tuple(row["labels"]), tuple(row["originals"]))
            for number, row in enumerate(rows)
        ]
        return Scenes(texts, **{key: np.concatenate([part[key] for part in parts]) for key in ARRAYS})

    def _write_part(self, path: Path, composer: SceneComposer, numbers: Sequence[int]) -> None:
        scenes = [composer.draw(number) for number in numbers]
        rows = []
        for scene, number in zip(scenes, numbers, strict=True):
            originals = sorted({self.corpus.recordings[index].recording for index in scene.recordings})
            rows.append({**scene_record(scene, number, self._recipe.captions), "originals": originals})
        arrays: dict[str, Any] = self.encoders.hear(scenes, self._recipe.seconds)
        path.parent.mkdir(parents=True, exist_ok=True)
        with replacement_path(path) as temporary, temporary.open("wb") as file:
            np.savez(file, texts=np.frombuffer(json.dumps(rows).encode(), dtype=np.uint8), **arrays)
