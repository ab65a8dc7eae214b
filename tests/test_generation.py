"""Own decoding on a device, held to transformers' generate and to the numpy search, and recorded steps to plain ones.

All of it runs on the processor; the tests marked `gpu` run the same laws on CUDA graphs, where there is a GPU.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from threading import Event
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from agreement import assert_candidates_agree
from enclap.decoding.beam import BeamSettings, Hypothesis, beam_search, greedy_search
from enclap.decoding.options import DecodingOptions
from enclap.decoding.sampling import draw as numpy_draw
from enclap.decoding.sampling import sample
from enclap.decoding.token_rules import TokenRules
from enclap.engines import load_engine
from enclap.engines.torch import TorchEngine
from enclap.generation.decoder import AttentionCache, FusedDecoder
from enclap.generation.generator import LOOK_EVERY, SentenceGenerator, clip_count, search_settings
from enclap.generation.graphs import CudaGraphs, Step
from enclap.generation.searches import draw
from enclap.generation.token_rules import DeviceTokenRules
from enclap.hub.resolve import find_model
from enclap.model import EnclapConfig, EnclapForConditionalGeneration
from enclap.model.slots import EncoderInputs, pad_frames
from enclap.types import Features, FloatArray, IntArray
from rule_weights import LOUDNESS, filled
from tiny import caption_model

RULES = TokenRules(start=2, pad=1, end=2, forced_first=0, forced_last=2, min_length=0, max_length=30, no_repeat_ngram=3)
CASES = {
    "greedy": DecodingOptions(beams=1),
    "two beams": DecodingOptions(beams=2, candidates=2),
    "four beams": DecodingOptions(beams=4, candidates=4),
    "eight beams": DecodingOptions(beams=8, candidates=8, max_length=21),
    "late stop": DecodingOptions(early_stopping=False, length_penalty=0.5, candidates=2),
    "longer ones": DecodingOptions(early_stopping=False, length_penalty=2.0, max_length=12, candidates=4),
    "forced length": DecodingOptions(min_length=16, max_length=16, candidates=4),
    "at least ten": DecodingOptions(beams=3, min_length=10, max_length=25),
    "no word twice": DecodingOptions(beams=3, no_repeat_ngram=1, max_length=15),
    "repeats": DecodingOptions(beams=2, no_repeat_ngram=0, length_penalty=-1.0),
    "two tokens": DecodingOptions(beams=4, max_length=2),
    "three tokens": DecodingOptions(beams=4, max_length=3, no_repeat_ngram=5),
}
LENGTHS = (40, 3, 40, 25, 1)


def published_shape() -> EnclapForConditionalGeneration:
    """The published vocabulary, codebooks and heads in two narrow layers, with weights from the rule."""
    config = EnclapConfig(
        d_model=96,
        encoder_layers=1,
        decoder_layers=2,
        encoder_ffn_dim=192,
        decoder_ffn_dim=192,
        encoder_attention_heads=12,
    )
    model = EnclapForConditionalGeneration(config)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            weight.copy_(filled(name, list(weight.shape)) * (LOUDNESS if "shared" in name else 1))
    return model.eval()


@pytest.fixture(scope="module")
def tiny() -> EnclapForConditionalGeneration:
    torch.manual_seed(0)
    return caption_model(320, True, "codes", 16)


@pytest.fixture(scope="module")
def generator(tiny: EnclapForConditionalGeneration) -> SentenceGenerator:
    return SentenceGenerator(tiny)


def random_features(config: EnclapConfig, lengths: Sequence[int] = LENGTHS, seed: int = 0) -> list[Features]:
    generator = np.random.default_rng(seed)
    found = []
    for frames in lengths:
        embedding = generator.standard_normal(config.clap_dim).astype(np.float32)
        codes = generator.integers(0, config.codebook_entries, (frames, config.codebooks))
        found.append(Features(codes, embedding / np.linalg.norm(embedding)))
    return found


def encoder_inputs(clips: Sequence[Features], model: EnclapForConditionalGeneration) -> dict[str, Tensor]:
    """The inputs of clips of any lengths, padded."""
    codes, mask = pad_frames([clip.codes for clip in clips], model.config.codebook_entries, model.config.max_frames)
    embeddings = np.stack([clip.embedding for clip in clips if clip.embedding is not None])
    arrays = {"codes": codes, "code_mask": mask, "clap_embedding": embeddings}
    return {name: torch.from_numpy(array).to(model.device) for name, array in arrays.items()}


def encoded(model: EnclapForConditionalGeneration, clips: Sequence[Features]) -> list[Tensor]:
    """The encoder's states of each clip, which it reads alone."""
    states = []
    with torch.inference_mode():
        for clip in clips:
            inputs = encoder_inputs([clip], model)
            states.append(model.encode(EncoderInputs(inputs["codes"], None, inputs["clap_embedding"]))[0][0][0])
    return states


