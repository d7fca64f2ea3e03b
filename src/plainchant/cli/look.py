"""Commands before a run, which cost nothing: check, preview."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from plainchant.cli.console import Console
from plainchant.cli.options import command, formatted, option, with_configuration, with_performance
from plainchant.config import PerformanceOptions, SynthesisConfig
from plainchant.errors import ConfigError

if TYPE_CHECKING:
    from plainchant.data.survey import Lengths, Survey

PRIVATE_NOTE = (
    "these figures are exact counts of the private data, and no guarantee covers them: they are for you alone. Nothing "
    "was spent, and nothing was written"
)
# Rows of a table that are shown; with --verbose all of them.
_SHOWN = 20


@command()
@formatted
@option(
    "--data",
    type=click.Path(path_type=Path),
    metavar="FILE",
    required=True,
    group="Data",
    help="The private table: JSONL, CSV, Parquet or a datasets directory.",
)
@with_configuration
def check(console: Console, config: SynthesisConfig, data: Path) -> None:
    """Look at a private table before anything is spent: columns, labels, units, lengths. Writes nothing.

    \b
    plainchant check --data FILE
    plainchant check CONFIG --data FILE
    plainchant check --data FILE --text-column body --label-column kind --labels bug,billing

    Its figures are exact and private: no guarantee covers them. Exit code 2 where the configuration does not fit the
    table, such as a label that no row has.
    """
    from plainchant.run.checking import check as examine

    with console.progress() as progress:
        progress.stage("reading the table", 0.0)
        found = examine(data, config)
        progress.stage("reading the table", 1.0)
    console.warn(PRIVATE_NOTE)
    _show(console, found, config)
    console.result({"note": PRIVATE_NOTE, **found.as_dict()}, "not ok" if found.problems else "ok")
    if found.problems:
        # what they say is private: it stands in the table above, and not in the error, which may be logged
        raise ConfigError("check: what is to mend is named above; then check again")


def _show(console: Console, found: "Survey", config: SynthesisConfig) -> None:
    most = len(found.labels) + len(found.others) if console.verbose else _SHOWN
    console.grid(
        ("column", "type", "without value", "different values", "could be"),
        [
            (facts.name, facts.kind, facts.missing, f"{facts.different:,}", ", ".join(facts.could_be) or "–")
            for facts in found.columns
        ],
    )
    console.say(
        "could be: what the values would do for. text: --text-column; label: --label-column, with --labels; unit: "
        "--unit-column, whom the guarantee protects; attribute: a column that comes back beside the text, in [columns]"
    )
    console.table("\nTable", _rows(found, config))
    if found.labels:
        console.say("")
        by_unit = any(facts.units is not None for facts in found.labels)
        console.grid(
            ("label", "rows", *["about so many units"] * by_unit, "of them written otherwise"),
            [
                (facts.label, f"{facts.rows:,}", *[f"{facts.units or 0:,.0f}"] * by_unit, _written(facts.written))
                for facts in found.labels[:most]
            ],
        )
    if found.others:
        console.table(
            "\nIn the label column, and not among the labels (their rows take no part)",
            [(repr(name), f"{count:,} rows") for name, count in list(found.others.items())[:most]],
        )
    for title, lines in (("to mend", found.problems), ("notes", found.notes)):
        if lines:
            console.table("\n", [(title if place == 0 else "", line) for place, line in enumerate(lines)])
    left = max(0, len(found.labels) - most) + max(0, len(found.others) - most)
    if left:
        console.table("", [("", f"{left} more; -v shows all")])


def _rows(found: "Survey", config: SynthesisConfig) -> list[tuple[str, Any]]:
    rows: list[tuple[str, Any]] = [("rows", f"{found.rows:,}")]
    if found.malformed:
        rows.append(("malformed rows", f"{found.malformed:,} (read as empty records)"))
    if found.empty is not None:
        rows += [("rows without text", f"{found.empty:,}"), ("repeated texts", f"{found.duplicates:,}")]
    if found.lengths is not None:
        rows += _length_rows(found.lengths, found.rows, config)
    if config.label_column:
        rows.append(("rows without label", f"{found.unlabelled:,}"))
    if found.units is not None:
        rows.append(("units", _units(found, config)))
    return rows


def _length_rows(lengths: "Lengths", rows_read: int, config: SynthesisConfig) -> list[tuple[str, Any]]:
    of = f", of {lengths.measured:,} rows drawn at random" if lengths.measured < rows_read else ""
    rows: list[tuple[str, Any]] = [
        (
            "length of a text",
            f"half have up to {lengths.median:.0f} {lengths.unit}, nine in ten up to {lengths.high:.0f}{of}",
        )
    ]
    if lengths.cut is not None:
        cut = f"{lengths.cut:.1%} of the rows: a record is read up to max_record_tokens = {config.max_record_tokens}"
        rows.append(("cut", cut))
    return rows


def _units(found: "Survey", config: SynthesisConfig) -> str:
    if config.unit_column is None:
        return f"{found.units:,}: every row by itself; name a column with --unit-column to protect whole customers"
    said = f"{found.units:,} by {config.unit_column!r}, with {found.median_records:g} rows each in the median and "
    said += f"{found.most_records:,} at most; of each, one row is used"
    return said + (f"; {found.without_id:,} rows have no id and are units by themselves" if found.without_id else "")


def _written(written: Any) -> str:
    return ", ".join(f"{name!r} {count:,}" for name, count in list(written.items())[:5])


@command()
@formatted
@option(
    "--number",
    type=click.IntRange(1, 1000),
    metavar="1<=N<=1000",
    default=10,
    group="Output",
    help="Number of texts to write.  [default: 10]",
)
@with_configuration
@with_performance
def preview(console: Console, config: SynthesisConfig, number: int, performance: PerformanceOptions) -> None:
    """Write a few texts by the public model with these prompts. Reads no private data: ε = 0, nothing is spent.

    \b
    plainchant preview CONFIG
    plainchant preview CONFIG --number 20 --temperature 0.8

    Use it to work on [prompt] and its examples for nothing. A run shows private records to the model as well, so its
    texts are closer to your data than these.
    """
    from plainchant.run.preview import preview as write

    with console.progress(max_tokens=config.max_tokens) as progress:
        texts = write(config, texts=number, performance=performance, progress=progress)
    for text in texts:
        console.say(f"  {f'[{text.label}] ' if text.label else ''}{text.text}")
    console.say(
        "\nWritten by the public model alone; no data was read (ε = 0). Next: change [prompt] and its examples until "
        "form and language are right, then plainchant plan"
        + (". The columns beside the text come with a run" if config.columns.attributes else "")
    )
    rows = [{"label": text.label, "text": text.text} for text in texts]
    console.result({"epsilon": 0.0, "texts": rows}, "\n".join(text.text.replace("\n", " ") for text in texts))
