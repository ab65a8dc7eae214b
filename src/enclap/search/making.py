"""Makes a library, or brings it up to date: the model, the library and the run in one call."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from enclap.captioner import Captioner
from enclap.errors import ModelError
from enclap.search.hearing import require_text_tower
from enclap.search.indexing import Indexed, update_library
from enclap.search.labels import LabelSet
from enclap.search.library import SCHEMA, Facts, model_hashes, written_library


def make_library(
    path: Path,
    folder: Path,
    captioner: Captioner,
    *,
    reindex: bool = False,
    on_progress: Callable[[Indexed], None] | None = None,
) -> Indexed:
    """What was done to make `path` a library of the sounds in a folder, as they are now.

    folder: by its whole path. reindex: hear all of it anew. Raises ModelError without a text tower, UsageError when the
    library is of another folder or model, EnvironmentFault when another process writes it, AudioNotFound when there are
    no sounds.
    """
    require_text_tower(captioner.engine, captioner.model)
    if captioner.folder is None:
        raise ModelError(f"{captioner.model}: has no folder, so a library could not tell it from others")
    space, rest = model_hashes(captioner.folder)
    labels = LabelSet(captioner.engine, memory=captioner.memory)
    facts = Facts(
        schema=SCHEMA,
        model=captioner.model,
        space=space,
        captioner=rest,
        width=labels.width,
        folder=str(folder),
        table=1,
    )
    with written_library(path, facts, reindex=reindex) as library:
        return update_library(library, captioner, labels, on_progress)
