"""One row in, one record out, and no row moves another, whatever the rows hold (guarantee 3.1, 9)."""

import csv
import io
import json
import tempfile
from pathlib import Path
from typing import Any

import pyarrow
from hypothesis import given, settings
from hypothesis import strategies as st

from plainchant.data.files import write_jsonl, write_parquet
from plainchant.data.tables import Record, fingerprint, read_records

any_text = st.text(st.characters(exclude_categories=()), max_size=20)
scalars = (
    st.none() | st.booleans() | st.integers() | st.floats() | st.decimals() | st.fractions() | st.binary() | any_text
)
values = scalars | st.lists(scalars, max_size=2) | st.dictionaries(any_text, scalars, max_size=2) | st.dates()
columns = st.fixed_dictionaries({}, optional={"text": values, "label": values, "unit": values, "other": values})
odd_rows = st.lists(columns | scalars, max_size=12)
ANCHOR = {
    "text": "anchor",
    "label": "a",
    "unit": "u",
}  # a table needs its columns; what stands beside it may be anything


def _read(source: Any) -> list[Record]:
    return read_records(source, label_column="label", unit_column="unit")


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
        for field in (record.text, record.label or "", record.unit or ""):
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
        assert len(records) == sum(bool(line.decode("utf-8", "replace").strip()) for line in lines)


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
    from_csv = [record for record, row in zip(records, rows, strict=False) if not isinstance(row, str)]
    assert [(record.label, record.unit) for record in from_csv] == [
        (record.label, record.unit) for record in (_read([ANCHOR, *good])[1:] if good else [])
    ]


@settings(deadline=None)
@given(st.lists(st.tuples(st.none() | st.binary(max_size=9), st.none() | st.floats()), min_size=1, max_size=12))
def test_arrow_tables_and_dicts_agree(rows: list[tuple[bytes | None, float | None]]) -> None:
    texts, labels = zip(*rows, strict=True)
    binary = pyarrow.array(texts, pyarrow.binary())
    for column in (binary, binary.view(pyarrow.string())):  # a string column may hold invalid UTF-8
        table = pyarrow.table({"text": column, "label": pyarrow.array(labels, pyarrow.float64())})
        dicts = [{"text": text, "label": label} for text, label in rows]
        assert read_records(table, label_column="label") == read_records(dicts, label_column="label")


@settings(deadline=None)
@given(st.lists(st.tuples(csv_text, st.integers(-(2**63), 2**63 - 1)), min_size=1, max_size=12))
def test_what_is_written_is_read_again(rows: list[tuple[str, int]]) -> None:
    dicts: list[dict[str, str | int | None]] = [{"text": text, "label": label} for text, label in rows]
    with tempfile.TemporaryDirectory() as directory:
        write_jsonl(Path(directory) / "out.jsonl", dicts)
        write_parquet(Path(directory) / "out.parquet", dicts)
        expected = read_records(dicts, label_column="label")
        for name in ("out.jsonl", "out.parquet"):
            assert read_records(Path(directory) / name, label_column="label") == expected
