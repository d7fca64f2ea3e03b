"""Audits of a run on disk, and of a new run with canaries."""

import functools
import secrets
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from plainchant import models
from plainchant.auditing.attacks import FALSE_POSITIVES, LONG_RUN, attacks, copied
from plainchant.auditing.canaries import CANARIES, Canary, exposure, plant_again
from plainchant.auditing.replay import Replay, Steps, part_of, record_steps, replay, replay_deal
from plainchant.config import PerformanceOptions, SynthesisConfig
from plainchant.data.embedding import Embedder, load_embedder
from plainchant.data.tables import Record, fingerprint
from plainchant.errors import ConfigError, DataError, PrivacyError
from plainchant.evaluation.figures import Figure, Figures
from plainchant.evaluation.runs import directory_of
from plainchant.generation.decoding import BatchWork
from plainchant.generation.prompting import Prompts
from plainchant.models import LanguageModel
from plainchant.planning import Plan, make_plan
from plainchant.randomness import SystemRandomness
from plainchant.run.inputs import read_table
from plainchant.run.progress import NoProgress, Progress
from plainchant.run.released import Released
from plainchant.run.rounds import context_of
from plainchant.run.store import RunDirectory
from plainchant.run.synthesis import synthesize

# Sequences per side and steps of a replay of a run's batch.
RUNS, STEPS = 100_000, 24
# Batches of a deal that a replay looks at; a claim about all of them holds for some.
DEALT = 2
# Maximum number of records on each side of membership inference.
MEMBERS = 2_000
# Share of the held-out texts that may stand in the table too, as short ones do by chance.
MOST_SHARED = 0.01
EXPLANATIONS: Mapping[str, str] = {
    "copied": f"texts with {LONG_RUN} words or more in a row from private text, more than chance explains",
    "private_mean_run": "longest run of words in common with private text, mean over texts",
    "private_longest_run": "longest run of words in common with private text, over all texts",
    "private_sample_mean_run": "the mean with as much private text as there is held-out text",
    "held_out_mean_run": "the mean with held-out text, which cannot have been copied",
    "similarity_auc": "0.5: similarity to the release does not distinguish records of the data from others",
    "similarity_tpr": "share of records found at a false-alarm rate of 1 %; 0.01 by chance",
    "likelihood_auc": "0.5: likelihood under the release does not distinguish them either",
    "likelihood_tpr": "share of records found at a false-alarm rate of 1 %; 0.01 by chance",
    "extracted_numbers": "share of canaries whose number leaked",
    "extracted_names": "share of canaries whose name leaked",
    "exposure": "bits by which a canary is more likely than a random one",
    "exposure_by_chance": "expected exposure if the canaries had no influence",
    "epsilon_low": "lower bound on ε of one batch or deal, from drawing its texts again with and without a record",
    "epsilon_claimed": "what the mechanism claims for these tokens",
    "epsilon_limit": "the largest bound that this many runs can show",
}


# A run on disk


class Audit(Figures):
    """The groups "copied", "membership", "canaries" and "replay"; a group without its inputs is missing."""

    @property
    def verdict(self) -> str:
        """What the attacks that were tried have found, in a line. Private.

        >>> Audit({"copied": {"copied": Figure(0.0, 0.0, 0.1)}}).verdict
        'copies: none found; membership: not tried, without held-out texts'
        """
        copies, low, claimed = (self.figure(name) for name in ("copied", "epsilon_low", "epsilon_claimed"))
        said = []
        if copies is not None:
            said.append("copies: " + (f"{copies.value:.2%} of the texts" if copies.value else "none found"))
        said.append(f"membership: {_of_membership(self.groups.get('membership', {}))}")
        if canaries := self.groups.get("canaries"):
            leaked = any(canaries[name].value for name in ("extracted_numbers", "extracted_names"))
            said.append("canaries: " + ("leaked" if leaked else "none leaked"))
        if low is not None and claimed is not None:
            most = f"ε of at least {low.value:.3g}, {claimed.value:.3g} claimed"
            said.append(f"replay: {most}" + ", so the claim is refuted" * (low.value > claimed.value))
        return "; ".join(said)


