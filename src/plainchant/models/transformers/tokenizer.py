"""A model's tokenizer: which ids represent no text, and which ids untrusted text never yields (guarantee 4.2, 9)."""

import re
from collections.abc import Sequence
from typing import Any

from plainchant.errors import ModelError

_TURN_ENDS = ("<end_of_turn>", "<|im_end|>", "<|endoftext|>", "<|eot_id|>", "<|end_of_text|>", "<|end|>")
_CONTROL_NAME = re.compile(r"<unused\d+>|<(?:start|end)_of_\w+>|\[multimodal\]|<\|.*\|>")


class TextCoder:
    """Texts to token ids and back.

    Args:
        name: the model's name in messages.
        tokenizer: a tokenizer of transformers.
        width: V, the width of the model's logits.
        declared_ends: ids that end a text according to the model's configurations; entries may be lists or None.
    """

    def __init__(self, name: str, tokenizer: Any, width: int, declared_ends: Sequence[Any]) -> None:
        self._name, self._tokenizer, self._width = name, tokenizer, width
        self.end_of_text = _end_of_text(tokenizer, declared_ends)
        self.special = self.end_of_text | _special(tokenizer, width)
        self.start_tokens = _start_tokens(tokenizer)
        self.largest_id = max(set(tokenizer.get_vocab().values()) - self.special, default=-1)

    def encode(self, text: str, *, trusted: bool) -> list[int]:
        """Token ids of a text, without `start_tokens`.

        In untrusted text the names of special tokens are broken by a space after their first character; special ids
        that remain (a character that the vocabulary lacks) are dropped. Both are functions of that text alone
        (guarantee 9).

        Raises:
            ModelError: a trusted text names a special token for which the model has no row.
        """
        # Tokenizers refuse lone surrogates, with the text in the message.
        text = text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
        tokens = self._encode(text)
        if trusted:
            if beyond := sorted({token for token in tokens if token >= self._width}):
                token = self._tokenizer.convert_ids_to_tokens(beyond[0])
                raise ModelError(
                    f"prompt: names the token {token!r} (id {beyond[0]}), for which model {self._name!r} with its "
                    f"{self._width} ids has no embedding; leave it out"
                )
            return tokens
        for _ in range(3):  # breaking a name can complete another
            names = {self._tokenizer.convert_ids_to_tokens(i) for i in self.special.intersection(tokens)}
            if not any(name in text for name in names):
                break
            for name in sorted(names, key=lambda name: (-len(name), name)):
                text = text.replace(name, f"{name[0]} {name[1:]}")
            tokens = self._encode(text)
        return [i for i in tokens if i not in self.special]

    def _encode(self, text: str) -> list[int]:
        return list(self._tokenizer.encode(text, add_special_tokens=False, verbose=False))

    def decode(self, tokens: Sequence[int]) -> str:
        """The text of token ids, special ids left out."""
        kept = [int(i) for i in tokens if i not in self.special]
        return str(self._tokenizer.decode(kept, clean_up_tokenization_spaces=False))

    def chat(self, user: str) -> str:
        """A user's message in the model's chat format, without the text of `start_tokens` (trusted text).

        Raises:
            ModelError: there is no chat template, or it cannot be used with a user's message alone.
        """
        if not self._tokenizer.chat_template:
            raise ModelError(
                f"model {self._name!r} has no chat template; use a prompt that continues a list of examples"
            )
        messages = [{"role": "user", "content": user}]
        try:
            text = self._tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
        except Exception as error:  # a template is other people's program and may raise anything
            line = getattr(error, "lineno", None)
            place = "" if line is None else f" in line {line}"
            said = " ".join(str(error).split())[:200].replace("unexpected", "misplaced")
            raise ModelError(
                f"model {self._name!r}: its chat template fails{place} on a user's message alone "
                f"({type(error).__name__}: {said}); use prompt.form = 'examples', or "
                "fix chat_template.jinja (or chat_template in tokenizer_config.json)"
            ) from error
        return str(text).removeprefix(self._tokenizer.decode(list(self.start_tokens)))


def _end_of_text(tokenizer: Any, declared: Sequence[Any]) -> frozenset[int]:
    vocabulary = tokenizer.get_vocab()
    ids = [vocabulary.get(name) for name in _TURN_ENDS]
    for value in (*declared, getattr(tokenizer, "eos_token_id", None)):
        ids.extend(value if isinstance(value, (list, tuple)) else [value])
    return frozenset(int(i) for i in ids if i is not None)


def _special(tokenizer: Any, width: int) -> frozenset[int]:
    """Ids that represent no text: flagged, named like control tokens, or without a token in the tokenizer."""
    added = tokenizer.added_tokens_decoder.items()
    flagged = {i for i, token in added if token.special or _CONTROL_NAME.fullmatch(token.content)}
    return frozenset(
        {*tokenizer.all_special_ids, *flagged, *set(range(width)).difference(tokenizer.get_vocab().values())}
    )


def _start_tokens(tokenizer: Any) -> tuple[int, ...]:
    first = tokenizer.encode("a")[:1]
    return tuple(first) if first and first[0] == tokenizer.bos_token_id else ()
