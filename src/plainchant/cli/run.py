"""Commands of a run: init, plan, run, status."""

import contextlib
import dataclasses
import time
from pathlib import Path
from typing import Any

import click

from plainchant.cli import resuming
from plainchant.cli.console import Console
from plainchant.cli.options import (
    OPTION_NAMES,
    command,
    formatted,
    option,
    plain_default,
    value_type,
    with_configuration,
    with_performance,
)
from plainchant.config import PerformanceOptions, PromptConfig, SynthesisConfig, group_of
from plainchant.data.files import write_text
from plainchant.data.schema import Schema
from plainchant.errors import ConfigError
from plainchant.planning import Plan, make_plan
from plainchant.privacy.accounting import Cost


@command()
@click.argument("file", metavar="[FILE]", type=click.Path(path_type=Path), default=Path("plainchant.toml"))
@formatted
def init(console: Console, file: Path) -> None:
    """Write a commented configuration file (default plainchant.toml)."""
    if file.exists():
        raise ConfigError(f"FILE = {file}: exists already; choose another name")
    try:
        write_text(file, _template())
    except OSError as error:
        raise ConfigError(
            f"FILE = {file}: cannot be written ({error.strerror}); choose a directory that you may write to"
        ) from None
    console.say(f"wrote {file}; next: plainchant plan {file}")
    console.result({"file": str(file)}, str(file))


def _template() -> str:
    lines = [
        "# plainchant configuration. Everything here is public: copy nothing into it from the private data.",
        "# A line that is commented out shows the default. The command line and the environment replace this file.",
        "",
    ]
    section = ""
    for name in OPTION_NAMES:
        field = SynthesisConfig.model_fields[name]
        if group_of(name) != section:
            section = group_of(name)
            lines += [f"# ---- {section} ----", ""]
        lines += [f"# {line}" for line in (field.description or "").splitlines()]
        lines += [f"# {name} = {_toml_value(name, field)}", ""]
    lines += [
        "# ---- Columns beside the text ----",
        "",
        "# [columns]",
        f"# {(Schema.model_fields['text'].description or '')}",
        '# text = "{subject}\\n\\n{body}"',
        "",
        "# [columns.attributes.product]",
        '# type = "category"  # category, number, date, boolean',
        '# values = ["…", "…"]  # a public list; number: cuts = [0, 10, 100]; date: first, last and grain',
        "",
        "# ---- Prompt ----",
        "",
        "# [prompt]",
        "",
    ]
    for name, field in PromptConfig.model_fields.items():
        lines += [f"# {field.description}"]
        if name != "examples":
            lines += [f"# {name} = {_toml_value(name, field)}", ""]
    lines += ["# [[prompt.examples]]", '# label = "…"', '# text = "…"', ""]
    return "\n".join(lines)


def _toml_value(name: str, field: Any) -> str:
    """A field's default as TOML, with the choices where there are some."""
    kind, _ = value_type(name, field)
    words = list(kind.choices) if isinstance(kind, click.Choice) else []
    choices = f"  # {', '.join(words)}" if words else ""
    if field.default is None:
        return f'"{words[0]}"{choices}; unset: set by the method' if words else "…  # unset"
    if isinstance(field.default, tuple):
        return "[]"
    value = plain_default(field.default)
    return value if isinstance(field.default, int | float) else f'"{value}"{choices}'


@command()
@formatted
@option(
    "--measure",
    "trial",
    is_flag=True,
    group="Output",
    help="Load the model and try it on public text: how strongly a record influences it, how long the run takes here.",
)
@with_configuration
@with_performance
def plan(console: Console, config: SynthesisConfig, trial: bool, performance: PerformanceOptions) -> None:
    """Show what a run would guarantee, release and need. Reads no private data.

    \b
    plainchant plan CONFIG
    plainchant plan CONFIG --epsilon 4 --texts 500
    plainchant plan CONFIG --public-corpus FILE --measure
    """
    decided = make_plan(config)
    texts = _public_texts(decided) if trial else []
    show_plan(console, decided)
    document = decided.as_dict()
    if trial:
        document["measured"] = _measured(console, decided, texts, performance)
    console.result(document, decided.guarantee.statement)


