"""Evaluation of runs on disk."""

import dataclasses
import functools
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from plainchant.config import SynthesisConfig
from plainchant.data.centres import Centres
from plainchant.data.embedding import Embedder, in_public_steps, load_embedder
from plainchant.data.tables import Record, fingerprint
from plainchant.errors import ConfigError, DataError, DataNote
from plainchant.evaluation.figures import Evaluation
from plainchant.evaluation.measures import Sample, measure
from plainchant.evaluation.tables import CodedRows, coded, measure_table, measure_text
from plainchant.privacy.histograms import WHOLE_LABEL
from plainchant.run.inputs import read_table
from plainchant.run.promise import promise_of
from plainchant.run.store import RunDirectory

# Maximum number of real texts that are used.
REAL_LIMIT = 5_000

UNLIKE = (
    "the runs differ in their columns or labels: only runs on the same columns of one table can be compared, some of "
    "which may have read its text alone or its attributes alone"
)


# runs on disk


def centres_of(directory: RunDirectory, config: SynthesisConfig) -> Centres | None:
    """The public centres of a run; None where it has none."""
    if config.centres_file is not None:
        return Centres.load(Path(config.centres_file))
    return Centres.load(directory.centres) if directory.centres.exists() else None


def real_sample(
    directories: Sequence[RunDirectory],
    source: Any,
    embedder: Embedder | None,
    *,
    limit: int = REAL_LIMIT,
    progress: Callable[[float], None] | None = None,
) -> Sample:
    """Real texts with labels and embeddings; embeddings that a run has saved are reused.

    Args:
        directories: runs with the same columns and label set.
        source: the real table (see `data.read_records`).
        embedder: embeds the texts whose embeddings were not saved; None where there is no text.
        limit: use at most this many texts, drawn at random.
        progress: receives the share of texts embedded.

    Raises:
        DataError: the table cannot be read, or the runs' columns or label sets differ.

    Warns:
        DataNote: a run was made from another table.
    """
    configs = [directory.config for directory in directories]
    config = configs[0]
    if any(_columns(own) != _columns(config) for own in configs):
        raise DataError(UNLIKE)
    # what the run did not look at is not read here either, so that a large table needs no more memory
    records = read_table(source, config, directories[0].sample())
    usable = [number for number, record in enumerate(records) if _usable(record, config)]
    chosen = np.random.default_rng(0).permutation(np.array(usable, dtype=np.int64))[:limit]
    texts, labels = [records[number].text for number in chosen], [records[number].label for number in chosen]
    attributes = [records[number].attributes for number in chosen] if config.columns.attributes else ()
    data = fingerprint(records)
    _note_other_table(directories, data)
    if embedder is None or not config.has_text:
        return Sample(texts, labels, np.empty((len(texts), 0)), attributes)
    same = (
        directory.embeddings()
        for directory, own in zip(directories, configs, strict=True)
        if own.embedder == embedder.name and directory.origin.data == data
    )
    kept = next((vectors for vectors in same if vectors is not None), None)
    steps = None if progress is None else in_public_steps(progress)
    if kept is None:
        return Sample(texts, labels, embedder.encode(texts, progress=steps), attributes)
    vectors = kept[chosen]
    # of a unit with several records the run has embedded one
    lacking = np.flatnonzero(~vectors.any(axis=1))
    if len(lacking):
        vectors[lacking] = embedder.encode([texts[place] for place in lacking], progress=steps)
    return Sample(texts, labels, vectors, attributes)


def _note_other_table(directories: Sequence[RunDirectory], data: str) -> None:
    """Warns of the runs that were made from another table; those of another sample cannot be told apart."""
    sample = directories[0].sample()
    for directory in directories:
        if directory.config.reads_records and directory.sample() == sample and directory.origin.data != data:
            note = f"real: is not the table that {directory.path} was made from; what is shown is of another one"
            warnings.warn(DataNote(note), stacklevel=4)


def released_sample(rows: Sequence[Mapping[str, Any]], embedder: Embedder) -> Sample:
    """Rows of a release (`RunDirectory.released`) with their embeddings."""
    texts = [row["text"] for row in rows]
    return Sample(texts, [row.get("label") for row in rows], embedder.encode(texts))


def _columns(config: SynthesisConfig) -> tuple[Any, ...]:
    return config.has_text, config.text_column, config.label_column, config.unit_column, config.labels, config.columns


