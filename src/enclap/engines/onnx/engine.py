"""The default engine: exported graphs in onnxruntime, searched by numpy; needs no PyTorch."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import cached_property
from itertools import chain
from pathlib import Path

import numpy as np
from tokenizers import Tokenizer

from enclap.decoding.beam import BeamSettings, Hypothesis, beam_search, greedy_search
from enclap.decoding.options import DecodingOptions
from enclap.decoding.sampling import SamplingSettings, sample
from enclap.decoding.token_rules import TokenRules
from enclap.engines.batching import MAX_BATCH, candidates, encoder_inputs, frame_count, similar_lengths
from enclap.engines.onnx.decoder import CrossAttentionCache, OnnxDecoderStep
from enclap.engines.onnx.features import Extractor
from enclap.engines.onnx.sessions import CPU, Sessions, providers, usable_cores
from enclap.engines.onnx.threads import CancelToken, CoreSharing, side_by_side
from enclap.errors import ModelError, UsageError
from enclap.hub.model_folder import SPECIAL_SLOTS, ModelFolder, read_text_tokenizer
from enclap.types import Candidate, Features, FloatArray, Window

GRAPHS = {"float32": "", "int8": "_int8"}
"""What each precision adds to the names of the caption model's graphs."""
CROSS_MEMORY = 320 * 2**20
"""Bytes of cross-attention memory that a batch may take: four windows of 10 s in large."""
WINDOWS_PER_CORE, MOST_WINDOWS = 4, 32
"""Windows that are best given together: four a core read the decoder's weights once for all of their beams."""


class OnnxEngine:
    """Runs `folder`/onnx with onnxruntime; each graph is loaded when it is first needed.

    device: "cpu", "cuda" or "auto" (cuda where onnxruntime offers it). threads: of the processor; None for all cores.
    precision: "float32", or "int8" for the caption model's matrix products; codec and CLAP always run in float32.
    """

    name = "onnx"

    def __init__(
        self, folder: Path, *, device: str = "auto", precision: str = "float32", threads: int | None = None
    ) -> None:
        if precision not in GRAPHS:
            raise UsageError(f"the onnx engine runs in {' or '.join(GRAPHS)}, not {precision}")
        self.folder = ModelFolder.read(folder)
        self.code_rate = self.folder.caption.frame_rate
        self.max_frames = self.folder.max_frames
        self._suffix = GRAPHS[precision]
        cores, places = threads or usable_cores(), providers(device)
        self._sharing = CoreSharing(cores if places == [CPU] else 1)
        self.windows_together = min(MOST_WINDOWS, WINDOWS_PER_CORE * cores)
        self._sessions = Sessions(self.folder, cores, places)
        self._extractor = Extractor(self.folder, self._sessions)
        for name in ("encoder", "decoder"):
            self.folder.require(f"onnx/{name}.onnx")
        if precision == "int8" and not (folder / "onnx" / "encoder_int8.onnx").is_file():
            remedy = "a small model gets none, a large one by `enclap models export`; use float32"
            raise ModelError(f"{folder}: has no int8 graphs: {remedy}")

    @property
    def can_embed_text(self) -> bool:
        """Whether the folder has CLAP's text tower."""
        return self.folder.clap is not None and (self.folder.path / "onnx" / "clap_text.onnx").is_file()

    def extract(self, windows: Sequence[Window]) -> list[Features]:
        """One Features per window, in order; a window's features do not depend on its neighbours."""
        return self._extractor(windows)

    def generate(self, features: Sequence[Features], options: DecodingOptions) -> list[list[Candidate]]:
        """Candidates per item, best first; an item's candidates do not depend on the rest of the batch."""
        rules = self.folder.rules.resolved(options, self.folder.caption.max_position_embeddings)
        workers = self._sharing.workers(len(features))
        batches = similar_lengths(
            [frame_count(self.folder, item) + SPECIAL_SLOTS for item in features],
            lambda slots: min(self._longest_batch(slots), math.ceil(len(features) / workers)),
        )

        def run(places: list[int], wanted: CancelToken) -> list[list[Hypothesis]]:
            stepper = self._stepper([features[place] for place in places], rules, options, workers, wanted)
            return _search(stepper, len(places), rules, options)

        hypotheses = dict(zip(chain(*batches), chain(*side_by_side(run, batches, workers)), strict=True))
        return [candidates(self.folder, hypotheses[place]) for place in range(len(features))]

    def embed_text(self, texts: Sequence[str]) -> FloatArray:
        """Float32 [N, E], unit length, from CLAP's text tower; ModelError when the folder has none."""
        if self.folder.clap is None:
            raise ModelError(f"{self.folder.path}: this model has no CLAP, so it cannot embed text")
        encoded = self._text_tokenizer.encode_batch(list(texts))
        ids = np.array([item.ids for item in encoded], dtype=np.int64)
        mask = np.array([item.attention_mask for item in encoded], dtype=np.int64)
        embeddings: FloatArray = self._sessions.get("clap_text").run(None, {"ids": ids, "mask": mask})[0]
        return embeddings

    def _longest_batch(self, slots: int) -> int:
        """Clips of so many slots that may be decoded together."""
        caption = self.folder.caption
        size = 2 * 4 * caption.decoder_layers * caption.d_model * slots
        return int(min(MAX_BATCH, max(1, CROSS_MEMORY // size)))

    def _stepper(
        self,
        features: list[Features],
        rules: TokenRules,
        options: DecodingOptions,
        workers: int,
        wanted: CancelToken,
    ) -> OnnxDecoderStep:
        """A decoder that has heard the clips: each is encoded alone, so that none changes another."""
        caption = self.folder.caption
        heads, width = caption.decoder_attention_heads, caption.d_model // caption.decoder_attention_heads
        threads = self._sharing.cores // workers
        # The decoder first: loading its largest matrix takes twice its room, here beside nothing that runs yet.
        decoder = self._sessions.get(f"decoder{self._suffix}", threads)
        encoder = self._sessions.get(f"encoder{self._suffix}", threads)
        slots = [frame_count(self.folder, clip) + SPECIAL_SLOTS for clip in features]
        cross = CrossAttentionCache([item.name for item in encoder.get_outputs()], slots, heads, width)
        for index, clip in enumerate(features):
            wanted.check()
            cross.fill(index, encoder, encoder_inputs(self.folder, [clip]))
        rows = options.candidates if options.sample else options.beams
        shape = (rules.max_length, caption.decoder_layers, 2, len(features), rows, heads, width)
        return OnnxDecoderStep(decoder, cross, shape, caption.vocab_size, wanted)

    @cached_property
    def _text_tokenizer(self) -> Tokenizer:
        return read_text_tokenizer(self.folder.path / "clap")


def _search(
    stepper: OnnxDecoderStep, clips: int, rules: TokenRules, options: DecodingOptions
) -> list[list[Hypothesis]]:
    """Hypotheses of clips that are decoded together."""
    if options.sample:
        settings = SamplingSettings(options.candidates, options.temperature, options.top_p, options.seed)
        return sample(stepper, clips, rules, settings)
    if options.beams == 1:
        return greedy_search(stepper, clips, rules)
    beam_settings = BeamSettings(options.beams, options.candidates, options.length_penalty, options.early_stopping)
    return beam_search(stepper, clips, rules, beam_settings)
