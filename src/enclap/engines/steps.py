"""What the decoder graph reads step after step: a batch's cross-attention memory and the beams' own memory.

Both lie in buffers that are made once a batch and are bound to the graph in place, because on many machines touching
new memory costs more than the arithmetic on it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from enclap.types import FloatArray, IntArray

HIDDEN = np.float32(-1e9)
"""Added to the scores of padding slots: their weights become exactly 0."""


class CrossMemory:
    """Cross-attention keys and values of B clips, padded to the longest, one pair of buffers a layer.

    slots: encoder slots of each clip.
    """

    def __init__(self, names: Sequence[str], slots: Sequence[int], heads: int, width: int) -> None:
        self.slots = list(slots)
        longest, clips = max(slots), len(slots)
        make = np.empty if min(slots) == longest else np.zeros  # padding must be finite
        keys, values = (clips, heads, width, longest), (clips, heads, longest, width)
        self.buffers = {name: make(keys if "key" in name else values, dtype=np.float32) for name in names}
        places = np.arange(longest)[None]
        self.bias: FloatArray = np.where(places < np.array(slots)[:, None], np.float32(0), HIDDEN)

    def fill(self, clip: int, encoder: Any, inputs: dict[str, np.ndarray]) -> None:
        """Run the encoder for one clip into its place."""
        if self.slots[clip] == self.bias.shape[1]:
            self._run_in_place(clip, encoder, inputs)
            return
        names = list(self.buffers)
        for name, array in zip(names, encoder.run(names, inputs), strict=True):
            place = self.buffers[name][clip]
            place[tuple(slice(0, size) for size in array.shape[1:])] = array[0]

    def _run_in_place(self, clip: int, encoder: Any, inputs: dict[str, np.ndarray]) -> None:
        binding = encoder.io_binding()
        for name, array in inputs.items():
            binding.bind_cpu_input(name, array)
        for name, buffer in self.buffers.items():
            bind_output(binding, name, buffer[clip : clip + 1])
        encoder.run_with_iobinding(binding)


class OnnxStepper:
    """The decoder graph with its memory: the self-attention's keys and values of every token so far.

    Tokens lie outermost in the memory, so that a step is appended in place and the filled part is one block.
    """

    def __init__(self, decoder: Any, cross: CrossMemory, shape: tuple[int, ...], vocabulary: int) -> None:
        self._decoder = decoder
        self.vocabulary = vocabulary
        self._memory: FloatArray = np.empty(shape, dtype=np.float32)  # [max_length, layers, 2, B, W, H, D / H]
        self._logits: FloatArray = np.empty((*shape[3:5], vocabulary), dtype=np.float32)  # [B, W, V]
        self._used = 0
        self._cross = cross  # keeps the bound buffers alive
        self._binding = decoder.io_binding()
        bind_output(self._binding, "logits", self._logits)
        for name, array in {"cross_bias": cross.bias, **cross.buffers}.items():
            bind_input(self._binding, name, array)

    def step(self, tokens: IntArray) -> FloatArray:
        """Logits float32 [B, W, V] for what follows `tokens` [B, W, N], in a buffer that the next step overwrites."""
        new = tokens.shape[2]
        tokens = np.ascontiguousarray(tokens)
        bind_input(self._binding, "tokens", tokens)
        bind_input(self._binding, "past", self._memory[: self._used])
        bind_output(self._binding, "present", self._memory[self._used : self._used + new])
        self._decoder.run_with_iobinding(self._binding)
        self._used += new
        return self._logits

    def reorder(self, beams: IntArray) -> None:
        """Let sequence w of clip b go on from sequence beams[b, w] of the same clip."""
        for clip, order in enumerate(beams):
            if (order != np.arange(len(order))).any():
                filled = self._memory[: self._used, :, :, clip]  # [P, layers, 2, W, H, D / H]
                filled[...] = filled[:, :, :, order]


def bind_input(binding: Any, name: str, array: np.ndarray) -> None:
    """Let the graph read a contiguous array where it lies; the caller keeps it alive."""
    binding.bind_input(name, "cpu", 0, array.dtype.type, array.shape, array.ctypes.data)


def bind_output(binding: Any, name: str, array: np.ndarray) -> None:
    """Let the graph write into a contiguous array."""
    binding.bind_output(name, "cpu", 0, array.dtype.type, array.shape, array.ctypes.data)
