"""Each format, each rule for odd rows, and errors that never quote a cell."""

import csv
import datetime
import io
import json
import math
import sys
import traceback
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path
from typing import Any

import datasets
import numpy
import pandas
import polars
import pyarrow
import pyarrow.parquet
import pytest

from plainchant.data.files import atomic_write, write_jsonl, write_parquet
from plainchant.data.raw import Dialect
from plainchant.data.tables import Record, fingerprint, read_records, read_texts
from plainchant.errors import DataError, DataNote, MissingDependencyError

ROWS: list[dict[str, Any]] = [
    {"id": 7, "body": 'No water,\nand no "notice"', "kind": "water", "who": "a"},
    {"id": 8, "body": "Der Bus fährt nicht 🚌", "kind": " transport ", "who": None},
    {"id": 9, "body": "", "kind": None, "who": "a"},
]
RECORDS = [
    Record('No water,\nand no "notice"', "water", "a"),
    Record("Der Bus fährt nicht 🚌", "transport", None),
    Record("", None, "a"),
]
MARKER = "zqxsecretzqx"
LENIENT = Dialect(allow_malformed=True)


def _save_jsonl(directory: Path) -> Path:
    path = directory / "rows.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in ROWS) + "\n\n")
    return path


def _save_ndjson(directory: Path) -> Path:
    return _save_jsonl(directory).rename(directory / "rows.NDJSON")


def _save_csv(directory: Path, *, name: str = "rows.csv", delimiter: str = ",") -> Path:
    path = directory / name
    with open(path, "w", newline="", encoding="utf-8-sig") as handle:
        writer = csv.DictWriter(handle, list(ROWS[0]), delimiter=delimiter)
        writer.writeheader()
        writer.writerows(ROWS)
    return path


def _save_tsv(directory: Path) -> Path:
    return _save_csv(directory, name="rows.tsv", delimiter="\t")


def _save_parquet(directory: Path) -> Path:
    path = directory / "rows.parquet"
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(ROWS), path)
    return path


def _save_dataset(directory: Path) -> Path:
    path = directory / "saved"
    datasets.Dataset.from_list(ROWS).save_to_disk(path)
    return path


SOURCES: dict[str, Callable[[Path], Any]] = {
    "jsonl": _save_jsonl,
    "ndjson": _save_ndjson,
    "csv": _save_csv,
    "tsv": _save_tsv,
    "parquet": _save_parquet,
    "string path": lambda directory: str(_save_parquet(directory)),
    "data set directory": _save_dataset,
    "pandas": lambda _: pandas.DataFrame(ROWS),
    "polars": lambda _: polars.DataFrame(ROWS),
    "polars lazy": lambda _: polars.DataFrame(ROWS).lazy(),
    "pyarrow": lambda _: pyarrow.Table.from_pylist(ROWS),
    "pyarrow batch": lambda _: pyarrow.RecordBatch.from_pylist(ROWS),
    "datasets": lambda _: datasets.Dataset.from_list(ROWS),
    "datasets view": lambda _: datasets.Dataset.from_list(ROWS[::-1]).select([2, 1, 0]),
    "dicts": lambda _: ROWS,
    "generator": lambda _: (row for row in ROWS),
}


@pytest.mark.parametrize("name", SOURCES)
def test_every_source_gives_the_same_records(name: str, tmp_path: Path) -> None:
    source = SOURCES[name](tmp_path)
    assert read_records(source, text_column="body", label_column="kind", unit_column="who") == RECORDS


def test_label_and_unit_are_optional() -> None:
    assert read_records(ROWS, text_column="body") == [Record(record.text, None, None) for record in RECORDS]


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, ""),
        (math.nan, ""),
        (numpy.float32("nan"), ""),
        (Decimal("sNaN"), ""),
        (pandas.NA, ""),
        (pandas.NaT, ""),
        (["a"], ""),
        ({"a": 1}, ""),
        (numpy.array(["a"]), ""),
        (datetime.date(2024, 1, 1), ""),
        (object(), ""),
        (7, "7"),
        (7.0, "7"),
        (7.5, "7.5"),
        (math.inf, "inf"),
        (numpy.float32(2.0), "2"),
        (Decimal("2.50"), "2.50"),
        pytest.param(10**5000, "", id="integer too long for str"),
        (True, "True"),
        (numpy.bool_(False), "False"),
        ("1.0", "1.0"),
        (" kept ", " kept "),
        (b"caf\xc3\xa9 \xff", "café \ufffd"),
        ("a\x00b\x1bc\x85d\te\nf\r\ng\rh", "a b c d\te\nf\ng h"),
        ("\ud800x", "\ufffdx"),
    ],
)
def test_text_of_one_cell(value: Any, text: str) -> None:
    assert read_records([{"text": value}], dialect=LENIENT) == [Record(text, None, None)]


