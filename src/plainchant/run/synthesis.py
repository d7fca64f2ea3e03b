"""The order of the steps: from a private table to a release, the whole run on one page."""

import contextlib
import dataclasses
import functools
import itertools
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np

from plainchant.arrays import BoolArray, Float32Array, IntArray
from plainchant.config import Accounting, Clusters, PerformanceOptions, SynthesisConfig
from plainchant.data.centres import Centres, fit_centres
from plainchant.data.embedding import Embedder, in_public_steps, load_embedder
from plainchant.data.nearest import nearest_text
from plainchant.data.tables import Record, fingerprint, read_texts
from plainchant.errors import ConfigError, DataError, PrivacyError, RunError
from plainchant.generation.batching import allot_texts, draw_batches, draw_contexts
from plainchant.generation.decoding import BatchWork, Decoder, FinishedText, StopRule
from plainchant.generation.executor import Executor, load_on, make_decoder
from plainchant.generation.prompting import EXPANDED_FROM, Prompts, choose_examples
from plainchant.generation.ray import RayEmbedder, RayExecutor
from plainchant.models import LanguageModel
from plainchant.planning import Guarantee, Plan, not_private
from plainchant.privacy.accounting import ex_post
from plainchant.privacy.aggregation import Support
from plainchant.privacy.histograms import NO_CELL, WHOLE_LABEL, Cell, kept_by_votes, noisy_votes, rebalance
from plainchant.privacy.mechanisms import PublicMechanism
from plainchant.randomness import RandomSource, SystemRandomness
from plainchant.run.card import EX_POST_NOTE, data_set_card
from plainchant.run.ledger import Ledger
from plainchant.run.progress import NoProgress, Progress
from plainchant.run.store import Marks, RunDirectory, read_table
from plainchant.run.tuning import with_width

# Texts sampled from the public model where the user names no corpus to cluster around.
SAMPLED_CORPUS = 400
# First texts of a cell for each one that is shown in its prompts.
BOOTSTRAP = 2
# Public texts behind each centre, at least.
TEXTS_PER_CENTRE = 4


@dataclass(frozen=True)
class SyntheticText:
    """A released text.

    Attributes:
        text: the text.
        label: its label, or None.
        cell: number of its public cell.
        source: "private" where private records had a say, "expanded" where the public model wrote it from released
            texts alone.
    """

    text: str
    label: str | None
    cell: int
    source: str = "private"


class Run:
    """A run at work or done. Iterating releases texts one by one; what is committed survives a crash.

    Attributes:
        directory: where it lives.
        plan: what was decided before it read private data.
        guarantee: what its release promises.
        requested: how many texts it will have in the end, expanded ones not counted; known once the noisy counts are.
    """

    def __init__(
        self,
        directory: RunDirectory,
        plan: Plan,
        guarantee: Guarantee,
        decode: Iterator[FinishedText],
        vote: Callable[[Sequence[SyntheticText]], None],
        confirm: Callable[[], None],
        progress: Progress,
        resources: contextlib.ExitStack,
    ):
        self.directory = directory
        self.plan = plan
        self.guarantee = guarantee
        self._decode = decode
        self._vote = vote
        self._confirm = confirm
        self._progress = progress
        self._resources = resources
        if not any(batch.texts for batch in directory.batches()):
            raise PrivacyError(
                f"batch_size = {plan.settings.batch_size}: no noisy cell count reaches half of it, so there is no "
                "batch to write from; the data is too small for this budget. A larger ε or a smaller max_tokens allows "
                "smaller batches"
            )
        self._cells = directory.cells()
        self._cell_of_batch = {batch.batch: batch.cell for batch in directory.batches()}
        self._batches = len(self._cell_of_batch)
        self.requested = sum(batch.texts for batch in directory.batches())

    def __iter__(self) -> Iterator[SyntheticText]:
        committed = self.directory.texts()
        yield from map(self._labelled, committed)
        done, tokens, requested = len(committed), 0, self.requested + self.plan.config.further
        self._progress.texts(done, requested, tokens)
        for text in self._decode:
            self.directory.commit(text)
            done, tokens = done + 1, tokens + text.tokens
            self._progress.texts(done, requested, tokens)
            yield self._labelled(text)
        if self.plan.config.votes and self.directory.get("kept") is None:
            self._vote(self._all())
        self._release()
        self.close()

    @property
    def texts(self) -> list[SyntheticText]:
        """The released texts in order; runs to the end first. Where records vote, those that were kept."""
        for _ in self:
            pass
        return self._kept()

    def _all(self) -> list[SyntheticText]:
        return [self._labelled(text) for text in self.directory.texts()]

    def _kept(self) -> list[SyntheticText]:
        kept, texts = self.directory.get("kept"), self._all()
        return texts if kept is None else [texts[place] for place in kept]

    def close(self) -> None:
        """Gives the directory free; the run can be resumed."""
        self._resources.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _labelled(self, text: FinishedText) -> SyntheticText:
        expanded = text.batch >= self._batches
        number = text.batch - self._batches if expanded else self._cell_of_batch[text.batch]
        label = self.plan.config.label_set[self._cells[number].label]
        return SyntheticText(text.text, label, number, "expanded" if expanded else "private")

    def _release(self) -> None:
        self._confirm()
        config = self.plan.config
        columns = ["text", *["label"] * bool(config.labels), "cell", *["source"] * bool(config.further)]
        rows = [{name: getattr(text, name) for name in columns} for text in self._kept()]
        card = data_set_card(self.plan, self.guarantee, self._cells, len(rows))
        self.directory.write_private("costs.json", realised_costs(self.directory, self.plan))
        self.directory.write_release(rows, dataclasses.asdict(self.guarantee), card)