_ALIKE = ", if the held-out texts are of the same kind and time as the table"


def _of_membership(figures: Mapping[str, Figure]) -> str:
    """Whether any of the attacks does better than chance, by its interval."""
    if not figures:
        return "not tried, without held-out texts"

    def bounds(figure: Figure) -> tuple[float, float]:
        return (
            figure.value if figure.low is None else figure.low,
            figure.value if figure.high is None else figure.high,
        )

    told = [bounds(figure) for name, figure in figures.items() if name.endswith("_auc")]
    found = [bounds(figure) for name, figure in figures.items() if name.endswith("_tpr")]
    low, high = max(told)
    if low > 0.5:
        return f"better than chance ({low:.3f} to {high:.3f}, where 0.5 is chance){_ALIKE}"
    low, high = max(found)
    if low > FALSE_POSITIVES:
        told_by = f"{low:.3f} to {high:.3f} of the records found, where {FALSE_POSITIVES:g} is chance"
        return f"better than chance ({told_by}){_ALIKE}"
    low, high = min(low for low, _ in told), max(high for _, high in told)
    return f"no better than chance ({low:.2f} to {high:.2f})"


def audit(
    run: Any,
    real: Any,
    *,
    held_out: Any = None,
    embedder: Embedder | None = None,
    load_model: Callable[[], LanguageModel] | None = None,
    progress: Callable[[float], None] | None = None,
    before_replay: Callable[[Audit], None] | None = None,
) -> Audit:
    """Attacks a finished run with what its owner has. Reads private data; the figures are private.

    Args:
        run: a `Run`, a `FinishedRun`, a `RunDirectory` or a path.
        real: the table that the run was made from (see `data.read_records`), without canaries. Of a run on a secret
            sample, only what is in the sample is attacked and held in memory.
        held_out: a table of similar texts that were not in it; needed for membership.
        embedder: needed with `held_out`.
        load_model: returns the run's language model; called only if there is something to replay.
        progress: receives the share of the work done.
        before_replay: receives what was found before the replay, which takes longest.

    Raises:
        ConfigError, DataError: there is no such run, no release or no such table, or it is not the run's; or texts of
            `held_out` stand in it.
    """
    directory = directory_of(run)
    plan = make_plan(directory.config)
    config, report_progress = plan.config, progress or (lambda _: None)

    if not config.has_text:
        raise ConfigError(f"method = {config.method.value}: its release has no texts that an audit could attack")
    looked_at, canaries = _looked_at(directory, real, config)
    if config.reads_records and directory.origin.data != fingerprint(looked_at):
        raise DataError("real: is not the table that the run was made from; membership and copies would mean nothing")
    planted = {canary.text for canary in canaries}
    texts = [row["text"] for row in directory.released() if row["text"].strip()]
    private = [record.text for record in looked_at if record.text.strip() and record.text not in planted]
    others = _held_out_texts(held_out, looked_at, config)
    report_progress(0.1)
    groups = {"copied": copied(texts, private, others)}
    report_progress(0.3)
    if others and embedder is not None:
        size = min(len(private), len(others), MEMBERS)
        generator = np.random.default_rng(0)
        members, non_members = (
            [own[row] for row in generator.permutation(len(own))[:size]] for own in (private, others)
        )
        groups["membership"] = attacks(texts, members, non_members, embedder)
    report_progress(0.6)
    if canaries:
        groups["canaries"] = exposure(canaries, texts)
    # no unit of a small table may have drawn a batch that writes
    if load_model is not None and plan.mechanism.replayable and directory.members():
        if before_replay is not None:
            before_replay(Audit(groups))
        report_replay = functools.partial(part_of, report_progress, 0.6, 1.0)
        found = replay_of(directory, plan, looked_at, load_model(), progress=report_replay)
        names = ("epsilon_low", "epsilon_claimed", "epsilon_limit")
        groups["replay"] = {name: Figure(value) for name in names if (value := getattr(found, name)) is not None}
    report_progress(1.0)
    return Audit(groups)


