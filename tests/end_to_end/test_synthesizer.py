"""`fit` and `sample` over the same run, and what a notebook shows."""

import html.parser
import sys
from typing import Any

import pandas
import pytest
from doubles.embedders import Hashing

import plainchant as pc
from end_to_end.test_api import ONCE, ROWS, model

HOSTILE = "<script>alert(1)</script>\x1b[2J"
ONLY: dict[str, Any] = ONCE | {"texts": 12}


@pytest.fixture(scope="module")
def fitted(tmp_path_factory):
    path = tmp_path_factory.mktemp("fitted")
    own = pc.Synthesizer(out=path / "run", performance=pc.PerformanceOptions(rows=8), **ONLY)
    return own.fit(pandas.DataFrame(ROWS), model=model())


def test_a_data_frame_goes_in_and_one_comes_out(fitted):
    texts = fitted.sample()
    assert isinstance(texts, pandas.DataFrame)
    assert list(texts.columns) == ["text", "cell"]
    assert texts["text"].tolist() == [text.text for text in fitted.run_.texts]
    assert fitted.run_.guarantee == fitted.plan.guarantee
    some = fitted.sample(5)
    assert len(some) == 5
    assert list(some.index) == [0, 1, 2, 3, 4]
    assert set(some["text"]) <= set(texts["text"])
    with pytest.raises(pc.ConfigError, match="the release has 12 texts"):
        fitted.sample(13)


def test_a_second_fit_is_a_second_release(fitted, tmp_path, monkeypatch):
    with pytest.raises(pc.PrivacyError, match="costs of two releases"):
        fitted.fit(ROWS, model=model())
    monkeypatch.chdir(tmp_path)
    ledger = pc.Ledger.create(tmp_path / "ledger", epsilon=700.0, delta=1e-6)
    own = pc.Synthesizer(ledger=ledger.path, performance=pc.PerformanceOptions(rows=8), **ONLY)
    for name in ("synthesizer", "synthesizer-2"):
        own.fit(ROWS, model=model())
        assert own.run_.directory.path.name == name
    assert len(ledger.runs) == 2


def test_what_is_not_fitted_is_not_sampled():
    own = pc.Synthesizer(labels="bug, billing", label_column="label")
    assert own.config.labels == ("bug", "billing")
    assert own.plan.guarantee.kind == "ex-ante"
    with pytest.raises(pc.ConfigError, match="call fit"):
        own.sample()
    with pytest.raises(pc.ConfigError, match="did you mean epsilon"):
        pc.Synthesizer(epsilom=3)  # type: ignore[call-arg]
    with pytest.raises(pc.ConfigError, match="labels: not given"):
        pc.Synthesizer(label_column="label")


def test_a_run_becomes_a_table_of_either_kind(fitted, monkeypatch):
    datasets = pytest.importorskip("datasets")
    opened = pc.open(fitted.run_.directory.path)
    rows = opened.directory.released()
    assert opened.to_pandas().to_dict("records") == rows
    data = opened.to_datasets()
    assert isinstance(data, datasets.Dataset)
    assert data.to_list() == rows
    for name, convert in (("pandas", opened.to_pandas), ("datasets", opened.to_datasets)):
        monkeypatch.setitem(sys.modules, name, None)
        with pytest.raises(pc.MissingDependencyError, match=f"pip install {name}"):
            convert()


def test_a_run_in_progress_is_no_table_yet(tmp_path):
    plan = pc.plan(pc.SynthesisConfig(**ONLY))
    with pc.synthesize(ROWS, plan, out=tmp_path / "run", model=model()) as run:
        assert "0 of 12" in shown(run)
        with pytest.raises(pc.ConfigError, match="no release yet"):
            run.to_pandas()
        run.finish()
        assert len(run.to_pandas()) == len(run.to_datasets()) == 12


def shown(value):
    """The text of what a notebook shows; only tables, and no markup from values."""

    class Reader(html.parser.HTMLParser):
        def __init__(self):
            super().__init__()
            self.tags, self.text = set(), ""

        def handle_starttag(self, tag, attributes):
            assert not attributes
            self.tags.add(tag)

        def handle_data(self, data):
            self.text += f"{data} "

    reader = Reader()
    reader.feed(value._repr_html_())
    assert reader.tags <= {"table", "caption", "thead", "tbody", "tr", "th", "td", "p", "strong"}
    return reader.text


def test_a_notebook_shows_what_a_value_is(fitted):
    plan = pc.plan(pc.SynthesisConfig(unit_column=HOSTILE))
    assert plan.guarantee.statement.replace("\x1b", "\\x1b") in shown(plan) or "<script>alert(1)" in shown(plan)
    assert "\x1b" not in plan._repr_html_()
    said = shown(fitted.run_)
    assert "the odds of any conclusion" in said
    assert fitted.run_.texts[0].text in said
    found = pc.evaluate(fitted.run_, ROWS, embedder=Hashing())
    assert "PRIVATE" in shown(found)
    assert "MAUVE" in shown(found)
