"""Labels are matched as a user means them, record by record."""

import json
from pathlib import Path
from typing import Any

import datasets
import pytest
from doubles.tables import CASES
from hypothesis import given, settings
from hypothesis import strategies as st

from plainchant.config import SynthesisConfig, parse_config
from plainchant.data.labels import LabelMatcher
from plainchant.data.raw import Dialect
from plainchant.data.tables import read_records
from plainchant.errors import ConfigError, DataError, DataNote

MARKER = "zqxsecretzqx"


@pytest.mark.parametrize(
    ("labels", "value", "label"),
    [
        (("red", "blue"), "red", "red"),
        (("red", "blue"), " Red\n", "red"),
        (("red", "blue"), "RED", "red"),
        (("red", "blue"), "reddish", None),
        (("red", "blue"), None, None),
        (("red", "blue"), "", None),
        (("Red", "red"), "red", "red"),
        (("Red", "red"), "Red", "Red"),
        (("Red", "red"), "RED", None),
        (("Café", "bar"), "Cafe\u0301", "Café"),
        (("Cafe\u0301", "bar"), "CAFÉ", "Cafe\u0301"),
        (("Straße", "b"), "STRASSE", "Straße"),
        (("true", "false"), True, "true"),
        (("true", "false"), "False", "false"),
        (("True", "False"), True, "True"),
        (("true", "false"), 1, "true"),
        (("1", "0"), True, "1"),
        (("1", "0"), "false", "0"),
        (("true", "1"), True, "true"),
        (("true", "1"), 1, "1"),
        (("1", "2"), 1, "1"),
        (("1", "2"), 1.0, "1"),
        (("1", "2"), "1.0", "1"),
        (("1.0", "2"), "1.0", "1.0"),
        (("1", "2"), 12, None),
        (("1", "2"), "x" * 4_000_000, None),
        (("1", "2"), "\u0301\u0316" * 1_000_000, None),
    ],
)
def test_what_a_cell_means(labels: tuple[str, ...], value: Any, label: str | None) -> None:
    assert LabelMatcher(labels).match(value) == label


@pytest.mark.parametrize(("value", "label"), [(0, "blue"), (1, "red"), (2, None), ("red", "red"), (None, None)])
def test_a_class_label_means_its_name(value: Any, label: str | None) -> None:
    assert LabelMatcher(["red", "blue"]).match(value, ["blue", "red"]) == label


def test_a_class_label_may_be_named_by_its_number() -> None:
    assert LabelMatcher(["0", "1"]).match(1, ["blue", "red"]) == "1"


@pytest.mark.filterwarnings("ignore::plainchant.errors.DataNote")  # a label without a row
@settings(deadline=None)
@given(
    st.lists(st.text(max_size=6) | st.integers() | st.booleans() | st.none() | st.floats(), max_size=8), st.integers(0)
)
def test_each_match_is_a_function_of_its_own_cell(values: list[Any], place: int) -> None:
    rows = [{"text": "x", "label": value} for value in (*values, "red")]
    lenient = Dialect(allow_malformed=True)
    records = read_records(rows, label_column="label", labels=["red", "true", "1"], dialect=lenient)
    place %= len(rows)
    changed = [*rows[:place], {"text": "x", "label": "true"}, *rows[place + 1 :]]
    others = read_records(changed, label_column="label", labels=["red", "true", "1"], dialect=lenient)
    assert [*records[:place], *records[place + 1 :]] == [*others[:place], *others[place + 1 :]]


