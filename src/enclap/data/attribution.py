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
    "CC BY-SA 3.0": "https://creativecommons.org/licenses/by-sa/3.0/",
    "CC BY-SA 4.0": "https://creativecommons.org/licenses/by-sa/4.0/",
    "CC BY-SA (version not stated)": "https://creativecommons.org/licenses/list.en",
    "Apache 2.0": "https://www.apache.org/licenses/LICENSE-2.0",
    "MIT": "https://opensource.org/license/mit",
    "Public domain": "https://creativecommons.org/publicdomain/mark/1.0/",
}
"""Every licence that a recording may carry and where its text stands (all versions, where none is stated)."""


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
        first = PurePosixPath(item.source_path.split("; ")[0])  # of takes that were joined
        source = item.source_url or f"https://github.com/{item.source_repo}/blob/HEAD/{quote(str(first))}"
        title = item.description or first.stem
        writer.writerow((item.path, title, item.author, item.licence, LICENCE_URLS[item.licence], source))
    target = folder / FILE_NAME
    write_whole(target, text.getvalue())
    return target
