"""Commands of a run: init, plan, run, status."""

import dataclasses
import time
import typing
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from plainchant.cli.console import Console
from plainchant.cli.options import formatted, with_configuration, with_performance
from plainchant.config import Accounting, PerformanceOptions, PromptConfig, SynthesisConfig
from plainchant.errors import ConfigError
from plainchant.planning import Plan, make_plan
from plainchant.privacy.mechanisms import SparseMeanMechanism

if TYPE_CHECKING:
    pass


@click.command()
@click.argument("file", type=click.Path(path_type=Path), default=Path("plainchant.toml"))
@formatted
def init(console: Console, file: Path) -> None:
    """Writes a commented configuration file (default plainchant.toml)."""
    if file.exists():
        raise ConfigError(f"FILE = {file}: exists already; choose another name")
    try:
        file.write_text(_template(), encoding="utf-8")
    except OSError as error:
        raise ConfigError(f"FILE = {file}: cannot be written ({error.strerror})") from None
    console.say(f"wrote {file}; next: plainchant plan {file}")
    console.result({"file": str(file)}, str(file))


def _template() -> str:
    lines = [
        "# plainchant configuration. Everything here is public: take nothing in it from the private data.",
        "# A line that is commented out shows the default; options on the command line go before this file.",
        "",
    ]
    for name, field in SynthesisConfig.model_fields.items():
        if name == "prompt":
            continue
        lines += [f"# {line}" for line in (field.description or "").splitlines()]
        lines += [f"# {name} = {_toml_value(field.default, field.annotation)}", ""]
    lines += ["# [prompt]", ""]
    for name, field in PromptConfig.model_fields.items():
        lines += [f"# {field.description}"]
        if name != "examples":
            lines += [f"# {name} = {_toml_value(field.default, field.annotation)}", ""]
    lines += ["# [[prompt.examples]]", '# label = "…"', '# text = "…"', ""]
    return "\n".join(lines)


def _toml_value(default: Any, annotation: Any) -> str:
    if default is None:
        choices = [kind for kind in typing.get_args(annotation) if kind is not type(None)]
        options = [str(member.value) for kind in choices if hasattr(kind, "__members__") for member in kind]
        return f'"{options[0]}"  # or {", ".join(options[1:])}; unset: the method decides' if options else "…  # unset"
    if isinstance(default, tuple):
        return "[]"
    return str(default) if isinstance(default, int | float) else f'"{getattr(default, "value", default)}"'


@click.command()
@formatted
@click.option(
    "--measure",
    "trial",
    is_flag=True,
    help="Load the model and try it on public text: how far a record moves it, how long the run takes here.",
)
@with_performance
@with_configuration
def plan(console: Console, config: SynthesisConfig, trial: bool, performance: PerformanceOptions) -> None:
    """What a run would guarantee, release and need. Reads no private data.

    Options go before CONFIG's values, and PLAINCHANT_<FIELD> in the environment stands between the two.
    """
    decided = make_plan(config)
    show_plan(console, decided)
    document = decided.as_dict()
    if trial:
        document["measured"] = _measured(console, decided, performance)
    console.result(document, decided.guarantee.statement)


def _measured(console: Console, plan: Plan, performance: PerformanceOptions) -> dict[str, float]:
    """A trial on the public corpus, or else on the hand-written examples."""
    from plainchant.data.tables import read_texts
    from plainchant.generation.executor import load_on
    from plainchant.run.tuning import measure

    config = plan.config
    texts = [example.text for example in config.prompt.examples]
    if config.public_corpus:
        texts = read_texts(config.public_corpus, text_column=config.public_text_column)[: plan.settings.batch_size]
    if not texts:
        raise ConfigError(
            "measure: needs public text; name a corpus with --public-corpus FILE, or write prompt.examples"
        )
    found = measure(plan, load_on(config.model, performance), texts, rows=performance.width)
    rows: list[tuple[str, Any]] = [
        ("range", f"{found.expected_range:.3g} nats on public text, for expected_range = {config.expected_range:g}"),
        ("tokens a text", f"{found.tokens_per_text:.3g}"),
        ("time", f"about {found.seconds:.0f} seconds to write the texts; loading and embedding come on top"),
    ]
    console.table("Measured", rows)
    return dataclasses.asdict(found)


def show_plan(console: Console, plan: Plan) -> None:
    """A plan for people."""
    config, settings, guarantee = plan.config, plan.settings, plan.guarantee
    for note in plan.notes:
        console.warn(note)
    token = plan.mechanism.rho_per_token if plan.rho_expected is None else plan.rho_expected
    requested = config.released if config.votes else config.texts
    rows: list[tuple[str, Any]] = [
        ("guarantee", guarantee.statement),
        ("method", f"{config.method.value}: clusters {config.parts.clusters}, {config.parts.aggregate} of "
                   f"{settings.clipping}, support {settings.support}, accounting {config.parts.accounting}"),
        ("unit, relation", f"{guarantee.unit}, add or remove one unit"),
        ("batch size", settings.batch_size),
        ("clip, temperature", f"{settings.clip:.4g} nats, {settings.temperature:g}"),
        ("texts", f"{requested} of at most {_count(config.max_tokens, 'token')}"),
    ]  # fmt: skip
    rows_a_token = settings.batch_size * config.written + config.further
    if config.votes:
        rows.append(("candidates", f"{config.written} written from records, {config.further} by the public model"))
        votes = _count(config.parts.rounds, "vote")
        rows.append(("vote", f"in {votes} of ρ = {plan.rho_round:.4g} each the records keep {config.released} of them"))
    if isinstance(plan.mechanism, SparseMeanMechanism):
        private = _count(plan.mechanism.private_tokens, "token")
        rows.append(("sparse vector", f"at most {private} of a text from the records, all others by the public model"))
    if plan.texts_per_batch is not None:
        rows += [
            (
                "a batch pays for" if plan.rho_expected is None else "a batch pays for, about",
                f"{_count(plan.tokens_per_batch, 'token')}, so {_count(plan.texts_per_batch, 'text')}",
            ),
            (
                "data needed",
                f"about {plan.units_needed} units in {_count(plan.batches_needed, 'batch', 'batches')} of "
                f"{settings.batch_size}",
            ),
        ]
    rows += [
        ("ρ", f"{plan.rho_counts:.4g} for noisy counts, {_or_dash(plan.rho_batch)} for a batch's tokens, "
              f"{_or_dash(token)} a token{'' if plan.rho_expected is None else ', as expected'}"),
        ("model rows", f"{rows_a_token * config.max_tokens:,} at most, plus prompts"),
    ]  # fmt: skip
    console.table("Plan", rows)


