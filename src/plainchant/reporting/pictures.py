"""Pictures of the report, as parts of its page."""

import io
import re
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import markupsafe
import numpy as np

if TYPE_CHECKING:
    from matplotlib.axes import Axes


# Figures are drawn in the colours #0000nn, which then become variables of the page.
_PAINT = {"muted": "#0000f0", "rule": "#0000f1", "ground": "#0000f2", "accent": "#0000f3"}


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
        (3.6, 1.7),
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
        "svg.fonttype": "none", "svg.hashsalt": name, "font.size": 10, "text.color": muted, "axes.labelcolor": muted,
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
