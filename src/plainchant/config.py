"""The configuration: fields that change the guarantee or the texts and, in a separate class, those that cannot."""

import datetime
import difflib
import enum
import functools
import ipaddress
import math
import tomllib
import urllib.parse
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, Self, TypedDict, Unpack

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from plainchant.data.encodings import AUTO, check_encoding
from plainchant.data.labels import normal_form
from plainchant.data.raw import separator_of
from plainchant.data.schema import Schema
from plainchant.errors import ConfigError, PrivacyError
from plainchant.privacy.accounting import check_delta, check_epsilon
from plainchant.privacy.aggregation import ROUNDING_RANGE, Aggregate, Clipping, Support
from plainchant.privacy.choice import Accounting as Accounting
from plainchant.privacy.choice import TokenRequest
from plainchant.privacy.individual import EXPECTED_RANGE

# Upper limit for the number of contexts, centres or cells.
LARGEST = 1_000_000
# Candidates for each released text, and votes on them, in the methods that live by votes (docs/how-it-works.md).
CANDIDATES, ROUNDS = 11, 2
# Share of the budget for the attributes beside texts where none is given.
TABLE_SHARE = 0.1
# Columns of a release that no attribute may be called like.
RESERVED_COLUMNS = ("text", "label", "cell", "origin")
# First texts of a cell per text that is shown in its prompts.
BOOTSTRAP = 2
# Least share of the budget for votes where none is given.
LEAST_FOR_VOTES = 0.05
# Share of the budget for the records' words where none is given (docs/candidates.md).
WORD_SHARE = 0.1
# Private rows per forward pass where none are given and nothing is measured.
USUAL_ROWS = 64


class Method(enum.StrEnum):
    """Presets over the same parts; each part can also be set separately."""

    AMIN2024 = "amin2024"
    CLUSTERED_MEAN = "clustered-mean"
    CLUSTERED_MEDIAN = "clustered-median"
    INVISIBLEINK = "invisibleink"
    PUBLIC = "public"
    PLAINCHANT = "plainchant"
    PRIVATE_EVOLUTION = "private-evolution"
    ATTRIBUTES = "attributes"
    NON_PRIVATE = "non-private"


class Clusters(enum.StrEnum):
    """How batches are formed (guarantee 2)."""

    PUBLIC_CENTRES = "public-centres"
    NONE = "none"


class PromptForm(enum.StrEnum):
    """How a record is shown to the model."""

    EXAMPLES = "examples"
    CHAT = "chat"


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)


class Example(_Frozen):
    """A hand-written, made-up example: it shows the form of the data and takes nothing from it (guarantee 8)."""

    text: str
    label: str | None = None
    attributes: dict[str, str | int | float | bool] = {}

    @field_validator("attributes", mode="before")
    @classmethod
    def _written(cls, values: Any) -> Any:
        """Dates as they are written, and no missing values: what a file can hold."""
        if not isinstance(values, Mapping):
            return values
        dates = {name: value.isoformat() for name, value in values.items() if isinstance(value, datetime.date)}
        return {name: value for name, value in values.items() if value is not None} | dates


class PromptConfig(_Frozen):
    """How a record is shown to the model: templates with `{label}` and `{text}`; unset ones get a default."""

    form: PromptForm = PromptForm.EXAMPLES
    """Form of the prompt: examples (a list to continue) for base models, chat for instruction-tuned ones."""
    header: str | None = None
    """Text at the start of the prompt."""
    example: str | None = None
    """Template of one entry in the list; generation starts at {text} and ends at what follows it. Attributes stand at \
{attributes}, or before the line of {text}, a line each. Unset: a text keeps its line breaks and ends where another \
entry begins; if all examples are single lines, it ends at a line break."""
    chat: str | None = None
    """Template of the user's message in the chat form; {text} is the record, {attributes} those of the new text."""
    descriptions: dict[str, str] = {}
    """What prompts show in place of a label: words that a model understands. The release has the label."""
    examples: tuple[Example, ...] = ()
    """Made-up public examples, shown before the record. They show the form of the data and take nothing from it. With \
columns beside the text, give each its attributes, so that prompts show which text goes with what."""

    def shown(self, label: str | None) -> str:
        """A label as prompts show it: as it is described, or its name."""
        return self.descriptions.get(label or "", label or "")

    @property
    def single_lines(self) -> bool:
        """Whether there are public examples and none of them has a line break."""
        return bool(self.examples) and not any("\n" in example.text.strip() for example in self.examples)

    def entry(self, *, labelled: bool) -> str:
        """Template of one entry: the given one or the default."""
        return self.example if self.example is not None else "Label: {label}\n" * labelled + "Text: {text}\n\n"

    def stop(self, *, labelled: bool, attribute: str | None = None) -> str | None:
        r"""What ends a text (guarantee 4.6). None: only an end-of-text token.

        In the default template that is the beginning of another entry or, where there are examples and all of them are
        single lines, a line break. In a given template it is what follows the text, up to the first line with anything
        in it; a blank rest is a line break.

        Args:
            labelled: whether an entry has a label.
            attribute: how the first line of its attributes begins; None where it has none.

        >>> PromptConfig().stop(labelled=False), PromptConfig(example="> {text}\n###\n\n").stop(labelled=False)
        ('\nText:', '\n###')
        """
        if self.form is PromptForm.CHAT:
            return None
        before, _, after = self.entry(labelled=labelled).partition("{text}")
        if self.example is None:
            begins = attribute if attribute is not None and not labelled else before.partition(" ")[0]
            return "\n" if self.single_lines else "\n" + begins
        after = after.partition("{label}")[0].partition("{attributes}")[0]
        return "\n" + after.strip().partition("\n")[0].strip() if after.startswith("\n") else after or None


class Parts(_Frozen):
    """The parts of a method, every one of them set."""

    clusters: Clusters
    aggregate: Aggregate
    support: Support
    clipping: Clipping
    accounting: Accounting
    clip: float | Literal["auto"]
    guidance: float
    batch_size: int | Literal["auto"]
    released_examples: int
    sparse_threshold: float
    top_k: int
    candidates: int
    rounds: int
    deals: bool


