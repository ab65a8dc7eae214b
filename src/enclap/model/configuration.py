"""The caption model's configuration: BART's, plus what the two acoustic inputs and the masked-codec loss need."""

from __future__ import annotations

from typing import Any, ClassVar, Literal

from transformers import BartConfig

from enclap.errors import ModelError
from enclap.hub.layout import CONFIGURATION, FORMAT_VERSION, MODEL_TYPE, check_format_version, max_frames


class EnclapConfig(BartConfig):  # type: ignore[misc]
    """Sizes and settings of an EnCLAP caption model; the defaults are the published base size.

    codebooks, codebook_entries: of the codec's codes; the value `codebook_entries` means hidden or padding.
    acoustic_input: "codes", "log_mel" or "none"; with use_clap these are the paper's ablations.
    clap_slots: encoder slots that CLAP's embedding gets, each by a projection of its own; one in the published models.
    With more, the decoder can attend to parts of the embedding (mini's holds the whole clip and its halves).
    frame_rate: code (or log-mel) frames per second.
    log_mel_mean, log_mel_deviation: decibels; standardise log-mel input before its projection.
    label_smoothing: of the caption loss. mcm_loss_weight: factor of the masked-codec loss.
    """

    model_type: ClassVar[str] = MODEL_TYPE

    format_version: int = FORMAT_VERSION
    vocab_size: int = 50265
    d_model: int | None = 768
    encoder_layers: int | None = 6
    decoder_layers: int | None = 6
    encoder_attention_heads: int | None = 12
    decoder_attention_heads: int | None = 12
    encoder_ffn_dim: int | None = 3072
    decoder_ffn_dim: int | None = 3072
    codebooks: int = 16
    codebook_entries: int = 1024
    clap_dim: int = 512
    use_clap: bool = True
    clap_slots: int = 1
    acoustic_input: Literal["codes", "log_mel", "none"] = "codes"
    frame_rate: float = 75.0
    log_mel_bands: int = 64
    log_mel_mean: float = -30.0
    log_mel_deviation: float = 20.0
    label_smoothing: float = 0.2
    mcm_loss_weight: float = 0.7

    def __post_init__(self, **kwargs: Any) -> None:
        """Refuse what this code cannot honour: another format version, or a model without any input."""
        super().__post_init__(**kwargs)
        check_format_version(self.format_version, CONFIGURATION)
        if self.acoustic_input not in ("codes", "log_mel", "none"):
            fault = f"acoustic_input {self.acoustic_input!r} is not known; use codes, log_mel or none"
            raise ModelError(f"{CONFIGURATION}: {fault}")
        if self.clap_slots < 1 or (self.clap_slots > 1 and not self.use_clap):
            fault = f"clap_slots is {self.clap_slots}; use 1 or more, and 1 without CLAP"
            raise ModelError(f"{CONFIGURATION}: {fault}")
        if self.acoustic_input == "none" and not self.use_clap:
            raise ModelError(f"{CONFIGURATION}: a model needs an input; set use_clap or an acoustic_input")

    @property
    def max_frames(self) -> int:
        """Code frames that fit into the position table beside the special slots."""
        return max_frames(self.max_position_embeddings, self.clap_slots)
