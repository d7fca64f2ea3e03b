"""One self-contained page about a run, the guarantee first."""

import base64
import hashlib
import importlib.metadata
import importlib.resources
import math
import platform
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jinja2
import markupsafe
import numpy as np
import tomli_w

from plainchant import models
from plainchant.arrays import Float32Array
from plainchant.config import SynthesisConfig
from plainchant.data.centres import Centres
from plainchant.data.marks import visible
from plainchant.errors import RunError
from plainchant.evaluation.figures import shown_name
from plainchant.planning import Guarantee, Plan
from plainchant.privacy.histograms import Cell, noise_sigma
from plainchant.reporting.pictures import MOST_DRAWN, MapPoints, histogram, map_picture, map_points, places, sign
from plainchant.run.card import (
    KIND,
    NOT_COVERED,
    PAID,
    PROMISE,
    accountant_of,
    centre_name,
    full_figure,
    last_part,
    made_up,
    public_inputs,
    settings_json,
    shared_name,
    short_figure,
    vote_in_words,
)
from plainchant.run.store import RunDirectory

# Samples per label: shown at once, and in total.
_SHOWN, _SAMPLED = 4, 24
# The reader may choose light or dark; until then the page follows the system.
_SCRIPT = """
const button = document.querySelector("header button");
let dark = matchMedia("(prefers-color-scheme: dark)").matches;
const show = () => { button.textContent = dark ? "Light colours" : "Dark colours"; };
button.addEventListener("click", () => {
  dark = !dark;
  document.documentElement.style.colorScheme = dark ? "dark" : "light";
  show();
});
show();
button.hidden = false;
"""


def _shown(value: Any) -> Any:
    """What the template prints: control characters of labels and texts as visible marks."""
    return visible(value) if isinstance(value, str) and not isinstance(value, markupsafe.Markup) else value


def report_page(
    *,
    plan: Plan,
    guarantee: Guarantee,
    cells: Sequence[Cell],
    rows: Sequence[Mapping[str, Any]],
    map_points: MapPoints | None,
    private: Mapping[str, Any] | None = None,
    votes: Sequence[Mapping[str, Any]] = (),
) -> str:
    """One HTML page that needs nothing else: no network, no fonts, no scripts except its few lines.

    * Without `private` it depends only on the release and on public things, and may be shared with the release.
    * Its content security policy lets it load nothing and run only its own script, whatever a text contains.

    Args:
        plan: the run's plan.
        guarantee: the release's guarantee.
        cells: the kept cells, released under the plan's ρ_rebalance.
        rows: the released rows: text, and label, cell and source where there are any.
        map_points: what the map shows, or None for no map.
        private: figures that depend on the private data: "costs", "evaluation" and "audit". With them the page is the
            private version, and says so.
        votes: public facts about the votes (`RunDirectory.facts`).
    """
    config = plan.config
    environment = jinja2.Environment(
        autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True, finalize=_shown
    )
    environment.filters |= {"figure": full_figure, "short": short_figure, "centre": centre_name}
    environment.filters |= {"interval": _interval, "shown_name": shown_name}
    template = (
        importlib.resources.files("plainchant.reporting")
        .joinpath("templates/report.html.jinja")
        .read_text(encoding="utf-8")
    )
    signs = {label: sign(number) for number, label in enumerate(config.label_set)}
    lengths = [len(row["text"]) for row in rows if "text" in row]
    return environment.from_string(template).render(
        config=config,
        plan=plan,
        guarantee=guarantee,
        kind=KIND[guarantee.kind],
        paid=PAID[guarantee.kind],
        promise=markupsafe.Markup(PROMISE[guarantee.kind]).replace("e^ε", markupsafe.Markup("e<sup>ε</sup>")),
        accountant=accountant_of(plan, guarantee),
        public=public_inputs(config),
        not_covered=NOT_COVERED,
        made_up=made_up(config, len(rows)),
        votes=[f"Vote {facts['round']}: {vote_in_words(facts)}." for facts in votes],
        budget=_budget(plan, guarantee),
        cells=cells,
        sigma=noise_sigma(plan.rho_size) if plan.rho_size else None,
        texts_of_cell=Counter(row.get("cell") for row in rows),
        signs=signs,
        points=map_points,
        map_svg=None if map_points is None else map_picture(map_points, config),
        places=[] if map_points is None else places(map_points),
        samples=_samples(config, rows),
        lengths=lengths,
        quartiles=np.percentile(lengths, [0, 25, 50, 75, 100]).tolist() if lengths else [],
        lengths_svg=histogram(lengths) if lengths else None,
        configuration=_shared_configuration(config),
        settings=settings_json(plan),
        versions=_versions(),
        private=private,
        script=markupsafe.Markup(_SCRIPT),
        script_hash=base64.b64encode(hashlib.sha256(_SCRIPT.encode()).digest()).decode(),
    )


