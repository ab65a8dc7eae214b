"""Runs `enclap caption examples` and draws what the terminal shows as docs/images/terminal.svg, for README.md."""

from __future__ import annotations

import re
import subprocess
import sys
from io import StringIO
from pathlib import Path

from rich.console import Console
from rich.text import Text

ROOT = Path(__file__).resolve().parents[1]
PICTURE = ROOT / "docs" / "images" / "terminal.svg"
COMMAND = ("enclap", "caption", "examples")
COLUMNS = 72
FONTS = "ui-monospace, Menlo, Consolas, 'DejaVu Sans Mono', 'Liberation Mono', monospace"
PROGRAM = "from enclap.cli.main import main; main()"


def terminal_text() -> str:
    """The command after its prompt, then what it writes to standard output."""
    command = [sys.executable, "-c", PROGRAM, *COMMAND[1:]]
    output = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    return f"$ {' '.join(COMMAND)}\n{output}"


def draw(text: str) -> str:
    """The text as an SVG picture of a terminal, with the reader's own fonts: rich's template would fetch one."""
    console = Console(record=True, width=COLUMNS, file=StringIO(), force_terminal=True, color_system="truecolor")
    command, _, output = text.partition("\n")
    console.print(Text(command, style="bold"))
    for line in output.splitlines():
        console.print(Text(line, style="dim" if line.lstrip().startswith("or:") else ""))
    picture = console.export_svg(title="enclap", unique_id="terminal")
    picture = re.sub(r"@font-face\s*{.*?}|<!--.*?-->", "", picture, flags=re.DOTALL)
    picture = re.sub(r"font-family: (?:Fira Code|arial)[^;]*;", f"font-family: {FONTS};", picture)
    return "\n".join(line.rstrip() for line in picture.splitlines() if line.strip()) + "\n"


if __name__ == "__main__":
    PICTURE.parent.mkdir(exist_ok=True)
    PICTURE.write_text(draw(terminal_text()), encoding="utf-8")
    print(f"{PICTURE.relative_to(ROOT)}: written")
