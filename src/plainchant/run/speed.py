"""How fast this machine is with a model: measured once, kept in the user's cache, read by plans. Nothing private."""

import dataclasses
import json
import math
import os
import platform
import resource
import sys
import time
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

from plainchant.config import PerformanceOptions
from plainchant.data.embedding import Embedder
from plainchant.data.files import PRIVATE, cache_folder, write_json
from plainchant.models import LanguageModel
from plainchant.planning import Plan

# Texts sampled from the public model where the user names no corpus to cluster around.
SAMPLED_CORPUS = 400
# A measurement: tokens of a prompt, steps, and ids whose logits a private step needs.
PROMPT_TOKENS, STEPS, SUPPORT = 100, 8, 1000
_FILE = "speed.json"
# What an embedder is measured on: so many texts, with as many tokens as forty words have.
MEASURED_TEXTS = 64


@dataclass(frozen=True)
class Speed:
    """What a model does here.

    Attributes:
        prompt_tokens: tokens of prompts read per second.
        private_rows: rows per second of a pass that needs the logits of a small support.
        public_rows: rows per second of a pass that needs all logits.
        rows: rows of a pass when this was measured.
        load: seconds to load the model.
        token_bytes: bytes of cache per token of a row.
        process_bytes: peak memory of a process that has loaded the model and measured this.
        measured: the day.
    """

    prompt_tokens: float
    private_rows: float
    public_rows: float
    rows: int
    load: float
    token_bytes: int
    process_bytes: int
    measured: str


def measure_speed(model: LanguageModel, performance: PerformanceOptions, *, load: float) -> Speed:
    """Measures a loaded model on made-up rows.

    Args:
        model: the language model.
        performance: the width of a pass.
        load: seconds that loading took.
    """
    token = model.encode(" text", trusted=False)[0]
    prefix = model.prefill(model.start_tokens or (token,))
    room = 2 + 2 * STEPS
    began = time.perf_counter()
    rows = model.open_rows(prefix, [[token] * PROMPT_TOKENS] * performance.width, room=room)
    # the first step reads the prompts
    model.step([(rows, token)])
    filled = time.perf_counter()
    for _ in range(STEPS):
        model.step([(rows, token)])
    public = time.perf_counter()
    support = [np.arange(min(SUPPORT, model.vocabulary_size))]
    for _ in range(STEPS):
        model.step([(rows, token)], support)
    done = time.perf_counter()
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
    return Speed(
        prompt_tokens=performance.width * PROMPT_TOKENS / (filled - began),
        private_rows=performance.width * STEPS / (done - public),
        public_rows=performance.width * STEPS / (public - filled),
        rows=performance.width,
        load=load,
        token_bytes=(model.row_bytes(2 * PROMPT_TOKENS) - model.row_bytes(PROMPT_TOKENS)) // PROMPT_TOKENS,
        process_bytes=memory,
        measured=datetime.now(UTC).date().isoformat(),
    )


def measure_embedder(embedder: Embedder) -> float:
    """Texts per second that a loaded embedder turns into vectors, on made-up ones as long as forty words."""
    texts = [" ".join(f"word{number}-{place}" if place % 9 else "a short line of" for place in range(12))
             for number in range(MEASURED_TEXTS)]  # fmt: skip
    embedder.encode(texts[:2], alone=True)
    began = time.perf_counter()
    # each by itself, as records are
    embedder.encode(texts, alone=True)
    return len(texts) / (time.perf_counter() - began)


# the cache


def _key(model: str, performance: PerformanceOptions) -> str:
    """One measurement per machine, model and way to compute; a home may be shared by several machines."""
    return json.dumps([platform.node(), os.cpu_count(), model, performance.device, performance.dtype])


def _embedder_key(embedder: str, performance: PerformanceOptions) -> str:
    return json.dumps([platform.node(), os.cpu_count(), "embedder", embedder, performance.device])


def keep_speed(model: str, performance: PerformanceOptions, speed: Speed) -> Path | None:
    """Keeps a measurement in the user's cache; returns its file, or None where that cannot be written."""
    return _keep(_key(model, performance), dataclasses.asdict(speed))


