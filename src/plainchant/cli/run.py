"""Commands of a run: run, status."""

import contextlib
import dataclasses
import shlex
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from plainchant.cli import resuming
from plainchant.cli.console import Console
from plainchant.cli.options import command, formatted, option, with_configuration, with_performance
from plainchant.cli.plan import show_plan
from plainchant.config import PerformanceOptions, SynthesisConfig
from plainchant.planning import Plan, make_plan
from plainchant.privacy.histograms import WHOLE_LABEL

if TYPE_CHECKING:
    from plainchant.run.released import SyntheticText
    from plainchant.run.store import RunDirectory


_NO_LEDGER = (
    "no ledger is named, so nothing adds up what this run costs with other releases from the same data; --ledger FILE "
    "does (plainchant account --ledger FILE makes one)"
)


def _notes_on_ledger(plan: Plan, ledger: Path | None) -> list[str]:
    """Advice for a new run whose cost a ledger could add up; one that sends what it releases says so in its plan."""
    cost = plan.guarantee.cost
    could = cost.is_limited and not cost.is_zero and not plan.config.sends_released
    return [_NO_LEDGER] if ledger is None and could else []


def _used_rows(used: dict[str, int] | None) -> list[tuple[str, Any]]:
    if used is None:
        return []
    unsaid = used["answers_without_figures"]
    said = f"{used['requests']:,} requests, {used['tokens_read']:,} tokens read, {used['tokens_written']:,} written"
    return [("endpoint", said + (f"; {unsaid:,} answers did not say" if unsaid else ""))]


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
@option(
    "--no-more-texts",
    is_flag=True,
    group="Output",
    help="With --resume: write no further texts, and release the best of those that are saved.",
)
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
    no_more_texts: bool,
    not_private: bool,
    ledger: Path | None,
    performance: PerformanceOptions,
) -> None:
    """Write synthetic texts from a private table into a run directory.

    \b
    plainchant run CONFIG --data FILE --out DIR
    plainchant run --resume --data FILE --out DIR
    plainchant run --resume --data FILE --out DIR --no-more-texts    end with the texts that are saved

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
        plan = make_plan(config)
        execute(
            console,
            plan,
            data,
            out,
            resume=resume,
            no_more_texts=no_more_texts,
            not_private=not_private,
            ledger=ledger,
            performance=performance,
            notes=() if resume else _notes_on_ledger(plan, ledger),
        )


def execute(
    console: Console,
    plan: Plan,
    data: Any,
    out: Path,
    *,
    resume: bool = False,
    no_more_texts: bool = False,
    not_private: bool = False,
    ledger: Path | None = None,
    performance: PerformanceOptions | None = None,
    samples: int = 0,
    notes: Sequence[str] = (),
) -> list[str]:
    """Runs a plan with progress, shows the outcome and returns the texts."""
    from plainchant.run.card import vote_advice
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
        console.progress(max_tokens=plan.config.max_tokens) as progress,
        synthesize(
            data,
            plan,
            out=out,
            resume=resume,
            no_more_texts=no_more_texts,
            performance=performance,
            allow_not_private=not_private,
            ledger=ledger,
            progress=progress,
            notes=resuming.start_notes(performance),
        ) as run,
    ):
        resuming.note_options(run.directory, performance)
        # only now: what is wrong with data, configuration, model or counts has been said, and nothing else
        with progress.aside():
            if resume:
                console.table("Resumed", [("guarantee", run.guarantee.statement)])
            else:
                show_plan(console, plan, performance)
            for note in notes:
                console.warn(note)
            _warn_of_labels(console, run.directory, plan)
        texts = run.finish()
    seconds = time.monotonic() - began
    if run.requested < plan.config.written and not run.directory.writes_no_more():
        console.warn(
            f"{run.requested} of {plan.config.written} texts from records: by the noisy counts, the data has too few "
            f"batches for more. A larger ε{_fewer_centres(plan)} or shorter texts allow more"
        )
    stopped = run.directory.writes_no_more()
    for advice in [] if stopped else vote_advice(run.directory.facts()):
        console.warn(advice)
    if samples:
        console.say(f"\n{samples} of the {len(texts)} texts:")
        step = max(1, len(texts) // samples)
        for text in texts[::step][:samples]:
            shown = text.text.replace("\n", "\n    ")
            console.say(f"  {f'[{text.label}] ' if text.label else ''}{shown}")
    # what earlier processes took is not known
    asked = f" of {plan.config.released}; it was told to write no more" if stopped else ""
    lasted = f"; {seconds:.0f} seconds since it was resumed" if resume else f" in {seconds:.0f} seconds"
    console.table(
        "\nDone",
        [
            ("guarantee", run.guarantee.statement),
            ("texts" if plan.config.has_text else "rows", f"{len(texts)}{asked}{lasted}{_written_by(plan, texts)}"),
            ("to share", f"{out / 'release'} (synthetic.jsonl, synthetic.parquet, README.md, guarantee.json)"),
            ("keep private", f"{out / 'private'}"),
        ],
    )
    console.result(
        {"out": str(out), "texts": len(texts), "guarantee": dataclasses.asdict(run.guarantee)}, str(out / "release")
    )
    return [text.text for text in texts]


def _written_by(plan: Plan, texts: "Sequence[SyntheticText]") -> str:
    """How many of the released texts records wrote together, where the model wrote others; public, as each says it."""
    if not (plan.config.written and plan.config.further):
        return ""
    count = sum(text.origin == "records" for text in texts)
    return f": {count} written by records together, {len(texts) - count} by the model alone"


def _fewer_centres(plan: Plan) -> str:
    """Advice that helps only where the user asked for a number of centres."""
    return ", fewer centres" if plan.centres is not None and plan.config.centres != "auto" else ""


def _warn_of_labels(console: Console, directory: "RunDirectory", plan: Plan) -> None:
    """Names the labels that no batch writes for, with their noisy counts: these are paid for."""
    from plainchant.run.card import noisy_counts

    cells, writing = directory.cells(), {batch.cell for batch in directory.batches() if batch.texts}
    if not plan.config.written or not plan.config.labels or not plan.rho_rebalance:
        return
    served = {plan.config.label_set[cell.label] for number, cell in enumerate(cells) if number in writing}
    lacking = [(label, count) for label, count in noisy_counts(cells, plan.config) if label not in served]
    if lacking and len(served) < len(plan.config.labels) and plan.config.written >= len(plan.config.labels):
        named = ", ".join(f"{label!r} (noisy count {count})" for label, count in lacking[:10])
        console.warn(
            f"no text is written from records of {named}{' and others' if len(lacking) > 10 else ''}. If the table has "
            "more of them, plainchant check says whether the labels are spelled as in it"
        )


def _what_next(run: "RunDirectory", *, finished: bool, is_running: bool) -> list[tuple[str, str]]:
    """What a run waits for."""
    if (ended := run.ended()) is not None:
        drew = "It drew the noisy counts below and nothing else; start a new run"
        return [("ended", f"before its first token: {ended}. {drew}")]
    if is_running:
        first = "" if run.is_formed() else "; models and public centres come first, then the noisy counts"
        return [("running", f"a process is working in it now{first}")]
    if finished:
        following = ("evaluate", "audit", "report", "statement", "view")
        return [("finished", f"next: plainchant {', '.join(following)}, each with {run.path}")]
    words = ["plainchant", "run", "--data", "FILE", "--out", str(run.path), "--resume"]
    noted = run.noted_ledger()
    if noted is not None or run.marks().last:
        words += ["--ledger", str(noted or "FILE")]
    words += resuming.noted_speed(run)
    return [("next", shlex.join(words))]


@command()
@click.argument("directory", metavar="DIR", type=click.Path(path_type=Path))
@formatted
def status(console: Console, directory: Path) -> None:
    """Show what a run has done, what it has spent, and what is left.

    The measured cost is private: it depends on the data.
    """
    from plainchant.run.card import EX_POST_NOTE, centre_name, vote_advice, vote_in_words
    from plainchant.run.costs import realised_costs
    from plainchant.run.promise import checked_promise
    from plainchant.run.store import RunDirectory
    from plainchant.run.writers import all_used

    run = RunDirectory.open(directory)
    plan = make_plan(run.config)
    guarantee = checked_promise(run, plan)
    texts = run.texts()
    batches = run.batches()
    requested = sum(batch.texts for batch in batches)
    costs = realised_costs(run, plan) if plan.mechanism.measured else None
    ended = run.ended()
    is_running = run.is_in_use()
    cells: list[dict[str, Any]] = [
        {
            "label": plan.config.label_set[cell.label],
            "centre": None if cell.centre == WHOLE_LABEL else cell.centre,
            "noisy_size": cell.noisy_size,
            # where records only vote, no unit is put in a batch
            "batches": cell.batches if batches else 0,
        }
        for cell in run.cells()
    ]
    stopped = run.writes_no_more()
    finished = run.is_released()
    advice = vote_advice(run.facts()) if finished and not stopped else []
    used = all_used(run.requests()) if plan.config.candidate_endpoint else None
    document = {
        "guarantee": dataclasses.asdict(guarantee),
        "texts": len(texts),
        "texts_planned": (requested if run.is_formed() else plan.config.written) + plan.config.further,
        "tokens": sum(text.tokens for text in texts),
        "endpoint": used,
        "votes": run.facts(),
        "notes": advice,
        "finished": finished,
        "ended": ended,
        "running": is_running,
        "cells": cells,
        "private": costs,
    }
    rows: list[tuple[str, Any]] = [
        ("guarantee", guarantee.statement),
        (
            "texts",
            f"{len(texts)} of {document['texts_planned']} written" * plan.config.has_text
            + "none: rows only" * (not plan.config.has_text)
            + ("; it was told to write no more" if stopped else "")
            + (
                f"; the records {'voted' if finished else 'vote'} for {plan.config.released} of them to release"
                if plan.config.votes
                else ""
            ),
        ),
        ("tokens", document["tokens"]),
        *_used_rows(used),
        ("kept cells, batches", f"{len(cells)}, {sum(cell['batches'] for cell in cells)}"),
        *((f"vote {facts['round']} of {plan.config.parts.rounds}", vote_in_words(facts)) for facts in run.facts()),
        *(("note", line) for line in advice),
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
    if costs and guarantee.kind == "ex-post":
        ex_post = costs["ex_post"]
        rows += [
            ("ex post, PRIVATE", f"ε = {ex_post['epsilon']:.4g} at δ = {ex_post['delta']:g} "
                                 f"(the smaller of {ex_post['by_sum']:.4g} by sum and {ex_post['by_ville']:.4g} by "
                                 f"Ville, and {ex_post['draws']:.4g} for the secret draw of batches)"),
            ("", EX_POST_NOTE),
        ]  # fmt: skip
    rows += _what_next(run, finished=finished, is_running=is_running)
    console.table(str(directory), rows)
    if cells:
        console.grid(
            ("label", "public centre", "noisy size", "batches"),
            [
                (own["label"], centre_name(cell), own["noisy_size"], own["batches"])
                for own, cell in zip(cells, run.cells(), strict=True)
            ],
        )
    console.result(document, f"{len(texts)}/{document['texts_planned']}")
