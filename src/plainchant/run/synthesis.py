"""The order of the steps: from a private table to a release, the whole run on one page."""

import contextlib
import dataclasses
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from plainchant.config import PerformanceOptions
from plainchant.data.embedding import Embedder
from plainchant.display import html_table
from plainchant.errors import ConfigError, PrivacyError
from plainchant.generation.executor import Executor, open_executor
from plainchant.models import LanguageModel, licence_of
from plainchant.planning import Plan
from plainchant.randomness import RandomSource, SystemRandomness
from plainchant.run.card import by_records, data_set_card, released_columns
from plainchant.run.cells import form_batches, prepare_cells
from plainchant.run.costs import realised_costs
from plainchant.run.ending import ended_without_batch, has_no_batch
from plainchant.run.finished import FinishedRun
from plainchant.run.ledger import Ledger
from plainchant.run.preparation import Preparation, prepare
from plainchant.run.progress import Progress, default_progress
from plainchant.run.promise import checked_promise
from plainchant.run.released import Released, SyntheticText
from plainchant.run.rounds import Round, rounds_of
from plainchant.run.store import Marks, RunDirectory, nothing_to_end_with

if TYPE_CHECKING:
    import datasets
    import pandas


def synthesize(
    records: Any,
    plan: Plan,
    *,
    out: str | Path,
    resume: bool = False,
    no_more_texts: bool = False,
    performance: PerformanceOptions | None = None,
    allow_not_private: bool = False,
    ledger: str | Path | None = None,
    randomness: RandomSource | None = None,
    model: LanguageModel | None = None,
    embedder: Embedder | None = None,
    progress: Progress | None = None,
    notes: Mapping[str, Mapping[str, Any]] | None = None,
) -> "Run":
    """Prepares a run: embedding, public centres, noisy cells, secret batches; the returned `Run` writes the texts.

    Args:
        records: the private table (see `data.tables.read_records`); None for the public method.
        plan: from `make_plan(config)`.
        out: the run's directory.
        resume: continue the run in `out`; data and configuration must be the same.
        no_more_texts: with `resume`, write no further texts, now or later: votes and the release take those that are
            saved. The cost stays what it is.
        performance: device, dtype and width; cannot change the guarantee.
        allow_not_private: needed where there is no guarantee.
        ledger: the data set's ledger; a run that would pass its cap is refused before it reads anything.
        randomness: the source of all secrets and tokens; anything but the default marks the run as not private.
        model: a loaded one, in place of the configured name; not with workers, which load their own.
        embedder: likewise.
        progress: receives progress reports; by default a line in a terminal or a notebook.
        notes: files of JSON that the private/ of a new run holds from its first moment, by name.

    Raises:
        ConfigError, DataError: as the message says.
        PrivacyError: there is no guarantee and that is not allowed; the run would exceed the ledger's cap; the ledger
            recognises `out` as a copy, or is not named; or no cell is large enough for a batch.
        RunError: the directory is in use, or holds another run.
    """
    book = None if ledger is None else Ledger(Path(ledger))
    with contextlib.ExitStack() as resources:
        # 1. one process per directory, and only with the ledger that has paid for it
        begun = _begun(Path(out), book, resources, resume=resume, no_more_texts=no_more_texts)
        # 2. everything that can fail for public reasons: files, models, the plan; a new directory is made last
        preparation = prepare(
            records,
            plan,
            out=Path(out),
            begun=begun,
            performance=performance or PerformanceOptions(),
            allow_not_private=allow_not_private,
            ledger=book,
            randomness=randomness or SystemRandomness(),
            model=model,
            embedder=embedder,
            progress=progress or default_progress(),
            notes=notes,
        )
        directory = preparation.directory
        if begun is None:
            resources.enter_context(directory.locked())
        if book is not None:
            directory.note_ledger(book.path)
        if has_no_batch(directory, plan):
            raise ended_without_batch(preparation, book)
        if not directory.is_formed():
            record_of_unit = prepare_cells(preparation)
        # 3. the ledger is charged before the first noise is drawn; a resumed run is already charged
        if book is not None:
            book.enter(directory, preparation.guarantee)
        # 4. noisy cells and secret batches, drawn once
        if not directory.is_formed():
            form_batches(preparation, record_of_unit)
        if has_no_batch(directory, plan):
            raise ended_without_batch(preparation, book)
        if no_more_texts:
            directory.write_no_more()
        # 5. the rounds, which the returned run goes through
        executor = _executor_of(preparation, resources)
        return Run(preparation, rounds_of(preparation, executor), book, resources.pop_all())


def _executor_of(preparation: Preparation, resources: contextlib.ExitStack) -> Executor | None:
    """What writes texts from records, until `resources` are closed; None where there are none."""
    plan = preparation.plan
    if not plan.config.written:
        return None
    local, tokens = preparation.loaded, preparation.progress.tokens
    return resources.enter_context(
        open_executor(plan, local.stop, preparation.performance, local.model, preparation.randomness, tokens)
    )


