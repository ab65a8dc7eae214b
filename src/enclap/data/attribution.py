"""Who made the recordings that a model learned from: the list that ships beside its weights.

Most of the licences ask for the author's name, the title, the licence and a link; a model folder keeps them
all in `ATTRIBUTION.csv`, one row per recording, written from the manifest and never by hand.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable
from pathlib import Path, PurePosixPath
from urllib.parse import quote

from enclap.data.recordings import Recording
from enclap.errors import DataError
from enclap.files import write_whole
from enclap.hub.layout import ATTRIBUTION

FILE_NAME = ATTRIBUTION
COLUMNS = ("path", "title", "author", "licence", "licence_url", "link")

LICENCE_URLS = {
    "CC0 1.0": "https://creativecommons.org/publicdomain/zero/1.0/",
    "CC BY 2.0": "https://creativecommons.org/licenses/by/2.0/",
    "CC BY 3.0": "https://creativecommons.org/licenses/by/3.0/",
    "CC BY 4.0": "https://creativecommons.org/licenses/by/4.0/",
    "CC BY (version not stated)": "https://creativecommons.org/licenses/list.en",
    "CC BY-SA 2.0": "https://creativecommons.org/licenses/by-sa/2.0/",
    "CC BY-SA 3.0": "https://creativecommons.org/licenses/by-sa/3.0/",
    "CC BY-SA 4.0": "https://creativecommons.org/licenses/by-sa/4.0/",
    "CC BY-SA (version not stated)": "https://creativecommons.org/licenses/list.en",
    "Apache 2.0": "https://www.apache.org/licenses/LICENSE-2.0",
    "BSD 3-clause": "https://opensource.org/license/bsd-3-clause",
    "MIT": "https://opensource.org/license/mit",
    "Public domain": "https://creativecommons.org/publicdomain/mark/1.0/",
}
"""Every licence that a recording may carry and where its text stands (all versions, where none is stated)."""


DEBIAN_PACKAGE = "Debian package "
"""How the source of a recording begins that was taken from a Debian package; its name and version follow."""


def write_attribution(recordings: Iterable[Recording], folder: Path) -> Path:
    """The path of the `ATTRIBUTION.csv` written into `folder`: one row per recording, in order of path.

    Recordings without an author or under a licence that is not in `LICENCE_URLS` raise DataError, all
    named at once, and nothing is written: such a recording must not train what is given away.
    """
    rows = sorted(recordings, key=lambda recording: recording.path)
    faults = [f"{item.path}: no author" for item in rows if not item.author.strip()]
    faults += [f"{item.path}: unknown licence {item.licence!r}" for item in rows if item.licence not in LICENCE_URLS]
    if not rows:
        faults.append("no recordings at all")
    if faults:
        raise DataError(f"cannot write {FILE_NAME}: {'; '.join(faults)}")
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(COLUMNS)
    for item in rows:
        title = item.description or first_take(item).stem
        writer.writerow((item.path, title, item.author, item.licence, LICENCE_URLS[item.licence], link_of(item)))
    target = folder / FILE_NAME
    write_whole(target, text.getvalue())
    return target


def first_take(recording: Recording) -> PurePosixPath:
    """The path, in its source, of the first of the takes that were joined."""
    return PurePosixPath(recording.source_path.split("; ")[0])


def link_of(recording: Recording) -> str:
    """The page of the original, or the file in its repository, or the page of the Debian package that holds it.

    Some sources tell in the place of an address how a sound was recorded.
    """
    if recording.source_url.startswith(("https://", "http://")):
        return recording.source_url
    if recording.source_repo.startswith(DEBIAN_PACKAGE):
        name = recording.source_repo.removeprefix(DEBIAN_PACKAGE).split()[0]
        return f"https://packages.debian.org/{name}"
    return f"https://github.com/{recording.source_repo}/blob/HEAD/{quote(str(first_take(recording)))}"
