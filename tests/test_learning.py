"""Trainings that must come to something: captions by heart, masked codes above chance, a model of one's own."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from cli import Run
from enclap.data.feature_store import Clip
from enclap.model.losses import codebook_weights
from enclap.training.adapters import ADAPTED, add_adapters, merge_adapters
from enclap.training.run import collator_of, learn, prepare
from enclap.types import Features
from german_clips import write_german_clips
from run_program import fresh_model, made_up_clips, run, run_of, write_features

CHANCE = 1 / 16
ABOVE_CHANCE = 3.0
"""Factor by which masked codes of codebook 0 are restored more often than by chance, after 40 epochs of 64 clips."""


@pytest.fixture(scope="module")
def encoders(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return fresh_model(tiny_model, tmp_path_factory.mktemp("encoders") / "model")


def test_eight_clips_are_learnt_by_heart(encoders: Path, tmp_path: Path) -> None:
    clips = made_up_clips(8)
    features = write_features(tmp_path / "features", encoders, clips)
    changes = {
        "epochs": 150,
        "label_smoothing": 0.0,
        "optimisation.batch_size": 8,
        "optimisation.learning_rate": 5e-3,
        "optimisation.schedule": "cosine",
        "optimisation.warmup_steps": 10,
        "optimisation.save_every": 1_000,
        "perturbation.embedding_noise": 0.1,
        "perturbation.embedding_dropout": 0.0,
    }
    prepared = run(tmp_path / "run", encoders, features, changes)
    model, tokenizer = prepared.start.model, prepared.start.tokenizer
    for clip in clips:
        assert clip.features.embedding is not None
        ids = model.generate(
            codes=torch.from_numpy(clip.features.codes)[None],
            clap_embedding=torch.from_numpy(clip.features.embedding)[None],
            num_beams=4,
            max_length=30,
            decoder_start_token_id=2,
            eos_token_id=2,
            pad_token_id=1,
        )
        assert tokenizer.decode(ids[0].tolist()) == clip.captions[0]


def patterned_clips(count: int) -> list[Clip]:
    """Clips in which every codebook walks through its entries, one after the other: what is hidden can be told."""
    clips = []
    for clip in made_up_clips(count):
        generator = np.random.default_rng(len(clips))
        start, step = generator.integers(0, 16, 4), 1 + 2 * generator.integers(0, 2)
        codes = (start[None] + step * np.arange(40)[:, None]) % 16
        clips.append(Clip(clip.name, Features(codes, clip.features.embedding), clip.captions, (), 1.0))
    return clips


def test_masked_codes_are_restored_above_chance(encoders: Path, tmp_path: Path) -> None:
    features = write_features(tmp_path / "features", encoders, patterned_clips(64))
    changes = {
        "epochs": 40,
        "optimisation.batch_size": 16,
        "optimisation.learning_rate": 5e-3,
        "optimisation.schedule": "cosine",
        "optimisation.save_every": 1_000,
        "perturbation.mask_span": 4,
    }
    prepared = run(tmp_path / "run", encoders, features, changes)
    model = prepared.start.model
    batch = collator_of(prepared.start)([prepared.items(64 * 50 + number) for number in range(64)])  # another epoch
    with torch.no_grad():
        output = model(**batch)
        frames = output.encoder_last_hidden_state[:, 2 : 2 + batch["codes"].shape[1]]
        shares = []
        for index, head in enumerate(model.mcm_heads):
            labels = batch["mcm_labels"][..., index]
            hidden = labels >= 0
            shares.append(float((head(frames[hidden]).argmax(-1) == labels[hidden]).float().mean()))
    assert codebook_weights(4)[0] == 0.5
    assert shares[0] > ABOVE_CHANCE * CHANCE, shares


def test_adapters_learn_and_leave_no_trace(encoders: Path, tmp_path: Path) -> None:
    """LoRA: frozen weights stay, the merged model says what the adapted one says, and has only its own tensors."""
    features = write_features(tmp_path / "features", encoders, made_up_clips(8))
    changes = {"epochs": 6, "lora": 4, "optimisation.learning_rate": 1e-2}
    prepared = prepare(run_of(tmp_path / "run", encoders, features, changes))
    model = prepared.start.model
    names = set(model.state_dict())
    before = {name: value.clone() for name, value in model.state_dict().items()}
    adapters = add_adapters(model, 4, train_tokens=False)
    trained = [name for name, value in model.named_parameters() if value.requires_grad]
    assert trained and all("lora_" in name for name in trained)
    learn(prepared)
    batch = collator_of(prepared.start)([prepared.items(number) for number in range(4)])
    with torch.no_grad():
        adapted = model.eval()(**batch).logits
        merged = merge_adapters(adapters)
        torch.testing.assert_close(merged.eval()(**batch).logits, adapted, rtol=1e-4, atol=1e-5)
    after = merged.state_dict()
    assert set(after) == names
    changed = {name for name in names if not torch.equal(after[name], before[name])}
    assert changed and all(name.rsplit(".", 2)[-2] in ADAPTED for name in changed)


@pytest.mark.slow
@pytest.mark.timeout(1_200)
def test_german_captions_come_back(enclap: Run, tmp_path: Path) -> None:
    """32 clips: at least 70 % word for word; within ten minutes on two cores, which the timeout leaves room around."""
    folder = write_german_clips(tmp_path / "klang", 32)
    done = enclap("finetune", str(folder), "--output", "german")
    assert done.returncode == 0, done.stderr
    assert "fewer than 100 clips: nothing was held out" in done.stderr and not (tmp_path / "german.work").exists()
    for name in ("onnx/decoder.onnx", "report.md", "loss.svg", "README.md", "ATTRIBUTION.csv"):
        assert (tmp_path / "german" / name).is_file(), name
    assert not (tmp_path / "german" / "confidence.json").exists()
    table = (folder / "captions.csv").read_text(encoding="utf-8").splitlines()[1:]
    wanted = {line.split(",", 1)[0]: line.split(",", 1)[1].strip('"') for line in table}
    options = ("--model", "german", "--engine", "onnx", "--window", "0", "--format", "jsonl")
    shown = enclap("caption", *sorted(folder.glob("*.wav")), *options)
    found = [json.loads(line) for line in shown.stdout.splitlines()]
    right = sum(wanted[Path(item["path"]).name] == item["captions"][0]["text"] for item in found)
    assert right >= 0.7 * 32, shown.stdout
