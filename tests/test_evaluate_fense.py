"""FENSE and SPIDEr-FL: their arithmetic against published columns, their models against slow twins."""

from __future__ import annotations

import csv
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import AutoModel, AutoTokenizer, BertConfig, BertModel, BertTokenizer

from cli import Run
from enclap.convert.fluency import convert_fluency
from enclap.errors import EnvironmentFault, ModelError
from enclap.evaluation.captioning import fense
from enclap.evaluation.captioning.fense import FenseModels, error_probabilities, penalised, similarities
from enclap.evaluation.captioning.rows import Row
from enclap.evaluation.captioning.scores import mean_scores
from enclap.evaluation.captioning.sentence_models import MEAN, FluencyDetector, SentenceModel

SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
WORDS = [*SPECIAL, "a", "dog", "barks", "and", "rain", "falls", "on", "the", "roof", "loudly"]
TEXTS = ["A dog barks.", "rain falls on the roof, loudly", "a dog", "A dog barks and rain falls and", "?"]
CLASSES = 6


def tiny_bert() -> BertModel:
    torch.manual_seed(0)
    sizes = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32}
    return BertModel(BertConfig(vocab_size=len(WORDS), max_position_embeddings=64, initializer_range=0.5, **sizes))


def bert_folder(folder: Path) -> Path:
    tiny_bert().save_pretrained(folder)
    (folder / "vocab.txt").write_text("\n".join(WORDS) + "\n")
    BertTokenizer(vocab=str(folder / "vocab.txt"), do_lower_case=True).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def sentence_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder as sentence-transformers writes it."""
    folder = bert_folder(tmp_path_factory.mktemp("sentences"))
    kinds = ["sentence_transformers.models.Transformer", "sentence_transformers.models.Pooling"]
    (folder / "modules.json").write_text(json.dumps([{"idx": n, "type": kind} for n, kind in enumerate(kinds)]))
    (folder / "1_Pooling").mkdir()
    pooling = {"word_embedding_dimension": 16, "pooling_mode_cls_token": False, MEAN: True}
    (folder / "1_Pooling" / "config.json").write_text(json.dumps(pooling))
    (folder / "sentence_bert_config.json").write_text(json.dumps({"max_seq_length": 6}))
    return folder


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint laid out as FENSE's release, of a BERT that is small."""
    folder = tmp_path_factory.mktemp("fense")
    torch.manual_seed(1)
    state: dict[str, Tensor] = {f"encoder.{name}": tensor for name, tensor in tiny_bert().state_dict().items()}
    state |= {"clf.weight": torch.randn(CLASSES, 16), "clf.bias": torch.randn(CLASSES)}
    state["encoder.embeddings.position_ids"] = torch.arange(64)[None]
    bert_folder(folder / "bert")
    content = {"model_type": str(folder / "bert"), "num_classes": CLASSES, "state_dict": state}
    torch.save(content, folder / "echecker.ckpt")
    return folder / "echecker.ckpt"


@pytest.fixture(scope="module")
def fluency_folder(checkpoint: Path) -> Path:
    folder = checkpoint.with_name("converted")
    convert_fluency(checkpoint, folder)
    return folder


@pytest.mark.shared
@pytest.mark.parametrize("name", ["clotho_eval", "audiocaps_test", "clotho_eval_300", "audiocaps_test_300"])
def test_the_arithmetic_is_the_published_one(shared: Path, name: str) -> None:
    folder = shared / "reference" / "metrics"
    with (folder / f"{name}.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    columns = {
        key: np.array([float(row[key]) for row in rows])
        for key in rows[0]
        if key not in ("fname", "candidate") and not key.startswith("reference")
    }
    corpus = json.loads((folder / "corpus_scores.json").read_text())[name]
    found = {item.name: item for item in fense.fense_scores(columns["sbert_sim"], columns["fer_error_prob"])}
    found["spider_fl"] = fense.spider_fl(mean_scores("spider", columns["spider"]), found["fluency_error"])
    names = {"sbert_sim": "sbert_sim", "fluency_error": "fer", "fense": "fense", "spider_fl": "spider_fl"}
    assert set(found) == set(names) == set(fense.METRICS)
    for metric, published in names.items():
        np.testing.assert_allclose(found[metric].clips, columns[published], atol=1e-9, err_msg=metric)
        assert found[metric].value == pytest.approx(corpus[published], abs=1e-9)


def test_the_penalty_is_for_probabilities_above_nine_tenths_alone() -> None:
    scores = fense.fense_scores(np.array([0.5, 0.5, 0.5]), np.array([0.9, 0.9001, 0.0]))
    assert scores[-1].name == "fense"
    np.testing.assert_allclose(scores[-1].clips, [0.5, 0.05, 0.5])
    np.testing.assert_allclose(penalised(np.array([-0.2]), np.array([1.0])), [-0.02])


def states_of(folder: Path, text: str, longest: int) -> Tensor:
    """The states [S, D] of one text alone, without padding."""
    batch = AutoTokenizer.from_pretrained(folder)(text, return_tensors="pt", truncation=True, max_length=longest)
    with torch.inference_mode():
        states: Tensor = AutoModel.from_pretrained(folder).eval()(**batch).last_hidden_state[0]
    return states


def test_embeddings_are_means_of_tokens_whatever_stands_beside(sentence_folder: Path) -> None:
    found = SentenceModel(sentence_folder).embed(TEXTS)
    for text, row in zip(TEXTS, found, strict=True):
        mean = states_of(sentence_folder, text, 6).mean(0).numpy()
        np.testing.assert_allclose(row, mean / np.linalg.norm(mean), atol=1e-6)