def _public_texts(plan: Plan) -> list[str]:
    """Texts for a trial: the public corpus, or else the hand-written examples."""
    from plainchant.data.tables import read_texts

    config = plan.config
    texts = [example.text for example in config.prompt.examples]
    if config.public_corpus:
        texts = read_texts(config.public_corpus, text_column=config.public_text_column)[: plan.settings.batch_size]
    if not texts:
        raise ConfigError(
            "measure: needs public text; name a corpus with --public-corpus FILE, or write prompt.examples"
        )
    return texts


def _measured(console: Console, plan: Plan, texts: list[str], performance: PerformanceOptions) -> dict[str, float]:
    """A trial on public texts."""
    from plainchant import models
    from plainchant.run.tuning import measure

    config = plan.config
    found = measure(plan, models.load(config.model, performance), texts, rows=performance.width)
    rows: list[tuple[str, Any]] = [
        ("range", f"{found.expected_range:.3g} nats on public text, for expected_range = {config.expected_range:g}"),
        ("tokens per text", f"{found.tokens_per_text:.3g}"),
        ("time", f"about {found.seconds:.0f} seconds to write the texts, plus loading and embedding"),
    ]
    console.table("Measured", rows)
    return dataclasses.asdict(found)


def show_plan(console: Console, plan: Plan) -> None:
    """A plan for people."""
    config, settings, guarantee = plan.config, plan.settings, plan.guarantee
    for note in plan.notes:
        console.warn(note)
    mechanism, requested = plan.mechanism, config.released if config.votes else config.texts
    rows: list[tuple[str, Any]] = [
        ("guarantee", guarantee.statement),
        ("method", f"{config.method.value}: clusters {config.parts.clusters}, {config.parts.aggregate} of "
                   f"{settings.clipping}, support {settings.support}, accounting {config.parts.accounting}"),
        ("unit, relation", f"{guarantee.unit}, add or remove one unit"),
        ("batch size", settings.batch_size),
        ("clip, temperature", f"{settings.clip:.4g} nats, {settings.temperature:g}"),
        ("texts", f"{requested}, at most {_count(config.max_tokens, 'token')} each"),
    ]  # fmt: skip
    if not config.has_text:
        rows = [rows[0], ("method", config.method.value), rows[2], ("rows", requested)]
    if config.columns.attributes:
        found = f", {plan.table.delta:.3g} of δ to find values" if plan.table.delta else ""
        rows.append(("attributes", f"{len(config.columns.attributes)} for ρ = {plan.table.rho:.4g}{found}"))
    if not config.has_text:
        console.table("Plan", rows)
        return
    rows_per_token = settings.batch_size * config.written + config.further
    if config.votes:
        rows += [
            ("candidates", f"{config.written} written from records, {config.further} by the public model"),
            ("votes", f"{config.parts.rounds} of ρ = {plan.rho_round:.4g} each; the private records vote for "
                      f"{config.released} of them"),
        ]  # fmt: skip
    rows += mechanism.plan_rows()
    if plan.texts_per_batch is not None:
        rows += [
            (
                "texts per batch",
                f"{plan.texts_per_batch} (the budget covers {mechanism.about}{_count(plan.tokens_per_batch, 'token')})",
            ),
            (
                "data needed",
                f"about {plan.units_needed} units in {_count(plan.batches_needed, 'batch', 'batches')} of "
                f"{settings.batch_size}",
            ),
        ]
    rows += [
        ("ρ", f"{plan.rho_counts:.4g} for noisy counts, {_figure(plan.batch)} for the tokens of a batch, "
              f"{mechanism.about}{_figure(mechanism.per_token)} per token"),
        ("model rows", f"{rows_per_token * config.max_tokens:,} at most, plus prompts"),
    ]  # fmt: skip
    console.table("Plan", rows)


