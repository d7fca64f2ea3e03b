"""Columns by a schema: a code depends on its cell alone, and a column's type decides before anything is spent."""

import datetime
import json
import time
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import polars as pl
import pyarrow
import pyarrow.parquet
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from plainchant.config import SynthesisConfig
from plainchant.data.files import write_jsonl, write_parquet
from plainchant.data.raw import Dialect
from plainchant.data.schema import MOST_CODES, Boolean, Category, Date, Number, Schema
from plainchant.data.tables import Record, fingerprint, read_records
from plainchant.errors import ConfigError, DataError, DataNote
from plainchant.randomness import SeededRandomness

LENIENT = Dialect(allow_malformed=True)
KINDS: dict[str, Any] = {
    "product": Category(values=("lamp", "bus stop")),
    "customer": Category(),
    "price": Number(cuts=(0, 10, 100)),
    "opened": Date(first=datetime.date(2024, 1, 15), last=datetime.date(2024, 3, 10), grain="month"),
    "urgent": Boolean(),
}
SCHEMA = Schema(attributes=KINDS)
ROWS: list[dict[str, Any]] = [
    {"text": "a", "product": "Lamp", "customer": "Ann", "price": 9.5, "opened": "2024-02-03", "urgent": True},
    {"text": "b", "product": "bus stop", "customer": "Bob", "price": 10.0, "opened": "2024-03-31", "urgent": False},
    {"text": "c", "product": None, "customer": None, "price": None, "opened": None, "urgent": None},
]
CODES = [(0, "Ann", 0, 1, 1), (1, "Bob", 1, 2, 0), (2, None, 2, 3, 2)]
scalars = st.none() | st.booleans() | st.integers() | st.floats() | st.decimals() | st.binary() | st.text() | st.dates()
values = scalars | st.datetimes() | st.lists(scalars, max_size=2) | st.dictionaries(st.text(), scalars, max_size=2)
quiet = pytest.mark.filterwarnings("ignore::plainchant.errors.DataNote")


def _typed() -> pyarrow.Table:
    rows = [row | {"opened": row["opened"] and datetime.date.fromisoformat(row["opened"])} for row in ROWS]
    return pyarrow.Table.from_pylist(rows)


@quiet
@pytest.mark.parametrize("kind", ["dicts", "jsonl", "csv", "parquet", "arrow", "pandas", "polars"])
def test_every_format_gives_the_same_codes(kind: str, tmp_path: Path) -> None:
    path, frame = tmp_path / f"table.{kind}", _typed().to_pandas()
    if kind == "jsonl":
        write_jsonl(path, ROWS)
    elif kind == "parquet":
        write_parquet(path, ROWS)
    elif kind == "csv":
        frame.to_csv(path, index=False)
    sources = {"dicts": ROWS, "arrow": _typed(), "pandas": frame, "polars": pl.from_arrow(_typed())}
    records = read_records(sources.get(kind, path), schema=SCHEMA)
    assert [record.attributes for record in records] == CODES


@quiet
@settings(deadline=None)
@given(st.lists(st.fixed_dictionaries({}, optional=dict.fromkeys(("text", *KINDS), values)), max_size=6))
def test_each_code_is_a_function_of_its_cell_alone(rows: list[dict[str, Any]]) -> None:
    records = read_records([ROWS[0], *rows], schema=SCHEMA, dialect=LENIENT)
    assert records[1:] == [read_records([ROWS[0], row], schema=SCHEMA, dialect=LENIENT)[1] for row in rows]
    for record in records:
        for code, kind in zip(record.attributes, KINDS.values(), strict=True):
            assert code is None or isinstance(code, str) or 0 <= code < kind.size


@quiet
def test_what_the_schema_does_not_name_is_not_read() -> None:
    class Unread:
        def __getattribute__(self, name: str) -> Any:
            raise AssertionError("was read")

    rows = [row | {"secret": Unread()} for row in ROWS]
    assert read_records(rows, schema=SCHEMA) == read_records(ROWS, schema=SCHEMA)


@pytest.mark.parametrize(
    ("cell", "code"),
    [
        (-5, 0), (0, 0), (9.99, 0), (10, 1), (99, 1), (100, 1),
        (1e300, 1), (10**400, 1), (-(10**400), 0), (float("inf"), 1),
        (float("nan"), 2), ("12", 1), (" 3.5 ", 0), ("n/a", 2), ("1" * 100, 2), (b"12", 2), ([1], 2), (True, 0),
        (np.float32(11), 1), (pd.NA, 2), ("1_0", 2), ("infinity", 2), ("1e1", 1), ("+.5", 0), ("١٢", 2),
    ],
)  # fmt: skip
def test_numbers_beyond_the_ends_count_to_the_outermost_interval(cell: Any, code: int) -> None:
    assert KINDS["price"].reader()(cell) == code


