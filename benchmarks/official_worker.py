"""One measurement of `official_speed.py` in a process of its own: prints seconds as JSON.

A job gets a model folder, a precision and recordings; each is run once unmeasured, then --runs times.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

from enclap import Captioner, DecodingOptions
from enclap.audio.read import read_audio
from enclap.audio.resample import resample
from enclap.engines.batching import clap_input, encoder_inputs, frame_count
from enclap.engines.devices import usable_cores
from enclap.engines.onnx.decoder import CrossAttentionCache
from enclap.engines.onnx.engine import GRAPH_SUFFIXES, OnnxEngine
from enclap.engines.onnx.features import load_codec
from enclap.engines.onnx.sessions import Sessions, providers
from enclap.hub.layout import Graph
from enclap.hub.model_folder import ModelFolder
from enclap.types import Features, Waveform, Window

Seconds = dict[str, float]
TURN = 16  # recordings that are captioned one by one, then together


def median(action: Callable[[], object], runs: int) -> float:
    """Median seconds of an action after one run that warms up."""
    action()
    seconds = []
    for _ in range(runs):
        start = time.perf_counter()
        action()
        seconds.append(time.perf_counter() - start)
    return statistics.median(seconds)


def captions(options: argparse.Namespace) -> Seconds:
    """A recording through an engine, from file to sentence."""
    captioner = Captioner.from_pretrained(options.folder, options.engine, "cpu", options.precision)
    return {"seconds": median(lambda: captioner.caption(options.recordings[0]), options.runs)}


def folder_of_clips(options: argparse.Namespace) -> Seconds:
    """All recordings one at a time and together, in turns of sixteen: a machine that slows down slows both.

    Each way has a captioner of its own, as in a process that does nothing else: its cores are shared differently.
    """
    lone, together = (
        Captioner.from_pretrained(options.folder, options.engine, "cpu", options.precision) for _ in range(2)
    )
    lone.caption(options.recordings[0])
    together.caption(options.recordings[:TURN])
    taken = {"one": 0.0, "together": 0.0}
    for first in range(0, len(options.recordings), TURN):
        recordings = options.recordings[first : first + TURN]
        start = time.perf_counter()
        for recording in recordings:
            lone.caption(recording)
        middle = time.perf_counter()
        together.caption(list(recordings))
        taken["one"] += middle - start
        taken["together"] += time.perf_counter() - middle
    return taken


def stages(options: argparse.Namespace) -> Seconds:
    """The stages of the onnx engine, each alone, and codec and CLAP together as they run."""
    engine = OnnxEngine(Path(options.folder), device="cpu", precision=options.precision)
    folder, sessions = engine.folder, Sessions(engine.folder, usable_cores(), providers("cpu"))
    window = whole_window(options.recordings[0])
    clip = engine.extract([window])[0]
    samples = resample(window.waveform, folder.codec_rate or 0)
    codec = load_codec(folder, sessions)

    def encode_codec() -> None:
        with ThreadPoolExecutor(usable_cores()) as pool:
            codec.finish(np.concatenate([part.result() for part in codec.begin(samples, pool)], axis=1))

    def embed() -> None:
        sessions.get(Graph.CLAP_AUDIO, threads=1).run(None, {"mel": clap_input(folder, window)})

    encoder = median(encoder_pass(folder, sessions, options.precision, clip), options.runs)
    whole = median(lambda: engine.generate([clip], DecodingOptions()), options.runs)
    return {
        "codec": median(encode_codec, options.runs),
        "clap": median(embed, options.runs),
        "extraction": median(lambda: engine.extract([window]), options.runs),
        "encoder": encoder,
        "decoding": whole - encoder,
    }


def encoder_pass(folder: ModelFolder, sessions: Sessions, precision: str, clip: Features) -> Callable[[], object]:
    """One run of the caption model's encoder."""
    encoder = sessions.get(Graph.ENCODER + GRAPH_SUFFIXES[precision])
    caption = folder.caption
    heads, slots = caption.decoder_attention_heads, frame_count(folder, clip) + folder.special_slots
    names = [item.name for item in encoder.get_outputs()]

    def run() -> None:
        memory = CrossAttentionCache(names, [slots], heads, caption.d_model // heads)
        memory.fill(0, encoder, encoder_inputs(folder, [clip]))

    return run


def whole_window(path: str) -> Window:
    """A recording as one window."""
    waveform: Waveform = read_audio(path)
    return Window(waveform, 0.0, waveform.seconds)


def transformers_loop(options: argparse.Namespace) -> Seconds:
    """The same weights as plain transformers code runs them."""
    from plain import PlainLoop

    loop = PlainLoop(Path(options.folder))
    taken: list[Seconds] = []
    whole = median(lambda: taken.append(loop(whole_window(options.recordings[0]))), options.runs)
    stages_ = {stage: statistics.median(one[stage] for one in taken[1:]) for stage in taken[0]}
    return {"seconds": whole, **stages_}


JOBS = {
    "captions": captions,
    "clips": folder_of_clips,
    "stages": stages,
    "transformers": transformers_loop,
}


def main() -> None:
    """Run the job that is named and print its seconds."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("job", choices=JOBS)
    parser.add_argument("folder")
    parser.add_argument("recordings", nargs="+")
    parser.add_argument("--engine", default="onnx")
    parser.add_argument("--precision", default="float32")
    parser.add_argument("--runs", type=int, default=5)
    options = parser.parse_args()
    print(json.dumps(JOBS[options.job](options)))


if __name__ == "__main__":
    main()
