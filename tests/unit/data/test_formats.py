"""Dialects: encodings, separators, arrays, shards and compression are read by form, or refused as a file."""

import codecs
import csv
import gzip
import io
import json
import time
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import datasets
import pyarrow
import pyarrow.feather
import pyarrow.parquet
import pytest
from doubles.tables import CASES

from plainchant.auditing.attacks import copied
from plainchant.config import SynthesisConfig
from plainchant.data.header import columns_of
from plainchant.data.raw import Dialect
from plainchant.data.tables import Record, fingerprint, read_records, read_texts
from plainchant.errors import ConfigError, DataError, DataNote
from plainchant.run.inputs import read_table

MARKER = "zqxsecretzqx"
ROWS = [{"text": f"café {number}, naïve", "label": ("red", "blue")[number % 2]} for number in range(6)]
RECORDS = [Record(row["text"], row["label"], None) for row in ROWS]
GERMAN = [{"text": f"Straße {n}: Gerät für Müller", "label": "red"} for n in range(80)]


def _csv(rows: list[dict[str, str]], separator: str = ",") -> str:
    content = io.StringIO()
    writer = csv.DictWriter(content, list(rows[0]), delimiter=separator, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return content.getvalue()


def _jsonl(rows: list[dict[str, str]]) -> str:
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)


def _read(path: Path, **dialect: Any) -> list[Record]:
    return read_records(path, label_column="label", dialect=Dialect(**dialect))


def _write(path: Path, content: str | bytes) -> Path:
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def _case(name: str) -> Path:
    if not (CASES / name).exists():
        pytest.skip(f"../shared/cases/{name} is not there")
    return CASES / name


# Encodings


@pytest.mark.parametrize("mark", ["utf-8-sig", "utf-16", "utf-32"])
@pytest.mark.parametrize(("name", "make"), [("rows.csv", _csv), ("rows.jsonl", _jsonl)])
def test_a_byte_order_mark_is_enough(mark: str, name: str, make: Callable[..., str], tmp_path: Path) -> None:
    path = _write(tmp_path / name, make(ROWS).encode(mark))
    if mark == "utf-8-sig":
        assert _read(path) == RECORDS
    else:
        with pytest.warns(DataNote, match=f"is read as {mark.upper()}, by the byte order mark"):
            assert _read(path) == RECORDS
    big = codecs.BOM_UTF16_BE + make(ROWS).encode("utf-16-be")
    with pytest.warns(DataNote, match="UTF-16"):
        assert _read(_write(tmp_path / name, big)) == RECORDS


@pytest.mark.parametrize("encoding", ["cp1252", "latin-1", "utf-16-le", "utf-8", "gb18030"])
def test_an_encoding_can_be_given(encoding: str, tmp_path: Path) -> None:
    path = _write(tmp_path / "rows.csv", _csv(ROWS).encode(encoding))
    assert _read(path, encoding=encoding) == RECORDS
    config = SynthesisConfig(label_column="label", labels=("red", "blue"), encoding=encoding, method="invisibleink")
    assert read_table(path, config) == RECORDS


@pytest.mark.parametrize(
    ("encoding", "rows"), [("cp1252", GERMAN), ("shift_jis", [{"text": "こんにちは世界", "label": "red"}])]
)
@pytest.mark.parametrize(("name", "make"), [("rows.csv", _csv), ("rows.jsonl", _jsonl)])
def test_another_encoding_is_refused_and_never_mended(
    encoding: str, rows: list[dict[str, str]], name: str, make: Callable[..., str], tmp_path: Path
) -> None:
    path = _write(tmp_path / name, make(rows).encode(encoding))
    with pytest.raises(DataError, match=r"set encoding \(--encoding\) to what it was saved in"):
        _read(path)
    assert [record.text for record in _read(path, encoding=encoding)] == [row["text"] for row in rows]
    with pytest.raises(DataError, match=r"encoding = ascii: .* not ASCII"):
        _read(path, encoding="ascii")


@pytest.mark.parametrize("name", ["cp1252.csv", "sjis.csv"])
def test_files_of_other_encodings(name: str) -> None:
    with pytest.raises(DataError, match="--encoding"):
        _read(_case(name))
    encoding = {"cp1252.csv": "cp1252", "sjis.csv": "shift_jis"}[name]
    records = _read(_case(name), encoding=encoding)
    assert not any("\ufffd" in record.text for record in records)
    assert len(records) in (1, 80)


