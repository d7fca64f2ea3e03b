"""The run directory: every path of a run, its database, its lock, what may be shared and what may not."""

import contextlib
import dataclasses
import errno
import glob
import hashlib
import json
import os
import secrets
import shutil
import sqlite3
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Self, cast

import filelock
import numpy as np
import tomli_w

from plainchant.arrays import Float32Array, IntArray
from plainchant.config import SynthesisConfig, parse_config
from plainchant.data.files import (
    PRIVATE,
    SHARED,
    atomic_write,
    remove_leftovers,
    sha256,
    take_lock,
    write_json,
    write_jsonl,
    write_parquet,
    write_text,
)
from plainchant.data.sample import KEY_BYTES, Sample
from plainchant.errors import ConfigError, RunError
from plainchant.generation.batching import NO_BATCH
from plainchant.generation.decoding import FinishedText
from plainchant.planning import Guarantee, Plan
from plainchant.privacy.histograms import Cell
from plainchant.randomness import RandomSource
from plainchant.run.attributes import AttributeRow, AttributeRows, resolved

# Part of the hidden name that a run directory has while it is being made.
_UNFINISHED = ".unfinished-"
_IN_USE = "out = {}: is not empty; choose another directory"

# In private/, though nothing in it is secret: beside the release, whoever changes that could change it too.
_SEAL = "release.json"

# In private/: that a run has ended before its first token, and can never continue.
_ENDED = "ended.json"
# In private/: that the run was told to write no further texts.
_NO_MORE = "no-more-texts.json"
# Seconds that a process waits for the directory: so long may `is_in_use` hold it.
_PATIENCE = 0.2
# In private/: the ledger that the run was last opened with.
_PAID_BY = "paid-by.json"
# In private/: the order in which the rows of the release were drawn to stand.
_ORDER = "order.json"

# What keeps a database from being used, and what to do about it, by the beginning of SQLite's name for it.
_GOES_ON = "what is committed is kept, and --resume goes on"
_DATABASE_FAULTS = {
    "SQLITE_FULL": f"cannot be written, since the disk is full; free some space, {_GOES_ON}",
    "SQLITE_IOERR": f"cannot be read or written (input/output error); check the disk and its quota, {_GOES_ON}",
    "SQLITE_READONLY": f"may not be written; change who may write there, {_GOES_ON}",
    "SQLITE_CANTOPEN": f"cannot be opened; change who may write there, {_GOES_ON}",
    "SQLITE_BUSY": f"is locked by another program; wait for it to end, {_GOES_ON}",
    "SQLITE_LOCKED": f"is locked by another program; wait for it to end, {_GOES_ON}",
    "SQLITE_NOMEM": f"needs more memory than there is; close other programs, {_GOES_ON}",
}
_DAMAGED = "is damaged and cannot be used; put the whole directory back as it was, or start a new run"

SCHEMA = """
CREATE TABLE origin (name TEXT NOT NULL, data TEXT NOT NULL, private INTEGER NOT NULL, model TEXT, sample_key BLOB);
CREATE TABLE marks (last TEXT, next TEXT);
CREATE TABLE voters (record INTEGER PRIMARY KEY);
CREATE TABLE ballots (round INTEGER PRIMARY KEY, facts TEXT NOT NULL);
CREATE TABLE votes (
    round INTEGER NOT NULL, label INTEGER NOT NULL, batch INTEGER NOT NULL, position INTEGER NOT NULL,
    votes INTEGER NOT NULL, PRIMARY KEY (round, label, batch, position)
);
CREATE TABLE winners (
    round INTEGER NOT NULL, place INTEGER NOT NULL, label INTEGER NOT NULL, batch INTEGER NOT NULL,
    position INTEGER NOT NULL, PRIMARY KEY (round, place), UNIQUE (round, batch, position)
);
CREATE TABLE words (token INTEGER PRIMARY KEY, word TEXT NOT NULL);
CREATE TABLE word_votes (
    label INTEGER NOT NULL, token INTEGER NOT NULL, votes INTEGER NOT NULL, expected INTEGER NOT NULL,
    PRIMARY KEY (label, token)
);
CREATE TABLE cells (cell INTEGER PRIMARY KEY, label INTEGER, centre INTEGER, noisy_size INTEGER, batches INTEGER);
CREATE TABLE batches (
    batch INTEGER PRIMARY KEY, cell INTEGER NOT NULL, texts INTEGER NOT NULL, deal INTEGER NOT NULL, payment REAL
);
-- of each batch that has any: int64 records and the context of each, in order, and float64 what each context has paid
CREATE TABLE members (
    batch INTEGER PRIMARY KEY, records BLOB NOT NULL, contexts BLOB NOT NULL, spent BLOB NOT NULL
);
CREATE TABLE found (attribute TEXT PRIMARY KEY, found TEXT NOT NULL);
CREATE TABLE attribute_rows (
    number INTEGER PRIMARY KEY, cell INTEGER NOT NULL, codes TEXT NOT NULL, shown TEXT NOT NULL
);
CREATE TABLE texts (
    batch INTEGER NOT NULL, position INTEGER NOT NULL, text TEXT NOT NULL, tokens INTEGER NOT NULL,
    finish TEXT NOT NULL, loss REAL NOT NULL, rho REAL NOT NULL, PRIMARY KEY (batch, position)
);
"""


