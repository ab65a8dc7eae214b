"""The front end and the encoders as an accelerator runs them, here on the processor, held to numpy and soxr."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch

from agreement import random_windows
from enclap.audio.mel import MelFrontEnd
from enclap.audio.read import Source
from enclap.audio.resample import resample
from enclap.captioner import Captioner
from enclap.decoding.options import DecodingOptions
from enclap.engines import load_engine
from enclap.engines.torch import TorchEngine
from enclap.engines.torch_features import TorchExtractor, exact_float32
from enclap.errors import EnvironmentFault
from enclap.hub.model_folder import ModelFolder
from enclap.hub.resolve import find_model
from enclap.model.clap import Clap
from enclap.model.codec import Codec
from enclap.model.conv_clap import ConvClapConfig
from enclap.model.front_end import MelSpectrograms, Resampler, filter_matrix, matrix_shape
from enclap.types import Features, FloatArray, IntArray, Waveform, Window
from tiny import tiny_model_folder

CPU = torch.device("cpu")
DEVICES = ["cpu", pytest.param("cuda", marks=pytest.mark.gpu)]
RATES = [(44_100, 24_000), (44_100, 48_000), (48_000, 24_000), (16_000, 48_000), (22_050, 16_000), (96_000, 24_000)]
RATES += [(8_000, 16_000), (11_025, 24_000), (32_000, 24_000), (4_000, 48_000), (192_000, 16_000)]
UNRELATED = (44_099, 24_000)
RELEASED = MelFrontEnd(rate=48_000, length=480_000, fft_size=1_024, hop=480, bands=64, lowest=50.0, highest=14_000.0)
SMALL = MelFrontEnd(rate=8_000, length=8_000, fft_size=256, hop=80, bands=20, lowest=50.0, highest=3_800.0)
FUSED = MelFrontEnd(rate=8_000, length=8_000, fft_size=256, hop=80, bands=20, lowest=50.0, highest=3_800.0, fused=True)
LEAST_COSINE = 0.99999
TIE = 1e-4


def noise(count: int, seed: int = 0) -> FloatArray:
    return (0.1 * np.random.default_rng(seed).standard_normal(count)).astype(np.float32)


def padded(clips: Sequence[FloatArray]) -> tuple[torch.Tensor, list[int]]:
    lengths = [len(clip) for clip in clips]
    rows = [np.pad(clip, (0, max(lengths) - len(clip))) for clip in clips]
    return torch.from_numpy(np.stack(rows)), lengths


@pytest.mark.parametrize(("source", "target"), RATES)
def test_resampling_is_that_of_soxr(source: int, target: int) -> None:
    clips = [noise(count, seed) for seed, count in enumerate((source + 3, source, 1, 2, 7, 1_000, 3 * source // 2))]
    converted, lengths = Resampler(source, target, CPU)(*padded(clips))
    for clip, row, length in zip(clips, converted.numpy(), lengths, strict=True):
        expected = resample(Waveform(clip, source), target)
        assert length == len(expected)
        np.testing.assert_allclose(row[:length], expected, atol=5e-7)  # of noise within 0.5: float32 rounds as much


def test_rates_without_a_common_divisor_are_left_to_soxr() -> None:
    assert all(Resampler.can_convert(*rates) for rates in RATES)
    assert not Resampler.can_convert(*UNRELATED)
    for source, target in RATES:
        assert filter_matrix(source, target)[0].shape == matrix_shape(source, target)


@pytest.mark.parametrize("front_end", [SMALL, FUSED, RELEASED], ids=["small", "fused", "released"])
def test_spectrograms_are_those_of_numpy(front_end: MelFrontEnd) -> None:
    whole, hop = front_end.length, front_end.hop
    counts = [1, 2, 100, front_end.fft_size // 2, front_end.fft_size // 2 + 1, whole // 3, whole - 1, whole, whole + 1]
    counts += [whole + hop - 1, whole + hop, 2 * whole + 17] if whole < 100_000 else []
    clips = [noise(count, seed) for seed, count in enumerate(counts)]
    spectrograms = MelSpectrograms(front_end, CPU)
    samples, lengths = padded(clips)
    samples = torch.where(torch.arange(samples.shape[1]) < torch.tensor(lengths)[:, None], samples, 9.0)  # never read
    for clip, crops in zip(clips, spectrograms.tower_inputs(samples, lengths), strict=True):
        np.testing.assert_allclose(crops.numpy(), front_end.tower_input(clip), atol=2e-3)  # dB, at -100 dB mostly
    for clip, frames in zip(clips, spectrograms.log_mel(samples, lengths).numpy(), strict=True):
        expected = front_end.log_mel(clip)
        np.testing.assert_allclose(frames[: len(expected)], expected, atol=2e-3)


def latents_and_codes(codec: Codec, samples: FloatArray) -> tuple[FloatArray, IntArray]:
    with torch.inference_mode():
        latents = codec.model.encoder(torch.from_numpy(samples)[None, None])[0].T
    return latents.numpy(), codec.encode(samples)


def assert_only_ties_differ(codec: Codec, samples: FloatArray, found: np.ndarray) -> int:
    """Number of differing codes; at the first of each frame the two entries must be equally near, up to TIE."""
    latents, expected = latents_and_codes(codec, samples)
    assert found.shape == expected.shape
    tables = [layer.codebook.embed.numpy() for layer in codec.model.quantizer.layers]
    for frame in np.flatnonzero((found != expected).any(axis=1)):
        residual = latents[frame].astype(np.float64)
        for table, ours, theirs in zip(tables, found[frame], expected[frame], strict=False):
            distances = ((residual - table) ** 2).sum(axis=1)
            if ours != theirs:
                assert abs(distances[ours] - distances[theirs]) <= TIE * max(1.0, distances[theirs])
                break  # what follows is of another residual
            residual = residual - table[theirs]
    return int((found != expected).sum())


def test_clips_of_unlike_length_are_encoded_together_as_each_alone(tiny_model: Path) -> None:
    codec = Codec.from_folder(tiny_model / "codec")
    assert codec.takes_lengths
    hop = codec.hop
    counts = [*range(1, 34), hop - 1, hop, hop + 1, 5 * hop + 3, 37 * hop - 1, 37 * hop, 60 * hop + 320]
    clips = [noise(count, seed) for seed, count in enumerate(counts)]
    samples, lengths = padded(clips)
    samples = torch.where(torch.arange(samples.shape[1]) < torch.tensor(lengths)[:, None], samples, 9.0)  # never read
    codes = codec.encode_lengths(samples, lengths).numpy()
    different = total = 0
    for clip, found in zip(clips, codes, strict=True):
        different += assert_only_ties_differ(codec, clip, found[: -(-len(clip) // hop)])
        total += -(-len(clip) // hop) * codec.codebooks
    assert different <= 0.001 * total
    alone = codec.encode_lengths(torch.from_numpy(clips[0][None]), [1]).numpy()[0]
    np.testing.assert_array_equal(alone, codec.encode(clips[0]))


def test_a_codec_that_looks_ahead_takes_equal_lengths(tmp_path: Path) -> None:
    folder = tiny_model_folder(tmp_path / "model", graphs=False)
    text = (folder / "codec" / "config.json").read_text()
    (folder / "codec" / "config.json").write_text(text.replace('"use_causal_conv": true', '"use_causal_conv": false'))
    reference = load_engine(folder, "torch", device="cpu")
    extractor = extractor_of(folder)
    windows = random_windows(7, longest=2.0)
    lengths = [{len(windows[index].waveform.samples) for index in batch} for batch in extractor.batches(windows)]
    assert all(len(found) == 1 for found in lengths)
    assert_agree(extractor(windows), reference.extract(windows))


def extractor_of(folder: Path, device: str = "cpu") -> TorchExtractor:
    read = ModelFolder.read(folder)
    codec = None if read.codec_rate is None else Codec.from_folder(folder / "codec", read.caption.codebooks, device)
    clap = None if read.clap is None else Clap.from_folder(folder / "clap", device)
    return TorchExtractor(read, codec, clap, torch.device(device))


def assert_agree(found: Sequence[Features], expected: Sequence[Features], share: float = 0.99) -> None:
    """Embeddings within the cosine, log-mel frames within rounding, and so many equal codes of the first codebook."""
    assert len(found) == len(expected)
    equal = total = 0
    for ours, theirs in zip(found, expected, strict=True):
        assert ours.codes.shape == theirs.codes.shape and ours.codes.dtype == np.int64
        assert (ours.embedding is None) == (theirs.embedding is None) and (ours.log_mel is None) == (
            theirs.log_mel is None
        )
        if ours.embedding is not None and theirs.embedding is not None:
            assert ours.embedding.dtype == np.float32
            assert float(ours.embedding @ theirs.embedding) >= LEAST_COSINE
        if ours.log_mel is not None and theirs.log_mel is not None:
            np.testing.assert_allclose(ours.log_mel, theirs.log_mel, atol=0.05)
        equal += int((ours.codes[:, 0] == theirs.codes[:, 0]).sum()) if ours.codes.size else 0
        total += len(ours.codes)
    assert equal >= share * total


def mixed_windows() -> list[Window]:
    windows = random_windows(6, rate=44_100, longest=4.0, seed=1)
    windows += random_windows(3, rate=16_000, longest=14.0, seed=2)
    windows += random_windows(1, rate=UNRELATED[0], longest=1.0, seed=3)
    return [windows[index] for index in np.random.default_rng(0).permutation(len(windows))]


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("whole", [False, True])
def test_features_are_those_of_the_processor(tiny_model: Path, whole: bool, device: str) -> None:
    windows = mixed_windows()
    found = extractor_of(tiny_model, device)(windows, whole)
    assert_agree(found, load_engine(tiny_model, "torch", device="cpu").extract(windows, whole=whole))


@pytest.mark.parametrize("device", DEVICES)
def test_mini_says_the_same(device: str) -> None:
    """The issue's bounds on what ships, with resampling on the device too: features, and every caption."""
    folder = find_model("mini")
    windows = [scene(seed) for seed in range(6)]
    reference = load_engine(folder, "torch", device="cpu")
    extractor = extractor_of(folder, device)
    found, expected = extractor(windows), reference.extract(windows)
    assert_agree(found, expected)
    sentences = load_engine(folder, "onnx", device="cpu", threads=1)
    ours, theirs = (sentences.generate(features, DecodingOptions(beams=2)) for features in (found, expected))
    assert [clip[0].text for clip in ours] == [clip[0].text for clip in theirs]
    same_rate = [Window(Waveform(noise(40_000, seed), 16_000), 0.0, 2.5) for seed in range(4)]
    codec = Codec.from_folder(folder / "codec")
    encoded = [features.codes for features in extractor(same_rate)]
    different = sum(
        assert_only_ties_differ(codec, window.waveform.samples, codes)
        for window, codes in zip(same_rate, encoded, strict=True)
    )
    assert different <= 0.001 * sum(codes.size for codes in encoded)


