"""Random small runs that end at random points and go on, and everything that must hold of them afterwards.

A run ends by an exception, which is fast, or by a real kill -9 of a process of its own. Whenever it goes on, it has
other randomness, so that whatever is drawn a second time comes out otherwise.
"""

import contextlib
import dataclasses
import json
import os
import random
import signal
import sqlite3
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import plainchant.data.files
import plainchant.run.store
from doubles.embedders import Hashing
from doubles.models import WORDS
from doubles.quick import independent
from doubles.randomness import Repeatable
from plainchant import plan, synthesize
from plainchant.config import PerformanceOptions, SynthesisConfig
from plainchant.data.centres import Centres
from plainchant.errors import PrivacyError
from plainchant.models.table import TableModel
from plainchant.planning import Plan
from plainchant.privacy.accounting import Cost
from plainchant.privacy.amplification import deal_divergences
from plainchant.run import rounds
from plainchant.run.ending import has_no_batch
from plainchant.run.inputs import read_table
from plainchant.run.ledger import Ledger
from plainchant.run.store import RunDirectory

# Where a run may end, and at most how many calls of each it survives.
POINTS = {
    "statement": 40,
    "before commit": 20,
    "after commit": 20,
    "before a draw": 1500,
    "after a draw": 1500,
    "before a step": 40,
    "after a step": 40,
    "before a text": 10,
    "after a text": 10,
    "before a file": 10,
    "after a file": 10,
}
MOST_CRASHES = 4
# Drawn once and together, and never again; of each round of votes the rows are.
ONCE = {
    "origin": "*",
    "cells": "*",
    "batches": "*",
    "members": "batch, records, contexts",
    "voters": "*",
    "found": "*",
    "attribute_rows": "*",
    "words": "*",
    "word_votes": "*",
}
OF_A_ROUND = ("ballots", "votes", "winners")
COLUMNS: dict[str, Any] = {
    "attributes": {
        "kind": {"type": "category", "values": ["p", "q"]},
        "who": {"type": "category"},
        "open": {"type": "boolean"},
    }
}
LETTERS = (" a", " b", " c", " d", " e", " f")


class Crash(BaseException):
    """A run that ends as if it were killed: nothing that handles errors sees it."""


# what runs


class Model(TableModel):
    """Logits follow from how often a row holds each token."""

    def __init__(self, seed: int, strength: float):
        own = (*WORDS[:3], *LETTERS)
        generator = np.random.default_rng(seed)
        pull = generator.normal(0, strength, (len(own), len(own)))
        base = generator.normal(0, 1, len(own)) - [2, 99, 2, *[0] * len(LETTERS)]
        super().__init__(
            own, lambda row: base + np.tanh(np.bincount(row, minlength=len(own))) @ pull, end_of_text={0},
            context_length=4000,
        )  # fmt: skip


@dataclass(frozen=True)
class World:
    """A configuration, a table and a model.

    Attributes:
        made: the plan.
        records: the table.
        model: the model.
        rows, passes: as `PerformanceOptions`.
    """

    made: Plan
    records: list[dict[str, Any]]
    model: TableModel
    rows: int
    passes: int


