"""`enclap batch --ray`: the stages as Ray calls them, by hand and on a Ray here, give what processes give."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Generator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from cli import Run
from enclap.batch.extraction import extract_through
from enclap.batch.listing import Listing
from enclap.batch.local import Job
from enclap.batch.on_ray import Decoder, ModelActor, Reader, WriterActor, connected
from enclap.batch.run import caption_corpus
from enclap.batch.shards import ShardPaths, ShardReport
from enclap.batch.work import COLUMNS, Captioning, ModelRun
from enclap.captioner import Captioner
from enclap.data.datasets.open import open_checked
from enclap.data.feature_store import FeatureStore
from enclap.decoding.options import DecodingOptions
from enclap.errors import DataError
from enclap.extraction.extract import extract_features
from sounds import noise, write_audio
from test_batch import here, require_equal, rows

WORK = Captioning(DecodingOptions(beams=2), 1.0, COLUMNS)


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    """Seven recordings, one of which is none."""
    folder = tmp_path / "corpus"
    folder.mkdir()
    for number in range(6):
        write_audio(folder / f"{number}.wav", noise(0.4 + 0.4 * number, seed=number), 16_000)
    (folder / "6.wav").write_text("no sound")
    return folder


def stages_by_hand(job: Job, listing: Listing, shards: Sequence[int]) -> Generator[ShardReport, None, None]:
    """The classes that Ray runs, called one after the other; the model sees blocks in another order, one twice."""
    reader, decoder = Reader(listing, shards, job.together), Decoder(job.work.window, job.together)
    model, writer = ModelActor(job.work, job.model), WriterActor(job)
    slices = [pa.Table.from_pylist([item]) for number in range(len(shards)) for item in reader({"id": number})]
    decoded = pa.concat_tables([table for item in slices for table in decoder(item)])
    blocks = [decoded.slice(start, 2) for start in range(0, len(decoded), 2)]
    for block in [blocks[0], *reversed(blocks)]:
        for table in model(block):
            for report in writer(table)["report"]:
                told = json.loads(report)
                assert "fault" not in told, told
                yield ShardReport(**told)


def test_the_stages_give_what_processes_give(corpus: Path, tiny_model: Path, tmp_path: Path) -> None:
    model = ModelRun(str(tiny_model), threads=1)
    for name, runner in (("plain", here), ("stages", stages_by_hand)):
        caption_corpus([str(corpus)], tmp_path / name, WORK, model, shard_size=3, runner=runner)
    require_equal(tmp_path / "stages", tmp_path / "plain")
    assert len(rows(tmp_path / "plain")) == 7


def test_two_blocks_at_once_are_captioned_as_one_after_the_other(
    corpus: Path, tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And the engine, which is made for one call of a kind at a time, gets no two of them."""
    caption_corpus([str(corpus)], tmp_path / "out", WORK, ModelRun(str(tiny_model)), shard_size=4, runner=here)
    listing = Listing(tmp_path / "out" / ".listing")
    items = [item for number in range(2) for item in Reader(listing, range(2), 4)({"id": number})]
    blocks = [pa.concat_tables(Decoder(1.0, 4)(pa.Table.from_pylist([item]))) for item in items]
    model = ModelActor(WORK, ModelRun(str(tiny_model), threads=1))
    captioner = model._captioner
    assert captioner is not None
    overlaps: list[bool] = []

    def alone(method: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any, **options: Any) -> Any:
            is_free = running_by[method].acquire(blocking=False)
            overlaps.append(not is_free)
            time.sleep(0.02)
            try:
                return method(*arguments, **options)
            finally:
                if is_free:
                    running_by[method].release()

        running_by[method] = threading.Semaphore()
        return call

    running_by: dict[Callable[..., Any], threading.Semaphore] = {}
    monkeypatch.setattr(captioner.engine, "extract", alone(captioner.engine.extract))
    monkeypatch.setattr(captioner.engine, "generate", alone(captioner.engine.generate))
    expected = [pa.concat_tables(model(block)) for block in blocks]
    with ThreadPoolExecutor(2) as pool:
        found = list(pool.map(lambda block: pa.concat_tables(model(block)), blocks))
    assert found == expected and len(overlaps) >= 8 and not any(overlaps)


