"""Card and page say what a stranger must know, hold released facts only, and run nothing that a text holds."""

import dataclasses
import html.parser
import json
import re
import stat
from typing import Any

import huggingface_hub
import pytest

from plainchant import plan
from plainchant.config import SynthesisConfig
from plainchant.errors import ConfigError, RunError
from plainchant.planning import Guarantee, not_private
from plainchant.privacy.accounting import Cost
from plainchant.privacy.histograms import WHOLE_LABEL, Cell
from plainchant.reporting.page import report_page, write_report
from plainchant.reporting.topics import topics_of
from plainchant.run.card import COSTS_NOTE, EX_POST_NOTE, data_set_card, markdown_cell, released_columns
from plainchant.run.store import Batch, RunDirectory
from plainchant.run.words import times

HOSTILE = "<script>alert(1)</script>"
LABELS = (f"red | {HOSTILE}", "blue")
HOME = "/home/somebody"
CELLS = (Cell(0, 3, 143, 3), Cell(1, WHOLE_LABEL, 77, 2))
ROWS: list[dict[str, Any]] = [
    {"text": f"{HOSTILE} & all", "label": LABELS[0], "cell": 0, "origin": "records"},
    {"text": "a long one " * 60, "label": LABELS[1], "cell": 1, "origin": "records"},
    {"text": "", "label": LABELS[1], "cell": 1, "origin": "model"},
]
PRIVATE = {
    "costs": {
        "note": "of the private data",
        "ex_post": {"epsilon": 1.2345, "by_sum": 2.3456, "by_ville": 1.1234, "draws": 0.1111, "delta": 1e-6},
        "rho_counts": 0.05,
        "records": {"median": 0.3579, "largest": 0.4680, "budget": 0.9},
        "tokens": 4321,
        "batches": [{"batch": 0, "tokens": 4321, "loss": 2.5791, "rho": 0.6802}],
    },
    "evaluation": {
        "note": HOSTILE,
        "groups": {"fidelity": {f"MAUVE {HOSTILE}": {"value": 0.7142, "low": 0.64, "high": 0.78}}},
    },
    "audit": {"note": "", "groups": {"copies": {"longest": {"value": 8675.0, "low": None, "high": None}}}},
}
FIGURES = ("0.36", "0.47", "40 %", "52 %", "4321", "2.58", "0.68", "0.71", "8,675")
EX_POST_FIGURES = ("1.23", "2.35", "1.12", "0.11")


def planned(method="plainchant", **changes):
    values: dict[str, Any] = {"model": f"{HOME}/models/tiny", "embedder": f"{HOME}/embedder"}
    values["public_corpus"] = f"{HOME}/corpus.jsonl"
    values |= {"labels": LABELS, "label_column": "label", "prompt": {"header": f"{HOSTILE}\n"}, "max_tokens": 20}
    if method in ("amin2024", "clustered-mean"):
        values["clip"] = 1.0
    return plan(SynthesisConfig(**(values | {"method": method} | changes)))


def page(of=None, *, guarantee=None, private=None, rows=ROWS, cells=CELLS, **rest):
    of = of or planned()
    return report_page(
        plan=of, guarantee=guarantee or of.guarantee, cells=cells, rows=rows, private=private, **rest
    )  # fmt: skip


class Document(html.parser.HTMLParser):
    """What a browser sees: tags, ids, heading levels, the text of table columns, scripts."""

    def __init__(self, source):
        super().__init__()
        self.tags, self.ids, self.levels, self.scripts, self.text = [], [], [], [], ""
        self.columns, self._column, self._inside = [], None, None
        self.feed(source)

    def handle_starttag(self, tag, attributes):
        attributes = dict(attributes)
        self.tags.append((tag, attributes))
        self.ids += [attributes["id"]] if "id" in attributes else []
        self.levels += [int(tag[1])] if re.fullmatch("h[1-6]", tag) else []
        self._inside = tag
        if tag == "table":
            self.columns.append({})
        elif tag == "tr":
            self._column = -1
        elif tag in ("td", "th"):
            self._column += 1

    def handle_endtag(self, tag):
        self._inside = None
        if tag in ("table", "tr"):
            self._column = None

    def handle_data(self, data):
        if self._inside == "script":
            self.scripts.append(data)
        elif self._inside != "style":
            self.text += data
        if self._column is not None and self._column >= 0:
            own = self.columns[-1]
            own[self._column] = own.get(self._column, "") + data


