"""The questions that people answer about a caption, each on a scale of four points."""

from __future__ import annotations

from dataclasses import dataclass

POINTS = (1, 2, 3, 4)


@dataclass(frozen=True, slots=True)
class Scale:
    """A question and what its points mean, the worst first. key: on the keyboard, which chooses the question."""

    name: str
    key: str
    question: str
    points: tuple[str, str, str, str]


SCALES = (
    Scale(
        "grammaticality",
        "g",
        "Is it good English?",
        ("not understandable", "several faults", "one small fault", "good English"),
    ),
    Scale(
        "relevance",
        "r",
        "Can what it says be heard?",
        ("nothing of it", "little of it", "most of it", "all of it"),
    ),
    Scale(
        "completeness",
        "c",
        "Does it name everything that matters?",
        ("nothing", "little", "most", "everything"),
    ),
)
SCALE_NAMES = tuple(scale.name for scale in SCALES)
