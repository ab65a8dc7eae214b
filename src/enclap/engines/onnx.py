"""The default engine: exported graphs in onnxruntime, searched by numpy; needs no PyTorch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
from tokenizers import Tokenizer

from enclap.audio.resample import resample
from enclap.decoding.beam import BeamSettings, Hypothesis, beam_search, greedy_search
from enclap.decoding.filters import TokenRules
from enclap.decoding.options import DecodingOptions
from enclap.decoding.sampling import SamplingSettings, sample
from enclap.engines.batching import (
    candidates,
    clap_crops,
    encoder_inputs,
    frame_count,
    in_groups,
    log_mel,
    no_codes,
)
from enclap.engines.folder import ModelFolder, read_text_tokenizer
from enclap.engines.sizes import require_sizes
from enclap.errors import EnvironmentFault, ModelError, UsageError
from enclap.types import Candidate, Features, FloatArray, IntArray, Window

CUDA = "CUDAExecutionProvider"
CPU = "CPUExecutionProvider"
SILENT = 4
"""onnxruntime's log severity that lets only fatal faults through; the others reach the caller as exceptions."""


class OnnxEngine:
    """Runs `folder`/onnx with onnxruntime; each graph is loaded when it is first needed.

    device: "cpu", "cuda" or "auto" (cuda where onnxruntime offers it). threads: per operator; None leaves the choice
    to onnxruntime. precision: "float32", the only one so far.
    """

    name = "onnx"

    def __init__(
        self, folder: Path, *, device: str = "auto", precision: str = "float32", threads: int | None = None
    ) -> None:
        if precision != "float32":
            raise UsageError(f"the onnx engine runs in float32, not {precision}; leave the precision out")
        self.folder = ModelFolder.read(folder)
        self.code_rate = self.folder.caption.frame_rate
        self.max_frames = self.folder.max_frames
        self._providers = _providers(device)
        self._threads = threads
        for name in ("encoder", "decoder"):
            self.folder.require(f"onnx/{name}.onnx")

    def extract(self, windows: Sequence[Window]) -> list[Features]:
        """One Features per window, in order; a window's features do not depend on its neighbours."""
        features = [no_codes(self.folder)] * len(windows)
        if self.folder.codec_rate is not None:
            rate = self.folder.codec_rate
            samples = [resample(window.waveform, rate) for window in windows]
            features = [Features(codes, None) for codes in in_groups(samples, len, self._encode_audio)]
        return [
            replace(item, embedding=self._embed_audio(window), log_mel=log_mel(self.folder, window))
            for item, window in zip(features, windows, strict=True)
        ]

    def generate(self, features: Sequence[Features], options: DecodingOptions) -> list[list[Candidate]]:
        """Candidates per item, best first; an item's candidates do not depend on the rest of the batch."""
        rules = self.folder.rules.resolved(options, self.folder.caption.max_position_embeddings)
        found = in_groups(
            features,
            lambda item: frame_count(self.folder, item),
            lambda items: self._search(items, rules, options),
        )
        return [candidates(self.folder, hypotheses) for hypotheses in found]

    def embed_text(self, texts: Sequence[str]) -> FloatArray:
        """Float32 [N, E], unit length, from CLAP's text tower; ModelError when the folder has none."""
        if self.folder.clap is None:
            raise ModelError(f"{self.folder.path}: this model has no CLAP, so it cannot embed text")
        encoded = self._text_tokenizer.encode_batch(list(texts))
        ids = np.array([item.ids for item in encoded], dtype=np.int64)
        mask = np.array([item.attention_mask for item in encoded], dtype=np.int64)
        embeddings: FloatArray = self._clap_text.run(None, {"ids": ids, "mask": mask})[0]
        return embeddings

    def _encode_audio(self, samples: list[FloatArray]) -> list[IntArray]:
        codes: IntArray = self._codec.run(None, {"samples": np.stack(samples)[:, None]})[0]
        return list(codes)

    def _embed_audio(self, window: Window) -> FloatArray | None:
        crops = clap_crops(self.folder, window)
        if crops is None:
            return None
        embeddings: FloatArray = self._clap_audio.run(None, {"mel": crops[:, None]})[0]  # [C, E]
        mean = embeddings.mean(axis=0)
        direction: FloatArray = mean / np.float32(max(float(np.linalg.norm(mean)), 1e-12))
        return direction

    def _search(self, features: list[Features], rules: TokenRules, options: DecodingOptions) -> list[list[Hypothesis]]:
        """Hypotheses of clips of equal length."""
        caption = self.folder.caption
        cross = self._encoder.run(None, encoder_inputs(self.folder, features))
        clips = len(features)
        rows = options.candidates if options.sample else options.beams
        memory = (caption.decoder_layers, 2, clips, rows, caption.decoder_attention_heads)
        width = caption.d_model // caption.decoder_attention_heads
        stepper = _OnnxStepper(self._decoder, cross, (rules.max_length, *memory, width))
        if options.sample:
            settings = SamplingSettings(options.candidates, options.temperature, options.top_p, options.seed)
            return sample(stepper, clips, rules, settings)
        if options.beams == 1:
            return greedy_search(stepper, clips, rules)
        beam_settings = BeamSettings(options.beams, options.candidates, options.length_penalty, options.early_stopping)
        return beam_search(stepper, clips, rules, beam_settings)

    def _session(self, name: str) -> Any:
        path = self.folder.require(f"onnx/{name}.onnx")
        options = onnxruntime.SessionOptions()
        options.log_severity_level = SILENT
        # The export has simplified the graphs already; the higher levels cost more at load than a short file gains.
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC
        # Threads that wait by spinning make a decoding step on a busy machine four times slower.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        if self._threads is not None:
            options.intra_op_num_threads = self._threads
        try:
            session = onnxruntime.InferenceSession(str(path), options, providers=self._providers)
        except Exception as error:  # onnxruntime's own types share no base but this
            line = (str(error).strip() or repr(error)).splitlines()[0][:200]
            raise ModelError(f"{path}: damaged or not for this onnxruntime ({line}); export the model again") from error
        require_sizes(self.folder, name, session, path)
        return session

    @cached_property
    def _codec(self) -> Any:
        return self._session("codec")

    @cached_property
    def _clap_audio(self) -> Any:
        return self._session("clap_audio")

    @cached_property
    def _clap_text(self) -> Any:
        return self._session("clap_text")

    @cached_property
    def _encoder(self) -> Any:
        return self._session("encoder")

    @cached_property
    def _decoder(self) -> Any:
        return self._session("decoder")

    @cached_property
    def _text_tokenizer(self) -> Tokenizer:
        return read_text_tokenizer(self.folder.path / "clap")


