"""Runs with attributes beside the text: what is counted, what prompts show, what comes out (guarantee 14)."""

import datetime
import json
import math
from typing import Any

import numpy as np
import pandas as pd
import pytest
from doubles.embedders import Hashing
from doubles.models import Spy
from doubles.quick import independent
from doubles.randomness import Noise
from doubles.server import MODEL, serving

import plainchant as pc
from plainchant.config import PerformanceOptions, SynthesisConfig
from plainchant.data.centres import Centres
from plainchant.errors import ConfigError, MissingDependencyError, PrivacyError
from plainchant.privacy.accounting import epsilon_at
from plainchant.privacy.histograms import VOTE_GRID
from plainchant.privacy.marginals import counted_pairs
from plainchant.run import joint

# what lies beyond the ends is meant here
pytestmark = pytest.mark.filterwarnings("ignore:.*lie beyond the ends:plainchant.errors.DataNote")

UNITS = 24
COLUMNS: dict[str, Any] = {
    "attributes": {
        "kind": {"type": "category", "values": ["p", "q"]},
        "who": {"type": "category"},
        "price": {"type": "number", "cuts": [0, 10, 20]},
        "day": {"type": "date", "first": "2024-01-01", "last": "2024-02-29"},
        "open": {"type": "boolean"},
    }
}
RECORDS = [
    {
        "text": " a" * (1 + unit % 4), "unit": f"u{unit}", "label": label, "kind": "pq"[turn % 2],
        "who": f"w{unit % 2}", "price": None if unit % 5 == 0 else unit, "day": f"2024-0{1 + unit % 2}-03",
        "open": unit % 3 == 0,
    }
    for unit in range(UNITS)
    for turn, label in enumerate("xyzxy"[unit % 3 : unit % 3 + 1 + unit % 3])
]  # fmt: skip
VALUES: dict[str, Any] = {
    "unit_column": "unit", "label_column": "label", "labels": ("x", "y"), "max_tokens": 3, "min_tokens": 1,
    "max_record_tokens": 8, "top_k": 4, "texts": 6, "candidates": 2, "columns": COLUMNS,
    "prompt": {"example": "Text: {text}\n"},
}  # fmt: skip
MEAN: dict[str, Any] = {
    "method": "clustered-mean", "clipping": "difference", "support": "top_k", "clip": 1.0, "batch_size": 4,
    "rebalance_share": 0.4, "vote_share": 0.2, "min_cell": 1, "guidance": 1.0,
}  # fmt: skip
NO_VOTE = MEAN | {"candidates": 1, "expand": 2}
EVOLUTION: dict[str, Any] = {"method": "private-evolution", "rounds": 2, "candidates": 4}
ALONE: dict[str, Any] = {"method": "attributes", "candidates": None}
INDIVIDUAL: dict[str, Any] = MEAN | {
    "method": "plainchant",
    "clipping": "increase",
    "released_examples": 1,
    "rounds": 2,
}
WAYS = {"mean": MEAN, "plainchant": INDIVIDUAL, "no vote": NO_VOTE, "votes only": EVOLUTION, "attributes": ALONE}


class Recorded(Noise):
    """Notes the counts and σ of all noise. What it answers is the same on neighbours: so is all that follows."""

    def below(self, bound):
        # a unit is represented by its first record, whoever comes before it
        return 0 if bound < 10**6 else super().below(bound)

    def add_discrete_gaussian(self, counts, sigma):
        self.asked.append((list(counts), sigma))
        # the two values of `who` lie far above the threshold
        return (999 if len(counts) == 2 and min(counts) > 5 else 8) + np.arange(len(counts)) % 3


class Wide(Spy):
    """Has room for attributes, of which it knows no word."""

    def __init__(self):
        super().__init__()
        self.context_length = 4000


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    monkeypatch.setattr("plainchant.models.checked", lambda *_, **__: True)
    monkeypatch.setattr("plainchant.run.attributes.fit", independent)
    monkeypatch.setattr("plainchant.run.preparation.check_package", lambda: None)
    monkeypatch.setattr("plainchant.run.checking.missing_package", lambda config: None)


