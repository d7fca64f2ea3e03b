"""The statement says what the guarantee supports and no more, and the version to share holds nothing private."""

import re
import stat

import pytest
from doubles.finished import finished

from plainchant.errors import ConfigError, PrivacyError, RunError
from plainchant.privacy.accounting import rounded_up
from plainchant.reporting.statement import statement
from plainchant.run.ledger import Ledger
from plainchant.run.words import times

HOSTILE = "<script>alert(1)</script> | **x**"
ROWS = [{"text": "a", "label": "red", "cell": 0}, {"text": "b", "label": "blue", "cell": 1}]
AUDIT = {
    "note": "",
    "groups": {
        "copied": {"copied": {"value": 0.0312, "low": 0.01, "high": 0.0712}},
        "membership": {"similarity_auc": {"value": 0.5341, "low": 0.47, "high": 0.61}},
        "replay": {"epsilon_low": {"value": 0.7654, "low": None, "high": None}},
    },
}
MEASURED = {"ex_post": {"epsilon": 9.8765}, "tokens": 3, "batches": []}


def said(paths, *, private=False):
    """The Markdown of a version."""
    (path,) = [path for path in paths if path.suffix == ".md" and (path.parent.name == "private") is private]
    return path.read_text(encoding="utf-8")


def answer(text, name):
    (found,) = re.findall(rf"^\| {re.escape(name)}(?: \*\*\[private\]\*\*)? \| (.*) \|$", text, re.MULTILINE)
    return found


@pytest.mark.parametrize(
    ("epsilon", "odds", "worth"),
    [
        (1.0, "at most 2.72 times", "strong promise"),
        (3.0, "at most 20.1 times", "moderate promise"),
        (8.0, "at most 2,981 times", "weak promise for the worst case; an audit says what attacks found"),
    ],
)
def test_the_promise_is_the_figures_own_words(tmp_path, epsilon, odds, worth):
    text = said(statement(finished(tmp_path / "run", ROWS, epsilon=epsilon)))
    assert answer(text, "ε").startswith(f"ε = {epsilon:g}: the odds")
    assert odds in answer(text, "ε")
    assert worth in answer(text, "ε")
    assert "1 in 1,000,000" in answer(text, "δ")
    assert answer(text, "Protected unit").startswith("one record")
    # a weak promise does not answer that nobody can be found
    assert ("does not show that nobody" in answer(text, "Is this personal data?")) is (epsilon > 1.5)


def test_it_names_the_release_and_who_answers_for_it(tmp_path):
    run = finished(tmp_path / "run", ROWS, name="Tickets", holder="A. Holder")
    text = said(statement(run))
    seal = run.seal()
    assert answer(text, "Data set") == "Tickets"
    assert answer(text, "Holder") == "A. Holder"
    assert answer(text, "Content") == "2 synthetic texts with 2 labels"
    assert answer(text, "Date") == f"{seal.date} (UTC)"
    assert answer(text, "Language model") == "gemma-3-270m, sha256 0123abc"
    for name, known in seal.files.items():
        assert answer(text, name) == f"SHA-256 {known}"
    other = said(statement(run, name="Other", holder="B"))
    assert (answer(other, "Data set"), answer(other, "Holder")) == ("Other", "B")
    assert "not legal advice" in text
    assert [line.split(":")[0] for line in text.splitlines()[-4:]] == ["Name", "Role", "Place, date", "Signature"]


def test_the_version_to_share_holds_nothing_private(tmp_path):
    run = finished(tmp_path / "run", ROWS, method="clustered-median")
    before = statement(run)
    run.write_private("audit.json", AUDIT)
    run.write_private("costs.json", MEASURED)
    paths = statement(run)
    assert [path.relative_to(run.path).as_posix() for path in paths] == [
        "release/statement.md", "release/statement.html", "private/statement.md", "private/statement.html",
    ]  # fmt: skip
    assert [stat.S_IMODE(path.stat().st_mode) for path in paths] == [0o644, 0o644, 0o600, 0o600]
    shared = [path.read_text(encoding="utf-8") for path in paths[:2]]
    private = [path.read_text(encoding="utf-8") for path in paths[2:]]
    for figure in ("0.03 (0.01 to 0.07)", "0.53", "0.77", "9.88"):
        assert all(figure in page for page in private)
        assert not any(figure in page for page in shared)
    # not even whether there was an audit
    assert shared == [path.read_text(encoding="utf-8") for path in before[:2]]
    assert all("PRIVATE" in page for page in private)
    assert not any("PRIVATE" in page for page in shared)
    assert private[0].count("**[private]**") == 2
    assert "No figure was promised before the run" in answer(shared[0], "ε")


