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

    codes, mcm_labels: int64 [T, K]; embedding: float32 [E] or None; labels: int64 [S]; log_mel: float32 [T, M] for
    models that read it in the place of codes, else None.
    """

    codes: IntArray
    mcm_labels: IntArray
    embedding: FloatArray | None
    labels: IntArray
    log_mel: FloatArray | None = None


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
        self._lengths = clip_lengths(clips)
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
        clip = self._clips[int(self._group[1][index])]
        generator = clip_generator(self._seed, number, clip.name)
        return draw_item(clip, None, generator, self._perturbation, self._tokenizer, self._entries)

    def _choose_clips(self, group: int) -> NDArray[np.int64]:
        """Numbers of the clips of one group of batches, int64 [16 * batch size]."""
        generator = np.random.default_rng((self._seed, group))
        draws = generator.random(self._batch_size * BATCHES_SORTED_TOGETHER)
        chosen = np.minimum(np.searchsorted(self._cumulative_weights, draws), len(self._clips) - 1)
        by_length = chosen[np.argsort(self._lengths[chosen], kind="stable")].reshape(-1, self._batch_size)
        return by_length[generator.permutation(len(by_length))].reshape(-1)


class EpochItems:
    """Item n of a training in epochs: every caption of every clip once an epoch, in an order drawn anew for each.

    What an item looks like depends on (seed, epoch, clip, caption) alone. Steps are whole: where the items of an epoch
    do not fill its last batch, the rest are fillers, whose labels count for nothing.

    rows: numbers of the clips of `clips` that are trained on. limit: frames that the model reads; of longer clips a
    part is drawn. group_by_length: whether batches hold clips of like length.
    """

    def __init__(
        self,
        clips: Sequence[Clip],
        rows: Sequence[int],
        tokenizer: Tokenizer,
        entries: int,
        limit: int,
        perturbation: Perturbation,
        *,
        batch_size: int,
        seed: int,
        group_by_length: bool = True,
    ) -> None:
        captions = clips.column("captions") if isinstance(clips, FeatureStore) else [clip.captions for clip in clips]
        pairs = [(row, caption) for row in rows for caption in range(len(captions[row]))]
        self._clips = clips
        self._pairs = np.asarray(pairs, dtype=np.int64).reshape(-1, 2)
        self._lengths = np.minimum(clip_lengths(clips), limit)[self._pairs[:, 0]]
        self._tokenizer = tokenizer
        self._entries = entries
        self._limit = limit
        self._perturbation = perturbation
        self._batch_size = batch_size
        self._seed = seed
        self._group_by_length = group_by_length
        self._epoch: tuple[int, NDArray[np.int64]] = (-1, np.empty(0, dtype=np.int64))

    def __len__(self) -> int:
        """Items of an epoch, without fillers."""
        return len(self._pairs)

    @property
    def steps_per_epoch(self) -> int:
        """Steps in which every item comes once."""
        return -(-len(self._pairs) // self._batch_size)

    def __call__(self, number: int) -> CaptionItem:
        """Item `number`."""
        epoch, index = divmod(number, self.steps_per_epoch * self._batch_size)
        if self._epoch[0] != epoch:
            self._epoch = (epoch, self.order_of(epoch))
        pair = int(self._epoch[1][index])
        clip = self._clips[int(self._pairs[max(pair, 0), 0])]
        if pair < 0:
            return filler(clip)
        caption = int(self._pairs[pair, 1])
        generator = clip_generator(self._seed, epoch, f"{clip.name}\n{caption}" if caption else clip.name)
        text = clip.captions[caption]
        return draw_item(clip, text, generator, self._perturbation, self._tokenizer, self._entries, self._limit)

    def order_of(self, epoch: int) -> NDArray[np.int64]:
        """Numbers of the pairs of one epoch in order, -1 for fillers; int64 [steps * batch size]."""
        generator = np.random.default_rng((self._seed, epoch))
        order = np.full(self.steps_per_epoch * self._batch_size, -1, dtype=np.int64)
        order[: len(self._pairs)] = generator.permutation(len(self._pairs))
        if not self._group_by_length:
            return order
        lengths = np.where(order < 0, 0, self._lengths[order])
        together = self._batch_size * BATCHES_SORTED_TOGETHER
        for start in range(0, len(order), together):
            part = slice(start, start + together)
            batches = order[part][np.argsort(lengths[part], kind="stable")].reshape(-1, self._batch_size)
            order[part] = batches[generator.permutation(len(batches))].reshape(-1)
        return order


def clip_lengths(clips: Sequence[Clip]) -> IntArray:
    """Frames of every clip that the encoder reads, int64 [N]: of log-mel input where there is one, else of codes."""
    if isinstance(clips, FeatureStore):
        return clips.lengths()
    features = (clip.features for clip in clips)
    return np.asarray([len(item.codes if item.log_mel is None else item.log_mel) for item in features])


def draw_item(
    clip: Clip,
    caption: str | None,
    generator: np.random.Generator,
    settings: Perturbation,
    tokenizer: Tokenizer,
    entries: int,
    limit: int | None = None,
) -> CaptionItem:
    """A clip as it is learnt from once: a part of it, with hidden codes and noise, all drawn by `generator`.

    caption: None to draw one. limit: frames at most, None for all.
    """
    codes, log_mel = clip.features.codes, clip.features.log_mel
    frames = len(codes if log_mel is None else log_mel)
    if limit is not None and frames > limit:
        start = int(generator.integers(0, frames - limit + 1))
        codes = codes[start : start + limit]
        log_mel = None if log_mel is None else log_mel[start : start + limit]
    probability, span = settings.mask_probability, settings.mask_span
    hidden = hidden_frames(len(codes), codes.shape[1], generator, probability=probability, span=span)
    shown, mcm_labels = mask_codes(codes, hidden, entries)
    if generator.random() < settings.codes_dropout:
        shown, mcm_labels = np.full_like(shown, entries), np.full_like(mcm_labels, IGNORED)
    if caption is None:
        caption = clip.captions[int(generator.integers(0, len(clip.captions)))]
    labels = np.asarray(tokenizer.encode(caption).ids, dtype=np.int64)
    embedding = clip.features.embedding
    if embedding is not None:
        embedding = perturb(embedding, settings, generator)
    return CaptionItem(shown, mcm_labels, embedding, labels, log_mel)


def plain_item(clip: Clip, tokenizer: Tokenizer) -> CaptionItem:
    """A clip as it is, with its first caption."""
    codes = clip.features.codes
    labels = np.asarray(tokenizer.encode(clip.captions[0]).ids, dtype=np.int64)
    return CaptionItem(codes, np.full_like(codes, IGNORED), clip.features.embedding, labels, clip.features.log_mel)


def filler(clip: Clip) -> CaptionItem:
    """An item that fills a batch and counts for nothing."""
    codes, log_mel = clip.features.codes[:1], clip.features.log_mel
    first = None if log_mel is None else log_mel[:1]
    return CaptionItem(codes, np.full_like(codes, IGNORED), clip.features.embedding, np.full(2, IGNORED), first)


def perturb(embedding: FloatArray, settings: Perturbation, generator: np.random.Generator) -> FloatArray:
    """Float32 [E]: the embedding with a random vector of random length added, unit length again; or zeros."""
    if settings.embedding_noise == settings.embedding_dropout == 0.0:
        return embedding
    if generator.random() < settings.embedding_dropout:
        return np.zeros_like(embedding)
    direction = generator.standard_normal(len(embedding))
    length = settings.embedding_noise * generator.random()
    moved = embedding + length * direction / np.linalg.norm(direction)
    return (moved / np.linalg.norm(moved)).astype(np.float32)
