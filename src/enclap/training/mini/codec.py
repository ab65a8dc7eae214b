"""Training of mini's codec: the encoder first, residual k-means on its latents, then fine-tuning through the codes.

transformers' EncodecModel brings the network and the quantiser, but no training of the codebooks; that is here.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional
from transformers import EncodecConfig, EncodecModel

from enclap.audio.mel import MelFrontEnd
from enclap.data.recordings import Corpus
from enclap.training.recipe import Optimisation, Settings
from enclap.types import FloatArray

FFT_SIZES = (256, 512, 1_024)
"""STFT sizes of the reconstruction loss, a quarter of each as hop (several: SoundStream, arXiv 2107.03312)."""
AUDIBLE = 1e-2
"""Magnitude added before the logarithm; otherwise inaudible parts would weigh most in it."""
BANDS, MEL_FFT_SIZE, MELS_PER_CODE = 64, 1_024, 2
"""The mel spectrogram that latents must hold: bands, samples per frame, frames per code."""
FAINTEST = 1e-2
"""Smallest mel power that is distinguished: about 70 dB under a full-scale tone."""
FIRST_GAIN = 20.0
"""How much the first convolution's start is enlarged. ELU is all but linear for samples of a few hundredths, and a
linear network cannot measure energy: without this the encoder is stuck at loudness alone for a thousand steps."""
COMMITMENT = 0.25
"""Weight of the pull of latents towards their codes (VQ-VAE, arXiv 1711.00937)."""
CODEBOOK_DECAY = 0.98
DEAD_BELOW = 0.05
"""A code whose running count falls under this is set on a latent of the batch (Jukebox, arXiv 2005.00341)."""


class CodecRecipe(Settings):
    """Sizes as transformers' EncodecConfig names them, and the two optimisations."""

    model: dict[str, Any]
    segment_seconds: float = 1.6
    clustering_items: int = 600
    encoder: Optimisation
    quantised: Optimisation


def build_codec(recipe: CodecRecipe) -> EncodecModel:
    """An EncodecModel with random weights, of the recipe's sizes, whose first layer responds to quiet sounds too."""
    codec = EncodecModel(EncodecConfig(**recipe.model))
    with torch.no_grad():
        codec.encoder.layers[0].conv.parametrizations.weight.original0.mul_(FIRST_GAIN)  # weight norm's lengths
    return codec


def make_segment_sampler(
    corpus: Corpus, cumulative_weights: NDArray[np.float64], samples: int, seed: int
) -> Callable[[int], FloatArray]:
    """A function from item number to a random segment of a recording, float32 [samples], at a random level."""
    return partial(draw_segment, corpus, cumulative_weights, samples, seed)


def draw_segment(
    corpus: Corpus, cumulative_weights: NDArray[np.float64], samples: int, seed: int, number: int
) -> FloatArray:
    """A random segment of a random recording at a random level, float32 [samples]; a short one has silence around."""
    generator = np.random.default_rng((seed, number))
    audio = corpus.audio(int(np.searchsorted(cumulative_weights, generator.random())))
    if len(audio) < samples:
        before = int(generator.integers(0, samples - len(audio) + 1))
        audio = np.pad(audio, (before, samples - len(audio) - before))
    start = int(generator.integers(0, len(audio) - samples + 1))
    segment = audio[start : start + samples]
    level = 10.0 ** (generator.uniform(-30.0, -1.0) / 20.0)
    return (segment * np.float32(level / max(float(np.abs(segment).max()), 1e-3))).astype(np.float32)


def stack_segments(items: Sequence[FloatArray]) -> dict[str, Tensor]:
    """A batch: {"audio": float32 [B, N]}."""
    return {"audio": torch.from_numpy(np.stack(items))}


