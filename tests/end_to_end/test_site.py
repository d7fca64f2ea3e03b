"""The pages build as a site, strictly; it fetches nothing from the network and is searched without a server."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from doubles.browser import browse, needs_browser

ROOT = Path(__file__).parents[2]
# what a browser fetches by itself when it opens a page; a link waits for a click
FETCHED = re.compile(r"""<(?:script|img|iframe|link)\b[^>]*?\b(?:src|href)=["']?((?:https?:)?//[^"'\s>]+)""")


def build(folder, config=ROOT / "mkdocs.yml"):
    return subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--config-file", str(config), "--site-dir", str(folder)],
        cwd=ROOT, env=os.environ | {"NO_MKDOCS_2_WARNING": "1"}, capture_output=True, text=True, check=False,
    )  # fmt: skip


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    folder = tmp_path_factory.mktemp("site") / "built"
    done = build(folder)
    assert done.returncode == 0, done.stderr
    return folder


def test_every_page_is_in_the_navigation_and_no_link_is_broken(site):
    # a page that the navigation leaves out, and a link or an anchor that is not there, are errors of a strict build
    for page in (ROOT / "docs").rglob("*.md"):
        assert (site / page.relative_to(ROOT / "docs").with_suffix(".html")).is_file()
    assert not list(site.rglob("*.py"))


def test_a_broken_link_stops_the_build(tmp_path):
    docs = tmp_path / "docs"
    docs.mkdir()
    (docs / "index.md").write_text("# Start\n\n[away](there.md)\n")
    text = (ROOT / "mkdocs.yml").read_text(encoding="utf-8")
    (tmp_path / "mkdocs.yml").write_text(text[: text.index("nav:\n  - Start")] + "nav:\n  - Start: index.md\n")
    done = build(tmp_path / "built", tmp_path / "mkdocs.yml")
    assert done.returncode != 0
    assert "there.md" in done.stderr


def test_nothing_is_fetched_from_the_network(site):
    pages = list(site.rglob("*.html"))
    assert len(pages) > 30
    assert {address for page in pages for address in FETCHED.findall(page.read_text(encoding="utf-8"))} == set()
    sheets = [sheet.read_text(encoding="utf-8") for sheet in site.rglob("*.css")]
    assert sheets
    assert [sheet for sheet in sheets if re.search(r"url\(['\"]?(https?:)?//", sheet)] == []
    assert FETCHED.findall('<script src="https://unpkg.com/x"></script><a href="https://e.org">') == [
        "https://unpkg.com/x"
    ]


@needs_browser
def test_the_site_is_searched_from_a_folder(site, tmp_path):
    dom = browse(tmp_path, "--virtual-time-budget=20000", "--dump-dom", f"{(site / 'index.html').as_uri()}?q=ledger")
    found = re.search(r'md-search-result__meta">(\d+) matching documents', dom)
    assert found
    assert int(found[1]) > 3
