"""Fetching from a hub on the loopback: trust, resuming, tampering, being offline, and the whole way to a caption."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from cli import Done, Run, on_terminal
from enclap.errors import EnvironmentFault, ModelError
from enclap.files import sha256
from enclap.hub import download as fetching
from enclap.hub import integrity
from enclap.hub import official_release as releases
from enclap.hub import resolve as hub
from enclap.hub.download import Repository, cached, fetch, lock_path
from hubserver import Hub
from published import put_official

OURS = "someone/tiny"


def texts(done: Done) -> list[str]:
    assert done.returncode == 0, done.stderr
    captions = json.loads(done.stdout)["results"][0]["captions"]
    return [candidate["text"] for caption in captions for candidate in caption["candidates"]]


def forbid(*_: object, **__: object) -> None:
    raise AssertionError("called, though it must not be")


def test_from_the_release_to_a_caption_and_offline_after(
    enclap: Run,
    online: Hub,
    tiny_model: Path,
    tmp_path: Path,
    recording: Callable[..., Path],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    import torch

    put_official(online, tiny_model, tmp_path / "release")
    path = recording(seconds=3.0)
    ask = ("caption", path, "--candidates", "4", "--format", "json", "--model")
    first = enclap(*ask, "official")
    assert texts(first) == texts(enclap(*ask, tiny_model))
    assert not online.asked_for("app.py") and not online.asked_for("bart-base/resolve/main/pytorch")

    online.repositories.clear()
    online.requests.clear()
    monkeypatch.setattr(torch, "load", forbid)  # after the conversion no pickle is opened
    monkeypatch.setattr(releases, "import_module", forbid)
    again = enclap(*ask, "official")
    assert again.stderr == "" and texts(again) == texts(first)
    listed = enclap("models", "list")
    assert listed.stdout.splitlines()[-1].startswith("official ")
    card = enclap("models", "card", "official").stdout
    assert "space enclap-team/enclap" in card and "ckpt/pytorch_model.bin" in card
    assert enclap("models", "pull", "official").returncode == 0
    assert online.requests == []


def test_the_first_fetch_is_trusted_and_said_so_once(enclap: Run, online: Hub, tiny_model: Path) -> None:
    online.put(f"model/{OURS}", tiny_model)
    first, second = enclap("models", "pull", OURS), enclap("models", "pull", OURS)
    assert (first.returncode, second.returncode) == (0, 0)
    table = json.loads(lock_path(Repository(OURS)).read_text())
    assert table["revision"] == online.commit(f"model/{OURS}")
    digest = sha256(tiny_model / "onnx" / "encoder.onnx")
    assert table["files"]["onnx/encoder.onnx"]["sha256"] == digest
    assert first.stderr == (
        f"{OURS}: its first fetch is trusted, and revision and checksums are locked in {lock_path(Repository(OURS))}\n"
    )
    assert second.stderr == "" and first.stdout == second.stdout


def test_a_repository_in_our_format_is_used_as_it_is(
    enclap: Run, online: Hub, tiny_model: Path, recording: Callable[..., Path]
) -> None:
    online.put(f"model/{OURS}", tiny_model)
    online.repositories[f"model/{OURS}"] |= {"modeling.py": b"raise SystemExit(1)", "pytorch_model.bin": b"pickle"}
    sound = recording()
    assert enclap("caption", sound, "--model", OURS).stdout == enclap("caption", sound).stdout
    assert not online.asked_for(".py") and not online.asked_for("pytorch_model.bin")
    assert any(line.startswith(OURS) for line in enclap("models", "list").stdout.splitlines())
    online.requests.clear()
    assert enclap("caption", sound, "--model", OURS).stderr == ""
    assert online.requests == []


def test_graphs_that_share_a_weight_file_work_from_the_hub(
    enclap: Run, online: Hub, tiny_model: Path, tmp_path: Path, recording: Callable[..., Path]
) -> None:
    """The hub's cache is made of links, and onnxruntime follows none out of the graph's folder."""
    import onnx

    folder = Path(shutil.copytree(tiny_model, tmp_path / "split"))
    path = folder / "onnx" / "encoder.onnx"
    model = onnx.load(path)
    onnx.save(model, path, save_as_external_data=True, location="weights.data", size_threshold=1024)
    online.put(f"model/{OURS}", folder)
    sound = recording()
    assert enclap("caption", sound, "--model", OURS).stdout == enclap("caption", sound).stdout
    placed = hub.find_local_model(OURS)
    assert not [item for item in placed.rglob("*") if item.is_symlink()]


def test_a_placed_folder_that_was_damaged_is_made_again(online: Hub, tiny_model: Path) -> None:
    online.put(f"model/{OURS}", tiny_model)
    placed = hub.pull_model(OURS)
    (placed / "model.safetensors").unlink()
    assert hub.find_model(OURS) == placed and (placed / "model.safetensors").is_file()
    content = (placed / "tokenizer.json").read_bytes()
    (placed / "tokenizer.json").unlink()
    (placed / "tokenizer.json").write_bytes(content[:-1] + b" ")  # of the same length
    assert hub.pull_model(OURS) == placed and (placed / "tokenizer.json").read_bytes() == content


def test_a_connection_that_breaks_half_way_is_resumed(
    online: Hub, tiny_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "DOWNLOAD_CHUNK_SIZE", 1000)  # what arrived in whole chunks is kept
    online.put(f"model/{OURS}", tiny_model)
    online.cut = 5000
    folder = fetch(Repository(OURS, optional=hub.MODEL_FILES)).folder
    resumed = [request for request in online.requests if request[2] == "bytes=5000-"]
    assert len(resumed) == 1 and online.cut is None
    for name in integrity.read_checksums(tiny_model) or ("model.safetensors", "onnx/decoder.onnx"):
        assert sha256(folder / name) == sha256(tiny_model / name)


def test_a_file_with_a_wrong_hash_is_refused_and_removed(enclap: Run, online: Hub, tiny_model: Path) -> None:
    online.put(f"model/{OURS}", tiny_model)
    online.forged["codec/model.safetensors"] = "0" * 64
    done = enclap("models", "pull", OURS)
    assert (done.returncode, done.stdout) == (3, "")
    assert done.stderr == (
        f"enclap: {OURS}: codec/model.safetensors: wrong checksum, so it was removed; "
        "fetch it again, and if this repeats, do not trust the source\n"
    )
    assert not lock_path(Repository(OURS)).exists()
    cache = Path(fetching._snapshot_folder(Repository(OURS), online.commit(f"model/{OURS}")))
    assert not (cache / "codec" / "model.safetensors").exists()
    online.forged.clear()
    assert enclap("models", "pull", OURS).returncode == 0


def test_a_small_file_is_held_to_git_s_hash(online: Hub) -> None:
    """What the hub lists of files outside its large storage is git's hash, not a SHA-256."""
    online.repositories["model/a/b"] = {"config.json": b'{"model_type": "enclap"}'}
    snapshot = fetch(Repository("a/b"))
    path = snapshot.folder / "config.json"
    path.resolve().write_bytes(b'{"model_type": "enclaq"}')  # of the same length
    lock_path(Repository("a/b")).unlink()
    with pytest.raises(ModelError, match=r"config\.json: wrong checksum"):
        fetch(Repository("a/b"))
    assert fetch(Repository("a/b")).files == snapshot.files