_AMIN = {
    "clusters": Clusters.NONE,
    "aggregate": Aggregate.MEAN,
    "support": Support.FULL,
    "clipping": Clipping.LOGITS,
    "accounting": Accounting.WORST_CASE,
    "clip": 10.0,
    "guidance": 1.0,
    "batch_size": "auto",
    "released_examples": 0,
    "sparse_threshold": 0.5,
    "top_k": 100,
    "candidates": 1,
    "rounds": 1,
    "deals": False,
}
_CLUSTERED_MEAN = _AMIN | {"clusters": Clusters.PUBLIC_CENTRES, "sparse_threshold": 0.0}
_INVISIBLEINK = _AMIN | {
    "support": Support.TOP_K_PLUS,
    "clipping": Clipping.DIFFERENCE,
    "clip": "auto",
    "batch_size": 16,
    "sparse_threshold": 0.0,
}
PRESETS: Mapping[Method, Parts] = {
    Method.AMIN2024: Parts.model_validate(_AMIN),
    Method.CLUSTERED_MEAN: Parts.model_validate(_CLUSTERED_MEAN),
    Method.CLUSTERED_MEDIAN: Parts.model_validate(
        _CLUSTERED_MEAN | {"aggregate": Aggregate.MEDIAN, "accounting": Accounting.EX_POST}
    ),
    Method.INVISIBLEINK: Parts.model_validate(_INVISIBLEINK),
    Method.PLAINCHANT: Parts.model_validate(
        _CLUSTERED_MEAN
        | {
            "support": Support.TOP_K,
            "clipping": Clipping.INCREASE,
            "accounting": Accounting.INDIVIDUAL,
            "guidance": 2.0,
            "released_examples": 2,
            "top_k": 1000,
            "candidates": CANDIDATES,
            "rounds": ROUNDS,
            "deals": True,
        }
    ),
    Method.PUBLIC: Parts.model_validate(
        _INVISIBLEINK
        | {"support": Support.TOP_K, "accounting": Accounting.PUBLIC, "clip": 1.0, "batch_size": 1, "top_k": 1000}
    ),
    # no record is shown to the model: records vote, and that is all
    Method.PRIVATE_EVOLUTION: Parts.model_validate(
        _INVISIBLEINK
        | {
            "support": Support.TOP_K,
            "accounting": Accounting.VOTES,
            "clip": 1.0,
            "batch_size": 1,
            "top_k": 1000,
            "candidates": CANDIDATES,
            "rounds": ROUNDS,
        }
    ),
    # no text is read or written: labels and attributes are all there is
    Method.ATTRIBUTES: Parts.model_validate(
        _INVISIBLEINK
        | {"support": Support.TOP_K, "accounting": Accounting.MARGINALS, "clip": 1.0, "batch_size": 1, "top_k": 1000}
    ),
    # one record per batch and a clip too large to act: each text is written from a single private record
    Method.NON_PRIVATE: Parts.model_validate(
        _INVISIBLEINK
        | {
            "clusters": Clusters.PUBLIC_CENTRES,
            "support": Support.TOP_K,
            "accounting": Accounting.INFINITE,
            "clip": 100.0,
            "batch_size": 1,
            "top_k": 1000,
        }
    ),
}


# What there is to choose where records only vote.
_PARTS_OF_VOTES = ("top_k", "candidates", "rounds")
# How some methods count their cost, which no other may.
_ONLY_FOR: Mapping[Accounting, Method] = {
    Accounting.PUBLIC: Method.PUBLIC,
    Accounting.VOTES: Method.PRIVATE_EVOLUTION,
    Accounting.MARGINALS: Method.ATTRIBUTES,
    Accounting.INFINITE: Method.NON_PRIVATE,
}


# Where the secret draw of batches lowers the cost: what a text costs a unit is bounded before the run (guarantee 13).
_EX_ANTE = (Accounting.WORST_CASE, Accounting.INDIVIDUAL)


class SynthesisFields(TypedDict, total=False):
    """What `SynthesisConfig` takes: its own fields, with strings where the values of an enumeration have names.

    Type checkers read it, so that a misspelt field is an error without pydantic's plugin; a test compares the two.
    """

    method: (
        Method
        | Literal[
            "amin2024",
            "clustered-mean",
            "clustered-median",
            "invisibleink",
            "public",
            "plainchant",
            "private-evolution",
            "attributes",
            "non-private",
        ]
    )
    epsilon: float
    delta: float
    texts: int
    max_tokens: int
    candidates: int | None
    rounds: int | None
    private_texts: int | None
    vote_share: float | Literal["auto"]
    word_share: float | Literal["auto"]
    vote_spread: int | Literal["auto"]
    vote_labels: int | Literal["auto"]
    choice: Literal["highest", "matching"]
    quotas: Literal["auto", "votes", "balanced"] | Mapping[str, int]
    expand: int
    expected_units: int | None
    sample_rate: float | Literal["auto"]
    text_column: str
    label_column: str | None
    unit_column: str | None
    labels: Sequence[str]
    columns: Schema | Mapping[str, Any]
    table_share: float | None
    encoding: str
    separator: str
    allow_malformed: bool
    model: str
    candidate_model: str | None
    candidate_endpoint: str | None
    candidate_form: PromptForm | Literal["examples", "chat"] | None
    embedder: str
    public_corpus: str | None
    public_text_column: str
    clusters: Clusters | Literal["public-centres", "none"] | None
    centres: int | str
    kept: int | Literal["auto"]
    min_cell: int | None
    rebalance_share: float
    aggregate: Aggregate | Literal["mean", "median"] | None
    support: Support | Literal["full", "top_k", "top_k_plus"] | None
    top_k: int | None
    clipping: Clipping | Literal["logits", "difference", "increase"] | None
    accounting: (
        Accounting | Literal["worst-case", "individual", "ex-post", "public", "infinite", "votes", "marginals"] | None
    )
    clip: float | Literal["auto"] | None
    guidance: float | None
    sparse_threshold: float | None
    sparse_noise: float
    private_tokens: int | None
    temperature: float
    batch_size: int | Literal["auto"] | None
    deals: bool | None
    expected_range: float
    records_per_context: int
    released_examples: int | None
    min_tokens: int
    max_record_tokens: int
    record_part: Literal["head", "window"]
    numerical_slack: float
    name: str | None
    holder: str | None
    license: str | None
    language: str | None
    prompt: PromptConfig | Mapping[str, Any]