def realised_costs(directory: RunDirectory, plan: Plan) -> dict[str, Any]:
    """What a run has cost so far, measured on its output (guarantee 5.3). Private: it depends on the data."""
    batches = {batch.batch for batch in directory.batches()}
    costs = [entry for entry in directory.batch_costs() if entry[0] in batches]
    # whatever the tokens could have cost the worst record, none pays more than its batch's budget
    most = math.inf if plan.rho_batch is None else plan.rho_batch
    measured = ex_post(
        [loss for _, _, loss, _ in costs],
        [min(rho, most) for _, _, _, rho in costs],
        plan.rho_counts,
        plan.config.delta,
    )
    return {
        "note": EX_POST_NOTE,
        "ex_post": dataclasses.asdict(measured),
        "rho_counts": plan.rho_counts,
        "records": _paid(directory, plan) if plan.rho_expected is not None else None,
        "tokens": sum(tokens for _, tokens, _, _ in costs),
        "batches": [{"batch": batch, "tokens": tokens, "loss": loss, "rho": rho} for batch, tokens, loss, rho in costs],
    }


def _paid(directory: RunDirectory, plan: Plan) -> dict[str, float | None]:
    """What the records in batches have paid of their budgets (guarantee 5.2)."""
    paid = [spent for members in directory.members().values() for _, spent in members]
    return {
        "median": float(np.median(paid)) if paid else 0.0,
        "largest": max(paid, default=0.0),
        "budget": plan.rho_batch,
    }


