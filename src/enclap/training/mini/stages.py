"""The stages of mini's training: each reads its recipe, trains or extracts, and writes its own folder.

A stage is skipped when its folder holds a `done` file; one that was cut off goes on from its last checkpoint or shard.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer
from torch import Tensor, nn
from transformers import EncodecModel

from enclap.audio.mel import MelFrontEnd
from enclap.convert.published_sizes import DEFAULT_GENERATION
from enclap.data.feature_store import FeatureStore, StoreHeader, fingerprint, join
from enclap.data.recordings import Corpus, open_corpus, share
from enclap.data.synthetic.grammar import all_phrases
from enclap.data.synthetic.scenes import SceneComposer, SceneMix
from enclap.export.folder import export_codec
from enclap.model import EnclapConfig, EnclapForConditionalGeneration
from enclap.model.clap import Clap
from enclap.model.codec import Codec
from enclap.model.conv_clap import ConvClapModel, ConvTower
from enclap.training.collate import CaptionCollator
from enclap.training.dataset import CaptionItems, Perturbation
from enclap.training.mini import clap as clap_stage
from enclap.training.mini import codec as codec_stage
from enclap.training.mini import text as text_stage
from enclap.training.mini.augment import Augmentation, MelBank, draw_view, open_mel_bank
from enclap.training.mini.scene_features import ExportedCodec, SceneShards, embed_scenes, prepare_shard
from enclap.training.recipe import HeldOut, Optimisation, RecipeType, Settings, read_recipe
from enclap.training.tokenizer import SPECIAL_TOKENS, train_tokenizer
from enclap.training.trainer import run_stage
from enclap.types import FloatArray

logger = logging.getLogger(__name__)

CORPUS_RATE = 32_000
"""Samples per second of the decoded recordings: the highest rate they come in."""

FRONT_END = MelFrontEnd(
    rate=CORPUS_RATE,
    length=10 * CORPUS_RATE,
    fft_size=1_024,
    hop=CORPUS_RATE // 50,
    bands=64,
    lowest=50.0,
    highest=14_000.0,
)
HELD_OUT = HeldOut()


class CaptionRecipe(Settings):
    """The captioner: its scenes, its sizes as EnclapConfig names them, and its training.

    scenes: made of recordings that CLAP was trained on. unheard_scenes: made of others, which are shown
    `unheard_weight` times as often, because CLAP knows its own recordings too well. filled_scenes: of both, like the
    windows of a long recording; only `second_phase`, a second round from the first one's average, sees them,
    `filled_weight` times as often as others.
    """

    vocabulary: int = Field(gt=300)
    scenes: int = Field(gt=0)
    unheard_scenes: int = Field(ge=0)
    unheard_weight: float = Field(gt=0)
    filled_scenes: int = Field(gt=0)
    filled_weight: float = Field(gt=0)
    captions: int = Field(default=3, gt=0)
    model: dict[str, Any]
    perturbation: Perturbation = Perturbation()
    second_phase_perturbation: Perturbation = Perturbation()
    optimisation: Optimisation
    second_phase: Optimisation


@dataclass(frozen=True)
class MiniRun:
    """Where the recordings, the recipes and the results lie."""

    recordings: Path
    output: Path
    recipes: Path

    @cached_property
    def corpus(self) -> Corpus:
        """All recordings, decoded."""
        return open_corpus(self.recordings, self.output / "cache", CORPUS_RATE)

    @cached_property
    def mels(self) -> MelBank:
        """All recordings as mel spectrograms."""
        return open_mel_bank(self.corpus, FRONT_END, self.output / "cache")

    @cached_property
    def seen(self) -> list[int]:
        """Numbers of the recordings that CLAP is trained on."""
        return [
            number
            for number, recording in enumerate(self.corpus.recordings)
            if recording.split == "train" and not clap_stage.is_held_out(recording, HELD_OUT)
        ]

    @cached_property
    def held_out(self) -> list[int]:
        """Numbers of the training recordings that CLAP is not trained on."""
        seen = set(self.seen)
        return [
            number
            for number, recording in enumerate(self.corpus.recordings)
            if recording.split == "train" and number not in seen
        ]

    @cached_property
    def unheard(self) -> list[int]:
        """The half of the held-out recordings that the captioner is trained on; the others validate."""
        return [number for number in self.held_out if self._for_captioner(number)]

    @cached_property
    def validation(self) -> list[int]:
        """Numbers of the training recordings that no stage is trained on: settings are chosen on them."""
        return [number for number in self.held_out if not self._for_captioner(number)]

    def _for_captioner(self, number: int) -> bool:
        return share(self.corpus.recordings[number].recording, "captioner") < 0.5

    @cached_property
    def targets(self) -> clap_stage.Targets:
        """Labels and words that CLAP is trained on."""
        return clap_stage.make_targets(self.corpus.recordings, self.seen)

    def recipe(self, kind: type[RecipeType], name: str) -> RecipeType:
        """A stage's recipe."""
        return read_recipe(kind, self.recipes / f"{name}.yaml")