def reference(
    model: EnclapForConditionalGeneration, clips: Sequence[Features], options: DecodingOptions
) -> list[list[Hypothesis]]:
    """What transformers' generate finds for all clips in one padded batch; greedy ones without a score."""
    rules = RULES.resolved(options, model.config.max_position_embeddings)
    searching: dict[str, Any] = {"num_beams": options.width, "num_return_sequences": options.candidates}
    if options.width > 1:
        searching |= {"length_penalty": options.length_penalty, "early_stopping": options.early_stopping}
    output = model.generate(
        **encoder_inputs(clips, model),
        **searching,
        do_sample=False,
        decoder_start_token_id=rules.start,
        pad_token_id=rules.pad,
        eos_token_id=rules.end,
        forced_bos_token_id=rules.forced_first,
        forced_eos_token_id=rules.forced_last,
        min_length=rules.min_length,
        max_length=rules.max_length,
        no_repeat_ngram_size=rules.no_repeat_ngram,
        return_dict_in_generate=True,
        output_scores=True,
    )
    scores = output.sequences_scores.tolist() if options.width > 1 else [np.nan] * len(clips)
    flat = [
        Hypothesis(rules.stripped(row), score) for row, score in zip(output.sequences.tolist(), scores, strict=True)
    ]
    return [flat[start : start + options.candidates] for start in range(0, len(flat), options.candidates)]


