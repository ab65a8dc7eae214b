"""The curve of a training's loss as a small SVG, which needs no other package."""

from __future__ import annotations

import json
from collections.abc import Sequence
from html import escape
from pathlib import Path

WIDTH, HEIGHT, MARGIN = 640, 280, 44  # pixels
COLOURS = {"loss": "#3465a4", "eval_loss": "#cc0000"}
LABELS = {"loss": "training (with the masked codes)", "eval_loss": "validation (captions alone)"}
Points = list[tuple[int, float]]


def read_curves(log: Path) -> dict[str, Points]:
    """The losses of a log.jsonl, each as steps and values."""
    curves: dict[str, Points] = {}
    for line in log.read_text(encoding="utf-8").splitlines():
        record = json.loads(line)
        for name in COLOURS:
            if name in record:
                curves.setdefault(name, []).append((int(record["step"]), float(record[name])))
    return curves


def loss_svg(curves: dict[str, Points]) -> str:
    """The picture."""
    points = [point for curve in curves.values() for point in curve]
    last, top = max(step for step, _ in points), max(value for _, value in points)
    head = f'xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}"'
    parts = [
        f'<svg {head} font-family="sans-serif" font-size="12">',
        f'<rect width="{WIDTH}" height="{HEIGHT}" fill="white"/>',
        f'<path d="M{MARGIN} {MARGIN / 2}V{HEIGHT - MARGIN}H{WIDTH - 10}" fill="none" stroke="#555"/>',
        f'<text x="{MARGIN - 6}" y="{MARGIN / 2 + 4}" text-anchor="end">{top:.2f}</text>',
        f'<text x="{MARGIN - 6}" y="{HEIGHT - MARGIN}" text-anchor="end">0</text>',
        f'<text x="{WIDTH - 10}" y="{HEIGHT - MARGIN + 18}" text-anchor="end">step {last}</text>',
    ]
    for row, (name, curve) in enumerate(curves.items()):
        colour = COLOURS[name]
        line = " ".join(placed(curve, last, top))
        parts.append(f'<polyline points="{line}" fill="none" stroke="{colour}" stroke-width="1.5"/>')
        parts.append(f'<text x="{WIDTH - 220}" y="{30 + 16 * row}" fill="{colour}">{escape(LABELS[name])}</text>')
    return "\n".join([*parts, "</svg>\n"])


def placed(curve: Sequence[tuple[int, float]], last: int, top: float) -> list[str]:
    """The points in pixels."""
    across, down = WIDTH - 10 - MARGIN, HEIGHT - 1.5 * MARGIN
    return [
        f"{MARGIN + across * step / last:.1f},{HEIGHT - MARGIN - down * value / max(top, 1e-9):.1f}"
        for step, value in curve
    ]