def test_what_was_locked_is_what_counts_from_then_on(enclap: Run, online: Hub, tiny_model: Path) -> None:
    """The repository moves on: the locked revision stays in use, and is asked for when the cache is gone."""
    online.put(f"model/{OURS}", tiny_model)
    locked = fetch(Repository(OURS, optional=hub.MODEL_FILES))
    online.repositories[f"model/{OURS}"]["README.md"] = b"# A newer model\n"
    assert fetch(Repository(OURS, optional=hub.MODEL_FILES)) == locked
    shutil.rmtree(locked.folder.parents[1])
    done = enclap("models", "pull", OURS)
    assert (done.returncode, done.stderr.count("\n")) == (3, 1)
    assert "the locked revision is no longer on the hub; `enclap models pull --update` takes the newest" in done.stderr
    assert enclap("models", "pull", OURS, "--update").returncode == 0
    renewed = cached(Repository(OURS))
    assert renewed is not None and renewed.revision == online.commit(f"model/{OURS}") != locked.revision
    assert (renewed.folder / "README.md").read_text() == "# A newer model\n"


def test_a_file_that_changed_under_its_revision_is_refused(online: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    """A hub, or someone between, that gives other bytes for the commit that was locked."""
    online.repositories["model/a/b"] = {"config.json": b"{}", "x.safetensors": b"true weights"}
    wanted = Repository("a/b", optional=("*.safetensors",))
    first = fetch(wanted)
    shutil.rmtree(first.folder.parents[1])
    monkeypatch.setattr(online, "commit", lambda _: first.revision)
    online.repositories["model/a/b"]["x.safetensors"] = b"evil weights"
    with pytest.raises(ModelError, match=r"x\.safetensors: wrong checksum"):
        fetch(wanted)


def test_a_damaged_cache_is_mended(online: Hub, tiny_model: Path) -> None:
    online.put(f"model/{OURS}", tiny_model)
    wanted = Repository(OURS, optional=hub.MODEL_FILES)
    weights = fetch(wanted).folder / "model.safetensors"
    os.truncate(weights.resolve(), 100)
    assert cached(wanted) is None
    fetch(wanted)
    assert sha256(weights) == sha256(tiny_model / "model.safetensors")


OFFLINE = "is not in the local cache and the hub cannot be reached; connect once or use --model mini"


@pytest.mark.parametrize("way", ["refused", "told"])
@pytest.mark.parametrize("name", ["official", OURS])
def test_offline_and_not_cached(
    enclap: Run, online: Hub, monkeypatch: pytest.MonkeyPatch, recording: Callable[..., Path], way: str, name: str
) -> None:
    from huggingface_hub import constants

    if way == "told":
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    else:
        monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")  # the discard port, where nothing listens
    first = "enclap-team/enclap" if name == "official" else name
    for arguments in (("caption", recording(), "--model", name), ("models", "pull", name)):
        done = enclap(*arguments)
        assert (done.returncode, done.stdout, done.stderr) == (3, "", f"enclap: {first}: {OFFLINE}\n")
    assert online.requests == []


def test_half_a_snapshot_is_not_taken_for_a_model_offline(
    enclap: Run, online: Hub, tiny_model: Path, monkeypatch: pytest.MonkeyPatch, recording: Callable[..., Path]
) -> None:
    from huggingface_hub import constants

    online.put(f"model/{OURS}", tiny_model)
    folder = fetch(Repository(OURS, optional=hub.MODEL_FILES)).folder
    (folder / "onnx" / "decoder.onnx").unlink()
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    done = enclap("caption", recording(), "--model", OURS)
    assert (done.returncode, done.stderr) == (3, f"enclap: {OURS}: {OFFLINE}\n")


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("nobody/nothing", "nobody/nothing: not on the hub, or private; log in with `hf auth login`"),
        ("someone/other", "someone/other: not a model of this program (its config.json describes something else)"),
        ("someone/empty", "someone/empty: holds no config.json; it is not what this program can use"),
    ],
)
def test_what_is_not_a_model_is_said(enclap: Run, online: Hub, name: str, words: str) -> None:
    online.repositories["model/someone/other"] = {"config.json": b'{"model_type": "bert"}'}
    online.repositories["model/someone/empty"] = {"README.md": b"soon"}
    done = enclap("models", "pull", name)
    assert (done.returncode, done.stdout, done.stderr.splitlines()[-1]) == (3, "", f"enclap: {words}")


