"""Every public name used, and used twice, on whole runs of a table as model: no file of a model is read."""

import dataclasses
import json
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner
from doubles.embedders import Hashing
from doubles.tables import rows

import plainchant as pc
from plainchant.cli.main import main
from plainchant.data.centres import Centres
from plainchant.errors import DataNote
from plainchant.models.table import TableModel
from plainchant.randomness import SeededRandomness

WORDS = ("<eos>", "Text:", "\n", " red", " blue", " lamp", " post", " street")
ROWS = [
    {"text": " ".join(("red", "blue", "lamp", "post", "street")[(n * k) % 5] for k in range(1, 7))} for n in range(120)
]
HELD_OUT = [{"text": f"blue {'lamp ' * (n % 3)}street"} for n in range(40)]
ONCE: dict[str, Any] = {
        "method": "clustered-mean", "clusters": "none", "clip": 1.0, "batch_size": 4, "epsilon": 300.0, "texts": 24,
        "max_tokens": 6, "min_tokens": 4, "rebalance_share": 0.5}  # fmt: skip


def model():
    def table(row):
        return np.array([-9, -9, -9, 0, 0, 0, 0, 0]) + 0.3 * np.bincount(row, minlength=len(WORDS)) * (
            [0] * 3 + [1] * 5
        )

    return TableModel(WORDS, table, end_of_text={0}, context_length=256)


def finish(path, *, randomness=None, allow_not_private=False, **changes):
    plan = pc.plan(pc.SynthesisConfig(**(ONCE | changes)))
    records = None if plan.config.method == "public" else ROWS
    options = pc.PerformanceOptions(rows=8)
    with pc.synthesize(
        records, plan, out=path, model=model(), performance=options, randomness=randomness,
        allow_not_private=allow_not_private,
    ) as run:  # fmt: skip
        return run, run.finish()


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    path = tmp_path_factory.mktemp("run") / "a"
    run, texts = finish(path)
    return path, run, texts


def test_a_finished_run_is_opened_by_its_directory(finished):
    path, run, texts = finished
    for opened in (pc.open(path), pc.open(str(path))):
        assert isinstance(opened, pc.FinishedRun)
        assert opened.texts == texts
        assert isinstance(opened.texts[0], pc.SyntheticText)
        assert opened.guarantee == run.guarantee
        assert isinstance(opened.guarantee, pc.Guarantee)
        assert opened.plan == run.plan
        assert isinstance(opened.plan, pc.Plan)
        assert opened.config == run.plan.config
    assert isinstance(run, pc.Run)


def test_expanded_texts_are_marked_when_a_run_is_opened(tmp_path):
    _, texts = finish(tmp_path / "run", expand=6)
    assert pc.open(tmp_path / "run").texts == texts
    assert {text.origin for text in texts} == {"records", "model"}


def test_what_is_no_finished_run_is_not_opened(tmp_path):
    with pytest.raises(pc.ConfigError, match="is not a run directory"):
        pc.open(tmp_path)
    plan = pc.plan(pc.SynthesisConfig(**ONCE))
    pc.synthesize(ROWS, plan, out=tmp_path / "begun", model=model()).close()
    with pytest.raises(pc.ConfigError, match="has no release yet"):
        pc.open(tmp_path / "begun")


def test_a_plan_of_another_version_is_refused(tmp_path):
    finish(tmp_path / "run")
    path = tmp_path / "run" / "plan.json"
    content = json.loads(path.read_text())
    path.write_text(json.dumps(content | {"texts_per_batch": 10_000}))
    opened = pc.open(tmp_path / "run")
    assert len(opened.texts) == 24
    with pytest.raises(pc.RunError, match="open the run with that version"):
        opened.plan  # noqa: B018


def test_nothing_says_that_a_seeded_run_is_private(tmp_path):
    finish(tmp_path / "run", randomness=SeededRandomness(1), allow_not_private=True)
    opened = pc.open(tmp_path / "run")
    released = json.loads((tmp_path / "run" / "release" / "guarantee.json").read_text())
    answer = CliRunner().invoke(main, ["status", str(tmp_path / "run"), "--format", "json"])
    assert answer.exit_code == 0, answer.output
    told = [dataclasses.asdict(opened.guarantee), dataclasses.asdict(opened.plan.guarantee)]
    assert [*told, json.loads(answer.stdout)["guarantee"]] == [released] * 3
    assert released["kind"] == "none"


