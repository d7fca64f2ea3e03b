"""A model behind an OpenAI-compatible endpoint (guarantee 8.4): the one module that opens a connection.

It is given public and released text only, and what comes back is as untrusted as any file from elsewhere.
"""

import email.utils
import json
import os
import queue
import ssl
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from plainchant.config import PromptForm, is_loopback
from plainchant.data.marks import visible
from plainchant.data.values import clean
from plainchant.errors import ConfigError, MissingDependencyError, ModelError, PlainchantError

KEY = "PLAINCHANT_API_KEY"
# Where, and only where, the key of that name is used in place of `KEY`.
OPENAI, OPENAI_KEY = "https://api.openai.com", "OPENAI_API_KEY"
# How often a request is sent before the run is given up, and how often when all that comes back is an empty text.
TRIES, EMPTY_TRIES = 8, 3
# Seconds before the second try, doubled each time, and the most; the longest wait that a server may ask for.
FIRST_PAUSE, LONGEST_PAUSE, LONGEST_WAIT = 0.5, 30.0, 600.0
CONNECT_SECONDS = 10.0
# An answer with more bytes is none.
LARGEST_ANSWER = 2**22
# Statuses that another try may mend: time-outs, conflicts, rate limits; beside them every 5xx.
_PASSING = frozenset({408, 409, 425, 429})
# Characters of a server's own explanation that an error shows.
_SHOWN = 200

Entry = dict[str, Any]
# Stands in place of a place where a text is asked for that nobody uses.
TRIAL = (-1, -1)


@dataclass(frozen=True)
class Job:
    """A text to ask for.

    Attributes:
        place: where it will stand, a batch and a position; or TRIAL.
        path: under the endpoint's address.
        body: of the request.
    """

    place: tuple[int, int]
    path: str
    body: Mapping[str, Any]


@dataclass(frozen=True)
class Answer:
    """What an endpoint has written.

    Attributes:
        text: without control characters; may be empty.
        tokens: how many tokens it says it has written; None where it does not say.
        is_cut: whether it stopped because there were as many tokens as it was asked for.
    """

    text: str
    tokens: int | None
    is_cut: bool


def job_for(
    place: tuple[int, int], model: str, prompt: str, form: PromptForm, *, max_tokens: int, temperature: float,
    stop: str | None,
) -> Job:  # fmt: skip
    """The request for one text: a plain completion in the examples form, an answer to a user's message in chat form.

    Only fields that every such server knows.

    >>> job_for(TRIAL, "m", "Text:", PromptForm.EXAMPLES, max_tokens=9, temperature=1.0, stop="!").body
    {'model': 'm', 'prompt': 'Text:', 'max_tokens': 9, 'temperature': 1.0, 'stop': ['!']}
    """
    shown = (
        {"messages": [{"role": "user", "content": prompt}]} if form is PromptForm.CHAT else {"prompt": prompt}
    )  # fmt: skip
    body = {"model": model, **shown, "max_tokens": max_tokens, "temperature": temperature}
    if stop is not None:
        body["stop"] = [stop]
    return Job(place, "chat/completions" if form is PromptForm.CHAT else "completions", body)


class _Passing(Exception):
    """What another try may mend: the reason, for people, and the seconds that the server asks for."""

    def __init__(self, reason: str, wait: float | None = None, *, is_limit: bool = False):
        super().__init__(reason)
        self.reason, self.wait, self.is_limit = reason, wait, is_limit


