"""A unit's identity is the value itself, for every type that a table can have."""

import datetime
import itertools
import json
import uuid
from collections.abc import Sequence
from decimal import Decimal
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy
import pandas
import polars
import pyarrow
import pyarrow.parquet
import pytest
from doubles.tables import CASES
from hypothesis import given, settings
from hypothesis import strategies as st

from plainchant.data.tables import fingerprint, read_records
from plainchant.errors import DataError
from plainchant.randomness import SystemRandomness
from plainchant.run.cells import choose_records


def _units(source: Any) -> list[str | None]:
    return [record.unit for record in read_records(source, unit_column="unit")]


def _grouping(values: Sequence[Any]) -> list[int | None]:
    """Each place's first place with the same value; None where it is None."""
    return [None if value is None else list(values).index(value) for value in values]


ARROW: dict[str, tuple[pyarrow.DataType, Sequence[Any]]] = {
    "bytes": (pyarrow.binary(), [b"\x00\x01", b"\x00\x02", b"\xff", b"\xfe", b"", b" ", b"a", b"a ", b"\r\n", b"\n"]),
    "large bytes": (pyarrow.large_binary(), [b"\x80", b"\x81", b""]),
    "bytes of one size": (pyarrow.binary(4), [b"\x00\x00\x00\x01", b"\x00\x00\x00\x02"]),
    "strings": (pyarrow.string(), ["a", "a ", " a", "A", "a\x00", "a\x01", "e\u0301", "é", "", " ", "1", "1.0"]),
    "large strings": (pyarrow.large_string(), ["a", "a\t", "\n", "\r\n"]),
    "string views": (pyarrow.string_view(), ["a", "a\x7f", "a\x80"]),
    "large integers": (pyarrow.int64(), [2**53, 2**53 + 1, 2**62, 2**62 + 1, -(2**63), 0, 1]),
    "unsigned integers": (pyarrow.uint64(), [2**64 - 1, 2**64 - 2, 0]),
    "small integers": (pyarrow.int8(), [1, -1, 127]),
    "decimals": (
        pyarrow.decimal128(38, 10),
        [Decimal("1.0000000001"), Decimal("1.0000000002"), Decimal("9999999999999999999999999999.5")],
    ),
    "wide decimals": (pyarrow.decimal256(76, 0), [Decimal(10**75), Decimal(10**75 + 1)]),
    "floats": (pyarrow.float64(), [0.1, 0.1 + 2**-55, 1.0, 1.5, float("inf"), float("-inf"), 1e-320]),
    "nanoseconds": (pyarrow.timestamp("ns"), [1, 2, 10**18, 10**18 + 1]),
    "seconds far away": (pyarrow.timestamp("s"), [10**12, 10**12 + 1, -(10**12)]),
    "with a time zone": (pyarrow.timestamp("us", "UTC"), [1, 2]),
    "days": (pyarrow.date32(), [0, 1, 10**7]),
    "milliseconds of days": (pyarrow.date64(), [0, 86_400_000]),
    "times": (pyarrow.time64("ns"), [0, 1, 2]),
    "times of seconds": (pyarrow.time32("s"), [0, 1]),
    "spans": (pyarrow.duration("ns"), [0, 1, 10**18]),
    "truth values": (pyarrow.bool_(), [True, False]),
}


@pytest.mark.parametrize("name", ARROW)
@pytest.mark.parametrize("as_file", [False, True])
def test_every_arrow_type_keeps_its_values_apart(name: str, as_file: bool, tmp_path: Path) -> None:
    kind, different = ARROW[name]
    values = [*different, None, *different, None]
    source: Any = pyarrow.table({"text": ["x"] * len(values), "unit": pyarrow.array(values, kind)})
    if as_file:
        try:
            pyarrow.parquet.write_table(source, tmp_path / "rows.parquet")
        except pyarrow.ArrowNotImplementedError:
            pytest.skip("Parquet does not have this type")
        source = tmp_path / "rows.parquet"
    units = _units(source)
    assert _grouping(units) == _grouping(values)
    # each value is one unit, and each row without one is a unit by itself
    records = read_records(source, unit_column="unit")
    assert len(choose_records(records, SystemRandomness())) == len(different) + 2
    assert len({fingerprint([record]) for record in records}) == len(different) + 1


