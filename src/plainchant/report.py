"""What a stranger must know of a release, the guarantee first: the data set card and one self-contained page."""

import base64
import hashlib
import importlib.metadata
import importlib.resources
import io
import json
import math
import platform
import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jinja2
import markupsafe
import numpy as np
import numpy.typing as npt
import tomli_w

from plainchant.centres import Centres
from plainchant.config import Accounting, Clusters, SynthesisConfig
from plainchant.data import atomic_write
from plainchant.errors import ConfigError
from plainchant.evaluation import ACCURACY, MACRO_F1, MAUVE, NOTE, ON_SYNTHETIC, ON_TFIDF, Compared
from plainchant.planning import Guarantee, Plan
from plainchant.rebalancing import WHOLE_LABEL, Cell, noise_sigma
from plainchant.store import RunDirectory

if TYPE_CHECKING:
    from matplotlib.axes import Axes

FloatArray = npt.NDArray[np.float32]

EX_POST_NOTE = (
    "Measured after the run, for this data and this output: except with probability δ, seeing the release moved "
    "nobody's odds about any one unit by more than a factor of e^ε. Nothing was promised beforehand, another run "
    "may cost more, and the figure itself depends on the private data: keep it in private/."
)

_PROMISE = {
    "ex-ante": (
        "Whoever sees this data learns hardly more about any one unit than if that unit had not been in the private "
        "data at all: the odds of any conclusion change by a factor of at most e^ε, except with probability δ. The "
        "figures were fixed before the run and hold whatever the data was."
    ),
    "ex-post": (
        "Every token was drawn from a distribution that no single unit can move far, and how far it could was "
        "measured. The measured figure depends on the private data and is not released; no figure was promised in "
        "advance."
    ),
    "none": "There is no guarantee. This data may repeat private records word for word.",
}

_KIND = {"ex-ante": "ex ante: fixed before the run", "ex-post": "ex post: measured after the run", "none": "none"}

_CKS = "converted to (ε, δ) by Canonne, Kamath and Steinke (2020)"
_ACCOUNTANT = {
    Accounting.WORST_CASE: f"zCDP at its worst case, {_CKS}",
    Accounting.INDIVIDUAL: f"zCDP, a Rényi filter for every unit, {_CKS}",
    Accounting.EX_POST: "privacy loss measured token by token; noisy counts in zCDP",
    Accounting.PUBLIC: "none needed",
    Accounting.INFINITE: "none",
}

_NOT_COVERED = (
    "what the language model had learnt before, from its own training data",
    "facts that many units share",
    "anything else that was released from the same data: guarantees of several releases add up",
)

# Most texts on the map, and kept cells up to which it names their sizes.
_DRAWN, _NAMED = 2_000, 12
# Samples of a label: at once, and in all.
_SHOWN, _SAMPLED = 4, 24
# A label's sign on the map: matplotlib's name and the character; colours and shapes repeat at different paces.
_SHAPES = (("o", "●"), ("^", "▲"), ("s", "■"), ("D", "◆"), ("v", "▼"), ("p", "⬟"), ("P", "✚"))
_COLOURS = 8
# Figures are drawn in the colours #0000nn, which then become variables of the page.
_PAINT = {"muted": "#0000f0", "rule": "#0000f1", "ground": "#0000f2", "accent": "#0000f3"} | {
    f"series-{number}": f"#0000{number + 16:02x}" for number in range(_COLOURS)
}

# Light or dark by choice; without it the page follows the system.
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


# The card.


