"""The commands. Each parses, calls the library, and hands the outcome to the console."""

import dataclasses
import functools
import os
import secrets
import sys
import time
import traceback
import typing
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from plainchant import accounting
from plainchant.aggregation import Clipping, Support
from plainchant.config import Accounting, Method, PerformanceOptions, PromptConfig, SynthesisConfig, parse_config
from plainchant.console import Console
from plainchant.errors import ConfigError, GateError, PlainchantError, PrivacyError
from plainchant.mechanisms import MeanMechanism, SparseMeanMechanism, TokenSettings
from plainchant.planning import Plan, smallest_batch
from plainchant.planning import plan as make_plan

if TYPE_CHECKING:
    from plainchant.embedding import Embedder
    from plainchant.evaluation import Figure
    from plainchant.models import LanguageModel
    from plainchant.store import RunDirectory

INTERRUPTED = 130


class _Commands(click.Group):
    """Turns errors into a message and an exit code; never shows what an unexpected exception says."""

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except PlainchantError as error:
            Console("quiet").fail(str(error))
            ctx.exit(error.exit_code)
        except KeyboardInterrupt:
            Console("quiet").fail(
                "interrupted; texts that were finished are kept. If the run's directory is there, --resume goes on"
            )
            ctx.exit(INTERRUPTED)
        except (click.ClickException, click.exceptions.Exit, click.Abort, BrokenPipeError):
            raise
        except Exception as error:
            # a library's message may quote a record; where it happened may be shown, what it said may not
            frames = "".join(traceback.format_tb(error.__traceback__))
            Console("quiet").fail(
                f"unexpected {type(error).__name__}; its message is not shown, since it could quote private text.\n"
                f"{frames}Please report the lines above."
            )
            ctx.exit(1)


@click.group(
    cls=_Commands,
    context_settings={
        "help_option_names": ["-h", "--help"],
        "max_content_width": 100,
    },
)
@click.version_option(package_name="plainchant")
def main() -> None:
    r"""Differentially private synthetic text from a private table, without training.

    \b
    plainchant demo                 the whole way on built-in data, about five minutes
    plainchant init                 a commented configuration file
    plainchant plan CONFIG          what a run would guarantee and write; reads no private data
    plainchant run CONFIG --data FILE --out DIR

    plainchant evaluate DIR --real FILE

    Exit codes: 0 done, 1 failure, 2 usage or configuration, 3 refused for privacy, 4 a gate of evaluate or audit
    failed, 130 interrupted (resumable).
    """


def _formatted(command: Callable[..., Any]) -> Callable[..., Any]:
    @click.option(
        "--format",
        "style",
        type=click.Choice(["human", "json", "quiet"]),
        default="human",
        show_default=True,
        help="Tables and progress, one JSON document, or the bare result.",
    )
    @functools.wraps(command)
    def wrapped(style: str, **values: Any) -> Any:
        return command(Console(style), **values)

    return wrapped


_SHARED_FIRST = [
    "method",
    "epsilon",
    "delta",
    "model",
    "embedder",
    "public",
    "text_column",
    "label_column",
    "labels",
    "unit_column",
    "texts",
    "max_tokens",
    "batch_size",
    "temperature",
    "guidance",
    "support",
    "centres",
    "kept",
]


def _help_of(field: Any, default: Any) -> str:
    text = (field.description or "").replace("\n", " ")
    return text if default in (None, ()) else f"{text}  [default: {getattr(default, 'value', default)}]"


