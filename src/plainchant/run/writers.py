"""Who writes the texts that no record contributes to: a local model, or one behind an endpoint (guarantee 8.4).

All that a request holds is public or released, so that writing for it is post-processing and free.
"""

import dataclasses
import functools
import itertools
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, Self

from plainchant.config import PerformanceOptions, PromptForm, SynthesisConfig
from plainchant.data.embedding import CHARACTERS_PER_TOKEN
from plainchant.errors import ModelError
from plainchant.generation.decoding import BatchWork, Bias, Decoder, FinishedText, StopRule
from plainchant.generation.prompting import EXPANDED_FROM, Prompts, Templates
from plainchant.models import LanguageModel
from plainchant.models.endpoint import TRIAL, Answer, Endpoint, Entry, Job, job_for
from plainchant.privacy.aggregation import Support
from plainchant.privacy.mechanisms import PublicMechanism, TokenSettings
from plainchant.randomness import SystemRandomness
from plainchant.run.released import Place

# Characters per token in an estimate of what requests will cost.
USUAL_CHARACTERS = 4
# After so many answers without text in a row a run is given up: none will come.
WITHOUT_TEXT = 10
# A local model writes texts with the same prompt one after another, so long as this many passes' worth of others wait.
WAVES = 4
# So many texts are asked for in a trial; if all are the same, a server does not sample.
TRIAL_TEXTS = 3


@dataclass(frozen=True)
class Request:
    """A text that the public model is asked for.

    Attributes:
        place: where the text will stand.
        label: the label that it is to have, or None.
        shown: released texts that the prompt shows, in this order.
        warmth: temperature, as a multiple of the configured one.
        turn: which order and choice of the public examples the prompt has.
        attributes: those of the row that it is written for, as a prompt shows them.
        lines: those that each shown text was written for.
        bias: towards the records' words, for a model whose logits are at hand; None: there is none.
    """

    place: Place
    label: str | None
    shown: tuple[str, ...]
    warmth: float = 1.0
    turn: int = 0
    attributes: str = ""
    lines: Mapping[str, str] = field(default_factory=dict)
    bias: Bias | None = None


class Writer(Protocol):
    """Writes texts from requests alone."""

    def write(self, requests: Sequence[Request]) -> Iterator[FinishedText]:
        """The texts for all requests, as they are finished."""


@dataclass(frozen=True)
class Loaded:
    """A local language model, how it is prompted, and when its texts end."""

    model: LanguageModel
    prompts: Prompts
    stop: StopRule

    @classmethod
    def of(cls, model: LanguageModel, config: SynthesisConfig, form: PromptForm | None = None) -> Self:
        """A model with the prompts and the ends of texts of a configuration; `form` replaces that of its prompts."""
        prompts = Prompts(config, model, form)
        return cls(model, prompts, StopRule(prompts.stop, config.max_tokens, config.min_tokens))


def public_requests(config: SynthesisConfig, count: int) -> list[Request]:
    """Requests for texts that follow from nothing but the configuration, the labels in turn."""
    # no row is drawn for them: made-up ones stand where those of a run will
    labels, made_up = config.label_set, config.columns.made_up
    return [
        Request((number, 0), labels[number % len(labels)], (), attributes=made_up(number)) for number in range(count)
    ]