def scene(seed: int) -> Window:
    """Three seconds of tones that start, stop and slide, over noise."""
    generator = np.random.default_rng(seed)
    rate, count = 44_100, 3 * 44_100
    time = np.arange(count) / rate
    samples = generator.uniform(0.0, 0.05) * generator.standard_normal(count)
    for _ in range(4):
        pitch, slide, start = generator.uniform(80, 4_000), generator.uniform(-1, 1), generator.uniform(0, 2)
        tone = np.sin(2 * np.pi * pitch * (time + slide * 0.05 * time**2))
        samples += 0.2 * tone * ((time > start) & (time < start + generator.uniform(0.1, 1.5)))
    return Window(Waveform(samples.astype(np.float32), rate), 0.0, 3.0)


@pytest.mark.parametrize(("use_clap", "acoustic_input"), [(False, "codes"), (True, "none"), (True, "log_mel")])
def test_ablated_models(tmp_path: Path, use_clap: bool, acoustic_input: str) -> None:
    folder = tiny_model_folder(tmp_path / "model", use_clap=use_clap, acoustic_input=acoustic_input, graphs=False)
    windows = mixed_windows()
    assert_agree(extractor_of(folder)(windows), load_engine(folder, "torch", device="cpu").extract(windows))


def test_convolutional_towers(tmp_path: Path) -> None:
    folder = tiny_model_folder(tmp_path / "conv", clap=ConvClapConfig.model_type, graphs=False)
    windows = mixed_windows()
    assert_agree(extractor_of(folder)(windows), load_engine(folder, "torch", device="cpu").extract(windows))


