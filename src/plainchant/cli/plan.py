"""Commands that need no data: init, plan."""

import dataclasses
import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click

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
from plainchant.config import (
    PRESETS,
    RESERVED_COLUMNS,
    Method,
    Parts,
    PerformanceOptions,
    PromptConfig,
    SynthesisConfig,
    group_of,
)
from plainchant.data.files import write_text
from plainchant.data.header import Column, columns_of
from plainchant.data.schema import Schema
from plainchant.errors import ConfigError
from plainchant.planning import Plan, counted, make_plan
from plainchant.privacy.accounting import Cost
from plainchant.privacy.deals import Expected as Cells
from plainchant.run.joint import missing_package
from plainchant.run.speed import (
    SAMPLED_CORPUS,
    duration,
    forecast,
    kept_speed,
    samples_corpus,
)
from plainchant.run.words import odds_in_words

# What every table needs to have looked at, in the order in which a new file asks for it.
_FIRST = ("text_column", "label_column", "labels", "unit_column", "expected_units", "epsilon", "texts", "max_tokens")
# Seconds from which a plan says what takes less.
_LONG = 900
# Labels, or deals, that a plan names; of more it says how many there are.
_MOST_NAMED = 8
# How the name of a column ends that holds an id.
_NUMBER = "(id|uuid|no|nr|number|num)"
_BARE = re.compile(r"[A-Za-z0-9_-]+")
# What names of columns of a type look like.
_KINDS = {
    "date": r"(.*[_ -])?(date|day|created|opened|closed|updated|time|timestamp|at|on)",
    "number": r"(.*[_ -])?(price|amount|cost|total|sum|age|year|count|quantity|qty|score|rating|stars|size)",
    "boolean": r"((is|has|was|can|needs)[_ -].+|.*[_ -]?(flag|active|enabled|verified))",
}
# How the name of a column ends that holds the title of a text.
_TITLES = ("subject", "title", "headline")
# Names that columns of a kind usually have, the most telling first; a name that ends with one counts too.
_USUAL = {
    "text_column": ("text", "body", "message", "content", "description", "note", "comment", "review", "ticket"),
    "label_column": ("label", "category", "class", "topic", "kind", "type", "product", "queue", "tag"),
    "unit_column": ("customer", "patient", "user", "client", "person", "account", "member", "author"),
}


@command()
@click.argument("file", metavar="[FILE]", type=click.Path(path_type=Path), default=Path("plainchant.toml"))
@option(
    "--data",
    type=click.Path(path_type=Path),
    metavar="FILE",
    group="Data",
    help="A table whose column names are filled in. Its values are never written.",
)
@option(
    "--method",
    type=click.Choice([method.value for method in Method]),
    default=Method.PLAINCHANT.value,
    group="Method",
    help="Preset whose values the commented lines show.  [default: plainchant]",
)
@formatted
def init(console: Console, file: Path, data: Path | None, method: str) -> None:
    """Write a commented configuration file (default plainchant.toml), with a table's column names filled in."""
    if file.exists():
        raise ConfigError(f"FILE = {file}: exists already; choose another name")
    columns = [] if data is None else [column for column in columns_of(data)[0] if not column.nested]
    chosen = _chosen_columns(columns)
    try:
        write_text(file, _template(Method(method), chosen, [column.name for column in columns]))
    except OSError as error:
        raise ConfigError(
            f"FILE = {file}: cannot be written ({error.strerror}); choose a directory that you may write to"
        ) from None
    if data is not None:
        filled = ", ".join(f"{name} = {value!r}" for name, value in chosen.items()) or "none: no name says what it is"
        console.say(f"columns filled in by their names alone: {filled}. Are they right? plainchant check says more")
        if "label_column" in chosen:
            console.say(f"label_column counts once you have named the labels in {file} and taken its mark away")
        console.say(f"if the first line of {data} is a record and not a header, its words stand in {file}: delete it")
    console.say(f"wrote {file}; next: plainchant preview {file}, then plainchant plan {file}")
    console.result({"file": str(file), **chosen}, str(file))


