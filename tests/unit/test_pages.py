"""The pages for users: short sentences, commands that the command line takes, links that lead somewhere."""

import re
import shlex
from pathlib import Path
from typing import Any

import click
import pytest
from hatch_build import LINK, absolute
from hatchling.metadata.core import ProjectMetadata
from hatchling.plugin.manager import PluginManager

import plainchant as pc
from plainchant.cli.main import main
from plainchant.config import load_config

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
# written for readers of proofs and measurements, or made from the code
FOR_EXPERTS = {"guarantee.md", "study.md", "candidates.md", "comparison.md", "speed.md", "audit.md", "reference"}
PAGES = [ROOT / "README.md", *sorted(DOCS.rglob("*.md"))]
FOR_USERS = [page for page in PAGES if not FOR_EXPERTS & set(page.parts)]
LONGEST = 30
BLOCK = re.compile(r"^ *```(?P<language>\w+)[^\n]*\n(?P<body>.*?)^ *```$", re.MULTILINE | re.DOTALL)


def named(page):
    return str(page.relative_to(ROOT))


def sentences(text):
    """The sentences of a page without code, tables, headings and comments; a piece of code is one word."""
    text = re.sub(r"<!--.*?-->", "", BLOCK.sub("\n\n", text), flags=re.DOTALL)
    text = re.sub(r"!?\[([^\]]*)\]\([^)]*\)", r"\1", re.sub(r"`[^`]+`", "code", text))
    kept = [line for line in text.splitlines() if not line.lstrip().startswith(("|", "#"))]
    for paragraph in re.split(r"\n\s*\n|\n\s*(?:[-*]|\d+\.) ", "\n".join(kept)):
        yield from re.split(r"(?<=[.!?])[*_)\"]*\s+", " ".join(paragraph.split()))


def commands(text):
    """The calls of plainchant in the shell blocks of a page, each as its arguments."""
    for block in BLOCK.finditer(text):
        if block["language"] not in ("sh", "console", "bash", "yaml"):
            continue
        # here-documents are files, not commands
        body = re.sub(r"<<'END'.*?^\s*END$", "", block["body"].replace("\\\n", " "), flags=re.MULTILINE | re.DOTALL)
        for line in body.splitlines():
            # what stands in a console without a dollar sign was written by a command
            start = r"\$ " if block["language"] == "console" else r"\s*(?:- run: )?"
            if found := re.match(rf"{start}plainchant( .*)", line):
                yield shlex.split(found[1], comments=True)


def parsed(arguments):
    """Refuses what the command line refuses before it looks at a file."""
    # a command keeps the first help option that it made, so the names of that must be the real ones
    settings: Any = main.context_settings
    context = click.Context(main, info_name="plainchant", **settings)
    _, rest, _ = main.make_parser(context).parse_args(list(arguments))
    if not rest:
        return
    name, *rest = rest
    command = main.get_command(context, name)
    if command is None:
        raise click.UsageError(f"no command {name!r}")
    inner = click.Context(command, info_name=name, parent=context, **settings)
    given, left, _ = command.make_parser(inner).parse_args(rest)
    if left:
        raise click.UsageError(f"too many arguments: {left}")
    for parameter in command.params:
        value = given.get(parameter.name)
        if isinstance(parameter.type, click.Path | click.File) or not isinstance(value, str):
            continue
        parameter.type.convert(value, parameter, inner)


@pytest.mark.parametrize("page", FOR_USERS, ids=named)
def test_no_sentence_is_long(page):
    long = [line for line in sentences(page.read_text(encoding="utf-8")) if len(line.split()) > LONGEST]
    assert long == []


def test_a_long_sentence_is_found():
    text = "Short. " + "word " * 31 + "end. [Here](there.md) is one.\n- and `a b c d` this\n\n| " + "cell " * 40 + "|\n"
    assert [len(line.split()) > LONGEST for line in sentences(text)] == [False, True, False, False]


@pytest.mark.parametrize("page", PAGES, ids=named)
def test_every_command_is_one_that_the_command_line_takes(page):
    for arguments in commands(page.read_text(encoding="utf-8")):
        parsed(arguments)


def test_there_are_commands_and_wrong_ones_are_caught():
    found = [arguments for page in FOR_USERS for arguments in commands(page.read_text(encoding="utf-8"))]
    assert len(found) > 40
    used = {arguments[0] for arguments in found if arguments}
    assert used >= set(main.commands) - {"demo", "push"}
    for wrong in (["plan", "--epsilom", "3"], ["plann"], ["view", "--method", "x"], ["plan", "--method", "magic"]):
        with pytest.raises(click.UsageError):
            parsed(wrong)


@pytest.mark.parametrize("page", PAGES, ids=named)
def test_every_configuration_is_one(page, tmp_path):
    for block in BLOCK.finditer(page.read_text(encoding="utf-8")):
        if block["language"] == "toml":
            (tmp_path / "part.toml").write_text(re.sub(r"^    ", "", block["body"], flags=re.MULTILINE))
            assert isinstance(load_config(tmp_path / "part.toml", needed(block["body"])), pc.SynthesisConfig)


def needed(body):
    """What a part of a configuration leaves to the rest."""
    labels = sorted(set(re.findall(r'^\s*label = "(.*)"', body, re.MULTILINE))) or ["bug", "billing", "question"]
    return {} if "labels" in body else {"labels": labels, "label_column": "kind"}


def test_links_of_the_readme_lead_to_files():
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    targets = [target.partition("#")[0] for _, _, target in LINK.findall(readme)]
    assert len(targets) > 20
    assert [target for target in targets if not (ROOT / target).is_file()] == []


def test_links_of_the_packages_page_are_absolute():
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    page = absolute(readme, "https://example.org/us/plainchant/")
    assert "](https://example.org/us/plainchant/blob/main/docs/tutorial.md)" in page
    assert "](https://example.org/us/plainchant/raw/main/docs/flow.svg)" in page
    assert LINK.findall(page) == []
    assert re.findall(r"\]\((?!https://|#)", page) == []
    # what is not a link stays as it is
    assert absolute("a [b] (c) [d](https://e.org)", None) == "a [b] (c) [d](https://e.org)"
    assert absolute("![p](a.svg)see [b](c.md#d)", None) == "see b"


def test_a_build_takes_the_packages_page():
    metadata = ProjectMetadata(str(ROOT), PluginManager()).core
    address = metadata.urls.get("Repository")
    assert metadata.readme_content_type == "text/markdown"
    assert metadata.readme == absolute((ROOT / "README.md").read_text(encoding="utf-8"), address)
