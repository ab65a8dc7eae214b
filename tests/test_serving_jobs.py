"""Jobs: kept before they are answered, gone on with after a restart, seen by the key that made them alone."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import httpx2
import pytest

from enclap.captioner import Captioner
from enclap.errors import EnvironmentFault
from enclap.output.formats import FORMATS, as_table
from enclap.serving import job_runner
from enclap.serving.access import ANONYMOUS
from enclap.serving.job_runner import JobRunner
from enclap.serving.job_store import JobStore
from enclap.serving.recordings import CaptionService
from enclap.serving.settings import ServeSettings
from fakes import EchoEngine
from servers import PATIENCE, GatedEngine, Running, running
from sounds import noise, write_audio

KEYS = ("k" * 20, "o" * 20)
MINE, THEIRS = ({"Authorization": f"Bearer {key}"} for key in KEYS)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return write_audio(tmp_path / "long.wav", noise(3.0), 16_000)


def submit(server: Running, path: Path, headers: dict[str, str] | None = None, **options: str) -> httpx2.Response:
    files = {"file": (path.name, path.read_bytes())}
    return server.post("/v1/jobs", files=files, data={"window": "0.5"} | options, headers=headers)


def shown(server: Running, id: str, headers: dict[str, str] | None = None) -> dict[str, Any]:
    found: dict[str, Any] = server.client.get(f"/v1/jobs/{id}", headers=headers).json()
    return found


def finished(server: Running, id: str) -> dict[str, Any]:
    return until(lambda: shown(server, id), lambda table: table["state"] in {"done", "failed"})


def until(ask: Callable[[], dict[str, Any]], is_right: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
    end = time.monotonic() + PATIENCE
    while not is_right(table := ask()):
        assert time.monotonic() < end, table
        time.sleep(0.02)
    return table


def test_a_job_ends_with_what_the_captioner_gives(path: Path) -> None:
    with running(Captioner(EchoEngine(), "echo")) as server:
        answer = submit(server, path, candidates="2")
        assert answer.status_code == 202 and answer.headers["location"] == f"/v1/jobs/{answer.json()['id']}"
        table = finished(server, answer.json()["id"])
        result = server.service.captioner.caption(path, None, 0.5)
        assert [item["text"] for item in table["captions"]] == [caption.text for caption in result.captions]
        assert (table["state"], table["seconds"], table["declared"], table["path"]) == ("done", 3.0, 3.0, "long.wav")
        assert len(table["captions"][0]["candidates"]) == 2
        assert [job["id"] for job in server.client.get("/v1/jobs").json()["jobs"]] == [table["id"]]
        assert not list(server.runner.uploads.folder.iterdir()), "an upload is kept no longer than it is needed"


@pytest.mark.parametrize("style", FORMATS)
def test_a_job_has_every_format(style: str, path: Path) -> None:
    with running(Captioner(EchoEngine(), "echo")) as server:
        id = submit(server, path).json()["id"]
        finished(server, id)
        whole = server.post(
            files={"file": (path.name, path.read_bytes())}, data={"window": "0.5", "format": style}
        ).content
        assert server.client.get(f"/v1/jobs/{id}/captions", params={"format": style}).content == whole


def test_a_job_that_fails_says_why(tmp_path: Path) -> None:
    path = tmp_path / "note.wav"
    path.write_bytes(b"no sound")
    with running(Captioner(EchoEngine(), "echo")) as server:
        table = finished(server, submit(server, path).json()["id"])
        assert table["state"] == "failed"
        assert table["error"]["code"] == "audio_unreadable" and "note.wav" in table["error"]["message"]
        answer = server.client.get(f"/v1/jobs/{table['id']}/captions")
        assert (answer.status_code, answer.json()["error"]["code"]) == (409, "job_not_done")


def test_wrong_options_make_no_job(path: Path) -> None:
    with running(Captioner(EchoEngine(), "echo")) as server:
        assert submit(server, path, window="0.01").status_code == 400
        assert submit(server, path, format="srt").status_code == 400
        assert submit(server, path, {"Idempotency-Key": "a b"}).status_code == 400
        assert server.client.get("/v1/jobs").json() == {"jobs": []}


def test_a_job_is_seen_by_its_key_alone(path: Path) -> None:
    with running(Captioner(EchoEngine(), "echo"), ServeSettings(keys=KEYS)) as server:
        id = submit(server, path, MINE).json()["id"]
        assert shown(server, id, MINE)["id"] == id
        for method, end in (("GET", ""), ("GET", "/captions"), ("GET", "/events"), ("DELETE", "")):
            assert server.client.request(method, f"/v1/jobs/{id}{end}", headers=THEIRS).status_code == 404
        assert server.client.get("/v1/jobs", headers=THEIRS).json() == {"jobs": []}
        assert shown(server, id, MINE)["id"] == id


def test_the_same_idempotency_key_makes_one_job(path: Path, tmp_path: Path) -> None:
    with running(Captioner(EchoEngine(), "echo"), ServeSettings(keys=KEYS)) as server:
        again = {"Idempotency-Key": "one"}
        first, second = (submit(server, path, MINE | again) for _ in range(2))
        assert first.json()["id"] == second.json()["id"]
        other = submit(server, path, MINE | again, candidates="2")
        assert (other.status_code, other.json()["error"]["code"]) == (422, "idempotency_key_reused")
        assert submit(server, path, THEIRS | again).json()["id"] != first.json()["id"]
        assert len(server.client.get("/v1/jobs", headers=MINE).json()["jobs"]) == 1


def test_events_come_as_the_job_goes_on_and_can_be_taken_up(path: Path) -> None:
    engine = GatedEngine()
    with running(Captioner(engine, "gated")) as server:
        id = submit(server, path).json()["id"]
        with server.client.stream("GET", f"/v1/jobs/{id}/events") as answer:
            lines = answer.iter_lines()
            engine.permits.release()
            assert [next(lines) for _ in range(2)] == ["id: 0", "event: caption"]
            engine.let_all_through()
            rest = list(lines)
        assert rest.count("event: caption") == 5 and "event: done" in rest
        taken_up = server.client.get(f"/v1/jobs/{id}/events", headers={"Last-Event-ID": "3"}).text
        assert [line for line in taken_up.splitlines() if line.startswith("id: ")] == ["id: 4", "id: 5"]


def test_a_deleted_job_ends_and_is_forgotten(path: Path) -> None:
    engine = GatedEngine()
    with running(Captioner(engine, "gated")) as server:
        engine.entered.acquire()
        id = submit(server, path, window="0.1").json()["id"]
        engine.entered.acquire(timeout=PATIENCE)
        assert server.client.delete(f"/v1/jobs/{id}").status_code == 204
        engine.let_all_through()
        assert server.client.get(f"/v1/jobs/{id}").status_code == 404
        assert finished(server, submit(server, path).json()["id"])["state"] == "done"
        assert sum(engine.batches) < 1 + 30 + 6, "its windows were dropped"
        assert not list(server.runner.uploads.folder.iterdir())


def test_a_server_that_starts_again_goes_on(path: Path, tmp_path: Path) -> None:
    engine = GatedEngine()
    state = tmp_path / "state"
    with running(Captioner(engine, "same"), folder=state) as server:
        ids = [submit(server, path, window="0.1").json()["id"] for _ in range(3)]
        engine.permits.release()
        before = until(lambda: shown(server, ids[0]), lambda table: len(table["captions"]) > 0)
        threading.Timer(0.5, engine.let_all_through).start()
    done = len(before["captions"])
    engine = EchoEngine()
    with running(Captioner(engine, "same"), folder=state) as server:
        tables = [finished(server, id) for id in ids]
        result = as_table(server.service.captioner.caption(path, None, 0.1))
        assert [table["captions"] for table in tables] == [result["captions"]] * 3
        assert sum(engine.batches) <= 1 + 90 - done + 30, "what was captioned before is not captioned again"


def test_another_model_starts_a_job_anew(path: Path, tmp_path: Path) -> None:
    engine = GatedEngine()
    with running(Captioner(engine, "one"), folder=tmp_path / "state") as server:
        id = submit(server, path, window="0.1").json()["id"]
        engine.permits.release()
        until(lambda: shown(server, id), lambda table: len(table["captions"]) > 0)
        threading.Timer(0.5, engine.let_all_through).start()
    other = EchoEngine()
    with running(Captioner(other, "two"), folder=tmp_path / "state") as server:
        assert len(finished(server, id)["captions"]) == 30
        assert sum(other.batches) == 1 + 30


def test_a_recording_that_ends_the_server_each_time_is_given_up(path: Path, tmp_path: Path) -> None:
    store_path = tmp_path / "state" / "jobs.sqlite3"
    with running(Captioner(EchoEngine(), "echo"), folder=tmp_path / "state") as server:
        id = submit(server, path).json()["id"]
        finished(server, id)
    store = JobStore(store_path)
    with store._transaction() as run:
        run("UPDATE jobs SET state = 'running', attempts = 3")
    store.close()
    with running(Captioner(EchoEngine(), "echo"), folder=tmp_path / "state") as server:
        table = finished(server, id)
        assert (table["state"], table["error"]["code"]) == ("failed", "gave_up")


def test_uploads_stay_below_the_quota(path: Path) -> None:
    engine = GatedEngine()
    with running(Captioner(engine, "gated"), quota=2 * path.stat().st_size + 2000) as server:
        answers = [submit(server, path) for _ in range(3)]
        assert [answer.status_code for answer in answers] == [202, 202, 429]
        assert answers[-1].json()["error"]["code"] == "quota_exceeded" and "retry-after" in answers[-1].headers
        engine.let_all_through()
        for answer in answers[:2]:
            finished(server, answer.json()["id"])
        assert submit(server, path).status_code == 202


def test_too_many_jobs_are_refused(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(job_runner, "MOST_UNFINISHED", 1)
    engine = GatedEngine()
    with running(Captioner(engine, "gated")) as server:
        assert [submit(server, path).status_code for _ in range(2)] == [202, 429]
        engine.let_all_through()


def test_old_jobs_and_uploads_that_nobody_needs_are_removed(path: Path, tmp_path: Path) -> None:
    state = tmp_path / "state"
    with running(Captioner(EchoEngine(), "echo"), folder=state) as server:
        finished(server, submit(server, path).json()["id"])
        (state / "uploads" / "left").write_bytes(b"by a killed server")
        server.runner._keep_seconds = 0.0
        server.runner._sweep()
        assert server.client.get("/v1/jobs").json() == {"jobs": []}
        assert not (state / "uploads" / "left").exists()


def test_a_folder_serves_one_server(tmp_path: Path) -> None:
    with running(Captioner(EchoEngine(), "echo"), folder=tmp_path / "state"):
        other = JobRunner(CaptionService(Captioner(EchoEngine(), "echo"), ServeSettings()), tmp_path / "state", 1, 1.0)
        with pytest.raises(EnvironmentFault, match="another enclap"):
            other.start()


def test_a_damaged_database_is_told_in_one_line(tmp_path: Path) -> None:
    (tmp_path / "jobs.sqlite3").write_bytes(b"no database, but longer than a header of one hundred bytes" * 4)
    runner = JobRunner(CaptionService(Captioner(EchoEngine(), "echo"), ServeSettings()), tmp_path, 1, 1.0)
    with pytest.raises(EnvironmentFault, match="--state-dir"):
        runner.start()


def test_the_events_of_a_removed_job_end(path: Path) -> None:
    engine = GatedEngine()
    with running(Captioner(engine, "gated")) as server:
        id = submit(server, path).json()["id"]
        with server.client.stream("GET", f"/v1/jobs/{id}/events") as answer:
            server.client.delete(f"/v1/jobs/{id}")
            text = "".join(answer.iter_text())
        assert json.loads(text.split("data: ")[-1]) == {"id": id}
        engine.let_all_through()


def kept(server: Running, path: Path) -> httpx2.Response:
    headers = {"Content-Type": "audio/wav"}
    return server.post("/v1/uploads", params={"filename": path.name}, content=path.read_bytes(), headers=headers)


def test_uploads_outlive_a_restart_and_go_after_an_hour(
    path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "state"
    with running(Captioner(EchoEngine(), "echo"), folder=folder) as server:
        table = kept(server, path).json()
        assert table["expires"] - table["created"] == job_runner.UPLOAD_SECONDS
        twice = server.post("/v1/uploads", files=[("file", ("a", b"a")), ("file", ("b", b"b"))])
        assert (twice.status_code, twice.json()["error"]["code"]) == (400, "invalid_option")
        assert server.post("/v1/uploads", files={"file": b"a"}, data={"window": "1"}).status_code == 400
    with running(Captioner(EchoEngine(), "echo"), folder=folder) as server:
        with closing(server.runner.open_upload(ANONYMOUS, table["id"])) as file:
            assert (file.name, file.read()) == (path.name, path.read_bytes())
        monkeypatch.setattr(job_runner, "UPLOAD_SECONDS", 0.0)
        assert server.client.delete(f"/v1/uploads/{table['id']}").status_code == 404, "too old, and not swept yet"
    with running(Captioner(EchoEngine(), "echo"), folder=folder) as server:
        assert not list(server.runner.uploads.folder.iterdir())


def test_uploads_are_bounded_in_bytes_and_number(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    size = path.stat().st_size
    with running(Captioner(EchoEngine(), "echo"), quota=2 * size + size // 2) as server:
        assert [kept(server, path).status_code for _ in range(3)] == [201, 201, 429]
    monkeypatch.setattr(job_runner, "MOST_UPLOADS", 1)
    with running(Captioner(EchoEngine(), "echo")) as server:
        answers = [kept(server, path) for _ in range(2)]
        assert [answer.status_code for answer in answers] == [201, 429]
        assert server.client.delete(f"/v1/uploads/{answers[0].json()['id']}").status_code == 204
        assert kept(server, path).status_code == 201
