"""Statement, view and push, as a user types them; the statement prints on one page."""

import json
import re

import pytest
from click.testing import CliRunner
from doubles.browser import browse, needs_browser
from doubles.finished import finished

from plainchant.cli.main import main
from plainchant.reporting.statement import statement

ROWS = [{"text": f"text {n}", "label": "red", "cell": 0} for n in range(5)]
AUDIT = {"groups": {"copied": {"copied": {"value": 0.03, "low": 0.01, "high": 0.07}}}}


@pytest.fixture
def run(tmp_path):
    return finished(tmp_path / "run", ROWS)


def typed(*words, code=0):
    answer = CliRunner().invoke(main, [str(word) for word in words])
    assert answer.exit_code == code, answer.output
    return answer


def test_statement_names_who_signs_and_where_it_may_go(run):
    out = typed("statement", run.path, "--name", "Tickets", "--holder", "A. Holder").stdout
    assert re.findall(r"^(to share|keep private) ", out, re.MULTILINE) == ["to share"] * 2 + ["keep private"] * 2
    assert "A. Holder" in (run.release / "statement.html").read_text(encoding="utf-8")
    pages = json.loads(typed("statement", run.path, "--format", "json").stdout)["pages"]
    assert pages == [str(run.path / part / f"statement.{kind}") for part in ("release", "private")
                     for kind in ("md", "html")]  # fmt: skip


def test_report_takes_a_name_and_a_holder(run):
    typed("report", run.path, "--name", "Tickets", "--holder", "A. Holder")
    page = (run.release / "report.html").read_text(encoding="utf-8")
    assert "<h1>Tickets</h1>" in page
    assert "A. Holder" in page


def test_view_writes_one_page_and_no_real_texts_unless_asked(run, tmp_path, monkeypatch):
    opened = []
    monkeypatch.setattr("webbrowser.open", opened.append)
    assert typed("view", run.path, "--format", "quiet").stdout.strip() == str(run.path / "view.html")
    assert opened == []
    typed("view", run.path, run.path, "--out", tmp_path / "two.html", "--open")
    assert opened == [(tmp_path / "two.html").as_uri()]
    assert "--real" in typed("view", run.path, "--private", code=2).stderr
    assert "two to compare" in typed("view", run.path, run.path, run.path, code=2).stderr
    assert not list(run.private.glob("*.html"))


def test_push_refuses_before_it_asks_the_hub(run):
    (run.release / "README.md").write_text("edited")
    refused = typed("push", run.path, "me/tickets", code=1)
    assert "README.md: is not as the run wrote it" in refused.stderr


@needs_browser
@pytest.mark.parametrize("unit", [None, "customer"])
def test_the_statement_prints_on_one_page(tmp_path, unit):
    run = finished(tmp_path / "run", ROWS, unit_column=unit, name="N" * 80, holder="H" * 80)
    run.write_private("audit.json", AUDIT)
    for page in statement(run):
        if page.suffix == ".html":
            printed = tmp_path / f"{page.parent.name}.pdf"
            browse(tmp_path, "--no-pdf-header-footer", f"--print-to-pdf={printed}", page.as_uri())
            assert len(re.findall(rb"/Type\s*/Page\b", printed.read_bytes())) == 1
