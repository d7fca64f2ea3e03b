"""What a user asks for: fields that change the guarantee or the text, and, in a class apart, those that cannot."""

import difflib
import enum
import functools
import tomllib
from collections.abc import Mapping
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from plainchant.errors import ConfigError, PrivacyError
from plainchant.privacy.accounting import check_delta, check_epsilon
from plainchant.privacy.aggregation import Aggregate, Clipping, Support

# The largest number of contexts, centres or cells that anything here is made for.
LARGEST = 1_000_000
# Candidates for each released text and votes on them, where a method lives by them (docs/how-it-works.md).
CANDIDATES, ROUNDS = 11, 2
# Private rows of a forward pass where nobody says and nothing is measured.
USUAL_ROWS = 64


class Method(enum.StrEnum):
    """Presets over the same parts; every part can be set by itself."""

    AMIN2024 = "amin2024"
    CLUSTERED_MEAN = "clustered-mean"
    CLUSTERED_MEDIAN = "clustered-median"
    INVISIBLEINK = "invisibleink"
    PUBLIC = "public"
    PLAINCHANT = "plainchant"
    PRIVATE_EVOLUTION = "private-evolution"
    NON_PRIVATE = "non-private"


class Clusters(enum.StrEnum):
    """How batches are formed (guarantee 2)."""

    PUBLIC_CENTRES = "public-centres"
    NONE = "none"


class Accounting(enum.StrEnum):
    """How the cost is counted (guarantee 5)."""

    WORST_CASE = "worst-case"
    INDIVIDUAL = "individual"
    EX_POST = "ex-post"
    PUBLIC = "public"
    INFINITE = "infinite"
    VOTES = "votes"


class PromptForm(enum.StrEnum):
    """How a record is shown to the model."""

    EXAMPLES = "examples"
    CHAT = "chat"


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)


class Example(_Frozen):
    """A hand-written, made-up example: what the data's form is, and nothing from the data (guarantee 8)."""

    text: str
    label: str | None = None


class PromptConfig(_Frozen):
    """How a record is shown to the model: templates with `{label}` and `{text}`; `prompting` fills unset ones."""

    form: PromptForm = PromptForm.EXAMPLES
    """examples for base models (a list that the model continues), chat for instruction-tuned ones."""
    header: str | None = None
    """Opens the prompt, once."""
    example: str | None = None
    """One entry of the list; generation starts where {text} stands and ends at what follows it."""
    chat: str | None = None
    """The user's message of the chat form; {text} is the record."""
    examples: tuple[Example, ...] = ()
    """Made-up public examples, shown before the record: what the data's form is, and nothing from the data."""


class Parts(_Frozen):
    """The parts of a method, all decided."""

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
    # one record a batch and a clip that never bites: each text is written from a single private record
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