def _count(number: int | None, one: str, many: str = "") -> str:
    return f"{number} {one if number == 1 else many or one + 's'}"


def _figure(cost: Cost) -> str:
    return f"{cost.rho:.4g}" if cost.is_limited else "–"


@command()
@option(
    "--data",
    type=click.Path(path_type=Path),
    metavar="FILE",
    group="Data",
    help="The private table: JSONL, CSV, Parquet or a datasets directory.",
)
@option(
    "--out",
    type=click.Path(path_type=Path),
    metavar="DIR",
    required=True,
    group="Output",
    help="Directory of the run: a new one, or with --resume the one to continue.",
)
@option("--resume", is_flag=True, group="Output", help="Continue the run in --out.")
@formatted
@option(
    "--ledger",
    type=click.Path(path_type=Path),
    metavar="FILE",
    group="Guarantee",
    help="Ledger of the data set (see plainchant account --ledger): a run that would exceed its cap is refused.",
)
@option(
    "--i-know-this-is-not-private",
    "not_private",
    is_flag=True,
    group="Guarantee",
    help="Allow a run without a guarantee, and its release.",
)
@with_configuration
@with_performance
def run(
    console: Console,
    config: SynthesisConfig,
    data: Path | None,
    out: Path,
    resume: bool,
    not_private: bool,
    ledger: Path | None,
    performance: PerformanceOptions,
) -> None:
    """Write synthetic texts from a private table into a run directory.

    \b
    plainchant run CONFIG --data FILE --out DIR
    plainchant run --resume --data FILE --out DIR

    Texts are stored one by one: --resume continues a run that was interrupted or killed, and takes the configuration
    that the run was started with. DIR/release may be shared, DIR/private must not.
    """
    from plainchant.run.store import RunDirectory

    with contextlib.ExitStack() as resources:
        if resume:
            # the configuration's relative paths start where the run was started, the command line's where we are
            out = out.absolute()
            data, ledger = (None if path is None else path.absolute() for path in (data, ledger))
            resources.enter_context(resuming.where_begun(RunDirectory.open(out)))
        execute(
            console,
            make_plan(config),
            data,
            out,
            resume=resume,
            not_private=not_private,
            ledger=ledger,
            performance=performance,
        )


