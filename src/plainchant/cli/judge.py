"""Commands about finished runs: evaluate, compare, report, audit."""

import functools
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import click

from plainchant.cli.console import Console
from plainchant.cli.options import LIMIT, REAL, formatted, with_performance
from plainchant.config import PerformanceOptions, load_config
from plainchant.errors import ConfigError, GateError, PrivacyError
from plainchant.planning import make_plan

if TYPE_CHECKING:
    from plainchant.evaluation.figures import Figure


@click.command()
@click.argument("directory", metavar="DIR", type=click.Path(path_type=Path))
@REAL
@LIMIT
@click.option("--min-mauve", type=float, help="Exit with 4 where MAUVE is below this.")
@click.option(
    "--min-accuracy",
    type=float,
    help="Exit with 4 where a classifier trained on the synthetic texts is right less often than this.",
)
@formatted
def evaluate(
    console: Console, directory: Path, real: Path, limit: int, min_mauve: float | None, min_accuracy: float | None
) -> None:
    """Whether a run's texts look like the real ones, and whether one can train on them.

    Reads private data, and its figures are not private: they are shown here and written to DIR/private alone. Every
    figure has a 95 % interval, and both sides of a comparison have the same number of texts.
    """
    from plainchant.evaluation.figures import ACCURACY, EXPLANATIONS, MAUVE, NOTE, ON_SYNTHETIC
    from plainchant.evaluation.runs import evaluate as measure
    from plainchant.run.store import RunDirectory

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


@click.command()
@click.argument("directories", metavar="DIR...", nargs=-1, required=True, type=click.Path(path_type=Path))
@REAL
@LIMIT
@click.option(
    "--out",
    type=click.Path(path_type=Path),
    default=Path("comparison"),
    show_default=True,
    help="Where comparison.json, comparison.md and the plots go.",
)
@formatted
def compare(console: Console, directories: tuple[Path, ...], real: Path, limit: int, out: Path) -> None:
    """Several runs on the same table side by side: usefulness against privacy.

    Every run is taken with as many texts as the smallest has. An ε that was promised before a run and one that was
    measured after it are different things and stand in columns, and plots, of their own. Reads private data: nothing
    here is private.
    """
    from plainchant.evaluation.figures import NOTE
    from plainchant.evaluation.runs import compare as measure
    from plainchant.reporting.comparison import comparison_table, write_comparison

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


@click.command()
@click.argument("directory", metavar="DIR", type=click.Path(path_type=Path))
@formatted
def report(console: Console, directory: Path) -> None:
    """One page about a finished run, in DIR/release, and its private twin, in DIR/private.

    The page needs no network and may be shared with the release: guarantee, budget, cells on a map, samples, settings.
    Figures that evaluate and audit have left stand on the private page alone.
    """
    from plainchant.reporting.runs import report as write_pages

    paths = write_pages(directory)
    console.table("", [("to share" if path.parent.name == "release" else "never share", path) for path in paths])
    console.result({"pages": [str(path) for path in paths]}, str(paths[0]))


@click.command()
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
    """Attacks a run: copied text, membership, canaries, and a lower bound on ε by replay.

    With DIR, a finished run. With CONFIG, a run of its own on the data with made-up secrets planted in it, written to
    --out: it spends from the same data, so it is for auditing and not to be shared. An audit can refute a guarantee,
    never prove it. Reads private data; the figures are shown here and written to DIR/private alone.
    """
    from plainchant.auditing.runs import EXPLANATIONS, audit_with_canaries
    from plainchant.auditing.runs import audit as attack
    from plainchant.data.embedding import load_embedder
    from plainchant.evaluation.figures import NOTE
    from plainchant.generation.executor import load_on
    from plainchant.run.store import RunDirectory

    console.warn(NOTE)
    if target.is_dir():
        run = RunDirectory.open(target)
        config = run.config
        embedder = load_embedder(config.embedder, device=performance.device) if held_out else None
        with console.progress() as progress:
            found = attack(
                run, real, held_out=held_out, embedder=embedder,
                load_model=(lambda: load_on(config.model, performance)) if replay else None,
                progress=functools.partial(progress.stage, "auditing"),
            )  # fmt: skip
    else:
        if out is None:
            raise ConfigError("out: not given; a run with canaries needs a directory, --out DIR")
        plan = make_plan(load_config(target))
        console.warn(
            "this run spends from the same data as others: it is for auditing, its release is not to be shared"
        )
        with console.progress() as progress:
            found = audit_with_canaries(
                real, plan, out=out, count=canaries, repetitions=repetitions, resume=resume,
                allow_not_private=not_private, performance=performance, held_out=held_out, replay=replay,
                progress=progress,
            )  # fmt: skip
        run = RunDirectory.open(out)
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
