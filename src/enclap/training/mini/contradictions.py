"""Labels that the teachers contradict, and what was decided: some recordings are left out of the training, or renamed.

`contradicted.csv`, beside the recipes, is the list: `enclap.training.mini.find_contradictions` fills in what the
teachers say, a person the decision and the reason. Recordings that validate or test are never on it: scores before and
after stay comparable.
"""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from io import StringIO
from pathlib import Path
from typing import Literal, get_args

from enclap.data.recordings import Recording
from enclap.data.splits import SEEN, UNSEEN, split_of
from enclap.data.synthetic.lexicon import load_lexicon
from enclap.errors import DataError
from enclap.files import write_whole

TABLE = "contradicted.csv"
Decision = Literal["", "kept", "mended", "dropped"]


@dataclass(frozen=True, slots=True)
class Contradiction:
    """One recording whose label a teacher contradicts.

    path, labels: as in the manifest. mn04_as, yamnet, aisfx: each teacher's best names and how sure it is of them;
    aiSFX, which has no classes, names the nearest recordings. decision: empty until somebody has looked, which trains
    as "kept" does. mended: the labels in place of the manifest's. reason: of the decision.
    """

    path: str
    labels: str
    mn04_as: str
    yamnet: str = ""
    aisfx: str = ""
    decision: Decision = ""
    mended: str = ""
    reason: str = ""


def read_contradictions(folder: Path) -> dict[str, Contradiction]:
    """The list in a folder of recipes, by path; nothing where there is none. DataError names the first faulty row."""
    path = folder / TABLE
    if not path.exists():
        return {}
    names = {field.name for field in fields(Contradiction)}
    with path.open(encoding="utf-8", newline="") as stream:
        rows = list(csv.DictReader(stream))
    found: dict[str, Contradiction] = {}
    for number, row in enumerate(rows, start=2):
        where = f"{path}, line {number}"
        if set(row) != names or None in row.values():
            raise DataError(f"{where}: not a row of {', '.join(sorted(names))}; make the list anew")
        item = Contradiction(**row)  # type: ignore[arg-type]
        unknown = [label for label in split_labels(item.mended) if label not in load_lexicon().entries]
        if item.decision not in get_args(Decision):
            raise DataError(f"{where}: {item.decision!r} is no decision; write kept, mended or dropped")
        if (item.decision == "mended") != bool(item.mended) or unknown:
            raise DataError(f"{where}: {item.mended!r} is no label of the lexicon; name one where the label is mended")
        if item.path in found:
            raise DataError(f"{where}: {item.path} is listed twice; keep one row")
        found[item.path] = item
    return found


def write_contradictions(folder: Path, items: Sequence[Contradiction]) -> None:
    """Write the list into a folder of recipes."""
    text = StringIO(newline="")
    writer = csv.DictWriter(text, [field.name for field in fields(Contradiction)], lineterminator="\n")
    writer.writeheader()
    writer.writerows(asdict(item) for item in items)
    write_whole(folder / TABLE, text.getvalue())


def split_labels(cell: str) -> tuple[str, ...]:
    """The labels that a cell holds, parted by semicolons as in a manifest."""
    return tuple(label.strip() for label in cell.split(";") if label.strip())


def may_be_mended(recording: Recording) -> bool:
    """Whether a recording trains: those that validate or test keep their labels."""
    return split_of(recording) in (SEEN, UNSEEN)


def mend_labels(recordings: Sequence[Recording], decided: Mapping[str, Contradiction]) -> tuple[Recording, ...]:
    """The recordings in their order, with the labels that were decided on; dropped ones are still among them.

    DataError for a decision on a recording that does not train, or whose labels are no longer those that it was about.
    """
    mended = []
    for recording in recordings:
        item = decided.get(recording.path)
        if item is not None and not may_be_mended(recording):
            raise DataError(f"{TABLE}: {recording.path} validates or tests; its label stays: remove the row")
        if item is not None and split_labels(item.labels) != recording.labels:
            raise DataError(f"{TABLE}: {recording.path} has other labels in the manifest; look at it again")
        labels = split_labels(item.mended) if item is not None else ()
        mended.append(replace(recording, labels=labels) if labels else recording)
    return tuple(mended)
