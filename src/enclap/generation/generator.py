"""Sentences of a batch of clips: caches, a search and its steps, kept from batch to batch.

Batches come in a few sizes, and their encoder slots too, so that few kinds of steps are recorded. Clips whose sentences
are finished leave: now and then, because looking whether they are finished waits for the device.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np
import torch
from torch import Tensor

from enclap.decoding.beam import BeamSettings, Hypothesis
from enclap.decoding.options import DecodingOptions
from enclap.decoding.sampling import SamplingSettings
from enclap.decoding.token_rules import START_LENGTH, TokenRules
from enclap.generation.decoder import AttentionCache, FusedDecoder, rounded_up
from enclap.generation.graphs import Recorder, Step
from enclap.generation.searches import DeviceBeams, DeviceSampling, DeviceSearch
from enclap.model import EnclapForConditionalGeneration
from enclap.model.slots import EncoderInputs

CLIP_COUNTS = (1, 2, 4, 8, 16, 24, 32, 48, 64)
"""Clips for which steps are made; larger batches go in multiples of the last."""
SLOT_BLOCK = 256
"""Encoder slots are padded to a multiple of this."""
LOOK_EVERY = 4
"""Tokens from one look at which clips are finished to the next."""
KEPT_SEARCHES = 2
"""Searches, each with its cache, that stay in memory for the next batch that is searched in the same way."""


class SentenceGenerator:
    """Searches sentences with a caption model that will not change, on the device where it lies.

    make_recorder: of what records the steps of a search, `generation.graphs.CudaGraphs` for example; None runs them as
    they are written.
    """

    def __init__(
        self, model: EnclapForConditionalGeneration, make_recorder: Callable[[], Recorder] | None = None
    ) -> None:
        with torch.inference_mode():
            self._decoder = FusedDecoder(model)
        self._model = model
        self._make_recorder = make_recorder
        self._searches: dict[tuple[object, ...], BatchSearch] = {}

    @torch.inference_mode()
    def encode(self, inputs: Mapping[str, np.ndarray]) -> list[Tensor]:
        """The encoder's states [L, D] of each clip; inputs: of clips of one length, as `EncoderInputs` names them."""
        tensors = {name: torch.from_numpy(array).to(self._model.device) for name, array in inputs.items()}
        return list(self._model.encode(EncoderInputs(**tensors))[0].last_hidden_state)

    @torch.inference_mode()
    def __call__(self, states: Sequence[Tensor], rules: TokenRules, options: DecodingOptions) -> list[list[Hypothesis]]:
        """Hypotheses of each clip, best first; a clip's do not depend on the clips beside it.

        states: what the encoder gave for each clip, [L, D], of any lengths. rules: those of the model with `options`.
        """
        if not states:
            return []
        settings = search_settings(options)
        search = self._searches.pop((rules, settings), None)
        if search is None or search.clips < len(states):
            search = None  # gives its memory back
            while len(self._searches) >= KEPT_SEARCHES:
                del self._searches[next(iter(self._searches))]  # the one that was used longest ago
            search = BatchSearch(self._decoder, clip_count(len(states)), rules, settings, self._make_recorder)
        self._searches[rules, settings] = search
        return search(states)


def search_settings(options: DecodingOptions) -> BeamSettings | SamplingSettings | None:
    """How sentences are searched; None for the likeliest token at every step."""
    if options.sample:
        return SamplingSettings(options.candidates, options.temperature, options.top_p, options.seed)
    if options.width == 1:
        return None
    return BeamSettings(options.width, options.candidates, options.length_penalty, options.early_stopping)


def clip_count(clips: int) -> int:
    """How many clips the step is made for that so many take."""
    return next((count for count in CLIP_COUNTS if count >= clips), rounded_up(clips, CLIP_COUNTS[-1]))


class BatchSearch:
    """One way of searching, for at most `clips` clips at a time, with all memory that it needs."""

    def __init__(
        self,
        decoder: FusedDecoder,
        clips: int,
        rules: TokenRules,
        settings: BeamSettings | SamplingSettings | None,
        make_recorder: Callable[[], Recorder] | None,
    ) -> None:
        self.clips = clips
        self._decoder = decoder
        self._rules = rules
        device = decoder.weight.device
        self._search: DeviceSearch
        if isinstance(settings, BeamSettings):
            self._search = DeviceBeams(clips, rules, settings, device)
        else:
            self._search = DeviceSampling(clips, rules, settings, device)
        sequences = self._search.state[0].shape[1]
        slots = rounded_up(decoder.config.max_position_embeddings, SLOT_BLOCK)
        size = (clips, sequences, rules.max_length, slots)
        self._cache = AttentionCache.make(decoder.config, decoder.weight, size)
        self._record = make_recorder() if make_recorder is not None and self._search.fixed else None
        self._steps: dict[tuple[int, int], Step] = {}

    def __call__(self, states: Sequence[Tensor]) -> list[list[Hypothesis]]:
        """Hypotheses of each clip, best first, by its encoder states [L, D]."""
        slots = rounded_up(max(len(clip) for clip in states), SLOT_BLOCK)
        found: dict[int, list[Hypothesis]] = {}
        rows = list(range(len(states)))  # which clip each row of the state holds
        count = clip_count(len(rows))
        self._search.start()
        self._decoder.fill(self._cache.first(count, slots), states)
        for length in range(START_LENGTH, self._rules.max_length):
            forced = self._rules.forced(length)
            if forced is None:
                self.step(count, slots)()
            else:
                if length + 1 < self._rules.max_length:  # the token before it is read, as later steps need it
                    self._decoder.step(self._cache.first(count, slots), *self._search.newest(count))
                self._search.force(forced)
            if length % LOOK_EVERY == 0:
                rows = self.retire(rows, self._cache.first(count, slots), found)
                if not rows:
                    break
                count = clip_count(len(rows))
        self._collect(rows, list(range(len(rows))), found)
        return [found[index] for index in range(len(states))]

    def step(self, clips: int, slots: int) -> Step:
        """What gives the sequences of the first clips one more token; made when it is first asked for."""
        if (clips, slots) not in self._steps:
            cache, search, decoder = self._cache.first(clips, slots), self._search, self._decoder

            def step() -> None:
                states = decoder.step(cache, *search.newest(clips))
                origins = search.advance(decoder.logits(states))
                if origins is not None:
                    cache.reorder(origins)

            changed = (*search.state, search.length, cache.own_mask)
            self._steps[clips, slots] = step if self._record is None else self._record(step, changed)
        return self._steps[clips, slots]

    def retire(self, rows: list[int], cache: AttentionCache, found: dict[int, list[Hypothesis]]) -> list[int]:
        """The clips of the rows that are left: finished ones have gone where that makes the batch smaller."""
        is_open = self._search.is_open()[: len(rows)].tolist()
        remaining = [row for row, goes_on in enumerate(is_open) if goes_on]
        if remaining and clip_count(len(remaining)) == clip_count(len(rows)):
            return rows
        self._collect(rows, [row for row, goes_on in enumerate(is_open) if not goes_on], found)
        if not remaining:
            return []
        kept = torch.tensor(remaining, dtype=torch.long, device=self._decoder.weight.device)
        for tensor in self._search.state:
            tensor[: len(kept)] = tensor[kept]
        cache.keep(kept)
        return [rows[row] for row in remaining]

    def _collect(self, rows: list[int], finished: list[int], found: dict[int, list[Hypothesis]]) -> None:
        chosen = torch.tensor(finished, dtype=torch.long, device=self._decoder.weight.device)
        found |= zip((rows[row] for row in finished), self._search.results(chosen), strict=True)