def _configured(command: Callable[..., Any]) -> Callable[..., Any]:
    """Adds CONFIG and every configuration field as an option; hands a `SynthesisConfig` to the command."""
    fields = {name: field for name, field in SynthesisConfig.model_fields.items() if name != "prompt"}
    names = _SHARED_FIRST + [name for name in fields if name not in _SHARED_FIRST]

    @click.argument("config_file", metavar="[CONFIG]", required=False, type=click.Path(path_type=Path))
    @functools.wraps(command)
    def wrapped(console: Console, config_file: Path | None, **values: Any) -> Any:
        own = {name: values.pop(name) for name in names}
        overrides = {name: _parsed(name, value) for name, value in own.items() if value is not None}
        if config_file is None and values.get("resume"):
            from plainchant.store import RunDirectory

            config_file = RunDirectory.open(values["out"]).path / "config.toml"
        return command(console, load_config(config_file, overrides), **values)

    for name in reversed(names):
        option = click.option(
            f"--{name.replace('_', '-')}",
            name,
            metavar="VALUE",
            envvar=f"PLAINCHANT_{name.upper()}",
            help=_help_of(fields[name], fields[name].default),
        )
        wrapped = option(wrapped)
    return wrapped


def _parsed(name: str, value: str) -> Any:
    if name == "labels":
        return tuple(label.strip() for label in value.split(",") if label.strip())
    # a number where the field may hold either a number or a word
    return int(value) if name in ("centres", "kept", "batch_size") and value.lstrip("-").isdigit() else value


def load_config(path: Path | None, overrides: dict[str, Any]) -> SynthesisConfig:
    """A configuration from a file (or none) and single values that go before it."""
    if path is None:
        return SynthesisConfig(**overrides)
    try:
        content = path.read_text(encoding="utf-8")
    except OSError as error:
        raise ConfigError(
            f"CONFIG = {path}: cannot be read ({error.strerror}); plainchant init {path} writes one"
        ) from None
    except UnicodeDecodeError:
        raise ConfigError(f"CONFIG = {path}: is not UTF-8 text") from None
    return parse_config(content, overrides)


@main.command()
@click.argument("file", type=click.Path(path_type=Path), default=Path("plainchant.toml"))
@_formatted
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


def _performance(command: Callable[..., Any]) -> Callable[..., Any]:
    """Adds the options that cannot change the guarantee; hands `PerformanceOptions` to the command."""
    fields = PerformanceOptions.model_fields

    @functools.wraps(command)
    def wrapped(*args: Any, **values: Any) -> Any:
        own = {name: values.pop(name) for name in fields}
        try:
            options = PerformanceOptions(**{name: value for name, value in own.items() if value is not None})
        except ValueError as error:
            wrong = ", ".join(f"{name} = {value}" for name, value in own.items() if value is not None)
            raise ConfigError(f"{wrong}: not possible; see --help") from error
        return command(*args, performance=options, **values)

    for name, field in reversed(fields.items()):
        option = f"--{name.replace('_', '-')}"
        wrapped = click.option(option, name, metavar="VALUE", help=_help_of(field, field.default))(wrapped)
    return wrapped


@main.command()
@_formatted
@click.option(
    "--measure",
    "trial",
    is_flag=True,
    help="Load the model and try it on public text: how far a record moves it, how long the run takes here.",
)
@_performance
@_configured
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
    from plainchant.data import read_texts
    from plainchant.executor import load_on
    from plainchant.planning import measure

    config = plan.config
    texts = [example.text for example in config.prompt.examples]
    if config.public:
        texts = read_texts(config.public, text_column=config.public_text_column)[: plan.settings.batch_size]
    if not texts:
        raise ConfigError("measure: needs public text; name a corpus with --public FILE, or write prompt.examples")
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
    rows: list[tuple[str, Any]] = [
        ("guarantee", guarantee.statement),
        ("method", f"{config.method.value}: clusters {config.parts.clusters}, {config.parts.aggregate} of "
                   f"{settings.clipping}, support {settings.support}, accounting {config.parts.accounting}"),
        ("unit, relation", f"{guarantee.unit}, add or remove one unit"),
        ("batch size", settings.batch_size),
        ("clip, temperature", f"{settings.clip:.4g} nats, {settings.temperature:g}"),
        ("texts", f"{config.texts} of at most {_count(config.max_tokens, 'token')}"),
    ]  # fmt: skip
    rows_a_token = settings.batch_size * config.texts + config.further
    if config.votes:
        rows.append(("vote", f"the records keep {config.released} of {config.texts + config.further} texts"))
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