@dataclass(frozen=True)
class LocalWriter:
    """A local model, whose public rows alone are used, whatever the plan's method.

    Attributes:
        loaded: the model.
        settings: the plan's.
        rows: rows per forward pass.
        on_tokens: called with the number of tokens of each step.
    """

    loaded: Loaded
    settings: TokenSettings
    rows: int
    on_tokens: Callable[[int], None] | None = None

    def write(self, requests: Sequence[Request]) -> Iterator[FinishedText]:
        """See `Writer`."""
        # what the prompts of a label and turn begin with, whatever they show
        shared = functools.cache(functools.partial(self.loaded.prompts.prefix, released=()))
        by_warmth = sorted(requests, key=lambda request: request.warmth)
        for warmth, own in itertools.groupby(by_warmth, key=lambda request: request.warmth):
            works = [
                BatchWork(
                    request.place[0],
                    *self._parts(request, shared(request.label, turn=request.turn)),
                    (),
                    (request.place[1],),
                    bias=request.bias,
                )
                for request in own
            ]
            # those that share a part of their prompt side by side, so that it is read once
            yield from self._decoder(warmth).run(
                sorted(self._joined(works), key=lambda work: (work.prefix, work.batch))
            )

    def _joined(self, works: Sequence[BatchWork]) -> list[BatchWork]:
        """Work with one prompt as one, so that the prompt is read once; no more at a time than leaves all rows busy."""
        most = max(1, len(works) // (WAVES * self.rows))
        alike: dict[Any, list[BatchWork]] = {}
        for work in works:
            alike.setdefault((work.batch, work.prefix, work.start, id(work.bias)), []).append(work)
        return [
            dataclasses.replace(own[0], positions=tuple(work.positions[0] for work in own[first : first + most]))
            for own in alike.values()
            for first in range(0, len(own), most)
        ]

    def _parts(self, request: Request, shared: list[int]) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """The tokens of a prompt: those that it shares with others, which are read once, and its own."""
        prompts = self.loaded.prompts
        whole = prompts.prefix(request.label, request.shown, request.turn, request.lines)
        pairs = enumerate(zip(whole, shared, strict=False))
        at = next((place for place, (own, other) in pairs if own != other), min(len(whole), len(shared)))
        return tuple(whole[:at]), (*whole[at:], *prompts.start(request.label, request.attributes))

    def _decoder(self, warmth: float) -> Decoder:
        settings = dataclasses.replace(
            self.settings, support=Support.TOP_K, batch_size=1, temperature=self.settings.temperature * warmth
        )
        return Decoder(
            self.loaded.model,
            PublicMechanism(settings),
            self.loaded.stop,
            rows=self.rows,
            randomness=SystemRandomness(),
            on_tokens=self.on_tokens,
        )


class EndpointWriter:
    """A model behind an endpoint: it is sent the strings that a local model would read.

    Args:
        config: the run's; it names the endpoint.
        performance: how many requests at a time, and how long to wait for each.

    Raises:
        ConfigError, MissingDependencyError: see `Endpoint`.
    """

    def __init__(self, config: SynthesisConfig, performance: PerformanceOptions):
        self._config = config
        self._templates = Templates(config, config.form_of_candidates)
        self._early: list[Entry] = []
        self._log: Callable[[Entry], Any] = self._early.append
        self._endpoint = Endpoint(
            str(config.candidate_endpoint),
            str(config.candidate_model),
            timeout=performance.request_timeout,
            most=performance.requests,
            log=lambda entry: self._log(entry),
        )

    def log_to(self, log: Callable[[Entry], Any]) -> None:
        """Where requests are noted from now on; those so far are noted there first."""
        for entry in self._early:
            log(entry)
        self._early.clear()
        self._log = log

    def try_out(self) -> None:
        """Asks for a few texts from public text alone, which nobody uses: what is wrong shows before anything is spent.

        Raises:
            ModelError: as the message says.
        """
        request = Request(TRIAL, self._config.label_set[0], (), attributes=self._config.columns.made_up(0))
        job = job_of(self._config, request)
        texts = {self._endpoint.ask(job, tries=2).text.strip() for _ in range(TRIAL_TEXTS)}
        if texts == {""}:
            raise self._no_text()
        if len(texts) == 1:
            raise ModelError(
                f"candidate_model = {self._config.candidate_model!r}: writes the same text {TRIAL_TEXTS} times, which "
                "leaves nothing to choose from; make the server sample (some do only if generation_config.json says "
                "do_sample), raise temperature, or write prompt.examples"
            )

    def write(self, requests: Sequence[Request]) -> Iterator[FinishedText]:
        """See `Writer`.

        Raises:
            ModelError: the endpoint fails for good; what it has written by then is yielded before.
        """
        jobs, empty = (job_of(self._config, request) for request in requests), 0
        for job, answer in self._endpoint.answers(jobs):
            text = finished(job.place, answer, self._templates.stop, self._config.max_tokens)
            empty = 0 if text.text else empty + 1
            if empty >= WITHOUT_TEXT:
                raise self._no_text()
            yield text

    def _no_text(self) -> ModelError:
        return ModelError(
            f"candidate_model = {self._config.candidate_model!r}: its answers hold no text; a model that thinks before "
            "it answers uses up max_tokens, so switch that off, raise max_tokens, or use another model or "
            "candidate_form"
        )


def prompt_of(templates: Templates, request: Request) -> str:
    """The whole prompt of a request."""
    return templates.public_prompt(
        request.label, request.shown, request.turn, attributes=request.attributes, lines=request.lines
    )


def job_of(config: SynthesisConfig, request: Request) -> Job:
    """What is sent for a request: a function of the configuration and of the request alone."""
    templates = Templates(config, config.form_of_candidates)
    return job_for(
        request.place,
        str(config.candidate_model),
        prompt_of(templates, request),
        templates.form,
        max_tokens=config.max_tokens,
        temperature=config.temperature * request.warmth,
        stop=templates.stop,
    )


def finished(place: Place, answer: Answer, stop: str | None, max_tokens: int) -> FinishedText:
    r"""A text from an answer, ended by the same rules as a local one, whatever the server made of them.

    >>> finished((0, 1), Answer(" red\nText: blue", 9, False), "\n", 9).text
    'red'
    """
    # a server need not keep to any limit; no token is longer than so many characters
    text = answer.text.strip()[: CHARACTERS_PER_TOKEN * max_tokens]
    finish = "length" if answer.is_cut else "end"
    if stop is not None and stop in text:
        finish, text = "stop", text[: text.index(stop)].strip()
    tokens = len(text) // USUAL_CHARACTERS + 1 if answer.tokens is None else answer.tokens
    return FinishedText(*place, text, tokens, finish, 0.0, 0.0)


@dataclass(frozen=True)
class Sending:
    """What a run will send to its endpoint, before it is known: for `plan`.

    Attributes:
        address: where to.
        body: a sample request, with placeholders where released texts will stand.
        requests: how many texts are asked for.
        tokens_read: about how many tokens of prompts they have together.
        tokens_written: how many tokens their answers have at most.
    """

    address: str
    body: dict[str, Any]
    requests: int
    tokens_read: int
    tokens_written: int


def sending(config: SynthesisConfig) -> Sending:
    """What a run with this configuration will send to its endpoint."""
    shown = [f"<released text {number + 1}>" for number in range(EXPANDED_FROM)] if config.sends_released else []
    row = config.columns.made_up(0)
    request = Request(TRIAL, config.label_set[0], tuple(shown), attributes=row, lines=dict.fromkeys(shown, row))
    job = job_of(config, request)
    characters = len(prompt_of(Templates(config, config.form_of_candidates), request))
    each = characters // USUAL_CHARACTERS + len(shown) * config.max_tokens
    return Sending(
        f"{str(config.candidate_endpoint).rstrip('/')}/{job.path}",
        dict(job.body),
        config.further,
        config.further * each,
        config.further * config.max_tokens,
    )


def all_used(entries: Iterable[Entry]) -> dict[str, int]:
    """What the requests in a log have cost: requests sent, tokens read and written, answers that do not say it."""
    sent = [entry for entry in entries if "body" in entry or "status" in entry]
    answers = [entry for entry in sent if entry.get("status") == 200]
    read, written = (
        sum(value for entry in answers if isinstance(value := entry.get(name), int))
        for name in ("prompt_tokens", "completion_tokens")
    )
    return {
        "requests": sum("body" in entry for entry in sent),
        "tokens_read": read,
        "tokens_written": written,
        "answers_without_figures": sum(entry.get("completion_tokens") is None for entry in answers),
    }
