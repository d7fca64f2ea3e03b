"""What a table holds, for its holder: every count right, columns told apart, and no text that stops the work."""

import json
import time

import pandas
import pyarrow
import pyarrow.parquet
import pytest

from plainchant.data.formats import read_raw
from plainchant.data.header import columns_of
from plainchant.data.raw import Dialect
from plainchant.data.survey import Asked, survey
from plainchant.errors import DataError

ROWS = [
    {"text": "the bus was late again", "label": "Bug", "unit": 1, "n": 1.5},
    {"text": "the bus was late again ", "label": "bug ", "unit": 1, "n": 2.5},
    {"text": " ", "label": None, "unit": None, "n": 3.5},
    {"text": None, "label": "bu\u0308g", "unit": 2, "n": 4.5},
    {"text": "a lamp is broken here", "label": "b\u00fcg", "unit": 3, "n": None},
]
ALL = Asked("text", "label", "unit", ("bug", "b\u00fcg"))


def test_every_count_is_right():
    found = survey(ROWS, ALL)
    assert (found.rows, found.malformed, found.empty, found.duplicates, found.unlabelled) == (5, 0, 2, 1, 1)
    assert (found.units, found.without_id, found.median_records, found.most_records) == (4, 1, 1.0, 2)
    first, second = found.labels
    assert (first.label, first.rows, dict(first.written)) == ("bug", 2, {"Bug": 1, "bug ": 1})
    # composed and decomposed letters are one label, and the other way of writing is named
    assert (second.rows, list(second.written.values())) == (2, [1])
    assert found.problems == []
    assert found.lengths.unit == "words"
    assert found.lengths.largest == 5


def test_tokens_are_counted_and_what_is_cut_is_a_share():
    rows = [{"text": "a" * length} for length in (1, 2, 3, 10)]
    found = survey(rows, Asked("text", None, None, ()), count_tokens=len, most_tokens=2)
    assert (found.lengths.unit, found.lengths.cut, found.lengths.largest) == ("tokens", 0.5, 10)


@pytest.mark.parametrize(
    ("label", "values", "words"),
    [
        ("bgu", ["bug"] * 3, "no row has 'bgu'; did you mean 'bug' (3 rows)?"),
        ("re-fund", ["refund"] * 2, "did you mean 'refund' (2 rows)?"),
        ("xyz", ["bug"], "no row has 'xyz'"),
    ],
)
def test_a_label_that_no_row_has_is_a_problem_with_what_was_meant(label, values, words):
    found = survey([{"text": "a", "label": value} for value in values], Asked("text", "label", None, (label,)))
    assert any(words in problem for problem in found.problems)
    assert found.others == {values[0]: len(values)}


def test_of_several_spellings_the_one_of_most_rows_was_meant():
    rows = [{"text": "a", "label": value} for value in ["Bug"] * 2 + ["bug"] * 5 + ["BUG"]]
    found = survey(rows, Asked("text", "label", None, ("bugs",)))
    assert found.problems == ["labels: no row has 'bugs'; did you mean 'bug' (5 rows)?"]


def test_where_no_labels_are_named_those_that_are_there_are_listed():
    rows = [{"text": "a", "label": name} for name in ["bug"] * 5 + ["Bug"] * 2 + ["other"] * 3]
    found = survey(rows, Asked("text", "label", None, ()))
    assert [(facts.label, facts.rows, dict(facts.written)) for facts in found.labels] == [
        ("bug", 7, {"Bug": 2}),
        ("other", 3, {}),
    ]


def test_columns_say_what_they_could_be():
    rows = [
        {
            "body": f"a sentence about lamp {n} and more",
            "kind": "ab"[n % 2],
            "who": f"customer{n // 3}",
            "day": f"2024-01-{n % 28 + 1:02}",
            "ok": n % 2 == 0,
            "cents": n % 290 * 7,
            "row": n,
        }
        for n in range(300)
    ]
    found = {facts.name: facts for facts in survey(rows, Asked("body", None, None, ())).columns}
    assert found["body"].could_be == ("text",)
    assert found["kind"].could_be == ("label", "attribute")
    assert found["who"].could_be == ("unit",)
    assert "attribute" in found["day"].could_be
    assert found["ok"].kind == "truth values"
    assert found["cents"].could_be == ("unit", "attribute")
    # protects nobody but a row
    assert found["row"].could_be == ("attribute",)


