"""mn04_as: a MobileNetV3 that knows AudioSet's 527 classes, with its front end.

Source: EfficientAT (Schmid, Koutini, Widmer, ICASSP 2023, arXiv 2211.04772); the sizes are those of its width 0.4.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

RATE = 32_000
"""Samples per second that the network reads."""
FFT_SIZE, WINDOW, HOP = 1_024, 800, 320
BANDS, HIGHEST = 128, 15_000.0
PRE_EMPHASIS = 0.97
STEP_SECONDS = 0.32
"""Of one step of the last map."""
WIDTH = 384
"""Channels of the last map, and numbers of the embedding."""
CLASSES = 527
NORM_EPSILON = 1e-3


def kaldi_mel_filters(bands: int, fft_size: int, rate: int, highest: float) -> Tensor:
    """Float32 [fft_size / 2, bands] of triangles that are linear in mel, from 0 Hz to `highest`, as Kaldi makes them.

    The bin of the Nyquist frequency is left out. mel(f) = 1127 ln(1 + f / 700).
    """

    def mel(hertz: Tensor) -> Tensor:
        return 1127.0 * torch.log1p(hertz / 700.0)

    edges = torch.linspace(0.0, float(mel(torch.tensor(highest, dtype=torch.float64))), bands + 2, dtype=torch.float64)
    bins = mel(torch.arange(fft_size // 2, dtype=torch.float64) * (rate / fft_size))[:, None]  # [bins, 1]
    rising = (bins - edges[:-2]) / (edges[1:-1] - edges[:-2])
    falling = (edges[2:] - bins) / (edges[2:] - edges[1:-1])
    return torch.minimum(rising, falling).clamp(min=0.0).float()


class MobileNetFrontEnd(nn.Module):
    """Waveforms to the log-mel spectrograms that mn04_as was trained on."""

    filters: Tensor
    window: Tensor

    def __init__(self) -> None:
        super().__init__()
        window = torch.hann_window(WINDOW, periodic=False)
        self.register_buffer("window", window, persistent=False)
        filters = kaldi_mel_filters(BANDS, FFT_SIZE, RATE, HIGHEST)
        self.register_buffer("filters", filters, persistent=False)

    def forward(self, samples: Tensor) -> Tensor:
        """Log-mel [B, 128, T] of samples [B, N] at 32 kHz; T is 1 + (N - 1) // 320."""
        emphasised = samples[:, 1:] - PRE_EMPHASIS * samples[:, :-1]
        spectrum = torch.stft(
            emphasised, FFT_SIZE, HOP, WINDOW, self.window, center=True, pad_mode="reflect", return_complex=True
        )
        power = spectrum.real.square() + spectrum.imag.square()  # [B, bins, T]
        mel = self.filters.T @ power[:, :-1]
        return ((mel + 1e-5).log() + 4.5) / 5.0


@dataclass(frozen=True, slots=True)
class BlockSizes:
    """Sizes of an inverted residual block. squeeze: whether it weighs its channels by their means."""

    inputs: int
    expanded: int
    kernel: int
    stride: int
    outputs: int
    squeeze: bool = False
    activation: type[nn.Module] = nn.ReLU


RELU_BLOCKS = (
    BlockSizes(8, 8, 3, 1, 8),
    BlockSizes(8, 24, 3, 2, 16),
    BlockSizes(16, 32, 3, 1, 16),
    BlockSizes(16, 32, 5, 2, 16, squeeze=True),
    BlockSizes(16, 48, 5, 1, 16, squeeze=True),
    BlockSizes(16, 48, 5, 1, 16, squeeze=True),
)
HARD_SWISH_BLOCKS = (
    BlockSizes(16, 96, 3, 2, 32, activation=nn.Hardswish),
    BlockSizes(32, 80, 3, 1, 32, activation=nn.Hardswish),
    BlockSizes(32, 72, 3, 1, 32, activation=nn.Hardswish),
    BlockSizes(32, 72, 3, 1, 32, activation=nn.Hardswish),
    BlockSizes(32, 192, 3, 1, 48, squeeze=True, activation=nn.Hardswish),
    BlockSizes(48, 272, 3, 1, 48, squeeze=True, activation=nn.Hardswish),
    BlockSizes(48, 272, 5, 2, 64, squeeze=True, activation=nn.Hardswish),
    BlockSizes(64, 384, 5, 1, 64, squeeze=True, activation=nn.Hardswish),
    BlockSizes(64, 384, 5, 1, 64, squeeze=True, activation=nn.Hardswish),
)