def _chosen_columns(columns: Sequence[Column]) -> dict[str, str]:
    """Which column is probably what, by the names alone."""
    chosen: dict[str, str] = {}
    for field, usual in _USUAL.items():
        names = [column.name for column in columns if column.name not in chosen.values()]
        forms = {name: re.sub(rf"[_ -]?{_NUMBER}$", "", name.casefold()) for name in names}
        found = next((name for word in usual for name in names if forms[name].endswith(word)), None)
        if found is not None and not (field == "text_column" and _is_id(found)):
            chosen[field] = found
    return chosen


def _is_id(name: str) -> bool:
    return name.endswith("Id") or re.fullmatch(rf"(.*[_ -])?{_NUMBER}", name.casefold()) is not None


def _kind(name: str) -> str:
    """The type of an attribute that a new file proposes, by its name alone.

    >>> [_kind(name) for name in ("created_at", "unit price", "is_open", "product")]
    ['date', 'number', 'boolean', 'category']
    """
    return next((kind for kind, form in _KINDS.items() if re.fullmatch(form, name.casefold())), "category")


def _template_of_text(names: Sequence[str], text: str | None) -> str:
    """The template of a text with its title, by the columns' names alone; an invented one where none has such a name.

    >>> _template_of_text(["id", "Title", "body"], "body")
    '{Title}\\n\\n{body}'
    """
    title = next((name for name in names if name != text and name.casefold().endswith(_TITLES)), None)
    found = title is not None and text is not None and not {"{", "}"}.intersection(title + text)
    return f"{{{title}}}\n\n{{{text}}}" if found else "{subject}\n\n{body}"


def _template(method: Method, chosen: dict[str, str], names: Sequence[str]) -> str:
    lines = [
        "# plainchant configuration. Everything here is public: copy nothing into it from the private data.",
        f"# A line that is commented out shows the value that it has with method = {method.value}.",
        "# The command line and the environment replace this file.",
        "",
    ]
    if names:
        lines += ["# Columns of the table: " + ", ".join(_quoted(name) for name in names), ""]
    lines += ["# ==== Fill these in first; the prompt and its examples stand at the end ====", ""]
    for name in _FIRST:
        lines += _entry(name, method, chosen)
    lines += ["# ==== Everything from here to the prompt has a default that fits most tables ====", ""]
    section = ""
    for name in OPTION_NAMES:
        if name in _FIRST:
            continue
        if group_of(name) != section:
            section = group_of(name)
            lines += [f"# ---- {section} ----", ""]
        lines += _entry(name, method, chosen)
    lines += ["# ==== The prompt: fill in what your texts are, and made-up examples ====", "", "# [prompt]", ""]
    for name, field in PromptConfig.model_fields.items():
        lines += [f"# {field.description}"]
        if name != "examples":
            lines += [f"# {name} = {_toml_value(name, field, field.default)}", ""]
    lines += [
        "# [[prompt.examples]]",
        '# label = "…"',
        '# text = "…"',
        '# attributes = { product = "…" }  # with columns beside the text: those of this example',
        "",
        "# ==== Columns beside the text, if the release is to have them (extra table) ====",
        "",
        "# [columns]",
        f"# {Schema.model_fields['text'].description or ''}",
        f"# text = {_quoted(_template_of_text(names, chosen.get('text_column')))}",
        f"# {Schema.model_fields['message'].description or ''}",
        '# message = "{role}: {content}\\n"',
        "",
    ]
    free = [name for name in dict.fromkeys(names) if name not in (*chosen.values(), *RESERVED_COLUMNS)]
    if ids := [name for name in free if _is_id(name)]:
        lines += [f"# Left out, because the name is that of an id: {', '.join(map(_quoted, ids))}.", ""]
    for name in [name for name in free if name not in ids] or ["product"]:
        lines += [
            f"# [columns.attributes.{name if _BARE.fullmatch(name) else _quoted(name)}]",
            f'# type = "{_kind(name)}"  # category, number, date, boolean',
            '# values = ["…", "…"]  # a public list; number: cuts = [0, 10, 100]; date: first, last and grain',
            "",
        ]
    return "\n".join(lines)


