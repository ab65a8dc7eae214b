"""Measures the torch engine on an accelerator, within five minutes of its time, weights included.

Base and large with weights from a rule, made here; ten-second clips at 44.1 kHz, beam 4, 20 forced words: the stages of
a batch, clips per second, the latency of one clip, an hour of audio from an MP3 by `enclap caption`, extraction, and
how far codes and captions agree with those of the processor. The most wanted come first; what does not fit into
`--budget` is "not measured", as is everything where there is no accelerator. Each figure is stored as soon as it is
there. It needs `../shared/reference`, or a copy of that folder named by `--reference`, and ffmpeg's encoders in PyAV.

To try the script itself on a processor: --device cpu --model FOLDER --batch 2 --minutes 1 --budget 600 --no-save
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import time
import traceback
import wave
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import av
import numpy as np
import torch

from enclap import Captioner, DecodingOptions
from enclap.engines.batching import encoder_inputs
from enclap.engines.torch import TorchEngine
from enclap.engines.torch_features import TorchExtractor, exact_float32
from enclap.hub.resolve import find_model
from enclap.model.slots import EncoderInputs
from enclap.types import Features, FloatArray, Waveform, Window
from plain import PlainLoop
from rule_weights import REFERENCE, SIZES, rule_folder
from tables import RESULTS, Table, hardware, save, today

RATE, SECONDS = 44_100, 10
TOKENS = 21  # the start token and 20 more, no fewer and no more
OPTIONS = DecodingOptions(min_length=TOKENS, max_length=TOKENS)
BUDGET = 280.0  # seconds
NOT_MEASURED = "not measured"
STAGES = ("copy and resampling", "spectrogram", "codec", "CLAP", "encoder", "decoding")
COMPARED = 16  # clips whose codes and captions are compared with the processor's
MP3_MINUTES = 60


def sounds(count: int, rate: int = RATE, first: int = 0) -> list[Window]:
    """Ten seconds each of seeded tones that come and go over noise; none is like another."""
    found = []
    time_line = np.arange(rate * SECONDS) / rate
    for seed in range(first, first + count):
        generator = np.random.default_rng(seed)
        samples = generator.uniform(0.001, 0.1) * generator.standard_normal(len(time_line))
        for _ in range(4):
            pitch, start, length = generator.uniform(80, 6000), generator.uniform(0, 8), generator.uniform(0.1, 4)
            heard = (time_line > start) & (time_line < start + length)
            samples += 0.2 * np.sin(2 * np.pi * pitch * time_line) * heard
        found.append(Window(Waveform(samples.astype(np.float32), rate), 0.0, float(SECONDS)))
    return found


@dataclass
class Setup:
    """A model on the device that is measured, and the clips it is given."""

    folder: Path
    device: str
    batch: int
    minutes: float
    scratch: Path
    engines: dict[str, TorchEngine] = field(default_factory=dict)

    def engine(self, precision: str) -> TorchEngine:
        """The torch engine of a precision, loaded once."""
        if precision not in self.engines:
            self.engines[precision] = TorchEngine(self.folder, device=self.device, precision=precision)
        return self.engines[precision]

    @cached_property
    def clips(self) -> list[Window]:
        """A batch of clips."""
        return sounds(self.batch)

    @cached_property
    def extractor(self) -> TorchExtractor:
        """What computes features on the device, also where the engine would use the processor's front end."""
        return self.engine("bfloat16").extractor

    def finish(self) -> None:
        """Wait until the device has done what it was given."""
        if self.device.startswith("cuda"):
            torch.cuda.synchronize(self.device)

    def seconds(self, action: Callable[[], object], runs: int = 3) -> float:
        """Seconds of an action, median of some runs after one that warms up."""
        taken = []
        for _ in range(runs + 1):
            self.finish()
            start = time.perf_counter()
            action()
            self.finish()
            taken.append(time.perf_counter() - start)
        return statistics.median(taken[1:])


Cells = dict[str, str]