def test_an_edited_guarantee_is_not_believed(tmp_path):
    run, _ = finish(tmp_path / "run")
    path = tmp_path / "run" / "plan.json"
    content = json.loads(path.read_text())
    content["guarantee"] |= {"epsilon": 0.01, "statement": "(ε = 0.01)-differentially private"}
    path.write_text(json.dumps(content))
    opened = pc.open(tmp_path / "run")
    again = {"out": tmp_path / "run", "resume": True, "model": model()}
    for claim in (
        lambda: opened.guarantee,
        lambda: opened.plan,
        lambda: pc.report(opened),
        lambda: pc.synthesize(ROWS, run.plan, **again),
    ):
        with pytest.raises(pc.RunError, match="its guarantee is not the one"):
            claim()
    assert CliRunner().invoke(main, ["status", str(tmp_path / "run")]).exit_code == 1


def test_evaluate_and_compare_take_a_run_however_it_is_named(finished, tmp_path):
    path, run, _ = finished
    named = [path, str(path), run, pc.open(path)]
    figures = [pc.evaluate(name, ROWS, embedder=Hashing()) for name in named]
    assert all(isinstance(found, pc.Evaluation) and found == figures[0] for found in figures)
    assert isinstance(figures[0].figure("MAUVE"), pc.Figure)
    other, _ = finish(tmp_path / "b")
    for pair in ([*named[:1], other], [named[3], other]):
        compared = pc.compare(pair, ROWS, embedder=Hashing())
        assert [found.name for found in compared] == ["a", "b"]
        assert isinstance(compared[0], pc.Compared)


def test_vectors_of_other_dimensions_are_not_compared_with_the_runs_centres(tmp_path):
    class Wider(Hashing):
        def encode(self, texts, **options):
            return np.pad(super().encode(texts, **options), ((0, 0), (0, 1)))

    Centres(np.eye(3, dtype=np.float32)).save(tmp_path / "axes.npz")
    around = {"clusters": "public-centres", "centres": str(tmp_path / "axes.npz"), "min_cell": 1}
    plan, path = pc.plan(pc.SynthesisConfig(**(ONCE | around))), tmp_path / "run"
    options = pc.PerformanceOptions(rows=8)
    with pc.synthesize(ROWS, plan, out=path, model=model(), embedder=Hashing(), performance=options) as run:
        run.finish()
    usual, wider = (pc.evaluate(path, ROWS, embedder=embedder) for embedder in (Hashing(), Wider()))
    assert usual.figure("cell agreement") is not None
    assert wider.figure("cell agreement") is None
    assert wider.figure("MAUVE") is not None


def test_figures_of_another_table_than_the_runs_say_so(finished):
    path, _, _ = finished
    with pytest.warns(DataNote, match=f"real: is not the table that {path} was made from"):
        pc.evaluate(path, ROWS[1:], embedder=Hashing())


def test_audit_works_the_second_time(finished):
    path, _, _ = finished
    first, second = (
        pc.audit(name, ROWS, held_out=HELD_OUT, embedder=Hashing(), load_model=None) for name in (path, pc.open(path))
    )
    assert isinstance(first, pc.Audit)
    assert first == second
    assert set(first.groups) == {"copied", "membership"}
    with pytest.raises(pc.DataError, match="is not the table"):
        pc.audit(path, HELD_OUT)


def test_held_out_texts_of_the_table_itself_are_refused(finished, tmp_path):
    path, _, _ = finished
    inside = [{**row, "text": f"  {row['text']}\n"} for row in ROWS[:5]]
    with pytest.raises(pc.DataError, match="held_out: more than 1% of its texts stand in the private table") as caught:
        pc.audit(path, ROWS, held_out=[*HELD_OUT, *inside], embedder=Hashing())
    assert ROWS[0]["text"] not in str(caught.value)
    # before a run with canaries spends anything
    with pytest.raises(pc.DataError, match="held_out"):
        pc.audit_with_canaries(ROWS, pc.plan(pc.SynthesisConfig(**ONCE)), out=tmp_path / "run", held_out=inside)
    assert not (tmp_path / "run").exists()


def test_progress_counts_a_text_by_records_as_a_row_of_each_of_them(tmp_path):
    heard = []

    class Listening(pc.NoProgress):
        def texts(self, done, requested, tokens, work=None):
            heard.append((done, *work))

    made = pc.plan(pc.SynthesisConfig(**(ONCE | {"expand": 8})))
    with pc.synthesize(ROWS, made, out=tmp_path / "run", model=model(), progress=Listening()) as run:
        run.finish()
    # 24 texts by 4 records each, and 8 by the public model alone
    assert [share for _, share, _ in heard] == pytest.approx(
        [min(n, 24) * 4 / 104 + max(0, n - 24) / 104 for n in range(33)]
    )
    assert [each for _, _, each in heard[:32]] == pytest.approx([4 / 104] * 24 + [1 / 104] * 8)