class _Broken:
    def __str__(self) -> str:
        raise RuntimeError(MARKER)


@pytest.mark.parametrize(
    ("value", "name"),
    [
        (None, None),
        (math.nan, None),
        (pandas.NA, None),
        ("", None),
        (" \t", None),
        (_Broken(), None),
        (" spam ", "spam"),
        ("1.0", "1.0"),
        (1.0, "1"),
        (Decimal("1.0"), "1"),
        (0.5, "0.5"),
        (-0.0, "0"),
        (3, "3"),
        (False, "False"),
        ([3, 4], "[3, 4]"),
        (datetime.date(2024, 1, 1), "2024-01-01"),
        ("a\x00b", "a b"),
    ],
)
def test_label_of_one_cell(value: Any, name: str | None) -> None:
    assert read_records([{"text": "x", "label": value}], label_column="label") == [Record("x", name, None)]


def test_a_missing_value_elsewhere_changes_no_other_record() -> None:
    whole = pandas.DataFrame({"text": ["a", "b"], "label": [1, 2]})
    holed = pandas.DataFrame({"text": ["a", "b"], "label": [1, None]})
    columns = {"label_column": "label", "unit_column": "label"}
    assert read_records(whole, **columns)[0] == read_records(holed, **columns)[0]  # type: ignore[arg-type]