def _entry(name: str, method: Method, chosen: dict[str, str]) -> list[str]:
    """A field with what it means."""
    field = SynthesisConfig.model_fields[name]
    said = [f"# {line}" for line in (field.description or "").splitlines()]
    return [*said, *_setting(name, field, method, chosen), ""]


def _setting(name: str, field: Any, method: Method, chosen: dict[str, str]) -> list[str]:
    """The line of a field: set where it was chosen, commented out where it shows what holds anyway."""
    if name == "method":
        return [("# " if method is field.default else "") + f'method = "{method.value}"' + _choices(name, field)]
    if name == "label_column" and name in chosen:
        # a label column needs labels, which only the user may name
        return ["# name the labels below, then take the mark from this line", f"# {name} = {_quoted(chosen[name])}"]
    if name in chosen:
        return [f"{name} = {_quoted(chosen[name])}"]
    value = getattr(PRESETS[method], name) if name in Parts.model_fields else field.default
    return [f"# {name} = {_toml_value(name, field, value)}"]


def _quoted(text: str) -> str:
    """A TOML string on one line."""
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    shown = escaped.replace("\n", "\\n")
    return '"' + "".join(sign if sign >= " " and sign != "\x7f" else f"\\u{ord(sign):04x}" for sign in shown) + '"'


def _choices(name: str, field: Any) -> str:
    kind, _ = value_type(name, field)
    return f"  # {', '.join(kind.choices)}" if isinstance(kind, click.Choice) else ""


