"""Runs on a secret sample of the units: what they look at, what survives a kill, and what a ledger is charged."""

import json
import math
import signal
import sqlite3
from typing import Any

import numpy as np
import pytest
from doubles.embedders import Hashing
from doubles.models import Spy
from doubles.tables import MARKER, OPTIONS, rows, write

from plainchant import plan, synthesize
from plainchant.auditing.runs import audit, audit_with_canaries
from plainchant.config import PerformanceOptions, SynthesisConfig
from plainchant.data.sample import Sample
from plainchant.data.tables import read_records
from plainchant.errors import ConfigError, DataError, PrivacyError, RunError
from plainchant.evaluation.runs import real_sample
from plainchant.privacy.accounting import Budget, Cost
from plainchant.run.ledger import Ledger
from plainchant.run.store import RunDirectory

from .test_crash import committed, wait_for

RATE = 0.4
SAMPLED = [*OPTIONS, "--sample-rate", str(RATE), "--unit-column", "unit", "--epsilon", "30"]
RECORDS = [
    {"text": f"{MARKER} note {row} about the harbour", "label": ("red", "blue")[row % 2], "unit": f"{MARKER}{row // 3}"}
    for row in range(240)
]


@pytest.fixture
def units(tmp_path):
    return write(tmp_path / "units.jsonl", RECORDS)


def key_of(out):
    with sqlite3.connect(out / "private" / "run.sqlite") as database:
        ((key,),) = database.execute("SELECT sample_key FROM origin").fetchall()
    database.close()
    return key


