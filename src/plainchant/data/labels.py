"""Matching labels leniently, each by its own cell alone (guarantee 1)."""

import re
import unicodedata
from collections import Counter
from collections.abc import Sequence
from typing import Any

from plainchant.data.values import as_name, clean, is_bool

_WHOLE = re.compile(r"[+-]?[0-9]{1,30}\.0{1,30}")
_TRUTH = {"0": "false", "1": "true", "false": "0", "true": "1"}


def normal_form(label: str) -> str:
    """A label without surrounding white space, in composed Unicode (NFC)."""
    return unicodedata.normalize("NFC", clean(label)).strip()


def _folded(label: str) -> str:
    return unicodedata.normalize("NFC", normal_form(label).casefold())


def loosened(label: str) -> str:
    """Only the letters and digits, without case, width or form of accents; near misses share this form."""
    plain = unicodedata.normalize("NFKC", label).casefold()
    return "".join(character for character in plain if character.isalnum())


class LabelMatcher:
    """Finds the named label that a cell matches; every answer depends only on the cell and on the public label set.

    A cell matches a label if both are the same after `normal_form` or, if no two named labels differ by case only, also
    without case. A whole number may be written as 1, 1.0 or "1.0"; a truth value as true, "True" or 1. A cell of a data
    set's ClassLabel matches the label of its name, or else the one of its number.
    """

    def __init__(self, labels: Sequence[str]):
        self._exact = {normal_form(label): label for label in labels}
        folded = [_folded(label) for label in labels]
        counts = Counter(folded)
        self._folded = {fold: label for fold, label in zip(folded, labels, strict=True) if counts[fold] == 1}
        self._loose = {loosened(label) for label in labels}
        # composing and folding shorten a word to no less than a twelfth
        self._longest = 12 * max(map(len, labels), default=0) + 40

    def match(self, value: Any, names: Sequence[str] | None = None) -> str | None:
        """The named label of a cell, or None.

        Args:
            value: the cell.
            names: the names of a ClassLabel, where the column is one.
        """
        found = as_name(value)
        if found is None or len(found) > self._longest:  # cut before work: composing a long word is not linear
            return None
        words = [found]
        if names is not None and found.isdecimal() and len(found) < 10 and int(found) < len(names):
            words.insert(0, names[int(found)])
        if _WHOLE.fullmatch(found):
            words.append(found.partition(".")[0])
        words += [_TRUTH[word.casefold()] for word in words if word.casefold() in _TRUTH]
        return next((label for word in words if (label := self._one(word)) is not None), None)

    def _one(self, word: str) -> str | None:
        normal = normal_form(word)
        return self._exact.get(normal) or self._folded.get(_folded(normal))

    def is_near(self, value: Any) -> bool:
        """Whether a cell that matches no label differs from one in signs, spaces or width only."""
        found = as_name(value)
        return found is not None and len(found) <= self._longest and loosened(found) in self._loose


def difference(matcher: LabelMatcher, values: Sequence[Any]) -> str:
    """Why the cells of a column match no named label, judging by the majority; shows no cell."""
    names = [as_name(value) for value in values]
    kinds = {
        "differ from the named labels in signs, spaces or width": sum(matcher.is_near(value) for value in values),
        "are missing or blank": sum(name is None for name in names),
        "are truth values": sum(is_bool(value) for value in values),
        "are numbers": sum(_is_number(name) for name in names if name),
    }
    kind = max(kinds, key=kinds.__getitem__)
    return kind if 2 * kinds[kind] >= len(values) else "are other words"


def _is_number(name: str) -> bool:
    return name[:1] in "+-.0123456789" and name.lstrip("+-").replace(".", "", 1).isdecimal()
