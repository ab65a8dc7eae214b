"""The codec's two graphs: convolutions over stretches of a clip side by side, then what needs all frames in order.

A stretch of a second stays in the processor's cache, where a whole clip's first layers take 30 MB each; and stretches
run on a core each, where one convolution shared by two cores gains a quarter.
"""

from __future__ import annotations

from concurrent.futures import Executor, Future
from typing import Any

from enclap.types import FloatArray, IntArray

CONTEXT_NOTE = "context_frames"
"""Metadata of codec_frames.onnx: frames by which a stretch's start reaches into its output; absent if all do."""


class OnnxCodec:
    """The codec over sessions of codec_frames.onnx and codec_codes.onnx.

    hop: samples per frame. stretch: frames that are convolved at once.
    """

    def __init__(self, frames: Any, codes: Any, hop: int, stretch: int) -> None:
        self._frames = frames
        self._codes = codes
        self.hop = hop
        note = frames.get_modelmeta().custom_metadata_map.get(CONTEXT_NOTE)
        self._context = None if note is None else int(note)
        # The clip's start is mirrored, so its first frames see a little of what follows: a stretch holds that too.
        self._stretch = stretch if self._context is None else max(stretch, 2 * self._context)

    def begin(self, samples: FloatArray, pool: Executor) -> list[Future[FloatArray]]:
        """The frames [C, t] of a clip's stretches, in order, now being computed. samples: float32 [N], N >= 1."""
        if self._context is None:
            return [pool.submit(self._convolve, samples, 0)]
        size, context = self._stretch * self.hop, self._context * self.hop
        starts = range(0, len(samples), size)
        return [
            pool.submit(self._convolve, samples[max(0, start - context) : start + size], min(start, context))
            for start in starts
        ]

    def finish(self, frames: FloatArray) -> IntArray:
        """Codes int64 [T, K] of a clip's frames [C, T].

        One clip at a time: beside others it would be rounded otherwise, and a code between two entries would depend
        on what else is in the batch.
        """
        codes: IntArray = self._codes.run(None, {"frames": frames[None]})[0][0]
        return codes

    @property
    def looks_ahead(self) -> bool:
        """Whether later samples change earlier codes, so that stretches are not exact."""
        return self._context is None

    def _convolve(self, samples: FloatArray, before: int) -> FloatArray:
        """Frames [C, t] of the samples behind the first `before`."""
        frames: FloatArray = self._frames.run(None, {"samples": samples[None, None]})[0][0]
        return frames[:, before // self.hop :]
