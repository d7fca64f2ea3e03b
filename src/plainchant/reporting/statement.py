"""The statement: one page about a release for whoever answers for it to sign, as Markdown and as a page to print."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from plainchant.auditing.canaries import CANARIES
from plainchant.config import SynthesisConfig
from plainchant.errors import ConfigError, PrivacyError, RunError
from plainchant.evaluation.runs import directory_of
from plainchant.planning import Guarantee, make_plan
from plainchant.privacy.accounting import Cost, rounded_up, shown_epsilon
from plainchant.reporting.page import readable
from plainchant.reporting.rendering import render
from plainchant.reporting.runs import named
from plainchant.run.card import (
    NOT_COVERED,
    full_figure,
    invented,
    markdown_cell,
    models_of,
    public_inputs,
    title_of,
)
from plainchant.run.ledger import Ledger
from plainchant.run.promise import checked_promise
from plainchant.run.store import Marks, RunDirectory, Seal
from plainchant.run.words import one_in, strength, suspicion, times

# Figures of an audit that a statement names, where they were measured.
_AUDITED = {
    "copied": "share of texts copied from private text, beyond chance: {}",
    "similarity_auc": "telling records of the data from others by likeness to the release: {}, where 0.5 is a guess",
    "likelihood_auc": "the same by how likely the release makes them: {}",
    "epsilon_low": "ε that a replay of one batch shows: at least {}",
    "epsilon_claimed": "ε claimed for that batch: {}",
}
# Who made a release without and with texts.
_MADE = (
    "Every row was drawn from a law that was fitted to noisy counts. A row",
    "Every text was written by a language model. A text",
)
_NO_ADVICE = (
    "This statement describes a mathematical guarantee and how the release was made. It is not legal advice. The "
    "holder decides, and answers for the settings: whatever is called public here must be public."
)
_PUBLISH = (
    "The holder decides. The promise covers the files named above once they are out, and nothing that anybody does "
    "with them weakens it. Figures of evaluate, compare and audit, and the folder private/, must stay inside. Check "
    "the licence of the language model too (plainchant doctor names it)."
)


@dataclass(frozen=True)
class Line:
    """A line of a statement: what it is about, what it says, and whether that depends on the private data."""

    name: str
    says: str
    private: bool = False


@dataclass(frozen=True)
class Section:
    """Lines under a heading."""

    title: str
    lines: tuple[Line, ...]


def statement(
    run: Any, *, name: str | None = None, holder: str | None = None, ledger: str | Path | None = None
) -> list[Path]:
    """Writes the statement of a finished run: release/statement.md and .html, which may be shared.

    The version in private/ also says what an audit found, and what the run cost where nothing was promised beforehand.

    Args:
        run: a `Run`, a `FinishedRun`, a `RunDirectory` or a path.
        name: of the data set, used instead of the configuration's.
        holder: of the private table, likewise.
        ledger: the data set's ledger, whose total is stated.

    Returns:
        The paths of the pages: those to share, then the private ones.

    Raises:
        ConfigError: there is no such run, it is not finished, or the ledger has no entry for it.
        PrivacyError: there is no guarantee to state, or the run holds planted canaries.
        RunError: the release is not as the run wrote it, or private figures are damaged.
    """
    directory = directory_of(run)
    refuse_unfit(directory)
    plan = named(make_plan(directory.config), name, holder)
    guarantee, config = checked_promise(directory, plan), plan.config
    book = None if ledger is None else Ledger(Path(ledger))
    sections = [
        _release(directory, config, guarantee, directory.seal()),
        _promise(guarantee, _total(directory, book), _measured(directory, guarantee)),
        _coverage(config, directory.read_private("audit.json"), directory.private / "audit.json"),
        _questions(config, guarantee, directory.marks() != Marks()),
    ]
    title = f"Privacy statement: {title_of(config)}"
    return [
        *_write(directory, title, sections, private=False),
        *_write(directory, title, sections, private=True),
    ]


def refuse_unfit(directory: RunDirectory) -> None:
    """Refuses what must not leave the house: a release without a guarantee, with canaries, or that was changed.

    Raises:
        ConfigError, PrivacyError, RunError: as `statement`.
    """
    directory.sealed_release()
    guarantee = checked_promise(directory, make_plan(directory.config))
    if guarantee.kind == "none":
        raise PrivacyError(f"{directory.path}: {guarantee.statement}")
    if directory.read_private(CANARIES) is not None:
        raise PrivacyError(f"{directory.path}: holds planted canaries; it is for auditing only, do not release it")


def _release(directory: RunDirectory, config: SynthesisConfig, guarantee: Guarantee, seal: Seal) -> Section:
    texts, revision = len(directory.released()), directory.origin.model
    lines = [
        Line("Data set", config.name or "not named (--name)"),
        Line("Holder", config.holder or "not named (--holder)"),
        Line("Content", f"{texts} synthetic {'texts' if config.has_text else 'rows'}" + _beside(config)),
        Line("Date", f"{seal.date} (UTC)"),
        Line("Made with", f"plainchant {guarantee.version}, method {guarantee.method}"),
        *(Line("Language model", model) for model in models_of(config, revision or "version not recorded")),
        *(Line(name, f"SHA-256 {known}") for name, known in sorted(seal.files.items())),
    ]
    return Section("The release", tuple(lines))


def _beside(config: SynthesisConfig) -> str:
    """How many labels and attributes there are beside a text."""
    counts = ((len(config.labels), "labels"), (len(config.columns.attributes), "attributes"))
    said = " and ".join(f"{count} {name}" for count, name in counts if count)
    return f" with {said}" if said else ""


def _promise(guarantee: Guarantee, total: Line, measured: Sequence[Line]) -> Section:
    unit = Line("Protected unit", f"{guarantee.unit}. Whether in the private data or not, all are protected alike")
    if guarantee.epsilon is None or guarantee.delta is None:
        promise = "No figure was promised before the run. The cost was measured after it, and that figure is private."
        return Section("The promise", (unit, Line("ε", promise), *measured, total))
    if not guarantee.epsilon:
        return Section("The promise", (Line("ε", "ε = 0: no private data was read."), total))
    return Section(
        "The promise",
        (
            unit,
            Line("ε", f"ε = {full_figure(guarantee.epsilon)}: the odds of any conclusion from the release change by at "
                      f"most {times(guarantee.epsilon)} times. {strength(guarantee.epsilon)}"),
            Line("δ", f"δ = {full_figure(guarantee.delta)}: that bound may fail with a probability of at most "
                      f"{one_in(guarantee.delta)}."),
            Line("Fixed", "before the run, whatever the data holds and whatever was written; against anybody, with any "
                          "other knowledge"),
            total,
        ),
    )  # fmt: skip


def _measured(directory: RunDirectory, guarantee: Guarantee) -> list[Line]:
    """The cost that was measured after the run, where nothing was promised before."""
    costs = directory.read_private("costs.json") if guarantee.kind == "ex-post" else None
    if costs is None:
        return []
    try:
        figure = float(costs["ex_post"]["epsilon"])
    except (KeyError, TypeError, ValueError):
        raise RunError(
            f"{directory.private / 'costs.json'}: is not as it was written; make it again with run --resume"
        ) from None
    return [Line("Measured ε", f"{readable(figure)}, for this data and this output", private=True)]


def _total(directory: RunDirectory, book: Ledger | None) -> Line:
    """What all runs on the data set cost together, as far as that is known."""
    title = "Total of all releases"
    if book is None:
        charged = directory.marks() != Marks()
        return Line(title, "not stated on this page; the ledger of this run has it" if charged else
                           "not known: no ledger was kept for this run")  # fmt: skip
    runs = book.runs
    if directory.origin.name not in [entry["run"] for entry in runs]:
        raise ConfigError(
            f"ledger = {book.path}: has no entry for {directory.path}; name the ledger that the run was started with"
        )
    spent = shown_epsilon(book.spent, book.delta)
    # guarantee 6.4: a sum that is converted afterwards is no bound for runs that were planned after seeing others
    alone = sum(not Cost.from_dict(entry).is_zero for entry in runs) < 2
    unseen, always = (
        ("", "")
        if alone
        else (
            ", if none was planned after seeing another's release; otherwise the cap is what holds",
            ", seen or not",
        )
    )
    return Line(
        title,
        f"{len(runs)} run{'' if len(runs) == 1 else 's'} in ledger {book.path.name}, together ε = {spent:g} at δ = "
        f"{book.delta:g}: the odds change by at most {times(spent)} times{unseen}. The ledger refuses more than ε = "
        f"{book.epsilon:g}{always}.",
    )


def _coverage(config: SynthesisConfig, audit: Mapping[str, Any] | None, file: Path) -> Section:
    covered = "the files named above, for everybody who sees them, and whatever is computed from them"
    return Section(
        "What is covered",
        (
            Line("Covered", covered),
            Line("Not covered", "; ".join(NOT_COVERED) + "; the folder private/ and the machine of the holder"),
            Line("Taken as public", "; ".join(public_inputs(config)) + ". Each stands in README.md, under Settings"),
            *_audit_lines(audit, file),
        ),
    )


def _audit_lines(audit: Mapping[str, Any] | None, file: Path) -> list[Line]:
    if audit is None:
        return [Line("Audit", "none was made when this was written (plainchant audit)", private=True)]
    try:
        figures = {name: figure for group in audit["groups"].values() for name, figure in group.items()}
        found = [words.format(_interval(figures[name])) for name, words in _AUDITED.items() if name in figures]
    except (KeyError, TypeError, AttributeError, ValueError):
        raise RunError(f"{file}: is not as it was written; make it again with plainchant audit") from None
    missing = {"membership": "similarity_auc", "replay": "epsilon_low"}
    found += [f"{attack}: not tried" for attack, name in missing.items() if name not in figures]
    said = "; ".join(found)
    return [Line("Audit", f"{said}. An audit can refute a guarantee, never prove it.", private=True)]


def _interval(figure: Mapping[str, Any]) -> str:
    low, high = figure.get("low"), figure.get("high")
    bounds = "" if low is None or high is None else f" ({readable(low)} to {readable(high)})"
    return readable(figure["value"]) + bounds


def _questions(config: SynthesisConfig, guarantee: Guarantee, charged: bool) -> Section:
    epsilon = guarantee.epsilon
    bounded = "the promise above bounds how far any one unit can have caused that"
    nothing = "no private data was read, so no unit can have caused that"
    personal = (
        f"The law decides that, not this page. {_MADE[config.has_text]} may resemble a record; "
        f"{nothing if epsilon == 0 else bounded}."
    )
    if epsilon is None or epsilon > 1.5:
        personal += (
            " By itself that bound does not show that nobody can be identified: look at an audit and read the texts."
        )
    return Section(
        "Five questions",
        (
            Line("Is this personal data?", personal),
            Line("Can a person be found?", _found(guarantee)),
            Line("Are names real?", invented(config) + " A name may be a real person's all the same."),
            Line("Can we publish it?", _PUBLISH),
            Line("What if we release twice?", _twice(guarantee, charged)),
        ),
    )


def _found(guarantee: Guarantee) -> str:
    if guarantee.epsilon == 0:
        return "Not from the private data: none was read. The model may know people from its own training."
    if guarantee.epsilon is None:
        return "No bound was promised before the run. Only an audit and the texts themselves can tell."
    several = (
        "A person with several records is protected less; unit_column protects all records of a person together."
        if guarantee.unit == "one record"
        else "A person whose records have several values of that column is protected less."
    )
    return (
        "Suppose somebody thinks it as likely as not that a unit was in the data. With the release they can be right "
        f"with a chance of at most {suspicion(guarantee.epsilon)} (δ aside). {several} What many units share, such as "
        "a well-known event, can show."
    )


def _twice(guarantee: Guarantee, charged: bool) -> str:
    if guarantee.epsilon == 0:
        return "Releases without private data cost nothing, however many there are."
    kept = "The ledger of this run adds them up." if charged else "A ledger (plainchant account) would add them up."
    if guarantee.epsilon is None or guarantee.delta is None:
        return f"Costs add up: each further release from the same records tells more about each of them. {kept}"
    both = rounded_up((guarantee.cost + guarantee.cost).epsilon(guarantee.delta), 3)
    return (
        f"Costs add up. Two releases like this one have ε = {both:g} together at the same δ: the odds then "
        f"change by at most {times(both)} times. {kept}"
    )


def _write(directory: RunDirectory, title: str, sections: Sequence[Section], *, private: bool) -> list[Path]:
    shown = [
        Section(section.title, tuple(line for line in section.lines if private or not line.private))
        for section in sections
    ]
    page = render(
        "statement.html.jinja", (), {}, title=title, sections=shown, private=private, no_advice=_NO_ADVICE,
        signed=_SIGNED,
    )  # fmt: skip
    return [
        directory.write_page("statement.md", _markdown(title, shown, private=private), private=private),
        directory.write_page("statement.html", page, private=private),
    ]


_SIGNED = ("Name", "Role", "Place, date", "Signature")


def _markdown(title: str, sections: Sequence[Section], *, private: bool) -> str:
    parts = [f"# {markdown_cell(title)}"]
    if private:
        parts.append("**PRIVATE: lines marked [private] depend on the private data. Do not share this version.**")
    for section in sections:
        rows = [
            f"| {markdown_cell(line.name)}{' **[private]**' * line.private} | {markdown_cell(line.says)} |"
            for line in section.lines
        ]
        parts += [f"## {section.title}", "\n".join(["| | |", "|---|---|", *rows])]
    parts += [_NO_ADVICE, "\n".join(f"{name}: {'_' * 40}  " for name in _SIGNED)]
    return "\n\n".join(parts) + "\n"