def test_an_audit_with_canaries_makes_a_run_of_its_own_and_goes_on_with_it(tmp_path):
    plan = pc.plan(pc.SynthesisConfig(**ONCE))
    stages = []

    class Progress:
        def stage(self, name, share):
            stages.append(name)

        def tokens(self, drawn): ...

        def texts(self, done, requested, tokens, work=None):
            stages.append("texts")

    options = {
        "out": tmp_path / "canaries",
        "replay": False,
        "model": model(),
        "performance": pc.PerformanceOptions(rows=8),
    }
    first = pc.audit_with_canaries(ROWS, plan, count=5, repetitions=2, progress=Progress(), **options)
    again = pc.audit_with_canaries(ROWS, plan, resume=True, **options)
    assert isinstance(first, pc.Audit)
    assert first.groups["canaries"] == again.groups["canaries"]
    noted = json.loads((tmp_path / "canaries" / "private" / "canaries.json").read_text())
    assert (noted["count"], noted["repetitions"]) == (5, 2)
    assert {"texts", "auditing"} <= set(stages)
    finish(tmp_path / "plain")
    with pytest.raises(pc.ConfigError, match="holds no canaries"):
        pc.audit_with_canaries(ROWS, plan, resume=True, **(options | {"out": tmp_path / "plain"}))


def test_an_audit_with_canaries_sends_nothing_that_follows_from_records(tmp_path):
    there = {"expand": 4, "candidate_model": "m", "candidate_endpoint": "http://localhost:9/v1"}
    plan = pc.plan(pc.SynthesisConfig(**ONCE | there))
    with pytest.raises(pc.PrivacyError, match="no ledger counts it"):
        pc.audit_with_canaries(ROWS, plan, out=tmp_path / "run", model=model())
    assert not (tmp_path / "run").exists()


def test_an_audit_with_canaries_takes_unit_ids_of_any_type(tmp_path):
    plan = pc.plan(pc.SynthesisConfig(unit_column="customer", **ONCE))
    rows = [
        row | {"customer": (number, str(number), b"x" + bytes([number]))[number % 3]} for number, row in enumerate(ROWS)
    ]
    found = pc.audit_with_canaries(rows, plan, out=tmp_path / "run", count=2, replay=False, model=model())
    assert found.groups["canaries"]


def test_a_loaded_model_is_refused_where_workers_load_their_own(tmp_path):
    plan, options = pc.plan(pc.SynthesisConfig(**ONCE)), pc.PerformanceOptions(executor="ray")
    for begin in (pc.synthesize, pc.audit_with_canaries):
        with pytest.raises(pc.ConfigError, match="executor = ray each worker loads its own"):
            begin(ROWS, plan, out=tmp_path / "run", model=model(), performance=options)
        assert not (tmp_path / "run").exists()


def test_report_writes_the_pages_of_a_run(finished):
    path, run, _ = finished
    for name in (path, run, pc.open(path)):
        assert pc.report(name) == [path / "release" / "report.html", path / "private" / "report.html"]
    assert "differentially private" in (path / "release" / "report.html").read_text()


def test_a_ledger_counts_runs_and_refuses_the_one_too_many(tmp_path):
    ledger = pc.Ledger.create(tmp_path / "ledger", epsilon=400.0, delta=1e-6)
    plan = pc.plan(pc.SynthesisConfig(**ONCE))
    options = pc.PerformanceOptions(rows=8)
    pc.synthesize(ROWS, plan, out=tmp_path / "a", model=model(), ledger=ledger.path, performance=options).close()
    assert len(pc.Ledger(tmp_path / "ledger").runs) == 1
    assert ledger.spent.rho == plan.guarantee.rho
    with pytest.raises(pc.PrivacyError, match="ledger"):
        pc.synthesize(ROWS, plan, out=tmp_path / "b", model=model(), ledger=ledger.path)


def test_a_configuration_is_loaded_from_a_file_or_from_nothing(tmp_path):
    path = tmp_path / "c.toml"
    path.write_text('epsilon = 2\n[prompt]\nheader = "h"\n', encoding="utf-8")
    for name in (path, str(path)):
        config = pc.load_config(name, {"texts": 5})
        assert (config.epsilon, config.texts, config.prompt) == (2.0, 5, pc.PromptConfig(header="h"))
    assert pc.load_config(None) == pc.SynthesisConfig()
    with pytest.raises(pc.ConfigError, match="plainchant init"):
        pc.load_config(tmp_path / "missing.toml")