def _by_columns(directories: Sequence[RunDirectory]) -> list[list[RunDirectory]]:
    """Runs on one table, those with the same columns together; some may have read the text alone, or columns alone."""
    groups: list[list[RunDirectory]] = []
    for directory in directories:
        alike = (group for group in groups if _columns(group[0].config) == _columns(directory.config))
        if (group := next(alike, None)) is None:
            groups.append([directory])
        else:
            group.append(directory)
    configs = [group[0].config for group in groups]
    shared = [(own.label_column, own.unit_column, own.labels) for own in configs]
    texts = [(own.text_column, own.columns.text, own.columns.message) for own in configs if own.has_text]
    attributes = [own.columns.attributes for own in configs if own.columns.attributes]
    if any(values != own[0] for own in (shared, texts, attributes) for values in own):
        raise DataError(UNLIKE)
    return groups


def _usable(record: Record, config: SynthesisConfig) -> bool:
    written = bool(record.text.strip()) or not config.has_text
    return written and (not config.labels or record.label in config.labels)


def evaluate(
    run: Any,
    real: Any,
    *,
    embedder: Embedder | None = None,
    size: int | None = None,
    limit: int = REAL_LIMIT,
    progress: Callable[[float], None] | None = None,
    public: Any = None,
    measuring: Callable[[float], None] | None = None,
) -> Evaluation:
    """Compares a run's release with real text. Reads private data; the figures are private.

    Args:
        run: a `Run`, a `FinishedRun`, a `RunDirectory` or a path.
        real: the real table (see `data.read_records`), or a `Sample`.
        embedder: a loaded embedder, used instead of the run's.
        size: maximum number of texts on each side of a comparison.
        limit: use at most this many real texts, drawn at random.
        progress: receives the share of real texts embedded.
        public: a run of the same configuration with the public method, whose figures stand beside; None for none.
        measuring: receives the share of the figures computed.

    Raises:
        ConfigError, DataError: there is no such run, no release, no such table, or too few texts.
    """
    directory = directory_of(run)
    config = directory.config
    # before anything is embedded, which may take minutes
    rows = [row for row in directory.released() if not config.has_text or row["text"].strip()]
    if config.has_text:
        embedder = embedder or load_embedder(config.embedder)
    if not isinstance(real, Sample):
        real = real_sample([directory], real, embedder, limit=limit, progress=progress)
    coded_rows = _coded_rows(directory, config, rows, real)
    if embedder is None or not config.has_text:
        return Evaluation(
            {"attributes": measure_table(*coded_rows, size=size)} if coded_rows else {}, len(rows), len(rows), len(real)
        )
    synthetic = released_sample(rows, embedder)
    beside = None if public is None else _public_sample(public, config, embedder)
    cells, centres = directory.cells(), centres_of(directory, config)
    nearest = own = None
    if centres is not None and centres.vectors.shape[1] != synthetic.vectors.shape[1]:
        centres = None  # vectors of another embedder than the run's are near to none of its centres
    if centres is not None and any(cell.centre != WHOLE_LABEL for cell in cells):
        own = np.array([cells[row["cell"]].centre for row in rows], dtype=np.int64)
        among = np.unique([cell.centre for cell in cells if cell.centre != WHOLE_LABEL])
        nearest = centres.nearest(synthetic.vectors, among)
    found = measure(
        synthetic, real, names=config.labels, nearest=nearest, own=own, size=size, public=beside, progress=measuring
    )
    if coded_rows is None:
        return found
    tables = {
        "attributes": measure_table(*coded_rows, size=size),
        "attributes and text": measure_text(synthetic, coded_rows[0], real, coded_rows[1], size=size),
    }
    return dataclasses.replace(found, groups={**found.groups, **tables})


def _coded_rows(
    directory: RunDirectory, config: SynthesisConfig, rows: Sequence[Mapping[str, Any]], real: Sample
) -> tuple[CodedRows, CodedRows] | None:
    """The released and the real rows by their codes, labels first; None where there are no attributes."""
    own = directory.attribute_rows()
    if own is None:
        return None
    schema = own.schema
    names, sizes = list(schema.attributes), [kind.size for kind in schema.attributes.values()]
    readers = {name: kind.reader() for name, kind in schema.attributes.items()}
    released = [schema.codes_of([read(row.get(name)) for name, read in readers.items()]) for row in rows]
    truth = [schema.codes_of(attributes) for attributes in real.attributes]
    if config.labels:
        index = {label: number for number, label in enumerate(config.labels)}
        names, sizes = [config.label_column or "label", *names], [len(index), *sizes]
        released = [(index[row["label"]], *codes) for row, codes in zip(rows, released, strict=True)]
        truth = [(index[label or ""], *codes) for label, codes in zip(real.labels, truth, strict=True)]
    return coded(names, sizes, released), coded(names, sizes, truth)