@pytest.mark.parametrize(
    ("cell", "code"),
    [
        ("1999-01-01", 0), ("2024-01-31T10:00:00Z", 0), (datetime.datetime(2024, 2, 29, 23), 1), ("2030-01-01", 2),
        (pd.Timestamp("2024-02-01"), 1), (np.datetime64("2024-02-01"), 1), (pd.NaT, 3), (np.datetime64("NaT"), 3),
        ("2024-13-01", 3), ("soon", 3), (20240201, 3), (np.datetime64("99999-01-01"), 3),
    ],
)  # fmt: skip
def test_dates_beyond_the_bounds_count_to_the_outermost_grain(cell: Any, code: int) -> None:
    assert KINDS["opened"].reader()(cell) == code


@pytest.mark.parametrize(
    ("column", "bad"),
    [
        ("price", pyarrow.array([datetime.date(2024, 1, 1)] * 3)),
        ("price", pyarrow.array([[1]] * 3)),
        ("opened", pyarrow.array([1, 2, 3])),
        ("urgent", pyarrow.array([b"1"] * 3)),
        ("product", pyarrow.array([{"a": 1}] * 3)),
        ("customer", pyarrow.array([datetime.date(2024, 1, 1)] * 3)),
    ],
)
def test_a_column_whose_type_cannot_serve_is_refused_by_its_type(column: str, bad: pyarrow.Array) -> None:
    table = _typed()
    table = table.set_column(table.column_names.index(column), column, bad)
    for source in (table, pl.from_arrow(table)):
        with pytest.raises(
            DataError, match=rf"columns.attributes.{column} .* is of type .*which cannot be {KINDS[column].purpose}"
        ):
            read_records(source, schema=SCHEMA)


def test_a_missing_column_is_named() -> None:
    rows = [{"text": "a"}]
    for source in (rows, pd.DataFrame(rows)):
        with pytest.raises(
            DataError, match=r"columns.attributes.price .*='price' is not a column of .*name one in \[columns\]"
        ):
            read_records(source, schema=Schema(attributes={"price": Number(cuts=(0, 1))}))


def test_unreadable_values_are_missing_and_counted_for_the_holder_and_a_wrong_type_is_refused() -> None:
    rows = [{"text": "a", "price": 3}] * 9 + [{"text": "a", "price": "secret words"}]
    schema = Schema(attributes={"price": KINDS["price"]})
    with pytest.warns(
        DataNote, match=r"columns.attributes.price: 1 of 10 values are not a number; read as missing"
    ) as noted:
        assert read_records(rows, schema=schema)[-1].attributes == (2,)
    assert "secret" not in str(noted[0].message)
    with pytest.raises(DataError, match="hardly any value of this column") as refused:
        read_records(rows[-1:], schema=schema)
    assert "secret" not in str(refused.value)


@pytest.mark.parametrize("cell", [["ann"], {"name": "ann"}, np.array(["ann"]), {"ann"}, ("ann",)])
def test_a_cell_that_holds_several_values_is_no_value_of_a_category(cell: Any) -> None:
    assert KINDS["customer"].reader()(cell) is None
    assert KINDS["urgent"].reader()([True]) == 2
    assert KINDS["customer"].reader()(np.str_("ann")) == "ann"
    # such a column is refused, and what it holds is in no message
    rows = [{"text": "a", "customer": cell}] * 9
    for source in (rows, pd.DataFrame(rows)):
        with pytest.raises(DataError, match="customer") as refused:
            read_records(source, schema=Schema(attributes={"customer": KINDS["customer"]}))
        assert "ann" not in str(refused.value)


def test_a_text_from_several_columns_and_a_cell_is_never_a_field() -> None:
    schema = Schema(text="{subject}\n\n{body}")
    rows = [{"subject": "{body}", "body": "words"}, {"subject": None, "body": " "}, {"subject": 7, "body": ["x"]}]
    assert [record.text for record in read_records(rows, schema=schema, dialect=LENIENT)] == [
        "{body}\n\nwords",
        "",
        "7\n\n",
    ]