def test_one_broken_line_changes_no_other_and_is_told(tmp_path: Path) -> None:
    whole = _csv(ROWS * 30)
    with pytest.warns(DataNote, match=r"not UTF-8 \(1\)"):
        records = _read(_write(tmp_path / "rows.csv", whole.encode() + b"br\xe9ken,red\n"))
    assert records == [*RECORDS * 30, Record("br\ufffdken", "red", None)]


@pytest.mark.parametrize("name", ["no-such-encoding", "utf-7", "base64", "idna", ""])
def test_an_encoding_that_is_none_is_refused(name: str) -> None:
    with pytest.raises(ConfigError, match="encoding = "):
        SynthesisConfig(encoding=name)


def test_a_public_corpus_in_another_encoding_is_refused_without_an_option(tmp_path: Path) -> None:
    for name in ("corpus.txt", "corpus.csv"):
        with pytest.raises(DataError, match="not UTF-8: save it as UTF-8"):
            read_texts(_write(tmp_path / name, _csv(GERMAN).encode("cp1252")))


def test_marks_that_a_text_holds_by_itself_are_no_broken_bytes(tmp_path: Path) -> None:
    rows = [{"text": "mangled \ufffd before", "label": "red"}] * 50
    path = _write(tmp_path / "rows.csv", _csv(rows).encode() + b"br\xe9ken,red\n")
    with pytest.warns(DataNote, match=r"not UTF-8 \(1\)"):
        assert len(_read(path)) == 51


def test_utf16_file() -> None:
    with pytest.warns(DataNote, match="UTF-16"):
        records = _read(_case("utf16.csv"))
    assert [record.label for record in records] == ["red", "blue", "red"]
    assert records[0].text == "The café on Müller street"


# Separators


@pytest.mark.parametrize("separator", [";", "\t", "|"])
def test_a_separator_is_found_in_the_header(separator: str, tmp_path: Path) -> None:
    path = _write(tmp_path / "rows.csv", _csv(ROWS, separator))
    with pytest.warns(DataNote, match="is read with the separator"):
        assert _read(path) == RECORDS
    assert _read(path, separator=separator) == RECORDS
    with pytest.raises(DataError, match="another separator: --separator"):
        _read(path, separator=",")


def test_a_separator_can_have_a_name_or_be_any_character(tmp_path: Path) -> None:
    assert _read(_write(tmp_path / "rows.csv", _csv(ROWS, "\t")), separator="tab") == RECORDS
    assert _read(_write(tmp_path / "rows.csv", _csv(ROWS, "^")), separator="^") == RECORDS
    for name in ("ab", "", '"', "\n", "é"):
        with pytest.raises(ConfigError, match="separator = "):
            SynthesisConfig(separator=name)


def test_a_comma_in_the_header_stays_one(tmp_path: Path) -> None:
    path = _write(tmp_path / "rows.csv", "text,label\na;b;c,red\n")
    assert _read(path) == [Record("a;b;c", "red", None)]
    assert _read(_write(tmp_path / "rows.tsv", _csv(ROWS, "\t"))) == RECORDS


def test_semicolon_file() -> None:
    with pytest.warns(DataNote, match="separator ';'"):
        records = _read(_case("semi.csv"))
    assert [record.text for record in records] == ["The café on Müller street", "naïve tëxt here", "third"]


# JSON


def test_an_array_with_one_object_a_line(tmp_path: Path) -> None:
    objects = [json.dumps(row) for row in ROWS]
    for content in (
        "[\n" + ",\n".join(objects) + "\n]\n",
        "[" + ",\n".join(objects) + "]",
        "[\n" + "\n,\n".join(objects) + "\n]",
        "[\n" + " ,\r\n".join(objects) + "\r\n]",
    ):
        assert _read(_write(tmp_path / "rows.jsonl", content)) == RECORDS
        assert _read(_write(tmp_path / "rows.json", content)) == RECORDS


