"""What each row costs, and the published sizes: parameters, operations, seconds, memory, and energy where it is told.

Nothing is trained: networks with random weights cost what trained ones cost.
"""

from __future__ import annotations

import datetime
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode
from transformers import ClapConfig, ClapModel, EncodecConfig, EncodecModel

from enclap.errors import UsageError
from enclap.experiments.grids import GRIDS, Training
from enclap.experiments.laboratory import MiniLaboratory
from enclap.experiments.page import SCALE, machine
from enclap.experiments.published import PAPER, UNFITTING, peer_lines
from enclap.experiments.trial import Laboratory
from enclap.files import write_whole
from enclap.model import EnclapConfig, EnclapForConditionalGeneration

TOKENS = 20
"""Of the sentence that is searched for, greedily: about as long as a caption of Clotho."""
RUNS = 3
"""Of which the fastest is told."""
COUNTERS = Path("/sys/class/powercap")
"""Where Linux tells the energy of the processor, in files energy_uj that usually root alone can read."""
LARGE = {"d_model": 1024, "encoder_layers": 12, "decoder_layers": 12, "encoder_attention_heads": 16}
LARGE |= {"decoder_attention_heads": 16, "encoder_ffn_dim": 4096, "decoder_ffn_dim": 4096}
"""BART large."""
SECONDS, PUBLISHED_RATE, PUBLISHED_MELS = 10, 24_000, 1_001


@dataclass(frozen=True, slots=True)
class Cost:
    """Of a clip. captioner, encoders: parameters. operations: floating-point, a product and a sum are two. seconds: of
    all networks. megabytes: of memory beside the program's own, weights included. joules: None where nobody tells.
    """

    name: str
    captioner: int
    encoders: int
    operations: float
    seconds: float
    megabytes: float
    joules: float | None


@dataclass(frozen=True, slots=True)
class Networks:
    """What a clip runs through. codec: samples to codes; clap: a spectrogram to an embedding or a map; each with what
    it is given, or None. captioner: with its other inputs.
    """

    captioner: EnclapForConditionalGeneration
    inputs: dict[str, Tensor]
    codec: tuple[Any, Tensor] | None
    clap: tuple[nn.Module, Callable[[Tensor], Any], Tensor] | None

    def run(self) -> None:
        """One clip from samples to twenty tokens; attention is written out, or its operations would not be counted."""
        self.captioner.set_attn_implementation("eager")
        if self.codec is not None:
            latents = self.codec[0].encoder(self.codec[1])
            self.codec[0].quantizer.encode(latents)
        if self.clap is not None:
            self.clap[1](self.clap[2])
        self.captioner.generate(
            **self.inputs, min_length=TOKENS + 1, max_length=TOKENS + 1, num_beams=1, do_sample=False
        )

    @property
    def encoder_parameters(self) -> int:
        """Of the codec's encoder with its codebooks and of CLAP's audio tower, where they are used."""
        parts: list[nn.Module] = [] if self.codec is None else [self.codec[0].encoder]
        parts += [] if self.clap is None else [self.clap[0]]
        books = (
            0 if self.codec is None else sum(layer.codebook.embed.numel() for layer in self.codec[0].quantizer.layers)
        )
        return books + sum(value.numel() for part in parts for value in part.parameters())

    @property
    def lstm_operations(self) -> float:
        """Of the codec's recurrent layers, which PyTorch's counter leaves out."""
        if self.codec is None:
            return 0.0
        frames = self.codec[1].shape[2] / self.codec[0].config.hop_length
        layers = [module for module in self.codec[0].encoder.modules() if isinstance(module, nn.LSTM)]
        return float(sum(2.0 * frames * value.numel() for layer in layers for value in layer.parameters()))


@torch.inference_mode()
def measure(name: str, make: Callable[[], Networks], unused: int = 0) -> Cost:
    """The cost of a row. unused: parameters that its captioner has and never reads."""
    before = memory("VmRSS")
    reset_peak()
    networks = make()
    networks.run()
    peak = memory("VmHWM") - before
    with FlopCounterMode(display=False) as counter:
        networks.run()
    seconds, joules = [], []
    for _ in range(RUNS):
        energy, began = energy_counter(), time.perf_counter()
        networks.run()
        seconds.append(time.perf_counter() - began)
        joules.append(None if energy is None else (energy_counter() or 0.0) - energy)
    fastest = min(range(RUNS), key=seconds.__getitem__)
    return Cost(
        name,
        sum(value.numel() for value in networks.captioner.parameters()) - unused,
        networks.encoder_parameters,
        counter.get_total_flops() + networks.lstm_operations,
        seconds[fastest],
        max(0.0, peak) / 2**20,
        joules[fastest],
    )


