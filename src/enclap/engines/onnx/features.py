"""Windows to features with onnxruntime: codec, mel spectrograms and CLAP of several windows at once, a core each.

Two cores share little of what happens here well (recurrent layers, spectrograms, small convolutions), so every task
runs on one core, and the tasks keep all cores busy.
"""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from dataclasses import replace

import numpy as np

from enclap.audio.crops import mean_direction
from enclap.audio.resample import resample
from enclap.engines.batching import MAX_BATCH, clap_input, log_mel, no_codes
from enclap.engines.onnx.codec import OnnxCodec
from enclap.engines.onnx.sessions import Sessions
from enclap.hub.layout import Graph
from enclap.hub.model_folder import ModelFolder
from enclap.types import Features, FloatArray, IntArray, Window

Segments = list[Future[FloatArray]]
"""A clip's latents [D, t], segment after segment."""


class Extractor:
    """Computes features with the sessions' graphs."""

    def __init__(self, folder: ModelFolder, sessions: Sessions) -> None:
        self.folder = folder
        self._sessions = sessions

    def __call__(self, windows: Sequence[Window], whole: bool = False) -> list[Features]:
        """One Features per window, in order, not depending on its neighbours. whole: see `Engine.extract`."""
        features: list[Features] = []

        def other_inputs(window: Window) -> tuple[FloatArray | None, FloatArray | None]:
            mel, embedding = clap_input(self.folder, window), None
            if mel is not None:
                graph = Graph.CLAP_AUDIO if mel.shape[1] == 1 else Graph.CLAP_FUSED
                embedding = mean_direction(self._sessions.get(graph, threads=1).run(None, {"mel": mel})[0])
            return embedding, log_mel(self.folder, window)

        for start in range(0, len(windows), MAX_BATCH):
            with ThreadPoolExecutor(self._sessions.threads) as pool:
                part = windows[start : start + MAX_BATCH]
                # The order matters: convolutions can use every core, so they go first; the recurrent layers can use
                # one, so CLAP, which goes last, keeps the others busy.
                codes = self._begin_codes(part, whole, pool)
                inputs = [pool.submit(other_inputs, window) for window in part]
                found = [Features(item.result(), None) for item in codes] or [no_codes(self.folder)] * len(part)
                features += [
                    replace(item, embedding=embedding, log_mel=mel)
                    for item, (embedding, mel) in zip(found, (other.result() for other in inputs), strict=True)
                ]
        return features

    def _begin_codes(self, windows: Sequence[Window], whole: bool, pool: Executor) -> list[Future[IntArray]]:
        """The windows' codes in order, now being computed; none for a model without codes."""
        rate = self.folder.codec_rate
        if rate is None:
            return []
        codec = load_codec(self.folder, self._sessions)
        readable = self.folder.max_frames * codec.hop  # by the caption model
        limit = None if whole or codec.looks_ahead else readable
        clips = [codec.begin(resample(window.waveform, rate)[:limit], pool) for window in windows]

        def finish(segments: Segments) -> IntArray:
            # The segments were begun before: a pool works in order, so waiting cannot block it.
            return codec.finish(np.concatenate([segment.result() for segment in segments], axis=1))

        return [pool.submit(finish, segments) for segments in clips]


def load_codec(folder: ModelFolder, sessions: Sessions) -> OnnxCodec:
    """The codec over the folder's graphs, on one thread per call; a clip is convolved in segments of a second."""
    latents, codes = (sessions.get(graph, threads=1) for graph in (Graph.CODEC_LATENTS, Graph.CODEC_CODES))
    frame_rate = folder.caption.frame_rate
    return OnnxCodec(latents, codes, round((folder.codec_rate or 0) / frame_rate), max(1, round(frame_rate)))
