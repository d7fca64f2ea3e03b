"""The report in a real browser: it fits a telephone, asks the network for nothing and runs no script but its own."""

from typing import Any

import pytest
from doubles.browser import browse, needs_browser, probed

from plainchant import plan
from plainchant.config import SynthesisConfig
from plainchant.privacy.histograms import WHOLE_LABEL, Cell
from plainchant.reporting.page import report_page

pytestmark = needs_browser

HOSTILE = "<script>parent.ran = true</script><img src='http://example.org/x' onerror='parent.ran = true'>"
LABELS = (HOSTILE, "a" * 90, *(f"label {number}" for number in range(9)))
FIGURE = {"value": 0.5, "low": 0.4, "high": 0.6}
PRIVATE = {
    "costs": {
        "note": HOSTILE, "ex_post": {"epsilon": 2.0, "by_sum": 1.5, "by_ville": 2.5, "draws": 0.5, "delta": 1e-6},
        "tokens": 9,
        "records": {"median": 0.1, "largest": 0.2, "budget": 0.9},
        "batches": [{"batch": 0, "tokens": 9, "loss": 1.5, "rho": 0.2}],
    },
    "evaluation": {
        "note": "",
        "groups": {
            "fidelity": {"M" * 60: FIGURE},
            "usefulness": {f"accuracy, trained on {kind}": FIGURE for kind in ("synthetic", "all real texts")},
        },
        "as_real": {"accuracy, trained on synthetic": FIGURE},
        "public": {"accuracy, trained on synthetic": FIGURE},
    },
}  # fmt: skip
PROBE = """
const root = page.documentElement, scrolled = page.scrollingElement;
const colours = () => inside.getComputedStyle(root).backgroundColor;
found.folded = scrolled.scrollWidth - inside.innerWidth;
found.before = colours();
page.querySelectorAll("details").forEach(details => { details.open = true; });
found.unfolded = scrolled.scrollWidth - inside.innerWidth;
// what is inside a box that scrolls sideways is not cut off, everything else must end within the page
const scrolls = element => element.closest(".scroll, pre") !== null;
found.cut = [...page.querySelectorAll("main *, header *")].filter(
  element => !scrolls(element) && element.getBoundingClientRect().right > inside.innerWidth + 1
).map(element => element.tagName + "." + element.className);
found.button = page.querySelector("header button").textContent;
page.querySelector("header button").click();
found.after = colours();
found.svg = [...page.querySelectorAll("figure svg")].map(svg => svg.getBoundingClientRect().height > 50);
found.letters = Math.min(...[...page.querySelectorAll("figure svg text")].map(
  text => parseFloat(inside.getComputedStyle(text).fontSize) * Math.hypot(text.getScreenCTM().a, text.getScreenCTM().b)
));
"""


def page(private=None):
    config = SynthesisConfig(labels=LABELS, label_column="label", prompt={"header": "W" * 300}, max_tokens=20)
    rows: list[dict[str, Any]] = [
        {"text": text, "label": LABELS[number % len(LABELS)], "cell": number % 12}
        for number, text in enumerate([HOSTILE, "y" * 900, "a line\nand another", *["a usual text"] * 60])
    ]
    cells = [Cell(number % len(LABELS), number, 10**number, 3) for number in range(11)] + [Cell(0, WHOLE_LABEL, -2, 0)]
    settled = plan(config)
    return report_page(plan=settled, guarantee=settled.guarantee, cells=cells, rows=rows, private=private)


@pytest.mark.parametrize("width", [360, 1200])
@pytest.mark.parametrize("private", [None, PRIVATE], ids=["release", "private"])
def test_page_fits_asks_for_nothing_and_runs_nothing(tmp_path, width, private):
    found = probed(tmp_path, page(private), PROBE, width=width)
    assert found["folded"] <= 0
    assert found["unfolded"] <= 0
    assert found["requests"] == []
    assert found["ran"] is False
    assert found["button"] == "Dark colours"
    assert found["before"] != found["after"]
    assert found["svg"] == [True]
    assert found["cut"] == []
    assert found["letters"] >= 11


def test_page_is_drawn_light_and_dark(tmp_path):
    image = pytest.importorskip("PIL.Image")
    file, ground = tmp_path / "report.html", {}
    file.write_text(page(), encoding="utf-8")
    for name, scheme in (("light", 1), ("dark", 0)):
        picture = tmp_path / f"{name}.png"
        browse(
            tmp_path, "--window-size=800,900", f"--blink-settings=preferredColorScheme={scheme}",
            f"--screenshot={picture}", file.as_uri(),
        )  # fmt: skip
        with image.open(picture) as opened:
            ground[name] = opened.convert("L").getpixel((5, 5))
    assert ground["light"] > 240
    assert ground["dark"] < 40
