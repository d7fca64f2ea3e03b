"""The first hour of a stranger: what costs nothing, what is said before it costs, and what is right when it ends."""

import json
import re
import stat

import numpy as np
import pytest
from doubles.tables import MARKER, OPTIONS, rows, write

import plainchant as pc
from plainchant.config import Method, Parts, SynthesisConfig, parse_config
from plainchant.run.ledger import Ledger
from plainchant.run.store import RunDirectory
from plainchant.run.words import odds_in_words


@pytest.fixture
def misspelt(tmp_path):
    """Two rows have a label that is named, so that the table is read; the label of the others is spelled otherwise."""
    return write(
        tmp_path / "private.jsonl", [row | {"label": "red" if n < 2 else "blue"} for n, row in enumerate(rows())]
    )


def test_a_run_without_a_batch_names_its_counts_and_pays_for_them_alone(command, model, misspelt, tmp_path):
    ledger, out = tmp_path / "private.ledger", tmp_path / "run"
    command("account", "--ledger", ledger, "--epsilon", 10)
    wrong = ["--labels", "red,bleu", "--batch-size", 60, "--model", model]
    begin = ["run", *OPTIONS, *wrong, "--data", misspelt, "--out", out, "--ledger", ledger]
    said = command(*begin, code=3).err
    counts = {"red": 0, "bleu": 0}
    for cell in RunDirectory.open(out).cells():
        counts[("red", "bleu")[cell.label]] = cell.noisy_size
    assert all(f"'{label}' {count}" in said for label, count in counts.items())
    assert "plainchant check" in said
    assert "Plan" not in said
    [entry] = Ledger(ledger).runs
    plan = json.loads((out / "plan.json").read_text())
    assert entry["rho"] == plan["rho_select"] + plan["rho_size"]
    # nothing goes on, and nothing says that it would
    status = " ".join(command("status", out).out.split())
    assert "--resume" not in status
    assert "start a new run" in status
    assert "whole label" in status
    assert json.loads(command("status", out, "--format", "json").out)["ended"]
    resume = ["run", "--resume", "--data", misspelt, "--out", out]
    assert "has ended" in command(*resume, "--ledger", ledger, code=3).err
    assert Ledger(ledger).spent.rho == entry["rho"]
    command(*resume, code=3)
    assert "will have none" in command("report", out, code=2).err


# before anything is spent


def files_under(path):
    return sorted(str(found.relative_to(path)) for found in path.rglob("*") if found.is_file())