def stages(setup: Setup) -> Cells:
    """Seconds of the stages of a batch, one after the other, each waited for."""
    extractor, engine = setup.extractor, setup.engine("bfloat16")
    codec, clap, spectrograms = engine._codec, engine._clap, extractor._clap_mel
    assert spectrograms is not None
    waveforms = [window.waveform for window in setup.clips]

    def resample() -> tuple[tuple[torch.Tensor, list[int]], ...]:
        staged, lengths = extractor._staged([waveform.samples for waveform in waveforms])
        rates = (codec.rate, spectrograms.front_end.rate)
        first, second = (extractor._resampled(staged, lengths, rate, waveforms) for rate in rates)
        return first, second

    with exact_float32(), torch.inference_mode():
        for_codec, for_clap = resample()
        mels = spectrograms.tower_inputs(*for_clap)
        features = extractor(setup.clips)
        arrays = encoder_inputs(engine.folder, features)
        inputs = EncoderInputs(**{name: torch.from_numpy(array).to(setup.device) for name, array in arrays.items()})
        taken = [
            setup.seconds(resample),
            setup.seconds(lambda: spectrograms.tower_inputs(*for_clap)),
            setup.seconds(lambda: codec.encode_lengths(*for_codec)),
            setup.seconds(lambda: clap.embed_tensors(mels)),
            setup.seconds(lambda: engine._model.encode(inputs)),
        ]
    taken.append(setup.seconds(lambda: engine.generate(features, OPTIONS)) - taken[-1])
    return {f"batch {{batch}}, {name}": f"{seconds:.3f} s" for name, seconds in zip(STAGES, taken, strict=True)}


