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
from enclap.engines.devices import recordings_to_decode, usable_cores
from enclap.engines.onnx.decoder import CrossAttentionCache, OnnxDecoderStep
from enclap.engines.onnx.features import Extractor
from enclap.engines.onnx.sessions import CPU, Sessions, providers
from enclap.engines.onnx.threads import CancelToken, ThreadPolicy, run_parallel
from enclap.errors import ModelError, UsageError
from enclap.hub.layout import CLAP, INT8_SUFFIX, Graph, graph_file
from enclap.hub.model_folder import ModelFolder, read_text_tokenizer
from enclap.types import Candidate, Features, FloatArray, Window

GRAPH_SUFFIXES = {"float32": "", "int8": INT8_SUFFIX}
"""What each precision adds to the names of the caption model's graphs."""
MAX_CROSS_BYTES = 320 * 2**20
"""Bytes of cross-attention keys and values that a batch may take: four windows of 10 s in large."""
FLOAT32_BYTES = 4
WINDOWS_PER_CORE = 4
"""Windows that are best given together, for each core: so many read the decoder's weights once for all their beams."""
MAX_WINDOWS = 32
"""Windows that are given together however many cores there are."""


class OnnxEngine:
    """Runs `folder`/onnx with onnxruntime; each graph is loaded when it is first needed.

    device: "cpu", "cuda" or "auto" (cuda where onnxruntime offers it). threads: of the processor; None for all cores.
    precision: "float32", or "int8" for the caption model's matrix products; codec and CLAP always run in float32.
    """

    name = "onnx"

    def __init__(
        self, folder: Path, *, device: str = "auto", precision: str = "float32", threads: int | None = None
    ) -> None:
        if precision not in GRAPH_SUFFIXES:
            raise UsageError(f"the onnx engine runs in {' or '.join(GRAPH_SUFFIXES)}, not {precision}")
        self.folder = ModelFolder.read(folder)
        self.code_rate = self.folder.caption.frame_rate
        self.max_frames = self.folder.max_frames
        self._suffix = GRAPH_SUFFIXES[precision]
        cores, available = threads or usable_cores(), providers(device)
        self._threads = ThreadPolicy(cores if available == [CPU] else 1)
        self.windows_together = min(MAX_WINDOWS, WINDOWS_PER_CORE * cores)
        self.recordings_together = recordings_to_decode(available == [CPU])
        self._sessions = Sessions(self.folder, cores, available)
        self._extractor = Extractor(self.folder, self._sessions)
        for graph in (Graph.ENCODER, Graph.DECODER):
            self.folder.require(graph_file(graph))
        if not self.folder.has_graph(Graph.ENCODER + self._suffix):
            remedy = "a small model gets none, a large one by `enclap models export`; use float32"
            raise ModelError(f"{folder}: has no int8 graphs: {remedy}")

    @property
    def can_embed_text(self) -> bool:
        """Whether the folder has CLAP's text tower."""
        return self.folder.clap is not None and self.folder.has_graph(Graph.CLAP_TEXT)

    def extract(self, windows: Sequence[Window], *, whole: bool = False) -> list[Features]:
        """One Features per window, in order; a window's features do not depend on its neighbours."""
        return self._extractor(windows, whole)

    def generate(self, features: Sequence[Features], options: DecodingOptions) -> list[list[Candidate]]:
        """Candidates per item, best first; an item's candidates do not depend on the rest of the batch."""
        rules = self.folder.rules.resolved(options, self.folder.caption.max_position_embeddings)
        if not features:
            return []
        workers = self._threads.workers(len(features))
        caption = self.folder.caption
        bytes_per_slot = FLOAT32_BYTES * 2 * caption.decoder_layers * caption.d_model  # of keys and values
        batches = similar_lengths(
            [frame_count(self.folder, item) + self.folder.special_slots for item in features],
            lambda slots: min(
                MAX_BATCH, max(1, MAX_CROSS_BYTES // (bytes_per_slot * slots)), math.ceil(len(features) / workers)
            ),
        )

        def run(batch: list[int], cancel: CancelToken) -> list[list[Hypothesis]]:
            clips = [features[index] for index in batch]
            return search(self._decoder_step(clips, rules, options, workers, cancel), len(clips), rules, options)

        hypotheses = dict(zip(chain(*batches), chain(*run_parallel(run, batches, workers)), strict=True))
        return [candidates(self.folder, hypotheses[index]) for index in range(len(features))]

    def embed_text(self, texts: Sequence[str]) -> FloatArray:
        """Float32 [N, E], unit length, from CLAP's text tower; ModelError when the folder has none."""
        if self.folder.clap is None:
            raise ModelError(f"{self.folder.path}: this model has no CLAP, so it cannot embed text")
        if not texts:
            return np.empty((0, self.folder.caption.clap_dim), dtype=np.float32)
        encoded = self.text_tokenizer.encode_batch(list(texts))
        ids = np.array([item.ids for item in encoded], dtype=np.int64)
        mask = np.array([item.attention_mask for item in encoded], dtype=np.int64)
        embeddings: FloatArray = self._sessions.get(Graph.CLAP_TEXT).run(None, {"ids": ids, "mask": mask})[0]
        return embeddings

    def _decoder_step(
        self,
        features: list[Features],
        rules: TokenRules,
        options: DecodingOptions,
        workers: int,
        cancel: CancelToken,
    ) -> OnnxDecoderStep:
        """A decoder over the clips' encoder output; each clip is encoded alone, so that none changes another."""
        caption = self.folder.caption
        heads, width = caption.decoder_attention_heads, caption.d_model // caption.decoder_attention_heads
        threads = self._threads.cores // workers
        # The decoder first: while its largest matrix is loaded it takes twice its size, here before anything else runs.
        decoder = self._sessions.get(Graph.DECODER + self._suffix, threads)
        encoder = self._sessions.get(Graph.ENCODER + self._suffix, threads)
        slots = [frame_count(self.folder, clip) + self.folder.special_slots for clip in features]
        cross = CrossAttentionCache([item.name for item in encoder.get_outputs()], slots, heads, width)
        for index, clip in enumerate(features):
            cancel.check()
            cross.fill(index, encoder, encoder_inputs(self.folder, [clip]))
        rows = options.candidates if options.sample else options.width
        shape = (rules.max_length, caption.decoder_layers, 2, len(features), rows, heads, width)
        return OnnxDecoderStep(decoder, cross, shape, caption.vocab_size, cancel)

    @cached_property
    def text_tokenizer(self) -> Tokenizer:
        """What CLAP's text tower reads texts with."""
        return read_text_tokenizer(self.folder.path / CLAP)


def search(step: OnnxDecoderStep, clips: int, rules: TokenRules, options: DecodingOptions) -> list[list[Hypothesis]]:
    """Hypotheses of clips that are decoded together."""
    if options.sample:
        settings = SamplingSettings(options.candidates, options.temperature, options.top_p, options.seed)
        return sample(step, clips, rules, settings)
    if options.width == 1:
        return greedy_search(step, clips, rules)
    beam_settings = BeamSettings(options.width, options.candidates, options.length_penalty, options.early_stopping)
    return beam_search(step, clips, rules, beam_settings)
