"""A configuration is checked before anything runs, and its errors name field, value and next step."""

import math

import pytest
from click.testing import CliRunner

from plainchant.cli.main import main
from plainchant.config import (
    PRESETS,
    Accounting,
    Method,
    PerformanceOptions,
    SynthesisConfig,
    load_config,
    parse_config,
)
from plainchant.errors import ConfigError, PrivacyError


@pytest.mark.parametrize("method", list(Method))
def test_every_preset_stands_by_itself(method):
    columns = "columns.attributes.stars = {type = 'boolean'}\n" * (method is Method.ATTRIBUTES)
    config = parse_config(f'method = "{method}"\n{columns}')
    assert config.parts == PRESETS[method]
    assert SynthesisConfig(method=method, columns=config.columns) == config


def test_a_part_set_by_itself_replaces_the_presets():
    parts = SynthesisConfig(method="clustered-median", clip=3, batch_size=9).parts
    assert (parts.clip, parts.batch_size, parts.accounting) == (3, 9, Accounting.EX_POST)


def test_overrides_replace_what_the_file_says():
    assert parse_config("epsilon = 2\ntexts = 5", {"epsilon": 3.0}).epsilon == 3.0
    with pytest.raises(ConfigError, match="not valid TOML"):
        parse_config("epsilon = ")


ALONE = {"attributes": {"stars": {"type": "boolean"}}}


def _shown(**attributes):
    return {"examples": [{"text": "t", "attributes": attributes}]}


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"epsilon": 0}, "epsilon = 0"),
        ({"epsilon": float("inf")}, "--method public"),
        ({"epsilon": "much"}, "epsilon = 'much'"),
        ({"delta": 0}, "delta = 0"),
        ({"delta": 1}, "delta = 1"),
        ({"texts": 0}, "texts = 0"),
        ({"max_tokens": -3}, "max_tokens = -3"),
        ({"min_tokens": 64}, "below max_tokens = 64"),
        ({"temperature": 0}, "temperature = 0"),
        ({"temperature": float("nan")}, "temperature = nan"),
        ({"clip": 0}, "clip = 0"),
        ({"clip": -1.0}, "clip = -1"),
        ({"clip": "auto"}, "give a number in nats"),
        ({"batch_size": 0}, "batch_size = 0"),
        ({"batch_size": "many"}, "batch_size = 'many'"),
        ({"centres": 0}, "centres = 0"),
        ({"kept": 0}, "kept = 0"),
        ({"rebalance_share": 1}, "rebalance_share = 1"),
        ({"numerical_slack": -1}, "numerical_slack = -1"),
        ({"temperature": 2.1}, "temperature = 2.1: the rounding of sampling weights needs numerical_slack = 0.00103"),
        ({"temperature": 8.5, "numerical_slack": 4e-3}, "lower temperature to 8.19"),
        ({"numerical_slack": 0}, "needs numerical_slack = 0.000488"),
        ({"epsilom": 3}, "did you mean epsilon"),
        ({"xyzzy": 3}, "known are"),
        ({"prompt": {"headr": ""}}, "did you mean header"),
        ({"method": "magic"}, "method = 'magic'"),
        ({"candidates": 0}, "candidates = 0"),
        ({"method": "public", "candidates": 2}, "reads no records"),
        ({"method": "attributes", "candidates": 2, "columns": ALONE}, "candidates = 2: --method attributes writes no"),
        ({"method": "attributes", "table_share": 0.5, "columns": ALONE}, "spends the whole budget"),
        ({"columns": {"attributes": {"text": {"type": "boolean"}}}}, "columns.attributes.text: is the text"),
        ({"columns": {"attributes": {"n": {"type": "number", "cuts": [2, 1]}}}}, "columns.attributes.n.cuts = [2"),
        ({"method": "attributes", "expand": 2, "columns": ALONE}, "expand = 2: --method attributes writes no"),
        ({"method": "amin2024", "sparse_threshold": 3}, "sparse_threshold = 3"),
        ({"method": "amin2024", "sparse_noise": 0}, "sparse_noise = 0"),
        ({"method": "amin2024", "private_tokens": 100}, "is more than max_tokens = 64"),
        ({"sparse_threshold": 0.5}, "belongs to accounting = worst-case"),
        ({"method": "invisibleink", "sparse_threshold": 0.5}, "clip = auto: cannot be derived"),
        ({"label_column": "label"}, "labels: not given"),
        ({"labels": ("a",)}, "label_column: not given"),
        ({"labels": ("a", "a"), "label_column": "l"}, "every label once"),
        ({"prompt": {"example": "no place"}}, "{text} exactly once"),
        ({"prompt": {"chat": "{text}{text}"}}, "{text} exactly once"),
        ({"prompt": {"examples": [{"text": "t", "label": "a"}]}}, "label 'a' is not in labels"),
        ({"columns": {"of_label": {"d": {"a": "x"}}}}, "columns.of_label.d: has a value for each of labels = []; 'a'"),
        ({"labels": ("a", "b"), "label_column": "l", "columns": {"of_label": {"d": {"a": "x"}}}}, "'b' has none"),
        ({"labels": ("a",), "label_column": "l", "columns": {"of_label": {"cell": {"a": "x"}}}}, "of_label.cell: is"),
        ({"labels": ("a",), "label_column": "l", "columns": ALONE | {"of_label": {"stars": {"a": "x"}}}}, "too; name"),
        ({"prompt": {"descriptions": {"a": "words"}}}, "prompt.descriptions: 'a' is not in labels"),
        (
            {"labels": ("a",), "label_column": "l", "prompt": {"descriptions": {"a": "{text}"}}},
            "must not be blank or have",
        ),
        ({"prompt": _shown(paid=True)}, "attribute 'paid' is not in columns.attributes = []"),
        ({"prompt": _shown(stars="many"), "columns": ALONE}, "stars = 'many' is not a truth value of the schema"),
    ],
)
def test_what_is_out_of_bounds_is_refused_by_name(values, words):
    with pytest.raises(ConfigError) as caught:
        SynthesisConfig(**values)
    assert words in str(caught.value)