METHODS = {
    method: planned(method)
    for method in ("plainchant", "clustered-mean", "amin2024", "invisibleink", "clustered-median", "public")
}


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("private", [None, PRIVATE], ids=["release", "private"])
def test_page_says_what_a_stranger_must_know(method, private):
    of = METHODS[method]
    document = Document(page(of, private=private))
    said = " ".join(document.text.split())
    for words in (of.guarantee.statement, of.guarantee.version, "add or remove one unit", of.guarantee.unit,
                  "What is public by assumption", "its own training data", "several releases add up"):  # fmt: skip
        assert words in said
    assert ("ex post: measured" if method == "clustered-median" else "ex ante: fixed") in said
    ex_ante = method not in ("clustered-median", "public")
    assert ("Canonne, Kamath and Steinke (2020)" in said) is ex_ante
    assert ("pays for the noisy counts" in said) is (method != "public")


@pytest.mark.parametrize("private", [None, PRIVATE], ids=["release", "private"])
def test_page_is_sound_html(private):
    document = Document(page(private=private))
    assert len(document.ids) == len(set(document.ids))
    assert document.levels[0] == 1
    assert document.levels.count(1) == 1
    assert all(after <= before + 1 for before, after in zip(document.levels, document.levels[1:], strict=False))
    names = [tag for tag, _ in document.tags]
    assert names.count("table") == names.count("caption")
    assert {"main", "header", "nav"} <= set(names)
    assert all("scope" in attributes for tag, attributes in document.tags if tag == "th")
    for tag, attributes in document.tags:
        assert not ({"src", "action"} & set(attributes)), tag
        for link in (attributes.get("href", ""), attributes.get("xlink:href", "")):
            assert link in ("", "data:,") or link.removeprefix("#") in document.ids
        for reference in attributes.get("aria-labelledby", "").split():
            assert reference in document.ids


def test_whatever_a_user_writes_is_text():
    source = page(private=PRIVATE)
    document = Document(source)
    assert HOSTILE not in source
    assert document.text.count(HOSTILE) >= 5
    assert [script for script in document.scripts if "alert" in script] == []
    assert [tag for tag, _ in document.tags].count("script") == 1
    card = data_set_card(planned(), planned().guarantee, CELLS, 3)
    assert "<script>" not in card
    assert "red &#124; &#60;script&#62;" in card
    # inside a word an underscore is no mark-up, and people read the source too
    assert markdown_cell("max_tokens _x_ __y") == "max_tokens &#95;x&#95; &#95;&#95;y"


def test_a_card_names_the_licence_of_its_model_where_that_is_known():
    named = data_set_card(planned(), planned().guarantee, CELLS, 3, licence="apache-2.0 *")
    assert "- **Licence of the model:** apache-2.0 &#42;." in named
    assert "Licence of the model" not in data_set_card(planned(), planned().guarantee, CELLS, 3)


def test_nothing_tells_where_things_lie():
    of = planned(centres=f"{HOME}/centres.npz")
    for document in (page(of), data_set_card(of, of.guarantee, CELLS, 3), page(of, private=PRIVATE)):
        assert HOME not in document
        assert "tiny" in document
    assert 'centres = "centres.npz"' in Document(page(of)).text


def test_private_figures_are_on_the_private_page_only():
    shared, private = Document(page()).text, Document(page(private=PRIVATE)).text
    for figure in FIGURES:
        assert figure in private
        assert figure not in shared
    # a figure measured afterwards beside a promise reads like a broken promise
    ex_post = Document(page(METHODS["clustered-median"], private=PRIVATE)).text
    for figure in EX_POST_FIGURES:
        assert figure in ex_post
        assert figure not in private
    assert "PRIVATE" in private
    assert "PRIVATE" not in shared
    assert "Utility" in shared
    assert "not on this page" in shared
    some = Document(page(private={"audit": PRIVATE["audit"]})).text
    assert "8,675" in some
    assert "Realised costs" not in some