def _begun(
    out: Path, book: Ledger | None, resources: contextlib.ExitStack, *, resume: bool, no_more_texts: bool
) -> RunDirectory | None:
    """The directory of a run to continue, locked until `resources` are closed; None for a new run."""
    if not resume:
        if no_more_texts:
            raise ConfigError("no_more_texts: is for a run that has texts already; use it with --resume")
        return None
    directory = RunDirectory.open(out)
    resources.enter_context(directory.locked())
    if book is None and (directory.marks() != Marks() or directory.noted_ledger() is not None):
        raise PrivacyError(
            f"{out}: was begun with a ledger, which adds up what it costs and tells it from its copies; name the "
            f"ledger: --ledger {directory.noted_ledger() or 'FILE'}"
        )
    if no_more_texts and not directory.texts():
        # before anything is loaded and charged
        raise nothing_to_end_with(out)
    return directory


class Run:
    """A run in progress or finished. Iterating writes texts one by one; what is committed survives a crash.

    Attributes:
        directory: the run's directory.
        plan: what was decided before it read private data.
        guarantee: what its release promises.
        requested: how many texts the records contribute to in total; known once the noisy counts are.
    """

    def __init__(
        self, preparation: Preparation, rounds: Sequence[Round], ledger: Ledger | None, resources: contextlib.ExitStack
    ):
        self.directory = preparation.directory
        self.plan = preparation.plan
        self.guarantee = preparation.guarantee
        self._progress = preparation.progress
        self._randomness = preparation.randomness
        self._rounds = rounds
        self._ledger = ledger
        self._resources = resources
        self.requested = sum(batch.texts for batch in self.directory.batches())

    def __iter__(self) -> Iterator[SyntheticText]:
        """Yields what is committed, then every text as it is written; writes the release at the end."""
        config, released, tokens = self.plan.config, Released.of(self.directory), 0
        yield from (released.labelled(text, config) for text in released.texts)
        done, requested = len(released.texts), self.requested + config.further
        if config.has_text:
            self._progress.texts(done, requested, tokens, self._work(done))
        for round in self._rounds:
            if config.votes:
                self._progress.stage(round.name, 0.0)
            released = Released.of(self.directory)
            for text in round.write(released):
                # a text counts once it is committed, with what it cost
                self.directory.commit(text)
                done, tokens = done + 1, tokens + text.tokens
                self._progress.texts(done, requested, tokens, self._work(done))
                yield released.labelled(text, config)
            if config.votes:
                self._progress.stage(round.name, 1.0)
        self._release()
        self.close()

    def _work(self, done: int) -> tuple[float, float]:
        """What share of all work so many texts are, and the next one: a token by records takes a row of each."""
        rows = self.plan.settings.batch_size if self.plan.mechanism.needs_private else 1
        whole = max(1, self.requested * rows + self.plan.config.further)
        by_records = min(done, self.requested)
        return (by_records * rows + done - by_records) / whole, (rows if done < self.requested else 1) / whole

    def finish(self) -> list[SyntheticText]:
        """Writes what is missing and returns the released texts in their order; with a vote, only those kept."""
        for _ in self:
            pass
        kept = self._kept()
        return [kept[place] for place in self.directory.order_of_release(len(kept), self._randomness)]

    def to_pandas(self) -> "pandas.DataFrame":
        """The release of a finished run; see `FinishedRun.to_pandas`."""
        return FinishedRun.open(self.directory.path).to_pandas()

    def to_datasets(self) -> "datasets.Dataset":
        """The release of a finished run; see `FinishedRun.to_datasets`."""
        return FinishedRun.open(self.directory.path).to_datasets()

    def _repr_html_(self) -> str:
        rows = [
            ("guarantee", self.guarantee.statement),
            ("texts so far", f"{len(self.directory.texts())} of {self.requested + self.plan.config.further}"),
            ("directory", self.directory.path),
        ]
        return html_table("Run", rows)

    def close(self) -> None:
        """Frees the directory; the run can be resumed."""
        self._resources.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _kept(self) -> list[SyntheticText]:
        released, config = Released.of(self.directory), self.plan.config
        if not config.has_text:
            return released.without_text(config)
        winners = self.directory.winners(config.parts.rounds - 1) if config.votes else None
        if winners is None:
            return [released.labelled(text, config) for text in released.texts]
        return released.chosen(winners, config)

    def _release(self) -> None:
        if self._ledger is not None:
            # makes sure that nobody has opened a copy of the directory, and that nobody can from now on
            self._ledger.confirm(self.directory, self.guarantee)
        config, guarantee = self.plan.config, checked_promise(self.directory, self.plan)
        columns = released_columns(config)
        rows = [{name: getattr(text, name) for name in columns} | dict(text.attributes) for text in self._kept()]
        # texts come label by label and origin by origin: a drawn order tells neither
        order = self.directory.order_of_release(len(rows), self._randomness)
        rows = [rows[place] for place in order]
        own = self.directory.attribute_rows()
        card = data_set_card(
            self.plan, guarantee, self.directory.cells(), len(rows), self.directory.facts(),
            date=self.directory.release_date(), model=self.directory.origin.model,
            licence=licence_of(config.model) if config.needs_model else None,
            schema=None if own is None else own.schema, by_records=by_records(rows),
            texts_of_label=Counter(row["label"] for row in rows) if config.labels else None,
        )  # fmt: skip
        self.directory.write_private("costs.json", realised_costs(self.directory, self.plan))
        self.directory.write_release(rows, dataclasses.asdict(guarantee), card)
