"""A collection of made-up recordings and recipes so small that every stage of mini's training takes seconds."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml

from enclap.data.synthetic.tones import synthesise
from enclap.files import sha256
from enclap.training.mini.context import MiniRun
from enclap.training.mini.stages import STAGES
from enclap.training.stage import in_order, run_stage
from enclap.training.teachers.mobilenet import MobileNet
from sounds import write_wav

SOUNDS = {
    "bell ringing": "bell",
    "dog barking": "beeps",
    "rain": "rain",
    "rooster crowing": "bird",
    "helicopter": "engine",
    "clock ticking": "footsteps",
    "wind": "wind",
    "person speaking": "beeps",
}
FOLDS, TAKES = 5, 2  # of each sound: takes in each fold
RATE = 32_000


def write_recordings(folder: Path) -> Path:
    """A folder of recordings with its manifest.csv: eight sounds in five folds, two takes each; fold 5 is for tests."""
    folder.mkdir(parents=True)
    rows = []
    for label, sound in SOUNDS.items():
        for number in range(FOLDS * TAKES):
            seconds = 0.6 + 0.25 * (number % 4)
            name = f"{label.replace(' ', '-')}{number}"
            samples = synthesise(sound, seconds, seed=number).samples
            write_wav(folder / f"{name}.wav", (samples[:, None] * 32767).astype(np.int16), RATE)
            fold = number % FOLDS + 1
            rows.append(
                {
                    "path": f"{name}.wav",
                    "labels": label,
                    "description": f"a {sound}",
                    "source_repo": "made/here",
                    "source_path": f"{name}.wav",
                    "author": "nobody",
                    "licence": "CC0 1.0",
                    "split": "test" if fold == FOLDS else "train",
                    "fold": fold,
                    "seconds": seconds,
                    "source_url": "",
                    "recording": f"take-{name}",  # so that each split has enough kinds of sounds
                }
            )
    with (folder / "manifest.csv").open("w", newline="", encoding="utf-8") as stream:
        writer = csv.DictWriter(stream, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    return folder


def recipes(steps: int) -> dict[str, dict[str, Any]]:
    """The recipes of all stages, each phase of so many steps that logs every one."""

    def phase(seed: int, batch: int, **more: Any) -> dict[str, Any]:
        plan = {"steps": steps, "batch_size": batch, "learning_rate": 1e-3, "warmup_steps": 2}
        return plan | {"seed": seed, "log_every": 1, "save_every": max(1, steps // 2)} | more

    return {
        "codec": {
            "model": {
                "sampling_rate": 16_000,
                "num_filters": 2,
                "upsampling_ratios": [8, 5, 4, 4],
                "hidden_size": 8,
                "num_lstm_layers": 1,
                "codebook_size": 16,
                "target_bandwidths": [0.4],
            },
            "segment_seconds": 0.64,
            "clustering_items": 12,
            "encoder": phase(3, 4),
            "quantised": phase(4, 4),
        },
        "distillation": {
            "channels": [2, 4, 8],
            "tower_width": 4,
            "seconds": 0.8,
            "optimisation": phase(2, 4, ema=0.9),
        },
        "clap": {
            "views": 24,
            "text": {
                "hidden_size": 8,
                "num_hidden_layers": 1,
                "num_attention_heads": 2,
                "intermediate_size": 16,
                "max_position_embeddings": 66,
            },
            "optimisation": phase(1, 4, ema=0.9),
            "frames": 64,
            "fine_tuning": phase(11, 4, ema=0.9),
        },
        "text": {"views": 30, "optimisation": phase(5, 6)},
        "caption": {
            "vocabulary": 400,
            "scenes": 16,
            "unseen_scenes": 8,
            "unseen_weight": 1.5,
            "filled_scenes": 8,
            "filled_weight": 2.2,
            "model": {
                "d_model": 16,
                "encoder_layers": 1,
                "decoder_layers": 1,
                "encoder_attention_heads": 2,
                "decoder_attention_heads": 2,
                "encoder_ffn_dim": 32,
                "decoder_ffn_dim": 32,
                "max_position_embeddings": 512,
                "label_smoothing": 0.1,
                "clap_slots": 3,
            },
            "rehearsal": {
                "views": 12,
                "mixtures": 6,
                "clips": 20,
                "perturbation": {"embedding_dropout": 0.0},
                "optimisation": phase(36, 6, ema=0.9),
            },
            "second_phase_perturbation": {"codes_dropout": 0.2},
            "optimisation": phase(6, 6, ema=0.9),
            "second_phase": phase(16, 6, ema=0.9),
            "third_phase": phase(26, 6, ema=0.9),
        },
    }


def tiny_run(folder: Path, steps: int) -> MiniRun:
    """A run that has not begun, with recordings, recipes and a teacher of random weights of its own."""
    sounds, teachers = write_recordings(folder / "sounds"), folder / "teachers"
    return MiniRun(sounds, folder / "out", write_recipes(folder / "recipes", steps, teachers), teachers)


def write_recipes(folder: Path, steps: int, teachers: Path) -> Path:
    """A folder with a YAML file for each of the recipes; the teacher that they name is written into `teachers`."""
    folder.mkdir(parents=True)
    for name, table in {**recipes(steps), "teacher": write_teacher(teachers)}.items():
        (folder / f"{name}.yaml").write_text(yaml.safe_dump(table), encoding="utf-8")
    return folder


def write_teacher(folder: Path) -> dict[str, str]:
    """The recipe of a teacher with random weights, which now lie in the folder."""
    folder.mkdir(parents=True)
    torch.manual_seed(0)
    torch.save(MobileNet().state_dict(), folder / "teacher.pt")
    return {"name": "teacher.pt", "origin": "nowhere", "sha256": sha256(folder / "teacher.pt")}


def train_in_this_process(run: MiniRun, last: str = "calibrate") -> None:
    """Run the stages one after the other by one thread, up to `last`."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        for stage in in_order(STAGES):
            run_stage(STAGES, stage.name, run, run.markers)
            if stage.name == last:
                return
    finally:
        torch.set_num_threads(threads)


def logged_losses(output: Path) -> dict[str, list[float]]:
    """Every loss of every phase of a run that logs each step, by the folder of its log."""
    found = {}
    for log in sorted(output.rglob("log.jsonl")):
        records = map(json.loads, log.read_text(encoding="utf-8").splitlines())
        found[log.parent.relative_to(output).as_posix()] = [record["loss"] for record in records if "loss" in record]
    return found
