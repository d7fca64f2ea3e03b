"""The page to browse a release holds released facts only; real texts are on a private page, and only when asked for."""

import html.parser
import json
import stat
from typing import Any

import numpy as np
import pytest
from doubles.embedders import Hashing
from doubles.finished import finished

from plainchant.errors import ConfigError, DataNote
from plainchant.reporting.view import view

HOSTILE = "</script><script>alert(1)</script><!-- <b>"
CONTROL = "red\x1b[31m\u202egreen\u2028"
ROWS: list[dict[str, Any]] = [
    {"text": f"{HOSTILE} & all", "label": "red", "cell": 0, "origin": "records"},
    {"text": CONTROL, "label": "blue", "cell": 1, "origin": "model"},
    {"text": "x" * 100_000, "label": "blue", "cell": 1, "origin": "records", HOSTILE: CONTROL},
]
REAL = [{"text": f"genuine note {n}", "label": "red"} for n in range(5)]


class Page(html.parser.HTMLParser):
    """The tags of a page, its text, its data and its scripts."""

    def __init__(self, path):
        super().__init__()
        self.source = path.read_text(encoding="utf-8")
        self.tags, self.text, self.scripts, self._inside = [], "", [], None
        self.feed(self.source)
        data, _ = self.scripts
        self.runs = json.loads(data)

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))
        self._inside = tag

    def handle_endtag(self, tag):
        self._inside = None

    def handle_data(self, data):
        if self._inside == "script":
            self.scripts.append(data)
        elif self._inside != "style":
            self.text += data


def test_the_page_holds_every_text_and_nothing_of_it_is_markup(tmp_path):
    run = finished(tmp_path / "run", ROWS, name=f"Tickets {HOSTILE}")
    path = view(run)
    assert path == tmp_path / "run" / "view.html"
    page = Page(path)
    (own,) = page.runs
    assert [row["text"] for row in own["rows"]] == [ROWS[0]["text"], "red\\x1b[31m\\u202egreen\\u2028", ROWS[2]["text"]]
    assert own["columns"] == ["label", "cell", "origin", HOSTILE]
    assert own["rows"][2]["tags"] == ["blue", 1, "records", "red\\x1b[31m\\u202egreen\\u2028"]
    assert own["name"] == "run"
    assert own["said"] == run.plan["guarantee"]["statement"]
    assert [tag for tag, _ in page.tags].count("script") == 2
    assert "alert(1)" not in page.scripts[1]
    assert not set("\x1b\u202e\u2028") & set(page.source)
    assert f"Tickets {HOSTILE}" in page.text
    assert "PRIVATE" not in page.source
    for tag, attributes in page.tags:
        assert not ({"src", "action", "onclick", "onsubmit", "onload"} & set(attributes)), tag
    (policy,) = [own["content"] for _, own in page.tags if own.get("http-equiv") == "Content-Security-Policy"]
    assert policy.startswith("default-src 'none'; ")
    assert "form-action 'none'" in policy


def test_the_script_never_makes_markup_of_text(tmp_path):
    script = Page(view(finished(tmp_path / "run", ROWS))).scripts[1]
    assert "textContent" in script
    for way in ("innerHTML", "outerHTML", "insertAdjacent", "document.write", "eval(", "Function(", "fetch(", "http"):
        assert way not in script


def test_two_runs_are_compared_and_told_apart(tmp_path):
    one, other = finished(tmp_path / "a" / "run", ROWS), finished(tmp_path / "b" / "run", ROWS[:1])
    first, second = Page(view(one, other, out=tmp_path / "both.html")).runs
    assert (first["name"], second["name"]) == ("run (1)", "run (2)")
    assert (len(first["rows"]), len(second["rows"])) == (3, 1)
    assert not (one.path / "view.html").exists()


@pytest.mark.filterwarnings("ignore::plainchant.errors.DataNote")  # a label without a row
def test_real_texts_are_shown_on_request_on_a_private_page_only(tmp_path):
    run = finished(tmp_path / "run", ROWS)
    assert "genuine note" not in view(run).read_text(encoding="utf-8")
    # the double was made from no table at all
    with pytest.warns(DataNote, match="is not the table|is of another table|another table"):
        path = view(run, private=True, real=REAL, embedder=Hashing())
    assert path == run.private / "view.html"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    page = Page(path)
    assert "PRIVATE: this page shows real texts; do not share" in page.text
    assert page.source.count("<title>PRIVATE ") == 1
    embedder, (own,) = Hashing(), page.runs
    real = embedder.encode([row["text"] for row in REAL])
    for row, released in zip(own["rows"], ROWS, strict=True):
        similar = real @ embedder.encode([released["text"]])[0]
        assert [text for _, text in row["near"]] == [REAL[best]["text"] for best in np.argsort(-similar)[:3]]
        assert [value for value, _ in row["near"]] == pytest.approx(sorted(similar)[::-1][:3], abs=1e-4)
    assert "genuine note" not in (run.path / "view.html").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"private": True}, "--private and --real"),
        ({"real": REAL}, "--private and --real"),
        ({"private": True, "real": REAL, "out": "seen.html"}, "private/ only"),
    ],
)
def test_real_texts_leak_by_no_mixture_of_options(tmp_path, options, words):
    run = finished(tmp_path / "run", ROWS)
    with pytest.raises(ConfigError, match=words):
        view(run, embedder=Hashing(), **options)
    assert not list(tmp_path.rglob("*.html"))


def test_one_or_two_finished_runs_are_viewed(tmp_path):
    run = finished(tmp_path / "run", ROWS)
    for runs in ([], [run, run, run]):
        with pytest.raises(ConfigError, match="name one, or two"):
            view(*runs)
    (run.release / "synthetic.jsonl").unlink()
    with pytest.raises(ConfigError, match="no release yet"):
        view(run)


def test_a_release_without_a_guarantee_is_marked(tmp_path):
    assert "NOT PRIVATE" in Page(view(finished(tmp_path / "run", ROWS, private=False))).text
