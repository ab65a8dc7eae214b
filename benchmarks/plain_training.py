"""A training step of EnCLAP-base as one would first write it, and its batch: what `training_step.py` compares with."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from enclap.hub.layout import leading_slots
from enclap.model import EnclapConfig, EnclapForConditionalGeneration
from enclap.model.losses import codebook_weights
from enclap.model.masking import hidden_frames, mask_codes
from enclap.model.slots import EncoderInputs

DROPOUT = 0.1  # everywhere, as facebook/bart-base has it


def model_of(layers: int) -> EnclapForConditionalGeneration:
    """EnCLAP-base with random weights, the same on every call."""
    torch.manual_seed(0)
    config = EnclapConfig(
        encoder_layers=layers,
        decoder_layers=layers,
        dropout=DROPOUT,
        attention_dropout=DROPOUT,
        activation_dropout=DROPOUT,
    )
    return EnclapForConditionalGeneration(config)


def batch_of(clips: int, frames: int, tokens: int) -> dict[str, Tensor]:
    """A batch of made-up clips with hidden codes, the same on every call."""
    generator = np.random.default_rng(0)
    config = EnclapConfig()
    masked = []
    for _ in range(clips):
        codes = generator.integers(0, config.codebook_entries, (frames, config.codebooks))
        hidden = hidden_frames(frames, config.codebooks, generator)
        masked.append(mask_codes(codes, hidden, config.codebook_entries))
    codes, mcm_labels = (torch.from_numpy(np.stack(part)) for part in zip(*masked, strict=True))
    embedding = torch.from_numpy(generator.standard_normal((clips, config.clap_dim)).astype(np.float32))
    return {
        "codes": codes,
        "code_mask": torch.ones(clips, frames, dtype=torch.long),
        "clap_embedding": functional.normalize(embedding),
        "labels": torch.from_numpy(generator.integers(4, config.vocab_size, (clips, tokens))),
        "mcm_labels": mcm_labels,
    }


def plain_loss(model: EnclapForConditionalGeneration, batch: dict[str, Tensor]) -> Tensor:
    """The loss of a batch: every codebook's logits at every slot, of which the cross-entropy leaves out the others."""
    inputs = EncoderInputs(batch["codes"], batch["code_mask"], batch["clap_embedding"])
    encoded, mask = model.encode(inputs)
    slots = encoded.last_hidden_state  # [B, T + 3, D]
    decoded = model.get_decoder()(
        input_ids=model.decoder_inputs(batch["labels"]),
        encoder_hidden_states=slots,
        encoder_attention_mask=mask,
        use_cache=False,
    )
    logits = model.lm_head(decoded.last_hidden_state) + model.final_logits_bias
    smoothing = model.config.label_smoothing
    loss = functional.cross_entropy(logits.flatten(0, 1), batch["labels"].flatten(), label_smoothing=smoothing)
    leading = leading_slots(model.config.clap_slots)
    after = slots.shape[1] - leading - batch["mcm_labels"].shape[1]
    labels = functional.pad(batch["mcm_labels"], (0, 0, leading, after), value=-100)  # [B, T + 3, K]
    hidden = torch.zeros(())
    for index, weight in enumerate(codebook_weights(model.config.codebooks)):
        entries = model.mcm_heads[index](slots)  # [B, T + 3, entries]
        hidden = hidden + weight * functional.cross_entropy(entries.flatten(0, 1), labels[..., index].flatten())
    return loss + model.config.mcm_loss_weight * hidden
