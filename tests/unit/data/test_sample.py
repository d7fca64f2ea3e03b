"""A sample of the units: who is in it, and that nothing else of a table is held or looked at."""

import csv
import gzip
import json
import pickle
import tracemalloc
import warnings
from typing import Any

import numpy as np
import pandas
import polars
import pyarrow
import pyarrow.feather
import pyarrow.parquet
import pytest
from scipy.stats import chi2

from plainchant.config import SynthesisConfig
from plainchant.data.raw import Dialect
from plainchant.data.sample import Sample
from plainchant.data.tables import Record, read_records
from plainchant.errors import DataError
from plainchant.run.inputs import read_table

COLUMNS: dict[str, Any] = {"label_column": "label", "labels": ("a", "b")}
# ids of two kinds of rows: most units have several records, and some rows are their own
ROWS = [
    {"text": f"text {row}", "label": "ab"[row % 2], "unit": None if row % 7 == 0 else f"unit {row % 90}"}
    for row in range(600)
]
SAMPLE = Sample(bytes(range(32)), 0.3)


def keyed(seed, rate=0.3):
    return Sample(np.random.default_rng(seed).bytes(32), rate)


def test_units_are_in_with_the_rate_and_independently():
    rate, keys, units = 0.3, 400, ("anna", "bert", "\x00number:1/1", "", "\ud800")
    inside = np.array([[keyed(seed).holds(unit, 0) for unit in units] for seed in range(keys)])
    rows = np.array([[keyed(seed).holds(None, row) for row in range(5)] for seed in range(keys)])
    for drawn in (inside, rows):
        for one in drawn.T:
            assert abs(one.sum() - rate * keys) < 5 * np.sqrt(rate * (1 - rate) * keys)
        # of the 32 ways to be in or out, each as often as independence has it
        codes = drawn @ (2 ** np.arange(5))
        odds = [rate ** bin(code).count("1") * (1 - rate) ** (5 - bin(code).count("1")) for code in range(32)]
        counted = np.bincount(codes, minlength=32)
        assert ((counted - keys * np.array(odds)) ** 2 / (keys * np.array(odds))).sum() < chi2.ppf(1 - 1e-6, 31)
    assert (inside != rows).any(axis=0).all()


def test_the_key_decides_and_nothing_else():
    assert Sample(bytes(range(32)), 0.3) == SAMPLE
    assert [SAMPLE.holds("anna", row) for row in range(50)] == [SAMPLE.holds("anna", 0)] * 50
    assert "key" not in repr(SAMPLE)
    smaller, larger = Sample(SAMPLE.key, 0.1), Sample(SAMPLE.key, 0.9)
    names = [f"unit {number}" for number in range(300)]
    assert {n for n in names if smaller.holds(n, 0)} < {n for n in names if larger.holds(n, 0)}


def write(kind, folder):
    table = pyarrow.Table.from_pylist(ROWS)
    if kind == "shards":
        for shard in range(3):
            part = table.slice(200 * shard, 200)
            pyarrow.parquet.write_table(part, folder / f"part-{shard}.parquet", row_group_size=64)
        return folder
    path = folder / f"table{kind}"
    lines = "".join(json.dumps(row) + "\n" for row in ROWS)
    if kind == ".parquet":
        pyarrow.parquet.write_table(table, path, row_group_size=50)
    elif kind == ".feather":
        pyarrow.feather.write_feather(table, path, chunksize=70)
    elif kind == ".jsonl":
        path.write_text(lines)
    elif kind == ".jsonl.gz":
        path.write_bytes(gzip.compress(lines.encode()))
    elif kind == ".jsonl.zst":
        with pyarrow.output_stream(str(path), compression="zstd") as stream:
            stream.write(lines.encode())
    elif kind == ".json":
        path.write_text(json.dumps(ROWS))
    else:
        with path.open("w", newline="", encoding="utf-16" if kind == ".csv" else "utf-8") as file:
            writer = csv.DictWriter(file, ["text", "label", "unit"], delimiter="\t" if kind == ".tsv" else ",")
            writer.writeheader()
            writer.writerows(ROWS)
    return path


def expected(records):
    return [record for row, record in enumerate(records) if SAMPLE.holds(record.unit, row)]


KINDS = ["shards", ".parquet", ".feather", ".jsonl", ".jsonl.gz", ".jsonl.zst", ".json", ".csv", ".tsv"]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("unit", [None, "unit"])
def test_a_sample_of_a_file_is_what_a_filter_of_the_whole_table_is(kind, unit, tmp_path):
    source = write(kind, tmp_path)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        whole = read_records(source, unit_column=unit, **COLUMNS)
        found = read_records(source, unit_column=unit, **COLUMNS, sample=SAMPLE)
    assert len(whole) == 600
    assert found == expected(whole)
    assert 0 < len(found) < 600


