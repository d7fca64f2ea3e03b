"""Several runs side by side."""

import io
import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from plainchant.data.files import PRIVATE, atomic_write
from plainchant.errors import ConfigError
from plainchant.evaluation.figures import (
    ACCURACY,
    COLUMNS,
    MACRO_F1,
    MAUVE,
    NOTE,
    ON_SYNTHETIC,
    ON_TFIDF,
    PAIRS,
    WEAK_MAUVE,
)
from plainchant.evaluation.runs import Compared
from plainchant.run.card import markdown_cell, short_figure

# Several runs side by side.

_SIGNS = "osD^v<>ph"
_COMPARED = {
    "MAUVE": MAUVE,
    "accuracy": f"{ACCURACY}, {ON_SYNTHETIC}",
    "macro-F1": f"{MACRO_F1}, {ON_SYNTHETIC}",
    "accuracy by words": f"{ACCURACY}, {ON_TFIDF}",
    "label agreement": "label agreement",
    "cell agreement": "cell agreement",
    "columns": COLUMNS,
    "pairs of columns": PAIRS,
}


def comparison_table(found: Sequence[Compared]) -> tuple[list[str], list[list[str]]]:
    """Columns and rows of a comparison; promised and measured ε are in separate columns."""
    shown = {title: name for title, name in _COMPARED.items() if any(run.evaluation.figure(name) for run in found)}
    deltas = [f"{run.delta:g}" for run in found]
    # one δ stands in the caption
    apart = len(set(deltas)) > 1
    columns = ["run", "method", "ε promised", "ε measured after", *["δ"] * apart, "tokens", *shown]
    rows = []
    for run, delta in zip(found, deltas, strict=True):
        figures = [run.evaluation.figure(name) for name in shown.values()]
        cells = ["–" if figure is None else str(figure) for figure in figures]
        epsilons = short_figure(run.ex_ante), short_figure(run.ex_post)
        rows.append([run.name, run.method, *epsilons, *[delta] * apart, str(run.tokens), *cells])
    return columns, [*rows, *_real_rows(found, list(shown.values()), len(columns) - len(shown) - 1)]


def _real_rows(found: Sequence[Compared], names: Sequence[str], blank: int) -> list[list[str]]:
    """What real texts reach in place of synthetic ones, after so many blanks: the real table is the same for all."""
    # a run of attributes alone has no figures of texts
    against = {own.name: own for run in reversed(found) for group in run.evaluation.beside().values() for own in group}
    lines = []
    for title, kind in (("as many real texts", "as_real"), ("all real texts", "all_real")):
        figures = [getattr(against.get(name), kind, None) for name in names]
        if any(figure is not None for figure in figures):
            lines.append([title, *["–"] * blank, *("–" if figure is None else str(figure) for figure in figures)])
    return lines


def write_comparison(out: Path, found: Sequence[Compared]) -> list[Path]:
    """Writes comparison.json, comparison.md, comparison.svg and comparison.png, readable by their owner only.

    Raises:
        ConfigError: the directory cannot be written.
    """
    columns, rows = comparison_table(found)
    lines = [columns, ["---"] * len(columns), *rows]
    table = "\n".join("| " + " | ".join(markdown_cell(cell) for cell in line) + " |" for line in lines)
    compared, deltas = found[0].evaluation.compared, {run.delta for run in found}
    at = "the δ beside it" if len(deltas) > 1 else f"δ = {deltas.pop():g}"
    weak = f" {WEAK_MAUVE}." if any(run.evaluation.mauve_is_weak for run in found) else ""
    caption = (
        f"{compared} texts of each run; values with 95 % intervals; ε at {at}. An ε that was promised holds "
        "for every data set; one that was measured after a run holds for its data and output, and is itself private."
        + weak
    )
    document = {"note": NOTE, "runs": [run.as_dict() for run in found]}
    contents = {
        "comparison.json": json.dumps(document, indent=2, ensure_ascii=False).encode(),
        "comparison.md": f"{table}\n\n{caption}\n\n{NOTE}\n".encode(),
        **{f"comparison.{kind}": _comparison_plot(found, kind) for kind in ("svg", "png")},
    }
    try:
        out.mkdir(mode=0o700, parents=True, exist_ok=True)
        for name, content in contents.items():
            # private, whatever the folder's permissions are
            with atomic_write(out / name, mode=PRIVATE) as file:
                file.write(content)
    except OSError as error:
        raise ConfigError(f"out = {out}: cannot be written ({error.strerror}); choose another directory") from None
    return [out / name for name in contents]


def _comparison_plot(found: Sequence[Compared], kind: str) -> bytes:
    """Usefulness over ε: promised on the left, measured on the right; a run without private data is a line."""
    from matplotlib.figure import Figure

    drawn = ("MAUVE", "accuracy", "pairs of columns")
    measures = [name for name in drawn if any(run.evaluation.figure(_COMPARED[name]) for run in found)]
    figure = Figure((8.5, 3.2 * len(measures)), layout="constrained")
    # a column for promised figures and one for measured ones, where there are any
    kinds = [kind for kind in (True, False) if any((run.ex_ante if kind else run.ex_post) for run in found)] or [True]
    grid = figure.subplots(len(measures), len(kinds), squeeze=False, sharey="row", sharex="col")
    colours = {run.name: f"C{number}" for number, run in enumerate(found)}
    for row, name in zip(grid, measures, strict=True):
        for axes, promised in zip(row, kinds, strict=True):
            for number, run in enumerate(found):
                value, epsilon = run.evaluation.figure(_COMPARED[name]), run.ex_ante if promised else run.ex_post
                if value is None:
                    continue
                low, high = (value.value if end is None else end for end in (value.low, value.high))
                if run.ex_ante == 0:
                    axes.axhline(value.value, color=colours[run.name], linestyle="--", label=f"{run.name} (ε = 0)")
                    axes.axhspan(low, high, color=colours[run.name], alpha=0.08, linewidth=0)
                elif epsilon is not None and math.isfinite(epsilon):
                    reach = [[value.value - low], [high - value.value]]
                    # runs with the same ε lie on each other: signs and ends of intervals differ, ε stays what it is
                    axes.errorbar(epsilon, value.value, reach, fmt=_SIGNS[number % len(_SIGNS)], capsize=3 + 2 * number,
                                  markerfacecolor="none", color=colours[run.name], label=run.name)  # fmt: skip
            axes.set_ylabel(name if axes is row[0] else "")
            axes.grid(alpha=0.25)
            axes.spines[["top", "right"]].set_visible(False)
    for axes, promised in zip(grid[0], kinds, strict=True):
        axes.set_title("ε promised before the run" if promised else "ε measured after the run (private)")
    largest = max(
        [0.0, *(e for run in found for e in (run.ex_ante, run.ex_post) if e is not None and math.isfinite(e))]
    )
    for axes in grid[-1]:
        axes.set_xlabel("ε")
        axes.set_xlim(0, 1.2 * (axes.dataLim.x1 if math.isfinite(axes.dataLim.x1) else largest or 1.0))
    entries: dict[str, Any] = {}
    for axes in grid[0]:
        entries |= dict(zip(*reversed(axes.get_legend_handles_labels()), strict=True))
    figure.legend(entries.values(), entries.keys(), loc="outside lower center", ncols=3, frameon=False)
    file = io.BytesIO()
    figure.savefig(file, format=kind, dpi=150, metadata={"Date": None} if kind == "svg" else None)
    return file.getvalue()
