"""Commands about finished runs: evaluate, compare, report, audit."""

import contextlib
import functools
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from plainchant.cli import resuming
from plainchant.cli.console import Console, ProgressBars
from plainchant.cli.options import HOLDER, LIMIT, NAME, REAL, command, formatted, option, with_performance
from plainchant.config import PerformanceOptions, load_config
from plainchant.errors import ConfigError, GateError, PrivacyError, RunError
from plainchant.evaluation.figures import (
    BESIDE,
    EXPLANATIONS,
    FEWEST_FOR_MAUVE,
    IN_SHORT,
    MAUVE,
    WEAK_MAUVE,
    shown_name,
)
from plainchant.planning import make_plan

if TYPE_CHECKING:
    from plainchant.auditing.runs import Audit
    from plainchant.data.embedding import Embedder
    from plainchant.evaluation.figures import Beside, Evaluation, Figure
    from plainchant.run.store import RunDirectory


@command()
@click.argument("directory", metavar="DIR", type=click.Path(path_type=Path))
@REAL
@LIMIT
@option(
    "--public",
    type=click.Path(path_type=Path),
    metavar="DIR",
    group="Data",
    help="A run of the same configuration with --method public, whose figures are shown beside.",
)
@option(
    "--min-mauve",
    type=float,
    metavar="X",
    group="Gates",
    help="Exit with 4 if MAUVE is lower than this, or if there are fewer than 300 texts to measure it on.",
)
@option(
    "--min-accuracy",
    type=float,
    metavar="X",
    group="Gates",
    help="Exit with 4 if the accuracy of a classifier trained on the synthetic texts is lower than this.",
)
@formatted
def evaluate(
    console: Console,
    directory: Path,
    real: Path,
    limit: int,
    public: Path | None,
    min_mauve: float | None,
    min_accuracy: float | None,
) -> None:
    """Compare a run's texts with the real ones: do they look alike, and can one train on them?

    Reads private data, and the guarantee does not cover its figures: they are shown here and written to DIR/private
    only. Every figure has a 95 % interval, and both sides of a comparison have the same number of texts.
    """
    from plainchant.evaluation.figures import ACCURACY, NOTE, ON_SYNTHETIC, PAIRS
    from plainchant.evaluation.runs import evaluate as measure
    from plainchant.run.store import RunDirectory

    run = RunDirectory.open(directory)
    run.released()  # where there is none yet, no embedder is loaded to find that out
    console.warn(NOTE)
    with console.progress() as progress:
        found = measure(
            run, real, limit=limit, public=public,
            embedder=_loaded_embedder(progress, run.config.embedder) if run.config.has_text else None,
            progress=functools.partial(progress.stage, "embedding the real texts"),
            measuring=functools.partial(progress.stage, "computing the figures"),
        )  # fmt: skip
    mauve = found.figure(MAUVE)
    with _saved_whatever_happens(console, run, "evaluation.json", found.as_dict()):
        _show_beside(console, found)
        if run.config.has_text:
            console.say(f"\n{found.compared} texts on each side", private=True)
        _warn_of_mauve(console, found)
        console.result(found.as_dict(), str(mauve or found.figure(PAIRS)))
    if min_mauve is not None and found.mauve_is_weak:
        raise GateError(
            f"--min-mauve {min_mauve:g}: the texts on each side are too few for MAUVE, which needs {FEWEST_FOR_MAUVE}; "
            "release more texts, or gate on --min-accuracy"
        )
    _gate("min-mauve", mauve, min_mauve)
    _gate("min-accuracy", found.figure(f"{ACCURACY}, {ON_SYNTHETIC}"), min_accuracy)


def _loaded_embedder(progress: ProgressBars, name: str, device: str = "cpu") -> "Embedder":
    from plainchant.data.embedding import load_embedder

    progress.stage("loading the embedder", 0.0)
    embedder = load_embedder(name, device=device)
    progress.stage("loading the embedder", 1.0)
    return embedder


def _warn_of_mauve(console: Console, found: "Evaluation") -> None:
    if found.mauve_is_weak:
        said = f"{WEAK_MAUVE}, and these are {found.compared}. Read it against the one of as many real texts"
        console.warn(said, private=True)


def _show_beside(console: Console, found: "Evaluation") -> None:
    """Figures with those of real texts and of the public model in place of the synthetic ones: a few, or all."""
    groups = found.beside()
    every = {own.name: own for figures in groups.values() for own in figures}
    first = [every[name] for name in IN_SHORT if name in every]
    _show_group(console, "in short", first, IN_SHORT)
    if console.verbose:
        for group, figures in groups.items():
            _show_group(console, group, figures, EXPLANATIONS, explained=True)
    console.say("\nvalues with 95 % intervals; " + (
        "all of them and what they are" if console.verbose else f"-v shows all {len(every)} figures and explains them"
    ))  # fmt: skip