class SynthesisConfig(_Frozen):
    """One run, as its user wants it. Public: nothing here may be taken from the private data (guarantee 1)."""

    method: Method = Method.PLAINCHANT
    """Preset that fills every part left unset: plainchant, amin2024, clustered-mean, clustered-median, invisibleink, \
private-evolution, public or non-private."""
    epsilon: float = 8.0
    """ε of the guarantee. Where accounting is ex post, only the noisy counts' share of it is fixed in advance."""
    delta: float = 1e-6
    """δ of the guarantee; well below one over the number of units."""
    texts: int = Field(100, ge=1)
    """How many synthetic texts are requested."""
    max_tokens: int = Field(64, ge=1)
    """The most tokens of a text."""
    candidates: int | None = Field(None, ge=1, le=64)
    """How many texts are written for each that is released, in all rounds; the records vote, with noise, for those to \
release. 1: no vote."""
    rounds: int | None = Field(None, ge=1, le=8)
    """How many votes: after each but the last, the public model writes further texts after the examples that won."""
    private_texts: int | None = Field(None, ge=1)
    """How many of the texts are written from records; unset: half of texts with several rounds of votes, else all."""
    vote_share: float = Field(0.05, gt=0, lt=1)
    """Share of the budget for all votes together, the same for each; private-evolution spends all of it on votes."""
    vote_spread: Annotated[int, Field(ge=1)] | Literal["auto"] = "auto"
    """Over how many of the nearest texts a record's vote is spread; auto: more, the weaker the votes are."""
    vote_labels: Annotated[int, Field(ge=1)] | Literal["auto"] = "auto"
    """From how many labels' texts a record may choose, its own and the nearest; auto: more, the stronger votes are."""
    choice: Literal["highest", "matching"] = "highest"
    """How texts are chosen by their noisy votes: the highest, or those that together lie as the votes lie."""
    quotas: Literal["auto", "votes", "balanced"] | dict[str, Annotated[int, Field(ge=0)]] = "auto"
    """Texts for each label: as the votes say, balanced, or a table of labels and numbers; auto: balanced where labels \
have few texts each."""
    expand: int = Field(0, ge=0)
    """How many texts to release beyond the wish, written by the public model from the others: free, and marked."""
    expected_units: int | None = Field(None, ge=1)
    """Roughly how many units the data has, if that may be said publicly; lets the plan choose the batch size."""

    text_column: str = "text"
    """Column of the private table that holds the text."""
    label_column: str | None = None
    """Column that holds a label; needs labels."""
    unit_column: str | None = None
    """Column whose equal values mark records of one unit (a patient, a customer); unset: every record is one."""
    labels: tuple[str, ...] = ()
    """The label set, public. A record with another label takes no part."""

    model: str = "gemma-3-270m"
    """Causal language model: a path or name that transformers loads, or gemma-3-270m from the demo extra."""
    embedder: str = "all-MiniLM-L6-v2"
    """Sentence embedder: a path or name that sentence-transformers loads, or all-MiniLM-L6-v2 from the demo extra."""
    public_corpus: str | None = None
    """File of public texts around whose centres the data is clustered; unset: texts sampled from the public model."""
    public_text_column: str = "text"
    """Its text column."""

    clusters: Clusters | None = None
    """How batches are formed: public-centres or none."""
    centres: int | str = 1000
    """How many public centres at most (a corpus carries one per four texts), or a path of saved ones (centres.npz)."""
    kept: int | Literal["auto"] = "auto"
    """How many cells to keep at most, or auto: every cell above min_cell."""
    min_cell: int | None = Field(None, ge=1)
    """Least noisy count of a kept cell; unset: batch size + 2σ of the noise."""
    rebalance_share: float = Field(0.05, gt=0, lt=1)
    """Share of the budget for noisy cell counts."""

    aggregate: Aggregate | None = None
    """How a batch's predictions become one: mean or median."""
    support: Support | None = None
    """Which tokens may be sampled, by the public logits: full, top_k or top_k_plus."""
    top_k: int | None = Field(None, ge=1)
    """Size of the top_k supports."""
    clipping: Clipping | None = None
    """What is clipped: logits, their difference to the public logits, or the increase alone (no token is lowered)."""
    accounting: Accounting | None = None
    """How the cost is counted: worst-case or individual (both known in advance), or ex-post."""
    clip: float | Literal["auto"] | None = None
    """Clip norm in nats, or auto: what the budget allows for the requested texts (differences, increases)."""
    guidance: float | None = Field(None, gt=0, allow_inf_nan=False)
    """How far to go away from the public model (where differences or increases are clipped); 1 is all the way to the \
mean."""
    sparse_threshold: float | None = Field(None, ge=0, le=2)
    """Sparse vector: where the batch's prediction is nearer to the public one than this (L1 distance, with noise), \
the token is the public model's and free; worst-case means only, 0 for none."""
    sparse_noise: float = Field(0.2, gt=0, allow_inf_nan=False)
    """Scale of the noise of that comparison."""
    private_tokens: int | None = Field(None, ge=1)
    """The most tokens of a text in which records have a say, with sparse_threshold; unset: half of max_tokens."""
    temperature: float = Field(1.0, gt=0, allow_inf_nan=False)
    """Temperature of sampling."""
    batch_size: int | Literal["auto"] | None = None
    """Contexts a batch, on average; auto: the smallest that pays for the texts requested."""
    expected_range: float = Field(3.0, gt=0, allow_inf_nan=False)
    """How far one record moves the model's logits, a root mean square in nats; decides how many texts an individual \
budget is planned for, never the guarantee."""
    records_per_context: int = Field(1, ge=1, le=64)
    """Units shown together in one context (means only): closer to the data, and every cost counts four times."""
    released_examples: int | None = Field(None, ge=0, le=16)
    """How many texts that a cell has already released are shown in its prompts; free, since they are released."""
    min_tokens: int = Field(4, ge=0)
    """A text does not end before this many tokens."""
    max_record_tokens: int = Field(192, ge=1)
    """A record is cut after this many tokens."""
    numerical_slack: float = Field(1e-3, ge=0, allow_inf_nan=False)
    """Nats by which a prediction may move for numerical reasons; paid for, and a model that moves more is refused."""
    prompt: PromptConfig = PromptConfig()
    """Templates and public examples."""

    def __init__(self, **values: Any) -> None:
        """Raises ConfigError for a field that is unknown or out of bounds, PrivacyError where no guarantee follows."""
        try:
            super().__init__(**values)
        except ValidationError as error:
            raise _translated(error) from None

    @model_validator(mode="after")
    def _check(self) -> Self:
        check_epsilon(self.epsilon)
        check_delta(self.delta)
        for name in ("centres", "kept", "batch_size"):
            value = getattr(self, name)
            if isinstance(value, int) and not 1 <= value <= LARGEST:
                raise ConfigError(f"{name} = {value}: must be at least 1 and at most {LARGEST:,}")
        if isinstance(self.clip, float) and not 1e-6 <= self.clip <= 1e6:
            raise ConfigError(f"clip = {self.clip}: must be from 1e-6 to 1e6 nats, or auto")
        if len(set(self.labels)) != len(self.labels):
            raise ConfigError(f"labels = {list(self.labels)}: every label once")
        if self.min_tokens >= self.max_tokens:
            raise ConfigError(f"min_tokens = {self.min_tokens}: must be below max_tokens = {self.max_tokens}")
        uses_private = self.reads_records
        if self.label_column and not self.labels:
            raise ConfigError(
                "labels: not given, but label_column is. The label set is public by definition, so it cannot be read "
                "from the private data: name it, for example --labels World,Sports"
            )
        if self.labels and not self.label_column and uses_private:
            raise ConfigError("label_column: not given, but labels are; name the column that holds them")
        if self.expand and not uses_private:
            raise ConfigError(f"expand = {self.expand}: --method public writes all its texts freely; raise texts")
        if self.votes and self.written and self.vote_share + self.rebalance_share >= 1:
            raise PrivacyError(
                f"vote_share = {self.vote_share}, rebalance_share = {self.rebalance_share}: leave nothing for tokens"
            )
        for example in self.prompt.examples:
            if example.label is not None and example.label not in self.labels:
                raise ConfigError(f"prompt.examples: label {example.label!r} is not in labels = {list(self.labels)}")
        for name in ("example", "chat"):
            template = getattr(self.prompt, name)
            if template is not None and template.count("{text}") != 1:
                raise ConfigError(f"prompt.{name}: must contain {{text}} exactly once")
        self._check_parts()
        self._check_votes()
        return self

    def _check_votes(self) -> None:
        parts = self.parts
        if self.votes and not self.reads_records:
            raise ConfigError(f"candidates = {self.candidates}: --method public reads no records that could vote")
        if self.method is Method.PRIVATE_EVOLUTION:
            if not self.votes:
                raise ConfigError(
                    f"candidates = {parts.candidates}: private-evolution lives by its votes; give 2 or more"
                )
            if self.private_texts is not None:
                raise ConfigError(f"private_texts = {self.private_texts}: private-evolution writes none from records")
            if parts.clusters is not Clusters.NONE:
                raise ConfigError(f"clusters = {parts.clusters}: private-evolution has no batches to cluster")
        if self.private_texts is not None and not self.votes:
            raise ConfigError(
                f"private_texts = {self.private_texts}: without votes every text is written from records; set texts"
            )
        if self.private_texts is not None and self.private_texts > parts.candidates * self.texts:
            raise ConfigError(
                f"private_texts = {self.private_texts}: more than candidates x texts = {parts.candidates * self.texts}"
            )
        if isinstance(self.quotas, dict):
            if unknown := sorted(set(self.quotas) - set(self.labels)):
                raise ConfigError(f"quotas: {unknown[0]!r} is not in labels = {list(self.labels)}")
            if sum(self.quotas.values()) != self.released:
                raise ConfigError(
                    f"quotas: add up to {sum(self.quotas.values())}, but {self.released} texts are to be released; "
                    "set texts to their sum"
                )
        if self.quotas != "auto" and not self.votes:
            raise ConfigError(f"quotas = {self.quotas!r}: texts are chosen by votes; give candidates of 2 or more")

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
        if (parts.accounting is Accounting.PUBLIC) != (self.method is Method.PUBLIC):
            raise PrivacyError(f"accounting = {parts.accounting}: belongs to --method public alone")
        if (parts.accounting is Accounting.VOTES) != (self.method is Method.PRIVATE_EVOLUTION):
            raise PrivacyError(f"accounting = {parts.accounting}: belongs to --method private-evolution alone")
        if (parts.accounting is Accounting.INFINITE) != (self.method is Method.NON_PRIVATE):
            raise PrivacyError(f"accounting = {parts.accounting}: belongs to --method non-private alone")
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
        if parts.sparse_threshold and parts.clip == "auto":
            raise ConfigError("clip = auto: cannot be derived with sparse_threshold; give a number of nats")
        if self.private_tokens is not None and self.private_tokens > self.max_tokens:
            raise ConfigError(f"private_tokens = {self.private_tokens}: is more than max_tokens = {self.max_tokens}")
        worst_case = parts.accounting is Accounting.WORST_CASE and parts.clipping is not Clipping.LOGITS
        if parts.clip == "auto" and not worst_case:
            raise ConfigError(
                "clip = auto: is derived from the budget for worst-case means of differences or increases; give a "
                "number in nats"
            )

    @property
    def reads_records(self) -> bool:
        """Whether the private table is read at all."""
        return self.parts.accounting is not Accounting.PUBLIC

    @property
    def votes(self) -> bool:
        """Whether the records vote for the texts that are released."""
        return self.parts.candidates > 1

    @property
    def written(self) -> int:
        """How many texts records contribute to; for the public method, how many it writes in their place."""
        if self.parts.accounting is Accounting.VOTES:
            return 0
        if self.private_texts is not None:
            return self.private_texts
        return -(-self.texts // 2) if self.votes and self.parts.rounds > 1 else self.texts

    @property
    def released(self) -> int:
        """How many texts are to be released."""
        return self.texts + self.expand

    @property
    def further(self) -> int:
        """How many texts the public model writes, whether they are kept or not."""
        return self.parts.candidates * self.texts - self.written + self.expand

    @functools.cached_property
    def parts(self) -> Parts:
        """The preset's parts with this configuration's own in their place."""
        preset = PRESETS[self.method]
        own = {name: getattr(self, name) for name in Parts.model_fields if getattr(self, name) is not None}
        return preset.model_copy(update=own)

    @property
    def label_set(self) -> tuple[str | None, ...]:
        """The labels, or one None where there are none."""
        return self.labels or (None,)


class PerformanceOptions(_Frozen):
    """How fast, never how private: nothing here can change the guarantee."""

    device: str = "cpu"
    """A torch device."""
    dtype: Literal["float32", "bfloat16", "float16"] = "float32"
    """Floating-point type of the model; each has its own measured slack."""
    rows: Annotated[int, Field(ge=1)] | Literal["auto"] = "auto"
    """About how many private rows one forward pass holds, or auto: as many as are fastest here, measured at the start \
of a run (64 where a seed is given)."""
    memory: float | None = Field(None, gt=0)
    """The most GiB that the caches of contexts may take, about; fewer rows then share a forward pass."""
    threads: int | None = Field(None, ge=1)
    """Threads of torch; unset: torch's own choice."""
    executor: Literal["local", "ray"] = "local"
    """Where the work is done: in this process, or by workers on a Ray cluster (extra ray)."""
    workers: int = Field(2, ge=1)
    """Workers of executor = ray, each with a model of its own."""
    ray_address: str | None = None
    """The cluster's address, auto for the one on this machine; unset: begin one here."""

    @property
    def width(self) -> int:
        """Private rows of a forward pass where nothing is measured."""
        return USUAL_ROWS if self.rows == "auto" else self.rows


def _closest(name: str, known: list[str]) -> str:
    near = difflib.get_close_matches(name, known, 1)
    return f"; did you mean {near[0]}?" if near else f"; known are {', '.join(known)}"


def _translated(error: ValidationError) -> ConfigError | PrivacyError:
    problems: dict[str, list[str]] = {}
    for item in error.errors():
        own = item.get("ctx", {}).get("error")
        if isinstance(own, ConfigError | PrivacyError):
            return own
        inside_prompt = item["loc"][0] == "prompt" and len(item["loc"]) > 1
        field = ".".join(str(part) for part in item["loc"]) if inside_prompt else str(item["loc"][0])
        if item["type"] == "extra_forbidden":
            known = PromptConfig.model_fields if inside_prompt else SynthesisConfig.model_fields
            problems[f"{field}: no such field{_closest(str(item['loc'][-1]), list(known))}"] = []
        else:
            message = item["msg"].removeprefix("Input ").removesuffix(", unable to parse string as an integer")
            problems.setdefault(f"{field} = {item['input']!r}: ", []).append(message)
    return ConfigError("; ".join(field + " or ".join(messages) for field, messages in problems.items()))


def parse_config(text: str, overrides: Mapping[str, Any] | None = None) -> SynthesisConfig:
    """A configuration from TOML text, with single fields replaced."""
    try:
        values = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"the configuration is not valid TOML: {error}") from None
    return SynthesisConfig(**(values | dict(overrides or {})))
