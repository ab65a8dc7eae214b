"""Training items of the caption model: features with drawn masks, noise and wording."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer

from enclap.data.feature_store import Clip, FeatureStore
from enclap.model.masking import IGNORED, clip_generator, hidden_frames, mask_codes
from enclap.training.recipe import Settings
from enclap.types import FloatArray, IntArray

BATCHES_SORTED_TOGETHER = 16


class Perturbation(Settings):
    """What is done to the features, so that the captioner does not trust them blindly.

    embedding_noise: largest length of the random vector added to the unit embedding. embedding_dropout: share of the
    items whose embedding is replaced by zeros. codes_dropout: share of the items whose codes are all hidden, and not
    to be restored, so that the captioner also learns to do without them, and what they add can be measured.
    mask_probability, mask_span: of masked codec modeling, see `model.masking`.
    """

    embedding_noise: float = 0.6
    embedding_dropout: float = 0.05
    codes_dropout: float = 0.0
    mask_probability: float = 0.15
    mask_span: int = 10


@dataclass(frozen=True, slots=True, eq=False)
class CaptionItem:
    """One item: codes with hidden spans, what was hidden, the embedding, and the caption's token ids with <s> and </s>.

    codes, mcm_labels: int64 [T, K]; embedding: float32 [E] or None; labels: int64 [S].
    """

    codes: IntArray
    mcm_labels: IntArray
    embedding: FloatArray | None
    labels: IntArray


class CaptionItems:
    """Item n of a training, drawn from (seed, n): a clip chosen by weight, with fresh masks, noise and wording.

    Clips are read and captions encoded when they are drawn, so features may stay on disk. Items of sixteen batches are
    sorted by length and dealt out again, so that a batch holds little padding.
    """

    def __init__(
        self,
        clips: Sequence[Clip],
        weights: NDArray[np.float64],
        tokenizer: Tokenizer,
        entries: int,
        perturbation: Perturbation,
        *,
        batch_size: int,
        seed: int,
    ) -> None:
        self._clips = clips
        self._cumulative_weights = np.cumsum(weights / weights.sum())
        self._lengths = (
            clips.lengths()
            if isinstance(clips, FeatureStore)
            else np.asarray([len(clip.features.codes) for clip in clips])
        )
        self._tokenizer = tokenizer
        self._entries = entries
        self._perturbation = perturbation
        self._batch_size = batch_size
        self._seed = seed
        self._group: tuple[int, NDArray[np.int64]] = (-1, np.empty(0, dtype=np.int64))

    def __call__(self, number: int) -> CaptionItem:
        """Item `number`."""
        group, index = divmod(number, self._batch_size * BATCHES_SORTED_TOGETHER)
        if self._group[0] != group:
            self._group = (group, self._choose_clips(group))
        clip, settings = self._clips[int(self._group[1][index])], self._perturbation
        generator = clip_generator(self._seed, number, clip.name)
        codes = clip.features.codes
        hidden = hidden_frames(
            len(codes),
            codes.shape[1],
            generator,
            probability=settings.mask_probability,
            span=settings.mask_span,
        )
        shown, mcm_labels = mask_codes(codes, hidden, self._entries)
        if generator.random() < settings.codes_dropout:
            shown, mcm_labels = np.full_like(shown, self._entries), np.full_like(mcm_labels, IGNORED)
        caption = clip.captions[int(generator.integers(0, len(clip.captions)))]
        labels = np.asarray(self._tokenizer.encode(caption).ids, dtype=np.int64)
        embedding = clip.features.embedding
        if embedding is not None:
            embedding = perturb(embedding, settings, generator)
        return CaptionItem(shown, mcm_labels, embedding, labels)

    def _choose_clips(self, group: int) -> NDArray[np.int64]:
        """Numbers of the clips of one group of batches, int64 [16 * batch size]."""
        generator = np.random.default_rng((self._seed, group))
        draws = generator.random(self._batch_size * BATCHES_SORTED_TOGETHER)
        chosen = np.minimum(np.searchsorted(self._cumulative_weights, draws), len(self._clips) - 1)
        by_length = chosen[np.argsort(self._lengths[chosen], kind="stable")].reshape(-1, self._batch_size)
        return by_length[generator.permutation(len(by_length))].reshape(-1)


def perturb(embedding: FloatArray, settings: Perturbation, generator: np.random.Generator) -> FloatArray:
    """Float32 [E]: the embedding with a random vector of random length added, unit length again; or zeros."""
    if generator.random() < settings.embedding_dropout:
        return np.zeros_like(embedding)
    direction = generator.standard_normal(len(embedding))
    length = settings.embedding_noise * generator.random()
    moved = embedding + length * direction / np.linalg.norm(direction)
    return (moved / np.linalg.norm(moved)).astype(np.float32)
