"""The help pages and the reference are made from the configuration, and the pages in docs are what the code says."""

import importlib.util
import re
from pathlib import Path
from typing import Any

import click
import pytest

from plainchant.cli.main import main
from plainchant.cli.options import OPTION_NAMES, TABLES, value_type
from plainchant.config import FIELD_GROUPS, PerformanceOptions, SynthesisConfig
from plainchant.errors import PlainchantError

REFERENCE = Path(__file__).parents[3] / "docs" / "reference"


@pytest.fixture(scope="module")
def generator():
    found = importlib.util.spec_from_file_location("generate_reference", REFERENCE / "generate.py")
    module = importlib.util.module_from_spec(found)
    found.loader.exec_module(module)
    return module


@pytest.mark.parametrize("page", ["cli.md", "configuration.md", "python.md", "../index.md"])
def test_pages_are_what_the_code_says(generator, page):
    assert generator.PAGES[page]() == (REFERENCE / page).read_text(encoding="utf-8"), "run: make reference"


def test_every_field_stands_in_one_section():
    listed = [name for names in FIELD_GROUPS.values() for name in names]
    assert sorted(listed) == sorted([*SynthesisConfig.model_fields, *PerformanceOptions.model_fields])


@pytest.mark.parametrize("name", ["plan", "run"])
def test_every_field_is_an_option_in_its_section(name):
    options: dict[str, Any] = {
        option.name: option for option in main.commands[name].params if isinstance(option, click.Option)
    }
    for group, names in FIELD_GROUPS.items():
        for field in names:
            if field not in TABLES:
                assert options[field].group == group
                assert options[field].envvar == f"PLAINCHANT_{field.upper()}"


def test_no_option_shows_a_bare_value():
    for command in main.commands.values():
        for option in command.params:
            if isinstance(option, click.Option) and not option.is_flag:
                assert option.make_metavar(click.Context(command)) not in ("VALUE", "TEXT", "PATH"), option.name


def test_truth_values_are_shown_as_they_are_written(generator):
    rows = re.findall(r"^\| `(\w+)` \| (.+?) \|", generator.configuration_page(), flags=re.MULTILINE)
    shown = dict(rows)
    assert [shown[name] for name in ("allow_malformed", "deals", "whole")] == ["`true` or `false`"] * 3


def outside(shown):
    """Numbers that the bounds shown in help exclude."""
    number = r"[\d.e+-]+"
    for low, equal in re.findall(rf"({number})<(=?)[NX]", shown):
        yield float(low) - 1 if equal else float(low)
    for sign, bound in re.findall(rf"[NX]([<>]=?)({number})", shown):
        yield float(bound) + (0 if sign in "<>" else 1 if sign == "<=" else -1)


@pytest.mark.parametrize("name", OPTION_NAMES)
def test_bounds_in_help_are_the_configurations(name):
    _, shown = value_type(name, SynthesisConfig.model_fields[name])
    for value in outside(shown):
        with pytest.raises(PlainchantError, match=name):
            wrong: Any = int(value) if "N" in shown else value
            SynthesisConfig(**{name: wrong})