@pytest.fixture
def run(tmp_path, monkeypatch):
    centres = np.random.default_rng(0).normal(size=(12, 3)).astype(np.float32)
    Centres(centres / np.linalg.norm(centres, axis=1, keepdims=True)).save(tmp_path / "centres.npz")

    def go(records, name, *, noise=None, model=None, performance=None, **values):
        if values["method"] in ("clustered-mean", "plainchant"):
            values["centres"] = str(tmp_path / "centres.npz")
        places = iter(range(10**6))
        # the same tokens whatever the records are
        monkeypatch.setattr("plainchant.privacy.mechanisms.sample", lambda scores, _: next(places) ** 2 % len(scores))
        noise = noise or Recorded()
        with pc.synthesize(
            records, pc.plan(SynthesisConfig(**VALUES | values)), out=tmp_path / name, model=model or Wide(),
            embedder=Hashing(), performance=performance or PerformanceOptions(rows=64), randomness=noise,
        ) as made:  # fmt: skip
            made.finish()
        return noise.asked, made

    return go


def paid(made):
    """ρ and the largest change of the counts that it pays for, of each noisy histogram of a run, in order."""
    decided, config = made.plan, made.plan.config
    counts = [(decided.rho_select, 1), (decided.rho_size, 1)] if decided.rho_size else []
    sizes = [len(made.directory.cells()), 3, 3, 3, 3, 3]
    rho, pairs = decided.table.rho, len(counted_pairs(sizes))
    counts += (
        [(0.1 * rho, 1)] + [(0.25 * 0.9 * rho / len(sizes), 1)] * len(sizes) + [(0.75 * 0.9 * rho / pairs, 1)] * pairs
    )
    counts += [(decided.rho_words, VOTE_GRID)] if decided.rho_words else []
    return counts + [(decided.rho_vote / config.parts.rounds, VOTE_GRID)] * config.parts.rounds * config.votes


@pytest.mark.parametrize("way", WAYS)
def test_all_noise_together_costs_what_the_guarantee_names(run, way):
    asked, made = run(RECORDS, "whole", **WAYS[way])
    charged = paid(made)
    assert [sigma for _, sigma in asked] == pytest.approx([most / math.sqrt(2 * rho) for rho, most in charged])
    decided, delta = made.plan, made.plan.config.delta
    together = sum((most / sigma) ** 2 / 2 for (_, sigma), (_, most) in zip(asked, charged, strict=True))
    assert bool(decided.deals) == (way == "plainchant")
    if decided.deals is None:
        tokens = decided.mechanism.cost_of(decided.tokens_per_batch or 0).rho if decided.rho_size else 0.0
        assert together + tokens <= made.guarantee.cost.rho * (1 + 1e-9)
    else:
        order = decided.deals.order
        total = order * together + decided.deals.budget
        assert total <= made.guarantee.cost.at(order) * (1 + 1e-9)
        # what finding values takes of δ is not there for the deals
        known = epsilon_at(total, order, delta - decided.table.delta)
        assert known <= made.guarantee.epsilon * (1 + 1e-9) <= decided.config.epsilon * (1 + 1e-9)
    assert made.guarantee.cost.delta == made.guarantee.delta_found == decided.table.delta == 0.1 * decided.config.delta


def test_power_attributes_whose_cost_is_forgotten_are_caught(run):
    """The broken twin: the attributes are counted, and the texts spend the whole budget."""
    asked, made = run(RECORDS, "whole", **MEAN)
    counts = sum((most / sigma) ** 2 / 2 for (_, sigma), (_, most) in zip(asked, paid(made), strict=True))
    forgotten = pc.plan(SynthesisConfig(**VALUES | MEAN | {"columns": {}}))
    honest, broken = (counts + own.mechanism.cost_of(own.tokens_per_batch).rho for own in (made.plan, forgotten))
    assert honest <= made.guarantee.cost.rho * (1 + 1e-9)
    assert broken > made.guarantee.cost.rho * 1.05


@pytest.mark.parametrize("way", WAYS)
def test_a_unit_with_many_records_moves_no_counts_by_more_than_is_paid_for(run, way):
    whole, made = run(RECORDS, "whole", **WAYS[way])
    charged, largest = paid(made), np.zeros(len(whole))
    for gone in range(0, UNITS, 5):
        without, _ = run([row for row in RECORDS if row["unit"] != f"u{gone}"], f"without-{gone}", **WAYS[way])
        assert [(len(counts), sigma) for counts, sigma in without] == [(len(counts), sigma) for counts, sigma in whole]
        moved = [np.linalg.norm(np.subtract(one, other)) for (one, _), (other, _) in zip(whole, without, strict=True)]
        largest = np.maximum(largest, moved)
        assert (np.array(moved) <= [most for _, most in charged]).all()
    assert (largest >= [0.7 * most for _, most in charged]).all()


