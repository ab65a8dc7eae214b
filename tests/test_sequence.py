"""The slot layout: the official collated arrays, the quirks, and the law that padding never changes a clip."""

from __future__ import annotations

import json
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from enclap.errors import ModelError
from enclap.hub.layout import max_frames
from enclap.model import EnclapConfig, EnclapForConditionalGeneration
from enclap.model.loading import load_caption_model, load_pretrained
from enclap.model.slots import EncoderInputs, pad_frames, slot_mask
from reference_tiny import golden, reference_model, to_official_slots
from tiny import caption_model

FULL_SIZE_POSITIONS = 1024
FULL_SIZE_ENTRIES = 1024


@pytest.mark.parametrize("case", [("eval_single", ["a"]), ("eval_pair", ["a", "b"]), ("eval_long", ["long"])])
def test_collated_arrays_are_the_official_ones(case: tuple[str, list[str]]) -> None:
    name, clips = case
    arrays = golden("collate")
    codes, mask = pad_frames(
        [arrays[f"codes_{clip}"] for clip in clips], FULL_SIZE_ENTRIES, max_frames(FULL_SIZE_POSITIONS, 1)
    )
    ids, encodec, attention = to_official_slots(codes, mask, FULL_SIZE_ENTRIES)
    np.testing.assert_array_equal(ids, arrays[f"{name}_input_ids"])
    np.testing.assert_array_equal(encodec, arrays[f"{name}_encodec_mask"])
    np.testing.assert_array_equal(attention, arrays[f"{name}_attention_mask"])
    np.testing.assert_array_equal(slot_mask(torch.from_numpy(mask), 1).numpy(), attention)


def test_full_size_models_hold_1021_frames() -> None:
    assert EnclapConfig().max_frames == max_frames(FULL_SIZE_POSITIONS, 1) == 1021


def test_slots_of_a_padded_batch() -> None:
    model = reference_model()
    codes, mask = pad_frames([np.full((3, 4), 7), np.full((1, 4), 9)], 64, 61)
    embedding = torch.ones(2, 16)
    slots = model.embed_slots(EncoderInputs(torch.from_numpy(codes), torch.from_numpy(mask), embedding))
    tokens = model.get_input_embeddings().weight
    tables = model.frame_embedding.tables
    nine = sum(table.weight[9] for table in tables)
    expected = [model.clap_projection(embedding[1]), tokens[0], nine, tokens[2]]
    torch.testing.assert_close(slots[1, :4], torch.stack(expected))
    assert slots[1, 4:].abs().max() == 0


def test_an_embedding_with_several_slots_comes_before_the_start_and_padding_changes_nothing() -> None:
    torch.manual_seed(0)
    model = caption_model(64, True, "codes", clap_slots=3)
    embedding, codes = torch.randn(1, 16), torch.randint(0, 16, (1, 5, 4))
    slots = model.embed_slots(EncoderInputs(codes, None, embedding))
    assert slots.shape == (1, 10, 32)
    torch.testing.assert_close(slots[0, :3].flatten(), model.clap_projection(embedding)[0])
    torch.testing.assert_close(slots[0, [3, 9]], model.get_input_embeddings().weight[[0, 2]])
    mask = torch.tensor([[1, 1, 1, 0, 0]])
    padded, _ = model.encode(EncoderInputs(codes, mask, embedding))
    alone, _ = model.encode(EncoderInputs(codes[:, :3], None, embedding))
    torch.testing.assert_close(padded.last_hidden_state[:, :8], alone.last_hidden_state, atol=1e-5, rtol=0)
    assert model.config.max_frames == model.config.max_position_embeddings - 5


@pytest.mark.parametrize("settings", [{"clap_slots": 0}, {"clap_slots": 2, "use_clap": False}])
def test_slots_that_no_embedding_could_fill_are_refused(settings: dict[str, Any]) -> None:
    with pytest.raises(ModelError, match="clap_slots is"):
        EnclapConfig(**settings)


def test_slot_zero_has_no_position_and_the_others_read_one_row_later() -> None:
    positions = reference_model().get_encoder().embed_positions
    vectors = positions(torch.zeros(1, 5))
    assert vectors[0].abs().max() == 0
    torch.testing.assert_close(vectors[1:], positions.weight[2:6])


def test_a_hidden_code_is_the_zero_vector() -> None:
    embedding = reference_model().frame_embedding
    assert embedding(torch.full((1, 1, 4), 64)).abs().max() == 0


def test_padding_never_changes_a_clip() -> None:
    model = reference_model()
    generator = np.random.default_rng(0)
    clips = [generator.integers(0, 64, (length, 4)) for length in (1, 20, 7)]
    codes, mask = pad_frames(clips, 64, 61)
    embedding = torch.from_numpy(generator.standard_normal((3, 16)).astype(np.float32))
    beside, _ = model.encode(EncoderInputs(torch.from_numpy(codes), torch.from_numpy(mask), embedding))
    for index, clip in enumerate(clips):
        alone, _ = model.encode(EncoderInputs(torch.from_numpy(clip)[None], None, embedding[index : index + 1]))
        length = len(clip) + 3
        torch.testing.assert_close(
            beside.last_hidden_state[index, :length], alone.last_hidden_state[0], atol=1e-5, rtol=0
        )