def _table(chance: random.Random, labels: tuple[str, ...]) -> list[dict[str, Any]]:
    """Units with one to three records each; no two records have one text."""
    rows: list[dict[str, Any]] = []
    for unit in range(chance.randint(30, 60)):
        label = chance.choice([*labels, "other"]) if labels and chance.random() < 0.1 else None
        label = label or (chance.choice(labels) if labels else "none")
        for _ in range(chance.choice([1, 1, 2, 3])):
            number, size = len(rows), len(LETTERS)
            digits = [number // size**place % size for place in range(3)]
            rows.append({
                "text": "".join(LETTERS[digit] for digit in digits) + "".join(chance.choices(LETTERS, k=unit % 3)),
                "unit": f"u{unit}", "label": label, "kind": chance.choice("pq"), "who": f"w{unit % 2}",
                "open": unit % 3 == 0,
            })  # fmt: skip
    return rows


def _values(chance: random.Random, folder: Path) -> dict[str, Any]:
    """A configuration that may or may not have a plan."""
    labels = chance.choice([(), ("x",), ("x", "y"), ("x", "y", "z")])
    method = chance.choice(["plainchant", "plainchant", "clustered-mean", "invisibleink", "amin2024"])
    votes = chance.random() < 0.5
    values: dict[str, Any] = {
        "method": method, "labels": labels, "epsilon": chance.choice([4.0, 10.0, 30.0, 100.0]),
        "texts": chance.randint(2, 7), "max_tokens": chance.randint(2, 5), "min_tokens": 1, "max_record_tokens": 8,
        "top_k": chance.choice([4, 8]), "batch_size": chance.choice([2, 3, 4]), "guidance": 1.0,
        "temperature": chance.choice([0.7, 1.0]), "unit_column": "unit", "rebalance_share": 0.3,
        "numerical_slack": 1e-2, "clusters": chance.choice(["none", "public-centres"]), "min_cell": 1,
        "candidates": chance.choice([2, 3]) if votes else 1, "rounds": chance.choice([1, 2]) if votes else 1,
        "word_share": chance.choice([0.0, 0.05]) if votes else "auto", "vote_share": 0.1 if votes else "auto",
        "released_examples": chance.choice([0, 1, 2]), "expand": chance.choice([0, 0, 2]),
        "sample_rate": chance.choice([1.0, 0.6, 0.8]), "deals": chance.random() < 0.8,
        "records_per_context": chance.choice([1, 1, 1, 2]), "prompt": {"example": "Text: {text}\n"},
        # a sample may hold many records of labels that are not named
        "allow_malformed": True,
    }  # fmt: skip
    if labels:
        values["label_column"] = "label"
    if chance.random() < 0.3:
        values["private_tokens"] = chance.randint(1, values["max_tokens"])
    if chance.random() < 0.3:
        values["columns"] = COLUMNS
    if values["clusters"] == "public-centres":
        vectors = np.random.default_rng(chance.randint(0, 99)).normal(size=(3, 3)).astype(np.float32)
        Centres(vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).save(folder / "centres.npz")
        values["centres"] = str(folder / "centres.npz")
    if not values["deals"]:
        # batches that go on from text to text
        values["batch_size"], values["texts"] = chance.choice([3, 8, 12]), values["texts"] + 5
    if method == "plainchant":
        values["expected_range"] = chance.choice([0.05, 0.2, 0.5])
    elif method == "amin2024":
        values |= {"clip": chance.choice([0.2, 1.0]), "sparse_threshold": chance.choice([0.1, 0.5]), "epsilon": 200.0}
        values |= {"private_tokens": chance.randint(1, 2), "sparse_noise": 0.4}
    elif method == "clustered-mean":
        values |= {"clipping": "difference", "support": "top_k", "clip": chance.choice([0.2, 0.5, 1.5])}
    return values


def world_of(seed: int, folder: Path) -> World:
    """The first random configuration of a seed that has a plan."""
    chance = random.Random(seed)
    while True:
        with contextlib.suppress(PrivacyError):
            made = plan(SynthesisConfig(**_values(chance, folder)))
            break
    return World(
        made, _table(chance, made.config.labels), Model(seed, chance.uniform(0.3, 4)), chance.choice([1, 8, 64]),
        chance.choice([1, 1, 3]),
    )  # fmt: skip


# how it ends


class Watch:
    """Ends a run at the given call of one kind of point, and keeps a journal of what it does.

    Args:
        point: one of `POINTS`, or None for no end.
        calls: at which call of that point the run ends.
        ends: ends it.
        journal: a file; each line of it is written before what it tells of is done.
        tick: called at every point.
    """

    def __init__(
        self, point: str | None, calls: int, ends: Callable[[], Any], journal: Path, tick: Callable[[], Any] | None
    ):
        self._point, self._left, self._ends, self._tick = point, calls, ends, tick
        self._journal = journal.open("a", encoding="utf-8")

    def at(self, point: str) -> None:
        """A point is reached."""
        if self._tick is not None:
            self._tick()
        if point == self._point:
            self._left -= 1
            if not self._left:
                self._ends()

    def note(self, **entry: Any) -> None:
        """A line of the journal."""
        self._journal.write(json.dumps(entry) + "\n")
        self._journal.flush()

    def close(self) -> None:
        self._journal.close()


class Source(Repeatable):
    """Randomness whose every draw is a point."""

    def __init__(self, seed: int, watch: Watch):
        super().__init__(seed)
        self._watch = watch

    def _drawn(self, draw: Callable[..., Any], *arguments: Any) -> Any:
        self._watch.at("before a draw")
        drawn = draw(*arguments)
        self._watch.at("after a draw")
        return drawn

    def below(self, bound: int) -> int:
        return int(self._drawn(super().below, bound))

    def add_discrete_gaussian(self, counts: Any, sigma: float) -> Any:
        return self._drawn(super().add_discrete_gaussian, counts, sigma)

    def discrete_laplace(self, scale: float) -> int:
        return int(self._drawn(super().discrete_laplace, scale))


def _connection(watch: Watch) -> type[sqlite3.Connection]:
    """Connections whose writing statements, and the commits after them, are points."""

    class Watched(sqlite3.Connection):
        written = False

        def _tell(self, text: str) -> None:
            if text.startswith(("INSERT", "UPDATE", "DELETE")):
                self.written = True
                watch.at("statement")

        def execute(self, text: str, *more: Any) -> Any:
            self._tell(text)
            return super().execute(text, *more)

        def executemany(self, text: str, *more: Any) -> Any:
            self._tell(text)
            return super().executemany(text, *more)

        def __exit__(self, *error: Any) -> Any:
            commits = self.written and error[0] is None
            if commits:
                watch.at("before commit")
            left = super().__exit__(*error)
            if commits:
                watch.at("after commit")
            return left

    return Watched


def _hooked(patch: pytest.MonkeyPatch, watch: Watch, model: TableModel) -> None:
    """Makes points of commits, files and steps, and notes what is read and what is to be committed."""
    write, commit, step = plainchant.data.files.atomic_write, RunDirectory.commit, model.step
    works, context_of = rounds._works, rounds.context_of
    read: list[list[str]] = []

    @contextlib.contextmanager
    def written(path: Any, **named: Any) -> Iterator[Any]:
        watch.at("before a file")
        with write(path, **named) as file:
            yield file
        watch.at("after a file")

    def committed(self: RunDirectory, text: Any) -> None:
        watch.note(commit=[text.batch, text.position, text.text], spent=list(text.spent))
        watch.at("before a text")
        commit(self, text)
        watch.at("after a text")

    def stepped(*arguments: Any) -> Any:
        watch.at("before a step")
        logits = step(*arguments)
        watch.at("after a step")
        return logits

    def shown(prompts: Any, records: Any, *more: Any) -> Any:
        read.append([record.text for record in records])
        return context_of(prompts, records, *more)

    def opened(*arguments: Any) -> Any:
        for work in works(*arguments):
            watch.note(batch=work.batch, read=list(read))
            read.clear()
            yield work

    patch.setattr(sqlite3, "connect", partial(sqlite3.connect, factory=_connection(watch)))
    patch.setattr(plainchant.data.files, "atomic_write", written)
    patch.setattr(plainchant.run.store, "atomic_write", written)
    patch.setattr(RunDirectory, "commit", committed)
    patch.setattr(model, "step", stepped)
    patch.setattr(rounds, "context_of", shown)
    patch.setattr(rounds, "_works", opened)


@contextlib.contextmanager
def quick() -> Iterator[pytest.MonkeyPatch]:
    """Without what takes long and is tested elsewhere: checks of the model, the fit of attributes."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("plainchant.models.checked", lambda *_, **__: True)
        patch.setattr("plainchant.run.attributes.fit", independent)
        patch.setattr("plainchant.run.preparation.check_package", lambda: None)
        yield patch


# what must hold


@dataclass
class Stored:
    """What a run directory holds at one moment.

    Attributes:
        once: what is drawn once, by the name of its table or file; of votes by round.
        texts: batch, position, text, tokens, finish, loss and ρ of each text.
        spent: what each context of each batch has paid, by batch.
        files: the bytes of each file of the release.
    """

    once: dict[str, Any]
    texts: list[tuple[Any, ...]]
    spent: dict[int, list[float]]
    files: dict[str, bytes]


def stored(out: Path) -> Stored | None:
    """What is there; None before there is a run."""
    path = out / "private" / "run.sqlite"
    if not path.exists():
        return None
    with contextlib.closing(sqlite3.connect(path)) as database:

        def rows(what: str) -> list[Any]:
            return sorted(database.execute(f"SELECT {what}"), key=repr)

        once: dict[str, Any] = {table: rows(f"{columns} FROM {table}") for table, columns in ONCE.items()}
        for table in OF_A_ROUND:
            for row in rows(f"* FROM {table}"):
                once.setdefault(f"{table} of round {row[0]}", []).append(row)
        texts = rows("* FROM texts")
        spent = {batch: np.frombuffer(paid).tolist() for batch, paid in rows("batch, spent FROM members")}
    order = out / "private" / "order.json"
    if order.exists():
        once["order of release"] = order.read_bytes()
    release = out / "release"
    files = {path.name: path.read_bytes() for path in release.glob("[!.]*")} if release.exists() else {}
    return Stored({name: content for name, content in once.items() if content}, texts, spent, files)


def changes(before: Stored | None, now: Stored | None) -> Iterator[str]:
    """What is otherwise than before and must not be."""
    if before is None:
        return
    if now is None:
        yield "the run has disappeared"
        return
    for name, content in before.once.items():
        if now.once.get(name) != content:
            yield f"{name}: drawn again"
    if not set(before.texts) <= set(now.texts):
        yield "a committed text changed"
    if any(a > b for batch, paid in before.spent.items() for a, b in zip(paid, now.spent.get(batch, []), strict=False)):
        yield "a payment was taken back"
    for name, content in before.files.items():
        if now.files.get(name) != content:
            yield f"release/{name}: written again otherwise"


def journal_of(path: Path) -> list[dict[str, Any]]:
    """The journal's lines; a kill may have cut off the last one."""
    entries = []
    for line in path.read_text(encoding="utf-8").splitlines() if path.exists() else ():
        with contextlib.suppress(ValueError):
            entries.append(json.loads(line))
    return entries


def told(now: Stored | None, entries: list[dict[str, Any]]) -> Iterator[str]:
    """Where journal and directory disagree: texts without their payments, texts that were shown and are lost."""
    if now is None:
        return
    there = {(batch, position): text for batch, position, text, *_ in now.texts}
    paid: dict[tuple[int, int], list[float]] = {}
    for entry in entries:
        if "commit" in entry:
            batch, position, text = entry["commit"]
            # of a place that was lost and written again, the last one is there
            if there.get((batch, position)) == text:
                paid[batch, position] = entry["spent"]
    for place in there:
        if place not in paid:
            yield f"{place}: a text that nobody wrote"
    for batch, spent in now.spent.items():
        # of a batch that writes several texts, a later one holds all payments so far
        own = [paid[place] for place in there if place[0] == batch and paid.get(place)]
        most = np.max(own, axis=0).tolist() if own else [0.0] * len(spent)
        if len(most) != len(spent) or any(a < b for a, b in zip(spent, most, strict=True)):
            yield f"batch {batch}: a text is there without its payments"
    seen = Counter(entry["yielded"] for entry in entries if "yielded" in entry)
    # a resumed run shows committed texts once more
    attempts = sum("begun" in entry for entry in entries)
    texts = Counter(there.values())
    if any(count > attempts * texts[text] for text, count in seen.items()):
        yield "a text was shown and is lost"


def batches_read(world: World, directory: RunDirectory, entries: list[dict[str, Any]]) -> Iterator[str]:
    """Where a batch has read other records than those that were drawn for it, or a unit is twice in a deal."""
    table = read_table(world.records, world.made.config, directory.sample())
    members = directory.members()
    drawn = {
        batch: [[table[number].text for number in numbers] for numbers, _ in own] for batch, own in members.items()
    }
    for entry in entries:
        if "read" in entry and entry["read"] != drawn.get(entry["batch"], []):
            yield f"batch {entry['batch']}: has read records that were not drawn for it"
    deals = {batch.batch: batch.deal for batch in directory.batches()}
    units = Counter(
        (deals[batch], table[number].unit) for batch, own in members.items() for numbers, _ in own for number in numbers
    )
    if any(count > 1 for count in units.values()):
        yield "a unit is in two batches of a deal"


def _limit_of_a_batch(made: Plan) -> float:
    """ρ that a unit may pay for all texts of its batch, where it stays there."""
    return made.mechanism.cost_of(made.tokens_per_batch or 0).rho


def share_of_payments(world: World, directory: RunDirectory, now: Stored) -> float:
    """The largest part of what it may that a unit has paid for a text, or for a batch where there are no deals."""
    made, shares, batches = world.made, [0.0], directory.batches()
    of_batch: dict[int, float] = {}
    for batch, _, _, _, _, _, rho in now.texts:
        of_batch[batch] = of_batch.get(batch, 0.0) + rho
    individual = made.config.parts.accounting == "individual"
    # a unit that changes a context pays for both of them (guarantee 3.3), as the worst case counts already
    factor = made.settings.contexts_moved**2 if individual else 1
    for own in batches:
        if own.texts:
            most = _limit_of_a_batch(made) if own.payment is None else own.payment
            paid = max(now.spent.get(own.batch, []), default=0.0) if individual else of_batch.get(own.batch, 0.0)
            shares.append(factor * paid / most)
    return max(shares)


def share_of_claim(world: World, directory: RunDirectory) -> float:
    """The part of ε that counts, votes and the deals with the payments that are stored would cost a unit."""
    made, cells, batches = world.made, directory.cells(), directory.batches()
    counts, worst = Cost(made.rho_counts, delta=made.table.delta), 0.0
    if made.deals is None:
        total = counts + Cost(_limit_of_a_batch(made))
    else:
        order = made.deals.order
        for number, cell in enumerate(cells):
            own = [batch for batch in batches if batch.cell == number and batch.texts]
            writing = Counter(batch.deal for batch in own)
            payment = max((batch.payment or 0.0 for batch in own), default=0.0)
            spent = [deal_divergences(cell.batches, w, payment, np.array([order]))[0] for w in writing.values()]
            worst = max(worst, float(sum(spent)))
        total = counts + Cost(0.0, ((float(order), worst),))
    epsilon = total.sampled(made.sample_rate).epsilon(made.config.delta)
    return epsilon / min(made.config.epsilon, made.guarantee.epsilon or 0.0)


@dataclass
class Outcome:
    """What came of a run.

    Attributes:
        crashes: how many there were, by the point at which the run ended.
        stages: the same by how far the run was, by what was there afterwards.
        wrong: what must not be.
        paid: the largest part of what it may that a unit has paid.
        claimed: the part of the claimed ε that the stored payments cost.
        kinds: the method, and what the run had beside it.
        released: whether the run came to a release; else no noisy count was large enough.
    """

    crashes: Counter[str] = field(default_factory=Counter)
    stages: Counter[str] = field(default_factory=Counter)
    wrong: list[str] = field(default_factory=list)
    paid: float = 0.0
    claimed: float = 0.0
    kinds: list[str] = field(default_factory=list)
    released: bool = False


def stage_of(world: World, now: Stored | None) -> str:
    """How far a run is."""
    if now is None:
        return "before the directory"
    if "cells" not in now.once:
        return "before the draws"
    if not now.texts:
        return "before the first text"
    missing = sum(texts for _, _, texts, *_ in now.once["batches"]) + world.made.config.further - len(now.texts)
    return "among the texts" if missing else "votes and release"


def kinds_of(made: Plan) -> list[str]:
    """What a plan has."""
    config, parts = made.config, made.config.parts
    has = {
        config.method.value: True,
        "deals": made.deals is not None,
        "votes": config.votes,
        "two votes": config.votes and parts.rounds > 1,
        "words": made.rho_words > 0,
        "attributes": bool(config.columns.attributes),
        "a sample": made.sample_rate < 1,
        "public centres": made.rho_select > 0,
        "a public tail": config.head < config.max_tokens,
        "a sparse vector": parts.sparse_threshold > 0,
        "several units in a context": config.records_per_context > 1,
        "released examples": parts.released_examples > 0,
        f"{len(config.label_set)} labels": True,
    }
    return [name for name, there in has.items() if there]


def finished(world: World, out: Path, now: Stored, entries: list[dict[str, Any]], found: Outcome) -> None:
    """Everything that must hold of a run at its end."""
    directory, config = RunDirectory.open(out), world.made.config
    found.wrong += batches_read(world, directory, entries)
    found.paid = share_of_payments(world, directory, now)
    found.claimed = share_of_claim(world, directory)
    for name, value in (("payments", found.paid), ("stored payments' ε", found.claimed)):
        if value > 1 + 1e-9:
            found.wrong.append(f"{name}: {value:.6g} of what is allowed")
    (entry, *others) = Ledger(out.parent / "ledger.json").runs
    if others or entry["run"] != directory.origin.name:
        found.wrong.append("the ledger has more than the run's one entry")
    cost = Cost.from_dict(entry)
    drawn = Cost(world.made.rho_rebalance) + world.made.table
    if not (cost == world.made.guarantee.cost or (not found.released and cost == drawn)):
        found.wrong.append("the ledger has another cost")
    if not found.released:
        return
    rows, wanted = len(directory.released()), config.released
    if not config.votes:
        # what noisy cells do not pay for is not written, and is said
        wanted = sum(batch.texts for batch in directory.batches()) + config.further
    if rows != wanted or wanted > config.released:
        found.wrong.append(f"{rows} rows are released, and {wanted} were to be")
    places = [(batch, position) for batch, position, *_ in now.texts]
    if len(set(places)) != len(places) or len(places) != sum(b.texts for b in directory.batches()) + config.further:
        found.wrong.append("a place is filled twice, or empty")


# runs


def go_on(world: World, folder: Path, watch: Watch, seed: int) -> bool:
    """One attempt; whether the run came to a release. Raises Crash where it ends."""
    out = folder / "run"
    watch.note(begun=seed)
    with pytest.MonkeyPatch.context() as patch:
        _hooked(patch, watch, world.model)
        # the public model's tokens come from the same source
        source = Source(seed, watch)
        patch.setattr("plainchant.run.writers.SystemRandomness", lambda: source)
        try:
            with synthesize(
                world.records, world.made, out=out, resume=(out / "private" / "run.sqlite").exists(),
                model=world.model, embedder=Hashing(), ledger=folder / "ledger.json", randomness=source,
                performance=PerformanceOptions(rows=world.rows, passes=world.passes),
            ) as run:  # fmt: skip
                for text in run:
                    watch.note(yielded=text.text)
        except PrivacyError as error:
            if "no noisy cell count" not in str(error):
                raise
            return False
        finally:
            watch.close()
    return True


def _crash() -> None:
    raise Crash


def raised(world: World, folder: Path, point: str | None, calls: int, seed: int) -> bool | None:
    """An attempt in this process that ends by an exception; None where it did."""
    try:
        return go_on(world, folder, Watch(point, calls, _crash, folder / "journal", None), seed)
    except Crash:
        return None


def killed(world: World, folder: Path, point: str | None, calls: int, seed: int) -> bool | None:
    """An attempt in a process of its own that is killed: by itself at a point, or by this one soon after it.

    This process must have no threads.
    """
    reading, writing = os.pipe()
    from_outside = point is not None and seed % 2 == 0
    child = os.fork()
    if not child:
        os.close(reading)
        code = 3
        try:
            ends: Callable[[], Any] = partial(os.kill, os.getpid(), signal.SIGKILL)
            if from_outside:
                # from here on it is killed at any moment
                ends = partial(os.write, writing, b".")
            code = 0 if go_on(world, folder, Watch(point, calls, ends, folder / "journal", None), seed) else 2
        finally:
            os._exit(code)
    os.close(writing)
    if from_outside and os.read(reading, 1):
        time.sleep(random.Random(seed).random() * 0.02)
        os.kill(child, signal.SIGKILL)
    os.close(reading)
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    if code == -signal.SIGKILL:
        return None
    if code == 3:
        raise AssertionError(f"the run of seed {seed} failed")
    return code == 0


def run(seed: int, folder: Path, *, kill: bool = False, points: Sequence[str] = tuple(POINTS)) -> Outcome:
    """One run to its end through its crashes. To be called within `quick`.

    Args:
        seed: of configuration, table and crashes.
        folder: a new one.
        kill: whether it ends by kill -9.
        points: where it may end.
    """
    folder.mkdir()
    world, chance, out = world_of(seed, folder), random.Random(-1 - seed), folder / "run"
    config, found = world.made.config, Outcome()
    Ledger.create(folder / "ledger.json", config.epsilon * (1 + 1e-6), config.delta)
    found.kinds = kinds_of(world.made)
    attempt, before, crashes = killed if kill else raised, None, chance.randint(1, MOST_CRASHES)
    for number in range(crashes + 1):
        point = chance.choice(points) if number < crashes else None
        calls = int(POINTS[point] ** chance.random()) if point is not None else 0
        ended = attempt(world, folder, point, calls, 1000 * seed + number)
        now, entries = stored(out), journal_of(folder / "journal")
        found.wrong += [*changes(before, now), *told(now, entries)]
        before = now
        if ended is not None:
            found.released = ended
            break
        found.crashes[f"kill -9, {point}" if kill else str(point)] += 1
        found.stages[stage_of(world, now)] += 1
    if before is None:
        found.wrong.append("there is no run at the end")
        return found
    finished(world, out, before, journal_of(folder / "journal"), found)
    if found.released and chance.random() < 0.3:
        # a finished run that is resumed
        raised(world, folder, None, 0, 1000 * seed + crashes + 1)
        found.wrong += changes(before, stored(out))
    return found


# broken twins: what each of them does at a resume must be found


_members = RunDirectory.members


def _redealt(directory: RunDirectory, draw: Any) -> dict[int, list[tuple[list[int], float]]]:
    """The contexts of each deal in other batches of their cell, as a draw of its own has it."""
    places: dict[tuple[int, int], list[int]] = {}
    for batch in directory.batches():
        places.setdefault((batch.cell, batch.deal), []).append(batch.batch)
    there, found = _members(directory), dict[int, list[tuple[list[int], float]]]()
    for own in places.values():
        for context in [context for batch in own for context in there.get(batch, [])]:
            found.setdefault(draw.choice(own), []).append(context)
    return {batch: sorted(own) for batch, own in found.items()}


def draws_again(patch: pytest.MonkeyPatch) -> None:
    """A resumed run draws its deals anew and stores them."""

    def drawn_again(directory: RunDirectory, plan: Any) -> bool:
        if directory.is_formed():
            redealt = _redealt(directory, random.Random())
            with directory._connect() as database:
                database.execute("DELETE FROM members")
                for batch, contexts in redealt.items():
                    shown = [(number, place) for place, (own, _) in enumerate(contexts) for number in own]
                    records, places = (np.array(column, np.int64).tobytes() for column in zip(*shown, strict=True))
                    row = (batch, records, places, np.array([spent for _, spent in contexts]).tobytes())
                    database.execute("INSERT INTO members VALUES (?, ?, ?, ?)", row)
        return has_no_batch(directory, plan)

    # what a run asks first of its directory
    patch.setattr("plainchant.run.synthesis.has_no_batch", drawn_again)


def reads_another_draw(patch: pytest.MonkeyPatch) -> None:
    """A run reads batches that it draws whenever it needs them, and leaves the stored ones as they are."""
    patch.setattr(RunDirectory, "members", lambda self: _redealt(self, random.Random()))


def pays_later(patch: pytest.MonkeyPatch) -> None:
    """A text and its payments are two transactions."""

    def commit(self: RunDirectory, text: Any) -> None:
        *columns, spent = dataclasses.astuple(text)
        with self._connect() as database:
            database.execute("INSERT INTO texts VALUES (?, ?, ?, ?, ?, ?, ?)", columns)
        with self._connect() as database:
            paid = np.array(spent, dtype=np.float64).tobytes()
            if spent:
                database.execute("UPDATE members SET spent = ? WHERE batch = ?", (paid, text.batch))

    patch.setattr(RunDirectory, "commit", commit)


def forgets_payments(patch: pytest.MonkeyPatch) -> None:
    """A batch that goes on has its whole budget once more."""
    patch.setattr(
        RunDirectory,
        "members",
        lambda self: {batch: [(own, 0.0) for own, _ in rows] for batch, rows in _members(self).items()},
    )


def orders_again(patch: pytest.MonkeyPatch) -> None:
    """The order of release is drawn whenever it is needed."""
    order = RunDirectory.order_of_release

    def drawn(self: RunDirectory, count: int, randomness: Any) -> list[int]:
        (self.private / "order.json").unlink(missing_ok=True)
        return order(self, count, randomness)

    patch.setattr(RunDirectory, "order_of_release", drawn)


def votes_again(patch: pytest.MonkeyPatch) -> None:
    """A vote is held whenever its round begins."""
    save = RunDirectory.save_vote

    def saved(self: RunDirectory, number: int, *more: Any) -> None:
        with self._connect() as database:
            for table in OF_A_ROUND:
                database.execute(f"DELETE FROM {table} WHERE round = ?", (number,))
        save(self, number, *more)

    def written(self: rounds.Vote, released: Any) -> Any:
        with pytest.MonkeyPatch.context() as inside:
            inside.setattr(RunDirectory, "winners", lambda *_: None)
            return write(self, released)

    write = rounds.Vote.write
    patch.setattr(RunDirectory, "save_vote", saved)
    patch.setattr(rounds.Vote, "write", written)


@dataclass(frozen=True)
class Twin:
    """A broken twin.

    Attributes:
        breaks: breaks what it is named after.
        wrong: what must be found.
        points: where runs end, to find it soon.
        individual: whether only runs with individual payments show it.
        dealt: whether only runs with deals, or without them, do; None: any.
    """

    breaks: Callable[[pytest.MonkeyPatch], None]
    wrong: str
    points: tuple[str, ...] = tuple(POINTS)
    individual: bool = False
    dealt: bool | None = None

    def shows_in(self, made: Plan) -> bool:
        """Whether a run with this plan may show it."""
        individual = made.config.parts.accounting == "individual"
        return individual >= self.individual and self.dealt in (None, made.deals is not None)


TWINS = {
    "draws again": Twin(draws_again, "members: drawn again", dealt=True),
    "reads another draw": Twin(reads_another_draw, "has read records that were not drawn for it", dealt=True),
    "pays later": Twin(
        pays_later, "a text is there without its payments", ("before commit", "after commit", "statement"),
        individual=True,
    ),
    "forgets payments": Twin(
        forgets_payments, "a payment was taken back", ("before a text", "after a text"), individual=True, dealt=False
    ),
    "orders again": Twin(orders_again, "order of release: drawn again", ("before a file", "after a file")),
    "votes again": Twin(votes_again, "votes of round 0: drawn again"),
}  # fmt: skip
