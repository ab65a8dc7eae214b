"""What a metric is: it compares the captions of a set of clips with their references and returns scores."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True, slots=True)
class Score:
    """One figure over a set of clips. items: how many clips it is over; the value is NaN when there is none."""

    name: str
    value: float
    items: int


class Metric(Protocol):
    """Scores captions; each score's meaning and unit stand in the docstring of the metric.

    To add one, write a class with these two members in a file of its own in this package; nothing else has to know of
    it. Take settings in the constructor, so that `score` is the same for every metric. Where other programs, jars or
    large packages are needed, load them in `score` and raise `MissingExtra` or `EnvironmentFault` when they are absent.
    A test holds it to a slow twin, or to figures of the metric's own reference implementation.
    """

    @property
    def name(self) -> str:
        """What the metric is called in tables and on the command line."""
        ...

    def score(self, predictions: Sequence[str], references: Sequence[Sequence[str]]) -> list[Score]:
        """The scores of one caption per clip, in a fixed order.

        references: what each clip's caption is compared with, in the order of the predictions: captions that people
        wrote, or the labels of the sounds that can be heard, as the metric says. ValueError when the two differ in
        length.
        """
        ...


def check_lengths(predictions: Sequence[str], references: Sequence[Sequence[str]]) -> None:
    """Raises ValueError unless each prediction has its references."""
    if len(predictions) != len(references):
        raise ValueError(f"{len(predictions)} predictions, but references for {len(references)} clips")