@pytest.mark.parametrize("name", ["../../../precious.json", "/tmp/precious.json", "a/../../b.json"])
def test_a_hub_that_names_files_elsewhere_is_refused(enclap: Run, online: Hub, tmp_path: Path, name: str) -> None:
    precious = tmp_path / "home" / "hub" / "precious.json"
    precious.parent.mkdir(parents=True)
    precious.write_text("mine")
    online.repositories[f"model/{OURS}"] = {"config.json": b'{"model_type": "enclap"}', name: b"other content"}
    done = enclap("models", "pull", OURS)
    assert (done.returncode, done.stderr) == (3, f"enclap: {OURS}: names a file outside its folder ({name}); refused\n")
    assert precious.read_text() == "mine"


def test_a_damaged_lock_does_not_hide_the_other_models(enclap: Run, online: Hub, tiny_model: Path) -> None:
    online.put(f"model/{OURS}", tiny_model)
    hub.pull_model(OURS)
    (lock_path(Repository(OURS)).parent / "models--b--c.json").write_text("{")
    listed = enclap("models", "list")
    assert listed.returncode == 0 and any(line.startswith(OURS) for line in listed.stdout.splitlines())
    assert enclap("doctor", "--engine", "onnx").returncode == 0


def test_a_damaged_lock_is_named(enclap: Run, online: Hub) -> None:
    path = lock_path(Repository(OURS))
    path.parent.mkdir(parents=True)
    for content in ("", "[]", '{"format": 2}', '{"format": 1, "revision": "a", "files": [1]}'):
        path.write_text(content)
        done = enclap("models", "pull", OURS)
        assert (done.returncode, done.stderr.count("\n")) == (3, 1)
        assert f"{path}: damaged lock; remove it" in done.stderr


