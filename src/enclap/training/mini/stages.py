"""The stages of mini's training: each reads its recipe, trains or extracts, and writes its own folder.

A stage that was cut off goes on from its last checkpoint or shard.
"""

from __future__ import annotations

import json
import logging
import shutil
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer
from torch import Tensor
from transformers import EncodecModel

from enclap.data.attribution import write_attribution
from enclap.data.feature_store import FeatureStore, StoreHeader, fingerprint
from enclap.data.synthetic.grammar import all_phrases
from enclap.export.folder import export_codec, export_folder, round_weights_to_float16
from enclap.model.clap import Clap
from enclap.model.codec import Codec
from enclap.model.conv_clap import ConvClapModel, ConvTower
from enclap.training import captioning
from enclap.training.mini import clap, codec, text
from enclap.training.mini.augment import Augmentation, draw_view
from enclap.training.mini.calibrate import calibrate
from enclap.training.mini.context import FRONT_END, MiniRun
from enclap.training.mini.distillation import DistillationRecipe, distil
from enclap.training.mini.opinions import write_opinions
from enclap.training.mini.rehearsal import write_rehearsal
from enclap.training.mini.remember import remember
from enclap.training.mini.scenes import CaptionRecipe, ExportedCodec, embed_scenes, prepare_shard, scene_sets
from enclap.training.mini.start import widened_captioner
from enclap.training.tokenizer import SPECIAL_TOKENS, train_tokenizer
from enclap.training.trainer import train_model
from enclap.training.weights import round_to_float16
from enclap.types import FloatArray

logger = logging.getLogger(__name__)

REPORTED_SEGMENTS = 96
"""Held-out segments on which the codec's errors are measured."""


@dataclass(frozen=True)
class MiniStage:
    """A stage whose work is a function of the run."""

    name: str
    needs: tuple[str, ...]
    work: Callable[[MiniRun], None]

    def run(self, context: MiniRun, /) -> None:
        """Do the work."""
        self.work(context)


def decode_recordings(run: MiniRun) -> None:
    """Write cache/: the decoded recordings and their mel spectrograms, once for all stages beside each other."""
    logger.info("%d recordings, %d mel frames", len(run.corpus), len(run.mels.mels))


def train_projection(run: MiniRun) -> None:
    """Write projection/model.safetensors: the audio tower with its projection, trained to tell labels apart."""
    recipe = run.recipe(clap.ClapRecipe, "clap")
    folder = run.output / "projection"
    folder.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(recipe.optimisation.seed)
    tower = new_tower(run)
    tower.load_state_dict(load_file(run.output / "distillation" / "model.safetensors"))
    sampler = clap.ViewSampler(
        run.mels, drawing_weights(run), recipe.augmentation, run.targets, recipe.optimisation.seed
    )
    heads = clap.TowerTraining(tower, run.targets, recipe)
    train_model(heads, clap.map_views(tower, sampler, recipe.views), clap.stack, recipe.optimisation, folder)
    short = replace(run.mels, frames=recipe.frames)
    sampler = replace(sampler, bank=short, seed=recipe.fine_tuning.seed)
    train_model(clap.FineTuning(tower, heads), sampler, clap.stack, recipe.fine_tuning, folder / "fine-tuning")
    save_file(tower.state_dict(), folder / "model.safetensors")


def new_tower(run: MiniRun) -> ConvTower:
    """An audio tower with random weights, of the sizes that distillation gives it."""
    sizes = run.recipe(DistillationRecipe, "distillation")
    return ConvTower(FRONT_END.bands, sizes.channels, sizes.tower_width)


def load_clap(run: MiniRun) -> ConvClapModel:
    """CLAP with its trained audio tower and a text tower with random weights."""
    recipe, sizes = run.recipe(clap.ClapRecipe, "clap"), run.recipe(DistillationRecipe, "distillation")
    model = clap.build_clap(recipe, sizes, make_tokenizer(run).get_vocab_size(), FRONT_END.bands)
    model.audio_tower.load_state_dict(load_file(run.output / "projection" / "model.safetensors"))
    round_to_float16(model)
    model.eval()
    return model


def drawing_weights(run: MiniRun) -> NDArray[np.float64]:
    """Cumulative weights by which the recordings that CLAP sees are drawn."""
    return clap.recording_weights(run.corpus.recordings, run.seen)


