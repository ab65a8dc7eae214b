"""What the decoder graph reads step after step: a batch's cross-attention cache and its beams' self-attention cache.

Both lie in buffers that are made once a batch and are bound to the graph in place, because on many machines touching
new memory costs more than the arithmetic on it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from enclap.engines.onnx.threads import CancelToken
from enclap.types import FloatArray, IntArray

PADDING_BIAS = np.float32(-1e9)
"""Added to the attention scores of padding slots: their weights become exactly 0."""


class CrossAttentionCache:
    """Cross-attention keys and values of B clips, padded to the L slots of the longest.

    names: of the encoder's outputs, a pair for each layer. slots: encoder slots of each clip.
    Several clips share one buffer for each name. A single clip's come from onnxruntime's arena, which has space then:
    what the codec and CLAP needed is free again.
    """

    def __init__(self, names: Sequence[str], slots: Sequence[int], heads: int, width: int) -> None:
        self.names = list(names)
        self.slots = list(slots)
        longest, clips = max(slots), len(slots)
        self._single: dict[str, Any] = {}  # OrtValues
        self._buffers: dict[str, FloatArray] = {}
        if clips > 1:
            make = np.empty if min(slots) == longest else np.zeros  # padding must be finite
            keys, values = (clips, heads, width, longest), (clips, heads, longest, width)
            self._buffers = {name: make(keys if "key" in name else values, dtype=np.float32) for name in names}
        is_slot = np.arange(longest)[None] < np.array(slots)[:, None]  # [B, L]
        self._bias: FloatArray = np.where(is_slot, np.float32(0), PADDING_BIAS)

    def fill(self, clip: int, encoder: Any, inputs: dict[str, np.ndarray]) -> None:
        """Run the encoder for one clip and keep what it gives as that of clip number `clip`."""
        if self.slots[clip] < self._bias.shape[1]:
            for name, array in zip(self.names, encoder.run(self.names, inputs), strict=True):
                row = self._buffers[name][clip]
                row[tuple(slice(0, size) for size in array.shape[1:])] = array[0]
            return
        binding = encoder.io_binding()
        for name, array in inputs.items():
            binding.bind_cpu_input(name, array)
        for name in self.names:
            if self._buffers:
                bind_output(binding, name, self._buffers[name][clip : clip + 1])
            else:
                binding.bind_output(name, "cpu")
        encoder.run_with_iobinding(binding)
        if not self._buffers:
            self._single = dict(zip(self.names, binding.get_outputs(), strict=True))

    def bind(self, binding: Any) -> None:
        """Let the decoder read the cache where it lies; the caller keeps this object alive."""
        bind_input(binding, "cross_bias", self._bias)
        for name, array in self._buffers.items():
            bind_input(binding, name, array)
        for name, value in self._single.items():
            binding.bind_ortvalue_input(name, value)


class OnnxDecoderStep:
    """The decoder graph with its self-attention cache: the keys and values of every token so far.

    Tokens lie outermost in the cache, so that a step is appended in place and the filled part is one block.
    """

    def __init__(
        self, decoder: Any, cross: CrossAttentionCache, shape: tuple[int, ...], vocabulary: int, cancel: CancelToken
    ) -> None:
        self._decoder = decoder
        self._cancel = cancel
        self._cache: FloatArray = np.empty(shape, dtype=np.float32)  # [max_length, layers, 2, B, W, H, D / H]
        self._logits: FloatArray = np.empty((*shape[3:5], vocabulary), dtype=np.float32)  # [B, W, V]
        self._used = 0
        self._cross = cross  # keeps the bound buffers alive
        self._binding = decoder.io_binding()
        bind_output(self._binding, "logits", self._logits)
        cross.bind(self._binding)

    def step(self, tokens: IntArray) -> FloatArray:
        """Logits float32 [B, W, V] for what follows `tokens` [B, W, N], in a buffer that the next step overwrites."""
        self._cancel.check()
        new = tokens.shape[2]
        tokens = np.ascontiguousarray(tokens)
        bind_input(self._binding, "tokens", tokens)
        bind_input(self._binding, "past", self._cache[: self._used])
        bind_output(self._binding, "present", self._cache[self._used : self._used + new])
        self._decoder.run_with_iobinding(self._binding)
        self._used += new
        return self._logits

    def reorder(self, beams: IntArray) -> None:
        """Let sequence w of clip b go on from sequence beams[b, w] of the same clip."""
        for clip, order in enumerate(beams):
            if (order != np.arange(len(order))).any():
                filled = self._cache[: self._used, :, :, clip]  # [P, layers, 2, W, H, D / H]
                filled[...] = filled[:, :, :, order]


def bind_input(binding: Any, name: str, array: np.ndarray) -> None:
    """Let the graph read a contiguous array where it lies; the caller keeps it alive."""
    binding.bind_input(name, "cpu", 0, array.dtype.type, array.shape, array.ctypes.data)


def bind_output(binding: Any, name: str, array: np.ndarray) -> None:
    """Let the graph write into a contiguous array."""
    binding.bind_output(name, "cpu", 0, array.dtype.type, array.shape, array.ctypes.data)
