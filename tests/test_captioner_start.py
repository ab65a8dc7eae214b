"""A captioner that goes on from an earlier one with more slots for the embedding."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from enclap.model.slots import EncoderInputs
from enclap.training.mini.start import widen_projection, widened_captioner
from tiny import caption_model

E = 18


def saved(path: Path, clap_slots: int = 1) -> Path:
    torch.manual_seed(0)
    caption_model(64, True, "codes", E, clap_slots).save_pretrained(path)
    return path


def test_the_first_slot_keeps_its_projection_and_the_others_see_one_part_as_if_it_were_the_whole() -> None:
    weight = torch.randn(5, E)
    wide = widen_projection(weight, 3).unflatten(0, (3, 5))
    parts = torch.randn(3, E // 3)
    torch.testing.assert_close(wide[0], weight)
    for part in (1, 2):
        torch.testing.assert_close(wide[part] @ parts.flatten(), weight @ parts[part].repeat(3))


def test_all_but_the_new_slots_is_embedded_as_before_and_frames_keep_their_positions(tmp_path: Path) -> None:
    folder = saved(tmp_path / "model")
    narrow, wide = widened_captioner(folder, 1), widened_captioner(folder, 3)
    assert (narrow.config.clap_slots, wide.config.clap_slots) == (1, 3)
    inputs = EncoderInputs(torch.randint(0, 16, (1, 4, 4)), None, torch.randn(1, E))
    before, after = narrow.embed_slots(inputs), wide.embed_slots(inputs)
    torch.testing.assert_close(after[:, [0, 3, 4, 5, 6, 7, 8]], before)
    old, new = (model.get_encoder().embed_positions(torch.zeros(1, 12)) for model in (narrow, wide))
    torch.testing.assert_close(new[3:], old[1:-2])
    assert new[:3].abs().max() == 0


def test_slots_are_not_widened_twice(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="only one slot"):
        widened_captioner(saved(tmp_path / "model", clap_slots=3), 2)
