"""Contexts: the public part of a prompt, the record's part, and the start of the new text.

A prompt is `prefix + record + start`. Prefix and start are public and the same for all contexts of a label; the public
row is `prefix + start`. The prefix comes first, so that all contexts share its cache.
"""

import re
from collections.abc import Mapping, Sequence

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
# A released text with fewer words, or a larger share of characters that are not letters or spaces, is not used as an
# example (guarantee 8).
FEWEST_WORDS, MOST_SIGNS = 4, 0.2
# Tokens of a prompt for each attribute; what is longer is cut.
ATTRIBUTE_TOKENS = 24
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


def _with_attributes(template: str) -> str:
    """A template of an entry that says where attributes stand: if it does not say so, before the line of the text."""
    if "{attributes}" in template:
        return template
    before, text, after = template.partition("{text}")
    line = before.rfind("\n") + 1
    return before[:line] + "{attributes}" + before[line:] + text + after


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
        self._example = _with_attributes(template("example"))
        self._attribute_room = ATTRIBUTE_TOKENS * len(config.columns.attributes)
        self._chat = template("chat")
        if config.columns.attributes and "{attributes}" not in self._chat:
            self._chat += "\nThe attributes of the new text:\n{attributes}"
        self._is_chat = prompt.form is PromptForm.CHAT
        after = self._example.partition("{text}")[2]
        # a text is one line where the template ends it with a line break
        self.stop = None if self._is_chat or not after else ("\n" if after.startswith("\n") else after)
        self.longest = self._check_lengths()

    def prefix(
        self, label: str | None, released: Sequence[str] = (), attributes: Mapping[str, str] | None = None
    ) -> list[int]:
        """The public part before the record: header and public examples, those of the label where there are any.

        Args:
            label: the label, or None.
            released: texts that are already released, shown like examples of this label (guarantee 8).
            attributes: the attributes of each released text, a line each.
        """
        shown = self._shown(label, released, attributes or {})
        head = self._chat_parts(label, shown)[0] if self._is_chat else self._header + shown
        return [*self._model.start_tokens, *self._model.encode(head, trusted=True)]

    def record(self, text: str, label: str | None, attributes: str = "") -> list[int]:
        """The record's part of a prompt, cut after `max_record_tokens`: depends on this record alone. Secret."""
        if self.stop is not None:
            # a record must not look like several entries: what would end a text becomes a space
            text = _without_stop(text, self.stop)
        # cut first: the tokenizer never sees more characters than the kept tokens can hold
        text = text.strip()[: CHARACTERS_PER_TOKEN * self._config.max_record_tokens]
        if self._is_chat:
            body = self._model.encode(text, trusted=False)[: self._config.max_record_tokens]
            return [*self._attributes(attributes), *body]
        before, space, after = self._frame(label)
        body = self._model.encode(space + text, trusted=False)[: self._config.max_record_tokens]
        return [*self._before(before, attributes), *body, *self._model.encode(after, trusted=True)]

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
        """Attributes, a line each, cut at a public length."""
        return self._model.encode(attributes, trusted=False)[: self._attribute_room] if attributes else []

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

    def _shown(self, label: str | None, released: Sequence[str], attributes: Mapping[str, str]) -> str:
        examples: Sequence[Example] = self._config.prompt.examples
        own = [example for example in examples if example.label == label] or examples
        shown_of = self._config.columns.shown_of
        shown = [(example.text, example.label, shown_of(example.attributes)) for example in own]
        shown += [(text, label, attributes.get(text, "")) for text in released]
        return "".join(
            self._example.replace("{label}", name or "").replace("{attributes}", lines).replace("{text}", text)
            for text, name, lines in shown
        )

    def _frame(self, label: str | None) -> tuple[str, str, str]:
        """The strings before and after a text; a space before it belongs to the text, as for tokenisers."""
        before, _, after = self._example.replace("{label}", label or "").partition("{text}")
        stripped = before.rstrip(" ")
        return stripped, before[len(stripped) :], after.replace("{attributes}", "")

    def _chat_parts(self, label: str | None, shown: str = "") -> tuple[str, str]:
        # characters that a template would change if it escapes its messages (JSON, HTML)
        mark = '\x00<"record">\x00'
        message = shown + self._chat.replace("{label}", label or "").replace("{text}", mark)
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
