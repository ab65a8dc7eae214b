"""The teachers' networks and front ends: the published numbers, sizes of maps, and laws that hold for any weights."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from enclap.audio.resample import resample
from enclap.training.teachers import aisfx, mobilenet, yamnet
from enclap.training.teachers.weights import frozen, load_aisfx, load_mobilenet, load_yamnet, read_student
from enclap.types import Waveform

TOLERANCE = 1e-3
"""Of the reference numbers; sums in another order differ by up to 3e-4, in logits of 609."""
CLIPS = range(4)
ROUNDING = 1e-5


@cache
def reference(shared: Path) -> dict[str, np.ndarray]:
    with np.load(shared / "reference" / "teachers" / "reference.npz") as stored:
        return dict(stored)


@cache
def teacher(name: str, shared: Path) -> Any:
    """A teacher with its published weights; YAMNet's and aiSFX's come from the package index once."""
    load = {"yamnet": load_yamnet, "aisfx": load_aisfx, "mobilenet": load_mobilenet}[name]
    return load(shared / "reference" / "teachers")


def assert_equal(found: Tensor, expected: np.ndarray, tolerance: float = TOLERANCE) -> None:
    assert tuple(found.shape) == expected.shape
    np.testing.assert_allclose(found.numpy(), expected, rtol=0, atol=tolerance)


def noise(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed)) * 0.1


def random_weights(network: torch.nn.Module) -> Any:
    """The network as it starts, from a seed, with statistics that are not all zero and one."""
    torch.manual_seed(0)
    for layer in network.modules():
        if isinstance(layer, torch.nn.BatchNorm2d):
            layer.running_mean.normal_(0, 0.1)
            layer.running_var.uniform_(0.5, 1.5)
    return network.eval().requires_grad_(False)


@pytest.mark.shared
@pytest.mark.parametrize("clip", CLIPS)
def test_yamnet_gives_the_published_numbers(clip: int, shared: Path) -> None:
    expected = {name: reference(shared)[f"clip{clip}.{name}"] for name in ("log_mel_patches", "embedding", "logits")}
    samples = torch.from_numpy(reference(shared)[f"clip{clip}.samples"])
    patches = yamnet.YamNetFrontEnd()(samples[None])[0]
    network = teacher("yamnet", shared)
    assert_equal(patches[:, None], expected["log_mel_patches"])
    assert_equal(network.embed(patches), expected["embedding"])
    assert_equal(network(patches), expected["logits"])


@pytest.mark.shared
@pytest.mark.parametrize("clip", CLIPS)
def test_aisfx_gives_the_published_numbers(clip: int, shared: Path) -> None:
    waveform = Waveform(reference(shared)[f"clip{clip}.samples32"], 32_000)
    blocks = aisfx.AiSfxFrontEnd()(torch.from_numpy(resample(waveform, aisfx.RATE))[None])[0]
    assert_equal(blocks, reference(shared)[f"clip{clip}.sfx_blocks"])
    assert_equal(teacher("aisfx", shared)(blocks), reference(shared)[f"clip{clip}.sfx_embedding"])


@pytest.mark.shared
@pytest.mark.parametrize("clip", CLIPS)
def test_mobilenet_gives_the_published_numbers(clip: int, shared: Path) -> None:
    samples = torch.from_numpy(reference(shared)[f"clip{clip}.samples32"])
    mel = mobilenet.MobileNetFrontEnd()(samples[None])
    network = teacher("mobilenet", shared)
    assert_equal(mel[0], reference(shared)[f"clip{clip}.mn04_mel"])
    assert_equal(network.map(mel)[0], reference(shared)[f"clip{clip}.mn04_map"])
    assert_equal(network(mel)[0], reference(shared)[f"clip{clip}.mn04_logits"])


@pytest.mark.shared
@pytest.mark.parametrize(("name", "width"), [("student_small.pt", 256), ("student_wide.pt", 512)])
def test_the_students_open_as_float32(name: str, width: int, shared: Path) -> None:
    weights = read_student(shared / "reference" / "teachers" / name)
    assert weights["map.weight"].shape == (mobilenet.WIDTH, width, 1)
    assert weights["cls.weight"].shape == (mobilenet.CLASSES, mobilenet.WIDTH)
    counters = {name for name in weights if name.endswith("num_batches_tracked")}
    assert {weights[name].dtype for name in set(weights) - counters} == {torch.float32}
    assert len(counters) == 7 and all(torch.isfinite(value).all() for value in weights.values())


FRONT_ENDS: dict[str, tuple[Callable[[], torch.nn.Module], int]] = {
    "mobilenet": (mobilenet.MobileNetFrontEnd, mobilenet.RATE),
    "yamnet": (yamnet.YamNetFrontEnd, yamnet.RATE),
    "aisfx": (aisfx.AiSfxFrontEnd, aisfx.RATE),
}
NETWORKS: dict[str, tuple[Callable[[], Any], tuple[int, int]]] = {
    "mobilenet": (mobilenet.MobileNet, (mobilenet.BANDS, 40)),
    "yamnet": (yamnet.YamNet, (32, yamnet.BANDS)),
    "aisfx": (aisfx.AiSfx, (16, aisfx.BANDS)),
}


@pytest.mark.parametrize("name", FRONT_ENDS)
def test_a_batch_of_recordings_is_prepared_as_each_alone(name: str) -> None:
    make, rate = FRONT_ENDS[name]
    front_end, samples = make(), noise(3, 3 * rate) * torch.tensor([[1.0], [0.3], [0.01]])
    together = front_end(samples)
    for number in range(3):
        torch.testing.assert_close(together[number], front_end(samples[number : number + 1])[0], rtol=0, atol=ROUNDING)


@pytest.mark.parametrize("name", NETWORKS)
def test_a_batch_is_heard_as_each_alone(name: str) -> None:
    make, size = NETWORKS[name]
    network, inputs = random_weights(make()), noise(2, *size)
    together = network(inputs)
    for number in range(2):
        torch.testing.assert_close(together[number], network(inputs[number : number + 1])[0], rtol=0, atol=ROUNDING)


@pytest.mark.parametrize("name", FRONT_ENDS)
def test_silence_gives_finite_numbers(name: str) -> None:
    make, rate = FRONT_ENDS[name]
    assert torch.isfinite(make()(torch.zeros(1, rate))).all()


@pytest.mark.parametrize(
    ("seconds", "hop", "patches"),
    [(0.1, 48, 1), (0.975, 48, 1), (1.454, 48, 1), (1.455, 48, 2), (3.0, 48, 5), (3.0, 96, 3)],
)
def test_yamnet_reads_patches(seconds: float, hop: int, patches: int) -> None:
    samples = noise(2, round(seconds * yamnet.RATE))
    assert yamnet.YamNetFrontEnd(hop)(samples).shape == (2, patches, yamnet.PATCH_FRAMES, yamnet.BANDS)


def test_yamnets_patches_overlap_by_half() -> None:
    samples = noise(1, 3 * yamnet.RATE)
    halves, whole = yamnet.YamNetFrontEnd()(samples), yamnet.YamNetFrontEnd(yamnet.PATCH_FRAMES)(samples)
    torch.testing.assert_close(halves[:, ::2], whole)
    torch.testing.assert_close(halves[:, 0, 48:], halves[:, 1, :48])


def test_yamnets_front_end_is_what_its_definition_says() -> None:
    """One frame by the plainest sums: Hann, 512 points, magnitudes, triangles between edges that mel spaces evenly."""
    samples, frame = noise(1, yamnet.PATCH_SAMPLES)[0].double().numpy(), 7
    piece = samples[frame * 160 : frame * 160 + 400] * (0.5 - 0.5 * np.cos(2 * np.pi * np.arange(400) / 400))
    bins = np.arange(257)
    magnitude = np.abs([np.sum(piece * np.exp(-2j * np.pi * number * np.arange(400) / 512)) for number in bins])
    mels = np.linspace(2595 * np.log10(1 + 125 / 700), 2595 * np.log10(1 + 7500 / 700), 66)
    edges, hertz = 700 * (10 ** (mels / 2595) - 1), bins * 31.25
    expected = [
        np.log(np.sum(magnitude * np.interp(hertz, edges[band : band + 3], [0, 1, 0])) + 0.001) for band in range(64)
    ]
    found = yamnet.YamNetFrontEnd().log_mel(torch.from_numpy(samples).float()[None])[0, frame]
    np.testing.assert_allclose(found.numpy(), expected, rtol=0, atol=1e-4)


def test_maps_have_the_sizes_that_are_said() -> None:
    maps = random_weights(yamnet.YamNet()).map(noise(1, 96, yamnet.BANDS))
    assert maps.shape == (1, yamnet.WIDTH, 3, 2)
    steps = random_weights(aisfx.AiSfx()).steps(noise(1, 31, aisfx.BANDS))
    assert steps.shape == (1, aisfx.WIDTH, 3)
    tagging = random_weights(mobilenet.MobileNet())
    for frames in (1, 32, 33):
        maps = tagging.map(noise(2, mobilenet.BANDS, frames))
        assert maps.shape == (2, mobilenet.WIDTH, 4, mobilenet.steps_of(frames))


def test_outputs_follow_from_the_maps() -> None:
    patches, blocks, mel = noise(2, 32, 64), noise(2, 16, 96), noise(2, 128, 33)
    hearing, sorting, tagging = (
        random_weights(make()) for make, _ in (NETWORKS[n] for n in ("yamnet", "aisfx", "mobilenet"))
    )
    means = hearing.map(patches).flatten(2).mean(dim=2)
    torch.testing.assert_close(hearing(patches), hearing.classifier(means))
    assert hearing(patches).shape == (2, yamnet.CLASSES)
    torch.testing.assert_close(sorting(blocks), sorting.steps(blocks).max(dim=2).values)
    assert sorting(blocks).shape == (2, aisfx.WIDTH)
    assert tagging(mel).shape == (2, mobilenet.CLASSES)


@pytest.mark.parametrize(("seconds", "blocks"), [(0.01, 1), (2.3, 1), (3.4, 1), (3.5, 2), (10.0, 7)])
def test_aisfx_reads_blocks(seconds: float, blocks: int) -> None:
    samples = noise(2, round(seconds * aisfx.RATE))
    assert aisfx.AiSfxFrontEnd()(samples).shape == (2, blocks, aisfx.BLOCK_FRAMES, aisfx.BANDS)


def test_aisfx_hears_no_level_and_nothing_behind_a_short_recording() -> None:
    front_end, samples = aisfx.AiSfxFrontEnd(), noise(1, aisfx.RATE)
    torch.testing.assert_close(front_end(samples), front_end(samples * 0.01), rtol=0, atol=1e-4)
    frames = 1 + aisfx.RATE // aisfx.HOP
    assert (front_end(samples)[0, 0, :frames] > 0).all() and (front_end(samples)[0, 0, frames:] == 0).all()


def test_frozen_networks_neither_learn_nor_drop() -> None:
    network = mobilenet.MobileNet()
    found = frozen(mobilenet.MobileNet(), network.state_dict())
    assert not found.training and not any(parameter.requires_grad for parameter in found.parameters())
    torch.testing.assert_close(found.state_dict(), network.state_dict())