@pytest.mark.parametrize("way", WAYS)
def test_the_release_has_the_users_columns_and_types(run, way, tmp_path):
    run(RECORDS, "whole", **WAYS[way])
    path = tmp_path / "whole" / "release" / "synthetic.parquet"
    table = pd.read_parquet(path)
    rows = [json.loads(line) for line in path.with_suffix(".jsonl").read_text().splitlines()]
    names = (
        ["text"] * (way != "attributes")
        + ["label", "cell"]
        + ["origin"] * (way != "attributes")
        + list(COLUMNS["attributes"])
    )
    assert list(table.columns) == list(rows[0]) == names
    assert len(table) == len(rows) == (8 if way == "no vote" else 6)
    assert set(table["kind"].dropna()) <= {"p", "q"}
    assert set(table["who"].dropna()) <= {"w0", "w1"}
    assert table["price"].dropna().between(0, 19).all()
    assert str(table["day"].dtype) == "datetime64[us]"
    assert table["day"].dropna().between("2024-01-01", "2024-02-29").all()
    assert set(table["open"].dropna()) <= {True, False}
    texts = pc.open(tmp_path / "whole").texts
    assert [text.attributes["price"] for text in texts] == [row["price"] for row in rows]
    assert {type(text.attributes["day"]) for text in texts} <= {datetime.date, type(None)}
    card = (path.parent / "README.md").read_text()
    assert all(f"| {name} |" in card for name in names)


def _shown(model: Spy) -> list[str]:
    return [
        "".join(model._vocabulary[token] for token in row)
        for call in model.calls
        for _, rows, _ in call
        for row in rows
    ]


class Lettered(Spy):
    """Reads letters and digits too, so that attributes are seen."""

    def __init__(self):
        from plainchant.models.table import TableModel

        letters = [chr(code) for code in range(33, 127)]
        words = ["<eos>", "\n", " ", "a b c d", *letters]
        scores = np.array([-9.0, -9, 0, 0.5, *([0] * len(letters))])
        TableModel.__init__(self, words, lambda _: scores, end_of_text={0}, context_length=4000)
        self.special = frozenset({0})
        self.rooms, self.calls = [], []

    def open_rows(self, prefix, suffixes, *, room):
        return super().open_rows(prefix, suffixes, room=room)


def test_contexts_show_their_records_attributes_and_the_start_shows_the_rows(run):
    model = Lettered()
    _, made = run(RECORDS, "whole", model=model, **MEAN | {"clusters": "none", "candidates": 1})
    rows = made.directory.attribute_rows()
    starts = {rows.schema.shown(row.codes) for row in rows.rows}
    own = {rows.schema.shown(rows.schema.codes_of(record.attributes)) for record in _table(made)}
    private = [row for row in _shown(model) if row.count("Kind:") > 1]
    assert private
    for shown in private:
        *_, record, start = shown.split("Kind:")
        assert "Kind:" + start.partition("Text")[0] in starts
        assert "Kind:" + record.partition("Text")[0] in own


def _table(made):
    from plainchant.run.inputs import read_table

    return read_table(RECORDS, made.plan.config)


FEW = {"rounds": 4, "candidates": 2, "texts": 12}


@pytest.mark.parametrize(
    "values", [MEAN, INDIVIDUAL | FEW, EVOLUTION | FEW], ids=["mean", "few candidates", "few candidates, votes only"]
)
def test_every_row_is_released_once_with_a_text_that_was_written_for_it(run, tmp_path, values):
    _, made = run(RECORDS, "whole", **values)
    rows = made.directory.attribute_rows()
    released = pc.open(tmp_path / "whole").texts
    found = [(text.cell, tuple(text.attributes.values())) for text in released]
    assert sorted(found, key=repr) == sorted(((row.cell, row.values) for row in rows.rows), key=repr)


@pytest.mark.parametrize(
    "values",
    [{"labels": ("x", "y", "z")}, {"labels": ("x", "y", "z"), "quotas": {"x": 8, "y": 4}}],
    ids=["a label without rows", "a quota of none"],
)
def test_a_text_keeps_the_label_of_its_row_whoever_votes(run, tmp_path, values):
    """A label without rows has no candidates; its records must not vote on those of other labels' rows."""
    few = [RECORDS[0] | {"unit": f"z{unit}", "label": "z"} for unit in range(6)]
    _, made = run([*RECORDS, *few], "whole", **EVOLUTION | FEW | values)
    cells, labels = made.directory.cells(), made.plan.config.labels
    of_rows = [labels[cells[row.cell].label] for row in made.directory.attribute_rows().rows]
    released = pc.open(tmp_path / "whole").texts
    assert sorted(text.label for text in released) == sorted(of_rows)
    assert [text.label for text in released] == [labels[cells[text.cell].label] for text in released]


