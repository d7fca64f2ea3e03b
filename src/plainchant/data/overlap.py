"""Compares the public corpus, the prompt's examples and templates and the centres with the private table.

The guarantee assumes that these inputs are public. If they hold private rows, the user is told before anything is read
into a model or spent. The answer depends on private rows, so it is for the holder of the data only.

Whole texts are compared by the hashes of their letters and digits, without regard to case, accents and forms of one
letter, in time proportional to their length. Of a template, its long lines are compared. Parts of texts, paraphrases
and blank texts are not compared. A file of centres holds no text, so only the content of the whole file is compared.
"""

import hashlib
import os
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from plainchant.data.files import sha256
from plainchant.data.tables import Record
from plainchant.errors import PrivacyError

# Above this share two sets of texts count as the same.
MOST = 0.5
# A template's lines with fewer letters and digits are names such as "Text:", which may be a record by chance.
_SHORTEST_LINE = 12


@dataclass(frozen=True)
class Overlap:
    """What public inputs have in common with a private table. It depends on private data.

    Attributes:
        of_corpus: share of the public corpus's different texts that are texts of the table.
        of_table: share of the table's different texts that are texts of the corpus.
        of_examples: share of the prompt's different examples that are texts of the table.
    """

    of_corpus: float = 0.0
    of_table: float = 0.0
    of_examples: float = 0.0


def check_public_inputs(
    source: Any,
    table: Sequence[Record],
    *,
    public_corpus: str | None = None,
    corpus: Iterable[str] = (),
    examples: Iterable[str] = (),
    templates: Mapping[str, str] | None = None,
    centres: str | int | None = None,
) -> Overlap:
    """Compares the inputs that count as public with the private table.

    Args:
        source: the source of the table; a path, or anything else.
        table: its records.
        public_corpus: the file of public texts, if there is one.
        corpus: its texts.
        examples: the texts of the prompt's examples.
        templates: the prompt's own templates, by field.
        centres: the path of saved centres; a number means that there is no file.

    Returns:
        The shares of common texts, each at most `MOST`.

    Raises:
        PrivacyError: an input is the private file itself, or more than `MOST` of either side is the same. The message
            shows no row.
    """
    check_public_files(source, public_corpus=public_corpus, centres=centres)
    private, public, shown = _digests(record.text for record in table), _digests(corpus), _digests(examples)
    overlap = Overlap(_share(public, private), _share(private, public), _share(shown, private))
    if max(overlap.of_corpus, overlap.of_table) > MOST:
        raise _refusal("public_corpus", "holds most of the private table's texts, or is mostly made of them")
    if overlap.of_examples > MOST:
        raise _refusal("prompt.examples", "are mostly texts of the private table")
    for field, template in (templates or {}).items():
        if _share(_digests(_long_lines(template)), private) > MOST:
            raise _refusal(field, "consists mostly of texts of the private table")
    return overlap


def check_public_files(source: Any, *, public_corpus: str | None, centres: str | int | None) -> None:
    """Refuses public files that are the private file itself, before anything is read from them.

    Raises:
        PrivacyError: one of them is, by name or by content.
    """
    files = {"public_corpus": public_corpus, "centres": centres if isinstance(centres, str) else None}
    for field, path in files.items():
        if path is not None and _same_file(source, path):
            raise _refusal(field, "is the private table itself")


def _refusal(field: str, what: str) -> PrivacyError:
    return PrivacyError(
        f"{field}: {what}; public inputs must not contain private data. Give other public texts; nothing was drawn"
    )


def _same_file(source: Any, path: str) -> bool:
    if not isinstance(source, (str, os.PathLike)):
        return False
    one, other = Path(source), Path(path)
    if not (one.is_file() and other.is_file()):
        return one.is_dir() and other.is_dir() and one.samefile(other)
    if one.samefile(other):
        return True
    return one.stat().st_size == other.stat().st_size and sha256(one) == sha256(other)


def _long_lines(template: str) -> list[str]:
    """The whole template and its lines, without placeholders, where they are long enough to be a record's text."""
    plain = template.replace("{text}", " ").replace("{label}", " ")
    return [line for line in (plain, *plain.splitlines()) if len(_loosened(line)) >= _SHORTEST_LINE]


class _Loosened(dict[int, str]):
    """The letters and digits of each character, decomposed; each character is looked at by itself, in linear time."""

    def __missing__(self, code: int) -> str:
        parts = unicodedata.normalize("NFKD", unicodedata.normalize("NFKD", chr(code)).casefold())
        self[code] = "".join(part for part in parts if part.isalnum())
        return self[code]


_LOOSENED = _Loosened()


def _loosened(text: str) -> str:
    """A text's letters and digits, without case and accents; signs count only where there is nothing else."""
    return text.translate(_LOOSENED) or " ".join(text.casefold().split())


def _digests(texts: Iterable[str]) -> set[bytes]:
    """Hashes of the different texts that are not blank."""
    loosened = (_loosened(text) for text in texts)
    return {hashlib.blake2b(text.encode("utf-8", "replace"), digest_size=16).digest() for text in loosened if text}


def _share(some: set[bytes], others: set[bytes]) -> float:
    return len(some & others) / len(some) if some else 0.0
