"""The token loop: many batches side by side, one token for each batch per step (guarantee 4). Knows token ids only."""

import dataclasses
import time
import weakref
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from plainchant.arrays import Float32Array, Float64Array, IntArray
from plainchant.errors import foreign_messages_hidden
from plainchant.models import LanguageModel, Rows
from plainchant.privacy.mechanisms import Gate, PublicMechanism, TokenMechanism, draw
from plainchant.randomness import RandomSource

# Number of prefixes whose caches are kept: batches come cell by cell, so an old prefix is not needed again.
KEPT_PREFIXES = 8
# What each token of a model decodes to by itself, while the model is there: decoding a whole vocabulary takes seconds,
# and a run has several decoders.
_STRINGS: "weakref.WeakKeyDictionary[LanguageModel, list[str]]" = weakref.WeakKeyDictionary()


@dataclass(frozen=True)
class StopRule:
    """When a text ends: end-of-text, a stop string in the released text, the maximum length (guarantee 4.6).

    Attributes:
        text: the stop string, or None.
        max_tokens: maximum tokens per text, its end token included.
        min_tokens: minimum tokens that are released before a text may end.
    """

    text: str | None
    max_tokens: int
    min_tokens: int


@dataclass(frozen=True, eq=False)
class Bias:
    """What is added to public logits: public or released (guarantee 8.5).

    Attributes:
        tokens: ids, each once, int64 [w].
        nats: what is added to their logits, float32 [w].
    """

    tokens: IntArray
    nats: Float32Array

    def on(self, logits: Float32Array, written: Sequence[int] = ()) -> Float32Array:
        """The logits with it, float32 [V]; the given ones stay as they are.

        Args:
            logits: of the next token, float32 [V].
            written: the tokens of the text so far. What is there already is made no likelier: words are counted once a
                record, and a model that is pushed to a word again and again writes nothing else.
        """
        moved = logits.copy()
        moved[self.tokens] += np.where(np.isin(self.tokens, written), np.minimum(self.nats, 0), self.nats)
        return moved


@dataclass(frozen=True)
class BatchWork:
    """One batch and what it is to write.

    Attributes:
        batch: its number.
        prefix: public tokens before a record.
        start: public tokens after it; not empty. Of the first text, where `starts` says more.
        records: the record tokens of each context. Secret, as is their number.
        positions: the places to fill, public.
        later: maximum tokens that the batch still has to write after these places, public.
        spent: what each context has paid so far (guarantee 5.2), float64 [n]; None before its first text. Secret.
        starts: the start of each of the places, where they differ; public. Empty: all have the same.
        payment: ρ that a context may pay for its text, where batches are drawn afresh for every text (guarantee 13.1);
            None: the mechanism's budget.
        bias: is added to the public logits, for work without records; None adds nothing.
    """

    batch: int
    prefix: tuple[int, ...]
    start: tuple[int, ...]
    records: Sequence[Sequence[int]] = field(repr=False)
    positions: Sequence[int]
    later: int = 0
    spent: Float64Array | None = field(default=None, repr=False)
    starts: Sequence[tuple[int, ...]] = ()
    payment: float | None = None
    bias: Bias | None = None

    def only(self, positions: Sequence[int], spent: Float64Array | None) -> "BatchWork":
        """The part of it at some of its places, with what each context has paid by then."""
        starts = tuple(start for place, start in zip(self.positions, self.starts, strict=False) if place in positions)
        start = starts[0] if starts else self.start
        return dataclasses.replace(self, start=start, starts=starts, positions=tuple(positions), spent=spent)


@dataclass(frozen=True)
class FinishedText:
    """A released text with its cost.

    Attributes:
        batch, position: its place.
        text: the text, without stop string.
        tokens: how many tokens were released for it, its end included.
        finish: "end", "stop" or "length".
        loss: Σ ε_t over its tokens, nats. Private.
        rho: Σ ρ_t over its tokens. Private where it is measured ex post.
        spent: what each context of the batch has paid in total, this text included; empty where no context has paid,
            for example where costs are not individual. Private.
    """

    batch: int
    position: int
    text: str
    tokens: int
    finish: str
    loss: float
    rho: float
    spent: tuple[float, ...] = field(default=(), repr=False)


@dataclass(frozen=True)
class StepTiming:
    """The time of one decoder step. Private: a pass takes longer the more contexts there are.

    Attributes:
        batches: number of batches side by side.
        rows: number of private rows. Secret.
        public_pass: the forward pass of the public rows, seconds.
        private_pass: the forward pass of the private rows, seconds, with the part of their prompts not yet processed.
        rest: supports, aggregation, drawing, accounting and text, seconds.
    """

    batches: int
    rows: int
    public_pass: float
    private_pass: float
    rest: float

    @property
    def seconds(self) -> float:
        """The whole step."""
        return self.public_pass + self.private_pass + self.rest


class _Stopwatch:
    """Returns the seconds since the previous lap."""

    def __init__(self) -> None:
        self._since = time.perf_counter()

    def lap(self) -> float:
        before, self._since = self._since, time.perf_counter()
        return self._since - before