@pytest.mark.parametrize(
    "kind",
    [
        pyarrow.list_(pyarrow.int64()),
        pyarrow.struct({"a": pyarrow.int64()}),
        pyarrow.map_(pyarrow.string(), pyarrow.int64()),
        pyarrow.list_(pyarrow.int64(), 2),
    ],
)
@pytest.mark.parametrize("role", ["text", "label", "unit"])
def test_nested_columns_are_refused_by_their_type(kind: pyarrow.DataType, role: str, tmp_path: Path) -> None:
    columns = {"text": pyarrow.array(["x"]), "label": pyarrow.array(["a"]), "unit": pyarrow.array(["u"])}
    table = pyarrow.table(columns | {role: pyarrow.array([None], kind)})
    pyarrow.parquet.write_table(table, tmp_path / "rows.parquet")
    for source in (table, tmp_path / "rows.parquet"):
        with pytest.raises(DataError, match=f"{role}_column: .* is of type (list|struct|map|fixed_size_list)"):
            read_records(source, label_column="label", unit_column="unit")


def test_dictionaries_and_extensions_are_their_values() -> None:
    text = pyarrow.array(["x"] * 3)
    ids = pyarrow.array([b"\x01", b"\x02", b"\x01"]).dictionary_encode()
    assert _grouping(_units(pyarrow.table({"text": text, "unit": ids}))) == [0, 1, 0]
    storage = pyarrow.array([uuid.UUID(int=value).bytes for value in (1, 2, 1)], pyarrow.binary(16))
    typed = pyarrow.ExtensionArray.from_storage(pyarrow.uuid(), storage)
    assert _grouping(_units(pyarrow.table({"text": text, "unit": typed}))) == [0, 1, 0]


def test_ids_that_a_type_cannot_tell_apart_are_an_error_of_the_type() -> None:
    large = [2.0**53, 1.0]
    for source in (
        pandas.DataFrame({"text": ["x", "y"], "unit": large}),
        pandas.DataFrame({"text": ["x", "y", "z"], "unit": pandas.array([*large, None], "Float64")}),
        polars.DataFrame({"text": ["x", "y"], "unit": large}),
        pyarrow.table({"text": ["x", "y"], "unit": large}),
    ):
        with pytest.raises(DataError, match="floating-point type"):
            _units(source)
    with pytest.raises(DataError, match="ids of a type \\(object\\)"):
        _units([{"text": "x", "unit": object()}])


def test_integers_that_became_floats_are_the_same_units() -> None:
    whole = pandas.DataFrame({"text": list("abcd"), "unit": [1, 2, 1, 3]})
    holed = pandas.DataFrame({"text": list("abcd"), "unit": [1, 2, 1, None]})
    assert _units(whole)[:3] == _units(holed)[:3]
    assert _units(holed)[3] is None
    assert _units(whole) == _units(polars.DataFrame(whole)) == _units(whole.to_dict("records"))


