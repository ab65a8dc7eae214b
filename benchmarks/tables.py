"""The measured tables: one JSON file each under benchmarks/results, the only place that figures come from."""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path

from enclap.files import write_whole

RESULTS = Path(__file__).resolve().parent / "results"
SCHEMA = 1


@dataclass(frozen=True)
class Table:
    """One table of figures and how they came about.

    order: sorts the tables. place: what it is about: "mini", "card" (mini, in more detail) or "official".
    """

    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    command: str
    date: str
    hardware: str
    order: int = 100
    note: str = ""
    place: str = "mini"

    def __post_init__(self) -> None:
        for row in self.rows:
            if len(row) != len(self.columns):
                raise ValueError(f"{self.title}: row {row} does not fit the columns {self.columns}")

    def cell(self, row: str, column: str) -> str:
        """The cell in the row that begins with `row`; KeyError when there is none."""
        cells = {cells[0]: cells for cells in self.rows}
        return dict(zip(self.columns, cells[row], strict=True))[column]

    def markdown(self) -> str:
        """The table in Markdown, under its title and above what is needed to repeat it."""
        lines = [f"**{self.title}**", ""]
        lines += [_line(self.columns), _line(("---",) * len(self.columns)), *map(_line, self.rows), ""]
        lines.append(f"Measured {self.date} with `{self.command}` on {self.hardware}.")
        if self.note:
            lines.append(self.note)
        return "\n".join(lines)


@dataclass(frozen=True)
class SummaryRow:
    """A measured cell of the table with the title `table`, under another label.

    reference: what it is compared with: a name, a row (None: the same) and a column of the table.
    """

    label: str
    table: str
    row: str
    reference: tuple[str, str | None, str] | None = None


def summarise(tables: Sequence[Table], rows: Sequence[SummaryRow]) -> str:
    """The rows as one Markdown table, above when and where they were measured; KeyError names what is not there."""
    by_title = {table.title: table for table in tables}
    lines = [_line(("what", "measured", "for comparison")), _line(("---",) * 3)]
    for row in rows:
        table, comparison = by_title[row.table], ""
        if row.reference is not None:
            name, reference_row, column = row.reference
            comparison = f"{name}: {table.cell(reference_row or row.row, column)}"
        lines.append(_line((row.label, table.cell(row.row, "measured"), comparison)))
    used = [by_title[row.table] for row in rows]
    dates = sorted({table.date for table in used})
    machines = " and ".join(sorted({table.hardware for table in used}))
    return "\n".join([*lines, "", f"Measured {' to '.join(dict.fromkeys((dates[0], dates[-1])))} on {machines}."])


def save(table: Table, name: str, folder: Path = RESULTS) -> Path:
    """The path of the JSON file that now holds the table; a name's last measurement stays."""
    folder.mkdir(parents=True, exist_ok=True)
    target = folder / f"{name}.json"
    content = {"schema": SCHEMA, **asdict(table)}
    write_whole(target, json.dumps(content, indent=2, ensure_ascii=False) + "\n")
    return target


def load_all(folder: Path = RESULTS) -> list[Table]:
    """Every stored table in its order; ValueError names a file that is no table of this schema."""
    tables = [_load(path) for path in sorted(folder.glob("*.json"))]
    return sorted(tables, key=lambda table: (table.order, table.title))


def today() -> str:
    """The date of a measurement, as 2026-01-31."""
    return datetime.now(UTC).date().isoformat()


def hardware(cores: int | None = None) -> str:
    """The machine in words: processor, cores used, memory, system."""
    cores = cores or os.cpu_count() or 1
    parts = [_processor(), f"{cores} core{'s' if cores > 1 else ''}"]
    if hasattr(os, "sysconf") and "SC_PHYS_PAGES" in os.sysconf_names:
        memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
        parts.append(f"{memory / 2**30:.0f} GiB")
    return ", ".join([*parts, platform.system(), f"Python {platform.python_version()}"])


def _processor() -> str:
    information = Path("/proc/cpuinfo")
    if information.exists():
        for line in information.read_text(encoding="utf-8", errors="replace").splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.processor() or platform.machine()


def _line(cells: tuple[str, ...]) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


def _load(path: Path) -> Table:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        if content.pop("schema") != SCHEMA:
            raise ValueError(f"its schema is not {SCHEMA}")
        content["columns"] = tuple(content["columns"])
        content["rows"] = tuple(tuple(row) for row in content["rows"])
        return Table(**content)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise ValueError(f"{path}: not a table of figures ({error})") from error