MORE = {"texts": 12}


def test_a_table_is_compared_with_its_text_alone_and_its_columns_alone(run):
    _, whole = run(RECORDS, "whole", **INDIVIDUAL | MORE)
    _, text = run(RECORDS, "text", **INDIVIDUAL | MORE | {"columns": {}})
    _, columns = run(RECORDS, "columns", **ALONE | MORE)
    found = {own.name: own.evaluation for own in pc.compare([text, columns, whole], RECORDS, embedder=Hashing())}
    assert [*found] == ["text", "columns", "whole"]
    assert {own.compared for own in found.values()} == {12}
    for figure, having in (("MAUVE", {"text", "whole"}), ("agreement of columns", {"columns", "whole"})):
        assert {name for name, own in found.items() if own.figure(figure)} == having
    # as they are by themselves, on as many rows
    assert found["whole"] == pc.evaluate(whole, RECORDS, embedder=Hashing(), size=12)
    few = {"attributes": {name: COLUMNS["attributes"][name] for name in ("kind", "who")}}
    for values in ({"columns": few}, {"labels": ("x",)}):
        _, other = run(RECORDS, str(values), **INDIVIDUAL | MORE | values)
        with pytest.raises(pc.errors.DataError, match="differ in their columns or labels"):
            pc.compare([whole, other], RECORDS, embedder=Hashing())


@pytest.mark.parametrize("columns", [COLUMNS, {}], ids=["beside attributes", "by itself"])
@pytest.mark.parametrize("deals", [False, True])
def test_records_write_no_text_of_a_label_that_is_to_have_none(run, deals, columns):
    def labels_written(quotas):
        _, made = run(RECORDS, str(quotas), **MEAN | {"deals": deals, "columns": columns, "quotas": quotas})
        cells, batches, config = made.directory.cells(), made.directory.batches(), made.plan.config
        assert {cell.label for cell in cells} == {0, 1}
        label_of = {batch.batch: config.labels[cells[batch.cell].label] for batch in batches}
        members = {batch: records for batch, own in made.directory.members().items() for records, _ in own}
        for batch, records in members.items():
            assert {RECORDS[record][config.label_column] for record in records} == {label_of[batch]}
        return set(label_of.values())

    assert labels_written("auto") == {"x", "y"}
    assert labels_written({"x": 6, "y": 0}) == {"x"}
    assert labels_written({"y": 6}) == {"y"}


@pytest.mark.parametrize("columns", [COLUMNS, {}], ids=["beside attributes", "by itself"])
@pytest.mark.parametrize("way", WAYS)
def test_columns_that_follow_from_the_label_agree_with_it_and_cost_nothing(run, tmp_path, way, columns):
    if way == "attributes" and not columns:
        pytest.skip("has neither texts nor attributes")
    group = {"x": "first", "y": "second"}
    asked, made = run(RECORDS, "whole", **WAYS[way] | {"columns": columns | {"of_label": {"group": group}}})
    table = pd.read_parquet(tmp_path / "whole" / "release" / "synthetic.parquet")
    assert list(table.columns)[-1] == "group"
    assert list(table["group"]) == [group[label] for label in table["label"]]
    assert [text.attributes["group"] for text in pc.open(tmp_path / "whole").texts] == list(table["group"])
    assert "| group | string | Follows from the label. |" in (tmp_path / "whole" / "release" / "README.md").read_text()
    without, other = run(RECORDS, "without", **WAYS[way] | {"columns": columns})
    assert other.guarantee.cost == made.guarantee.cost
    assert [sigma for _, sigma in asked] == [sigma for _, sigma in without]


def test_noise_and_rows_are_drawn_once(run, tmp_path):
    run(RECORDS, "whole", **MEAN)
    before = (tmp_path / "whole" / "release" / "synthetic.jsonl").read_text()
    again = Recorded()
    config = SynthesisConfig(**VALUES | MEAN | {"centres": str(tmp_path / "centres.npz")})
    with pc.synthesize(
        RECORDS, pc.plan(config), out=tmp_path / "whole", resume=True, model=Wide(), embedder=Hashing(),
        performance=PerformanceOptions(rows=64), randomness=again,
    ) as made:  # fmt: skip
        made.finish()
    assert not again.asked
    assert (tmp_path / "whole" / "release" / "synthetic.jsonl").read_text() == before