def test_the_total_is_that_of_the_ledger_that_the_run_is_in(tmp_path):
    run, other = (finished(tmp_path / name, ROWS, epsilon=2.0) for name in ("run", "other"))
    assert "no ledger was kept" in answer(said(statement(run)), "Total of all releases")
    ledger = Ledger.create(tmp_path / "tickets.ledger", epsilon=8.0, delta=1e-6)
    with pytest.raises(ConfigError, match="has no entry for"):
        statement(run, ledger=ledger.path)
    from plainchant.run.promise import promise_of

    for one in (run, other):
        ledger.enter(one, promise_of(one))
    text = said(statement(run, ledger=ledger.path))
    total = answer(text, "Total of all releases")
    spent = ledger.spent.epsilon(1e-6)
    assert 2 < spent < 4
    figure = re.search(r"together ε = ([\d.]+) at δ = 1e-06", total)
    assert figure is not None
    assert spent <= float(figure[1]) < spent * 1.001
    # a sum of runs that were planned after seeing others is bounded by the cap alone
    for words in ("2 runs in ledger tickets.ledger", f"at most {times(spent)} times, if none was planned after seeing",
                  "more than ε = 8, seen or not."):  # fmt: skip
        assert words in total
    assert str(tmp_path) not in text
    assert f"ε = {rounded_up(spent, 3):g} together" in answer(text, "What if we release twice?")
    assert "The ledger of this run" in answer(text, "What if we release twice?")
    assert "the ledger of this run has it" in answer(said(statement(run)), "Total of all releases")


def test_public_text_promises_more_and_asks_less(tmp_path):
    text = said(statement(finished(tmp_path / "run", ROWS, method="public")))
    assert answer(text, "ε") == "ε = 0: no private data was read."
    assert "none was read" in answer(text, "Can a person be found?")
    assert "cost nothing" in answer(text, "What if we release twice?")


def test_with_a_unit_column_the_unit_is_all_of_a_customers_records(tmp_path):
    text = said(statement(finished(tmp_path / "run", ROWS, unit_column="customer")))
    assert answer(text, "Protected unit").startswith("all records that share a value of")
    assert "several values of that column" in answer(text, "Can a person be found?")


def test_what_must_not_be_released_is_not_stated(tmp_path):
    seeded = finished(tmp_path / "seeded", ROWS, private=False)
    with pytest.raises(PrivacyError, match="NOT PRIVATE"):
        statement(seeded)
    planted = finished(tmp_path / "planted", ROWS)
    planted.write_private("canaries.json", {"count": 3})
    with pytest.raises(PrivacyError, match="canaries"):
        statement(planted)
    changed = finished(tmp_path / "changed", ROWS)
    (changed.release / "synthetic.jsonl").write_text("{}\n")
    with pytest.raises(RunError, match="is not as the run wrote it"):
        statement(changed)
    for run in (seeded, planted, changed):
        assert not list(run.path.rglob("statement*"))


def test_damaged_private_figures_are_told(tmp_path):
    run = finished(tmp_path / "run", ROWS)
    for damaged in ({"groups": 3}, {"groups": {"copied": {"copied": {}}}}, {}):
        run.write_private("audit.json", damaged)
        with pytest.raises(RunError, match=r"audit\.json"):
            statement(run)


def test_names_are_text_whatever_they_hold(tmp_path):
    run = finished(tmp_path / "run", ROWS, name=HOSTILE, holder="h\x1b[2J\u202e")
    for path in statement(run):
        page = path.read_text(encoding="utf-8")
        assert "<script" not in page
        assert not set("\x1b\u202e") & set(page)
        assert "h\\x1b[2J" in page or "h&#92;x1b&#91;2J" in page
