"""One run: a captioner trained on short scenes for a short time, and its captions of scenes that are new to it."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, overload

import numpy as np
import torch

from enclap.data.feature_store import Clip
from enclap.data.synthetic.grammar import SceneDescription, Sound, canonical, describe
from enclap.data.synthetic.lexicon import load_lexicon
from enclap.decoding.options import DecodingOptions
from enclap.decoding.selection import SentenceSelector
from enclap.engines.torch import TorchEngine
from enclap.experiments.grids import Training
from enclap.experiments.scenes import Scenes
from enclap.hub.layout import leading_slots
from enclap.model.loading import load_caption_model
from enclap.model.masking import clip_generator, hidden_frames, mask_codes
from enclap.model.slots import EncoderInputs
from enclap.types import Candidate, Features, FloatArray, IntArray

MASK_SEED = 1_000
CAPTIONED_TOGETHER = 64
MASKED_SHARE, MASKED_SPAN = 0.15, 10
"""Of the codes that are restored when that is measured, the same for every row."""


@dataclass(frozen=True, slots=True)
class Truth:
    """What is true of a scene that is captioned. families: of its sounds. groups: what it shares with other scenes, the
    recordings it was made of; scenes that share some are no independent evidence. sequence: the labels of two sounds
    that follow each other; empty when there are no two, or when they are heard at once.
    """

    families: tuple[str, ...]
    groups: tuple[str, ...]
    sequence: tuple[str, ...] = ()


class Laboratory(Protocol):
    """Where runs are made. output: folder of all results. device: of PyTorch."""

    output: Path
    device: str

    def key(self, training: Training) -> str:
        """A name for a training's folder; what is trained at another size or on other data has another."""
        ...

    def obstacle(self, training: Training) -> str:
        """Why such a training is not possible here; empty when it is."""
        ...

    def size(self) -> str:
        """How large a run is, in words."""
        ...

    @property
    def truths(self) -> Sequence[Truth]:
        """Of all scenes that are captioned."""
        ...

    def train(self, training: Training, seed: int, folder: Path) -> float:
        """Train a captioner into folder/model, going on from what is there; the seconds that this call took."""
        ...

    def facts(self, training: Training, seed: int, folder: Path) -> dict[str, Any]:
        """What is measured of the model in folder/model: its parameters, and what this kind of training asks for."""
        ...

    def features(self, training: Training, seed: int, folder: Path) -> list[Features]:
        """What the model in folder/model is given of the scenes that are captioned."""
        ...


class View(Sequence[Clip]):
    """Scenes as clips of a training: some of the inputs, and embeddings or zeros in their place."""

    def __init__(
        self, scenes: Scenes, training: Training, codes: IntArray | None = None, embedding: FloatArray | None = None
    ) -> None:
        self._scenes, self._training = scenes, training
        self._codes = scenes.codes if codes is None else codes
        self._embedding = scenes.embedding if embedding is None else embedding

    def __len__(self) -> int:
        return len(self._scenes.texts)

    @overload
    def __getitem__(self, index: int) -> Clip: ...

    @overload
    def __getitem__(self, index: slice) -> list[Clip]: ...

    def __getitem__(self, index: int | slice) -> Clip | list[Clip]:
        """A clip, or those of a slice."""
        if isinstance(index, slice):
            return [self[number] for number in range(*index.indices(len(self)))]
        text = self._scenes.texts[index]
        return Clip(text.name, self.features(index), text.captions, text.labels, 0.0)

    def __iter__(self) -> Iterator[Clip]:
        return (self[number] for number in range(len(self)))

    def features(self, index: int) -> Features:
        """The features of a scene as the training's model takes them."""
        training = self._training
        codes = self._codes[index][:, : training.codebooks].astype(np.int64)
        embedding = self._embedding[index].astype(np.float32)
        if not training.has_embedding:
            embedding = np.zeros_like(embedding)
        if training.acoustic == "codes":
            return Features(codes, embedding)
        # no frame at all: hidden ones would still tell how long the sound is
        frames = {"log_mel": self._scenes.log_mel, "feature_map": self._scenes.feature_map}.get(training.acoustic)
        return Features(codes[:0], embedding, None if frames is None else frames[index].astype(np.float32))