@pytest.mark.parametrize(
    ("use_clap", "acoustic_input", "slots"), [(False, "codes", 8), (True, "none", 3), (True, "log_mel", 8)]
)
def test_ablations_are_settings(use_clap: bool, acoustic_input: str, slots: int) -> None:
    torch.manual_seed(0)
    model = caption_model(64, use_clap, acoustic_input)
    inputs = {
        "codes": torch.ones(2, 5, 4, dtype=torch.long) if acoustic_input == "codes" else None,
        "clap_embedding": torch.ones(2, 16) if use_clap else None,
        "log_mel": torch.zeros(2, 5, 16) if acoustic_input == "log_mel" else None,
    }
    output = model(**inputs, labels=torch.tensor([[0, 5, 2], [0, 6, 2]]))
    output.loss.backward()
    assert output.encoder_last_hidden_state.shape == (2, slots, 32)
    assert model.generate(**inputs, max_length=5, num_beams=2).shape[0] == 2


def test_without_clap_slot_zero_holds_the_start_token() -> None:
    torch.manual_seed(0)
    model = caption_model(64, False, "codes")
    slots = model.embed_slots(EncoderInputs(torch.zeros(1, 1, 4, dtype=torch.long)))
    torch.testing.assert_close(slots[0, 0], slots[0, 1])


def test_log_mel_padding_never_changes_a_clip() -> None:
    torch.manual_seed(0)
    model = caption_model(64, True, "log_mel")
    log_mel, embedding = torch.randn(1, 6, 16) * 20, torch.ones(1, 16)
    mask = torch.tensor([[1, 1, 1, 1, 0, 0]])
    padded, _ = model.encode(EncoderInputs(None, mask, embedding, log_mel))
    alone, _ = model.encode(EncoderInputs(None, None, embedding, log_mel[:, :4]))
    torch.testing.assert_close(padded.last_hidden_state[:, :7], alone.last_hidden_state, atol=1e-5, rtol=0)


def test_a_configuration_with_settings_of_older_versions_is_read(tmp_path: Path) -> None:
    model = reference_model()
    model.save_pretrained(tmp_path)
    path = tmp_path / "config.json"
    table = json.loads(path.read_text())
    assert "mask_probability" not in table and "mask_span" not in table
    path.write_text(json.dumps(table | {"mask_probability": 0.15, "mask_span": 10}))
    assert EnclapConfig.from_pretrained(tmp_path).max_frames == model.config.max_frames
    loaded = load_caption_model(tmp_path).state_dict()
    assert all(torch.equal(loaded[name], tensor) for name, tensor in model.state_dict().items())


def test_a_model_without_any_input_is_refused() -> None:
    with pytest.raises(ModelError, match="needs an input"):
        EnclapConfig(use_clap=False, acoustic_input="none")


def test_a_missing_input_is_named() -> None:
    with pytest.raises(TypeError, match="clap_embedding is missing"):
        reference_model()(codes=torch.zeros(1, 1, 4, dtype=torch.long), labels=torch.zeros(1, 2, dtype=torch.long))


def test_saved_and_loaded_through_the_auto_classes(tmp_path: Path) -> None:
    from transformers import AutoConfig, AutoModelForSeq2SeqLM

    model = reference_model()
    model.save_pretrained(tmp_path)
    assert isinstance(AutoConfig.from_pretrained(tmp_path), EnclapConfig)
    loaded = AutoModelForSeq2SeqLM.from_pretrained(tmp_path)
    assert isinstance(loaded, EnclapForConditionalGeneration)
    ours, theirs = model.state_dict(), loaded.state_dict()
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)
    assert loaded.lm_head.weight is loaded.get_input_embeddings().weight


def test_networks_that_several_threads_load_are_loaded_one_after_the_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """transformers takes `tie_weights` off its class while it loads; two at once left it off, and nothing was tied."""
    caption_model(64, True, "codes").save_pretrained(tmp_path)
    inside, most, original = 0, 0, EnclapForConditionalGeneration.from_pretrained.__func__  # type: ignore[attr-defined]
    counting = threading.Lock()

    def slowly(kind: Any, *arguments: Any, **settings: Any) -> Any:
        nonlocal inside, most
        with counting:
            inside += 1
            most = max(most, inside)
        time.sleep(0.05)
        found = original(kind, *arguments, **settings)
        with counting:
            inside -= 1
        return found

    monkeypatch.setattr(EnclapForConditionalGeneration, "from_pretrained", classmethod(slowly))
    with ThreadPoolExecutor(3) as pool:
        models = list(pool.map(lambda _: load_pretrained(EnclapForConditionalGeneration, tmp_path, "it"), range(3)))
    assert most == 1
    assert all(model.lm_head.weight is model.get_input_embeddings().weight for model in models)