@pytest.mark.parametrize("typed", [False, True])
def test_chat_messages_become_one_text(typed: bool) -> None:
    chat = [{"role": "user", "content": "Hello {role}"}, {"role": "bot", "content": "Yes"}]
    rows = [{"chat": chat}, {"chat": []}] + ([] if typed else [{"chat": "plain"}, {"chat": [3, None]}])
    schema = Schema(message="{role}: {content}\n")
    source: Any = pyarrow.Table.from_pylist(rows) if typed else rows
    texts = [record.text for record in read_records(source, text_column="chat", schema=schema, dialect=LENIENT)]
    assert texts == ["user: Hello {role}\nbot: Yes", ""] + ([] if typed else ["plain", ""])


def test_messages_need_lists_of_structs() -> None:
    table = pyarrow.table({"chat": [[1, 2]]})
    with pytest.raises(DataError, match="which cannot be messages"):
        read_records(table, text_column="chat", schema=Schema(message="{role}"))


def test_a_table_without_text() -> None:
    records = read_records([{"price": 3}], text_column=None, schema=Schema(attributes={"price": KINDS["price"]}))
    assert records == [Record("", None, None, (0,))]


@pytest.mark.parametrize(
    "kind",
    [
        *KINDS.values(),
        Number(cuts=(0.5, 0.75, 3)),
        Date(first=datetime.date(2024, 1, 3), last=datetime.date(2024, 1, 30), grain="week"),
        Date(first=datetime.date(1, 1, 1), last=datetime.date(9, 5, 5), grain="year"),
        Date(first=datetime.date(2024, 1, 3), last=datetime.date(2024, 1, 30), grain="day"),
    ],
)
def test_what_is_drawn_of_a_code_is_read_as_that_code(kind: Any) -> None:
    source = SeededRandomness(1)
    if kind == Category():
        return
    for code in range(kind.size):
        for _ in range(40):
            drawn = kind.drawn(code, source.below)
            assert kind.reader()(drawn) == code
            assert (drawn is None) == (code == kind.size - 1)
    assert kind.shown(kind.size - 1) == "unknown"
    assert len({kind.shown(code) for code in range(kind.size)}) == kind.size


def test_long_cells_take_linear_time() -> None:
    schema, long = Schema(text="{a}{a}", attributes=KINDS), "\u0301" * 200_000
    row = dict.fromkeys(("a", *KINDS), long)
    begin = time.perf_counter()
    with pytest.warns(DataNote):
        read_records([row], schema=schema, dialect=LENIENT)
    assert time.perf_counter() - begin < 5


@quiet
def test_attributes_are_part_of_the_fingerprint() -> None:
    other = [ROWS[0] | {"price": 50}, *ROWS[1:]]
    assert fingerprint(read_records(ROWS, schema=SCHEMA)) != fingerprint(read_records(other, schema=SCHEMA))


