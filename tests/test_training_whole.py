"""The paper's recipe from a manifest to a caption, at a small scale, in two processes; and what loading takes."""

from __future__ import annotations

import csv
import json
import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import yaml
from tokenizers import Tokenizer

from cli import Run
from enclap.data.feature_store import Clip, FeatureStore, StoreHeader, write_shard
from enclap.data.recordings import open_corpus
from enclap.data.synthetic.grammar import canonical
from enclap.data.synthetic.scenes import SceneComposer, SceneMix
from enclap.hub.resolve import find_model
from enclap.training.caption_recipe import read_caption_recipe
from enclap.training.collate import CaptionCollator
from enclap.training.dataset import EpochItems
from enclap.types import Features
from sounds import write_wav
from test_training_start import bart_folder
from tiny_mini import RATE, write_recordings

CLIPS, KEPT_APART = 24, 6


def composed_recordings(folder: Path) -> Path:
    """A manifest of composed recordings with captions, some of them for validation."""
    corpus = open_corpus(write_recordings(folder / "sounds"), folder / "cache", RATE)
    composer = SceneComposer(corpus, dict.fromkeys(range(len(corpus)), 1.0), SceneMix(), 0)
    with (folder / "scenes.csv").open("w", newline="", encoding="utf-8") as stream:
        writer = csv.writer(stream)
        writer.writerow(["file_name", "caption_1", "split"])
        for number in range(CLIPS):
            scene = composer.draw(number)
            samples = (scene.waveform.samples[:, None] * 32767).astype(np.int16)
            write_wav(folder / f"{number}.wav", samples, scene.waveform.rate)
            split = "val" if number < KEPT_APART else "train"
            writer.writerow([f"{number}.wav", canonical(scene.description), split])
    return folder / "scenes.csv"


