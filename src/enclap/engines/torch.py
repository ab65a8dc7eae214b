"""The reference engine: PyTorch modules and transformers' generate; every other engine is held to it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers.utils.logging import disable_progress_bar

from enclap.audio.resample import resample
from enclap.decoding.beam import Hypothesis
from enclap.decoding.options import DecodingOptions
from enclap.decoding.token_rules import START_LENGTH, TokenRules
from enclap.engines.batching import (
    MAX_BATCH,
    candidates,
    clap_input,
    encoder_inputs,
    frame_count,
    in_groups,
    log_mel,
    no_codes,
    similar_lengths,
)
from enclap.engines.devices import recordings_to_decode
from enclap.engines.torch_features import TorchExtractor
from enclap.errors import EnvironmentFault, ModelError, UsageError
from enclap.generation.generator import SentenceGenerator
from enclap.generation.graphs import CudaGraphs
from enclap.hub.layout import CLAP, CODEC, TOKENIZER, WEIGHTS
from enclap.hub.model_folder import ModelFolder
from enclap.model.clap import Clap
from enclap.model.codec import Codec
from enclap.model.loading import load_caption_model
from enclap.types import Candidate, Features, FloatArray, Window

ACCELERATED_BATCH = 64
"""Clips that run together on an accelerator, which fewer would leave idle."""
PROCESSOR_WINDOWS = 4
"""Windows that are best given together on a processor."""
PRECISIONS = {"float32": torch.float32, "bfloat16": torch.bfloat16}


class TorchEngine:
    """Runs the weights of `folder` in PyTorch.

    device: "cpu", "cuda", "cuda:1", "mps" or "auto" (the first accelerator there is). precision: "float32" or
    "bfloat16", of the caption model; codec and CLAP always run in float32. threads: of PyTorch on the CPU; None leaves
    them as they are.
    """

    name = "torch"

    def __init__(
        self, folder: Path, *, device: str = "auto", precision: str = "float32", threads: int | None = None
    ) -> None:
        if precision not in PRECISIONS:
            raise UsageError(f"the torch engine runs in {' or '.join(PRECISIONS)}, not {precision}")
        self.folder = ModelFolder.read(folder)
        self.code_rate = self.folder.caption.frame_rate
        self.max_frames = self.folder.max_frames
        self._device = _device(device)
        self._on_processor = self._device == "cpu"
        self.recordings_together = recordings_to_decode(self._on_processor)
        self._batch_size = MAX_BATCH if self._on_processor else ACCELERATED_BATCH
        self.windows_together = PROCESSOR_WINDOWS if self._on_processor else ACCELERATED_BATCH
        disable_progress_bar()  # transformers shows one for every load, even where no terminal is
        self.folder.require(WEIGHTS)
        self._model = load_caption_model(folder).to(device=self._device, dtype=PRECISIONS[precision])
        self._generator = SentenceGenerator(self._model, CudaGraphs) if self._device.startswith("cuda") else None
        if threads is not None:
            torch.set_num_threads(threads)

    @property
    def can_embed_text(self) -> bool:
        """Whether the folder has CLAP's text tower."""
        return self.folder.clap is not None and (self.folder.path / CLAP / TOKENIZER).is_file()

    def extract(self, windows: Sequence[Window], *, whole: bool = False) -> list[Features]:
        """One Features per window, in order; a window's features do not depend on its neighbours."""
        if not self._on_processor:
            return self.extractor(windows, whole)
        features = [no_codes(self.folder)] * len(windows)
        if self.folder.codec_rate is not None:
            rate, readable = self.folder.codec_rate, self.folder.max_frames * self._codec.hop
            limit = readable if self._codec.is_causal and not whole else None
            samples = [resample(window.waveform, rate)[:limit] for window in windows]
            codes = in_groups(
                samples, len, lambda clips: list(self._codec.encode_batch(np.stack(clips))), self._batch_size
            )
            features = [Features(item, None) for item in codes]
        mels = [clap_input(self.folder, window) for window in windows]
        embeddings: list[FloatArray] | list[None] = [None] * len(windows)
        if self.folder.clap is not None:
            present = [mel for mel in mels if mel is not None]
            embeddings = in_groups(present, lambda mel: mel.shape[1], self._clap.embed_batch, self._batch_size)
        return [
            replace(item, embedding=embedding, log_mel=log_mel(self.folder, window))
            for item, embedding, window in zip(features, embeddings, windows, strict=True)
        ]

    @torch.inference_mode()
    def generate(self, features: Sequence[Features], options: DecodingOptions) -> list[list[Candidate]]:
        """Candidates per item, best first; an item's candidates do not depend on the rest of the batch."""
        rules = self.folder.rules.resolved(options, self.folder.caption.max_position_embeddings)
        if self._generator is None:
            search = self._sample if options.sample else self._search
            found = in_groups(
                features,
                lambda item: frame_count(self.folder, item),
                lambda items: search(items, rules, options),
                self._batch_size,
            )
            return [candidates(self.folder, clip) for clip in found]
        generator = self._generator
        lengths = [frame_count(self.folder, item) for item in features]
        hypotheses: dict[int, list[Hypothesis]] = {}
        for batch in similar_lengths(lengths, lambda _: self._batch_size):
            states = in_groups(  # each clip is encoded with clips of its own length, and searched with similar ones
                [features[index] for index in batch],
                lambda item: frame_count(self.folder, item),
                lambda items: generator.encode(encoder_inputs(self.folder, items)),
                self._batch_size,
            )
            hypotheses |= zip(batch, generator(states, rules, options), strict=True)
        return [candidates(self.folder, hypotheses[index]) for index in range(len(features))]

    def embed_text(self, texts: Sequence[str]) -> FloatArray:
        """Float32 [N, E], unit length, from CLAP's text tower; ModelError when the folder has none."""
        if self.folder.clap is None:
            raise ModelError(f"{self.folder.path}: this model has no CLAP, so it cannot embed text")
        return self._clap.embed_text(texts)

    def _search(self, features: list[Features], rules: TokenRules, options: DecodingOptions) -> list[list[Hypothesis]]:
        """Greedy or beam search over clips of equal length."""
        searching: dict[str, Any] = {"num_beams": options.width, "num_return_sequences": options.candidates}
        if options.width > 1:
            searching |= {"length_penalty": options.length_penalty, "early_stopping": options.early_stopping}
        output = self._generate(features, rules, do_sample=False, **searching)
        is_beam = options.width > 1
        scores = output.sequences_scores.tolist() if is_beam else _mean_log_probabilities(output, rules)
        return _hypotheses(output.sequences, scores, rules, options.candidates)

    def _sample(self, features: list[Features], rules: TokenRules, options: DecodingOptions) -> list[list[Hypothesis]]:
        """Drawn sequences, most likely first; each clip draws alone, so that the clips beside it change nothing."""
        found = []
        for clip in features:
            with torch.random.fork_rng():  # the caller's random numbers stay as they were
                torch.manual_seed(options.seed)
                output = self._generate(
                    [clip],
                    rules,
                    do_sample=True,
                    num_beams=1,  # generation_config.json may say more, for searches
                    num_return_sequences=options.candidates,
                    temperature=options.temperature,
                    top_p=options.top_p,
                    top_k=0,
                )
            scores = _mean_log_probabilities(output, rules)
            drawn = _hypotheses(output.sequences, scores, rules, options.candidates)[0]
            found.append(sorted(drawn, key=lambda hypothesis: -hypothesis.score))
        return found

    def _generate(self, features: list[Features], rules: TokenRules, **settings: Any) -> Any:
        is_beam = settings.get("num_beams", 1) > 1
        inputs = {
            name: torch.from_numpy(array).to(self._device)
            for name, array in encoder_inputs(self.folder, features).items()
        }
        return self._model.generate(
            **inputs,
            **settings,
            decoder_start_token_id=rules.start,
            pad_token_id=rules.pad,
            eos_token_id=rules.end,
            forced_bos_token_id=rules.forced_first,
            forced_eos_token_id=rules.forced_last,
            min_length=rules.min_length,
            max_length=rules.max_length,
            no_repeat_ngram_size=rules.no_repeat_ngram,
            return_dict_in_generate=True,
            output_scores=is_beam,
            output_logits=not is_beam,  # every step's; a beam search is scored without them
        )

    @cached_property
    def _codec(self) -> Codec:
        return Codec.from_folder(self.folder.path / CODEC, self.folder.caption.codebooks, self._device)

    @cached_property
    def _clap(self) -> Clap:
        return Clap.from_folder(self.folder.path / CLAP, self._device)

    @cached_property
    def extractor(self) -> TorchExtractor:
        """What computes features on the device; its codec and CLAP are loaded when it is first used."""
        codec = None if self.folder.codec_rate is None else self._codec
        clap = None if self.folder.clap is None else self._clap
        return TorchExtractor(self.folder, codec, clap, torch.device(self._device))