def test_check_tells_its_holder_and_writes_nothing(command, model, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    records = [
        {"body": f"a note {n} about the harbour", "kind": ("bug", "Bug ", "billing", "biling")[n % 4], "who": n // 4}
        for n in range(80)
    ]
    records[3] |= {"body": " "}
    records[4] |= {"body": records[5]["body"]}
    data = write(tmp_path / "private.jsonl", records)
    before = files_under(tmp_path)
    arguments = ["check", "--data", data, "--text-column", "body", "--model", model, "--log-file", "log.txt"]
    named = ["--label-column", "kind", "--unit-column", "who", "--labels", "bug,billing,refund"]
    shown = command(*arguments, *named, "--max-record-tokens", 20, code=2)
    said = " ".join(shown.out.split())
    assert "no guarantee covers them" in " ".join(shown.err.split())
    assert "'Bug ' 20" in said
    assert "no row has 'refund'" in said
    assert "20 rows have 'biling', which is not 'billing'" in said
    assert "20 by 'who', with 4 rows each in the median" in said
    assert "98.8% of the rows" in said
    # the values stand on standard output alone: not in an error, not in a log
    assert not any("biling" in text for text in (shown.err, (tmp_path / "log.txt").read_text()))
    assert files_under(tmp_path) == sorted([*before, "log.txt"])
    document = json.loads(command(*arguments, "--format", "json").out)
    assert (document["rows"], document["empty"], document["duplicates"]) == (80, 1, 1)
    assert document["problems"] == []
    assert {facts["name"]: facts["could_be"] for facts in document["columns"]} == {
        "body": ["text"], "kind": ["label", "attribute"], "who": ["label", "attribute"],
    }  # fmt: skip


def test_check_without_a_configuration_says_which_column_may_be_what(command, tmp_path):
    data = tmp_path / "private.csv"
    data.write_text(
        "body;kind;who\n" + "\n".join(f"the lamp {n} is broken;{'ab'[n % 2]};u{n // 2}" for n in range(200))
    )
    said = " ".join(command("check", "--data", data, "--model", tmp_path / "none").out.split())
    assert "could be 'body' (--text-column)" in said
    assert "name a column with --unit-column" in said


def test_a_preview_reads_nothing_and_costs_nothing(command, model, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    arguments = ["preview", "--model", model, "--max-tokens", 8, "--labels", "red,blue", "--label-column", "label"]
    document = json.loads(command(*arguments, "--format", "json").out)
    assert document["epsilon"] == 0
    assert [text["label"] for text in document["texts"]] == ["red", "blue"] * 5
    assert len(command(*arguments, "--number", 3, "--format", "quiet").out.splitlines()) <= 3
    assert "tokens" in command(*arguments, "--number", 1).err
    assert files_under(tmp_path) == []


def test_preview_shows_the_prompts_of_the_configuration(monkeypatch):
    from doubles.models import Letters

    seen = []
    letters = Letters()
    letters._table = lambda row: np.zeros(letters.vocabulary_size)
    encode = letters.encode
    monkeypatch.setattr(letters, "encode", lambda text, *, trusted: seen.append(text) or encode(text, trusted=trusted))
    prompt = {"header": "Tickets:", "examples": [{"text": "A made-up one"}]}
    assert len(pc.preview(pc.SynthesisConfig(prompt=prompt, max_tokens=5), texts=1, model=letters)) == 1
    assert any("Tickets:" in text and "A made-up one" in text for text in seen)


def test_init_shows_the_values_that_the_method_has(command, tmp_path):
    """Every commented line, with its mark taken away, changes nothing: for each method."""
    for method in Method:
        # without text something else has to be named
        columns = {"attributes": {"open": {"type": "boolean"}}} if method is Method.ATTRIBUTES else {}
        file = tmp_path / f"{method.value}.toml"
        command("init", file, "--method", method.value)
        lines = file.read_text(encoding="utf-8").split("# [prompt]")[0].splitlines()
        fields = [line for line in lines if re.match(r"(# )?[a-z_]+ = ", line) and "…" not in line]
        uncommented = parse_config("\n".join(line.removeprefix("# ") for line in fields), {"columns": columns})
        as_it_is = parse_config(file.read_text(encoding="utf-8"), {"columns": columns})
        assert as_it_is == SynthesisConfig(method=method, columns=columns)
        assert uncommented.parts == as_it_is.parts
        unset = {name for name in Parts.model_fields if getattr(as_it_is, name) is None}
        assert uncommented.model_dump(exclude=unset) == as_it_is.model_dump(exclude=unset)
        # and every part is shown
        assert unset <= {line.removeprefix("# ").split(" = ")[0] for line in fields}


def test_init_fills_in_column_names_and_no_value(command, tmp_path):
    data = tmp_path / "private.csv"
    data.write_text(
        f'ticket_id,body,category,customer_no,"odd ""name""",created_at,Subject,unit_price,is_open\n'
        f"1,{MARKER} text,{MARKER}kind,{MARKER}7,x,{MARKER},{MARKER},1,true\n"
    )
    file = tmp_path / "mine.toml"
    said = command("init", file, "--data", data)
    content = file.read_text(encoding="utf-8")
    assert MARKER not in content + said.err + said.out
    found = parse_config(content)
    assert (found.text_column, found.unit_column, found.label_column) == ("body", "customer_no", None)
    assert '# label_column = "category"' in content
    assert 'odd \\"name\\"' in content
    # what to fill in comes first, the prompt and the other columns last
    titles = [line for line in content.splitlines() if line.startswith("# ====")]
    assert [title.split()[2] for title in titles] == ["Fill", "Everything", "The", "Columns"]
    assert content.index("text_column = ") < content.index("expected_units = ") < content.index(titles[1])
    assert content.index('[columns.attributes."odd') > content.index("[[prompt.examples]]")
    assert "[columns.attributes.body]" not in content
    # an id says nothing that a release could have
    assert "[columns.attributes.ticket_id]" not in content
    assert '# Left out, because the name is that of an id: "ticket_id".' in content
    for name, kind in {
        "created_at": "date",
        "unit_price": "number",
        "is_open": "boolean",
        "Subject": "category",
    }.items():
        assert f'[columns.attributes.{name}]\n# type = "{kind}"' in content
    # a template of the columns that there are; with its mark and the text column's taken away it is one
    template = '# text = "{Subject}\\n\\n{body}"'
    assert template in content
    schema = parse_config(content.replace("# [columns]", "[columns]").replace(template, template[2:])).columns
    assert schema.text_fields == ("Subject", "body")


def test_a_plan_warns_of_more_texts_than_units(command):
    asked = ["plan", "--expected-units", 500, "--epsilon", 3, "--texts"]
    assert "more than the 500 units" in command(*asked, 501).err
    assert "more than the" not in command(*asked, 100).err


# plans


def test_a_plan_is_short_and_says_what_it_takes_once_the_machine_is_measured(command, model, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    arguments = ["plan", "--model", model, "--texts", 20]
    before = " ".join(command(*arguments).out.split())
    assert "plainchant doctor measures this machine once" in before
    assert "one record (every row by itself; --unit-column protects customers)" in before
    assert "texts are sampled from the model first" in before
    assert "read up to 192 tokens each; plainchant check says how many of yours are cut" in before
    assert "2,981 times" in before
    assert "clip, temperature" not in before
    experts = command(*arguments, "-v").out
    assert "clip, temperature" in experts
    assert " of a cell's batches, deal by deal" in " ".join(experts.split())
    assert "write a text together; every unit draws its group afresh, in secret" in before
    assert "deal by deal" not in before
    assert command("-v", *arguments).out == experts
    found = json.loads(command("doctor", "--model", model, "--embedder", tmp_path / "none", "--rows", 2,
                               "--format", "json", code=1).out)  # fmt: skip
    assert "can be used" in found["model"]
    assert found["its licence"]
    document = json.loads(command(*arguments, "--format", "json").out)
    assert document["expected"]["texts"] > 0
    assert document["expected"]["corpus"] > 0
    after = " ".join(command(*arguments, "--public-corpus", "encyclopaedia.jsonl").out.split())
    assert "here, with nothing beside it, plus loading and embedding" in after
    assert "about less" not in after
    assert "sampled from the model" not in after
    # another way to compute was not measured
    assert "doctor --dtype bfloat16 measures" in " ".join(command(*arguments, "--dtype", "bfloat16").out.split())


def test_a_single_centre_needs_no_corpus(command, model, tmp_path):
    """All records are nearest to it: nothing is sampled to find it, and the plan says nothing else."""
    data, out = write(tmp_path / "private.jsonl", rows()), tmp_path / "run"
    chosen = [*OPTIONS, "--clusters", "public-centres", "--centres", 1, "--model", model]
    assert "sampled" not in command("plan", *chosen).out
    said = command("run", *chosen, "--data", data, "--out", out)
    assert "sampling a public corpus" not in said.err
    assert {cell.centre for cell in RunDirectory.open(out).cells()} == {0}


def test_a_machine_whose_cache_cannot_be_written_is_measured_all_the_same(command, model, tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    found = command(
        "doctor", "--model", model, "--embedder", tmp_path / "none", "--rows", 2, "--format", "json", code=1
    )
    assert "cannot be written" in json.loads(found.out)["kept for plainchant plan"]
    assert "doctor measures" in " ".join(command("plan", "--model", model).out.split())


def test_doctor_is_not_silent_while_it_loads(command, model, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    said = command("doctor", "--model", model, "--embedder", tmp_path / "none", "--rows", 2, code=1).err
    assert "loading the language model" in said
    assert "measuring its speed" in said
    assert "loading the embedder" in said


@pytest.mark.parametrize(
    ("epsilon", "words"),
    [
        (0.0, "nothing was read"),
        (0.1, "at most 1.11 times"),
        (1.0, "at most 2.72 times"),
        (3.0, "at most 20.1 times. This is a moderate promise."),
        (8.0, "2,981 times. By itself this is a weak promise for the worst case; an audit says what attacks found."),
        (100.0, "at most 10^44 times"),
    ],
)
def test_an_epsilon_has_words_of_its_own(epsilon, words):
    assert words in odds_in_words(epsilon)


def test_the_card_says_what_its_own_epsilon_means(command, model, table, tmp_path):
    out, large = tmp_path / "run", tmp_path / "large.jsonl"
    # at ε = 1 the noise of a count would now and then hide the few records of the table
    large.write_text(table.read_text() * 5)
    small = ["--model", model, "--data", large, "--out", out, "--name", "Harbour | notes", "--epsilon", 1]
    batches = ["--batch-size", 40, "--clip", 0.5, "--labels", "red", "--texts", 2, "--max-tokens", 6]
    command("run", *OPTIONS, *small, *batches, "--rebalance-share", "0.3", "--numerical-slack", "0.01")
    card = (out / "release" / "README.md").read_text()
    assert re.search(r"at most 2\.[67]\d? times", card)
    assert "hardly more" not in card
    assert "# Harbour &#124; notes\n" in card
    guarantee = json.loads((out / "release" / "guarantee.json").read_text())
    assert len(str(guarantee["epsilon"])) <= 8


# options


def test_labels_come_from_a_file(command, tmp_path):
    file = tmp_path / "labels.txt"
    file.write_text("bug, open\n\nbilling\n", encoding="utf-8")
    arguments = ["plan", "--label-column", "label", "--labels-file", file]
    assert "guarantee" in command(*arguments).out
    assert "one of the two" in command(*arguments, "--labels", "a,b", code=2).err
    file.write_text("\n")
    assert "has 0 labels" in command(*arguments, code=2).err
    assert "cannot be read" in command("plan", "--labels-file", tmp_path / "none", code=2).err


def test_a_log_holds_what_was_said_and_nothing_private(command, model, table, tmp_path):
    log = tmp_path / "log.txt"
    run = ["run", *OPTIONS, "--model", model, "--data", table, "--out", tmp_path / "run", "--log-file", log]
    command(*run, "--format", "json")
    command(*run, code=2)
    lines = log.read_text(encoding="utf-8").splitlines()
    assert stat.S_IMODE(log.stat().st_mode) == 0o600
    assert all(re.match(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\+00:00 ", line) for line in lines)
    assert any("writing texts" in line for line in lines)
    assert "error:" in lines[-1]
    assert "holds a run" in lines[-1]
    assert not any(MARKER in line for line in lines)
    assert "cannot be written" in command("--log-file", tmp_path, "plan", code=2).err


def test_a_log_keeps_no_figure_of_the_private_data(command, model, table, tmp_path):
    """Notes on the table have exact counts: they are for whoever sits at the terminal (guarantee 12)."""
    log, data = tmp_path / "log.txt", tmp_path / "private.jsonl"
    data.write_bytes(table.read_bytes() * 9 + b'{"text": "caf\xe9", "label": "red"}\n')
    said = command("run", *OPTIONS, "--model", model, "--data", data, "--out", tmp_path / "run", "--log-file", log).err
    kept = log.read_text()
    assert "has lines" in said
    assert "has lines" not in kept
    assert "a log does not keep" in kept
    # a look at many labels
    many = write(tmp_path / "many.jsonl", [{"text": f"a note {n}", "kind": f"k{n % 70}"} for n in range(140)])
    named = ["--label-column", "kind", "--labels", "k0,k1"]
    shown = command("check", "--data", many, *named, "--model", model, "--log-file", log)
    assert "48 more; -v shows all" in shown.out
    assert "48 more" not in shown.err + log.read_text()


# while a run works, and when it is interrupted


def test_progress_counts_tokens_before_the_first_text_ends(command, model, table, tmp_path, monkeypatch):
    heard = []
    monkeypatch.setattr("plainchant.cli.console.ProgressBars.tokens", lambda self, drawn: heard.append(drawn))
    finished = []
    commit = RunDirectory.commit
    monkeypatch.setattr(RunDirectory, "commit", lambda self, text: (finished.append(len(heard)), commit(self, text)))
    command("run", *OPTIONS, "--model", model, "--data", table, "--out", tmp_path / "run")
    assert finished[0] > 1
    tokens = json.loads(command("status", tmp_path / "run", "--format", "json").out)["tokens"]
    assert sum(heard) == tokens


def test_a_bar_moves_with_tokens_and_ends_with_texts(monkeypatch):
    from plainchant.cli.console import Console

    bars = Console("human").progress(max_tokens=10)
    shown = []
    monkeypatch.setattr(bars, "_update", lambda name, done, total, note: shown.append((done, total, note)))
    bars.texts(0, 2, 0)
    bars.tokens(4)
    bars.tokens(4)
    bars.texts(1, 2, 4)
    bars.tokens(2)
    bars.texts(2, 2, 10)
    assert [done for done, _, _ in shown] == pytest.approx([0, 0.2, 0.4, 0.7, 0.8, 1])
    assert "10 tokens" in shown[-1][2]


def test_a_label_that_no_batch_writes_for_is_named_with_its_count(command, model, tmp_path):
    data = write(tmp_path / "private.jsonl", [row | {"label": "red"} for row in rows()])
    arguments = ["--batch-size", 40, "--texts", 4, "--model", model, "--data", data, "--out", tmp_path / "run"]
    said = " ".join(command("run", *OPTIONS, *arguments).err.split())
    assert "no text is written from records of 'blue' (noisy count" in said
    assert "plainchant check" in said


# what a run refuses, before minutes are spent on loading


def test_what_cannot_continue_is_refused_before_anything_is_loaded(command, model, table, tmp_path, monkeypatch):
    ledger, out = tmp_path / "private.ledger", tmp_path / "run"
    command("account", "--ledger", ledger, "--epsilon", 10)
    begin = ["run", *OPTIONS, "--model", model, "--data", table, "--out", out, "--ledger", ledger]

    def commit(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(RunDirectory, "commit", commit)
        command(*begin, code=130)

    def loads(*_, **__):
        raise AssertionError("something was loaded")

    monkeypatch.setattr("plainchant.models.load", loads)
    monkeypatch.setattr("plainchant.data.embedding.load_embedder", loads)
    monkeypatch.setattr("plainchant.evaluation.runs.load_embedder", loads)
    resume = ["run", "--resume", "--data", table, "--out", out]
    assert "name the ledger" in command(*resume, code=3).err
    assert "texts" in command(*resume, "--ledger", ledger, "--texts", 9, code=2).err
    other = write(tmp_path / "other.jsonl", rows(60))
    assert "data" in command("run", "--resume", "--data", other, "--out", out, "--ledger", ledger, code=2).err
    with RunDirectory.open(out).locked():
        assert "another process" in command(*resume, "--ledger", ledger, code=1).err
    assert "no release yet" in command("evaluate", out, "--real", table, code=2).err
    assert "no release yet" in command("compare", out, "--real", table, code=2).err


def test_a_run_without_a_ledger_says_that_nothing_adds_up_its_cost(command, model, table, tmp_path):
    ledger = tmp_path / "private.ledger"
    command("account", "--ledger", ledger, "--epsilon", 20)
    public = ["--method", "public", "--max-tokens", 8, "--texts", 4]
    private, booked = [*OPTIONS, "--data", table], [*OPTIONS, "--data", table, "--ledger", ledger]
    for name, options, warns in (("public", public, False), ("private", private, True), ("booked", booked, False)):
        said = command("run", *options, "--model", model, "--out", tmp_path / name).err
        assert ("no ledger is named" in " ".join(said.split())) is warns
    assert "no ledger" not in command("run", "--resume", "--data", table, "--out", tmp_path / "private").err