def _looked_at(directory: RunDirectory, real: Any, config: SynthesisConfig) -> tuple[list[Record], list[Canary]]:
    """The records that a run looked at, canaries among them, and the canaries of the whole table."""
    sample, noted = directory.sample(), directory.read_private(CANARIES)
    if noted is None:
        return read_table(real, config, sample), []
    planted, canaries = plant_again(read_table(real, config), config.label_set, noted)
    return read_table(planted, config, sample), canaries


def _held_out_texts(held_out: Any, records: Sequence[Record], config: SynthesisConfig) -> list[str]:
    """The held-out texts; refuses those of the table, with which membership would look like chance."""
    if held_out is None:
        return []
    others = [record.text for record in read_table(held_out, config) if record.text.strip()]
    private = {" ".join(record.text.split()) for record in records}
    shared = sum(" ".join(text.split()) in private for text in others)
    if shared > MOST_SHARED * len(others):
        raise DataError(
            f"held_out: more than {MOST_SHARED:.0%} of its texts stand in the private table too, so that membership "
            "would look like chance; leave out those that stand in both, standard phrases too, or give other texts"
        )
    return others


def audit_with_canaries(
    real: Any,
    plan: Plan,
    *,
    out: str | Path,
    count: int = 20,
    repetitions: int = 1,
    resume: bool = False,
    allow_not_private: bool = False,
    performance: PerformanceOptions | None = None,
    held_out: Any = None,
    replay: bool = True,
    model: LanguageModel | None = None,
    embedder: Embedder | None = None,
    progress: Progress | None = None,
) -> Audit:
    """Plants canaries in the table, makes a separate run from it and attacks that run.

    The run spends privacy budget of the same records as other runs on them. It is for the audit only: do not share its
    release. Its private/ records which canaries were planted.

    Args:
        real: the private table, without canaries (see `data.read_records`).
        plan: from `plan(config)`.
        out: the directory of the run with canaries.
        count: canaries to plant; a resumed run keeps the number that it was started with.
        repetitions: records per canary; likewise.
        resume: continue the run in `out`.
        allow_not_private: needed where the plan has no guarantee.
        performance: device, dtype and width.
        held_out: as for `audit`.
        replay: whether to replay a batch, where ε was promised.
        model: a loaded model, used instead of the configured name.
        embedder: likewise, for membership.
        progress: receives the progress of both parts.

    Raises:
        ConfigError, DataError, PrivacyError, RunError: as `synthesize` and `audit`; or `out` holds no canaries to
            resume with; or an endpoint would be sent what follows from the records, which no ledger counts here.
    """
    performance, progress = performance or PerformanceOptions(), progress or NoProgress()
    if plan.config.sends_released:
        # sending is releasing (guarantee 8.4), and an audit's run is not to be released
        raise PrivacyError(
            f"candidate_endpoint = {plan.config.candidate_endpoint}: an audit's run would be released by sending it "
            "there, and no ledger counts it; audit with a local candidate_model, or attack a finished run instead"
        )
    # once: an iterator can be read no more often, and a large table is slow to read
    records = read_table(real, plan.config)
    if held_out is not None:
        # before anything is spent
        _held_out_texts(held_out, records, plan.config)
    load = functools.cache(lambda: model or models.load(plan.config.model, performance))
    # workers load their own, and a given one is refused there
    is_loaded_here = plan.config.needs_model and performance.executor != "ray"
    directory = _run_with_canaries(
        records, plan, Path(out), {"count": count, "repetitions": repetitions}, resume=resume,
        allow_not_private=allow_not_private, performance=performance, model=load() if is_loaded_here else model,
        progress=progress,
    )  # fmt: skip
    if held_out is not None and embedder is None:
        embedder = load_embedder(plan.config.embedder, device=performance.device)
    return audit(
        directory, records, held_out=held_out, embedder=embedder,
        load_model=load if replay else None, progress=functools.partial(progress.stage, "auditing"),
    )  # fmt: skip