def data_set_card(plan: Plan, guarantee: Guarantee, cells: Sequence[Cell], texts: int) -> str:
    """The card of a release, Markdown with the front matter that Hugging Face reads. Holds released facts only.

    Args:
        plan: the run's plan.
        guarantee: the release's guarantee.
        cells: the kept cells, released under the plan's ρ_rebalance.
        texts: how many texts the release has.
    """
    from huggingface_hub import DatasetCardData

    config = plan.config
    labelled = bool(config.labels)
    # neither language nor licence: nobody has told what they are
    front_matter = DatasetCardData(
        pretty_name="Synthetic texts by plainchant",
        tags=["synthetic", "differential-privacy"],
        task_categories=["text-generation", *["text-classification"] * labelled],
        annotations_creators=["machine-generated" if labelled else "no-annotation"],
        language_creators=["machine-generated"],
        source_datasets=["original"],
        size_categories=[_size_category(texts)],
        configs=[{"config_name": "default", "data_files": "synthetic.parquet"}],
    )
    rows = "\n".join(
        f"| {_markdown(config.label_set[cell.label])} | {_centre(cell)} | {cell.noisy_size} | {cell.batches} |"
        for cell in cells
    )
    counts = (
        "\n## Cells\n\nNoisy counts of units"
        + ("." if guarantee.kind == "none" else ", paid for by the guarantee.")
        + "\n\n"
        f"| label | public centre | noisy size | batches |\n|---|---|---|---|\n{rows}\n"
        if plan.rho_rebalance
        else ""
    )
    figures = " | ".join(
        _markdown(value)
        for value in (
            guarantee.kind, _figure(guarantee.epsilon), _figure(guarantee.delta), _figure(guarantee.rho),
            guarantee.unit, "add or remove one unit", guarantee.method, guarantee.version,
        )
    )  # fmt: skip
    return f"""---
{front_matter.to_yaml()}
---

# Synthetic texts

**{guarantee.statement}**

| kind | ε | δ | ρ (zCDP) | unit | neighbouring relation | method | plainchant |
|---|---|---|---|---|---|---|---|
| {figures} |

{_PROMISE[guarantee.kind]}

- **Kind:** {_KIND[guarantee.kind]}. **Accountant:** {_accountant(plan, guarantee)}.
- **Public by assumption:** {"; ".join(_markdown(item) for item in _public(config))}.
- **Not covered:** {"; ".join(_NOT_COVERED)}.
- **Not true to fact:** {_made_up(config, texts)}
{counts}
## Settings

```json
{_settings(plan)}
```
"""


def _size_category(texts: int) -> str:
    for bound, name in ((1_000, "n<1K"), (10_000, "1K<n<10K"), (100_000, "10K<n<100K"), (1_000_000, "100K<n<1M")):
        if texts < bound:
            return name
    return "1M<n<10M"


def _markdown(text: Any) -> str:
    """Text that may stand in a table's cell: a label can hold anything."""
    plain = "–" if text is None else " ".join(str(text).split())
    return re.sub(r"[\\`*_\[\]<>|&]", lambda match: f"&#{ord(match[0])};", plain)


# What card and page both say.


def _figure(value: float | None) -> str:
    return "–" if value is None else "∞" if math.isinf(value) else f"{value:.6g}"


def _short(value: float | None) -> str:
    return "–" if value is None else "∞" if math.isinf(value) else f"{value:.4g}"


def _centre(cell: Cell) -> str:
    return "whole label" if cell.centre == WHOLE_LABEL else str(cell.centre)


def _name(path: str) -> str:
    """The last part of a path: a release does not tell where things lie on its author's machine."""
    return _last_part(path) if path.startswith(("/", ".", "~")) or "\\" in path else path


def _last_part(path: str) -> str:
    return re.split(r"[/\\]", path.rstrip("/\\"))[-1]


def _accountant(plan: Plan, guarantee: Guarantee) -> str:
    return "none" if guarantee.kind == "none" else _ACCOUNTANT[plan.config.parts.accounting]


def _public(config: SynthesisConfig) -> list[str]:
    """What the guarantee takes as public."""
    items = ["the configuration and its prompts", f"the language model ({_name(config.model)})"]
    if config.labels:
        items.insert(1, "the label set")
    clustered = config.parts.clusters is Clusters.PUBLIC_CENTRES and config.parts.accounting is not Accounting.PUBLIC
    if clustered or config.votes:
        items.append(f"the embedding model ({_name(config.embedder)})")
    if clustered:
        if isinstance(config.centres, str):
            source = "taken from a file that the author calls public"
        else:
            source = "of a corpus that the author calls public" if config.public else "of texts sampled from the model"
        items.append(f"the centres of the clusters, {source}")
    return items


def _made_up(config: SynthesisConfig, texts: int) -> str:
    said = f"the texts are made up. {texts} texts of at most {config.max_tokens} tokens"
    if config.votes:
        said += ", kept by a noisy vote of the records"
    if config.further:
        count = "some" if config.votes else config.further
        said += f", {count} of them written by the language model from the others (source = expanded)"
    return said + "."


def _settings(plan: Plan) -> str:
    return json.dumps({name: value for name, value in plan.as_dict().items() if name != "guarantee"}, indent=2)


# The page.