@pytest.mark.parametrize("make", [pandas.DataFrame, polars.DataFrame, pyarrow.Table.from_pylist, list, iter])
def test_a_sample_of_an_object_is_what_a_filter_of_the_whole_table_is(make):
    whole = read_records(ROWS, unit_column="unit", **COLUMNS)
    assert read_records(make(ROWS), unit_column="unit", **COLUMNS, sample=SAMPLE) == expected(whole)
    config = SynthesisConfig(label_column="label", labels=("a", "b"), unit_column="unit")
    assert read_table(whole, config, SAMPLE) == expected(whole)
    assert read_table(whole, config) == whole


@pytest.mark.filterwarnings("ignore")
def test_all_records_of_a_unit_agree_and_rows_of_several_files_are_different_rows(tmp_path):
    records = read_records(write("shards", tmp_path), unit_column="unit", sample=SAMPLE)
    whole = read_records(ROWS, unit_column="unit")
    for unit in {record.unit for record in whole} - {None}:
        own = sum(record.unit == unit for record in whole)
        assert sum(record.unit == unit for record in records) in (0, own)
    for shard in range(2):
        pyarrow.parquet.write_table(pyarrow.table({"text": ["same"] * 500}), tmp_path / f"part-{shard}.parquet")
    (tmp_path / "part-2.parquet").unlink()
    inside = [SAMPLE.holds(None, row) for row in range(1000)]
    assert inside[:500] != inside[500:]
    assert len(read_records(tmp_path, sample=SAMPLE)) == sum(inside)


def by_others(function, items):
    """Readers that begin with the last file, and get and give everything as other processes would."""
    found = [pickle.loads(pickle.dumps(function))(item) for item in reversed(pickle.loads(pickle.dumps(items)))]
    return pickle.loads(pickle.dumps(found[::-1]))


def write_files(kind, folder):
    """The rows in three files of different length, and what no reader takes for a row."""
    for number, (first, last) in enumerate([(0, 7), (7, 310), (310, 600)]):
        path, own = folder / f"part-{number}{kind}", ROWS[first:last]
        if kind == ".parquet":
            pyarrow.parquet.write_table(pyarrow.Table.from_pylist(own), path, row_group_size=64)
        elif kind == ".arrow":
            with pyarrow.OSFile(str(path), "wb") as sink, pyarrow.ipc.new_file(sink, UNITED) as writer:
                writer.write_table(pyarrow.Table.from_pylist(own, UNITED), max_chunksize=50)
        elif kind == ".jsonl.gz":
            lines = "\n\n".join(json.dumps(row) for row in own)
            path.write_bytes(gzip.compress(f"[\n{lines}\n]\n{{broken".encode()))
        else:
            with path.open("w", newline="") as file:
                writer = csv.DictWriter(file, ["text", "label", "unit"], delimiter=";")
                writer.writeheader()
                writer.writerows([{**row, "text": f"line\n{row['text']};"} for row in own])


UNITED = pyarrow.schema([("text", pyarrow.string()), ("label", pyarrow.string()), ("unit", pyarrow.string())])


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("kind", [".parquet", ".arrow", ".jsonl.gz", ".csv"])
@pytest.mark.parametrize("unit", [None, "unit"])
@pytest.mark.parametrize("sample", [None, SAMPLE])
def test_several_readers_find_what_one_does(kind, unit, sample, tmp_path):
    write_files(kind, tmp_path)
    found = [
        read_records(tmp_path, unit_column=unit, **COLUMNS, sample=sample, readers=readers)
        for readers in (None, by_others)
    ]
    assert found[0] == found[1]
    assert len(found[0]) > 0
    assert sample is None or len(found[0]) < 600


def test_a_fault_that_a_reader_finds_is_the_users_to_mend(tmp_path):
    write_files(".parquet", tmp_path)
    with pytest.raises(DataError, match="topic"):
        read_records(tmp_path, label_column="topic", sample=SAMPLE, readers=by_others)


def test_whole_numbers_that_are_equal_are_one_unit(tmp_path):
    numbers = {"text": ["a"] * 6, "unit": [1, 2, 3, 1, 2, 3]}
    frames = [pandas.DataFrame(numbers), pandas.DataFrame(numbers).astype({"unit": float})]
    for rate in (0.2, 0.5, 0.8):
        found = [read_of(frame, rate) for frame in (*frames, pyarrow.table(numbers))]
        assert found[0] == found[1] == found[2]


