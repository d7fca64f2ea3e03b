"""A small OpenAI-compatible server on the loopback, in a thread of the test, with faults on order."""

import json
import re
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

MODEL, KEY = "a-model", "sk-zebra-1234"

Fault = Callable[["Handler"], Any]


@dataclass
class Server:
    """What the server does, and what it was asked.

    Attributes:
        text: from the number of a request, counted from 0, and its prompt, the text that it answers with.
        faults: one is taken by each request as long as there are some; None answers well.
        key: asked for where it is not None.
        seconds: how long an answer takes.
        usage: whether answers say how many tokens they have.
        asked: path and body of every request, in the order of their arrival.
        answered: the texts of all good answers.
        most: the highest number of requests at the same time.
    """

    text: Callable[[int, str], str] = lambda number, prompt: (
        f" text number {number} about a harbour\n{'Label' if 'Label:' in prompt else 'Text'}: more"
    )
    faults: list[Fault | None] = field(default_factory=list)
    key: str | None = None
    seconds: float = 0.0
    usage: bool = True
    asked: list[tuple[str, dict[str, Any]]] = field(default_factory=list)
    answered: list[str] = field(default_factory=list)
    headers: list[dict[str, str]] = field(default_factory=list)
    times: list[float] = field(default_factory=list)
    most: int = 0
    address: str = ""
    lock: threading.Lock = field(default_factory=threading.Lock)
    now: int = 0


class Handler(BaseHTTPRequestHandler):
    """Answers /v1/completions and /v1/chat/completions."""

    protocol_version = "HTTP/1.1"
    state: Server

    def log_message(self, *_: Any) -> None: ...

    def do_POST(self) -> None:
        state = self.state
        content = self.rfile.read(int(self.headers["Content-Length"]))
        self.body = json.loads(content)
        with state.lock:
            self.number = len(state.asked)
            state.asked.append((self.path, self.body))
            state.headers.append(dict(self.headers))
            state.times.append(time.monotonic())
            state.now += 1
            state.most = max(state.most, state.now)
            fault = state.faults.pop(0) if state.faults else None
        try:
            if state.key is not None and self.headers["Authorization"] != f"Bearer {state.key}":
                said = {"message": f"Incorrect API key provided: {self.headers['Authorization']}"}
                self.answer(401, {"error": said})
            elif fault is not None:
                fault(self)
            elif self.body["model"] != MODEL:
                self.answer(404, {"error": {"message": f"The model `{self.body['model']}` does not exist."}})
            else:
                self.answer_well()
        except ConnectionError:
            pass  # the one who asked was killed
        finally:
            with state.lock:
                state.now -= 1

    def answer_well(self) -> None:
        """A completion in the form that was asked for; like many servers, with no respect for the stop mark."""
        state, chat = self.state, self.path == "/v1/chat/completions"
        if not chat and self.path != "/v1/completions":
            self.answer(404, {"detail": "Not Found"})
            return
        prompt = self.body["messages"][0]["content"] if chat else self.body["prompt"]
        text = state.text(self.number, prompt)
        time.sleep(state.seconds)
        choice = {"message": {"role": "assistant", "content": text}} if chat else {"text": text}
        used = {"prompt_tokens": len(prompt) // 4, "completion_tokens": 7}
        self.answer(200, {"choices": [choice | {"finish_reason": "stop"}]} | ({"usage": used} if state.usage else {}))
        with state.lock:
            state.answered.append(text)

    def answer(self, status: int, document: Any, headers: dict[str, str] | None = None) -> None:
        """Any answer: a document, or bytes as they are."""
        content = document if isinstance(document, bytes) else json.dumps(document).encode()
        self.send_response(status)
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def drop(self) -> None:
        """Resets the connection."""
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.connection.close()
        self.close_connection = True


def status(code: int, document: Any = b"", **headers: str) -> Fault:
    """An answer with a status, perhaps with headers (retry_after for Retry-After)."""
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return lambda handler: handler.answer(code, document, named)


def dropped(handler: Handler) -> None:
    """A connection that is reset before the answer."""
    handler.drop()


def cut_off(handler: Handler) -> None:
    """A connection that is reset in the middle of the answer."""
    handler.send_response(200)
    handler.send_header("Content-Length", "1000")
    handler.end_headers()
    handler.wfile.write(b'{"choices": [')
    handler.drop()


def slow(seconds: float) -> Fault:
    """A good answer that takes its time."""

    def late(handler: Handler) -> None:
        time.sleep(seconds)
        handler.answer_well()

    return late


def trickling(seconds: float) -> Fault:
    """An answer that never ends, a byte at a time."""

    def trickles(handler: Handler) -> None:
        handler.send_response(200)
        handler.send_header("Content-Length", "1000")
        handler.end_headers()
        for _ in range(1000):
            handler.wfile.write(b" ")
            time.sleep(seconds)

    return trickles


def placeholders(prompt: str) -> list[int]:
    """The numbers of the texts that a prompt shows."""
    return [int(number) for number in re.findall(r"text number (\d+)", prompt)]


@contextmanager
def serving(**state: Any) -> Iterator[Server]:
    """A server that runs while the block does."""
    served = Server(**state)

    class Own(Handler):
        pass

    Own.state = served
    server = ThreadingHTTPServer(("127.0.0.1", 0), Own)
    server.daemon_threads = True
    # connections that are reset say so otherwise
    server.handle_error = lambda *_: None
    served.address = f"http://127.0.0.1:{server.server_port}/v1"
    thread = threading.Thread(target=lambda: server.serve_forever(poll_interval=0.02), daemon=True)
    thread.start()
    try:
        yield served
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
