"""What every engine offers: windows to features, features to candidate sentences."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from enclap.decoding.options import DecodingOptions
from enclap.types import Candidate, Features, FloatArray, Window


class Engine(Protocol):
    """Runs one model folder. Every engine gives the torch engine's token ids in float32.

    `extract` and `generate` may run at the same time, each in a thread of its own, as the captioner does: one makes the
    features of the next batch while the other searches the sentences of this one. `embed_text` is called by the thread
    that calls `generate`. No method is called by two threads at once.

    How to add an engine, for an accelerator say:

    1. One file in `engines/` with a class that has the members below. Its constructor takes a folder, and device,
       precision and threads as keywords; it raises UsageError for a choice that it does not know and EnvironmentFault
       for a device that is not there. `hub.model_folder.ModelFolder` reads and checks the folder, `engines.batching`
       turns windows into the networks' inputs, and `decoding` searches, given a `DecoderStep` over the networks.
    2. One line in `engines.ENGINES`, which `load_engine` reads, and the name in `cli/choices.py`.

    The agreement tests (tests/test_engines.py) then run it beside the torch engine, without a change.
    """

    name: str
    code_rate: float
    """Code frames per second."""
    max_frames: int
    """Code frames that fit into the model's positions; a longer window is cut there."""
    windows_together: int
    """How many windows of 10 s the captioner should give in one call."""
    recordings_together: int
    """How many recordings the captioner should decode at a time: one where the engine itself fills the processor."""

    @property
    def can_embed_text(self) -> bool:
        """Whether `embed_text` has a text tower."""
        ...

    def extract(self, windows: Sequence[Window], *, whole: bool = False) -> list[Features]:
        """One Features per window, in order; a window's features do not depend on its neighbours.

        whole: the codes of a window that is longer than the model's positions too, from which training takes its crops.
        """
        ...

    def generate(self, features: Sequence[Features], options: DecodingOptions) -> list[list[Candidate]]:
        """Candidates per item, best first; an item's candidates do not depend on the rest of the batch.

        Raises UsageError when the options contradict each other, ModelError when features lack what the model reads.
        """
        ...

    def embed_text(self, texts: Sequence[str]) -> FloatArray:
        """Float32 [N, E], unit length, from CLAP's text tower; ModelError when the folder has none."""
        ...