def read_of(frame, rate):
    for seed in range(100):
        try:
            return [record.unit for record in read_records(frame, unit_column="unit", sample=keyed(seed, rate))]
        except DataError:  # nobody is in this sample
            continue
    raise AssertionError


def lines_with_faults(faulty):
    """Lines of JSON of which those rows are malformed, unread or of an unknown label."""
    return "".join(
        ("{broken\n" if row % 2 else '{"text": "", "label": "zzz"}\n')
        if row in faulty
        else json.dumps(ROWS[row]) + "\n"
        for row in range(len(ROWS))
    )


def test_what_is_wrong_outside_of_the_sample_does_not_matter(tmp_path):
    path = tmp_path / "table.jsonl"
    outside = {row for row in range(len(ROWS)) if not SAMPLE.holds(None, row)}
    assert len(outside) > 350
    path.write_text(lines_with_faults(outside))
    # most of the table is unfit, and nothing of the sample
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = read_records(path, **COLUMNS, sample=SAMPLE)
    assert [record.text for record in found] == [ROWS[row]["text"] for row in range(600) if row not in outside]
    with pytest.raises(DataError):
        read_records(path, **COLUMNS)
    path.write_text(lines_with_faults(set(range(600)) - outside))
    with pytest.raises(DataError):
        read_records(path, **COLUMNS, sample=SAMPLE)


def test_an_empty_sample_is_refused():
    with pytest.raises(DataError, match="larger sample_rate"):
        read_records(ROWS[:3], sample=Sample(bytes(32), 1e-9))


@pytest.mark.parametrize("kind", ["jsonl", "csv", "parquet", "jsonl.gz"])
def test_memory_does_not_grow_with_the_table(kind, tmp_path):
    path = tmp_path / f"table.{kind}"
    rows = 50_000
    text = "word " * 40
    if kind == "parquet":
        table = pyarrow.table({"text": [f"{text}{row}" for row in range(rows)]})
        pyarrow.parquet.write_table(table, path, row_group_size=8192)
        del table
    else:
        with gzip.open(path, "wt", compresslevel=1) if kind.endswith("gz") else path.open("w") as file:
            file.write("text\n" if kind == "csv" else "")
            for row in range(rows):
                file.write(f"{text}{row}\n" if kind == "csv" else json.dumps({"text": f"{text}{row}"}) + "\n")
    sample = Sample(bytes(32), 0.002)
    tracemalloc.start()
    records = read_records(path, sample=sample)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert len(records) == sum(sample.holds(None, row) for row in range(rows))
    # the texts alone are 10 million bytes
    assert peak < 5_000_000


@pytest.mark.parametrize("name", ["utf-8", "cp1252", "utf-16", "shift_jis", "iso2022_jp", "gb18030", "utf-32", "cp037"])
def test_lines_are_the_same_wherever_a_block_ends(name, tmp_path, monkeypatch):
    path = tmp_path / "table.csv"
    letters = {"cp1252": "éß", "shift_jis": "日本ソ", "iso2022_jp": "日本ソ", "gb18030": "中文𠀀", "cp037": "é"}
    texts = [f"{letters.get(name, 'é日𝄞')} {row}" for row in range(40)]
    with path.open("w", encoding=name, newline="\n") as file:
        file.write("text\n" + "".join(f"{text}\n" for text in texts))
    dialect = Dialect(encoding=name)
    for block in (1, 2, 3, 7, 64, 2**20):
        monkeypatch.setattr("plainchant.data.encodings._BLOCK", block)
        assert [record.text for record in read_records(path, dialect=dialect)] == texts


def test_a_quote_that_is_never_closed_swallows_no_more_than_a_long_row(tmp_path, monkeypatch):
    path = tmp_path / "table.csv"
    path.write_text('text\none\n"two\n' + "".join(f"row {row}\n" for row in range(500)) + 'last"\n')
    # a later quote closes it: one row
    assert len(read_records(path)) == 2
    monkeypatch.setattr("plainchant.data.textual._LONGEST_ROW", 1000)
    found = read_records(path)
    assert [record.text for record in found[:4]] == ["one", "", "row 0", "row 1"]
    assert len(found) == 503


def test_a_record_of_a_sample_shows_nothing():
    assert "text" not in repr(read_records(ROWS, sample=SAMPLE))
    assert all(isinstance(record, Record) for record in read_records(ROWS, sample=SAMPLE))
