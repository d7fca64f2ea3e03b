"""Writes the reference pages from the code: `python docs/reference/generate.py`, or `make reference`.

The start page of the site is the first part of the README.
"""

import functools
import inspect
import re
from pathlib import Path
from typing import Any, get_args

import click

import plainchant as pc
from plainchant.cli.main import main
from plainchant.cli.options import TABLES, environment_name, plain_default, value_type
from plainchant.config import FIELD_GROUPS, Parts, PerformanceOptions, PromptConfig, SynthesisConfig, group_of
from plainchant.data.schema import Boolean, Category, Date, Number, Schema

HERE = Path(__file__).parent
WIDTH = 100
# What the fields of an attribute may hold.
_WRITTEN = {
    "attributes": "tables by column name",
    "descriptions": "table of labels and words",
    "of_label": "for each column a table of labels and values",
    "values": "list of values",
    "cuts": "list of numbers",
    "first": "date",
    "last": "date",
}
NOTE = "<!-- Written by docs/reference/generate.py from the code: do not edit, run `make reference`. -->"
COMPLETION = """## Shell completion

Commands, options and choices complete with the Tab key. Once, for bash:

```console
$ _PLAINCHANT_COMPLETE=bash_source plainchant > ~/.plainchant-complete.bash
$ echo 'source ~/.plainchant-complete.bash' >> ~/.bashrc
```

For zsh the first word is `_PLAINCHANT_COMPLETE=zsh_source` and the second file `~/.zshrc`. For fish:

```console
$ _PLAINCHANT_COMPLETE=fish_source plainchant > ~/.config/fish/completions/plainchant.fish
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
    if bool in (field.annotation, *get_args(field.annotation)):
        return "`true` or `false`"
    if name == "examples":
        return "tables with `text`, `label` and `attributes`"
    _, shown = value_type(name, field)
    if name == "labels":
        return "list of labels"
    return "`" + shown.strip("[]").replace("|", "\\|") + "`"


def _default(name: str, field: Any) -> str:
    if field.is_required():
        return "required"
    if name == "attributes" or field.default == {}:
        return "none"
    if field.default is None:
        return "set by the method" if name in Parts.model_fields else "unset"
    return "none" if field.default == () else f"`{plain_default(field.default)}`"


def _escaped(text: str) -> str:
    return text.replace("|", "\\|").replace("<", "&lt;")


def python_page() -> str:
    """Every public name with its signature and its docstring."""
    parts = [
        NOTE,
        "# Python",
        "`import plainchant as pc` gives these names. Importing it loads neither torch nor a model.",
    ]
    kinds: dict[str, list[str]] = {"Functions": [], "Classes": [], "Errors": []}
    for name in pc.__all__:
        thing = getattr(pc, name)
        error = inspect.isclass(thing) and issubclass(thing, Exception)
        kinds["Errors" if error else "Classes" if inspect.isclass(thing) else "Functions"].append(_entry(name, thing))
    for title, entries in kinds.items():
        parts += [f"## {title}", *entries]
    return "\n\n".join(parts) + "\n"


def _entry(name: str, thing: Any, depth: int = 3) -> str:
    """A function, or a class with its public methods."""
    said = _prose(inspect.getdoc(thing) or "")
    if hasattr(thing, "model_fields"):
        said.insert(0, "Its fields: [Configuration](configuration.md).")
    elif inspect.isclass(thing) and issubclass(thing, pc.PlainchantError):
        said.append(f"Exit code on the command line: {thing.exit_code}.")
    elif callable(thing):
        said.insert(0, f"```text\n{_signature(name, thing)}\n```")
    parts = [f"{'#' * depth} {name}", *said]
    if inspect.isclass(thing):
        methods = {key: getattr(thing, key) for key in vars(thing) if not key.startswith("_")}
        parts += [_entry(f"{name}.{key}", one, depth + 1) for key, one in methods.items() if _documented(one)]
    return "\n\n".join(parts)


def _documented(one: Any) -> bool:
    return (inspect.isroutine(one) or isinstance(one, property | functools.cached_property)) and bool(one.__doc__)


def _signature(name: str, thing: Any) -> str:
    """Names and defaults, an argument a line where they are many; the types stand in the code."""
    shown: list[str] = []
    for argument in inspect.signature(thing).parameters.values():
        if argument.kind is argument.KEYWORD_ONLY and "*" not in shown:
            shown.append("*")
        # the address of an object is no default
        shown.append(re.sub(r"=<.*>$", "=…", str(argument.replace(annotation=inspect.Parameter.empty))))
    shown = [text for text in shown if text != "self"]
    line = f"{name}({', '.join(shown)})"
    return line if len(line) <= WIDTH else f"{name}(\n" + "".join(f"    {text},\n" for text in shown) + ")"


def _prose(doc: str) -> list[str]:
    """A docstring as Markdown: its sections are lists, its examples code."""
    parts = []
    for block in re.split(r"\n\s*\n", doc):
        head, _, rest = block.partition("\n")
        if head in ("Args:", "Attributes:", "Raises:", "Returns:", "Yields:"):
            items = [" ".join(item.split()) for item in re.split(r"\n(?=    \S)", f"\n{rest}")[1:]]
            lines = [re.sub(r"^([\w, *]+?): ", r"`\1`: ", item) for item in items]
            parts += [f"*{head.rstrip(':')}*", "\n".join(f"- {line}" for line in lines).replace("<", "&lt;")]
        elif block.startswith(">>>"):
            parts.append(f"```pycon\n{block}\n```")
        else:
            parts.append(block.replace("<", "&lt;"))
    return parts


def start_page() -> str:
    """The README's first part, with its links as they are from here."""
    readme = (HERE.parents[1] / "README.md").read_text(encoding="utf-8")
    return f"{NOTE}\n\n{readme.partition(END_OF_START)[0].rstrip()}\n".replace("](docs/", "](")


# The README up to here is the start page.
END_OF_START = "<!-- end of the start page -->"
PAGES = {
    "cli.md": cli_page,
    "configuration.md": configuration_page,
    "python.md": python_page,
    "../index.md": start_page,
}

if __name__ == "__main__":
    for page, content in PAGES.items():
        (HERE / page).write_text(content(), encoding="utf-8")