@dataclass(frozen=True, eq=False)
class MapPoints:
    """Public centres and released texts in the plane that shows the centres best.

    Attributes:
        centres: float [k, 2], all public centres.
        kept: the kept cells that have a centre.
        texts: float [n, 2].
        labels: the label of each text.
        share: how much of the centres' variance the plane shows, 0 to 1.
    """

    centres: npt.NDArray[np.floating[Any]]
    kept: tuple[Cell, ...]
    texts: npt.NDArray[np.floating[Any]]
    labels: tuple[str | None, ...]
    share: float


def map_points(
    centres_vectors: FloatArray, cells: Sequence[Cell], text_embeddings: FloatArray, labels: Sequence[str | None]
) -> MapPoints:
    """The two principal components of the public centres, and the released texts in them.

    * A function of public centres, released cells and released texts: nothing private enters.

    Args:
        centres_vectors: float32 [k, d], k >= 3, d >= 2.
        cells: the kept cells.
        text_embeddings: float32 [n, d].
        labels: the label of each text, or None.
    """
    from sklearn.decomposition import PCA  # slow to import

    plane = PCA(2, svd_solver="full").fit(centres_vectors)
    return MapPoints(
        plane.transform(centres_vectors),
        tuple(cell for cell in cells if cell.centre != WHOLE_LABEL),
        plane.transform(text_embeddings) if len(text_embeddings) else np.empty((0, 2)),
        tuple(labels),
        float(plane.explained_variance_ratio_.sum()),
    )


