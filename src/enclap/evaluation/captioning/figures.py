"""The figures of a report, as SVG."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from enclap.evaluation.captioning.scores import Array

COLUMNS, PANEL_WIDTH, ROW_HEIGHT, PANEL_HEIGHT = 4, 3.0, 0.22, 0.7  # panels; inches
LEFT, HSPACE = 0.13, 0.6  # shares of the figure and of a panel: room for the names of rows, and for titles
BINS = 30
INK, POINT = "#1f2933", "#2563eb"
STYLE: Any = {"svg.fonttype": "none", "svg.hashsalt": "enclap", "font.size": 8, "text.color": INK}
METADATA = {"Date": None}  # the same figure on every run


def draw_scores(
    rows: Mapping[str, Mapping[str, Mapping[str, float | None]]],
    path: Path,
    limits: tuple[float, float] | None = None,
    zero: bool = False,
) -> None:
    """Draw value and interval of each metric, a panel each, the rows below each other.

    limits: of every axis; None for those that fit. zero: whether a line marks it, and names have the room they need.
    """
    import matplotlib
    from matplotlib.figure import Figure

    metrics = list(dict.fromkeys(metric for values in rows.values() for metric in values))
    lines = -(-len(metrics) // (columns := min(COLUMNS, len(metrics))))
    height = lines * (PANEL_HEIGHT + ROW_HEIGHT * len(rows))
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(columns * PANEL_WIDTH, height))
        figure.subplots_adjust(left=LEFT, right=0.99, bottom=0.3 / height, top=1.0 - 0.3 / height, hspace=HSPACE)
        panels = np.atleast_1d(figure.subplots(lines, columns, sharey=True, squeeze=False)).ravel()
        for panel, metric in zip(panels, metrics, strict=False):
            panel.set_title(metric)
            panel.grid(axis="x", alpha=0.3)
            panel.set_yticks(range(len(rows)), list(rows))
            panel.set_ylim(len(rows) - 0.5, -0.5)
            if limits is not None:
                panel.set_xlim(*limits)
            if zero:
                panel.axvline(0.0, color=INK, linewidth=0.8)
            for number, values in enumerate(rows.values()):
                item = values.get(metric, {})
                value, low, high = (item.get(key) for key in ("value", "low", "high"))
                if value is None:
                    continue
                if low is not None and high is not None:
                    panel.plot([low, high], [number, number], color=POINT, alpha=0.5, linewidth=3)
                panel.plot([value], [number], "o", color=POINT, markersize=4)
        for panel in panels[len(metrics) :]:
            panel.set_axis_off()
        figure.savefig(path, metadata=METADATA, bbox_inches="tight" if zero else None)


def draw_distribution(metric: str, values: Mapping[str, Array], path: Path) -> None:
    """Draw how often clips have which score, for each system."""
    import matplotlib
    from matplotlib.figure import Figure

    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(6.0, 2.6), layout="constrained")
        panel = figure.subplots()
        edges = np.histogram_bin_edges(np.concatenate(list(values.values())), bins=BINS)
        for name, scores in values.items():
            panel.hist(scores, bins=edges.tolist(), histtype="step", label=name)
        panel.set_xlabel(metric)
        panel.set_ylabel("clips")
        panel.legend(frameon=False)
        figure.savefig(path, metadata=METADATA)
