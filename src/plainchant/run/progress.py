"""Progress reports of a run."""

from typing import Protocol


class Progress(Protocol):
    """Progress callbacks. Stages that read private data report fractions, never counts."""

    def stage(self, name: str, share: float) -> None:
        """A preparing step is done by `share`, 0 to 1."""

    def texts(self, done: int, requested: int, tokens: int) -> None:
        """`done` of `requested` texts are written, with `tokens` tokens since the process started."""

    def tokens(self, drawn: int) -> None:
        """`drawn` more tokens are written, of texts that may not be finished. Not reported by workers."""


class NoProgress:
    """Shows nothing."""

    def stage(self, name: str, share: float) -> None: ...

    def texts(self, done: int, requested: int, tokens: int) -> None: ...

    def tokens(self, drawn: int) -> None: ...