def _make_folders(path: Path) -> None:
    """Makes a folder and those above it, writable by their owner only, whatever the umask."""
    for folder in (*reversed(path.parents), path):
        if not folder.is_dir():
            folder.mkdir(mode=0o755, exist_ok=True)


def next_free(path: Path) -> Path:
    """The path itself, or with the first number that makes it free: runs/demo, runs/demo-2, and so on."""
    names = (path, *(path.with_name(f"{path.name}-{number}") for number in range(2, 10_000)))
    return next(name for name in names if not name.exists())


@dataclasses.dataclass(frozen=True)
class Batch:
    """A batch that may write. Public.

    Attributes:
        batch: its number.
        cell: its cell's number.
        texts: how many texts it writes.
        deal: the deal that it is drawn for, from 0; always 0 where a unit stays in its batch.
        payment: ρ that a unit may pay for its text, in a deal; None where a unit stays in its batch.
    """

    batch: int
    cell: int
    texts: int
    deal: int = 0
    payment: float | None = None


@dataclasses.dataclass(frozen=True, eq=False)
class Draw:
    """One secret draw of batches. Secret.

    Attributes:
        records: the record that represents each unit, int64 [n].
        batches: the batch of each unit, or NO_BATCH, int64 [n].
        contexts: its context there, int64 [n]; None where every unit has one of its own.
    """

    records: IntArray = dataclasses.field(repr=False)
    batches: IntArray = dataclasses.field(repr=False)
    contexts: IntArray | None = dataclasses.field(default=None, repr=False)

    def members(self) -> Iterator[tuple[int, bytes, bytes, bytes]]:
        """A row for each batch that somebody is in: its number, records, contexts, and that nobody has paid."""
        # where every unit has its own context, the context has the number of its record
        contexts = self.records if self.contexts is None else self.contexts
        order = np.lexsort((self.records, contexts, self.batches))
        order = order[self.batches[order] != NO_BATCH]
        ordered = self.batches[order]
        for batch in np.unique(ordered):
            own = order[np.searchsorted(ordered, batch) : np.searchsorted(ordered, batch, side="right")]
            paid = np.zeros(len(np.unique(contexts[own])))
            yield int(batch), self.records[own].tobytes(), contexts[own].tobytes(), paid.tobytes()


@dataclasses.dataclass(frozen=True)
class Origin:
    """What a run was started with.

    Attributes:
        name: random; no other run has it.
        data: fingerprint of the table. Private.
        private: whether nobody can predict its randomness.
        model: the language model's version (`models.revision_of`); None where it is not known.
        sample_key: draws the sample of units; None where the run looks at all of them. Secret.
    """

    name: str
    data: str = dataclasses.field(repr=False)
    private: bool
    model: str | None = None
    sample_key: bytes | None = dataclasses.field(default=None, repr=False)


@dataclasses.dataclass(frozen=True)
class Seal:
    """What a release was when it was written. All of it may be shared.

    Attributes:
        date: the day, UTC, as YYYY-MM-DD.
        files: the SHA-256 of each file by name, hex.
    """

    date: str
    files: dict[str, str]


@dataclasses.dataclass(frozen=True)
class Winner:
    """A text that a vote has chosen: the label that the records gave it, by number, and its place."""

    label: int
    batch: int
    position: int


@dataclasses.dataclass(frozen=True)
class Marks:
    """Marks that a directory and its entry in a ledger share, so that a copy can be recognised (`run.ledger`).

    Attributes:
        last: the mark of the last opening that is known to be in the ledger; None before the first.
        next: a mark that was about to be written there; None once that is done.
    """

    last: str | None = None
    next: str | None = None


def nothing_to_end_with(path: Path) -> RunError:
    """The error of a run that is told to write no more before it has written anything."""
    return RunError(f"{path}: no text is saved yet, so there is nothing to end with; go on with --resume")