def _show_group(
    console: Console, title: str, figures: "Sequence[Beside[Figure]]", words: Mapping[str, str], *,
    explained: bool = False,
) -> None:  # fmt: skip
    """A table of figures; `words` explain them in a column of their own, or stand in place of their names."""
    shown = [kind for kind in BESIDE if any(getattr(own, kind) is not None for own in figures)]
    console.say("")
    console.grid(
        (title, "these texts", *(BESIDE[kind] for kind in shown), *["what it is"] * explained),
        [
            (
                shown_name(own.name) if explained else words[own.name],
                *(_two_lines(figure) for figure in (own.figure, *(getattr(own, kind) for kind in shown))),
                *[words.get(own.name, "")] * explained,
            )
            for own in figures
        ],
    )


def _two_lines(figure: "Figure | None") -> str:
    return "–" if figure is None else str(figure).replace(" (", "\n(")


def _kept_before_replay(console: Console, run: "RunDirectory", progress: ProgressBars, found: "Audit") -> None:
    """Saves what an audit has found so far: a replay may take minutes, and may be interrupted."""
    try:
        path = run.write_private("audit.json", found.as_dict())
    except OSError:
        # said at the end, when all figures were shown
        return
    with progress.aside():
        console.say(
            f"copies and membership are in {path}. Now a batch is written again with and without a record, and its "
            "draws are repeated, which takes minutes; --no-replay leaves that out"
        )


@contextlib.contextmanager
def _saved_whatever_happens(
    console: Console, run: "RunDirectory", name: str, document: dict[str, Any]
) -> Iterator[None]:
    """Saves figures after they were shown: those that cannot be saved were seen, those that cannot be shown are kept.

    Raises:
        RunError: they cannot be saved.
    """
    try:
        yield
    finally:
        try:
            path = run.write_private(name, document)
        except OSError as error:
            reason = os.strerror(error.errno) if error.errno else type(error).__name__
            raise RunError(
                f"{run.private / name}: cannot be written ({reason}), so the figures are above only; make room there "
                "and repeat the command, or copy them from here"
            ) from None
        console.say(f"written to {path}")


def _show_groups(
    console: Console, groups: Mapping[str, Mapping[str, "Figure"]], explanations: Mapping[str, str]
) -> None:
    for group, figures in groups.items():
        console.say("")
        console.grid(
            (group, "value (95 % interval)", ""),
            [(shown_name(name), str(figure), explanations.get(name, "")) for name, figure in figures.items()],
        )


def _gate(option: str, figure: "Figure | None", bound: float | None) -> None:
    """Raises GateError where a figure is missing or on the wrong side of its bound."""
    if bound is None:
        return
    if figure is None:
        raise GateError(f"--{option} {bound:g}: there is no such figure here; see --help for what it needs")
    if figure.value < bound if option.startswith("min") else figure.value > bound:
        # not the figure, which is private: an error may be logged
        side = "below" if option.startswith("min") else "above"
        raise GateError(f"--{option} {bound:g}: the figure, which is shown above and kept in private/, is {side} that")


@command()
@click.argument("directories", metavar="DIR...", nargs=-1, required=True, type=click.Path(path_type=Path))
@REAL
@LIMIT
@option(
    "--out",
    type=click.Path(path_type=Path),
    metavar="DIR",
    default=None,
    group="Output",
    help="Directory for comparison.json, comparison.md and the plots, for their owner only.  [default: \
private/comparison of the first run]",
)
@formatted
def compare(console: Console, directories: tuple[Path, ...], real: Path, limit: int, out: Path | None) -> None:
    """Compare several runs on the same table: usefulness against privacy.

    Every run is compared with as many texts as the smallest has. An ε promised before a run and one measured after it
    differ in meaning and are shown in separate columns and plots. Reads private data: the guarantees do not cover
    these figures.
    """
    from plainchant.evaluation.figures import NOTE
    from plainchant.evaluation.runs import compare as measure
    from plainchant.reporting.comparison import comparison_table, write_comparison

    console.warn(NOTE)
    with console.progress() as progress:
        progress.stage("comparing", 0.0)
        found = measure(directories, real, limit=limit, progress=functools.partial(progress.stage, "comparing"))
    # all have as many texts; those of attributes alone have no MAUVE
    for weak in [run.evaluation for run in found if run.evaluation.mauve_is_weak][:1]:
        _warn_of_mauve(console, weak)
    columns, rows = comparison_table(found)
    # one column per run, so that it fits a terminal
    names, *lines = zip(columns, *rows, strict=True)
    out = directories[0] / "private" / "comparison" if out is None else out
    try:
        console.grid(names, [[cell.replace(" (", "\n(") for cell in line] for line in lines])
    finally:
        # what cannot be written was seen, what cannot be shown is kept
        paths = write_comparison(out, found)
    console.say(f"\n{found[0].evaluation.compared} texts of each run", private=True)
    console.say(f"written to {', '.join(map(str, paths))}")
    console.result({"note": NOTE, "runs": [run.as_dict() for run in found]}, str(out))