def test_a_ledger_adds_up_what_finding_values_costs(tmp_path, run):
    book = pc.Ledger.create(tmp_path / "ledger.json", 8.0, 1e-6)
    decided = pc.plan(SynthesisConfig(**VALUES | ALONE | {"epsilon": 4.0}))
    with pc.synthesize(
        RECORDS, decided, out=tmp_path / "one", ledger=tmp_path / "ledger.json", randomness=Recorded()
    ) as made:
        made.finish()
    assert book.spent.delta == 1e-7
    assert book.spent.epsilon(1e-6) <= 4.0
    with pytest.raises(PrivacyError, match=r"has ε = [\d.]+ left of its cap .* costs ε = 8 by itself"):
        book.check(pc.plan(SynthesisConfig(**VALUES | ALONE)).guarantee)


def test_an_endpoint_is_sent_the_rows_and_never_a_records_attributes(run):
    """Neighbours have the same requests where their noisy counts are the same."""
    bodies = []
    for name, records in (("whole", RECORDS), ("without", [row for row in RECORDS if row["unit"] != "u5"])):
        with serving() as served:
            own = EVOLUTION | {"candidate_model": MODEL, "candidate_endpoint": served.address}
            _, made = run(records, name, **own, performance=PerformanceOptions(requests=1))
        entries = [entry["body"] for entry in made.directory.requests() if "body" in entry]
        bodies.append(sorted(json.dumps(body, sort_keys=True) for body in entries))
        rows = made.directory.attribute_rows()
        starts = {rows.schema.shown(row.codes) for row in rows.rows}
        # three requests are a trial, with a made-up row
        found = ["Kind:" + body["prompt"].rpartition("Kind:")[2].rpartition("Text:")[0] for body in entries]
        assert set(found[3:]) <= starts
        assert set(found[:3]) == {rows.schema.model_copy(update={"attributes": _unfound()}).made_up(0)}
        assert len(pc.open(made.directory.path).texts) == 6
    assert bodies[0] == bodies[1]
    note = next(note for note in made.plan.notes if "will be released the moment they are sent" in note)
    assert "the rows" in note


def _unfound():
    return SynthesisConfig(**VALUES | ALONE).columns.attributes


def test_a_run_without_a_batch_pays_for_its_attributes_too(run, tmp_path):
    named = {name: own for name, own in COLUMNS["attributes"].items() if name != "who"}
    for columns, settled in ((named, True), (COLUMNS["attributes"], False)):
        ledger = pc.Ledger.create(tmp_path / f"ledger-{settled}.json", 100.0, 1e-6)
        decided = pc.plan(SynthesisConfig(
            **VALUES | MEAN | {"columns": {"attributes": columns}, "clusters": "none", "candidates": 1}
        ))  # fmt: skip
        with pytest.raises(PrivacyError, match=r"and those of the attributes\. The ledger holds"):
            pc.synthesize(
                RECORDS, decided, out=tmp_path / f"none-{settled}", ledger=ledger.path, model=Wide(),
                performance=PerformanceOptions(rows=64), randomness=Few(),
            )  # fmt: skip
        # where values were found at a part of δ, the whole cost stays
        drawn = decided.rho_rebalance + decided.table.rho
        assert ledger.spent.rho == (drawn if settled else decided.guarantee.cost.rho)
        assert drawn > decided.rho_rebalance


class Few(Recorded):
    """Noise that leaves no cell large enough."""

    def add_discrete_gaussian(self, counts, sigma):
        return super().add_discrete_gaussian(counts, sigma) * 0


def test_a_synthesizer_takes_a_table_and_gives_one_back(run, tmp_path):
    own = pc.Synthesizer(out=tmp_path / "fitted", performance=PerformanceOptions(rows=64), **VALUES | EVOLUTION)
    made = own.fit(pd.DataFrame(RECORDS), model=Wide(), embedder=Hashing()).sample()
    assert list(made.columns) == ["text", "label", "cell", "origin", *COLUMNS["attributes"]]
    released = pd.read_parquet(tmp_path / "fitted" / "release" / "synthetic.parquet")
    pd.testing.assert_frame_equal(made, released)
    assert own.run_.to_datasets().to_pandas().columns.tolist() == made.columns.tolist()