class Endpoint:
    """A model behind an address. Safe to use from several threads.

    Args:
        address: the base, such as http://localhost:8000/v1; checked by `config.check_address`.
        model: its name there.
        timeout: seconds that an answer may take.
        most: maximum number of requests at the same time.
        log: told of every request before it is sent, and of its outcome; never of the key.

    Raises:
        ConfigError: the key in the environment cannot be sent.
        MissingDependencyError: the client library is not installed.
    """

    def __init__(self, address: str, model: str, *, timeout: float, most: int, log: Callable[[Entry], None]):
        self._address = address.rstrip("/")
        self._model = model
        self._timeout = timeout
        self._most = most
        self._log_to = log
        self._log_lock = threading.Lock()
        self._http = _library()
        self._key = _key(address)
        # seconds of the monotonic clock before which nothing is sent: all requests share a rate limit
        self._not_before = 0.0
        self._answered = 0

    def _opened(self) -> Any:
        """A client with its connections, which end with its block."""
        headers = {"Accept-Encoding": "identity", "User-Agent": "plainchant"}
        if self._key:
            headers["Authorization"] = f"Bearer {self._key}"
        return self._http.Client(
            headers=headers,
            timeout=self._http.Timeout(self._timeout, connect=min(self._timeout, CONNECT_SECONDS)),
            limits=self._http.Limits(max_connections=self._most, max_keepalive_connections=self._most),
            # what goes elsewhere would take the prompt, and perhaps the key, with it
            follow_redirects=False,
            # a proxy of the environment, but not for this machine itself
            trust_env=not is_loopback(self._address),
        )

    def answers(self, jobs: Iterable[Job]) -> Iterator[tuple[Job, Answer]]:
        """The answers as they come, a bounded number of requests at a time.

        If one fails for good, no other is sent, and those under way are yielded before the error is raised.

        Raises:
            ModelError: as the message says.
        """
        outcomes: queue.SimpleQueue[tuple[Job, Answer | BaseException]] = queue.SimpleQueue()
        over = threading.Event()

        def work(client: Any, job: Job) -> None:
            try:
                outcomes.put((job, self._answer(client, job, TRIES, over)))
            except BaseException as error:  # handed to whoever waits
                outcomes.put((job, error))

        waiting, running, failure = iter(jobs), 0, None
        with self._opened() as client:
            try:
                while True:
                    while running < self._most and failure is None and (job := next(waiting, None)) is not None:
                        # daemons: an interrupted process does not wait for answers
                        threading.Thread(target=work, args=(client, job), daemon=True).start()
                        running += 1
                    if not running:
                        break
                    done, outcome = outcomes.get()
                    running -= 1
                    if isinstance(outcome, Answer):
                        yield done, outcome
                    elif failure is None:
                        failure = outcome
                        over.set()
            finally:
                over.set()
        if failure is not None:
            raise failure

    def ask(self, job: Job, *, tries: int = TRIES) -> Answer:
        """The answer to one request, sent again where that may help.

        Args:
            job: the request.
            tries: how often it is sent at most; at a rate limit, so often in a row without an
                answer to anybody.

        Raises:
            ModelError: as the message says.
        """
        with self._opened() as client:
            return self._answer(client, job, tries, threading.Event())

    def _answer(self, client: Any, job: Job, tries: int, over: threading.Event) -> Answer:
        """See `ask`; once `over` is set, nobody waits for the answer any more, and it is not sent again."""
        left, empty, sent, answered = tries, EMPTY_TRIES, 0, self._answered
        while True:
            self._wait(over)
            if over.is_set():
                raise self._error(f"was not asked any more; {_GOES_ON}")
            sent += 1
            try:
                answer = self._send(client, job, sent)
            except _Passing as passing:
                if passing.is_limit and self._answered != answered:
                    left, answered = tries, self._answered
                left -= 1
                if left <= 0 or over.is_set():
                    raise self._error(f"{passing.reason}, {sent} times; {_GOES_ON}") from None
                self._pause(passing, tries - left, over)
                continue
            self._answered += 1
            empty -= 1
            if answer.text.strip() or not empty or over.is_set():
                return answer

    def _wait(self, over: threading.Event) -> None:
        while (rest := self._not_before - time.monotonic()) > 0 and not over.is_set():
            over.wait(rest)

    def _pause(self, passing: _Passing, failures: int, over: threading.Event) -> None:
        """Waits for as long as the server asks, or longer after each failure; at a rate limit all requests wait."""
        if passing.wait is not None and passing.wait > LONGEST_WAIT:
            raise self._error(f"{passing.reason} and asks to wait for {passing.wait:.0f} seconds; {_GOES_ON}") from None
        pause = passing.wait or min(LONGEST_PAUSE, FIRST_PAUSE * 2 ** (failures - 1))
        if passing.is_limit:
            self._not_before = max(self._not_before, time.monotonic() + pause)
        else:
            over.wait(pause)

    def _send(self, client: Any, job: Job, sent: int) -> Answer:
        """Sends a request once.

        Raises:
            _Passing: another try may help.
            ModelError: no other will.
        """
        told = {"place": job.place, "try": sent}
        # nothing leaves that is not written down
        self._log({**told, "to": f"{self._address}/{job.path}", "body": job.body})
        try:
            status, wait, content = self._exchanged(client, job)
        except _Passing as passing:
            self._log({**told, "failed": passing.reason})
            raise
        except PlainchantError:
            self._log({**told, "failed": "for good"})
            raise
        usage = _usage(content)
        self._log({**told, "status": status, **usage})
        if status == 200:
            return self._read(content, usage["completion_tokens"])
        if status in _PASSING or status >= 500:
            raise _Passing(f"answers with status {status}", wait, is_limit=status in (429, 503))
        raise self._refusal(status, content)

    def _exchanged(self, client: Any, job: Job) -> tuple[int, float | None, bytes]:
        """The status, the seconds that the server asks to wait, and the content of an answer."""
        http, began = self._http, time.monotonic()
        try:
            with client.stream("POST", f"{self._address}/{job.path}", json=dict(job.body)) as response:
                content = bytearray()
                for chunk in response.iter_raw():
                    content += chunk
                    if len(content) > LARGEST_ANSWER:
                        raise _Passing(f"answers with more than {LARGEST_ANSWER:,} bytes")
                    # the client's own limit holds for each piece
                    if time.monotonic() - began > self._timeout:
                        raise _Passing(self._late)
                return response.status_code, _seconds(response.headers.get("retry-after")), bytes(content)
        except http.TimeoutException:
            raise _Passing(self._late) from None
        except http.HTTPError as error:
            if _is_about_tls(error):
                raise self._error(
                    "its certificate cannot be verified, or it does not speak TLS; check https:// or http://, and for "
                    "an authority of your own set SSL_CERT_FILE"
                ) from None
            raise _Passing(f"cannot be reached or breaks off ({type(error).__name__})") from None
        except PlainchantError:
            raise
        except _Passing:
            raise
        except Exception as error:  # its message may quote a header
            raise self._error(f"cannot be asked ({type(error).__name__}); check the address") from None

    @property
    def _late(self) -> str:
        return f"has not answered within request_timeout = {self._timeout:g} seconds"

    def _read(self, content: bytes, tokens: int | None) -> Answer:
        try:
            choice = json.loads(content)["choices"][0]
            text = choice["message"]["content"] if "message" in choice else choice["text"]
            if text is None:
                text = ""
            if not isinstance(text, str):
                raise TypeError
        except (ValueError, KeyError, IndexError, TypeError, RecursionError):
            raise _Passing("answers with something else than a completion") from None
        return Answer(clean(text), tokens, choice.get("finish_reason") == "length")

    def _refusal(self, status: int, content: bytes) -> ModelError:
        if status in (401, 403):
            # no word of the server's: it may quote the key
            key = "the key" if self._key else "a request without a key"
            return self._error(f"refuses {key} (status {status}); set {KEY} to a valid one")
        said = f" (status {status}{self._explanation(content)})"
        if 300 <= status < 400:
            return self._error(f"is somewhere else{said}; give the address that it redirects to")
        if status in (404, 405):
            return self._error(
                f"has no model {self._model!r}, or does not answer at this path{said}; check candidate_model and "
                "candidate_endpoint, which usually ends in /v1. Some servers know chat only: candidate_form = chat"
            )
        return self._error(f"refuses the request{said}; change the field it names, or use another model")

    def _explanation(self, content: bytes) -> str:
        """What the server says, short, without the key and without control characters."""
        try:
            error = json.loads(content)["error"]
            message = error["message"] if isinstance(error, dict) else error
        except (ValueError, KeyError, TypeError, RecursionError):
            return ""
        if not isinstance(message, str):
            return ""
        if self._key:
            message = message.replace(self._key, "…")
        return f": {visible(' '.join(message.split()))[:_SHOWN]}"

    def _error(self, what: str) -> ModelError:
        return ModelError(f"candidate_endpoint = {self._address}: {what}")

    def _log(self, entry: Entry) -> None:
        with self._log_lock:
            self._log_to(entry)


