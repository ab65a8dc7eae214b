"""The sequence view of a clip: networks that turn its mel spectrograms into one vector, chosen by clap/config.json."""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar, Protocol

import torch
from torch import Tensor
from transformers import ClapModel

from enclap.audio.mel import MelFrontEnd
from enclap.errors import ModelError
from enclap.hub.layout import CONFIGURATION, FRONT_END, read_json
from enclap.model.conv_clap import ConvClapConfig, ConvClapModel
from enclap.model.loading import load_pretrained
from enclap.text import printable


class AudioEncoder(Protocol):
    """A frozen network that embeds sounds, with the front end that it was trained with.

    How to add one:

    1. Write its network as a transformers `PreTrainedModel` in a file of its own in `model/`, with a configuration that
       has a `model_type` of its own and `projection_dim`, the width E of the embedding (conv_clap.py is an example).
       For ranking by CLAP it also has `get_text_features(ids, attention_mask)`, with texts in the same space.
    2. Wrap it here in a class with the members below, and enter the class in AUDIO_ENCODERS under that `model_type`.
    3. Its front end is a `MelFrontEnd`, whose settings a model folder keeps in clap/preprocessor_config.json; both
       engines compute it in numpy. An encoder that reads anything but mel spectrograms needs one in `audio/`.

    tests/test_audio_encoders.py then holds it and its ONNX graph to one another, given a small one in tests/tiny.py.
    """

    network: Any
    """The PreTrainedModel, which also has the text tower."""
    front_end: MelFrontEnd

    def embed(self, mel: Tensor) -> Tensor:
        """Unit embeddings float32 [C, E] of crops [C, channels, F, M] in dB, as `front_end.tower_input` gives them.

        An embedding does not depend on the crops beside it. The exporter traces this function.
        """
        ...


class HtsatClap:
    """The published audio encoder: HTSAT of LAION-CLAP in transformers' class, with feature fusion or without."""

    network_class: ClassVar[type[ClapModel]] = ClapModel

    def __init__(self, network: ClapModel, front_end: MelFrontEnd) -> None:
        self.network = network
        self.front_end = front_end

    def embed(self, mel: Tensor) -> Tensor:
        """Unit embeddings [C, E] of crops [C, channels, F, M], which are "longer" where there are several channels.

        The fused tower reads further channels only of clips marked so; transformers' extractor marks a random clip when
        none is long, which would make a clip's embedding depend on its batch.
        """
        longer = torch.full((len(mel), 1), mel.shape[1] > 1, dtype=torch.bool, device=mel.device)
        embeddings: Tensor = self.network.get_audio_features(mel, is_longer=longer).pooler_output
        return embeddings


class ConvTowers:
    """mini's audio encoder: an ensemble of convolutional towers."""

    network_class: ClassVar[type[ConvClapModel]] = ConvClapModel

    def __init__(self, network: ConvClapModel, front_end: MelFrontEnd) -> None:
        self.network = network
        self.front_end = front_end

    def embed(self, mel: Tensor) -> Tensor:
        """Unit embeddings [C, E] of crops [C, 1, F, M]."""
        embeddings: Tensor = self.network.get_audio_features(mel).pooler_output
        return embeddings


AUDIO_ENCODERS: dict[str, type[HtsatClap] | type[ConvTowers]] = {
    "clap": HtsatClap,
    ConvClapConfig.model_type: ConvTowers,
}
"""By `model_type` in clap/config.json."""


def load_audio_encoder(folder: Path, device: str = "cpu") -> AudioEncoder:
    """The audio encoder in a model folder's clap/, in float32, in evaluation mode and without gradients.

    ModelError when its files are missing or damaged, its `model_type` is not known, or its front end does not fit.
    """
    kind = read_json(folder / CONFIGURATION).get("model_type")
    if kind not in AUDIO_ENCODERS:
        known = " and ".join(AUDIO_ENCODERS)
        where = printable(str(folder / CONFIGURATION))
        raise ModelError(f"{where}: model_type {kind!r} is not known; this enclap reads {known}")
    encoder, front_end = AUDIO_ENCODERS[kind], MelFrontEnd.from_folder(folder)
    network = load_pretrained(encoder.network_class, folder, "CLAP").to(device)
    tower = getattr(network.config, "audio_config", None)
    if front_end.fused and not getattr(tower, "enable_fusion", False):
        where = printable(str(folder / FRONT_END))
        raise ModelError(f"{where}: says truncation fusion, but the audio tower has none; fetch the model again")
    return encoder(network.eval().requires_grad_(False), front_end)
