"""One row in, one record out, and no row moves another, whatever the rows hold (guarantee 3.1, 9)."""

import csv
import io
import json
import math
import tempfile
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from plainchant.config import SynthesisConfig, load_config
from plainchant.data.files import write_jsonl, write_parquet
from plainchant.data.raw import Dialect
from plainchant.data.tables import Record, fingerprint, read_records, read_texts
from plainchant.errors import PlainchantError

any_text = st.text(st.characters(exclude_categories=()), max_size=20)
scalars = (
    st.none() | st.booleans() | st.integers() | st.floats() | st.decimals() | st.fractions() | st.binary() | any_text
)
values = scalars | st.lists(scalars, max_size=2) | st.dictionaries(any_text, scalars, max_size=2) | st.dates()
# lists, dicts and floats that cannot count are refused as ids: test_units
ids = (
    st.none() | st.booleans() | st.integers() | st.floats(-(2.0**52), 2.0**52) | st.just(math.nan) | st.decimals()
    | st.fractions() | st.binary() | any_text | st.dates() | st.datetimes() | st.times() | st.timedeltas()
)  # fmt: skip
columns = st.fixed_dictionaries({}, optional={"text": values, "label": values, "unit": ids, "other": values})
odd_rows = st.lists(columns | scalars, max_size=12)
ANCHOR = {
    "text": "anchor",
    "label": "a",
    "unit": "u",
}  # a table needs its columns; what stands beside it may be anything


LENIENT = Dialect(allow_malformed=True)
pytestmark = pytest.mark.filterwarnings("ignore::plainchant.errors.DataNote")


def _read(source: Any) -> list[Record]:
    return read_records(source, label_column="label", unit_column="unit", dialect=LENIENT)


@settings(deadline=None)  # the disk and the other core are not ours alone
@given(odd_rows)
def test_each_record_is_a_function_of_its_row_alone(rows: list[Any]) -> None:
    records = _read([ANCHOR, *rows])
    assert len(records) == len(rows) + 1
    assert records == [Record("anchor", "a", "u"), *(_read([ANCHOR, row])[1] for row in rows)]


@settings(deadline=None)
@given(odd_rows, st.integers(min_value=0), columns | scalars)
def test_changing_one_row_changes_no_other_record(rows: list[Any], place: int, new: Any) -> None:
    rows = [ANCHOR, *rows]
    place %= len(rows)
    before, after = _read([*rows, ANCHOR]), _read([*rows[:place], new, *rows[place + 1 :], ANCHOR])
    assert [*before[:place], *before[place + 1 :]] == [*after[:place], *after[place + 1 :]]


@settings(deadline=None)
@given(odd_rows)
def test_records_can_always_be_encoded_and_hold_no_control_characters(rows: list[Any]) -> None:
    records = _read([ANCHOR, *rows])
    assert len(fingerprint(records)) == 64
    for record in records:
        for field in (record.text, record.label or ""):
            field.encode("utf-8")
            assert all(character in "\n\t" or ord(character) > 31 for character in field)


json_lines = st.binary(max_size=40).map(lambda line: line.replace(b"\n", b"")) | st.dictionaries(
    st.sampled_from(["text", "label", "unit"]), st.none() | st.integers() | st.floats() | any_text
).map(lambda row: json.dumps(row).encode())


@settings(deadline=None)
@given(st.lists(json_lines, max_size=12))
def test_each_line_of_jsonl_is_one_record(lines: list[bytes]) -> None:
    lines = [json.dumps(ANCHOR).encode(), *lines]
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory) / "rows.jsonl"
        path.write_bytes(b"\n".join(lines))
        records = _read(path)
        shown = [line.decode("utf-8", "replace").strip() for line in lines]
        assert len(records) == sum(line not in ("", "[", "]", ",") for line in shown)


csv_text = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
unquoted = st.text(st.characters(exclude_categories=["Cs"], exclude_characters='"\n'), min_size=1, max_size=20)


@settings(deadline=None)
@given(st.lists(st.tuples(csv_text, csv_text, csv_text).map(list) | unquoted, max_size=12))
def test_csv_rows_survive_malformed_ones_between_them(rows: list[list[str] | str]) -> None:
    body = io.StringIO()
    writer = csv.writer(body, quoting=csv.QUOTE_ALL)
    writer.writerow(ANCHOR)
    good, expected_rows = [], 1
    for row in rows:
        if isinstance(row, str):  # a line with one field more than the header has
            body.write(f"x,,,{row}\r\n")
        else:
            writer.writerow(row)
            good.append(dict(zip(ANCHOR, row, strict=True)))
        expected_rows += 1
    writer.writerow(ANCHOR.values())
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory) / "rows.csv"
        path.write_text(body.getvalue(), encoding="utf-8", newline="")
        records = _read(path)
    assert len(records) == expected_rows
    assert records[-1] == Record("anchor", "a", "u")
    # CSV cannot tell a missing value from an empty one
    good = [{name: value or None for name, value in row.items()} for row in good]
    from_csv = [record for record, row in zip(records, rows, strict=False) if not isinstance(row, str)]
    assert [(record.label, record.unit) for record in from_csv] == [
        (record.label, record.unit) for record in (_read([ANCHOR, *good])[1:] if good else [])
    ]