def assert_equal(found: Sequence[list[Hypothesis]], expected: Sequence[list[Hypothesis]]) -> None:
    """The same tokens, and scores that differ by rounding alone; no score where none is expected."""
    assert [[item.tokens for item in clip] for clip in found] == [[item.tokens for item in clip] for clip in expected]
    scores = [np.array([item.score for clip in side for item in clip]) for side in (found, expected)]
    known = ~np.isnan(scores[1])
    np.testing.assert_allclose(scores[0][known], scores[1][known], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("case", CASES)
def test_sentences_and_scores_are_those_of_generate(
    tiny: EnclapForConditionalGeneration, generator: SentenceGenerator, case: str
) -> None:
    clips, options = random_features(tiny.config), CASES[case]
    found = generator(encoded(tiny, clips), RULES.resolved(options, 300), options)
    assert_equal(found, reference(tiny, clips, options))


def test_the_published_vocabulary_gives_what_generate_gives() -> None:
    model = published_shape()
    clips = random_features(model.config, lengths=(90, 30))
    for options in (DecodingOptions(beams=1, max_length=12), DecodingOptions(beams=4, candidates=4, max_length=12)):
        found = SentenceGenerator(model)(encoded(model, clips), RULES.resolved(options, 1024), options)
        assert_equal(found, reference(model, clips, options))


class WholeDecoder:
    """A decoder for the numpy search that reads every sequence from its beginning at every step."""

    def __init__(self, model: EnclapForConditionalGeneration, states: Sequence[Tensor], rows: int) -> None:
        self._model, self._states = model, states
        self._tokens: IntArray = np.zeros((len(states), rows, 0), dtype=np.int64)

    def step(self, tokens: IntArray) -> FloatArray:
        self._tokens = np.concatenate([self._tokens, tokens], axis=2)
        logits = []
        for clip, states in zip(torch.from_numpy(self._tokens), self._states, strict=True):
            hidden = states.expand(len(clip), -1, -1)
            with torch.inference_mode():
                decoded = self._model.get_decoder()(input_ids=clip, encoder_hidden_states=hidden, use_cache=False)
                logits.append(self._model.lm_head(decoded[0][:, -1]) + self._model.final_logits_bias)
        return torch.stack(logits).numpy()

    def reorder(self, beams: IntArray) -> None:
        self._tokens = np.take_along_axis(self._tokens, beams[..., None], axis=1)


@pytest.mark.parametrize(
    "options",
    [
        DecodingOptions(beams=1),
        DecodingOptions(candidates=4),
        DecodingOptions(sample=True, candidates=3, seed=5, temperature=1.3, top_p=0.8),
    ],
    ids=["greedy", "beam", "sampling"],
)
def test_the_numpy_search_is_the_slow_twin(
    tiny: EnclapForConditionalGeneration, generator: SentenceGenerator, options: DecodingOptions
) -> None:
    states, rules = encoded(tiny, random_features(tiny.config)), RULES.resolved(DecodingOptions(max_length=14), 300)
    decoder = WholeDecoder(tiny, states, options.candidates if options.sample else options.width)
    chosen = search_settings(options)
    if chosen is None:
        expected = greedy_search(decoder, len(states), rules)
    elif isinstance(chosen, BeamSettings):
        expected = beam_search(decoder, len(states), rules, chosen)
    else:
        expected = sample(decoder, len(states), rules, chosen)
    assert_equal(generator(states, rules, options), expected)


def test_sentences_do_not_depend_on_the_clips_beside_or_before(
    tiny: EnclapForConditionalGeneration, generator: SentenceGenerator
) -> None:
    """Ten clips take the step of sixteen; those that are finished leave, and the caches hold what was there before."""
    states = encoded(tiny, random_features(tiny.config, lengths=[5 + 7 * index for index in range(10)], seed=1))
    for options in (DecodingOptions(candidates=2), DecodingOptions(sample=True, candidates=2)):
        together = generator(states, RULES, options)
        assert len({len(clip[0].tokens) for clip in together}) > 2
        assert_equal([generator([clip], RULES, options)[0] for clip in states], together)
        poisoned = [torch.full_like(clip, torch.nan) for clip in states]
        generator(poisoned, RULES, options)
        assert generator(states, RULES, options) == together
    assert generator([], RULES, DecodingOptions()) == []


def test_finished_clips_leave_the_batch(
    tiny: EnclapForConditionalGeneration, generator: SentenceGenerator, monkeypatch: pytest.MonkeyPatch
) -> None:
    read: list[int] = []
    plain = FusedDecoder.step

    def step(decoder: FusedDecoder, cache: AttentionCache, tokens: Tensor, position: Tensor) -> Tensor:
        read.append(len(tokens))
        return plain(decoder, cache, tokens, position)

    monkeypatch.setattr(FusedDecoder, "step", step)
    found = generator(encoded(tiny, random_features(tiny.config, lengths=[30] * 16, seed=2)), RULES, DecodingOptions())
    assert read == sorted(read, reverse=True) and read[0] == 16 and read[-1] < 16
    ends = sorted(len(clip[0].tokens) for clip in found)
    assert len(read) < ends[-1] + LOOK_EVERY + 4, "beams that go on are given up soon after a clip's sentences ended"


def test_batches_come_in_few_sizes() -> None:
    assert [clip_count(clips) for clips in (1, 3, 5, 17, 50, 64, 65, 200)] == [1, 4, 8, 24, 64, 64, 128, 256]


class Recorder(TorchDispatchMode):
    """Notes every operation with the very tensors that it read and gave."""

    def __init__(self) -> None:
        super().__init__()
        self.operations: list[tuple[Any, Any, Any, Any]] = []

    def __torch_dispatch__(self, function: Any, types: Any, arguments: Any = (), keywords: Any = None) -> Any:
        with self:  # an operation made of others is noted as those
            result = function.decompose(*arguments, **(keywords or {}))
        if result is not NotImplemented:
            return result
        result = function(*arguments, **(keywords or {}))
        self.operations.append((function, arguments, keywords or {}, result))
        return result


class RecordedSteps:
    """What `CudaGraphs` does, on the processor: a step is run once, and repeated from the record on the same memory."""

    WAITING: ClassVar[set[str]] = {"_local_scalar_dense", "nonzero", "is_nonzero", "equal", "masked_select", "unique"}
    COPYING: ClassVar[set[str]] = {"lift_fresh", "scalar_tensor"}

    def __init__(self) -> None:
        self.counts: list[int] = []

    def __call__(self, step: Step, changed: Sequence[Tensor]) -> Step:
        before = [tensor.clone() for tensor in changed]
        with Recorder() as recorder:
            step()
        for tensor, value in zip(changed, before, strict=True):
            tensor.copy_(value)
        names = {function.overloadpacket.__name__ for function, *_ in recorder.operations}
        assert not names & (self.WAITING | self.COPYING), "a step waits for the device, or copies to it"
        self.counts.append(len(recorder.operations))

        def repeat() -> None:
            for function, arguments, keywords, result in recorder.operations:
                again = function(*arguments, **keywords)
                for old, new in zip(tensors(result), tensors(again), strict=True):
                    if old.data_ptr() != new.data_ptr():
                        old.copy_(new)

        return repeat


def tensors(result: Any) -> list[Tensor]:
    return [item for item in (result if isinstance(result, tuple | list) else [result]) if isinstance(item, Tensor)]


@pytest.mark.parametrize("case", ["greedy", "four beams", "at least ten", "late stop"])
def test_a_recorded_step_gives_what_the_step_gives(
    tiny: EnclapForConditionalGeneration, generator: SentenceGenerator, case: str
) -> None:
    """So nothing in a step depends on what Python knew when it was recorded, neither the length nor a result."""
    options, record = CASES[case], RecordedSteps()
    rules, states = RULES.resolved(options, 300), encoded(tiny, random_features(tiny.config))
    recorded = SentenceGenerator(tiny, lambda: record)
    for clips in (states, states[::-1], states[:2]):
        assert recorded(clips, rules, options) == generator(clips, rules, options)
    assert record.counts and max(record.counts) < 400, record.counts


@settings(max_examples=60, deadline=None)
@given(data=st.data(), size=st.integers(0, 4), least=st.integers(0, 12))
def test_token_rules_are_those_of_numpy(data: st.DataObject, size: int, least: int) -> None:
    row = data.draw(st.lists(st.integers(0, 4), min_size=1, max_size=11))
    rules = TokenRules(2, 1, 2, 0, 2, min(least, 12), 12, size)
    expected = np.zeros((1, 5), dtype=np.float32)
    rules.apply(expected, np.array([row]))
    padded = torch.tensor([row + [1] * (rules.max_length - len(row))])
    found = torch.zeros(1, 5)
    DeviceTokenRules(rules, torch.device("cpu")).apply(found, padded, torch.tensor([len(row)]))
    assert found.tolist() == expected.tolist()


def test_draws_are_those_of_numpy() -> None:
    generator = np.random.default_rng(0)
    logits = generator.standard_normal((200, 50)).astype(np.float32) * 3
    points = generator.random(200)
    for top_p in (0.1, 0.7, 1.0):
        found = draw(torch.from_numpy(logits), top_p, torch.from_numpy(points))
        assert found.tolist() == numpy_draw(logits, top_p, points).tolist()


def test_the_engine_gives_the_same_candidates_with_its_own_decoding() -> None:
    folder = find_model("mini")
    engine = load_engine(folder, "torch", device="cpu")
    assert isinstance(engine, TorchEngine)
    clips = random_features(engine._model.config, lengths=(250, 60, 250, 7), seed=3)
    choices = (DecodingOptions(beams=1), DecodingOptions(candidates=4), DecodingOptions(candidates=2, max_length=9))
    expected = [engine.generate(clips, options) for options in choices]
    engine._generator = SentenceGenerator(engine._model)
    for options, candidates in zip(choices, expected, strict=True):
        assert_candidates_agree(engine.generate(clips, options), candidates)
    drawn = DecodingOptions(sample=True, candidates=2, seed=6, temperature=0.7)  # no draw falls between two tokens
    onnx = load_engine(folder, "onnx", threads=1)
    assert_candidates_agree(engine.generate(clips, drawn), onnx.generate(clips, drawn))
    assert engine.generate([], DecodingOptions()) == []


def test_bfloat16_runs_the_same_steps() -> None:
    """How many sentences it changes is measured by benchmarks/decoding.py; here it gives whole ones."""
    torch.manual_seed(0)
    model = caption_model(320, True, "codes", 16).to(torch.bfloat16)
    clips = random_features(model.config)
    found = SentenceGenerator(model)(encoded(model, clips), RULES, DecodingOptions())
    assert all(item.tokens[:2] == (2, 0) and item.tokens[-1] == 2 and item.score < 0 for [item] in found)


@pytest.fixture(scope="module")
def on_gpu() -> Callable[[EnclapForConditionalGeneration], EnclapForConditionalGeneration]:
    if not torch.cuda.is_available():
        pytest.fail("PyTorch finds no CUDA device: run `make test` for the tests that need none")
    return lambda model: model.cuda()


@pytest.mark.gpu
@pytest.mark.parametrize("case", CASES)
def test_cuda_graphs_give_what_generate_gives_on_the_processor(
    on_gpu: Callable[[EnclapForConditionalGeneration], EnclapForConditionalGeneration], case: str
) -> None:
    torch.manual_seed(0)
    model, options = caption_model(320, True, "codes", 16), CASES[case]
    clips = random_features(model.config, lengths=[5 + 7 * (index % 6) for index in range(12)])
    expected = reference(model, clips, options)
    generator, rules = SentenceGenerator(on_gpu(model), CudaGraphs), RULES.resolved(options, 300)
    states = encoded(model, clips)
    for _ in range(2):  # recorded, then repeated
        assert_equal(generator(states, rules, options), expected)
    assert_equal(generator(states[:3], rules, options), expected[:3])


@pytest.mark.gpu
def test_cuda_graphs_are_recorded_while_another_thread_uses_the_device(
    on_gpu: Callable[[EnclapForConditionalGeneration], EnclapForConditionalGeneration],
) -> None:
    model = on_gpu(caption_model(320, True, "codes", 16))
    clips, stop = random_features(model.config, lengths=[30] * 24), Event()
    states = encoded(model, clips)
    expected = SentenceGenerator(model)(states, RULES, DecodingOptions())

    def keep_busy() -> int:
        rounds = 0
        while not stop.is_set():
            encoded(model, random_features(model.config, lengths=(10 + rounds % 200,)))
            torch.randn(1 + rounds % 1000, 1000).cuda().sum().item()
            rounds += 1
        return rounds

    with ThreadPoolExecutor(1) as pool:
        busy = pool.submit(keep_busy)
        found = [SentenceGenerator(model, CudaGraphs)(states, RULES, DecodingOptions()) for _ in range(3)]
        stop.set()
        assert busy.result() > 0
    assert all(item == expected for item in found)