def train_tower(workshop: MiniRun, member: int) -> None:
    """Write tower-`member`/model.safetensors: an audio tower of CLAP with its training heads."""
    recipe = workshop.recipe(clap_stage.ClapRecipe, "clap")
    folder = workshop.output / f"tower-{member}"
    torch.manual_seed(recipe.optimisation.seed + member)
    training = new_tower(workshop, recipe)
    short = MelBank(workshop.mels.mels, workshop.mels.starts, recipe.frames)
    for bank, augmentation, optimisation, output in (
        (short, recipe.augmentation, recipe.optimisation, folder),
        (workshop.mels, recipe.second_phase_augmentation, recipe.second_phase, folder / "second_phase"),
    ):
        own = optimisation.model_copy(update={"seed": optimisation.seed + member})
        draw = clap_stage.make_view_sampler(bank, workshop.targets, choose(workshop), augmentation, own.seed)
        run_stage(training, draw, clap_stage.stack, own, output)
    save_file(training.state_dict(), folder / "model.safetensors")


def new_tower(workshop: MiniRun, recipe: clap_stage.ClapRecipe) -> clap_stage.TowerTraining:
    """A tower with random weights and its training heads."""
    tower = ConvTower(FRONT_END.bands, recipe.channels, recipe.tower_width)
    return clap_stage.TowerTraining(tower, workshop.targets, recipe)


def load_clap(workshop: MiniRun) -> ConvClapModel:
    """CLAP with its trained audio towers and a text tower with random weights."""
    recipe = workshop.recipe(clap_stage.ClapRecipe, "clap")
    clap = clap_stage.build_clap(recipe, make_tokenizer(workshop).get_vocab_size(), FRONT_END.bands)
    for member, tower in enumerate(clap.audio_towers):
        training = new_tower(workshop, recipe)
        training.load_state_dict(load_file(workshop.output / f"tower-{member}" / "model.safetensors"))
        tower.load_state_dict(training.tower.state_dict())
    round_to_float16(clap)
    clap.eval()
    return clap


def choose(workshop: MiniRun) -> NDArray[np.float64]:
    """Cumulative probabilities by which CLAP's recordings are drawn."""
    return clap_stage.sampling(workshop.corpus.recordings, workshop.seen)


def train_codec(workshop: MiniRun) -> None:
    """Write codec/ (config and weights) and codec/report.json: errors and perplexities on held-out recordings."""
    recipe = workshop.recipe(codec_stage.CodecRecipe, "codec")
    folder = workshop.output / "codec"
    corpus = open_corpus(workshop.recordings, workshop.output / "cache", int(recipe.model["sampling_rate"]))
    samples = int(recipe.segment_seconds * corpus.rate)
    chances = clap_stage.sampling(corpus.recordings, workshop.seen)
    torch.manual_seed(recipe.encoder.seed)
    codec = codec_stage.build_codec(recipe)
    first = codec_stage.CodecTraining(codec, quantised=False)
    draw = codec_stage.make_segment_sampler(corpus, chances, samples, recipe.encoder.seed)
    run_stage(first, draw, codec_stage.stack_segments, recipe.encoder, folder / "encoder")
    codec_stage.standardise_latents(first, _latents(codec, draw, recipe.clustering_items))
    left = codec_stage.fit_codebooks(codec, _latents(codec, draw, recipe.clustering_items))
    logger.info("variance left after each codebook: %s", [round(value, 3) for value in left])
    second = codec_stage.CodecTraining(codec, quantised=True)
    second.mel_head.load_state_dict(first.mel_head.state_dict())
    draw = codec_stage.make_segment_sampler(corpus, chances, samples, recipe.quantised.seed)
    run_stage(second, draw, codec_stage.stack_segments, recipe.quantised, folder / "quantised")
    round_to_float16(codec)
    codec.save_pretrained(folder)
    export_codec(Codec(codec), folder / "onnx")
    _codec_preprocessor(folder, corpus.rate)
    chances = clap_stage.sampling(corpus.recordings, workshop.held_out)
    unheard = codec_stage.make_segment_sampler(corpus, chances, samples, seed=0)
    report = codec_stage.codec_report(second, torch.from_numpy(np.stack([unheard(n) for n in range(96)])))
    (folder / "report.json").write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")


