"""docs/speed.md from page.md.jinja and the committed results: figures are formatted here, and computed nowhere."""

import json
import re
import textwrap
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import jinja2
from matplotlib import rc_context
from matplotlib.figure import Figure

from plainchant.config import SynthesisConfig
from scale import MOST_GIB, MOST_SECONDS
from speed.common import BATCH, CONTEXT, DTYPES, HERE, PROMPT, RESULTS, ROOT, ROWS, WRITTEN

NAMES = ("peer", "peak", "shares", "private", "curves", "memory", "drafting", "int8", "scale", "large")
CURVES = ("batch size", "batches in a pass", "prompt")
# what is aimed at: times the peer, shares of the peak and of a step
PEER, PEAK = {"float32": 2.8, "bfloat16": 6.5}, 0.5
OUTSIDE = {"top-100 mean": 0.05, "full-vocabulary median": 0.5}
PUBLIC = 0.3


def table(head: Iterable[object], rows: Iterable[Iterable[object]]) -> str:
    """A Markdown table."""
    head = list(head)
    lines: list[Iterable[object]] = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(str(cell) for cell in line) + " |" for line in lines)


def prose(text: str) -> str:
    """A paragraph in lines of 120 characters."""
    return textwrap.fill(" ".join(text.split()), 120, break_on_hyphens=False, break_long_words=False)


def ms(seconds: float) -> str:
    return f"{1e3 * seconds:.1f}" if seconds < 0.01 else f"{1e3 * seconds:.0f}"


def percent(share: float) -> str:
    return f"{100 * share:.1f} %" if share < 0.1 else f"{100 * share:.0f} %"


def results(folder: Path = RESULTS) -> dict[str, Any]:
    """What was measured, by section."""
    return {
        name: json.loads(path.read_text()) for name in NAMES if (path := folder / f"{name}.json").exists()
    }  # fmt: skip


def machines(found: dict[str, Any]) -> str:
    """On what the sections were measured."""
    kinds = {
        f"{own['cores']} cores with {own['instructions']} ({own['threads']} in use), torch {own['torch']}, "
        f"transformers {own['transformers']}"
        for section in found.values()
        if (own := section.get("machine"))
    }
    return " and ".join(sorted(kinds))


def targets(found: dict[str, Any]) -> list[tuple[str, str, str, bool]]:
    """What is aimed at, what is wanted, what was found, and whether that is enough."""
    result = {name: section["result"] for name, section in found.items() if "skipped" not in section["result"]}
    rows: list[tuple[str, str, str, bool]] = []
    for line in result["peer"]["lines"][1:3] if "peer" in result else ():
        aim, ratio = f"tokens a second to the peer's in float32, ours in {line['dtype']}", line["to the peer"]
        least = PEER[line["dtype"]]
        rows.append((aim, f"≥ {least:g} ×", f"{ratio:.1f} ×", ratio >= least))
    for line in result["peak"]["lines"] if "peak" in result else ():
        aim, share = f"share of the peak, {line['model']}, {line['dtype']}", line["share"]["of the step"]
        rows.append((aim, f"≥ {percent(PEAK)}", percent(share), share >= PEAK))
    for line in result.get("shares", ()):
        if line["passes"] > 1 and line["dtype"] == "float32":
            aim, share = f"public pass of a step, {line['records']}, batches of {line['size']}, float32", line["public"]
            rows.append((aim, f"≤ {percent(PUBLIC)}", percent(share), share <= PUBLIC))
    for line in result.get("private", ()):
        most, outside = OUTSIDE[line["name"]], line["outside"]
        aim = f"outside the model, {line['name']}, {line['dtype']}"
        rows.append((aim, f"≤ {percent(most)}", percent(outside), outside <= most))
    if "memory" in result:
        capped = result["memory"][0]
        within = capped["caches"] <= capped["cap"]
        rows.append(("caches under the cap, GiB", f"≤ {capped['cap']:g}", f"{capped['caches']:.3f}", within))
    if "scale" in result:
        size = max(row["records"] for row in result["scale"])
        (whole,) = (row for row in result["scale"] if row["name"] == "all of it" and row["records"] == size)
        for unit, most, form in (("seconds", MOST_SECONDS, ".0f"), ("GiB", MOST_GIB, ".2f")):
            aim = f"{size:,} records but for embedding and decoding, {'s' if unit == 'seconds' else unit}"
            rows.append((aim, f"≤ {most:g}", format(whole[unit], form), whole[unit] <= most))
    return rows