@pytest.mark.parametrize("method", METHODS)
def test_ex_ante_and_ex_post_share_no_column(method):
    document = Document(page(METHODS[method], private=PRIVATE))
    columns = [" ".join(text.split()) for table in document.columns for text in table.values()]
    assert any("ex post" in column for column in columns) is (method == "clustered-median")
    assert not any("ex ante" in column and "ex post" in column for column in columns)
    # a figure that was promised stands in no table with one that was measured
    promised = METHODS[method].guarantee.epsilon
    for table in document.columns:
        said = " ".join(table.values())
        assert "ex post" not in said or not promised or f"{promised:.6g}" not in said


def test_budget_parts_add_up():
    voted = planned("clustered-mean", candidates=3)
    for of, count in ((METHODS["plainchant"], 5), (METHODS["clustered-mean"], 3), (METHODS["amin2024"], 2), (voted, 4)):
        document = Document(page(of))
        (shares,) = [text for table in document.columns for text in table.values() if text.startswith("share")]
        parts = [float(share) for share in re.findall("[0-9.]+", shares)]
        assert len(parts) == count
        assert sum(parts) == pytest.approx(100, abs=0.2)
        # deals cost a curve, which is shown at the order that they are counted at
        rule, rho = of.deals, of.guarantee.rho
        whole = f"ρ = {rho:.6g} (zCDP)" if rule is None else f"the Rényi divergence of order {rule.order}"
        assert f"Parts of {whole}" in document.text
    written = Document(page(voted, rows=[{**row, "origin": "model"} for row in ROWS])).text
    assert "chosen by a noisy vote of the records; 0 of them written by records together" in written
    assert f"and {len(ROWS)} by the language model alone" in written
    ex_post = Document(page(METHODS["clustered-median"])).text
    assert "not released" in ex_post
    assert "Parts of ρ" not in ex_post
    assert "Nothing was spent" in Document(page(METHODS["public"], cells=[Cell(0, WHOLE_LABEL, 0, 1)])).text


def test_words_found_stand_under_topics_label_by_label():
    source = page(words=[["tea", "<b>ale</b>"], []])
    document = Document(source)
    said = " ".join(document.text.split())
    assert "Words that the records hold more often" in said
    assert f"{LABELS[0]}: tea, <b>ale</b>".split()[-1] in said
    assert "<b>ale" not in source
    assert f"{LABELS[1]}: " not in said
    assert "Words that the records hold" not in Document(page()).text


def test_no_guarantee_is_said_at_once():
    of = planned()
    source = page(of, guarantee=not_private(of.config, "its randomness came from a seed"))
    text = Document(source).text
    assert "NOT PRIVATE" in text
    assert "There is no guarantee" in text
    assert "There is no budget" in text
    assert "paid for by the guarantee" not in text
    assert "Canonne" not in text


def test_page_without_map_labels_or_texts():
    of = planned("amin2024", labels=(), label_column=None)
    document = Document(page(of, rows=[], cells=[Cell(0, WHOLE_LABEL, 50, 1)]))
    assert "all texts" in document.text
    assert "Lengths" not in document.text
    assert "Lengths" in page(of, rows=[{"text": "one", "cell": 0}], cells=[Cell(0, WHOLE_LABEL, 50, 1)])


def test_rows_without_texts_are_called_rows():
    columns = {"attributes": {"open": {"type": "boolean"}}}
    of = plan(SynthesisConfig(method="attributes", labels=("a", "b"), label_column="l", texts=2, columns=columns))
    lead = (
        page(of, rows=[{"label": "a", "cell": 0, "open": True}] * 2).partition('class="lead">')[2].partition("</p>")[0]
    )
    assert lead.startswith("2 synthetic rows with 2 labels, drawn from noisy counts")
    assert "language model" not in lead