def train_codec(run: MiniRun) -> None:
    """Write codec/ (config and weights) and codec/report.json: errors and perplexities on held-out recordings."""
    recipe = run.recipe(codec.CodecRecipe, "codec")
    folder = run.output / "codec"
    corpus = run.corpus_at(int(recipe.model["sampling_rate"]))
    samples, weights = int(recipe.segment_seconds * corpus.rate), drawing_weights(run)
    torch.manual_seed(recipe.encoder.seed)
    model = codec.build_codec(recipe)
    first = codec.CodecTraining(model, quantised=False)
    draw = codec.make_segment_sampler(corpus, weights, samples, recipe.encoder.seed)
    train_model(first, draw, codec.stack_segments, recipe.encoder, folder / "encoder")
    codec.standardise_latents(first, _latents(model, draw, recipe.clustering_items))
    left = codec.fit_codebooks(model, _latents(model, draw, recipe.clustering_items))
    logger.info("variance left after each codebook: %s", [round(value, 3) for value in left])
    second = codec.CodecTraining(model, quantised=True)
    second.mel_head.load_state_dict(first.mel_head.state_dict())
    draw = codec.make_segment_sampler(corpus, weights, samples, recipe.quantised.seed)
    train_model(second, draw, codec.stack_segments, recipe.quantised, folder / "quantised")
    round_to_float16(model)
    model.save_pretrained(folder)
    export_codec(Codec(model), folder / "onnx")
    # The names of transformers' EncodecFeatureExtractor.
    front_end = {"feature_extractor_type": "EncodecFeatureExtractor", "feature_size": 1, "sampling_rate": corpus.rate}
    (folder / "preprocessor_config.json").write_text(json.dumps(front_end, indent=2) + "\n", encoding="utf-8")
    held_out = clap.recording_weights(corpus.recordings, run.held_out)
    draw = codec.make_segment_sampler(corpus, held_out, samples, seed=0)
    segments = torch.from_numpy(np.stack([draw(number) for number in range(REPORTED_SEGMENTS)]))
    report = codec.codec_report(second, segments)
    (folder / "report.json").write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")


@torch.no_grad()
def _latents(model: EncodecModel, draw: Callable[[int], FloatArray], items: int) -> Tensor:
    """Latent vectors [N, D] of `items` drawn segments."""
    model.eval()
    parts = [model.encoder(torch.from_numpy(draw(number))[None, None]) for number in range(items)]
    return torch.cat([part.squeeze(0).T for part in parts])


def make_tokenizer(run: MiniRun) -> Tokenizer:
    """The tokenizer of captions and of CLAP's texts, trained on the grammar's phrases."""
    return train_tokenizer(all_phrases(), run.recipe(CaptionRecipe, "caption").vocabulary)


def train_text(run: MiniRun) -> None:
    """Write clap/: the whole of CLAP as it ships, with its tokenizer and front end."""
    recipe = run.recipe(text.TextRecipe, "text")
    seed = recipe.optimisation.seed
    tokenizer = make_tokenizer(run)
    torch.manual_seed(seed)
    model = load_clap(run)
    embeddings, labels = embed_views(run, model, recipe.views, seed)
    longest = model.text_tower.config.max_position_embeddings - 2
    draw = text.make_pair_sampler(embeddings, labels, tokenizer, seed)
    collate = partial(text.stack_pairs, pad_id=SPECIAL_TOKENS.index("<pad>"), longest=longest)
    train_model(text.TextContrast(model), draw, collate, recipe.optimisation, run.output / "text")
    round_to_float16(model)
    folder = run.output / "clap"
    model.save_pretrained(folder)
    tokenizer.save(str(folder / "tokenizer.json"))
    FRONT_END.save(folder)


@torch.inference_mode()
def embed_views(run: MiniRun, model: ConvClapModel, count: int, seed: int) -> tuple[FloatArray, list[str]]:
    """Embeddings [N, E] of views of single recordings that CLAP saw, and their labels."""
    single, weights = Augmentation(mixture=0.0, sequence=0.0), drawing_weights(run)
    views = [draw_view(run.mels, weights, single, np.random.default_rng((seed, number))) for number in range(count)]
    mels = [torch.from_numpy(view.mel)[None] for view in views]
    parts = [
        model.get_audio_features(torch.stack(mels[start : start + 25])).pooler_output for start in range(0, count, 25)
    ]
    labels = [run.corpus.recordings[view.recordings[0]].label for view in views]
    embeddings: FloatArray = torch.cat(parts).numpy()
    return embeddings, labels


def prepare_scenes(run: MiniRun) -> None:
    """Write scenes/: codes, spectrograms and captions of all composed scenes."""
    exported = ExportedCodec(run.output / "codec")
    for scenes in scene_sets(run):
        for shard in range(scenes.shards):
            prepare_shard(scenes, shard, exported, FRONT_END)


