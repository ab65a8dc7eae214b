"""aiSFX: a nine-layer convolutional network trained to sort sound-effects libraries, with its front end.

Source: Ma and Lerch, Representation Learning for the Automatic Indexing of Sound Effects Libraries (ISMIR 2022); the
network is the nine-layer one of Kong et al. (DCASE 2018 baselines, arXiv 1808.00773), with maxima in place of means.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from enclap.audio.mel import MelFrontEnd

RATE = 44_100
"""Samples per second that the network reads."""
FFT_SIZE, HOP = 2_048, 1_024
BANDS, HIGHEST = 96, 22_050.0
COMPRESSION = 10_000.0
LARGEST = 9.457798957824707
"""The largest compressed value in the authors' data: their spectrograms are divided by it."""
BLOCK_FRAMES = 100
"""Frames of one block: 2.3 s."""
BLOCK_HOP = 50
"""Frames between blocks, as published."""
WIDTHS = (64, 128, 256, 512)
WIDTH = WIDTHS[-1]
"""Numbers of the embedding."""


class AiSfxFrontEnd(nn.Module):
    """Waveforms to the blocks of compressed mel spectrograms that aiSFX was trained on."""

    filters: Tensor
    window: Tensor

    def __init__(self) -> None:
        super().__init__()
        mel = MelFrontEnd(RATE, RATE, FFT_SIZE, HOP, BANDS, 0.0, HIGHEST)
        filters = torch.from_numpy(mel.filters)
        self.register_buffer("filters", filters / filters.sum(dim=0), persistent=False)  # unit area
        self.register_buffer("window", torch.hann_window(FFT_SIZE), persistent=False)

    def spectrogram(self, samples: Tensor) -> Tensor:
        """Compressed mel spectrogram [B, T, 96] of samples [B, N] at 44.1 kHz; T is 1 + N // 1024.

        Each recording is first brought to a peak of 1; silence stays silence.
        """
        peaks = samples.abs().amax(dim=1, keepdim=True)
        normalised = samples / torch.where(peaks > 0, peaks, 1.0)
        spectrum = torch.stft(
            normalised, FFT_SIZE, HOP, window=self.window, center=True, pad_mode="constant", return_complex=True
        )
        power = spectrum.real.square() + spectrum.imag.square()  # [B, bins, T]
        mel = power.transpose(1, 2) @ self.filters
        return (COMPRESSION * mel + 1.0).log10() / LARGEST

    def forward(self, samples: Tensor) -> Tensor:
        """Blocks [B, P, 100, 96] of samples [B, N]; a short recording is filled up, a remainder left out."""
        spectrogram = self.spectrogram(samples)
        padded = functional.pad(spectrogram, (0, 0, 0, max(0, BLOCK_FRAMES - spectrogram.shape[1])))
        return padded.unfold(1, BLOCK_FRAMES, BLOCK_HOP).transpose(2, 3)


class ConvolutionPair(nn.Module):
    """Two 3 × 3 convolutions with batch normalisation and ReLU, then maxima over `pool` × `pool` places."""

    def __init__(self, inputs: int, outputs: int, pool: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, padding=1, bias=False)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(outputs)
        self.bn2 = nn.BatchNorm2d(outputs)
        self._pool = pool

    def forward(self, hidden: Tensor) -> Tensor:
        """[B, outputs, T / pool, M / pool] of [B, inputs, T, M]."""
        hidden = functional.relu(self.bn1(self.conv1(hidden)))
        hidden = functional.relu(self.bn2(self.conv2(hidden)))
        return functional.max_pool2d(hidden, self._pool)


class AiSfx(nn.Module):
    """aiSFX's embedding network; the names of its weights are the published ones without "embedding_net."."""

    def __init__(self) -> None:
        super().__init__()
        self.conv_block1 = ConvolutionPair(1, WIDTHS[0], 2)
        self.conv_block2 = ConvolutionPair(WIDTHS[0], WIDTHS[1], 2)
        self.conv_block3 = ConvolutionPair(WIDTHS[1], WIDTHS[2], 2)
        self.conv_block4 = ConvolutionPair(WIDTHS[2], WIDTHS[3], 1)

    def steps(self, spectrogram: Tensor) -> Tensor:
        """One vector for each eight frames, [B, 512, T // 8], of spectrograms [B, T, 96]: means over the bands."""
        hidden = self.conv_block1(spectrogram[:, None])
        hidden = self.conv_block3(self.conv_block2(hidden))
        steps: Tensor = self.conv_block4(hidden).mean(dim=3)
        return steps

    def forward(self, spectrogram: Tensor) -> Tensor:
        """Embeddings [B, 512] of spectrograms [B, T, 96], T at least 8: maxima over time."""
        return self.steps(spectrogram).amax(dim=2)