def synthesize(
    records: Any,
    plan: Plan,
    *,
    out: str | Path,
    resume: bool = False,
    performance: PerformanceOptions | None = None,
    allow_not_private: bool = False,
    ledger: str | Path | None = None,
    randomness: RandomSource | None = None,
    model: LanguageModel | None = None,
    embedder: Embedder | None = None,
    progress: Progress | None = None,
) -> Run:
    """Prepares a run: embedding, public centres, noisy cells, secret batches; the returned `Run` writes the texts.

    Args:
        records: the private table (see `data.read_records`); None for the public method.
        plan: from `plan(config)`.
        out: the run's directory.
        resume: go on with the run in `out`; data and configuration must be the same.
        performance: device, dtype and width; cannot change the guarantee.
        allow_not_private: needed where there is no guarantee.
        ledger: the data set's ledger; a run that would pass its cap is refused before it reads anything.
        randomness: where chance comes from; anything but the default marks the run as not private.
        model: a loaded one, in place of the configured name.
        embedder: likewise.
        progress: hears how it goes.

    Raises:
        ConfigError, DataError: as the message says.
        PrivacyError: no guarantee and not allowed, the ledger's cap would be passed, the ledger knows `out` for a copy
            or is not named, or not one cell is large enough for a batch.
        RunError: the directory is in use, or holds another run.
    """
    performance = performance or PerformanceOptions()
    randomness = randomness or SystemRandomness()
    progress = progress or NoProgress()
    config = plan.config
    guarantee = plan.guarantee
    if not randomness.private:
        guarantee = not_private(config, "its randomness came from a seed")
    if guarantee.kind == "none" and not allow_not_private:
        raise PrivacyError(
            f"{guarantee.statement} To run it all the same, pass --i-know-this-is-not-private (allow_not_private=True)."
        )
    book = None if ledger is None else Ledger(Path(ledger))
    if book is not None and not resume:
        book.check(guarantee)
    public = config.parts.accounting is Accounting.PUBLIC
    if records is None and not public:
        raise DataError("data: not given; name the private table with --data FILE")
    table = [] if public else read_table(records, config)

    # whatever can fail for public reasons fails before the directory is made
    directory = RunDirectory.open(Path(out)) if resume else None
    inputs = None
    clustered = config.parts.clusters is Clusters.PUBLIC_CENTRES and not (directory and directory.get("batched"))
    if embedder is None and not public and (clustered or config.votes):
        if performance.executor == "ray":
            embedder = RayEmbedder(performance, config.embedder)
        else:
            embedder = load_embedder(config.embedder, device=performance.device)
    if clustered and not public and embedder is not None:
        inputs = _public_corpus(config), embedder
    model = model or _load_model(config, performance, progress)
    if model.numerical_slack > config.numerical_slack:
        raise PrivacyError(
            f"numerical_slack = {config.numerical_slack:g}: {model.name} on this dtype may move by "
            f"{model.numerical_slack:g}; set numerical_slack to that or more, or dtype = float32"
        )
    prompts = Prompts(config, model)
    if not randomness.private:
        # a measured width would change in which order a seed's numbers are used
        performance = performance.model_copy(update={"rows": performance.width})
    performance = with_width(performance, model, prompts, plan, progress)
    stop = StopRule(prompts.stop, config.max_tokens, config.min_tokens)
    directory = directory or RunDirectory.create(Path(out), plan, guarantee)
    with contextlib.ExitStack() as resources:
        resources.enter_context(directory.locked())
        _check_same(directory, plan, fingerprint(table), randomness)
        if guarantee.kind != "none" and not directory.get("private"):
            raise PrivacyError(f"{out}: was begun with seeded randomness and is not private; start a new run")
        if directory.get("private") and not randomness.private:
            # it would not be noted, and the next one to resume would claim the guarantee
            raise PrivacyError(f"{out}: was begun without a seed, and a seed would undo its guarantee; start a new run")
        if book is not None:
            # before the first noise is drawn; a resumed run is in it already, and this must not be a copy of it
            book.enter(directory, guarantee)
        elif directory.marks() != Marks():
            raise PrivacyError(
                f"{out}: is paid for by a ledger, which tells it from its copies; name it: --ledger FILE"
            )
        if not directory.get("batched"):
            if public:
                _plan_public(directory, config)
            elif inputs is None:
                _form_batches(directory, plan, table, None, None, randomness)
            else:
                corpus, embedder = inputs
                if corpus is None and not directory.centres.exists():
                    corpus = _sample_public(plan, model, prompts, stop, performance, progress)
                centres = _public_centres(directory, config, corpus or [], embedder, progress)
                _form_batches(
                    directory, plan, table, centres, _embeddings(directory, table, embedder, progress), randomness
                )
        executor: Executor
        if performance.executor == "ray":
            executor = resources.enter_context(contextlib.closing(_on_ray(plan, stop, performance, randomness)))
        else:
            executor = Decoder(model, plan.mechanism, stop, rows=performance.width, randomness=randomness)
        decode = itertools.chain(
            _decode(executor, directory, table, config, prompts),
            _expand(model, plan, directory, prompts, stop, performance),
        )

        def vote(texts: Sequence[SyntheticText]) -> None:
            if embedder is not None:
                _vote(directory, plan, table, texts, embedder, randomness, progress)

        def confirm() -> None:
            if book is not None:
                book.confirm(directory, guarantee)

        return Run(directory, plan, guarantee, decode, vote, confirm, progress, resources.pop_all())