def _mean_log_probabilities(output: Any, rules: TokenRules) -> list[float]:
    """Mean log-probability of each sequence's tokens, before temperature; forced tokens cost nothing."""
    logits = torch.stack(output.logits, dim=1).float()  # [R, steps, V]
    tokens = output.sequences[:, START_LENGTH:]  # [R, steps]
    gained = logits.log_softmax(-1).gather(-1, tokens[..., None])[..., 0]
    forced = [rules.forced(START_LENGTH + step) is not None for step in range(tokens.shape[1])]
    gained = gained.masked_fill(torch.tensor(forced, device=gained.device)[None], 0.0)
    lengths = [len(rules.stripped(row)) - START_LENGTH for row in output.sequences.tolist()]
    return [float(row[:length].sum()) / length for row, length in zip(gained, lengths, strict=True)]


def _hypotheses(
    sequences: torch.Tensor, scores: Sequence[float], rules: TokenRules, per_clip: int
) -> list[list[Hypothesis]]:
    flat = [Hypothesis(rules.stripped(row), score) for row, score in zip(sequences.tolist(), scores, strict=True)]
    return [flat[start : start + per_clip] for start in range(0, len(flat), per_clip)]


def _device(device: str) -> str:
    """The device to run on; UsageError for an unknown one, EnvironmentFault for one that is not there."""
    there = {"cpu": True, "cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    if device == "auto":
        return next(name for name in ("cuda", "mps", "cpu") if there[name])
    kind, _, number = device.partition(":")
    if kind not in there:
        raise UsageError(f"the torch engine knows the devices auto, cpu, cuda and mps, not {device!r}")
    if not there[kind] or (number and int(number) >= torch.cuda.device_count()):
        raise EnvironmentFault(f"PyTorch finds no {device} here; use --device cpu")
    return device
