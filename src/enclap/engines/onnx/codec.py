"""The codec's two graphs: convolutions over segments of a clip side by side, then what needs all frames in order.

A segment of a second stays in the processor's cache, where a whole clip's first layers take 30 MB each; and each core
takes segments of its own, where one convolution shared by two cores gains a quarter.
"""

from __future__ import annotations

from concurrent.futures import Executor, Future
from typing import Any

from enclap.hub.layout import CONTEXT_FRAMES
from enclap.types import FloatArray, IntArray


class OnnxCodec:
    """The codec over sessions of the graphs codec_latents and codec_codes.

    hop: samples per frame. segment: frames that are convolved at once.
    """

    def __init__(self, latents: Any, codes: Any, hop: int, segment: int) -> None:
        self._latents = latents
        self._codes = codes
        self.hop = hop
        context = latents.get_modelmeta().custom_metadata_map.get(CONTEXT_FRAMES)
        self._context = None if context is None else int(context)
        # The clip's start is mirrored, so its first frames see a little of what follows: a segment holds that too.
        self._segment = segment if self._context is None else max(segment, 2 * self._context)

    def begin(self, samples: FloatArray, pool: Executor) -> list[Future[FloatArray]]:
        """The latents [D, t] of a clip's segments, in order, now being computed. samples: float32 [N], N >= 1."""
        if self._context is None:
            return [pool.submit(self._convolve, samples, 0)]
        size, context = self._segment * self.hop, self._context * self.hop
        starts = range(0, len(samples), size)
        return [
            pool.submit(self._convolve, samples[max(0, start - context) : start + size], min(start, context))
            for start in starts
        ]

    def finish(self, latents: FloatArray) -> IntArray:
        """Codes int64 [T, K] of a clip's latents [D, T].

        One clip at a time: beside others it would be rounded otherwise, and a code between two entries would depend
        on what else is in the batch.
        """
        codes: IntArray = self._codes.run(None, {"latents": latents[None]})[0][0]
        return codes

    @property
    def looks_ahead(self) -> bool:
        """Whether later samples change earlier codes, so that segments are not exact."""
        return self._context is None

    def _convolve(self, samples: FloatArray, before: int) -> FloatArray:
        """Latents [D, t] of the samples after the first `before`."""
        latents: FloatArray = self._latents.run(None, {"samples": samples[None, None]})[0][0]
        return latents[:, before // self.hop :]
