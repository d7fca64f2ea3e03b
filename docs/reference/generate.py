"""Writes the reference pages from the code: `python docs/reference/generate.py`, or `make reference`."""

from pathlib import Path
from typing import Any

import click

from plainchant.cli.main import main
from plainchant.cli.options import TABLES, environment_name, plain_default, value_type
from plainchant.config import FIELD_GROUPS, Parts, PerformanceOptions, PromptConfig, SynthesisConfig, group_of
from plainchant.data.schema import Boolean, Category, Date, Number, Schema

HERE = Path(__file__).parent
WIDTH = 100
# What the fields of an attribute may hold.
_WRITTEN = {
    "attributes": "tables by column name",
    "values": "list of values",
    "cuts": "list of numbers",
    "first": "date",
    "last": "date",
    "whole": "`true` or `false`",
}
NOTE = "<!-- Written by docs/reference/generate.py from the code: do not edit, run `make reference`. -->"
COMPLETION = """## Shell completion

Commands, options and choices complete with the Tab key. Once, for bash or zsh (for fish, `fish_source`):

```console
$ _PLAINCHANT_COMPLETE=bash_source plainchant > ~/.plainchant-complete.bash
$ echo 'source ~/.plainchant-complete.bash' >> ~/.bashrc
```
"""


def cli_page() -> str:
    """Every help page, as the terminal shows it."""
    parts = [NOTE, "# Command line", "`python -m plainchant` is the same as `plainchant`.", COMPLETION.rstrip()]
    parts += ["## plainchant", _help(main, "plainchant")]
    for name in sorted(main.commands):
        parts += [f"## plainchant {name}", _help(main.commands[name], f"plainchant {name}")]
    return "\n\n".join(parts) + "\n"


def _help(command: click.Command, name: str) -> str:
    settings = {"terminal_width": WIDTH, "max_content_width": WIDTH, **main.context_settings}
    with click.Context(command, info_name=name, **settings) as context:
        text = command.get_help(context)
    return "```text\n" + "\n".join(line.rstrip() for line in text.splitlines()) + "\n```"


def configuration_page() -> str:
    """Every field: what it may hold, its default, what it means."""
    parts = [
        NOTE,
        "# Configuration",
        "A configuration is a TOML file (`plainchant init` writes a commented one), or `pc.SynthesisConfig(...)` in "
        "Python. Each field but the tables `prompt` and `columns` is also an option of `plainchant plan` and "
        "`plainchant run` (`max_tokens` is `--max-tokens`) and an environment variable "
        "(`PLAINCHANT_MAX_TOKENS`). The option replaces the environment, and the environment replaces the file. "
        "Everything here is public: copy nothing into it from the private data.",
    ]
    for group, names in FIELD_GROUPS.items():
        if group != "Performance":
            parts += [f"## {group}", _table(SynthesisConfig, [name for name in names if name not in TABLES])]
        if group == "Columns":
            parts += ["### `[columns]`", "In the file only.", _table(Schema, list(Schema.model_fields))]
            for kind in (Category, Number, Date, Boolean):
                title = f'### `[columns.attributes.NAME]` with `type = "{kind.model_fields["type"].default}"`'
                parts += [title, _table(kind, [name for name in kind.model_fields if name != "type"])]
        if group == "Prompt":
            parts += ["### `[prompt]`", "In the file only.", _table(PromptConfig, list(PromptConfig.model_fields))]
    other = [name for name in SynthesisConfig.model_fields if group_of(name) == "Other"]
    if other:
        parts += ["## Other", _table(SynthesisConfig, other)]
    parts += [
        "## Performance",
        "`pc.PerformanceOptions(...)` in Python; options and environment variables on the command line, never in the "
        f"file. Nothing here can change the guarantee. Example: `{environment_name('rows')}=128`.",
        _table(PerformanceOptions, list(PerformanceOptions.model_fields)),
    ]
    return "\n\n".join(parts) + "\n"


def _table(model: Any, names: list[str]) -> str:
    lines = ["| field | value | default | meaning |", "|---|---|---|---|"]
    for name in names:
        field = model.model_fields[name]
        meaning = (field.description or "").replace("\n", " ")
        lines.append(f"| `{name}` | {_value(name, field)} | {_default(name, field)} | {_escaped(meaning)} |")
    return "\n".join(lines)


def _value(name: str, field: Any) -> str:
    if name in _WRITTEN:
        return _WRITTEN[name]
    if name == "examples":
        return "tables with `text` and `label`"
    _, shown = value_type(name, field)
    if name == "labels":
        return "list of labels"
    return "`" + shown.strip("[]").replace("|", "\\|") + "`"


def _default(name: str, field: Any) -> str:
    if field.is_required():
        return "required"
    if name == "attributes":
        return "none"
    if field.default is None:
        return "set by the method" if name in Parts.model_fields else "unset"
    return "none" if field.default == () else f"`{plain_default(field.default)}`"


def _escaped(text: str) -> str:
    return text.replace("|", "\\|").replace("<", "&lt;")


PAGES = {"cli.md": cli_page, "configuration.md": configuration_page}

if __name__ == "__main__":
    for page, content in PAGES.items():
        (HERE / page).write_text(content(), encoding="utf-8")
