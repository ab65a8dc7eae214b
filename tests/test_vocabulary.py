"""Vocabularies extended for captions of another language, and what fine-tuning decides before it trains."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from tokenizers import Tokenizer

from enclap.data.feature_store import FeatureStore
from enclap.errors import DataError, UsageError
from enclap.hub.resolve import find_model
from enclap.model.loading import load_caption_model
from enclap.training.finetune import divided, recipe_for, with_fitting_limits, with_fitting_vocabulary
from enclap.training.start import Start, require_captions
from enclap.training.vocabulary import (
    AIM,
    extend_model,
    extended_tokenizer,
    learn_merges,
    merged,
    pieces_per_word,
    repeats_within,
)
from run_program import made_up_clips, write_features

GERMAN = [
    "Eine Glocke läutet, und danach hört man, wie ein Gerät piept.",
    "Ein Gerät piept, und danach hört man, wie Regen auf das Dach prasselt.",
    "Regen prasselt auf das Dach, und danach hört man, wie ein Vogel zwitschert.",
    "Schritte hallen durch den Flur, und danach hört man, wie eine Glocke läutet.",
]
ENGLISH = ["A dog barks.", "Rain falls, and then a bell rings."]


@pytest.fixture(scope="module")
def start() -> Start:
    folder = find_model("mini")
    generation = json.loads((folder / "generation_config.json").read_text())
    return Start(load_caption_model(folder), Tokenizer.from_file(str(folder / "tokenizer.json")), generation)


def test_merging_takes_pairs_from_the_left() -> None:
    assert merged(["a", "a", "a", "b"], ("a", "a")) == ["aa", "a", "b"]
    assert merged(["b", "a", "b", "a"], ("b", "a")) == ["ba", "ba"]


def test_an_extended_tokenizer_keeps_what_it_knew_and_gives_every_text_back(start: Start) -> None:
    old = start.tokenizer
    new = extended_tokenizer(old, learn_merges(old, GERMAN))
    known = old.get_vocab()
    assert {token: number for token, number in new.get_vocab().items() if token in known} == known
    assert sorted(new.get_vocab().values()) == list(range(new.get_vocab_size()))
    for text in [*GERMAN, *ENGLISH, "Etwas ganz anderes: 雨"]:
        assert new.decode(new.encode(text).ids) == old.decode(old.encode(text).ids) == text
    assert pieces_per_word(old, GERMAN) > 3.0 > pieces_per_word(new, GERMAN)
    assert pieces_per_word(new, GERMAN * 2) <= pieces_per_word(old, GERMAN)
    often = extended_tokenizer(old, learn_merges(old, GERMAN * 3))
    assert pieces_per_word(often, GERMAN) <= AIM + 0.2


def test_the_extended_model_says_of_known_tokens_what_it_said(start: Start) -> None:
    new = extended_tokenizer(start.tokenizer, learn_merges(start.tokenizer, GERMAN))
    model = load_caption_model(find_model("mini"))
    codes = torch.randint(0, 256, (1, 20, 8))
    inputs = {"codes": codes, "clap_embedding": torch.nn.functional.normalize(torch.ones(1, model.config.clap_dim))}
    labels = torch.tensor([start.tokenizer.encode(ENGLISH[0]).ids])
    before = model(**inputs, labels=labels).logits
    extend_model(model, start.tokenizer, new)
    after = model(**inputs, labels=labels).logits
    assert after.shape[-1] == new.get_vocab_size() == model.config.vocab_size
    torch.testing.assert_close(after[..., : before.shape[-1]], before, rtol=1e-5, atol=1e-5)
    table = model.get_input_embeddings().weight
    assert model.lm_head.weight is table and table.isfinite().all()
    token = next(token for token in new.get_vocab() if token not in start.tokenizer.get_vocab())
    parts = [item.id for item in start.tokenizer.model.tokenize(token)]
    torch.testing.assert_close(table[new.token_to_id(token)], table[parts].mean(dim=0))


def test_a_vocabulary_that_fits_is_left_alone(start: Start) -> None:
    found, note = with_fitting_vocabulary(start, ENGLISH)
    assert found is start and note.startswith("the vocabulary fits")


def test_captions_can_be_as_long_as_those_that_are_learnt(start: Start) -> None:
    long = " ".join(["Regen prasselt auf das Dach"] * 4) + "."
    longest = require_captions(start, [[long]])
    generation = with_fitting_limits(start, [long], longest)
    assert generation["no_repeat_ngram_size"] == 0 and int(str(generation["max_length"])) > longest
    short = with_fitting_limits(start, ENGLISH, 12)
    assert short["no_repeat_ngram_size"] == 3 and short["max_length"] == start.generation["max_length"]
    assert repeats_within([1, 2, 3, 1, 2, 3], 3) and not repeats_within([1, 2, 3, 1, 2], 3)


def test_a_caption_that_would_be_cut_is_refused(start: Start) -> None:
    positions = start.model.config.max_position_embeddings
    with pytest.raises(UsageError, match=rf"a caption of \d+ tokens, the model holds {positions}; shorten it: Wort"):
        require_captions(start, [["A dog barks."], ["Wort " * 400]])


@pytest.mark.parametrize(("clips", "held"), [(99, 0), (100, 10), (150, 15)])
def test_of_few_clips_nothing_is_held_out(tiny_model: Path, tmp_path: Path, clips: int, held: int) -> None:
    store = FeatureStore(write_features(tmp_path, tiny_model, made_up_clips(clips)))
    rows, validation, notes = divided(store)
    assert (len(validation), len(rows)) == (held, clips - held) and not set(rows) & set(validation)
    assert ("nothing was held out" in notes[0]) == (held == 0)
    again = divided(FeatureStore(tmp_path))
    assert again == (rows, validation, notes)


def test_a_split_of_the_table_is_kept(tiny_model: Path, tmp_path: Path) -> None:
    clips = made_up_clips(10, validation=3)
    clips[0] = replace(clips[0], split="test")
    rows, validation, _ = divided(FeatureStore(write_features(tmp_path / "a", tiny_model, clips)))
    assert (rows, validation) == (list(range(1, 7)), [7, 8, 9])
    only = write_features(tmp_path / "b", tiny_model, made_up_clips(3, validation=3))
    with pytest.raises(DataError, match="no clips to train on"):
        divided(FeatureStore(only))


def test_many_clips_get_fewer_epochs_and_large_models_the_papers_rate() -> None:
    mini = find_model("mini")
    assert recipe_for(mini, 32, ()).epochs == 60 and recipe_for(mini, 10_000, ()).epochs == 6
    assert recipe_for(mini, 10_000, ("epochs=3",)).epochs == 3


def test_the_recipe_of_a_published_size(tiny_model: Path, tmp_path: Path) -> None:
    table = json.loads((tiny_model / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps({**table, "d_model": 768}))
    recipe = recipe_for(tmp_path, 32, ())
    assert (recipe.optimisation.learning_rate, recipe.epochs, recipe.optimisation.time_scale) == (2e-5, 15, 1000)