@pytest.mark.slow
@pytest.mark.timeout(1_200)
def test_the_papers_recipe_from_a_manifest_to_a_caption(enclap: Run, tiny_model: Path, tmp_path: Path) -> None:
    manifest = composed_recordings(tmp_path / "data")
    done = enclap("extract", str(manifest), "--model", str(tiny_model), "--output", "features")
    assert done.returncode == 0, done.stderr
    bart = bart_folder(tmp_path / "bart", tiny_model / "tokenizer.json", positions=300)
    settings = {"start": str(bart), "epochs": 4, "optimisation.batch_size": 4, "optimisation.trackers": "[tensorboard]"}
    settings |= {"optimisation.log_every": 1, "optimisation.learning_rate": 1e-3, "optimisation.warmup_steps": 4}
    chosen = [part for key, value in settings.items() for part in ("--set", f"{key}={value}")]
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", "-m", "enclap"]
    command = ["train", "audiocaps-base", "--data", "features", "--model", str(tiny_model), "--output", "run", *chosen]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    finished = subprocess.run(
        [*launch, *command], cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
    )
    assert finished.returncode == 0, finished.stderr
    records = [json.loads(line) for line in (tmp_path / "run" / "log.jsonl").read_text().splitlines()]
    losses = [record["loss"] for record in records if "loss" in record]
    steps = 4 * -(-(CLIPS - KEPT_APART) // 4)
    masked = [record["mcm_loss"] for record in records if "loss" in record]  # 0 where so short clips draw no span
    assert len(losses) == steps and np.mean(np.asarray(masked) > 0) > 0.7
    assert np.mean(losses[-4:]) < np.mean(losses[:4])
    assert sum("eval_loss" in record for record in records) == 4
    assert list((tmp_path / "run" / "tensorboard").rglob("events.out.tfevents.*"))
    table = tmp_path / "data" / "kept.csv"
    rows = manifest.read_text(encoding="utf-8").splitlines()[: KEPT_APART + 1]
    table.write_text("\n".join(rows).replace("file_name", "path") + "\n", encoding="utf-8")
    done = enclap("evaluate", "--model", "run/model", "--data", str(table), "--tokenizer", "none", "--output", "report")
    assert done.returncode == 0, done.stderr
    shown = enclap("caption", str(tmp_path / "data" / "1.wav"), "--model", "run/model", "--window", "0")
    assert shown.returncode == 0 and shown.stdout.strip(), shown.stderr
    head = yaml.safe_load((tmp_path / "run" / "model" / "README.md").read_text().split("---")[1])
    assert head["model-index"] and read_caption_recipe("audiocaps-base").mcm_loss_weight == 0.7


HEADER = StoreHeader(codebooks=16, entries=1024, embedding=512, frame_rate=75.0, encoders="made up")
FULL_SIZE = 50_000

LEAST_RATE = 1_000
"""Clips that one core must load, mask and collate in a second of its own: 2,000 on two cores."""


def full_size_clips(count: int) -> list[Clip]:
    """Clips of 10 s at the published size, with random codes."""
    generator = np.random.default_rng(0)
    clips = []
    for number in range(count):
        vector = generator.standard_normal(512).astype(np.float32)
        features = Features(generator.integers(0, 1024, (750, 16)), vector / np.linalg.norm(vector))
        clips.append(Clip(f"{number}", features, ("A dog barks while rain falls on a roof.",), (), 10.0))
    return clips


def test_loading_masking_and_collating_keep_up_with_a_gpu(tmp_path: Path) -> None:
    """By the processor's time, which other programs on the machine do not change much."""
    write_shard(tmp_path / "00000.parquet", HEADER, full_size_clips(256))
    tokenizer = Tokenizer.from_file(str(find_model("mini") / "tokenizer.json"))
    masking = read_caption_recipe("audiocaps-base").perturbation
    store = FeatureStore(tmp_path)
    items = EpochItems(store, range(256), tokenizer, 1024, 1021, masking, batch_size=64, seed=0)
    collate = CaptionCollator(1024, 1021)
    rates = []
    for _ in range(3):
        started = time.process_time()
        for start in range(0, 512, 64):
            collate([items(number) for number in range(start, start + 64)])
        rates.append(512 / (time.process_time() - started))
    assert max(rates) > LEAST_RATE, rates


PROGRAM = """
import sys
import psutil
from pathlib import Path
import numpy as np
from enclap.data.feature_store import FeatureStore
before = psutil.Process().memory_full_info().uss
store = FeatureStore(Path(sys.argv[1]))
total = len(store.lengths())
for index in np.random.default_rng(0).integers(0, len(store), 20_000):
    total += len(store[int(index)].features.codes)
print(flush=True)  # both have read
sys.stdin.readline()
print(psutil.Process().memory_full_info().uss - before, total, flush=True)
sys.stdin.readline()
"""


@pytest.mark.slow
@pytest.mark.timeout(1_200)
def test_fifty_thousand_clips_take_a_process_less_than_200_megabytes_of_its_own(tmp_path: Path) -> None:
    """Clips of 10 s at the published size, of which 250 differ; 1.2 GB of Arrow, which all processes share."""
    write_shard(tmp_path / "00000.parquet", HEADER, full_size_clips(250))
    content = (tmp_path / "00000.parquet").read_bytes()
    for shard in range(1, FULL_SIZE // 250):
        (tmp_path / f"{shard:05d}.parquet").write_bytes(content)
    started = time.monotonic()
    assert len(FeatureStore(tmp_path)) == FULL_SIZE
    print(f"Arrow copy made in {time.monotonic() - started:.0f} s")  # noqa: T201
    program = [sys.executable, "-c", PROGRAM, str(tmp_path)]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    processes = [subprocess.Popen(program, **pipes) for _ in range(2)]
    # Pages count as a process's own when no other has them mapped: both read, both measure, then both end.
    assert [answer(process) for process in processes] == ["", ""]
    measured = [answer(process, "\n") for process in processes]
    for process in processes:
        process.communicate("\n")
    for line in measured:
        own, total = map(int, line.split())
        assert total == FULL_SIZE + 20_000 * 750
        assert own < 200e6, f"{own / 1e6:.0f} MB"


def answer(process: subprocess.Popen[str], question: str = "") -> str:
    """The next line that the process writes, after it was given the question."""
    assert process.stdin is not None and process.stdout is not None
    process.stdin.write(question)
    process.stdin.flush()
    return process.stdout.readline().strip()