@torch.no_grad()
def _latents(codec: EncodecModel, draw: Callable[[int], FloatArray], items: int) -> Tensor:
    """Latent vectors [N, D] of `items` drawn segments."""
    codec.eval()
    parts = [codec.encoder(torch.from_numpy(draw(number))[None, None]) for number in range(items)]
    return torch.cat([part.squeeze(0).T for part in parts])


def _codec_preprocessor(folder: Path, rate: int) -> None:
    """Write the codec's preprocessor_config.json with the names of transformers' EncodecFeatureExtractor."""
    table = {"feature_extractor_type": "EncodecFeatureExtractor", "feature_size": 1, "sampling_rate": rate}
    (folder / "preprocessor_config.json").write_text(json.dumps(table, indent=2) + "\n", encoding="utf-8")


def round_to_float16(model: nn.Module) -> None:
    """Round all weights to what float16 holds: they ship in that size, and are to be what later stages saw."""
    with torch.no_grad():
        for value in (*model.parameters(), *model.buffers()):
            if value.is_floating_point():
                value.copy_(value.half().float())


def make_tokenizer(workshop: MiniRun) -> Tokenizer:
    """The tokenizer of captions and of CLAP's texts, trained on the grammar's phrases."""
    return train_tokenizer(all_phrases(), workshop.recipe(CaptionRecipe, "caption").vocabulary)


def train_text(workshop: MiniRun) -> None:
    """Write clap/: the whole of CLAP as it ships, with its tokenizer and front end."""
    recipe = workshop.recipe(text_stage.TextRecipe, "text")
    seed = recipe.optimisation.seed
    tokenizer = make_tokenizer(workshop)
    torch.manual_seed(seed)
    clap = load_clap(workshop)
    embeddings, labels = _views(workshop, clap, recipe.views, seed)
    longest = clap.text_tower.config.max_position_embeddings - 2
    pad_id = SPECIAL_TOKENS.index("<pad>")
    run_stage(
        text_stage.TextContrast(clap),
        text_stage.make_pair_sampler(embeddings, labels, tokenizer, seed),
        lambda items: text_stage.stack_pairs(items, pad_id, longest),
        recipe.optimisation,
        workshop.output / "text",
    )
    round_to_float16(clap)
    folder = workshop.output / "clap"
    clap.save_pretrained(folder)
    tokenizer.save(str(folder / "tokenizer.json"))
    FRONT_END.save(folder)


@torch.inference_mode()
def _views(workshop: MiniRun, clap: ConvClapModel, count: int, seed: int) -> tuple[FloatArray, list[str]]:
    """Embeddings [N, E] of single views of the recordings that CLAP saw, and their labels."""
    from enclap.model.clap import embed_crops

    single = Augmentation(mixture=0.0, sequence=0.0)
    chances = choose(workshop)
    views = [
        draw_view(workshop.mels, chances, single, np.random.default_rng((seed, number))) for number in range(count)
    ]
    mels = [torch.from_numpy(view.mel)[None] for view in views]
    parts = [embed_crops(clap, torch.stack(mels[start : start + 25])) for start in range(0, count, 25)]
    names = [workshop.corpus.recordings[view.recordings[0]].label for view in views]
    embeddings: FloatArray = torch.cat(parts).numpy()
    return embeddings, names


