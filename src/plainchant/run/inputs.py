"""What a run reads: the private table, the public corpus, and whether they are what they are declared to be."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from plainchant.config import SynthesisConfig
from plainchant.data.centres import Centres
from plainchant.data.overlap import Overlap, check_public_files, check_public_inputs
from plainchant.data.raw import Dialect, Readers
from plainchant.data.sample import Sample
from plainchant.data.tables import Record, read_records, read_texts


def read_table(
    source: Any, config: SynthesisConfig, sample: Sample | None = None, readers: Readers | None = None
) -> list[Record]:
    """The private table by the columns that a configuration names (see `data.tables.read_records`).

    Args:
        source: the table. Of a list of records only those in the sample are taken; read once more, a unit's id that was
            not a string would become another.
        config: names the columns.
        sample: the secret sample of its units; None: all of them.
        readers: read the files of a directory at the same time; None: one after the other.
    """
    if isinstance(source, list) and source and all(isinstance(record, Record) for record in source):
        return source if sample is None else [source[row] for row in sample.of([record.unit for record in source])]
    return read_records(
        source,
        text_column=config.text_column if config.has_text else None,
        label_column=config.label_column,
        unit_column=config.unit_column,
        labels=config.labels,
        schema=config.columns,
        dialect=Dialect(config.encoding, config.separator, config.allow_malformed),
        sample=sample,
        readers=readers,
    )


def read_corpus(config: SynthesisConfig) -> Centres | Sequence[str] | None:
    """What to cluster around: saved centres, public texts, or None for texts to be sampled (guarantee 2.1)."""
    if config.centres_file is not None:
        return Centres.load(Path(config.centres_file))
    if config.public_corpus is None:
        return None
    return read_texts(config.public_corpus, text_column=config.public_text_column)


def public_inputs(
    source: Any, table: Sequence[Record], config: SynthesisConfig, *, clustered: bool
) -> Centres | Sequence[str] | None:
    """What to cluster around (see `read_corpus`), once no public input is the private table.

    Args:
        source: where the table came from.
        table: its records.
        config: names the files.
        clustered: whether there is anything to cluster; None is returned otherwise.

    Raises:
        PrivacyError: the public corpus, the centres, the examples or a template are private (see `data.overlap`).
    """
    if clustered:
        # before anything is read from them
        check_public_files(source, public_corpus=config.public_corpus, centres=config.centres_file)
    corpus = read_corpus(config) if clustered else None
    refuse_private_inputs(source, table, corpus, config)
    return corpus


def refuse_private_inputs(
    source: Any, table: Sequence[Record], corpus: Centres | Sequence[str] | None, config: SynthesisConfig
) -> Overlap:
    """Refuses a configuration whose public inputs are the private table (see `data.overlap`).

    Args:
        source: where the table came from.
        table: its records.
        corpus: from `read_corpus`; None where nothing is clustered.
        config: names the files.
    """
    texts = [] if corpus is None or isinstance(corpus, Centres) else corpus
    return check_public_inputs(
        source,
        table,
        public_corpus=config.public_corpus if texts else None,
        corpus=texts,
        examples=[example.text for example in config.prompt.examples],
        templates={
            f"prompt.{name}": template
            for name in ("header", "example", "chat")
            if (template := getattr(config.prompt, name)) is not None
        },
        centres=config.centres_file if isinstance(corpus, Centres) else None,
    )
