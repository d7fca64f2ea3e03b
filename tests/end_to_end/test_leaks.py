"""One test for each leak seen in other implementations (guarantee 9), on the whole pipeline with a table as model."""

import dataclasses
import itertools
import json
import logging
import os
import re
import stat
from typing import Any

import numpy as np
import pyarrow.parquet
import pytest
from click.testing import CliRunner
from doubles.embedders import Hashing
from doubles.models import Spy
from doubles.randomness import AsTold

from plainchant import plan, synthesize
from plainchant.cli.run import status
from plainchant.config import PerformanceOptions, SynthesisConfig
from plainchant.data.centres import Centres
from plainchant.errors import ConfigError, DataError, PrivacyError
from plainchant.generation.decoding import BatchWork, Decoder, StopRule
from plainchant.generation.prompting import Prompts
from plainchant.privacy.accounting import Cost, epsilon_of, rho_of
from plainchant.privacy.histograms import VOTE_GRID, noisy_votes
from plainchant.randomness import SeededRandomness, SystemRandomness
from plainchant.reporting.page import write_report
from plainchant.reporting.runs import report
from plainchant.reporting.statement import statement
from plainchant.reporting.view import view
from plainchant.run.store import RunDirectory

TEXTS = [" a b", " c c a", "", " b b b", " a", " c b a", " a a", " b c"] * 4


@pytest.fixture(autouse=True)
def unchecked(monkeypatch):
    """What a model must show before it reads a record is tested elsewhere; here every call is one of the run."""
    monkeypatch.setattr("plainchant.models.checked", lambda *_, **__: True)


@pytest.fixture(params=["clustered-mean", "plainchant"])
def config(tmp_path, request):
    path = tmp_path / "centres.npz"
    Centres(np.eye(3, dtype=np.float32)).save(path)

    def make(**changes):
        values = {
            "clipping": "difference", "support": "top_k", "top_k": 4, "clip": 1.0, "batch_size": 4, "texts": 6,
            "max_tokens": 5, "min_tokens": 1, "max_record_tokens": 8, "rebalance_share": 0.5, "min_cell": 1,
            "centres": str(path), "method": request.param, "expected_range": 0.5, "guidance": 1.0,
            "candidates": 1,
        }  # fmt: skip
        return SynthesisConfig(**(values | changes))

    return make


@pytest.fixture
def run(tmp_path, config):
    def go(texts=TEXTS, out="out", settings=None, model=None, records=None, **rest):
        rows = records if records is not None else [{"text": text} for text in texts]
        # nothing measured: what is looked at are the calls of the run itself
        rest = {"model": model or Spy(), "embedder": Hashing(), "performance": PerformanceOptions(rows=64), **rest}
        with synthesize(rows, plan(settings or config()), out=tmp_path / out, **rest) as made:
            made.finish()
        return made

    return go


@pytest.fixture
def script(monkeypatch):
    """Makes every run release the same tokens, whatever its data is."""

    def use(*indices):
        places = iter(indices * 100)
        monkeypatch.setattr("plainchant.privacy.mechanisms.sample", lambda scores, _: next(places) % len(scores))

    return use


def seeded(seed=1):
    return {"randomness": SeededRandomness(seed), "allow_not_private": True}


def rows_of(made):
    return (made.directory.release / "synthetic.jsonl").read_text()


def test_no_default_seed_two_runs_differ(run, config):
    long = config(max_tokens=12, min_tokens=11, epsilon=80, support="full")
    first, second = run(out="1", settings=long), run(out="2", settings=long)
    assert SystemRandomness.private
    assert first.guarantee.kind == "ex-ante"
    assert rows_of(first) != rows_of(second)


def test_a_seed_shows_wherever_the_release_shows(run):
    with pytest.raises(PrivacyError, match="NOT PRIVATE"):
        run(randomness=SeededRandomness(1))
    first, second = run(out="1", **seeded()), run(out="2", **seeded())
    assert rows_of(first) == rows_of(second)
    told = json.loads((first.directory.release / "guarantee.json").read_text())
    assert told["kind"] == "none"
    assert told["epsilon"] is None
    assert "NOT PRIVATE" in told["statement"]
    assert "NOT PRIVATE" in (first.directory.release / "README.md").read_text()