def test_no_room_for_a_download_is_told_before_it(
    enclap: Run, online: Hub, tiny_model: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    online.put(f"model/{OURS}", tiny_model)
    usage = shutil.disk_usage(tmp_path)._replace(free=10_000)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage)
    done = enclap("models", "pull", OURS)
    assert (done.returncode, done.stderr.count("\n")) == (3, 1)
    assert f"no room on the disk: fetching {OURS} needs 0.00 GB, 0.00 GB are free" in done.stderr
    assert not online.asked_for("/resolve/")


def test_no_room_in_the_middle_of_a_download(online: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    import huggingface_hub

    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    online.repositories["model/a/b"] = {"config.json": b"{}"}
    monkeypatch.setattr(huggingface_hub, "snapshot_download", full)
    with pytest.raises(EnvironmentFault, match="a/b: no room left on the disk; free some and fetch again"):
        fetch(Repository("a/b"))


def test_a_connection_that_keeps_breaking_is_not_called_offline(online: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    import huggingface_hub

    def broken(*_: object, **__: object) -> None:
        raise huggingface_hub.errors.HfHubHTTPError.__bases__[0]("peer closed connection")

    online.repositories["model/a/b"] = {"config.json": b"{}"}
    monkeypatch.setattr(huggingface_hub, "snapshot_download", broken)
    with pytest.raises(ModelError, match=r"a/b: the connection broke \(peer closed connection\); fetch again"):
        fetch(Repository("a/b"))


@pytest.mark.usefixtures("quick_graphs")
@pytest.mark.parametrize("name", ["official", OURS, "bundled"])
def test_a_bundle_works_where_there_is_no_network_and_no_cache(
    enclap: Run,
    online: Hub,
    tiny_model: Path,
    tmp_path: Path,
    recording: Callable[..., Path],
    monkeypatch: pytest.MonkeyPatch,
    name: str,
) -> None:
    from huggingface_hub import constants

    put_official(online, tiny_model, tmp_path / "release")
    online.put(f"model/{OURS}", tiny_model)
    shutil.copytree(tiny_model, tmp_path / "package" / "bundled")
    monkeypatch.setattr(hub, "BUNDLED_FOLDER", tmp_path / "package")
    (tmp_path / "package" / "bundled" / "modeling.py").write_text("raise SystemExit(1)")
    done = enclap("models", "pull", name, "--output", tmp_path / "carried" / "model")
    assert (done.returncode, done.stdout) == (0, f"{tmp_path / 'carried' / 'model'}\n")
    assert [path.name for path in (tmp_path / "carried").iterdir()] == ["model"]

    shutil.rmtree(tmp_path / "home", ignore_errors=True)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    bundle = tmp_path / "carried" / "model"
    integrity.check_folder(bundle, hashes=True)
    files = [path for path in bundle.rglob("*") if path.is_file()]
    assert not [path for path in files if path.is_symlink() or path.suffix in (".py", ".bin")]
    sound = recording()
    expected = enclap("caption", sound).stdout
    assert expected and enclap("caption", sound, "--model", bundle).stdout == expected
    assert enclap("models", "pull", name, "--output", bundle).returncode == 2


@pytest.mark.usefixtures("quick_graphs")
def test_a_converted_folder_that_was_damaged_is_made_again(
    enclap: Run, online: Hub, tiny_model: Path, tmp_path: Path
) -> None:
    put_official(online, tiny_model, tmp_path / "release")
    folder = hub.pull_model("official")
    graph = folder / "onnx" / "encoder.onnx"
    before = sha256(graph)
    content = bytearray(graph.read_bytes())
    content[len(content) // 2] ^= 1
    graph.write_bytes(content)
    assert hub.pull_model("official") == folder
    assert sha256(graph) == before


@pytest.mark.usefixtures("quick_graphs")
def test_a_release_that_changes_is_converted_anew(online: Hub, tiny_model: Path, tmp_path: Path) -> None:
    put_official(online, tiny_model, tmp_path / "release")
    first = hub.pull_model("official")
    online.repositories["model/facebook/encodec_24khz"]["config.json"] += b"\n"
    assert hub.pull_model("official") == first
    second = hub.pull_model("official", update=True)
    assert second != first and releases.official_folder() == second and first.is_dir()


def test_without_pytorch_nothing_is_fetched(
    enclap: Run, online: Hub, tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    put_official(online, tiny_model, tmp_path / "release")
    monkeypatch.setattr(releases.importlib.util, "find_spec", lambda _: None)
    done = enclap("models", "pull", "official")
    assert done.returncode == 3
    assert done.stderr == "enclap: converting published weights needs the extra 'train': pip install 'enclap[train]'\n"
    assert online.requests == []


def environment(server: Hub, home: Path) -> dict[str, str]:
    changes = {"HF_ENDPOINT": server.address, "HF_HOME": str(home), "HF_HUB_OFFLINE": "0", "OMP_NUM_THREADS": "1"}
    return os.environ | changes


@pytest.mark.parametrize("quiet", [False, True])
def test_progress_of_a_first_fetch_is_shown_on_a_terminal_unless_quiet(
    enclap_command: list[str],
    online: Hub,
    tiny_model: Path,
    tmp_path: Path,
    recording: Callable[..., Path],
    quiet: bool,
) -> None:
    online.put(f"model/{OURS}", tiny_model)
    command = [*enclap_command, "caption", str(recording()), "--model", OURS, *["--quiet"][:quiet]]
    done = on_terminal(command, environment(online, tmp_path / "other home"))
    assert done.returncode == 0 and done.stdout
    if quiet:
        assert done.stderr == ""
    else:
        assert "%|" in done.stderr and "its first fetch is trusted" in done.stderr


@pytest.mark.soak
@pytest.mark.parametrize("moment", ["download", "conversion"])
def test_a_killed_pull_leaves_the_old_state_and_goes_on(
    online: Hub, tiny_model: Path, tmp_path: Path, moment: str
) -> None:
    """A process of its own, with the environment's HF_ENDPOINT, killed at the worst times."""
    put_official(online, tiny_model, tmp_path / "release")
    home = tmp_path / "other home"
    assets = home / "assets" / "enclap"
    command = [sys.executable, "-m", "enclap.cli.main", "models", "pull", "official"]
    process = subprocess.Popen(command, env=environment(online, home), stderr=subprocess.PIPE, text=True)
    reached = {
        "download": lambda: bool(online.asked_for("encodec_24khz/resolve")),
        "conversion": lambda: any(assets.glob(".official-*.partial/codec")),
    }[moment]
    deadline = time.monotonic() + 60
    while not reached():
        assert process.poll() is None and time.monotonic() < deadline, process.stderr and process.stderr.read()
        time.sleep(0.002)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert not list(assets.glob("official-*"))
    online.requests.clear()
    done = subprocess.run(command, env=environment(online, home), capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert [Path(line) for line in done.stdout.splitlines()] == list(assets.glob("official-*"))
    assert not list(assets.glob(".*"))
    assert not online.asked_for("enclap-team/enclap/resolve"), "what was complete is not fetched again"