def test_columns_are_named_in_every_format(tmp_path):
    flat = {"text": ["a b c", "d"], "n": [1, 2]}
    table = pyarrow.table(flat | {"tags": [["x"], []]})
    pyarrow.parquet.write_table(table, tmp_path / "t.parquet")
    (tmp_path / "t.csv").write_text("text;n\na b c;1\nd;2\n")
    (tmp_path / "t.jsonl").write_text("\n".join(json.dumps({"text": t, "n": n}) for t, n in [("a b c", 1), ("d", 2)]))
    sources = [tmp_path / "t.csv", tmp_path / "t.jsonl", pandas.DataFrame(flat), table.drop_columns(["tags"])]
    for source in sources:
        assert [column.name for column in columns_of(source)[0]] == ["text", "n"]
        assert survey(source, Asked("text", None, None, ())).rows == 2
    found = survey(tmp_path / "t.parquet", Asked("text", None, None, ()))
    assert [(facts.name, facts.could_be) for facts in found.columns][2] == ("tags", ())
    assert columns_of(tmp_path / "t.csv", Dialect())[1] == ";"
    (tmp_path / "array.json").write_text("\n" + json.dumps([{"text": "a b c", "n": 1}, {"text": "d", "n": 2}]))
    assert [column.name for column in columns_of(tmp_path / "array.json")[0]] == ["text", "n"]
    # a header is looked for at the top alone: a large file is not held in memory for it
    with open(tmp_path / "long.csv", "wb") as file:
        file.write(b"text,n\n" + b"a,1\n" * 200_000 + b"\xff\xff,2\n")
    assert [column.name for column in columns_of(tmp_path / "long.csv", Dialect(encoding="utf-8"))[0]] == ["text", "n"]
    # one row alone names no column
    rows = [{"text": "a"}] * 30 + [{"text": "b", "a secret": 1}]
    assert [column.name for column in columns_of(rows)[0]] == ["text"]


def test_a_record_in_place_of_a_header_is_in_no_error(tmp_path, monkeypatch):
    (tmp_path / "t.csv").write_text("Ann Secret,77,77,a b c\nBob,1,2,d e f\n")
    asked: list[str] = []

    def reading(source, names, dialect):
        asked.extend(names)
        return read_raw(source, names, dialect)

    monkeypatch.setattr("plainchant.data.survey.read_raw", reading)
    found = survey(tmp_path / "t.csv", Asked("d", None, None, ()))
    # names that occur twice stop nothing; the holder sees them where all names are shown
    assert found.rows == 1
    assert [facts.name for facts in found.columns] == ["Ann Secret", "77", "77", "a b c"]
    assert any("'77' names 2 columns" in note for note in found.notes)
    # errors name a column by its role
    assert asked
    assert not any(word in role for role in asked for word in ("Ann", "77", "a b c"))


def test_what_is_no_table_is_refused():
    for source in ([], 7, {"text": "a"}):
        with pytest.raises(DataError):
            survey(source, Asked("text", None, None, ()))


def test_a_column_of_messages_is_there_and_needs_a_template(tmp_path):
    path = tmp_path / "talks.parquet"
    talks = pyarrow.array([[{"role": "user", "content": "secret"}]] * 3)
    pyarrow.parquet.write_table(pyarrow.table({"talk": talks, "kind": ["a", "b", "c"]}), path)
    (problem,) = survey(path, Asked("talk", None, None, ())).problems
    assert "text_column = 'talk': holds lists or structs" in problem
    assert '[columns] message = "{role}: {content}' in problem
    assert "not a column" not in problem
    assert "secret" not in problem


def test_a_missing_column_is_named_with_those_that_could_be_meant():
    rows = [{"body": f"a sentence about lamp {n}", "x": n % 2} for n in range(20)]
    named = survey(rows, Asked("text", "kind", "who", ("a",)))
    assert len(named.problems) == 3
    assert "could be 'body'" in named.problems[0]
    assert not survey(rows, Asked("text", None, None, (), named=False)).problems


HOSTILE = {
    "marks": "e" + "\u0301" * 200_000,
    "digits": "9" * 200_000,
    "spaces": " " * 200_000,
    "dots": "1." * 100_000,
    "long label": "bug" * 70_000,
}


@pytest.mark.parametrize("name", HOSTILE)
def test_time_is_linear_in_hostile_text(name):
    def seconds(size):
        text = HOSTILE[name][:size]
        rows = [{"text": text, "label": text, "unit": text}] * 4 + [{"text": "x y z", "label": "bug", "unit": "u"}] * 4
        began = time.process_time()
        survey(rows, Asked("text", "label", "unit", ("bug", "buggy")))
        return time.process_time() - began

    half, whole = min(seconds(100_000) for _ in range(2)), min(seconds(200_000) for _ in range(2))
    assert whole < 1.0 + 4 * half


def test_many_different_labels_are_compared_in_bounded_time():
    rows = [{"text": "x", "label": f"{n} " + "label " * 50} for n in range(20_000)]
    began = time.process_time()
    survey(rows, Asked("text", "label", None, tuple(f"label number {n}" for n in range(150))))
    assert time.process_time() - began < 60


def test_units_of_a_label_are_counted_as_a_run_draws_one_row_of_each():
    rows = [{"text": "a", "label": label, "who": who} for label, who in ("x1", "x1", "x1", "y1", "y2", "z2", "X3")]
    rows.append({"text": "a", "label": "y", "who": None})
    found = survey(rows, Asked("text", "label", "who", ("x", "y")))
    assert [(facts.label, facts.rows, facts.units) for facts in found.labels] == [("x", 4, 1.75), ("y", 3, 1.75)]
    assert found.units == 4
    assert survey(rows, Asked("text", "label", None, ("x", "y"))).labels[0].units is None


def test_an_empty_file_is_told_as_one(tmp_path):
    (tmp_path / "table.csv").write_text("")
    with pytest.raises(DataError, match="data: is empty"):
        survey(tmp_path / "table.csv", ALL)