def _save(directory: Path, values: list[Any]) -> Path:
    path = directory / "rows.jsonl"
    rows = [{"text": f"note {n}", "label": value} for n, value in enumerate(values)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def _class_label(directory: Path) -> Path:
    kind = datasets.Features({"text": datasets.Value("string"), "label": datasets.ClassLabel(names=["blue", "red"])})
    rows = [{"text": f"note {n}", "label": n % 2} for n in range(80)]
    datasets.Dataset.from_list(rows, features=kind).save_to_disk(directory / "classlabel")
    return directory / "classlabel"


@pytest.mark.parametrize("name", ["label_case.jsonl", "label_bool.jsonl", "classlabel"])
def test_labels_of_real_files(name: str, tmp_path: Path) -> None:
    labels = ["true", "false"] if name == "label_bool.jsonl" else ["red", "blue"]
    made = {
        "label_case.jsonl": lambda: _save(tmp_path, ["Red", "Blue"] * 40),
        "label_bool.jsonl": lambda: _save(tmp_path, [True, False] * 40),
        "classlabel": lambda: _class_label(tmp_path),
    }[name]()
    for source in (made, *([CASES / name] if CASES.is_dir() else [])):
        found = [record.label for record in read_records(source, label_column="label", labels=labels)]
        assert len(found) == 80
        assert {label: found.count(label) for label in found} == dict.fromkeys(labels, 40)


def test_class_labels_in_parquet(tmp_path: Path) -> None:
    table = datasets.load_from_disk(str(_class_label(tmp_path)))
    table.to_parquet(tmp_path / "rows.parquet")
    for source in (table, tmp_path / "rows.parquet"):
        records = read_records(source, label_column="label", labels=["Red", "Blue"])
        assert [record.label for record in records[:3]] == ["Blue", "Red", "Blue"]


@pytest.mark.parametrize(
    ("values", "difference"),
    [
        (["not_applicable"] * 200, "differ from the named labels in signs, spaces or width"),
        ([None] * 200, "are missing or blank"),
        ([7] * 200, "are numbers"),
        ([True] * 200, "are truth values"),
        ([MARKER] * 200, "are other words"),
        (["not applicable"] + [MARKER] * 199, "are other words"),
    ],
)
def test_hardly_a_named_label_is_said_with_the_difference(values: list[Any], difference: str, tmp_path: Path) -> None:
    path = _save(tmp_path, values)
    with pytest.raises(DataError) as caught:
        read_records(path, label_column="label", labels=["not applicable", "open"])
    assert difference in str(caught.value)
    assert "Nothing was spent" in str(caught.value)
    assert MARKER not in str(caught.value)


def test_few_named_labels_can_be_wanted(tmp_path: Path) -> None:
    path = _save(tmp_path, ["open"] + [MARKER] * 199)
    records = read_records(path, label_column="label", labels=["open"], dialect=Dialect(allow_malformed=True))
    assert [record.label for record in records[:2]] == ["open", MARKER]
    with pytest.raises(DataError, match="hardly any row"):  # but not none at all
        read_records(path, label_column="label", labels=["shut"], dialect=Dialect(allow_malformed=True))


CONFIGURATIONS = {
    "nf.toml": 'labels = ["Cafe\u0301", "Caf\u00e9"]\nlabel_column = "label"\n',
    "el.toml": 'labels = ["", "a"]\nlabel_column = "label"\n',
}


@pytest.mark.parametrize("name", CONFIGURATIONS)
def test_label_sets_that_are_none_are_refused(name: str) -> None:
    contents = [CONFIGURATIONS[name]]
    if CASES.is_dir():
        contents.append((CASES / name).read_text("utf-8"))
    for content in contents:
        with pytest.raises(ConfigError, match=r"labels = .*(every label once|an empty label)"):
            parse_config(content)


@pytest.mark.parametrize("labels", [("a", " a"), (" ",), ("a", "a")])
def test_label_sets_of_one_form_are_refused(labels: tuple[str, ...]) -> None:
    with pytest.raises(ConfigError, match="labels"):
        SynthesisConfig(labels=labels, label_column="label")


def test_labels_apart_by_case_are_two() -> None:
    assert SynthesisConfig(labels=("a", "A"), label_column="label").label_set == ("a", "A")


def test_a_named_label_without_a_row_is_told_before_anything_is_spent():
    rows = [{"text": "a", "label": "bug"}] * 5
    with pytest.warns(DataNote, match="labels: no row has 'bugg'; plainchant check"):
        read_records(rows, label_column="label", labels=("bug", "bugg"))
