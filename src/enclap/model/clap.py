"""CLAP: an audio encoder and, where there is one, a text tower of the same space, as arrays to arrays."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from tokenizers import Tokenizer
from torch import Tensor

from enclap.audio.crops import mean_direction
from enclap.errors import ModelError
from enclap.hub.layout import CLAP, TOKENIZER
from enclap.hub.model_folder import read_text_tokenizer
from enclap.model.audio_encoder import AudioEncoder, load_audio_encoder
from enclap.types import FloatArray


class Clap:
    """A frozen CLAP. dim: width E of its embeddings. tokenizer: None when the folder has no text tower."""

    def __init__(self, encoder: AudioEncoder, tokenizer: Tokenizer | None) -> None:
        self.encoder = encoder
        self.tokenizer = tokenizer
        self.dim: int = encoder.network.config.projection_dim

    @classmethod
    def from_folder(cls, folder: Path, device: str = "cpu") -> Clap:
        """The CLAP model in `folder`, in float32, with its text tower's tokenizer when there is one."""
        encoder = load_audio_encoder(folder, device)
        return cls(encoder, read_text_tokenizer(folder) if (folder / TOKENIZER).exists() else None)

    def embed_audio(self, crops: FloatArray) -> FloatArray:
        """Float32 [E], unit length: the mean of the crops' embeddings. crops: [C, channels, F, M] of `tower_input`."""
        return self.embed_batch([crops])[0]

    @torch.inference_mode()
    def embed_batch(self, clips: Sequence[FloatArray]) -> list[FloatArray]:
        """What `embed_audio` gives for each clip, computed together; all clips have the same number of channels."""
        crops = torch.from_numpy(np.concatenate(clips)).to(self.encoder.network.device)
        embeddings = self.encoder.embed(crops).cpu().numpy()
        ends = np.cumsum([len(clip) for clip in clips])[:-1]
        return [mean_direction(part) for part in np.split(embeddings, ends)]

    @torch.inference_mode()
    def embed_tensors(self, clips: Sequence[Tensor]) -> list[Tensor]:
        """Embeddings float32 [C, E] of each clip's crops [C, channels, F, M], all on the network's device.

        Clips of one number of channels are computed together.
        """
        found: dict[int, Tensor] = {}
        for channels in sorted({clip.shape[1] for clip in clips}):
            indices = [index for index, clip in enumerate(clips) if clip.shape[1] == channels]
            embeddings = self.encoder.embed(torch.cat([clips[index] for index in indices]))
            parts = torch.split(embeddings, [len(clips[index]) for index in indices])
            found |= zip(indices, parts, strict=True)
        return [found[index] for index in range(len(clips))]

    @torch.inference_mode()
    def embed_text(self, texts: Sequence[str]) -> FloatArray:
        """Float32 [N, E], unit length; ModelError without a text tower."""
        if self.tokenizer is None:
            raise ModelError(f"{CLAP}/{TOKENIZER}: missing; this model cannot embed text")
        if not texts:
            return np.empty((0, self.dim), dtype=np.float32)
        network = self.encoder.network
        encoded = self.tokenizer.encode_batch(list(texts))
        ids = torch.tensor([item.ids for item in encoded], device=network.device)
        mask = torch.tensor([item.attention_mask for item in encoded], device=network.device)
        embeddings: FloatArray = network.get_text_features(ids, attention_mask=mask).pooler_output.cpu().numpy()
        return embeddings
