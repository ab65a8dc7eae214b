"""The exception tree: every fault that a user can cause or mend, each with its exit code and HTTP status."""

from __future__ import annotations


class EnclapError(Exception):
    """Base of all our exceptions; the message is one line that says what, where and what to do."""

    exit_code = 3
    http_status = 500


class InputError(EnclapError):
    """One input cannot be captioned; the others still are."""

    exit_code = 1
    http_status = 422


class AudioNotFound(InputError):
    """A path that does not exist, cannot be opened, or holds no audio files."""

    http_status = 404


class AudioUnreadable(InputError):
    """Bytes that do not decode as audio: empty, damaged, of another kind, or with no audio track."""


class AudioRefused(InputError):
    """Audio that is outside the limits, or a container (playlist, concat list) that would open other files."""


class AudioEmpty(InputError):
    """Audio that decodes to no samples at all."""


class AudioNotFinite(InputError):
    """Samples that are NaN or infinite."""


class UsageError(EnclapError):
    """A command line, option or recipe that contradicts itself or is out of range."""

    exit_code = 2
    http_status = 400


class ModelError(EnclapError):
    """A model folder that is missing, damaged, of an unknown format, or does not fit together."""


class EnvironmentFault(EnclapError):
    """The machine lacks something: an extra that is not installed, a device, room on the disk."""


class MissingExtra(EnvironmentFault):
    """A feature needs packages that were not installed."""

    def __init__(self, feature: str, extra: str) -> None:
        super().__init__(f"{feature} needs the extra {extra!r}: pip install 'enclap[{extra}]'")
        self.extra = extra


class DataError(EnclapError):
    """A manifest, feature store or recording corpus that is missing or damaged."""
