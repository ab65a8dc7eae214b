"""Windows to features on an accelerator: resampling, spectrograms, codec and CLAP, all of a batch at once.

The processor only copies samples. The same code runs on any device, which is how it is tested; on a processor the
engine takes the front end in numpy instead, clip by clip, so that its features stay what they are to the bit.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field, replace
from fractions import Fraction

import numpy as np
import torch
from torch import Tensor

from enclap.audio.crops import mean_direction
from enclap.audio.resample import resample
from enclap.engines.batching import LEAST_LENGTH, no_codes, similar_lengths
from enclap.errors import EnvironmentFault
from enclap.hub.model_folder import ModelFolder
from enclap.model.clap import Clap
from enclap.model.codec import Codec
from enclap.model.front_end import MelSpectrograms, Resampler
from enclap.types import Features, FloatArray, Waveform, Window

MOST_TOGETHER = 64
"""Clips of 10 s in a batch where memory allows: the recurrent layers take hardly longer for so many than for one."""
SECONDS = 10.0
SHARE_OF_MEMORY = 0.5
"""Of the free memory, for features; the rest is for the search that runs beside."""
LIVE_MAPS = 8
"""Feature maps of the codec's first layers, the largest there are, that are in memory at a time."""


class TorchExtractor:
    """Computes features with a model's codec and CLAP, which are on `device`; codec, clap: None where it has none."""

    def __init__(self, folder: ModelFolder, codec: Codec | None, clap: Clap | None, device: torch.device) -> None:
        self.folder, self.device = folder, device
        self._codec, self._clap = codec, clap
        self._clap_mel = None if folder.clap is None else MelSpectrograms(folder.clap, device)
        self._log_mel = None if folder.mel is None else MelSpectrograms(folder.mel, device)
        self._resamplers: dict[tuple[int, int], Resampler] = {}
        self._stream: torch.cuda.Stream | None = None
        if device.type == "cuda":
            torch.cuda.synchronize(device)  # the weights are there
            # The search has another stream, so that both run at a time.
            self._stream = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]

    def __call__(self, windows: Sequence[Window], whole: bool = False) -> list[Features]:
        """One Features per window, in order. whole: see `Engine.extract`.

        Everything is begun before anything is waited for: the processor prepares a batch while the device is busy.
        """
        context = nullcontext() if self._stream is None else torch.cuda.stream(self._stream)
        with context, exact_float32(), torch.inference_mode():
            begun = [part for batch in self.batches(windows) for part in self._begin(windows, batch, whole)]
            found = {index: features for part in begun for index, features in part.fetch(self.folder).items()}
        return [found[index] for index in range(len(windows))]

    def batches(self, windows: Sequence[Window]) -> list[list[int]]:
        """Indices of windows that are encoded together: of one rate, of similar length, as many as memory allows."""
        rates: dict[int, list[int]] = {}
        for index, window in enumerate(windows):
            rates.setdefault(window.waveform.rate, []).append(index)
        together = self.windows_that_fit()
        found = []
        for rate, indices in rates.items():
            lengths = [len(windows[index].waveform.samples) for index in indices]

            def limit(length: int, rate: int = rate) -> int:
                return max(1, int(together * min(1.0, SECONDS * rate / length)))

            same = self._codec is not None and not self._codec.takes_lengths
            parts = similar_lengths(lengths, limit, Fraction(1) if same else LEAST_LENGTH)
            found += [[indices[place] for place in part] for part in parts]
        return found

    def windows_that_fit(self) -> int:
        """How many windows of 10 s are encoded together: MOST_TOGETHER, or what fits into the free memory."""
        if self.device.type != "cuda" or self._codec is None:
            return MOST_TOGETHER
        free = torch.cuda.mem_get_info(self.device)[0]
        free += torch.cuda.memory_reserved(self.device) - torch.cuda.memory_allocated(self.device)
        fit = int(SHARE_OF_MEMORY * free / (SECONDS * self._codec.bytes_per_second(LIVE_MAPS)))
        return max(1, min(MOST_TOGETHER, fit))

    def _begin(self, windows: Sequence[Window], batch: list[int], whole: bool) -> list[_Batch]:
        """The batch, begun; or halves of it, one after the other, where its memory is not there after all."""
        try:
            return [self.launch(batch, [windows[index].waveform for index in batch], whole)]
        except torch.OutOfMemoryError as error:
            if len(batch) == 1:
                seconds = windows[batch[0]].waveform.seconds
                remedy = "use shorter windows, or --device cpu"
                raise EnvironmentFault(f"{self.device}: no memory for a window of {seconds:.0f} s; {remedy}") from error
        torch.cuda.empty_cache()
        middle = len(batch) // 2
        return [part for half in (batch[:middle], batch[middle:]) for part in self._begin(windows, half, whole)]

    def launch(self, indices: list[int], waveforms: list[Waveform], whole: bool) -> _Batch:
        """What the device computes of waveforms of one rate, now begun; indices: of their windows."""
        samples, lengths = self._staged([waveform.samples for waveform in waveforms])
        begun = _Batch(indices)
        if self._codec is not None:
            converted, counts = self._resampled(samples, lengths, self._codec.rate, waveforms)
            if self._codec.is_causal and not whole:
                readable = self.folder.max_frames * self._codec.hop
                counts = [min(count, readable) for count in counts]
            begun.codes = self._codec.encode_lengths(converted, counts)
            begun.frames = [-(-count // self._codec.hop) for count in counts]
        if self._clap is not None and self._clap_mel is not None:
            converted, counts = self._resampled(samples, lengths, self._clap_mel.front_end.rate, waveforms)
            embeddings = self._clap.embed_tensors(self._clap_mel.tower_inputs(converted, counts))
            begun.embeddings, begun.crops = torch.cat(embeddings), [len(clip) for clip in embeddings]
        if self._log_mel is not None:
            converted, counts = self._resampled(samples, lengths, self._log_mel.front_end.rate, waveforms)
            begun.log_mel = self._log_mel.log_mel(converted, counts)
            begun.mel_frames = [-(-count // self._log_mel.front_end.hop) for count in counts]
        return begun

    def _resampled(
        self, samples: Tensor, lengths: list[int], target: int, waveforms: list[Waveform]
    ) -> tuple[Tensor, list[int]]:
        """The clips at the target rate, and their lengths in it."""
        rate = waveforms[0].rate
        if rate == target:
            return samples, lengths
        if not Resampler.can_convert(rate, target):  # by soxr, on all cores
            with ThreadPoolExecutor() as pool:
                return self._staged(list(pool.map(lambda waveform: resample(waveform, target), waveforms)))
        if (rate, target) not in self._resamplers:
            self._resamplers[rate, target] = Resampler(rate, target, self.device)
        return self._resamplers[rate, target](samples, lengths)

    def _staged(self, arrays: list[FloatArray]) -> tuple[Tensor, list[int]]:
        """Float32 [B, N] on the device, zeros after each clip, and the clips' lengths; copied beside other work."""
        lengths = [len(array) for array in arrays]
        host = torch.empty((len(arrays), max(lengths)), pin_memory=self.device.type == "cuda")
        for row, array in zip(host.numpy(), arrays, strict=True):
            row[: len(array)] = array
            row[len(array) :] = 0
        return host.to(self.device, non_blocking=True), lengths


@dataclass(slots=True)
class _Batch:
    """What the device computes of the windows at `indices`.

    codes: [B, T, K], of which a window has so many `frames`. embeddings: [C, E], so many `crops` of each window.
    log_mel: [B, F, M], of which a window has `mel_frames`. None for what the model does not read.
    """

    indices: list[int]
    codes: Tensor | None = None
    frames: list[int] = field(default_factory=list)
    embeddings: Tensor | None = None
    crops: list[int] = field(default_factory=list)
    log_mel: Tensor | None = None
    mel_frames: list[int] = field(default_factory=list)

    def fetch(self, folder: ModelFolder) -> dict[int, Features]:
        """The windows' features by index, once they are computed."""
        found = {index: no_codes(folder) for index in self.indices}
        if self.codes is not None:
            for index, codes, frames in zip(self.indices, self.codes.cpu().numpy(), self.frames, strict=True):
                found[index] = Features(codes[:frames].copy(), None)  # not a view, which would keep the whole batch
        if self.embeddings is not None:
            crops = np.split(self.embeddings.cpu().numpy(), np.cumsum(self.crops)[:-1])
            for index, embeddings in zip(self.indices, crops, strict=True):
                found[index] = replace(found[index], embedding=mean_direction(embeddings))
        if self.log_mel is not None:
            for index, mel, frames in zip(self.indices, self.log_mel.cpu().numpy(), self.mel_frames, strict=True):
                found[index] = replace(found[index], log_mel=mel[: max(1, frames)].copy())
        return found


class _Float32Users:
    """How many threads need exact products now, and what the settings were before the first of them."""

    lock = threading.Lock()
    count = 0
    before = (True, "none")


@contextmanager
def exact_float32() -> Iterator[None]:
    """Convolutions and products in all of float32's bits, where a GPU would round their factors to 10 bits (TF32).

    The settings are the process's, so that the first of several threads changes them and the last restores them.
    """
    convolutions, products = torch.backends.cudnn, torch.backends.cuda.matmul
    with _Float32Users.lock:
        if _Float32Users.count == 0:
            _Float32Users.before = convolutions.allow_tf32, products.fp32_precision
            convolutions.allow_tf32, products.fp32_precision = False, "ieee"
        _Float32Users.count += 1
    try:
        yield
    finally:
        with _Float32Users.lock:
            _Float32Users.count -= 1
            if _Float32Users.count == 0:
                convolutions.allow_tf32, products.fp32_precision = _Float32Users.before