def _count(number: int | None, one: str, many: str = "") -> str:
    return f"{number} {one if number == 1 else many or one + 's'}"


def _or_dash(value: float | None) -> str:
    return "–" if value is None else f"{value:.4g}"


@click.command()
@formatted
@click.option(
    "--data", type=click.Path(path_type=Path), help="The private table: JSONL, CSV, Parquet or a datasets directory."
)
@click.option(
    "--out", type=click.Path(path_type=Path), required=True, help="The run's directory, new or with --resume."
)
@click.option("--resume", is_flag=True, help="Go on with the run in --out.")
@click.option(
    "--i-know-this-is-not-private",
    "not_private",
    is_flag=True,
    help="Allow a run without a guarantee, and its release.",
)
@click.option(
    "--ledger",
    type=click.Path(path_type=Path),
    help="The data set's ledger (plainchant account --ledger): a run that would pass its cap is refused.",
)
@with_performance
@with_configuration
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
    """Writes synthetic texts from a private table into a run's directory.

    Texts are committed one by one: an interrupted or crashed run goes on with --resume, and CONFIG then defaults to the
    run's own. What may be shared is in DIR/release, what must not be in DIR/private.
    """
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
    show_plan(console, plan)
    with (
        console.progress() as progress,
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
        texts = run.finish()
    if run.requested < plan.config.written:
        console.warn(
            f"{run.requested} of {plan.config.written} texts that records were to write: by its noisy counts, the data "
            "has no more batches to pay for them. A larger ε, shorter texts, or fewer centres make more"
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
            ("texts", f"{len(texts)} in {time.monotonic() - began:.0f} seconds"),
            ("to share", f"{out / 'release'} (synthetic.jsonl, synthetic.parquet, README.md, guarantee.json)"),
            ("never share", f"{out / 'private'}"),
        ],
    )
    console.result(
        {"out": str(out), "texts": len(texts), "guarantee": dataclasses.asdict(run.guarantee)}, str(out / "release")
    )
    return [text.text for text in texts]


@click.command()
@click.argument("directory", metavar="DIR", type=click.Path(path_type=Path))
@formatted
def status(console: Console, directory: Path) -> None:
    """What a run has done, what it has spent, and what is left.

    The measured cost that it shows is private: it depends on the data.
    """
    from plainchant.run.card import EX_POST_NOTE, vote_in_words
    from plainchant.run.costs import realised_costs
    from plainchant.run.store import RunDirectory

    run = RunDirectory.open(directory)
    plan = make_plan(run.config)
    texts = run.texts()
    batches = run.batches()
    requested = sum(batch.texts for batch in batches)
    measured = plan.config.parts.accounting not in (Accounting.PUBLIC, Accounting.INFINITE)
    costs = realised_costs(run, plan) if measured else None
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
        "guarantee": dataclasses.asdict(plan.guarantee),
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
        ("guarantee", plan.guarantee.statement),
        (
            "texts",
            f"{len(texts)} of {document['texts_planned']}"
            + (f", of which the records keep {plan.config.released}" if plan.config.votes else ""),
        ),
        ("tokens", document["tokens"]),
        ("kept cells, batches", f"{len(cells)}, {len(batches)}"),
        *((f"vote {facts['round']} of {plan.config.parts.rounds}", vote_in_words(facts)) for facts in run.facts()),
    ]
    if plan.mechanism.rho_per_token is not None and plan.tokens_per_batch is not None:
        most = max((tokens for _, tokens, _, _ in run.batch_costs()), default=0)
        rows.append(("tokens of the dearest batch", f"{most} of {plan.tokens_per_batch} that the budget pays for"))
    if costs and costs["records"]:
        paid = costs["records"]
        rows.append(
            (
                "records, PRIVATE",
                f"the median has paid ρ = {paid['median']:.4g}, the dearest {paid['largest']:.4g}, "
                f"of {paid['budget']:.4g}",
            )
        )
    if costs:
        ex_post = costs["ex_post"]
        rows += [
            ("ex post, PRIVATE", f"ε = {ex_post['epsilon']:.4g} at δ = {ex_post['delta']:g} "
                                 f"(by sum {ex_post['by_sum']:.4g}, by Ville {ex_post['by_ville']:.4g})"),
            ("", EX_POST_NOTE),
        ]  # fmt: skip
    if not document["finished"]:
        rows.append(("next", f"plainchant run --data FILE --out {directory} --resume"))
    console.table(str(directory), rows)
    if cells:
        console.grid(("label", "centre", "noisy size", "batches"), [tuple(cell.values()) for cell in cells])
    console.result(document, f"{len(texts)}/{document['texts_planned']}")