def rates(precision: str, parts: Sequence[int]) -> Callable[[Setup], Cells]:
    """Clips per second of calls with a share 1 / part of a batch each, features and sentences one after the other."""

    def measure(setup: Setup) -> Cells:
        engine, found = setup.engine(precision), {}
        for part in parts:
            clips = setup.clips[: max(1, setup.batch // part)]
            seconds = setup.seconds(lambda clips=clips: engine.generate(engine.extract(clips), OPTIONS))  # type: ignore[misc]
            size = f"{{batch/{part}}}" if part > 1 else "{batch}"
            found[f"{precision}, batch {size}, one call after the other"] = f"{len(clips) / seconds:.1f} clips/s"
        return found

    return measure


def streamed(setup: Setup) -> Cells:
    """Clips per second of the whole route, in which decoding, features and sentences of batches overlap."""
    captioner, count = Captioner(setup.engine("bfloat16")), 8 * setup.batch
    sources = [(window.waveform.samples, RATE) for window in setup.clips] * 8
    seconds = setup.seconds(lambda: list(captioner.stream(sources, OPTIONS)), runs=1)
    rate = count / seconds
    return {STREAMED: f"{rate:.1f} clips/s", STREAMED_SECONDS: f"{SECONDS * rate:.0f} s/s"}


def latency(setup: Setup) -> Cells:
    """One clip at a time, from samples to sentence."""
    engine, clip = setup.engine("bfloat16"), setup.clips[:1]
    seconds = setup.seconds(lambda: engine.generate(engine.extract(clip), OPTIONS), runs=10)
    return {LATENCY: f"{1000 * seconds:.0f} ms"}


def extraction(setup: Setup) -> Cells:
    """Clips per second of both encoders from decoded audio, and of `enclap extract` from WAV files."""
    extractor = setup.extractor
    seconds = setup.seconds(lambda: extractor(setup.clips))
    folder = setup.scratch / "sounds"
    folder.mkdir(parents=True, exist_ok=True)
    count = 4 * setup.batch
    rows = []
    for number, window in enumerate(sounds(count, first=1000)):
        with wave.open(str(folder / f"{number}.wav"), "wb") as target:
            target.setnchannels(1), target.setsampwidth(2), target.setframerate(RATE)
            target.writeframes((window.waveform.samples.clip(-1, 1) * 32767).astype(np.int16).tobytes())
        rows.append(f"{number}.wav,A sound.\n")
    (folder / "table.csv").write_text("path,caption\n" + "".join(rows), encoding="utf-8")
    output = setup.scratch / f"features-{setup.folder.name}-{time.time_ns()}"
    arguments = ["extract", str(folder / "table.csv"), "--output", str(output), "--model", str(setup.folder)]
    whole = program_seconds([*arguments, "--engine", "torch", "--device", setup.device])
    return {ENCODERS: f"{setup.batch / seconds:.1f} clips/s", EXTRACT: f"{whole:.1f} s for {count} clips"}


def hour(setup: Setup) -> Cells:
    """The whole program on an MP3."""
    path = setup.scratch / f"{setup.minutes:g}.mp3"
    if not path.exists():
        write_mp3(path, setup.minutes)
    arguments = ["caption", str(path), "--model", str(setup.folder), "--engine", "torch", "--device", setup.device]
    return {HOUR: f"{program_seconds([*arguments, '--precision', 'bfloat16', '--quiet']):.1f} s"}


def agreement(setup: Setup) -> Cells:
    """Codes and captions beside those of the processor, where numpy and soxr prepare the audio."""
    clips = sounds(min(COMPARED, setup.batch), first=5000)
    processor = TorchEngine(setup.folder, device="cpu")
    rate = processor.folder.codec_rate
    assert rate is not None
    found, expected = setup.extractor(clips), processor.extract(clips)
    same = [(item.codes == other.codes).mean(axis=0) for item, other in zip(found, expected, strict=True)]
    directions = [float(item.embedding @ other.embedding) for item, other in zip(found, expected, strict=True)]  # type: ignore[operator]
    unconverted = sounds(len(clips), rate, first=5000)
    pairs = list(zip(setup.extractor(unconverted), processor.extract(unconverted), strict=True))
    shares = [(item.codes == other.codes).mean() for item, other in pairs]
    texts = sentences(processor, expected)
    in_float32, in_bfloat16 = (sentences(setup.engine(name), found) for name in ("float32", "bfloat16"))
    return {
        "equal codes, same waveform": percent(float(np.mean(shares))),
        "equal codes of the first codebook, resampled on the device": percent(float(np.mean(same, axis=0)[0])),
        "embeddings, least cosine": f"{min(directions):.7f}",
        "equal captions, float32": percent(equal_share(in_float32, texts)),
        "equal captions, bfloat16": percent(equal_share(in_bfloat16, texts)),
    }


def sentences(engine: TorchEngine, features: Sequence[Features]) -> list[str]:
    """The best sentence for each clip."""
    return [clip[0].text for clip in engine.generate(features, OPTIONS)]


def equal_share(found: Sequence[str], expected: Sequence[str]) -> float:
    """How many of the sentences are the expected ones."""
    return float(np.mean([ours == theirs for ours, theirs in zip(found, expected, strict=True)]))


def percent(share: float) -> str:
    """A share in words."""
    return f"{100 * share:.2f} %"


def plain(setup: Setup) -> Cells:
    """A loop of plain transformers code, a clip at a time."""
    loop = PlainLoop(setup.folder, setup.device)
    seconds = setup.seconds(lambda: loop(setup.clips[0], min_length=TOKENS, max_length=TOKENS))
    return {PLAIN: f"{1 / seconds:.1f} clips/s"}


def program_seconds(arguments: list[str]) -> float:
    """Seconds of a whole `enclap`, from the start of its process to its end; RuntimeError with what it said else."""
    start = time.perf_counter()
    done = subprocess.run([sys.executable, "-m", "enclap", *arguments], capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"enclap {arguments[0]}: {done.stderr[-2000:]}")
    return time.perf_counter() - start


def write_mp3(path: Path, minutes: float) -> None:
    """A recording of so many minutes: one minute, again and again, as MP3 allows."""
    minute = path.with_name("minute.mp3")
    with av.open(str(minute), "w") as output:
        stream = output.add_stream("libmp3lame", rate=RATE, layout="mono")
        for window in sounds(6, first=9000):
            samples: FloatArray = window.waveform.samples[None]
            frame = av.AudioFrame.from_ndarray(samples, format="fltp", layout="mono")
            frame.sample_rate = RATE
            output.mux(stream.encode(frame))  # type: ignore[arg-type]
        output.mux(stream.encode(None))
    path.write_bytes(minute.read_bytes() * max(1, round(minutes)))


STREAMED, STREAMED_SECONDS = "bfloat16, whole route, batches overlap", "the same, seconds of audio per second"
LATENCY = "bfloat16, one clip's latency"
ENCODERS, EXTRACT = "both encoders, batch {batch}", "`enclap extract`, from WAV files"
HOUR = "`enclap caption`, {minutes} minutes from an MP3"
PLAIN = "plain transformers loop, float32, one at a time"
AGREEMENT = (
    "equal codes, same waveform",
    "equal codes of the first codebook, resampled on the device",
    "embeddings, least cosine",
    "equal captions, float32",
    "equal captions, bfloat16",
)


@dataclass(frozen=True)
class Measurement:
    """Some rows, and what fills them. seconds: of device time that it may take, below which it is not begun."""

    rows: tuple[str, ...]
    run: Callable[[Setup], Cells]
    seconds: float
    first_only: bool = False


MEASUREMENTS = (
    Measurement((STREAMED, STREAMED_SECONDS), streamed, 25),
    Measurement(
        ("bfloat16, batch {batch}, one call after the other", "bfloat16, batch {batch/4}, one call after the other"),
        rates("bfloat16", (1, 4)),
        10,
    ),
    Measurement((LATENCY,), latency, 5),
    Measurement(tuple(f"batch {{batch}}, {name}" for name in STAGES), stages, 10),
    Measurement((ENCODERS, EXTRACT), extraction, 40, first_only=True),
    Measurement((HOUR,), hour, 40, first_only=True),
    Measurement(AGREEMENT, agreement, 60, first_only=True),
    Measurement(("float32, batch {batch}, one call after the other",), rates("float32", (1,)), 15),
    Measurement((PLAIN,), plain, 15),
)
TARGETS = {
    STREAMED: ("base 220, large 150 clips/s", "base 400, large 250 clips/s"),
    LATENCY: ("base 70 ms", "base 40 ms"),
    HOUR: ("base 12 s", "base 6 s"),
    ENCODERS: ("400 clips/s", "800 clips/s"),
    AGREEMENT[0]: ("99.9 %", ""),
    AGREEMENT[1]: ("99 %", ""),
    AGREEMENT[2]: ("0.99999", ""),
    AGREEMENT[3]: ("98 %", ""),
}
"""At least, and what is aimed at, on one H100."""


def table(found: dict[str, Cells], options: argparse.Namespace, machine: str) -> Table:
    """What was measured so far; a row for everything that could be."""

    def shown(row: str) -> str:
        part = row.replace("{batch/4}", str(max(1, options.batch // 4)))
        return part.replace("{batch}", str(options.batch)).replace("{minutes}", f"{options.minutes:g}")

    rows = [
        (shown(row), *(cells.get(row, NOT_MEASURED) for cells in found.values()), *TARGETS.get(row, ("", "")))
        for row in ("weights made and written", *(row for measurement in MEASUREMENTS for row in measurement.rows))
    ]
    return Table(
        title="On an accelerator",
        columns=("", *found, "at least", "aim"),
        rows=tuple(rows),
        command=f"python benchmarks/accelerators.py SCRATCH --budget {options.budget:g}",
        date=today(),
        hardware=f"{machine}; {hardware()}",
        order=70,
        note="Ten-second clips at 44.1 kHz, beam 4, 20 forced words, medians. Targets are for one H100.",
        place="official",
    )


def parse() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("scratch", type=Path, help="folder for weights and recordings; what is there is reused")
    parser.add_argument("--size", choices=SIZES, action="append", help="default: both")
    parser.add_argument("--model", action="append", help="a model in the place of base and large")
    parser.add_argument("--reference", type=Path, default=REFERENCE, help="default: ../shared/reference")
    parser.add_argument("--device", help="default: the accelerator there is")
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--minutes", type=float, default=MP3_MINUTES, help="of the MP3")
    parser.add_argument("--budget", type=float, default=BUDGET, help=f"seconds in all (default: {BUDGET:g})")
    parser.add_argument("--output", type=Path, default=RESULTS, help="folder for the JSON file")
    parser.add_argument("--no-save", action="store_true", help="print only")
    return parser.parse_args()


def accelerator() -> str | None:
    """The accelerator that PyTorch finds; None without one."""
    if torch.cuda.is_available():
        return "cuda"
    return "mps" if torch.backends.mps.is_available() else None


def prepare(name: str, options: argparse.Namespace) -> Path:
    """The folder of a size, made from the rule with the forced length as its own, or of a model that was named."""
    if options.model:
        return find_model(name)
    folder = rule_folder(options.scratch / name, name, options.reference, graphs=False)
    path = folder / "generation_config.json"
    flags = json.loads(path.read_text()) | {"min_length": TOKENS, "max_length": TOKENS}
    path.write_text(json.dumps(flags))
    return folder


def main() -> None:
    """Measure, print and store; exit code 1 where a measurement failed."""
    options, began = parse(), time.perf_counter()
    device = options.device or accelerator()
    machine = torch.cuda.get_device_name() if device and device.startswith("cuda") else device or "no accelerator"
    names = options.model or options.size or list(SIZES)
    found: dict[str, Cells] = {name: {} for name in names}
    setups, failed = {}, False
    for name in names if device else ():
        start = time.perf_counter()
        folder = prepare(name, options)
        setups[name] = Setup(folder, device or "", options.batch, options.minutes, options.scratch)
        found[name]["weights made and written"] = f"{time.perf_counter() - start:.1f} s"
    for measurement in MEASUREMENTS:  # of every size before the next one, which there may be no time for
        for number, (name, setup) in enumerate(setups.items()):
            left = options.budget - (time.perf_counter() - began)
            if (number and measurement.first_only) or left < measurement.seconds:
                continue
            start = time.perf_counter()
            try:
                found[name] |= measurement.run(setup)
            except Exception:  # what else can be measured on a machine that is lent for minutes is worth more
                failed = True
                traceback.print_exc()
                found[name] |= dict.fromkeys(measurement.rows, "failed")
            taken = time.perf_counter() - start
            print(f"{name}: {taken:.1f} s for {', '.join(measurement.rows)}", file=sys.stderr, flush=True)
            if not options.no_save:
                save(table(found, options, machine), "accelerators", options.output)
    result = table(found, options, machine)
    print(result.markdown())
    if not options.no_save:
        save(result, "accelerators", options.output)
    raise SystemExit(failed)


if __name__ == "__main__":
    main()