def _public_sample(run: Any, config: SynthesisConfig, embedder: Embedder) -> Sample:
    """The texts of a run that read no private data."""
    directory = directory_of(run)
    own = directory.config
    if own.reads_records:
        raise ConfigError(f"public = {directory.path}: was made by method = {own.method.value}; give one by public")
    if own.labels != config.labels:
        raise ConfigError(
            f"public = {directory.path}: has labels = {list(own.labels)}; give a run with those of this one"
        )
    return released_sample([row for row in directory.released() if row["text"].strip()], embedder)


@dataclass(frozen=True)
class Compared:
    """One run of a comparison.

    Attributes:
        name: the name of its directory.
        method: its preset.
        ex_ante: ε that was known before the run; None where there is none.
        ex_post: ε measured after the run, for its data and output; private and not promised; None where ε was promised.
        delta: δ of both.
        tokens: released tokens.
        evaluation: its figures, at the same number of texts as the others.
    """

    name: str
    method: str
    ex_ante: float | None
    ex_post: float | None
    delta: float
    tokens: int
    evaluation: Evaluation

    def as_dict(self) -> dict[str, Any]:
        """Plain values, for comparison.json."""
        return dataclasses.asdict(self)


def compare(
    runs: Sequence[Any],
    real: Any,
    *,
    embedder: Embedder | None = None,
    limit: int = REAL_LIMIT,
    progress: Callable[[float], None] | None = None,
) -> list[Compared]:
    """Several runs against the same real texts, each with as many texts as the smallest of them. Private.

    Args:
        runs: as for `evaluate`, at least one, on the same table.
        real: the real table (see `data.read_records`).
        embedder: a loaded embedder, used instead of the runs'.
        limit: use at most this many real texts, drawn at random.
        progress: receives the share of the work done.

    Raises:
        ConfigError, DataError: as `evaluate`; or the runs were made with different columns, labels or embedders. A run
            on the text alone may stand beside one with attributes.
    """
    directories = [directory_of(run) for run in runs]
    groups = _by_columns(directories)
    names = {directory.config.embedder for directory in directories if directory.config.has_text}
    if len(names) > 1:
        raise ConfigError(f"embedder: {', '.join(sorted(names))}; compare runs that were made with the same one")
    size = min(
        sum(not directory.config.has_text or bool(row["text"].strip()) for row in directory.released())
        for directory in directories
    )
    if names:
        embedder = embedder or load_embedder(names.pop())
    steps, found = len(directories) + 1, []
    samples: dict[Path, Sample] = {}

    def embedding(done: int, share: float) -> None:
        if progress is not None:
            progress((done + share) / len(groups) / steps)

    for done, group in enumerate(groups):
        own_progress = functools.partial(embedding, done)
        sample = real_sample(group, real, embedder, limit=limit, progress=own_progress)
        samples |= {directory.path: sample for directory in group}
    for done, directory in enumerate(directories, start=2):
        own = evaluate(directory, samples[directory.path], embedder=embedder, size=size)
        guarantee, costs = promise_of(directory), directory.read_private("costs.json")
        found.append(
            Compared(
                name=directory.path.name,
                method=guarantee.method,
                ex_ante=guarantee.epsilon if guarantee.kind == "ex-ante" else None,
                ex_post=costs["ex_post"]["epsilon"] if costs and guarantee.kind == "ex-post" else None,
                delta=directory.config.delta,
                tokens=sum(text.tokens for text in directory.texts()),
                evaluation=own,
            )
        )
        if progress is not None:
            progress(done / steps)
    return found


def directory_of(run: Any) -> RunDirectory:
    """The directory of a run, given in any of the accepted ways."""
    if isinstance(run, RunDirectory):
        return run
    own = getattr(run, "directory", None)
    if isinstance(own, RunDirectory):
        return own
    if not isinstance(run, (str, Path)):
        raise ConfigError(f"run: {type(run).__name__} is not a run, a RunDirectory or a path; give one of these")
    return RunDirectory.open(Path(run))
