"""Reading bytes: compression, character encodings and line ends of text files.

The encoding never depends on the content of rows: it is given by the byte order mark at the beginning of the file, by
the option `encoding`, or else is UTF-8. A line whose bytes do not fit is still a line and affects no other: its bad
bytes become U+FFFD. A file in which this is no exception is in another encoding, and is refused.
"""

import codecs
import re
from dataclasses import dataclass
from pathlib import Path

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
_BAD_BYTE = re.compile("[\udc80-\udcff]")
_REPLACED = re.compile("\ufffd")
_HINTS = "cp1252 (Western Europe), cp1251 (Cyrillic), shift_jis (Japanese), gb18030 (Chinese), euc_kr (Korean), utf-16"


@dataclass(frozen=True)
class Decoded:
    """A text file as text.

    Attributes:
        text: the text without a byte order mark; bytes that do not fit are lone surrogates or U+FFFD.
        notes: sentences for the holder of the data.
    """

    text: str
    notes: tuple[str, ...]


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


def read_bytes(path: Path, where: str) -> bytes:
    """The content of a file, decompressed if its name ends with .gz or .zst.

    Raises:
        DataError: no file, not readable, or broken compression.
    """
    if not path.is_file():
        raise DataError(f"{where} does not exist as a file: check the path.")
    compression = _COMPRESSIONS.get(path.suffix.lower())
    try:
        if compression is None:
            return path.read_bytes()
        import pyarrow

        with pyarrow.input_stream(str(path), compression=compression) as stream:
            return bytes(stream.read())
    except OSError as error:
        if compression is not None and error.errno is None:
            raise DataError(f"{where} cannot be decompressed: compress it again.") from None
        raise DataError(f"{where} cannot be read ({error.strerror}): check its permissions.") from None


def decode(content: bytes, encoding: str, where: str, *, hint: str, allow_malformed: bool = False) -> Decoded:
    """The text of a file.

    Args:
        content: its bytes.
        encoding: a name, or auto: by the byte order mark, or UTF-8 if there is none.
        where: the file, for messages.
        hint: what to do about another encoding.
        allow_malformed: accept any number of lines whose bytes do not fit.

    Raises:
        DataError: too many lines do not fit the encoding.
    """
    marked = next((name for mark, name in _MARKS if content.startswith(mark)), None)
    name = codecs.lookup((marked or "utf-8") if encoding == AUTO else encoding).name
    notes = []
    if encoding == AUTO and name not in ("utf-8", "ascii"):
        notes.append(f"{where} is read as {name.upper()}, by the byte order mark at its beginning.")
    if name == "utf-8":
        content = content.removeprefix(codecs.BOM_UTF8)
    try:
        return Decoded(content.decode(name).removeprefix("\ufeff"), tuple(notes))
    except UnicodeDecodeError:
        pass
    text, mark = _lenient(content, name)
    bad, lines = _bad_lines(text, mark)
    # a single line does not decide, unless there are hardly any others
    if not allow_malformed and (2 * bad >= lines or (bad > 1 and 100 * bad > lines)):
        given = "" if encoding == AUTO else f"encoding = {encoding}: "
        raise DataError(
            f"{given}{where} has too many lines that are not {name.upper()}: {hint}. Encodings are, for example, "
            f"{_HINTS}. It must be text: JSON objects or CSV rows."
        )
    notes.append(
        f"{where} has lines with bytes that are not {name.upper()} ({bad}); each such byte is read as U+FFFD. If it "
        f"was saved in another encoding, {hint}."
    )
    return Decoded(text.removeprefix("\ufeff"), tuple(notes))


def _lenient(content: bytes, name: str) -> tuple[str, re.Pattern[str]]:
    """The text with marks in place of bytes that do not fit, and the pattern of such a mark."""
    if name.startswith(("utf-16", "utf-32")):
        return content.decode(name, "replace"), _REPLACED
    # line by line, so that a broken character never swallows a line end
    lines = content.split(b"\n")
    try:
        return "\n".join(line.decode(name, "surrogateescape") for line in lines), _BAD_BYTE
    except UnicodeDecodeError:  # a codec whose broken characters begin below 128
        return "\n".join(line.decode(name, "replace") for line in lines), _REPLACED


def _bad_lines(text: str, mark: re.Pattern[str]) -> tuple[int, int]:
    """The number of lines with a mark, and of lines that are not blank."""
    lines = [line for line in text.split("\n") if line.strip()]
    return sum(mark.search(line) is not None for line in lines), len(lines)