def execute(
    console: Console,
    plan: Plan,
    data: Any,
    out: Path,
    *,
    resume: bool = False,
    not_private: bool = False,
    ledger: Path | None = None,
    performance: PerformanceOptions | None = None,
    samples: int = 0,
) -> list[str]:
    """Runs a plan with progress, shows the outcome and returns the texts."""
    from plainchant.run.synthesis import synthesize

    began = time.monotonic()
    performance = performance or PerformanceOptions()
    options = {"ledger": ledger, "i_know_this_is_not_private": not_private}
    resuming.note_resumable(
        out,
        ["plainchant", "run", "--resume"],
        {"data": data, "out": out} | options | resuming.set_performance(performance),
    )
    with (
        # what is wrong with data, configuration or model is said first, and then there is no plan to show
        console.progress(first=lambda: show_plan(console, plan)) as progress,
        synthesize(
            data,
            plan,
            out=out,
            resume=resume,
            performance=performance,
            allow_not_private=not_private,
            ledger=ledger,
            progress=progress,
        ) as run,
    ):
        resuming.note_where(run.directory)
        texts = run.finish()
    if run.requested < plan.config.written:
        console.warn(
            f"{run.requested} of {plan.config.written} texts from records: by the noisy counts, the data has too few "
            "batches for more. A larger ε, shorter texts or fewer centres allow more"
        )
    if samples:
        console.say(f"\n{samples} of the {len(texts)} texts:")
        step = max(1, len(texts) // samples)
        for text in texts[::step][:samples]:
            console.say(f"  {f'[{text.label}] ' if text.label else ''}{text.text}")
    console.table(
        "\nDone",
        [
            ("guarantee", run.guarantee.statement),
            ("texts" if plan.config.has_text else "rows", f"{len(texts)} in {time.monotonic() - began:.0f} seconds"),
            ("to share", f"{out / 'release'} (synthetic.jsonl, synthetic.parquet, README.md, guarantee.json)"),
            ("keep private", f"{out / 'private'}"),
        ],
    )
    console.result(
        {"out": str(out), "texts": len(texts), "guarantee": dataclasses.asdict(run.guarantee)}, str(out / "release")
    )
    return [text.text for text in texts]


@command()
@click.argument("directory", metavar="DIR", type=click.Path(path_type=Path))
@formatted
def status(console: Console, directory: Path) -> None:
    """Show what a run has done, what it has spent, and what is left.

    The measured cost is private: it depends on the data.
    """
    from plainchant.run.card import EX_POST_NOTE, vote_in_words
    from plainchant.run.costs import realised_costs
    from plainchant.run.promise import checked_promise
    from plainchant.run.store import RunDirectory

    run = RunDirectory.open(directory)
    plan = make_plan(run.config)
    guarantee = checked_promise(run, plan)
    texts = run.texts()
    batches = run.batches()
    requested = sum(batch.texts for batch in batches)
    costs = realised_costs(run, plan) if plan.mechanism.measured else None
    cells = [
        {
            "label": plan.config.label_set[cell.label],
            "centre": cell.centre,
            "noisy_size": cell.noisy_size,
            "batches": cell.batches,
        }
        for cell in run.cells()
    ]
    document = {
        "guarantee": dataclasses.asdict(guarantee),
        "texts": len(texts),
        "texts_planned": (requested if run.is_formed() else plan.config.written) + plan.config.further,
        "tokens": sum(text.tokens for text in texts),
        "votes": run.facts(),
        "finished": run.is_formed()
        and len(texts) == requested + plan.config.further
        and len(run.facts()) == (plan.config.parts.rounds if plan.config.votes else 0),
        "cells": cells,
        "private": costs,
    }
    rows: list[tuple[str, Any]] = [
        ("guarantee", guarantee.statement),
        (
            "texts",
            f"{len(texts)} of {document['texts_planned']}"
            + (f", of which the private records vote for {plan.config.released}" if plan.config.votes else ""),
        ),
        ("tokens", document["tokens"]),
        ("kept cells, batches", f"{len(cells)}, {len(batches)}"),
        *((f"vote {facts['round']} of {plan.config.parts.rounds}", vote_in_words(facts)) for facts in run.facts()),
    ]
    most = max((tokens for _, tokens, _, _ in run.batch_costs()), default=0)
    rows += plan.mechanism.status_rows(most, plan.tokens_per_batch)
    if costs and costs["records"]:
        paid = costs["records"]
        rows.append(
            (
                "records, PRIVATE",
                f"budget used: median record {paid['median'] / paid['budget']:.0%}, "
                f"highest {paid['largest'] / paid['budget']:.0%}",
            )
        )
    if costs:
        ex_post = costs["ex_post"]
        rows += [
            ("ex post, PRIVATE", f"ε = {ex_post['epsilon']:.4g} at δ = {ex_post['delta']:g} "
                                 f"(the smaller of {ex_post['by_sum']:.4g} by sum and {ex_post['by_ville']:.4g} by "
                                 f"Ville, and {ex_post['draws']:.4g} for the secret draw of batches)"),
            ("", EX_POST_NOTE),
        ]  # fmt: skip
    if not document["finished"]:
        ledger = " --ledger FILE" if run.marks().last else ""
        rows.append(("next", f"plainchant run --data FILE --out {directory} --resume{ledger}"))
    console.table(str(directory), rows)
    if cells:
        console.grid(("label", "centre", "noisy size", "batches"), [tuple(cell.values()) for cell in cells])
    console.result(document, f"{len(texts)}/{document['texts_planned']}")