def test_a_worker_s_fault_reaches_the_driver(corpus: Path, tiny_model: Path, tmp_path: Path) -> None:
    work = Captioning(DecodingOptions(), 500.0)  # longer than any model reads
    table = next(ModelActor(work, ModelRun(str(tiny_model)))(pa.table({"shard": [0]})))
    caption_corpus([str(corpus)], tmp_path / "out", WORK, ModelRun(str(tiny_model)), runner=here)
    writer = WriterActor(Job(".listing", WORK, ShardPaths(tmp_path / "out"), "", ModelRun(str(tiny_model))))
    assert '"UsageError"' in writer(table)["report"][0]


def require_equal_features(folder: Path, other: Path) -> None:
    """Asserts that two folders of features hold the same clips; embeddings but for the rounding of other batches."""
    for one, two in zip(FeatureStore(folder), FeatureStore(other), strict=True):
        assert (one.name, one.captions, one.seconds, one.audio) == (two.name, two.captions, two.seconds, two.audio)
        assert (one.features.codes == two.features.codes).all()
        assert one.features.embedding is not None and two.features.embedding is not None
        np.testing.assert_allclose(one.features.embedding, two.features.embedding, atol=1e-5)


def test_features_through_the_pipeline_are_those_of_extract(corpus: Path, tiny_model: Path, tmp_path: Path) -> None:
    lines = "".join(f"{number}.wav,A dog {number}.\n" for number in range(6))
    (corpus / "train.csv").write_text("path,caption\n" + lines)
    dataset, _ = open_checked([str(corpus / "train.csv")])
    captioner = Captioner.from_pretrained(tiny_model)
    extract_features(dataset, captioner, tmp_path / "plain")
    for runner, folder in ((here, "here"), (stages_by_hand, "stages")):
        done = extract_through(runner, dataset, captioner, ModelRun(str(tiny_model)), tmp_path / folder)
        again = extract_through(runner, dataset, captioner, ModelRun(str(tiny_model)), tmp_path / folder)
        assert (done.done, done.failures) == (again.done, again.failures) == (6, 0)
        require_equal_features(tmp_path / "plain", tmp_path / folder)
    with pytest.raises(DataError, match="features of other clips"):
        (corpus / "train.csv").write_text("path,caption\n0.wav,Rain.\n")
        extract_through(here, open_checked([str(corpus / "train.csv")])[0], captioner, ModelRun(), tmp_path / "here")


def test_an_address_without_a_ray_is_one_line(enclap: Run, corpus: Path, tiny_model: Path) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    began = time.monotonic()
    command = ["batch", str(corpus), "--output", "out", "--model", str(tiny_model), "--ray"]
    done = enclap(*command, f"127.0.0.1:{port}")
    assert done.returncode == 3 and done.stderr.startswith(f"enclap: no Ray answers at 127.0.0.1:{port} (")
    assert done.stderr.count("\n") == 1 and time.monotonic() - began < 60
    done = enclap(*command, "ray://127.0.0.1:10001")
    assert done.returncode == 3 and "give the head's HOST:PORT" in done.stderr and done.stderr.count("\n") == 1


