"""The pages of the benches are made from committed results, and the bench of speed runs through."""

import json
from argparse import Namespace
from pathlib import Path

import numpy as np
import pytest

import candidates
import drift
import flow_picture
import speed.page
import study
import tutorial
import votes_picture
from plainchant.models.transformers.load import load_model
from speed import machine, sections
from speed.common import RESULTS, measured

ROOT = Path(__file__).parents[2]


def test_the_page_of_the_study_names_cells_that_there_are():
    named = {name for groups in study.TABLES.values() for names in groups.values() for name in names}
    named |= {cell for _, *cells in study.PICTURED for cell in cells if cell is not None} | set(study.MAIN)
    assert named <= set(study.load_cells())


def test_the_page_of_the_study_is_made_from_its_results():
    text = study.page_text(study.results())
    assert text == (ROOT / "docs" / "study.md").read_text(), "python bench/study.py page"
    assert len(text) > 10_000


def test_a_result_of_before_todays_rules_is_marked():
    assert study.marked("a cell", [{"version": "1"}]) == "a cell"
    assert study.marked("a cell", [{"version": "1"}, {"version": "1", "earlier": "before votes"}]) == "a cell †"


def test_the_readmes_advice_is_what_plans_say():
    readme = (ROOT / "README.md").read_text()
    assert study.advised(readme) == readme, "python bench/study.py page"
    assert study.advice() in readme


def test_the_readmes_figures_are_those_of_the_study():
    readme, found = (ROOT / "README.md").read_text(), study.results()
    assert f"<!-- gains -->\n{study.gains(found)}\n<!-- end of gains -->" in readme, "python bench/study.py page"
    # a figure that changes changes the table
    (one, *_) = found["advisories/rounds"]
    one["evaluation"]["usefulness"]["accuracy, trained on synthetic"]["value"] = 0.99
    assert "| 0.99 |" in study.gains(found)


def test_the_picture_of_the_way_is_made_by_its_script():
    assert flow_picture.picture() == (ROOT / "docs" / "flow.svg").read_text(), (
        "python bench/flow_picture.py docs/flow.svg"
    )
    assert "prefers-color-scheme: dark" in flow_picture.picture()


def test_the_outputs_of_the_tutorial_are_those_that_were_kept():
    page = tutorial.PAGE.read_text(encoding="utf-8")
    outputs = json.loads(tutorial.OUTPUTS.read_text(encoding="utf-8"))
    assert tutorial.with_outputs(page, outputs) == page, "python bench/tutorial.py page"
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    assert tutorial.shown_in(readme, outputs) == readme, "python bench/tutorial.py page"
    # every command of the page was run, in the order in which it stands there
    assert list(outputs) == [line for kind, line, _ in tutorial.steps(page) if kind == "command"]
    assert any(line.startswith("plainchant run") for line in outputs)


def test_the_page_of_speed_is_made_from_its_results():
    text = speed.page.page_text(speed.page.results())
    assert text == (ROOT / "docs" / "speed.md").read_text(), "python bench/speed page"
    assert text.count("\n## ") == len(speed.page.NAMES)


def test_the_page_of_candidates_is_made_from_its_results():
    text = candidates.page_text(candidates.every_result())
    assert text == (ROOT / "docs" / "candidates.md").read_text(), "python bench/candidates.py page"
    for way in ("plain", "rotated"):
        assert f"| {way} |" in text


def test_the_table_of_long_texts_is_made_from_its_results():
    page, found = drift.PAGE.read_text(encoding="utf-8"), json.loads(drift.RESULTS.read_text())
    assert study.between(page, "drift", drift.table(found)) == page, "python bench/drift.py --page"
    found["head by records"][0]["MAUVE"] = 0.99
    assert "| 0.99 |" in drift.table(found)
    assert study.between(page, "drift", drift.table(found)) != page


def test_the_bench_of_candidates_holds_a_vote_as_a_run_does():
    generator = np.random.default_rng(0)
    topics = np.eye(4, 8)[:, None] + 0.1 * generator.normal(size=(4, 50, 8))
    vectors = (topics / np.linalg.norm(topics, axis=2, keepdims=True)).astype(np.float32).reshape(-1, 8)
    asked = np.repeat(np.arange(4), 50)
    words = [f"text {place} of many words" for place in range(200)]
    pool = candidates.Pool(words, asked, vectors)
    config = candidates.config_of("ag_news")
    # nobody is near to the third topic
    voters = candidates.Voters(np.repeat([0, 1, 3], 300), np.repeat(vectors[[3, 53, 153]], 300, axis=0))
    tally, left_out, _ = candidates.hold(pool, voters, config, 1.0, 20, seed=0)
    assert tally.without_signal(4).tolist() == [2]
    assert set(left_out) <= {"near-duplicate"}
    for choice in candidates.CHOICES:
        chosen = candidates.chosen_by(tally, pool, config, 4, choice)
        assert {(0, 3), (1, 53), (3, 153)} <= set(chosen)