def test_topics_are_described_by_the_released_texts_around_them():
    of = planned(labels=("bug", "billing"))
    cells = (Cell(0, 3, 40, 2), Cell(1, 3, 10, 1), Cell(1, 7, -3, 1), Cell(0, WHOLE_LABEL, 5, 1))
    said = ["the lamp is broken", "a broken lamp", "lamp and street"]
    rows = [{"text": text, "label": "bug", "cell": number % 2} for number, text in enumerate(said)]
    rows += [{"text": f"the invoice number {n} is wrong", "label": "billing", "cell": 2} for n in range(5)]
    rows += [{"text": "no topic of its own", "label": "bug", "cell": 3}]
    first, second = topics_of(of.config, cells, rows)
    assert (first.centre, first.texts, first.units, first.labels) == (7, 5, -3, ("billing",))
    assert set(first.words) == {"invoice", "number", "wrong"}
    assert (second.centre, second.texts, second.units, second.labels) == (3, 3, 50, ("bug", "billing"))
    assert second.words[:2] == ("lamp", "broken")
    document = Document(page(of, rows=rows, cells=cells)).text
    assert "lamp, broken" in document
    assert "5 texts, about 0 units" in " ".join(document.split())
    assert "no topic of its own" in document


def test_every_text_is_on_the_page():
    rows = [{"text": f"number {n}.", "label": "blue", "cell": 0, "origin": "records"} for n in range(300)]
    said = Document(page(rows=rows)).text
    assert all(f"number {n}." in said for n in range(300))


def test_the_first_screen_says_what_it_is():
    of = planned(name=f"Tickets {HOSTILE}", holder="A. Holder", labels=[f"label {n}" for n in range(14)])
    source = page(of, date="2026-01-02", model="sha256 0123")
    first = " ".join(Document(source[: source.index("<main>")] + "</header></body></html>").text.split())
    for words in (f"Tickets {HOSTILE}", "A. Holder", "2026-01-02", "3 synthetic texts with 14 labels", "tiny, sha256",
                  "label 0, label 1", "and 2 more", "one record", of.guarantee.version, "not true"):  # fmt: skip
        assert words in first
    assert HOSTILE not in source
    assert "2,981 times" in Document(source).text
    assert "1 in 1,000,000" in Document(source).text


def test_a_figure_stands_beside_those_of_real_texts_and_of_the_public_model():
    trained = "accuracy, trained on synthetic"
    groups = {
        "usefulness": {
            trained: {"value": 0.008404, "low": 0.008404, "high": 0.9057},
            "accuracy, trained on as many real texts": {"value": 0.98, "low": 0.9, "high": 1.0},
            "accuracy, trained on all real texts": {"value": 0.99, "low": None, "high": None},
            "accuracy, largest class": {"value": 0.3, "low": None, "high": None},
        },
        "fidelity": {"recall": {"value": 0.11, "low": None, "high": None}},
    }
    found = {
        "note": "", "groups": groups, "as_real": {"recall": {"value": 0.97, "low": None, "high": None}}, "compared": 40,
        "public": {trained: {"value": 0.51, "low": 0.4, "high": 0.6}},
    }  # fmt: skip
    said = " ".join(Document(page(private={"evaluation": found})).text.split())
    beside = "as many real0.98 0.90 to 1.00all real0.99public model0.51 0.40 to 0.60"
    assert f"{trained}synthetic0.01 0.01 to 0.91{beside}" in said
    assert "accuracy, largest classsynthetic0.30as many real–all real–public model–" in said
    # a group has only the columns that something stands in
    assert re.search("recall[^0-9]*synthetic0.11as many real0.97 ", said)
    assert said.count("0.98") == said.count("0.99") == said.count("0.97") == 1


def test_a_figure_of_few_texts_that_says_little_says_so():
    fidelity = {"MAUVE": {"value": 0.967, "low": 0.9, "high": 1.0}}
    found: dict[str, Any] = {"note": "", "groups": {"fidelity": fidelity}, "compared": 40}
    said = " ".join(Document(page(private={"evaluation": found})).text.split())
    assert "below 300 texts: there it is high whatever the texts are, and these are 40" in said
    found["compared"] = 300
    assert "below 300" not in Document(page(private={"evaluation": found})).text


@dataclasses.dataclass(frozen=True)
class Curved(Guarantee):
    """A guarantee whose cost is more than a single ρ."""

    @property
    def cost(self):
        return Cost(0.25, ((2.0, 0.5), (32.0, 4.0)))