def by_size(rows: list[dict[str, Any]]) -> str:
    """The table of scale: a row a step, a column a size."""
    sizes, names = (list(dict.fromkeys(row[key] for row in rows)) for key in ("records", "name"))
    cells = {(row["name"], row["records"]): row for row in rows}

    def shown(name: str, key: str, form: str) -> list[str]:
        return [format(cells[name, size][key], form) if (name, size) in cells else "" for size in sizes]

    lines = [[name, *shown(name, "seconds", ".4g")] for name in names if "seconds" in cells[name, sizes[0]]]
    return table(
        ("", *(f"{size:,} records" for size in sizes)), [*lines, ["GiB at the most", *shown(names[-1], "GiB", ".2f")]]
    )


def ordered(lines: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Curves one after another, at each place float32 first."""
    return sorted(lines, key=lambda line: (CURVES.index(line["curve"]), line["x"], DTYPES.index(line["dtype"])))


def best_gain(lines: list[dict[str, Any]], rows: int) -> float:
    return max(float(line["gain"]) for line in lines if line["rows"] == rows)


def page_text(found: dict[str, Any]) -> str:
    """docs/speed.md as a text: a function of the results and the template alone."""
    environment = jinja2.Environment(
        undefined=jinja2.StrictUndefined, keep_trailing_newline=True, trim_blocks=True, lstrip_blocks=True
    )  # fmt: skip
    environment.filters |= {"ms": ms, "percent": percent, "wrapped": prose}
    environment.globals |= {"table": table, "by_size": by_size, "ordered": ordered, "best_gain": best_gain}
    template = environment.from_string((HERE / "page.md.jinja").read_text())
    goals = [
        (aim, wanted, figure, "reached" if reached else "**missed**")
        for aim, wanted, figure, reached in targets(found)
    ]  # fmt: skip
    busy = {name: section["others"] for name, section in found.items() if section.get("others", 0.0) >= 0.1}
    text = template.render(
        found=found, machines=machines(found), goals=goals, busy=busy, peak=PEAK, rows=ROWS, batch=BATCH,
        prompt=PROMPT, context=CONTEXT, written=WRITTEN, slack=SynthesisConfig().numerical_slack,
    )  # fmt: skip
    return re.sub(r"\n{3,}", "\n\n", text).rstrip() + "\n"


def picture(lines: list[dict[str, Any]], path: Path) -> None:
    """Released tokens a second along the three curves."""
    figure = Figure((9, 3), layout="constrained", facecolor="white")
    for axes, curve in zip(figure.subplots(1, 3), CURVES, strict=True):
        for dtype, colour in zip(DTYPES, ("#1d3557", "#9e2a2b"), strict=True):
            own = [line for line in lines if line["curve"] == curve and line["dtype"] == dtype]
            axes.plot([line["x"] for line in own], [line["tokens a second"] for line in own], "o-", color=colour,
                      label=dtype)  # fmt: skip
        points = sorted({line["x"] for line in lines if line["curve"] == curve})
        axes.set_xscale("log", base=2)
        axes.set_xticks(points, map(str, points))
        axes.minorticks_off()
        axes.set_ylim(bottom=0)
        axes.set_xlabel(curve + (", tokens" if curve == "prompt" else ""))
        axes.spines[["top", "right"]].set_visible(False)
    figure.axes[0].set_ylabel("released tokens a second")
    figure.axes[0].legend(frameon=False)
    # the same figures make the same file
    with rc_context({"svg.hashsalt": "speed"}):
        figure.savefig(path, metadata={"Date": None})


def write_page(folder: Path = RESULTS, docs: Path = ROOT / "docs") -> None:
    """docs/speed.md and docs/speed.svg."""
    found = results(folder)
    if "curves" in found:
        picture(found["curves"]["result"], docs / "speed.svg")
    (docs / "speed.md").write_text(page_text(found))