def test_the_picture_of_votes_shows_what_its_titles_say():
    records, candidates = votes_picture.points()

    def near(chosen):
        apart = np.linalg.norm(candidates[chosen][:, None] - records[None], axis=2)
        return np.mean(apart.min(axis=1) < 0.1)

    shares = [near(chosen) for _, chosen in votes_picture.panels()]
    assert shares[0] < shares[1] < shares[2]
    assert (ROOT / "docs" / "votes.svg").exists()


def test_every_result_of_speed_says_when_it_was_measured():
    for name in speed.page.NAMES:
        found = json.loads((RESULTS / f"{name}.json").read_text())
        assert "measured" in found or "committed on" in found["source"]


def test_a_figure_that_changes_changes_the_page():
    found = speed.page.results()
    before = speed.page.page_text(found)
    found["memory"]["result"][0]["caches"] = 0.3
    after = speed.page.page_text(found)
    assert "| caches under the cap, GiB | ≤ 0.2 | 0.300 | **missed** |" in after
    assert "The cap decides how many rows share a pass" in after
    assert "The cap decides how many rows share a pass" not in before
    del found["int8"]
    assert "Eight-bit" not in speed.page.page_text(found)


@pytest.fixture
def options(model, tmp_path, monkeypatch):
    monkeypatch.setattr(machine, "SQUARES", ((64, 1),))
    monkeypatch.setattr(sections, "DTYPES", ("float32",))
    points = [("batch size", 4, 1, 4, 64), ("batches in a pass", 2, 2, 4, 64), ("prompt", 80, 1, 4, 80)]
    monkeypatch.setattr(sections, "POINTS", points)
    return Namespace(models=[str(model)], steps=2, data=tmp_path, texts=1, tokens=4)


def results_of(functions, options, folder):
    for function in functions:
        measured(function, options, folder)
    return speed.page.results(folder)


def test_the_bench_of_speed_runs_on_a_tiny_model(options, tmp_path):
    found = results_of([sections.peak, sections.private, sections.curves], options, tmp_path / "results")
    page = speed.page.page_text(found)
    for title in ("Against the machine", "The private part of a step", "Batch, pass and prompt"):
        assert f"## {title}\n" in page
    (line,) = found["peak"]["result"]["lines"]
    assert 0 < line["pass"] < line["step"]
    assert 0 < line["public"] < 1
    assert line["profile"]["linear layers"] > 0
    for line in found["private"]["result"]:
        assert min(line[part] for part in ("forward", "hand over", "support", "distribution", "cost", "rest")) > 0
        assert 0 < line["outside"] < 1
    # by hand: two layers with keys and values of two heads of eight numbers, four bytes each; caches of multiples of 32
    held = {line["x"]: line["caches"] * 2**30 / (2 * 2 * 2 * 8 * 4) for line in found["curves"]["result"]}
    # four rows of a batch and a public one, with room for some tokens, and the prefix of half a prompt
    assert held == {4: 4 * 96 + 64 + 32, 2: 2 * (4 * 96 + 64) + 32, 80: 4 * 96 + 64 + 40}


def test_what_has_no_data_is_left_out_and_the_page_says_where_it_comes_from(options, tmp_path):
    found = results_of([sections.drafting], options, tmp_path / "results")
    assert "SOURCE.md" in found["drafting"]["result"]["skipped"]
    page = speed.page.page_text(found)
    assert "Not measured: AG News was not there (ag_news_test.jsonl" in page


def test_a_pass_that_judges_drafts_leaves_the_model_as_it_was(model):
    loaded = load_model(str(model))
    before = sections.moved(loaded)
    assert all(seconds > 0 for seconds in sections.pass_seconds(loaded, 1, 2, 1))
    assert sections.moved(loaded) == before


@pytest.mark.slow
def test_memory_and_int8_are_measured_on_a_tiny_model(options, tmp_path):
    found = results_of([sections.memory, sections.int8], options, tmp_path / "results")
    capped, free = found["memory"]["result"]
    assert 0 < capped["caches"] <= capped["cap"]
    assert free["cap"] is None
    assert capped["held"] >= capped["rows"] > 0
    assert [line["kind"] for line in found["int8"]["result"]["lines"]] == ["float32", "int8"]
    assert "The memory cap" in speed.page.page_text(found)