def test_a_window_does_not_depend_on_its_batch(tiny_model: Path) -> None:
    extractor, windows = extractor_of(tiny_model), mixed_windows()
    assert_agree(extractor(windows), [extractor([window])[0] for window in windows], share=0.999)
    assert extractor([]) == []


def test_every_window_is_in_one_batch_of_its_rate(tiny_model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    extractor, windows = extractor_of(tiny_model), mixed_windows()
    monkeypatch.setattr(extractor, "windows_that_fit", lambda: 2)
    batches = extractor.batches(windows)
    assert sorted(index for batch in batches for index in batch) == list(range(len(windows)))
    assert max(map(len, batches)) == 2
    assert all(len({windows[index].waveform.rate for index in batch}) == 1 for batch in batches)


def test_a_batch_for_which_memory_is_short_is_halved(tiny_model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    extractor, windows = extractor_of(tiny_model), random_windows(9, longest=2.0)
    expected, codec = extractor(windows), extractor._codec
    assert codec is not None
    whole, sizes = codec.encode_lengths, []

    def encode(samples: torch.Tensor, lengths: list[int]) -> torch.Tensor:
        sizes.append(len(lengths))
        if len(lengths) > limit:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return whole(samples, lengths)

    monkeypatch.setattr(codec, "encode_lengths", encode)
    limit = 1
    assert_agree(extractor(windows), expected)
    assert max(sizes) > 1
    limit = 0
    with pytest.raises(EnvironmentFault, match=r"cpu: no memory for a window of \d+ s; use shorter windows"):
        extractor(windows)


def test_the_engine_takes_numpy_on_a_processor_and_tensors_elsewhere(
    tiny_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine, windows = TorchEngine(tiny_model, device="cpu"), mixed_windows()
    asked: list[int] = []
    found = TorchExtractor.__call__

    def spied(self: TorchExtractor, windows: Sequence[Window], whole: bool = False) -> list[Features]:
        asked.append(len(windows))
        return found(self, windows, whole)

    monkeypatch.setattr(TorchExtractor, "__call__", spied)
    expected = engine.extract(windows)
    assert asked == []
    monkeypatch.setattr(engine, "_on_processor", False)
    assert_agree(engine.extract(windows), expected)
    assert asked == [len(windows)]


def test_exact_products_last_as_long_as_one_thread_needs_them() -> None:
    cudnn = torch.backends.cudnn
    before, entered, leave = cudnn.allow_tf32, threading.Event(), threading.Event()

    def other() -> None:
        with exact_float32():
            entered.set()
            leave.wait()

    thread = threading.Thread(target=other)
    with exact_float32():
        thread.start()
        entered.wait()
    assert cudnn.allow_tf32 is False
    leave.set()
    thread.join()
    assert cudnn.allow_tf32 is before is True


@pytest.mark.gpu
def test_captions_of_a_gpu_are_those_of_the_processor(tiny_model: Path) -> None:
    """The whole route on a GPU, where batches overlap, and on all GPUs there are."""
    sources: list[Source] = [(window.waveform.samples, window.waveform.rate) for window in mixed_windows() * 4]
    expected = Captioner.from_pretrained(tiny_model, "torch", "cpu").caption(sources)
    everything = ",".join(f"cuda:{number}" for number in range(torch.cuda.device_count()))
    for device in dict.fromkeys(("cuda", "cuda:0", everything)):
        found = Captioner.from_pretrained(tiny_model, "torch", device).caption(sources)
        assert np.mean([ours.text == theirs.text for ours, theirs in zip(found, expected, strict=True)]) >= 0.98
