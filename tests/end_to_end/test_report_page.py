"""The report in a real browser: it fits a telephone, asks the network for nothing and runs no script but its own."""

import html
import json
import re
import shutil
import subprocess
from typing import Any

import pytest

from plainchant import plan
from plainchant.config import SynthesisConfig
from plainchant.privacy.histograms import WHOLE_LABEL, Cell
from plainchant.reporting.page import report_page

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no chromium on PATH: install it to look at the page")

HOSTILE = "<script>parent.ran = true</script><img src='http://example.org/x' onerror='parent.ran = true'>"
LABELS = (HOSTILE, "a" * 90, *(f"label {number}" for number in range(9)))
PRIVATE = {
    "costs": {
        "note": HOSTILE, "ex_post": {"epsilon": 2.0, "by_sum": 1.5, "by_ville": 2.5, "draws": 0.5, "delta": 1e-6},
        "tokens": 9,
        "records": {"median": 0.1, "largest": 0.2, "budget": 0.9},
        "batches": [{"batch": 0, "tokens": 9, "loss": 1.5, "rho": 0.2}],
    },
    "evaluation": {"note": "", "groups": {"fidelity": {"M" * 60: {"value": 0.5, "low": 0.4, "high": 0.6}}}},
}  # fmt: skip
PROBE = """
const frame = document.querySelector("iframe");
frame.addEventListener("load", () => {
  const page = frame.contentDocument, root = page.documentElement, width = page.scrollingElement;
  const colours = () => frame.contentWindow.getComputedStyle(root).backgroundColor;
  const found = {folded: width.scrollWidth - frame.contentWindow.innerWidth, before: colours()};
  page.querySelectorAll("details").forEach(details => { details.open = true; });
  found.unfolded = width.scrollWidth - frame.contentWindow.innerWidth;
  found.button = page.querySelector("header button").textContent;
  page.querySelector("header button").click();
  found.after = colours();
  found.requests = frame.contentWindow.performance.getEntriesByType("resource").map(entry => entry.name);
  found.ran = window.ran === true;
  found.svg = [...page.querySelectorAll("figure svg")].map(svg => svg.getBoundingClientRect().height > 50);
  document.body.append(Object.assign(document.createElement("pre"), {textContent: JSON.stringify(found)}));
});
"""


def browse(tmp_path, *arguments):
    # a window is never narrower than 500 pixels: narrow pages are shown in a frame
    return subprocess.run(
        [CHROMIUM, "--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking",
         "--disable-component-update", "--disable-sync", f"--user-data-dir={tmp_path / 'profile'}", *arguments],
        check=True, capture_output=True, text=True, timeout=120,
    ).stdout  # fmt: skip


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
    wrapper = tmp_path / "wrapper.html"
    frame = f'<iframe width="{width}" height="800" style="border:0" srcdoc="{html.escape(page(private))}"></iframe>'
    wrapper.write_text(f"<!doctype html><body>{frame}<script>{PROBE}</script></body>", encoding="utf-8")
    dom = browse(tmp_path, "--window-size=1300,900", "--dump-dom", wrapper.as_uri())
    found = json.loads(html.unescape(re.findall(r"<pre>(\{.*?\})</pre>", dom)[-1]))
    assert found["folded"] <= 0
    assert found["unfolded"] <= 0
    assert found["requests"] == []
    assert found["ran"] is False
    assert found["button"] == "Dark colours"
    assert found["before"] != found["after"]
    assert found["svg"] == [True]


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
