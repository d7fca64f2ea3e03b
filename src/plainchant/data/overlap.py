"""Compares the public corpus, the prompt's examples and the centres with the private table.

The guarantee assumes that these inputs are public. If they hold private rows, the user is told before anything is read
into a model or spent. The answer depends on private rows, so it is for the holder of the data only.

Whole texts are compared by their hashes, without regard to case, white space and control characters, in time
proportional to their length. Parts of texts, paraphrases and blank texts are not compared. A file of centres holds no
text, so only the content of the whole file is compared.
"""

import hashlib
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from plainchant.data.tables import Record
from plainchant.errors import PrivacyError

# Above this share two sets of texts count as the same.
MOST = 0.5


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
    centres: str | int | None = None,
) -> Overlap:
    """Compares the inputs that count as public with the private table.

    Args:
        source: the source of the table; a path, or anything else.
        table: its records.
        public_corpus: the file of public texts, if there is one.
        corpus: its texts.
        examples: the texts of the prompt's examples.
        centres: the path of saved centres; a number means that there is no file.

    Returns:
        The shares of common texts, each at most `MOST`.

    Raises:
        PrivacyError: an input is the private file itself, or more than `MOST` of either side is the same. The message
            shows no row.
    """
    files = {"public_corpus": public_corpus, "centres": centres if isinstance(centres, str) else None}
    for field, path in files.items():
        if path is not None and _same_file(source, path):
            raise _refusal(field, "is the private table itself")
    private, public, shown = _digests(record.text for record in table), _digests(corpus), _digests(examples)
    overlap = Overlap(_share(public, private), _share(private, public), _share(shown, private))
    if max(overlap.of_corpus, overlap.of_table) > MOST:
        raise _refusal("public_corpus", "holds most of the private table's texts, or is mostly made of them")
    if overlap.of_examples > MOST:
        raise _refusal("prompt.examples", "are mostly texts of the private table")
    return overlap


def _refusal(field: str, what: str) -> PrivacyError:
    return PrivacyError(
        f"{field}: {what}; public inputs must not contain private data. Give other public texts; nothing was spent"
    )


def _same_file(source: Any, path: str) -> bool:
    if not isinstance(source, (str, os.PathLike)):
        return False
    one, other = Path(source), Path(path)
    if not (one.is_file() and other.is_file()):
        return one.is_dir() and other.is_dir() and one.samefile(other)
    if one.samefile(other):
        return True
    return one.stat().st_size == other.stat().st_size and _digest_of(one) == _digest_of(other)


def _digest_of(path: Path) -> bytes:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").digest()


def _digests(texts: Iterable[str]) -> set[bytes]:
    """Hashes of the different texts that are not blank."""
    normal = (" ".join(text.casefold().split()) for text in texts)
    return {hashlib.blake2b(text.encode("utf-8", "replace"), digest_size=16).digest() for text in normal if text}


def _share(some: set[bytes], others: set[bytes]) -> float:
    return len(some & others) / len(some) if some else 0.0