def test_similarity_is_the_mean_cosine_with_the_references(sentence_folder: Path) -> None:
    embed = SentenceModel(sentence_folder).embed
    rows = [Row("a", TEXTS[:2], [TEXTS[2:], TEXTS[:1]], range(2)), Row("b", TEXTS[:1], [TEXTS[:1]], [0])]
    first, second = similarities(rows, embed)
    one, *others = (embed([text])[0] for text in (TEXTS[0], *TEXTS[2:]))
    assert first[0] == pytest.approx(np.mean([one @ other for other in others]), abs=1e-6)
    assert second[0] == pytest.approx(1.0)


def test_the_detector_is_fenses_classifier(checkpoint: Path, fluency_folder: Path) -> None:
    found = FluencyDetector(fluency_folder).probabilities(TEXTS)
    state: dict[str, Any] = torch.load(checkpoint)["state_dict"]
    for text, probability in zip(TEXTS, found, strict=True):
        bare = "".join(letter for letter in text.lower() if letter.isalnum() or letter == " ")
        first = states_of(checkpoint.with_name("bert"), bare, 64)[0]
        logits = first @ state["clf.weight"].T + state["clf.bias"]
        assert probability == pytest.approx(float(torch.sigmoid(logits)[-1]), abs=1e-6)
    rows = [Row("a", TEXTS[:3], [()] * 3, range(3)), Row("b", TEXTS[1:], [()] * 4, range(4))]
    first, second = error_probabilities(rows, FluencyDetector(fluency_folder).probabilities)
    np.testing.assert_allclose(np.concatenate([first[:1], second]), found, atol=1e-6)


def test_what_cannot_be_used_is_named(
    sentence_folder: Path, fluency_folder: Path, checkpoint: Path, tmp_path: Path
) -> None:
    with pytest.raises(EnvironmentFault, match="give --sentence-model sentence-transformers/paraphrase-TinyBERT-L6-v2"):
        FenseModels().sentence_model()
    with pytest.raises(EnvironmentFault, match="give --fluency-model and a folder that `enclap metrics convert`"):
        FenseModels().fluency_detector()
    with pytest.raises(ModelError, match="no such folder, and no name of a repository"):
        FenseModels(sentences="no/such/folder").sentence_model()
    with pytest.raises(ModelError, match="not a model that can be read"):
        SentenceModel(fluency_folder)
    with pytest.raises(ModelError, match="make the folder from FENSE's checkpoint with `enclap metrics convert`"):
        FluencyDetector(sentence_folder)
    torch.save({"state_dict": {"weight": torch.zeros(1)}}, tmp_path / "other.ckpt")
    with pytest.raises(ModelError, match="not a checkpoint of FENSE's"):
        convert_fluency(tmp_path / "other.ckpt", tmp_path / "out")
    content = torch.load(checkpoint)
    del content["state_dict"]["encoder.embeddings.word_embeddings.weight"]
    torch.save(content, tmp_path / "half.ckpt")
    with pytest.raises(ModelError, match="does not fit"):
        convert_fluency(tmp_path / "half.ckpt", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_other_ways_to_pool_are_refused(sentence_folder: Path, tmp_path: Path) -> None:
    (tmp_path / "1_Pooling").mkdir()
    (tmp_path / "modules.json").write_bytes((sentence_folder / "modules.json").read_bytes())
    (tmp_path / "1_Pooling" / "config.json").write_text(json.dumps({MEAN: False, "pooling_mode_cls_token": True}))
    with pytest.raises(ModelError, match="another way than by the mean"):
        SentenceModel(tmp_path)


def test_weights_that_are_missing_are_not_made_up(sentence_folder: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(sentence_folder, tmp_path / "half"))
    tensors = load_file(folder / "model.safetensors")
    del tensors["encoder.layer.1.output.dense.weight"]
    save_file(tensors, folder / "model.safetensors", {"format": "pt"})
    with pytest.raises(ModelError, match=r"weights are missing, encoder.layer.1.output.dense.weight first"):
        SentenceModel(folder)


@pytest.mark.slow
def test_the_command_computes_fense_with_both_models_and_names_what_is_missing(
    enclap: Run, tiny_model: Path, sentence_folder: Path, checkpoint: Path, tmp_path: Path
) -> None:
    done = enclap("metrics", "convert", checkpoint, "-o", "fluency")
    assert done.returncode == 0, done.stderr
    (tmp_path / "p.csv").write_text("path,caption\na,A dog barks.\nb,rain falls on\n")
    (tmp_path / "r.csv").write_text("path,caption_1,caption_2\na,a dog,a dog barks loudly\nb,rain,rain falls\n")
    common = ["--predictions", "p.csv", "--references", "r.csv", "--tokenizer", "none", "--resamples", "10"]
    models = ["--sentence-model", sentence_folder, "--fluency-model", "fluency"]
    done = enclap("evaluate", *common, *models, "--require", "fense", "-o", "report")
    assert done.returncode == 0, done.stderr
    table = json.loads((tmp_path / "report" / "scores.json").read_text())
    assert {"sbert_sim", "fluency_error", "fense"} <= set(table["metrics"]) and "spider_fl" in table["not_computed"]
    assert {"fense"} <= set(table["rows"]["human"]) and "SHA-256" in table["versions"]["fluency model"]
    done = enclap("evaluate", *common, *models[:2], "--require", "fense")
    assert done.returncode == 3 and "sbert_sim" in done.stdout and "not computed: fense: needs FENSE's" in done.stderr
