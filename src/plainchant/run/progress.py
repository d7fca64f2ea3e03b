"""How a run tells that it goes on."""

from typing import Protocol


class Progress(Protocol):
    """Hears how a run goes. Shares, never counts, of whatever is private."""

    def stage(self, name: str, share: float) -> None:
        """A preparing step is done by `share`, 0 to 1."""

    def texts(self, done: int, requested: int, tokens: int) -> None:
        """So many texts are released, with so many tokens since the process began."""


class NoProgress:
    """Shows nothing."""

    def stage(self, name: str, share: float) -> None: ...

    def texts(self, done: int, requested: int, tokens: int) -> None: ...
