"""Pictures of the report, as parts of its page."""

import io
import math
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import markupsafe
import numpy as np

from plainchant.arrays import Float32Array, FloatArray
from plainchant.config import SynthesisConfig
from plainchant.privacy.histograms import WHOLE_LABEL, Cell

if TYPE_CHECKING:
    from matplotlib.axes import Axes


# Maximum number of texts on the map, and of kept cells whose sizes it writes out.
MOST_DRAWN, _NAMED = 2_000, 12
# A label's sign on the map: matplotlib's name and the character; colours and shapes repeat at different paces.
_SHAPES = (("o", "●"), ("^", "▲"), ("s", "■"), ("D", "◆"), ("v", "▼"), ("p", "⬟"), ("P", "✚"))
_COLOURS = 8
# Figures are drawn in the colours #0000nn, which then become variables of the page.
_PAINT = {"muted": "#0000f0", "rule": "#0000f1", "ground": "#0000f2", "accent": "#0000f3"} | {
    f"series-{number}": f"#0000{number + 16:02x}" for number in range(_COLOURS)
}


# The page.


@dataclass(frozen=True, eq=False)
class MapPoints:
    """Public centres and released texts, projected onto the plane that shows the centres best.

    Attributes:
        centres: float [k, 2], all public centres.
        kept: the kept cells that have a centre.
        texts: float [n, 2].
        labels: the label of each text.
        share: how much of the centres' variance the plane shows, 0 to 1.
    """

    centres: FloatArray
    kept: tuple[Cell, ...]
    texts: FloatArray
    labels: tuple[str | None, ...]
    share: float


def map_points(
    centres_vectors: Float32Array, cells: Sequence[Cell], text_embeddings: Float32Array, labels: Sequence[str | None]
) -> MapPoints:
    """Projects public centres and released texts onto the two principal components of the centres.

    * A function of public centres, released cells and released texts only: it uses nothing private.

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


@dataclass(frozen=True)
class _Sign:
    """How a label appears on the map: its colour, its shape for matplotlib and that shape as a character."""

    colour: str
    marker: str
    character: str


def sign(number: int) -> _Sign:
    """The sign of the label with this number."""
    return _Sign(f"series-{number % _COLOURS}", *_SHAPES[number % len(_SHAPES)])


def map_picture(points: MapPoints, config: SynthesisConfig) -> markupsafe.Markup:
    """Public centres as crosses, kept cells as large hollow signs of their labels, texts as small filled signs."""

    def draw(axes: "Axes") -> None:
        across, up = points.centres.T
        axes.scatter(across, up, s=12, marker="+", linewidths=0.6, color=_PAINT["muted"], clip_on=False)
        largest = max((cell.noisy_size for cell in points.kept), default=1)
        for number, label in enumerate(config.label_set):
            own = sign(number)
            across, up = points.texts[[name == label for name in points.labels]].T
            axes.scatter(
                across, up, s=13, marker=own.marker, facecolors=_PAINT[own.colour], alpha=0.8, linewidths=0,
                clip_on=False,
            )  # fmt: skip
        for cell in points.kept:
            own, place = sign(cell.label), points.centres[cell.centre]
            area = 40 + 160 * max(cell.noisy_size, 0) / max(largest, 1)
            axes.scatter(
                place[0], place[1], s=area, marker=own.marker, facecolors="none", edgecolors=_PAINT[own.colour],
                linewidths=1.2, clip_on=False,
            )  # fmt: skip
            if len(points.kept) <= _NAMED:
                axes.annotate(
                    str(cell.noisy_size), place, (math.sqrt(area) / 2 + 3, 0), textcoords="offset points",
                    va="center", color=_PAINT[own.colour],
                )  # fmt: skip
        axes.set_aspect("equal", adjustable="datalim")
        axes.set_axis_off()

    return _svg(
        "map",
        (4.6, 3.4),
        draw,
        "Map of public centres and synthetic texts",
        f"{len(points.centres)} public centres, {len(points.kept)} kept cells among them and {len(points.texts)} "
        "synthetic texts, in the plane of the centres' two principal components. The table below has their positions.",
    )


def places(points: MapPoints) -> list[tuple[str | None, int, float, float]]:
    """For each label: the number of its texts on the map, and their mean position."""
    labels = dict.fromkeys(points.labels)
    own = {label: points.texts[[name == label for name in points.labels]] for label in labels}
    return [(label, len(at), float(at[:, 0].mean()), float(at[:, 1].mean())) for label, at in own.items()]


def histogram(lengths: Sequence[int]) -> markupsafe.Markup:
    """A histogram of text lengths in characters."""
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
    """A figure as inline SVG: text stays text, colours become variables, and ids differ from those of other figures."""
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
