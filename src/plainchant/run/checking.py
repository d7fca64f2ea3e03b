"""A look at a private table before anything is spent: for its holder alone, and nothing is written."""

from collections.abc import Callable
from typing import Any

from plainchant import models
from plainchant.config import SynthesisConfig
from plainchant.data.embedding import CHARACTERS_PER_TOKEN
from plainchant.data.raw import Dialect
from plainchant.data.survey import Asked, Survey, survey
from plainchant.errors import ConfigError, MissingDependencyError, ModelError
from plainchant.run.joint import missing_package


def check(records: Any, config: SynthesisConfig | None = None, *, tokens: bool = True) -> Survey:
    """What a private table holds, and what keeps a run from doing what a configuration says. Spends nothing.

    The figures are exact, so they are private: no guarantee covers them, and they are for the table's holder alone.

    Args:
        records: the private table (see `data.tables.read_records`).
        config: names columns and labels; None: the defaults.
        tokens: whether lengths are counted in tokens of the configured model, if it can be loaded, or in words.

    Raises:
        DataError: the table cannot be read as a whole.

    >>> rows = [{"text": "a lamp is out", "label": "Lamp "}, {"text": "the bus was late", "label": "buss"}]
    >>> found = check(rows, SynthesisConfig(labels=("lamp", "bus"), label_column="label"), tokens=False)
    >>> found.rows, found.labels[0].rows, found.labels[0].written
    (2, 1, {'Lamp ': 1})
    >>> found.problems
    ["labels: no row has 'bus'; did you mean 'buss' (1 rows)?"]
    """
    named = config is not None and "text_column" in config.model_fields_set
    config = config or SynthesisConfig()
    count, notes = _counter(config) if tokens else (None, ())
    asked = Asked(
        config.text_column, config.label_column, config.unit_column, config.labels, named, config.columns,
        config.has_text,
    )  # fmt: skip
    dialect = Dialect(config.encoding, config.separator, config.allow_malformed)
    found = survey(records, asked, dialect=dialect, count_tokens=count, most_tokens=config.max_record_tokens)
    missing = missing_package(config)
    problems = found.problems if missing is None else [*found.problems, missing]
    return Survey(**{**vars(found), "problems": problems, "notes": (*found.notes, *notes)})


def _counter(config: SynthesisConfig) -> tuple[Callable[[str], int] | None, tuple[str, ...]]:
    """How many tokens a text has, counted to one more than are read of it; None and a note without a tokenizer."""
    try:
        encode = models.load_tokenizer(config.model)
    except (ModelError, MissingDependencyError, ConfigError):
        return None, (f"lengths are in words: the tokenizer of model = {config.model!r} cannot be loaded",)
    most = config.max_record_tokens
    longest = CHARACTERS_PER_TOKEN * most

    def count(text: str) -> int:
        text = text.strip()
        # as a run cuts it: the tokenizer never sees more characters than the kept tokens can hold
        return most + 1 if len(text) > longest else len(encode(text))

    return count, ()