def test_pages_about_a_release_without_texts_say_what_it_is(run, tmp_path):
    run(RECORDS, "rows", **ALONE)
    out = tmp_path / "rows"
    page = pc.report(out)[0].read_text()
    assert "Synthetic rows" in page
    assert "kind: p" in page
    shared = pc.view(out).read_text()
    assert '"columns": ["label", "cell", "kind", "who", "price", "day", "open"]' in shared
    with pytest.raises(ConfigError, match="leave --private out"):
        pc.view(out, private=True, real=RECORDS)
    with pytest.raises(ConfigError, match="writes no texts"):
        pc.preview(SynthesisConfig(**VALUES | ALONE), model=Wide())


def test_a_statement_counts_attributes_and_says_that_rows_were_drawn(tmp_path):
    records = [row for row in RECORDS for _ in range(5)]
    pc.synthesize(records, pc.plan(SynthesisConfig(**VALUES | ALONE)), out=tmp_path / "run").finish()
    said = pc.statement(tmp_path / "run")[0].read_text()
    assert "6 synthetic rows with 2 labels and 5 attributes" in said
    assert "Every row was drawn from a law" in said
    assert "Every text was written" not in said
    card = (tmp_path / "run" / "release" / "README.md").read_text()
    assert "(zCDP), except with probability 1e-07" in card


def test_a_preview_shows_made_up_rows_to_the_model(run):
    model = Lettered()
    config = SynthesisConfig(**VALUES | MEAN | {"centres": 3})
    pc.preview(config, texts=3, model=model)
    shown = "".join(_shown(model))
    assert all(config.columns.made_up(number) in shown for number in range(3))


def test_check_looks_at_the_columns_of_a_schema():
    messages = [{"role": "user", "content": "hello there"}, {"role": "agent", "content": "good day to you"}]
    rows = [{"subject": f"number {n}", "body": "a b c", "talk": messages, "kind": "p"} for n in range(8)]
    attributes = {"kind": COLUMNS["attributes"]["kind"], "price": COLUMNS["attributes"]["price"]}
    found = pc.check(
        rows, SynthesisConfig(columns={"text": "{subject}: {body}", "attributes": attributes}), tokens=False
    )
    assert found.lengths.largest == 5
    assert list(found.problems) == [
        "columns.attributes: 'price' is not a column of the table that could be one; name another"
    ]
    talk = SynthesisConfig(text_column="talk", columns={"message": "{role}: {content}\n"})
    arrow = pytest.importorskip("pyarrow").Table.from_pylist(rows)
    for table in (rows, arrow):
        found = pc.check(table, talk, tokens=False)
        assert (found.empty, found.lengths.largest, list(found.problems)) == (0, 8, [])
    missing = pc.check(rows, SynthesisConfig(columns={"text": "{subject}: {nothing}"}), tokens=False)
    assert ["columns.text" in problem for problem in missing.problems] == [True]


def test_check_says_how_attributes_will_be_read():
    rows = [{"text": "a b c", "price": "1,234", "day": "31.12.2024", "kind": "pq"[n % 2]} for n in range(8)]
    attributes = {
        "price": {"type": "number", "cuts": [0, 10]},
        "day": {"type": "date", "first": "2024-01-01", "last": "2024-12-31"},
        "kind": {"type": "category", "values": ["p"]},
    }
    found = pc.check(rows, SynthesisConfig(columns={"attributes": attributes}), tokens=False)
    assert [problem.partition(";")[0] for problem in found.problems] == [
        "columns.attributes.price: 8 of 8 values are not a number",
        "columns.attributes.day: 8 of 8 values are not a date",
    ]
    assert "dates begin with year, month and day" in found.problems[1]
    assert any(note.startswith("columns.attributes.kind: 4 of 8 values are not one of") for note in found.notes)


def test_check_looks_at_a_typed_table_with_columns_of_any_type(tmp_path):
    pandas = pytest.importorskip("pandas")
    frame = pandas.DataFrame(
        {
            "text": [f"a b {n}" for n in range(30)],
            "day": pandas.to_datetime(["2024-01-01", "2024-01-02"] * 15),
            "took": pandas.to_timedelta([1] * 30),
            "raw": [b"x"] * 30,
        }
    )
    frame.to_parquet(tmp_path / "t.parquet")
    for table in (frame, tmp_path / "t.parquet"):
        found = pc.check(table, SynthesisConfig(), tokens=False)
        assert [facts.name for facts in found.columns] == list(frame)
        assert [list(facts.could_be) for facts in found.columns if facts.name == "day"] == [["label", "attribute"]]
        assert not found.problems