FILLED = SceneMix(order=0.45, together=0.08, background=0.12, three=0.07, filled=True)
"""Scenes like the windows of a long recording, half of them of several sounds in order."""


def scene_sets(workshop: MiniRun) -> list[tuple[SceneShards, SceneComposer]]:
    """The captioner's three sets of scenes: of recordings that CLAP saw, of others, and filled ones of both."""
    recipe = workshop.recipe(CaptionRecipe, "caption")
    seed = recipe.optimisation.seed
    known = set(workshop.targets.label_names)
    sets = []
    for name, count, numbers, mix in (
        ("heard", recipe.scenes, workshop.seen, SceneMix()),
        ("unheard", recipe.unheard_scenes, workshop.unheard, SceneMix()),
        ("filled", recipe.filled_scenes, [*workshop.seen, *workshop.unheard], FILLED),
    ):
        folder = workshop.output / "scenes" / name
        folder.mkdir(parents=True, exist_ok=True)
        composer = SceneComposer(workshop.corpus, dict.fromkeys(numbers, 1.0), mix, seed, known)
        sets.append((SceneShards(folder, count), composer))
    return sets


def prepare_scenes(workshop: MiniRun, part: int = 0, parts: int = 1) -> None:
    """Write scenes/: codes, spectrograms and captions of every `parts`-th shard from `part` on."""
    codec = ExportedCodec(workshop.output / "codec")
    captions = workshop.recipe(CaptionRecipe, "caption").captions
    for shards, composer in scene_sets(workshop):
        for shard in range(part, shards.count, parts):
            prepare_shard(shards, shard, composer, codec, FRONT_END, captions)


def extract_features(workshop: MiniRun) -> list[FeatureStore]:
    """Write features/: the scenes with CLAP's embeddings; returns the stores: heard, unheard, filled."""
    codec = Codec.from_folder(workshop.output / "codec")
    clap = Clap.from_folder(workshop.output / "clap")
    header = StoreHeader(codec.codebooks, codec.entries, clap.dim, codec.rate / codec.hop, fingerprint(workshop.output))
    return [
        embed_scenes(shards, workshop.output / "features" / shards.folder.name, clap, header)
        for shards, _ in scene_sets(workshop)
    ]


def train_captioner(workshop: MiniRun) -> None:
    """Write caption/: the captioner with its tokenizer and generation settings."""
    recipe = workshop.recipe(CaptionRecipe, "caption")
    stores = extract_features(workshop)
    header = stores[0].header
    tokenizer = make_tokenizer(workshop)
    torch.manual_seed(recipe.optimisation.seed)
    model = new_captioner(recipe, tokenizer, header)
    collate = CaptionCollator(header.entries, model.config.max_frames)
    weights = [
        np.full(len(store), weight)
        for store, weight in zip(stores, (1.0, recipe.unheard_weight, recipe.filled_weight), strict=True)
    ]
    for optimisation, perturbation, count, output in (
        (recipe.optimisation, recipe.perturbation, 2, workshop.output / "training"),
        (recipe.second_phase, recipe.second_phase_perturbation, 3, workshop.output / "training" / "second_phase"),
    ):
        items = CaptionItems(
            join(stores[:count]),
            np.concatenate(weights[:count]),
            tokenizer,
            header.entries,
            perturbation,
            batch_size=optimisation.batch_size,
            seed=optimisation.seed,
        )
        run_stage(model, items, collate, optimisation, output)
    round_to_float16(model)
    folder = workshop.output / "caption"
    model.save_pretrained(folder)
    tokenizer.save(str(folder / "tokenizer.json"))
    (folder / "generation_config.json").write_text(json.dumps(DEFAULT_GENERATION, indent=2) + "\n", encoding="utf-8")


def new_captioner(recipe: CaptionRecipe, tokenizer: Tokenizer, header: StoreHeader) -> EnclapForConditionalGeneration:
    """A captioner with random weights that fits the features."""
    config = EnclapConfig(
        **recipe.model,
        vocab_size=tokenizer.get_vocab_size(),
        codebooks=header.codebooks,
        codebook_entries=header.entries,
        clap_dim=header.embedding,
        frame_rate=header.frame_rate,
    )
    return EnclapForConditionalGeneration(config)