@pytest.mark.parametrize(
    "values",
    [
        {"aggregate": "median"},
        {"accounting": "public"},
        {"accounting": "infinite"},
        {"method": "public", "accounting": "worst-case"},
        {"method": "non-private", "accounting": "worst-case"},
        {"method": "clustered-median", "accounting": "worst-case"},
    ],
)
def test_what_no_guarantee_follows_from_is_refused(values):
    with pytest.raises(PrivacyError):
        SynthesisConfig(**values)


def test_a_field_named_like_pythons_own_argument_is_unknown(tmp_path):
    path = tmp_path / "plainchant.toml"
    path.write_text("self = 1\n")
    with pytest.raises(ConfigError, match="self: no such field"):
        load_config(path)
    answer = CliRunner().invoke(main, ["plan", str(path)])
    assert answer.exit_code == 2
    assert "self: no such field" in answer.stderr
    assert "Traceback" not in answer.output


def test_public_needs_labels_only_for_prompts():
    assert SynthesisConfig(method="public", labels=("a", "b")).label_set == ("a", "b")
    assert SynthesisConfig().label_set == (None,)


def test_a_configuration_cannot_be_changed_after_its_checks():
    with pytest.raises(ValueError, match="frozen"):
        SynthesisConfig().epsilon = 100.0  # type: ignore[misc]


def test_labels_may_be_one_string_with_commas_as_on_the_command_line():
    config = SynthesisConfig(labels="bug, billing,", label_column="label")
    assert config.labels == ("bug", "billing")
    assert parse_config('labels = "bug,billing"\nlabel_column = "label"') == config
    with pytest.raises(ConfigError, match="labels"):
        SynthesisConfig(labels=3, label_column="label")  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("field", "good", "bad"),
    [
        ("language", ("en", "en,de", "pt-BR, zh-Hans"), ("english", "e", "en;de", "en\n")),
        ("license", ("cc-by-4.0", "other"), ("", "my own licence", "a\nb")),
        ("name", ("Tickets 2025", "<b>"), ("", "x" * 201)),
        ("holder", ("City of Example",), ("",)),
    ],
)
def test_what_a_release_says_of_itself_is_bounded(field, good, bad):
    for value in good:
        assert getattr(SynthesisConfig(**{field: value}), field) == value
    for value in bad:
        with pytest.raises(ConfigError, match=field):
            SynthesisConfig(**{field: value})


def test_a_field_of_the_prompt_outside_of_its_table_is_told_where_it_stands():
    with pytest.raises(ConfigError, match=r"header: no such field; it belongs under \[prompt\]"):
        parse_config('header = "Tickets."')
    with pytest.raises(ConfigError, match=r"text: no such field; it belongs under \[columns\].*did you mean texts\?"):
        parse_config("text = 5")


def test_words_without_quotation_marks_are_told():
    with pytest.raises(ConfigError, match=r"at line 2.*words need quotation marks"):
        parse_config("epsilon = 1\nlabels = [bug, billing]")


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"threads": -1}, "threads = -1: should be greater than or equal to 1"),
        ({"thread": 1}, "thread: no such field; did you mean threads"),
        ({"memory": math.inf}, "memory = inf: should be a finite number"),
        ({"rows": "many"}, "rows = 'many': should be a valid integer or should be 'auto'"),
    ],
)
def test_options_of_speed_are_refused_in_our_own_words(values, message):
    with pytest.raises(ConfigError, match=message):
        PerformanceOptions(**values)
