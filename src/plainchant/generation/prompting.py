"""Contexts: the public part of a prompt, the record's part, and the start of the new text.

A prompt is `prefix + record + start`. Prefix and start are public and the same for all contexts of a label; the public
row is `prefix + start`. The prefix comes first, so that all contexts share its cache.
"""

import re
from collections.abc import Sequence

import numpy as np

from plainchant.config import Example, PromptForm, SynthesisConfig
from plainchant.data.embedding import CHARACTERS_PER_TOKEN
from plainchant.data.segmentation import chunks, share_of_signs, word_count
from plainchant.errors import ConfigError, ModelError, foreign_messages_hidden
from plainchant.models import LanguageModel

_DEFAULTS = {
    "header": ("Different texts of one kind:\n\n", "Different texts of one kind, each with its label:\n\n"),
    "example": ("Text: {text}\n\n", "Label: {label}\nText: {text}\n\n"),
    "chat": (
        "Here is a text:\n\n{text}\n\nWrite one new text of the same kind and length. Answer with the text only.",
        "Here is a text with the label {label}:\n\n{text}\n\n"
        "Write one new text of the same kind and length with the label {label}. Answer with the text only.",
    ),
}
# Number of released texts from which an expanded one is written.
EXPANDED_FROM = 2
# Different orders and choices of the public examples, for texts that would otherwise all have the same prompt.
TURNS = 16
# Examples of other labels that such a prompt shows beside those of its own.
OTHERS_SHOWN = 2
# A released text with fewer words, or a larger share of characters that are not letters or spaces, is not used as an
# example (guarantee 8).
FEWEST_WORDS, MOST_SIGNS = 4, 0.2
# A text with a larger share of repeated words counts as a loop.
MOST_REPEATED = 0.5


def choose_examples(texts: Sequence[str], count: int) -> list[str]:
    """Chooses examples from a cell's released texts: not degenerate, and as different as possible (guarantee 8).

    Depends only on the released texts and their order, so a resumed run chooses the same.

    >>> choose_examples(["the bus was late again", "the bus was late today", "a lamp is broken here", "no no no no"], 2)
    ['the bus was late again', 'a lamp is broken here']
    """
    words = {text: frozenset(chunks(text.lower())) for text in texts if not _is_degenerate(text)}
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


def _is_degenerate(text: str) -> bool:
    words = chunks(text.lower())
    if word_count(text) < FEWEST_WORDS or len(set(words)) < (1 - MOST_REPEATED) * len(words):
        return True
    return share_of_signs(text) > MOST_SIGNS


def _overlap(one: frozenset[str], other: frozenset[str]) -> float:
    """Jaccard similarity."""
    return len(one & other) / len(one | other)


def _without_stop(text: str, stop: str) -> str:
    """Replaces each stop, with the white space around it, by a space; in time proportional to the text's length."""
    if stop.isspace():
        marks = "\r\n" if stop == "\n" else stop

        def one_space(run: re.Match[str]) -> str:
            found = stop in run[0] if len(stop) > 1 else any(mark in run[0] for mark in marks)
            return " " if found else run[0]

        # each run of white space is visited once
        return re.sub(r"\s+", one_space, text)
    first, *others = text.split(stop)
    if not others:
        return text
    return " ".join([first.rstrip(), *(part.strip() for part in others[:-1]), others[-1].lstrip()])