def test_a_cost_that_is_a_curve_is_not_shown_as_a_single_rho():
    of = dataclasses.replace(planned(deals=False), batch=Cost(0.1, ((2.0, 0.5), (32.0, 4.0))))
    curved = Curved(**(dataclasses.asdict(of.guarantee) | {"rho": None}))
    words = "a Rényi curve of orders 2 to 32 on top of ρ = 0.25 (zCDP)"
    source, card = page(of, guarantee=curved), data_set_card(of, curved, CELLS, 3)
    assert words in card
    said = Document(source).text
    assert said.count(words) == 2
    assert "by itself" in said
    # ρ of a part is no share of a cost that has none
    assert "share" not in Document(source).columns[-1].values()
    assert not any("share" in own.get(2, "") for own in Document(source).columns)


def test_what_deals_cost_is_said_at_the_order_that_they_are_counted_at():
    of = planned()
    words = f"{of.deals.budget:.6g} nats at the Rényi order {of.deals.order} on top of ρ = {of.rho_counts:.6g} (zCDP)"
    assert words in data_set_card(of, of.guarantee, CELLS, 3)
    said = Document(page(of)).text
    assert words in said
    assert "nobody can tell from the release which batches it was in" in said


def test_page_is_a_function_of_what_it_shows():
    assert page() == page()


def test_control_characters_of_labels_and_texts_are_visible_marks():
    hostile = "red\x1b[31m\u202egreen\x9b"
    source = page(rows=[{"text": hostile, "label": "blue", "cell": 0, "origin": "records"}])
    assert "red\\x1b[31m\\u202egreen\\x9b" in Document(source).text
    of = planned(labels=(hostile, "blue"), prompt={"header": "Notes\n"})
    card = data_set_card(of, of.guarantee, CELLS, 2)
    for text in (source, card):
        assert not set("\x1b\u202e\x9b") & set(text)


@pytest.mark.parametrize("method", METHODS)
def test_card_opens_with_the_guarantee(method):
    of = METHODS[method]
    content = data_set_card(of, of.guarantee, CELLS, 1_500)
    card = huggingface_hub.DatasetCard(content)
    data = card.data.to_dict()
    assert data["size_categories"] == ["1K<n<10K"]
    assert data["annotations_creators"] == ["machine-generated"]
    assert data["task_categories"] == ["text-generation", "text-classification"]
    assert "license" not in data
    assert "language" not in data
    assert data["pretty_name"] == "Synthetic texts by plainchant"
    assert data["configs"] == [{"config_name": "default", "data_files": "synthetic.parquet"}]
    opening = card.text.split("## ")[0]
    for words in (of.guarantee.statement, "add or remove one unit", of.guarantee.unit, of.guarantee.version,
                  "Public by assumption", "Not covered", "several releases add up", "own training data"):  # fmt: skip
        assert words in opening
    assert ("ex post: measured" if method == "clustered-median" else "ex ante: fixed") in opening
    header, _, figures = [line.split(" | ") for line in opening.splitlines() if line.startswith("|")]
    assert len(header) == len(figures)
    assert figures[0] == f"| {of.guarantee.kind}"
    if of.guarantee.kind == "ex-ante":
        assert ("No private data was read" in opening) is (method == "public")
        assert (f"at most {times(of.guarantee.epsilon)} times" in opening) is (method != "public")
    assert "**Accountant:**" in opening


def test_a_columns_name_is_no_markup_in_the_card():
    of = planned(unit_column="**a** <b>|[x](http://y)")
    opening = data_set_card(of, of.guarantee, CELLS, 3).split("## Settings")[0]
    assert "all records that share a value of" in opening
    for markup in ("**a**", "<b>", "|[x]", "[x](http"):
        assert markup not in opening


def test_card_without_labels():
    of = planned("amin2024", labels=(), label_column=None)
    data = huggingface_hub.DatasetCard(data_set_card(of, of.guarantee, [], 3)).data.to_dict()
    assert data["task_categories"] == ["text-generation"]
    assert data["annotations_creators"] == ["no-annotation"]


