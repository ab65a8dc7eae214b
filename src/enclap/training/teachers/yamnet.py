"""YAMNet: a MobileNetV1 that knows 521 of AudioSet's classes, with its front end.

Source: Google's research/audioset (tensorflow/models); the network is that of MobileNets (Howard et al., arXiv
1704.04861) with batch normalisation folded into its convolutions.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from enclap.audio.mel import MelFrontEnd

RATE = 16_000
"""Samples per second that the network reads."""
WINDOW, HOP, FFT_SIZE = 400, 160, 512
BANDS, LOWEST, HIGHEST = 64, 125.0, 7_500.0
LOG_OFFSET = 1e-3
PATCH_FRAMES = 96
"""Frames of one patch: 0.96 s."""
PATCH_HOP = 48
"""Frames between patches as published; 96 costs half."""
PATCH_SAMPLES = WINDOW + (PATCH_FRAMES - 1) * HOP
"""Samples of one patch; shorter recordings are filled up with silence."""
WIDTH = 1_024
"""Channels of the last map, and numbers of the embedding."""
CLASSES = 521
FIRST_WIDTH = 32
LAYERS = ((1, 64), (2, 128), (1, 128), (2, 256), (1, 256), (2, 512), *[(1, 512)] * 5, (2, 1_024), (1, 1_024))
"""(stride, width) of each depthwise convolution and the pointwise one that follows it."""


class YamNetFrontEnd(nn.Module):
    """Waveforms to the log-mel patches that YAMNet was trained on."""

    filters: Tensor
    window: Tensor

    def __init__(self, patch_hop: int = PATCH_HOP) -> None:
        super().__init__()
        self._patch_hop = patch_hop
        mel = MelFrontEnd(RATE, PATCH_SAMPLES, FFT_SIZE, HOP, BANDS, LOWEST, HIGHEST)
        self.register_buffer("filters", torch.from_numpy(mel.filters), persistent=False)
        self.register_buffer("window", torch.hann_window(WINDOW), persistent=False)

    def log_mel(self, samples: Tensor) -> Tensor:
        """Log-mel [B, T, 64] of samples [B, N] at 16 kHz; T is 1 + (N - 400) // 160, at least 96."""
        padded = functional.pad(samples, (0, max(0, PATCH_SAMPLES - samples.shape[1])))
        frames = padded.unfold(1, WINDOW, HOP) * self.window  # [B, T, 400]
        spectrum: Tensor = torch.fft.rfft(frames, FFT_SIZE)  # [B, T, 257]
        return (spectrum.abs() @ self.filters + LOG_OFFSET).log()

    def forward(self, samples: Tensor) -> Tensor:
        """Patches [B, P, 96, 64] of samples [B, N]; a remainder that fills no patch is left out."""
        return self.log_mel(samples).unfold(1, PATCH_FRAMES, self._patch_hop).transpose(2, 3)


class YamNet(nn.Module):
    """YAMNet itself: 27 convolutions, each followed by ReLU, and one linear layer, in the order of the published graph.

    It reads patches [B, 96, 64], or log-mel [B, T, 64] of any multiple of 32 frames.
    """

    def __init__(self) -> None:
        super().__init__()
        convolutions = [nn.Conv2d(1, FIRST_WIDTH, 3, stride=2)]
        inputs = FIRST_WIDTH
        for stride, outputs in LAYERS:
            # At stride 2 zeros stand after the last frame and band alone, see `map`.
            padding = 1 if stride == 1 else 0
            convolutions.append(nn.Conv2d(inputs, inputs, 3, stride, padding, groups=inputs))
            convolutions.append(nn.Conv2d(inputs, outputs, 1))
            inputs = outputs
        self.convolutions = nn.ModuleList(convolutions)
        self.classifier = nn.Linear(WIDTH, CLASSES)

    def map(self, log_mel: Tensor) -> Tensor:
        """The last map [B, 1024, T / 32, 2] of log-mel [B, T, 64]."""
        hidden = log_mel[:, None]
        for convolution in self.convolutions:
            if convolution.stride == (2, 2):
                hidden = functional.pad(hidden, (0, 1, 0, 1))  # as TensorFlow's "same" does for even sizes
            hidden = functional.relu(convolution(hidden))
        return hidden

    def embed(self, log_mel: Tensor) -> Tensor:
        """Embeddings [B, 1024] of log-mel [B, T, 64]: means of the last map over both axes."""
        return self.map(log_mel).mean(dim=(2, 3))

    def forward(self, log_mel: Tensor) -> Tensor:
        """Logits [B, 521] of log-mel [B, T, 64]."""
        logits: Tensor = self.classifier(self.embed(log_mel))
        return logits