def _check_same(directory: RunDirectory, plan: Plan, data: str, randomness: RandomSource) -> None:
    """A run goes on only with what it was begun with."""
    before, now = directory.config.model_dump(), plan.config.model_dump()
    different = sorted(name for name in now if now[name] != before[name])
    if different:
        raise ConfigError(
            f"resume: {', '.join(different)} differ from what the run was begun with "
            f"({directory.path / 'config.toml'}); use those values or start a new run"
        )
    begun, going_on = directory.plan, plan.as_dict()
    version = begun.pop("guarantee")["version"]
    if version != going_on.pop("guarantee")["version"] or begun != going_on:
        # another version may plan, and account, in another way
        raise RunError(f"resume: the run was begun by plainchant {version} with another plan; go on with that version")
    known = directory.get("data")
    if known is None:
        directory.put(data=data, private=randomness.private)
    elif known != data:
        raise DataError("resume: the data is not the data that the run was begun with; start a new run")


def _load_model(config: SynthesisConfig, performance: PerformanceOptions, progress: Progress) -> LanguageModel:
    progress.stage("loading the language model", 0.0)
    model = load_on(config.model, performance)
    progress.stage("loading the language model", 1.0)
    return model


def _plan_public(directory: RunDirectory, config: SynthesisConfig) -> None:
    """One text a batch, the labels in turn: no private data has a say."""
    labels = len(config.label_set)
    counts = [config.texts // labels + (label < config.texts % labels) for label in range(labels)]
    cells = tuple(Cell(label, WHOLE_LABEL, 0, count) for label, count in enumerate(counts))
    nobody = np.empty(0, dtype=np.int64)
    directory.save_batches(cells, [[1] * count for count in counts], nobody, nobody)


def _form_batches(
    directory: RunDirectory,
    plan: Plan,
    table: Sequence[Record],
    centres: Centres | None,
    embeddings: Float32Array | None,
    randomness: RandomSource,
) -> None:
    """Counts cells with noise, draws batches, and commits it all at once (guarantee 2 and 3)."""
    config = plan.config
    record_of_unit = choose_records(table, randomness)
    index = {label: number for number, label in enumerate(config.label_set)}
    labels = np.array(
        [index.get(table[record].label, NO_CELL) if config.labels else 0 for record in record_of_unit], dtype=np.int64
    )
    nearest = None
    if centres is not None and embeddings is not None:
        own = embeddings[record_of_unit]
        nearest = functools.partial(_nearest, centres, own)
    outcome = rebalance(
        labels,
        nearest,
        labels=len(config.label_set),
        centres=0 if centres is None else len(centres.vectors),
        batch_size=plan.settings.units_per_batch,
        kept=None if config.kept == "auto" else config.kept,
        min_cell=config.min_cell,
        rho_select=plan.rho_select,
        rho_size=plan.rho_size,
        randomness=randomness,
    )
    allotted = allot_texts(outcome.cells, config.texts, plan.texts_per_batch)
    batch_of_unit = draw_batches(outcome.cell_of_unit, outcome.cells, randomness)
    contexts = None
    if config.records_per_context > 1:
        contexts = draw_contexts(batch_of_unit, plan.settings.batch_size, randomness)
    directory.save_batches(outcome.cells, allotted, record_of_unit, batch_of_unit, contexts)


def _nearest(centres: Centres, embeddings: Float32Array, units: BoolArray, among: IntArray | None) -> IntArray:
    return centres.nearest(embeddings[units], among)


def choose_records(table: Sequence[Record], randomness: RandomSource) -> IntArray:
    """One record of each unit, drawn uniformly from its own: a unit with many records is as safe as one with one.

    Returns:
        Record numbers, int64 [units], in the order of each unit's first record.
    """
    units: dict[Any, list[int]] = {}
    for number, record in enumerate(table):
        # a row without a unit is a unit by itself; a tuple cannot collide with a name
        units.setdefault(("row", number) if record.unit is None else record.unit, []).append(number)
    return np.array([rows[randomness.below(len(rows))] for rows in units.values()], dtype=np.int64)


def _public_corpus(config: SynthesisConfig) -> Centres | list[str] | None:
    """What to cluster around: saved centres, a public corpus, or None for texts to be sampled (guarantee 2.1)."""
    if isinstance(config.centres, str):
        return Centres.load(Path(config.centres))
    return (
        None
        if config.public_corpus is None
        else read_texts(config.public_corpus, text_column=config.public_text_column)
    )


def _public_decoder(model: LanguageModel, plan: Plan, stop: StopRule, performance: PerformanceOptions) -> Decoder:
    """Writes by the public model alone, whatever the plan's method."""
    settings = dataclasses.replace(plan.settings, support=Support.TOP_K, batch_size=1)
    return Decoder(model, PublicMechanism(settings), stop, rows=performance.width, randomness=SystemRandomness())


def _sample_public(
    plan: Plan,
    model: LanguageModel,
    prompts: Prompts,
    stop: StopRule,
    performance: PerformanceOptions,
    progress: Progress,
) -> list[str]:
    """Texts by the public model with the public prompts, the labels in turn."""
    labels = plan.config.label_set
    works = (
        BatchWork(number, tuple(prompts.prefix(label)), tuple(prompts.start(label)), (), (0,))
        for number in range(SAMPLED_CORPUS)
        for label in (labels[number % len(labels)],)
    )
    texts = []
    for number, text in enumerate(_public_decoder(model, plan, stop, performance).run(works), start=1):
        progress.stage("sampling a public corpus from the model", number / SAMPLED_CORPUS)
        texts.append(text.text)
    return texts


def _public_centres(
    directory: RunDirectory,
    config: SynthesisConfig,
    texts: Centres | Sequence[str],
    embedder: Embedder,
    progress: Progress,
) -> Centres:
    """Centres of a public corpus, kept in the run's directory for use by path (guarantee 2.1)."""
    if isinstance(texts, Centres):
        return texts
    if directory.centres.exists():
        return Centres.load(directory.centres)
    embeddings = embedder.encode(texts, progress=functools.partial(progress.stage, "embedding the public corpus"))
    progress.stage("finding public centres", 0.0)
    # few texts carry few centres; the corpus is public, so its size may decide
    k = min(int(config.centres), max(1, len(texts) // TEXTS_PER_CENTRE))
    centres = fit_centres(embeddings, k)
    centres.save(directory.centres)
    progress.stage("finding public centres", 1.0)
    return centres


def _embeddings(
    directory: RunDirectory, table: Sequence[Record], embedder: Embedder, progress: Progress
) -> Float32Array:
    """Embeddings of all private records, computed once a run."""
    kept = directory.embeddings()
    if kept is None:
        kept = embedder.encode(
            [record.text for record in table],
            alone=True,
            progress=in_public_steps(functools.partial(progress.stage, "embedding the records")),
        )
        directory.save_embeddings(kept)
    return kept


def _vote(
    directory: RunDirectory,
    plan: Plan,
    table: Sequence[Record],
    texts: Sequence[SyntheticText],
    embedder: Embedder,
    randomness: RandomSource,
    progress: Progress,
) -> None:
    """Every unit in a batch votes for the text of its label that is nearest to its record (guarantee 8)."""
    candidates = embedder.encode([text.text for text in texts])
    embeddings = _embeddings(directory, table, embedder, progress)
    voters = np.array([record for own in directory.members().values() for records, _ in own for record in records])
    choice = np.full(len(voters), NO_CELL, dtype=np.int64)
    for label in plan.config.label_set:
        own = np.array([text.label == label for text in texts])
        theirs = np.array([not plan.config.labels or table[record].label == label for record in voters], dtype=bool)
        if own.any() and theirs.any():
            others = [text.text for text in texts if text.label == label]
            ballots = nearest_text(embeddings[voters[theirs]], others, candidates[own])
            choice[theirs] = np.flatnonzero(own)[ballots]
    votes = noisy_votes(choice[choice != NO_CELL], len(texts), plan.rho_vote, randomness)
    directory.save_votes(votes, kept_by_votes(votes, plan.config.released, randomness))


def _on_ray(plan: Plan, stop: StopRule, performance: PerformanceOptions, randomness: RandomSource) -> RayExecutor:
    if not randomness.private:
        raise PrivacyError("executor = ray: its workers draw from their own systems, so that no seed can be given")
    together = max(1, performance.width // plan.settings.batch_size)
    return RayExecutor(performance, functools.partial(make_decoder, plan, stop, performance), together=together)


def _decode(
    executor: Executor, directory: RunDirectory, table: Sequence[Record], config: SynthesisConfig, prompts: Prompts
) -> Iterator[FinishedText]:
    """The first texts of every cell, then all others with some of those in their prompts (guarantee 8).

    What comes first and what is shown are functions of the released alone; texts are committed as they are yielded.
    """
    count = config.parts.released_examples
    first, shown = _first_places(directory, BOOTSTRAP * count), {}
    if count:
        yield from executor.run(_works(directory, table, config, prompts, first, {}))
        shown = {cell: choose_examples(own, count) for cell, own in _texts_by_cell(directory, first).items()}
    rest = _all_places(directory) - first
    yield from executor.run(_works(directory, table, config, prompts, rest, shown))


def _expand(
    model: LanguageModel,
    plan: Plan,
    directory: RunDirectory,
    prompts: Prompts,
    stop: StopRule,
    performance: PerformanceOptions,
) -> Iterator[FinishedText]:
    """Further texts by the public model, from released ones as examples: post-processing, free (guarantee 8).

    A cell's share is that of its noisy size. They stand in the database as one batch a cell, after all others.
    """
    config = plan.config
    if not config.further:
        return
    batches, cells, committed = directory.batches(), directory.cells(), directory.texts()
    done = {(text.batch, text.position) for text in committed}
    released = _texts_by_cell(directory, _all_places(directory))

    def works() -> Iterator[BatchWork]:
        for cell, counts in enumerate(allot_texts(cells, config.further, None)):
            # all sound texts, the most different first; every further text sees the next few of them
            sound = choose_examples(released.get(cell, []), len(committed))
            label = config.label_set[cells[cell].label]
            for place in range(sum(counts)):
                if (len(batches) + cell, place) not in done:
                    shown = [sound[(place + turn) % len(sound)] for turn in range(min(EXPANDED_FROM, len(sound)))]
                    prefix, start = tuple(prompts.prefix(label, shown)), tuple(prompts.start(label))
                    yield BatchWork(len(batches) + cell, prefix, start, (), (place,))

    yield from _public_decoder(model, plan, stop, performance).run(works())


def _first_places(directory: RunDirectory, count: int) -> set[tuple[int, int]]:
    """The first places of each cell that has more than `count`, spread over its batches."""
    by_cell: dict[int, list[tuple[int, int]]] = {}
    for batch in directory.batches():
        by_cell.setdefault(batch.cell, []).extend((place, batch.batch) for place in range(batch.texts))
    return {
        (batch, place) for places in by_cell.values() if len(places) > count for place, batch in sorted(places)[:count]
    }


def _all_places(directory: RunDirectory) -> set[tuple[int, int]]:
    """Every (batch, position) that private records have a say in."""
    return {(batch.batch, place) for batch in directory.batches() for place in range(batch.texts)}


def _texts_by_cell(directory: RunDirectory, places: set[tuple[int, int]]) -> dict[int, list[str]]:
    """The committed texts of these places, by cell and in order."""
    cell_of_batch = {batch.batch: batch.cell for batch in directory.batches()}
    texts: dict[int, list[str]] = {}
    for text in directory.texts():
        if (text.batch, text.position) in places:
            texts.setdefault(cell_of_batch[text.batch], []).append(text.text)
    return texts


def _works(
    directory: RunDirectory,
    table: Sequence[Record],
    config: SynthesisConfig,
    prompts: Prompts,
    places: set[tuple[int, int]],
    shown: Mapping[int, Sequence[str]],
) -> Iterator[BatchWork]:
    """What of `places` is still to be written. A batch's records become tokens only when its turn comes."""
    done = {(text.batch, text.position) for text in directory.texts()}
    cells, members = directory.cells(), directory.members()
    for batch in directory.batches():
        missing = [place for place in range(batch.texts) if (batch.batch, place) not in done]
        positions = [place for place in missing if (batch.batch, place) in places]
        if positions:
            label = config.label_set[cells[batch.cell].label]
            own = members.get(batch.batch, [])
            yield BatchWork(
                batch.batch,
                tuple(prompts.prefix(label, shown.get(batch.cell, ()))),
                tuple(prompts.start(label)),
                [prompts.records([table[number].text for number in numbers], label) for numbers, _ in own],
                positions,
                (len(missing) - len(positions)) * config.max_tokens,
                np.array([spent for _, spent in own], dtype=np.float64),
            )