class Prompts:
    """Token ids of every part of a prompt, for one configuration and one model.

    Attributes:
        stop: a string in the released text that ends it (guarantee 4.6); None where only end-of-text does.
        longest: maximum tokens of a context, its text included: public.

    >>> from plainchant.models.table import TableModel  # its characters are its tokens; others are left out
    >>> model = TableModel(["<end>", *"abcdefghijklmnopqrstuvwxyz :DT"], lambda row: [0.0] * 31, end_of_text={0})
    >>> prompts = Prompts(SynthesisConfig(), model)
    >>> model.decode(prompts.prefix(None)), model.decode(prompts.records(["a lamp is broken"], None))
    ('Different texts of one kind:', 'Text: a lamp is broken')
    """

    def __init__(self, config: SynthesisConfig, model: LanguageModel):
        prompt = config.prompt
        self._model = model
        self._config = config

        def template(name: str) -> str:
            own = getattr(prompt, name)
            return str(own if own is not None else _DEFAULTS[name][bool(config.labels)])

        self._header = template("header")
        self._example = template("example")
        self._chat = template("chat")
        self._is_chat = prompt.form is PromptForm.CHAT
        after = self._example.partition("{text}")[2]
        # a text is one line where the template ends it with a line break
        self.stop = None if self._is_chat or not after else ("\n" if after.startswith("\n") else after)
        self.longest = self._check_lengths()

    def prefix(self, label: str | None, released: Sequence[str] = (), turn: int = 0) -> list[int]:
        """The public part before the record: header and public examples, those of the label where there are any.

        Args:
            label: the label, or None.
            released: texts that are already released, shown like examples of this label (guarantee 8).
            turn: for prompts without a record, which order and choice of the examples (`turned`); 0 where another one
                would need more room than a prompt with a record.
        """
        if self._is_chat:
            head = self._chat_parts(label, released, turn)[0]
        else:
            head = self._header + self._shown(label, released, turn)
        tokens = [*self._model.start_tokens, *self._model.encode(head, trusted=True)]
        if turn and len(tokens) + len(self.start(label)) + self._config.max_tokens > self.longest:
            return self.prefix(label, released)
        return tokens

    def record(self, text: str, label: str | None) -> list[int]:
        """The record's part of a prompt, cut after `max_record_tokens`: depends on this record alone. Secret."""
        if self.stop is not None:
            # a record must not look like several entries: what would end a text becomes a space
            text = _without_stop(text, self.stop)
        # cut first: the tokenizer never sees more characters than the kept tokens can hold
        text = text.strip()[: CHARACTERS_PER_TOKEN * self._config.max_record_tokens]
        if self._is_chat:
            return self._model.encode(text, trusted=False)[: self._config.max_record_tokens]
        before, space, after = self._frame(label)
        body = self._model.encode(space + text, trusted=False)[: self._config.max_record_tokens]
        return [*self._model.encode(before, trusted=True), *body, *self._model.encode(after, trusted=True)]

    def records(self, texts: Sequence[str], label: str | None) -> list[int]:
        """The records' part of a context with several records (guarantee 3.3), cut at a public length. Secret.

        A context may get more units than expected; what is then cut depends on this context alone.
        """
        with foreign_messages_hidden("the language model's tokenizer"):
            tokens = [token for text in texts for token in self.record(text, label)]
        return tokens[: self._room(label)]

    def _room(self, label: str | None) -> int:
        """Maximum tokens of the records of a context, public: enough for the expected number of records."""
        return self._config.records_per_context * (self._config.max_record_tokens + len(self.record("", label)))

    def start(self, label: str | None) -> list[int]:
        """The end of every context, the public one included: the beginning of a new entry."""
        text = self._chat_parts(label)[1] if self._is_chat else self._frame(label)[0]
        return self._model.encode(text, trusted=True)

    def _shown(self, label: str | None, released: Sequence[str] = (), turn: int = 0) -> str:
        own = turned(self._config.prompt.examples, label, turn)
        shown = [*own, *(Example(text=text, label=label) for text in released)]
        return "".join(
            self._example.replace("{label}", example.label or "").replace("{text}", example.text) for example in shown
        )

    def _frame(self, label: str | None) -> tuple[str, str, str]:
        """The strings before and after a text; a space before it belongs to the text, as for tokenisers."""
        before, _, after = self._example.replace("{label}", label or "").partition("{text}")
        stripped = before.rstrip(" ")
        return stripped, before[len(stripped) :], after

    def _chat_parts(self, label: str | None, released: Sequence[str] = (), turn: int = 0) -> tuple[str, str]:
        # characters that a template would change if it escapes its messages (JSON, HTML)
        mark = '\x00<"record">\x00'
        message = self._shown(label, released, turn) + self._chat.replace("{label}", label or "").replace(
            "{text}", mark
        )
        formatted = self._model.chat(message)
        if formatted.count(mark) != 1:
            raise ModelError(
                f"model {self._model.name!r}: its chat template does not show a user's message once and unchanged (it "
                "quotes, changes, drops or repeats it), so it cannot hold a record; use prompt.form = 'examples', "
                "or fix chat_template.jinja (or chat_template in tokenizer_config.json)"
            )
        before, _, after = formatted.partition(mark)
        return before, after

    def _check_lengths(self) -> int:
        """Maximum tokens of a context; raises ConfigError where the model has no room for them."""
        config, longest = self._config, 0
        for label in config.label_set:
            fixed = len(self.prefix(label)) + len(self.record("", label)) + len(self.start(label))
            if not self.start(label):
                raise ConfigError("prompt.example: needs some text before {text}, for the model to continue")
            # a released text has at most max_tokens; encoding the decoded text again may give a few more
            entry = 2 * config.max_tokens + len(self.record("", label)) + len(self.start(label))
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