@command()
@click.argument("directory", metavar="DIR", type=click.Path(path_type=Path))
@NAME
@HOLDER
@formatted
def report(console: Console, directory: Path, name: str | None, holder: str | None) -> None:
    """Write one page about a finished run to DIR/release, and a private version of it to DIR/private.

    The page needs no network and may be shared with the release: what it is, what it promises, topics, all texts,
    budget, settings.
    Figures from evaluate and audit appear on the private page only.
    """
    from plainchant.reporting.runs import report as write_pages

    paths = write_pages(directory, name=name, holder=holder)
    console.table("", [("to share" if path.parent.name == "release" else "keep private", path) for path in paths])
    console.result({"pages": [str(path) for path in paths]}, str(paths[0]))


@command()
@click.argument("target", metavar="DIR|CONFIG", type=click.Path(path_type=Path, exists=True))
@option(
    "--real",
    type=click.Path(path_type=Path),
    metavar="FILE",
    required=True,
    group="Data",
    help="The table that the run was, or is to be, made from.",
)
@option(
    "--held-out",
    type=click.Path(path_type=Path),
    metavar="FILE",
    group="Data",
    help="Texts of the same kind that were not in the table: needed for membership, and to tell copies from chance.",
)
@option(
    "--replay/--no-replay",
    default=True,
    group="Attacks",
    help="Load the model and replay a batch, where ε was promised.  [default: replay]",
)
@option(
    "--canaries",
    type=click.IntRange(min=1),
    metavar="N>=1",
    default=20,
    group="Attacks",
    help="CONFIG: number of records to plant.  [default: 20]",
)
@option(
    "--repetitions",
    type=click.IntRange(min=1),
    metavar="N>=1",
    default=1,
    group="Attacks",
    help="CONFIG: how often each is planted.  [default: 1]",
)
@option(
    "--out",
    type=click.Path(path_type=Path),
    metavar="DIR",
    group="Output",
    help="CONFIG: directory of the run with canaries.",
)
@option("--resume", is_flag=True, group="Output", help="CONFIG: continue the run in --out.")
@option(
    "--i-know-this-is-not-private",
    "not_private",
    is_flag=True,
    group="Guarantee",
    help="CONFIG: allow a run without a guarantee.",
)
@option(
    "--max-copied", type=float, metavar="X", group="Gates", help="Exit with 4 if a larger share of the texts is copied."
)
@option(
    "--max-audit-epsilon",
    type=float,
    metavar="X",
    group="Gates",
    help="Exit with 4 if the replay shows a larger ε than this.",
)
@with_performance
@formatted
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
    """Attack a run: copied text, membership, canaries, and a lower bound on ε by replay.

    \b
    plainchant audit DIR --real FILE --held-out FILE
    plainchant audit CONFIG --real FILE --out DIR

    DIR is a finished run. With CONFIG, a new run on the data, with made-up secrets planted in it, is written to --out:
    it spends privacy budget of the same data, so it is for auditing only and must not be shared. An audit can refute a
    guarantee, never prove it. Reads private data; the figures are shown here and written to DIR/private only.
    """
    from plainchant import models
    from plainchant.auditing.runs import EXPLANATIONS, audit_with_canaries
    from plainchant.auditing.runs import audit as attack
    from plainchant.evaluation.figures import NOTE
    from plainchant.run.store import RunDirectory

    console.warn(NOTE)
    if target.is_dir():
        run = RunDirectory.open(target)
        config = run.config
        with console.progress() as progress:
            found = attack(
                run, real, held_out=held_out,
                embedder=_loaded_embedder(progress, config.embedder, performance.device) if held_out else None,
                load_model=(lambda: models.load(config.model, performance)) if replay else None,
                progress=functools.partial(progress.stage, "auditing"),
                before_replay=functools.partial(_kept_before_replay, console, run, progress),
            )  # fmt: skip
    else:
        if out is None:
            raise ConfigError("out: not given; a run with canaries needs a directory, --out DIR")
        plan = make_plan(load_config(target))
        console.warn(
            "this run spends privacy budget of the same data as other runs: it is for auditing, "
            "do not share its release"
        )
        resuming.note_resumable(
            out,
            ["plainchant", "audit", str(target), "--resume"],
            {"real": real, "held_out": held_out, "out": out, "i_know_this_is_not_private": not_private}
            | resuming.set_performance(performance),
        )
        with console.progress() as progress:
            found = audit_with_canaries(
                real, plan, out=out, count=canaries, repetitions=repetitions, resume=resume,
                allow_not_private=not_private, performance=performance, held_out=held_out, replay=replay,
                progress=progress,
            )  # fmt: skip
        run = RunDirectory.open(out)
    shown = found.figure("epsilon_low")
    with _saved_whatever_happens(console, run, "audit.json", found.as_dict()):
        # on standard output, as the figures: a log keeps neither
        console.table("", [("found", found.verdict)])
        _show_groups(console, found.groups, EXPLANATIONS)
        console.result(found.as_dict(), str(found.figure("copied")))
    _gate("max-copied", found.figure("copied"), max_copied)
    _gate("max-audit-epsilon", shown, max_audit_epsilon)
    claimed = found.figure("epsilon_claimed")
    if shown and claimed and shown.value > claimed.value:
        raise PrivacyError(
            f"the replay shows more than the ε = {claimed.value:.4g} that is claimed (the figures stand above): do not "
            "release, and please report it"
        )