def test_an_example_is_public_and_frozen():
    config = pc.SynthesisConfig(prompt=pc.PromptConfig(examples=(pc.Example(text="made up"),)))
    assert config.prompt.examples[0].text == "made up"
    with pytest.raises(ValueError, match="frozen"):
        config.prompt.examples[0].text = "other"  # type: ignore[misc]


def test_every_error_is_one_of_plainchants_and_has_an_exit_code():
    errors = [value for name in pc.__all__ if name.endswith("Error") and (value := getattr(pc, name))]
    assert all(issubclass(error, pc.PlainchantError) for error in errors)
    assert len(errors) == 8
    assert {error.exit_code for error in errors} == {1, 2, 3, 4}


def test_results_are_frozen(finished):
    with pytest.raises(dataclasses.FrozenInstanceError):
        pc.open(finished[0]).directory = None  # type: ignore[misc]


def test_where_records_cannot_pay_for_texts_the_default_lets_them_vote(model, tmp_path):
    config = pc.SynthesisConfig(
        epsilon=0.3, model=str(model), label_column="label", labels=("red", "blue"), texts=6, max_tokens=8,
        max_record_tokens=40, expected_units=200, candidates=3, numerical_slack=1e-3,
    )  # fmt: skip
    made = pc.plan(config)
    assert made.config.private_texts == made.config.written == 0
    with pc.synthesize(rows(200), made, out=tmp_path / "run") as run:
        next(iter(run))
    # the plan of the directory is this one, and so is that of the configuration which was given
    with pc.synthesize(rows(200), pc.plan(config), out=tmp_path / "run", resume=True) as run:
        run.finish()
    assert {row["origin"] for row in run.directory.released()} == {"model"}
    guarantee = run.guarantee
    assert guarantee.epsilon <= 0.3
    assert guarantee.cost.rho == made.rho_vote > 0
    assert run.directory.batches() == []


def _interrupted(*_):
    raise KeyboardInterrupt


@pytest.mark.parametrize("changes", [{}, {"candidates": 1}, {"method": "private-evolution", "clusters": None}])
def test_a_run_that_writes_no_more_releases_the_best_of_what_is_saved(model, tmp_path, changes, monkeypatch):
    settings = {
        "model": str(model), "label_column": "label", "labels": ("red", "blue"), "texts": 6, "max_tokens": 8,
        "max_record_tokens": 40, "candidates": 4, "expected_range": 2.0, "numerical_slack": 1e-3, "clusters": "none",
    }  # fmt: skip
    made, out = pc.plan(pc.SynthesisConfig(**(settings | changes))), tmp_path / "run"
    ledger = pc.Ledger.create(tmp_path / "book", epsilon=10.0, delta=1e-6)
    paid: dict[str, Any] = {"out": out, "ledger": ledger.path}
    with pytest.raises(pc.ConfigError, match="with --resume"):
        pc.synthesize(rows(200), made, no_more_texts=True, **paid)
    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr("plainchant.run.synthesis.prepare_cells", _interrupted)
        pc.synthesize(rows(200), made, **paid)
    with pytest.raises(pc.RunError, match="no text is saved yet"):
        pc.synthesize(rows(200), made, resume=True, no_more_texts=True, **paid)
    assert ledger.spent.is_zero
    with pc.synthesize(rows(200), made, resume=True, **paid):
        pass
    spent = ledger.spent
    assert not spent.is_zero
    with pytest.raises(pc.RunError, match="no text is saved yet"):
        pc.synthesize(rows(200), made, resume=True, no_more_texts=True, **paid)
    with pc.synthesize(rows(200), made, resume=True, **paid) as run:
        for _ in range(4):
            next(iter(run))
    saved = run.directory.texts()
    assert 0 < len(saved) < 6
    with pc.synthesize(rows(200), made, resume=True, no_more_texts=True, **paid) as run:
        # an interrupt here changes nothing: the choice is kept
        pass
    with pc.synthesize(rows(200), made, resume=True, **paid) as run:
        run.finish()
    assert run.directory.texts() == saved
    assert sorted(row["text"] for row in run.directory.released()) == sorted(text.text for text in saved)
    # nothing is given back
    assert run.guarantee == made.guarantee
    assert ledger.spent == spent


