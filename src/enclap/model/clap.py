"""CLAP: a thin wrapper over its networks that turns mel spectrograms and texts into unit embeddings."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from tokenizers import Tokenizer
from transformers import ClapModel

from enclap.engines.batching import mean_direction
from enclap.errors import ModelError
from enclap.hub.model_folder import read_json, read_text_tokenizer
from enclap.model.conv_clap import ConvClapConfig, ConvClapModel
from enclap.model.loading import load_pretrained
from enclap.types import FloatArray

NETWORKS: dict[str, type[ClapModel] | type[ConvClapModel]] = {
    "clap": ClapModel,
    ConvClapConfig.model_type: ConvClapModel,
}
"""The networks a folder's clap/ may hold, by config.json's model_type."""


class Clap:
    """A frozen CLAP. dim: width of its embeddings. tokenizer: None when the folder has no text tokenizer."""

    def __init__(self, model: ClapModel | ConvClapModel, tokenizer: Tokenizer | None) -> None:
        self.model = model.eval().requires_grad_(False)
        self.tokenizer = tokenizer
        self.dim: int = model.config.projection_dim

    @classmethod
    def from_folder(cls, folder: Path, device: str = "cpu") -> Clap:
        """The CLAP model in `folder`, in float32, with `folder`/tokenizer.json when there is one."""
        kind = read_json(folder / "config.json").get("model_type")
        if kind not in NETWORKS:
            known = " and ".join(NETWORKS)
            raise ModelError(f"{folder / 'config.json'}: model_type {kind!r} is not known; this enclap reads {known}")
        model = load_pretrained(NETWORKS[kind], folder, "CLAP")
        tokenizer = read_text_tokenizer(folder) if (folder / "tokenizer.json").exists() else None
        return cls(model.to(device), tokenizer)

    def embed_audio(self, crops: FloatArray) -> FloatArray:
        """Float32 [E], unit length: the mean of the inputs' embeddings. crops: [C, channels, T, M] of `tower_input`."""
        return self.embed_batch([crops])[0]

    @torch.inference_mode()
    def embed_batch(self, clips: Sequence[FloatArray]) -> list[FloatArray]:
        """What `embed_audio` gives for each clip, computed together; all clips have the same number of channels."""
        features = torch.from_numpy(np.concatenate(clips)).to(self.model.device)
        embeddings = embed_crops(self.model, features).cpu().numpy()
        ends = np.cumsum([len(crops) for crops in clips])[:-1]
        return [mean_direction(part) for part in np.split(embeddings, ends)]

    @torch.inference_mode()
    def embed_text(self, texts: Sequence[str]) -> FloatArray:
        """Float32 [N, E], unit length; ModelError without a tokenizer."""
        if self.tokenizer is None:
            raise ModelError("clap/tokenizer.json: missing; this model cannot embed text")
        encoded = self.tokenizer.encode_batch(list(texts))
        ids = torch.tensor([item.ids for item in encoded], device=self.model.device)
        mask = torch.tensor([item.attention_mask for item in encoded], device=self.model.device)
        embeddings: FloatArray = self.model.get_text_features(ids, attention_mask=mask).pooler_output.cpu().numpy()
        return embeddings


def embed_crops(model: ClapModel | ConvClapModel, features: torch.Tensor) -> torch.Tensor:
    """Unit embeddings [C, E] of mel inputs [C, channels, T, M], marked "longer" when they have more than one channel.

    The fused tower reads further channels only of clips marked so; transformers' extractor marks a random clip when
    none is long, which would make a clip's embedding depend on its batch.
    """
    longer = torch.full((len(features), 1), features.shape[1] > 1, dtype=torch.bool, device=features.device)
    embeddings: torch.Tensor = model.get_audio_features(features, is_longer=longer).pooler_output
    return embeddings