def _toml_value(name: str, field: Any, value: Any) -> str:
    """A value as TOML, with the choices where there are some."""
    if value is None:
        return "…  # unset"
    if isinstance(value, tuple | dict):
        return "[]" if isinstance(value, tuple) else "{}"
    shown = plain_default(value)
    return shown if isinstance(value, int | float) else f'"{shown}"{_choices(name, field)}'


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
    plainchant plan CONFIG -v                             the numbers for experts too
    plainchant plan CONFIG --public-corpus FILE --measure

    How long a run takes is known once plainchant doctor has measured this machine.
    With --candidate-endpoint it also shows what will be sent there; nothing is sent yet.
    """
    plan = make_plan(config)
    texts = _public_texts(plan) if trial else []
    show_plan(console, plan, performance)
    if (missing := missing_package(config)) is not None:
        console.warn(missing)
    document = plan.as_dict()
    if config.candidate_endpoint is not None:
        document["sends"] = dataclasses.asdict(_sending(config))
    if trial:
        document["measured"] = _measured(console, plan, texts, performance)
    found = forecast(plan, performance)
    document["expected"] = None if found is None else dataclasses.asdict(found)
    console.result(document, plan.guarantee.statement)


def _public_texts(plan: Plan) -> list[str]:
    """Texts for a trial: the public corpus, or else the hand-written examples."""
    from plainchant.data.tables import read_texts

    config = plan.config
    if not config.needs_model:
        raise ConfigError(
            f"measure: no record is shown to a language model by --method {config.method.value}; leave --measure out"
        )
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
    with console.progress() as progress:
        progress.stage("loading the language model", 0.0)
        model = models.load(config.model, performance)
        progress.stage("loading the language model", 1.0)
        progress.stage("trying it on public text", 0.0)
        found = measure(plan, model, texts, rows=performance.width, passes=performance.passes)
        progress.stage("trying it on public text", 1.0)
    rows: list[tuple[str, Any]] = [
        ("range", f"{found.expected_range:.3g} nats on public text, for expected_range = {config.expected_range:g}"),
        ("tokens per text", f"{found.tokens_per_text:.3g}"),
        ("complete texts", f"{found.ended:.0%}; the others were cut off at max_tokens = {config.max_tokens}"),
        ("time", f"about {found.seconds:.0f} seconds to write the texts, plus loading and embedding"),
    ]
    console.table("Measured", rows)
    return dataclasses.asdict(found)


def show_plan(console: Console, plan: Plan, performance: PerformanceOptions | None = None) -> None:
    """A plan for people: short, with the numbers for experts where the console is verbose."""
    config, guarantee = plan.config, plan.guarantee
    for note in plan.notes:
        console.warn(note)
    requested = config.released if config.votes else config.texts
    rows: list[tuple[str, Any]] = [("guarantee", guarantee.statement)]
    if guarantee.kind == "ex-ante" and guarantee.epsilon is not None:
        rows.append(("in words", odds_in_words(guarantee.epsilon)))
    rows.append(("unit", _unit(plan)))
    if config.has_text:
        rows += [
            ("texts", f"{requested}, at most {counted(config.max_tokens, 'token')} each"),
            *_label_rows(config),
            *_choice_rows(config),
            ("form", _form(config)),
            *_reading_rows(config),
        ]
    else:
        rows.append(("rows", requested))
    if shares := plan.budget_shares:
        rows.append(("budget", ", ".join(f"{name} {share:.0%}" for name, share in shares.items())))
    rows += _attribute_rows(plan) + _candidate_rows(config)
    if plan.sample_rate < 1:
        rows.append(("sample", _sample(plan)))
    if plan.units_needed is not None:
        rows.append(
            (
                "data needed",
                f"about {plan.units_needed} units in {counted(plan.batches_needed, 'batch', 'batches')} of "
                f"{plan.settings.batch_size}",
            )
        )
    if plan.deals is not None and plan.expected is not None:
        rows += _group_rows(plan, plan.expected)
    if config.has_text:
        rows += _machine_rows(plan, performance or PerformanceOptions())
        if console.verbose:
            rows += _expert_rows(plan)
    console.table("Plan", rows)


def _label_rows(config: SynthesisConfig) -> list[tuple[str, Any]]:
    """The labels, or the first of many."""
    if not config.labels:
        return []
    shown = ", ".join(config.labels[:_MOST_NAMED]) + ", …" * (len(config.labels) > _MOST_NAMED)
    return [("labels", f"{len(config.labels)}: {shown}")]


def _reading_rows(config: SynthesisConfig) -> list[tuple[str, Any]]:
    """How much of a record is read; how many are longer, only the data says."""
    if not config.reads_records or not config.written:
        return []
    most = counted(config.max_record_tokens, "token")
    return [("records", f"read up to {most} each; plainchant check says how many of yours are cut")]


def _choice_rows(config: SynthesisConfig) -> list[tuple[str, Any]]:
    """From what the votes choose."""
    if not config.votes:
        return []
    by_records = f"{config.written} by the records together and " if config.written else ""
    why = ""
    if config.method is Method.PLAINCHANT and config.only_votes:
        why = ". Records write none: for so few of them at this ε the budget pays for no texts by records"
    return [
        ("written", f"{by_records}{config.further} by the public model, which cost no privacy; the records vote, with "
                    f"noise, for those to release{why}"),
    ]  # fmt: skip


def _attribute_rows(plan: Plan) -> list[tuple[str, Any]]:
    """What is counted of the attributes."""
    names = ", ".join(plan.config.columns.attributes)
    if not names:
        return []
    found = f"; values of some are found in the data, for {plan.table.delta:.3g} of δ" if plan.table.delta else ""
    return [("attributes", f"{names}: counted with noise, alone and in pairs{found}")]


def _sample(plan: Plan) -> str:
    """What the secret sample is, in a sentence."""
    about = "" if plan.units is None else f" (about {plan.units:,} of {plan.config.expected_units:,})"
    return (
        f"one unit in {1 / plan.sample_rate:.3g}{about}, drawn in secret by a key; all other rows are dropped as they "
        "are read. Nobody can tell whether a unit was looked at, so what is looked at may show more"
    )


def _unit(plan: Plan) -> str:
    if plan.config.unit_column is None and plan.config.reads_records:
        return "one record (every row by itself; --unit-column protects customers)"
    return plan.guarantee.unit


def _machine_rows(plan: Plan, performance: PerformanceOptions) -> list[tuple[str, Any]]:
    """Public corpus, time and memory; how long is known where this machine was measured."""
    config, speed = plan.config, kept_speed(plan.config.model, performance)
    found = forecast(plan, performance)
    rows: list[tuple[str, Any]] = []
    if samples_corpus(plan):
        lasts = "often the longest step" if found is None else duration(found.corpus)
        rows.append(
            (
                "public corpus",
                f"none is named, so {SAMPLED_CORPUS} texts are sampled from the model first ({lasts}); "
                "--public-corpus FILE spares that",
            )
        )
    elif config.public_corpus is not None and plan.centres is not None:
        rows.append(("public corpus", config.public_corpus))
    if found is None or speed is None:
        way = performance.model_dump(exclude_defaults=True, include={"device", "dtype"})
        doctor = " ".join(["plainchant doctor", *(f"--{name} {value}" for name, value in way.items())])
        return [*rows, ("time", f"unknown here; {doctor} measures this machine once")]
    total = duration(found.corpus + found.texts + (found.embedding or 0.0))
    beside = "with nothing beside it, plus loading" + ("" if found.embedding is not None else " and embedding")
    less = "; fewer or shorter texts take less" if found.corpus + found.texts > _LONG else ""
    return [
        *rows,
        ("time", f"{total} here, {beside} (measured {speed.measured} by plainchant doctor){less}"),
        ("memory", f"about {found.memory:.1f} GiB"),
    ]


def _expert_rows(plan: Plan) -> list[tuple[str, Any]]:
    config, settings, mechanism = plan.config, plan.settings, plan.mechanism
    rows: list[tuple[str, Any]] = [
        ("method", f"{config.method.value}: clusters {config.parts.clusters}, {config.parts.aggregate} of "
                   f"{settings.clipping}, support {settings.support}, accounting {config.parts.accounting}"),
        ("relation", "add or remove one unit"),
        ("batch size", settings.batch_size),
        ("clip, temperature", f"{settings.clip:.4g} nats, {settings.temperature:g}"),
    ]  # fmt: skip
    if plan.centres is not None:
        rows.append(("public centres", f"at most {plan.centres}"))
    if config.votes:
        rows += [
            ("votes", f"{config.parts.rounds} of ρ = {plan.rho_round:.4g} each; the private records vote for "
                      f"{config.released} of them"),
        ]  # fmt: skip
    if plan.rho_words:
        rows.append(("words", f"counted once, with noise of ρ = {plan.rho_words:.4g}; then the model that writes "
                              "candidates is moved towards them"))  # fmt: skip
    rows += mechanism.plan_rows()
    if plan.texts_per_batch is not None and plan.deals is None:
        covered = f"the budget covers {mechanism.about}{counted(plan.tokens_per_batch, 'token')}"
        rows.append(("texts per batch", f"{plan.texts_per_batch} ({covered})"))
    is_sent = config.candidate_endpoint is not None
    # records in the head of the texts that they write, and a public row in all of each text
    private = settings.batch_size * config.written * config.head
    public = (config.written + (0 if is_sent else config.further)) * config.max_tokens
    if plan.deals is not None and plan.expected is not None:
        writing = plan.deals.deals(plan.expected.batches, plan.expected.texts)
        counts = ", ".join(map(str, writing[:_MOST_NAMED])) + ", …" * (len(writing) > _MOST_NAMED)
        count = counted(plan.expected.cells, "cell") if plan.expected.cells else "as if there were cells"
        rows.append(
            ("deals", f"{count} of {counted(plan.expected.batches, 'batch', 'batches')}; each writes at most "
                      f"{counted(plan.expected.texts, 'text')} in {counted(len(writing), 'deal')}: by {counts} of a "
                      "cell's batches, deal by deal")
        )  # fmt: skip
    return [
        *rows,
        _cost_row(plan),
        ("model rows", f"{private + public:,} at most, plus prompts"),
    ]


def _cost_row(plan: Plan) -> tuple[str, str]:
    """What counts and tokens cost; with deals at the order that the plan fixed."""
    about, rule, cells = plan.mechanism.about, plan.deals, plan.expected
    if rule is None or cells is None:
        return (
            "ρ", f"{plan.rho_counts:.4g} for noisy counts, {_figure(plan.batch)} for the tokens of a batch, "
                 f"{about}{_figure(plan.mechanism.per_token)} per token",
        )  # fmt: skip
    most = f"{rule.payment_of(cells.batches, cells.texts):.3g}; about " if about else ""
    return (
        "cost", f"at the Rényi order {rule.order}: {rule.order * plan.rho_counts:.3g} nats for noisy counts, "
                f"{rule.budget:.3g} for the deals of a cell; for a text a unit pays ρ of at most {most}"
                f"{rule.payment:.3g}" + (" is expected" if most else ""),
    )  # fmt: skip


def _group_rows(plan: Plan, cells: Cells) -> list[tuple[str, str]]:
    """What deals are to a unit, in the numbers that are expected."""
    units = plan.settings.units_per_batch
    if cells.batches == 1:
        return [("groups", f"about {units} units write a text together: all of a cell, so that no secret draw is left")]
    return [
        ("groups", f"about {units} units write a text together; every unit draws its group afresh, in secret, so that "
                   f"nobody, not even we, can tell from the release which of {cells.batches} it was in"),
    ]  # fmt: skip


def _sending(config: SynthesisConfig) -> Any:
    from plainchant.run.writers import sending

    return sending(config)


def _candidate_rows(config: SynthesisConfig) -> list[tuple[str, Any]]:
    """The second model: which it is, what it is sent and what that costs."""
    if config.candidate_model is None:
        return []
    alone = "" if config.needs_model else "; no other language model is loaded"
    if config.candidate_endpoint is None:
        return [("candidate model", f"{config.candidate_model}{alone}")]
    alone = "" if config.needs_model else "; no language model is loaded here"
    own = _sending(config)
    kinds = ["public text", *["rows drawn from noisy counts"] * bool(config.columns.attributes)]
    what = ", ".join(kinds) + " and texts from records" * bool(config.written)
    what = f"Before the first vote {what} only" if config.votes else what.capitalize()
    return [
        ("candidate model", f"{config.candidate_model} at {own.address}{alone}"),
        ("is sent", f"{counted(own.requests, 'request')}: about {own.tokens_read:,} tokens read (at four characters "
                    f"each), at most {own.tokens_written:,} written. {what}; all of it is noted in "
                    "private/requests.jsonl"),
        ("for example", json.dumps(own.body, ensure_ascii=False)),
    ]  # fmt: skip


def _form(config: SynthesisConfig) -> str:
    """What ends a text, and whether its line breaks are kept."""
    stop = config.stop
    if stop == "\n":
        why = "as prompt.example ends it" if config.prompt.example is not None else "like the public examples"
        return f"single lines, {why}; line breaks of records become spaces"
    ends = "where the model ends it"
    if stop is not None:
        ends = f"at a line that begins with {stop[1:]!r}" if stop.startswith("\n") else f"at {stop!r}"
    return f"line breaks are kept; a text ends {ends}"


def _figure(cost: Cost) -> str:
    return f"{cost.rho:.4g}" if cost.is_limited else "–"