def memory(name: str) -> int:
    """Bytes of this process's memory, now (VmRSS) or at most (VmHWM); 0 where the system does not tell."""
    with suppress(OSError):
        for line in Path("/proc/self/status").read_text(encoding="ascii").splitlines():
            if line.startswith(f"{name}:"):
                return 1024 * int(line.split()[1])
    return 0


def reset_peak() -> None:
    """Have the most memory that this process took count from now on, where the system can."""
    with suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")


def energy_counter() -> float | None:
    """Joules that the processor has used since some time; None where the system does not tell."""
    values = []
    for path in sorted(COUNTERS.glob("*:?/energy_uj")) if COUNTERS.is_dir() else ():
        try:
            values.append(int(path.read_text(encoding="ascii")) / 1e6)
        except (OSError, ValueError):
            return None
    return sum(values) if values else None


def networks_of(training: Training, laboratory: MiniLaboratory) -> Networks:
    """The networks of a row at the experiments' size, for one scene."""
    given, recipe = laboratory.encoders, laboratory.recipe
    frames = round(recipe.seconds * given.frame_rate)
    mels = round(recipe.seconds * given.front_end.rate / given.front_end.hop)
    codebooks, entries = training.codebooks or given.codec.codebooks, training.entries or given.codec.entries
    width = given.clap.dim
    sizes = {**recipe.model, "use_clap": training.use_clap, "clap_dim": width, "vocab_size": recipe.vocabulary}
    sizes |= {"codebooks": codebooks, "codebook_entries": entries}
    inputs = {"clap_embedding": torch.zeros(1, width)}
    mel = torch.zeros(1, mels, given.front_end.bands)
    tower = given.tower
    if training.acoustic == "log_mel":
        sizes |= {"acoustic_input": "log_mel", "log_mel_bands": given.front_end.bands}
        inputs["log_mel"] = torch.zeros(1, frames, given.front_end.bands)
    elif training.acoustic == "feature_map":
        maps = tower.hidden(mel).transpose(1, 2)
        sizes |= {"acoustic_input": "log_mel", "log_mel_bands": maps.shape[2]}
        inputs["log_mel"] = torch.zeros(1, *maps.shape[1:])
    else:
        shown = frames if training.acoustic == "codes" else 0
        inputs["codes"] = torch.zeros(1, shown, codebooks, dtype=torch.long)
    table = given.codec.model.config.to_dict() | {"codebook_size": entries}
    table["target_bandwidths"] = [codebooks * (entries - 1).bit_length() * given.frame_rate / 1000]
    codec = EncodecModel(EncodecConfig(**table)).eval().requires_grad_(False) if training.acoustic == "codes" else None
    hears = training.acoustic == "feature_map" or (training.use_clap and training.has_embedding)
    samples = torch.zeros(1, 1, round(recipe.seconds * given.codec.rate))
    return Networks(
        EnclapForConditionalGeneration(EnclapConfig(**sizes)).eval().requires_grad_(False),
        inputs,
        None if codec is None else (codec, samples),
        (tower, tower, mel) if hears else None,
    )