class RunDirectory:
    """A run on disk.

    * A text and its cost are committed in one transaction; a crash loses at most the texts in progress.
    * Each place (batch, position) is filled once: the database refuses a second draw.
    * One process at a time.
    * Private texts are never written: the database knows records by number only.
    """

    def __init__(self, path: Path, *, shown: Path | None = None):
        """A directory at `path`, which errors call `shown`."""
        self.path = path
        self._shown = shown or path
        self.release = path / "release"
        self.private = path / "private"
        self.centres = path / "centres.npz"
        self._embeddings = self.private / "embeddings.npy"
        self._database = self.private / "run.sqlite"
        self._requests = self.private / "requests.jsonl"
        self._lock = filelock.FileLock(self.private / "lock", mode=PRIVATE)

    @classmethod
    def create(
        cls,
        path: Path,
        plan: Plan,
        guarantee: Guarantee,
        *,
        data: str,
        private: bool,
        model: str | None = None,
        sample_key: bytes | None = None,
        notes: Mapping[str, Mapping[str, Any]] | None = None,
    ) -> Self:
        """A new run in an empty or missing directory.

        Args:
            path: the directory.
            plan: what was decided before private data is read.
            guarantee: what the release promises.
            data: fingerprint of the table.
            private: whether nobody can predict the run's randomness.
            model: the language model's version, if known.
            sample_key: draws the sample of units, if there is one.
            notes: what stands in private/ from the first moment, as `write_private` writes it, by name.

        Raises:
            ConfigError: the directory already holds something.
        """
        directory = cls(path)
        cls.check_free(path)
        # made completely under another name, so that a crash leaves no partial directory at `path`
        try:
            _make_folders(path.parent)
            cls._remove_unfinished(path)
            made = tempfile.mkdtemp(prefix=f".{path.name}{_UNFINISHED}", dir=path.parent)
            scratch = cls(Path(made), shown=path)
            try:
                scratch.private.mkdir(mode=0o700)
                # while it is locked, other processes know that its maker is alive
                with scratch.locked():
                    scratch._fill(plan, guarantee, Origin(secrets.token_hex(8), data, private, model, sample_key))
                    for name, content in (notes or {}).items():
                        scratch.write_private(name, content)
                    scratch.path.rename(path)
            finally:
                shutil.rmtree(scratch.path, ignore_errors=True)
        except OSError as error:
            if error.errno in (errno.ENOTEMPTY, errno.EEXIST):
                raise ConfigError(_IN_USE.format(path)) from None
            raise ConfigError(f"out = {path}: cannot be made ({error.strerror}); choose another directory") from None
        return directory

    @classmethod
    def check_free(cls, path: Path) -> None:
        """Refuses a place where a new run cannot be made.

        Raises:
            ConfigError: a run, other files or a file stand there.
        """
        if os.path.exists(cls(path)._database):
            raise ConfigError(f"out = {path}: holds a run; continue it with --resume, or choose another directory")
        if os.path.isdir(path) and any(path.iterdir()):
            raise ConfigError(_IN_USE.format(path))
        # os.path: names that the system does not take are told when the directory is made
        there = next(place for place in (path, *path.absolute().parents) if os.path.lexists(place))
        if not os.path.isdir(there):
            raise ConfigError(
                f"out = {path}: {there} is a file, or a link that leads nowhere; choose another directory"
            )

    @classmethod
    def _remove_unfinished(cls, path: Path) -> None:
        """Removes what a process left that was killed while it made this directory; nothing was drawn in it."""
        for found in path.parent.glob(f".{glob.escape(path.name)}{_UNFINISHED}*"):
            leftover = cls(found)
            with contextlib.suppress(RunError):  # its maker is at work
                if leftover.private.is_dir():
                    with leftover.locked():
                        shutil.rmtree(found)
                else:
                    shutil.rmtree(found)

    def _fill(self, plan: Plan, guarantee: Guarantee, origin: Origin) -> None:
        self.path.chmod(0o755)
        write_text(self.path / "config.toml", tomli_w.dumps(plan.config.model_dump(mode="json", exclude_none=True)))
        write_json(self.path / "plan.json", plan.as_dict() | {"guarantee": dataclasses.asdict(guarantee)})
        with self._connect() as database:
            # one transaction, so that the disk is waited for once
            database.executescript(f"BEGIN; {SCHEMA} COMMIT;")
            database.execute("INSERT INTO origin VALUES (?, ?, ?, ?, ?)", dataclasses.astuple(origin))
        self._database.chmod(0o600)

    @classmethod
    def open(cls, path: Path) -> Self:
        """An existing run.

        Raises:
            ConfigError: there is none.
        """
        directory = cls(path)
        if not directory._database.exists():
            raise ConfigError(f"{path}: is not a run directory; start one with plainchant run ... --out {path}")
        return directory

    @property
    def config(self) -> SynthesisConfig:
        """The configuration that the run was started with."""
        try:
            return parse_config((self.path / "config.toml").read_text(encoding="utf-8"))
        except (OSError, UnicodeDecodeError):
            raise RunError(f"{self.path / 'config.toml'}: cannot be read; without it the run cannot continue") from None

    @property
    def plan(self) -> dict[str, Any]:
        """The plan that the run was started with, as plain values."""
        try:
            content: dict[str, Any] = json.loads((self.path / "plan.json").read_text(encoding="utf-8"))
            Guarantee(**content["guarantee"])
        except (OSError, ValueError, KeyError, TypeError):
            raise RunError(f"{self.path / 'plan.json'}: cannot be read; without it the run cannot continue") from None
        return content

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """Locks the directory for this process; the lock ends with the process, even when it is killed."""
        try:
            take_lock(self._lock, timeout=_PATIENCE)
        except filelock.Timeout:
            raise RunError(f"{self._shown}: another process is working in this directory; wait for it to end") from None
        except OSError as error:
            raise RunError(
                f"{self._shown}: cannot be locked ({error.strerror}); a run must lie where this process may write and "
                "lock files, such as a local disk"
            ) from None
        try:
            yield
        finally:
            self._lock.release()

    def is_in_use(self) -> bool:
        """Whether another process is working in this directory now."""
        try:
            take_lock(self._lock, timeout=0)
        except filelock.Timeout:
            return True
        except OSError:
            return False  # where nothing can be locked, no run works
        self._lock.release()
        return False

    @contextlib.contextmanager
    def _connect(self) -> Iterator[sqlite3.Connection]:
        try:
            with contextlib.closing(sqlite3.connect(self._database)) as database, database:
                database.execute("PRAGMA synchronous = EXTRA")
                yield database
        except sqlite3.DatabaseError as error:
            if isinstance(error, sqlite3.IntegrityError):
                raise RunError(
                    f"{self.path}: a place that is already filled was written again; nothing was stored"
                ) from None
            # the database's name for the fault, such as SQLITE_FULL or SQLITE_IOERR_WRITE; never its message
            code = getattr(error, "sqlite_errorname", "")
            reason = next((words for name, words in _DATABASE_FAULTS.items() if code.startswith(name)), _DAMAGED)
            raise RunError(f"{self._shown / 'private' / self._database.name}: the run's database {reason}") from None

    @property
    def origin(self) -> Origin:
        """What the run was started with."""
        with self._connect() as database:
            row = database.execute("SELECT name, data, private, model, sample_key FROM origin").fetchone()
        name, data, private, model, sample_key = row
        return Origin(name, data, bool(private), model, sample_key)

    def sample(self) -> Sample | None:
        """The secret sample of units that the run looks at; None where it looks at all of them."""
        key, rate = self.origin.sample_key, self.plan.get("sample_rate", 1.0)
        if key is None and rate == 1:
            return None
        if key is None or len(key) != KEY_BYTES or not isinstance(rate, int | float) or not 0 < rate < 1:
            raise RunError(f"{self.path}: its key and plan.json do not agree on a sample; restore them, or start anew")
        return Sample(key, float(rate))

    def marks(self) -> Marks:
        """The marks of the last opening with a ledger; empty where there was none."""
        with self._connect() as database:
            row = database.execute("SELECT last, next FROM marks").fetchone()
        return Marks(*row) if row else Marks()

    def save_marks(self, marks: Marks) -> None:
        """Replaces the marks; they are on the disk when this returns."""
        with self._connect() as database:
            database.execute("DELETE FROM marks")
            database.execute("INSERT INTO marks VALUES (?, ?)", dataclasses.astuple(marks))

    def note_ledger(self, path: Path) -> None:
        """Notes the ledger's file, before it is charged; what the ledger holds is told by `marks` alone."""
        self.write_private(_PAID_BY, {"path": str(path)})

    def noted_ledger(self) -> Path | None:
        """What `note_ledger` noted last, or None."""
        content = self.read_private(_PAID_BY)
        return None if content is None else Path(str(content.get("path")))

    def save_embeddings(self, embeddings: Float32Array) -> None:
        """Keeps the embeddings of the private records, so that a resumed run does not compute them again.

        Args:
            embeddings: float32 [n, d]; a row of zeros is a record that was not embedded.
        """
        array = np.ascontiguousarray(embeddings)
        with atomic_write(self._embeddings, mode=PRIVATE) as file:
            # as np.save, which hides why the disk refuses an array
            np.lib.format.write_array_header_1_0(file, np.lib.format.header_data_from_array_1_0(array))
            file.write(array.data)

    def embeddings(self) -> Float32Array | None:
        """The kept embeddings, as `save_embeddings` got them, or None.

        Raises:
            RunError: the file cannot be read.
        """
        if not self._embeddings.exists():
            return None
        try:
            embeddings = np.load(self._embeddings)
            if embeddings.ndim != 2 or embeddings.dtype != np.float32 or not np.isfinite(embeddings).all():
                raise ValueError
        except (OSError, EOFError, ValueError, AttributeError):
            raise RunError(
                f"{self._embeddings}: cannot be read; remove it, and the records are embedded again"
            ) from None
        return cast(Float32Array, embeddings)

    # cells, batches and units: written once, together

    def save_batches(
        self,
        cells: Sequence[Cell],
        batches: Sequence[Batch],
        draws: Iterable[Draw],
        *,
        voters: IntArray | None = None,
        rows: AttributeRows | None = None,
    ) -> None:
        """Commits the noisy cells and all secret draws in one transaction: neither is ever made twice."""
        with self._connect() as database:
            database.executemany(
                "INSERT INTO cells VALUES (?, ?, ?, ?, ?)",
                [(number, cell.label, cell.centre, cell.noisy_size, cell.batches) for number, cell in enumerate(cells)],
            )
            database.executemany(
                "INSERT INTO batches VALUES (?, ?, ?, ?, ?)", [dataclasses.astuple(batch) for batch in batches]
            )
            for draw in draws:
                database.executemany("INSERT INTO members VALUES (?, ?, ?, ?)", draw.members())
            if voters is not None:
                database.executemany("INSERT INTO voters VALUES (?)", [(record,) for record in voters.tolist()])
            if rows is not None:
                kinds = rows.schema.attributes
                found = [(name, json.dumps(kinds[name].model_dump()["values"])) for name in self.config.columns.found]
                database.executemany("INSERT INTO found VALUES (?, ?)", found)
                database.executemany(
                    "INSERT INTO attribute_rows VALUES (?, ?, ?, ?)",
                    [
                        (number, row.cell, json.dumps(row.codes), json.dumps(row.values, default=str))
                        for number, row in enumerate(rows.rows)
                    ],
                )

    def is_formed(self) -> bool:
        """Whether cells and batches are drawn."""
        with self._connect() as database:
            return bool(database.execute("SELECT EXISTS (SELECT 1 FROM cells)").fetchone()[0])

    def cells(self) -> list[Cell]:
        """The kept cells. Released under the plan's ρ_rebalance."""
        with self._connect() as database:
            return [Cell(*row[1:]) for row in database.execute("SELECT * FROM cells ORDER BY cell")]

    def batches(self) -> list[Batch]:
        """All batches in order. Public."""
        with self._connect() as database:
            return [Batch(*row) for row in database.execute("SELECT * FROM batches ORDER BY batch")]

    def members(self) -> dict[int, list[tuple[list[int], float]]]:
        """For each batch its contexts in order: their records and what each has paid (guarantee 5.2). Secret."""
        with self._connect() as database:
            rows = database.execute("SELECT batch, records, contexts, spent FROM members ORDER BY batch").fetchall()
        found = {}
        for batch, *columns in rows:
            records, contexts = (np.frombuffer(column, np.int64) for column in columns[:2])
            firsts = np.unique(contexts, return_index=True)[1]
            own = [part.tolist() for part in np.split(records, firsts[1:])]
            found[batch] = list(zip(own, np.frombuffer(columns[2], np.float64).tolist(), strict=True))
        return found

    def attribute_rows(self) -> AttributeRows | None:
        """The synthetic rows that texts are written for; None where the run has no attributes. Released."""
        schema = self.config.columns
        if not schema.attributes:
            return None
        with self._connect() as database:
            found = dict(database.execute("SELECT attribute, found FROM found"))
            rows = database.execute("SELECT cell, codes, shown FROM attribute_rows ORDER BY number").fetchall()
        schema = resolved(schema, {name: json.loads(values) for name, values in found.items()})
        kinds = list(schema.attributes.values())
        return AttributeRows(
            schema,
            [
                AttributeRow(
                    cell,
                    tuple(json.loads(codes)),
                    tuple(kind.revived(value) for kind, value in zip(kinds, json.loads(shown), strict=True)),
                )
                for cell, codes, shown in rows
            ],
        )

    # the votes: each drawn once

    def voters(self) -> IntArray:
        """The records that vote, one for each unit, int64 [n]. Secret."""
        with self._connect() as database:
            rows = database.execute("SELECT record FROM voters ORDER BY record").fetchall()
        return np.array([record for (record,) in rows], dtype=np.int64)

    def save_vote(
        self, number: int, votes: Sequence[tuple[int, int, int, int]], winners: Sequence[Winner], facts: dict[str, Any]
    ) -> None:
        """Commits a vote and its outcome in one transaction: no vote is held twice.

        Args:
            number: of the round, from 0.
            votes: label, batch, position and noisy votes of every cell of the ballot.
            winners: the chosen texts, in order.
            facts: public facts about it, plain values.
        """
        with self._connect() as database:
            database.execute("INSERT INTO ballots VALUES (?, ?)", (number, json.dumps(facts)))
            database.executemany("INSERT INTO votes VALUES (?, ?, ?, ?, ?)", [(number, *entry) for entry in votes])
            database.executemany(
                "INSERT INTO winners VALUES (?, ?, ?, ?, ?)",
                [(number, place, *dataclasses.astuple(winner)) for place, winner in enumerate(winners)],
            )

    def save_words(self, words: Mapping[int, str], votes: Sequence[tuple[int, int, int, int]]) -> None:
        """Commits the noisy count of words in one transaction: it is never drawn twice.

        Args:
            words: the public list, tokens with what they stand for.
            votes: label, token, noisy votes and the public model's own votes of every cell.
        """
        with self._connect() as database:
            database.executemany("INSERT INTO words VALUES (?, ?)", words.items())
            database.executemany("INSERT INTO word_votes VALUES (?, ?, ?, ?)", votes)

    def words(self) -> dict[int, str]:
        """The public list of words, by token; empty where none are counted, or not yet."""
        with self._connect() as database:
            return dict(database.execute("SELECT token, word FROM words ORDER BY token"))

    def word_votes(self) -> IntArray:
        """Noisy votes, and the public model's own, of each label for each of `words`, int64 [labels, words, 2].

        The noisy ones are released under the plan's ρ_words.
        """
        with self._connect() as database:
            rows = database.execute("SELECT votes, expected FROM word_votes ORDER BY label, token").fetchall()
            size = database.execute("SELECT COUNT(*) FROM words").fetchone()[0]
        return np.array(rows, dtype=np.int64).reshape(-1, max(1, size), 2)

    def votes(self, number: int) -> list[tuple[int, int, int, int]]:
        """Label, batch, position and noisy votes of every cell of a round's ballot. Released under its ρ."""
        with self._connect() as database:
            return database.execute(
                "SELECT label, batch, position, votes FROM votes WHERE round = ? ORDER BY label, batch, position",
                (number,),
            ).fetchall()

    def winners(self, number: int) -> list[Winner] | None:
        """The texts that a round's vote has chosen, in order; None where it has not been held."""
        with self._connect() as database:
            if not database.execute("SELECT EXISTS (SELECT 1 FROM ballots WHERE round = ?)", (number,)).fetchone()[0]:
                return None
            rows = database.execute(
                "SELECT label, batch, position FROM winners WHERE round = ? ORDER BY place", (number,)
            ).fetchall()
        return [Winner(*row) for row in rows]

    def facts(self) -> list[dict[str, Any]]:
        """Public facts about the votes held so far, in order."""
        with self._connect() as database:
            rows = database.execute("SELECT facts FROM ballots ORDER BY round").fetchall()
        return [json.loads(facts) for (facts,) in rows]

    # a run that ends before its first token

    def end(self, reason: str) -> None:
        """Marks the run as ended before its first token; it can never continue. On the disk when this returns.

        Raises:
            RunError: a text or a vote was drawn, or batches are there to write from.
        """
        if not self.is_formed() or self.texts() or self.facts() or any(batch.texts for batch in self.batches()):
            raise RunError(f"{self.path}: can continue, so it has not ended before its first token")
        self.write_private(_ENDED, {"reason": reason})

    def ended(self) -> str | None:
        """Why the run has ended before its first token; None where it has not."""
        content = self.read_private(_ENDED)
        return None if content is None else str(content.get("reason"))

    def write_no_more(self) -> None:
        """Marks that no further text is written: votes and the release take those that are there.

        Raises:
            RunError: there is none.
        """
        if not self.texts():
            raise nothing_to_end_with(self.path)
        self.write_private(_NO_MORE, {"texts": len(self.texts())})

    def writes_no_more(self) -> bool:
        """Whether the run was told to write no further text."""
        return self.read_private(_NO_MORE) is not None

    # texts

    def commit(self, text: FinishedText) -> None:
        """Stores a text and its cost in one transaction; refused if the place is already filled."""
        *columns, spent = dataclasses.astuple(text)
        with self._connect() as database:
            database.execute("INSERT INTO texts VALUES (?, ?, ?, ?, ?, ?, ?)", columns)
            if spent:
                paid = np.array(spent, dtype=np.float64).tobytes()
                changed = database.execute(
                    "UPDATE members SET spent = ? WHERE batch = ? AND LENGTH(spent) = ?", (paid, text.batch, len(paid))
                ).rowcount
                if changed != 1:
                    raise RunError(f"{self.path}: a text names another number of contexts than its batch has")

    def texts(self) -> list[FinishedText]:
        """The committed texts, by place."""
        with self._connect() as database:
            rows = database.execute("SELECT * FROM texts ORDER BY batch, position").fetchall()
        return [FinishedText(*row) for row in rows]

    def order_of_release(self, count: int, randomness: RandomSource) -> list[int]:
        """The order of the released rows: drawn uniformly once, and the same ever after.

        Args:
            count: number of rows.
            randomness: the run's source.

        Raises:
            RunError: the kept order cannot be read, or is one of other rows.
        """
        kept = self.read_private(_ORDER)
        if kept is None:
            order = list(range(count))
            for place in range(count - 1, 0, -1):
                other = randomness.below(place + 1)
                order[place], order[other] = order[other], order[place]
            self.write_private(_ORDER, {"order": order})
            return order
        order = kept.get("order", [])
        if not isinstance(order, list) or sorted(map(str, order)) != sorted(map(str, range(count))):
            raise RunError(f"{self.private / _ORDER}: is not the order of this run's rows; put it back as it was")
        return order

    def batch_costs(self) -> list[tuple[int, int, float, float]]:
        """For each batch that has texts: its number, Σ tokens, Σ ε_t and Σ ρ_t. Private."""
        with self._connect() as database:
            return database.execute(
                "SELECT batch, SUM(tokens), SUM(loss), SUM(rho) FROM texts GROUP BY batch ORDER BY batch"
            ).fetchall()

    # what an endpoint is sent

    def log_request(self, entry: Mapping[str, Any]) -> None:
        """Adds a line to the log of requests to an endpoint; it is written when this returns.

        Raises:
            RunError: it cannot be.
        """
        line = json.dumps(entry, ensure_ascii=False).encode() + b"\n"
        try:
            descriptor = os.open(self._requests, os.O_RDWR | os.O_CREAT | os.O_APPEND, PRIVATE)
            with open(descriptor, "r+b", buffering=0) as file:
                end = file.seek(0, os.SEEK_END)
                # a line that a killed process left unfinished ends here
                if end and os.pread(descriptor, 1, end - 1) != b"\n":
                    line = b"\n" + line
                if file.write(line) != len(line):
                    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        except OSError as error:
            raise RunError(
                f"{self._requests}: cannot be written ({error.strerror}), and nothing is sent without being noted "
                f"there; {_GOES_ON}"
            ) from None

    def requests(self) -> Iterator[dict[str, Any]]:
        """The lines of that log, without those that a killed process left unfinished; none where there is no log."""
        if not self._requests.exists():
            return
        with open(self._requests, encoding="utf-8", errors="replace") as file:
            for line in file:
                with contextlib.suppress(ValueError):
                    if isinstance(entry := json.loads(line), dict):
                        yield entry

    def write_private(self, name: str, content: Mapping[str, Any]) -> Path:
        """A JSON file in private/."""
        path = self.private / name
        write_json(path, content, mode=PRIVATE)
        return path

    def read_private(self, name: str) -> dict[str, Any] | None:
        """What `write_private` wrote under this name, or None.

        Raises:
            RunError: the file cannot be read.
        """
        path = self.private / name
        try:
            content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
            if not isinstance(content, dict):
                raise ValueError
        except FileNotFoundError:
            return None
        except (OSError, ValueError):
            raise RunError(f"{path}: cannot be read; write it again with the command that made it") from None
        return content

    def write_page(self, name: str, content: str, *, private: bool) -> Path:
        """A page about the release: in private/ where it shows anything private, else in release/."""
        path = (self.private if private else self.release) / name
        if not private:
            self._check_release(path)
        write_text(path, content, mode=PRIVATE if private else SHARED)
        return path

    def write_release(self, rows: list[dict[str, Any]], guarantee: dict[str, Any], card: str) -> None:
        """Everything that may be shared; no other file is touched.

        Args:
            rows: the rows, with the columns text, label, cell and origin as far as there are any, and attributes.
            guarantee: plain values.
            card: Markdown.

        Raises:
            ConfigError: a path of the release is a link.
        """
        files = ("synthetic.jsonl", "synthetic.parquet", "guarantee.json", "README.md")
        lines, table, promise, page = paths = [self.release / name for name in files]
        self._check_release(*paths)
        date = self.release_date()
        for path in paths:
            remove_leftovers(path)
        config = self.config
        names = config.released_names
        named = [{names.get(column, column): value for column, value in row.items()} for row in rows]
        types = {name: kind.column_type for name, kind in config.columns.attributes.items()}
        write_jsonl(lines, named, mode=SHARED)
        write_parquet(table, named, types=types, mode=SHARED)
        write_json(promise, guarantee, mode=SHARED)
        write_text(page, card, mode=SHARED)
        self.write_private(_SEAL, dataclasses.asdict(Seal(date, {path.name: sha256(path) for path in paths})))

    def release_date(self) -> str:
        """The day on which the release was first written, UTC; today where it has not been."""
        seal = self.read_private(_SEAL)
        return str(datetime.now(UTC).date()) if seal is None else str(seal["date"])

    def sealed_release(self) -> dict[str, bytes]:
        """The files of the release, by name, exactly as they were written.

        Raises:
            ConfigError: the run is not finished.
            RunError: a file is missing, is a link, or differs from its SHA-256.
        """
        seal, files = self.seal(), dict[str, bytes]()
        for name, known in seal.files.items():
            path = self.release / name
            try:
                content = b"" if path.is_symlink() else path.read_bytes()
            except OSError:
                content = b""
            if hashlib.sha256(content).hexdigest() != known:
                raise RunError(
                    f"{path}: is not as the run wrote it (its SHA-256 is not {known}); write it again with "
                    f"plainchant run --data FILE --out {self.path} --resume"
                )
            files[name] = content
        return files

    def is_released(self) -> bool:
        """Whether its release was written, which is what a run does last."""
        return (self.private / _SEAL).exists()

    def seal(self) -> Seal:
        """What the release was when it was written.

        Raises:
            ConfigError: the run is not finished.
            RunError: the record is damaged.
        """
        content = self.read_private(_SEAL)
        if content is None:
            raise ConfigError(
                f"{self.path}: has no release yet; finish it with plainchant run --data FILE --out {self.path} --resume"
            )
        try:
            return Seal(str(content["date"]), {str(name): str(known) for name, known in content["files"].items()})
        except (KeyError, TypeError, AttributeError):
            raise RunError(
                f"{self.private / _SEAL}: cannot be read; remove it, and write the release again with --resume"
            ) from None

    def _check_release(self, *paths: Path) -> None:
        """Makes the folder of the release; refuses links, which would write the shared files somewhere else."""
        for path in (self.release, *paths):
            if path.is_symlink():
                raise ConfigError(f"{path}: is a link; a release is not written through links; remove it and --resume")
        self.release.mkdir(mode=0o755, exist_ok=True)

    def released(self) -> list[dict[str, Any]]:
        """The rows of the release: text, label, cell and origin as far as there are such columns, and attributes.

        Raises:
            ConfigError: the run is not finished.
            RunError: its release is damaged.
        """
        file, config = self.release / "synthetic.jsonl", self.config
        own = {name: column for column, name in config.released_names.items()}
        kinds = config.columns.attributes
        try:
            rows = [
                {
                    own.get(name, name): kinds[name].revived(value) if name in kinds else value
                    for name, value in json.loads(line).items()
                }
                for line in file.read_text(encoding="utf-8").split("\n")
                if line
            ]
            if not all((isinstance(row.get("text"), str) or not config.has_text) and "cell" in row for row in rows):
                raise ValueError
        except (ValueError, AttributeError, TypeError):
            raise RunError(
                f"{file}: is not as it was written; write it again with plainchant run --data FILE --out {self.path} "
                "--resume"
            ) from None
        except OSError:
            if (reason := self.ended()) is not None:
                raise ConfigError(
                    f"{self.path}: has no release and will have none ({reason}); start a new run"
                ) from None
            raise ConfigError(
                f"{self.path}: has no release yet; finish it with plainchant run --data FILE --out {self.path} --resume"
            ) from None
        return rows