@pytest.mark.parametrize(
    ("columns", "said"),
    [
        ({"attributes": {"p": {"type": "number", "cuts": [1]}}}, "two cut points"),
        ({"attributes": {"p": {"type": "number", "cuts": [1, 1.5], "whole": True}}}, "whole numbers"),
        ({"attributes": {"p": {"type": "number", "cuts": list(range(MOST_CODES + 2))}}}, "at most 5000"),
        ({"attributes": {"p": {"type": "category", "values": ["a", " a"]}}}, "each once"),
        ({"attributes": {"p": {"type": "category", "values": []}}}, "at least one value"),
        ({"attributes": {"p": {"type": "date", "first": "2024-01-02", "last": "2024-01-01"}}}, "must not be after"),
        (
            {"attributes": {"p": {"type": "date", "first": "0001-01-01", "last": "2024-01-01", "grain": "day"}}},
            "at most",
        ),
        ({"attributes": {"p": {"type": "money"}}}, "'category', 'number', 'date', 'boolean'"),
        ({"attributes": {"text": {"type": "boolean"}}}, "leave it out"),
        ({"text": "no field"}, "names no column"),
        ({"message": "no field"}, "names no field"),
        ({"textt": "{a}"}, "did you mean text"),
    ],
)
def test_a_schema_that_cannot_be_is_refused(columns: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        SynthesisConfig(columns=columns)


def test_a_data_dictionary_says_which_numbers_a_reader_can_meet():
    assert Number(cuts=(1, 2, 3, 4, 5, 6)).described() == "whole numbers 1 to 5"
    assert Number(cuts=(0, 1, 10, 100)).described() == "whole numbers 0 to 99, uniform within 0, 1 to 9, 10 to 99"
    assert Number(cuts=(0, 1_234_567)).described() == "whole numbers 0 to 1234566, uniform within 0 to 1234566"
    assert Number(cuts=(0, 0.5, 2)).described() == "0 to 2, uniform between 0, 0.5, 2"


def test_many_values_beyond_the_ends_are_told_to_the_holder() -> None:
    rows = [{"text": "a", "price": price, "opened": "1900-01-01"} for price in (3, 3, 3, 200)]
    schema = Schema(attributes={name: KINDS[name] for name in ("price", "opened")})
    with pytest.warns(DataNote) as noted:
        read_records(rows, schema=schema)
    assert [str(note.message).partition(" lie beyond")[0] for note in noted] == [
        "columns.attributes.price: 1 of 4 values",
        "columns.attributes.opened: 4 of 4 values",
    ]


def test_truth_values_are_read_however_tables_write_them() -> None:
    read = Boolean().reader()
    for cell in ("true", "YES", "on", "1", "1.0", 1, 1.0, True, np.bool_(True), "t"):
        assert read(cell) == 1, cell
    for cell in ("false", "no", "Off", "0", "0.0", 0, 0.0, False, np.float64(0), "F"):
        assert read(cell) == 0, cell
    for cell in (None, "", "2", 2, "perhaps", float("nan")):
        assert read(cell) == 2, cell


def test_whole_numbers_that_a_release_cannot_hold_are_refused_beforehand() -> None:
    for cuts in ((0.0, 1e19), (-(2.0**63), 0.0)):
        with pytest.raises(ValueError, match="whole = false"):
            Number(cuts=cuts)
        assert Number(cuts=cuts, whole=False).column_type == "double"


@pytest.mark.parametrize("way", ["parquet", "pandas", "json text"])
def test_chat_messages_are_read_however_tables_hold_them(way: str, tmp_path: Path) -> None:
    chats = [
        [{"role": "user", "content": "Hello"}, {"role": "bot", "content": "Yes"}],
        # a call of a tool has nothing to say
        [{"role": "user", "content": "Bye"}, {"role": "bot", "content": None}],
    ]
    pyarrow.parquet.write_table(pyarrow.table({"chat": chats}), tmp_path / "chats.parquet")
    source: Any = tmp_path / "chats.parquet"
    if way == "pandas":
        source = pd.read_parquet(source)
    elif way == "json text":
        source = [{"chat": json.dumps(chat)} for chat in chats]
    texts = [
        record.text for record in read_records(source, text_column="chat", schema=Schema(message="{role}: {content}\n"))
    ]
    assert texts == ["user: Hello\nbot: Yes", "user: Bye"]


def test_parts_of_a_message_are_one_text_and_messages_of_another_form_are_none() -> None:
    schema = Schema(message="{role}: {content}\n")
    parts = [{"type": "text", "text": "Look"}, {"type": "image_url", "image_url": {"url": "x"}}, {"text": " here"}]
    assert schema.text_of([{"role": "user", "content": parts}]) == "user: Look here"
    # another form than the template's: no text, which most rows must not be
    rows = [{"chat": [{"from": "human", "value": "Hello"}]}] * 3
    with pytest.raises(DataError, match="have no text in it"):
        read_records(rows, text_column="chat", schema=schema)


@quiet
def test_the_same_number_never_means_two_labels(tmp_path: Path) -> None:
    datasets = pytest.importorskip("datasets")
    for part, names in (("a", ["neg", "pos"]), ("b", ["pos", "neg"])):
        features = datasets.Features({"text": datasets.Value("string"), "s": datasets.ClassLabel(names=names)})
        own = datasets.Dataset.from_dict({"text": ["x"] * 4, "s": [0, 1, 0, 1]}, features=features)
        own.to_parquet(str(tmp_path / f"{part}.parquet"))
    with pytest.raises(DataError, match="ClassLabel columns have different names"):
        read_records(tmp_path, schema=Schema(attributes={"s": Category(values=("neg", "pos"))}))
    (tmp_path / "b.parquet").unlink()
    assert len(read_records(tmp_path, schema=Schema(attributes={"s": Category(values=("neg", "pos"))}))) == 4


@pytest.mark.parametrize("kind", ["csv", "pandas"])
def test_a_name_of_two_columns_is_refused(kind: str, tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("text,stars,stars\na,,3\n")
    frame = pd.DataFrame([["a", None, 3]], columns=["text", "stars", "stars"])
    source: Any = frame if kind == "pandas" else tmp_path / "t.csv"
    with pytest.raises(DataError, match="names 2 columns"):
        read_records(source, schema=Schema(attributes={"stars": Number(cuts=(1, 2, 3))}))
    # one that nobody asks for may be there as often as it likes
    assert len(read_records(source)) == 1
