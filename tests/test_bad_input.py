"""Everything bad that a person can pass in: one clear line, the right exit code, and every other input captioned."""

from __future__ import annotations

import http.server
import os
import shutil
import socket
import subprocess
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from cli import Run
from sounds import noise, write_audio, write_silent_video, write_wav

MakeBad = Callable[[Path], Path]


def text(path: Path) -> Path:
    path.write_text("Dear diary, today I recorded nothing.\n" * 40)
    return path


def empty(path: Path) -> Path:
    path.touch()
    return path


def folder(path: Path) -> Path:
    path.mkdir()
    (path / "readme.txt").write_text("no sound here")
    return path


def with_sample(value: float) -> MakeBad:
    def make(path: Path) -> Path:
        samples = noise(0.5)
        samples[100] = value
        return write_audio(path, samples, 16_000, codec="pcm_f32le")

    return make


BAD: dict[str, tuple[str, MakeBad, str]] = {
    "missing": ("gone.wav", lambda path: path, "no such file"),
    "folder without audio": ("set", folder, "no sound files in this folder"),
    "glob without match": ("*.nothing", lambda path: path, "no file matches"),
    "empty file": ("empty.wav", empty, "the file is empty"),
    "text named .wav": ("diary.wav", text, "not a sound file that can be read"),
    "text": ("diary.txt", text, "no audio track that can be decoded"),
    "video without sound": ("film.mp4", write_silent_video, "no audio track"),
    "NaN": ("nan.wav", with_sample(np.nan), "NaN or infinite samples, the first at 0.006 s"),
    "infinite": ("inf.wav", with_sample(np.inf), "NaN or infinite samples"),
    "65 channels": (
        "wide.wav",
        lambda path: write_wav(path, np.ones((800, 65), np.int16), 8000),
        "65 channels; 1 to 64 are read",
    ),
    "no samples": ("none.wav", lambda path: write_wav(path, np.zeros((0, 1), np.int16), 8000), "none.wav: "),
}


@pytest.mark.parametrize("case", BAD)
def test_one_line_for_the_bad_one_and_a_caption_for_the_others(
    enclap: Run, tmp_path: Path, recording: Callable[..., Path], case: str
) -> None:
    name, make, words = BAD[case]
    good, bad = recording("good.wav"), make(tmp_path / name)
    done = enclap("caption", bad, good)
    assert done.returncode == 1
    line, summary = done.stderr.splitlines()
    assert words in line
    assert name in line
    assert summary.startswith("enclap: 1 file captioned, ") and summary.endswith("; 1 failed")
    assert done.stdout.startswith(f"{good}: ")


def test_bad_inputs_alone_load_no_model_when_nothing_is_there(enclap: Run) -> None:
    done = enclap("caption", "gone.wav", "also-gone.wav", "--model", "/nowhere")
    assert done.returncode == 1
    assert done.stderr == "enclap: gone.wav: no such file\nenclap: also-gone.wav: no such file\n"


def test_a_truncated_mp3_is_captioned_with_a_warning(enclap: Run, recording: Callable[..., Path]) -> None:
    path = recording("cut.mp3", seconds=3.0, rate=44_100)
    path.write_bytes(path.read_bytes()[:20_000])
    done = enclap("caption", path)
    assert done.returncode == 0
    assert done.stdout.count("\n") == 1
    assert "warning: " in done.stderr
    assert "of 3.0 s" in done.stderr
    assert enclap("caption", path, "--quiet").stderr == ""


