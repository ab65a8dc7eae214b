"""A model folder onto the hub."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from enclap.errors import EnclapError, UsageError
from enclap.hub.download import quiet_hub
from enclap.hub.resolve import HUB_ID
from enclap.text import first_line, printable


def reserve(repository: str) -> None:
    """Make the repository, private, if it is not there: what would hinder an upload shows before hours of training.

    UsageError for what is no name, EnclapError when the hub refuses or cannot be reached.
    """
    from huggingface_hub import HfApi

    if not HUB_ID.fullmatch(repository):
        raise UsageError(f"--push {printable(repository)}: write OWNER/NAME")
    with refusals_told(repository, "try again, or train without --push and upload the model afterwards"):
        HfApi().create_repo(repository, private=True, exist_ok=True)


def publish(folder: Path, repository: str) -> None:
    """Upload a model folder with its card to a repository that `reserve` has made.

    The hub's own client finds the credentials. EnclapError when the hub refuses or cannot be reached.
    """
    from huggingface_hub import HfApi

    with refusals_told(repository, f"the model is in {printable(str(folder))}; upload it with `hf upload`"):
        HfApi().upload_folder(folder_path=folder, repo_id=repository)


@contextmanager
def refusals_told(repository: str, remedy: str) -> Iterator[None]:
    """Turns what the hub's library raises into an EnclapError of one line."""
    from huggingface_hub.errors import HfHubHTTPError

    unreachable: Any = HfHubHTTPError.__bases__[0]  # what the hub's HTTP library raises, whichever it is
    try:
        with quiet_hub():
            yield
    except HfHubHTTPError as error:
        login = "log in with `hf auth login` as one who may write there; "
        reason = login if error.response is not None and error.response.status_code in (401, 403) else ""
        raise EnclapError(f"{repository}: the hub refused ({first_line(error)}); {reason}{remedy}") from error
    except (unreachable, OSError, RuntimeError, ValueError) as error:  # the library's own for a file that is not taken
        cause = error.__cause__ if isinstance(error.__cause__, Exception) else error
        raise EnclapError(f"{repository}: the upload failed ({first_line(cause)}); {remedy}") from error
