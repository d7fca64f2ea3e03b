"""What a notebook shows: small tables as HTML, in which everything is text."""

import html
from collections.abc import Iterable, Sequence

from plainchant.data.marks import visible

# Characters of a cell, so that one long text does not fill the notebook.
_LONGEST = 400


def html_table(title: str, rows: Iterable[Sequence[object]], *, head: Sequence[str] = ()) -> str:
    """A table for `_repr_html_`: values are escaped, and their control characters are visible marks.

    >>> html_table("Plan", [("unit", "<one> record")])
    '<table><caption>Plan</caption><tbody><tr><td>unit</td><td>&lt;one&gt; record</td></tr></tbody></table>'
    """
    top = f"<thead>{_line(head, 'th')}</thead>" if head else ""
    body = "".join(_line(row, "td") for row in rows)
    return f"<table><caption>{_safe(title)}</caption>{top}<tbody>{body}</tbody></table>"


def _line(cells: Sequence[object], tag: str) -> str:
    return "<tr>" + "".join(f"<{tag}>{_safe(cell)}</{tag}>" for cell in cells) + "</tr>"


def _safe(value: object) -> str:
    text = "–" if value is None else str(value)
    return html.escape(visible(text if len(text) <= _LONGEST else text[:_LONGEST] + "…"))
