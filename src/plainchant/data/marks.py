"""Control characters as visible marks: what a text holds must not steer a terminal or the page that shows it."""

import re

# C0 without tab and line feed, delete, C1; then what changes the direction or the line of what follows
_UNSAFE = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028\u2029\u202a-\u202e\u2066-\u2069]")


def visible(text: str) -> str:
    r"""The text with control characters as visible marks.

    >>> visible("red\x1b[31m")
    'red\\x1b[31m'
    """
    return _UNSAFE.sub(lambda found: mark(found[0]), text)


def visible_json(document: str) -> str:
    """The same for a JSON document, which stays the same document."""
    return _UNSAFE.sub(lambda found: f"\\u{ord(found[0]):04x}", document)


def mark(character: str) -> str:
    """The mark of one character: its code, as Python writes it."""
    code = ord(character)
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}"
