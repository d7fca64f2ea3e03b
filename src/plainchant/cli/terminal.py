"""What a terminal may be sent: no control characters, and nothing that its encoding lacks."""

import codecs
import io
import os
import re
import sys
from typing import TextIO

# C0 without tab and line feed, delete, C1; then what changes the direction or the line of what follows
_UNSAFE = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028\u2029\u202a-\u202e\u2066-\u2069]")
_PLAIN = {
    "ε": "epsilon", "δ": "delta", "ρ": "rho", "σ": "sigma", "τ": "tau", "ξ": "xi", "–": "-", "—": "-", "−": "-",
    "…": "...", "×": "x", "·": "*", "≥": ">=", "≤": "<=", "²": "^2", "’": "'", "‘": "'", "“": '"', "”": '"', "━": "-",
}  # fmt: skip
_DEGRADE = "plainchant-degrade"


def visible(text: str) -> str:
    r"""The text with control characters as visible marks.

    >>> visible("red\x1b[31m")
    'red\\x1b[31m'
    """
    return _UNSAFE.sub(lambda found: _mark(found[0]), text)


def visible_json(document: str) -> str:
    """The same for a JSON document, which stays the same document."""
    return _UNSAFE.sub(lambda found: f"\\u{ord(found[0]):04x}", document)


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


def _mark(character: str) -> str:
    code = ord(character)
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}"


def _degrade(error: UnicodeError) -> tuple[str, int]:
    if not isinstance(error, UnicodeEncodeError):
        raise error
    lacking = error.object[error.start : error.end]
    shown = "".join(
        _PLAIN.get(character) or character.encode("ascii", "backslashreplace").decode("ascii") for character in lacking
    )
    return shown, error.end


codecs.register_error(_DEGRADE, _degrade)