class _OnnxStepper:
    """The decoder graph with its memory: the self-attention's keys and values of every step so far.

    Steps lie outermost in the memory, so that a step is appended in place and the filled part is one block, which
    onnxruntime reads without a copy.
    """

    def __init__(self, decoder: Any, cross: Sequence[FloatArray], shape: tuple[int, ...]) -> None:
        self._decoder = decoder
        names = [item.name for item in decoder.get_inputs()]
        self._cross = dict(zip(names[2:], cross, strict=True))  # behind tokens and past
        self._memory: FloatArray = np.empty(shape, dtype=np.float32)  # [max_length, layers, 2, B, W, H, D / H]
        self._steps = 0

    def step(self, tokens: IntArray) -> FloatArray:
        """Logits float32 [B, W, V] for what follows `tokens` [B, W]."""
        inputs = {"tokens": np.ascontiguousarray(tokens), "past": self._memory[: self._steps], **self._cross}
        logits, present = self._decoder.run(None, inputs)
        self._memory[self._steps] = present[0]
        self._steps += 1
        result: FloatArray = logits
        return result

    def reorder(self, beams: IntArray) -> None:
        """Let sequence w of clip b go on from sequence beams[b, w] of the same clip."""
        if (beams == np.arange(beams.shape[1])).all():
            return
        filled = self._memory[: self._steps]
        filled[...] = np.take_along_axis(filled, beams[None, None, None, :, :, None, None], axis=4)


def _providers(device: str) -> list[str]:
    """onnxruntime's execution providers for a device; UsageError or EnvironmentFault when there is none."""
    if device not in ("auto", "cpu", "cuda"):
        raise UsageError(f"the onnx engine knows the devices auto, cpu and cuda, not {device!r}")
    offered = CUDA in onnxruntime.get_available_providers()
    if device == "cuda" and not offered:
        raise EnvironmentFault("this onnxruntime has no CUDA: pip install onnxruntime-gpu, or use --device cpu")
    return [CPU] if device == "cpu" or not offered else [CUDA, CPU]