@pytest.mark.parametrize(("rate", "channels"), [(8000, 1), (384_000, 1), (8000, 64), (48_000, 6)])
def test_unusual_rates_and_channels_are_captioned(enclap: Run, tmp_path: Path, rate: int, channels: int) -> None:
    samples = np.random.default_rng(0).integers(-9999, 9999, (rate // 10, channels)).astype(np.int16)
    done = enclap("caption", write_wav(tmp_path / "a.wav", samples, rate))
    assert (done.returncode, done.stderr) == (0, "")


def test_a_hundredth_of_a_second_is_captioned(enclap: Run, recording: Callable[..., Path]) -> None:
    assert enclap("caption", recording(seconds=0.01)).returncode == 0


@pytest.fixture
def server() -> Iterator[tuple[str, list[str]]]:
    """A loopback server's address, and the requests that reach it."""
    requests: list[str] = []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            requests.append(self.path)
            self.send_error(404)

        def log_message(self, *_: object) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as listening:
        threading.Thread(target=listening.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{listening.server_port}", requests
        listening.shutdown()


HLS = "#EXTM3U\n#EXT-X-VERSION:3\n#EXT-X-TARGETDURATION:5\n#EXTINF:5.0,\n{target}\n#EXT-X-ENDLIST\n"
DASH = (
    '<?xml version="1.0"?><MPD xmlns="urn:mpeg:dash:schema:mpd:2011" type="static" '
    'mediaPresentationDuration="PT5S" profiles="urn:mpeg:dash:profile:isoff-on-demand:2011"><Period>'
    '<AdaptationSet mimeType="audio/mp4"><Representation id="1" bandwidth="1"><BaseURL>{target}</BaseURL>'
    "</Representation></AdaptationSet></Period></MPD>"
)
SDP = "v=0\no=- 0 0 IN IP4 127.0.0.1\ns=x\nc=IN IP4 127.0.0.1\nt=0 0\nm=audio 5004 RTP/AVP 0\n"
PLAYLISTS = {
    "list.m3u8": HLS,
    "list.wav": HLS,
    "hidden.mp3": "\n\n" + HLS,
    "plain.m3u": "{target}\n",
    "list.ffconcat": "ffconcat version 1.0\nfile {target}\n",
    "concat.wav": "ffconcat version 1.0\nfile {target}\n",
    "list.mpd": DASH,
    "dash.mp4": DASH,
    "list.sdp": SDP,
    "list.pls": "[playlist]\nFile1={target}\nNumberOfEntries=1\n",
    "list.asx": '<asx version="3.0"><entry><ref href="{target}"/></entry></asx>',
}


@pytest.mark.parametrize("name", PLAYLISTS)
def test_playlists_are_refused_and_nothing_is_fetched(
    enclap: Run,
    tmp_path: Path,
    recording: Callable[..., Path],
    server: tuple[str, list[str]],
    name: str,
) -> None:
    address, requests = server
    good = recording("good.wav")
    for target in (f"{address}/secret.wav", str(good), good.name):
        path = tmp_path / name
        path.write_text(PLAYLISTS[name].format(target=target))
        done = enclap("caption", path)
        assert (done.returncode, done.stdout) == (1, "")
        assert done.stderr == f"enclap: {path}: a playlist; it is not followed, give the files that it names\n"
    assert requests == []


def test_ffmpeg_itself_could_not_follow_a_list_either(tmp_path: Path, recording: Callable[..., Path]) -> None:
    """The signatures are the first of three locks; the other two hold without it."""
    from enclap.audio import decode, signatures
    from enclap.audio.read import read_audio
    from enclap.errors import InputError

    recording("good.wav")
    path = tmp_path / "list.wav"
    path.write_text("ffconcat version 1.0\nfile good.wav\n")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(signatures, "PLAYLIST_MARKS", (b"nothing",))
        with pytest.raises(InputError):
            read_audio(path)
        patch.setattr(decode, "NESTING_FORMATS", frozenset())
        with pytest.raises(InputError):
            read_audio(path)


def test_names_that_are_not_utf8_or_hold_escapes(enclap: Run, tmp_path: Path, recording: Callable[..., Path]) -> None:
    good = recording("good.wav")
    for name, shown in ((b"caf\xe9.wav", "caf\\xe9.wav"), (b"red\x1b[31m\n.wav", "red\\x1b[31m\\x0a.wav")):
        path = os.fsencode(tmp_path) + b"/" + name
        shutil.copy(os.fsencode(good), path)
        assert enclap("caption", path).stdout.startswith(f"{tmp_path}/{shown}: ")
        assert enclap("caption", path, "--format", "json").returncode == 0
        os.truncate(path, 0)
        done = enclap("caption", path)
        assert done.stderr == f"enclap: {tmp_path}/{shown}: the file is empty\n"


def test_what_cannot_be_opened_is_named(enclap: Run, tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(tmp_path / "socket.wav"))
        done = enclap("caption", tmp_path / "socket.wav")
    assert (done.returncode, done.stderr.count("\n")) == (1, 1)
    assert "cannot be opened" in done.stderr


DAMAGE: dict[str, Callable[[Path], object]] = {
    "no config.json": lambda folder: (folder / "config.json").unlink(),
    "config.json cut": lambda folder: (folder / "config.json").write_text('{"model_type": '),
    "other model": lambda folder: (folder / "config.json").write_text('{"model_type": "bert"}'),
    "no tokenizer": lambda folder: (folder / "tokenizer.json").unlink(),
    "tokenizer cut": lambda folder: (folder / "tokenizer.json").write_text("{"),
    "no decoder": lambda folder: (folder / "onnx" / "decoder.onnx").unlink(),
    "encoder cut": lambda folder: cut(folder / "onnx" / "encoder.onnx"),
    "codec cut": lambda folder: cut(folder / "onnx" / "codec_codes.onnx"),
    "codec empty": lambda folder: (folder / "onnx" / "codec_codes.onnx").write_bytes(b""),
    "clap cut": lambda folder: cut(folder / "onnx" / "clap_audio.onnx"),
    "no codec": lambda folder: shutil.rmtree(folder / "codec"),
    "no clap": lambda folder: shutil.rmtree(folder / "clap"),
}


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_model_folder_is_one_line(
    enclap: Run, tiny_model: Path, tmp_path: Path, recording: Callable[..., Path], damage: str
) -> None:
    broken = tmp_path / "broken"
    shutil.copytree(tiny_model, broken)
    DAMAGE[damage](broken)
    done = enclap("caption", recording(), "--model", broken)
    assert (done.returncode, done.stdout) == (3, "")
    assert done.stderr.count("\n") == 1, done.stderr
    assert str(broken) in done.stderr


def test_a_missing_extra_names_the_command_that_installs_it(
    enclap_command: list[str], recording: Callable[..., Path], tmp_path: Path
) -> None:
    hidden = tmp_path / "sitecustomize.py"
    hidden.write_text("import sys\nsys.modules['torch'] = None\n")
    environment = {**os.environ, "PYTHONPATH": str(tmp_path)}
    done = subprocess.run(
        [*enclap_command, "caption", str(recording()), "--engine", "torch"],
        env=environment,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 3
    assert done.stderr == "enclap: the torch engine needs the extra 'train': pip install 'enclap[train]'\n"