def keep_embedding_speed(embedder: str, performance: PerformanceOptions, rate: float) -> Path | None:
    """Keeps how many texts per second an embedder does here; as `keep_speed`."""
    return _keep(_embedder_key(embedder, performance), {"texts": rate})


def _keep(key: str, found: dict[str, Any]) -> Path | None:
    path = cache_folder() / _FILE
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        write_json(path, _kept(path) | {key: found}, mode=PRIVATE)
    except OSError:
        return None
    return path


def kept_speed(model: str, performance: PerformanceOptions) -> Speed | None:
    """The kept measurement of a model on this machine; None where there is none."""
    try:
        return Speed(**_kept(cache_folder() / _FILE)[_key(model, performance)])
    except (KeyError, TypeError):
        return None


def kept_embedding_speed(embedder: str, performance: PerformanceOptions) -> float | None:
    """Texts per second of an embedder on this machine; None where it was not measured."""
    try:
        rate = float(_kept(cache_folder() / _FILE)[_embedder_key(embedder, performance)]["texts"])
    except (KeyError, TypeError, ValueError):
        return None
    return rate if math.isfinite(rate) and rate > 0 else None


def _kept(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}


# what a plan takes


def samples_corpus(plan: Plan) -> bool:
    """Whether the run samples a public corpus from the model first: a single centre needs none."""
    return plan.centres not in (None, 1) and plan.config.public_corpus is None


@dataclass(frozen=True)
class Expected:
    """What a run takes here, about; without loading and votes.

    Attributes:
        corpus: seconds to sample a public corpus; 0 where none is sampled.
        embedding: seconds to embed records and candidates; None where one of the two is not known.
        texts: seconds to write the texts.
        memory: GiB.
    """

    corpus: float
    embedding: float | None
    texts: float
    memory: float


def forecast(plan: Plan, performance: PerformanceOptions) -> Expected | None:
    """What a run of a plan takes here, as far as this machine was measured; None where the model was not."""
    config, speed = plan.config, kept_speed(plan.config.model, performance)
    return None if speed is None else expected(plan, speed, kept_embedding_speed(config.embedder, performance))


def expected(plan: Plan, speed: Speed, embeddings: float | None = None) -> Expected:
    """What a run of a plan takes on the machine that was measured, if all texts have their maximum length.

    Args:
        plan: of the run; where it names `expected_units`, each is taken for one record.
        speed: the model's.
        embeddings: texts per second of the embedder, or None.
    """
    config, size = plan.config, plan.settings.batch_size
    steps, tails = config.written * config.head, config.written * (config.max_tokens - config.head)
    contexts = (plan.batches_needed or config.written) * size if plan.mechanism.needs_private else 0
    reads = contexts * config.max_record_tokens / 2
    private = steps * size / speed.private_rows if plan.mechanism.needs_private else 0.0
    public = (steps + tails + config.further * config.max_tokens) / speed.public_rows
    corpus = SAMPLED_CORPUS * config.max_tokens / speed.public_rows if samples_corpus(plan) else 0.0
    rows = max(size, speed.rows)
    context = PROMPT_TOKENS + config.max_record_tokens + config.max_tokens * (1 + config.parts.released_examples)
    memory = (speed.process_bytes + rows * context * speed.token_bytes) / 2**30
    return Expected(corpus, _embedding(plan, embeddings), private + public + reads / speed.prompt_tokens, memory)


def _embedding(plan: Plan, rate: float | None) -> float | None:
    """Seconds to embed what is grouped or voted on."""
    config = plan.config
    if not (config.clustered or config.votes):
        return 0.0
    if rate is None or config.expected_units is None:
        return None
    candidates = config.written + config.further if config.votes else 0
    return (config.expected_units * plan.sample_rate + candidates) / rate


def duration(seconds: float) -> str:
    """A duration for reading, rounded up.

    >>> duration(40), duration(100), duration(4000), duration(200_000)
    ('less than a minute', 'about 2 minutes', 'about 67 minutes', 'about 56 hours')
    """
    if seconds < 60:
        return "less than a minute"
    minutes = math.ceil(seconds / 60)
    return f"about {minutes} minutes" if minutes < 180 else f"about {math.ceil(seconds / 3600)} hours"
