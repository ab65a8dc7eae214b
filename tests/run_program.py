"""One training of a tiny captioner as `enclap train` runs it, in as many processes as start this.

python run_program.py OUTPUT ENCODERS '{"optimisation.seed": 5}'
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch

from enclap.data.feature_store import Clip, StoreHeader, fingerprint, write_shard
from enclap.model import EnclapConfig, EnclapForConditionalGeneration
from enclap.training.caption_recipe import CaptionTraining
from enclap.training.recipe import parse
from enclap.training.run import Prepared, TrainingRun, learn, prepare, require_same_run
from enclap.training.trainer import ItemTrainer
from enclap.types import Features

WORDS = ["a dog", "rain", "a bell", "wind", "a car", "a bird", "water", "a door"]
VERBS = ["barks", "falls", "rings", "howls", "passes", "sings", "drips", "closes"]
SETTINGS: dict[str, Any] = {
    "epochs": 3,
    "validation": {"beams": 1, "batch_size": 3},
    "optimisation": {
        "batch_size": 4,
        "learning_rate": 2e-3,
        "warmup_steps": 2,
        "log_every": 1,
        "save_every": 3,
        "seed": 5,
    },
}


def header_of(encoders: Path) -> StoreHeader:
    """The header of features that the tiny model's encoders could have made."""
    return StoreHeader(codebooks=4, entries=16, embedding=16, frame_rate=25.0, encoders=fingerprint(encoders))


def made_up_clips(count: int, validation: int = 0, frames: int = 40, captions: int = 1) -> list[Clip]:
    """Clips whose codes and embeddings are random, the last `validation` of them kept apart."""
    generator = np.random.default_rng(0)
    clips = []
    for number in range(count):
        vector = generator.standard_normal(16).astype(np.float32)
        codes = generator.integers(0, 16, (5 + int(generator.integers(0, frames)), 4))
        features = Features(codes, vector / np.linalg.norm(vector))
        subject, verb = WORDS[number % 8], VERBS[(number // 8 + number) % 8]
        texts = tuple(f"{subject} {verb} {'again ' * caption}".strip() for caption in range(captions))
        split = "train" if number < count - validation else "validation"
        clips.append(Clip(f"clip/{number}", features, texts, (), 1.0, split, f"{number:x}"))
    return clips


def write_features(folder: Path, encoders: Path, clips: list[Clip]) -> Path:
    """A folder of features."""
    folder.mkdir(parents=True, exist_ok=True)
    write_shard(folder / "00000.parquet", header_of(encoders), clips)
    return folder


def recipe(**changes: Any) -> CaptionTraining:
    """A recipe of a few steps; changes: values by dotted keys."""
    table: dict[str, Any] = json.loads(json.dumps(SETTINGS))
    for key, value in changes.items():
        *path, last = key.split(".")
        inner = table
        for name in path:
            inner = inner.setdefault(name, {})
        inner[last] = value
    return parse(CaptionTraining, table, "test")


def run_of(output: Path, encoders: Path, features: Path, changes: dict[str, Any], resume: bool = True) -> TrainingRun:
    """The run that is tested: from the encoders' own model, without dropout."""
    return TrainingRun(recipe(**changes), (str(features),), output, str(encoders), str(encoders), resume=resume)


def run(output: Path, encoders: Path, features: Path, changes: dict[str, Any]) -> Prepared:
    """Train; the model of what is given back is the trained one."""
    torch.set_num_threads(1)
    prepared = prepare(run_of(output, encoders, features, changes))
    for module in prepared.start.model.modules():
        if hasattr(module, "dropout") and isinstance(module.dropout, float):
            module.dropout = 0.0
    require_same_run(prepared)
    learn(prepared)
    return prepared


def fresh_model(encoders: Path, target: Path, **sizes: Any) -> Path:
    """A copy of the encoders' folder with a caption model as training begins with it."""
    shutil.copytree(encoders, target)
    torch.manual_seed(0)
    config = EnclapConfig.from_pretrained(encoders)
    config.update({"dropout": 0.0, **sizes})
    EnclapForConditionalGeneration(config).save_pretrained(target)
    shutil.copy(encoders / "generation_config.json", target)
    return target


def kill_while_saving(step: int) -> None:
    """Have the process killed when the optimiser's state of a checkpoint is about to be written."""
    original = ItemTrainer._save_optimizer_and_scheduler

    def save(self: Any, folder: str) -> None:
        if self.state.global_step == step:
            os.kill(os.getpid(), signal.SIGKILL)
        original(self, folder)

    ItemTrainer._save_optimizer_and_scheduler = save  # type: ignore[method-assign]


def run_and_save(output: Path, encoders: Path, features: Path, changes: dict[str, Any], kill_at: int = 0) -> None:
    """Train, and keep this process's weights beside the run; kill_at: see `kill_while_saving`, 0 for never."""
    if kill_at:
        kill_while_saving(kill_at)
    done = run(output, encoders, features, changes)
    rank = int(os.environ.get("RANK", "0"))
    torch.save(done.start.model.state_dict(), output / f"weights-{rank}.pt")


if __name__ == "__main__":
    run_and_save(Path(sys.argv[1]), Path(sys.argv[2]), Path(sys.argv[3]), json.loads(sys.argv[4]))