def test_other_json_documents(tmp_path: Path) -> None:
    assert _read(_write(tmp_path / "rows.json", json.dumps(ROWS, indent=2))) == RECORDS
    assert _read(_write(tmp_path / "rows.json", _jsonl(ROWS))) == RECORDS
    for content in (json.dumps(ROWS, indent=2), json.dumps(ROWS), json.dumps({"data": ROWS})):
        with pytest.raises(DataError):
            _read(_write(tmp_path / "rows.jsonl", content))


def test_array_lines_file() -> None:
    records = _read(_case("array_lines.jsonl"))
    assert records == _read(_case("base.jsonl"))
    assert len(records) == 80
    assert all(record.text for record in records)


def test_no_single_row_decides_about_a_column() -> None:
    rows: list[dict[str, Any]] = [{"text": f"note {n}"} for n in range(60)]
    columns: Any = {"label_column": "label", "unit_column": "unit"}
    for others in (rows, [*rows, {"text": "x", "label": "a", "unit": "u"}]):
        with pytest.raises(DataError, match=r"label_column='label' is not a column of data of type list, .*: set"):
            read_records(others, **columns)
    some = [*rows, *[{"text": "x", "label": "a", "unit": "u"}] * 10]
    assert read_records(some, **columns)[0] == Record("note 0", None, None)
    assert read_records([*some, {MARKER: 1}], **columns)[:-1] == read_records(some, **columns)
    with pytest.raises(DataError) as caught:
        read_records([*some, {MARKER: 1}], text_column="other")
    assert MARKER not in str(caught.value)


# Columns that cannot be a text


@pytest.mark.parametrize(
    ("kind", "value"),
    [
        (pyarrow.struct({MARKER: pyarrow.string()}), {MARKER: "x"}),
        (pyarrow.list_(pyarrow.string()), ["x"]),
        (pyarrow.map_(pyarrow.string(), pyarrow.string()), [("a", "x")]),
        (pyarrow.binary(), b"x"),
        (pyarrow.timestamp("us"), 0),
        (pyarrow.date32(), 0),
    ],
)
def test_a_text_column_of_a_wrong_type_is_refused(kind: pyarrow.DataType, value: Any, tmp_path: Path) -> None:
    table = pyarrow.table({"text": pyarrow.array([value] * 3, kind)})
    pyarrow.parquet.write_table(table, tmp_path / "rows.parquet")
    sources: list[Any] = [table, tmp_path / "rows.parquet"]
    if not pyarrow.types.is_map(kind):  # the package datasets has none
        sources.append(datasets.Dataset(table))
    for source in sources:
        with pytest.raises(DataError, match=r"text_column: .* which cannot be a text") as caught:
            read_records(source)
        assert MARKER not in str(caught.value)


def test_struct_file() -> None:
    with pytest.raises(DataError, match="is of type struct, which cannot be a text"):
        _read(_case("struct_text.parquet"))


# Compression, shards, Arrow files


def test_compressed_files(tmp_path: Path) -> None:
    for name, content in (("rows.jsonl", _jsonl(ROWS)), ("rows.csv", _csv(ROWS))):
        assert _read(_write(tmp_path / f"{name}.gz", gzip.compress(content.encode()))) == RECORDS
        with pyarrow.output_stream(tmp_path / f"{name}.zst", compression="zstd") as stream:
            stream.write(content.encode())
        assert _read(tmp_path / f"{name}.zst") == RECORDS
    assert read_texts(_write(tmp_path / "corpus.txt.gz", gzip.compress(b"a\nb\n"))) == ["a", "b"]


def test_arrow_files(tmp_path: Path) -> None:
    table = pyarrow.Table.from_pylist(ROWS)
    pyarrow.feather.write_feather(table, tmp_path / "rows.feather")
    with pyarrow.ipc.new_stream(tmp_path / "rows.arrow", table.schema) as writer:
        writer.write_table(table)
    assert _read(tmp_path / "rows.feather") == _read(tmp_path / "rows.arrow") == RECORDS
    with pytest.raises(DataError, match="cannot be parsed as Arrow"):
        _read(_write(tmp_path / "rows.arrow", MARKER))


def test_a_directory_of_shards(tmp_path: Path) -> None:
    _write(tmp_path / "part-1.jsonl", _jsonl(ROWS[3:]))
    _write(tmp_path / "part-0.jsonl", _jsonl(ROWS[:3]))
    _write(tmp_path / "README.md", MARKER)
    with pytest.warns(DataNote, match="as the 2 files in it"):
        assert _read(tmp_path) == RECORDS
    _write(tmp_path / "part-2.csv", _csv(ROWS))
    with pytest.raises(DataError, match="several formats"):
        _read(tmp_path)


