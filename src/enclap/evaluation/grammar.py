"""Whether captions are English, as link-grammar parses it."""

from __future__ import annotations

import subprocess
from collections.abc import Sequence

from enclap.errors import EnvironmentFault
from enclap.evaluation.base import Score, check_lengths

SENTENCES_AT_ONCE = 2_000  # that link-parser is given


class Grammar:
    """Whether captions can be parsed; no references are read.

    "parsed": the share of captions, 0 to 1, for which link-grammar finds a complete linkage. Needs the program
    `link-parser` (Debian: apt install link-grammar).
    """

    name = "grammar"

    def score(self, predictions: Sequence[str], references: Sequence[Sequence[str]]) -> list[Score]:
        """The one score; EnvironmentFault without link-parser."""
        check_lengths(predictions, references)
        count = len(predictions)
        share = 1.0 - len(unparsed(predictions)) / count if count else float("nan")
        return [Score("parsed", share, count)]


def unparsed(sentences: Sequence[str]) -> list[str]:
    """The sentences without a complete linkage; EnvironmentFault when link-parser is missing or answers strangely."""
    faulty = []
    for start in range(0, len(sentences), SENTENCES_AT_ONCE):
        part = sentences[start : start + SENTENCES_AT_ONCE]
        verdicts = [line for line in run_link_parser(part) if line.startswith(("Found ", "No complete linkages"))]
        if len(verdicts) != len(part):
            raise EnvironmentFault(f"link-parser gave {len(verdicts)} answers for {len(part)} sentences")
        faulty += [text for text, verdict in zip(part, verdicts, strict=True) if verdict.startswith("No complete")]
    return faulty


def run_link_parser(sentences: Sequence[str]) -> list[str]:
    """The lines that link-parser prints about the sentences; EnvironmentFault when it is missing or fails."""
    command = ["link-parser", "en", "-graphics=0", "-verbosity=1", "-null=0", "-limit=100"]
    text = "".join(f"{sentence}\n" for sentence in sentences)
    try:
        done = subprocess.run(command, input=text, capture_output=True, text=True, check=True)
    except FileNotFoundError as error:
        raise EnvironmentFault("link-parser is missing; install link-grammar (Debian: apt install it)") from error
    except subprocess.CalledProcessError as error:
        reason = " ".join(error.stderr.split())[:200]
        raise EnvironmentFault(f"link-parser ended with exit code {error.returncode} ({reason})") from error
    return done.stdout.splitlines()