def test_rows_alone_come_in_the_numbers_that_are_asked_for(run, tmp_path):
    run(RECORDS, "alone", **ALONE | {"texts": 9, "quotas": {"x": 6, "y": 3}})
    rows = pc.open(tmp_path / "alone").texts
    assert sorted(row.label for row in rows) == ["x"] * 6 + ["y"] * 3


def test_the_extra_is_named_before_anything_is_made(tmp_path, monkeypatch):
    monkeypatch.setattr("plainchant.run.preparation.check_package", joint.check_package)
    monkeypatch.setitem(__import__("sys").modules, "mbi", None)
    with pytest.raises(MissingDependencyError, match=r"pip install plainchant\[table\]"):
        pc.synthesize(RECORDS, pc.plan(SynthesisConfig(**VALUES | ALONE)), out=tmp_path / "one", randomness=Recorded())
    assert not (tmp_path / "one").exists()


def test_check_and_plan_name_the_extra_before_a_run_does(tmp_path, command, monkeypatch):
    monkeypatch.setattr("plainchant.run.checking.missing_package", joint.missing_package)
    monkeypatch.setitem(__import__("sys").modules, "mbi", None)
    said = "columns.attributes: need the extra table: run `pip install plainchant[table]`"
    rows = [{"text": f"number {n}", "kind": "p"} for n in range(8)]
    columns = {"attributes": {"kind": {"type": "category", "values": ["p", "q"]}}}
    assert list(pc.check(rows, SynthesisConfig(columns=columns), tokens=False).problems) == [said]
    assert list(pc.check(rows, SynthesisConfig(), tokens=False).problems) == []
    file = tmp_path / "c.toml"
    file.write_text('[columns.attributes.kind]\ntype = "category"\nvalues = ["p", "q"]\n')
    assert said in " ".join(command("plan", file).err.split())
    file.write_text("")
    assert "extra table" not in command("plan", file).err


@pytest.mark.parametrize(
    ("values", "error", "said"),
    [
        (ALONE | {"columns": {}}, ConfigError, "none are named"),
        (MEAN | {"columns": {}, "table_share": 0.1}, ConfigError, "no attributes"),
        ({"method": "public", "candidates": 1}, ConfigError, "another method"),
        (MEAN | {"vote_labels": 2}, ConfigError, "keeps the label of its row"),
        (MEAN | {"choice": "matching"}, ConfigError, "most votes"),
        (MEAN | {"table_share": 0.5}, PrivacyError, "leaves nothing"),
        ({"method": "clustered-median", "candidates": 1}, PrivacyError, "ex-post"),
    ],
)
def test_what_cannot_be_is_refused(values, error, said):
    with pytest.raises(error, match=said):
        SynthesisConfig(**VALUES | values)


HARD = 2_000


HARD_COLUMNS: dict[str, Any] = {
    "attributes": {
        "many": {"type": "category"},
        "half": {"type": "category", "values": ["a", "b", "c"]},
        "same": {"type": "category"},
        "price": {"type": "number", "cuts": [0, 25, 50, 75, 100]},
        "count": {"type": "number", "cuts": [1, 2, 3, 4, 5, 6]},
        "day": {"type": "date", "first": "2024-01-01", "last": "2024-12-31"},
        "flag": {"type": "boolean"},
    }
}


def _hard() -> pd.DataFrame:
    """One category of 200 values, 30 % missing, a constant column, a number column with text in it, two dtypes."""
    source = np.random.default_rng(5)
    value = np.minimum(source.zipf(1.3, HARD), 200)
    price = [str(number) for number in source.integers(0, 100, HARD)]
    for place in range(0, HARD, 7):
        price[place] = "about ten"
    return pd.DataFrame(
        {
            "label": source.choice(["x", "y"], HARD, p=[0.7, 0.3]),
            "many": [f"v{own}" for own in value],
            "half": np.where(source.random(HARD) < 0.3, None, source.choice(["a", "b"], HARD)),
            "same": "only",
            "price": price,
            "count": source.integers(1, 6, HARD),
            "day": pd.Timestamp("2024-01-01") + pd.to_timedelta(source.integers(0, 300, HARD), unit="D"),
            "flag": source.random(HARD) < 0.2,
        }
    )