@pytest.mark.filterwarnings("ignore::plainchant.errors.DataNote")
@pytest.mark.parametrize("suffix", [".json", ".ndjson", ".feather", ".arrow", ".parquet"])
def test_a_directory_holds_shards_of_any_format_that_is_read(tmp_path: Path, suffix: str) -> None:
    table = pyarrow.Table.from_pylist(ROWS)
    for part in range(2):
        path = tmp_path / f"part-{part}{suffix}"
        if suffix in (".json", ".ndjson"):
            _write(path, _jsonl(ROWS))
        elif suffix == ".parquet":
            pyarrow.parquet.write_table(table, path)
        else:
            with pyarrow.ipc.new_file(path, table.schema) as writer:
                writer.write_table(table)
    assert _read(tmp_path) == _read(tmp_path / f"part-0{suffix}") * 2
    assert [column.name for column in columns_of(tmp_path)[0]] == list(ROWS[0])


# Time and memory


def _long(size: int) -> dict[str, str]:
    """Texts that a quadratic expression chokes on."""
    return {
        "spaces": "a" + " " * size + "b",
        "line breaks": "a" + " \r" * (size // 2) + "b",
        "carriage returns": "a" + "\r" * size + "b",
        "one word": "a" * size,
        "signs": "a" + "!" * size,
        "controls": "\x00" * size,
        "quotes": '"' * size,
        "accents": "a" + "\u0301\u0316" * (size // 2),
        "brackets": "[" * size,
    }


@pytest.mark.parametrize("kind", _long(1))
def test_a_record_of_four_megabytes_is_read_in_linear_time(kind: str, tmp_path: Path) -> None:
    row = {"text": _long(4_000_000)[kind], "label": "red", "unit": _long(100_000)[kind]}
    _write(tmp_path / "rows.jsonl", json.dumps(row) + "\n" + row["text"] + "\n" + json.dumps(row))
    _write(tmp_path / "rows.csv", _csv([row]) + row["text"] + "\n")
    _write(tmp_path / "corpus.txt", row["text"] + "\nother\n")
    began = time.monotonic()
    for name in ("rows.jsonl", "rows.csv"):
        columns: Any = {"label_column": "label", "unit_column": "unit"}
        found = read_records(tmp_path / name, **columns, labels=["red"], dialect=Dialect(allow_malformed=True))
        assert len(fingerprint(found)) == 64
        assert found[0].label == "red"
    read_texts(tmp_path / "corpus.txt")
    assert time.monotonic() - began < 30


@pytest.mark.slow
def test_a_record_of_two_hundred_megabytes_is_read_in_bounds(tmp_path: Path) -> None:
    size = 200_000_000
    path = _write(tmp_path / "rows.jsonl", '{"text": "' + "a " * (size // 2) + '"}\n')
    began = time.monotonic()
    tracemalloc.start()
    try:
        (record,) = read_records(path)
        assert len(record.text) == size
        assert tracemalloc.get_traced_memory()[1] < 6 * size
    finally:
        tracemalloc.stop()
    assert time.monotonic() - began < 60


@pytest.mark.parametrize("kind", _long(1))
def test_copies_of_a_long_record_are_looked_for_in_linear_time(kind: str) -> None:
    began = time.monotonic()
    copied(["some released text"], [_long(1_000_000)[kind]])
    assert time.monotonic() - began < 10


def test_the_padded_file_is_read_at_once() -> None:
    began = time.monotonic()
    assert len(_read(_case("padded.jsonl"))) == 80
    assert time.monotonic() - began < 5


def test_a_directory_of_shards_names_what_it_does_not_read(tmp_path: Path) -> None:
    for name in ("a.jsonl", "b.jsonl", "_c.jsonl", "d.bz2", ".e.jsonl"):
        _write(tmp_path / name, '{"text": "x"}\n')
    (tmp_path / "more").mkdir()
    with pytest.warns(DataNote, match=r"as the 2 files in it.* 4 other entries .* are not read"):
        records = read_records(tmp_path, text_column="text")
    assert len(records) == 2