@settings(deadline=None)
@given(st.lists(st.tuples(st.none() | st.binary(max_size=9), st.none() | st.floats()), min_size=1, max_size=12))
def test_arrow_tables_and_dicts_agree(rows: list[tuple[bytes | None, float | None]]) -> None:
    texts, labels = zip(*rows, strict=True)
    column = pyarrow.array(texts, pyarrow.binary()).view(pyarrow.string())  # it may hold invalid UTF-8
    table = pyarrow.table({"text": column, "label": pyarrow.array(labels, pyarrow.float64())})
    dicts = [{"text": text, "label": label} for text, label in rows]
    assert read_records(table, label_column="label", dialect=LENIENT) == read_records(
        dicts, label_column="label", dialect=LENIENT
    )


@settings(deadline=None)
@given(st.lists(st.tuples(csv_text, st.integers(-(2**63), 2**63 - 1)), min_size=1, max_size=12))
def test_what_is_written_is_read_again(rows: list[tuple[str, int]]) -> None:
    dicts: list[dict[str, str | int | None]] = [{"text": text, "label": label} for text, label in rows]
    with tempfile.TemporaryDirectory() as directory:
        write_jsonl(Path(directory) / "out.jsonl", dicts)
        write_parquet(Path(directory) / "out.parquet", dicts)
        expected = read_records(dicts, label_column="label", dialect=LENIENT)
        for name in ("out.jsonl", "out.parquet"):
            assert read_records(Path(directory) / name, label_column="label", dialect=LENIENT) == expected


def _rows_or_error(source: Any, **columns: Any) -> list[Record] | None:
    """The records, or None where a clear error says why there are none."""
    try:
        return read_records(source, **({"label_column": "label", "unit_column": "unit"} | columns))
    except PlainchantError as error:
        assert str(error)
        return None


names = [
    "rows.jsonl", "rows.json", "rows.csv", "rows.tsv", "rows.parquet", "rows.arrow", "rows.jsonl.gz", "rows.csv.zst",
]  # fmt: skip
beginnings = [
    b"", b"text,label,unit\n", b"text;label;unit\n", b'{"text": "a", "label": "b", "unit": 1}\n', b"[", b"[\n", b"PAR1",
    b"ARROW1\0\0", b"\xff\xfe", b"\xfe\xff", b"\xef\xbb\xbf", b"\x1f\x8b\x08\x00", b"\x28\xb5\x2f\xfd", b"t\0e\0x\0t\0",
]  # fmt: skip


@settings(deadline=None)
@given(
    st.sampled_from(names),
    st.sampled_from(beginnings),
    st.binary(max_size=60),
    st.sampled_from(["auto", "utf-8", "utf-16", "shift_jis", "cp1252", "gb18030", "ascii", "utf-32", "iso2022_jp"]),
    st.booleans(),
)
def test_any_bytes_give_rows_or_a_clear_error(
    name: str, beginning: bytes, content: bytes, encoding: str, lenient: bool
) -> None:
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory) / name
        path.write_bytes(beginning + content)
        _rows_or_error(path, dialect=Dialect(encoding, "auto", lenient))
        _rows_or_error(path, label_column=None, unit_column=None, labels=["a"], dialect=Dialect(encoding, ";", lenient))
        try:
            read_texts(path)
            path.with_suffix(".txt").write_bytes(beginning + content)
            read_texts(path.with_suffix(".txt"))
        except PlainchantError as error:
            assert str(error)


cells = st.none() | st.booleans() | st.integers() | st.floats() | any_text | st.lists(st.integers(), max_size=2)
json_ids = st.none() | st.booleans() | st.integers() | st.floats() | any_text
json_row = st.fixed_dictionaries({}, optional={"text": cells, "label": cells, "unit": json_ids, "other": cells}).map(
    lambda row: json.dumps(row).encode()
)
json_line = json_row | st.binary(min_size=1, max_size=30).map(lambda line: b"\x01" + line.replace(b"\n", b""))