@pytest.mark.parametrize("epsilon", [8.0, 1.0])
def test_a_hard_table_gives_a_sensible_release_with_its_types(tmp_path, monkeypatch, epsilon):
    pytest.importorskip("mbi")
    monkeypatch.setattr("plainchant.run.attributes.fit", joint.fit)
    table = _hard()
    config = SynthesisConfig(
        method="attributes", epsilon=epsilon, label_column="label", labels=("x", "y"), columns=HARD_COLUMNS, texts=HARD
    )
    with pytest.warns(pc.errors.DataNote, match=r"columns.attributes.price: 286 of 2,000 values are not a number"):
        pc.synthesize(table, pc.plan(config), out=tmp_path / "run").finish()
    made = pd.read_parquet(tmp_path / "run" / "release" / "synthetic.parquet")
    assert len(made) == HARD
    kept = ["count", "flag", "label", "many", "same"]
    assert {name: str(made[name].dtype) for name in kept if name != "many"} == {
        name: str(table[name].dtype) for name in kept if name != "many"
    }
    assert str(made["day"].dtype).startswith("datetime64")
    # what many share is found, what one has never is
    found = set(made["many"].dropna())
    assert {"v1", "v2"} <= found < set(table["many"])
    assert set(made["same"]) == {"only"}
    assert 0.2 < made["half"].isna().mean() < 0.4
    assert "c" not in set(made["half"]) or (made["half"] == "c").mean() < 0.05
    assert 0.05 < made["price"].isna().mean() < 0.25
    with pytest.warns(pc.errors.DataNote):
        figures = pc.evaluate(tmp_path / "run", table, limit=HARD)
    least = 0.93 if epsilon == 8 else 0.85
    assert figures.figure("agreement of columns").value > least
    assert figures.figure("agreement of pairs of columns").value > least - 0.12


@pytest.mark.parametrize("epsilon", [8.0, 1.0])
@pytest.mark.parametrize("method", ["plainchant", "private-evolution"])
def test_a_small_hard_table_with_texts_keeps_its_form(tmp_path, monkeypatch, epsilon, method):
    pytest.importorskip("mbi")
    monkeypatch.setattr("plainchant.run.attributes.fit", joint.fit)
    table = _hard().head(1_000)
    table["text"] = [None if row % 50 == 0 else " a b a"[: 2 + 2 * (row % 3)] for row in range(len(table))]
    config = SynthesisConfig(
        method=method, epsilon=epsilon, label_column="label", labels=("x", "y"), columns=HARD_COLUMNS, texts=60,
        max_tokens=4, min_tokens=1, max_record_tokens=8, top_k=4, centres=1, prompt={"example": "Text: {text}\n"},
        expected_units=len(table),
    )  # fmt: skip
    with pytest.warns(pc.errors.DataNote, match=r"columns.attributes.price: 143 of 1,000 values are not a number"):
        made = pc.synthesize(table, pc.plan(config), out=tmp_path / "run", model=Wide(), embedder=Hashing())
        rows = made.finish()
    assert len(rows) == 60
    release = pd.read_parquet(tmp_path / "run" / "release" / "synthetic.parquet")
    assert {*release.columns} == {"text", "label", *HARD_COLUMNS["attributes"], "cell", "origin"}
    assert release["text"].str.len().min() > 0
    assert set(release["label"]) <= {"x", "y"}
    assert set(release["many"].dropna()) <= set(table["many"])
    assert set(release["same"].dropna()) <= {"only"}
    assert set(release["half"].dropna()) <= {"a", "b", "c"}
    assert release["price"].dropna().between(0, 100).all()
    assert release["count"].between(1, 6).all()
    assert str(release["flag"].dtype) == "bool"
    assert release["day"].between("2024-01-01", "2024-12-31").all()


def test_a_configuration_with_attributes_is_the_same_from_its_file(tmp_path):
    example = {"text": "a", "label": "x", "attributes": {"day": datetime.date(2024, 2, 1), "price": None, "open": True}}
    values = VALUES | ALONE | {"prompt": {"examples": [example]}}
    with pc.synthesize(
        RECORDS, pc.plan(SynthesisConfig(**values)), out=tmp_path / "one", randomness=Recorded()
    ) as made:
        made.finish()
    assert made.directory.config == SynthesisConfig(**values)
    assert made.directory.config.prompt.examples[0].attributes == {"day": "2024-02-01", "open": True}