class _Session:
    """A batch in progress: its rows in the model and the text that it is writing."""

    def __init__(
        self, work: BatchWork, mechanism: TokenMechanism, private: Rows | None, public: Rows | None, gate: Gate | None
    ):
        self.work = work
        self.mechanism = mechanism
        self.private = private
        self.public = public
        self.is_open = True
        self.positions = list(work.positions)
        self.spent = np.zeros(len(work.records)) if work.spent is None else np.array(work.spent, dtype=np.float64)
        self.begin(gate)

    def begin(self, gate: Gate | None) -> None:
        self.gate = gate
        self.tokens: list[int] = []
        self.loss = 0.0
        self.rho = 0.0
        for rows in (self.private, self.public):
            if rows is not None:
                rows.rewind()

    def give_back(self) -> None:
        """Releases the caches; the batch is done, or its next text begins otherwise."""
        self.private = self.public = None
        self.is_open = False

    def rest(self) -> BatchWork:
        """What is left to write, where texts begin differently; payments go on."""
        return self.work.only(self.positions, self.spent)

    @property
    def last(self) -> int:
        """The token that every row reads next; at first the last one of the prompt."""
        return self.tokens[-1] if self.tokens else self.work.start[-1]


class Decoder:
    """Writes texts for batches with one mechanism on one model.

    Args:
        model: the language model.
        mechanism: draws and accounts each token.
        stop: when a text ends.
        rows: approximate number of private rows per forward pass. Counted by the public batch size, since the true
            number of contexts is secret and must not decide which batches share a pass.
        private_tokens: number of tokens at the head of a text that records contribute to; the public model writes the
            rest. None: all.
        passes: number of passes of private rows for each pass of public ones. A public pass reads all weights for a few
            rows, so one that serves several private passes is cheaper; more batches are then open at a time.
        randomness: the source of all tokens.
        observer: called with the time of each step, for benchmarks. Those times are private.
        on_tokens: called after each step with the number of tokens that it released.
    """

    def __init__(
        self,
        model: LanguageModel,
        mechanism: TokenMechanism,
        stop: StopRule,
        *,
        rows: int,
        randomness: RandomSource,
        private_tokens: int | None = None,
        passes: int = 1,
        observer: Callable[[StepTiming], None] | None = None,
        on_tokens: Callable[[int], None] | None = None,
    ):
        self._model = model
        self._mechanism = mechanism
        self._public = PublicMechanism(mechanism.settings)
        self._stop = stop
        self._head = stop.max_tokens if private_tokens is None else min(private_tokens, stop.max_tokens)
        # the tail of a text needs the public logits whatever the mechanism does
        self._needs_public = mechanism.needs_public or self._head < stop.max_tokens
        self._width = max(1, rows // mechanism.settings.batch_size)
        self._passes = passes
        self._randomness = randomness
        self._observer = observer
        self._on_tokens = on_tokens
        self._prefixes: dict[tuple[int, ...], Any] = {}
        # where the stop is a line that begins with a mark: a text begins at the start of a line
        self._line_start = "\n" if stop.text is not None and len(stop.text) > 1 and stop.text[0] == "\n" else ""
        # what the stop string begins with, the longest first, and the ids that complete each
        self._begun = [(stop.text or "")[:length] for length in range(len(stop.text or "") - 1, 0, -1)]
        self._completing: dict[str, IntArray] = {}
        self._allowed, self._allowed_early = self._releasable()
        self.steps = 0

    def _releasable(self) -> tuple[IntArray, IntArray]:
        """The ids that a support may hold, and those among them that cannot end a text by themselves."""
        ids = np.arange(self._model.vocabulary_size, dtype=np.int64)
        end = np.isin(ids, list(self._model.end_of_text))
        allowed = end | ~np.isin(ids, list(self._model.special))
        ends, stop = end.copy(), self._stop.text
        if stop is not None and self._stop.min_tokens:
            strings = _STRINGS.get(self._model)
            if strings is None:
                strings = _STRINGS[self._model] = [self._model.decode([token]) for token in ids.tolist()]
            ends |= [stop in string for string in strings]
            for begun in self._begun:
                self._completing[begun] = ids[[string.startswith(stop[len(begun) :]) for string in strings]]
        return ids[allowed], ids[allowed & ~ends]

    def _releasable_next(self, tokens: Sequence[int]) -> IntArray:
        """The ids that a support may hold after these released tokens: a function of them alone (guarantee 4.6)."""
        if len(tokens) >= self._stop.min_tokens:
            return self._allowed
        allowed, text = self._allowed_early, self._line_start + self._model.decode(tokens)
        for begun, completing in self._completing.items():
            if text.endswith(begun):
                allowed = np.setdiff1d(allowed, completing, assume_unique=True)
        return allowed

    def run(self, works: Iterable[BatchWork]) -> Iterator[FinishedText]:
        """Decodes batches side by side and yields texts as they end; another batch opens when one is done.

        Raises:
            RunError: the model or its tokenizer failed.
        """
        with foreign_messages_hidden("the language model"):
            yield from self._texts(works)

    def _texts(self, works: Iterable[BatchWork]) -> Iterator[FinishedText]:
        waiting = iter(works)
        active: list[_Session] = []
        while True:
            while len(active) < self._width * self._passes and (work := next(waiting, None)) is not None:
                if work.positions:
                    active.append(self._open(work))
            if not active:
                return
            for session, text in self._step(active):
                yield text
                if session.positions and not session.work.starts:
                    session.begin(session.mechanism.gate(self._randomness))
                else:
                    # before another batch opens
                    session.give_back()
            left = [session for session in active if session.positions]
            active = [session if session.is_open else self._open(session.rest()) for session in left]

    def _open(self, work: BatchWork) -> _Session:
        if work.prefix not in self._prefixes:
            while len(self._prefixes) >= KEPT_PREFIXES:
                del self._prefixes[next(iter(self._prefixes))]
            self._prefixes[work.prefix] = self._model.prefill(work.prefix)
        prefix = self._prefixes[work.prefix]
        head = work.start[:-1]
        private = public = None
        if self._mechanism.needs_private:
            private = self._model.open_rows(prefix, [[*record, *head] for record in work.records], room=self._head)
        if self._needs_public:
            public = self._model.open_rows(prefix, [head], room=self._stop.max_tokens)
        mechanism = self._mechanism if work.payment is None else self._mechanism.for_budget(work.payment)
        return _Session(work, mechanism, private, public, mechanism.gate(self._randomness))

    def _step(self, active: Sequence[_Session]) -> list[tuple[_Session, FinishedText]]:
        watch = _Stopwatch()
        # guarantee 4.1: the public rows in a separate pass, before the private ones
        public_logits = self._model.step([(s.public, s.last) for s in active if s.public is not None])
        public_pass = watch.lap()
        publics = [
            logits[0] if session.work.bias is None else session.work.bias.on(logits[0], session.tokens)
            for logits, session in zip(public_logits, active, strict=False)
        ] or [None] * len(active)
        supports = [
            self._mechanism.support(public, self._releasable_next(session.tokens))
            for public, session in zip(publics, active, strict=True)
        ]
        rest = watch.lap()
        private_pass, contexts = 0.0, 0
        finished = []
        for first in range(0, len(active), self._width):
            own = active[first : first + self._width]
            # whether a token needs records is seen in the released text (guarantee 4.7)
            asked = [place for place, session in enumerate(own, first) if len(session.tokens) < self._head]
            private = [(one, active[place].last) for place in asked if (one := active[place].private) is not None]
            logits = self._model.step(private, [supports[place] for place in asked]) if private else []
            private_logits = dict(zip(asked, logits, strict=False))
            contexts += sum(group.count for group, _ in private)
            private_pass += watch.lap()
            for place, session in enumerate(own, first):
                rows = private_logits.get(place, np.empty((0, len(supports[place])), dtype=np.float32))
                self._draw(session, rows, publics[place], supports[place])
                if (text := self._ended(session)) is not None:
                    session.positions.pop(0)
                    finished.append((session, text))
            rest += watch.lap()
        self.steps += len(active)
        if self._on_tokens is not None:
            self._on_tokens(len(active))
        if self._observer is not None:
            self._observer(StepTiming(len(active), contexts, public_pass, private_pass, rest + watch.lap()))
        return finished

    def _draw(self, session: _Session, rows: Float32Array, public: Float32Array | None, support: IntArray) -> None:
        """Draws a batch's next token, and charges its contexts."""
        if (is_head := len(session.tokens) < self._head) and session.gate is not None:
            is_head = public is not None and session.gate.opens(rows, public[support])
        steps_left = len(session.positions) * self._head - len(session.tokens) + session.work.later
        allowance = session.mechanism.allowance(session.spent, max(1, steps_left))
        mechanism = session.mechanism if is_head else self._public
        result = draw(mechanism, mechanism.distribution(rows, public, support, allowance), self._randomness)
        session.tokens.append(result.token)
        if result.charges is not None:
            session.spent += result.charges
        session.loss += result.loss
        session.rho += result.rho

    def _ended(self, session: _Session) -> FinishedText | None:
        tokens, stop = session.tokens, self._stop.text
        text, stopped = self._line_start + self._model.decode(tokens), False
        if stop is not None:
            # several tokens may have completed the stop string, and the last one may hold more than its end
            text, found, _ = text.partition(stop)
            stopped = bool(found) and len(tokens) > self._stop.min_tokens
        if tokens[-1] in self._model.end_of_text:
            finish = "end"
        elif stopped:
            finish = "stop"
        elif len(tokens) >= self._stop.max_tokens:
            finish = "length"
            if self._line_start and (begun := next(filter(text.endswith, self._begun), "")):
                # cut off within a mark
                text = text[: -len(begun)]
        else:
            return None
        spent = tuple(session.spent.tolist()) if session.spent.any() else ()
        place, text = session.positions[0], text.strip()
        loss, rho = session.loss, session.rho
        if session.gate is not None:
            loss, rho = loss + session.gate.loss, rho + session.gate.rho
        return FinishedText(session.work.batch, place, text, len(tokens), finish, loss, rho, spent)
