"""Contexts: the public part of a prompt, the record's part, and the start of the new text.

A prompt is `prefix + record + start`. Prefix and start are public and the same for all contexts of a label; the public
row is `prefix + start`. The prefix comes first, so that all contexts share its cache.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from plainchant.config import Example, PromptForm, SynthesisConfig
from plainchant.data.embedding import CHARACTERS_PER_TOKEN
from plainchant.data.segmentation import chunks, share_of_signs, word_count
from plainchant.errors import ConfigError, ModelError, foreign_messages_hidden
from plainchant.models import LanguageModel

_DEFAULTS = {
    "header": ("Different texts of one kind:\n\n", "Different texts of one kind, each with its label:\n\n"),
    "chat": (
        "Here is a text:\n\n{text}\n\nWrite one new text of the same kind and length. Answer with the text only.",
        "Here is a text with the label {label}:\n\n{text}\n\n"
        "Write one new text of the same kind and length with the label {label}. Answer with the text only.",
    ),
}
# Asks for a text in the chat form where there is none to show, without and with a label.
_ALONE = (
    "Write one new text. Answer with the text only.",
    "Write one new text with the label {label}. Answer with the text only.",
)
# Number of released texts from which an expanded one is written.
EXPANDED_FROM = 2
# Different orders and choices of the public examples, for texts that would otherwise all have the same prompt.
TURNS = 16
# Examples of other labels that such a prompt shows beside those of its own.
OTHERS_SHOWN = 2
# A released text with fewer words, or a larger share of characters that are not letters or spaces, is not used as an
# example (guarantee 8).
FEWEST_WORDS, MOST_SIGNS = 4, 0.2
# Tokens of a prompt for each attribute; what is longer is cut.
ATTRIBUTE_TOKENS = 24
# Where a window of a long record may begin.
_SENTENCE, _WORD = re.compile(r"(?<=[.!?])\s+|\n\s*"), re.compile(r"\s+")
# Characters of a record, for each token that a context holds, among which a window is drawn.
MOST_CHARACTERS = 640
# A line of an entry that says what its field is.
_NAMED = re.compile(r"^([^{}:\n]*\w[^{}:\n]*:)[^\S\n]*\{(?:label|text)\}", re.MULTILINE)
# Where there are no attributes.
NO_LINES: Mapping[str, str] = {}
# A text with a larger share of repeated words counts as a loop.
MOST_REPEATED = 0.5


def field_names(config: SynthesisConfig) -> tuple[str, ...]:
    """What the lines of a prompt's entry begin with: names with their colon, of label, attributes and text.

    >>> paid = {"attributes": {"paid": {"type": "boolean"}}}
    >>> field_names(SynthesisConfig(labels=("bug", "praise"), label_column="kind", columns=paid))
    ('Label:', 'Text:', 'Paid:')
    """
    entry = config.prompt.entry(labelled=bool(config.labels))
    return (*(name.strip() for name in _NAMED.findall(entry)), *config.columns.fields)


def choose_examples(texts: Sequence[str], count: int, like: Sequence[Example] = ()) -> list[str]:
    """Chooses examples from a cell's released texts: not degenerate, and as different as possible (guarantee 8).

    Depends only on the released texts, their order and public examples, so a resumed run chooses the same.

    Args:
        texts: released texts.
        count: how many to choose, at most.
        like: public examples. What is degenerate in one of them is the data's form (lists, code), and no reason.

    >>> choose_examples(["the bus was late again", "the bus was late today", "a lamp is broken here", "no no no no"], 2)
    ['the bus was late again', 'a lamp is broken here']
    """
    reasons = [reason for reason in _DEGENERATE if not any(reason(example.text) for example in like)]
    words = {text: frozenset(chunks(text.lower())) for text in texts if not any(reason(text) for reason in reasons)}
    # for each remaining text, its similarity to the nearest chosen one
    left = dict.fromkeys(words, 0.0)
    chosen: list[str] = []
    while left and len(chosen) < count:
        # ties go to the earlier text
        chosen.append(min(left, key=left.__getitem__))
        del left[chosen[-1]]
        left = {text: max(near, _overlap(words[text], words[chosen[-1]])) for text, near in left.items()}
    return chosen


def turned(examples: Sequence[Example], label: str | None, turn: int) -> list[Example]:
    """Public examples in another order and choice: all of the label's own, last, after some of others (guarantee 8).

    Where none has the label, two thirds of all. Turn 0: as a record's prompt shows them.

    Args:
        examples: the configuration's.
        label: the label that a text is to have, or None.
        turn: which order and choice, public; the same one gives the same.

    >>> some = [Example(text=name, label=name[0]) for name in ("x1", "x2", "y1", "y2", "z1")]
    >>> [example.text for example in turned(some, "x", 0)], [example.label for example in turned(some, "z", 1)][2:]
    (['x1', 'x2'], ['z'])
    """
    own = [example for example in examples if example.label == label]
    if not turn:
        return own or list(examples)
    others = [example for example in examples if example.label != label]
    chance = np.random.default_rng(turn)
    count = OTHERS_SHOWN if own else -(-2 * len(others) // 3)
    return [
        *(others[place] for place in chance.permutation(len(others))[:count]),
        *(own[place] for place in chance.permutation(len(own))),
    ]


def _is_short(text: str) -> bool:
    return word_count(text) < FEWEST_WORDS


def repetitive(text: str) -> bool:
    """More than half of its words come again."""
    words = chunks(text.lower())
    return len(set(words)) < (1 - MOST_REPEATED) * len(words)


def _is_signs(text: str) -> bool:
    return share_of_signs(text) > MOST_SIGNS


_DEGENERATE = (_is_short, repetitive, _is_signs)


def _overlap(one: frozenset[str], other: frozenset[str]) -> float:
    """Jaccard similarity."""
    return len(one & other) / len(one | other)


def _without_stop(text: str, stop: str) -> str:
    """Replaces what would end a text, so that none of it is left; in time proportional to the text's length.

    A mark at the start of a line goes, and the line stays. Anything else becomes a space, with the white space around.
    """
    if stop.isspace():
        marks = "\r\n" if stop == "\n" else stop

        def one_space(run: re.Match[str]) -> str:
            found = stop in run[0] if len(stop) > 1 else any(mark in run[0] for mark in marks)
            return " " if found else run[0]

        # each run of white space is visited once
        return re.sub(r"\s+", one_space, text)
    if stop.startswith("\n"):
        mark = re.escape(stop[1:])
        # a text begins at the start of a line
        if leading := re.match(rf"(?:\s*{mark})+\s*", text):
            text = text[leading.end() :]
        # a mark has no line break, so what is left before and after one that goes cannot make another
        return re.sub(rf"\n(?:{mark}[^\S\n]*)+", "\n", text)
    first, *others = text.split(stop)
    if not others:
        return text
    # not a part of the stop, so that it cannot make another
    gap = next((gap for gap in " \n\t" if gap not in stop), "\ufffd")
    return gap.join([first.rstrip(), *(part.strip() for part in others[:-1]), others[-1].lstrip()])


def _with_attributes(template: str) -> str:
    """A template of an entry that says where attributes stand: if it does not say so, before the line of the text."""
    if "{attributes}" in template:
        return template
    before, text, after = template.partition("{text}")
    line = before.rfind("\n") + 1
    return before[:line] + "{attributes}" + before[line:] + text + after


class Shown(NamedTuple):
    """A public or released text in a prompt, with its label and its attributes, a line each."""

    text: str
    label: str | None
    attributes: str


class Templates:
    r"""The strings of a prompt, for one configuration; no model is needed.

    Attributes:
        form: whether a model continues a list or answers a message.
        stop: a string in the released text that ends it (guarantee 4.6); None where only end-of-text does.

    >>> Templates(SynthesisConfig()).public_prompt(None, ["a lamp is broken"])
    'Different texts of one kind:\n\nText: a lamp is broken\n\nText:'
    """

    def __init__(self, config: SynthesisConfig, form: PromptForm | None = None):
        """Those of a configuration; `form` replaces its own."""
        prompt = config.prompt
        self._config = config

        def template(name: str) -> str:
            own = getattr(prompt, name)
            return str(own if own is not None else _DEFAULTS[name][bool(config.labels)])

        self._header = template("header")
        self._example = _with_attributes(prompt.entry(labelled=bool(config.labels)))
        self._chat = self._asking(template("chat"))
        self.form = form or prompt.form
        self._is_chat = self.form is PromptForm.CHAT
        self.stop = config.stop_in(self.form)

    def _asking(self, message: str) -> str:
        """A message that says where the attributes of the new text stand: if it does not say so, at its end."""
        if not self._config.columns.attributes or "{attributes}" in message:
            return message
        return message + "\nThe attributes of the new text:\n{attributes}"

    def _for(self, label: str | None, template: str) -> str:
        """A template with a label as prompts show it."""
        return template.replace("{label}", self._config.prompt.shown(label))

    def public_prompt(
        self,
        label: str | None,
        released: Sequence[str] = (),
        turn: int = 0,
        *,
        attributes: str = "",
        lines: Mapping[str, str] = NO_LINES,
    ) -> str:
        """A whole prompt that shows no record, for a model that is sent strings; in chat form the user's message.

        In chat form the last shown text stands where a record would: the message asks for another one like it.

        Args:
            label: the label, or None.
            released: texts that are already released (guarantee 8).
            turn: which order and choice of the examples (`turned`).
            attributes: those of the row that the text is written for, a line each; released.
            lines: the attributes of each released text, a line each.
        """
        if not self._is_chat:
            start = self._frame(label)[0].replace("{attributes}", attributes)
            return self._header + self._shown(label, released, turn, lines) + start
        shown = self._public_examples(label, released, turn, lines)
        if not shown and self._config.prompt.chat is None:
            message = self._asking(_ALONE[bool(self._config.labels)])
            return self._for(label, message).replace("{attributes}", attributes)
        last = shown[-1].attributes + shown[-1].text if shown else ""
        message = self._for(label, self._chat).replace("{attributes}", attributes)
        return self._listed(shown[:-1]) + message.replace("{text}", last)

    def _public_examples(
        self, label: str | None, released: Sequence[str], turn: int, lines: Mapping[str, str]
    ) -> list[Shown]:
        own, shown_of = turned(self._config.prompt.examples, label, turn), self._config.columns.shown_of
        return [
            *(Shown(example.text, example.label, shown_of(example.attributes)) for example in own),
            *(Shown(text, label, lines.get(text, "")) for text in released),
        ]

    def _listed(self, shown: Sequence[Shown]) -> str:
        return "".join(
            self._for(own.label, self._example).replace("{attributes}", own.attributes).replace("{text}", own.text)
            for own in shown
        )

    def _shown(self, label: str | None, released: Sequence[str], turn: int, lines: Mapping[str, str]) -> str:
        return self._listed(self._public_examples(label, released, turn, lines))

    def _frame(self, label: str | None) -> tuple[str, str, str]:
        """The strings before and after a text; a space before it belongs to the text, as for tokenisers."""
        before, _, after = self._for(label, self._example).partition("{text}")
        stripped = before.rstrip(" ")
        return stripped, before[len(stripped) :], after.replace("{attributes}", "")


class Prompts(Templates):
    """Token ids of every part of a prompt, for one configuration and one model.

    Attributes:
        longest: maximum tokens of a context, its text included: public.

    >>> from plainchant.models.table import TableModel  # its characters are its tokens; others are left out
    >>> model = TableModel(["<end>", *"abcdefghijklmnopqrstuvwxyz :DT"], lambda row: [0.0] * 31, end_of_text={0})
    >>> prompts = Prompts(SynthesisConfig(), model)
    >>> model.decode(prompts.prefix(None)), model.decode(prompts.records(["a lamp is broken"], None))
    ('Different texts of one kind:', 'Text: a lamp is broken')
    """

    def __init__(self, config: SynthesisConfig, model: LanguageModel, form: PromptForm | None = None):
        """Those of a configuration; `form` replaces its own."""
        super().__init__(config, form)
        self._model = model
        self._attribute_room = ATTRIBUTE_TOKENS * len(config.columns.attributes)
        self.longest = self._check_lengths()

    def prefix(
        self, label: str | None, released: Sequence[str] = (), turn: int = 0, lines: Mapping[str, str] = NO_LINES
    ) -> list[int]:
        """The public part before the record: header and public examples, those of the label where there are any.

        Args:
            label: the label, or None.
            released: texts that are already released, shown like examples of this label (guarantee 8).
            turn: for prompts without a record, which order and choice of the examples (`turned`); 0 where another one
                would need more room than a prompt with a record.
            lines: the attributes of each released text, a line each.
        """
        shown = self._shown(label, released, turn, lines)
        head = self._chat_parts(label, shown)[0] if self._is_chat else self._header + shown
        tokens = [*self._model.start_tokens, *self._model.encode(head, trusted=True)]
        further = self._attribute_room + self._config.max_tokens
        if released:
            after = len(self.start(label)) + self._room(label) + further
            if len(tokens) + after > self._model.context_length:
                # what was released may take more tokens than were planned for it, such as long values of attributes
                return self.prefix(label, released[:-1], turn, lines)
        if turn and len(tokens) + len(self.start(label)) + further > self.longest:
            return self.prefix(label, released, lines=lines)
        return tokens

    def record(self, text: str, label: str | None, attributes: str = "") -> list[int]:
        """The record's part of a prompt, cut after `max_record_tokens`: depends on this record alone. Secret."""
        body = self.body(text, label)
        if self._is_chat:
            return [*self._attributes(attributes), *body]
        before, _, after = self._frame(label)
        return [*self._before(before, attributes), *body, *self._model.encode(after, trusted=True)]

    def part(self, text: str, draw: Callable[[int], int]) -> str:
        """What of a record its prompts show: all, or a long one from where its window begins.

        Such parts are shown with `record_part = "window"`. They begin with a sentence or a line, or else with a word,
        and the last one still fills a context. A function of this text and of the number that is drawn for it alone
        (guarantee 3.4). Secret.

        Args:
            text: a record's text.
            draw: an integer uniform below a bound, drawn afresh and independently of all others.
        """
        if self._config.record_part == "head":
            return text
        most = self._config.max_record_tokens
        text = text.strip()[: MOST_CHARACTERS * most]
        with foreign_messages_hidden("the language model's tokenizer"):
            tokens = len(self._model.encode(text, trusted=False))
        if tokens <= most:
            return text
        last = len(text) * (tokens - most) // tokens
        for begins in (_SENTENCE, _WORD):
            starts = [0, *(found.end() for found in begins.finditer(text, 0, last))]
            if len(starts) > 1:
                break
        return text[starts[draw(len(starts))] :]

    def body(self, text: str, label: str | None) -> list[int]:
        """A text's own tokens in a prompt, cut after `max_record_tokens`: depends on this text alone. Secret as it is.

        Args:
            text: a record's text, or any other.
            label: the label of the prompt, or None.
        """
        if self.stop is not None:
            # a record must not look like several entries
            text = _without_stop(text, self.stop)
        # cut first: the tokenizer never sees more characters than the kept tokens can hold
        text = text.strip()[: CHARACTERS_PER_TOKEN * self._config.max_record_tokens]
        space = "" if self._is_chat else self._frame(label)[1]
        return self._model.encode(space + text, trusted=False)[: self._config.max_record_tokens]

    def _before(self, before: str, attributes: str) -> list[int]:
        """What stands before a text; attributes are text, whatever they hold."""
        head, _, tail = before.partition("{attributes}")
        if not attributes:
            return self._model.encode(head + tail, trusted=True)
        return [
            *self._model.encode(head, trusted=True),
            *self._attributes(attributes),
            *self._model.encode(tail, trusted=True),
        ]

    def _attributes(self, attributes: str) -> list[int]:
        """Attributes, a line each, cut at a public length: where they are too long, each line by itself."""
        tokens = self._model.encode(attributes, trusted=False) if attributes else []
        if len(tokens) <= self._attribute_room:
            return tokens
        end = self._model.encode("\n", trusted=False)
        lines = (self._model.encode(line, trusted=False) for line in attributes.rstrip("\n").split("\n"))
        cut = [token for line in lines for token in (*line[: ATTRIBUTE_TOKENS - len(end)], *end)]
        return cut[: self._attribute_room]

    def records(self, texts: Sequence[str], label: str | None, attributes: Sequence[str] = ()) -> list[int]:
        """The records' part of a context with several records (guarantee 3.3), cut at a public length. Secret.

        A context may get more units than expected; what is then cut depends on this context alone.
        """
        with foreign_messages_hidden("the language model's tokenizer"):
            own = zip(texts, attributes or [""] * len(texts), strict=True)
            tokens = [token for text, shown in own for token in self.record(text, label, shown)]
        return tokens[: self._room(label)]

    def _room(self, label: str | None) -> int:
        """Maximum tokens of the records of a context, public: enough for the expected number of records."""
        own = self._config.max_record_tokens + len(self.record("", label)) + self._attribute_room
        return self._config.records_per_context * own

    def start(self, label: str | None, attributes: str = "") -> list[int]:
        """The end of every context, the public one included: the beginning of a new entry.

        Args:
            label: the label, or None.
            attributes: those of the row that the text is written for, a line each; released.
        """
        text = self._chat_parts(label)[1] if self._is_chat else self._frame(label)[0]
        return self._before(text, attributes)

    def _chat_parts(self, label: str | None, shown: str = "") -> tuple[str, str]:
        # characters that a template would change if it escapes its messages (JSON, HTML)
        mark = '\x00<"record">\x00'
        message = shown + self._for(label, self._chat).replace("{text}", mark)
        formatted = self._model.chat(message)
        if formatted.count(mark) != 1:
            raise ModelError(
                f"model {self._model.name!r}: its chat template does not show a user's message once and unchanged (it "
                "quotes, changes, drops or repeats it), so it cannot hold a record; use prompt.form = 'examples', "
                "or fix chat_template.jinja (or chat_template in tokenizer_config.json)"
            )
        before, _, after = formatted.partition(mark)
        return before.replace("{attributes}", ""), after

    def _check_lengths(self) -> int:
        """Maximum tokens of a context; raises ConfigError where the model has no room for them."""
        config, longest = self._config, 0
        for label in config.label_set:
            room = self._attribute_room
            fixed = len(self.prefix(label)) + len(self.record("", label)) + len(self.start(label)) + room
            if not self.start(label):
                raise ConfigError("prompt.example: needs some text before {text}, for the model to continue")
            # a released text has at most max_tokens; encoding the decoded text again may give a few more
            entry = 2 * config.max_tokens + len(self.record("", label)) + len(self.start(label)) + room
            shown = max(config.parts.released_examples, EXPANDED_FROM * bool(config.further))
            # the empty record is in `fixed` already
            own = self._room(label) - len(self.record("", label))
            needed = fixed + own + config.max_tokens + shown * entry
            longest = max(longest, needed)
            if needed > self._model.context_length:
                raise ConfigError(
                    f"max_record_tokens = {config.max_record_tokens} and max_tokens = {config.max_tokens} with a "
                    f"prompt of {fixed} tokens need {needed}, more than the model's {self._model.context_length}; "
                    "lower one"
                )
        return longest