@pytest.mark.parametrize("begun_seeded", [True, False])
def test_a_run_that_ever_used_a_seed_never_becomes_private(config, tmp_path, begun_seeded):
    records, out = [{"text": text} for text in TEXTS], tmp_path / "out"

    def part(count, **rest):
        with synthesize(records, plan(config()), out=out, model=Spy(), embedder=Hashing(), **rest) as made:
            assert len(list(itertools.islice(made, count))) == count

    part(1, **(seeded() if begun_seeded else {}))
    with pytest.raises(PrivacyError, match="start a new run"):
        part(2, resume=True, **({} if begun_seeded else seeded()))
        part(3, resume=True)


def test_public_rows_are_stepped_by_themselves_and_first(run, config, script):
    models = []
    for number, texts in enumerate((TEXTS, TEXTS[:-1])):
        script(1, 2, 3, 1, 2)
        models.append(Spy())
        run(texts, out=str(number), model=models[-1], randomness=AsTold([0, 1] * 16))
    for model in models:
        kinds = [{public for public, _, _ in call} for call in model.calls]
        assert kinds == [{True}, {False}] * (len(kinds) // 2)
    public = [[call for call in model.calls if call[0][0]] for model in models]
    assert public[0] == public[1]
    assert [c for c in models[0].calls if not c[0][0]] != [c for c in models[1].calls if not c[0][0]]


def test_cells_batches_and_texts_depend_on_noisy_counts_only(run):
    draws = [0, 1, 1, 0, 1, 0, 0, 1] * 4
    with_all = run(out="1", randomness=AsTold(draws))
    without = run(TEXTS[:5] + TEXTS[6:], out="2", randomness=AsTold(draws[:5] + draws[6:]))
    first, second = with_all.directory, without.directory
    assert first.cells() == second.cells()
    assert first.batches() == second.batches()
    # each other unit is where it was
    batch_of = {record: batch for batch, records in first.members().items() for (record,), _ in records}
    moved = {record + (record >= 5): batch for batch, records in second.members().items() for (record,), _ in records}
    assert moved == {record: batch for record, batch in batch_of.items() if record != 5}
    assert len(batch_of) == len(TEXTS)


def test_empty_rows_are_records_and_move_no_other(run):
    texts = [*TEXTS[:3], "", *TEXTS[4:]]
    full, emptied = (
        run(out="1", randomness=AsTold([0, 1] * 16)),
        run(texts, out="2", randomness=AsTold([0, 1] * 16)),
    )
    places = [{r: b for b, rs in made.directory.members().items() for (r,), _ in rs} for made in (full, emptied)]
    assert sorted(places[1]) == list(range(len(texts)))
    assert [places[0][r] for r in places[0] if r != 3] == [places[1][r] for r in places[0] if r != 3]


def test_room_is_never_taken_from_private_lengths(run, config):
    short, long = Spy(), Spy()
    settings = config(allow_malformed=True)
    run([""] * 32, out="1", settings=settings, model=short, randomness=AsTold([0, 1] * 16))
    run([" a b c" * 50] * 32, out="2", settings=settings, model=long, randomness=AsTold([0, 1] * 16))
    assert {*short.rooms, *long.rooms} == {config().max_tokens}
    prompts = Prompts(config(), long)
    assert len(prompts.record(" a b" * 500, None)) == len(prompts.record("", None)) + config().max_record_tokens


def test_special_tokens_in_private_text_stay_text(config):
    model = Spy()
    assert model.encode("<eos><sep>", trusted=True) == [0, 6]
    record = Prompts(config(), model).record(" a<eos> b<sep><sep> c<eos>", None)
    assert not model.special & set(record)
    assert [token for token in record if token in (3, 4, 5)] == [3, 4, 5]


def test_stopping_depends_on_released_tokens_only(config, script):
    ended = set()
    for records in ([], [[3, 3]], [[0, 2, 2]] * 9, [[5] * 8, [2]]):
        script(1, 2, 3, 1, 0, 2, 2, 3)
        rule = StopRule("\n", 5, 1)
        decoder = Decoder(Spy(), plan(config(support="full")).mechanism, rule, rows=8, randomness=AsTold([]))
        texts = decoder.run([BatchWork(0, (2,), (1,), records, range(4))])
        ended.add(tuple((text.text, text.tokens, text.finish) for text in texts))
    assert len(ended) == 1


def test_epsilon_is_the_plans_even_when_texts_end_early(run, config):
    planned = plan(config())
    made = run(model=Spy(end=6.0))
    costs = json.loads((made.directory.private / "costs.json").read_text())
    assert costs["tokens"] < len(made.directory.texts()) * config().max_tokens
    told = json.loads((made.directory.release / "guarantee.json").read_text())
    assert told == dataclasses.asdict(planned.guarantee)
    # rounded up for reading, and still what the budget implies
    assert 0 <= told["epsilon"] - Cost.from_dict(told).epsilon(1e-6) < 1e-5
    assert 0 < told["epsilon"] <= 8


def test_zero_is_zero_and_infinite_is_none(run, config):
    public = run(out="1", settings=config(method="public", clip=None, batch_size=None))
    told = json.loads((public.directory.release / "guarantee.json").read_text())
    assert (told["kind"], told["epsilon"], told["rho"]) == ("ex-ante", 0.0, 0.0)
    assert "| ex-ante | 0 | 0 | ρ = 0 (zCDP) |" in (public.directory.release / "README.md").read_text()
    wide = config(method="non-private", clip=None, batch_size=None)
    with pytest.raises(PrivacyError):
        run(out="2", settings=wide)
    open_ = run(out="3", settings=wide, allow_not_private=True)
    assert open_.guarantee.kind == "none"
    assert open_.guarantee.epsilon is open_.guarantee.rho is None
    card = (open_.directory.release / "README.md").read_text()
    assert "| none | – | – | – |" in card
    assert not re.search(r'"rho\w*": 0\b(?!\.\d*[1-9])', card)
    assert epsilon_of(0.0, 1e-6) == 0.0
    assert epsilon_of(float("inf"), 1e-6) == float("inf")


@pytest.mark.filterwarnings("ignore::plainchant.errors.DataNote")  # a label without a row
def test_private_text_is_nowhere(run, config, tmp_path, caplog, capfd):
    caplog.set_level(logging.DEBUG)
    marks = ("QXTEXTQX", "QXLABELQX", "QXUNITQX")
    records = [{"text": f"{marks[0]} a {i}", "label": "good", "unit": f"{marks[2]}{i}"} for i in range(40)]
    records += [{"text": f"{marks[0]} b", "label": marks[1], "unit": None}] * 3
    labelled = config(label_column="label", unit_column="unit", labels=("good", "bad"))
    prompt = {"example": "Text: {text}\n"}
    made = run(records=records, settings=labelled.model_copy(update={"prompt": type(labelled.prompt)(**prompt)}))
    errors = []
    for rows, rest in ((records[1:], {"resume": True}), ([{"words": marks[0]}], {"out": "2"})):
        with pytest.raises(DataError) as caught:
            run(records=rows, settings=labelled.model_copy(update={"prompt": made.plan.config.prompt}), **rest)
        errors.append(str(caught.value) + repr(caught.value))
    secret: Any = marks
    work = BatchWork(0, (), (1,), secret, ())
    shown = "".join([*errors, caplog.text, *capfd.readouterr(), repr(made.plan), repr(work)])
    # what is written about a run afterwards holds none of it either
    pages = [*report(made), *statement(made), view(made)]
    files = [path for path in (tmp_path / "out").rglob("*") if path.is_file()]
    assert set(pages) < set(files)
    assert len(files) > 8
    assert not re.search("[0-9a-f]{64}", shown)
    for content in [shown.encode(), *(path.read_bytes() for path in files)]:
        assert not any(mark.encode(code) in content for mark in marks for code in ("utf-8", "utf-16-le"))


def test_release_holds_released_facts_only(run, config):
    made = run(settings=config(aggregate="median", accounting="ex-post"))
    release, private = made.directory.release, made.directory.private
    assert {p.name for p in release.iterdir()} == {
        "synthetic.jsonl",
        "synthetic.parquet",
        "guarantee.json",
        "README.md",
    }
    fields = {
        "kind", "epsilon", "delta", "rho", "curve", "unit", "relation", "method", "version", "statement", "delta_found",
    }  # fmt: skip
    assert set(json.loads((release / "guarantee.json").read_text())) == fields
    assert pyarrow.parquet.read_table(release / "synthetic.parquet").column_names == ["text", "cell"]
    card = (release / "README.md").read_text()
    shown = json.loads(card.partition("```json")[2].partition("```")[0])
    assert shown == {name: value for name, value in plan(made.plan.config).as_dict().items() if name != "guarantee"}
    heads = [line for line in card.splitlines() if line.startswith("| kind") or line.startswith("| label")]
    assert heads == [
        "| kind | ε | δ | cost | unit | neighbouring relation | method | plainchant |",
        "| label | public centre | noisy size | batches |",
    ]
    everything = "".join(path.read_text() for path in release.iterdir() if path.suffix != ".parquet")
    secrets = [made.directory.origin.data, str(json.loads((private / "costs.json").read_text())["ex_post"]["epsilon"])]
    assert not any(secret in everything for secret in secrets)
    assert stat.S_IMODE(os.stat(private).st_mode) == 0o700


def test_a_plan_file_of_a_seeded_run_claims_nothing(run):
    outcome = run(**seeded())
    written = json.loads((outcome.directory.path / "plan.json").read_text(encoding="utf-8"))
    assert written["guarantee"]["kind"] == "none"


@pytest.mark.parametrize("deals", [False, True])
def test_released_examples_are_a_function_of_the_release(run, tmp_path, monkeypatch, deals):
    """Spec 8: what a cell's later texts see are its own first released texts, and nothing else."""
    path = tmp_path / "axes.npz"
    Centres(np.eye(3, dtype=np.float32)).save(path)
    config = SynthesisConfig(
        method="plainchant", batch_size=4, texts=24, max_tokens=9, min_tokens=6, max_record_tokens=8, min_cell=1,
        rebalance_share=0.5, centres=str(path), expected_range=0.1, top_k=3, released_examples=1,
        candidates=1, deals=deals, numerical_slack=2e-3,
    )  # fmt: skip
    # three words can only repeat each other
    monkeypatch.setattr("plainchant.generation.prompting.MOST_REPEATED", 1.0)
    prefixes, real = [], Spy.prefill
    monkeypatch.setattr(Spy, "prefill", lambda self, prefix: prefixes.append(tuple(prefix)) or real(self, prefix))
    made = run(settings=config, randomness=AsTold(range(1000)))
    model = Spy()
    shown = {prefix for prefix in prefixes if prefix != prefixes[0]}
    first = {text.text for text in made.directory.texts()}
    for prefix in shown:
        assert prefix[: len(prefixes[0])] == prefixes[0]
        assert model.decode(prefix[len(prefixes[0]) :]).replace("Text:", "").strip() in first
    # caches are made once a cell and deal, not once a text
    times = max(batch.deal for batch in made.directory.batches()) if deals else 1
    assert 1 <= len(shown) <= times * len(made.directory.cells())
    assert len(prefixes) <= 1 + len(shown)


def test_expanded_texts_come_from_released_ones_alone_and_are_marked(run, tmp_path):
    path = tmp_path / "axes.npz"
    Centres(np.eye(3, dtype=np.float32)).save(path)
    config = SynthesisConfig(
        method="plainchant", batch_size=4, texts=5, max_tokens=5, min_tokens=1, max_record_tokens=8, min_cell=1,
        rebalance_share=0.5, centres=str(path), expected_range=0.1, top_k=3, released_examples=0, expand=7,
        candidates=1, numerical_slack=2e-3,
    )  # fmt: skip
    model = Spy()
    made = run(settings=config, model=model, randomness=AsTold(range(1000)))
    rows = [json.loads(line) for line in rows_of(made).splitlines()]
    # marked, and in an order that does not tell
    origins = [row["origin"] for row in rows]
    assert sorted(origins) == ["model"] * 7 + ["records"] * 5
    assert origins not in (sorted(origins), sorted(origins, reverse=True))
    # once the private texts are done, nothing but rows of released texts at work, and no cost
    *before, last = [max(len(rows) for _, rows, _ in call) for call in model.calls[:-5]]
    assert last > 1 or before[-1] > 1
    written = {text.text.strip() for text in made.directory.texts()[:5]}
    assert len(model.calls[-5]) == 7
    groups = [(rows, token) for call in model.calls[-5:] for _, rows, token in call]
    assert {len(rows) for rows, _ in groups} == {1}
    shown = {entry for (row,), token in groups for entry in model.entries(row, token)}
    assert shown
    assert shown <= written
    assert all((text.loss, text.rho, text.spent) == (0, 0, ()) for text in made.directory.texts()[5:])
    assert made.guarantee.cost == plan(config.model_copy(update={"expand": 0})).guarantee.cost


def test_votes_are_paid_for_drawn_once_and_only_their_choice_is_released(run, config, tmp_path):
    settings = config(candidates=3, rounds=2, expand=1, vote_share=0.3, private_texts=6)
    made = run(settings=settings, randomness=AsTold(range(1000)))
    directory = made.directory
    first, last = directory.winners(0), directory.winners(1)
    # 6 by records, 8 of 13 by the public model before the first vote
    assert len(directory.texts()) == 6 + 13
    assert len(first) == len(last) == 7
    candidates = [facts["candidates"] for facts in directory.facts()]
    assert candidates == [6 + 8, 6 + 13]
    texts = {(text.batch, text.position): text.text for text in directory.texts()}
    rows = [json.loads(line) for line in rows_of(made).splitlines()]
    assert sorted(row["text"] for row in rows) == sorted(texts[winner.batch, winner.position] for winner in last)
    decided, total = plan(settings), rho_of(settings.epsilon, settings.delta)
    assert decided.rho_vote == pytest.approx(0.3 * total)
    assert decided.rho_round == decided.rho_vote / 2
    assert bool(decided.rho_words) == (settings.method.value == "plainchant")
    noise = Cost(decided.rho_words) + Cost(decided.rho_vote) + Cost(decided.rho_rebalance)
    if decided.deals is None:
        assert noise.rho + decided.rho_batch == pytest.approx(total)
    else:
        assert decided.guarantee.cost.curve == (noise + decided.deals.cost).curve
    # going on with it draws nothing again
    before, votes = rows_of(made), [directory.votes(0), directory.votes(1)]
    with synthesize([{"text": text} for text in TEXTS], decided, out=tmp_path / "out", resume=True, model=Spy(),
                    embedder=Hashing()) as again:  # fmt: skip
        assert [text.text for text in again.finish()] == [row["text"] for row in rows]
    assert rows_of(made) == before
    assert [directory.votes(0), directory.votes(1)] == votes
    assert "## Votes" in (directory.release / "README.md").read_text()


@pytest.mark.parametrize("place", range(2))
def test_a_crash_at_a_vote_loses_no_text_and_draws_no_vote_again(run, config, tmp_path, monkeypatch, place):
    settings = config(candidates=3, rounds=2)
    real, calls = noisy_votes, []

    def crash(*values):
        calls.append(values)
        if len(calls) > place:
            raise RuntimeError
        return real(*values)

    with monkeypatch.context() as patch:
        patch.setattr("plainchant.run.votes.noisy_votes", crash)
        with pytest.raises(RuntimeError):
            run(settings=settings, randomness=AsTold(range(1000)))
    directory = RunDirectory.open(tmp_path / "out")
    texts, held = directory.texts(), [directory.votes(number) for number in range(place)]
    assert len(directory.facts()) == place
    assert not (directory.release / "synthetic.jsonl").exists()
    with synthesize([{"text": text} for text in TEXTS], plan(settings), out=tmp_path / "out", resume=True,
                    model=Spy(), embedder=Hashing(), randomness=AsTold(range(1000))) as made:  # fmt: skip
        assert len(made.finish()) == 6
        assert len(made.directory.texts()) == 18
    assert [directory.votes(number) for number in range(place)] == held
    assert {(t.batch, t.position): t.text for t in texts}.items() <= {
        (t.batch, t.position): t.text for t in directory.texts()
    }.items()


def test_a_run_with_votes_goes_on_after_every_text(run, config, tmp_path):
    """Stopped after each text in turn, and resumed: every place is written once, every vote held once."""
    settings = config(candidates=3, rounds=2)
    records, count = [{"text": text} for text in TEXTS], 0
    while True:
        with synthesize(records, plan(settings), out=tmp_path / "out", resume=count > 0, model=Spy(),
                        embedder=Hashing(), randomness=AsTold(range(1000))) as made:  # fmt: skip
            written = len(list(itertools.islice(made, count + 1)))
        if written <= count:
            break
        count += 1
    assert count == 18 == len(made.directory.texts())
    assert len(made.directory.facts()) == 2
    assert len(rows_of(made).splitlines()) == 6


def test_progress_names_the_rounds(run, config):
    said = []

    class Listening:
        def stage(self, name, share):
            said.append(name)

        def tokens(self, drawn): ...

        def texts(self, done, requested, tokens, work=None):
            pass

    settings = config(candidates=3, rounds=2)
    run(settings=settings, progress=Listening())
    names = [name for name in dict.fromkeys(said) if "vote" in name or "candidates by" in name]
    words = ["candidates by the public model with the records' words"] * bool(plan(settings).rho_words)
    assert names == ["candidates by the public model", *words, "vote 1 of 2", "candidates after the winners of vote 1",
                     "vote 2 of 2"]  # fmt: skip
    assert ("counting words" in said) == bool(words)


LABELLED = [{"text": text, "label": ("x", "y")[place % 2]} for place, text in enumerate(TEXTS)]
EVOLUTION: dict[str, Any] = {
    "method": "private-evolution", "texts": 6, "max_tokens": 5, "min_tokens": 1, "candidates": 4, "rounds": 2,
    "labels": ("x", "y"), "label_column": "label", "top_k": 4, "max_record_tokens": 8,
    "prompt": {"example": "Text: {text}\n"},
}  # fmt: skip


def test_private_evolution_shows_no_record_and_spends_everything_on_votes(run, config):
    # longer than any text that the model may write
    marked = [{"text": " c c c c c c c", "label": row["label"]} for row in LABELLED]

    def shown_to(model):
        prompts = [prompt for call in model.calls for _, prompts, _ in call for prompt in prompts]
        return any(prompt[start : start + 7] == (5,) * 7 for prompt in prompts for start in range(len(prompt)))

    # so many candidates that each label has three different ones
    settings, model, other = SynthesisConfig(**{**EVOLUTION, "candidates": 12}), Spy(), Spy()
    made = run(records=marked, settings=settings, model=model)
    assert model.calls
    assert not shown_to(model)
    run(records=marked, settings=config(), model=other, out="other")
    assert shown_to(other)
    assert made.directory.batches() == []
    assert made.directory.members() == {}
    decided = plan(settings)
    assert decided.guarantee.kind == "ex-ante"
    assert 7.99 < decided.guarantee.epsilon <= 8
    assert decided.rho_vote + decided.rho_words == pytest.approx(decided.guarantee.rho)
    assert decided.rho_counts == pytest.approx(decided.guarantee.rho)
    assert decided.rho_words == 0.02
    assert decided.rho_batch is None
    assert decided.rho_round == decided.rho_vote / 2
    rows = [json.loads(line) for line in rows_of(made).splitlines()]
    assert len(rows) == 6
    assert {row["origin"] for row in rows} == {"model"}
    assert sorted(row["label"] for row in rows) == ["x"] * 3 + ["y"] * 3
    assert "to which no record was shown" in (made.directory.release / "README.md").read_text()
    # public facts about the votes, wherever a run is described
    write_report(made.directory, decided, made.guarantee)
    told = CliRunner().invoke(status, [str(made.directory.path), "--format", "json"])
    facts = json.loads(told.stdout)
    assert facts["finished"]
    assert facts["texts"] == facts["texts_planned"] == 72
    assert [own["candidates"] for own in facts["votes"]] == [48, 72]
    shown = CliRunner().invoke(status, [str(made.directory.path)])
    for place in (made.directory.release / "report.html", made.directory.release / "README.md"):
        assert "chose 6 of 72 candidates" in place.read_text()
    assert "vote 2 of 2" in shown.stdout + shown.stderr
    assert "chose 6 of 72" in " ".join((shown.stdout + shown.stderr).split())


@pytest.mark.filterwarnings("ignore::plainchant.errors.DataNote")  # a label without a row
def test_labels_that_the_noise_drowns_are_named_wherever_a_run_is_described(run):
    settings = SynthesisConfig(**{**EVOLUTION, "epsilon": 0.01, "labels": ("x", "y", "zz")})
    made = run(records=LABELLED, settings=settings)
    write_report(made.directory, plan(settings), made.guarantee)
    last = made.directory.facts()[-1]
    # three labels above two deviations of noise alone: less than once in ten thousand
    assert last["labels_without_signal"]
    named = "no signal above the noise for " + ", ".join(last["labels_without_signal"])
    shown = CliRunner().invoke(status, [str(made.directory.path)])
    for told in (
        shown.stdout + shown.stderr,
        *((made.directory.release / name).read_text() for name in ("report.html", "README.md")),
    ):
        assert named in " ".join(told.split())
    document = json.loads(CliRunner().invoke(status, [str(made.directory.path), "--format", "json"]).stdout)
    assert any("got no votes above the noise" in note for note in document["notes"])


def test_one_unit_moves_the_votes_of_a_whole_run_by_one_vote_at_most(run, monkeypatch):
    """Candidates are public here, so two neighbours can be run with the same ones: what changes is one unit's vote."""
    asked = {}

    class Counting(AsTold):
        def __init__(self, name):
            super().__init__([])
            self.name = name

        def below(self, bound):
            return 0

        def add_discrete_gaussian(self, counts, sigma):
            asked.setdefault(self.name, []).append(np.array(counts))
            # the same winners whatever was counted
            return np.arange(len(counts))

    for spread in (1, 3):
        asked.clear()
        settings = SynthesisConfig(**EVOLUTION, vote_spread=spread, vote_labels=2)
        for gone in (None, 0, 5, 31):
            source = SeededRandomness(3)
            monkeypatch.setattr(SystemRandomness, "below", lambda self, bound, source=source: source.below(bound))
            records = [row for place, row in enumerate(LABELLED) if place != gone]
            run(records=records, settings=settings, out=f"{spread}-{gone}", randomness=Counting(gone))
        for gone in (0, 5, 31):
            for whole, without in zip(asked[None], asked[gone], strict=True):
                assert len(whole) == len(without)
                norm = int(((whole - without) ** 2).sum())
                assert 0.98 * VOTE_GRID**2 < norm <= VOTE_GRID**2


def test_named_quotas_are_kept(run):
    # so many candidates that there are five different ones
    settings = SynthesisConfig(**{**EVOLUTION, "candidates": 12}, quotas={"x": 1, "y": 5})
    made = run(records=LABELLED, settings=settings)
    rows = [json.loads(line) for line in rows_of(made).splitlines()]
    assert sorted(row["label"] for row in rows) == ["x"] + ["y"] * 5
    assert made.directory.config == settings


def test_a_memory_cap_narrows_the_pass_by_public_lengths_alone(run, config, tmp_path):
    # what is asked together is the same whatever the records are
    wide, narrow = Spy(), Spy()
    run(
        settings=config(texts=12),
        model=wide,
        randomness=AsTold(range(1000)),
        performance=PerformanceOptions(rows=64),
    )
    prompts = Prompts(config(texts=12), Spy())
    # two batches with a public row each and two rows above s, and eight prefixes
    cap = (2 * (4 + 2 + 1) + 8.5) * wide.row_bytes(prompts.longest) / 2**30
    run(settings=config(texts=12), model=narrow, out="narrow", randomness=AsTold(range(1000)),
        performance=PerformanceOptions(rows=64, memory=cap))  # fmt: skip
    assert max(map(len, wide.calls)) > 2 == max(map(len, narrow.calls))
    with pytest.raises(ConfigError, match="a batch of 4 contexts"):
        run(settings=config(), out="none", performance=PerformanceOptions(memory=cap / 4))
    assert not (tmp_path / "none").exists()
