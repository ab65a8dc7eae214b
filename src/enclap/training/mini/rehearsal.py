"""What the captioner learns first: to name what CLAP's embedding holds, on embeddings alone, before it hears codes.

A step without code slots costs a tenth of one with them, so the captioner sees far more sounds in the same time. The
embeddings come from a bank of short views: the tower's convolutions are local in time, so the maps of views put one
after the other are those of their sounds in order, and nothing of it has to be heard again.
"""

from __future__ import annotations

import json
import logging
from collections import defaultdict
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field
from torch.nn import functional

from enclap.data.feature_store import Clip, StoreHeader, write_shard
from enclap.data.synthetic.grammar import SceneDescription, Sound, canonical, describe, finish
from enclap.data.synthetic.lexicon import load_lexicon
from enclap.data.synthetic.scenes import COVERED_DECIBELS, COVERS, LONGEST, RARITY
from enclap.errors import DataError
from enclap.files import replacement_path
from enclap.model.clap import Clap
from enclap.model.conv_clap import ConvTower
from enclap.training.dataset import Perturbation
from enclap.training.mini.augment import Augmentation, add_powers, finish_view, level_between, single_view
from enclap.training.mini.clap import recording_weights
from enclap.training.mini.context import MiniRun
from enclap.training.mini.text_side import ModalityGap, TextEmbedder, TextSide, TextSounds, labels_without
from enclap.training.recipe import Optimisation, Settings
from enclap.types import Features, FloatArray

logger = logging.getLogger(__name__)

AT_ONCE = 16
"""Views whose maps are computed together."""
VIEWS_IN_PART, CLIPS_IN_SHARD, COMPOSED_TOGETHER = 2_000, 2_000, 250
UNDER_SPEECH, UNDER_MUSIC, OVER_STEADY = 0.22, 0.23, 0.30
"""How often a mixture is which; what is left of 1 are two sounds alike."""
PARTS = {"single": (2, 2), "order": (2, 2), "three": (3, 3), "mixture": (1, 2)}
"""By kind of clip: how many views it is drawn from, and of how many parts its ten seconds are."""


class Rehearsal(Settings):
    """The captioner's first phase.

    views: of single recordings, those that CLAP was not trained on drawn `unseen_weight` times as often. mixtures:
    views of two at once. frames: of a view, half a window. clips: composed of views, as often as `shares` says: one
    sound, two in order, three in order, a mixture. text_side: clips that are text embeddings, of labels without
    recordings; None for none.
    """

    views: int = Field(gt=0)
    mixtures: int = Field(gt=0)
    unseen_weight: float = Field(default=1.5, gt=0)
    frames: int = 251
    clips: int = Field(gt=0)
    shares: tuple[float, float, float, float] = (0.35, 0.27, 0.08, 0.30)
    text_side: TextSide | None = None
    augmentation: Augmentation = Augmentation()
    perturbation: Perturbation = Perturbation()
    optimisation: Optimisation


@dataclass(frozen=True, eq=False)
class Views:
    """Short views as the tower's convolutions see them: first those of single recordings, then the mixtures.

    maps: float16 [N, channels, F']. sounds: what is audible in each, as if it lasted a whole window. recordings: the
    numbers of the recordings of each.
    """

    maps: NDArray[np.float16]
    sounds: Sequence[tuple[Sound, ...]]
    recordings: Sequence[tuple[int, ...]]


def write_rehearsal(run: MiniRun, recipe: Rehearsal, clap: Clap, header: StoreHeader, captions: int) -> None:
    """Write rehearsal/: the views in parts, and features/ with the clips composed of them, `captions` wordings each.

    A run that was cut off goes on at the first part or shard that is missing.
    """
    folder, seed, total = run.output / "rehearsal", recipe.optimisation.seed, recipe.views + recipe.mixtures
    sampler, tower = ViewSampler(run, recipe, seed), clap.encoder.network.audio_tower
    parts = []
    for start in range(0, total, VIEWS_IN_PART):
        path = folder / f"{start:07d}.npz"
        if not path.exists():
            write_views(path, sampler, tower, range(start, min(total, start + VIEWS_IN_PART)))
        parts.append(path)
    views = read_views(parts, set(run.targets.label_names))
    texts = make_text_sounds(run, recipe, views, tower, clap.embed_text)
    composer = ClipComposer(views, tower, recipe, header.codebooks, seed, texts)
    (folder / "features").mkdir(parents=True, exist_ok=True)
    for start in range(0, recipe.clips, CLIPS_IN_SHARD):
        path = folder / "features" / f"{start:07d}.parquet"
        if not path.exists():
            numbers = range(start, min(recipe.clips, start + CLIPS_IN_SHARD))
            write_shard(path, header, composer.compose(numbers, captions))


