"""A headless Chromium, where there is one."""

import html
import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
needs_browser = pytest.mark.skipif(CHROMIUM is None, reason="no chromium on PATH: install it to look at the pages")


def browse(folder: Path, *arguments: str) -> str:
    """Runs Chromium with a profile in the folder; returns what it prints."""
    return subprocess.run(
        [str(CHROMIUM), "--headless", "--no-sandbox", "--disable-gpu", "--no-first-run",
         "--disable-background-networking", "--disable-component-update", "--disable-sync",
         f"--user-data-dir={folder / 'profile'}", *arguments],
        check=True, capture_output=True, text=True, timeout=120,
    ).stdout  # fmt: skip


def probed(folder: Path, page: str, probe: str, *, width: int, height: int = 800) -> Any:
    """What a probe finds out about a page in a frame of this width: a window is never narrower than 500 pixels.

    Args:
        folder: for the files of the browser.
        page: the HTML.
        probe: JavaScript, the body of an async function of `page` (its document), `inside` (its window) and `found`,
            the object to fill in.
        width: pixels of the frame.
        height: likewise.
    """
    wrapper, framed = folder / "wrapper.html", folder / "page.html"
    framed.write_text(page, encoding="utf-8")
    frame = f'<iframe width="{width}" height="{height}" style="border:0" src="{framed.as_uri()}"></iframe>'
    script = f"""
const frame = document.querySelector("iframe");
frame.addEventListener("load", async () => {{
  const page = frame.contentDocument, inside = frame.contentWindow, found = {{}};
  try {{ {probe} }} catch (error) {{ found.error = String(error); }}
  found.requests = inside.performance.getEntriesByType("resource").map(entry => entry.name);
  found.ran = window.ran === true;
  document.body.append(Object.assign(document.createElement("pre"), {{textContent: JSON.stringify(found)}}));
}});
"""
    wrapper.write_text(f"<!doctype html><body>{frame}<script>{script}</script></body>", encoding="utf-8")
    # the probe looks into the frame, which lies in another file
    options = ("--allow-file-access-from-files", "--window-size=1300,900", "--virtual-time-budget=10000")
    dom = browse(folder, *options, "--dump-dom", wrapper.as_uri())
    return json.loads(html.unescape(re.findall(r"<pre>(\{.*?\})</pre>", dom)[-1]))