def _run_with_canaries(
    records: list[Record],
    plan: Plan,
    out: Path,
    noted: Mapping[str, int],
    *,
    resume: bool,
    allow_not_private: bool,
    performance: PerformanceOptions,
    model: LanguageModel | None,
    progress: Progress,
) -> RunDirectory:
    """A finished run on the table with canaries; the values they were made from are recorded in private/."""
    known = RunDirectory.open(out).read_private(CANARIES) if resume else {"seed": secrets.randbits(63), **noted}
    if known is None:
        raise ConfigError(f"resume: {out} holds no canaries; start a new audit in another directory")
    planted, _ = plant_again(records, plan.config.label_set, known)
    with synthesize(
        planted, plan, out=out, resume=resume, allow_not_private=allow_not_private, performance=performance,
        model=model, progress=progress, notes={CANARIES: known},
    ) as made:  # fmt: skip
        for _ in made:
            pass
    return made.directory


def replay_of(
    directory: RunDirectory,
    plan: Plan,
    table: Sequence[Record],
    model: LanguageModel,
    *,
    runs: int = RUNS,
    progress: Callable[[float], None] = lambda _: None,
) -> Replay:
    """A replay of the largest batch of a run, without its most influential record, along that record's text.

    With deals the record's batch is drawn in every replay, and the texts of two batches of its deal are looked at.
    """
    config, prompts = plan.config, Prompts(plan.config, model)
    members = directory.members()
    number = max(members, key=lambda batch: len(members[batch]))
    released = Released.of(directory)
    batches = {batch.batch: batch for batch in released.batches}
    cell = released.cells[batches[number].cell]
    label = config.label_set[cell.label]
    start = tuple(prompts.start(label, released.lines_of((number, 0))))
    mechanism, length = plan.mechanism, min(STEPS, config.head)

    def contexts_of(batch: int) -> list[list[Record]]:
        return [[table[record] for record in records] for records, _ in members.get(batch, [])]

    # logits are computed for the records as they are, then along the chosen record's text, then texts are drawn
    thirds = [functools.partial(part_of, progress, part / 3, (part + 1) / 3) for part in range(3)]

    def along(contexts: Sequence[Sequence[Record]], unit: int, progress: Callable[[float], None]) -> Steps:
        # where windows are shown, one that a run might have drawn
        shown = [context_of(prompts, own, released.rows, label, SystemRandomness()) for own in contexts]
        work = BatchWork(number, tuple(prompts.prefix(label)), start, shown, (0,))
        forced = [token for record in contexts[unit] for token in model.encode(record.text, trusted=False)]
        return record_steps(model, mechanism, work, forced[: length - 1], progress=progress)

    def moved(steps: Steps, unit: int) -> float:
        rows = (
            logits[unit] - public[ids]
            for logits, public, ids in zip(steps.private, steps.public, steps.ids, strict=True)
        )
        return float(sum(np.ptp(row) for row in rows))

    contexts = contexts_of(number)
    first = along(contexts, 0, thirds[0])
    most = max(range(len(contexts)), key=lambda unit: moved(first, unit))
    payment = batches[number].payment
    if payment is None:
        steps = along(contexts, most, thirds[1])
        return replay(mechanism, steps, most, runs=runs, randomness=SystemRandomness, progress=thirds[2])
    others = [
        batch.batch
        for batch in batches.values()
        if (batch.cell, batch.deal) == (batches[number].cell, batches[number].deal) and batch.batch != number
    ][: DEALT - 1]
    # the record stands last in every other batch that it could have drawn
    seen = [(contexts, most), *(([*contexts_of(other), contexts[most]], len(contexts_of(other))) for other in others)]
    dealt = [
        along(own, unit, functools.partial(part_of, thirds[1], place / len(seen), (place + 1) / len(seen)))
        for place, (own, unit) in enumerate(seen)
    ]
    return replay_deal(
        mechanism.for_budget(payment), dealt, [unit for _, unit in seen], among=cell.batches, payment=payment,
        runs=runs, randomness=SystemRandomness, progress=thirds[2],
    )  # fmt: skip