def convolution(
    inputs: int, outputs: int, kernel: int, stride: int, groups: int, activation: type[nn.Module] | None
) -> nn.Sequential:
    """A convolution with batch normalisation and, where one is given, an activation."""
    layers: list[nn.Module] = [
        nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, groups=groups, bias=False),
        nn.BatchNorm2d(outputs, eps=NORM_EPSILON),
    ]
    return nn.Sequential(*layers, *([] if activation is None else [activation()]))


class SqueezeExcitation(nn.Module):
    """Channels weighed by what their means over both axes say (arXiv 1709.01507)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        squeezed = rounded_to_eight(channels // 4)
        self.fc1 = nn.Linear(channels, squeezed)
        self.fc2 = nn.Linear(squeezed, channels)

    def forward(self, hidden: Tensor) -> Tensor:
        """[B, channels, M, T] of the same."""
        means = hidden.mean(dim=(2, 3))
        weights = torch.sigmoid(self.fc2(functional.relu(self.fc1(means))))
        return hidden * weights[:, :, None, None]


def rounded_to_eight(channels: int) -> int:
    """The nearest multiple of eight, at least 8, and not below nine tenths of the number."""
    rounded = max(8, (channels + 4) // 8 * 8)
    return rounded + 8 if rounded < 0.9 * channels else rounded


class ConcurrentSqueezeExcitation(nn.Module):
    """The one of the published choices of squeezes that mn04_as uses: over channels."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conc_se_layers = nn.ModuleList([SqueezeExcitation(channels)])

    def forward(self, hidden: Tensor) -> Tensor:
        """[B, channels, M, T] of the same."""
        weighed: Tensor = self.conc_se_layers[0](hidden)
        return weighed


class InvertedResidual(nn.Module):
    """Expansion, depthwise convolution, squeeze, projection; added to its input where sizes allow."""

    def __init__(self, sizes: BlockSizes) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        if sizes.expanded != sizes.inputs:
            layers.append(convolution(sizes.inputs, sizes.expanded, 1, 1, 1, sizes.activation))
        depthwise = (sizes.expanded, sizes.expanded, sizes.kernel, sizes.stride, sizes.expanded)
        layers.append(convolution(*depthwise, sizes.activation))
        if sizes.squeeze:
            layers.append(ConcurrentSqueezeExcitation(sizes.expanded))
        layers.append(convolution(sizes.expanded, sizes.outputs, 1, 1, 1, None))
        self.block = nn.Sequential(*layers)
        self._residual = sizes.stride == 1 and sizes.inputs == sizes.outputs

    def forward(self, hidden: Tensor) -> Tensor:
        """[B, outputs, M', T'] of [B, inputs, M, T]."""
        result: Tensor = self.block(hidden)
        return result + hidden if self._residual else result


class MobileNet(nn.Module):
    """mn04_as itself; the names of its weights are the published ones."""

    def __init__(self) -> None:
        super().__init__()
        blocks = [InvertedResidual(sizes) for sizes in (*RELU_BLOCKS, *HARD_SWISH_BLOCKS)]
        first = convolution(1, 8, 3, 2, 1, nn.Hardswish)
        last = convolution(64, WIDTH, 1, 1, 1, nn.Hardswish)
        self.features = nn.Sequential(first, *blocks, last)
        self.classifier = nn.Sequential(
            nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(WIDTH, 512), nn.Hardswish(), nn.Dropout(0.2),
            nn.Linear(512, CLASSES),
        )  # fmt: skip

    def map(self, mel: Tensor) -> Tensor:
        """The last map [B, 384, 4, T'] of log-mel [B, 128, T]; T' is T / 32, rounded up."""
        features: Tensor = self.features(mel[:, None])
        return features

    def forward(self, mel: Tensor) -> Tensor:
        """Logits [B, 527] of log-mel [B, 128, T]."""
        logits: Tensor = self.classifier(self.map(mel))
        return logits


def steps_of(frames: int) -> int:
    """Steps of the last map for so many mel frames."""
    return math.ceil(frames / 32)