@settings(deadline=None)
@given(st.lists(json_line, min_size=1, max_size=8), st.integers(min_value=0), json_line)
def test_a_changed_line_of_jsonl_moves_no_other(lines: list[bytes], place: int, new: bytes) -> None:
    place = 1 + place % len(lines)
    lines = [json.dumps(ANCHOR).encode(), *lines]
    changed = [*lines[:place], new, *lines[place + 1 :]]
    with tempfile.TemporaryDirectory() as directory:
        found = []
        for number, content in enumerate((lines, changed)):
            path = Path(directory) / f"{number}.jsonl"
            path.write_bytes(b"\n".join(content))
            found.append(_read(path))
    assert len(found[0]) == len(found[1]) == len(lines)
    assert [*found[0][:place], *found[0][place + 1 :]] == [*found[1][:place], *found[1][place + 1 :]]


csv_cell = st.binary(max_size=8).map(lambda cell: b'"' + cell.replace(b'"', b'""') + b'"')
csv_line = st.lists(csv_cell, min_size=3, max_size=3).map(b",".join)
# a line without quotes is malformed or not, and closes by itself
odd_line = csv_line | st.binary(min_size=1, max_size=20).map(
    lambda line: b"x" + line.replace(b"\n", b"").replace(b"\r", b"").replace(b'"', b"")
)


@settings(deadline=None)
@given(st.lists(csv_line, min_size=1, max_size=6), st.integers(min_value=0), odd_line)
def test_a_changed_row_of_csv_moves_no_other(rows: list[bytes], place: int, new: bytes) -> None:
    place %= len(rows)
    with tempfile.TemporaryDirectory() as directory:
        found = []
        for number, body in enumerate((rows, [*rows[:place], new, *rows[place + 1 :]])):
            path = Path(directory) / f"{number}.csv"
            path.write_bytes(b"\n".join([b"text,label,unit", b"anchor,a,u", *body]))
            found.append(_read(path)[1:])
    assert len(found[0]) == len(found[1]) == len(rows)
    assert [*found[0][:place], *found[0][place + 1 :]] == [*found[1][:place], *found[1][place + 1 :]]


unit_types = st.sampled_from(
    [
        (pyarrow.binary(), st.binary(max_size=4)),
        (pyarrow.int64(), st.integers(-(2**63), 2**63 - 1)),
        (pyarrow.string(), st.text(st.characters(exclude_categories=["Cs"]), max_size=4)),
        (pyarrow.timestamp("ns"), st.integers(-(2**63) + 1, 2**63 - 1)),
        (pyarrow.float64(), st.floats(-(2.0**52), 2.0**52)),
    ]
)


@settings(deadline=None)
@given(st.data(), unit_types)
def test_a_changed_row_of_parquet_moves_no_other(data: st.DataObject, kind: tuple[Any, Any]) -> None:
    units = data.draw(st.lists(st.none() | kind[1], min_size=1, max_size=6))
    place = data.draw(st.integers(0, len(units) - 1))
    changed = [*units[:place], data.draw(st.none() | kind[1]), *units[place + 1 :]]
    with tempfile.TemporaryDirectory() as directory:
        found = []
        for number, ids in enumerate((units, changed)):
            path = Path(directory) / f"{number}.parquet"
            columns = {"text": [f"text {n}" for n in range(len(ids))], "unit": pyarrow.array(ids, kind[0])}
            pyarrow.parquet.write_table(pyarrow.table(columns), path)
            found.append(read_records(path, unit_column="unit"))
    assert [*found[0][:place], *found[0][place + 1 :]] == [*found[1][:place], *found[1][place + 1 :]]


fields = st.sampled_from([*SynthesisConfig.model_fields, "self", "values", "model_config", "prompt.text", "__class__"])
toml_values = st.sampled_from(
    [
        *("1", "-1", "0", "1e400", "nan", "true", '""', '"auto"', '"\\u0000"', "[]", '["a", "A"]', '["", ""]', "{}"),
        *("1979-05-27", "9" * 5000, "9" * 40, "[" * 3000, "[[1]]", "{ text = 1 }", "0.5", '"public"', '"ε"'),
    ]
)
toml_lines = st.tuples(fields, toml_values).map(lambda pair: f"{pair[0]} = {pair[1]}\n".encode())


@settings(deadline=None)
@example(b"", [b"self = 1\n"])
@example(b"", [b"texts = " + b"9" * 5000])
@example(b"", [b"labels = " + b"[" * 3000])
@given(st.sampled_from([b"", b"\xef\xbb\xbf", b"\xff\xfe"]), st.lists(toml_lines | st.binary(max_size=20), max_size=4))
def test_any_bytes_as_configuration_give_one_or_a_clear_error(mark: bytes, lines: list[bytes]) -> None:
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory) / "plainchant.toml"
        path.write_bytes(mark + b"".join(lines))
        try:
            assert isinstance(load_config(path, {}), SynthesisConfig)
        except PlainchantError as error:
            assert str(error)