def test_a_run_that_its_ledger_has_not_paid_for_yet_is_refused_once_others_have_spent_the_budget(tmp_path, monkeypatch):
    ledger, made = pc.Ledger.create(tmp_path / "ledger", epsilon=400.0, delta=1e-6), pc.plan(pc.SynthesisConfig(**ONCE))
    paid: dict[str, Any] = {"model": model(), "ledger": ledger.path}

    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr("plainchant.run.synthesis.prepare_cells", _interrupted)
        pc.synthesize(ROWS, made, out=tmp_path / "a", **paid)
    assert ledger.runs == []
    # nothing would add up what it costs
    with pytest.raises(pc.PrivacyError, match="name the ledger"):
        pc.synthesize(ROWS, made, out=tmp_path / "a", resume=True, model=model())
    pc.synthesize(ROWS, made, out=tmp_path / "b", **paid).close()
    read = []
    monkeypatch.setattr("plainchant.run.preparation.read_table", lambda *_: read.append(1))
    with pytest.raises(pc.PrivacyError, match="ledger"):
        pc.synthesize(ROWS, made, out=tmp_path / "a", resume=True, **paid)
    assert read == []


def test_status_of_a_run_that_writes_no_more_waits_for_nothing(model, tmp_path):
    config = pc.SynthesisConfig(
        method="private-evolution", model=str(model), label_column="label", labels=("red", "blue"), texts=6,
        max_tokens=8, max_record_tokens=40, candidates=4, numerical_slack=1e-3,
    )  # fmt: skip
    with pc.synthesize(rows(200), pc.plan(config), out=tmp_path / "run") as run:
        next(iter(run))
    with pc.synthesize(rows(200), pc.plan(config), out=tmp_path / "run", resume=True, no_more_texts=True) as run:
        run.finish()
    said = CliRunner().invoke(main, ["status", str(tmp_path / "run")]).output
    assert "1 of 24 written; it was told to write no more" in " ".join(said.split())
    assert "--resume" not in said
    assert json.loads(CliRunner().invoke(main, ["status", str(tmp_path / "run"), "--format", "json"]).output)[
        "finished"
    ]


class Interrupted(Hashing):
    """Somebody presses Ctrl-C while records are embedded."""

    def encode(self, texts, **options):
        if options.get("alone"):
            raise KeyboardInterrupt
        return super().encode(texts, **options)


def test_an_audit_with_canaries_that_ends_while_it_embeds_goes_on(tmp_path, monkeypatch):
    plan = pc.plan(pc.SynthesisConfig(**ONCE | {"candidates": 2, "rounds": 1}))
    options = {"out": tmp_path / "run", "replay": False, "model": model(), "performance": pc.PerformanceOptions(rows=8)}
    opened = Interrupted()
    monkeypatch.setattr("plainchant.run.preparation.open_embedder", lambda *_: opened)
    with pytest.raises(KeyboardInterrupt):
        pc.audit_with_canaries(ROWS, plan, count=5, **options)
    monkeypatch.setattr("plainchant.run.preparation.open_embedder", lambda *_: Hashing())
    assert pc.audit_with_canaries(ROWS, plan, resume=True, **options).groups["canaries"]


def test_an_audit_with_canaries_reads_its_table_once(tmp_path):
    plan = pc.plan(pc.SynthesisConfig(**ONCE))
    found = pc.audit_with_canaries(
        (row for row in ROWS), plan, out=tmp_path / "run", count=2, replay=False, model=model(),
        performance=pc.PerformanceOptions(rows=8), held_out=HELD_OUT, embedder=Hashing(),
    )  # fmt: skip
    assert {"canaries", "membership"} <= set(found.groups)


class Odd(Hashing):
    """Finds no direction in one text."""

    def encode(self, texts, **options):
        vectors = super().encode(texts, **options)
        vectors[[text == ROWS[7]["text"] for text in texts]] = np.nan
        return vectors


def test_no_vector_of_a_single_record_ends_a_run(tmp_path):
    plan = pc.plan(pc.SynthesisConfig(**ONCE | {"candidates": 2, "rounds": 1}))
    with pc.synthesize(
        ROWS, plan, out=tmp_path / "run", model=model(), embedder=Odd(), performance=pc.PerformanceOptions(rows=8)
    ) as run:
        assert len(run.finish()) == 24


def test_texts_that_no_record_contributed_to_are_the_models(tmp_path):
    _, texts = finish(tmp_path / "run", method="public", batch_size=None, clip=None, rebalance_share=0.05,
                      epsilon=8.0)  # fmt: skip
    assert {text.origin for text in texts} == {"model"}
    assert pc.open(tmp_path / "run").texts == texts