class Sentences(Sequence[Clip]):
    """Sentences without sounds, as clips: a language model's training before the captioner's."""

    def __init__(self, texts: Sequence[str], features: Features) -> None:
        silent = None if features.log_mel is None else np.zeros_like(features.log_mel)
        embedding = None if features.embedding is None else np.zeros_like(features.embedding)
        self._clips = [
            Clip(f"sentence/{number}", Features(features.codes[:0], embedding, silent), (text,), (), 0.0)
            for number, text in enumerate(texts)
        ]

    def __len__(self) -> int:
        return len(self._clips)

    @overload
    def __getitem__(self, index: int) -> Clip: ...

    @overload
    def __getitem__(self, index: slice) -> Sequence[Clip]: ...

    def __getitem__(self, index: int | slice) -> Clip | Sequence[Clip]:
        return self._clips[index]


def compose_sentences(count: int) -> list[str]:
    """Sentences of the grammar about one or two sounds of the whole lexicon, drawn by their numbers."""
    labels = sorted(load_lexicon().entries)
    found = []
    for number in range(count):
        generator = np.random.default_rng((number, count))
        names = generator.choice(len(labels), size=1 + int(generator.random() < 0.5), replace=False)
        sounds = tuple(Sound(labels[int(name)], 2.0 * at, 2.0 * at + 1.9) for at, name in enumerate(names))
        scene = SceneDescription(sounds)
        found.append(describe(scene, generator) if generator.random() < 0.7 else canonical(scene))
    return found


def count_parameters(training: Training, folder: Path) -> int:
    """How many numbers the model in folder/model has, without the tables of codes when it is given none."""
    model = load_caption_model(folder / "model")
    unused = ("frame_embedding.", "mcm_heads.") if training.acoustic == "none" else ()
    return sum(value.numel() for name, value in model.named_parameters() if not name.startswith(unused))


@torch.inference_mode()
def masked_accuracy(folder: Path, features: Sequence[Features], names: Sequence[str]) -> float | None:
    """The share of hidden codes that the model in folder/model restores, over all codebooks; None when none is hidden.

    The same codes are hidden for every row, in spans, whatever masks the model was trained with. names: of the scenes.
    """
    model = load_caption_model(folder / "model")
    right = count = 0
    for item, name in zip(features, names, strict=True):
        codes = item.codes[: model.config.max_frames]
        generator = clip_generator(MASK_SEED, 0, name)
        hidden = hidden_frames(len(codes), codes.shape[1], generator, probability=MASKED_SHARE, span=MASKED_SPAN)
        shown, _ = mask_codes(codes, hidden, model.config.codebook_entries)
        embedding = None if item.embedding is None else torch.tensor(item.embedding)[None]
        inputs = EncoderInputs(torch.from_numpy(shown)[None], None, embedding)
        first = leading_slots(model.config.clap_slots)
        frames = model.encode(inputs)[0].last_hidden_state[0, first : first + len(codes)]
        for number, head in enumerate(model.mcm_heads):
            restored = head(frames).argmax(-1).numpy()
            right += int((restored == codes[:, number])[hidden[:, number]].sum())
        count += int(hidden.sum())
    return right / count if count else None


class RememberedCandidates:
    """A sentence model that does not search again for what it found: rows that only order candidates share them."""

    def __init__(self, engine: TorchEngine) -> None:
        self._engine = engine
        self._found: dict[tuple[str, tuple[int, ...]], tuple[list[list[Candidate]], float]] = {}
        self.saved = 0.0

    def generate(self, features: Sequence[Features], options: DecodingOptions) -> list[list[Candidate]]:
        """The engine's candidates, by likelihood. `saved` grows by the seconds that remembered ones once took."""
        plain = options.model_copy(update={"rerank": "likelihood"})
        key = (plain.model_dump_json(), tuple(id(item) for item in features))
        if key in self._found:
            self.saved += self._found[key][1]
        else:
            began = time.monotonic()
            self._found[key] = self._engine.generate(features, plain), time.monotonic() - began
        return self._found[key][0]

    def embed_text(self, texts: Sequence[str]) -> FloatArray:
        """Embeddings from CLAP's text tower."""
        return self._engine.embed_text(texts)


class Captioning:
    """Captions of all scenes by the model of a run. features: of the scenes; they are kept as long as this is."""

    def __init__(self, folder: Path, features: Sequence[Features], device: str) -> None:
        self._features = list(features)
        self._model = RememberedCandidates(TorchEngine(folder / "model", device=device))
        self._selector = SentenceSelector(self._model, None)

    def captions(self, decoding: DecodingOptions) -> tuple[list[str], float]:
        """The captions, and the seconds that they take; remembered candidates count as if searched for again."""
        found: list[str] = []
        began = time.monotonic() + self._model.saved
        for start in range(0, len(self._features), CAPTIONED_TOGETHER):
            part = self._features[start : start + CAPTIONED_TOGETHER]
            found += [selection.text for selection in self._selector.select(part, decoding)]
        return found, time.monotonic() + self._model.saved - began