def report_page(
    *,
    plan: Plan,
    guarantee: Guarantee,
    cells: Sequence[Cell],
    rows: Sequence[Mapping[str, Any]],
    map_points: MapPoints | None,
    private: Mapping[str, Any] | None = None,
) -> str:
    """One HTML page that needs nothing else: no network, no fonts, no scripts but its own few lines.

    * Without `private` it is a function of the release and the public alone, and may be shared with it.
    * Its content security policy lets it load nothing and run only its own script, whatever a text holds.

    Args:
        plan: the run's plan.
        guarantee: the release's guarantee.
        cells: the kept cells, released under the plan's ρ_rebalance.
        rows: the released rows: text, and where there are any label, cell, source.
        map_points: what the map shows, or None for no map.
        private: figures that depend on the private data, "costs", "evaluation" and "audit"; they make the page
            its private twin, which says so.
    """
    config = plan.config
    environment = jinja2.Environment(
        autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters |= {"figure": _figure, "short": _short, "centre": _centre, "interval": _interval}
    template = importlib.resources.files("plainchant").joinpath("report.html.jinja").read_text(encoding="utf-8")
    signs = {label: _sign(number) for number, label in enumerate(config.label_set)}
    lengths = [len(row["text"]) for row in rows]
    return environment.from_string(template).render(
        config=config,
        plan=plan,
        guarantee=guarantee,
        kind=_KIND[guarantee.kind],
        promise=markupsafe.Markup(_PROMISE[guarantee.kind]).replace("e^ε", markupsafe.Markup("e<sup>ε</sup>")),
        accountant=_accountant(plan, guarantee),
        public=_public(config),
        not_covered=_NOT_COVERED,
        made_up=_made_up(config, len(rows)),
        budget=_budget(plan, guarantee),
        cells=cells,
        sigma=noise_sigma(plan.rho_size) if plan.rho_size else None,
        texts_of_cell=Counter(row.get("cell") for row in rows),
        signs=signs,
        points=map_points,
        map_svg=None if map_points is None else _map(map_points, config),
        places=[] if map_points is None else _places(map_points),
        samples=_samples(config, rows),
        lengths=lengths,
        quartiles=np.percentile(lengths, [0, 25, 50, 75, 100]).tolist() if lengths else [],
        lengths_svg=_histogram(lengths) if lengths else None,
        configuration=_shared_configuration(config),
        settings=_settings(plan),
        versions=_versions(),
        private=private,
        script=markupsafe.Markup(_SCRIPT),
        script_hash=base64.b64encode(hashlib.sha256(_SCRIPT.encode()).digest()).decode(),
    )


def write_report(
    directory: RunDirectory,
    plan: Plan,
    guarantee: Guarantee,
    embed: Callable[[Sequence[str]], FloatArray] | None,
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
    """
    rows, cells, points = directory.released(), directory.cells(), None
    # fewer than three points lie on a line
    if embed is not None and centres is not None and len(centres.vectors) > 2:
        drawn = rows[:: math.ceil(len(rows) / _DRAWN) or 1]
        embeddings = embed([row["text"] for row in drawn])
        points = map_points(centres.vectors, cells, embeddings, [row.get("label") for row in drawn])

    def page(private: Mapping[str, Any] | None) -> Path:
        html = report_page(plan=plan, guarantee=guarantee, cells=cells, rows=rows, map_points=points, private=private)
        return directory.write_page(html, private=private is not None)

    # what a run without private data, or without a limit, has cost needs no measurement
    measured = plan.config.parts.accounting not in (Accounting.PUBLIC, Accounting.INFINITE)
    names = [*["costs"] * measured, "evaluation", "audit"]
    found = {name: directory.read_private(f"{name}.json") for name in names}
    figures = {name: content for name, content in found.items() if content is not None}
    return [page(None), *([page(figures)] if figures else [])]


@dataclass(frozen=True)
class _Part:
    """A part of the budget: what it is called, its ρ or None where that is private, its share, what it pays for."""

    name: str
    symbol: str
    rho: float | None
    share: float | None
    pays_for: str


def _budget(plan: Plan, guarantee: Guarantee) -> list[_Part]:
    """Where the budget goes; empty where there is none."""
    if guarantee.kind == "none" or guarantee.rho == 0:
        return []
    accounting, total = plan.config.parts.accounting, guarantee.rho
    if accounting is Accounting.WORST_CASE:
        tokens = f"at most {plan.tokens_per_batch} tokens of a batch"
    elif accounting is Accounting.INDIVIDUAL:
        tokens = "what a unit may move the tokens of its batch; who has paid all of it has no more say"
    else:
        tokens = "measured after the run, and not released"
    parts = [
        ("choice of cells", "select", plan.rho_select, "a noisy count for each label and public centre"),
        ("sizes of cells", "size", plan.rho_size, "a noisy count for each kept cell"),
        ("vote", "vote", plan.rho_vote, "for each text, a noisy count of the units to which it is nearest"),
        ("tokens", "batch", None if total is None else total - plan.rho_counts, tokens),
    ]
    return [
        _Part(name, symbol, rho, None if total is None or rho is None else rho / total, pays_for)
        for name, symbol, rho, pays_for in parts
        if rho is None or rho > 0
    ]


@dataclass(frozen=True)
class _Sign:
    """How a label shows on the map: its colour, its shape for matplotlib and as a character."""

    colour: str
    marker: str
    character: str


def _sign(number: int) -> _Sign:
    return _Sign(f"series-{number % _COLOURS}", *_SHAPES[number % len(_SHAPES)])


def _map(points: MapPoints, config: SynthesisConfig) -> markupsafe.Markup:
    """Public centres as crosses, kept ones as large empty signs of their labels, texts as small full ones."""

    def draw(axes: "Axes") -> None:
        across, up = points.centres.T
        axes.scatter(across, up, s=12, marker="+", linewidths=0.6, color=_PAINT["muted"], clip_on=False)
        largest = max((cell.noisy_size for cell in points.kept), default=1)
        for number, label in enumerate(config.label_set):
            sign = _sign(number)
            across, up = points.texts[[name == label for name in points.labels]].T
            axes.scatter(
                across, up, s=13, marker=sign.marker, facecolors=_PAINT[sign.colour], alpha=0.8, linewidths=0,
                clip_on=False,
            )  # fmt: skip
        for cell in points.kept:
            sign, place = _sign(cell.label), points.centres[cell.centre]
            area = 40 + 160 * max(cell.noisy_size, 0) / max(largest, 1)
            axes.scatter(
                place[0], place[1], s=area, marker=sign.marker, facecolors="none", edgecolors=_PAINT[sign.colour],
                linewidths=1.2, clip_on=False,
            )  # fmt: skip
            if len(points.kept) <= _NAMED:
                axes.annotate(
                    str(cell.noisy_size), place, (math.sqrt(area) / 2 + 3, 0), textcoords="offset points",
                    va="center", color=_PAINT[sign.colour],
                )  # fmt: skip
        axes.set_aspect("equal", adjustable="datalim")
        axes.set_axis_off()

    return _svg(
        "map",
        (4.6, 3.4),
        draw,
        "Map of public centres and synthetic texts",
        f"{len(points.centres)} public centres, {len(points.kept)} kept cells among them and {len(points.texts)} "
        "synthetic texts, in the plane of the centres' two principal components. The table below says where they lie.",
    )


def _places(points: MapPoints) -> list[tuple[str | None, int, float, float]]:
    """For each label its number of texts on the map, and where their middle lies."""
    labels = dict.fromkeys(points.labels)
    own = {label: points.texts[[name == label for name in points.labels]] for label in labels}
    return [(label, len(at), float(at[:, 0].mean()), float(at[:, 1].mean())) for label, at in own.items()]


def _histogram(lengths: Sequence[int]) -> markupsafe.Markup:
    counts, edges = np.histogram(lengths, bins=min(24, max(1, len(set(lengths)))))

    def draw(axes: "Axes") -> None:
        axes.bar(edges[:-1], counts, np.diff(edges), align="edge", color=_PAINT["accent"], linewidth=0.8,
                 edgecolor=_PAINT["ground"])  # fmt: skip
        axes.set_xlabel("characters")
        axes.set_ylabel("texts")
        axes.locator_params(axis="y", integer=True, nbins=4)
        axes.spines[["top", "right", "left"]].set_visible(False)
        axes.tick_params(length=0)

    return _svg(
        "lengths",
        (4.6, 1.7),
        draw,
        "Lengths of the synthetic texts",
        f"A histogram of {len(lengths)} texts, from {min(lengths)} to {max(lengths)} characters, "
        f"half of them up to {np.median(lengths):g}.",
    )


def _svg(
    name: str, size: tuple[float, float], draw: Callable[["Axes"], None], title: str, description: str
) -> markupsafe.Markup:
    """A figure as part of the page: its text as text, its colours variables, its ids like no other figure's."""
    import matplotlib
    from matplotlib.figure import Figure

    muted, file = _PAINT["muted"], io.StringIO()
    style: dict[Any, Any] = {
        "svg.fonttype": "none", "svg.hashsalt": name, "font.size": 8, "text.color": muted, "axes.labelcolor": muted,
        "xtick.color": muted, "ytick.color": muted, "axes.edgecolor": _PAINT["rule"],
    }  # fmt: skip
    with matplotlib.rc_context(style):
        figure = Figure(size, layout="constrained")
        draw(figure.add_subplot())
        figure.savefig(file, format="svg", transparent=True, metadata={"Date": None})
    box, content = re.findall(r'<svg[^>]* viewBox="([^"]+)"[^>]*>(.*)</svg>', file.getvalue(), re.DOTALL)[0]
    content = re.sub(r"<metadata>.*?</metadata>|<style.*?</style>", "", content, flags=re.DOTALL)
    content = re.sub(r'<g id="[^"]*"', "<g", content)
    content = re.sub(r'font-family: [^;"]*;?', "", content)
    # releases of matplotlib differ in how they write this
    content = re.sub(r'font: ([0-9.]+px) [^;"]*', r"font-size: \1", content)
    content = re.sub(r"\s*\n\s*", " ", content)
    for variable, colour in _PAINT.items():
        content = content.replace(colour, f"var(--{variable})")
    return markupsafe.Markup(
        f'<svg viewBox="{box}" role="img" aria-labelledby="{name}-title {name}-description">'
        f'<title id="{name}-title">{title}</title><desc id="{name}-description">{description}</desc>{content}</svg>'
    )


def _samples(config: SynthesisConfig, rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """The first texts of each label."""
    samples = []
    for label in config.label_set:
        own = [row for row in rows if row.get("label") == label]
        samples.append({"label": label, "texts": len(own), "first": own[:_SHOWN], "more": own[_SHOWN:_SAMPLED]})
    return samples


def _shared_configuration(config: SynthesisConfig) -> str:
    """The configuration as TOML, without where its files lie."""
    values = config.model_dump(mode="json", exclude_none=True)
    values |= {name: _name(values[name]) for name in ("model", "embedder")}
    files = [name for name in ("public", "centres") if isinstance(values.get(name), str)]
    return tomli_w.dumps(values | {name: _last_part(values[name]) for name in files})


def _versions() -> dict[str, str]:
    packages = ("plainchant", "torch", "transformers", "numpy")
    return {"python": platform.python_version()} | {name: importlib.metadata.version(name) for name in packages}


def _interval(figure: Mapping[str, Any]) -> dict[str, float] | None:
    """Where a share and its interval lie between 0 and 1, in per cent; None for figures of another kind."""
    value = figure["value"]
    low, high = (value if figure.get(end) is None else figure[end] for end in ("low", "high"))
    return {"low": 100 * low, "value": 100 * value, "width": 100 * (high - low)} if 0 <= low <= high <= 1 else None


# Several runs side by side.

_COMPARED = {
    "MAUVE": MAUVE,
    "accuracy": f"{ACCURACY}, {ON_SYNTHETIC}",
    "macro-F1": f"{MACRO_F1}, {ON_SYNTHETIC}",
    "accuracy by words": f"{ACCURACY}, {ON_TFIDF}",
    "label agreement": "label agreement",
    "cell agreement": "cell agreement",
}


def comparison_table(found: Sequence[Compared]) -> tuple[list[str], list[list[str]]]:
    """Columns and rows of a comparison; what was promised and what was measured never share a column."""
    shown = {title: name for title, name in _COMPARED.items() if any(run.evaluation.figure(name) for run in found)}
    columns = ["run", "method", "ε promised", "ε measured after", "tokens", *shown]
    rows = []
    for run in found:
        figures = [run.evaluation.figure(name) for name in shown.values()]
        cells = ["–" if figure is None else str(figure) for figure in figures]
        rows.append([run.name, run.method, _short(run.ex_ante), _short(run.ex_post), str(run.tokens), *cells])
    return columns, rows


def write_comparison(out: Path, found: Sequence[Compared]) -> list[Path]:
    """Writes comparison.json, comparison.md, comparison.svg and comparison.png, for their owner alone.

    Raises:
        ConfigError: the directory cannot be written.
    """
    columns, rows = comparison_table(found)
    lines = [columns, ["---"] * len(columns), *rows]
    table = "\n".join("| " + " | ".join(_markdown(cell) for cell in line) + " |" for line in lines)
    delta, compared = found[0].delta, found[0].evaluation.compared
    caption = (
        f"{compared} texts of each run; values with 95 % intervals; ε at δ = {delta:g}. An ε that was promised holds "
        "for every data set; one that was measured after a run holds for its data and output, and is itself private."
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
            with atomic_write(out / name) as file:
                file.write(content)
    except OSError as error:
        raise ConfigError(f"out = {out}: cannot be written ({error.strerror}); choose another directory") from None
    return [out / name for name in contents]


def _comparison_plot(found: Sequence[Compared], kind: str) -> bytes:
    """Usefulness over ε: promised on the left, measured after the run on the right; without private data, a line."""
    from matplotlib.figure import Figure

    measures = [name for name in ("MAUVE", "accuracy") if any(run.evaluation.figure(_COMPARED[name]) for run in found)]
    figure = Figure((8.5, 3.2 * len(measures)), layout="constrained")
    grid = figure.subplots(len(measures), 2, squeeze=False, sharey="row", sharex="col")
    colours = {run.name: f"C{number}" for number, run in enumerate(found)}
    for row, name in zip(grid, measures, strict=True):
        for axes, promised in zip(row, (True, False), strict=True):
            taken: Counter[float] = Counter()
            most = max((run.ex_ante if promised else run.ex_post) or 0.0 for run in found)
            for run in found:
                value, epsilon = run.evaluation.figure(_COMPARED[name]), run.ex_ante if promised else run.ex_post
                if value is None:
                    continue
                low, high = (value.value if end is None else end for end in (value.low, value.high))
                if run.ex_ante == 0:
                    axes.axhline(value.value, color=colours[run.name], linestyle="--", label=f"{run.name} (ε = 0)")
                    axes.axhspan(low, high, color=colours[run.name], alpha=0.08, linewidth=0)
                elif epsilon is not None and math.isfinite(epsilon):
                    reach = [[value.value - low], [high - value.value]]
                    # runs of the same ε stand side by side
                    place = epsilon + 0.04 * most * taken[round(epsilon, 3)]
                    taken[round(epsilon, 3)] += 1
                    axes.errorbar(place, value.value, reach, fmt="o", capsize=3, color=colours[run.name],
                                  label=run.name)  # fmt: skip
            axes.set_ylabel(name if promised else "")
            axes.grid(alpha=0.25)
            axes.spines[["top", "right"]].set_visible(False)
    grid[0][0].set_title("ε promised before the run")
    grid[0][1].set_title("ε measured after the run (private)")
    for axes in grid[-1]:
        axes.set_xlabel("ε")
        axes.set_xlim(0, 1.2 * axes.dataLim.x1)
    entries = dict(zip(*reversed(grid[0][1].get_legend_handles_labels()), strict=True))
    entries |= dict(zip(*reversed(grid[0][0].get_legend_handles_labels()), strict=True))
    figure.legend(entries.values(), entries.keys(), loc="outside lower center", ncols=3, frameon=False)
    file = io.BytesIO()
    figure.savefig(file, format=kind, dpi=150, metadata={"Date": None} if kind == "svg" else None)
    return file.getvalue()