def test_malformed_jsonl_lines_are_empty_records(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_bytes(
        b'\xef\xbb\xbf{"text": "first", "label": "a", "unit": "u"}\n'
        b'{"text": "cut off\n'
        b"\n"
        b'["text"]\n'
        b"\xff\xfe\n"
        + b"[" * 100_000
        + b"\n"
        + b'{"label": "b"}\r\n'
        + b'{"text": "caf\xc3\xa9 \xff \\u0000 \\ud800 \xe2\x80\xa8"}'
    )
    empty = Record("", None, None)
    with pytest.raises(DataError, match="--encoding"):
        read_records(path, label_column="label", unit_column="unit")
    with pytest.warns(DataNote, match="U\\+FFFD"):
        records = read_records(path, label_column="label", unit_column="unit", dialect=LENIENT)
    assert records == [
        Record("first", "a", "u"),
        *[empty] * 4,
        Record("", "b", None),
        Record("café \ufffd   \ufffd \u2028", None, None),
    ]


@pytest.mark.parametrize(
    ("bad", "count"),
    [
        ("one field", 1),
        ("three,fields,here", 1),
        ('"never closed,b', 1),
        ('"closed" too early,b', 1),
        ('"two lines\nand one field"', 1),
        ("", 0),
    ],
)
@pytest.mark.parametrize("after", ["last,d\n", "last,d", '"last",d\n', '\n"last","d"\n\n'])
def test_a_malformed_csv_row_leaves_the_others(bad: str, count: int, after: str, tmp_path: Path) -> None:
    path = tmp_path / "rows.csv"
    path.write_text(f"text,label\nfirst,c\n{bad}\n{after}")
    records = read_records(path, label_column="label")
    assert records == [Record("first", "c", None), *[Record("", None, None)] * count, Record("last", "d", None)]


def test_csv_with_every_oddity(tmp_path: Path) -> None:
    long = " ".join(["word"] * 50_000)
    path = tmp_path / "rows.csv"
    path.write_bytes(
        b'\xef\xbb\xbftext,label\r\n"line 1\r\nline 2, ""quoted""",a\r\n'
        b"nul\x00 \xff,\r\nlone\rreturn,b\r\r\n" + f'"{long}",c\r\n{long},c'.encode()
    )
    with pytest.warns(DataNote, match="U\\+FFFD"):
        records = read_records(path, label_column="label")
    assert records == [
        Record('line 1\nline 2, "quoted"', "a", None),
        Record("nul  \ufffd", None, None),
        Record("lone return", "b", None),
        *[Record(long, "c", None)] * 2,
    ]


def test_parquet_with_invalid_utf8_and_dictionaries(tmp_path: Path) -> None:
    broken = pyarrow.array([b"ok", b"\xff", None], pyarrow.binary()).view(pyarrow.string())
    columns = {
        "text": broken,
        "label": pyarrow.array(["a", None, "a"]).dictionary_encode(),
        "unit": pyarrow.array(["x", None, "x"]).dictionary_encode(),
    }
    path = tmp_path / "rows.parquet"
    pyarrow.parquet.write_table(pyarrow.table(columns), path)
    expected = [Record("ok", "a", "x"), Record("\ufffd", None, None), Record("", "a", "x")]
    assert read_records(path, label_column="label", unit_column="unit") == expected
    assert read_records(pyarrow.table(columns), label_column="label", unit_column="unit") == expected


def test_items_that_are_no_dicts_are_empty_records() -> None:
    with pytest.raises(DataError, match=r"most rows .* are malformed"):
        read_records([{"text": "a"}, "b", None, 3])
    assert read_records([{"text": "a"}, "b", None, 3], dialect=LENIENT) == [
        Record("a", None, None),
        *[Record("", None, None)] * 3,
    ]


def _written(name: str, content: str | bytes) -> Callable[[Path], Path]:
    def write(directory: Path) -> Path:
        path = directory / name
        path.write_bytes(content.encode() if isinstance(content, str) else content)
        return path

    return write


def _save_splits(directory: Path) -> Path:
    rows = datasets.Dataset.from_list([{"text": MARKER}])
    datasets.DatasetDict({"train": rows, "test": rows}).save_to_disk(directory / "splits")
    return directory / "splits"


def _save_broken_dataset(directory: Path) -> Path:
    path = directory / "broken"
    path.mkdir()
    (path / "state.json").write_text(MARKER)
    return path


BAD_TABLES: dict[str, tuple[Callable[[Path], Any], str]] = {
    "missing": (lambda directory: directory / "none.csv", "check the path"),
    "name too long": (lambda directory: directory / ("n" * 5000 + ".csv"), "check the path"),
    "no name": (lambda directory: f"{directory}/a\0b.csv", "not a valid path"),
    "extension": (_written("rows.xlsx", MARKER), "convert it to one of .jsonl"),
    "no extension": (_written("rows", MARKER), "convert it to one of .jsonl"),
    "empty jsonl": (_written("rows.jsonl", "\n \n"), "at least one"),
    "empty csv": (_written("rows.csv", ""), "at least one"),
    "csv with a header only": (_written("rows.csv", "text,label\n"), "at least one"),
    "empty parquet": (_written("rows.parquet", ""), "cannot be parsed as Parquet"),
    "broken parquet": (_written("rows.parquet", MARKER * 100), "cannot be parsed as Parquet"),
    "no json": (_written("rows.jsonl", f"{MARKER}\n[1]\n"), "write each as"),
    "utf-16 without a mark": (_written("rows.jsonl", json.dumps({"text": MARKER}).encode("utf-16-le")), "--encoding"),
    "most rows malformed": (_written("rows.jsonl", f'{{"text": "{MARKER}"}}\n' + "{\n" * 2), "are malformed"),
    "most rows empty": (lambda _: [{"text": MARKER}, {"text": ""}, {"text": None}], "have no text"),
    "json array": (_written("rows.json", f'[{{"text": "{MARKER}"}}, {{"text":]'), "as a JSON array"),
    "broken gzip": (_written("rows.jsonl.gz", MARKER), "decompress"),
    "other encoding": (_written("rows.csv", f"text\n{MARKER}\xe9\n".encode("latin-1")), "--encoding"),
    "jsonl column": (_written("rows.jsonl", json.dumps({"body": MARKER, "id": 1})), "set text_column (--text-column)"),
    "csv column": (_written("rows.csv", f"body,id\n{MARKER},1\n"), "2 other names in its header row"),
    "csv without a header": (_written("rows.csv", f"I am {MARKER},x\n"), "where the header is missing"),
    "csv with a broken header": (_written("rows.csv", f'"{MARKER}\n'), "name the columns"),
    "splits": (_save_splits, "train"),
    "broken data set": (_save_broken_dataset, "save it again"),
    "other directory": (lambda directory: directory, "directory without a data set"),
    "no rows": (lambda _: [], "at least one"),
    "no dicts": (lambda _: [MARKER], "write each as"),
    "no table": (lambda _: 3, "is not a table"),
    "dict": (lambda _: {"text": [MARKER]}, "is not a table"),
    "series": (lambda _: pandas.Series([MARKER]), "write each as"),
    "pandas column": (lambda _: pandas.DataFrame({"body": [MARKER]}), "the columns body: set text_column"),
    "pandas no rows": (lambda _: pandas.DataFrame({"text": []}), "at least one"),
    "polars column": (lambda _: polars.DataFrame({"body": [MARKER]}), "the columns body: set text_column"),
    "pyarrow column": (lambda _: pyarrow.table({"body": [MARKER]}), "the columns body: set text_column"),
    "datasets no rows": (lambda _: datasets.Dataset.from_dict({"text": []}), "at least one"),
    "split dict": (lambda _: datasets.DatasetDict({"a": datasets.Dataset.from_dict({"text": [MARKER]})}), "one split"),
}


@pytest.mark.parametrize("name", BAD_TABLES)
def test_whole_table_errors_name_the_next_step_and_no_cell(name: str, tmp_path: Path) -> None:
    make, next_step = BAD_TABLES[name]
    with pytest.raises(DataError) as caught:
        read_records(make(tmp_path))
    assert next_step in str(caught.value)
    assert caught.value.exit_code == 2
    assert MARKER not in "".join(traceback.format_exception(caught.value))


@pytest.mark.parametrize("field", ["label_column", "unit_column"])
def test_missing_columns_name_their_field_and_option(field: str) -> None:
    with pytest.raises(DataError, match=f"{field}='other' is not a column .* the columns text: set {field} \\(--"):
        read_records(pyarrow.table({"text": [MARKER]}), **{field: "other"})  # type: ignore[arg-type]
    # the keys of JSON rows are single rows' own
    with pytest.raises(
        DataError, match=rf"{field}='other' is not a column of data of type list, .*: set {field} \(--[^)]*\)\.$"
    ):
        read_records([{"text": MARKER, MARKER: 1}], **{field: "other"})  # type: ignore[arg-type]


def test_splits_are_named(tmp_path: Path) -> None:
    path = _save_splits(tmp_path)
    with pytest.raises(DataError) as caught:
        read_records(path)
    assert f"{path / 'test'}, {path / 'train'}" in str(caught.value)
    assert read_records(path / "test") == [Record(MARKER, None, None)]


def test_a_missing_datasets_package_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = _save_dataset(tmp_path)
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(MissingDependencyError, match="pip install datasets"):
        read_records(path, text_column="body")


def test_repr_hides_everything() -> None:
    record = Record(MARKER, MARKER, MARKER)
    assert MARKER not in f"{record!r} {record} {[record]}"


def test_fingerprints_tell_lists_apart() -> None:
    lists = [
        [],
        [Record("", None, None)],
        [Record("", "", None)],
        [Record("", None, "")],
        [Record("", None, None)] * 2,
        [Record("a", "b", None)],
        [Record("ab", "", None)],
        [Record("a", None, "b")],
        [Record("a", "b", None), Record("c", None, None)],
        [Record("c", None, None), Record("a", "b", None)],
    ]
    assert len({fingerprint(records) for records in lists}) == len(lists)
    assert fingerprint(RECORDS) == fingerprint(list(RECORDS))
    assert len(fingerprint([Record("\ud800", None, None)])) == 64


def test_public_texts_leave_out_blank_ones(tmp_path: Path) -> None:
    path = tmp_path / "corpus.txt"
    path.write_text("\ufeffOne line.\r\n\n  \nAnother.\n", encoding="utf-8")
    assert read_texts(path) == ["One line.", "Another."]
    assert read_texts(ROWS, text_column="body") == [record.text for record in RECORDS[:2]]


@pytest.mark.parametrize("content", ["", " \n\n"])
def test_a_public_corpus_without_text_is_refused(content: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="at least one"):
        read_texts(_written("corpus.txt", content)(tmp_path))
    with pytest.raises(DataError, match="at least one"):
        read_texts([{"text": content}])


OUT: list[dict[str, str | int | None]] = [{"text": "é\n", "label": "a"}, {"text": "b", "label": None, "cell": 3}]


def test_jsonl_written(tmp_path: Path) -> None:
    path = tmp_path / "out.jsonl"
    write_jsonl(path, iter(OUT))
    assert [json.loads(line) for line in path.read_text("utf-8").splitlines()] == OUT
    assert "é" in path.read_text("utf-8")


def test_parquet_written(tmp_path: Path) -> None:
    path = tmp_path / "out.parquet"
    write_parquet(path, iter(OUT))
    assert pyarrow.parquet.read_table(path).to_pylist() == [{**OUT[0], "cell": None}, OUT[1]]
    write_parquet(path, [])
    assert pyarrow.parquet.read_table(path).num_rows == 0


def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "out.jsonl"
    write_jsonl(path, OUT)
    before = path.read_bytes()

    def rows() -> Any:
        yield OUT[0]
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_jsonl(path, rows())
    with pytest.raises(RuntimeError), atomic_write(path) as handle:
        handle.write(b"half")
        raise RuntimeError
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


def test_a_csv_of_many_broken_quotes_is_read_in_reasonable_time(tmp_path: Path) -> None:
    path = tmp_path / "rows.csv"
    body = io.StringIO()
    for index in range(20_000):
        body.write('"broken\n' if index % 2 else '"" x,"\n')
    path.write_text("text,label\n" + body.getvalue())
    assert {record.text for record in read_records(path, dialect=LENIENT)} == {""}
