"""EnCLAP's caption model: BART over code slots and a CLAP slot, with a head per codebook for the hidden codes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor, nn
from transformers import BartModel, Cache, GenerationMixin, PreTrainedModel
from transformers.modeling_outputs import BaseModelOutput, Seq2SeqLMOutput

from enclap.hub.layout import leading_slots
from enclap.model.configuration import EnclapConfig
from enclap.model.losses import caption_loss, codebook_weights, count_items, hidden_code_losses
from enclap.model.masking import IGNORED
from enclap.model.slots import (
    EncoderInputs,
    FrameEmbedding,
    MelProjection,
    SlotPositions,
    assemble_slots,
    slot_mask,
)


@dataclass
class EnclapOutput(Seq2SeqLMOutput):  # type: ignore[misc]
    """What a forward pass gives; losses are None without their labels.

    loss: lm_loss + mcm_loss. mcm_loss: with its weight of 0.7 applied. mcm_loss_per_codebook: plain, [K].
    logits: [B, S, V]. encoder_last_hidden_state: [B, T + P + 2, D].
    """

    lm_loss: Tensor | None = None
    mcm_loss: Tensor | None = None
    mcm_loss_per_codebook: Tensor | None = None


class EnclapForConditionalGeneration(PreTrainedModel, GenerationMixin):  # type: ignore[misc]
    """The caption model; `generate` takes the same inputs as `forward`."""

    config_class = EnclapConfig
    base_model_prefix = "bart"
    main_input_name = "codes"
    supports_gradient_checkpointing = True
    _supports_sdpa = True
    _supports_flash_attn = True
    _no_split_modules = ("BartEncoderLayer", "BartDecoderLayer")
    _tied_weights_keys = {"lm_head.weight": "bart.shared.weight"}  # noqa: RUF012 - the name and kind that transformers reads

    def __init__(self, config: EnclapConfig) -> None:
        super().__init__(config)
        width: int = config.d_model  # type: ignore[assignment]  # BART's configuration types it as optional
        self.bart = BartModel(config)
        self.bart.encoder.embed_positions = SlotPositions(config.max_position_embeddings, width)
        if config.use_clap:
            self.clap_projection = nn.Linear(config.clap_dim, config.clap_slots * width)
        if config.acoustic_input == "codes":
            self.frame_embedding: nn.Module = FrameEmbedding(config.codebooks, config.codebook_entries, width)
            self.mcm_heads = nn.ModuleList(nn.Linear(width, config.codebook_entries) for _ in range(config.codebooks))
        elif config.acoustic_input == "log_mel":
            self.frame_embedding = MelProjection(
                config.log_mel_bands, width, config.log_mel_mean, config.log_mel_deviation
            )
        self.lm_head = nn.Linear(width, config.vocab_size, bias=False)
        self.register_buffer("final_logits_bias", torch.zeros(1, config.vocab_size))
        self.post_init()

    def get_encoder(self, *args: Any, **kwargs: Any) -> nn.Module:
        """BART's encoder over slot vectors."""
        return cast(nn.Module, self.bart.get_encoder())

    def get_decoder(self) -> nn.Module:
        """BART's decoder over token ids."""
        return cast(nn.Module, self.bart.get_decoder())

    def get_input_embeddings(self) -> nn.Module:
        """The token table, shared by encoder, decoder and output."""
        return cast(nn.Module, self.bart.get_input_embeddings())

    def set_input_embeddings(self, value: nn.Module) -> None:
        """Replace the token table everywhere."""
        self.bart.set_input_embeddings(value)

    def get_output_embeddings(self) -> nn.Module:
        """The output projection, tied to the token table."""
        return self.lm_head

    def embed_slots(self, inputs: EncoderInputs) -> Tensor:
        """Slot vectors [B, T + P + 2, D], before positions are added; P slots hold CLAP's embedding."""
        config = self.config
        tokens = self.get_input_embeddings()
        ends = torch.tensor([config.bos_token_id, config.eos_token_id], device=self.device)
        start, end = tokens(ends)  # [D] each
        if config.acoustic_input == "codes":
            frames = self.frame_embedding(_required(inputs.codes, "codes", "acoustic_input codes"))  # [B, T, D]
        elif config.acoustic_input == "log_mel":
            frames = self.frame_embedding(_required(inputs.log_mel, "log_mel", "acoustic_input log_mel"))
        else:
            embedding = _required(inputs.clap_embedding, "clap_embedding", "use_clap")
            frames = start.new_zeros(embedding.shape[0], 0, config.d_model)  # .shape, which tracing follows
        if config.use_clap:
            embedding = _required(inputs.clap_embedding, "clap_embedding", "use_clap")
            first = self.clap_projection(embedding.to(start.dtype)).unflatten(1, (config.clap_slots, -1))
        else:
            first = start.expand(frames.shape[0], 1, -1)
        return assemble_slots(first, frames, inputs.frame_mask, start, end)

    def encode(self, inputs: EncoderInputs) -> tuple[BaseModelOutput, Tensor]:
        """Encoder output ([B, T + P + 2, D] as .last_hidden_state) and the slot mask [B, T + P + 2]."""
        slots = self.embed_slots(inputs)
        if inputs.frame_mask is None:
            mask = torch.ones(slots.shape[:2], dtype=torch.long, device=slots.device)
            return self.get_encoder()(inputs_embeds=slots), mask
        mask = slot_mask(inputs.frame_mask, self.config.clap_slots)
        return self.get_encoder()(inputs_embeds=slots, attention_mask=mask), mask

    def forward(
        self,
        codes: Tensor | None = None,
        code_mask: Tensor | None = None,
        clap_embedding: Tensor | None = None,
        log_mel: Tensor | None = None,
        labels: Tensor | None = None,
        mcm_labels: Tensor | None = None,
        num_items: Tensor | None = None,
        *,
        encoder_outputs: BaseModelOutput | None = None,
        attention_mask: Tensor | None = None,
        decoder_input_ids: Tensor | None = None,
        decoder_attention_mask: Tensor | None = None,
        cache: Cache | None = None,
        use_cache: bool | None = None,
        output_attentions: bool | None = None,
        output_hidden_states: bool | None = None,
        return_dict: bool | None = None,
    ) -> EnclapOutput:
        """Losses and logits of a batch.

        codes: int64 [B, T, K]. code_mask: [B, T], 1 = frame (of log-mel input too). clap_embedding: [B, E].
        log_mel: [B, T, M] dB. labels: [B, S], -100 = padding. mcm_labels: [B, T, K], -100 = not hidden.
        num_items: [1 + K] from `losses.count_items`, summed over all batches of the optimiser step; this batch's own
        when None. The rest serves `generate`: attention_mask is the slot mask [B, T + P + 2] of encoder_outputs.
        """
        if encoder_outputs is None:
            encoder_outputs, attention_mask = self.encode(EncoderInputs(codes, code_mask, clap_embedding, log_mel))
        if decoder_input_ids is None:
            decoder_input_ids = self.decoder_inputs(_required(labels, "labels", "a forward pass without decoding"))
        decoded = self.get_decoder()(
            input_ids=decoder_input_ids,
            attention_mask=decoder_attention_mask,
            encoder_hidden_states=encoder_outputs.last_hidden_state,
            encoder_attention_mask=attention_mask,
            cache=cache,
            use_cache=use_cache if labels is None else False,
            output_attentions=output_attentions,
            output_hidden_states=output_hidden_states,
        )
        logits = self.lm_head(decoded.last_hidden_state) + self.final_logits_bias
        output = EnclapOutput(
            logits=logits,
            cache=decoded.cache,
            encoder_last_hidden_state=encoder_outputs.last_hidden_state,
            decoder_hidden_states=decoded.hidden_states,
            decoder_attentions=decoded.attentions,
            cross_attentions=decoded.cross_attentions,
        )
        if labels is not None:
            self._add_losses(output, labels, mcm_labels, num_items)
        return output

    # How many codes are hidden differs with each batch: the compiler would break off inside.
    @torch.compiler.disable  # type: ignore[untyped-decorator]
    def _add_losses(
        self, output: EnclapOutput, labels: Tensor, mcm_labels: Tensor | None, num_items: Tensor | None
    ) -> None:
        """Fill in the losses that the labels ask for."""
        config = self.config
        if num_items is None:
            num_items = count_items(labels, mcm_labels, config.codebooks)
        items = num_items.to(labels.device)
        output.lm_loss = caption_loss(output.logits, labels, config.label_smoothing, items[0])
        output.loss = output.lm_loss
        if mcm_labels is None:
            return
        first = leading_slots(config.clap_slots)
        frames = output.encoder_last_hidden_state[:, first : first + mcm_labels.shape[1]]
        losses = hidden_code_losses(frames, self.mcm_heads, mcm_labels, items[1:])  # [K]
        weights = torch.tensor(codebook_weights(config.codebooks), device=losses.device)
        output.mcm_loss_per_codebook = losses
        output.mcm_loss = config.mcm_loss_weight * (weights * losses).sum()
        output.loss = output.lm_loss + output.mcm_loss

    def decoder_inputs(self, labels: Tensor) -> Tensor:
        """Labels [B, S] shifted right by one, after the decoder's start token, with padding ids for -100."""
        shifted = labels.roll(1, dims=1)
        shifted[:, 0] = self.config.decoder_start_token_id
        return shifted.masked_fill(shifted == IGNORED, self.config.pad_token_id)

    @torch.no_grad()
    def generate(
        self,
        codes: Tensor | None = None,
        code_mask: Tensor | None = None,
        clap_embedding: Tensor | None = None,
        log_mel: Tensor | None = None,
        **options: Any,
    ) -> Any:
        """What transformers' generate returns (token ids [B, N] by default) for inputs as `forward` takes them.

        The encoder runs here, because the inputs are not the token ids that transformers expects.
        """
        encoder_outputs, mask = self.encode(EncoderInputs(codes, code_mask, clap_embedding, log_mel))
        return super().generate(encoder_outputs=encoder_outputs, attention_mask=mask, **options)


def _required(value: Tensor | None, name: str, reason: str) -> Tensor:
    """The value; a TypeError naming the argument when it is missing."""
    if value is None:
        raise TypeError(f"{name} is missing; {reason} needs it")
    return value