def test_a_run_looks_at_its_sample_and_at_nothing_else(tmp_path):
    values: dict[str, Any] = {
        "method": "clustered-mean",
        "clusters": "none",
        "clipping": "difference",
        "support": "top_k",
        "top_k": 4,
    }
    values |= {"clip": 1.0, "batch_size": 4, "label_column": "label", "labels": ("red", "blue"), "texts": 4}
    values |= {
        "max_tokens": 3,
        "min_tokens": 1,
        "max_record_tokens": 8,
        "epsilon": 20.0,
        "rebalance_share": 0.4,
        "candidates": 2,
    }
    own = SynthesisConfig(**values, sample_rate=RATE, unit_column="unit", numerical_slack=1e-2)
    model = Spy()
    table = [row | {"text": " " + "abc"[number % 3] * (1 + number // 3)} for number, row in enumerate(RECORDS)]
    with synthesize(
        table, plan(own), out=tmp_path / "run", model=model, embedder=Hashing(), performance=PerformanceOptions(rows=64)
    ) as made:
        made.finish()
        sample = made.directory.sample()
        kept = len(made.directory.embeddings())
    assert sample.rate == RATE
    inside = read_records(table, unit_column="unit", label_column="label", sample=sample)
    assert kept == len(inside) < len(table)
    assert {len(made.directory.members())} <= {len(made.directory.batches())}
    assert max(record for rows in made.directory.members().values() for own, _ in rows for record in own) < len(inside)
    assert len(made.directory.voters()) == len({record.unit for record in inside})
    # whoever judges the run knows which records it looked at
    assert len(real_sample([made.directory], table, Hashing()).texts) == len(inside)
    assert set(audit(made.directory, table).groups) == {"copied"}
    # an attack on records that a run never read would find nothing, whatever the run does
    attacked: list[list[str]] = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("plainchant.auditing.runs.copied", lambda _, private, __: attacked.append(private) or {})
        patch.setattr("plainchant.auditing.runs.attacks", lambda _, members, *__: attacked.append(members) or {})
        others = [row | {"text": "held out"} for row in RECORDS]
        audit(made.directory, table, held_out=others, embedder=Hashing())
    read = {record.text for record in inside}
    assert [set(texts) <= read for texts in attacked] == [True, True]
    assert len(attacked[0]) == len(inside)
    with pytest.raises(DataError, match="not the table"):
        audit(made.directory, table[:-30])


def test_canaries_are_sampled_like_all_records(tmp_path):
    own = SynthesisConfig(
        method="private-evolution", sample_rate=0.5, texts=2, candidates=2, max_tokens=3, min_tokens=1,
        max_record_tokens=8, prompt={"example": "Text: {text}\n"},
    )  # fmt: skip
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("plainchant.generation.executor.load_embedder", lambda *_, **__: Hashing())
        found = audit_with_canaries(
            [{"text": " a" * (1 + row % 5)} for row in range(40)], plan(own), out=tmp_path / "run", count=4,
            model=Spy(), replay=False, performance=PerformanceOptions(rows=64),
        )  # fmt: skip
    assert "canaries" in found.groups


def test_the_noise_of_a_run_is_what_its_sample_pays_for():
    own = SynthesisConfig(epsilon=1.0, texts=50, labels=("a", "b"), label_column="l", expected_units=10**6)
    made = plan(own)
    assert made.sample_rate == 0.1
    assert made.units == 100_000
    inside = Budget(1.0, own.delta).in_sample(0.1)
    # the run by itself is within what a unit of the sample may pay, and that is within the guarantee
    run = Cost(made.rho_counts) + made.deals.cost
    assert run.fits(inside)
    assert not run.fits(Budget(1.0, own.delta))
    assert made.guarantee.cost == run.sampled(0.1)
    assert 0.99 < math.log1p(0.1 * math.expm1(run.epsilon(own.delta / 0.1))) <= made.guarantee.epsilon <= 1.0


def test_kill_nine_and_resume_look_at_the_same_sample(process, model, units, tmp_path):
    out = tmp_path / "run"
    arguments = [
        "run",
        *SAMPLED,
        "--texts",
        "40",
        "--max-tokens",
        "48",
        "--model",
        model,
        "--data",
        units,
        "--out",
        out,
    ]
    child = process(*arguments)
    wait_for(out, 2, child)
    child.kill()
    child.communicate()
    assert child.returncode == -signal.SIGKILL, "the run ended before it could be killed"
    key, before = key_of(out), committed(out)
    child = process("run", "--resume", "--data", units, "--out", out)
    message = child.communicate()[1]
    assert child.returncode == 0, message
    assert key_of(out) == key
    assert set(before) <= set(committed(out))
    assert len(key) == 32
    for path in [*out.glob("*.*"), *(out / "release").iterdir()]:
        content = path.read_bytes()
        assert key not in content
        assert key.hex().encode() not in content
    guarantee = json.loads((out / "release" / "guarantee.json").read_text())
    assert guarantee["epsilon"] <= 30
    assert guarantee["curve"]["rate"] == RATE
    assert "sample" in (out / "release" / "README.md").read_text()


@pytest.mark.parametrize("key", [bytes(32), None, b"short"], ids=["another", "none", "short"])
def test_another_key_at_resume_is_refused(command, model, units, tmp_path, key):
    out = tmp_path / "run"
    command("run", *SAMPLED, "--model", model, "--data", units, "--out", out)
    with sqlite3.connect(out / "private" / "run.sqlite") as database:
        database.execute("UPDATE origin SET sample_key = ?", (key,))
    database.close()
    refusal = command("run", "--resume", "--data", units, "--out", out, code=2 if key == bytes(32) else 1).err
    assert ("data is not the data" if key == bytes(32) else "do not agree on a sample") in refusal
    with pytest.raises((DataError, RunError)):
        synthesize(units, plan(RunDirectory.open(out).config), out=out, resume=True)


def test_rows_outside_of_the_sample_may_change_and_those_inside_may_not(command, model, units, tmp_path):
    out = tmp_path / "run"
    command("run", *SAMPLED, "--model", model, "--data", units, "--out", out)
    sample = RunDirectory.open(out).sample()
    inside = [sample.holds(row["unit"], number) for number, row in enumerate(RECORDS)]
    other = [row if own else row | {"text": "another"} for row, own in zip(RECORDS, inside, strict=True)]
    command("run", "--resume", "--data", write(tmp_path / "other.jsonl", other), "--out", out)
    changed = [row | {"text": "another"} if own else row for row, own in zip(RECORDS, inside, strict=True)]
    path = write(tmp_path / "changed.jsonl", changed)
    assert "data is not the data" in command("run", "--resume", "--data", path, "--out", out, code=2).err


def test_two_runs_draw_two_samples(tmp_path):
    keys = set()
    for number in range(2):
        own = SynthesisConfig(
            method="private-evolution", sample_rate=0.5, texts=2, candidates=2, max_tokens=3, min_tokens=1,
            max_record_tokens=8,
            prompt={"example": "Text: {text}\n"},
        )  # fmt: skip
        with synthesize(
            [{"text": " a" * (1 + row % 5)} for row in range(40)], plan(own), out=tmp_path / str(number), model=Spy(),
            embedder=Hashing(), performance=PerformanceOptions(rows=64),
        ) as made:  # fmt: skip
            keys.add(made.directory.sample().key)
    assert len(keys) == 2


def test_a_ledger_adds_up_runs_on_samples(command, model, units, tmp_path):
    ledger = tmp_path / "ledger.json"
    command("account", "--ledger", ledger, "--epsilon", "31", "--delta", "1e-6")
    arguments = ["run", *SAMPLED, "--model", model, "--data", units, "--ledger", ledger]
    command(*arguments, "--out", tmp_path / "one")
    entry, book = Ledger(ledger).runs[0], Ledger(ledger)
    cost = Cost.from_dict(entry)
    assert cost.rate == RATE
    assert book.spent == cost
    assert cost.epsilon(1e-6) <= 30 * (1 + 1e-12)
    # another run has a sample of its own, so that both Rényi curves add up
    assert book.left.rho < Cost.of(31, 1e-6).rho / 3
    assert "ledger" in command(*arguments, "--out", tmp_path / "two", code=3).err
    assert command("account", "--ledger", ledger).out
    command("run", "--resume", "--data", units, "--ledger", ledger, "--out", tmp_path / "one")
    # a reader that knows no rate takes the cost for what a unit of the sample pays, which is more
    old = {name: value for name, value in entry["curve"].items() if name != "rate"}
    assert (Cost.from_dict({"rho": None, "curve": old | {"delta": 1e-12}})).epsilon(1e-6) > cost.epsilon(1e-6)


@pytest.mark.parametrize("method", ["median", "public"])
def test_a_sample_belongs_to_what_is_known_in_advance(method):
    values: dict[str, Any] = (
        {"method": method} if method == "public" else {"aggregate": "median", "accounting": "ex-post"}
    )
    with pytest.raises(PrivacyError, match="sample_rate"):
        SynthesisConfig(**values, sample_rate=0.5)
    assert plan(SynthesisConfig(**values, expected_units=10**6, min_cell=1)).sample_rate == 1


@pytest.mark.parametrize("rate", [0, -0.1, 1.5, math.nan, "half"])
def test_what_is_no_rate_is_refused(rate):
    with pytest.raises(ConfigError, match="sample_rate"):
        SynthesisConfig(sample_rate=rate)


def test_a_table_that_is_read_whole_has_no_key(command, model, table, tmp_path):
    command("run", *OPTIONS, "--model", model, "--data", table, "--out", tmp_path / "run")
    directory = RunDirectory.open(tmp_path / "run")
    assert directory.sample() is None
    assert key_of(tmp_path / "run") is None
    assert len(rows()) == 80
    assert Sample(bytes(32), 1.0).of([None] * 5) == [0, 1, 2, 3, 4]
    assert np.isfinite(directory.origin.private)


class Counted(Hashing):
    """Counts the texts that are embedded by themselves, as records are."""

    def __init__(self) -> None:
        self.alone = 0

    def encode(self, texts: Any, *, alone: bool = False, progress: Any = None) -> Any:
        self.alone += alone * len(texts)
        return super().encode(texts, alone=alone, progress=progress)


def test_of_a_unit_with_many_records_one_is_embedded_and_evaluation_embeds_the_others(tmp_path):
    own = SynthesisConfig(
        method="private-evolution", unit_column="unit", texts=2, candidates=2, max_tokens=3, min_tokens=1,
        max_record_tokens=8, embedder="hashing", prompt={"example": "Text: {text}\n"},
    )  # fmt: skip
    table = [{"text": " a" * (1 + row % 5), "unit": f"u{row % 8}"} for row in range(40)]
    counted = Counted()
    with synthesize(
        table, plan(own), out=tmp_path / "run", model=Spy(), embedder=counted, performance=PerformanceOptions(rows=64)
    ) as made:
        made.finish()
        directory = made.directory
    assert counted.alone == 8
    chosen = directory.voters()
    kept = directory.embeddings()
    assert kept[chosen].any(axis=1).all()
    assert kept.any(axis=1).sum() == len(chosen) == 8
    real = real_sample([directory], table, Hashing())
    assert np.array_equal(real.vectors, Hashing().encode(real.texts))
    assert len(real) == 40