@torch.inference_mode()
def write_views(path: Path, sampler: ViewSampler, tower: ConvTower, numbers: range) -> None:
    """Write one part of the views: their maps, and what they hold."""
    path.parent.mkdir(parents=True, exist_ok=True)
    tower.eval()
    maps, rows = [], []
    for start in range(numbers.start, numbers.stop, AT_ONCE):
        drawn = [sampler.draw(number) for number in range(start, min(numbers.stop, start + AT_ONCE))]
        maps.append(tower.hidden(torch.from_numpy(np.stack([view.mel for view in drawn]))).numpy().astype(np.float16))
        rows += [
            [view.recordings, [sampler.labels[number] for number in view.recordings], view.steady] for view in drawn
        ]
    with replacement_path(path) as temporary, temporary.open("wb") as file:
        np.savez(file, maps=np.concatenate(maps), rows=np.frombuffer(json.dumps(rows).encode(), dtype=np.uint8))
    logger.info("%s: %d views", path, len(rows))


def read_views(paths: Sequence[Path], known: Collection[str]) -> Views:
    """The views of all parts; sounds whose labels are not `known` are vague."""
    maps, rows = [], []
    for path in paths:
        with np.load(path) as data:
            maps.append(data["maps"])
            rows += json.loads(data["rows"].tobytes())
    sounds = [
        tuple(
            Sound(label, 0.0, LONGEST, background=steady and place == 1, vague=label not in known)
            for place, label in enumerate(labels)
        )
        for _, labels, steady in rows
    ]
    return Views(np.concatenate(maps), sounds, [tuple(recordings) for recordings, _, _ in rows])


@dataclass(frozen=True, eq=False)
class ShortView:
    """A view of one recording or of two at once. steady: whether the second is a softer, steady background."""

    mel: FloatArray
    recordings: tuple[int, ...]
    steady: bool = False


class ViewSampler:
    """Draws the views of a rehearsal, each from (seed, number)."""

    def __init__(self, run: MiniRun, recipe: Rehearsal, seed: int) -> None:
        lexicon = load_lexicon()
        self.labels = [recording.label for recording in run.corpus.recordings]
        self._recipe, self._seed = recipe, seed
        self._bank = replace(run.mels, frames=recipe.frames)
        weights = recording_weights(run.corpus.recordings, [*run.seen, *run.unseen], 1.0 - RARITY)
        self._weights = np.diff(weights, prepend=0.0)
        self._weights[run.unseen] *= recipe.unseen_weight
        self._families = np.asarray([lexicon[label].family for label in self.labels])
        self._continuous = np.asarray([lexicon[label].continuous for label in self.labels])

    def draw(self, number: int) -> ShortView:
        """View `number`."""
        generator = np.random.default_rng((self._seed, number))
        if number >= self._recipe.views:
            return self.mixture(generator)
        chosen = draw_recording(self._weights, generator)
        return self._finish(self._single(chosen, generator), (chosen,), generator)

    def mixture(self, generator: np.random.Generator) -> ShortView:
        """A sound under speech or music, a sound over a steady one, or two alike; of different families."""
        kind, steady = generator.random(), False
        if kind < UNDER_SPEECH + UNDER_MUSIC:
            fits = self._families == COVERS[int(kind >= UNDER_SPEECH)]
            softer = -generator.uniform(*COVERED_DECIBELS)
        elif kind < UNDER_SPEECH + UNDER_MUSIC + OVER_STEADY:
            fits, softer, steady = self._continuous, generator.uniform(6.0, 16.0), True
        else:
            fits, softer = np.full(len(self.labels), True), generator.uniform(-6.0, 6.0)
        if not np.any(self._weights * fits > 0):  # a collection without music, say
            fits, steady = np.full(len(self.labels), True), False
        second = draw_recording(self._weights * fits, generator)
        first = draw_recording(self._weights * (self._families != self._families[second]), generator)
        mels = [self._single(number, generator) for number in (first, second)]
        mel = add_powers(mels[0], mels[1] + np.float32(level_between(*mels) - softer))
        return self._finish(mel, (first, second), generator, steady)

    def _single(self, number: int, generator: np.random.Generator) -> FloatArray:
        return single_view(self._bank, number, self._recipe.augmentation, generator)

    def _finish(
        self, mel: FloatArray, numbers: tuple[int, ...], generator: np.random.Generator, steady: bool = False
    ) -> ShortView:
        return ShortView(finish_view(mel, self._recipe.augmentation, generator), numbers, steady)


def make_text_sounds(
    run: MiniRun, recipe: Rehearsal, views: Views, tower: ConvTower, embed_text: TextEmbedder
) -> TextSounds | None:
    """The clips without sound that the recipe asks for; None where it asks for none.

    Both the gap and the labels that have enough recordings come from training recordings alone.
    """
    if recipe.text_side is None:
        return None
    strange = set(run.unseen)
    numbers = [number for number in range(recipe.views) if strange.issuperset(views.recordings[number])]
    gap = measure_gap(views, numbers[: recipe.text_side.measured], tower, embed_text)
    used = [run.corpus.recordings[number] for number in (*run.seen, *run.unseen)]
    labels, seed = labels_without(used, recipe.text_side.enough), recipe.optimisation.seed
    lengths = [float(np.linalg.norm(part)) for part in (gap.shift, gap.deviation)]
    logger.info("%d labels are learned from text; gap: shift %.2f, deviation %.2f", len(labels), *lengths)
    return TextSounds(labels, embed_text, gap.quieter(recipe.text_side.noise), recipe.text_side.share, seed)