def write_report(
    directory: RunDirectory,
    plan: Plan,
    guarantee: Guarantee,
    embed: Callable[[Sequence[str]], Float32Array] | None,
    centres: Centres | None,
) -> list[Path]:
    """Writes release/report.html, and private/report.html where there are private figures.

    Args:
        directory: a finished run.
        plan: its plan.
        guarantee: its release's guarantee.
        embed: the run's embedder; None for no map.
        centres: the run's public centres; None for no map.

    Returns:
        The pages written.

    Raises:
        ConfigError: the run has no release yet.
        RunError: its private figures are damaged.
    """
    rows, cells, points = directory.released(), directory.cells(), None
    # fewer than three points lie on a line
    if embed is not None and centres is not None and len(centres.vectors) > 2:
        drawn = rows[:: math.ceil(len(rows) / MOST_DRAWN) or 1]
        embeddings = embed([row["text"] for row in drawn])
        points = map_points(centres.vectors, cells, embeddings, [row.get("label") for row in drawn])

    def page(private: Mapping[str, Any] | None) -> Path:
        try:
            html = report_page(
                plan=plan, guarantee=guarantee, cells=cells, rows=rows, map_points=points, private=private,
                votes=directory.facts(),
            )  # fmt: skip
        except (jinja2.UndefinedError, TypeError, KeyError, ValueError):
            if private is None:
                raise
            files = ", ".join(str(directory.private / f"{name}.json") for name in private)
            raise RunError(
                f"{files}: at least one is not as it was written; make it again with run --resume, evaluate or audit"
            ) from None
        return directory.write_page(html, private=private is not None)

    names = [*["costs"] * plan.mechanism.measured, "evaluation", "audit"]
    found = {name: directory.read_private(f"{name}.json") for name in names}
    figures = {name: content for name, content in found.items() if content is not None}
    return [page(None), *([page(figures)] if figures else [])]


@dataclass(frozen=True)
class _Part:
    """A part of the budget: its name, its ρ (None where that is private), its share and what it pays for."""

    name: str
    symbol: str
    rho: float | None
    share: float | None
    pays_for: str


def _budget(plan: Plan, guarantee: Guarantee) -> list[_Part]:
    """The parts of the budget; empty where there is none."""
    if not guarantee.delta:
        # nothing is promised, or nothing was spent
        return []
    total, tokens = guarantee.rho, plan.mechanism.pays_for(plan.tokens_per_batch)
    parts = [
        ("choice of cells", "select", plan.rho_select, "a noisy count for each label and public centre"),
        ("sizes of cells", "size", plan.rho_size, "a noisy count for each kept cell"),
        (
            "attributes",
            "table",
            plan.table.rho,
            "noisy counts of single columns and of pairs",
        ),
        (
            "vote",
            "vote",
            plan.rho_vote,
            "for each label and candidate, in each round, a noisy count of the units that it is near to",
        ),
        ("tokens", "batch", None if total is None else total - plan.rho_counts, tokens),
    ]
    return [
        _Part(name, symbol, rho, None if total is None or rho is None else rho / total, pays_for)
        for name, symbol, rho, pays_for in parts
        # what rounding leaves of a budget that counts have spent is no part
        if rho is None or rho > 1e-12 * (total or 0.0)
    ]


def _samples(config: SynthesisConfig, rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """The first texts of each label."""
    samples = []
    for label in config.label_set:
        own = [_shown_row(config, row) for row in rows if row.get("label") == label]
        samples.append({"label": label, "texts": len(own), "first": own[:_SHOWN], "more": own[_SHOWN:_SAMPLED]})
    return samples


def _shown_row(config: SynthesisConfig, row: Mapping[str, Any]) -> dict[str, Any]:
    """A row with its attributes in one line; of a row without text they are the text."""
    names = config.columns.attributes
    attributes = ", ".join(f"{name}: {'–' if row.get(name) is None else row[name]}" for name in names)
    return {**row, "text": row.get("text", attributes), "attributes": attributes if "text" in row else ""}


def _shared_configuration(config: SynthesisConfig) -> str:
    """The configuration as TOML, without the folders of its files."""
    values = config.model_dump(mode="json", exclude_none=True)
    values |= {name: shared_name(values[name]) for name in ("model", "embedder")}
    files = [name for name in ("public_corpus", "centres") if isinstance(values.get(name), str)]
    return tomli_w.dumps(values | {name: last_part(values[name]) for name in files})


def _versions() -> dict[str, str]:
    packages = ("plainchant", *models.PACKAGES, "numpy")
    return {"python": platform.python_version()} | {name: importlib.metadata.version(name) for name in packages}


def _interval(figure: Mapping[str, Any]) -> dict[str, float] | None:
    """A share and its interval as per cent of the scale from 0 to 1; None for figures of another kind."""
    value = figure["value"]
    low, high = (value if figure.get(end) is None else figure[end] for end in ("low", "high"))
    return {"low": 100 * low, "value": 100 * value, "width": 100 * (high - low)} if 0 <= low <= high <= 1 else None
