"""Self-contained HTML pages from templates: no network, no fonts, no script but their own."""

import base64
import hashlib
import importlib.resources
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jinja2
import markupsafe

from plainchant.data.marks import visible


def _shown(value: Any) -> Any:
    """What a template prints: control characters of labels and texts as visible marks."""
    return visible(value) if isinstance(value, str) and not isinstance(value, markupsafe.Markup) else value


def render(template: str, scripts: Sequence[str], filters: Mapping[str, Callable[..., Any]], **values: Any) -> str:
    """A page from a template of this package.

    * Whatever a user or a model wrote is text: it is escaped, and its control characters are visible marks.
    * The template's content security policy allows nothing to be loaded, and only these scripts to run.

    Args:
        template: its file in templates/.
        scripts: its JavaScript, files in templates/.
        filters: further filters.
        values: what the template uses; it also gets `script` and `script_hash`.
    """
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("plainchant.reporting"),
        autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True, finalize=_shown,
    )  # fmt: skip
    environment.filters |= filters
    folder = importlib.resources.files("plainchant.reporting").joinpath("templates")
    script = "".join(folder.joinpath(name).read_text(encoding="utf-8") for name in scripts)
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    return environment.get_template(template).render(**values, script=markupsafe.Markup(script), script_hash=digest)
