"""Stanford CoreNLP 3.6.0, which SPICE needs: fetched once, its licence shown first, its hash locked."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Callable
from pathlib import Path

from enclap.errors import EnvironmentFault, UsageError
from enclap.files import new_folder, sha256, write_whole
from enclap.hub.addresses import copy_at_most, fetch_file
from enclap.text import printable

CORENLP_URL = "https://nlp.stanford.edu/software/stanford-corenlp-full-2015-12-09.zip"
CORENLP_FOLDER = "stanford-corenlp-full-2015-12-09"  # inside the archive
CORENLP_JARS = ("stanford-corenlp-3.6.0.jar", "stanford-corenlp-3.6.0-models.jar")
LICENCE = (
    "Stanford CoreNLP 3.6.0 is licensed under the GNU General Public License, version 3 or later "
    "(https://stanfordnlp.github.io/CoreNLP/). It is fetched from Stanford, about 400 MB, and used by SPICE alone."
)
LOCK = "lock.json"
MOST_BYTES = 2 * 10**9
REMEDY = "run `enclap metrics download`"


def corenlp_folder() -> Path:
    """Where CoreNLP's jars are kept: beside the models that were fetched."""
    from enclap.hub.download import cache_folder

    return cache_folder() / "metrics" / "corenlp-3.6.0"


def check_corenlp(folder: Path) -> None:
    """Raises EnvironmentFault unless the jars are there and are those that were locked when they were fetched."""
    missing = [name for name in CORENLP_JARS if not (folder / name).is_file()]
    if missing:
        raise EnvironmentFault(f"SPICE: {missing[0]} is missing in {printable(str(folder))}; {REMEDY}")
    try:
        hashes = json.loads((folder / LOCK).read_text(encoding="utf-8"))["jars"]
        wrong = [name for name in CORENLP_JARS if sha256(folder / name) != hashes[name]]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise EnvironmentFault(
            f"{printable(str(folder / LOCK))}: cannot be read; remove the folder and {REMEDY}"
        ) from error
    if wrong:
        raise EnvironmentFault(f"SPICE: {wrong[0]} has the wrong hash; remove {printable(str(folder))} and {REMEDY}")


def locked_archive(folder: Path) -> str:
    """The SHA-256 of the archive that the jars in the folder come from, which `check_corenlp` has approved."""
    return str(json.loads((folder / LOCK).read_text(encoding="utf-8"))["archive"])


def install_corenlp(source: str, folder: Path, expected: str | None, confirm: Callable[[str], bool]) -> str:
    """The SHA-256 of CoreNLP's archive, whose jars are now in the new folder, with their hashes locked.

    source: an address, or a file that is here. expected: what the archive's hash must be; None asks confirm about the
    hash that it has. Raises UsageError when that is refused, EnvironmentFault when the archive cannot be had.
    """
    with new_folder(folder) as temporary:
        archive = temporary / "archive.zip"
        remedy = f"try again, or fetch it elsewhere and name the file: {REMEDY[:-1]} --source FILE`"
        fetch_file(source, archive, MOST_BYTES, remedy)
        found = sha256(archive)
        if expected is not None and found != expected.lower():
            raise EnvironmentFault(f"{printable(source)}: has SHA-256 {found}, not {expected}; nothing was installed")
        if expected is None and not confirm(found):
            raise UsageError("nothing was installed; give --sha256 with the hash that you trust")
        _unpack(archive, temporary, source)
        archive.unlink()
        jars = {name: sha256(temporary / name) for name in CORENLP_JARS}
        write_whole(temporary / LOCK, json.dumps({"source": source, "archive": found, "jars": jars}, indent=1) + "\n")
    return found


def _unpack(archive: Path, folder: Path, source: str) -> None:
    try:
        with zipfile.ZipFile(archive) as opened:
            for name in CORENLP_JARS:
                with opened.open(f"{CORENLP_FOLDER}/{name}") as stream, (folder / name).open("wb") as file:
                    copy_at_most(stream, file, MOST_BYTES, printable(source))
    except (zipfile.BadZipFile, KeyError, EOFError) as error:
        raise EnvironmentFault(f"{printable(source)}: is not CoreNLP's archive ({printable(str(error))})") from error