def feature_header(run: MiniRun) -> StoreHeader:
    """What the stores of the captioner's features say of the codec and CLAP that made them."""
    codec_model, clap_model = Codec.from_folder(run.output / "codec"), Clap.from_folder(run.output / "clap")
    rate = codec_model.rate / codec_model.hop
    return StoreHeader(codec_model.codebooks, codec_model.entries, clap_model.dim, rate, fingerprint(run.output))


def rehearse(run: MiniRun) -> None:
    """Write rehearsal/: what the captioner learns before it hears codes; nothing where the recipe has no rehearsal."""
    recipe = run.recipe(CaptionRecipe, "caption")
    if recipe.rehearsal is None:
        return
    write_rehearsal(run, recipe.rehearsal, Clap.from_folder(run.output / "clap"), feature_header(run), recipe.captions)


def extract_features(run: MiniRun) -> list[FeatureStore]:
    """Write features/: the scenes with CLAP's embeddings; returns the stores of `scene_sets`, in their order."""
    clap_model, header = Clap.from_folder(run.output / "clap"), feature_header(run)
    return [
        embed_scenes(scenes, run.output / "features" / scenes.name, clap_model, header) for scenes in scene_sets(run)
    ]


def train_captioner(run: MiniRun) -> None:
    """Write caption/: the captioner with its tokenizer and generation settings."""
    recipe = run.recipe(CaptionRecipe, "caption")
    stores = extract_features(run)
    tokenizer = make_tokenizer(run)
    torch.manual_seed(recipe.optimisation.seed)
    if recipe.start is None:
        model = captioning.new_captioner(recipe.model, tokenizer, stores[0].header)
    else:
        model = widened_captioner(recipe.start, int(recipe.model["clap_slots"]))
    weights = [
        np.full(len(store), weight)
        for store, weight in zip(stores, (1.0, recipe.unseen_weight, recipe.filled_weight), strict=True)
    ]
    # Scenes that are described vaguely teach what families are; in the end they would make the captioner too vague.
    labels = set(run.targets.label_names)
    named = [
        weight * np.asarray([labels.issuperset(clip.labels) for clip in store])
        for weight, store in zip(weights, stores, strict=True)
    ]
    features = [run.output / "features" / scenes.name for scenes in scene_sets(run)]
    phases = []
    if (rehearsal := recipe.rehearsal) is not None:
        clips = FeatureStore(run.output / "rehearsal" / "features")
        phases = [captioning.Phase(clips, np.ones(len(clips)), rehearsal.perturbation, rehearsal.optimisation)]
    phases += [
        captioning.Phase(FeatureStore(*features[: len(drawn)]), np.concatenate(drawn), perturbation, optimisation)
        for drawn, perturbation, optimisation in (
            (weights[:2], recipe.perturbation, recipe.optimisation),
            (named, recipe.second_phase_perturbation, recipe.second_phase),
            (named, recipe.second_phase_perturbation, recipe.third_phase),
        )
    ]
    captioning.train_captioner(model, tokenizer, phases, run.output / "training", run.output / "caption")


def assemble(run: MiniRun) -> None:
    """Write model/: the stages' results in one folder, weights in float16, graphs exported, sources named."""
    shutil.rmtree(run.model, ignore_errors=True)
    shutil.copytree(run.output / "caption", run.model)
    for part in ("codec", "clap"):
        (run.model / part).mkdir()
        for path in sorted((run.output / part).iterdir()):
            if path.suffix in (".json", ".safetensors") and path.name != "report.json":
                shutil.copy(path, run.model / part / path.name)
    round_weights_to_float16(run.model)
    export_folder(run.model)
    write_attribution(run.used, run.model)


STAGES = (
    MiniStage("recordings", (), decode_recordings),
    MiniStage("opinions", ("recordings",), write_opinions),
    MiniStage("codec", ("recordings",), train_codec),
    MiniStage("distillation", ("recordings",), distil),
    MiniStage("projection", ("distillation",), train_projection),
    MiniStage("scenes", ("codec", "opinions"), prepare_scenes),
    MiniStage("text", ("projection",), train_text),
    MiniStage("rehearsal", ("codec", "text"), rehearse),
    MiniStage("caption", ("scenes", "rehearsal"), train_captioner),
    MiniStage("assemble", ("codec", "text", "caption"), assemble),
    MiniStage("memory", ("assemble",), remember),
    MiniStage("calibrate", ("memory",), calibrate),
)
"""All stages; `enclap.training.stage` puts them in order."""
