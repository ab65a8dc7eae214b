"""What a training will take, estimated before it begins: memory from the sizes, time from the speed of this machine."""

from __future__ import annotations

import time
from dataclasses import dataclass

import torch

from enclap.hub.layout import special_slots
from enclap.model import EnclapForConditionalGeneration
from enclap.training.recipe import Optimisation

FLOAT32 = 4
ADAM_COPIES = 4
"""Copies of every trained weight: itself, its gradient and AdamW's two moments."""
ACTIVATIONS_PER_UNIT = 34
"""Numbers that a transformer layer keeps for each slot and unit of width (arXiv 2205.05198, without attention's)."""
REACHED = 0.5
"""Share of the speed of plain products that a training step reaches; measured between 0.4 and 0.6."""
H100_OPERATIONS = 130e12
"""Operations a second that a whole step does on one H100 in bfloat16. Measured without loading, at 750 frames: 0.116 s
for 64 clips with base and 0.19 s for 32 with large, which are 128e12 and 133e12."""
PRODUCT = 1_536
"""Rows and columns of the matrices that the machine is timed with."""


@dataclass(frozen=True, slots=True)
class Estimate:
    """parameters: that are trained. memory: bytes for the weights, their optimiser and one part of a batch.

    seconds_per_step: on this machine. h100_seconds_per_step: on one H100 for each process, in bfloat16.
    """

    parameters: int
    memory: float
    seconds_per_step: float
    h100_seconds_per_step: float


def estimate(
    model: EnclapForConditionalGeneration, optimisation: Optimisation, frames: float, tokens: float, processes: int = 1
) -> Estimate:
    """What one process takes. frames, tokens: of a mean clip and its caption."""
    config = model.config
    parameters = sum(weight.numel() for weight in model.parameters() if weight.requires_grad)
    encoder, decoder = (
        sum(weight.numel() for name, weight in model.named_parameters() if f".{side}.layers." in name)
        for side in ("encoder", "decoder")
    )
    slots = min(frames, config.max_frames) + special_slots(config.clap_slots)
    part = optimisation.batch_size / processes / optimisation.accumulate
    number = FLOAT32 / 2 if optimisation.bfloat16 else FLOAT32
    width: int = config.d_model
    kept = 1 if optimisation.checkpointing else ACTIVATIONS_PER_UNIT
    layers = config.encoder_layers * slots + config.decoder_layers * tokens
    activations = part * kept * number * width * layers + 3 * FLOAT32 * part * tokens * config.vocab_size
    everything = sum(weight.numel() for weight in model.parameters())
    memory = FLOAT32 * (everything + (ADAM_COPIES - 1) * parameters) + activations
    # Two operations for each weight and slot forwards, four backwards; attention and the output beside them.
    products = encoder * slots + (decoder + width * config.vocab_size) * tokens
    products += 2 * config.encoder_layers * width * slots * slots
    operations = 6 * optimisation.batch_size / processes * products
    here = operations / (REACHED * products_per_second(optimisation.bfloat16))
    return Estimate(parameters, memory, here, operations / H100_OPERATIONS)


def products_per_second(bfloat16: bool) -> float:
    """Floating-point operations a second of matrix products on this machine, measured for a moment."""
    device = "cuda" if torch.cuda.is_available() else "cpu"
    square = torch.ones(PRODUCT, PRODUCT, device=device, dtype=torch.bfloat16 if bfloat16 else torch.float32)
    best = float("inf")
    for _ in range(4):  # the first one warms up
        start = time.perf_counter()
        float((square @ square)[0, 0])  # waits for the device
        best = min(best, time.perf_counter() - start)
    return 2.0 * PRODUCT**3 / best