def test_within_a_file_equal_values_are_one_unit(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    values = [1, 1.0, 1e0, 2**70, 2**70 + 1, "1", "1.0", True, 0.5, None, "", "\x00", "\x00number:1/1"]
    path.write_text("".join(json.dumps({"text": "x", "unit": value}) + "\n" for value in values))
    units = _units(path)
    assert units[0] == units[1] == units[2]
    assert units[9] is None
    different = [units[place] for place in (0, 3, 4, 5, 6, 7, 8, 10, 11, 12)]
    assert len(set(different)) == len(different)
    csv = tmp_path / "rows.csv"
    csv.write_bytes(b'text,unit\nx,1\nx,1.0\nx,01\nx,1\nx, 1\nx,\nx,"1\r"\nx,a\rb\nx,a b\n')
    assert _grouping(_units(csv)) == [0, 1, 2, 0, 4, None, 6, 7, 8]


def test_bytes_that_are_no_characters_keep_ids_apart(tmp_path: Path) -> None:
    path = tmp_path / "rows.csv"
    path.write_bytes(b"text,unit\n" + b"fine,u\n" * 300 + b"x,\xff\nx,\xfe\nx,\xff\n")
    with pytest.warns(UserWarning, match="U\\+FFFD"):
        assert _grouping(_units(path)[-3:]) == [0, 1, 0]


def test_python_values_are_one_unit_where_they_are_equal() -> None:
    noon = datetime.datetime(2024, 1, 1, 12, tzinfo=datetime.UTC)
    elsewhere = noon.astimezone(datetime.timezone(datetime.timedelta(hours=3)))
    equal = [
        [1, 1.0, Decimal("1.00"), Fraction(2, 2), numpy.int8(1), numpy.float32(1.0), complex(1)],
        [noon, elsewhere, pandas.Timestamp(noon)],
        [
            datetime.datetime(2024, 1, 1),
            pandas.Timestamp("2024-01-01"),
            *(numpy.datetime64("2024-01-01").astype(f"datetime64[{unit}]") for unit in ("Y", "M", "D", "h", "ns")),
        ],
        [pandas.Timestamp(1, unit="ns"), numpy.datetime64(1, "ns")],
        [
            datetime.time(12, tzinfo=datetime.UTC),
            datetime.time(15, tzinfo=datetime.timezone(datetime.timedelta(hours=3))),
        ],
        [datetime.time(12)],
        [datetime.datetime.min.replace(tzinfo=datetime.timezone(datetime.timedelta(hours=3)))],
        [True, numpy.bool_(True)],
        ["a", numpy.str_("a")],
        [b"a", bytearray(b"a"), memoryview(b"a"), numpy.bytes_(b"a")],
        [datetime.date(2024, 1, 1)],
        [datetime.timedelta(1), pandas.Timedelta(days=1), numpy.timedelta64(1, "D"), numpy.timedelta64(24, "h")],
        [pandas.Timedelta(days=1) + pandas.Timedelta(1, "ns")],
        [uuid.UUID(int=3)],
        [0.1],
        [numpy.float32(0.1)],
        [Decimal("1E+20000"), 10**20000, Decimal("10E+19999")],
        [Decimal("-1E+20000")],
        [10**20000 + 1],
        [Decimal("1E+10001"), 10**10001],
        [Decimal("1E+10000"), 10**10000],
        [10**5000],
    ]
    values = list(itertools.chain.from_iterable(equal))
    groups = [number for number, group in enumerate(equal) for _ in group]
    assert _grouping(_units([{"text": "x", "unit": value} for value in values])) == _grouping(groups)
    times = (numpy.datetime64("NaT"), numpy.datetime64("NaT", "D"), numpy.timedelta64("NaT", "s"))
    for missing in (
        *times,
        None,
        pandas.NA,
        pandas.NaT,
        float("nan"),
        numpy.float32("nan"),
        Decimal("NaN"),
        Decimal("sNaN"),
    ):
        assert _units([{"text": "x", "unit": missing}]) == [None]


@pytest.mark.parametrize(
    "value", [[1], (1,), {"a": 1}, [], numpy.timedelta64(1, "M"), numpy.datetime64(2**62, "Y"), Fraction(1, 10**20000)]
)
def test_ids_without_an_identity_are_refused_by_their_type(value: Any) -> None:
    with pytest.raises(DataError, match=r"unit_column: .* ids of a type \(\w+"):
        _units([{"text": "x", "unit": value}, {"text": "y", "unit": "u"}])


@pytest.mark.parametrize(("kind", "bits"), [("float16", 11), ("float32", 24), ("float64", 53)])
def test_each_floating_type_is_refused_where_it_cannot_count(kind: str, bits: int) -> None:
    def sources(largest: int) -> list[Any]:
        text, ids = ["x", "y"], numpy.array([1, largest], dtype=kind)
        arrow = pyarrow.table({"text": text, "unit": ids})
        frames: list[Any] = [ids, pandas.Series(list(ids), dtype=object)]
        if bits > 11:
            frames += [pandas.Categorical(ids), pandas.arrays.SparseArray(ids)]
            frames += [pandas.array(ids, kind.capitalize()), pandas.Series(ids.tolist(), dtype=kind)]
            frames.append(pandas.Series(ids, dtype=pandas.ArrowDtype(arrow["unit"].type)))
        return [
            arrow,
            pyarrow.table({"text": text, "unit": arrow["unit"].combine_chunks().dictionary_encode()})
            if bits > 11
            else arrow,
            *([polars.DataFrame({"text": text, "unit": ids})] if bits > 11 else []),
            *(pandas.DataFrame({"text": text, "unit": column}) for column in frames),
            [{"text": "x", "unit": one} for one in ids],
        ]

    for source in sources(2**bits - 1):
        assert len(set(_units(source))) == 2
    for source in sources(2**bits):
        with pytest.raises(DataError, match=f"floating-point type.* 2\\^{bits}"):
            _units(source)


@pytest.mark.parametrize("suffix", ["jsonl", "json"])
def test_numbers_of_json_are_what_is_written_there(suffix: str, tmp_path: Path) -> None:
    different = [
        "9007199254740992.0", "9007199254740993.0", "1e400", "2e400", "1234567890.12345678", "1234567890.12345679",
        "0.1", "0.10000000000000000555", "7",
    ]  # fmt: skip
    ids = [*different, "0.10", "7.0", "7e0", "10e399"]
    rows = [f'{{"text": 0.10, "unit": {one}}}' for one in ids]
    path = tmp_path / f"rows.{suffix}"
    path.write_text("\n".join(rows) if suffix == "jsonl" else f"[{','.join(rows)}]")
    units = _units(path)
    assert len(set(units)) == len(set(units[: len(different)])) == len(different)
    assert units[-4:] == [units[6], units[8], units[8], units[2]]
    assert {record.text for record in read_records(path)} == {"0.1"}


MAY = datetime.datetime(2024, 5, 1)
TIMES = [(pyarrow.timestamp(unit), MAY) for unit in ("s", "ms", "us", "ns")]
SAME: dict[str, list[tuple[pyarrow.DataType, Any]]] = {
    "times of four scales": TIMES,
    "instants": [(pyarrow.timestamp("ms", zone), MAY) for zone in ("UTC", "Europe/Paris")],
    "dates": [(pyarrow.date32(), MAY.date()), (pyarrow.date64(), MAY.date())],
    "clocks": [(pyarrow.time32("s"), datetime.time(1)), (pyarrow.time64("ns"), datetime.time(1))],
    "spans": [(pyarrow.duration(unit), datetime.timedelta(1)) for unit in ("s", "ns")],
    "numbers": [
        (pyarrow.int64(), 7),
        (pyarrow.float32(), 7),
        (pyarrow.decimal128(5, 1), Decimal(7)),
        (pyarrow.uint8(), 7),
    ],
    "strings": [
        (pyarrow.string(), "7"),
        (pyarrow.large_string(), "7"),
        (pyarrow.dictionary(pyarrow.int8(), pyarrow.string()), "7"),
    ],
    "bytes": [(pyarrow.binary(), b"7"), (pyarrow.binary(1), b"7")],
}
MIXED = [
    [(pyarrow.timestamp("s"), MAY), (pyarrow.date32(), MAY.date())],
    [(pyarrow.timestamp("s"), MAY), (pyarrow.timestamp("s", "UTC"), MAY)],
    [(pyarrow.int64(), 7), (pyarrow.string(), "7")],
    [(pyarrow.string(), "7"), (pyarrow.binary(), b"7")],
    [(pyarrow.int64(), MAY), (pyarrow.timestamp("s"), MAY)],
    [(pyarrow.bool_(), True), (pyarrow.int8(), 1)],
    [(pyarrow.time32("s"), datetime.time(1)), (pyarrow.duration("s"), datetime.timedelta(1))],
]


def _save_shards(directory: Path, shards: Sequence[tuple[pyarrow.DataType, Any]]) -> Path:
    for number, (kind, value) in enumerate(shards):
        value = 5 if pyarrow.types.is_int64(kind) and value is MAY else value
        table = pyarrow.table({"text": ["x"], "unit": pyarrow.array([value], kind)})
        with pyarrow.ipc.new_file(directory / f"{number}.arrow", table.schema) as writer:
            writer.write_table(table)
    return directory


@pytest.mark.filterwarnings("ignore::plainchant.errors.DataNote")
@pytest.mark.parametrize("name", SAME)
def test_one_value_is_one_unit_in_shards_of_several_types(name: str, tmp_path: Path) -> None:
    units = _units(_save_shards(tmp_path, [*SAME[name], (pyarrow.null(), None)]))
    assert units == [units[0]] * len(SAME[name]) + [None]
    assert units[0] is not None


@pytest.mark.parametrize("shards", MIXED)
def test_shards_with_ids_of_several_types_are_refused(shards: Any, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"unit_column: the files of .* have ids of different types"):
        _units(_save_shards(tmp_path, shards))


def test_a_time_is_never_a_number() -> None:
    for unit, value in itertools.product(("s", "ns"), (0, 5)):
        stored = pyarrow.array([value], pyarrow.int64())
        units = {
            _units(pyarrow.table({"text": ["x"], "unit": column}))[0]
            for column in (stored, *(stored.cast(kind(unit)) for kind in (pyarrow.timestamp, pyarrow.duration)))
        }
        assert len(units) == 3


def test_objects_without_a_type_are_refused() -> None:
    with pytest.raises(DataError, match="of type Object"):
        _units(polars.DataFrame({"text": ["x"], "unit": polars.Series([object()], dtype=polars.Object)}))


scalars = st.none() | st.booleans() | st.integers() | st.floats(-(2.0**52), 2.0**52) | st.text(max_size=5) | st.binary()


def _same(one: Any, other: Any) -> bool:
    return one == other and (isinstance(one, (str, bytes, bool)), type(one) is bool) == (
        isinstance(other, (str, bytes, bool)),
        type(other) is bool,
    )


@settings(deadline=None)
@given(scalars, scalars)
def test_units_are_equal_where_values_are(one: Any, other: Any) -> None:
    units = _units([{"text": "x", "unit": one}, {"text": "x", "unit": other}])
    assert (units[0] == units[1]) == _same(one, other)


@pytest.mark.parametrize("name", ["binary_unit.parquet", "int_unit.parquet"])
def test_four_customers_of_twenty_rows_are_four_units(name: str, tmp_path: Path) -> None:
    kind = pyarrow.binary() if name.startswith("binary") else pyarrow.int64()
    ids = [(n % 4 + 1).to_bytes(4, "big") if name.startswith("binary") else n % 4 + 1 for n in range(80)]
    made = pyarrow.table({"text": [f"note {n}" for n in range(80)], "customer": pyarrow.array(ids, kind)})
    pyarrow.parquet.write_table(made, tmp_path / name)
    sources = [tmp_path / name, *([CASES / name] if CASES.is_dir() else [])]
    for source in sources:
        records = read_records(source, unit_column="customer")
        assert len(records) == 80
        assert len(choose_records(records, SystemRandomness())) == 4
