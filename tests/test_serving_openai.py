"""OpenAI's routes, asked by OpenAI's own client."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path
from typing import get_args

import openai
import pytest

from enclap.captioner import Captioner
from enclap.output.formats import FORMATS
from enclap.serving.settings import OPENAI_MODELS, ServeSettings, parse_aliases
from fakes import EchoEngine
from servers import PATIENCE, Running, running
from sounds import noise, write_audio

KEY = "k" * 20


@pytest.fixture(scope="module")
def server() -> Iterator[Running]:
    settings = ServeSettings(keys=(KEY,), aliases=parse_aliases(["my-name=echo"], "echo"))
    with running(Captioner(EchoEngine(), "echo"), settings) as server:
        yield server


@pytest.fixture(scope="module")
def client(server: Running) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{server.url}/v1", api_key=KEY, timeout=PATIENCE, max_retries=0) as client:
        yield client


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return write_audio(tmp_path / "long.wav", noise(23.0), 16_000)


@pytest.fixture
def text(server: Running, path: Path) -> str:
    return server.service.captioner.caption(path).text


def test_models_are_listed(client: openai.OpenAI) -> None:
    names = [model.id for model in client.models.list()]
    assert names[0] == "echo" and {"whisper-1", "gpt-transcribe", "my-name"} <= set(names)
    assert client.models.retrieve("whisper-1").id == "whisper-1"


@pytest.mark.parametrize("model", ["echo", "whisper-1", "my-name"])
def test_json_holds_the_text(client: openai.OpenAI, model: str, path: Path, text: str) -> None:
    assert client.audio.transcriptions.create(file=path, model=model).text == text


def test_verbose_json_has_a_segment_for_each_window(client: openai.OpenAI, path: Path, text: str) -> None:
    found = client.audio.transcriptions.create(
        file=path, model="whisper-1", response_format="verbose_json", timestamp_granularities=["segment"]
    )
    assert (found.text, found.language, float(found.duration)) == (text, "english", 23.0)
    assert found.segments is not None
    assert [(segment.start, segment.end) for segment in found.segments] == [(0, 10), (10, 16.5), (16.5, 23)]
    assert " ".join(segment.text for segment in found.segments) == text
    assert all(math.isfinite(segment.avg_logprob) for segment in found.segments)


@pytest.mark.parametrize("style", ["text", "srt", "vtt"])
def test_text_and_subtitles_are_given_as_they_are(
    client: openai.OpenAI, server: Running, path: Path, text: str, style: str
) -> None:
    found = client.audio.transcriptions.create(file=path, model="whisper-1", response_format=style)  # type: ignore[call-overload]
    captioned = server.service.captioner.caption(path)
    assert found == (f"{text}\n" if style == "text" else "".join(FORMATS[style]([captioned], "echo")))


def test_a_stream_gives_deltas_then_the_whole(client: openai.OpenAI, path: Path, text: str) -> None:
    events = list(client.audio.transcriptions.create(file=path, model="gpt-transcribe", stream=True))
    assert [event.type for event in events] == ["transcript.text.delta"] * 3 + ["transcript.text.done"]
    assert "".join(event.delta for event in events[:-1]) == events[-1].text == text  # type: ignore[union-attr]


def test_fields_without_effect_are_taken(client: openai.OpenAI, path: Path, text: str) -> None:
    found = client.audio.transcriptions.create(
        file=path, model="whisper-1", language="en", prompt="dogs", temperature=0.2, chunking_strategy="auto"
    )
    assert found.text == text


def test_newer_fields_without_effect_are_taken(client: openai.OpenAI, path: Path, text: str) -> None:
    found = client.audio.transcriptions.create(
        file=path,
        model="gpt-4o-transcribe-diarize",
        chunking_strategy={"type": "server_vad", "threshold": 0.4, "prefix_padding_ms": 100, "silence_duration_ms": 9},
        include=["logprobs"],
        keywords=["dog", "cat"],
        languages=["en", "de"],
        known_speaker_names=["a"],
        known_speaker_references=["data:audio/wav;base64,AAAA"],
    )
    assert found.text == text


def test_every_name_that_the_client_knows_is_an_alias() -> None:
    assert set(get_args(openai.types.AudioModel)) <= set(OPENAI_MODELS)


def test_an_unknown_model_is_not_found(client: openai.OpenAI, path: Path) -> None:
    with pytest.raises(openai.NotFoundError) as error:
        client.audio.transcriptions.create(file=path, model="whisper-9")
    assert error.value.code == "model_not_found" and error.value.type == "invalid_request_error"
    with pytest.raises(openai.NotFoundError):
        client.models.retrieve("whisper-9")


def test_faults_are_the_clients_own_errors(server: Running, client: openai.OpenAI) -> None:
    with pytest.raises(openai.UnprocessableEntityError, match="not a sound file"):
        client.audio.transcriptions.create(file=("a.wav", b"nothing"), model="whisper-1")
    with pytest.raises(openai.APIError, match="not a sound file"):
        list(client.audio.transcriptions.create(file=("a.wav", b"nothing"), model="whisper-1", stream=True))
    with pytest.raises(openai.AuthenticationError):
        openai.OpenAI(base_url=f"{server.url}/v1", api_key="wrong", max_retries=0).models.list()