@pytest.fixture(scope="module")
def ray_address() -> Generator[str, None, None]:
    """The address of a Ray on loopback; that of RAY_TEST_ADDRESS where one runs already."""
    if running := os.environ.get("RAY_TEST_ADDRESS"):
        yield running
        return
    os.environ.pop("RAY_ADDRESS", None)
    with connected("auto"):
        import ray  # reads whether it asks for tokens when it is imported

        yield ray.get_runtime_context().gcs_address


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_on_ray_as_in_processes_and_after_a_kill(
    ray_address: str, corpus: Path, tiny_model: Path, tmp_path: Path, enclap_command: list[str]
) -> None:
    assert ray_address.startswith("127.0.0.1:"), "a Ray that is started here listens on loopback alone"
    command = [*enclap_command, "batch", str(corpus), "--shard-size", "2", "--window", "1", "--beams", "2"]
    command += ["--model", str(tiny_model), "--ray", ray_address, "--columns", ",".join(COLUMNS), "--threads", "1"]
    caption_corpus([str(corpus)], tmp_path / "plain", WORK, ModelRun(str(tiny_model)), shard_size=2, runner=here)
    done = subprocess.run([*command, "--output", str(tmp_path / "ray")], capture_output=True, text=True)
    assert done.returncode == 1 and "7 of 7 files" in done.stderr
    require_equal(tmp_path / "ray", tmp_path / "plain")
    killed = tmp_path / "killed"
    with subprocess.Popen([*command, "--output", str(killed)], stderr=subprocess.DEVNULL) as process:
        while not list(killed.glob("part-*.parquet")) and process.poll() is None:
            time.sleep(0.01)
        process.send_signal(signal.SIGKILL)
    kept = {path.name: path.stat().st_mtime_ns for path in killed.glob("part-*.parquet")}
    subprocess.run([*command, "--output", str(killed)], capture_output=True)
    require_equal(killed, tmp_path / "plain")
    assert kept and all((killed / name).stat().st_mtime_ns == moment for name, moment in kept.items())


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_features_on_ray_are_those_of_extract(
    ray_address: str, enclap_command: list[str], corpus: Path, tiny_model: Path, tmp_path: Path
) -> None:
    lines = "".join(f"{number}.wav,A dog {number}.\n" for number in range(6))
    (corpus / "train.csv").write_text("path,caption\n" + lines)
    command = [*enclap_command, "extract", str(corpus / "train.csv"), "--model", str(tiny_model), "--threads", "1"]
    for folder, options in (("plain", []), ("ray", ["--ray", ray_address])):
        done = subprocess.run([*command, *options, "--output", str(tmp_path / folder)], capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
    require_equal_features(tmp_path / "plain", tmp_path / "ray")


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_killed_actor_loses_nothing(
    ray_address: str, corpus: Path, tiny_model: Path, tmp_path: Path, enclap_command: list[str]
) -> None:
    command = [*enclap_command, "batch", str(corpus), "--shard-size", "1", "--window", "1", "--beams", "2"]
    command += ["--model", str(tiny_model), "--ray", ray_address, "--columns", ",".join(COLUMNS), "--threads", "1"]
    caption_corpus([str(corpus)], tmp_path / "plain", WORK, ModelRun(str(tiny_model)), shard_size=1, runner=here)
    output = tmp_path / "out"
    with subprocess.Popen([*command, "--output", str(output)], stderr=subprocess.PIPE, text=True) as process:
        while not (actors := processes_named("ModelActor")) and process.poll() is None:
            time.sleep(0.01)
        for actor in actors:
            os.kill(actor, signal.SIGKILL)
        _, told = process.communicate()
    assert actors, told
    assert process.returncode == 1 and "7 of 7 files" in told, told
    require_equal(output, tmp_path / "plain")


def processes_named(name: str) -> list[int]:
    """Of the processes of Ray those whose title, which says what they run, holds a name."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdecimal():
            try:
                title = (entry / "cmdline").read_bytes().decode(errors="replace")
            except OSError:  # it has ended meanwhile
                continue
            if title.startswith("ray::") and name in title:
                found.append(int(entry.name))
    return found


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_a_ray_of_its_own_does_the_work_with_the_usual_threads(
    corpus: Path, tiny_model: Path, tmp_path: Path, enclap_command: list[str]
) -> None:
    """Actors and tasks together ask for no more than this machine has, or nothing would ever begin."""
    command = [*enclap_command, "batch", str(corpus), "--window", "1", "--beams", "2", "--model", str(tiny_model)]
    environment = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
    command += ["--ray", "auto", "--output", str(tmp_path / "out")]
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert done.returncode == 1 and "started a Ray on this machine" in done.stderr and "7 of 7 files" in done.stderr


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_another_version_is_one_line(ray_address: str, tmp_path: Path) -> None:
    program = (
        "import ray; ray.__version__ = '2.0.0'\n"
        "from enclap.batch.on_ray import connected\n"
        "from enclap.errors import EnvironmentFault\n"
        "try:\n"
        f"    with connected({ray_address!r}): print('joined')\n"
        "except EnvironmentFault as error: print(error)\n"
    )
    environment = {**os.environ, "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0", "RAY_AUTH_MODE": "token"}
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, env=environment)
    assert "cannot be joined: Version mismatch" in done.stdout and done.stdout.count("\n") == 1, done
