"""Line breaks, blank lines, tabs and indents: from the records into prompts, and from the model into every release."""

import html
import json
from types import SimpleNamespace
from typing import Any

import numpy as np
import pyarrow.parquet
import pytest
from doubles.embedders import Hashing
from doubles.forms import FORMS

from plainchant import plan, synthesize
from plainchant.cli.plan import show_plan
from plainchant.config import PerformanceOptions, SynthesisConfig
from plainchant.models.table import TableModel
from plainchant.reporting.page import write_report


class Scribe(TableModel):
    """Characters are tokens. Writes one text after each start of an entry, then what ends one, again and again."""

    def __init__(self, start, text, behind):
        words = ["<eos>", *sorted({*start, *text, *behind})]
        wanted, begin = (tuple(words.index(character) for character in part) for part in (text + behind, start))

        def table(row):
            last = max(place for place in range(len(row)) if row[place : place + len(begin)] == begin)
            written = len(row) - last - len(begin)
            logits = np.full(len(words), -60.0)
            logits[wanted[written % len(wanted)]] = 0
            return logits

        super().__init__(words, table, end_of_text={0}, context_length=2_000)


@pytest.fixture(autouse=True)
def unchecked(monkeypatch):
    """What a model must show before it reads a record is tested elsewhere."""
    monkeypatch.setattr("plainchant.models.checked", lambda *_, **__: True)


def settings(**changes):
    values: dict[str, Any] = {
        "method": "clustered-mean", "clusters": "none", "clipping": "difference", "clip": 0.01, "batch_size": 4,
        "texts": 2, "max_tokens": 180, "min_tokens": 1, "max_record_tokens": 180, "epsilon": 20, "candidates": 1,
    }  # fmt: skip
    return SynthesisConfig(**(values | changes))


def released(tmp_path, text, behind, **changes):
    config = settings(**changes)
    chosen, performance = plan(config), PerformanceOptions(rows=8)
    start = config.prompt.entry(labelled=False).partition("{text}")[0].rstrip(" ")
    model, records = Scribe(start, text, behind), [{"text": text}] * 60
    with synthesize(
        records, chosen, out=tmp_path / "out", model=model, embedder=Hashing(), performance=performance
    ) as run:
        run.finish()
    page, *_ = write_report(run.directory, chosen, chosen.guarantee)
    return SimpleNamespace(texts=run.directory.texts(), release=run.directory.release, page=page)


@pytest.mark.parametrize("name", FORMS)
def test_a_texts_form_arrives_in_the_release_unchanged(tmp_path, name):
    """With the default template, whose stop string is several tokens here: each character is one."""
    text = FORMS[name]
    made = released(tmp_path, text, "\nText:")
    assert [(found.text, found.finish) for found in made.texts] == [(text, "stop")] * 2
    rows = (made.release / "synthetic.jsonl").read_text(encoding="utf-8").split("\n")
    assert [json.loads(row)["text"] for row in rows if row] == [text] * 2
    assert pyarrow.parquet.read_table(made.release / "synthetic.parquet")["text"].to_pylist() == [text] * 2
    page = made.page.read_text(encoding="utf-8")
    assert html.escape(text).replace("&quot;", "&#34;").replace("&#x27;", "&#39;") in page
    assert ".samples li { font-family: var(--serif); white-space: pre-wrap;" in page


def test_where_public_examples_are_single_lines_a_line_break_ends_a_text(tmp_path):
    made = released(tmp_path, "one", "\ntwo", prompt={"examples": [{"text": "four"}]})
    assert [(found.text, found.finish) for found in made.texts] == [("one", "stop")] * 2


class Said:
    verbose = False

    def __init__(self):
        self.rows, self.warnings = {}, []

    def warn(self, message):
        self.warnings.append(message)

    def table(self, _, rows):
        self.rows = dict(rows)


@pytest.mark.parametrize(
    ("prompt", "form"),
    [
        ({}, "line breaks are kept"),
        ({"examples": [{"text": "one"}]}, "single lines, like the public examples"),
        ({"examples": [{"text": "one\ntwo"}]}, "line breaks are kept"),
        ({"example": "Text: {text}\n"}, "single lines, as prompt.example ends it"),
        ({"example": "Text: {text}\n---\n"}, "line breaks are kept; a text ends at a line that begins with '---'"),
        ({"example": "Text: {text};;"}, "line breaks are kept; a text ends at ';;'"),
        ({"form": "chat"}, "line breaks are kept; a text ends where the model ends it"),
    ],
)
def test_the_plan_says_what_form_texts_have(prompt, form):
    said: Any = Said()
    show_plan(said, plan(settings(prompt=prompt)))
    assert said.rows["form"].startswith(form)
    assert not said.warnings
