"""Our caption model against the published class's numbers (tests/golden/enclap_tiny)."""

from __future__ import annotations

import json

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from enclap.model import EnclapForConditionalGeneration
from enclap.model.slots import EncoderInputs
from reference_tiny import GOLDEN, from_official_slots, golden, our_tensors, reference_batch, reference_model

ABSOLUTE = 1e-5  # float32 sums in another order
GRADIENT = 1e-4  # relative to each tensor's norm
ZERO = 1e-7  # a key's bias shifts all scores of a softmax alike: its gradient is rounding noise around zero


@pytest.fixture(scope="module")
def model() -> EnclapForConditionalGeneration:
    return reference_model()


def close(ours: Tensor, name: str) -> None:
    torch.testing.assert_close(ours.detach(), torch.from_numpy(golden("forward")[name]), atol=ABSOLUTE, rtol=0)


def test_outputs_and_losses(model: EnclapForConditionalGeneration) -> None:
    output = model(**reference_batch())
    close(output.encoder_last_hidden_state, "out_encoder_last_hidden_state")
    close(output.logits, "out_logits")
    close(output.lm_loss, "out_lm_loss")
    close(output.mcm_loss_per_codebook, "out_mcm_loss_per_codebook")
    close(output.mcm_loss, "out_mcm_loss_scaled")
    close(output.loss, "out_total_loss")


def test_loss_without_hidden_codes(model: EnclapForConditionalGeneration) -> None:
    inputs = reference_batch()
    del inputs["mcm_labels"]
    output = model(**inputs)
    close(output.loss, "out_total_loss_without_mcm_labels")
    assert output.mcm_loss is None


def test_gradients(model: EnclapForConditionalGeneration) -> None:
    model.zero_grad()
    model(**reference_batch()).loss.backward()
    official = load_file(GOLDEN / "grads.safetensors")
    expected = our_tensors(official, model.config.codebook_entries)
    ours = {name: parameter.grad for name, parameter in model.named_parameters()}
    assert set(ours) == set(expected)
    for name, gradient in expected.items():
        difference = (ours[name] - gradient).norm().item()
        if name.endswith("k_proj.bias"):
            assert ours[name].abs().max().item() < ZERO and gradient.abs().max().item() < ZERO, name
        else:
            assert difference <= GRADIENT * gradient.norm().item(), name


@pytest.mark.parametrize("case", ["short", "medium", "truncated", "forced20", "greedy"])
def test_generation(model: EnclapForConditionalGeneration, case: str) -> None:
    arrays = {
        key.removeprefix(f"gen_{case}_"): torch.from_numpy(value)
        for key, value in golden("generate").items()
        if key.startswith(f"gen_{case}_")
    }
    flags = json.loads((GOLDEN / "generation_flags.json").read_text())
    changes = {"forced20": {"min_length": 21, "max_length": 21}, "greedy": {"num_beams": 1, "early_stopping": False}}
    codes = arrays["codes"][:, : model.config.max_frames]
    inputs = {"codes": codes, "clap_embedding": arrays["clap_embedding"]}
    output = model.generate(
        **inputs, **(flags | changes.get(case, {})), return_dict_in_generate=True, output_scores=True
    )
    assert output.sequences.tolist() == arrays["output_ids"].tolist()
    if "sequence_score" in arrays:
        torch.testing.assert_close(output.sequences_scores, arrays["sequence_score"], atol=ABSOLUTE, rtol=0)
    encoded, _ = model.encode(EncoderInputs(**inputs))
    expected = arrays["encoder_last_hidden_state"]
    torch.testing.assert_close(encoded.last_hidden_state.detach(), expected, atol=ABSOLUTE, rtol=0)


def test_generation_of_a_padded_batch(model: EnclapForConditionalGeneration) -> None:
    arrays = golden("generate")
    inputs = from_official_slots(arrays, "gen_batch3_")
    flags = json.loads((GOLDEN / "generation_flags.json").read_text())
    output = model.generate(**inputs, **flags, return_dict_in_generate=True, output_scores=True)
    assert output.sequences.tolist() == arrays["gen_batch3_output_ids"].tolist()
    expected = torch.from_numpy(arrays["gen_batch3_sequence_score"])
    torch.testing.assert_close(output.sequences_scores, expected, atol=ABSOLUTE, rtol=0)
