"""What all stages of a run share: where its files are, its recordings, and which of them each stage may see."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

from enclap.audio.mel import MelFrontEnd
from enclap.data.recordings import Corpus, Recording, open_corpus, read_collection
from enclap.data.splits import SEEN, UNSEEN, VALIDATION, split_of
from enclap.training.mini.augment import MelBank, open_mel_bank
from enclap.training.mini.contradictions import Contradiction, mend_labels, read_contradictions
from enclap.training.mini.targets import Targets, make_targets
from enclap.training.recipe import RecipeType, read_recipe
from enclap.training.stage import Markers

CORPUS_RATE = 32_000
"""Samples per second of the decoded recordings: the highest rate they come in."""
TEACHERS = Path("../shared/reference/teachers")
"""Where the teachers' weights are, unless another folder is given."""
FFT_SIZE = 1_024
FRONT_END = MelFrontEnd(
    CORPUS_RATE, 10 * CORPUS_RATE, FFT_SIZE, hop=CORPUS_RATE // 50, bands=64, lowest=50.0, highest=14_000.0
)


@dataclass(frozen=True)
class MiniRun:
    """One training of mini: where the recordings, the recipes, the results and the teachers' weights are."""

    recordings: Path
    output: Path
    recipes: Path
    teachers: Path = TEACHERS

    @property
    def markers(self) -> Markers:
        """Which stages are done."""
        return Markers(self.output / "done")

    @property
    def model(self) -> Path:
        """The finished model folder."""
        return self.output / "model"

    @cached_property
    def collection(self) -> list[Recording]:
        """All recordings as the manifests have them."""
        return read_collection(self.recordings)

    @cached_property
    def contradicted(self) -> dict[str, Contradiction]:
        """What was decided, by path, on recordings whose labels the teachers contradict."""
        return read_contradictions(self.recipes)

    @cached_property
    def labelled(self) -> tuple[Recording, ...]:
        """All recordings with the labels that were decided on."""
        return mend_labels(self.collection, self.contradicted)

    @cached_property
    def corpus(self) -> Corpus:
        """All recordings, decoded, with the labels that were decided on."""
        return self.corpus_at(CORPUS_RATE)

    def corpus_at(self, rate: int) -> Corpus:
        """All recordings, decoded at a rate, with the labels that were decided on."""
        corpus = open_corpus(self.recordings, self.output / "cache", rate)
        return replace(corpus, recordings=self.labelled)

    @cached_property
    def mels(self) -> MelBank:
        """All recordings as mel spectrograms."""
        return open_mel_bank(self.corpus, FRONT_END, self.output / "cache")

    @cached_property
    def seen(self) -> list[int]:
        """Numbers of the recordings that CLAP is trained on."""
        return self._numbers(lambda recording: split_of(recording) == SEEN)

    @cached_property
    def held_out(self) -> list[int]:
        """Numbers of the training recordings that CLAP is not trained on."""
        return self._numbers(lambda recording: split_of(recording) in (UNSEEN, VALIDATION))

    @cached_property
    def unseen(self) -> list[int]:
        """Numbers of the held-out recordings that the captioner is trained on."""
        return self._numbers(lambda recording: split_of(recording) == UNSEEN)

    @cached_property
    def used(self) -> list[Recording]:
        """The recordings that are set aside for training, those among them that validate included."""
        return [self.labelled[number] for number in sorted([*self.seen, *self.held_out])]

    def _numbers(self, chosen: Callable[[Recording], bool]) -> list[int]:
        """Numbers of the chosen recordings, but for those that were dropped: they enter no stage that trains."""
        dropped = {path for path, item in self.contradicted.items() if item.decision == "dropped"}
        return [number for number, item in enumerate(self.labelled) if chosen(item) and item.path not in dropped]

    @cached_property
    def targets(self) -> Targets:
        """Labels and words that CLAP is trained on."""
        return make_targets(self.corpus.recordings, self.seen)

    def recipe(self, kind: type[RecipeType], name: str) -> RecipeType:
        """A stage's recipe."""
        return read_recipe(kind, self.recipes / f"{name}.yaml")
