"""Writes docs/rating-example.md: what `enclap rate report` makes of answers that nobody gave.

The answers are drawn here, so that a reader sees a report before there is a study: python scripts/rating_example.py
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from enclap.rating.answers import Answer
from enclap.rating.report import draw_means, report_lines
from enclap.rating.scales import SCALE_NAMES
from enclap.rating.statistics import rating_results
from enclap.rating.study import HUMAN, Item, RatedClip, Study

DOCS = Path(__file__).resolve().parents[1] / "docs"
PAGE, FIGURE = "rating-example.md", "images/rating-example.svg"
CLIPS, RATERS, RESAMPLES, SEED = 40, 3, 1_000, 0
LEVELS = {"system_a": (3.6, 2.4, 2.1), "system_b": (3.2, 2.5, 2.2), HUMAN: (3.5, 3.4, 3.2)}
"""What each system was given on average, by scale, before the noise."""
CLIP_NOISE, RATER_NOISE, ANSWER_NOISE = 0.5, 0.25, 0.5
MADE = """!!! warning "Made answers"
    Nobody rated anything here. The answers were drawn by `scripts/rating_example.py`, to show what a report looks like.
    The names of the systems stand for nothing.
"""


def example() -> tuple[Study, list[Answer]]:
    """A study of clips that there are not, and answers that nobody gave."""
    clips = tuple(
        RatedClip(f"{number}.wav", tuple(Item(f"{name} of {number}.", (name,)) for name in LEVELS))
        for number in range(CLIPS)
    )
    study = Study("none", SEED, clips, "none", tuple(f"rater {number}" for number in range(1, RATERS + 1)))
    generator = np.random.default_rng(SEED)
    clip_levels = generator.normal(0.0, CLIP_NOISE, (CLIPS, len(LEVELS), len(SCALE_NAMES)))
    rater_levels = generator.normal(0.0, RATER_NOISE, RATERS)
    answers = []
    for rater, clip, (item, levels) in (
        (rater, clip, pair) for rater in range(RATERS) for clip in range(CLIPS) for pair in enumerate(LEVELS.values())
    ):
        for number, scale in enumerate(SCALE_NAMES):
            noise = clip_levels[clip, item, number] + rater_levels[rater] + generator.normal(0.0, ANSWER_NOISE)
            value = int(np.clip(round(levels[number] + noise), 1, 4))
            answers.append(Answer(rater + 1, clip, item, scale, value))
    return study, answers


def main() -> None:
    """Write the page and its figure."""
    study, answers = example()
    results = rating_results(study, answers, RESAMPLES, SEED)
    draw_means(results, DOCS / FIGURE)
    (DOCS / PAGE).write_text(page(), encoding="utf-8")


def page() -> str:
    """The page: the report with a note above it."""
    study, answers = example()
    title, *lines = report_lines(rating_results(study, answers, RESAMPLES, SEED), study, has_figure=True)
    text = "\n".join([f"{title}: an example with made answers", "", MADE, *lines]) + "\n"
    return text.replace("](means.svg)", f"]({FIGURE})")


if __name__ == "__main__":
    main()
