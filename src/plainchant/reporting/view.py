"""A page to browse a release: search, filter, copy, compare two runs. One file that needs no network."""

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import markupsafe
import numpy as np

from plainchant.data.embedding import Embedder, load_embedder
from plainchant.data.files import SHARED, write_text
from plainchant.data.marks import visible
from plainchant.errors import ConfigError
from plainchant.evaluation.runs import directory_of, real_sample
from plainchant.reporting.rendering import render
from plainchant.run.promise import promise_of
from plainchant.run.store import RunDirectory

# Real texts shown beside each synthetic one, on a private page.
_NEAR = 3
# Synthetic texts that are compared with all real ones at a time.
_CHUNK = 256
_PRIVATE = "PRIVATE: this page shows real texts; do not share"


def view(
    *runs: Any,
    out: str | Path | None = None,
    private: bool = False,
    real: Any = None,
    embedder: Embedder | None = None,
    progress: Callable[[float], None] | None = None,
) -> Path:
    """Writes a page to browse the releases of one or two runs.

    * Without `private` it holds released texts and public facts only.

    Args:
        runs: one or two of `Run`, `FinishedRun`, `RunDirectory` or a path.
        out: the file; by default view.html in the directory of the first run.
        private: whether each text has the nearest real ones beside it. Such a page lies in private/ of the first run,
            readable by its owner only.
        real: with `private`, the table that the runs were made from (see `data.read_records`).
        embedder: a loaded embedder, used instead of the runs'.
        progress: receives the share of the work done.

    Returns:
        The path of the page.

    Raises:
        ConfigError: there are not one or two runs, one is not finished, or the options do not fit together.
        DataError: the real table cannot be read.
        RunError: a release is damaged.
    """
    if not 1 <= len(runs) <= 2:
        raise ConfigError(f"DIR: {len(runs)} runs were given; name one, or two to compare")
    if private and out is not None:
        raise ConfigError(f"out = {out}: a page with real texts is written to private/ only; leave --out away")
    if private != (real is not None):
        raise ConfigError("private, real: real texts are shown with both --private and --real FILE, and not otherwise")
    directories = [directory_of(run) for run in runs]
    if private and not all(directory.config.has_text for directory in directories):
        raise ConfigError("private: a release without texts has no nearest real ones; leave --private out")
    contents = []
    for number, (directory, name) in enumerate(zip(directories, _names(directories), strict=True)):
        rows = directory.released()
        near = _nearest(directory, rows, real, embedder) if private else None
        contents.append(_content(directory, name, rows, near))
        if progress is not None:
            progress((number + 1) / len(directories))
    html = _page(directories, contents, private=private)
    if private:
        return directories[0].write_page("view.html", html, private=True)
    path = directories[0].path / "view.html" if out is None else Path(out)
    write_text(path, html, mode=SHARED)
    return path


def _names(directories: Sequence[RunDirectory]) -> list[str]:
    """A name for each run; two directories of one name are told apart by a number."""
    names = [visible(directory.path.absolute().name) for directory in directories]
    return names if len(set(names)) == len(names) else [f"{name} ({n})" for n, name in enumerate(names, start=1)]


def _content(
    directory: RunDirectory, name: str, rows: Sequence[Mapping[str, Any]], near: Sequence[Any] | None
) -> dict[str, Any]:
    """What the page's script gets of a run: control characters of texts and values are visible marks."""
    columns = list(dict.fromkeys(column for row in rows for column in row if column != "text"))
    shown = [
        {"text": visible(row.get("text", "")), "tags": [_tag(row.get(column)) for column in columns]}
        | ({} if near is None else {"near": near[number]})
        for number, row in enumerate(rows)
    ]
    said = promise_of(directory).statement
    return {"name": name, "columns": [visible(column) for column in columns], "rows": shown, "said": visible(said)}


def _tag(value: Any) -> Any:
    return value if value is None or isinstance(value, bool | int | float) else visible(str(value))


def _nearest(
    directory: RunDirectory, rows: Sequence[Mapping[str, Any]], real: Any, embedder: Embedder | None
) -> list[list[tuple[float, str]]]:
    """For each row the real texts with the largest cosine similarity. Private."""
    embedder = embedder or load_embedder(directory.config.embedder)
    sample = real_sample([directory], real, embedder, limit=np.iinfo(np.int64).max)
    found: list[list[tuple[float, str]]] = []
    for start in range(0, len(rows), _CHUNK):
        vectors = embedder.encode([row["text"] for row in rows[start : start + _CHUNK]])
        similarities = vectors @ sample.vectors.T
        for own in similarities:
            best = np.argsort(-own, kind="stable")[:_NEAR]
            found.append([(round(float(own[row]), 4), visible(sample.texts[row])) for row in best])
    return found


def _page(directories: Sequence[RunDirectory], contents: Sequence[Mapping[str, Any]], *, private: bool) -> str:
    titles = dict.fromkeys(directory.config.name or content["name"] for directory, content in
                           zip(directories, contents, strict=True))  # fmt: skip
    unsafe = [promise.statement for directory in directories if (promise := promise_of(directory)).kind == "none"]
    # a browser reads "<" in a script as the possible start of a tag, and the script reads it back from its code
    data = json.dumps(contents, ensure_ascii=False).replace("<", "\\u003c")
    return render(
        "view.html.jinja",
        ("theme.js", "view.js"),
        {},
        title=" and ".join(titles),
        compared=len(contents) > 1,
        private=private,
        warning=_PRIVATE if private else unsafe[0] if unsafe else None,
        data=markupsafe.Markup(data),
    )
