"""A model folder onto the hub."""

from __future__ import annotations

from pathlib import Path

from enclap.errors import EnclapError, UsageError
from enclap.hub.resolve import HUB_ID
from enclap.text import first_line, printable


def publish(folder: Path, repository: str) -> None:
    """Upload a model folder with its card to a repository, which is made, private, if it is not there.

    The hub's own client finds the credentials. EnclapError when the hub refuses.
    """
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HfHubHTTPError

    if not HUB_ID.fullmatch(repository):
        raise UsageError(f"--push {printable(repository)}: write OWNER/NAME")
    hub = HfApi()
    try:
        hub.create_repo(repository, private=True, exist_ok=True)
        hub.upload_folder(folder_path=folder, repo_id=repository)
    except (HfHubHTTPError, OSError) as error:
        remedy = f"the model is in {printable(str(folder))}; upload it with `hf upload`"
        raise EnclapError(f"{repository}: the hub did not take the model ({first_line(error)}); {remedy}") from error
