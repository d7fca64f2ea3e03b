"""Reading bytes: compression, character encodings and line ends of text files.

The encoding never depends on the content of rows: it is given by the byte order mark at the beginning of the file, by
the option `encoding`, or else is UTF-8. A line whose bytes do not fit is still a line and affects no other: its bad
bytes become U+FFFD. A file in which this is no exception is in another encoding, and is refused.
"""

import codecs
import contextlib
import itertools
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from plainchant.errors import ConfigError, DataError

AUTO = "auto"
_MARKS = (
    (codecs.BOM_UTF8, "utf-8"),
    (codecs.BOM_UTF32_LE, "utf-32"),  # before UTF-16, whose mark it begins with
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
_COMPRESSIONS = {".gz": "gzip", ".zst": "zstd"}
_UNSUITABLE = {"utf-7", "idna", "punycode", "undefined", "unicode_escape", "raw_unicode_escape", "mbcs", "oem"}
# Bytes that are read at once.
_BLOCK = 2**18
# Stands for bytes that do not fit while a text is decoded; no decoded text holds this lone surrogate.
_BAD, _MARKING = "\udcff", "plainchant.marking"
_HINTS = "cp1252 (Western Europe), cp1251 (Cyrillic), shift_jis (Japanese), gb18030 (Chinese), euc_kr (Korean), utf-16"


def _mark(error: UnicodeError) -> tuple[str, int]:
    return _BAD, error.end if isinstance(error, UnicodeDecodeError) else 0


codecs.register_error(_MARKING, _mark)


def check_encoding(name: str) -> str:
    """The name of a character encoding that files can be read in, or auto.

    Raises:
        ConfigError: there is no such encoding, or line ends do not survive it.
    """
    if name == AUTO:
        return name
    try:
        found = codecs.lookup(name)
        suitable = found.name not in _UNSUITABLE and found.decode(found.encode("a,\n")[0])[0] == "a,\n"
    except (LookupError, ValueError, TypeError):
        suitable = False
    if not suitable:
        raise ConfigError(f"encoding = {name!r}: not an encoding for text files; give auto, utf-8, {_HINTS}")
    return name


def bare_suffix(path: Path) -> str:
    """The extension that names the format, in lower case, without one for compression."""
    suffix = path.suffix.lower()
    return Path(path.stem).suffix.lower() if suffix in _COMPRESSIONS else suffix


class Lines:
    """The lines of a text file, read one after the other in bounded memory; iterated once.

    A note or an error about the encoding is known by the end of the file, or of its first block.
    """

    def __init__(self, path: Path, encoding: str, where: str, *, hint: str, allow_malformed: bool = False):
        """Of a file, decompressed if its name ends with .gz or .zst.

        Args:
            path: the file.
            encoding: a name, or auto: by the byte order mark, or UTF-8 if there is none.
            where: the file, for messages.
            hint: what to do about another encoding.
            allow_malformed: accept any number of lines whose bytes do not fit.
        """
        self._path, self._encoding, self._where, self._hint = path, encoding, where, hint
        self._allow_malformed = allow_malformed
        self._bad = self._lines = 0
        self._name = self._codec = "utf-8"
        self._notes: tuple[str, ...] = ()

    @property
    def notes(self) -> tuple[str, ...]:
        """Sentences for the holder of the data, once all lines are read."""
        if not self._bad:
            return self._notes
        return (
            *self._notes,
            f"{self._where} has lines with bytes that are not {self._name.upper()} ({self._bad}); each such byte is "
            f"read as U+FFFD. If it was saved in another encoding, {self._hint}.",
        )

    def __iter__(self) -> Iterator[str]:
        """Lines without their ends; bytes that do not fit are lone surrogates or U+FFFD.

        Raises:
            DataError: no file, not readable, broken compression, or too many lines do not fit the encoding.
        """
        first, blocks = True, _blocks(self._path, self._where)
        for lines in self._split(blocks):
            if first:
                # a file of one block is judged before its first line is used
                self._check()
                lines[0] = lines[0].removeprefix("\ufeff")
                first = False
            yield from lines
        self._check()

    def _choose(self, block: bytes) -> None:
        marked = next((name for mark, name in _MARKS if block.startswith(mark)), None)
        self._name = codecs.lookup((marked or "utf-8") if self._encoding == AUTO else self._encoding).name
        self._codec = self._name
        if marked != self._name and self._name in ("utf-16", "utf-32"):
            # without a mark in the order of this machine, as Python has it; a stream of them would be refused
            self._codec += "-le" if sys.byteorder == "little" else "-be"
        if self._encoding == AUTO and self._name not in ("utf-8", "ascii"):
            self._notes = (f"{self._where} is read as {self._name.upper()}, by the byte order mark at its beginning.",)

    @property
    def _by_line(self) -> bool:
        """Whether each line can be decoded by itself, so that a broken character never swallows a line end."""
        return "\n".encode(self._name) == b"\n" and not self._name.startswith(("iso2022", "hz"))

    def _split(self, blocks: Iterator[bytes]) -> Iterator[list[str]]:
        """The lines that end in each block."""
        block = next(blocks, b"")
        self._choose(block)
        if not self._by_line:
            yield from self._decode_and_split(itertools.chain((block,), blocks))
            return
        begun: list[bytes] = []
        while True:
            ahead = next(blocks, None)
            head, *others = block.split(b"\n")
            begun.append(head)
            if others or ahead is None:
                whole = [b"".join(begun), *others]
                begun = [] if ahead is None else [whole.pop()]
                yield [self._decoded(line) for line in whole]
            if ahead is None:
                return
            block = ahead

    def _decoded(self, line: bytes) -> str:
        try:
            text = line.decode(self._name)
        except UnicodeDecodeError:
            try:
                text = line.decode(self._name, "surrogateescape")
            except UnicodeDecodeError:  # a codec whose broken characters begin below 128
                text = line.decode(self._name, "replace")
            self._bad += bool(text.strip())
        self._lines += bool(text.strip())
        return text

    def _decode_and_split(self, blocks: Iterable[bytes]) -> Iterator[list[str]]:
        """The same for encodings whose characters do not stand for themselves: a small file is one list."""
        decoder, rest = codecs.getincrementaldecoder(self._codec)(_MARKING), ""
        for block, ahead in itertools.pairwise(itertools.chain(blocks, (None,))):
            text = rest + decoder.decode(block or b"", ahead is None)
            lines = text.split("\n")
            rest = "" if ahead is None else lines.pop()
            self._lines += sum(bool(line.strip()) for line in lines)
            self._bad += sum(_BAD in line for line in lines)
            if lines:
                yield [line.replace(_BAD, "\ufffd") for line in lines]

    def _check(self) -> None:
        bad, lines = self._bad, self._lines
        # a single line does not decide, unless there are hardly any others
        if bad and not self._allow_malformed and (2 * bad >= lines or (bad > 1 and 100 * bad > lines)):
            given = "" if self._encoding == AUTO else f"encoding = {self._encoding}: "
            raise DataError(
                f"{given}{self._where} has too many lines that are not {self._name.upper()}: {self._hint}. Encodings "
                f"are, for example, {_HINTS}. It must be text: JSON objects or CSV rows."
            )


def _blocks(path: Path, where: str) -> Iterator[bytes]:
    """The content of a file in blocks, decompressed if its name ends with .gz or .zst."""
    if not path.is_file():
        raise DataError(f"{where} does not exist as a file: check the path.")
    compression = _COMPRESSIONS.get(path.suffix.lower())
    try:
        with contextlib.ExitStack() as stack:
            if compression is None:
                stream: Any = stack.enter_context(path.open("rb"))
            else:
                import pyarrow

                stream = stack.enter_context(pyarrow.input_stream(str(path), compression=compression))
            while block := stream.read(_BLOCK):
                yield bytes(block)
    except OSError as error:
        if compression is not None and error.errno is None:
            raise DataError(f"{where} cannot be decompressed: compress it again.") from None
        raise DataError(f"{where} cannot be read ({error.strerror}): check its permissions.") from None