@main.command()
@_formatted
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
@_performance
@_configured
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
    from plainchant.synthesis import synthesize

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
        texts = run.texts
    if run.wished < plan.config.texts:
        console.warn(
            f"{run.wished} of {plan.config.texts} wished texts: by its noisy counts, the data has no more batches to "
            "pay for them. A larger ε, shorter texts, or fewer centres make more"
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


@main.command()
@click.argument("directory", metavar="DIR", type=click.Path(path_type=Path))
@_formatted
def status(console: Console, directory: Path) -> None:
    """What a run has done, what it has spent, and what is left.

    The measured cost that it shows is private: it depends on the data.
    """
    from plainchant.report import EX_POST_NOTE
    from plainchant.store import RunDirectory
    from plainchant.synthesis import realised_costs

    run = RunDirectory.open(directory)
    plan = make_plan(run.config)
    texts = run.texts()
    batches = run.batches()
    wished = sum(batch.texts for batch in batches)
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
        "texts_planned": (wished if batches else plan.config.texts) + plan.config.further,
        "tokens": sum(text.tokens for text in texts),
        "finished": bool(batches) and len(texts) == wished + plan.config.further,
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


_REAL = click.option(
    "--real",
    type=click.Path(path_type=Path),
    required=True,
    help="The real table, as for run --data; it is split in two halves for training and testing.",
)
_LIMIT = click.option(
    "--limit",
    type=click.IntRange(min=1),
    default=5_000,
    show_default=True,
    help="So many real texts are looked at, at most, drawn at random.",
)


@main.command()
@click.argument("directory", metavar="DIR", type=click.Path(path_type=Path))
@_REAL
@_LIMIT
@click.option("--min-mauve", type=float, help="Exit with 4 where MAUVE is below this.")
@click.option(
    "--min-accuracy",
    type=float,
    help="Exit with 4 where a classifier trained on the synthetic texts is right less often than this.",
)
@_formatted
def evaluate(
    console: Console, directory: Path, real: Path, limit: int, min_mauve: float | None, min_accuracy: float | None
) -> None:
    """Whether a run's texts look like the real ones, and whether one can train on them.

    Reads private data, and its figures are not private: they are shown here and written to DIR/private alone. Every
    figure has a 95 % interval, and both sides of a comparison have the same number of texts.
    """
    from plainchant.evaluation import ACCURACY, EXPLANATIONS, MAUVE, NOTE, ON_SYNTHETIC
    from plainchant.evaluation import evaluate as measure
    from plainchant.store import RunDirectory

    run = RunDirectory.open(directory)
    console.warn(NOTE)
    with console.progress() as progress:
        found = measure(run, real, limit=limit, progress=functools.partial(progress.stage, "embedding the real texts"))
    path = run.write_private("evaluation.json", found.as_dict())
    _show_groups(console, found.groups, EXPLANATIONS)
    console.say(f"\n{found.compared} texts on each side; written to {path}")
    mauve = found.figure(MAUVE)
    console.result(found.as_dict(), str(mauve))
    _gate("min-mauve", mauve, min_mauve)
    _gate("min-accuracy", found.figure(f"{ACCURACY}, {ON_SYNTHETIC}"), min_accuracy)


def _show_groups(
    console: Console, groups: Mapping[str, Mapping[str, "Figure"]], explanations: Mapping[str, str]
) -> None:
    for group, figures in groups.items():
        console.say("")
        console.grid(
            (group, "value (95 % interval)", ""),
            [(name, str(figure), explanations.get(name, "")) for name, figure in figures.items()],
        )


def _gate(option: str, figure: "Figure | None", bound: float | None) -> None:
    """Raises GateError where a figure is missing or on the wrong side of its bound."""
    if bound is None:
        return
    if figure is None:
        raise GateError(f"--{option} {bound:g}: there is no such figure here; see --help for what it needs")
    if figure.value < bound if option.startswith("min") else figure.value > bound:
        raise GateError(f"--{option} {bound:g}: the figure is {figure.value:.4g}")


@main.command()
@click.argument("directories", metavar="DIR...", nargs=-1, required=True, type=click.Path(path_type=Path))
@_REAL
@_LIMIT
@click.option(
    "--out",
    type=click.Path(path_type=Path),
    default=Path("comparison"),
    show_default=True,
    help="Where comparison.json, comparison.md and the plots go.",
)
@_formatted
def compare(console: Console, directories: tuple[Path, ...], real: Path, limit: int, out: Path) -> None:
    """Several runs on the same table side by side: usefulness against privacy.

    Every run is taken with as many texts as the smallest has. An ε that was promised before a run and one that was
    measured after it are different things and stand in columns, and plots, of their own. Reads private data: nothing
    here is private.
    """
    from plainchant.evaluation import NOTE
    from plainchant.evaluation import compare as measure
    from plainchant.report import comparison_table, write_comparison

    console.warn(NOTE)
    with console.progress() as progress:
        found = measure(directories, real, limit=limit, progress=functools.partial(progress.stage, "comparing"))
    columns, rows = comparison_table(found)
    # a run a column, so that it fits a terminal
    names, *lines = zip(columns, *rows, strict=True)
    console.grid(names, [[cell.replace(" (", "\n(") for cell in line] for line in lines])
    paths = write_comparison(out, found)
    console.say(f"\n{found[0].evaluation.compared} texts of each run; written to {', '.join(map(str, paths))}")
    console.result({"note": NOTE, "runs": [run.as_dict() for run in found]}, str(out))


@main.command()
@click.argument("directory", metavar="DIR", type=click.Path(path_type=Path))
@_formatted
def report(console: Console, directory: Path) -> None:
    """One page about a finished run, in DIR/release, and its private twin, in DIR/private.

    The page needs no network and may be shared with the release: guarantee, budget, cells on a map, samples, settings.
    Figures that evaluate and audit have left stand on the private page alone.
    """
    from plainchant.store import RunDirectory

    paths = write_pages(RunDirectory.open(directory))
    console.table("", [("to share" if path.parent.name == "release" else "never share", path) for path in paths])
    console.result({"pages": [str(path) for path in paths]}, str(paths[0]))


def write_pages(run: "RunDirectory", embedder: "Embedder | None" = None) -> list[Path]:
    """The report of a finished run."""
    from plainchant.embedding import load_embedder
    from plainchant.evaluation import centres_of
    from plainchant.planning import Guarantee
    from plainchant.report import write_report

    config = run.config
    centres = centres_of(run, config)
    if centres is not None and embedder is None:
        embedder = load_embedder(config.embedder)
    # the run's own, which says so where its randomness came from a seed
    guarantee = Guarantee(**run.plan["guarantee"])
    return write_report(run, make_plan(config), guarantee, None if embedder is None else embedder.encode, centres)


@main.command()
@click.argument("target", metavar="DIR|CONFIG", type=click.Path(path_type=Path, exists=True))
@click.option(
    "--real", type=click.Path(path_type=Path), required=True, help="The table that the run was, or is, made from."
)
@click.option(
    "--held-out",
    type=click.Path(path_type=Path),
    help="Texts of the same kind that were not in it: needed for membership, and to tell copies from chance.",
)
@click.option("--replay/--no-replay", default=True, help="Load the model and replay a batch, where ε was promised.")
@click.option("--canaries", type=click.IntRange(min=1), default=20, show_default=True, help="CONFIG: records to plant.")
@click.option(
    "--repetitions", type=click.IntRange(min=1), default=1, show_default=True, help="CONFIG: how often each is planted."
)
@click.option("--out", type=click.Path(path_type=Path), help="CONFIG: the directory of the run with canaries.")
@click.option("--resume", is_flag=True, help="CONFIG: go on with the run in --out.")
@click.option(
    "--i-know-this-is-not-private", "not_private", is_flag=True, help="CONFIG: allow one without a guarantee."
)
@click.option("--max-copied", type=float, help="Exit with 4 where a larger share of the texts is copied.")
@click.option("--max-audit-epsilon", type=float, help="Exit with 4 where the replay shows a larger ε than this.")
@_performance
@_formatted
def audit(
    console: Console,
    target: Path,
    real: Path,
    held_out: Path | None,
    replay: bool,
    canaries: int,
    repetitions: int,
    out: Path | None,
    resume: bool,
    not_private: bool,
    max_copied: float | None,
    max_audit_epsilon: float | None,
    performance: PerformanceOptions,
) -> None:
    """Attacks a run: copied text, membership, canaries, and a lower bound on ε by replay.

    With DIR, a finished run. With CONFIG, a run of its own on the data with made-up secrets planted in it, written to
    --out: it spends from the same data, so it is for auditing and not to be shared. An audit can refute a guarantee,
    never prove it. Reads private data; the figures are shown here and written to DIR/private alone.
    """
    from plainchant.audit import EXPLANATIONS
    from plainchant.audit import audit as attack
    from plainchant.embedding import load_embedder
    from plainchant.evaluation import NOTE
    from plainchant.executor import load_on
    from plainchant.store import RunDirectory

    console.warn(NOTE)
    load = functools.cache(functools.partial(load_on, performance=performance))
    if target.is_dir():
        run = RunDirectory.open(target)
    else:
        if out is None:
            raise ConfigError("out: not given; a run with canaries needs a directory, --out DIR")
        config, noted = load_config(target, {}), {"count": canaries, "repetitions": repetitions}
        options = {"resume": resume, "allow_not_private": not_private, "performance": performance}
        run = _run_with_canaries(console, config, real, out, noted, load, options)
    config = run.config
    embedder = load_embedder(config.embedder, device=performance.device) if held_out else None
    with console.progress() as progress:
        found = attack(
            run, real, held_out=held_out, embedder=embedder,
            load_model=functools.partial(load, config.model) if replay else None,
            progress=functools.partial(progress.stage, "auditing"),
        )  # fmt: skip
    path = run.write_private("audit.json", found.as_dict())
    _show_groups(console, found.groups, EXPLANATIONS)
    console.say(f"\nwritten to {path}")
    shown = found.figure("epsilon_low")
    console.result(found.as_dict(), str(found.figure("copied")))
    _gate("max-copied", found.figure("copied"), max_copied)
    _gate("max-audit-epsilon", shown, max_audit_epsilon)
    claimed = found.figure("epsilon_claimed")
    if shown and claimed and shown.value > claimed.value:
        raise PrivacyError(
            f"the replay shows ε of at least {shown.value:.4g}, more than the {claimed.value:.4g} that is claimed: do "
            "not release, and please report it"
        )


def _run_with_canaries(
    console: Console,
    config: SynthesisConfig,
    real: Path,
    out: Path,
    noted: dict[str, int],
    load: Callable[[str], "LanguageModel"],
    options: dict[str, Any],
) -> "RunDirectory":
    """Plants canaries and runs a plan on the data with them; which ones is noted in private/."""
    from plainchant.audit import CANARIES, plant_again
    from plainchant.store import RunDirectory, read_table
    from plainchant.synthesis import synthesize

    records = read_table(real, config)
    resume = options["resume"]
    known = RunDirectory.open(out).read_private(CANARIES) if resume else {"seed": secrets.randbits(63), **noted}
    if known is None:
        raise ConfigError(f"resume: {out} holds no canaries; begin a new audit in another directory")
    planted, _ = plant_again(records, config.label_set, known)
    columns = {"text": config.text_column, "label": config.label_column, "unit": config.unit_column}
    rows = [{name: getattr(record, field) for field, name in columns.items() if name is not None} for record in planted]
    console.warn("this run spends from the same data as others: it is for auditing, its release is not to be shared")
    with (
        console.progress() as progress,
        synthesize(
            rows, make_plan(config), out=out, model=load(config.model), progress=progress, **options
        ) as made,
    ):  # fmt: skip
        if not resume:
            made.directory.write_private(CANARIES, known)
        for _ in made:
            pass
    return made.directory


@main.command()
@click.option("--epsilon", type=float, help="ε, to be turned into ρ.")
@click.option("--rho", type=float, help="ρ of zCDP, to be turned into ε.")
@click.option("--delta", type=float, default=1e-6, show_default=True)
@click.option("--tokens", type=click.IntRange(min=1), help="Tokens a batch is to release: gives the batch size.")
@click.option("--batch-size", type=click.IntRange(min=1), help="Contexts a batch: gives the tokens that it pays for.")
@click.option("--clip", type=float, default=10.0, show_default=True, help="Clip norm, nats.")
@click.option("--temperature", type=float, default=1.0, show_default=True)
@click.option("--guidance", type=float, default=1.0, show_default=True)
@click.option("--slack", type=click.FloatRange(min=0), default=1e-3, show_default=True, help="Numerical slack, nats.")
@click.option(
    "--ledger",
    type=click.Path(path_type=Path),
    help="Show what all runs on a data set have cost together; with --epsilon and --delta, begin one with that cap.",
)
@_formatted
def account(
    console: Console,
    epsilon: float | None,
    rho: float | None,
    delta: float,
    tokens: int | None,
    batch_size: int | None,
    clip: float,
    temperature: float,
    guidance: float,
    slack: float,
    ledger: Path | None,
) -> None:
    r"""A calculator: ρ to ε and back, and batch size to tokens and back for the worst-case mean; a data set's ledger.

    \b
    plainchant account --epsilon 8 --delta 1e-6 --batch-size 52
    plainchant account --rho 1 --tokens 64
    plainchant account --ledger tickets.ledger --epsilon 8      begins a ledger with this cap
    plainchant account --ledger tickets.ledger                  what is spent, what is left
    """
    if ledger is not None:
        _show_ledger(console, ledger, epsilon, delta)
        return
    if epsilon is not None and rho is None:
        rho = accounting.rho_of(epsilon, delta)
    elif rho is None or epsilon is not None:
        raise ConfigError("epsilon, rho: give exactly one of --epsilon and --rho")
    document: dict[str, Any] = {"rho": rho, "epsilon": accounting.epsilon_of(rho, delta), "delta": delta}
    settings = TokenSettings(
        support=Support.FULL,
        k=1,
        clipping=Clipping.DIFFERENCE,
        clip=clip,
        guidance=guidance,
        temperature=temperature,
        batch_size=batch_size or 1,
        slack=slack,
    )
    if tokens is not None:
        document["batch_size"] = smallest_batch(settings, rho, tokens)
    if batch_size is not None:
        document["tokens"] = accounting.steps_affordable(rho, MeanMechanism(settings).worst_case)
    console.table("", document.items())
    console.result(document, " ".join(f"{value:.6g}" for value in document.values()))


def _show_ledger(console: Console, path: Path, epsilon: float | None, delta: float) -> None:
    from plainchant.store import Ledger

    book = Ledger(path) if epsilon is None else Ledger.create(path, epsilon, delta)
    spent, runs = book.spent, book.runs
    document = {
        "ledger": str(path),
        "epsilon": book.epsilon,
        "delta": book.delta,
        "rho": book.cap,
        "rho_spent": spent,
        "epsilon_spent": accounting.epsilon_of(spent, book.delta),
        "rho_left": max(0.0, book.cap - spent),
        "runs": runs,
    }
    rows: list[tuple[str, Any]] = [
        ("cap", f"ε = {book.epsilon:g} at δ = {book.delta:g}, ρ = {book.cap:.4g}"),
        ("spent", f"ρ = {spent:.4g}, together ε = {document['epsilon_spent']:.4g}"),
        ("left", f"ρ = {document['rho_left']:.4g}"),
    ]
    console.table(f"Ledger {path}", rows)
    if runs:
        console.grid(
            ("run", "method", "ρ", "begun"), [(r["run"], r["method"], f"{r['rho']:.4g}", r["begun"]) for r in runs]
        )
    console.result(document, f"{document['rho_left']:.6g}")


@main.command()
@click.option("--model", default=SynthesisConfig.model_fields["model"].default, show_default=True)
@click.option("--embedder", default=SynthesisConfig.model_fields["embedder"].default, show_default=True)
@_performance
@_formatted
def doctor(console: Console, model: str, embedder: str, performance: PerformanceOptions) -> None:
    """What is installed, whether model and embedder load, and what speed to expect."""
    from plainchant.doctor import examine

    findings = examine(model, embedder, performance)
    console.table("plainchant doctor", findings.items())
    console.result(findings, "ok" if findings["verdict"] == "ok" else "not ok")
    if findings["verdict"] != "ok":
        sys.exit(1)


@main.command()
@click.option(
    "--out", type=click.Path(path_type=Path), help="Where to put it.  [default: runs/demo, or the next free name]"
)
@_performance
@_formatted
def demo(console: Console, out: Path | None, performance: PerformanceOptions) -> None:
    """The whole way on built-in data, model and embedder: plan, run, evaluate, report; five minutes on two cores."""
    from plainchant.data import write_jsonl
    from plainchant.demo import DEMO_LABELS, DEMO_PROMPT, PLANTED_SECRETS, demo_public_texts, demo_records
    from plainchant.embedding import load_embedder
    from plainchant.evaluation import ACCURACY, ON_REAL, ON_SYNTHETIC
    from plainchant.evaluation import evaluate as measure
    from plainchant.store import RunDirectory

    if out is None:
        names = (Path("runs") / f"demo{number}" for number in ["", *(f"-{n}" for n in range(2, 1000))])
        out = next(name for name in names if not name.exists())
    inputs = out.with_name(f"{out.name}-input")
    inputs.mkdir(parents=True, exist_ok=True)
    records = demo_records()
    write_jsonl(inputs / "private.jsonl", records)
    write_jsonl(inputs / "public.jsonl", [{"text": text} for text in demo_public_texts()])
    console.say(f"{len(records)} made-up messages to a city's service desk, some with planted secrets: {inputs}")
    config = SynthesisConfig(
        method=Method.PLAINCHANT,
        labels=DEMO_LABELS,
        label_column="label",
        public=str(inputs / "public.jsonl"),
        centres=6,
        texts=20,
        max_tokens=48,
        expected_units=len(records),
        prompt=DEMO_PROMPT,
    )
    private = inputs / "private.jsonl"
    texts = execute(console, make_plan(config), private, out, performance=performance, samples=5)
    run = RunDirectory.open(out)
    embedder = load_embedder(config.embedder, device=performance.device)
    figures = measure(run, private, embedder=embedder)
    run.write_private("evaluation.json", figures.as_dict())
    page, twin = write_pages(run, embedder)
    console.table(
        "\nUseful? (private figures, with 95 % intervals; plainchant evaluate says more)",
        [
            (name, str(figures.figure(name)))
            for name in (
                f"{ACCURACY}, {ON_SYNTHETIC}",
                f"{ACCURACY}, {ON_REAL}",
                f"{ACCURACY}, largest class",
                "label agreement",
            )
        ],
    )
    console.table("", [("to share, the report", page), ("never share, its twin", twin)])
    found = sum(any(secret in text for text in texts) for secret in PLANTED_SECRETS)
    console.say(f"planted secrets found in the release: {found} of {len(PLANTED_SECRETS)}")
    if found:
        raise PrivacyError("a planted secret came out, which the guarantee makes all but impossible; please report it")


if __name__ == "__main__":
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    main()