@torch.inference_mode()
def measure_gap(views: Views, numbers: Sequence[int], tower: ConvTower, embed_text: TextEmbedder) -> ModalityGap:
    """The gap between views of single recordings, by their numbers, and the preferred clauses of their labels.

    DataError where there are no such views.
    """
    if not numbers:
        raise DataError("text_side: no view is of a recording that CLAP was not trained on; take more views")
    parts = [numbers[start : start + COMPOSED_TOGETHER] for start in range(0, len(numbers), COMPOSED_TOGETHER)]
    spans = [tower.spans(torch.from_numpy(views.maps[part].astype(np.float32))) for part in parts]
    audio = functional.normalize(torch.cat(spans).flatten(1), dim=-1).numpy()
    clauses = [load_lexicon()[views.sounds[number][0].label].clauses[0] for number in numbers]
    text = np.concatenate([embed_text([finish(clause)]) for clause in clauses])  # one by one: equal padding
    return ModalityGap.measure(audio, text)


def draw_recording(weights: NDArray[np.float64], generator: np.random.Generator) -> int:
    """A recording's number, drawn by its weight."""
    cumulative = np.cumsum(weights)
    return int(np.searchsorted(cumulative, generator.random() * cumulative[-1], side="right"))


class ClipComposer:
    """Clips of a rehearsal, each drawn from (seed, number): an embedding without codes, and what it is to be called.

    texts: gives the clips that are text in the place of sound; None where all are sound.
    """

    def __init__(
        self,
        views: Views,
        tower: ConvTower,
        recipe: Rehearsal,
        codebooks: int,
        seed: int,
        texts: TextSounds | None = None,
    ) -> None:
        self._views, self._tower, self._recipe, self._seed, self._texts = views, tower, recipe, seed, texts
        self._no_codes = np.empty((0, codebooks), dtype=np.int64)
        self._by_recording: dict[int, list[int]] = defaultdict(list)
        for number in range(recipe.views):
            self._by_recording[views.recordings[number][0]].append(number)

    def compose(self, numbers: range, captions: int) -> Iterator[Clip]:
        """The clips of these numbers, with at most so many wordings each."""
        for start in range(numbers.start, numbers.stop, COMPOSED_TOGETHER):
            together = range(start, min(numbers.stop, start + COMPOSED_TOGETHER))
            generators = [np.random.default_rng((self._seed, number)) for number in together]
            drawn = [self.draw(generator) for generator in generators]
            maps = np.stack([hidden for hidden, _ in drawn]).astype(np.float32)
            with torch.inference_mode():
                vectors = self._tower.spans(torch.from_numpy(maps))
            embeddings = functional.normalize(vectors.flatten(1), dim=-1).numpy()
            for number, embedding, (_, sounds), generator in zip(together, embeddings, drawn, generators, strict=True):
                if self._texts is not None and (told := self._texts.draw(number)) is not None:
                    embedding, sounds = told
                scene = SceneDescription(sounds)
                wordings = (canonical(scene), *(describe(scene, generator) for _ in range(captions - 1)))
                labels = tuple(sound.label for sound in sounds)
                texts = tuple(dict.fromkeys(wordings))
                yield Clip(f"rehearsal/{number}", Features(self._no_codes, embedding), texts, labels, LONGEST)

    def draw(self, generator: np.random.Generator) -> tuple[NDArray[np.float16], tuple[Sound, ...]]:
        """Maps [channels, F'] of a window and the sounds in it."""
        kind = list(PARTS)[int(np.searchsorted(np.cumsum(self._recipe.shares), generator.random()))]
        count, parts = PARTS[kind]
        if kind == "mixture":
            first = int(generator.integers(self._recipe.views, len(self._views.maps)))
            return np.concatenate([self._views.maps[first]] * parts, axis=1), self._views.sounds[first]
        chosen = [int(generator.integers(self._recipe.views))]
        if kind == "single":
            others = self._by_recording[self._views.recordings[chosen[0]][0]]
            chosen.append(others[int(generator.integers(len(others)))])
            sounds = self._views.sounds[chosen[0]]
        else:
            lexicon = load_lexicon()
            while len(chosen) < count:
                other = int(generator.integers(self._recipe.views))
                families = [lexicon[self._views.sounds[number][0].label].family for number in (*chosen, other)]
                if len(set(families)) == len(families):
                    chosen.append(other)
            length = LONGEST / parts
            sounds = tuple(
                replace(self._views.sounds[number][0], start=at * length, end=(at + 1) * length)
                for at, number in enumerate(chosen)
            )
        frames = self._views.maps.shape[2]
        widths = np.diff(np.linspace(0, 2 * frames, parts + 1).round().astype(int))
        pieces = []
        for number, width in zip(chosen, widths, strict=True):
            at = int(generator.integers(0, frames - width + 1))
            pieces.append(self._views.maps[number][:, at : at + width])
        return np.concatenate(pieces, axis=1), sounds