_GOES_ON = "finished texts are kept, and --resume goes on"


def _library() -> Any:
    try:
        import httpx2
    except ImportError:
        raise MissingDependencyError("candidate_endpoint needs: pip install 'plainchant[api]'") from None
    return httpx2


def _key(address: str) -> str | None:
    """The key for an address, from the environment; OpenAI's own goes to OpenAI alone."""
    names = [KEY, *([OPENAI_KEY] if (address + "/").startswith(OPENAI + "/") else [])]
    for name in names:
        key = os.environ.get(name, "").strip()
        if not key.isascii() or not key.isprintable() or " " in key:
            raise ConfigError(f"{name}: holds characters that no key has; set it again")
        if key:
            return key
    return None


def _usage(content: bytes) -> dict[str, int | None]:
    """The tokens that an answer says were read and written; None where it says nothing sensible."""
    names = ("prompt_tokens", "completion_tokens")
    try:
        usage = json.loads(content)["usage"]
        values = [usage.get(name) for name in names]
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        values = [None, None]
    return {
        name: value if type(value) is int and 0 <= value < 2**31 else None
        for name, value in zip(names, values, strict=True)
    }


def _seconds(header: str | None) -> float | None:
    """The seconds of a Retry-After header: a number or a date."""
    if header is None:
        return None
    try:
        return max(0.0, float(header)) if header.strip().isdecimal() else max(
            0.0, email.utils.parsedate_to_datetime(header).timestamp() - time.time()
        )  # fmt: skip
    except (ValueError, TypeError, OverflowError):
        return None


def _is_about_tls(error: BaseException | None) -> bool:
    while error is not None:
        if isinstance(error, ssl.SSLError) or "SSL" in type(error).__name__:
            return True
        error = error.__cause__ or error.__context__
    return False