def published_networks(sizes: dict[str, Any]) -> Networks:
    """EnCLAP at a published size with its EnCodec and CLAP, for ten seconds."""
    codec, clap = (
        EncodecModel(EncodecConfig(target_bandwidths=[12.0])).eval().requires_grad_(False),
        ClapModel(ClapConfig()).eval().requires_grad_(False),
    )
    captioner = EnclapForConditionalGeneration(EnclapConfig(**sizes)).eval().requires_grad_(False)
    rate, config = codec.config.sampling_rate, captioner.config
    frames = -(-SECONDS * rate // codec.config.hop_length)
    inputs = {
        "codes": torch.zeros(1, frames, config.codebooks, dtype=torch.long),
        "clap_embedding": torch.zeros(1, config.clap_dim),
    }
    samples, mel = torch.zeros(1, 1, SECONDS * rate), torch.zeros(1, 1, PUBLISHED_MELS, 64)
    return Networks(captioner, inputs, (codec, samples), (clap.audio_model, clap.get_audio_features, mel))


def rows_to_measure() -> dict[str, Training]:
    """The rows of all grids whose networks differ, by their first name; seeds, masks and weights cost nothing."""
    found: dict[tuple[Any, ...], tuple[str, Training]] = {}
    for grid in GRIDS:
        for row in grid.rows:
            item = row.training
            hears = item.use_clap and item.has_embedding
            key = (item.acoustic, item.use_clap, hears, item.codebooks, item.entries, item.has_own_encoders)
            if not item.has_own_encoders:
                found.setdefault(key, (row.name, item))
    return dict(found.values())


def measured(laboratory: MiniLaboratory) -> Iterator[Cost]:
    """The costs of all rows, then of the published sizes."""
    for name, training in rows_to_measure().items():
        networks = networks_of(training, laboratory)
        unread = ("frame_embedding.", "mcm_heads.") if training.acoustic == "none" else ("mcm_heads.",)
        unused = sum(v.numel() for key, v in networks.captioner.named_parameters() if key.startswith(unread))
        yield measure(name, lambda training=training: networks_of(training, laboratory), unused)  # type: ignore[misc]
    for name, sizes in (("EnCLAP base", {}), ("EnCLAP large", LARGE)):
        heads = (sizes or {"d_model": 768})["d_model"] * 1024 * 16 + 1024 * 16
        yield measure(f"{name}, ten seconds", lambda sizes=sizes: published_networks(sizes), heads)  # type: ignore[misc]


def measured_names() -> str:
    """What a dry run says."""
    return f"nothing is trained; measured are {'; '.join([*rows_to_measure(), 'EnCLAP base', 'EnCLAP large'])}"


def write_cost_page(laboratory: Laboratory, folder: Path) -> Path:
    """The page cost.md, now in the folder; UsageError for the laboratory of a recipe."""
    if not isinstance(laboratory, MiniLaboratory):
        raise UsageError("cost: measures the published sizes beside mini's without --recipe")
    rows = []
    for cost in measured(laboratory):
        energy = "not told" if cost.joules is None else f"{cost.joules:.2f}"
        cells = [cost.name, f"{cost.captioner:,}", f"{cost.encoders:,}", f"{cost.operations / 1e9:.2f}"]
        rows.append(f"| {' | '.join([*cells, f'{cost.seconds:.3f}', f'{cost.megabytes:.0f}', energy])} |")
    folder.mkdir(parents=True, exist_ok=True)
    write_whole(folder / "cost.md", "\n".join(page_lines(rows, laboratory)) + "\n")
    return folder / "cost.md"


def page_lines(rows: list[str], laboratory: MiniLaboratory) -> list[str]:
    """The lines of the page."""
    told = energy_counter() is not None
    energy = "Energy is the processor's." if told else "This machine does not tell the energy of its processor."
    return [
        "# What each part costs",
        "",
        "What do the inputs cost in parameters, operations, time and memory, and does CLAP add enough for its cost?",
        "",
        SCALE,
        "",
        f"Written by `enclap experiment cost` on {datetime.date.today().isoformat()} ({machine()}), with "
        f"{torch.get_num_threads()} threads. One scene of {laboratory.recipe.seconds:g} s (the published sizes: ten "
        f"seconds), through the encoders and a greedy sentence of {TOKENS} tokens; the fastest of {RUNS} runs. "
        f"Parameters without those that only training needs. {energy}",
        "",
        "| row | captioner | encoders | GFLOP a clip | s a clip | MB | J |",
        "|---|---|---|---|---|---|---|",
        *rows,
        "",
        "Rows that differ in seeds, masks, weights or decoding alone cost the same and are left out; what a wider "
        "search costs stands on the page of [decoding](decoding.md). Encoders of the experiments' own are left out "
        "as well.",
        "",
        "## Published systems",
        "",
        *peer_lines(),
        "",
        f"{PAPER} {UNFITTING}",
        "",
        "## What this supports",
        "",
        "Parameters and operations are exact; seconds and megabytes hold for the machine named above. **Does CLAP add "
        "enough for its cost?** What it costs stands here, what it adds on the page of "
        "[components](components.md).",
        "",
        "## What it does not",
        "",
        "It does not rank the published systems: their scores come from different sets, training data and tools.",
    ]
