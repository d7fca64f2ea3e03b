"""What a terminal may be sent: no control characters, and nothing that its encoding lacks."""

import codecs
import io
import os
import sys
from typing import TextIO

_PLAIN = {
    "ε": "epsilon", "δ": "delta", "ρ": "rho", "σ": "sigma", "τ": "tau", "ξ": "xi", "–": "-", "—": "-", "−": "-",
    "…": "...", "×": "x", "·": "*", "≥": ">=", "≤": "<=", "²": "^2", "’": "'", "‘": "'", "“": '"', "”": '"', "━": "-",
}  # fmt: skip
_DEGRADE = "plainchant-degrade"


def prepare(stream: TextIO | None) -> None:
    """Lets a stream degrade a character that its encoding lacks, where it would raise."""
    if isinstance(stream, io.TextIOWrapper):
        stream.reconfigure(errors=_DEGRADE)


def degraded(text: str, stream: TextIO | None) -> str:
    """The text as `prepare` would have it written to a stream."""
    encoding = getattr(stream, "encoding", None) or "utf-8"
    return text.encode(encoding, _DEGRADE).decode(encoding)


def can_show(stream: TextIO | None, text: str) -> bool:
    """Whether a stream's encoding has every character of the text."""
    try:
        text.encode(getattr(stream, "encoding", None) or "utf-8")
    except UnicodeEncodeError:
        return False
    return True


def abandon(stream: TextIO | None) -> None:
    """Makes what is left in a stream's buffer vanish, so that the interpreter does not fail on it as it ends."""
    if stream is None:
        return
    try:
        number = stream.fileno()
    except (OSError, ValueError):
        return  # no file behind it
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, number)
    os.close(nowhere)


def flush() -> None:
    """Writes out standard output. Raises OSError where it cannot be written."""
    if sys.stdout is not None and not sys.stdout.closed:
        sys.stdout.flush()


def _degrade(error: UnicodeError) -> tuple[str, int]:
    if not isinstance(error, UnicodeEncodeError):
        raise error
    lacking = error.object[error.start : error.end]
    shown = "".join(
        _PLAIN.get(character) or character.encode("ascii", "backslashreplace").decode("ascii") for character in lacking
    )
    return shown, error.end


codecs.register_error(_DEGRADE, _degrade)