class CodecTraining(nn.Module):
    """EncodecModel with the losses that train it.

    The encoder learns to keep what a mel spectrogram shows, read from its latents by one small convolution: through a
    waveform decoder the same would take many hours. With `quantised`, the latents pass through the codebooks, and the
    decoder learns the waveform of the codes without any say in them.
    """

    def __init__(self, codec: EncodecModel, quantised: bool) -> None:
        super().__init__()
        self.codec = codec
        self.mel_head = nn.Conv1d(codec.config.hidden_size, MELS_PER_CODE * BANDS, 3, padding=1)
        self._quantised = quantised
        rate = codec.config.sampling_rate
        front_end = MelFrontEnd(rate, rate, MEL_FFT_SIZE, 1, BANDS, 50.0, 0.475 * rate)
        self.filters: Tensor
        self.register_buffer("filters", torch.from_numpy(front_end.filters), persistent=False)

    def forward(self, audio: Tensor) -> dict[str, Tensor]:
        """The loss with its parts, of audio [B, N]; while training with codes, the codebooks move too."""
        latent = self.codec.encoder(audio.unsqueeze(1))  # [B, D, T]
        if not self._quantised:
            loss = self.mel_error(latent, audio)
            return {"loss": loss, "mel_loss": loss}
        latent, commitment, perplexity = self._quantise(latent)
        parts = {"commitment_loss": commitment, "perplexity": perplexity, "mel_loss": self.mel_error(latent, audio)}
        decoded = self.codec.decoder(latent.detach()).squeeze(1)[:, : audio.shape[1]]
        parts["spectral_loss"] = spectral_loss(decoded, audio)
        parts["wave_loss"] = functional.l1_loss(decoded, audio)
        loss = parts["mel_loss"] + COMMITMENT * commitment + parts["spectral_loss"] + 2.0 * parts["wave_loss"]
        return {"loss": loss, **parts}

    def mel_error(self, latent: Tensor, audio: Tensor) -> Tensor:
        """Mean squared error of the mel spectrogram read from latents [B, D, T], in units of 20 dB."""
        read = self.mel_head(latent).reshape(len(audio), MELS_PER_CODE, BANDS, latent.shape[2])
        target = self.log_mel(audio).reshape(len(audio), BANDS, latent.shape[2], MELS_PER_CODE)
        return functional.mse_loss(read, target.permute(0, 3, 1, 2))

    def log_mel(self, audio: Tensor) -> Tensor:
        """Mel spectrogram [B, M, F] of audio [B, N] in units of 20 dB; frames end where codes end."""
        hop = self.codec.config.hop_length // MELS_PER_CODE
        padded = functional.pad(audio, (MEL_FFT_SIZE - hop, 0))
        window = torch.hann_window(MEL_FFT_SIZE, device=audio.device)
        power = torch.stft(padded, MEL_FFT_SIZE, hop, window=window, center=False, return_complex=True).abs().square()
        return torch.log10((self.filters.T @ power).clamp(min=FAINTEST)) / 2.0

    def _quantise(self, latent: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Codes' vectors with straight-through gradients, the commitment loss, the mean perplexity of the codebooks.

        In training half the steps use a random number of codebooks (quantiser dropout, arXiv 2107.03312).
        """
        layers = self.codec.quantizer.layers
        count = len(layers)
        if self.training and torch.rand(()) < 0.5:
            count = int(torch.randint(1, len(layers) + 1, ()))
        flat = latent.transpose(1, 2).reshape(-1, latent.shape[1])  # [B * T, D]
        residual, total, commitment = flat, torch.zeros_like(flat), flat.new_zeros(())
        perplexities = []
        for layer in layers[:count]:
            codebook = layer.codebook
            codes = codebook.quantize(residual.detach())
            vectors = functional.embedding(codes, codebook.embed)
            commitment = commitment + functional.mse_loss(residual, vectors)
            if self.training:
                move_codebook(codebook, residual.detach(), codes)
            total = total + vectors
            residual = residual - vectors
            perplexities.append(perplexity(codes, codebook.codebook_size))
        straight = flat + (total - flat).detach()
        shaped = straight.reshape(latent.shape[0], latent.shape[2], latent.shape[1]).transpose(1, 2)
        return shaped, commitment / count, torch.stack(perplexities).mean()


def perplexity(codes: Tensor, entries: int) -> Tensor:
    """Effective number of entries in use: exp of the entropy of the codes' frequencies."""
    frequency = torch.bincount(codes, minlength=entries).float() / codes.numel()
    return torch.exp(-(frequency * torch.log(frequency.clamp(min=1e-10))).sum())


def move_codebook(codebook: Any, vectors: Tensor, codes: Tensor) -> None:
    """Move entries towards the mean of the vectors they stand for; restart those that stand for none.

    Exponential moving averages as in VQ-VAE (arXiv 1711.00937, appendix A.1).
    """
    with torch.no_grad():
        hits = functional.one_hot(codes, codebook.codebook_size).to(vectors.dtype)  # [N, entries]
        codebook.cluster_size.lerp_(hits.sum(0), 1.0 - CODEBOOK_DECAY)
        codebook.embed_avg.lerp_(hits.T @ vectors, 1.0 - CODEBOOK_DECAY)
        alive: Tensor = codebook.cluster_size >= DEAD_BELOW
        means = codebook.embed_avg / codebook.cluster_size.clamp(min=1e-5).unsqueeze(1)
        fresh = vectors[torch.randint(0, len(vectors), (len(alive),))]
        codebook.embed.copy_(torch.where(alive.unsqueeze(1), means, fresh))
        codebook.embed_avg.copy_(torch.where(alive.unsqueeze(1), codebook.embed_avg, fresh))
        codebook.cluster_size.copy_(torch.where(alive, codebook.cluster_size, torch.ones(())))


def spectral_loss(decoded: Tensor, audio: Tensor) -> Tensor:
    """Mean absolute difference of log-magnitude spectra at several resolutions, of waveforms [B, N]."""
    losses = []
    for size in FFT_SIZES:
        window = torch.hann_window(size, device=audio.device)
        spectra = [
            torch.stft(signal, size, size // 4, window=window, return_complex=True).abs().add(AUDIBLE).log()
            for signal in (decoded, audio)
        ]
        losses.append(functional.l1_loss(spectra[0], spectra[1]))
    return torch.stack(losses).mean()


@torch.no_grad()
def standardise_latents(model: CodecTraining, latents: Tensor) -> None:
    """Move mean and size of the latents [N, D] into the neighbouring convolutions; what is read from them stays.

    Afterwards latents have mean 0 and mean square 1. Nothing else keeps an encoder from large constant latents, of
    which distances to codes lose all precision.
    """
    mean = latents.mean(dim=0)
    scale = (latents - mean).square().mean().sqrt()
    last, head = model.codec.encoder.layers[-1].conv, model.mel_head
    assert head.bias is not None
    head.bias += torch.einsum("oik,i->o", head.weight, mean)  # but for the edges, where the head sees its padding
    head.weight.mul_(scale)
    last.bias.sub_(mean).div_(scale)
    last.parametrizations.weight.original0.div_(scale)  # weight norm's lengths


@torch.no_grad()
def fit_codebooks(codec: EncodecModel, latents: Tensor, rounds: int = 25, seed: int = 0) -> list[float]:
    """Residual k-means on latents [N, D], written into the codebooks; returns the share of variance left after each."""
    generator = torch.Generator().manual_seed(seed)
    residual, power, left = latents, float(latents.square().mean()), []
    for layer in codec.quantizer.layers:
        codebook = layer.codebook
        entries = codebook.codebook_size
        codebook.embed.copy_(residual[torch.randperm(len(residual), generator=generator)[:entries]])
        for _ in range(rounds):
            codes = codebook.quantize(residual)
            counts = torch.bincount(codes, minlength=entries).float()
            sums = torch.zeros_like(codebook.embed).index_add_(0, codes, residual)
            fresh = residual[torch.randint(0, len(residual), (entries,), generator=generator)]
            codebook.embed.copy_(torch.where((counts > 0)[:, None], sums / counts.clamp(min=1)[:, None], fresh))
        codes = codebook.quantize(residual)
        counts = torch.bincount(codes, minlength=entries).float()
        share = counts / counts.sum() * entries
        codebook.cluster_size.copy_(share)
        codebook.embed_avg.copy_(codebook.embed * share[:, None])
        residual = residual - functional.embedding(codes, codebook.embed)
        left.append(float(residual.square().mean()) / power)
    return left


@torch.no_grad()
def codec_report(model: CodecTraining, segments: Tensor) -> dict[str, list[float]]:
    """Mel error in dB (root mean square) with 1, 2, … codebooks, and each codebook's perplexity, on segments [B, N]."""
    codec = model.codec
    residual = codec.encoder(segments.unsqueeze(1))
    total = torch.zeros_like(residual)
    errors, perplexities = [], []
    for layer in codec.quantizer.layers:
        codes = layer.encode(residual)
        vectors = layer.decode(codes)
        total, residual = total + vectors, residual - vectors
        errors.append(20.0 * float(model.mel_error(total, segments)) ** 0.5)
        perplexities.append(float(perplexity(codes.flatten(), layer.codebook.codebook_size)))
    return {"mel_error_db": errors, "perplexity": perplexities}