def test_the_card_says_who_made_what_when_of_which_columns():
    of = planned(name="**Tickets**", holder="A. Holder", license="cc-by-4.0", language="en, de")
    card = huggingface_hub.DatasetCard(data_set_card(of, of.guarantee, CELLS, 3, date="2026-01-02", model="commit abc"))
    data = card.data.to_dict()
    assert data["pretty_name"] == "**Tickets**"
    assert (data["license"], data["language"]) == ("cc-by-4.0", ["en", "de"])
    for words in ("# &#42;&#42;Tickets", "Made by:** A. Holder", "Date:** 2026-01-02", "tiny, commit abc", "invented",
                  "does not hide those that many units share"):  # fmt: skip
        assert words in card.text
    rows = re.findall(r"^\| (\w+) \| (string|integer) \|", card.text, re.MULTILINE)
    assert rows == [("text", "string"), ("label", "string"), ("cell", "integer"), ("origin", "string")]
    assert [name for name, _ in rows] == released_columns(of.config)
    plain = planned("amin2024", labels=(), label_column=None)
    assert "| label | string" not in data_set_card(plain, plain.guarantee, [], 3)


@pytest.fixture
def released(tmp_path):
    """A directory as a finished run leaves it."""
    of = planned()
    directory = RunDirectory.create(tmp_path / "run", of, of.guarantee, data="", private=True)
    directory.save_batches(CELLS, [Batch(0, 0, 1), Batch(1, 1, 2)], [])
    directory.write_release(ROWS, dataclasses.asdict(of.guarantee), data_set_card(of, of.guarantee, CELLS, len(ROWS)))
    return directory


def test_reports_are_written_where_they_belong(released):
    of = planned()
    assert write_report(released, of, of.guarantee) == [released.release / "report.html"]
    released.write_private("costs.json", PRIVATE["costs"])
    released.write_private("audit.json", PRIVATE["audit"])
    shared, private = write_report(released, of, of.guarantee)
    assert private == released.private / "report.html"
    assert [stat.S_IMODE(path.stat().st_mode) for path in (shared, private)] == [0o644, 0o600]
    assert "8,675" not in shared.read_text()
    assert "8,675" in private.read_text()
    # without private data there is nothing that costs.json could say
    public = METHODS["public"]
    released.private.joinpath("audit.json").unlink()
    assert len(write_report(released, public, public.guarantee)) == 1


def test_beside_a_promise_stands_no_figure_that_was_measured_afterwards(released):
    of, measured = planned(), METHODS["clustered-median"]
    figures: Any = PRIVATE["costs"]
    for made, shown in ((of, False), (measured, True)):
        released.write_private("costs.json", figures | {"note": EX_POST_NOTE if shown else COSTS_NOTE})
        page = write_report(released, made, made.guarantee)[1].read_text()
        assert made.guarantee.kind == ("ex-post" if shown else "ex-ante")
        assert ("Ville" in page) == shown
        assert ("No figure was promised" in page) == shown
        # what records have paid is told in both
        assert "the median record" in page


def test_private_files_are_read_back_or_refused(released):
    assert released.read_private("audit.json") is None
    released.write_private("audit.json", {"a": 1})
    assert released.read_private("audit.json") == {"a": 1}
    (released.private / "audit.json").write_text("{")
    with pytest.raises(RunError, match=r"audit\.json"):
        released.read_private("audit.json")


def test_an_unfinished_run_has_no_report(tmp_path):
    of = planned()
    directory = RunDirectory.create(tmp_path / "run", of, of.guarantee, data="", private=True)
    with pytest.raises(ConfigError, match="--resume"):
        write_report(directory, of, of.guarantee)
    assert not directory.release.exists()


def test_release_loads_as_a_data_set_beside_its_report(released, tmp_path, monkeypatch):
    datasets = pytest.importorskip("datasets")
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    write_report(released, planned(), planned().guarantee)
    loaded = datasets.load_dataset(str(released.release), cache_dir=str(tmp_path / "cache"))
    assert set(loaded) == {"train"}
    assert loaded["train"].column_names == ["text", "label", "cell", "origin"]
    assert loaded["train"].to_list() == ROWS
    assert json.loads((released.release / "guarantee.json").read_text())["kind"] == "ex-ante"