class SynthesisConfig(_Frozen):
    """Settings of one run. They are public: nothing here may be taken from the private data (guarantee 1).

    >>> config = SynthesisConfig(labels=("bug", "billing"), label_column="label")
    >>> config.method.value, config.epsilon, config.parts.guidance
    ('plainchant', 8.0, 2.0)
    """

    method: Method = Method.PLAINCHANT
    """Preset that supplies every part left unset."""
    epsilon: float = 8.0
    """ε of the guarantee. With accounting = ex-post, only the share for the noisy counts is fixed before the run."""
    delta: float = 1e-6
    """δ of the guarantee; choose it well below 1 / (number of units)."""
    texts: int = Field(100, ge=1)
    """Number of synthetic texts to generate."""
    max_tokens: int = Field(64, ge=1)
    """Maximum tokens per text."""
    candidates: int | None = Field(None, ge=1, le=64)
    """Texts written per released text, in all rounds together. The private records vote, with noise, for the texts to \
release. 1: no vote."""
    rounds: int | None = Field(None, ge=1, le=8)
    """Number of votes. After each vote but the last, the public model writes further texts after the winning ones."""
    private_texts: int | None = Field(None, ge=0)
    """Number of texts that private records contribute to. Unset: all without several votes; with them half, or fewer \
where half would need batches of more than 40 records. 0, also where these would not pay for a text of each label: \
records only vote, with the whole budget, as with private-evolution."""
    vote_share: Annotated[float, Field(gt=0, lt=1)] | Literal["auto"] = "auto"
    """Share of the budget for all votes together, split evenly. auto: as much as the votes of expected_units need to \
tell candidates apart, 5 % to half of the budget; private-evolution spends all of it on votes."""
    word_share: Annotated[float, Field(ge=0, lt=1)] | Literal["auto"] = "auto"
    """Share of the budget for one noisy count of the records' words per label; candidates are then written with these \
words in mind. Needs votes and a local model for candidates. auto: a tenth, at most ρ = 0.02, with plainchant and \
private-evolution; none where expected_units are too few for it. 0: off."""
    vote_spread: Annotated[int, Field(ge=1)] | Literal["auto"] = "auto"
    """Number of nearest texts that a record's vote is spread over; auto: the weaker the votes, the more texts."""
    vote_labels: Annotated[int, Field(ge=1)] | Literal["auto"] = "auto"
    """Number of labels (its own and the nearest) whose texts a record may vote for; auto: the stronger, the more."""
    choice: Literal["highest", "matching"] = "highest"
    """How texts are chosen: by the highest noisy votes, or so that together they match where the votes lie."""
    quotas: Literal["auto", "votes", "balanced"] | dict[str, Annotated[int, Field(ge=0)]] = "auto"
    """Texts per label: in proportion to votes, balanced, or a table of labels and numbers; auto: balanced where there \
are fewer than 20 texts per label. With columns beside the text, auto and votes keep the proportions of the table."""
    expand: int = Field(0, ge=0)
    """Extra texts to release, written by the public model from the other texts; they cost nothing and are marked."""
    expected_units: int | None = Field(None, ge=1)
    """Approximate number of units in the data, if that may be public; the plan uses it to choose the batch size."""
    sample_rate: Annotated[float, Field(gt=0, le=1)] | Literal["auto"] = "auto"
    """Rate of one secret sample of the units, drawn first; all else is never looked at, and what is costs less. auto: \
a sample of about 100,000 units where expected_units is 200,000 or more and there are texts, else 1."""

    text_column: str = "text"
    """Text column of the private table."""
    label_column: str | None = None
    """Label column of the private table; needs labels."""
    unit_column: str | None = None
    """Column whose equal values mark the records of one unit (a patient, a customer). Unset: each record is a unit."""
    labels: tuple[str, ...] = ()
    """The labels, a public list, or one string with commas. Records with any other label are ignored."""
    columns: Schema = Schema()
    """Columns beside the text (attributes), and templates of a text that stands in several columns."""
    table_share: float | None = Field(None, gt=0, lt=1)
    """Share of the budget for the attributes. Unset: a tenth; with method = attributes all of it."""
    encoding: str = "auto"
    """Character encoding of a private table that is a text file; auto: by its byte order mark, otherwise UTF-8."""
    separator: str = "auto"
    """Field separator of a CSV table: one character, or comma, semicolon, tab, bar; auto: by its header."""
    allow_malformed: bool = False
    """Read a private table even if most of its rows are malformed, empty or without a named label."""

    model: str = "gemma-3-270m"
    """Causal language model: a path or name that transformers loads, or gemma-3-270m from the demo extra."""
    candidate_model: str | None = None
    """Model that writes candidates and further texts from released ones: another local model or, with \
candidate_endpoint, the name of a model there. Unset: model."""
    candidate_endpoint: str | None = None
    """Address of an OpenAI-compatible server that has candidate_model, such as http://localhost:8000/v1 (extra api); \
its key: PLAINCHANT_API_KEY. With private-evolution no local language model is loaded then."""
    candidate_form: PromptForm | None = None
    """Form of the prompt for candidate_model: examples for base models, chat for instruction-tuned ones. Unset: \
prompt.form."""
    embedder: str = "all-MiniLM-L6-v2"
    """Sentence embedder: a path or name that sentence-transformers loads, or all-MiniLM-L6-v2 from the demo extra."""
    public_corpus: str | None = None
    """File of public texts whose cluster centres the data is grouped around. Unset: texts sampled from the model."""
    public_text_column: str = "text"
    """Text column of the public corpus."""

    clusters: Clusters | None = None
    """How records are grouped into batches: around public cluster centres, or not at all."""
    centres: int | str = AUTO
    """Maximum number of public centres (at most one per four texts of the corpus), or a file of saved ones \
(centres.npz); auto: by expected_units, labels and batch size; with deals, cells then hold about 32 batches."""
    kept: int | Literal["auto"] = "auto"
    """Maximum number of cells to keep; auto: every cell of at least min_cell."""
    min_cell: int | None = Field(None, ge=1)
    """Smallest noisy count of a cell that is kept. Unset: a batch (with deals, eight) + 2σ of the noise."""
    rebalance_share: float = Field(0.05, gt=0, lt=1)
    """Share of the budget for the noisy cell counts."""

    aggregate: Aggregate | None = None
    """How the predictions of a batch are combined."""
    support: Support | None = None
    """Which tokens may be sampled: all of them, or those that the public model ranks highest."""
    top_k: int | None = Field(None, ge=1)
    """Number of tokens in the top_k and top_k_plus supports."""
    clipping: Clipping | None = None
    """What is clipped: the logits, their difference to the public logits, or only increases over the public logits."""
    accounting: Accounting | None = None
    """How the privacy cost is counted: worst-case and individual fix the guarantee before the run; ex-post measures \
it afterwards. public, infinite, votes and marginals belong to the methods public, non-private, \
private-evolution and attributes."""
    clip: float | Literal["auto"] | None = None
    """Clip norm in nats; auto: as large as the budget for the requested texts allows (not for clipped logits)."""
    guidance: float | None = Field(None, gt=0, allow_inf_nan=False)
    """How strongly the private mean moves the public prediction (differences and increases only). 1 samples from the \
mean itself; more goes further."""
    sparse_threshold: float | None = Field(None, ge=0, le=2)
    """Where the batch's prediction is closer to the public one than this (L1 distance, with noise), the public model \
writes the token at no cost (sparse vector technique; worst-case means only). 0: off."""
    sparse_noise: float = Field(0.2, gt=0, allow_inf_nan=False)
    """Scale of the noise in the comparison with sparse_threshold."""
    private_tokens: int | None = Field(None, ge=1)
    """Number of tokens at the start of a text that private records influence and pay for; the public model writes the \
rest freely. With sparse_threshold they may be anywhere in the text. Unset: all; with sparse_threshold half."""
    temperature: float = Field(1.0, gt=0, allow_inf_nan=False)
    """Sampling temperature."""
    batch_size: int | Literal["auto"] | None = None
    """Average number of contexts (records, unless records_per_context is set) per batch; auto: the smallest that \
can pay for the requested texts."""
    deals: bool | None = None
    """Draw the batches afresh, in secret, for every text that a batch writes; each text then costs less, the more \
batches a cell has (worst-case and individual accounting only)."""
    expected_range: float = Field(EXPECTED_RANGE, gt=0, allow_inf_nan=False)
    """Expected influence of one record on the model's logits, root mean square in nats. Used to plan how many texts \
an individual budget covers; it cannot change the guarantee."""
    records_per_context: int = Field(1, ge=1, le=64)
    """Units shown together in one context (means only). Texts get closer to the data. At any number above one, \
every cost counts four times."""
    released_examples: int | None = Field(None, ge=0, le=16)
    """Number of a cell's released texts shown in its prompts; free, since they are released anyway."""
    min_tokens: int = Field(4, ge=0)
    """Minimum tokens per text."""
    max_record_tokens: int = Field(192, ge=1)
    """Maximum tokens read of each record; the rest is cut off."""
    record_part: Literal["head", "window"] = "head"
    """What is shown of a record that is longer than max_record_tokens: its head; or a window that begins with a \
sentence, drawn in secret each time that its group is. The vote sees the head."""
    numerical_slack: float = Field(1e-3, ge=0, allow_inf_nan=False)
    """Allowed numerical error of a prediction, in nats; its cost is included, and a model with more is refused."""

    name: str | None = Field(None, min_length=1, max_length=200)
    """Name of the data set on card, report and statement."""
    holder: str | None = Field(None, min_length=1, max_length=200)
    """Person or organisation that holds the private table and makes the release, for report and statement."""
    license: str | None = Field(None, pattern=r"^[A-Za-z0-9][A-Za-z0-9.+-]{0,63}$")
    """Licence of the release on its card, by its name on the Hub, such as cc-by-4.0. The model's own terms may apply \
too."""
    language: str | None = Field(None, pattern=r"^[A-Za-z]{2,3}(-[A-Za-z0-9]+)*(, ?[A-Za-z]{2,3}(-[A-Za-z0-9]+)*)*$")
    """Language of the texts on the card: one code or several with commas between them, such as en or en,de."""
    prompt: PromptConfig = PromptConfig()
    """Templates and public examples."""

    def __init__(self, /, **values: Unpack[SynthesisFields]) -> None:
        """Raises ConfigError for a field that is unknown or out of bounds, PrivacyError where no guarantee exists."""
        try:
            super().__init__(**dict[str, Any](values))
        except ValidationError as error:
            raise translated(error, type(self)) from None

    @field_validator("labels", mode="before")
    @classmethod
    def _split_labels(cls, labels: Any) -> Any:
        """Labels in one string with commas between them, as on the command line."""
        return split_labels(labels) if isinstance(labels, str) else labels

    @model_validator(mode="after")
    def _check(self) -> Self:
        self._check_numbers()
        self._check_data()
        self._check_prompt()
        self._check_parts()
        self._check_rounding()
        self._check_votes()
        self._check_columns()
        self._check_candidate_model()
        return self

    def _check_numbers(self) -> None:
        check_epsilon(self.epsilon)
        check_delta(self.delta)
        for name in ("centres", "kept", "batch_size"):
            value = getattr(self, name)
            if isinstance(value, int) and not 1 <= value <= LARGEST:
                raise ConfigError(f"{name} = {value}: must be at least 1 and at most {LARGEST:,}")
        if isinstance(self.clip, float) and not 1e-6 <= self.clip <= 1e6:
            raise ConfigError(f"clip = {self.clip}: must be from 1e-6 to 1e6 nats, or auto")
        if self.min_tokens >= self.max_tokens:
            raise ConfigError(f"min_tokens = {self.min_tokens}: must be below max_tokens = {self.max_tokens}")

    def _check_data(self) -> None:
        _check_labels(self.labels)
        check_encoding(self.encoding)
        if self.separator != "auto" and separator_of(self.separator) is None:
            raise ConfigError(f"separator = {self.separator!r}: give one character, comma, semicolon, tab, bar or auto")
        if self.label_column and not self.labels:
            raise ConfigError(
                "labels: not given, but label_column is. The label set is public by definition, so it cannot be read "
                "from the private data: name it, for example --labels World,Sports, or --labels-file FILE"
            )
        if self.labels and not self.label_column and self.reads_records:
            raise ConfigError("label_column: not given, but labels are; name the column that holds them")

    def _check_prompt(self) -> None:
        for example in self.prompt.examples:
            if example.label is not None and example.label not in self.labels:
                raise ConfigError(f"prompt.examples: label {example.label!r} is not in labels = {list(self.labels)}")
            for name, value in example.attributes.items():
                self._check_shown(name, value)
        for label, words in self.prompt.descriptions.items():
            if label not in self.labels:
                raise ConfigError(f"prompt.descriptions: {label!r} is not in labels = {list(self.labels)}")
            if not words.strip() or "{" in words:
                raise ConfigError(f"prompt.descriptions.{label} = {words!r}: must not be blank or have a {{")
        for name in ("example", "chat"):
            template = getattr(self.prompt, name)
            if template is not None and template.count("{text}") != 1:
                raise ConfigError(f"prompt.{name}: must contain {{text}} exactly once")

    def _check_shown(self, name: str, value: Any) -> None:
        """Refuses an attribute of an example that a prompt would show as unknown."""
        kind = self.columns.attributes.get(name)
        if kind is None:
            named = list(self.columns.attributes)
            raise ConfigError(f"prompt.examples: attribute {name!r} is not in columns.attributes = {named}")
        if kind.reader()(value) in (None, kind.size - 1):
            raise ConfigError(f"prompt.examples: {name} = {value!r} is not {kind.purpose} of the schema; {kind.form}")

    def _check_votes(self) -> None:
        parts = self.parts
        for name, is_set in (("candidates", self.votes), ("expand", bool(self.expand))):
            if is_set and not self.has_text:
                raise ConfigError(
                    f"{name} = {getattr(self, name)}: --method {self.method.value} writes no texts; leave it out"
                )
        if self.expand and not self.reads_records:
            raise ConfigError(f"expand = {self.expand}: --method public writes all its texts freely; raise texts")
        shares = self.least_vote_share + self.rebalance_share + self.share_of_words
        if self.votes and self.written and shares >= 1:
            raise PrivacyError(
                f"vote_share = {self.vote_share}, rebalance_share = {self.rebalance_share}, word_share = "
                f"{self.word_share}: leave nothing for tokens"
            )
        if self.votes and not self.reads_records:
            raise ConfigError(f"candidates = {self.candidates}: --method public reads no records that could vote")
        if self.method is Method.PRIVATE_EVOLUTION:
            self._check_private_evolution()
        if self.private_texts is not None and not self.votes:
            raise ConfigError(
                f"private_texts = {self.private_texts}: without votes every text is written from records; set texts"
            )
        if self.private_texts == 0 and not self.only_votes:
            raise ConfigError(
                "private_texts = 0: records that only vote have --method private-evolution, or plainchant"
            )
        if self.private_texts is not None and self.private_texts > parts.candidates * self.texts:
            raise ConfigError(
                f"private_texts = {self.private_texts}: more than candidates x texts = {parts.candidates * self.texts}"
            )
        self._check_quotas()
        self._check_words()

    def _check_words(self) -> None:
        if self.word_share in ("auto", 0):
            return
        if not self.votes:
            raise ConfigError(
                f"word_share = {self.word_share}: words are for the candidates of a vote; give candidates of 2 or more"
            )
        if self.candidate_endpoint is not None:
            raise ConfigError(
                f"word_share = {self.word_share}: an endpoint's model cannot be moved towards words; set it to 0, or "
                "use a local candidate_model"
            )

    def _check_columns(self) -> None:
        attributes = self.columns.attributes
        self._check_names()
        for name, values in self.columns.of_label.items():
            if differing := set(values).symmetric_difference(self.labels):
                raise ConfigError(
                    f"columns.of_label.{name}: has a value for each of labels = {list(self.labels)}; "
                    f"{min(differing)!r} has none or is no label"
                )
        if not self.has_text and not attributes:
            raise ConfigError("columns.attributes: none are named, and --method attributes writes nothing else")
        if not attributes:
            if self.table_share is not None:
                raise ConfigError(f"table_share = {self.table_share}: no attributes are named that would cost it")
            return
        if self.table_share is not None and not self.has_text:
            raise ConfigError(
                f"table_share = {self.table_share}: --method attributes spends the whole budget on them; leave it out"
            )
        if self.method in (Method.PUBLIC, Method.NON_PRIVATE):
            raise ConfigError(f"columns.attributes: --method {self.method.value} has none; use another method")
        self._check_rows()
        if self.columns.found and self.parts.accounting is Accounting.EX_POST:
            raise PrivacyError(
                f"columns.attributes.{self.columns.found[0]}: values are found in the data at a part of δ, which no "
                "ex-post figure includes; name the values, or use another method"
            )
        shares = self.attribute_share + self.share_of_words
        shares += (self.rebalance_share + self.least_vote_share * self.votes) * (self.written > 0)
        if self.has_text and shares >= 1:
            raise PrivacyError(f"table_share = {self.attribute_share}: leaves nothing for the texts; lower it")

    def _check_names(self) -> None:
        """Each column of a release has a name of its own."""
        text = self.text_column if self.has_text and not self.columns.text_fields else None
        taken = {self.label_column, self.unit_column, text, *RESERVED_COLUMNS}
        for part in ("attributes", "of_label"):
            if others := taken.intersection(getattr(self.columns, part)):
                raise ConfigError(
                    f"columns.{part}.{min(map(str, others))}: is the text, the label, the unit or a name that the "
                    f"release needs for another column ({', '.join(RESERVED_COLUMNS)}); leave it out, or rename the "
                    "column"
                )
        if both := self.columns.of_label.keys() & self.columns.attributes.keys():
            raise ConfigError(f"columns.of_label.{min(both)}: is an attribute too; name it once")

    def _check_rows(self) -> None:
        """A vote chooses a text for each row, so it chooses neither labels nor how many texts a label gets."""
        if self.vote_labels not in ("auto", 1):
            raise ConfigError(f"vote_labels = {self.vote_labels}: with attributes a text keeps the label of its row")
        if self.choice != "highest":
            raise ConfigError(f"choice = {self.choice}: with attributes each row gets the text with the most votes")

    def _check_private_evolution(self) -> None:
        if not self.votes:
            raise ConfigError(
                f"candidates = {self.parts.candidates}: private-evolution lives by its votes; give 2 or more"
            )
        if self.private_texts is not None:
            raise ConfigError(f"private_texts = {self.private_texts}: private-evolution writes none from records")
        if self.parts.clusters is not Clusters.NONE:
            raise ConfigError(f"clusters = {self.parts.clusters}: private-evolution has no batches to cluster")

    def _check_quotas(self) -> None:
        if isinstance(self.quotas, dict):
            if unknown := sorted(set(self.quotas) - set(self.labels)):
                raise ConfigError(f"quotas: {unknown[0]!r} is not in labels = {list(self.labels)}")
            if sum(self.quotas.values()) != self.released:
                raise ConfigError(
                    f"quotas: add up to {sum(self.quotas.values())}, but {self.released} texts are to be released; "
                    "set texts to their sum"
                )
        # rows alone are drawn as many as are asked for
        if self.quotas != "auto" and not self.votes and self.has_text:
            raise ConfigError(f"quotas = {self.quotas!r}: texts are chosen by votes; give candidates of 2 or more")

    def _check_candidate_model(self) -> None:
        if self.candidate_endpoint is not None:
            check_address(self.candidate_endpoint)
        if self.candidate_model is None:
            for name in ("candidate_endpoint", "candidate_form"):
                if getattr(self, name) is not None:
                    raise ConfigError(f"candidate_model: not given, but {name} is; name the model that it is for")
        elif not self.further:
            remedy = "set candidates to 2 or more, or expand" if self.has_text else "leave it out"
            raise ConfigError(
                f"candidate_model = {self.candidate_model!r}: writes candidates and further texts, and there are none; "
                + remedy
            )

    def _check_rounding(self) -> None:
        """Half of the numerical slack covers the rounding of sampling weights, which counts τ times in logits."""
        needed = self.temperature * ROUNDING_RANGE
        promised = self.parts.accounting not in _ONLY_FOR
        if promised and self.numerical_slack < needed:
            raise ConfigError(
                f"temperature = {self.temperature:g}: the rounding of sampling weights needs numerical_slack = "
                f"{needed:.3g} or more, and it is {self.numerical_slack:g}; raise it, which costs a little, or lower "
                f"temperature to {self.numerical_slack / ROUNDING_RANGE:.3g}"
            )

    def _check_parts(self) -> None:
        parts = self.parts
        if parts.aggregate is Aggregate.MEDIAN and parts.accounting is Accounting.WORST_CASE:
            raise PrivacyError(
                "accounting = worst-case: the median's worst case is the whole clip range at every token, so no useful "
                "guarantee can be derived in advance; set accounting = ex-post, or aggregate = mean"
            )
        if parts.aggregate is Aggregate.MEDIAN and parts.accounting is Accounting.INDIVIDUAL:
            raise PrivacyError(
                "accounting = individual: who moves a median depends on the others; set aggregate = mean, or "
                "accounting = ex-post"
            )
        own = Method.PRIVATE_EVOLUTION if self.only_votes else self.method
        for accounting, method in _ONLY_FOR.items():
            if (parts.accounting is accounting) != (own is method):
                raise PrivacyError(f"accounting = {parts.accounting}: belongs to --method {method.value} alone")
        if self.sample_rate not in ("auto", 1) and not self.samples:
            raise PrivacyError(
                f"sample_rate = {self.sample_rate}: a secret sample lowers costs that are known before the run; "
                f"accounting = {parts.accounting} has none. Set sample_rate = 1, or another method"
            )
        if parts.deals and parts.accounting not in _EX_ANTE:
            raise PrivacyError(
                "deals = true: the secret draw of batches lowers costs that are known before the run; accounting = "
                f"{parts.accounting} has none. Set accounting = individual or worst-case, or deals = false"
            )
        if parts.aggregate is Aggregate.MEDIAN and self.records_per_context > 1:
            raise PrivacyError(
                f"records_per_context = {self.records_per_context}: the median's box covers a context that comes or "
                "goes, not one that changes; set aggregate = mean, or records_per_context = 1"
            )
        if parts.sparse_threshold and parts.accounting is not Accounting.WORST_CASE:
            raise ConfigError(
                f"sparse_threshold = {parts.sparse_threshold}: belongs to accounting = worst-case; elsewhere a token "
                "that the public model predicts costs next to nothing anyway"
            )
        if self.private_tokens is not None and self.private_tokens > self.max_tokens:
            raise ConfigError(f"private_tokens = {self.private_tokens}: is more than max_tokens = {self.max_tokens}")
        self._check_clip()

    def _check_clip(self) -> None:
        parts = self.parts
        if parts.sparse_threshold and parts.clip == "auto":
            raise ConfigError("clip = auto: cannot be derived with sparse_threshold; give a number of nats")
        worst_case = parts.accounting is Accounting.WORST_CASE and parts.clipping is not Clipping.LOGITS
        if parts.clip == "auto" and not worst_case:
            raise ConfigError(
                "clip = auto: is derived from the budget for worst-case means of differences or increases; give a "
                "number in nats"
            )

    @property
    def reads_records(self) -> bool:
        """Whether any private record is read."""
        return self.parts.accounting is not Accounting.PUBLIC

    @property
    def samples(self) -> bool:
        """Whether a secret sample of the units may come first: where records are read at a cost known in advance."""
        return self.parts.accounting not in (Accounting.PUBLIC, Accounting.INFINITE, Accounting.EX_POST)

    @property
    def released_names(self) -> dict[str, str]:
        """The names that text and label have in a release: the user's, unless another column needs them."""
        names = {"text": "text" if self.columns.text is not None else self.text_column}
        if self.label_column is not None:
            names["label"] = self.label_column
        taken = {*self.columns.attributes, *self.columns.of_label, *RESERVED_COLUMNS}
        return {own: own if name in taken else name for own, name in names.items()}

    @property
    def has_text(self) -> bool:
        """Whether texts are read and written; else labels and attributes are all there is."""
        return self.parts.accounting is not Accounting.MARGINALS

    @property
    def attribute_share(self) -> float:
        """Share of the budget for the attributes; 0 where there are none."""
        if not self.columns.attributes:
            return 0.0
        if not self.has_text:
            return 1.0
        return TABLE_SHARE if self.table_share is None else self.table_share

    @property
    def votes(self) -> bool:
        """Whether the records vote on which texts are released."""
        return self.parts.candidates > 1

    @property
    def least_vote_share(self) -> float:
        """The share of the budget that the votes of a method with batches have at least."""
        return LEAST_FOR_VOTES if self.vote_share == "auto" else self.vote_share

    @property
    def share_of_words(self) -> float:
        """The largest share of the budget that a noisy count of words may take; 0 where none are counted."""
        if self.word_share != "auto":
            return self.word_share
        own = self.method in (Method.PLAINCHANT, Method.PRIVATE_EVOLUTION)
        return WORD_SHARE if own and self.votes and self.candidate_endpoint is None else 0.0

    @property
    def written(self) -> int:
        """Number of texts that records contribute to; for the public method, the number that it writes instead."""
        if self.parts.accounting in (Accounting.VOTES, Accounting.MARGINALS):
            return 0
        if self.private_texts is not None:
            return self.private_texts
        return -(-self.texts // 2) if self.votes and self.parts.rounds > 1 else self.texts

    @property
    def clustered(self) -> bool:
        """Whether records are grouped around public centres, to write together."""
        return self.parts.clusters is Clusters.PUBLIC_CENTRES and self.reads_records and self.written > 0

    @property
    def head(self) -> int:
        """Number of tokens at the start of a text that records may contribute to and pay for.

        With a sparse vector they may be anywhere in the text, so it is the whole.
        """
        return self.max_tokens if self.parts.sparse_threshold > 0 else self.private_tokens or self.max_tokens

    @property
    def released(self) -> int:
        """Number of texts to release."""
        return self.texts + self.expand

    @property
    def further(self) -> int:
        """Number of texts that the public model writes, kept or not."""
        return (self.parts.candidates * self.texts - self.written + self.expand) * self.has_text

    @property
    def needs_model(self) -> bool:
        """Whether the local language model `model` writes anything."""
        return self.has_text and (self.written > 0 or self.candidate_model is None)

    @property
    def form_of_candidates(self) -> PromptForm:
        """The form of the prompts that candidates and further texts are written from."""
        return self.candidate_form or self.prompt.form

    @property
    def only_votes(self) -> bool:
        """Whether records only vote, as they do with private-evolution."""
        return self.method is Method.PRIVATE_EVOLUTION or (self.method is Method.PLAINCHANT and self.private_texts == 0)

    @property
    def sends_released(self) -> bool:
        """Whether the endpoint is shown what follows from the records: released texts or rows, or which texts won."""
        follows = self.written > 0 or self.parts.rounds > 1 or bool(self.columns.attributes)
        return self.candidate_endpoint is not None and follows

    def with_private_texts(self, number: int) -> "SynthesisConfig":
        """The same configuration with so many texts from records."""
        copied = self.model_copy(update={"private_texts": number})
        copied.__dict__.pop("parts", None)  # a copy has what was cached, and the parts depend on the number
        return copied

    @functools.cached_property
    def parts(self) -> Parts:
        """The preset's parts, replaced by those that this configuration sets."""
        preset = PRESETS[Method.PRIVATE_EVOLUTION if self.only_votes else self.method]
        # what was set for writing counts for nothing where the default goes over to votes
        names = _PARTS_OF_VOTES if preset is not PRESETS[self.method] else Parts.model_fields
        own = {name: getattr(self, name) for name in names if getattr(self, name) is not None}
        if own.get("accounting", preset.accounting) not in _EX_ANTE:
            own.setdefault("deals", False)
        return preset.model_copy(update=own)

    @property
    def centres_file(self) -> str | None:
        """The file of saved centres; None where they are computed."""
        return self.centres if isinstance(self.centres, str) and self.centres != AUTO else None

    @property
    def token_request(self) -> TokenRequest:
        """What the mechanism of the tokens follows from."""
        parts = self.parts
        return TokenRequest(
            accounting=parts.accounting,
            aggregate=parts.aggregate,
            support=parts.support,
            k=parts.top_k,
            clipping=parts.clipping,
            clip=parts.clip,
            guidance=parts.guidance,
            temperature=self.temperature,
            slack=self.numerical_slack,
            records_per_context=self.records_per_context,
            batch_size=parts.batch_size,
            sparse_threshold=parts.sparse_threshold,
            sparse_noise=self.sparse_noise,
            private_tokens=self.private_tokens or math.ceil(self.max_tokens / 2),
            expected_range=self.expected_range,
            texts=self.written,
            max_tokens=self.head,
            units=self.expected_units,
            labels=len(self.label_set),
            centres=self._most_centres,
            first=BOOTSTRAP * parts.released_examples,
        )

    @property
    def _most_centres(self) -> int | None:
        """The most cells of a label; None where the plan chooses."""
        if self.parts.clusters is Clusters.NONE:
            return 1
        if self.centres_file is not None:
            # how many centres a file holds is seen when it is read
            return LARGEST
        return self.centres if isinstance(self.centres, int) else None

    @property
    def stop(self) -> str | None:
        """What ends a text, besides an end-of-text token and the maximum length (see `PromptConfig.stop`)."""
        return self.stop_in(self.prompt.form)

    def stop_in(self, form: PromptForm) -> str | None:
        """The same for prompts of another form."""
        prompt = self.prompt.model_copy(update={"form": form})
        return prompt.stop(labelled=bool(self.labels), attribute=self.columns.begins)

    @property
    def label_set(self) -> tuple[str | None, ...]:
        """The labels, or one None where there are none."""
        return self.labels or (None,)


class PerformanceOptions(_Frozen):
    """Settings that change speed only: nothing here can change the guarantee.

    >>> PerformanceOptions(rows=32).width
    32
    """

    device: str = "cpu"
    """Device for torch, such as cpu or cuda."""
    dtype: Literal["float32", "bfloat16", "float16"] = "float32"
    """Floating-point type of the model; the numerical error of each is measured at load."""
    rows: Annotated[int, Field(ge=1)] | Literal["auto"] = "auto"
    """Approximate number of private rows per forward pass; auto: the fastest here, measured at the start of a run (64 \
with a seed)."""
    passes: int = Field(default=4, ge=1, le=64)
    """Number of forward passes of private rows for each one of public rows; more are faster and need more memory."""
    memory: float | None = Field(default=None, gt=0, allow_inf_nan=False)
    """Approximate upper limit for key-value caches, in GiB; fewer rows then share a forward pass."""
    threads: int | None = Field(default=None, ge=1)
    """Number of threads for torch. Unset: torch decides."""
    executor: Literal["local", "ray"] = "local"
    """Where the work runs: in this process, or in workers on a Ray cluster (extra ray)."""
    workers: int = Field(default=2, ge=1)
    """Number of Ray workers; each loads the model."""
    ray_address: str | None = None
    """Address of the Ray cluster; auto: the one on this machine. Unset: start one here."""
    requests: int = Field(default=8, ge=1, le=256)
    """Maximum number of requests to candidate_endpoint at the same time."""
    request_timeout: float = Field(default=120.0, gt=0, le=3600)
    """Seconds that an answer of candidate_endpoint may take before the request is sent again."""

    if not TYPE_CHECKING:  # type checkers know the fields

        def __init__(self, /, **values):
            """Raises ConfigError for a field that is unknown or out of bounds."""
            try:
                super().__init__(**values)
            except ValidationError as error:
                raise translated(error, type(self)) from None

    @property
    def width(self) -> int:
        """Private rows per forward pass where nothing is measured."""
        return USUAL_ROWS if self.rows == "auto" else self.rows


# Sections of the help pages, of the reference and of `plainchant init`: every field once, in the order shown.
FIELD_GROUPS: Mapping[str, tuple[str, ...]] = {
    "Guarantee": ("epsilon", "delta", "expected_units", "sample_rate"),
    "Data": (
        "text_column", "label_column", "labels", "unit_column", "encoding", "separator", "allow_malformed",
    ),
    "Columns": ("columns", "table_share"),
    "Texts": ("texts", "max_tokens", "min_tokens", "temperature", "expand"),
    "Model": ("model", "embedder", "candidate_model", "candidate_endpoint", "candidate_form"),
    "Public corpus": ("public_corpus", "public_text_column", "centres"),
    "Method": ("method", "candidates", "rounds", "private_texts"),
    "Method (votes)": ("vote_share", "word_share", "vote_spread", "vote_labels", "choice", "quotas"),
    "Method (batches)": (
        "clusters", "batch_size", "deals", "records_per_context", "kept", "min_cell", "rebalance_share",
    ),
    "Method (aggregate)": ("aggregate", "support", "top_k", "clipping", "clip", "guidance"),
    "Method (accounting)": (
        "accounting", "expected_range", "numerical_slack", "sparse_threshold", "sparse_noise", "private_tokens",
    ),
    "Prompt": ("prompt", "released_examples", "max_record_tokens", "record_part"),
    "Release": ("name", "holder", "license", "language"),
    "Performance": tuple(PerformanceOptions.model_fields),
}  # fmt: skip


def group_of(name: str) -> str:
    """The section of a field; a field that no section names belongs to "Other"."""
    return next((group for group, names in FIELD_GROUPS.items() if name in names), "Other")


def check_address(address: str) -> None:
    """Checks that an endpoint's address is one, and holds nothing that has to stay secret; no error quotes it.

    Raises:
        ConfigError: it is not, or it does.

    >>> check_address("http://localhost:8000/v1")
    """
    try:
        parts = urllib.parse.urlsplit(address)
        sound = parts.scheme in ("http", "https") and bool(parts.hostname) and (parts.port is None or parts.port > 0)
    except ValueError:
        sound = False
    if not sound or not address.isascii() or not address.isprintable() or " " in address or "\\" in address:
        raise ConfigError("candidate_endpoint: is not an address; give one like http://localhost:8000/v1")
    if "@" in parts.netloc or parts.query or parts.fragment:
        raise ConfigError(
            "candidate_endpoint: holds a user name, a password, a query or a fragment; give the bare address, and the "
            "key in the environment variable PLAINCHANT_API_KEY"
        )


def is_loopback(address: str) -> bool:
    """Whether an address is on this machine.

    >>> is_loopback("http://127.0.0.1:8000/v1"), is_loopback("https://example.org/v1")
    (True, False)
    """
    host = urllib.parse.urlsplit(address).hostname or ""
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def split_labels(labels: str) -> tuple[str, ...]:
    """Labels in one string with commas between them."""
    return tuple(label.strip() for label in labels.split(",") if label.strip())


def _check_labels(labels: tuple[str, ...]) -> None:
    """Labels are told apart as records are matched with them: composed, without white space around them."""
    forms = [normal_form(label) for label in labels]
    if not all(forms):
        raise ConfigError(f"labels = {list(labels)}: an empty label; give each at least one character")
    if len(set(forms)) != len(forms):
        raise ConfigError(
            f"labels = {list(labels)}: every label once; two that differ only in spaces around them or in how Unicode "
            "composes their letters are one"
        )


def _meant(name: str, known: Iterable[str]) -> str:
    near = difflib.get_close_matches(name, known, 1)
    return f"; did you mean {near[0]}?" if near else ""


_NESTED: Mapping[str, type[BaseModel]] = {"prompt": PromptConfig, "columns": Schema}


def translated(error: ValidationError, model: type[BaseModel]) -> ConfigError | PrivacyError:
    """What pydantic found wrong with the fields of a model, as one error for people."""
    problems: dict[str, list[str]] = {}
    for item in error.errors():
        own = item.get("ctx", {}).get("error")
        if isinstance(own, ConfigError | PrivacyError):
            # of an attribute its name, which its own checks do not know
            named = ".".join(map(str, item["loc"][:3])) + "." if item["loc"][:2] == ("columns", "attributes") else ""
            return type(own)(f"{named}{own}")
        inside = _NESTED.get(str(item["loc"][0])) if len(item["loc"]) > 1 else None
        field = ".".join(str(part) for part in item["loc"]) if inside else str(item["loc"][0])
        if item["type"] == "extra_forbidden":
            known = (inside or model).model_fields
            name = str(item["loc"][-1])
            other = ""
            if len(item["loc"]) < 3:
                parts = [part for part, own in _NESTED.items() if not inside and name in own.model_fields]
                under = f"; it belongs under [{parts[0]}], a line that an init file has behind a #" if parts else ""
                other = under + _meant(name, known) or f"; known are {', '.join(known)}"
            problems[f"{field}: no such field{other}"] = []
        else:
            message = item["msg"].removeprefix("Input ").removesuffix(", unable to parse string as an integer")
            problems.setdefault(f"{field} = {item['input']!r}: ", []).append(message)
    return ConfigError("; ".join(field + " or ".join(messages) for field, messages in problems.items()))


def parse_config(text: str, overrides: Mapping[str, Any] | None = None) -> SynthesisConfig:
    """A configuration from TOML text, with single fields replaced.

    >>> parse_config('method = "clustered-mean"', {"texts": 5}).texts
    5
    >>> parse_config("epsilom = 3")
    Traceback (most recent call last):
    plainchant.errors.ConfigError: epsilom: no such field; did you mean epsilon?
    """
    try:
        values = tomllib.loads(text.removeprefix("\ufeff"))
    except (ValueError, RecursionError) as error:  # a number or a nesting too long for Python is no TOMLDecodeError
        words = "; words need quotation marks" if "Invalid value" in str(error) else ""
        raise ConfigError(f"the configuration is not valid TOML: {error}{words}") from None
    return SynthesisConfig(**(values | dict(overrides or {})))


def load_config(path: str | Path | None, overrides: Mapping[str, Any] | None = None) -> SynthesisConfig:
    """A configuration from a TOML file, with single fields replaced.

    Args:
        path: the file; None for the defaults.
        overrides: fields by name, each in place of what the file says.

    Raises:
        ConfigError: the file cannot be read, or a field is unknown or out of bounds.
        PrivacyError: no guarantee follows from what it asks for.

    >>> load_config(None, {"epsilon": 3}).epsilon
    3.0
    """
    if path is None:
        return SynthesisConfig(**dict(overrides or {}))
    try:
        content = Path(path).read_text(encoding="utf-8-sig")
    except FileNotFoundError as error:
        raise ConfigError(
            f"CONFIG = {path}: cannot be read ({error.strerror}); plainchant init {path} writes one"
        ) from None
    except OSError as error:
        raise ConfigError(f"CONFIG = {path}: cannot be read ({error.strerror}); name a readable file") from None
    except UnicodeDecodeError:
        raise ConfigError(f"CONFIG = {path}: is not UTF-8 text") from None
    return parse_config(content, overrides)
