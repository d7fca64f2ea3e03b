"""Random data, sizes and crashes: nobody ever pays more than the plan's budget (guarantee 5.2)."""

import random
import sqlite3
from collections import Counter
from typing import Any

import numpy as np
import pytest

from plainchant import plan, synthesize
from plainchant.config import SynthesisConfig
from plainchant.errors import PrivacyError, RunError
from plainchant.models.table import TableModel
from plainchant.privacy.accounting import epsilon_at, epsilon_of
from plainchant.privacy.individual import IndividualMeanMechanism
from plainchant.randomness import SeededRandomness
from plainchant.run.store import RunDirectory

WORDS = ("<eos>", "Text:", "\n", *(f" {letter}" for letter in "abcdefgh"))
RUNS = 1000


class Crash(Exception):
    pass


def model(chance):
    strength = chance.uniform(0.5, 6)

    def table(row):
        return np.random.default_rng([7, *row]).normal(0, strength, len(WORDS)) - [3, 99, 2, *[0] * 8]

    return TableModel(WORDS, table, end_of_text={0}, context_length=256)


def paid(out):
    """What each context of each batch has paid: {(batch, context): ρ}."""
    with sqlite3.connect(out / "private" / "run.sqlite") as database:
        rows = database.execute("SELECT batch, contexts, spent FROM members").fetchall()
    database.close()
    return {
        (batch, context): rho
        for batch, contexts, spent in rows
        for context, rho in zip(np.frombuffer(contexts, np.int64).tolist(), np.frombuffer(spent).tolist(), strict=True)
    }


@pytest.fixture
def watched(monkeypatch):
    """Compares each charge with how far the context could really move the scores; sums what is committed."""
    real = IndividualMeanMechanism.distribution

    def distribution(self, private, public, allowed, allowance=None):
        found = real(self, private, public, allowed, allowance)
        if len(private):
            moved = np.ptp(found.removals.astype(np.float64), axis=1) + self._numerical
            assert (moved**2 / 8 <= found.charges + self._numerical**2 / 8 + 1e-7).all()
            assert (found.charges <= allowance + 1e-12).all()
        return found

    monkeypatch.setattr(IndividualMeanMechanism, "distribution", distribution)


def small_run(seed, path, monkeypatch, *, deals):
    """One run to its end through some crashes: their number, and the most expensive record's share of its budget."""
    chance = random.Random(seed)
    config = SynthesisConfig(
        method="plainchant",
        clusters="none",
        epsilon=chance.choice([1.0, 2.0, 8.0]),
        texts=chance.randint(1, 8),
        max_tokens=chance.randint(2, 7),
        min_tokens=1,
        batch_size=chance.choice([2, 3, 5]),
        expected_range=chance.choice([0.01, 0.02, 0.05]),
        guidance=chance.choice([1.0, 2.0]),
        temperature=chance.choice([0.7, 1.0]),
        top_k=chance.choice([3, 8]),
        released_examples=chance.choice([0, 1]),
        candidates=1,
        deals=deals,
        numerical_slack=chance.choice([4e-3, 6e-3]),
        rebalance_share=0.3,
        max_record_tokens=8,
        # by chance most records of a run may be empty, which a run refuses unless it is told to go on
        allow_malformed=True,
    )
    decided = plan(config)
    records = [
        {"text": "".join(chance.choices(WORDS[3:], k=chance.randint(0, 6)))} for _ in range(chance.randint(6, 20))
    ]
    randomness, made, crashes, before = SeededRandomness(seed), model(chance), 0, {}
    commit, step = RunDirectory.commit, made.step
    while True:
        fuse = chance.randint(1, 60)

        def burn(where, real, *arguments):
            nonlocal fuse
            fuse -= 1
            if fuse == 0 and where == "before":
                raise Crash
            result = real(*arguments)
            if fuse == 0:
                raise Crash
            return result

        if crashes < 3:
            where = chance.choice(["before", "after"])
            monkeypatch.setattr(RunDirectory, "commit", lambda *a, where=where: burn(where, commit, *a))
            made.step = lambda *a, where=where: burn(where, step, *a)
        else:
            monkeypatch.setattr(RunDirectory, "commit", commit)
            made.step = step
        try:
            with synthesize(
                records, decided, out=path, resume=crashes > 0, model=made, randomness=randomness,
                allow_not_private=True,
            ) as run:  # fmt: skip
                run.finish()
        except Crash:
            crashes += 1
        except RunError as error:
            # what a model raises comes out without its message
            assert "Crash" in str(error)
            crashes += 1
        except PrivacyError as error:
            # the noisy counts found no batch
            assert "no noisy cell count" in str(error)
            return crashes, 0.0
        now = paid(path)
        # nothing is drawn again: the same units in the same batches, which have paid no less
        assert not before or now.keys() == before.keys()
        assert all(rho >= before.get(place, 0.0) for place, rho in now.items())
        before = now
        if crashes <= 3 and (path / "release").exists():
            break
    monkeypatch.setattr(RunDirectory, "commit", commit)
    directory = RunDirectory.open(path)
    places = [(text.batch, text.position) for text in directory.texts()]
    assert len(set(places)) == len(places) == sum(batch.texts for batch in directory.batches())
    assert decided.guarantee.epsilon <= config.epsilon
    return crashes, max((share(decided, directory, *entry) for entry in before.items()), default=0.0)


def share(decided, directory, place, rho):
    """Which share of its budget a context has paid, after a check that it is no more than the plan allows."""
    mechanism: Any = decided.mechanism
    if decided.deals is not None:
        own = directory.batches()[place[0]]
        texts = sum(batch.cell == own.cell for batch in directory.batches())
        cell = directory.cells()[own.cell]
        mechanism = mechanism.for_budget(own.payment)
        # what the writing batches of the cell's deals cost at the plan's order, each with the payment that it has
        writing = Counter(batch.deal for batch in directory.batches() if batch.cell == own.cell)
        assert [writing[deal] for deal in sorted(writing)] == decided.deals.deals(cell.batches, texts)
        spent = decided.deals.spent_by(cell.batches, texts, own.payment)
        order = decided.deals.order
        total = order * decided.rho_rebalance + spent
        assert epsilon_at(total, order, decided.config.delta) <= decided.config.epsilon * (1 + 1e-9)
    numerical = mechanism.budget - mechanism._payable
    assert rho <= mechanism._payable + 1e-12
    if decided.deals is None:
        spent = epsilon_of(decided.rho_rebalance + rho + numerical, decided.config.delta)
        assert spent <= decided.config.epsilon * (1 + 1e-9)
    return rho / mechanism.budget


@pytest.mark.parametrize("deals", [False, True])
def test_the_budget_is_never_exceeded_in_a_thousand_runs_with_crashes(deals, tmp_path, monkeypatch, watched):
    # what a model must show before it reads a record is tested elsewhere
    monkeypatch.setattr("plainchant.models.checked", lambda *_, **__: True)
    found = [small_run(seed, tmp_path / str(seed), monkeypatch, deals=deals) for seed in range(RUNS)]
    crashes, shares = np.array(found).T
    # the test has power only where runs crash and records come close to their budget
    assert crashes.sum() > RUNS / 2
    assert (shares > 0.8).sum() > RUNS / 10
    assert (shares == 0).sum() < RUNS / 2
